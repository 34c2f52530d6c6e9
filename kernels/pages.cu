/* pages.cu - a warp a head, of the store for K and V or for one of them; a thread an angle; several
 * blocks a page. */
#include "cuda.h"
#include "dev.cuh"
#include "head.cuh"

#define HEAD_MAX   512
#define HEAD_WARPS 4                       /* heads of one block */

static __global__ void rope_table_kernel(struct rope_table a)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x, t = i / a.n_rot, k = i % a.n_rot;
    float *cs = a.cs + (int64_t) t * 2 * a.n_rot, angle;

    if (t >= a.n_tok)
        return;
    angle = (float) a.pos[t] * a.inv_freq[k];
    cs[k] = cosf(angle);
    cs[a.n_rot + k] = sinf(angle);
}

void rope_table_cuda(const struct rope_table *a, gpu_stream s)
{
    unsigned n = (unsigned) ceil_div((int64_t) a->n_tok * a->n_rot, 256);

    if (n > 0)
        rope_table_kernel<<<n, 256, 0, s>>>(*a);
}

/* One warp: y[0..dim-1] in shared memory <- rope(w * x / rms(x)). */
__device__ static void norm_turn(float *y, const float *x, const float *w, const float *cs,
                                 int n_rot, int dim, float eps, int lane)
{
    float sum = 0, s;

    for (int i = lane * 4; i < dim; i += 128) {
        float4 v = *(const float4 *) (x + i);

        *(float4 *) (y + i) = v;
        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    s = 1.0f / sqrtf(warp_sum(sum) / (float) dim + eps);
    __syncwarp();
    for (int i = lane; i < dim; i += 32)
        y[i] *= w != NULL ? s * w[i] : s;
    __syncwarp();

    for (int i = lane; cs != NULL && i < n_rot; i += 32) {
        float a = y[i], b = y[i + dim / 2];

        y[i] = a * cs[i] - b * cs[n_rot + i];
        y[i + dim / 2] = b * cs[i] + a * cs[n_rot + i];
    }
    __syncwarp();
}

static __global__ void norm_rope_kernel(struct norm_rope a)
{
    __shared__ __align__(16) float buf[HEAD_WARPS][HEAD_MAX];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int64_t h = (int64_t) blockIdx.x * HEAD_WARPS + warp, t = h / a.n_head;
    float *y = buf[warp], *q = a.q + h * a.head_dim;

    if (t >= a.n_tok)
        return;
    norm_turn(y, q, a.w, a.cs + t * 2 * a.n_rot, a.n_rot, a.head_dim, a.eps, lane);
    for (int i = lane * 4; i < a.head_dim; i += 128)
        *(float4 *) (q + i) = *(const float4 *) (y + i);
}

void norm_rope_cuda(const struct norm_rope *a, gpu_stream s)
{
    unsigned n = (unsigned) ceil_div((int64_t) a->n_tok * a->n_head, HEAD_WARPS);

    norm_rope_kernel<<<n, HEAD_WARPS * 32, 0, s>>>(*a);
}

/* The first head of token t in the pages. */
__device__ static inline int64_t slot(const struct kv_layer *kv, const struct kv_map *m, int t)
{
    int64_t page = m->page[(int64_t) m->seq[t] * m->page_max + m->pos[t] / kv->page_tok];

    return (page * kv->page_tok + m->pos[t] % kv->page_tok) * kv->n_kv;
}

/* A warp for K and a warp for V of each head. Both halves of K may lose what does not turn. */
static __global__ void kv_store_kernel(struct kv_store a)
{
    __shared__ __align__(16) float buf[HEAD_WARPS][HEAD_MAX];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, dim = a.kv.head_dim;
    int64_t i = (int64_t) blockIdx.x * HEAD_WARPS + warp, h = i / 2;
    int t = (int) (h / a.kv.n_kv);
    bool is_v = i % 2 != 0;
    int width = is_v ? dim : a.kv.k_dim;
    float *y = buf[warp];
    bf16 *out;

    if (t >= a.map.n_tok)
        return;
    out = (bf16 *) (is_v ? a.kv.v : a.kv.k)
          + (slot(&a.kv, &a.map, t) + h % a.kv.n_kv) * width;
    if (is_v)
        norm_turn(y, a.v + h * dim, NULL, NULL, 0, dim, a.eps, lane);
    else
        norm_turn(y, a.k + h * dim, a.w, a.cs + (int64_t) t * 2 * a.n_rot, a.n_rot, dim, a.eps,
                  lane);
    for (int k = lane * 4; k < width; k += 128) {
        const float *from = y + (k < width / 2 ? k : k - width / 2 + dim / 2);

        *(uint2 *) (out + k) = make_uint2(pack_bf16(from[0], from[1]),
                                          pack_bf16(from[2], from[3]));
    }
}

/* A warp for both of each head: nothing in shared memory, so that many are on their way. */
template <int dim>
static __global__ void __launch_bounds__(256) kv_store_wide_kernel(struct kv_store a)
{
    int64_t h = (int64_t) blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, to;
    int t = (int) (h / a.kv.n_kv);
    struct head<dim> k, v, w;
    struct turn<dim> turn;

    if (t >= a.map.n_tok)
        return;
    head_load(&k, a.k + h * dim);
    head_load(&v, a.v + h * dim);
    head_load(&w, a.w);
    turn_load(&turn, a.cs + (int64_t) t * 2 * a.n_rot, a.n_rot);
    to = slot(&a.kv, &a.map, t) + h % a.kv.n_kv;
    head_norm<dim>(&v, NULL, a.eps);
    head_store((bf16 *) a.kv.v + to * dim, &v);
    head_norm(&k, &w, a.eps);
    head_turn(&k, &turn);
    if (a.kv.k_dim == dim)
        head_store((bf16 *) a.kv.k + to * dim, &k);
    else
        head_store_turned((bf16 *) a.kv.k + to * a.kv.k_dim, &k, a.n_rot);
}

void kv_store_cuda(const struct kv_store *a, gpu_stream s)
{
    int64_t n = (int64_t) a->map.n_tok * a->kv.n_kv;
    unsigned wide = (unsigned) ceil_div(n, 8);

    if (a->kv.head_dim == 256 && a->n_rot % 4 == 0)
        kv_store_wide_kernel<256><<<wide, 256, 0, s>>>(*a);
    else if (a->kv.head_dim == 512 && a->n_rot % 4 == 0)
        kv_store_wide_kernel<512><<<wide, 256, 0, s>>>(*a);
    else
        kv_store_kernel<<<(unsigned) ceil_div(2 * n, HEAD_WARPS), HEAD_WARPS * 32, 0, s>>>(*a);
}

static __global__ void kv_copy_kernel(struct kv_copy a)
{
    int dim = blockIdx.z == 0 ? a.kv.k_dim : a.kv.head_dim;
    int64_t page16 = (int64_t) a.kv.page_tok * a.kv.n_kv * dim * 2 / 16;
    int64_t from = a.from_to[(int64_t) blockIdx.y * a.stride] * page16;
    int64_t to = a.from_to[(int64_t) blockIdx.y * a.stride + 1] * page16;
    uint4 *p = (uint4 *) (blockIdx.z == 0 ? a.kv.k : a.kv.v);

    for (int64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < page16;
         i += gridDim.x * blockDim.x)
        p[to + i] = p[from + i];
}

void kv_copy_cuda(const struct kv_copy *a, gpu_stream s)
{
    int64_t page16 = (int64_t) a->kv.page_tok * a->kv.n_kv * a->kv.head_dim * 2 / 16;
    dim3 grid((unsigned) (page16 < 8192 ? ceil_div(page16, 256) : 32), (unsigned) a->n, 2);

    kv_copy_kernel<<<grid, 256, 0, s>>>(*a);
}
