/* norm.h - the stream between the matrix products: ids, embedding rows, RMS norms, gated
 * activations, chosen rows. Row-major and dense. Numbers are fp32, but for those that only a
 * product reads: an `act` is fp32 in the twins and bf16 on a GPU. */
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

/* Rows lo .. hi-1. */
void next_ids_ref(const struct next_ids *a, int64_t lo, int64_t hi);
void embed_ref(const struct embed *a, int64_t lo, int64_t hi);
void norm_ref(const struct norm *a, int64_t lo, int64_t hi);
void join_ref(const struct join *a, int64_t lo, int64_t hi);
void to_act_ref(const struct to_act *a, int64_t lo, int64_t hi);           /* elements */
void gather_ref(const struct gather *a, int64_t lo, int64_t hi);
void geglu_ref(const struct geglu *a, int64_t lo, int64_t hi);
void geglu_row_ref(float *y, const float *gate, const float *up, int32_t dim);
float rms_inv_ref(const float *x, int32_t n, float eps);                   /* 1 / rms(x) */

#endif
