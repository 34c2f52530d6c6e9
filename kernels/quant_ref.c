/* quant_ref.c - one row of a weight matrix to fp32. */
#include "quant.h"

#include <string.h>

size_t mat_elem_bytes(enum mat_type t)
{
    return t == MAT_F32 ? 4 : 2;
}

const void *mat_row(const struct mat *m, int64_t row)
{
    return (const char *) m->p + (size_t) row * (size_t) m->cols * mat_elem_bytes(m->type);
}

static float bf16_f32(uint16_t h)
{
    uint32_t u = (uint32_t) h << 16;
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

void quant_row_ref(float *y, const struct mat *m, int64_t row, float scale)
{
    const void *p = mat_row(m, row);

    switch (m->type) {

    case MAT_BF16:
        for (int32_t i = 0; i < m->cols; i++)
            y[i] = scale * bf16_f32(((const uint16_t *) p)[i]);
        break;

    case MAT_F16:
        for (int32_t i = 0; i < m->cols; i++)
            y[i] = scale * (float) ((const _Float16 *) p)[i];
        break;

    case MAT_F32:
        for (int32_t i = 0; i < m->cols; i++)
            y[i] = scale * ((const float *) p)[i];
        break;
    }
}

void fill_ref(const struct fill *a, int64_t lo, int64_t hi)
{
    for (int64_t i = lo; i < hi; i++)
        ((uint16_t *) a->y)[i] = fill_bf16(a->seed, (uint64_t) i);
}
