/* gemm_hopper.cu - linear layers of up to GEMM_HOPPER_TOK tokens on compute capability 9.0.
 *
 * Weights are the M side of the matrix units, tokens the N side. A cluster has a tile of rows of
 * one product, each block of it a part of the columns, so that many blocks read at once and each
 * reads little of x; the sums of the parts meet in shared memory, in the order of the blocks, which
 * is the same for any number of tokens. One thread of a block keeps a ring of stages of 64 columns
 * filled, a warpgroup multiplies 64 rows. Weights depend on nothing: the ring is full of them
 * before the kernel may read x. Bound by the reading of the weights. */
#include "hopper.cuh"

#define K      64                          /* columns of a stage: 128 bytes of a row */
#define BOX    64                          /* rows of a warpgroup */
#define BOXES  2                           /* of a tile */
#define GROUPS (BOXES * 128)               /* threads that multiply; one more warp copies */
#define RING   (176 << 10)                 /* bytes, at most: one block an SM, and beside it those
                                              of small kernels, so that all can start early */

/* Tiles first[i] .. first[i+1]-1 are of matrix i; with act those of 0 have 64 rows of gate and the
 * same of up, and 1 has none. */
struct args {
    CUtensorMap   w[LINEAR_MAX], x[LINEAR_MAX];
    struct linear l;
    int32_t       first[LINEAR_MAX + 1];
};

template <int n> struct stage { bf16 w[BOXES][BOX][K], x[n][K]; };

/* sum: once the ring is no longer used, of each token what this block has of the tile's rows; the
 * gap spreads the words that a warp writes at once over all banks. */
template <int n> struct smem {
    static constexpr int depth = RING / (int) sizeof(stage<n>);

    union {
        struct stage<n> ring[depth];
        float           sum[n][BOXES * BOX + 4];
    };
    uint64_t full[depth], empty[depth];
};

/* Where a block works: tile of matrix i, stages from .. to-1. */
struct place { int i, tile, from, to; bool pair; };

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ static inline struct place place_of(const struct args &a)
{
    int y = blockIdx.y, i = y >= a.first[2] ? 2 : y >= a.first[1] ? 1 : 0;
    int n_k = (a.l.g[0].w.cols + K - 1) / K, rank = blockIdx.x, split = gridDim.x;

    return { i, y - a.first[i], n_k * rank / split, n_k * (rank + 1) / split,
             a.l.act != NULL && i == 0 };
}

/* Says what all of the stage will be, so that x may come later. */
template <int n>
__device__ static inline void load_weights(const struct args &a, const struct place &at,
                                           struct smem<n> *sm, int stage, int k)
{
    barrier_arrive_expect(&sm->full[stage], (int) sizeof(sm->ring[0]));
    #pragma unroll
    for (int b = 0; b < BOXES; b++) {
        int i = at.pair ? b : at.i;
        int row = at.pair ? at.tile * BOX : (at.tile * BOXES + b) * BOX;

        box_copy(sm->ring[stage].w[b], &a.w[i], &sm->full[stage], row, k * K);
    }
}

/* One thread. */
template <int n>
__device__ static inline void produce(const struct args &a, const struct place &at,
                                      struct smem<n> *sm)
{
    constexpr int depth = smem<n>::depth;
    int n_k = at.to - at.from;

    for (int j = 0; j < depth && j < n_k; j++)
        load_weights(a, at, sm, j, at.from + j);
    wait_for_others();
    for (int j = 0; j < n_k; j++) {
        int stage = j % depth;

        if (j >= depth) {
            barrier_wait(&sm->empty[stage], j / depth % 2 ^ 1);
            load_weights(a, at, sm, stage, at.from + j);
        }
        box_copy_shared(sm->ring[stage].x, &a.x[at.i], &sm->full[stage], 0, (at.from + j) * K);
    }
}

