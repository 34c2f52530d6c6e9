/* moe_skinny.cu - the experts for few tokens each (MOE_SKINNY_TOK): every weight of a chosen expert
 * is read once, at the speed of memory, and meets all of its tokens (gemm.cuh says how). */
#include "gemm.cuh"
#include "moe.cuh"

/* Larger float, larger key; 0 stands for -INFINITY, which nobody chooses. */
__device__ static inline uint32_t key_of(float f)
{
    uint32_t u = __float_as_uint(f);

    return u >> 31 ? ~u : u | 0x80000000u;
}

__device__ static inline float of_key(uint32_t key)
{
    return key == 0 ? -INFINITY : __uint_as_float(key >> 31 ? key ^ 0x80000000u : ~key);
}

/* A warp routes token t, 32 * per_lane logits of it in registers; the result, expert `lane` of its
 * choice, is each lane's. */
template <int per_lane>
__device__ static inline int route_token(const struct moe_work &w, int t)
{
    int lane = threadIdx.x % 32, n = w.m.n_expert, k = w.m.top_k, mine = 0;
    const float *z = w.m.z + (int64_t) t * n;
    float v[per_lane], top = 0, sum = 0, weight = 0;

    #pragma unroll
    for (int i = 0; i < per_lane; i++)
        v[i] = lane + 32 * i < n ? z[lane + 32 * i] : -INFINITY;
    for (int j = 0; j < k; j++) {
        uint32_t best = 0, all;
        float e;
        int id = n;

        #pragma unroll
        for (int i = 0; i < per_lane; i++) {
            uint32_t key = v[i] == -INFINITY ? 0 : key_of(v[i]);

            if (key > best) {
                best = key;
                id = lane + 32 * i;
            }
        }
        all = __reduce_max_sync(WARP_ALL, best);
        id = __reduce_min_sync(WARP_ALL, best == all ? id : n);
        if (id >= n)                       /* not a number: the sampler will say so */
            id = j;
        #pragma unroll
        for (int i = 0; i < per_lane; i++)
            v[i] = id == lane + 32 * i ? -INFINITY : v[i];
        top = j == 0 ? of_key(all) : top;
        e = expf(of_key(all) - top);
        sum += e;
        mine = lane == j ? id : mine;
        weight = lane == j ? e : weight;
    }
    if (lane < k) {
        w.m.idx[t * k + lane] = mine;
        w.m.w[t * k + lane] = weight / sum * w.m.scale[mine];
    }
    return mine;
}

/* One block: its warps route, then all group. */
template <int per_lane>
static __global__ void __launch_bounds__(MOE_EXPERT_MAX) route_kernel(struct moe_work w)
{
    __shared__ struct group_smem sm;

    next_may_start();
    wait_for_others();
    for (int t = threadIdx.x / 32; t < w.m.n_tok; t += MOE_EXPERT_MAX / 32)
        route_token<per_lane>(w, t);
    __syncthreads();
    group_pairs(&sm, w);
    __syncthreads();
    for (int i = threadIdx.x; i < w.m.n_tok * w.m.top_k; i += MOE_EXPERT_MAX)
        place_pair(w, i);
}

/* The same of a few tokens, up to 32 pairs: a warp for each, and the first groups them all. An
 * expert has one tile: nobody names it more than twice, and that only where logits are no numbers.
 * Without the barriers of a whole block. */
#define ROUTE_FEW (SKINNY_TOK / 2)

static __global__ void __launch_bounds__(ROUTE_FEW * 32) route_few_kernel(struct moe_work w)
{
    __shared__ int expert[32];
    int lane = threadIdx.x % 32, t = threadIdx.x / 32, k = w.m.top_k, mine, e, start;
    uint32_t same, firsts, before = (1u << lane) - 1;
    bool first;

    next_may_start();
    wait_for_others();
    mine = route_token<4>(w, t);
    if (lane < k)
        expert[t * k + lane] = mine;
    __syncthreads();
    if (t > 0)
        return;

    e = lane < w.m.n_tok * k ? expert[lane] : -1;
    same = __match_any_sync(WARP_ALL, e);
    first = e >= 0 && (same & before) == 0;
    firsts = __ballot_sync(WARP_ALL, first);
    start = first ? __popc(same) : 0;
    for (int o = 1; o < 32; o *= 2) {
        int n = __shfl_up_sync(WARP_ALL, start, o);

        start += lane >= o ? n : 0;
    }
    start -= first ? __popc(same) : 0;
    if (first)
        w.tile[__popc(firsts & before)] = { e, start, __popc(same), 0 };
    start = __shfl_sync(WARP_ALL, start, __ffs(same) - 1);
    if (e >= 0)
        w.m.order[start + __popc(same & before)] = lane;
    if (lane == 0)
        *w.n_tile = __popc(firsts);
}

