/* moe_ref.c - the definitions of moe.h. */
#include "moe.h"
#include "gemm.h"
#include "norm.h"

#include <math.h>
#include <string.h>

struct moe moe_slice(const struct moe *a, int32_t first, int32_t n, size_t act_bytes)
{
    struct moe m = *a;

    m.n_tok = n;
    m.y += (int64_t) first * a->hidden;
    m.x = (const char *) m.x + (size_t) first * (size_t) a->hidden * act_bytes;
    m.z += (int64_t) first * a->n_expert;
    m.idx += (int64_t) first * a->top_k;
    m.w += (int64_t) first * a->top_k;
    return m;
}

static size_t align64(size_t n)
{
    return (n + 63) / 64 * 64;
}

static size_t order_bytes(const struct moe *m)
{
    return align64((size_t) MOE_TOK_MAX * (size_t) m->top_k * sizeof(int32_t));
}

static size_t start_bytes(const struct moe *m)
{
    return align64(((size_t) m->n_expert + 1) * sizeof(int32_t));
}

static size_t gu_bytes(const struct moe *m)
{
    return align64((size_t) MOE_TOK_MAX * (size_t) m->top_k * 2 * (size_t) m->ffn * sizeof(float));
}

size_t moe_scratch(const struct moe *m)
{
    return order_bytes(m) + start_bytes(m) + gu_bytes(m)
           + align64((size_t) MOE_TOK_MAX * (size_t) m->top_k * (size_t) m->hidden
                     * sizeof(float));
}

void moe_scratch_set(struct moe *m, void *p)
{
    char *c = p;

    m->order = (int32_t *) (void *) c;
    c += order_bytes(m);
    m->start = (int32_t *) (void *) c;
    c += start_bytes(m);
    m->gu = (float *) (void *) c;
    c += gu_bytes(m);
    m->out = (float *) (void *) c;
}

static void route(const float *z, const float *scale, int32_t *idx, float *w, int32_t n,
                  int32_t top_k)
{
    float sum = 0;

    for (int32_t j = 0; j < top_k; j++) {
        int32_t best = -1;

        for (int32_t e = 0; e < n; e++) {
            int taken = 0;

            for (int32_t i = 0; i < j; i++)
                taken |= idx[i] == e;
            if (!taken && (best < 0 || z[e] > z[best]))
                best = e;
        }
        idx[j] = best;
        w[j] = expf(z[best] - z[idx[0]]);
        sum += w[j];
    }

    for (int32_t j = 0; j < top_k; j++)
        w[j] = w[j] / sum * scale[idx[j]];
}

void moe_route_ref(const struct moe_route *a, int64_t lo, int64_t hi)
{
    for (int64_t t = lo; t < hi; t++)
        route(a->z + t * a->n_expert, a->scale, a->idx + t * a->top_k, a->w + t * a->top_k,
              a->n_expert, a->top_k);
}

void moe_group_ref(struct moe *m)
{
    int32_t n = m->n_tok * m->top_k;

    memset(m->start, 0, ((size_t) m->n_expert + 1) * sizeof(int32_t));
    for (int32_t i = 0; i < n; i++)
        m->start[m->idx[i] + 1]++;
    for (int32_t e = 0; e < m->n_expert; e++)
        m->start[e + 1] += m->start[e];

    /* start[e] walks to the end of its group, which is where the next one begins */
    for (int32_t i = 0; i < n; i++)
        m->order[m->start[m->idx[i]]++] = i;
    memmove(m->start + 1, m->start, (size_t) m->n_expert * sizeof(int32_t));
    m->start[0] = 0;
}

/* Rows lo .. hi-1 of w, per_expert of them to each expert, applied to that expert's pairs. A pair
 * p reads row p / div of x. */
static void experts(const struct moe *m, const struct mat *w, int32_t per_expert, float *y,
                    const float *x, int32_t x_stride, int32_t div, int64_t lo, int64_t hi)
{
    const float *xp[GEMM_ROWS];
    float *yp[GEMM_ROWS];

    while (lo < hi) {
        int32_t e = (int32_t) (lo / per_expert), n;
        int64_t base = (int64_t) e * per_expert;
        int64_t end = hi < base + per_expert ? hi : base + per_expert;

        for (int32_t s = m->start[e]; s < m->start[e + 1]; s += n) {
            n = m->start[e + 1] - s < GEMM_ROWS ? m->start[e + 1] - s : GEMM_ROWS;
            for (int32_t r = 0; r < n; r++) {
                int32_t p = m->order[s + r];

                xp[r] = x + (int64_t) (p / div) * x_stride;
                yp[r] = y + (int64_t) p * per_expert;
            }
            gemm_rows_ref(yp, xp, n, w, base, lo, end);
        }
        lo = end;
    }
}

void moe_up_ref(const struct moe *m, int64_t lo, int64_t hi)
{
    experts(m, &m->gate_up, 2 * m->ffn, m->gu, m->x, m->hidden, m->top_k, lo, hi);
}

void moe_act_ref(const struct moe *m, int64_t lo, int64_t hi)
{
    for (int64_t p = lo; p < hi; p++) {
        float *gu = m->gu + p * 2 * m->ffn;

        geglu_row_ref(gu, gu, gu + m->ffn, m->ffn);
    }
}

void moe_down_ref(const struct moe *m, int64_t lo, int64_t hi)
{
    experts(m, &m->down, m->hidden, m->out, m->gu, 2 * m->ffn, 1, lo, hi);
}

void moe_sum_ref(const struct moe *m, int64_t lo, int64_t hi)
{
    for (int64_t t = lo; t < hi; t++) {
        float *y = m->y + t * m->hidden;

        memset(y, 0, (size_t) m->hidden * sizeof(float));
        for (int32_t j = 0; j < m->top_k; j++) {
            const float *o = m->out + (t * m->top_k + j) * m->hidden;
            float w = m->w[t * m->top_k + j];

            for (int32_t i = 0; i < m->hidden; i++)
                y[i] += w * o[i];
        }
    }
}