/* The products of this warpgroup's rows and its block's columns, to shared memory. */
template <int n>
__device__ static inline void consume(const struct place &at, struct smem<n> *sm)
{
    constexpr int depth = smem<n>::depth;
    int group = threadIdx.x / 128, lane = threadIdx.x % 32;
    int row = threadIdx.x / 32 * 16 + lane / 4, tok = lane % 4 * 2;
    float c[n / 2] = {};

    for (int j = 0; j < at.to - at.from; j++) {
        struct stage<n> *s = &sm->ring[j % depth];
        uint64_t w = wgmma_tile(s->w[group]), x = wgmma_tile(s->x);

        barrier_wait(&sm->full[j % depth], j / depth % 2);
        wgmma_begin();
        #pragma unroll
        for (int i = 0; i < K / 16; i++)
            wgmma<n>(c, w + 2 * i, x + 2 * i);
        wgmma_commit();
        wgmma_wait<0>();                   /* other warpgroups keep the matrix units busy */
        if (lane == 0)
            barrier_arrive(&sm->empty[j % depth]);
    }

    group_sync(1, GROUPS);                 /* nobody uses the ring any more */
    #pragma unroll
    for (int j = 0; j < n / 8; j++)
        #pragma unroll
        for (int i = 0; i < 4; i++)
            sm->sum[j * 8 + tok + i % 2][row + i / 2 * 8] = c[4 * j + i];
}

/* Four rows of one token, over the blocks of the cluster. */
__device__ static inline float4 sum_of(const float *part, int split)
{
    float4 v[GEMM_SPLIT_MAX], sum = make_float4(0, 0, 0, 0);

    #pragma unroll
    for (int r = 0; r < GEMM_SPLIT_MAX; r++)
        if (r < split)
            v[r] = *(const float4 *) of_block(part, r);
    #pragma unroll
    for (int r = 0; r < GEMM_SPLIT_MAX; r++)
        if (r < split)
            sum = add4(sum, v[r]);
    return sum;
}

/* Outputs o .. o+3 of a token: as far as there are any. */
__device__ static inline void put(float *y, int64_t at, int64_t left, bool whole, float4 v)
{
    const float one[4] = { v.x, v.y, v.z, v.w };

    if (whole)
        *(float4 *) (y + at) = v;
    else
        for (int i = 0; i < 4 && i < left; i++)
            y[at + i] = one[i];
}

__device__ static inline void put_act(bf16 *y, int64_t at, int64_t left, bool whole, float4 g,
                                      float4 u)
{
    const float one[4] = { gelu_mul(g.x, u.x), gelu_mul(g.y, u.y), gelu_mul(g.z, u.z),
                           gelu_mul(g.w, u.w) };

    if (whole)
        *(uint2 *) (y + at) = make_uint2(pack_bf16(one[0], one[1]), pack_bf16(one[2], one[3]));
    else
        for (int i = 0; i < 4 && i < left; i++)
            y[at + i] = __float2bfloat16(one[i]);
}

/* The tile's outputs: each block of the cluster takes some of the tokens. */
template <int n>
__device__ static inline void finish(const struct args &a, const struct place &at,
                                     const struct smem<n> *sm)
{
    const struct gemm &g = a.l.g[at.i];
    int outs = at.pair ? BOX : BOXES * BOX;
    bool whole = g.w.rows % 4 == 0;

    for (int i = threadIdx.x; ; i += GROUPS) {
        int tok = i / (outs / 4) * gridDim.x + blockIdx.x, o = i % (outs / 4) * 4;
        int64_t out = (int64_t) at.tile * outs + o, left = g.w.rows - out;

        if (tok >= g.n_row)
            return;
        if (left <= 0)
            continue;
        if (at.pair) {
            const float *gate = &sm->sum[tok][o];

            put_act((bf16 *) a.l.act, tok * g.w.rows + out, left, whole,
                    sum_of(gate, gridDim.x), sum_of(gate + BOX, gridDim.x));
        } else {
            put(g.y, tok * g.w.rows + out, left, whole, sum_of(&sm->sum[tok][o], gridDim.x));
        }
    }
}

#endif

template <int n>
static __global__ void __launch_bounds__(GROUPS + 32, 1)
linear_kernel(const __grid_constant__ struct args a)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char raw[];
    struct smem<n> *sm = (struct smem<n> *) raw;
    struct place at = place_of(a);

    if (threadIdx.x == GROUPS) {
        map_prefetch(&a.w[at.i]);
        map_prefetch(&a.x[at.i]);
        for (int i = 0; i < sm->depth; i++) {
            barrier_init(&sm->full[i], 1);
            barrier_init(&sm->empty[i], GROUPS / 32);  /* warps that multiply */
        }
        barrier_init_done();
    }
    next_may_start();
    __syncthreads();
    if (threadIdx.x == GROUPS)
        produce(a, at, sm);
    if (threadIdx.x >= GROUPS)
        return;
    wait_for_others();                     /* each thread that writes */
    consume(at, sm);
    cluster_sync();
    finish(a, at, sm);
    cluster_sync();                        /* others may still read what this block has */
