/* moe.cuh - what moe.cu and moe_hopper.cu share: one call of the experts, its work as a list of
 * tiles that the device makes itself, so the host never waits. */
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
    int32_t         *n_tile;
    struct moe_tile *tile;         /* [n_tile] */
    bf16            *xb;           /* [n_tok, hidden], if many */
    float           *act;          /* [n_tok * top_k, ffn], bf16 if many */
    int32_t          tile_max;     /* at most so many tiles, */
    int32_t          tile_tok;     /* of so many tokens */
    bool             many;
};

/* gelu(g) * u, with the tanh. Far from 0 the quotient is g or 0. */
__device__ static inline float moe_geglu(float g, float u)
{
    float e = __expf(g * (g * g * 0.044715f + 1.0f) * -1.5957691216f);

    return __fdividef(g, e + 1.0f) * u;
}

#define MOE_HOPPER_TOK 160

/* Rows of 16 bytes, many tokens: both products, and the sum. Tiles of up to
 * MOE_HOPPER_TOK tokens. */
void moe_hopper(const struct moe_work *w, const struct hopper *h, gpu_stream s);

#endif
