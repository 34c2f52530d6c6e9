/* moe_hopper.cu - the experts' two products on compute capability 9.0, for steps of many tokens.
 *
 * Weights are the M side of the matrix units, the tokens of one expert the N side: N follows their
 * number, so few tokens waste little, and the weights, which bind, are read once. One block an SM
 * takes items (256 rows of weights of one expert x up to 160 of its tokens) from a common counter.
 * One warpgroup fills a ring of stages of 64 columns: the copy engine brings weights, its threads
 * gather the rows of tokens. Two warpgroups multiply, 128 rows each, while the ring fills for the
 * next item.
 *
 * Where experts have more tokens than that, the L2 would bind, which sends each item its weights:
 * 87 operations a byte of 256 x 128. There two blocks are a cluster, and an item has up to 320
 * tokens, half of them each block's. A block fetches half of the weights for both: 131. */
#include "hopper.cuh"
#include "moe.cuh"

#define GROUP    128                       /* threads of a warpgroup */
#define THREADS  (3 * GROUP)
#define STAGES   4
#define K        64                        /* columns of a stage: 128 bytes of a row */
#define BOX      64                        /* rows of weights that come in one copy */
#define BOXES    4
#define TOK      MOE_HOPPER_TOK            /* tokens of an item */
#define PUT_TOK  32                        /* tokens that are put at a time */
#define L2_TOK   2048                      /* whose x stays in the L2 */
#define TOLD     8                         /* STAGES + 2 or more: see produce() */
#define PRODUCER_SYNC 3                    /* ids of group_sync(); 1 and 2 are the consumers' */

/* What a block does of one. n 0: nothing, but its pair does; expert -1: the end. */
struct __align__(16) item { int expert, first, n, row; };

struct smem {
    bf16     w[STAGES][BOXES][BOX][K];
    bf16     x[STAGES][TOK][K];
    bf16     put[2][2][PUT_TOK][BOX];      /* [group, turn]: outputs on their way, swizzled */
    struct item item[STAGES];              /* whose stage it is */
    int      taken[TOLD];                  /* items to come, by turns */
    uint64_t full[STAGES], empty[STAGES], told[TOLD];      /* told: of a pair */
};

/* One of the two products. up: rows of gate and of up, ffn apart, alternate by boxes, and what is
 * put is gelu(gate) * up. down: pairs of a token and an expert lie in order. The kernel is made for
 * each of them with pair, in clusters of two blocks, and without. */
