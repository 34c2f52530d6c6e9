/* cuda.c - the backend of one NVIDIA GPU: memory, a stream and those beside it, what goes up at
 * the beginning of a step and comes down at its end. The kernels are in kernels/ (cuda.h).
 *
 * Ops only queue work. A failure is found after the launch or at the step's end and latched. */
#include "backend_cuda.h"
#include "cuda.h"
#include "cuda_fit.h"

#include <assert.h>
#include <cuda_runtime.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define APART_MAX    8192
#define ALIGN        256                   /* of every allocation */
#define GRAPH_MAX    64                    /* steps that are kept */
#define GRAPH_SEEN   2                     /* capture a step when it comes so often */
#define LOAD_THREADS 8                     /* four reach what PCIe 5 can take */
#define LOAD_TICK_MS 100
#define LANES        LINEAR_MAX            /* products side by side: lane 0 is the stream itself */
#define CHAIN_TOK    8                     /* up to so many tokens all go one after the other */
#define LANE_ROWS    256                   /* up to so many rows one does not fill the GPU */
#define LT_BYTES     (LANES * (32u << 20)) /* cuBLASLt's work space, which gemm_lt_open allocates */

/* Where the caller wants it. */
struct result { int32_t *tok, *lp_id; float *lp; int32_t n_top; };

#define TOP  ((size_t) (1 + SAMPLE_TOP_MAX))

/* A step whose launches were captured: the same again is one launch. */
struct graph {
    struct step_key key;
    cudaGraphExec_t exec;                  /* NULL: not yet */
    uint32_t        n_seen;
    uint64_t        used;                  /* count of steps at its last use */
};

enum step_mode { EAGER, CAPTURE, REPLAY };

struct cuda {
    struct backend        be;              /* first: the two share an address */
    struct backend_limits lim;
    cudaStream_t          stream;
    size_t                smem_max;        /* shared memory that a block may ask for */
    char                 *mem;             /* everything is in here, one after the other, */
    uint64_t              mem_bytes, mem_used, free_before;
    void                 *part[APART_MAX]; /* or, if lim.apart, in allocations of its own */
    int                   n_part;

    struct pump          *pump;            /* while weights come in */
    char                 *load;            /* its buffers, pinned */
    cudaEvent_t           sent[2 * LOAD_THREADS];      /* all from this buffer is there */

    /* What goes up: host and device agree on offsets, one copy takes all that is new. The buffers
     * are free again at the step's end, when the stream is idle. */
    char                 *up, *up_dev;
    size_t                up_max, up_used, up_sent;

    /* What comes down: of each sampled row its id, what was wrong and, if asked, logprobs. */
    int32_t              *down, *down_dev; /* [2 + 2 * TOP, step_tok_max] */
    struct result        *result;          /* [step_tok_max] */
    int32_t               n_result;
    bool                  lp;              /* logprobs among them */

    uint64_t              begin_ns;
    cudaEvent_t           first, last;     /* of a step */

    struct graph          graph[GRAPH_MAX], *now;       /* now: of this step, unless EAGER */
    enum step_mode        mode;
    uint64_t              n_step;

    struct lane { cudaStream_t stream; cudaEvent_t done; struct gemm_lt *lt; } lane[LANES];
    cudaEvent_t           fork;
    bool                  routing;         /* in lane 1, since the last moe_route */
    struct hopper         hopper;
    void                 *attn, *moe;
    void                 *draw;            /* [SAMPLE_ROW_MAX, vocab] of SAMPLE_CUDA_SCRATCH */
};

static struct cuda *cuda_of(struct backend *be)
{
    return (struct cuda *) be;
}

static void latch(struct cuda *c, const char *op, cudaError_t rc)
{
    if (rc != cudaSuccess && c->be.err.code == 0)
        err_set(&c->be.err, E_GPU, "GPU: %s: %s", op, cudaGetErrorString(rc));
}

static void *alloc_apart(struct cuda *c, size_t bytes)
{
    void *p;

    if (c->n_part == APART_MAX || cudaMalloc(&p, bytes + (bytes == 0)) != cudaSuccess) {
        (void) cudaGetLastError();         /* the caller says it; it is no failure of a step */
        return NULL;
    }
    return c->part[c->n_part++] = p;
}

