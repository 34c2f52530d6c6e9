/* attn_ref.c - scores, softmax, weighted sum: three passes over the visible keys. */
#include "attn.h"
#include "vec.h"

static int64_t round_up(int64_t n)
{
    return (n + VEC_N - 1) / VEC_N * VEC_N;
}

size_t attn_scratch(int32_t n_head, int32_t n_kv, int64_t ctx_max)
{
    return (size_t) (n_head / n_kv) * (size_t) round_up(ctx_max);
}

/* s[0..n-1] <- exp(s - max); returns 1 / sum. s has room up to a multiple of VEC_N. */
static float softmax(float *s, int32_t n)
{
    vec_f sum = {0}, v;
    float max = s[0];

    for (int32_t j = 1; j < n; j++)
        max = s[j] > max ? s[j] : max;
    for (int64_t j = n; j < round_up(n); j++)
        s[j] = max - 1000.0f;                          /* exp gives 0 */

    for (int32_t j = 0; j < n; j += VEC_N) {
        v = *(const vec_fu *) (s + j) - max;
        vec_exp(&v);
        *(vec_fu *) (s + j) = v;
        sum += v;
    }

    return 1.0f / vec_sum(&sum);
}

/* q.k, of which v has the dims that do not turn where K is not whole (pages.h). */
VEC_INLINE float score(const struct kv_layer *kv, const float *q, const float *k, const float *v)
{
    int32_t half = kv->head_dim / 2, n_rot = kv->k_dim / 2;
    vec_f s = {0};

    if (kv->k_dim == kv->head_dim)
        return vec_dot(q, k, kv->head_dim);
    for (int32_t i = 0; i < 2; i++, q += half, v += half) {
        vec_dot_add(&s, q, k + i * n_rot, n_rot);
        vec_dot_add(&s, q + n_rot, v + n_rot, half - n_rot);
    }
    return vec_sum(&s);
}

static void attn_item(const struct attn *a, int64_t tok, int32_t h_kv, float *scratch)
{
    const struct kv_layer *kv = &a->kv;
    int32_t dim = kv->head_dim, group = a->n_head / kv->n_kv;
    int32_t pos = a->map.pos[tok], seq = a->map.seq[tok];
    int32_t first = a->window > 0 && pos >= a->window ? pos - a->window + 1 : 0;
    int32_t n = pos - first + 1;
    int64_t stride = round_up(n);
    const float *q = a->q + (tok * a->n_head + (int64_t) h_kv * group) * dim;
    float *y = (float *) a->y + (tok * a->n_head + (int64_t) h_kv * group) * dim;

    for (int32_t j = 0; j < n; j++) {
        size_t slot = kv_slot(kv, &a->map, seq, first + j) + (size_t) h_kv;
        const float *k = (const float *) kv->k + slot * (size_t) kv->k_dim;
        const float *v = (const float *) kv->v + slot * (size_t) dim;

        for (int32_t g = 0; g < group; g++)
            scratch[g * stride + j] = score(kv, q + (int64_t) g * dim, k, v);
    }

    for (int32_t g = 0; g < group; g++) {
        float inv = softmax(scratch + g * stride, n);

        for (int32_t j = 0; j < n; j++)
            scratch[g * stride + j] *= inv;
    }

    memset(y, 0, (size_t) (group * dim) * sizeof(float));
    for (int32_t j = 0; j < n; j++) {
        size_t slot = kv_slot(kv, &a->map, seq, first + j) + (size_t) h_kv;
        const float *v = (const float *) kv->v + slot * (size_t) dim;

        for (int32_t g = 0; g < group; g++) {
            float p = scratch[g * stride + j], *out = y + (int64_t) g * dim;

            for (int32_t i = 0; i < dim; i++)
                out[i] += p * v[i];
        }
    }
}

void attn_ref(const struct attn *a, int64_t lo, int64_t hi, float *scratch)
{
    for (int64_t it = lo; it < hi; it++)
        attn_item(a, it / a->kv.n_kv, (int32_t) (it % a->kv.n_kv), scratch);
}
