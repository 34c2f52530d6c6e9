/* moe.cuh - what moe.cu, moe_skinny.cu and moe_hopper.cu share: one call of the experts, its work
 * as a list of tiles that the device makes itself, so the host never waits. */
#ifndef KERNELS_MOE_CUH
#define KERNELS_MOE_CUH

#include "cuda.h"
#include "dev.cuh"

/* Tokens of one expert: places first .. first + n - 1 of the order. 16 bytes, one load. */
struct __align__(16) moe_tile { int32_t expert, first, n, unused; };

/* All but m lies in the scratch. */
struct moe_work {
    struct moe       m;
    int32_t         *rank;         /* [n_tok * top_k] of a pair among those of its expert */
    int32_t         *n_tile, *n_taken;      /* n_taken: [2], 0 before the products */
    struct moe_tile *tile;         /* [n_tile] */
    bf16            *act;          /* [n_tok * top_k, ffn] */
    int32_t          tile_max;     /* at most so many tiles, */
    int32_t          tile_tok;     /* of so many tokens */
    int32_t          tile_step;    /* and of a multiple of it, but the last of an expert */
    bool             pair;         /* moe_hopper: a tile is for two blocks */
};

#define GROUP_DEPTH 16             /* pairs that a thread has in flight */

/* Sum of v over threads 0 .. this one; tmp: 32 ints. */
__device__ static inline int scan(int v, int *tmp)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n;

    for (int o = 1; o < 32; o *= 2) {
        n = __shfl_up_sync(WARP_ALL, v, o);
        v += lane >= o ? n : 0;
    }
    if (lane == 31)
        tmp[warp] = v;
    __syncthreads();
    if (warp == 0) {
        int w = lane < (int) blockDim.x / 32 ? tmp[lane] : 0;

        for (int o = 1; o < 32; o *= 2) {
            n = __shfl_up_sync(WARP_ALL, w, o);
            w += lane >= o ? n : 0;
        }
        tmp[lane] = w;
    }
    __syncthreads();
    v += warp > 0 ? tmp[warp - 1] : 0;
    __syncthreads();
    return v;
}

struct group_smem { int count[MOE_EXPERT_MAX], tmp[32]; };

/* MOE_EXPERT_MAX threads, thread e for expert e: counts, and lists the tiles. A pair's rank among
 * those of its expert is left to chance: each pair is computed for itself. An expert's tiles are of
 * one size, give or take. */
__device__ static inline void group_pairs(struct group_smem *sm, const struct moe_work &w)
{
    int e = threadIdx.x, n_pair = w.m.n_tok * w.m.top_k, n, start, tiles, tile, steps;

    sm->count[e] = 0;
    __syncthreads();
    for (int i = e; i < n_pair; i += MOE_EXPERT_MAX * GROUP_DEPTH) {
        int expert[GROUP_DEPTH];

        #pragma unroll
        for (int d = 0; d < GROUP_DEPTH; d++)
            expert[d] = i + d * MOE_EXPERT_MAX < n_pair ? w.m.idx[i + d * MOE_EXPERT_MAX] : -1;
        #pragma unroll
        for (int d = 0; d < GROUP_DEPTH; d++)
            if (expert[d] >= 0)
                w.rank[i + d * MOE_EXPERT_MAX] = atomicAdd(&sm->count[expert[d]], 1);
    }
    __syncthreads();

    n = sm->count[e];
    start = scan(n, sm->tmp) - n;
    tiles = (n + w.tile_tok - 1) / w.tile_tok;
    steps = (n + w.tile_step - 1) / w.tile_step;
    tile = scan(tiles, sm->tmp) - tiles;
    if (e < w.m.n_expert)
        w.m.start[e] = start;
    for (int i = 0; i < tiles; i++) {
        int lo = i * steps / tiles * w.tile_step, hi = (i + 1) * steps / tiles * w.tile_step;

        hi = hi < n ? hi : n;
        w.tile[tile + i] = { e, start + lo, hi - lo, 0 };
    }
    if (e == MOE_EXPERT_MAX - 1)
        *w.n_tile = tile + tiles;
    if (e < 2)
        w.n_taken[e] = 0;
}

/* After the block or kernel that has grouped. */
__device__ static inline void place_pair(const struct moe_work &w, int pair)
{
    w.m.order[w.m.start[w.m.idx[pair]] + w.rank[pair]] = pair;
}

/* y = the sum over each token's slots of out, in their order. */
void moe_sum_cuda(const struct moe *m, gpu_stream s);

/* moe_skinny.cu: few tokens an expert, bound by the reading of weights. Its routing groups too. */
bool moe_is_skinny(const struct moe *m, bool hopper, size_t smem_max);
void moe_skinny_route(struct moe_work *w, gpu_stream s);
void moe_skinny(struct moe_work *w, gpu_stream s);

/* Tokens that the path for every GPU groups and multiplies at once; hopper MOE_CUDA_TOK. It is slow
 * enough that reading the weights again does not show, and takes more scratch. */
#define MOE_BASE_TOK 2048

#define MOE_HOPPER_TOK  160
#define MOE_HOPPER_STEP 32         /* fewer tokens take as long */

/* Rows of 16 bytes, many tokens: both products, and the sum. Tiles of up to MOE_HOPPER_TOK tokens,
 * of a pair of blocks of twice as many. */
void moe_hopper(const struct moe_work *w, const struct hopper *h, gpu_stream s);

#endif