static void *cuda_alloc(struct backend *be, size_t bytes)
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

static void cuda_memory(struct backend *be, struct be_memory *m)
{
    struct cuda *c = cuda_of(be);
    size_t n_free = 0, n_total;

    (void) cudaMemGetInfo(&n_free, &n_total);
    *m = (struct be_memory) {
        .planned = c->mem_bytes + LT_BYTES, .used = c->mem_used + LT_BYTES,
        .free_before = c->free_before, .free_now = n_free };
}

/* --- weights --- */

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

static void end_loading(struct cuda *c)
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

static const void *cuda_weight(struct backend *be, const struct be_file *from, size_t bytes)
{
    struct cuda *c = cuda_of(be);
    void *to = cuda_alloc(be, bytes);

    if (to != NULL && c->pump == NULL && be->err.code == 0)
        begin_loading(c);
    if (to != NULL && be->err.code == 0 && pump_add(c->pump, from, bytes, to) != 0)
        err_set(&be->err, E_FULL, "more than %d matrices", PUMP_JOB_MAX);
    return to;
}

static uint64_t cuda_loading(struct backend *be)
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
        end_loading(c);
    return left;
}

static void cuda_close(struct backend *be)
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
    for (int i = 0; i < GRAPH_MAX; i++)
        if (c->graph[i].exec != NULL)
            cudaGraphExecDestroy(c->graph[i].exec);
    end_loading(c);
    if (c->first != NULL)
        cudaEventDestroy(c->first);
    if (c->last != NULL)
        cudaEventDestroy(c->last);
    cudaFree(c->mem);
    for (int i = 0; i < c->n_part; i++)
        cudaFree(c->part[i]);
    cudaFreeHost(c->up);
    cudaFreeHost(c->down);
    if (c->stream != NULL)
        cudaStreamDestroy(c->stream);
    free(c->result);
    free(c);
}

static void cuda_put(struct backend *be, void *to, const void *p, size_t bytes)
{
    struct cuda *c = cuda_of(be);

    if (bytes == 0)
        return;
    latch(c, "put", cudaMemcpyAsync(to, p, bytes, cudaMemcpyHostToDevice, c->stream));
    latch(c, "put", cudaStreamSynchronize(c->stream));
}

static void cuda_get(struct backend *be, void *to, const void *p, size_t bytes)
{
    struct cuda *c = cuda_of(be);

    latch(c, "get", cudaMemcpyAsync(to, p, bytes, cudaMemcpyDeviceToHost, c->stream));
    latch(c, "get", cudaStreamSynchronize(c->stream));
}

/* Room in what goes up; *dev is where it will be. NULL: more than the limits allow. */
static void *up_take(struct cuda *c, size_t bytes, void **dev)
{
    size_t at = (c->up_used + 255) / 256 * 256;

    if (at + bytes > c->up_max) {
        if (c->be.err.code == 0)
            err_set(&c->be.err, E_GPU, "GPU: the inputs of a step are larger than its limits");
        return NULL;
    }
    c->up_used = at + bytes;
    *dev = c->up_dev + at;
    return c->up + at;
}

/* Before an op that may read inputs. */
static void up_send(struct cuda *c)
{
    if (c->up_used == c->up_sent)
        return;
    latch(c, "inputs", cudaMemcpyAsync(c->up_dev + c->up_sent, c->up + c->up_sent,
                                       c->up_used - c->up_sent, cudaMemcpyHostToDevice,
                                       c->stream));
    c->up_sent = c->up_used;
}

static const int32_t *cuda_input(struct backend *be, const int32_t *p, int32_t n_row,
                                 int32_t n_col, int32_t *stride)
{
    struct cuda *c = cuda_of(be);
    void *dev = NULL;
    int32_t *to = up_take(c, (size_t) n_row * (size_t) n_col * sizeof(int32_t), &dev);

    for (int32_t r = 0; to != NULL && n_col > 0 && r < n_row; r++)
        memcpy(to + (size_t) r * (size_t) n_col, p + (size_t) r * (size_t) *stride,
               (size_t) n_col * sizeof(int32_t));
    *stride = n_col;
    return dev;
}