struct product {
    CUtensorMap            w;              /* [n_expert * (up ? 2 : 1) * rows, cols] */
    const bf16            *x;              /* up: [n_tok, cols], down: [pair in order, cols] */
    bf16                  *y;              /* up: [pair in order, rows], down: [pair, rows] */
    const int32_t         *order, *n_tile;
    int32_t               *taken;          /* items so far, but for the first of each cluster */
    const struct moe_tile *tile;
    int32_t                rows, cols, top_k;
    bool                   by_expert;      /* the order of items */
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Outputs of an item; a warpgroup has half of them. */
template <bool up> __device__ static constexpr int rows_of_item()
{
    return up ? BOXES * BOX / 2 : BOXES * BOX;
}

/* Which block of its pair this is. */
template <bool pair> __device__ static inline int rank_of()
{
    return pair ? blockIdx.x % 2 : 0;
}

/* All threads of the cluster. */
template <bool pair> __device__ static inline void sync()
{
    if (pair)
        cluster_sync();
    else
        __syncthreads();
}

/* This block's tokens of all that an item has: so many that both need the same N. */
__device__ static inline void share(struct item *it, int rank)
{
    int steps = (it->n + MOE_HOPPER_STEP - 1) / MOE_HOPPER_STEP;
    int part = steps * (MOE_HOPPER_STEP / 2), left = it->n - rank * part;

    it->first += rank * part;
    it->n = left < 0 ? 0 : left < part ? left : part;
}

/* Item i, if there is one. The last rows, which may be few, come last where x fits the L2. By
 * expert: its rows are neighbours, as only its own tokens are sure to be in the L2. */
template <bool up, bool pair>
__device__ static inline struct item item_at(const struct product &p, int i)
{
    int n_tile = *p.n_tile, n_row = (p.rows + rows_of_item<up>() - 1) / rows_of_item<up>();
    struct item it = { -1 };

    if (i < n_row * n_tile) {
        int4 t = *(const int4 *) &p.tile[p.by_expert ? i / n_row : i % n_tile];

        it.expert = t.x;
        it.first = t.y;
        it.n = t.z;
        it.row = (p.by_expert ? i % n_row : i / n_tile) * rows_of_item<up>();
        if (pair)
            share(&it, rank_of<pair>());
    }
    return it;
}

/* Of a pair each block fetches every other box for both. */
template <bool up, bool pair>
__device__ static inline void load_weights(const struct product &p, struct smem *sm, int stage,
                                           const struct item *it, int k)
{
    int n_box = (p.rows - it->row + BOX - 1) / BOX * (up ? 2 : 1);

    n_box = n_box < BOXES ? n_box : BOXES;
    barrier_arrive_expect(&sm->full[stage], n_box * (int) sizeof(sm->w[0][0]));
    for (int i = rank_of<pair>(); i < n_box; i += pair ? 2 : 1) {
        int row = up ? (2 * it->expert + i % 2) * p.rows + it->row + i / 2 * BOX
                     : it->expert * p.rows + it->row + i * BOX;

        if (pair)
            box_copy_pair(sm->w[stage][i], &p.w, &sm->full[stage], row, k);
        else
            box_copy(sm->w[stage][i], &p.w, &sm->full[stage], row, k);
    }
}

/* All threads of the producer: waits for the stage to be free and says whose it is. */
__device__ static inline void begin_stage(struct smem *sm, uint32_t use, const struct item *it)
{
    barrier_wait(&sm->empty[use % STAGES], use / STAGES % 2 ^ 1);
    if (threadIdx.x == 0)
        sm->item[use % STAGES] = *it;
}

/* Thread 0 of a cluster: message j is the number of item j + 1, to each of its blocks. */
template <bool pair>
__device__ static inline void tell(struct smem *sm, uint32_t j, int item)
{
    if (!pair)
        sm->taken[j % TOLD] = item;
    for (int rank = 0; pair && rank < 2; rank++)
        send(&sm->taken[j % TOLD], item, &sm->told[j % TOLD], rank);
}

/* All threads of a producer, once for each j. */
template <bool pair> __device__ static inline int hear(struct smem *sm, uint32_t j)
{
    if (!pair) {
        group_sync(PRODUCER_SYNC, GROUP);
        return sm->taken[j % TOLD];
    }
    if (threadIdx.x == 0)
        barrier_arrive_expect(&sm->told[j % TOLD], sizeof(sm->taken[0]));
    barrier_wait_sent(&sm->told[j % TOLD], j / TOLD % 2);
    return sm->taken[j % TOLD];
}

/* The producer: takes items until there are none, then says so in a last stage. A thread gathers
 * one piece of 16 bytes of every 16th token. The first block of a pair takes items for both, and
 * tells of them one item ahead, as that takes its time. Message j + 1 may not meet one that is
 * unread in its place: when it is sent, the stages of all items but the last STAGES have been
 * filled and used in both blocks. */
template <bool up, bool pair>
__device__ static inline void produce(const struct product &p, struct smem *sm)
{
    int piece = threadIdx.x % 8, row = threadIdx.x % GROUP / 8, taken = 0;
    int first = pair ? blockIdx.x / 2 : blockIdx.x, n = pair ? gridDim.x / 2 : gridDim.x;
    bool tells = threadIdx.x == 0 && rank_of<pair>() == 0;
    struct item it = item_at<up, pair>(p, first), next;
    uint32_t use = 0, j = 0, ahead = pair ? 1 : 0;     /* use, j: stages and items so far */

    if (tells) {
        if (pair)
            tell<pair>(sm, 0, atomicAdd(p.taken, 1) + n);
        taken = atomicAdd(p.taken, 1) + n;
    }
    for (; it.expert >= 0; it = next, j++) {
        uint32_t at[TOK / 16];             /* in pieces */

        if (tells)
            tell<pair>(sm, j + ahead, taken);
        next = item_at<up, pair>(p, hear<pair>(sm, j));
        if (tells)
            taken = atomicAdd(p.taken, 1) + n;

        #pragma unroll
        for (int i = 0; i < TOK / 16; i++) {
            int pos = it.first + row + 16 * i;

            if (row + 16 * i < it.n)
                at[i] = (uint32_t) (up ? p.order[pos] / p.top_k : pos) * (uint32_t) (p.cols / 8);
        }
        for (int k = 0; k < p.cols; k += K, use++) {
            int stage = use % STAGES, col = k + piece * 8;
            bool in = col < p.cols;

            begin_stage(sm, use, &it);
            if (threadIdx.x == 0)
                load_weights<up, pair>(p, sm, stage, &it, k);
            #pragma unroll
            for (int i = 0; i < TOK / 16; i++)
                if (row + 16 * i < it.n)
                    copy_async(&sm->x[stage][row + 16 * i][(piece ^ row % 8) * 8],
                               p.x + (int64_t) at[i] * 8 + (in ? col : 0), in);
            barrier_arrive_copies(&sm->full[stage]);
        }
    }
    begin_stage(sm, use, &it);
    if (threadIdx.x == 0)
        barrier_arrive(&sm->full[use % STAGES]);
    barrier_arrive(&sm->full[use % STAGES]);
    if (pair)
        hear<pair>(sm, j);                 /* nothing may be on its way to a block that ends */
}

/* This warp is done with a stage, which the copies of both blocks may fill again. */
template <bool pair> __device__ static inline void give_back(struct smem *sm, int stage)
{
    int lane = threadIdx.x % 32;

    if (lane == 0)
        barrier_arrive(&sm->empty[stage]);
    else if (lane == 1 && pair)
        barrier_arrive_at(&sm->empty[stage], rank_of<pair>() ^ 1);
}

/* This warp's 16 outputs of up to n tokens, turned so that a token is a row; v: of each 8 tokens
 * the first 8 outputs, then the others. */
__device__ static inline void turn(bf16 (*put)[BOX], const uint32_t *v, int n)
{
    int warp = threadIdx.x % GROUP / 32, lane = threadIdx.x % 32;

    for (int i = 0; i < PUT_TOK && i < n; i += 16) {
        int tok = i + lane / 16 * 8 + lane % 8, piece = 2 * warp + lane / 8 % 2;

        stmatrix_x4_trans(&put[tok][(piece ^ lane % 8) * 8], v + i / 4);
    }
}

/* One item's products and outputs, for up to n tokens; group 0 or 1 of the consumers. */
template <bool up, bool pair, int n>
__device__ static inline void consume(const struct product &p, struct smem *sm,
                                      const struct item *it, int group, uint32_t use,
                                      uint32_t *turns)
{
    int me = threadIdx.x % GROUP, n_k = (p.cols + K - 1) / K;
    int out = it->row + group * (up ? BOX : 2 * BOX) + me % 8 * 8;     /* of what this one puts */
    float c[2][n / 2] = {};
    int32_t y[n / 16];                     /* its rows; -1: none */

    #pragma unroll
    for (int j = 0; j < n / 16; j++) {
        int tok = me / 8 + 16 * j, pos = it->first + tok;

        y[j] = tok >= it->n ? -1 : up ? pos : p.order[pos];
    }

    #pragma unroll 4
    for (int k = 0; k < n_k; k++, use++) {
        int stage = use % STAGES;
        uint64_t a0 = wgmma_tile(sm->w[stage][2 * group]);
        uint64_t a1 = wgmma_tile(sm->w[stage][2 * group + 1]), b = wgmma_tile(sm->x[stage]);

        barrier_wait(&sm->full[stage], use / STAGES % 2);
        fence_async();                     /* tokens came by ordinary copies */
        wgmma_begin();
        #pragma unroll
        for (int i = 0; i < K / 16; i++) {
            wgmma<n>(c[0], a0 + 2 * i, b + 2 * i);
            wgmma<n>(c[1], a1 + 2 * i, b + 2 * i);
        }
        wgmma_commit();
        wgmma_wait<0>();                   /* the other warpgroup keeps the matrix units busy */
        give_back<pair>(sm, stage);
    }

    #pragma unroll
    for (int m = 0; m < (up ? 1 : 2); m++) {
        #pragma unroll
        for (int j = 0; j < (n + PUT_TOK - 1) / PUT_TOK; j++, ++*turns) {
            bf16 (*put)[BOX] = sm->put[group][*turns % 2];
            uint32_t v[PUT_TOK / 4];

            #pragma unroll
            for (int i = 0; i < PUT_TOK / 4; i++) {
                int o = j * PUT_TOK / 2 + 2 * i;

                if (o >= n / 2)            /* the last half of an odd number of halves */
                    break;
                v[i] = up ? pack_bf16(gelu_mul(c[0][o], c[1][o]),
                                      gelu_mul(c[0][o + 1], c[1][o + 1]))
                          : pack_bf16(c[m][o], c[m][o + 1]);
            }
            turn(put, v, n - j * PUT_TOK);
            group_sync(1 + group, GROUP);  /* the other half of put is free after the next one */
            #pragma unroll
            for (int i = 0; i < 2; i++)
                if (2 * j + i < n / 16 && y[2 * j + i] >= 0 && out + m * BOX < p.rows)
                    *(uint4 *) (p.y + (int64_t) y[2 * j + i] * p.rows + out + m * BOX) =
                        *(const uint4 *) &put[me / 8 + 16 * i][(me % 8 ^ me / 8 % 8) * 8];
        }
    }
}

/* A warpgroup without rows or tokens in this item: gives its stages back. All lanes have seen a
 * stage first; elsewhere the products see to that. */
template <bool pair> __device__ static inline void pass(struct smem *sm, int n_k, uint32_t use)
{
    for (int k = 0; k < n_k; k++, use++) {
        barrier_wait(&sm->full[use % STAGES], use / STAGES % 2);
        __syncwarp();
        give_back<pair>(sm, use % STAGES);
    }
}

/* Whose stage this is. Lane 0 reads it for the warp, as it gives the stage back. */
__device__ static inline struct item item_of(const struct smem *sm, int stage)
{
    int4 v = {};

    if (threadIdx.x % 32 == 0)
        v = *(const int4 *) &sm->item[stage];
    return { __shfl_sync(~0u, v.x, 0), __shfl_sync(~0u, v.y, 0), __shfl_sync(~0u, v.z, 0),
             __shfl_sync(~0u, v.w, 0) };
}

template <bool up, bool pair>
__device__ static inline void consume_all(const struct product &p, struct smem *sm, int group)
{
    /* Few tokens are rare with pairs, and only their shares are often half a step more than 128. */
    constexpr int few = pair ? 64 : 32, half = pair ? 144 : 160;
    int n_k = (p.cols + K - 1) / K;
    uint32_t turns = 0;

    for (uint32_t use = 0; ; use += n_k) {
        struct item it;

        barrier_wait(&sm->full[use % STAGES], use / STAGES % 2);
        it = item_of(sm, use % STAGES);
        if (it.expert < 0)
            return;
        if (it.n == 0 || it.row + group * rows_of_item<up>() / 2 >= p.rows)
            pass<pair>(sm, n_k, use);
        else if (it.n <= few)
            consume<up, pair, few>(p, sm, &it, group, use, &turns);
        else if (it.n <= 64)
            consume<up, pair, 64>(p, sm, &it, group, use, &turns);
        else if (it.n <= 96)
            consume<up, pair, 96>(p, sm, &it, group, use, &turns);
        else if (it.n <= 128)
            consume<up, pair, 128>(p, sm, &it, group, use, &turns);
        else if (pair && it.n <= half)
            consume<up, pair, half>(p, sm, &it, group, use, &turns);
        else
            consume<up, pair, 160>(p, sm, &it, group, use, &turns);
    }
}

#endif

template <bool up, bool pair>
static __global__ void __launch_bounds__(THREADS, 1)
product_kernel(const __grid_constant__ struct product p)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char raw[];
    struct smem *sm = (struct smem *) raw;

    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&sm->full[i], GROUP + 1);         /* gatherers, and the weights */
            barrier_init(&sm->empty[i], (pair ? 4 : 2) * GROUP / 32);  /* warps that multiply */
        }
        for (int i = 0; pair && i < TOLD; i++)
            barrier_init(&sm->told[i], 1);
        barrier_init_done();
    }
    next_may_start();
    sync<pair>();                          /* nobody reaches a block that is not ready */
    wait_for_others();
    if (threadIdx.x < GROUP) {
        regs_give<40>();
        produce<up, pair>(p, sm);
    } else {
        regs_take<232>();
        consume_all<up, pair>(p, sm, threadIdx.x / GROUP - 1);
    }
    if (pair)
        cluster_sync();                    /* nor one that has ended */
