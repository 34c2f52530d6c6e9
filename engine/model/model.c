/* model.c - open, check each batch, step, close. */
#include "model.h"
#include "backend_cuda.h"
#include "forward.h"
#include "log.h"
#include "runner.h"
#include "steer.h"

#include <math.h>
#include <stdlib.h>

struct model {
    struct model_conf conf;
    struct weights    w;
    struct fwd        fwd;
    struct backend   *be;
    struct runner    *runner;
    int32_t           n_recorded;        /* shapes of steps that the backend has, from the first */
    bool              graphs_end;        /* no more can be had */
    int32_t           n_sampled;         /* by the step launched last: batch.from is below it */
};

size_t model_kv_page_bytes(const struct model_conf *c, bool full, int32_t page_tok,
                           size_t elem_bytes)
{
    int32_t dim = full ? c->head_full : c->head_sliding;
    size_t tok = (size_t) (full ? c->n_kv_full : c->n_kv_sliding)
                 * (size_t) (dim + model_k_dim(c, full)) * elem_bytes;
    size_t n = 0;

    for (int32_t il = 0; il < c->n_layer; il++)
        n += c->is_full[il] == full && model_kv_layer(c, il) == il;
    return n * tok * (size_t) page_tok;
}

static int check_limits(const struct model_limits *l, struct err *e)
{
    struct { const char *name; int32_t v, min; } rows[] = {
        { "page_tok", l->kv.page_tok, 1 },          { "n_page_full", l->kv.n_page_full, 1 },
        { "n_page_sliding", l->kv.n_page_sliding, 0 }, { "step_tok_max", l->step_tok_max, 1 },
        { "seq_max", l->seq_max, 1 },               { "page_max", l->page_max, 1 },
        { "n_thread", l->n_thread, 1 },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].v < rows[i].min)
            return err_set(e, E_INVALID, "%s: %d is too small", rows[i].name, (int) rows[i].v);
    return 0;
}

bool model_has_cuda(void)
{
    return BE_HAS_CUDA;
}

int64_t model_steer_words(const struct model_conf *c, const struct model_limits *lim)
{
    return steer_words(c->vocab, lim->seq_max, (int64_t) lim->kv.n_page_full * lim->kv.page_tok);
}

_Static_assert(MODEL_MEMORY_SLACK == BE_SLACK && MODEL_GPU_RESERVE == BE_CUDA_RESERVE,
               "one promise, made to two rooms");
_Static_assert(MODEL_FLIGHT_MAX == BE_FLIGHT_MAX, "and another");

static struct backend_limits backend_limits(const struct model_conf *c,
                                            const struct model_limits *lim)
{
    int64_t ctx = (int64_t) lim->page_max * lim->kv.page_tok;
    int64_t win = ctx < c->window ? ctx : c->window;
    struct buckets b = forward_buckets(lim);
    size_t full = attn_scratch(c->n_head, c->n_kv_full, ctx);
    size_t sliding = attn_scratch(c->n_head, c->n_kv_sliding, win);

    return (struct backend_limits) {
        .n_thread = lim->n_thread, .vocab = c->vocab,
        .attn_scratch = full > sliding ? full : sliding, .moe = forward_moe(c),
        .step_tok_max = lim->step_tok_max, .seq_max = lim->seq_max, .page_max = lim->page_max,
        .steer_words = model_steer_words(c, lim),
        .n_shape = bucket_count(&b, BUCKET_ROWS), .n_shape_few = bucket_count(&b, BE_FEW),
        .n_layer = c->n_layer,
        .hidden = c->hidden, .ffn = c->ffn, .ple = c->ple, .n_head = c->n_head,
        .n_kv = { c->n_kv_sliding, c->n_kv_full }, .head_dim = { c->head_sliding, c->head_full } };
}

uint64_t model_scratch_bytes(const struct model_conf *c, const struct model_limits *lim)
{
    struct backend_limits bl = backend_limits(c, lim);

    return lim->backend == MODEL_CUDA ? forward_scratch(c, lim, 2) + be_scratch_cuda(&bl)
                                      : forward_scratch(c, lim, sizeof(float));
}

uint64_t model_graph_bytes(const struct model_conf *c, const struct model_limits *lim)
{
    struct backend_limits bl = backend_limits(c, lim);

    return lim->backend == MODEL_CUDA ? be_graphs_cuda(&bl) : 0;
}

int model_gpu_memory(uint64_t *free_bytes, uint64_t *total_bytes, struct err *e)
{
    return be_memory_cuda(free_bytes, total_bytes, e);
}

static int open_backend(struct model *m, const struct model_limits *lim, struct err *e)
{
    struct backend_limits bl = backend_limits(&m->conf, lim);
    bool cuda = lim->backend == MODEL_CUDA;
    struct model_size size;

    model_size(&m->conf, &size);
    bl.kv_bytes = forward_kv(&m->conf, lim, cuda ? 2 : sizeof(float));
    bl.model_bytes = bl.kv_bytes + forward_scratch(&m->conf, lim, cuda ? 2 : sizeof(float));
    if (cuda || lim->dummy)                /* else the files are mapped */
        bl.model_bytes += 2 * (size.total - size.vec);
    if (cuda)
        bl.model_bytes += sizeof(float) * size.vec_f32;
    return cuda ? be_open_cuda(&m->be, &bl, e) : be_open_cpu(&m->be, &bl, e);
}

