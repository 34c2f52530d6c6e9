/* cuda_open.c - the GPU is found, asked whether the model fits, and everything is reserved on it;
 * and given back. */
#include "cuda_priv.h"
#include "cuda_fit.h"
#include "gemm_lt.h"

#include <stdlib.h>

#define ALIGN        256                   /* of every allocation */
#define LT_BYTES     (LANES * GEMM_LT_WORK)            /* which gemm_lt_open allocates */

static void *alloc_apart(struct cuda *c, size_t bytes)
{
    void *p;

    if (c->n_part == APART_MAX || cudaMalloc(&p, bytes + (bytes == 0)) != cudaSuccess) {
        (void) cudaGetLastError();         /* the caller says it; it is no failure of a step */
        return NULL;
    }
    return c->part[c->n_part++] = p;
}

void *cuda_alloc(struct backend *be, size_t bytes)
{
    struct cuda *c = cuda_of(be);
    uint64_t at = (c->mem_used + ALIGN - 1) / ALIGN * ALIGN;

    if (c->lim.apart)
        return alloc_apart(c, bytes);
    if (at > c->mem_bytes || bytes > c->mem_bytes - at)
        return NULL;
    c->mem_used = at + bytes;
    return c->mem + at;
}

void cuda_memory(struct backend *be, struct be_memory *m)
{
    struct cuda *c = cuda_of(be);
    size_t n_free = 0, n_total;

    (void) cudaMemGetInfo(&n_free, &n_total);
    *m = (struct be_memory) {
        .planned = c->mem_bytes + LT_BYTES, .used = c->mem_used + LT_BYTES,
        .free_before = c->free_before, .free_now = n_free };
}

static void close_flights(struct cuda *c)
{
    for (int i = 0; i < BE_FLIGHT_MAX; i++) {
        struct flight *f = &c->flight[i];

        if (f->first != NULL)
            cudaEventDestroy(f->first);
        if (f->last != NULL)
            cudaEventDestroy(f->last);
        cudaFreeHost(f->up);
        cudaFreeHost(f->down);
        free(f->result);
    }
}

void cuda_close(struct backend *be)
{
    struct cuda *c = cuda_of(be);

    if (c->stream != NULL)
        cudaStreamSynchronize(c->stream);
    for (int i = 0; i < LANES; i++) {
        gemm_lt_close(c->lane[i].lt);
        if (c->lane[i].done != NULL)
            cudaEventDestroy(c->lane[i].done);
        if (i > 0 && c->lane[i].stream != NULL)
            cudaStreamDestroy(c->lane[i].stream);
    }
    if (c->fork != NULL)
        cudaEventDestroy(c->fork);
    cuda_graph_close(c);
    cudaFree(c->hold);
    cuda_load_end(c);
    close_flights(c);
    cudaFree(c->mem);
    for (int i = 0; i < c->n_part; i++)
        cudaFree(c->part[i]);
    if (c->stream != NULL)
        cudaStreamDestroy(c->stream);
    free(c);
}

static int find_gpu(struct cudaDeviceProp *prop, struct err *e)
{
    struct cuda_found f = { .name = prop->name };
    cudaError_t rc = cudaDriverGetVersion(&f.driver);

    if (rc == cudaSuccess && f.driver >= CUDA_DRIVER_NEED) {
        rc = cudaGetDeviceCount(&f.n_gpu);
        if (rc == cudaSuccess && f.n_gpu > 0)
            rc = cudaGetDeviceProperties(prop, 0);
        if (rc == cudaErrorNoDevice)
            f.n_gpu = 0;
        else if (rc != cudaSuccess)
            f.failure = cudaGetErrorString(rc);
    }
    f.major = prop->major;
    f.minor = prop->minor;
    return cuda_usable(&f, e);
}

int be_memory_cuda(uint64_t *free_bytes, uint64_t *total_bytes, struct err *e)
{
    struct cudaDeviceProp prop = {0};
    size_t n_free, n_total;
    cudaError_t err;
    int rc = find_gpu(&prop, e);

    if (rc != 0)
        return rc;
    if ((err = cudaMemGetInfo(&n_free, &n_total)) != cudaSuccess)
        return err_set(e, E_GPU, "--backend cuda: %s", cudaGetErrorString(err));
    *free_bytes = n_free;
    *total_bytes = n_total;
    return 0;
}