/* The tile of a block; false: there are not so many. */
__device__ static inline bool find_tile(const struct moe_work &w, int i, struct moe_tile *t)
{
    if (i >= *w.n_tile)
        return false;
    *t = w.tile[i];
    return true;
}

/* act = gelu(gate x) * up x: tiles of 8 rows of gate and the same 8 of up, n_tile to a block. */
template <int groups>
static __global__ void __launch_bounds__(GEMM_THREADS, 2) up_kernel(struct moe_work w, int n_tile)
{
    extern __shared__ __align__(16) char xs[];
    __shared__ struct skinny_part<groups> part;
    int cols = w.m.hidden, ffn = w.m.ffn, out = blockIdx.x * n_tile * 8;
    int g = threadIdx.x % 32 / 4;
    struct skinny_regs<SKINNY_DEPTH> regs;
    struct moe_tile t;
    const bf16 *gate;

    next_may_start();
    wait_for_others();
    if (!find_tile(w, blockIdx.y, &t))
        return;
    gate = (const bf16 *) w.m.gate_up.p + (int64_t) t.expert * 2 * ffn * cols;
    auto row = [&](int tile, int half) {
        int o = out + tile * 8 + g;

        return gate + (int64_t) ((o < ffn ? o : 0) + half * ffn) * cols;
    };
    skinny_load(&regs, row(0, 0), row(0, 1), threadIdx.x / 32, GEMM_WARPS, cols);
    skinny_load_x(xs, [&](int r) {
        return (const bf16 *) w.m.x + (int64_t) (w.m.order[t.first + r] / w.m.top_k) * cols;
    }, t.n, cols);
    copy_wait<0>();
    __syncthreads();

    skinny_tiles<SKINNY_DEPTH, groups>(&part, &regs, xs, t.n, cols, n_tile, row,
        [&](int tile) {
            for (int i = threadIdx.x; i < t.n * 8; i += GEMM_THREADS) {
                int o = out + tile * 8 + i % 8;

                if (o < ffn)
                    w.act[(int64_t) (t.first + i / 8) * ffn + o] = __float2bfloat16(
                        gelu_mul(skinny_sum(&part, tile, i / 8, i % 8),
                                 skinny_sum(&part, tile, i / 8, i % 8 + 8)));
            }
        });
}

/* out = down act: a warp has tiles of SKINNY_OUT rows for itself, all their columns. */
template <int groups>
static __global__ void __launch_bounds__(GEMM_THREADS, 2) down_kernel(struct moe_work w)
{
    extern __shared__ __align__(16) char xs[];
    const int depth = SKINNY_DEPTH;
    int cols = w.m.ffn, hidden = w.m.hidden, lane = threadIdx.x % 32, g = lane / 4;
    int step = gridDim.x * GEMM_WARPS, n_tile = (hidden + SKINNY_OUT - 1) / SKINNY_OUT;
    int rounds = ((cols + 31) / 32 + depth - 1) / depth;
    struct skinny_regs<depth> regs;
    struct moe_tile t;
    const bf16 *down;

    next_may_start();
    wait_for_others();
    if (!find_tile(w, blockIdx.y, &t))
        return;
    down = (const bf16 *) w.m.down.p + (int64_t) t.expert * hidden * cols;
    auto row = [&](int tile, int half) {
        int o = tile * SKINNY_OUT + half * 8 + g;

        return down + (int64_t) (o < hidden ? o : 0) * cols;
    };
    int tile = blockIdx.x * GEMM_WARPS + threadIdx.x / 32;

    skinny_load(&regs, row(tile, 0), row(tile, 1), 0, 1, cols);
    skinny_load_x(xs, [&](int r) { return w.act + (int64_t) (t.first + r) * cols; }, t.n,
                  cols);
    copy_wait<0>();
    __syncthreads();

    for (; tile < n_tile; tile += step) {
        float c[groups][4] = {};

        for (int i = 0; i < rounds; i++) {
            bool turn = i + 1 == rounds, more = !turn || tile + step < n_tile;
            int next = turn ? tile + step : tile;

            skinny_mma<depth, groups>(c, &regs, xs, t.n, i * depth, 1, cols,
                                      more ? row(next, 0) : NULL, more ? row(next, 1) : NULL,
                                      turn ? 0 : (i + 1) * depth);
        }
        for (int i = 0; i < groups * 4; i++) {
            int tok = i / 4 * SKINNY_TOK + lane % 4 * 2 + i % 2;
            int o = tile * SKINNY_OUT + i % 4 / 2 * 8 + g;

            if (tok < t.n && o < hidden)
                w.m.out[(int64_t) w.m.order[t.first + tok] * hidden + o] = c[i / 4][i % 4];
        }
    }
}