#endif
}

template <int n> static void launch(const struct args *a, int32_t split, gpu_stream s)
{
    dim3 grid((unsigned) split, (unsigned) a->first[LINEAR_MAX]);

    launch_clusters(linear_kernel<n>, grid, grid.x, GROUPS + 32, sizeof(smem<n>), s, *a);
}

template <int n> static bool allow()
{
    return allow_smem(linear_kernel<n>, sizeof(smem<n>));
}

bool gemm_hopper_open(struct hopper *h)
{
    bool ok = allow<16>() && allow<32>() && allow<64>() && allow<128>();

    for (unsigned i = 1; i <= GEMM_SPLIT_MAX && ok; i++) {
        cudaLaunchAttribute attr = {};
        cudaLaunchConfig_t c = {};

        attr.id = cudaLaunchAttributeClusterDimension;
        attr.val.clusterDim.x = i;
        attr.val.clusterDim.y = attr.val.clusterDim.z = 1;
        c.gridDim = dim3(i);
        c.blockDim = dim3(GROUPS + 32);
        c.dynamicSmemBytes = sizeof(smem<64>);
        c.attrs = &attr;
        c.numAttrs = 1;
        ok = cudaOccupancyMaxActiveClusters(&h->room[i], linear_kernel<64>, &c) == cudaSuccess;
    }
    return ok && h->room[1] > 0;
}

/* Tiles of all products. */
static int32_t lay_tiles(struct args *a, const struct linear *l)
{
    for (int i = 0; i < LINEAR_MAX; i++) {
        int64_t rows = i < l->n ? l->g[i].w.rows : 0;

        if (l->act != NULL && i < 2)
            rows = i == 0 ? 2 * ceil_div(rows, BOX) * BOX : 0;
        a->first[i + 1] = a->first[i] + (int32_t) ceil_div(rows, BOXES * BOX);
    }
    return a->first[LINEAR_MAX];
}

/* Blocks of a cluster: the most with which all clusters run at once; 0: there are too many tiles
 * even for one. The number of rows does not matter: it must not change the order of a sum. */
static int32_t split_of(const struct hopper *h, int32_t tiles, int32_t n_k)
{
    int32_t split = GEMM_SPLIT_MAX < n_k ? GEMM_SPLIT_MAX : n_k;

    while (split > 0 && tiles > h->room[split])
        split--;
    return split;
}

static bool fits(const struct linear *l, const struct hopper *h)
{
    const struct gemm *g = l->g;

    if (h->n_sm == 0 || g[0].n_row > GEMM_HOPPER_TOK || g[0].w.cols % 8 != 0
        || (uintptr_t) l->act % 16 != 0)
        return false;
    for (int i = 0; i < l->n; i++)
        if (((uintptr_t) g[i].w.p | (uintptr_t) g[i].x | (uintptr_t) g[i].y) % 16 != 0)
            return false;
    return l->act == NULL || (g[0].x == g[1].x && g[0].w.rows == g[1].w.rows);
}

int gemm_hopper_cuda(const struct linear *l, const struct hopper *h, gpu_stream s)
{
    int32_t n_row = l->g[0].n_row, cols = l->g[0].w.cols, split;
    int n = n_row <= 16 ? 16 : n_row <= 32 ? 32 : n_row <= 64 ? 64 : 128;
    struct args a = { .l = *l };

    if (!fits(l, h))
        return 0;
    split = split_of(h, lay_tiles(&a, l), (int32_t) ceil_div(cols, K));
    if (split == 0)
        return 0;
    for (int i = 0; i < l->n; i++) {
        map_rows(&a.w[i], h, l->g[i].w.p, l->g[i].w.rows, cols, BOX);
        map_rows(&a.x[i], h, l->g[i].x, n_row, cols, n);
    }
    if (n == 16)
        launch<16>(&a, split, s);
    else if (n == 32)
        launch<32>(&a, split, s);
    else if (n == 64)
        launch<64>(&a, split, s);
    else
        launch<128>(&a, split, s);
    return 1;
}
