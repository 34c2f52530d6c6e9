/* gemm.h - y = x W^T: a linear layer. x is an act (norm.h), weights as stored, fp32 accumulation.
 *
 * Each output element is summed in one order, whatever the number of rows and whoever computes
 * it, so one token's result never depends on its batch. Bound by the reading of w: rows of w are
 * converted once for GEMM_ROWS rows of x. */
#ifndef KERNELS_GEMM_H
#define KERNELS_GEMM_H

#include "quant.h"

#define GEMM_ROWS 4               /* rows of x that share one pass over w */

struct gemm {
    float       *y;               /* [n_row, w.rows] */
    const void  *x;               /* act [n_row, w.cols], not y */
    struct mat   w;
    int32_t      n_row;
};

/* Products over the same rows, in one op. */
#define LINEAR_MAX 3

struct linear {
    struct gemm g[LINEAR_MAX];
    int32_t     n;
    void       *act;              /* not NULL: act [n_row, g[0].w.rows] = gelu(g[0].y) * g[1].y, and
                                     these two y are scratch */
};

/* Output columns lo .. hi-1 of all rows. */
void gemm_ref(const struct gemm *g, int64_t lo, int64_t hi);

/* The same for up to GEMM_ROWS scattered rows: y[r][i - base] for i in lo .. hi-1. */
void gemm_rows_ref(float *const *y, const float *const *x, int32_t n_row, const struct mat *w,
                   int64_t base, int64_t lo, int64_t hi);

#endif
