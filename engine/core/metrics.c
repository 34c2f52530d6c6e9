#include <assert.h>
#include <inttypes.h>

#include "buf.h"
#include "metrics.h"

#define MS(x)  ((uint64_t) ((x) * 1000000.0 + 0.5))
#define S(x)   MS((x) * 1000.0)
#define N(a)   ((int) (sizeof(a) / sizeof((a)[0])))

/* vLLM's buckets; inter-token latency has six more below 10 ms, where we live. */
static const uint64_t ttft_ns[] = {
    MS(1), MS(5), MS(10), MS(20), MS(40), MS(60), MS(80), MS(100), MS(250), MS(500), MS(750),
    S(1), S(2.5), S(5), S(7.5), S(10), S(20), S(40), S(80), S(160), S(640), S(2560),
};
static const uint64_t itl_ns[] = {
    MS(1), MS(2), MS(3), MS(4), MS(5), MS(7.5), MS(10), MS(25), MS(50), MS(75), MS(100), MS(150),
    MS(200), MS(300), MS(400), MS(500), MS(750), S(1), S(2.5), S(5), S(7.5), S(10), S(20), S(40),
    S(80),
};
static const uint64_t e2e_ns[] = {
    MS(300), MS(500), MS(800), S(1), S(1.5), S(2), S(2.5), S(5), S(10), S(15), S(20), S(30), S(40),
    S(50), S(60), S(120), S(240), S(480), S(960), S(1920), S(7680),
};
static const uint64_t phase_ns[] = {
    MS(.01), MS(.02), MS(.05), MS(.1), MS(.2), MS(.5), MS(1), MS(2), MS(3), MS(4), MS(5), MS(7.5),
    MS(10), MS(15), MS(20), MS(30), MS(50), MS(100), MS(200), MS(500), S(1), S(5), S(20),
};
static const uint64_t len_tok[] = {
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000,
    500000, 1000000,
};
static const uint64_t step_tok[] = {
    1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384,
};

static const uint64_t n_choice[] = { 1, 2, 5, 10, 20 };

static const struct { const uint64_t *bound; int n; } kinds[] = {
    [HIST_TTFT]   = { ttft_ns, N(ttft_ns) },
    [HIST_ITL]    = { itl_ns, N(itl_ns) },
    [HIST_E2E]    = { e2e_ns, N(e2e_ns) },
    [HIST_PHASE]  = { phase_ns, N(phase_ns) },
    [HIST_TOKENS] = { len_tok, N(len_tok) },
    [HIST_STEP]   = { step_tok, N(step_tok) },
    [HIST_N]      = { n_choice, N(n_choice) },
};

_Static_assert(sizeof(itl_ns) / sizeof(itl_ns[0]) < METRICS_BUCKET_MAX, "and one for +Inf");
_Static_assert(sizeof(ttft_ns) / sizeof(ttft_ns[0]) < METRICS_BUCKET_MAX, "and one for +Inf");
_Static_assert(sizeof(phase_ns) / sizeof(phase_ns[0]) < METRICS_BUCKET_MAX, "and one for +Inf");

const uint64_t *histogram_bounds(enum histogram_kind kind, int *n)
{
    *n = kinds[kind].n;
    return kinds[kind].bound;
}

static uint64_t get(const _Atomic uint64_t *v)
{
    return atomic_load_explicit((_Atomic uint64_t *) v, memory_order_acquire);
}

static void add(_Atomic uint64_t *v, uint64_t n)
{
    atomic_fetch_add_explicit(v, n, memory_order_relaxed);
}

void histogram_add(struct histogram *h, enum histogram_kind kind, uint64_t value)
{
    int i = 0;

    while (i < kinds[kind].n && value > kinds[kind].bound[i])
        i++;
    add(&h->bucket[i], 1);
    add(&h->sum_ns, value);
    add(&h->count, 1);
}

/* --- Prometheus text, format 0.0.4 --- */

struct writer {
    struct buf *out;
    const char *model_name;
};

static void head(struct writer *w, const char *name, const char *type, const char *help)
{
    buf_fmt(w->out, "# HELP vllm:%s %s\n# TYPE vllm:%s %s\n", name, help, name, type);
}

static void own_head(struct writer *w, const char *name, const char *type, const char *help)
{
    buf_fmt(w->out, "# HELP inferd_%s %s\n# TYPE inferd_%s %s\n", name, help, name, type);
}

