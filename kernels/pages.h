/* pages.h - between a layer's projections and its attention: angles, the heads of queries, keys and
 * values, the KV pages. Row-major and dense, fp32; pages are bf16 on a GPU. */
#ifndef KERNELS_PAGES_H
#define KERNELS_PAGES_H

#include <stddef.h>
#include <stdint.h>

/* Angles of one layer type: pair (i, i + head_dim/2) of a head turns by pos * inv_freq[i] for
 * i < n_rot; the other pairs do not turn. */
struct rope_table {
    float         *cs;            /* [n_tok, 2, n_rot]: cosines, then sines */
    const int32_t *pos;           /* [n_tok] */
    const float   *inv_freq;      /* [n_rot] */
    int32_t        n_tok, n_rot;
};

/* In place: q = rope(norm(q)) of each head. */
struct norm_rope {
    float       *q;               /* [n_tok, n_head, head_dim] */
    const float *w;               /* [head_dim] */
    const float *cs;              /* of rope_table */
    float        eps;
    int32_t      n_tok, n_head, head_dim, n_rot;
};

/* The KV pages of one layer. k_dim is head_dim: K whole. Less: 2 * n_rot, and k has the turned dims
 * only, i < n_rot in place i and head_dim/2 + i in n_rot + i. The others are v's, since k and v are
 * one projection, and the weight that K had there is in that of the queries. */
struct kv_layer {
    void   *k, *v;                /* [n_page, page_tok, n_kv, k_dim] and head_dim; on a GPU bf16 */
    int32_t page_tok, n_kv, head_dim, k_dim;
};

/* Where the step's tokens live in a pool. */
struct kv_map {
    const int32_t *pos, *seq;     /* [n_tok] */
    const int32_t *page;          /* [n_seq, page_max] */
    int32_t        page_max, n_tok;
};

/* pages <- rope(norm(k)), norm(v). v may be k, and is where K is not whole: the raw projection. */
struct kv_store {
    struct kv_layer kv;
    struct kv_map   map;
    const float    *k, *v;        /* [n_tok, n_kv, head_dim] */
    const float    *w;            /* [head_dim], of k; v has none */
    const float    *cs;
    float           eps;
    int32_t         n_rot;
};

/* Page from_to[i * stride + 1] becomes a copy of page from_to[i * stride]. */
struct kv_copy {
    struct kv_layer kv;
    const int32_t  *from_to;
    int32_t         n, stride;
};

/* Rows lo .. hi-1: tokens, of kv_copy pages. */
void rope_table_ref(const struct rope_table *a, int64_t lo, int64_t hi);
void norm_rope_ref(const struct norm_rope *a, int64_t lo, int64_t hi);
void kv_store_ref(const struct kv_store *a, int64_t lo, int64_t hi);
void kv_copy_ref(const struct kv_copy *a, int64_t lo, int64_t hi);

/* The first head of a token in kv_layer.k and .v. */
static inline size_t kv_slot(const struct kv_layer *kv, const struct kv_map *m, int32_t seq,
                             int32_t pos)
{
    size_t page = (size_t) m->page[(size_t) seq * (size_t) m->page_max
                                   + (size_t) (pos / kv->page_tok)];

    return (page * (size_t) kv->page_tok + (size_t) (pos % kv->page_tok)) * (size_t) kv->n_kv;
}

#endif