/* After a failure nothing more is launched: pointers may be missing. In a replay the graph
 * launches, and a graph's inputs go up before it as a whole. */
static bool begin(struct cuda *c)
{
    if (c->mode == EAGER)
        up_send(c);
    return c->be.err.code == 0 && c->mode != REPLAY;
}

/* --- graphs --- */

static bool same_key(const struct step_key *a, const struct step_key *b)
{
    return a->n_tok == b->n_tok && a->n_seq == b->n_seq && a->n_out == b->n_out
           && a->n_one == b->n_one && a->ctx == b->ctx && a->n_steer == b->n_steer;
}

/* The graph of this key, or the least recently used one made free for it. */
static struct graph *graph_of(struct cuda *c, const struct step_key *key)
{
    struct graph *oldest = &c->graph[0];

    for (int i = 0; i < GRAPH_MAX; i++) {
        struct graph *g = &c->graph[i];

        if (g->n_seen > 0 && same_key(&g->key, key))
            return g;
        if (g->used < oldest->used)
            oldest = g;
    }
    if (oldest->exec != NULL)
        latch(c, "graph", cudaGraphExecDestroy(oldest->exec));
    *oldest = (struct graph) { .key = *key };
    return oldest;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t) t.tv_sec * 1000000000u + (uint64_t) t.tv_nsec;
}

static void take_times(struct cuda *c)
{
    float ms = 0;

    if (c->n_step > 0)                     /* weights are waited for before the first one */
        latch(c, "clock", cudaEventElapsedTime(&ms, c->first, c->last));
    c->be.times.device_ms = (double) ms;
}

static void cuda_step_begin(struct backend *be, const struct step_key *key)
{
    struct cuda *c = cuda_of(be);

    c->n_step++;
    c->begin_ns = now_ns();
    if (be->err.code == 0)
        latch(c, "clock", cudaEventRecord(c->first, c->stream));
    if (key == NULL || be->err.code != 0)
        return;
    c->now = graph_of(c, key);
    c->now->used = c->n_step;
    if (c->now->exec != NULL) {
        c->mode = REPLAY;
    } else if (++c->now->n_seen >= GRAPH_SEEN) {
        latch(c, "capture", cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal));
        c->mode = CAPTURE;
    }
}

static void launch_graph(struct cuda *c)
{
    cudaGraph_t graph = NULL;
    enum step_mode mode = c->mode;

    c->mode = EAGER;
    if (mode == EAGER)
        return;
    if (mode == CAPTURE) {
        latch(c, "capture", cudaStreamEndCapture(c->stream, &graph));
        if (c->be.err.code == 0)
            latch(c, "graph", cudaGraphInstantiate(&c->now->exec, graph, 0));
        if (graph != NULL)
            cudaGraphDestroy(graph);
    }
    if (c->be.err.code != 0)
        return;
    latch(c, "clock", cudaEventRecord(c->first, c->stream));
    up_send(c);
    latch(c, "graph", cudaGraphLaunch(c->now->exec, c->stream));
}

