/* norm.cu - a block a row, of geglu several; ids, acts and fills: a thread for one to four numbers,
 * whatever row they are of. */
#include "cuda.h"
#include "dev.cuh"

static __global__ void next_ids_kernel(struct next_ids a)
{
    int t = (int) (blockIdx.x * blockDim.x + threadIdx.x);

    if (t < a.n_tok)
        a.y[t] = a.from[t] < 0 ? a.id[t] : a.last[a.from[t]];
}

void next_ids_cuda(const struct next_ids *a, gpu_stream s)
{
    next_ids_kernel<<<(unsigned) ceil_div(a->n_tok, 256), 256, 0, s>>>(*a);
}

static __global__ void embed_kernel(struct embed a)
{
    const bf16 *w = (const bf16 *) a.w.p + (int64_t) a.id[blockIdx.x] * a.w.cols;
    float *y = a.y + (int64_t) blockIdx.x * a.w.cols;

    for (int i = threadIdx.x * 4; i < a.w.cols; i += blockDim.x * 4) {
        uint2 u = *(const uint2 *) (w + i);
        float2 lo = __bfloat1622float2(*(__nv_bfloat162 *) &u.x);
        float2 hi = __bfloat1622float2(*(__nv_bfloat162 *) &u.y);

        *(float4 *) (y + i) = make_float4(lo.x * a.scale, lo.y * a.scale, hi.x * a.scale,
                                          hi.y * a.scale);
    }
}

/* Threads for a row of n elements, 4 to a thread. */
static int row_threads(int32_t n)
{
    int t = (int) ceil_div(ceil_div(n, 4), 32) * 32;

    return t > 512 ? 512 : t;
}

void embed_cuda(const struct embed *a, gpu_stream s)
{
    embed_kernel<<<a->n_tok, row_threads(a->w.cols), 0, s>>>(*a);
}

__device__ static inline float norm_one(const struct norm *a, float x, float s, float w, float add)
{
    return (x * s * w + add) * a->scale;
}

static __global__ void norm_kernel(struct norm a)
{
    __shared__ float tmp[32];
    int64_t at = (int64_t) blockIdx.x * a.dim;
    const float4 one = make_float4(1, 1, 1, 1), zero = make_float4(0, 0, 0, 0);
    float sum = 0, c = a.in_scale, s;

    for (int i = threadIdx.x * 4; i < a.dim; i += blockDim.x * 4) {
        float4 x = *(const float4 *) (a.x + at + i);

        sum += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
    }
    sum = block_sum(sum, tmp);
    s = c / fabsf(c) / sqrtf(sum / (float) a.dim + a.eps / (c * c));

    for (int i = threadIdx.x * 4; i < a.dim; i += blockDim.x * 4) {
        float4 x = *(const float4 *) (a.x + at + i);
        float4 w = a.w != NULL ? *(const float4 *) (a.w + i) : one;
        float4 d = a.add != NULL ? *(const float4 *) (a.add + at + i) : zero;

        *(float4 *) (a.y + at + i) = make_float4(
            norm_one(&a, x.x, s, w.x, d.x), norm_one(&a, x.y, s, w.y, d.y),
            norm_one(&a, x.z, s, w.z, d.z), norm_one(&a, x.w, s, w.w, d.w));
    }
}

void norm_cuda(const struct norm *a, gpu_stream s)
{
    norm_kernel<<<a->n_row, row_threads(a->dim), 0, s>>>(*a);
}