/* The common labels; the caller adds its own and the closing brace. */
static void labels(struct writer *w)
{
    buf_str(w->out, "{model_name=\"");
    for (const char *p = w->model_name; *p != '\0'; p++) {
        if (*p == '\n') {
            buf_str(w->out, "\\n");
            continue;
        }
        if (*p == '"' || *p == '\\')
            buf_str(w->out, "\\");
        buf_put(w->out, p, 1);
    }
    buf_str(w->out, "\",engine=\"0\"");
}

static void number(struct writer *w, const char *name, const char *type, const char *help,
                   uint64_t v)
{
    head(w, name, type, help);
    buf_fmt(w->out, "vllm:%s", name);
    labels(w);
    buf_fmt(w->out, "} %" PRIu64 "\n", v);
}

static void own(struct writer *w, const char *name, const char *type, const char *help, uint64_t v)
{
    own_head(w, name, type, help);
    buf_fmt(w->out, "inferd_%s %" PRIu64 "\n", name, v);
}

/* The fuller pool: it is the one that keeps the next request waiting. */
double metrics_kv_usage(const struct metrics *m)
{
    uint64_t n_full = get(&m->pages_full_total), n_sliding = get(&m->pages_sliding_total);
    double full = n_full == 0 ? 0 : (double) get(&m->pages_full_used) / (double) n_full;
    double sliding = n_sliding == 0 ? 0 : (double) get(&m->pages_sliding_used) / (double) n_sliding;

    return full > sliding ? full : sliding;
}

bool metrics_stalled(const struct metrics *m, uint64_t now_ns)
{
    uint64_t step = get(&m->step_ns), came = get(&m->came_ns), last = step > came ? step : came;

    /* what was written since now_ns was read is no time at all */
    return get(&m->running) + get(&m->waiting) > 0 && now_ns > last
           && now_ns - last > METRICS_STALL_NS;
}

static void usage(struct writer *w, const struct metrics *m)
{
    head(w, "kv_cache_usage_perc", "gauge", "Part of the KV cache that running requests hold, of"
         " the two pools the larger; 1 is all of it. Idle cached prefixes do not count.");
    buf_str(w->out, "vllm:kv_cache_usage_perc");
    labels(w);
    buf_fmt(w->out, "} %.6g\n", metrics_kv_usage(m));

    head(w, "cache_config_info", "gauge", "The KV cache's shape, in labels.");
    buf_str(w->out, "vllm:cache_config_info");
    labels(w);
    buf_fmt(w->out, ",block_size=\"%" PRIu64 "\",num_gpu_blocks=\"%" PRIu64 "\"} 1\n",
            get(&m->page_tok), get(&m->pages_full_total));
}

static void finished(struct writer *w, const struct metrics *m)
{
    const struct { const char *reason; uint64_t n; } rows[] = {
        { "stop", get(&m->done_stop) }, { "length", get(&m->done_length) },
        { "abort", get(&m->done_abort) }, { "error", get(&m->done_error) },
    };

    head(w, "request_success_total", "counter", "Requests that ended, by reason.");
    for (int i = 0; i < N(rows); i++) {
        buf_str(w->out, "vllm:request_success_total");
        labels(w);
        buf_fmt(w->out, ",finished_reason=\"%s\"} %" PRIu64 "\n", rows[i].reason, rows[i].n);
    }
}

/* The core counts a prompt before what of it was cached: read the other way round. */
static void prompts(struct writer *w, const struct metrics *m)
{
    uint64_t cached = get(&m->cached_tok), all = get(&m->prompt_tok);
    const struct { const char *source; uint64_t n; } rows[] = {
        { "local_compute", all - cached }, { "local_cache_hit", cached },
    };

    number(w, "prompt_tokens_total", "counter", "Prompt tokens of requests that have started.",
           all);
    number(w, "prompt_tokens_cached_total", "counter", "Of these, taken from the prefix cache.",
           cached);
    head(w, "prompt_tokens_by_source_total", "counter", "Prompt tokens, by where they came from.");
    for (int i = 0; i < N(rows); i++) {
        buf_str(w->out, "vllm:prompt_tokens_by_source_total");
        labels(w);
        buf_fmt(w->out, ",source=\"%s\"} %" PRIu64 "\n", rows[i].source, rows[i].n);
    }
    number(w, "prefix_cache_queries_total", "counter", "Prompt tokens looked up in the prefix"
           " cache.", all);
    number(w, "prefix_cache_hits_total", "counter", "Prompt tokens found in the prefix cache.",
           cached);
}