#endif
}

/* y = sum over the slots of w * out, in their order; 8 columns a thread. */
static __global__ void __launch_bounds__(128) sum_kernel(struct moe m, const bf16 *out)
{
    int64_t t = blockIdx.y, pair = t * m.top_k;
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    float sum[8] = {};

    next_may_start();
    wait_for_others();
    if (i >= m.hidden)
        return;
    #pragma unroll 8
    for (int j = 0; j < m.top_k; j++) {
        uint4 v = *(const uint4 *) (out + (pair + j) * m.hidden + i);
        const uint32_t two[4] = { v.x, v.y, v.z, v.w };
        float w = m.w[pair + j];

        for (int k = 0; k < 4; k++) {
            sum[2 * k] += w * __uint_as_float(two[k] << 16);
            sum[2 * k + 1] += w * __uint_as_float(two[k] & 0xffff0000u);
        }
    }
    for (int k = 0; k < 8; k += 4)
        *(float4 *) (m.y + t * m.hidden + i + k) = make_float4(sum[k], sum[k + 1], sum[k + 2],
                                                               sum[k + 3]);
}

template <bool pair>
static void launch_products(const struct product &up, const struct product &down, int blocks,
                            gpu_stream s)
{
    unsigned cluster = pair ? 2 : 1;
    dim3 grid((unsigned) blocks);

    launch_clusters(product_kernel<true, pair>, grid, cluster, THREADS, sizeof(struct smem), s, up);
    launch_clusters(product_kernel<false, pair>, grid, cluster, THREADS, sizeof(struct smem), s,
                    down);
}