__device__ static inline float4 mul4(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

__device__ static inline float4 scale4(float4 a, float s)
{
    return make_float4(a.x * s, a.y * s, a.z * s, a.w * s);
}

/* A row in registers: thread i has its pieces of 4 at i, i + blockDim.x, ... */
#define ROW_PIECES 2
static_assert(ROW_PIECES * 4 * 1024 == JOIN_DIM_MAX, "a row fits a block's registers");

struct row { float4 v[ROW_PIECES]; };

template <typename op> __device__ static inline void each_piece(int dim, const op &f)
{
    #pragma unroll
    for (int p = 0; p < ROW_PIECES; p++) {
        int i = (p * blockDim.x + threadIdx.x) * 4;

        if (i < dim)
            f(p, i);
    }
}

/* 1 / rms of up to two rows at once. */
__device__ static inline float2 rms_inv(const struct row *a, const struct row *b, int dim,
                                        float eps, float2 *tmp)
{
    int lane = threadIdx.x % 32, n_warp = blockDim.x / 32;
    float2 sum = make_float2(0, 0);

    each_piece(dim, [&](int p, int) {
        float4 u = a->v[p], v = b->v[p];

        sum.x += u.x * u.x + u.y * u.y + u.z * u.z + u.w * u.w;
        sum.y += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    });
    sum.x = warp_sum(sum.x);
    sum.y = warp_sum(sum.y);
    __syncthreads();                       /* tmp is free again */
    if (lane == 0)
        tmp[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = lane < n_warp ? tmp[lane] : make_float2(0, 0);
    sum.x = warp_sum(sum.x);
    sum.y = warp_sum(sum.y);
    return make_float2(1.0f / sqrtf(sum.x / (float) dim + eps),
                       1.0f / sqrtf(sum.y / (float) dim + eps));
}

/* One block a row, which stays in registers. */
static __global__ void __launch_bounds__(1024) join_kernel(struct join a)
{
    __shared__ float2 tmp[32];
    int64_t at = (int64_t) blockIdx.x * a.dim;
    struct row w = {}, w0 = {}, w1 = {}, x, t0, t1;
    float2 inv;

    next_may_start();
    each_piece(a.dim, [&](int p, int i) {
        if (a.t[0] != NULL)
            w.v[p] = *(const float4 *) (a.w + i);
        if (a.t[1] != NULL) {
            w0.v[p] = *(const float4 *) (a.tw[0] + i);
            w1.v[p] = *(const float4 *) (a.tw[1] + i);
        }
    });
    wait_for_others();

    each_piece(a.dim, [&](int p, int i) {
        x.v[p] = *(const float4 *) (a.x + at + i);
        if (a.t[0] != NULL)
            t0.v[p] = *(const float4 *) (a.t[0] + at + i);
        if (a.t[1] != NULL)
            t1.v[p] = *(const float4 *) (a.t[1] + at + i);
    });
    if (a.t[1] != NULL) {
        inv = rms_inv(&t0, &t1, a.dim, a.eps, tmp);
        each_piece(a.dim, [&](int p, int) {
            t0.v[p] = add4(mul4(scale4(t1.v[p], inv.y), w1.v[p]),
                           mul4(scale4(t0.v[p], inv.x), w0.v[p]));
        });
    }
    if (a.t[0] != NULL) {
        inv = rms_inv(&t0, &t0, a.dim, a.eps, tmp);
        each_piece(a.dim, [&](int p, int i) {
            x.v[p] = scale4(add4(mul4(scale4(t0.v[p], inv.x), w.v[p]), x.v[p]), a.scale);
            *(float4 *) (a.y + at + i) = x.v[p];
        });
    }
    inv = rms_inv(&x, &x, a.dim, a.eps, tmp);
    #pragma unroll
    for (int o = 0; o < JOIN_OUT; o++) {
        if (a.out[o].y == NULL)
            break;
        each_piece(a.dim, [&](int p, int i) {
            float4 v = scale4(mul4(scale4(x.v[p], inv.x), *(const float4 *) (a.out[o].w + i)),
                              a.out[o].scale);

            *(uint2 *) ((bf16 *) a.out[o].y + at + i) = make_uint2(pack_bf16(v.x, v.y),
                                                                   pack_bf16(v.z, v.w));
        });
    }
}

void join_cuda(const struct join *a, gpu_stream s)
{
    int64_t pieces = ceil_div(a->dim, 4), each = a->n_row > 264 || pieces > 1024 ? ROW_PIECES : 1;

    /* many rows: smaller blocks, so that an SM has several */
    launch_early(join_kernel, (unsigned) a->n_row, (unsigned) ceil_div(pieces, each * 32) * 32, 0,
                 s, *a);
}

static __global__ void gather_kernel(struct gather a)
{
    const float4 *x = (const float4 *) (a.x + (int64_t) a.idx[blockIdx.x] * a.dim);
    float4 *y = (float4 *) (a.y + (int64_t) blockIdx.x * a.dim);

    for (int i = threadIdx.x; i < a.dim / 4; i += blockDim.x)
        y[i] = x[i];
}

void gather_cuda(const struct gather *a, gpu_stream s)
{
    gather_kernel<<<a->n_row, row_threads(a->dim), 0, s>>>(*a);
}

static __global__ void geglu_kernel(struct geglu a)
{
    int64_t r = blockIdx.x;
    int i = (blockIdx.y * blockDim.x + threadIdx.x) * 4;
    float4 g, u;

    if (i >= a.dim)
        return;
    g = *(const float4 *) (a.gate + r * a.dim + i);
    u = *(const float4 *) (a.up + r * a.up_stride + i);
    *(uint2 *) ((bf16 *) a.y + r * a.dim + i) =
        make_uint2(pack_bf16(gelu_mul(g.x, u.x), gelu_mul(g.y, u.y)),
                   pack_bf16(gelu_mul(g.z, u.z), gelu_mul(g.w, u.w)));
}

void geglu_cuda(const struct geglu *a, gpu_stream s)
{
    dim3 grid((unsigned) a->n_row, (unsigned) ceil_div(a->dim, 1024));

    geglu_kernel<<<grid, 256, 0, s>>>(*a);
}

static __global__ void to_act_kernel(struct to_act a)
{
    int64_t i = ((int64_t) blockIdx.x * blockDim.x + threadIdx.x) * 4;
    bf16 *y = (bf16 *) a.y;

    if (i + 4 <= a.n) {
        float4 v = *(const float4 *) (a.x + i);

        *(uint2 *) (y + i) = make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
    } else {
        for (; i < a.n; i++)
            y[i] = __float2bfloat16(a.x[i]);
    }
}

void to_act_cuda(const struct to_act *a, gpu_stream s)
{
    to_act_kernel<<<(unsigned) ceil_div(a->n, 1024), 256, 0, s>>>(*a);
}

static __global__ void fill_kernel(struct fill a)
{
    int64_t step = (int64_t) gridDim.x * blockDim.x;

    for (int64_t i = (int64_t) blockIdx.x * blockDim.x + threadIdx.x; i < a.n; i += step)
        ((uint16_t *) a.y)[i] = fill_bf16(a.seed, (uint64_t) i);
}

void fill_cuda(const struct fill *a, gpu_stream s)
{
    int64_t n = ceil_div(a->n, 256);

    fill_kernel<<<(unsigned) (n < 4096 ? n : 4096), 256, 0, s>>>(*a);
}
