/* cuda_load.c - weights on their way: several threads pread parts of the files into pinned buffers
 * (pump.h), each with a copy to the GPU behind it. */
#include "cuda_priv.h"

#define LOAD_TICK_MS 100

static int load_send(void *arg, int k, void *to, const void *p, size_t n, struct err *e)
{
    struct cuda *c = arg;
    cudaError_t rc = cudaMemcpyAsync(to, p, n, cudaMemcpyHostToDevice, c->stream);

    if (rc == cudaSuccess)
        rc = cudaEventRecord(c->sent[k], c->stream);
    return rc == cudaSuccess ? 0
           : err_set(e, E_GPU, "GPU: loading: %s", cudaGetErrorString(rc));
}

static int load_wait(void *arg, int k, struct err *e)
{
    struct cuda *c = arg;
    cudaError_t rc = cudaEventSynchronize(c->sent[k]);

    return rc == cudaSuccess ? 0
           : err_set(e, E_GPU, "GPU: loading: %s", cudaGetErrorString(rc));
}

static void begin_loading(struct cuda *c)
{
    struct pump_hooks h = { .arg = c, .send = load_send, .wait = load_wait };
    size_t bytes = 2 * LOAD_THREADS * (size_t) PUMP_BYTES;
    struct err e;

    latch(c, "loading", cudaHostAlloc((void **) &c->load, bytes, 0));
    for (int i = 0; i < 2 * LOAD_THREADS && c->be.err.code == 0; i++)
        latch(c, "loading", cudaEventCreateWithFlags(&c->sent[i], cudaEventDisableTiming));
    h.buffer = c->load;
    if (c->be.err.code == 0 && pump_open(&c->pump, LOAD_THREADS, &h, &e) != 0)
        c->be.err = e;
}

void cuda_load_end(struct cuda *c)
{
    pump_close(c->pump);
    c->pump = NULL;
    for (int i = 0; i < 2 * LOAD_THREADS; i++) {
        if (c->sent[i] != NULL)
            cudaEventDestroy(c->sent[i]);
        c->sent[i] = NULL;
    }
    cudaFreeHost(c->load);
    c->load = NULL;
}

const void *cuda_weight(struct backend *be, const struct be_file *from, size_t bytes)
{
    struct cuda *c = cuda_of(be);
    void *to = cuda_alloc(be, bytes);

    if (to != NULL && c->pump == NULL && be->err.code == 0)
        begin_loading(c);
    if (to != NULL && be->err.code == 0 && pump_add(c->pump, from, bytes, to) != 0)
        err_set(&be->err, E_FULL, "more than %d matrices", PUMP_JOB_MAX);
    return to;
}

uint64_t cuda_loading(struct backend *be)
{
    struct cuda *c = cuda_of(be);
    uint64_t left = 0;
    struct err e;

    if (c->pump != NULL && be->err.code == 0
        && pump_left(c->pump, LOAD_TICK_MS, &left, &e) != 0)
        be->err = e;
    if (be->err.code != 0)
        left = 0;
    if (left == 0)
        cuda_load_end(c);
    return left;
}
