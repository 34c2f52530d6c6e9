/* gemm.cu - linear layers: skinny for a few tokens, tiles for many (and gemm_hopper.cu,
 * gemm_lt.cu). */
#include "cuda.h"
#include "gemm.cuh"

/* Rows whose length is no multiple of 16 bytes: one warp an output, element by element. */
static __global__ void plain_kernel(struct gemm a)
{
    int64_t o = ((int64_t) blockIdx.y * blockDim.x + threadIdx.x) / 32;
    const bf16 *w = (const bf16 *) a.w.p + o * a.w.cols;
    const bf16 *x = (const bf16 *) a.x + (int64_t) blockIdx.x * a.w.cols;
    int lane = threadIdx.x % 32;
    float sum = 0;

    if (o >= a.w.rows)
        return;
    for (int k = lane; k < a.w.cols; k += 32)
        sum += __bfloat162float(w[k]) * __bfloat162float(x[k]);
    sum = warp_sum(sum);
    if (lane == 0)
        a.y[(int64_t) blockIdx.x * a.w.rows + o] = sum;
}

void gemm_plain_cuda(const struct gemm *g, gpu_stream s)
{
    dim3 grid((unsigned) g->n_row, (unsigned) ceil_div(g->w.rows, 8));

    plain_kernel<<<grid, 256, 0, s>>>(*g);
}

/* Tiles first[i] .. first[i+1]-1 are of matrix i; with act those of 0 have 8 outputs of gate and
 * the same 8 of up, and 1 has none. */
struct skinny_args { struct linear l; int32_t first[LINEAR_MAX + 1]; };

template <int depth>
static __global__ void __launch_bounds__(GEMM_THREADS, 2) skinny_kernel(struct skinny_args a)
{
    extern __shared__ __align__(16) char xs[];
    __shared__ struct skinny_part<1> part;
    int i = (int) blockIdx.x >= a.first[2] ? 2 : (int) blockIdx.x >= a.first[1] ? 1 : 0;
    int tile = blockIdx.x - a.first[i], lane_row = threadIdx.x % 32 / 4;
    bool pair = a.l.act != NULL && i == 0;
    struct gemm g = a.l.g[i];
    int64_t out = (int64_t) tile * (pair ? 8 : SKINNY_OUT), left = g.w.rows - out;
    int64_t r0 = lane_row < left ? out + lane_row : out;
    int64_t r1 = pair ? r0 : lane_row + 8 < left ? out + lane_row + 8 : out;
    const bf16 *w0 = (const bf16 *) g.w.p + r0 * g.w.cols;
    const bf16 *w1 = (const bf16 *) (pair ? a.l.g[1].w.p : g.w.p) + r1 * g.w.cols;
    int tok = threadIdx.x / SKINNY_OUT, o = threadIdx.x % SKINNY_OUT;
    struct skinny_regs<depth> regs;

    skinny_load(&regs, w0, w1, threadIdx.x / 32, GEMM_WARPS, g.w.cols);
    next_may_start();
    wait_for_others();
    skinny_load_x(xs, [&](int r) { return (const bf16 *) g.x + (int64_t) r * g.w.cols; }, g.n_row,
                  g.w.cols);
    copy_wait<0>();
    __syncthreads();

    skinny_tiles<depth, 1>(&part, &regs, xs, g.n_row, g.w.cols, 1,
        [&](int, int half) { return half == 0 ? w0 : w1; },
        [&](int) {
            if (tok >= g.n_row || o >= left)
                return;
            if (!pair)
                g.y[tok * g.w.rows + out + o] = skinny_sum(&part, 0, tok, o);
            else if (o < 8)
                ((bf16 *) a.l.act)[tok * g.w.rows + out + o] = __float2bfloat16(
                    gelu_mul(skinny_sum(&part, 0, tok, o), skinny_sum(&part, 0, tok, o + 8)));
        });
}

template <int depth>
static void skinny_launch(const struct skinny_args *a, size_t smem, gpu_stream s)
{
    static size_t allowed;                 /* one thread launches */

    if (smem > allowed)
        cudaFuncSetAttribute(skinny_kernel<depth>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int) smem);
    allowed = smem > allowed ? smem : allowed;
    launch_early(skinny_kernel<depth>, (unsigned) a->first[LINEAR_MAX], GEMM_THREADS, smem, s, *a);
}

int gemm_skinny_cuda(const struct linear *l, size_t smem_max, gpu_stream s)
{
    struct skinny_args a = { *l, {} };
    int32_t cols = l->g[0].w.cols, each = (int32_t) ceil_div(ceil_div(cols, 32), GEMM_WARPS);
    int32_t depth = (int32_t) ceil_div(each, ceil_div(each, SKINNY_DEPTH));
    size_t smem = (size_t) l->g[0].n_row * (size_t) skinny_stride(cols);

    if (cols % 8 != 0 || l->g[0].n_row > SKINNY_TOK
        || smem + sizeof(struct skinny_part<1>) > smem_max)
        return 0;
    for (int i = 0; i < LINEAR_MAX; i++) {
        int64_t rows = i < l->n ? l->g[i].w.rows : 0;

        if (l->act != NULL && i < 2)
            rows = i == 0 ? 2 * rows : 0;
        a.first[i + 1] = a.first[i] + (int32_t) ceil_div(rows, SKINNY_OUT);
    }
    if (depth > 4)
        skinny_launch<SKINNY_DEPTH>(&a, smem, s);
    else
        skinny_launch<4>(&a, smem, s);
    return 1;
}

static __global__ void __launch_bounds__(GEMM_THREADS) tile_kernel(struct gemm a)
{
    __shared__ __align__(16) struct tile_smem sm;
    int64_t out = (int64_t) blockIdx.x * TILE_OUT, tok = (int64_t) blockIdx.y * TILE_TOK;
    int64_t n_out = a.w.rows - out, n_tok = a.n_row - tok;
    struct tile t = { (const bf16 *) a.w.p + out * a.w.cols,
                      (int) (n_out < TILE_OUT ? n_out : TILE_OUT),
                      (int) (n_tok < TILE_TOK ? n_tok : TILE_TOK), a.w.cols };
    float *y = a.y + tok * a.w.rows + out;

    gemm_tile(&sm, &t,
              [&](int i) { return (const bf16 *) a.x + (tok + i) * a.w.cols; },
              [&](int i, int o, float v) { y[(int64_t) i * a.w.rows + o] = v; });
}

void gemm_tile_cuda(const struct gemm *g, gpu_stream s)
{
    dim3 grid((unsigned) ceil_div(g->w.rows, TILE_OUT), (unsigned) ceil_div(g->n_row, TILE_TOK));

    tile_kernel<<<grid, GEMM_THREADS, 0, s>>>(*g);
}
