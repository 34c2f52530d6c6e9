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
static const uint64_t len_tok[] = {
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000,
    500000, 1000000,
};
static const uint64_t step_tok[] = {
    1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384,
};

static const struct { const uint64_t *bound; int n; } kinds[] = {
    [HIST_TTFT]   = { ttft_ns, N(ttft_ns) },
    [HIST_ITL]    = { itl_ns, N(itl_ns) },
    [HIST_E2E]    = { e2e_ns, N(e2e_ns) },
    [HIST_TOKENS] = { len_tok, N(len_tok) },
    [HIST_STEP]   = { step_tok, N(step_tok) },
};

_Static_assert(sizeof(itl_ns) / sizeof(itl_ns[0]) < METRICS_BUCKET_MAX, "and one for +Inf");
_Static_assert(sizeof(ttft_ns) / sizeof(ttft_ns[0]) < METRICS_BUCKET_MAX, "and one for +Inf");

const uint64_t *histogram_bounds(enum histogram_kind kind, int *n)
{
    *n = kinds[kind].n;
    return kinds[kind].bound;
}

static uint64_t get(const _Atomic uint64_t *v)
{
    return atomic_load_explicit((_Atomic uint64_t *) v, memory_order_relaxed);
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
                   const _Atomic uint64_t *v)
{
    head(w, name, type, help);
    buf_fmt(w->out, "vllm:%s", name);
    labels(w);
    buf_fmt(w->out, "} %" PRIu64 "\n", get(v));
}

/* The fuller pool: it is the one that keeps the next request waiting. */
static void usage(struct writer *w, const struct metrics *m)
{
    uint64_t n_full = get(&m->pages_full_total), n_sliding = get(&m->pages_sliding_total);
    double full = n_full == 0 ? 0 : (double) get(&m->pages_full_used) / (double) n_full;
    double sliding = n_sliding == 0 ? 0 : (double) get(&m->pages_sliding_used) / (double) n_sliding;

    head(w, "kv_cache_usage_perc", "gauge", "Used part of the KV cache, 1 is all of it.");
    buf_str(w->out, "vllm:kv_cache_usage_perc");
    labels(w);
    buf_fmt(w->out, "} %.6g\n", full > sliding ? full : sliding);

    head(w, "cache_config_info", "gauge", "The KV cache's shape, in labels.");
    buf_str(w->out, "vllm:cache_config_info");
    labels(w);
    buf_fmt(w->out, ",block_size=\"%" PRIu64 "\",num_gpu_blocks=\"%" PRIu64 "\"} 1\n",
            get(&m->page_tok), n_full);
}

static void finished(struct writer *w, const struct metrics *m)
{
    const struct { const char *reason; const _Atomic uint64_t *v; } rows[] = {
        { "stop", &m->done_stop }, { "length", &m->done_length }, { "abort", &m->done_abort },
        { "error", &m->done_error },
    };

    head(w, "request_success_total", "counter", "Requests that ended, by reason.");
    for (int i = 0; i < N(rows); i++) {
        buf_str(w->out, "vllm:request_success_total");
        labels(w);
        buf_fmt(w->out, ",finished_reason=\"%s\"} %" PRIu64 "\n", rows[i].reason, get(rows[i].v));
    }
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

/* The core adds while we read: the count is the sum of what we saw, so +Inf and _count agree. */
static void histogram(struct writer *w, const char *name, const char *help,
                      const struct histogram *h, enum histogram_kind kind)
{
    bool is_time = kind != HIST_TOKENS && kind != HIST_STEP;
    uint64_t below = 0, sum = get(&h->sum_ns);

    head(w, name, "histogram", help);
    for (int i = 0; i < kinds[kind].n; i++) {
        below += get(&h->bucket[i]);
        buf_fmt(w->out, "vllm:%s_bucket", name);
        labels(w);
        bound(w, kinds[kind].bound[i], is_time);
        buf_fmt(w->out, "%" PRIu64 "\n", below);
    }
    below += get(&h->bucket[kinds[kind].n]);
    buf_fmt(w->out, "vllm:%s_bucket", name);
    labels(w);
    buf_fmt(w->out, ",le=\"+Inf\"} %" PRIu64 "\nvllm:%s_sum", below, name);
    labels(w);
    if (is_time)
        buf_fmt(w->out, "} %" PRIu64 ".%09" PRIu64 "\n", sum / 1000000000u, sum % 1000000000u);
    else
        buf_fmt(w->out, "} %" PRIu64 "\n", sum);
    buf_fmt(w->out, "vllm:%s_count", name);
    labels(w);
    buf_fmt(w->out, "} %" PRIu64 "\n", below);
}

void metrics_write(const struct metrics *m, const char *model_name, struct buf *out)
{
    struct writer w = { out, model_name };

    number(&w, "num_requests_running", "gauge", "Requests in the running batch.", &m->running);
    number(&w, "num_requests_waiting", "gauge", "Requests that wait to run.", &m->waiting);
    usage(&w, m);
    number(&w, "prompt_tokens_total", "counter", "Prompt tokens computed.", &m->prompt_tok);
    number(&w, "generation_tokens_total", "counter", "Tokens generated.", &m->generation_tok);
    finished(&w, m);

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
    histogram(&w, "request_generation_tokens", "Generated tokens of a request.",
              &m->generation_len, HIST_TOKENS);
    histogram(&w, "request_params_max_tokens", "Most tokens that a request may generate.",
              &m->max_tok, HIST_TOKENS);
    histogram(&w, "iteration_tokens_total", "Tokens computed in a step.", &m->step_tok, HIST_STEP);
}
