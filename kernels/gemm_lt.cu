/* gemm_lt.cu - cuBLASLt, which is looked for when a GPU is used: without one nobody needs it, or
 * pays for its pages. W [rows, cols] is, column by column, cols x rows: y' = W x' with W
 * transposed. */
#include "gemm_lt.h"
#include "gemm_table.inc"

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LT_SO     "libcublasLt.so.13"
#define LT_SHAPES 1024                     /* remembered: another in a taken place replaces it */
#define LT_FUNCTIONS(X) \
    X(Create) X(Destroy) X(GetStatusString) X(GetVersion) X(Matmul) X(MatmulAlgoCheck) \
    X(MatmulAlgoConfigGetAttribute) X(MatmulAlgoConfigSetAttribute) X(MatmulAlgoGetHeuristic) \
    X(MatmulAlgoInit) \
    X(MatmulDescCreate) X(MatmulDescDestroy) X(MatmulDescSetAttribute) X(MatmulPreferenceCreate) \
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
    bool                       tuned;      /* the table is of this GPU and this library */
    char                       gpu[sizeof(((struct cudaDeviceProp *) 0)->name)];
    char                       note[512];
    struct lt_shape            shape[LT_SHAPES];
};

/* Of one product. */
struct lt_layout { cublasLtMatrixLayout_t w, x, y; };

static void layout_free(const struct lt_layout *m)
{
    if (m->y != NULL)
        lt_fn.MatrixLayoutDestroy(m->y);
    if (m->x != NULL)
        lt_fn.MatrixLayoutDestroy(m->x);
    if (m->w != NULL)
        lt_fn.MatrixLayoutDestroy(m->w);
}

/* 0, or the library's failure, as of others here that return int. */
static int layout_new(struct lt_layout *m, const struct gemm *g)
{
    uint64_t rows = (uint64_t) g->w.rows, cols = (uint64_t) g->w.cols, n = (uint64_t) g->n_row;
    int rc;

    *m = {};
    if ((rc = lt_fn.MatrixLayoutCreate(&m->w, CUDA_R_16BF, cols, rows, (int64_t) cols)) != 0
        || (rc = lt_fn.MatrixLayoutCreate(&m->x, CUDA_R_16BF, cols, n, (int64_t) cols)) != 0
        || (rc = lt_fn.MatrixLayoutCreate(&m->y, CUDA_R_32F, rows, n, (int64_t) rows)) != 0)
        layout_free(m);
    return rc;
}

/* The attributes of an algorithm beside its id. */
static const struct way_field {
    cublasLtMatmulAlgoConfigAttributes_t attr;
    size_t                               bytes;        /* little-endian, as the GPUs' hosts are */
    size_t                               at;           /* in struct gemm_way */
} way_fields[] = {
    { CUBLASLT_ALGO_CONFIG_TILE_ID, 4, offsetof(struct gemm_way, tile) },
    { CUBLASLT_ALGO_CONFIG_STAGES_ID, 4, offsetof(struct gemm_way, stages) },
    { CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 4, offsetof(struct gemm_way, split_k) },
    { CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, 4, offsetof(struct gemm_way, reduction) },
    { CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, 4, offsetof(struct gemm_way, swizzle) },
    { CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, 4, offsetof(struct gemm_way, custom) },
    { CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, 2, offsetof(struct gemm_way, inner) },
    { CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, 2, offsetof(struct gemm_way, cluster) },
};

static bool way_of(struct gemm_way *way, const cublasLtMatmulAlgo_t *algo)
{
    size_t n;

    *way = {};
    if (lt_fn.MatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_CONFIG_ID, &way->id,
                                           sizeof(way->id), &n) != 0)
        return false;
    for (const struct way_field &f : way_fields)
        if (lt_fn.MatmulAlgoConfigGetAttribute(algo, f.attr, (char *) way + f.at, f.bytes, &n) != 0)
            return false;
    return true;
}

