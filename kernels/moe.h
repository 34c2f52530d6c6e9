/* moe.h - routing and the routed experts: y = sum over a token's experts of w * expert(x).
 *
 * moe_route picks the experts of each token; moe_group sorts the (token, slot) pairs by expert so
 * that each expert's weights are read once per GEMM_ROWS tokens. A token's slots are added in
 * their own order, so its result does not depend on the others. */
#ifndef KERNELS_MOE_H
#define KERNELS_MOE_H

#include "quant.h"

#define MOE_TOK_MAX 64            /* tokens of one call of the expert stages: bounds the scratch */

struct moe_route {
    const float *z;               /* [n_tok, n_expert] router logits */
    const float *scale;           /* [n_expert], multiplied in after renormalising */
    int32_t     *idx;             /* [n_tok, top_k] best first, lowest id on ties */
    float       *w;               /* [n_tok, top_k] softmax over the chosen, times scale */
    int32_t      n_tok, n_expert, top_k;
};

struct moe {
    float         *y;             /* [n_tok, hidden], not x */
    const void    *x;             /* act [n_tok, hidden] */
    struct mat     gate_up;       /* [n_expert * 2 * ffn, hidden]: ffn rows of gate, ffn of up */
    struct mat     down;          /* [n_expert * hidden, ffn] */
    const float   *z, *scale;     /* of moe_route */
    int32_t       *idx;           /* [n_tok, top_k] of moe_route: these two are the op's first */
    float         *w;             /* [n_tok, top_k]  results */
    int32_t        n_tok, n_expert, top_k, hidden, ffn;

    /* scratch of moe_scratch() */
    int32_t       *order;         /* [n_tok * top_k] pairs, by expert */
    int32_t       *start;         /* [n_expert + 1] into order */
    float         *gu;            /* [n_tok * top_k, 2 * ffn] */
    float         *out;           /* [n_tok * top_k, hidden] */
};

static inline struct moe_route moe_route_of(const struct moe *a)
{
    struct moe_route r = { a->z, a->scale, a->idx, a->w, a->n_tok, a->n_expert, a->top_k };

    return r;
}

#ifdef __cplusplus
extern "C"
#endif
/* Tokens first .. first + n - 1 of a. */
struct moe moe_slice(const struct moe *a, int32_t first, int32_t n, size_t act_bytes);

size_t moe_scratch(const struct moe *m);               /* bytes, for n_tok = MOE_TOK_MAX */
void   moe_scratch_set(struct moe *m, void *p);

void moe_route_ref(const struct moe_route *a, int64_t lo, int64_t hi);     /* tokens */

/* The stages, in this order, each complete before the next; n_tok <= MOE_TOK_MAX. */
void moe_group_ref(struct moe *m);
void moe_up_ref(const struct moe *m, int64_t lo, int64_t hi);              /* n_expert * 2 * ffn */
void moe_act_ref(const struct moe *m, int64_t lo, int64_t hi);             /* n_tok * top_k */
void moe_down_ref(const struct moe *m, int64_t lo, int64_t hi);            /* n_expert * hidden */
void moe_sum_ref(const struct moe *m, int64_t lo, int64_t hi);             /* n_tok */

#endif
