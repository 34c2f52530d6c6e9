/* gemm.cu - linear layers: skinny for a few tokens, tiles or cuBLASLt for many. */
#include "cuda.h"
#include "gemm.cuh"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdlib.h>

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

/* cuBLASLt. W [rows, cols] is, column by column, cols x rows: y' = W x' with W transposed. What the
 * library proposes for a shape is kept in a table; a shape that meets a taken place replaces it. */
#define LT_SHAPES    1024
#define LT_WORKSPACE (32u << 20)

/* cuBLASLt is looked for when a GPU is used: without one nobody needs it, or pays for its pages. */
#define LT_SO  "libcublasLt.so.13"
#define LT_FUNCTIONS(X) \
    X(Create) X(Destroy) X(Matmul) X(MatmulAlgoGetHeuristic) X(MatmulDescCreate) \
    X(MatmulDescDestroy) X(MatmulDescSetAttribute) X(MatmulPreferenceCreate) \
    X(MatmulPreferenceDestroy) X(MatmulPreferenceSetAttribute) X(MatrixLayoutCreate) \
    X(MatrixLayoutDestroy)

#define LT_FIELD(name) decltype(&cublasLt##name) name;
static struct { LT_FUNCTIONS(LT_FIELD) } lt_fn;
#undef LT_FIELD

static bool lt_load(void)
{
    void *so = dlopen(LT_SO, RTLD_NOW | RTLD_LOCAL);

#define LT_FIND(name)                                                                   \
    if (so == NULL || (*(void **) &lt_fn.name = dlsym(so, "cublasLt" #name)) == NULL)   \
        return false;
    LT_FUNCTIONS(LT_FIND)
#undef LT_FIND
    return true;
}

struct lt_shape { int64_t rows; int32_t cols, n_row; bool known, can; cublasLtMatmulAlgo_t algo; };

struct gemm_lt {
    cublasLtHandle_t           handle;
    cublasLtMatmulDesc_t       op;
    cublasLtMatmulPreference_t pref;
    void                      *work;
    struct lt_shape            shape[LT_SHAPES];
};

struct gemm_lt *gemm_lt_open(void)
{
    struct gemm_lt *lt = (struct gemm_lt *) calloc(1, sizeof(*lt));
    cublasOperation_t trans = CUBLAS_OP_T;
    size_t work = LT_WORKSPACE;

    if (lt == NULL)
        return NULL;
    if (!lt_load() || lt_fn.Create(&lt->handle) != CUBLAS_STATUS_SUCCESS
        || lt_fn.MatmulDescCreate(&lt->op, CUBLAS_COMPUTE_32F, CUDA_R_32F)
        || lt_fn.MatmulDescSetAttribute(lt->op, CUBLASLT_MATMUL_DESC_TRANSA, &trans,
                                          sizeof(trans))
        || lt_fn.MatmulPreferenceCreate(&lt->pref)
        || lt_fn.MatmulPreferenceSetAttribute(lt->pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                &work, sizeof(work))
        || cudaMalloc(&lt->work, LT_WORKSPACE) != cudaSuccess) {
        gemm_lt_close(lt);
        return NULL;
    }
    return lt;
}

void gemm_lt_close(struct gemm_lt *lt)
{
    if (lt == NULL)
        return;
    cudaFree(lt->work);
    if (lt->pref != NULL)
        lt_fn.MatmulPreferenceDestroy(lt->pref);
    if (lt->op != NULL)
        lt_fn.MatmulDescDestroy(lt->op);
    if (lt->handle != NULL)
        lt_fn.Destroy(lt->handle);
    free(lt);
}

static struct lt_shape *lt_find(struct gemm_lt *lt, const struct gemm *g, cublasLtMatrixLayout_t w,
                                cublasLtMatrixLayout_t x, cublasLtMatrixLayout_t y)
{
    uint64_t h = (uint64_t) g->w.rows * 0x9e3779b97f4a7c15ull
                 ^ (uint64_t) g->w.cols * 0xd1342543de82ef95ull
                 ^ (uint64_t) g->n_row * 0xbf58476d1ce4e5b9ull;
    struct lt_shape *s = &lt->shape[(h >> 40) % LT_SHAPES];
    cublasLtMatmulHeuristicResult_t best;
    int n = 0;

    if (s->known && s->rows == g->w.rows && s->cols == g->w.cols && s->n_row == g->n_row)
        return s;
    s->rows = g->w.rows;
    s->cols = g->w.cols;
    s->n_row = g->n_row;
    s->known = true;
    s->can = lt_fn.MatmulAlgoGetHeuristic(lt->handle, lt->op, w, x, y, y, lt->pref, 1, &best, &n)
             == CUBLAS_STATUS_SUCCESS && n > 0;
    s->algo = best.algo;
    return s;
}

int gemm_lt_cuda(struct gemm_lt *lt, const struct gemm *g, gpu_stream stream)
{
    cublasLtMatrixLayout_t w = NULL, x = NULL, y = NULL;
    uint64_t rows = (uint64_t) g->w.rows, cols = (uint64_t) g->w.cols, n = (uint64_t) g->n_row;
    const float one = 1, zero = 0;
    bool done = false;

    if (lt_fn.MatrixLayoutCreate(&w, CUDA_R_16BF, cols, rows, (int64_t) cols) == 0
        && lt_fn.MatrixLayoutCreate(&x, CUDA_R_16BF, cols, n, (int64_t) cols) == 0
        && lt_fn.MatrixLayoutCreate(&y, CUDA_R_32F, rows, n, (int64_t) rows) == 0) {
        struct lt_shape *s = lt_find(lt, g, w, x, y);

        done = s->can
               && lt_fn.Matmul(lt->handle, lt->op, &one, g->w.p, w, g->x, x, &zero, g->y, y, g->y,
                                 y, &s->algo, lt->work, LT_WORKSPACE, stream) == 0;
    }
    if (y != NULL)
        lt_fn.MatrixLayoutDestroy(y);
    if (x != NULL)
        lt_fn.MatrixLayoutDestroy(x);
    if (w != NULL)
        lt_fn.MatrixLayoutDestroy(w);
    return done;
}