#define CUDA_OP(name, type, n_item)                                                         \
    static void cuda_##name(struct backend *be, const struct type *a)                       \
    {                                                                                       \
        struct cuda *c = cuda_of(be);                                                       \
                                                                                            \
        if ((n_item) == 0 || !begin(c))                                                     \
            return;                                                                         \
        name##_cuda(a, c->stream);                                                          \
        latch(c, #name, cudaGetLastError());                                                \
    }

CUDA_OP(embed, embed, a->n_tok)
CUDA_OP(norm, norm, a->n_row)
CUDA_OP(join, join, a->n_row)
CUDA_OP(to_act, to_act, a->n)
CUDA_OP(gather, gather, a->n_row)
CUDA_OP(geglu, geglu, a->n_row)
CUDA_OP(rope_table, rope_table, a->n_tok)
CUDA_OP(kv_copy, kv_copy, a->n)
CUDA_OP(fill, fill, a->n)

/* Many rows: the library, or our own where it has no way. */
static void gemm(struct lane *l, const struct gemm *a)
{
    if (a->w.cols % 8 != 0)
        gemm_plain_cuda(a, l->stream);
    else if (!gemm_lt_cuda(l->lt, a, l->stream))
        gemm_tile_cuda(a, l->stream);
}

/* Products that leave most of the GPU idle go side by side. */
static void gemms(struct cuda *c, const struct linear *a)
{
    bool lanes = a->n > 1 && a->g[0].n_row <= LANE_ROWS;

    if (lanes)
        latch(c, "linear", cudaEventRecord(c->fork, c->stream));
    for (int32_t i = 0; i < a->n; i++) {
        struct lane *l = &c->lane[lanes ? i : 0];

        if (lanes && i > 0)
            latch(c, "linear", cudaStreamWaitEvent(l->stream, c->fork, 0));
        gemm(l, &a->g[i]);
        if (lanes && i > 0)
            latch(c, "linear", cudaEventRecord(l->done, l->stream));
    }
    for (int32_t i = 1; lanes && i < a->n; i++)
        latch(c, "linear", cudaStreamWaitEvent(c->stream, c->lane[i].done, 0));
}

static void cuda_linear(struct backend *be, const struct linear *a)
{
    struct cuda *c = cuda_of(be);
    int32_t n_row = a->g[0].n_row;

    for (int32_t i = 0; i < a->n; i++)
        assert(a->g[i].w.type == MAT_BF16 && a->g[i].n_row == n_row
               && a->g[i].w.cols == a->g[0].w.cols);
    if (n_row == 0 || !begin(c))
        return;
    if (!gemm_skinny_cuda(a, c->smem_max, c->stream)) {
        gemms(c, a);
        if (a->act != NULL)
            geglu_cuda(&(struct geglu) { a->act, a->g[0].y, a->g[1].y, n_row,
                                         (int32_t) a->g[0].w.rows, (int32_t) a->g[1].w.rows },
                       c->stream);
    }
    latch(c, "linear", cudaGetLastError());
}

/* n tokens from first on. */
static struct attn_layer attn_slice(const struct attn_layer *a, int32_t first, int32_t n)
{
    struct attn_layer s = *a;
    int64_t q = (int64_t) first * a->rope.n_head * a->rope.head_dim;
    int64_t kv = (int64_t) first * a->attn.kv.n_kv * a->attn.kv.head_dim;
    int64_t cs = (int64_t) first * 2 * a->rope.n_rot;

    s.rope.q += q;
    s.rope.cs += cs;
    s.rope.n_tok = n;
    s.attn.q += q;
    s.attn.y = (char *) s.attn.y + q * 2;
    s.attn.map.pos += first;
    s.attn.map.seq += first;
    s.attn.map.n_tok = n;
    s.attn.n_seq = first + n == a->attn.map.n_tok ? a->attn.n_seq - first : n;
    s.store.map = s.attn.map;
    s.store.cs += cs;
    if (s.store.k != NULL) {
        s.store.k += kv;
        s.store.v += kv;
    }
    return s;
}

/* Tokens of one step never look at each other's keys across sequences, so they may go apart. */
static void cuda_attn_layer(struct backend *be, const struct attn_layer *a)
{
    struct cuda *c = cuda_of(be);
    int32_t n_one = a->attn.n_one;
    struct attn_layer one = attn_slice(a, 0, n_one), rest;

    if (a->attn.map.n_tok == 0 || !begin(c))
        return;
    if (n_one > 0 && attn_decode_fits(&one, c->smem_max))
        attn_decode_cuda(&one, c->attn, c->stream);
    else
        n_one = 0;

    rest = attn_slice(a, n_one, a->attn.map.n_tok - n_one);
    if (rest.rope.n_tok > 0 && !attn_prefill_cuda(&rest, c->stream)) {
        norm_rope_cuda(&rest.rope, c->stream);
        if (rest.store.k != NULL)
            kv_store_cuda(&rest.store, c->stream);
        attn_cuda(&rest.attn, c->attn, c->smem_max, c->stream);
    }
    latch(c, "attention", cudaGetLastError());
}

/* Beside the linear that comes next; of few tokens all kernels start early, one after the other. */
static void cuda_moe_route(struct backend *be, const struct moe *a)
{
    struct cuda *c = cuda_of(be);
    struct lane *l = &c->lane[1];

    if (a->n_tok == 0 || !begin(c))
        return;
    c->routing = a->n_tok > CHAIN_TOK;
    if (c->routing) {
        latch(c, "moe_route", cudaEventRecord(c->fork, c->stream));
        latch(c, "moe_route", cudaStreamWaitEvent(l->stream, c->fork, 0));
    }
    moe_route_cuda(a, &c->hopper, c->moe, c->smem_max, c->routing ? l->stream : c->stream);
    if (c->routing)
        latch(c, "moe_route", cudaEventRecord(l->done, l->stream));
    latch(c, "moe_route", cudaGetLastError());
}

static void cuda_moe(struct backend *be, const struct moe *a)
{
    struct cuda *c = cuda_of(be);

    assert(a->gate_up.type == MAT_BF16 && a->down.type == MAT_BF16);
    for (int32_t t = 0; t < a->n_tok; t += MOE_CUDA_TOK) {
        int32_t n = a->n_tok - t < MOE_CUDA_TOK ? a->n_tok - t : MOE_CUDA_TOK;
        struct moe m = moe_slice(a, t, n, be_act_bytes(be));

        if (!begin(c))
            return;
        if (c->routing)
            latch(c, "moe", cudaStreamWaitEvent(c->stream, c->lane[1].done, 0));
        c->routing = false;
        if (a->n_tok > MOE_CUDA_TOK)
            moe_group_cuda(&m, &c->hopper, c->moe, c->smem_max, c->stream);
        moe_cuda(&m, &c->hopper, c->moe, c->smem_max, c->stream);
        latch(c, "moe", cudaGetLastError());
    }
}

/* The rows as the kernels want them: results to down_dev, to be fetched at the step's end. */
static void place_rows(struct cuda *c, struct sample_row *to, const struct sample_row *rows,
                       int32_t n_row)
{
    size_t max = (size_t) c->lim.step_tok_max;

    for (int32_t i = 0; i < n_row; i++) {
        size_t k = (size_t) (c->n_result + i);
        bool lp = rows[i].lp != NULL;

        c->result[k] = (struct result) { rows[i].tok, rows[i].lp_id, rows[i].lp, rows[i].n_top };
        to[i] = rows[i];
        to[i].tok = c->down_dev + k;
        to[i].lp_id = lp ? c->down_dev + 2 * max + k * 2 * TOP : NULL;
        to[i].lp = lp ? (float *) (to[i].lp_id + TOP) : NULL;
        to[i].logits_out = NULL;
        c->lp = c->lp || lp;
    }
}

static void cuda_sample(struct backend *be, const struct sample_row *rows, int32_t n_row)
{
    struct cuda *c = cuda_of(be);
    int32_t *bad = c->down_dev + c->lim.step_tok_max + c->n_result;
    void *dev = NULL;
    struct sample_row *to;

    assert(n_row <= SAMPLE_ROW_MAX && c->n_result + n_row <= c->lim.step_tok_max);
    to = up_take(c, (size_t) n_row * sizeof(*rows), &dev);
    if (n_row == 0 || to == NULL)
        return;
    place_rows(c, to, rows, n_row);
    c->n_result += n_row;
    if (!begin(c))
        return;

    sample_cap_cuda(dev, n_row, rows[0].vocab, bad, c->stream);
    for (int32_t i = 0; i < n_row; i++)                /* rare: score and its like */
        if (rows[i].logits_out != NULL)
            latch(c, "logits", cudaMemcpyAsync(rows[i].logits_out, rows[i].logits,
                                               (size_t) rows[i].vocab * sizeof(float),
                                               cudaMemcpyDeviceToHost, c->stream));
    sample_draw_cuda(dev, n_row, bad, c->draw, c->stream);
    latch(c, "sample", cudaGetLastError());
}

static void take_results(struct cuda *c)
{
    size_t max = (size_t) c->lim.step_tok_max;

    for (size_t i = 0; i < (size_t) c->n_result; i++) {
        const struct result *r = &c->result[i];
        const int32_t *lp = c->down + 2 * max + i * 2 * TOP;
        size_t bytes = (size_t) (1 + r->n_top) * sizeof(int32_t);

        *r->tok = c->down[max + i] == SAMPLE_OK ? c->down[i] : SAMPLE_NONE;
        if (r->lp != NULL) {
            memcpy(r->lp_id, lp, bytes);
            memcpy(r->lp, lp + TOP, bytes);
        }
    }
}

/* Ids and what was wrong; of the logprobs as many rows as there are. */
static void fetch_results(struct cuda *c)
{
    size_t n = 2 * (size_t) c->lim.step_tok_max;

    n += c->lp ? (size_t) c->n_result * 2 * TOP : 0;
    if (c->n_result > 0)
        latch(c, "results", cudaMemcpyAsync(c->down, c->down_dev, n * sizeof(int32_t),
                                            cudaMemcpyDeviceToHost, c->stream));
    c->lp = false;
}

static void cuda_step_end(struct backend *be)
{
    struct cuda *c = cuda_of(be);

    launch_graph(c);
    fetch_results(c);
    if (be->err.code == 0)
        latch(c, "clock", cudaEventRecord(c->last, c->stream));
    be->times.launch_ms = (double) (now_ns() - c->begin_ns) / 1e6;
    latch(c, "the step", cudaStreamSynchronize(c->stream));
    if (be->err.code == 0) {
        take_results(c);
        take_times(c);
    }
    c->n_result = 0;
    c->up_used = c->up_sent = 0;
}

static const struct backend_ops cuda_ops = {
    .alloc = cuda_alloc,          .close = cuda_close,        .memory = cuda_memory,
    .weight = cuda_weight,        .loading = cuda_loading,
    .put = cuda_put,              .get = cuda_get,            .input = cuda_input,
    .step_begin = cuda_step_begin, .step_end = cuda_step_end,
    .embed = cuda_embed,          .norm = cuda_norm,          .gather = cuda_gather,
    .join = cuda_join,            .to_act = cuda_to_act,      .linear = cuda_linear,
    .geglu = cuda_geglu,          .rope_table = cuda_rope_table, .kv_copy = cuda_kv_copy,
    .attn_layer = cuda_attn_layer, .moe_route = cuda_moe_route, .moe = cuda_moe,
    .fill = cuda_fill,            .sample = cuda_sample,
};

/* Opening. */

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

static struct moe moe_part(const struct backend_limits *lim)
{
    struct moe m = lim->moe;

    m.n_tok = lim->step_tok_max < MOE_CUDA_TOK ? lim->step_tok_max : MOE_CUDA_TOK;
    return m;
}

static size_t attn_scratch_bytes(const struct backend_limits *lim)
{
    int32_t dim = lim->head_dim[0] > lim->head_dim[1] ? lim->head_dim[0] : lim->head_dim[1];
    int32_t seq = lim->seq_max < ATTN_DECODE_TOK ? lim->seq_max : ATTN_DECODE_TOK;
    size_t split = attn_cuda_scratch(lim->n_head, dim);
    size_t decode = attn_decode_scratch(seq, lim->n_head, dim);

    return split > decode ? split : decode;
}

struct sizes { size_t attn, moe, draw, up, down; };

static struct sizes sizes_of(const struct backend_limits *lim)
{
    struct moe m = moe_part(lim);
    size_t tok = (size_t) lim->step_tok_max, seq = (size_t) lim->seq_max;
    size_t calls = tok / SAMPLE_ROW_MAX + 1;

    return (struct sizes) {
        .attn = attn_scratch_bytes(lim),
        .moe = m.n_expert > 0 ? moe_cuda_scratch(&m) : 0,
        .draw = SAMPLE_ROW_MAX * (size_t) lim->vocab * SAMPLE_CUDA_SCRATCH,
        .down = (2 + 2 * TOP) * tok * sizeof(int32_t),
        /* ids, positions, rows, outputs; two page tables; copies; what bends rows; rows to sample;
         * rounding */
        .up = (4 * tok + 2 * seq * (size_t) lim->page_max + 4 * seq + (size_t) lim->steer_words)
              * sizeof(int32_t)
              + tok * sizeof(struct sample_row) + (16 + 2 * calls) * 256,
    };
}

size_t be_scratch_cuda(const struct backend_limits *lim)
{
    struct sizes s = sizes_of(lim);

    return s.attn + s.moe + s.draw + s.up + s.down + LT_BYTES + BE_SLACK;
}

static int check_shape(const struct backend_limits *lim, struct err *e)
{
    for (int i = 0; i < 2; i++) {
        if (lim->head_dim[i] % 16 != 0 || lim->head_dim[i] > 512)
            return err_set(e, E_INVALID, "--backend cuda: head_dim %d is not a multiple of 16 up to"
                           " 512", lim->head_dim[i]);
        if (lim->n_head / lim->n_kv[i] > 16)
            return err_set(e, E_INVALID, "--backend cuda: %d heads of queries on %d of keys: more"
                           " than 16 to one", lim->n_head, lim->n_kv[i]);
    }
    if (lim->hidden > JOIN_DIM_MAX)
        return err_set(e, E_INVALID, "--backend cuda: hidden_size %d, at most %d", lim->hidden,
                       JOIN_DIM_MAX);
    if (lim->moe.n_expert > 1024)
        return err_set(e, E_INVALID, "--backend cuda: %d experts, at most 1024",
                       lim->moe.n_expert);
    return 0;
}

static int check_memory(const struct backend_limits *lim, uint64_t *n_free, struct err *e)
{
    struct cuda_need need = {
        .weights = lim->model_bytes - lim->kv_bytes, .kv = lim->kv_bytes,
        .scratch = be_scratch_cuda(lim), .reserve = BE_CUDA_RESERVE };
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

static int open_buffers(struct cuda *c, struct err *e)
{
    struct sizes s = sizes_of(&c->lim);
    cudaError_t rc = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);

    c->up_max = s.up;
    c->mem_bytes = c->lim.model_bytes + be_scratch_cuda(&c->lim) - LT_BYTES;
    if (rc == cudaSuccess)
        rc = cudaEventCreate(&c->first);
    if (rc == cudaSuccess)
        rc = cudaEventCreate(&c->last);
    if (rc == cudaSuccess && !c->lim.apart
        && cudaMalloc((void **) &c->mem, c->mem_bytes) != cudaSuccess)
        return err_set(e, E_GPU, "--backend cuda: %llu MiB were free and could not be had: end what"
                       " else runs on the GPU (nvidia-smi shows it) and start again",
                       (unsigned long long) c->mem_bytes >> 20);
    if (rc == cudaSuccess)
        rc = cudaHostAlloc((void **) &c->up, s.up, 0);
    if (rc == cudaSuccess)
        rc = cudaHostAlloc((void **) &c->down, s.down, 0);
    if (rc != cudaSuccess)
        return err_set(e, E_GPU, "--backend cuda: %s", cudaGetErrorString(rc));

    c->result = calloc((size_t) c->lim.step_tok_max, sizeof(*c->result));
    if (c->result == NULL)
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
    return 0;
}

int be_open_cuda(struct backend **out, const struct backend_limits *lim, struct err *e)
{
    struct cudaDeviceProp prop = {0};
    struct cuda *c;
    uint64_t n_free = 0;
    int rc = find_gpu(&prop, e);

    if (rc != 0 || (rc = check_shape(lim, e)) != 0 || (rc = check_memory(lim, &n_free, e)) != 0)
        return rc;
    if ((c = calloc(1, sizeof(*c))) == NULL)
        return err_set(e, E_IO, "out of memory");
    c->be.ops = &cuda_ops;
    c->be.device = true;
    c->lim = *lim;
    c->free_before = n_free;
    c->smem_max = prop.sharedMemPerBlockOptin;
    hopper_open(&c->hopper);
    if ((rc = open_buffers(c, e)) != 0) {
        cuda_close(&c->be);
        return rc;
    }
    *out = &c->be;
    return 0;
}
