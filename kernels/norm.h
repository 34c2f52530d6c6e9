/* norm.h - what happens between the matrix products: embedding rows, RMS norms, RoPE, the store
 * into the KV pages, gated activations. Row-major and dense. Numbers are fp32, but for those that
 * only a product reads: an `act` is fp32 in the twins and bf16 on a GPU. */
#ifndef KERNELS_NORM_H
#define KERNELS_NORM_H

#include "quant.h"

/* y[t] = from[t] < 0 ? id[t] : last[from[t]]; ids that the host knows, and those that the step
 * before has sampled */
struct next_ids {
    int32_t       *y;             /* [n_tok], not id */
    const int32_t *id, *from;     /* [n_tok] */
    const int32_t *last;          /* [more than any from] */
    int32_t        n_tok;
};

/* y[t] = scale * w[id[t]] */
struct embed {
    float         *y;             /* [n_tok, w.cols] */
    const int32_t *id;            /* [n_tok], < w.rows */
    struct mat     w;
    float          scale;
    int32_t        n_tok;
};

/* y = scale * (add + w * in_scale * x / rms(in_scale * x)); Gemma 4 multiplies by w, not 1 + w. */
struct norm {
    float       *y;               /* [n_row, dim]; may be x or add */
    const float *x;               /* [n_row, dim] */
    const float *w;               /* [dim], NULL: ones */
    const float *add;             /* [n_row, dim], NULL: nothing */
    float        eps, scale, in_scale;
    int32_t      n_row, dim;
};

/* The branches of a layer come back into the stream, and its next ones begin:
 *
 *     y = scale * (x + N_w(t0))  or, with two,  scale * (x + N_w(N_tw0(t0) + N_tw1(t1)))
 *     out[i] = out[i].scale * N_out[i].w(y)
 */
#define JOIN_OUT 3

struct join {
    float       *y;               /* [n_row, dim]; may be x */
    const float *x;               /* [n_row, dim] */
    float       *t[2];            /* [n_row, dim], contents lost; t[0] NULL: y is x, not written */
    const float *tw[2];           /* [dim], when there are two */
    const float *w;               /* [dim] */
    float        scale, eps;
    struct join_out {
        void        *y;           /* act [n_row, dim]; NULL: none */
        const float *w;           /* [dim] */
        float        scale;
    } out[JOIN_OUT];
    int32_t      n_row, dim;
};

/* y[r] = x[idx[r]] */
struct gather {
    float         *y;             /* [n_row, dim], not x */
    const float   *x;
    const int32_t *idx;           /* [n_row] */
    int32_t        n_row, dim;
};

/* y = gelu_tanh(gate) * up. up may have a longer row than dim. */
struct geglu {
    void        *y;               /* act [n_row, dim], not gate */
    const float *gate;            /* [n_row, dim] */
    const float *up;              /* [n_row, up_stride] */
    int32_t      n_row, dim, up_stride;
};

/* y = act(x) */
struct to_act {
    void        *y;               /* act [n], not x */
    const float *x;               /* [n] */
    int64_t      n;
};

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

/* Rows lo .. hi-1 (tokens for norm_rope and kv_store, pages for kv_copy). */
void next_ids_ref(const struct next_ids *a, int64_t lo, int64_t hi);
void embed_ref(const struct embed *a, int64_t lo, int64_t hi);
void norm_ref(const struct norm *a, int64_t lo, int64_t hi);
void join_ref(const struct join *a, int64_t lo, int64_t hi);
void to_act_ref(const struct to_act *a, int64_t lo, int64_t hi);           /* elements */
void gather_ref(const struct gather *a, int64_t lo, int64_t hi);
void geglu_ref(const struct geglu *a, int64_t lo, int64_t hi);
void geglu_row_ref(float *y, const float *gate, const float *up, int32_t dim);
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
