/* cmd_bench_engine.c - the speed of the model alone: steps straight through model_launch and
 * model_wait.
 *
 * Decode: `batch` requests with `context` tokens each take one token a step. Prefill: one prompt of
 * `context` tokens in chunks of --max-num-batched-tokens. Times are of the host's clock, medians.
 *
 * The floor of a decode step is its bytes over 4.39 TB/s, an H200's measured reading speed: all
 * weights but the embedding (the tied head is read) and the experts; of these the share that
 * `batch` tokens hit if each picks at random, 1 - (1 - top_k / n_expert)^batch; and K and V of
 * every token's context, in the sliding layers of its window. The floor of a prompt is 2 operations
 * a token and weight that it meets, and 4 a query head, dimension and visible key, over 790
 * TFLOP/s.
 *
 * stdout gets CSV, stderr the same for the eye. launch_ms is the host's part until the step (of a
 * prompt: all its chunks) was queued, device_ms the GPU's from the first to the last of it, both of
 * the median step; 0 without a GPU. What ms has beyond the two of a step that is a graph is the way
 * to the thread that launches, and back. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "engine.h"

#define LIST_MAX     16
#define STEP_MAX     32            /* decode steps that are timed */
#define STEP_WARM    20            /* before them: a backend keeps a step after some */
#define PROMPT_MAX   5             /* prompts that are timed */
#define READ_SPEED   4.39e12       /* bytes a second */
#define MATH_SPEED   790e12        /* operations a second */

struct list { int32_t v[LIST_MAX], n, max; };

struct bench {
    const struct conf *c;
    struct engine      en;
    struct list        batch, context;
    int32_t            page_tok, page_max;
    int32_t            ring;       /* sliding pages of a request: it comes round to the oldest */
    int32_t           *page_full, *page_sliding;       /* [seq_max, page_max] */
    int32_t           *tok, *pos, *seq, *out_row, *got;
    struct sample     *sample;
    struct page_copy  *copy;
    int32_t            n_seq_max;
};

static int read_list(struct list *l, const char *name, const char *s, struct err *e)
{
    char *end;
    long v;

    for (l->n = 0, l->max = 0; ; s = end + 1) {
        v = strtol(s, &end, 10);
        if (end == s || v < 1 || v > 1 << 22 || (*end != ',' && *end != '\0') || l->n == LIST_MAX)
            return err_set(e, E_INVALID, "%s: must be up to %d numbers with commas between", name,
                           LIST_MAX);
        l->v[l->n++] = (int32_t) v;
        l->max = v > l->max ? (int32_t) v : l->max;
        if (*end == '\0')
            return 0;
    }
}

static int32_t pages(const struct bench *b, int32_t tok)
{
    return (tok + b->page_tok - 1) / b->page_tok;
}

/* Request s has every page of its own: full ones in a row, sliding ones in a ring. */
static bool lay_pages(struct bench *b, int32_t n_seq, int32_t n_page, int32_t ring)
{
    const struct kv_shape *kv = &b->en.plan.kv;

    if ((int64_t) n_seq * n_page > kv->n_page_full || (int64_t) n_seq * ring > kv->n_page_sliding
        || n_page > b->page_max)
        return false;
    b->ring = ring;
    for (int32_t s = 0; s < n_seq; s++) {
        for (int32_t p = 0; p < n_page; p++) {
            b->page_full[(int64_t) s * b->page_max + p] = s * n_page + p;
            b->page_sliding[(int64_t) s * b->page_max + p] = s * ring + p % ring;
        }
    }
    return true;
}

/* One step or prompt: the whole, and of it what the backend says (model_times). */
struct took { double ms, launch_ms, device_ms; };

/* n tokens from position `from` on of each of n_seq requests; n_copy pages before. */
static int step(struct bench *b, int32_t n_seq, int32_t from, int32_t n, int32_t n_copy,
                struct took *took, struct err *e)
{
    struct batch t = {
        .n_tok = n_seq * n, .n_seq = n_seq, .n_out = n_seq, .tok = b->tok, .pos = b->pos,
        .seq = b->seq, .page_full = b->page_full, .page_sliding = b->page_sliding,
        .page_max = b->page_max, .out_row = b->out_row, .sample = b->sample, .copy = b->copy,
        .n_copy = n_copy };
    struct step_out o = { .tok = b->got };
    uint64_t t0;
    int rc;

