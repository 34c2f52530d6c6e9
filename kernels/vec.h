/* vec.h - sixteen floats at a time, inside kernels only.
 *
 * The lanes are spelled out so that a sum has one order on every machine and in every caller: that
 * is what makes a token's result independent of its batch. No vector crosses a function call by
 * value, because that would be another ABI without AVX-512. */
#ifndef KERNELS_VEC_H
#define KERNELS_VEC_H

#include <stdint.h>
#include <string.h>

#define VEC_N 16

typedef float    vec_f  __attribute__((vector_size(64)));
typedef float    vec_fu __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t  vec_i  __attribute__((vector_size(64)));
typedef uint32_t vec_u  __attribute__((vector_size(64)));
typedef uint16_t vec_hu __attribute__((vector_size(32), aligned(2), may_alias));
typedef _Float16 vec_xu __attribute__((vector_size(32), aligned(2), may_alias));

#define VEC_INLINE static inline __attribute__((always_inline))

/* The one order in which sixteen lanes are added. */
VEC_INLINE float vec_sum(const vec_f *v)
{
    float a[VEC_N];

    memcpy(a, v, sizeof(a));
    for (int n = VEC_N / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            a[i] += a[i + n];
    return a[0];
}

VEC_INLINE void vec_dot_add(vec_f *s, const float *a, const float *b, int32_t n)
{
    int32_t i = 0;

    for (; i + VEC_N <= n; i += VEC_N)
        *s += *(const vec_fu *) (a + i) * *(const vec_fu *) (b + i);
    if (i < n) {
        vec_f x = {0}, y = {0};

        memcpy(&x, a + i, (size_t) (n - i) * sizeof(float));
        memcpy(&y, b + i, (size_t) (n - i) * sizeof(float));
        *s += x * y;
    }
}

VEC_INLINE float vec_dot(const float *a, const float *b, int32_t n)
{
    vec_f s = {0};

    vec_dot_add(&s, a, b, n);
    return vec_sum(&s);
}

/* exp of every lane, 2 ulp; 0 below -87, saturated above 88. */
VEC_INLINE void vec_exp(vec_f *v)
{
    const vec_f zero = {0}, half = zero + 0.5f, top = zero + 88.0f, low = zero - 87.0f;
    vec_f x = *v, n, r, p;
    vec_i over = x > top, under = x < low, neg, k;

    x = (vec_f) ((over & (vec_i) top) | (~over & (vec_i) x));
    x = (vec_f) ((under & (vec_i) low) | (~under & (vec_i) x));

    neg = x < zero;
    n = x * 1.44269504f;
    k = __builtin_convertvector((vec_f) ((neg & (vec_i) (n - half)) | (~neg & (vec_i) (n + half))),
                                vec_i);
    n = __builtin_convertvector(k, vec_f);
    r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;

    p = zero + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;

    p = (vec_f) ((vec_i) p + (k << 23));
    *v = (vec_f) (~under & (vec_i) p);
}

#endif
