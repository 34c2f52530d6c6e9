/* pages_ref.c - the definitions of pages.h. */
#include "pages.h"
#include "norm.h"

#include <math.h>
#include <string.h>

void rope_table_ref(const struct rope_table *a, int64_t lo, int64_t hi)
{
    for (int64_t t = lo; t < hi; t++) {
        float *cs = a->cs + t * 2 * a->n_rot;

        for (int32_t i = 0; i < a->n_rot; i++) {
            float angle = (float) a->pos[t] * a->inv_freq[i];

            cs[i] = cosf(angle);
            cs[a->n_rot + i] = sinf(angle);
        }
    }
}

/* y = rope(w * x / rms(x)) of one head; cs NULL: no turn. y may be x. */
static void head_ref(float *y, const float *x, const float *w, const float *cs, int32_t n_rot,
                     int32_t dim, float eps)
{
    float s = rms_inv_ref(x, dim, eps), a, b;

    for (int32_t i = 0; i < dim; i++)
        y[i] = w != NULL ? x[i] * s * w[i] : x[i] * s;

    for (int32_t i = 0; cs != NULL && i < n_rot; i++) {
        a = y[i];
        b = y[i + dim / 2];
        y[i] = a * cs[i] - b * cs[n_rot + i];
        y[i + dim / 2] = b * cs[i] + a * cs[n_rot + i];
    }
}

void norm_rope_ref(const struct norm_rope *a, int64_t lo, int64_t hi)
{
    for (int64_t t = lo; t < hi; t++) {
        for (int32_t h = 0; h < a->n_head; h++) {
            float *q = a->q + (t * a->n_head + h) * a->head_dim;

            head_ref(q, q, a->w, a->cs + t * 2 * a->n_rot, a->n_rot, a->head_dim, a->eps);
        }
    }
}

/* The turned dims of K from the normed projection, which is V. */
static void turned_ref(float *k, const float *v, const float *w, const float *cs, int32_t n_rot,
                       int32_t half)
{
    for (int32_t i = 0; i < n_rot; i++) {
        float a = v[i] * w[i], b = v[half + i] * w[half + i];

        k[i] = a * cs[i] - b * cs[n_rot + i];
        k[n_rot + i] = b * cs[i] + a * cs[n_rot + i];
    }
}

void kv_store_ref(const struct kv_store *a, int64_t lo, int64_t hi)
{
    int32_t dim = a->kv.head_dim, k_dim = a->kv.k_dim, n_kv = a->kv.n_kv;

    for (int64_t i = lo * n_kv; i < hi * n_kv; i++) {
        int64_t t = i / n_kv;
        size_t slot = kv_slot(&a->kv, &a->map, a->map.seq[t], a->map.pos[t])
                      + (size_t) (i % n_kv);
        float *k = (float *) a->kv.k + slot * (size_t) k_dim;
        float *v = (float *) a->kv.v + slot * (size_t) dim;
        const float *cs = a->cs + t * 2 * a->n_rot;

        head_ref(v, a->v + i * dim, NULL, NULL, 0, dim, a->eps);
        if (k_dim == dim)
            head_ref(k, a->k + i * dim, a->w, cs, a->n_rot, dim, a->eps);
        else
            turned_ref(k, v, a->w, cs, a->n_rot, dim / 2);
    }
}

static void copy_page(void *pages, size_t width, const int32_t *from_to)
{
    float *p = pages;

    memcpy(p + (size_t) from_to[1] * width, p + (size_t) from_to[0] * width,
           width * sizeof(float));
}

void kv_copy_ref(const struct kv_copy *a, int64_t lo, int64_t hi)
{
    size_t heads = (size_t) a->kv.page_tok * (size_t) a->kv.n_kv;

    for (int64_t i = lo; i < hi; i++) {
        copy_page(a->kv.k, heads * (size_t) a->kv.k_dim, a->from_to + i * a->stride);
        copy_page(a->kv.v, heads * (size_t) a->kv.head_dim, a->from_to + i * a->stride);
    }
}
