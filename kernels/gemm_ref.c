/* gemm_ref.c - blocks of outputs x rows; the order of each sum is fixed by vec.h. */
#include "gemm.h"
#include "vec.h"

#define GEMM_OUTS 4               /* rows of w in one block */

VEC_INLINE void load16(vec_f *v, const void *p, enum mat_type type, int32_t k)
{
    switch (type) {

    case MAT_BF16:
        *v = (vec_f) (__builtin_convertvector(*(const vec_hu *) ((const uint16_t *) p + k), vec_u)
                      << 16);
        break;

    case MAT_F16:
        *v = __builtin_convertvector(*(const vec_xu *) ((const _Float16 *) p + k), vec_f);
        break;

    case MAT_F32:
        *v = *(const vec_fu *) ((const float *) p + k);
        break;
    }
}

/* The last n < VEC_N elements, then zeros: the same lanes add up in the same order. */
VEC_INLINE void load_tail(vec_f *v, const void *p, enum mat_type type, int32_t k, int32_t n)
{
    float buf[VEC_N] = {0};
    size_t size = mat_elem_bytes(type);

    memcpy(buf, (const char *) p + (size_t) k * size, (size_t) n * size);
    load16(v, buf, type, 0);
}

/* n_out x n_row dot products; the counts and the type are constants after inlining. */
VEC_INLINE void tile(float *const *y, const float *const *x, const struct mat *w, int64_t base,
                     int64_t out, enum mat_type type, const int n_out, const int n_row)
{
    vec_f acc[GEMM_OUTS][GEMM_ROWS] = {{{0}}}, wv, xv[GEMM_ROWS];
    const void *p[GEMM_OUTS];
    int32_t k = 0;

    for (int o = 0; o < n_out; o++)
        p[o] = mat_row(w, out + o);

    for (; k + VEC_N <= w->cols; k += VEC_N) {
        for (int r = 0; r < n_row; r++)
            xv[r] = *(const vec_fu *) (x[r] + k);
        for (int o = 0; o < n_out; o++) {
            load16(&wv, p[o], type, k);
            for (int r = 0; r < n_row; r++)
                acc[o][r] += wv * xv[r];
        }
    }

    if (k < w->cols) {
        for (int r = 0; r < n_row; r++)
            load_tail(&xv[r], x[r], MAT_F32, k, w->cols - k);
        for (int o = 0; o < n_out; o++) {
            load_tail(&wv, p[o], type, k, w->cols - k);
            for (int r = 0; r < n_row; r++)
                acc[o][r] += wv * xv[r];
        }
    }

    for (int o = 0; o < n_out; o++)
        for (int r = 0; r < n_row; r++)
            y[r][out + o - base] = vec_sum(&acc[o][r]);
}

VEC_INLINE void strip(float *const *y, const float *const *x, const struct mat *w, int64_t base,
                      int64_t lo, int64_t hi, enum mat_type type, const int n_row)
{
    int64_t o = lo;

    for (; o + GEMM_OUTS <= hi; o += GEMM_OUTS)
        tile(y, x, w, base, o, type, GEMM_OUTS, n_row);
    for (; o < hi; o++)
        tile(y, x, w, base, o, type, 1, n_row);
}

VEC_INLINE void strips(float *const *y, const float *const *x, int32_t n_row,
                       const struct mat *w, int64_t base, int64_t lo, int64_t hi,
                       enum mat_type type)
{
    switch (n_row) {
    case 1:  strip(y, x, w, base, lo, hi, type, 1);  break;
    case 2:  strip(y, x, w, base, lo, hi, type, 2);  break;
    case 3:  strip(y, x, w, base, lo, hi, type, 3);  break;
    default: strip(y, x, w, base, lo, hi, type, 4);  break;
    }
}

void gemm_rows_ref(float *const *y, const float *const *x, int32_t n_row, const struct mat *w,
                   int64_t base, int64_t lo, int64_t hi)
{
    switch (w->type) {
    case MAT_BF16: strips(y, x, n_row, w, base, lo, hi, MAT_BF16); break;
    case MAT_F16:  strips(y, x, n_row, w, base, lo, hi, MAT_F16);  break;
    case MAT_F32:  strips(y, x, n_row, w, base, lo, hi, MAT_F32);  break;
    }
}

void gemm_ref(const struct gemm *g, int64_t lo, int64_t hi)
{
    enum { BLOCK = 64 };          /* rows of w that stay in the cache while x passes by */
    const float *x[GEMM_ROWS];
    float *y[GEMM_ROWS];
    int32_t n;

    for (int64_t o = lo; o < hi; o += BLOCK) {
        for (int32_t t = 0; t < g->n_row; t += GEMM_ROWS) {
            n = g->n_row - t < GEMM_ROWS ? g->n_row - t : GEMM_ROWS;
            for (int32_t r = 0; r < n; r++) {
                x[r] = (const float *) g->x + (size_t) (t + r) * (size_t) g->w.cols;
                y[r] = g->y + (size_t) (t + r) * (size_t) g->w.rows;
            }
            gemm_rows_ref(y, x, n, &g->w, 0, o, o + BLOCK < hi ? o + BLOCK : hi);
        }
    }
}
