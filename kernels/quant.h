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

#endif