    for (int32_t s = 0; s < n_seq; s++) {
        for (int32_t i = 0; i < n; i++) {
            b->tok[s * n + i] = (int32_t) ((2654435761u * (uint32_t) (s * 7919 + from + i)) >> 8)
                                % b->en.mc.vocab;
            b->pos[s * n + i] = from + i;
            b->seq[s * n + i] = s;
        }
        b->out_row[s] = s * n + n - 1;
        b->sample[s] = (struct sample) { .top_p = 1 };
    }
    t0 = engine_now_ns();
    model_launch(b->en.model, &t, &o);
    rc = model_wait(b->en.model, e);
    took->ms = (double) (engine_now_ns() - t0) / 1e6;
    model_times(b->en.model, &took->launch_ms, &took->device_ms);
    return rc;
}

static int by_size(const void *a, const void *b)
{
    double d = ((const struct took *) a)->ms - ((const struct took *) b)->ms;

    return d < 0 ? -1 : d > 0;
}

/* By the whole; its parts are of the same one, so they belong together. */
static struct took median(struct took *v, int32_t n)
{
    qsort(v, (size_t) n, sizeof(*v), by_size);
    return v[n / 2];
}

static double kv_bytes(const struct bench *b, int32_t ctx)
{
    const struct plan *p = &b->en.plan;
    int32_t win = ctx < b->en.mc.window ? ctx : b->en.mc.window;

    return ((double) p->full_page_bytes * ctx + (double) p->sliding_page_bytes * win)
           / b->page_tok;
}

static double decode_floor_ms(const struct bench *b, int32_t n_seq, int32_t ctx)
{
    const struct model_size *s = &b->en.plan.size;
    const struct model_conf *mc = &b->en.mc;
    double hit = mc->moe ? 1 - pow(1 - (double) mc->top_k / mc->n_expert, n_seq) : 0;
    double head = (double) (s->head > 0 ? s->head : s->embed);
    double weights = (double) (s->attn + s->mlp + s->router + s->norms) + head
                     + hit * (double) s->experts;

    return (2 * weights + n_seq * kv_bytes(b, ctx)) / READ_SPEED * 1e3;
}

static double prefill_floor_ms(const struct bench *b, int32_t n)
{
    const struct model_size *s = &b->en.plan.size;
    const struct model_conf *mc = &b->en.mc;
    double part = mc->moe ? (double) mc->top_k / mc->n_expert : 0;
    double weights = (double) (s->attn + s->mlp + s->router) + part * (double) s->experts;
    double ops = 2 * weights * n, keys, win = mc->window < n ? mc->window : n;

    for (int32_t il = 0; il < mc->n_layer; il++) {
        keys = mc->is_full[il] ? (double) n * n / 2 : win * n - win * win / 2;
        ops += 4.0 * mc->n_head * (mc->is_full[il] ? mc->head_full : mc->head_sliding) * keys;
    }
    return ops / MATH_SPEED * 1e3;
}

static void row(const struct bench *b, const char *what, int32_t n_seq, int32_t ctx,
                struct took t, double tok, double floor_ms)
{
    const char *backend = b->c->backend == BACKEND_CUDA ? "cuda" : "cpu";

    printf("%s,%s,%s,%d,%d,%.3f,%.1f,%.1f,%.3f,%.3f,%s,%s\n", b->en.mc.name, backend, what, n_seq,
           ctx, t.ms, tok / t.ms * 1e3, floor_ms / t.ms * 100, t.launch_ms, t.device_ms,
           cmd_cell(b->c->commit), cmd_cell(b->c->device));
    fprintf(stderr, "%-8s %5d x %-7d %10.3f ms %10.1f tok/s %6.1f %% of the floor", what, n_seq,
            ctx, t.ms, tok / t.ms * 1e3, floor_ms / t.ms * 100);
    if (t.device_ms > 0)
        fprintf(stderr, "; launched in %.3f, on the GPU for %.3f ms", t.launch_ms, t.device_ms);
    fputc('\n', stderr);
    fflush(stdout);
}