static size_t attn_scratch_bytes(const struct backend_limits *lim)
{
    int32_t dim = lim->head_dim[0] > lim->head_dim[1] ? lim->head_dim[0] : lim->head_dim[1];
    int32_t seq = lim->seq_max < ATTN_DECODE_TOK ? lim->seq_max : ATTN_DECODE_TOK;
    size_t split = attn_cuda_scratch(lim->n_head, dim);
    size_t decode = attn_decode_scratch(seq, lim->n_head, dim);

    return split > decode ? split : decode;
}

struct sizes { size_t attn, moe, draw, rows, up, down; };      /* rows: to sample, part of up */

static struct sizes sizes_of(const struct backend_limits *lim)
{
    size_t tok = (size_t) lim->step_tok_max, seq = (size_t) lim->seq_max;
    size_t rows = (tok * sizeof(struct sample_row) + ALIGN - 1) / ALIGN * ALIGN;
    struct moe m = lim->moe;

    m.n_tok = lim->step_tok_max;

    return (struct sizes) {
        .attn = attn_scratch_bytes(lim),
        .moe = m.n_expert > 0 ? moe_cuda_scratch(&m) : 0,
        .draw = sample_cuda_scratch(SAMPLE_ROW_MAX, lim->vocab),
        .down = (2 + 2 * TOP) * tok * sizeof(int32_t),
        .rows = rows,
        /* ids, where they come from, positions, rows, outputs; two page tables; copies; what bends
           rows; rounding */
        .up = rows + (5 * tok + 2 * seq * (size_t) lim->page_max + 4 * seq
                      + (size_t) lim->steer_words) * sizeof(int32_t) + 16 * ALIGN,
    };
}

size_t be_scratch_cuda(const struct backend_limits *lim)
{
    struct sizes s = sizes_of(lim);

    return s.attn + s.moe + s.draw + s.up + s.down + LT_BYTES + BE_SLACK;
}

static int check_memory(const struct backend_limits *lim, uint64_t *n_free, struct err *e)
{
    struct cuda_need need = {
        .weights = lim->model_bytes - lim->kv_bytes, .kv = lim->kv_bytes,
        .scratch = be_scratch_cuda(lim), .reserve = BE_CUDA_RESERVE + be_graphs_cuda(lim) };
    size_t is_free, total;
    cudaError_t rc = cudaMemGetInfo(&is_free, &total);

    if (rc != cudaSuccess)
        return err_set(e, E_GPU, "--backend cuda: %s", cudaGetErrorString(rc));
    need.n_free = *n_free = is_free;
    need.n_total = total;
    return cuda_fit(&need, e);
}

static cudaError_t open_lanes(struct cuda *c)
{
    cudaError_t rc = cudaEventCreateWithFlags(&c->fork, cudaEventDisableTiming);

    c->lane[0].stream = c->stream;
    for (int i = 1; i < LANES && rc == cudaSuccess; i++) {
        rc = cudaStreamCreateWithFlags(&c->lane[i].stream, cudaStreamNonBlocking);
        if (rc == cudaSuccess)
            rc = cudaEventCreateWithFlags(&c->lane[i].done, cudaEventDisableTiming);
    }
    return rc;
}

static cudaError_t open_flights(struct cuda *c, const struct sizes *s)
{
    cudaError_t rc = cudaSuccess;

    for (int i = 0; i < BE_FLIGHT_MAX && rc == cudaSuccess; i++) {
        struct flight *f = &c->flight[i];

        rc = cudaEventCreate(&f->first);
        if (rc == cudaSuccess)
            rc = cudaEventCreate(&f->last);
        if (rc == cudaSuccess)
            rc = cudaHostAlloc((void **) &f->up, s->up, 0);
        if (rc == cudaSuccess)
            rc = cudaHostAlloc((void **) &f->down, s->down, 0);
        f->result = calloc((size_t) c->lim.step_tok_max, sizeof(*f->result));
        if (rc == cudaSuccess && f->result == NULL)
            rc = cudaErrorMemoryAllocation;
    }
    return rc;
}