static void pages(struct writer *w, const struct metrics *m)
{
    const struct { const char *pool; uint64_t used, cached, all; } rows[] = {
        { "full", get(&m->pages_full_used), get(&m->pages_full_cached),
          get(&m->pages_full_total) },
        { "sliding", get(&m->pages_sliding_used), get(&m->pages_sliding_cached),
          get(&m->pages_sliding_total) },
    };

    own_head(w, "kv_pages", "gauge", "Pages of the KV cache: of running requests, kept for prefixes"
             " that nobody runs on, and free.");
    for (int i = 0; i < N(rows); i++) {
        uint64_t taken = rows[i].used + rows[i].cached;

        buf_fmt(w->out, "inferd_kv_pages{pool=\"%s\",state=\"used\"} %" PRIu64 "\n"
                "inferd_kv_pages{pool=\"%s\",state=\"cached\"} %" PRIu64 "\n"
                "inferd_kv_pages{pool=\"%s\",state=\"free\"} %" PRIu64 "\n", rows[i].pool,
                rows[i].used, rows[i].pool, rows[i].cached, rows[i].pool,
                taken < rows[i].all ? rows[i].all - taken : 0);
    }
}

/* vLLM's reasons: for room, or, with room or without, for something else to be done. */
static void waiting(struct writer *w, const struct metrics *m)
{
    uint64_t deferred = get(&m->deferred), all = get(&m->waiting);
    const struct { const char *reason; uint64_t n; } rows[] = {
        { "capacity", all > deferred ? all - deferred : 0 }, { "deferred", deferred },
    };

    number(w, "num_requests_waiting", "gauge", "Requests that wait to run.", all);
    head(w, "num_requests_waiting_by_reason", "gauge", "Of these: for room, or for a result that"
         " they build on.");
    for (int i = 0; i < N(rows); i++) {
        buf_str(w->out, "vllm:num_requests_waiting_by_reason");
        labels(w);
        buf_fmt(w->out, ",reason=\"%s\"} %" PRIu64 "\n", rows[i].reason, rows[i].n);
    }
}

/* What vLLM has no name for. */
static void ours(struct writer *w, const struct metrics *m)
{
    pages(w, m);
    own(w, "reuse_points", "gauge", "Places in cached prefixes that a request may start from.",
        get(&m->points));
    own(w, "prefix_evictions_total", "counter", "Reuse points given up for their memory.",
        get(&m->evicted));
    own_head(w, "refused_total", "counter", "Choices refused on arrival: the wait would be too"
             " long, or their key has too many.");
    buf_fmt(w->out, "inferd_refused_total{reason=\"busy\"} %" PRIu64 "\n"
            "inferd_refused_total{reason=\"quota\"} %" PRIu64 "\n", get(&m->refused_busy),
            get(&m->refused_quota));
    own(w, "queue_tokens", "gauge", "Prompt tokens that wait.", get(&m->waiting_tok));
    own_head(w, "queue_wait_seconds", "gauge", "How long they will probably take.");
    buf_fmt(w->out, "inferd_queue_wait_seconds %.3f\n", (double) get(&m->wait_ns) / 1e9);
    own(w, "steps_total", "counter", "Steps computed.", get(&m->steps));
}

/* Name and labels of a line of a histogram, but for the closing brace. */
static void start(struct writer *w, const char *name, const char *suffix, const char *phase)
{
    buf_fmt(w->out, "%s%s%s", phase != NULL ? "inferd_" : "vllm:", name, suffix);
    if (phase != NULL)
        buf_fmt(w->out, "{phase=\"%s\"", phase);
    else
        labels(w);
}

/* Written as Prometheus' Python client does, whose series vLLM's users have stored: 1.0, 1e+06. */
static void bound(struct writer *w, uint64_t v, bool is_time)
{
    double d = is_time ? (double) v / 1e9 : (double) v;

    buf_fmt(w->out, ",le=\"");
    if (d == (double) (uint64_t) d && d < 1e6)
        buf_fmt(w->out, "%.1f", d);
    else
        buf_fmt(w->out, "%g", d);
    buf_str(w->out, "\"} ");
}

/* The lines of one histogram; phase: the label that it has instead of vLLM's, or NULL. The core
 * adds while we read: the count is the sum of what we saw, so +Inf and _count agree. */