/* A prompt of n tokens for request 0, in chunks. */
static int prefill(struct bench *b, int32_t n, struct took *took, struct err *e)
{
    int32_t chunk = b->c->max_num_batched_tokens;
    struct took part;
    int rc = 0;

    *took = (struct took) {0};
    for (int32_t at = 0; at < n && rc == 0; at += chunk) {
        rc = step(b, 1, at, n - at < chunk ? n - at : chunk, 0, &part, e);
        took->ms += part.ms;
        took->launch_ms += part.launch_ms;
        took->device_ms += part.device_ms;
    }
    return rc;
}

static int bench_prefill(struct bench *b, int32_t n, struct err *e)
{
    struct took took[PROMPT_MAX];
    int rc;

    if (!lay_pages(b, 1, pages(b, n), b->en.plan.sliding_pages_each)) {
        fprintf(stderr, "prefill      1 x %-7d does not fit\n", n);
        return 0;
    }
    for (int32_t i = -1; i < PROMPT_MAX; i++)          /* the first one warms up */
        if ((rc = prefill(b, n, &took[i < 0 ? 0 : i], e)) != 0)
            return rc;
    row(b, "prefill", 1, n, median(took, PROMPT_MAX), n, prefill_floor_ms(b, n));
    return 0;
}

/* The context of request 0 becomes that of all others: pages copied, as many a step as it takes. */
static int spread(struct bench *b, int32_t n_seq, int32_t ctx, struct err *e)
{
    int32_t n_page = pages(b, ctx), n = 0;
    struct took took;
    int rc = 0;

    for (int32_t s = 1; s < n_seq; s++) {
        for (int32_t p = 0; p < n_page && rc == 0; p++) {
            int64_t to = (int64_t) s * b->page_max + p;

            b->copy[n++] = (struct page_copy) { b->page_full[p], b->page_full[to],
                                                b->page_sliding[p], b->page_sliding[to] };
            if (n == b->n_seq_max || (s == n_seq - 1 && p == n_page - 1)) {
                rc = step(b, 1, ctx - 1, 1, n, &took, e);
                n = 0;
            }
        }
    }
    return rc;
}

static int bench_decode(struct bench *b, int32_t n_seq, int32_t ctx, struct err *e)
{
    struct took took[STEP_MAX], warm;
    int32_t len = ctx + STEP_WARM + STEP_MAX, each = pages(b, b->en.mc.window) + 2;
    int rc;

    each = each < pages(b, len) ? each : pages(b, len);
    if (n_seq > b->n_seq_max || n_seq > b->c->max_num_batched_tokens
        || !lay_pages(b, n_seq, pages(b, len), each)) {
        fprintf(stderr, "decode   %5d x %-7d does not fit; --kv-session-tokens says for which"
                " length of context the cache is divided\n", n_seq, ctx);
        return 0;
    }
    if ((rc = prefill(b, ctx, &warm, e)) != 0 || (rc = spread(b, n_seq, ctx, e)) != 0)
        return rc;
    for (int32_t i = -STEP_WARM; i < STEP_MAX; i++)
        if ((rc = step(b, n_seq, ctx + STEP_WARM + i, 1, 0, i < 0 ? &warm : &took[i], e)) != 0)
            return rc;
    row(b, "decode", n_seq, ctx, median(took, STEP_MAX), n_seq,
        decode_floor_ms(b, n_seq, ctx + STEP_WARM + STEP_MAX / 2));
    return 0;
}

