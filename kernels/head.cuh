/* head.cuh - a raw head of 256 or 512 numbers in the registers of a warp: norm, turn, bf16.
 *
 * Lane l has pieces of 4 numbers: l, l + 32, and so on, so both numbers of a turning pair. */
#ifndef KERNELS_HEAD_CUH
#define KERNELS_HEAD_CUH

#include "dev.cuh"

template <int dim> struct head { float4 v[dim / 128]; };

/* Of one position: cosines and sines of the first half's pieces. */
template <int dim> struct turn { float4 c[dim / 256], s[dim / 256]; };

template <int dim> __device__ static inline void head_load(struct head<dim> *h, const float *x)
{
    #pragma unroll
    for (int j = 0; j < dim / 128; j++)
        h->v[j] = *(const float4 *) (x + (threadIdx.x % 32 + 32 * j) * 4);
}

/* cs: cosines, then sines, n_rot of each, a multiple of 4. */
template <int dim>
__device__ static inline void turn_load(struct turn<dim> *t, const float *cs, int n_rot)
{
    #pragma unroll
    for (int j = 0; j < dim / 256; j++) {
        int i = (threadIdx.x % 32 + 32 * j) * 4;

        t->c[j] = i < n_rot ? *(const float4 *) (cs + i) : make_float4(1, 1, 1, 1);
        t->s[j] = i < n_rot ? *(const float4 *) (cs + n_rot + i) : make_float4(0, 0, 0, 0);
    }
}

/* h <- h / rms(h), times w unless that is NULL */
template <int dim>
__device__ static inline void head_norm(struct head<dim> *h, const struct head<dim> *w, float eps)
{
    float sum = 0, inv;

    #pragma unroll
    for (int j = 0; j < dim / 128; j++) {
        float4 v = h->v[j];

        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    inv = 1.0f / sqrtf(warp_sum(sum) / (float) dim + eps);
    #pragma unroll
    for (int j = 0; j < dim / 128; j++) {
        float4 u = w != NULL ? w->v[j] : make_float4(1, 1, 1, 1), *v = &h->v[j];

        *v = make_float4(v->x * inv * u.x, v->y * inv * u.y, v->z * inv * u.z, v->w * inv * u.w);
    }
}

__device__ static inline void turn_pair(float *a, float *b, float c, float s)
{
    float first = *a * c - *b * s;

    *b = *b * c + *a * s;
    *a = first;
}

template <int dim>
__device__ static inline void head_turn(struct head<dim> *h, const struct turn<dim> *t)
{
    #pragma unroll
    for (int j = 0; j < dim / 256; j++) {
        float4 *a = &h->v[j], *b = &h->v[j + dim / 256], c = t->c[j], s = t->s[j];

        turn_pair(&a->x, &b->x, c.x, s.x);
        turn_pair(&a->y, &b->y, c.y, s.y);
        turn_pair(&a->z, &b->z, c.z, s.z);
        turn_pair(&a->w, &b->w, c.w, s.w);
    }
}

__device__ static inline uint2 piece_bf16(float4 v)
{
    return make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
}

template <int dim> __device__ static inline void head_store(bf16 *to, const struct head<dim> *h)
{
    #pragma unroll
    for (int j = 0; j < dim / 128; j++)
        *(uint2 *) (to + (threadIdx.x % 32 + 32 * j) * 4) = piece_bf16(h->v[j]);
}

/* The turned pairs alone, as kv_layer.k has them: first halves, then second ones. */
template <int dim>
__device__ static inline void head_store_turned(bf16 *to, const struct head<dim> *h, int n_rot)
{
    #pragma unroll
    for (int j = 0; j < dim / 256; j++) {
        int i = (threadIdx.x % 32 + 32 * j) * 4;

        if (i < n_rot) {
            *(uint2 *) (to + i) = piece_bf16(h->v[j]);
            *(uint2 *) (to + n_rot + i) = piece_bf16(h->v[j + dim / 256]);
        }
    }
}

#endif