static void series(struct writer *w, const char *name, const char *phase,
                   const struct histogram *h, enum histogram_kind kind)
{
    bool is_time = kind < HIST_TOKENS;
    uint64_t below = 0, sum = get(&h->sum_ns);

    for (int i = 0; i <= kinds[kind].n; i++) {
        below += get(&h->bucket[i]);
        start(w, name, "_bucket", phase);
        if (i < kinds[kind].n)
            bound(w, kinds[kind].bound[i], is_time);
        else
            buf_str(w->out, ",le=\"+Inf\"} ");
        buf_fmt(w->out, "%" PRIu64 "\n", below);
    }
    start(w, name, "_sum", phase);
    if (is_time)
        buf_fmt(w->out, "} %" PRIu64 ".%09" PRIu64 "\n", sum / 1000000000u, sum % 1000000000u);
    else
        buf_fmt(w->out, "} %" PRIu64 "\n", sum);
    start(w, name, "_count", phase);
    buf_fmt(w->out, "} %" PRIu64 "\n", below);
}

static void histogram(struct writer *w, const char *name, const char *help,
                      const struct histogram *h, enum histogram_kind kind)
{
    head(w, name, "histogram", help);
    series(w, name, NULL, h, kind);
}

static void phases(struct writer *w, const struct metrics *m)
{
    static const char *const name[PHASE_N] = { "plan", "forward", "output" };

    own_head(w, "step_seconds", "histogram", "Time of a step by phase: planned and launched,"
             " computed, its results taken. With overlap the second hides the others.");
    for (int i = 0; i < PHASE_N; i++)
        series(w, "step_seconds", name[i], &m->phase[i], HIST_PHASE);
}

void metrics_histogram(const char *name, const char *help, const struct histogram *h,
                       enum histogram_kind kind, const char *model_name, struct buf *out)
{
    struct writer w = { out, model_name };

    histogram(&w, name, help, h, kind);
}

void metrics_write(const struct metrics *m, const char *model_name, struct buf *out)
{
    struct writer w = { out, model_name };

    number(&w, "num_requests_running", "gauge", "Requests in the running batch.",
           get(&m->running));
    waiting(&w, m);
    usage(&w, m);
    prompts(&w, m);
    number(&w, "generation_tokens_total", "counter", "Tokens generated.",
           get(&m->generation_tok));
    number(&w, "num_preemptions_total", "counter", "Requests set back to be computed again.",
           get(&m->preempted));
    finished(&w, m);
    number(&w, "corrupted_requests_total", "counter", "Requests ended because their logits were not"
           " finite.", get(&m->corrupt));

    histogram(&w, "time_to_first_token_seconds", "Submitted to first token.", &m->ttft, HIST_TTFT);
    histogram(&w, "inter_token_latency_seconds", "Token to next token.", &m->itl, HIST_ITL);
    histogram(&w, "request_time_per_output_token_seconds",
              "Mean time of a request's tokens after its first.", &m->tpot, HIST_ITL);
    histogram(&w, "e2e_request_latency_seconds", "Submitted to finished.", &m->e2e, HIST_E2E);
    histogram(&w, "request_queue_time_seconds", "Submitted to first scheduled.", &m->queue,
              HIST_E2E);
    histogram(&w, "request_prefill_time_seconds", "First scheduled to first token.", &m->prefill,
              HIST_E2E);
    histogram(&w, "request_decode_time_seconds", "First token to last token.", &m->decode,
              HIST_E2E);
    histogram(&w, "request_inference_time_seconds", "First scheduled to last token.",
              &m->inference, HIST_E2E);
    histogram(&w, "request_prompt_tokens", "Prompt tokens of a request.", &m->prompt_len,
              HIST_TOKENS);
    histogram(&w, "request_prefill_kv_computed_tokens", "Prompt tokens of a request that were not"
              " cached.", &m->prefill_len, HIST_TOKENS);
    histogram(&w, "request_generation_tokens", "Generated tokens of a request.",
              &m->generation_len, HIST_TOKENS);
    histogram(&w, "request_params_max_tokens", "Most tokens that a request may generate.",
              &m->max_tok, HIST_TOKENS);
    histogram(&w, "iteration_tokens_total", "Tokens computed in a step.", &m->step_tok, HIST_STEP);
    ours(&w, m);
    phases(&w, m);
}