static int reserve(struct bench *b, struct err *e)
{
    size_t tok = (size_t) b->c->max_num_batched_tokens, seq = (size_t) b->n_seq_max;
    size_t table = seq * (size_t) b->page_max;

    b->page_full = calloc(table, sizeof(int32_t));
    b->page_sliding = calloc(table, sizeof(int32_t));
    b->tok = calloc(tok, sizeof(int32_t));
    b->pos = calloc(tok, sizeof(int32_t));
    b->seq = calloc(tok, sizeof(int32_t));
    b->out_row = calloc(seq, sizeof(int32_t));
    b->got = calloc(seq, sizeof(int32_t));
    b->sample = calloc(seq, sizeof(*b->sample));
    b->copy = calloc(seq, sizeof(*b->copy));
    if (b->page_full == NULL || b->page_sliding == NULL || b->tok == NULL || b->pos == NULL
        || b->seq == NULL || b->out_row == NULL || b->got == NULL || b->sample == NULL
        || b->copy == NULL)
        return err_set(e, E_IO, "out of memory");
    return 0;
}

/* `plan` must say what is then allocated. */
static int check_memory(const struct bench *b, struct err *e)
{
    const struct plan *p = &b->en.plan;
    uint64_t planned = p->weight_bytes + p->scratch_bytes + p->kv_bytes;
    struct model_memory m;

    model_memory(b->en.model, &m);
    fprintf(stderr, "memory: %.1f MiB planned, %.1f allocated\n", (double) m.planned / 0x1p20,
            (double) m.used / 0x1p20);
    if (m.used > m.planned || m.planned - m.used > MODEL_MEMORY_SLACK
        || (b->c->backend == BACKEND_CUDA && m.planned != planned))
        return err_set(e, E_GPU, "the plan says %" PRIu64 " bytes, the backend %" PRIu64
                       ", allocated are %" PRIu64, planned, m.planned, m.used);
    return 0;
}

static int run(struct bench *b, struct conf *c, struct err *e)
{
    int rc;

    if ((rc = read_list(&b->batch, "--batches", c->batches, e)) != 0
        || (rc = read_list(&b->context, "--contexts", c->contexts, e)) != 0)
        return rc;
    if ((rc = engine_config(&b->en, c, e)) != 0)
        return rc;
    if (c->max_model_len == 0) {
        c->max_model_len = b->context.max + STEP_WARM + STEP_MAX;
        if (c->max_model_len > b->en.mc.max_pos)
            return err_set(e, E_INVALID, "--contexts: %d, and %d that are decoded, are more than"
                           " the %d positions of the model", b->context.max, STEP_WARM + STEP_MAX,
                           b->en.mc.max_pos);
    }
    c->max_num_seqs = b->batch.max;
    if ((rc = plan_make(&b->en.plan, &b->en.mc, c, e)) != 0
        || (rc = engine_load(&b->en, c, 1, 1, NULL, NULL, e)) != 0)
        return rc;

    if ((rc = check_memory(b, e)) != 0)
        return rc;
    b->page_tok = b->en.plan.kv.page_tok;
    b->page_max = b->en.plan.full_pages_each;
    b->n_seq_max = b->batch.max;
    if ((rc = reserve(b, e)) != 0)
        return rc;

    printf("model,backend,what,batch,context,ms,tok_per_s,floor_pct,launch_ms,device_ms,"
           "commit,device\n");
    for (int32_t i = 0; i < b->context.n; i++)
        if ((rc = bench_prefill(b, b->context.v[i], e)) != 0)
            return rc;
    for (int32_t i = 0; i < b->batch.n; i++)
        for (int32_t k = 0; k < b->context.n; k++)
            if ((rc = bench_decode(b, b->batch.v[i], b->context.v[k], e)) != 0)
                return rc;
    return 0;
}

int cmd_bench_engine(const struct conf *c)
{
    struct conf own = *c;
    struct bench b = { .c = &own, .en.kick_fd = -1 };
    struct err e;
    int rc;

    rc = run(&b, &own, &e);
    engine_close(&b.en);
    free(b.page_full);
    free(b.page_sliding);
    free(b.tok);
    free(b.pos);
    free(b.seq);
    free(b.out_row);
    free(b.got);
    free(b.sample);
    free(b.copy);
    return rc != 0 ? cmd_fail(&e) : 0;
}
