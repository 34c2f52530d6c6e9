/* quant.h - weight matrices as they lie in the checkpoint, and how a row becomes fp32.
 *
 * A mat borrows its bytes (the mapped file) and never owns them. Row-major, [rows, cols], a row is
 * one output of a linear layer. */
#ifndef KERNELS_QUANT_H
#define KERNELS_QUANT_H

#include <stddef.h>
#include <stdint.h>

enum mat_type { MAT_BF16, MAT_F16, MAT_F32 };

struct mat {
    const void   *p;              /* aligned to its element; NULL: the layer has no such matrix */
    enum mat_type type;
    int64_t       rows;
    int32_t       cols;
};

size_t      mat_elem_bytes(enum mat_type t);
const void *mat_row(const struct mat *m, int64_t row);

/* y[i] = scale * element i of the row, fp32 [cols]. */
void quant_row_ref(float *y, const struct mat *m, int64_t row, float scale);

/* A matrix of random weights, for benchmarks: uniform, variance 0.02^2, the same everywhere. */
struct fill {
    void    *y;                   /* bf16 [n] */
    int64_t  n;
    uint64_t seed;
};

void fill_ref(const struct fill *a, int64_t lo, int64_t hi);               /* elements */

#ifdef __CUDACC__
#define QUANT_FN __host__ __device__ static inline
#else
#define QUANT_FN static inline
#endif

/* Element i. */
QUANT_FN uint16_t fill_bf16(uint64_t seed, uint64_t i)
{
    uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15ull + i * 0xd1342543de82ef95ull;
    union { float f; uint32_t u; } v;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    x ^= x >> 31;
    /* 24 bits to -1 .. 1, exact in fp32; then cut to bf16 */
    v.f = ((float) (uint32_t) (x >> 40) * 0x1p-23f - 1.0f) * 0.034641f;
    return (uint16_t) (v.u >> 16);
}

#endif