static int groups_of(const struct moe *m)
{
    int64_t pairs = (int64_t) m->n_tok * m->top_k;

    return pairs <= 4 * m->n_expert ? 1 : pairs <= 8 * m->n_expert ? 2 : 4;
}

bool moe_is_skinny(const struct moe *m, bool hopper, size_t smem_max)
{
    int64_t pairs = (int64_t) m->n_tok * m->top_k;
    int32_t cols = m->hidden > m->ffn ? m->hidden : m->ffn;

    return m->n_tok <= MOE_SKINNY_TOK && pairs <= (hopper ? 4 : 16) * m->n_expert
           && m->hidden % 8 == 0 && m->ffn % 8 == 0 && m->top_k <= 32
           && (size_t) groups_of(m) * (SKINNY_TOK * (size_t) skinny_stride(cols)
                                       + sizeof(struct skinny_part<1>)) <= smem_max;
}

void moe_skinny_route(struct moe_work *w, gpu_stream s)
{
    w->tile_tok = groups_of(&w->m) * SKINNY_TOK;
    w->tile_step = 1;
    if (w->m.n_expert <= 128 && w->m.n_tok <= ROUTE_FEW && w->m.n_tok * w->m.top_k <= 32)
        launch_early(route_few_kernel, 1, (unsigned) w->m.n_tok * 32, 0, s, *w);
    else if (w->m.n_expert <= 128)
        launch_early(route_kernel<4>, 1, MOE_EXPERT_MAX, 0, s, *w);
    else
        launch_early(route_kernel<MOE_EXPERT_MAX / 32>, 1, MOE_EXPERT_MAX, 0, s, *w);
}

template <int groups> static void launch(const struct moe_work *w, gpu_stream s)
{
    static size_t allowed;                 /* one thread launches */
    const struct moe *m = &w->m;
    size_t up = (size_t) groups * SKINNY_TOK * (size_t) skinny_stride(m->hidden);
    size_t down = (size_t) groups * SKINNY_TOK * (size_t) skinny_stride(m->ffn);
    int pairs = m->n_tok * m->top_k, n_up = pairs > 64 ? 4 : 3, n_down = pairs > 64 ? 4 : 1;
    int down_blocks = (int) ceil_div(ceil_div(m->hidden, SKINNY_OUT), GEMM_WARPS * n_down);
    unsigned tiles = (unsigned) (pairs < m->n_expert ? pairs
                                 : m->n_expert + pairs / (groups * SKINNY_TOK));

    if (up > allowed || down > allowed) {
        allowed = up > down ? up : down;
        cudaFuncSetAttribute(up_kernel<groups>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int) allowed);
        cudaFuncSetAttribute(down_kernel<groups>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int) allowed);
    }
    launch_early(up_kernel<groups>, dim3((unsigned) ceil_div(m->ffn, 8 * n_up), tiles),
                 GEMM_THREADS, up, s, *w, n_up);
    launch_early(down_kernel<groups>, dim3((unsigned) down_blocks, tiles), GEMM_THREADS, down, s,
                 *w);
    moe_sum_cuda(m, s);
}

void moe_skinny(struct moe_work *w, gpu_stream s)
{
    int groups = groups_of(&w->m);

    if (groups == 1)
        launch<1>(w, s);
    else if (groups == 2)
        launch<2>(w, s);
    else
        launch<4>(w, s);
}
