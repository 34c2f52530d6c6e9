/* cuda.c - the ops of a GPU, what goes up at the beginning of a step and comes down at its end
 * (cuda_priv.h). */
#include "cuda_priv.h"
#include "gemm_lt.h"

#include <assert.h>
#include <string.h>
#include <time.h>

#define LANE_ROWS    256                   /* up to so many rows one does not fill the GPU */
#define TABLE_HOLES  (64u << 10)           /* bytes that cost more than a copy of its own does */

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
    return cuda_flight(c)->up + at;
}

static void send_all(struct cuda *c, size_t from, size_t to)
{
    if (from < to)
        latch(c, "inputs", cudaMemcpyAsync(c->up_dev + from, cuda_flight(c)->up + from, to - from,
                                           cudaMemcpyHostToDevice, c->stream));
}

void cuda_up_send(struct cuda *c, size_t from, size_t to)
{
    for (int32_t i = 0; i < c->n_table; i++) {
        const struct table *t = &c->table[i];

        if (t->at < from || t->at >= to)
            continue;
        send_all(c, from, t->at);
        latch(c, "inputs", cudaMemcpy2DAsync(c->up_dev + t->at, t->pitch,
                                             cuda_flight(c)->up + t->at, t->pitch, t->bytes,
                                             t->n_row, cudaMemcpyHostToDevice, c->stream));
        from = t->at + t->n_row * t->pitch;
    }
    send_all(c, from, to);
}

static const int32_t *cuda_input(struct backend *be, struct input *in)
{
    struct cuda *c = cuda_of(be);
    size_t stride = (size_t) in->stride * sizeof(int32_t);
    void *dev = NULL;
    struct table t = { .pitch = (size_t) in->width * sizeof(int32_t),
                       .bytes = (size_t) in->n_col * sizeof(int32_t), .n_row = (size_t) in->n_row };
    char *to = up_take(c, t.n_row * t.pitch, &dev);

    in->stride = in->width;
    if (to == NULL || t.bytes == 0)
        return dev;
    for (int32_t r = 0; r < in->n_row; r++)
        memcpy(to + (size_t) r * t.pitch,
               (const char *) in->p + (size_t) (in->row != NULL ? in->row[r] : r) * stride,
               t.bytes);
    if (t.n_row * (t.pitch - t.bytes) >= TABLE_HOLES) {
        assert(c->n_table < TABLES);
        t.at = (size_t) (to - cuda_flight(c)->up);
        c->table[c->n_table++] = t;
    }
    return dev;
}

/* After a failure nothing more is launched: pointers may be missing. In a replay the graph
 * launches, and a graph's inputs go up before it as a whole. */
static bool begin(struct cuda *c)
{
    if (c->mode == EAGER) {
        cuda_up_send(c, c->up_sent, c->up_used);
        c->up_sent = c->up_used;
    }
    return c->be.err.code == 0 && c->mode != REPLAY;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t) t.tv_sec * 1000000000u + (uint64_t) t.tv_nsec;
}