void model_memory(const struct model *m, struct model_memory *mem)
{
    struct be_memory b;

    m->be->ops->memory(m->be, &b);
    *mem = (struct model_memory) { b.planned, b.used, b.free_before, b.free_now };
}

const char *model_note(const struct model *m)
{
    return m->be->note;
}

static runner_launch step;
static runner_wait step_wait;
static runner_idle record;

int model_open(struct model **out, const char *dir, const struct model_conf *c,
               const struct model_limits *lim, model_progress *progress, void *arg,
               struct err *e)
{
    struct model *m;
    int rc = check_limits(lim, e);

    if (rc < 0)
        return rc;
    if ((m = calloc(1, sizeof(*m))) == NULL)
        return err_set(e, E_IO, "out of memory");
    m->conf = *c;

    rc = open_backend(m, lim, e);
    if (rc == 0)
        rc = weights_load(&m->w, m->be, lim->dummy ? NULL : dir, &m->conf, progress, arg, e);
    if (rc == 0) {
        m->fwd = (struct fwd) { .c = &m->conf, .w = &m->w, .lim = *lim, .be = m->be };
        rc = forward_open(&m->fwd, e);
    }
    if (rc == 0)
        m->be->sealed = true;
    if (rc == 0)
        rc = runner_open(&m->runner, &(struct runner_hooks) {
            step, step_wait, m->be->keeps ? record : NULL, m }, e);
    if (rc < 0) {
        model_close(m);
        return rc;
    }
    *out = m;
    return 0;
}

void model_close(struct model *m)
{
    if (m == NULL)
        return;
    runner_close(m->runner);
    weights_free(&m->w);
    be_close(m->be);
    free(m);
}

const struct model_conf *model_config(const struct model *m)
{
    return &m->conf;
}

/* The pages of one pool that the keys first .. last of a row live in. */
static bool pages_ok(const struct batch *b, const int32_t *page, int32_t n_page, int32_t page_tok,
                     int32_t seq, int32_t first, int32_t last)
{
    const int32_t *row = page + (size_t) seq * (size_t) b->page_max;

    for (int32_t p = first / page_tok; p <= last / page_tok; p++)
        if (row[p] < 0 || row[p] >= n_page)
            return false;
    return true;
}

/* Tokens first .. last of the batch are one run of one sequence. */
static int check_run(const struct model *m, const struct batch *b, int32_t first, int32_t last,
                     struct err *e)
{
    const struct kv_shape *kv = &m->fwd.lim.kv;
    int32_t seq = b->seq[first], from = b->pos[first], to = b->pos[last];
    int32_t win = from >= m->conf.window ? from - m->conf.window + 1 : 0;

    for (int32_t i = first + 1; i <= last; i++)
        if (b->pos[i] != b->pos[i - 1] + 1)
            return err_set(e, E_INVALID, "batch: row %d: positions are not contiguous", (int) seq);
    if (to / kv->page_tok >= b->page_max)
        return err_set(e, E_INVALID, "batch: row %d: position %d is beyond the page table",
                       (int) seq, (int) to);
    if (!pages_ok(b, b->page_full, kv->n_page_full, kv->page_tok, seq, 0, to))
        return err_set(e, E_INVALID, "batch: row %d: a full page is missing", (int) seq);
    if (model_kv_page_bytes(&m->conf, false, 1, 1) > 0
        && !pages_ok(b, b->page_sliding, kv->n_page_sliding, kv->page_tok, seq, win, to))
        return err_set(e, E_INVALID, "batch: row %d: a sliding page is missing", (int) seq);
    return 0;
}

static int check_rows(const struct model *m, const struct batch *b, struct err *e)
{
    for (int32_t r = 0; r < b->n_out; r++) {
        const struct sample *s = &b->sample[r];

        if (b->out_row[r] < 0 || b->out_row[r] >= b->n_tok)
            return err_set(e, E_INVALID, "batch: out_row %d is not a token", (int) r);
        if (b->target != NULL && b->target[r] >= m->conf.vocab)
            return err_set(e, E_INVALID, "batch: target %d is not an id", (int) r);
        if (b->n_top != NULL && (b->n_top[r] > MODEL_TOP_MAX || b->n_top[r] > m->conf.vocab))
            return err_set(e, E_INVALID, "batch: %d logprobs of row %d", (int) b->n_top[r],
                           (int) r);
        if (!(s->temperature >= 0) || isinf(s->temperature) || !(s->top_p > 0 && s->top_p <= 1)
            || !(s->min_p >= 0 && s->min_p <= 1) || s->top_k < 0)
            return err_set(e, E_INVALID, "batch: sampling of row %d is out of range", (int) r);
    }
    return 0;
}