void moe_hopper(const struct moe_work *w, const struct hopper *h, gpu_stream s)
{
    const struct moe *m = &w->m;
    struct product up = {}, down = {};
    dim3 sums((unsigned) ceil_div(m->hidden, 128 * 8), (unsigned) m->n_tok);

    map_rows(&up.w, h, m->gate_up.p, (int64_t) m->n_expert * 2 * m->ffn, m->hidden, BOX);
    up.x = (const bf16 *) m->x;
    up.y = w->act;
    up.order = m->order;
    up.n_tile = w->n_tile;
    up.taken = w->n_taken;
    up.tile = w->tile;
    up.rows = m->ffn;
    up.cols = m->hidden;
    up.top_k = m->top_k;
    up.by_expert = m->n_tok > L2_TOK;

    down = up;
    map_rows(&down.w, h, m->down.p, (int64_t) m->n_expert * m->hidden, m->ffn, BOX);
    down.taken = up.taken + 1;
    down.x = up.y;
    down.y = (bf16 *) m->out;
    down.rows = m->hidden;
    down.cols = m->ffn;
    down.by_expert = true;

    if (w->pair)
        launch_products<true>(up, down, 2 * h->room[2], s);
    else
        launch_products<false>(up, down, h->n_sm, s);
    launch_early(sum_kernel, sums, 128, 0, s, *m, (const bf16 *) m->out);
}

/* The code that was loaded says what it can: of 9.0a's own, or compiled from what is for all. */
bool moe_hopper_open(void)
{
    cudaFuncAttributes code;

    return cudaFuncGetAttributes(&code, product_kernel<true, false>) == cudaSuccess
           && code.ptxVersion == 90
           && allow_smem(product_kernel<true, false>, sizeof(struct smem))
           && allow_smem(product_kernel<false, false>, sizeof(struct smem))
           && allow_smem(product_kernel<true, true>, sizeof(struct smem))
           && allow_smem(product_kernel<false, true>, sizeof(struct smem));
}