/* The algorithm that these numbers name, if it can make this product in our work space. */
static bool algo_of(struct gemm_lt *lt, cublasLtMatmulAlgo_t *algo, const struct gemm_way *way,
                    const struct lt_layout *m)
{
    cublasLtMatmulHeuristicResult_t found;

    if (lt_fn.MatmulAlgoInit(lt->handle, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_16BF,
                             CUDA_R_32F, CUDA_R_32F, way->id, algo) != 0)
        return false;
    for (const struct way_field &f : way_fields)
        if (lt_fn.MatmulAlgoConfigSetAttribute(algo, f.attr, (const char *) way + f.at,
                                               f.bytes) != 0)
            return false;
    return lt_fn.MatmulAlgoCheck(lt->handle, lt->op, m->w, m->x, m->y, m->y, algo, &found) == 0
           && found.workspaceSize <= GEMM_LT_WORK;
}

/* Entries of a matrix stand in the order of n_row. */
static const struct gemm_entry *table_find(const struct gemm *g)
{
    for (const struct gemm_entry &e : gemm_table)
        if (e.rows == g->w.rows && e.cols == g->w.cols && g->n_row <= e.n_row)
            return &e;
    return NULL;
}

/* Algorithms of the table that the library refuses; *n: of so many. */
static int count_refused(struct gemm_lt *lt, int *n)
{
    int n_refused = 0;

    *n = 0;
    for (const struct gemm_entry &e : gemm_table) {
        struct gemm g = {};
        struct lt_layout m;
        cublasLtMatmulAlgo_t algo;

        g.w.rows = e.rows;
        g.w.cols = e.cols;
        g.n_row = e.n_row;
        if (layout_new(&m, &g) == 0) {
            n_refused += !e.way.own && !algo_of(lt, &algo, &e.way, &m);
            layout_free(&m);
        }
        ++*n;
    }
    return n_refused;
}

struct gemm_lt *gemm_lt_open(void)
{
    struct gemm_lt *lt = (struct gemm_lt *) calloc(1, sizeof(*lt));
    uint32_t ordered = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                       | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    cublasOperation_t trans = CUBLAS_OP_T;
    size_t work = GEMM_LT_WORK;
    struct cudaDeviceProp gpu = {};

    if (lt == NULL)
        return NULL;
    if (!lt_load() || lt_fn.Create(&lt->handle) != CUBLAS_STATUS_SUCCESS
        || lt_fn.MatmulDescCreate(&lt->op, CUBLAS_COMPUTE_32F, CUDA_R_32F)
        || lt_fn.MatmulDescSetAttribute(lt->op, CUBLASLT_MATMUL_DESC_TRANSA, &trans,
                                        sizeof(trans))
        || lt_fn.MatmulPreferenceCreate(&lt->pref)
        || lt_fn.MatmulPreferenceSetAttribute(lt->pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                              &work, sizeof(work))
        || lt_fn.MatmulPreferenceSetAttribute(lt->pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                              &ordered, sizeof(ordered))
        || cudaMalloc(&lt->work, GEMM_LT_WORK) != cudaSuccess) {
        gemm_lt_close(lt);
        return NULL;
    }
    (void) cudaGetDeviceProperties(&gpu, 0);
    lt->tuned = strcmp(gpu.name, GEMM_TABLE_GPU) == 0 && lt_fn.GetVersion() == GEMM_TABLE_LT;
    memcpy(lt->gpu, gpu.name, sizeof(lt->gpu));
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

const char *gemm_lt_note(struct gemm_lt *lt)
{
    int n, n_refused = lt->tuned ? count_refused(lt, &n) : 0;

    if (!lt->tuned)
        snprintf(lt->note, sizeof(lt->note), "products of many rows are made as cuBLASLt likes"
                 " best, not as measured: kernels/gemm_table.inc is of %s and version %d, this is"
                 " %s and version %zu", GEMM_TABLE_GPU, GEMM_TABLE_LT, lt->gpu,
                 lt_fn.GetVersion());
    else if (n_refused > 0)
        snprintf(lt->note, sizeof(lt->note), "cuBLASLt refuses %d of %d algorithms of"
                 " kernels/gemm_table.inc, and there takes what it likes best", n_refused, n);
    return lt->note[0] != '\0' ? lt->note : NULL;
}

size_t gemm_lt_version(const struct gemm_lt *)
{
    return lt_fn.GetVersion();
}

/* That there is no way for these sizes is no failure: the library says so when it is asked for one,
 * and what it proposes it can run. */
static int choose(struct gemm_lt *lt, struct lt_shape *s, const struct gemm *g,
                  const struct lt_layout *m)
{
    const struct gemm_entry *e = lt->tuned ? table_find(g) : NULL;
    cublasLtMatmulHeuristicResult_t best = {};
    int n = 0, rc;

    s->can = e != NULL && !e->way.own && algo_of(lt, &s->algo, &e->way, m);
    if (s->can || (e != NULL && e->way.own))
        return 0;
    rc = lt_fn.MatmulAlgoGetHeuristic(lt->handle, lt->op, m->w, m->x, m->y, m->y, lt->pref, 1,
                                      &best, &n);
    s->can = rc == 0 && n > 0;
    s->algo = best.algo;
    return rc == CUBLAS_STATUS_NOT_SUPPORTED ? 0 : rc;
}

/* The place of g's shape; known: it is this shape's already. */
static struct lt_shape *shape_of(struct gemm_lt *lt, const struct gemm *g)
{
    uint64_t h = (uint64_t) g->w.rows * 0x9e3779b97f4a7c15ull
                 ^ (uint64_t) g->w.cols * 0xd1342543de82ef95ull
                 ^ (uint64_t) g->n_row * 0xbf58476d1ce4e5b9ull;
    struct lt_shape *s = &lt->shape[(h >> 40) % LT_SHAPES];