static bool copy_ok(const struct kv_shape *kv, const struct page_copy *c)
{
    return c->full_from >= 0 && c->full_from < kv->n_page_full && c->full_to >= 0
           && c->full_to < kv->n_page_full && c->sliding_from >= 0
           && c->sliding_from < kv->n_page_sliding && c->sliding_to >= 0
           && c->sliding_to < kv->n_page_sliding;
}

/* An id that only the device knows is in the vocabulary. */
static int check_id(const struct model *m, const struct batch *b, int32_t i, struct err *e)
{
    int32_t from = b->from != NULL ? b->from[i] : -1;

    if (from >= m->n_sampled)
        return err_set(e, E_INVALID, "batch: row %d of the step before: it had %d", (int) from,
                       (int) m->n_sampled);
    if (from < 0 && (b->tok[i] < 0 || b->tok[i] >= m->conf.vocab))
        return err_set(e, E_INVALID, "batch: token %d is out of range", (int) i);
    return 0;
}

static int check_batch(const struct model *m, const struct batch *b, struct err *e)
{
    const struct model_limits *lim = &m->fwd.lim;
    int32_t first = 0;
    int rc;

    if (b->n_copy < 0 || b->n_copy > lim->seq_max)
        return err_set(e, E_INVALID, "batch: %d pages to copy", (int) b->n_copy);
    for (int32_t i = 0; i < b->n_copy; i++)
        if (!copy_ok(&lim->kv, &b->copy[i]))
            return err_set(e, E_INVALID, "batch: copy %d: a page is out of range", (int) i);
    if (b->n_tok < 1 || b->n_tok > lim->step_tok_max || b->n_seq < 1 || b->n_seq > lim->seq_max
        || b->page_max < 1 || b->page_max > lim->page_max || b->n_out < 0
        || b->n_out > lim->step_tok_max || b->n_steer < 0
        || b->n_steer > model_steer_words(&m->conf, lim))
        return err_set(e, E_INVALID, "batch: %d tokens of %d sequences: beyond the limits",
                       (int) b->n_tok, (int) b->n_seq);

    for (int32_t i = 0; i < b->n_tok; i++) {
        if ((rc = check_id(m, b, i, e)) < 0)
            return rc;
        if (b->pos[i] < 0 || b->seq[i] < 0 || b->seq[i] >= b->n_seq)
            return err_set(e, E_INVALID, "batch: token %d is out of range", (int) i);
        if (i + 1 == b->n_tok || b->seq[i + 1] != b->seq[i]) {
            if ((rc = check_run(m, b, first, i, e)) < 0)
                return rc;
            first = i + 1;
        }
    }
    return check_rows(m, b, e);
}

/* Steps of this shape are kept from now on, if there is room. true: that was to do. */
static bool keep(struct model *m, int32_t shape)
{
    struct err e;
    bool kept;
    int rc = forward_record(&m->fwd, shape, &kept, &e);

    if (rc == E_FULL)
        log_warn("graphs: %s: what has none goes on without, up to 0.7 ms a step slower", e.msg);
    m->graphs_end |= rc != 0;
    return kept;
}

/* The runner's thread: it alone asks for ops. */
static int step(void *arg, struct batch *b, struct step_out *o, struct err *e)
{
    struct model *m = arg;
    int rc;

    if (m->be->keeps && m->be->due != NO_SHAPE)
        keep(m, m->be->due);
    if ((rc = be_failed(m->be, e)) < 0 || (rc = check_batch(m, b, e)) < 0)
        return rc;
    forward_step(&m->fwd, b, o);
    m->n_sampled = b->n_out;
    m->be->ops->step_end(m->be);
    return be_failed(m->be, e);
}

static int step_wait(void *arg, struct err *e)
{
    struct model *m = arg;

    return m->be->ops->step_wait(m->be, e);
}

/* One shape that has not come. No step is under way, and none may come, to say that it failed. */
static bool record(void *arg)
{
    struct model *m = arg;
    int32_t n = bucket_count(&m->fwd.buckets, BUCKET_ROWS);
    struct err e;

    while (m->n_recorded < n && !m->graphs_end)
        if (keep(m, m->n_recorded++))
            return true;
    if (!m->graphs_end)
        log_info("graphs: all %d are captured, for steps of up to %d requests", n,
                 bucket_shape(&m->fwd.buckets, n - 1).n_row);
    else if (be_failed(m->be, &e) < 0 && m->fwd.lim.lost != NULL)
        m->fwd.lim.lost(m->fwd.lim.lost_arg, &e);
    return false;
}

void model_times(const struct model *m, double *launch_ms, double *device_ms)
{
    *launch_ms = m->be->times.launch_ms;
    *device_ms = m->be->times.device_ms;
}

void model_launch(struct model *m, struct batch *b, struct step_out *o)
{
    runner_push(m->runner, b, o);
}

int model_wait(struct model *m, struct err *e)
{
    return runner_pop(m->runner, e);
}