static void cuda_step_begin(struct backend *be, int32_t shape)
{
    struct cuda *c = cuda_of(be);
    struct flight *f = cuda_flight(c);

    f->begin_ns = now_ns();
    if (be->err.code == 0)
        latch(c, "clock", cudaEventRecord(f->first, c->stream));
    if (shape != NO_SHAPE && be->err.code == 0)
        cuda_graph_begin(c, shape);
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

static void cuda_next_ids(struct backend *be, const struct next_ids *a)
{
    struct cuda *c = cuda_of(be);
    struct next_ids all = *a;

    all.last = c->down_dev;                /* a row without an id has 0 there */
    if (a->n_tok == 0 || !begin(c))
        return;
    next_ids_cuda(&all, c->stream);
    latch(c, "next ids", cudaGetLastError());
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

/* The library's failure is the step's: our own tiles instead would be slow without a word. Where it
 * is the device that failed, that is what is said. */
static void lt_failed(struct cuda *c, int rc)
{
    latch(c, "linear", cudaGetLastError());
    if (c->be.err.code == 0)
        err_set(&c->be.err, E_GPU, "GPU: linear: cuBLASLt: %s", gemm_lt_words(rc));
}

/* Many rows: the library, or our own where it has no way. */
static void gemm(struct cuda *c, struct lane *l, const struct gemm *a)
{
    int launched;

    if (a->w.cols % 8 != 0) {
        gemm_plain_cuda(a, l->stream);
        return;
    }
    launched = gemm_lt_cuda(l->lt, a, l->stream);
    if (launched < 0)
        lt_failed(c, launched);
    else if (launched == 0)
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
        gemm(c, l, &a->g[i]);
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
    if (!gemm_skinny_cuda(a, c->smem_max, c->stream)
        && !gemm_hopper_cuda(a, &c->hopper, c->stream)) {
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
    int32_t one = a->attn.n_one - first;
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
    s.attn.n_one = one < 0 ? 0 : one < n ? one : n;
    s.attn.n_own = first == 0 ? a->attn.n_own : NULL;
    s.store.map = s.attn.map;
    s.store.cs += cs;
    if (s.store.k != NULL) {
        s.store.k += kv;
        s.store.v += kv;
    }
    return s;
}

/* Tokens that are alone in their sequences, in even parts for which the scratch is enough, one part
 * after the other, since they share it. 0: not of these heads. Otherwise how many: all. */
static int32_t attn_alone(struct cuda *c, const struct attn_layer *a)
{
    int32_t n = a->attn.n_one, n_part = (n + ATTN_DECODE_TOK - 1) / ATTN_DECODE_TOK, first = 0;

    assert(n_part <= 1 || a->attn.n_own == NULL);      /* which counts from the first token */
    for (int32_t i = 1; i <= n_part; i++) {
        int32_t end = i * n / n_part;
        struct attn_layer part = attn_slice(a, first, end - first);

        if (!attn_decode_fits(&part, c->smem_max))
            return 0;
        attn_decode_cuda(&part, c->attn, c->stream);
        first = end;
    }
    return n;
}

/* Tokens of one step never look at each other's keys across sequences, so they may go apart. */
static void cuda_attn_layer(struct backend *be, const struct attn_layer *a)
{
    struct cuda *c = cuda_of(be);
    struct attn_layer rest;
    int32_t n_one;

    if (a->attn.map.n_tok == 0 || !begin(c))
        return;
    n_one = attn_alone(c, a);
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
    c->routing = a->n_tok > BE_FEW;
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
    if (a->n_tok == 0 || !begin(c))
        return;
    if (c->routing)
        latch(c, "moe", cudaStreamWaitEvent(c->stream, c->lane[1].done, 0));
    c->routing = false;
    moe_cuda(a, &c->hopper, c->moe, c->smem_max, c->stream);
    latch(c, "moe", cudaGetLastError());
}

/* The rows as the kernels want them: results to down_dev, to be fetched at the step's end. */
static void place_rows(struct cuda *c, struct sample_row *to, const struct sample_row *rows,
                       int32_t n_row)
{
    size_t max = (size_t) c->lim.step_tok_max;
    struct result *result = cuda_flight(c)->result;

    for (int32_t i = 0; i < n_row; i++) {
        size_t k = (size_t) (c->n_result + i);
        bool lp = rows[i].lp != NULL;

        result[k] = (struct result) { rows[i].tok, rows[i].lp_id, rows[i].lp, rows[i].n_top };
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
    size_t end = c->up_rows;
    const struct sample_row *dev;

    assert(n_row <= SAMPLE_ROW_MAX && c->n_result + n_row <= c->lim.step_tok_max);
    if (n_row == 0)
        return;
    c->up_rows -= (size_t) n_row * sizeof(*rows);
    dev = (const struct sample_row *) (c->up_dev + c->up_rows);
    place_rows(c, (struct sample_row *) (cuda_flight(c)->up + c->up_rows), rows, n_row);
    c->n_result += n_row;
    if (!begin(c))
        return;
    if (c->mode == EAGER)
        cuda_up_send(c, c->up_rows, end);

    sample_cap_cuda(dev, n_row, rows[0].vocab, c->draw, c->stream);
    for (int32_t i = 0; i < n_row; i++)                /* rare: score and its like */
        if (rows[i].logits_out != NULL)
            latch(c, "logits", cudaMemcpyAsync(rows[i].logits_out, rows[i].logits,
                                               (size_t) rows[i].vocab * sizeof(float),
                                               cudaMemcpyDeviceToHost, c->stream));
    sample_draw_cuda(dev, n_row, rows[0].vocab, bad, c->draw, c->stream);
    latch(c, "sample", cudaGetLastError());
}

/* Ids and what was wrong; of the logprobs as many rows as there are. */
static void fetch_results(struct cuda *c)
{
    size_t n = 2 * (size_t) c->lim.step_tok_max;

    n += c->lp ? (size_t) c->n_result * 2 * TOP : 0;
    if (c->n_result > 0 && c->be.err.code == 0)
        latch(c, "results", cudaMemcpyAsync(cuda_flight(c)->down, c->down_dev, n * sizeof(int32_t),
                                            cudaMemcpyDeviceToHost, c->stream));
    c->lp = false;
}

void cuda_step_over(struct cuda *c)
{
    c->mode = EAGER;
    c->routing = false;
    c->n_result = c->n_table = 0;
    c->up_rows = c->up_used = c->up_sent = c->up_base;
}

static void cuda_step_end(struct backend *be)
{
    struct cuda *c = cuda_of(be);
    struct flight *f = cuda_flight(c);

    assert(c->n_ended - c->n_waited < BE_FLIGHT_MAX);
    if (c->mode == REPLAY)
        cuda_graph_launch(c);
    fetch_results(c);
    if (be->err.code == 0)
        latch(c, "clock", cudaEventRecord(f->last, c->stream));
    f->n_result = c->n_result;
    f->launch_ms = f->begin_ns != 0 ? (double) (now_ns() - f->begin_ns) / 1e6 : 0;
    cuda_step_over(c);
    c->n_ended += be->err.code == 0;
}

static void take_results(const struct cuda *c, const struct flight *f)
{
    size_t max = (size_t) c->lim.step_tok_max;

    for (size_t i = 0; i < (size_t) f->n_result; i++) {
        const struct result *r = &f->result[i];
        const int32_t *lp = f->down + 2 * max + i * 2 * TOP;
        size_t bytes = (size_t) (1 + r->n_top) * sizeof(int32_t);

        if (r->tok != NULL)
            *r->tok = f->down[max + i] == SAMPLE_OK ? f->down[i] : SAMPLE_NONE;
        if (r->lp != NULL) {
            memcpy(r->lp_id, lp, bytes);
            memcpy(r->lp, lp + TOP, bytes);
        }
    }
}

/* A failure found here is not latched, since the next step's ops may be asked for meanwhile: who
 * waits sees to it that nothing comes of that step. */
static int cuda_step_wait(struct backend *be, struct err *e)
{
    struct cuda *c = cuda_of(be);
    struct flight *f = &c->flight[c->n_waited % BE_FLIGHT_MAX];
    cudaError_t rc = cudaEventSynchronize(f->last);
    float ms = 0;

    if (rc == cudaSuccess && f->begin_ns != 0)
        rc = cudaEventElapsedTime(&ms, f->first, f->last);
    if (rc != cudaSuccess)
        return err_set(e, E_GPU, "GPU: the step: %s", cudaGetErrorString(rc));
    take_results(c, f);
    be->times = (struct be_times) { f->launch_ms, (double) ms };
    f->begin_ns = 0;
    c->n_waited++;
    return 0;
}

const struct backend_ops cuda_ops = {
    .alloc = cuda_alloc,          .close = cuda_close,        .memory = cuda_memory,
    .weight = cuda_weight,        .loading = cuda_loading,
    .put = cuda_put,              .get = cuda_get,            .input = cuda_input,
    .step_begin = cuda_step_begin, .step_end = cuda_step_end, .step_wait = cuda_step_wait,
    .record = cuda_record,        .recorded = cuda_recorded,  .next_ids = cuda_next_ids,
    .embed = cuda_embed,          .norm = cuda_norm,          .gather = cuda_gather,
    .join = cuda_join,            .to_act = cuda_to_act,      .linear = cuda_linear,
    .geglu = cuda_geglu,          .rope_table = cuda_rope_table, .kv_copy = cuda_kv_copy,
    .attn_layer = cuda_attn_layer, .moe_route = cuda_moe_route, .moe = cuda_moe,
    .fill = cuda_fill,            .sample = cuda_sample,
};
