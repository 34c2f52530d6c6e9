/* norm_ref.c - the definitions of norm.h. */
#include "norm.h"
#include "vec.h"

#include <math.h>

void next_ids_ref(const struct next_ids *a, int64_t lo, int64_t hi)
{
    for (int64_t t = lo; t < hi; t++)
        a->y[t] = a->from[t] < 0 ? a->id[t] : a->last[a->from[t]];
}

void embed_ref(const struct embed *a, int64_t lo, int64_t hi)
{
    for (int64_t t = lo; t < hi; t++)
        quant_row_ref(a->y + t * a->w.cols, &a->w, a->id[t], a->scale);
}

float rms_inv_ref(const float *x, int32_t n, float eps)
{
    return 1.0f / sqrtf(vec_dot(x, x, n) / (float) n + eps);
}

/* y = scale * (add + w * x * s); w and add may be NULL, y any of them */
static void scale_row(float *y, const float *x, float s, const float *w, const float *add,
                      float scale, int32_t dim)
{
    for (int32_t i = 0; i < dim; i++) {
        float v = x[i] * s;

        if (w != NULL)
            v *= w[i];
        if (add != NULL)
            v += add[i];
        y[i] = v * scale;
    }
}

void norm_ref(const struct norm *a, int64_t lo, int64_t hi)
{
    for (int64_t r = lo; r < hi; r++) {
        const float *x = a->x + r * a->dim, *add = a->add != NULL ? a->add + r * a->dim : NULL;
        /* rms(c x) = c rms(x), but for eps, which c must reach as well */
        float c = a->in_scale, s = c * rms_inv_ref(x, a->dim, a->eps / (c * c)) / fabsf(c);

        scale_row(a->y + r * a->dim, x, s, a->w, add, a->scale, a->dim);
    }
}

void join_ref(const struct join *a, int64_t lo, int64_t hi)
{
    int32_t dim = a->dim;

    for (int64_t r = lo; r < hi; r++) {
        const float *stream = a->x + r * dim;
        float inv, *y = a->y + r * dim;

        if (a->t[0] != NULL) {
            float *t0 = a->t[0] + r * dim;

            if (a->t[1] != NULL) {
                const float *t1 = a->t[1] + r * dim;

                scale_row(t0, t0, rms_inv_ref(t0, dim, a->eps), a->tw[0], NULL, 1, dim);
                scale_row(t0, t1, rms_inv_ref(t1, dim, a->eps), a->tw[1], t0, 1, dim);
            }
            scale_row(y, t0, rms_inv_ref(t0, dim, a->eps), a->w, stream, a->scale, dim);
            stream = y;
        }
        inv = rms_inv_ref(stream, dim, a->eps);
        for (int i = 0; i < JOIN_OUT && a->out[i].y != NULL; i++)
            scale_row((float *) a->out[i].y + r * dim, stream, inv, a->out[i].w, NULL,
                      a->out[i].scale, dim);
    }
}

void to_act_ref(const struct to_act *a, int64_t lo, int64_t hi)
{
    memcpy((float *) a->y + lo, a->x + lo, (size_t) (hi - lo) * sizeof(float));
}

void gather_ref(const struct gather *a, int64_t lo, int64_t hi)
{
    for (int64_t r = lo; r < hi; r++)
        memcpy(a->y + r * a->dim, a->x + (int64_t) a->idx[r] * a->dim,
               (size_t) a->dim * sizeof(float));
}

/* gelu(g) = g / (1 + exp(-2 sqrt(2/pi) (g + 0.044715 g^3))) */
VEC_INLINE void gelu_mul(vec_f *y, const vec_f *gate, const vec_f *up)
{
    vec_f g = *gate, e = g * (g * g * 0.044715f + 1.0f) * -1.5957691216f;

    vec_exp(&e);
    *y = g / (e + 1.0f) * *up;
}

void geglu_row_ref(float *y, const float *gate, const float *up, int32_t dim)
{
    vec_f g, u, v;
    int32_t i = 0;

    for (; i + VEC_N <= dim; i += VEC_N) {
        g = *(const vec_fu *) (gate + i);
        u = *(const vec_fu *) (up + i);
        gelu_mul(&v, &g, &u);
        *(vec_fu *) (y + i) = v;
    }

    if (i < dim) {
        size_t n = (size_t) (dim - i) * sizeof(float);

        g = u = (vec_f) {0};
        memcpy(&g, gate + i, n);
        memcpy(&u, up + i, n);
        gelu_mul(&v, &g, &u);
        memcpy(y + i, &v, n);
    }
}

void geglu_ref(const struct geglu *a, int64_t lo, int64_t hi)
{
    for (int64_t r = lo; r < hi; r++)
        geglu_row_ref((float *) a->y + r * a->dim, a->gate + r * a->dim,
                      a->up + r * a->up_stride, a->dim);
}