static int open_buffers(struct cuda *c, struct err *e)
{
    struct sizes s = sizes_of(&c->lim);
    size_t graphs = be_graphs_cuda(&c->lim);
    cudaError_t rc = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);

    c->up_max = s.up;
    c->up_base = c->up_rows = c->up_used = c->up_sent = s.rows;
    c->mem_bytes = c->lim.model_bytes + be_scratch_cuda(&c->lim) - LT_BYTES;
    if (rc == cudaSuccess
        && ((!c->lim.apart && cudaMalloc((void **) &c->mem, c->mem_bytes) != cudaSuccess)
            || cudaMalloc(&c->hold, graphs) != cudaSuccess))
        return err_set(e, E_GPU, "--backend cuda: %llu MiB were free and could not be had: end what"
                       " else runs on the GPU (nvidia-smi shows it) and start again",
                       (unsigned long long) (c->mem_bytes + graphs) >> 20);
    if (rc == cudaSuccess)
        rc = open_flights(c, &s);
    if (rc != cudaSuccess)
        return err_set(e, E_GPU, "--backend cuda: %s", cudaGetErrorString(rc));

    c->graph = calloc((size_t) c->lim.n_shape, sizeof(*c->graph));
    if (c->graph == NULL)
        return err_set(e, E_IO, "out of memory");
    c->up_dev = cuda_alloc(&c->be, s.up);
    c->down_dev = cuda_alloc(&c->be, s.down);
    c->attn = cuda_alloc(&c->be, s.attn);
    c->moe = cuda_alloc(&c->be, s.moe);
    c->draw = cuda_alloc(&c->be, s.draw);
    if ((rc = open_lanes(c)) != cudaSuccess)
        return err_set(e, E_GPU, "--backend cuda: %s", cudaGetErrorString(rc));
    for (int k = 0; k < LANES; k++)
        if ((c->lane[k].lt = gemm_lt_open()) == NULL)
            return err_set(e, E_GPU, "--backend cuda: libcublasLt.so.13 of CUDA 13 cannot be"
                           " opened: install it or name its folder in LD_LIBRARY_PATH");
    if (c->up_dev == NULL || c->down_dev == NULL || c->attn == NULL || c->moe == NULL
        || c->draw == NULL)
        return err_set(e, E_GPU, "--backend cuda: no room for the scratch: lower"
                       " --max-num-batched-tokens or --kv-cache-memory-bytes");
    if ((rc = cudaMemset(c->down_dev, 0, s.down)) != cudaSuccess)  /* rows without a result, too */
        return err_set(e, E_GPU, "--backend cuda: %s", cudaGetErrorString(rc));
    return 0;
}

/* A Hopper whose own kernels are not there may do without them only if they were never built. */
static int say_how(struct cuda *c, bool hopper, struct err *e)
{
    bool base = hopper && c->hopper.n_sm == 0;

    if (base && HAVE_90A)
        return err_set(e, E_GPU, "--backend cuda: this GPU's own kernels are in this build and"
                       " cannot be loaded: one made with GPU_ARCH=80 does without them, slower");
    c->be.note = cuda_note(c->note, sizeof(c->note), &c->lim, base,
                           gemm_lt_note(c->lane[0].lt));
    return 0;
}

int be_open_cuda(struct backend **out, const struct backend_limits *lim, struct err *e)
{
    struct cudaDeviceProp prop = {0};
    struct cuda *c;
    uint64_t n_free = 0;
    int rc = find_gpu(&prop, e);

    if (rc != 0 || (rc = cuda_shape(lim, e)) != 0 || (rc = check_memory(lim, &n_free, e)) != 0)
        return rc;
    if ((c = calloc(1, sizeof(*c))) == NULL)
        return err_set(e, E_IO, "out of memory");
    c->be.ops = &cuda_ops;
    c->be.device = true;
    c->be.keeps = lim->n_shape > 0;
    c->be.due = NO_SHAPE;
    c->lim = *lim;
    c->free_before = n_free;
    c->smem_max = prop.sharedMemPerBlockOptin;
    hopper_open(&c->hopper);
    rc = open_buffers(c, e);
    if (rc == 0)
        rc = say_how(c, prop.major == 9, e);
    if (rc != 0) {
        cuda_close(&c->be);
        return rc;
    }
    *out = &c->be;
    return 0;
}