    if (s->known && s->rows == g->w.rows && s->cols == g->w.cols && s->n_row == g->n_row)
        return s;
    *s = {};
    s->rows = g->w.rows;
    s->cols = g->w.cols;
    s->n_row = g->n_row;
    return s;
}

int gemm_lt_cuda(struct gemm_lt *lt, const struct gemm *g, gpu_stream stream)
{
    struct lt_shape *s = shape_of(lt, g);
    const float one = 1, zero = 0;
    struct lt_layout m;
    int rc;

    if (s->known && !s->can)
        return 0;
    if ((rc = layout_new(&m, g)) != 0)
        return -rc;
    if (!s->known)
        rc = choose(lt, s, g, &m);
    s->known = rc == 0;
    if (rc == 0 && s->can)
        rc = lt_fn.Matmul(lt->handle, lt->op, &one, g->w.p, m.w, g->x, m.x, &zero, g->y, m.y,
                          g->y, m.y, &s->algo, lt->work, GEMM_LT_WORK, stream);
    layout_free(&m);
    return rc != 0 ? -rc : s->can;
}

const char *gemm_lt_words(int rc)
{
    return lt_fn.GetStatusString((cublasStatus_t) -rc);
}

#define WAYS_MAX 64

int gemm_lt_ways(struct gemm_lt *lt, const struct gemm *g, struct gemm_way *way, int max)
{
    cublasLtMatmulHeuristicResult_t found[WAYS_MAX];
    struct lt_layout m;
    int n = 0, k = 0;

    if (layout_new(&m, g) != 0)
        return 0;
    if (lt_fn.MatmulAlgoGetHeuristic(lt->handle, lt->op, m.w, m.x, m.y, m.y, lt->pref,
                                     max < WAYS_MAX ? max : WAYS_MAX, found, &n) != 0)
        n = 0;
    for (int i = 0; i < n; i++)
        k += found[i].state == CUBLAS_STATUS_SUCCESS && way_of(&way[k], &found[i].algo);
    layout_free(&m);
    return k;
}

int gemm_lt_force(struct gemm_lt *lt, const struct gemm *g, const struct gemm_way *way)
{
    struct lt_shape *s = shape_of(lt, g);
    struct lt_layout m;

    if (layout_new(&m, g) != 0)
        return false;
    s->known = true;
    s->can = !way->own && algo_of(lt, &s->algo, way, &m);
    layout_free(&m);
    return s->can;
}
