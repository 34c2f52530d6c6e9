/* attn.h - attention of the step's tokens over the paged KV cache, causal, optionally sliding.
 *
 * The scale of q.k is 1: Gemma 4 norms both sides. Where K is not whole (pages.h), q.k is the sum
 * over its turned dims and, over the others, of q.v. The keys of a query are visited in order of
 * position, so pages, chunks and neighbours in the batch leave no trace in the result. */
#ifndef KERNELS_ATTN_H
#define KERNELS_ATTN_H

#include "pages.h"

struct attn {
    void           *y;            /* act [n_tok, n_head, head_dim], not q */
    const float    *q;            /* [n_tok, n_head, head_dim] */
    struct kv_layer kv;           /* keys 0 .. pos are stored already */
    struct kv_map   map;
    int32_t         n_head;       /* a multiple of kv.n_kv */
    int32_t         window;       /* key j is visible to query i iff 0 <= i - j < window; 0: all */
    int32_t         n_seq;        /* sequences of the step, */
    int32_t         n_one;        /* its first tokens that are alone in their sequences, */
    int32_t         ctx;          /* at least its largest pos + 1: all three choose among ways, and
                                     ctx how many parts of a context have room in the scratch */
    const int32_t  *n_own;        /* [1] tokens behind so many are the last of them again, and may
                                     get its result; NULL: there are none */
};

/* From raw projections: q is normed and turned, in place or not, K and V go to their pages, then
 * attention. rope.n_tok and store.map are attn's. store.k NULL: another layer has stored them. */
struct attn_layer {
    struct norm_rope rope;
    struct kv_store  store;
    struct attn      attn;
};

/* Floats of scratch for one caller of attn_ref. */
size_t attn_scratch(int32_t n_head, int32_t n_kv, int64_t ctx_max);

/* Items lo .. hi-1; item = token * n_kv + kv head, with all query heads of that kv head. */
void attn_ref(const struct attn *a, int64_t lo, int64_t hi, float *scratch);

#endif
