/* metrics.c - the Prometheus text: buckets add up, names and labels are vLLM's. */
#include <stdlib.h>

#include "buf.h"
#include "metrics.h"
#include "tap.h"

static bool has(const struct buf *b, const char *line)
{
    char want[300];

    snprintf(want, sizeof(want), "\n%s\n", line);
    return strstr(b->p, want) != NULL;
}

static void check_histogram(const struct buf *b)
{
    ok(has(b, "vllm:time_to_first_token_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"0.001\"}"
              " 1"), "a value on a bound belongs to its bucket");
    ok(has(b, "vllm:time_to_first_token_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"0.005\"}"
              " 2"), "buckets are cumulative");
    ok(has(b, "vllm:time_to_first_token_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"1.0\"}"
              " 2"), "whole seconds are written 1.0");
    ok(has(b, "vllm:time_to_first_token_seconds_bucket{model_name=\"m\",engine=\"0\","
              "le=\"2560.0\"} 2"), "up to the last bound");
    ok(has(b, "vllm:time_to_first_token_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"+Inf\"}"
              " 3"), "the rest is in +Inf");
    ok(has(b, "vllm:time_to_first_token_seconds_sum{model_name=\"m\",engine=\"0\"} 3000.002000001"),
       "the sum is exact");
    ok(has(b, "vllm:time_to_first_token_seconds_count{model_name=\"m\",engine=\"0\"} 3"),
       "the count");
    ok(has(b, "vllm:iteration_tokens_total_bucket{model_name=\"m\",engine=\"0\",le=\"8.0\"} 1"),
       "tokens have bounds of their own");
    ok(has(b, "vllm:request_prompt_tokens_bucket{model_name=\"m\",engine=\"0\",le=\"1e+06\"} 0"),
       "a million as the Python client writes it");
}

static void check_rest(const struct buf *b)
{
    ok(has(b, "# TYPE vllm:kv_cache_usage_perc gauge"), "types");
    ok(has(b, "vllm:kv_cache_usage_perc{model_name=\"m\",engine=\"0\"} 0.75"), "the fuller pool");
    ok(has(b, "vllm:num_requests_running{model_name=\"m\",engine=\"0\"} 7"), "gauges");
    ok(has(b, "vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"abort\"}"
              " 2"), "reasons");
    ok(has(b, "vllm:cache_config_info{model_name=\"m\",engine=\"0\",block_size=\"16\","
              "num_gpu_blocks=\"10\"} 1"), "the shape");
}

/* What dashboards, autoscalers and gateways made for vLLM look for. The rest of its metrics are of
 * LoRA, speculative decoding and images. */
static void check_names(const struct buf *b)
{
    static const struct { const char *name, *type; } row[] = {
        { "num_requests_running", "gauge" }, { "num_requests_waiting", "gauge" },
        { "kv_cache_usage_perc", "gauge" }, { "cache_config_info", "gauge" },
        { "prompt_tokens_total", "counter" }, { "generation_tokens_total", "counter" },
        { "request_success_total", "counter" }, { "num_preemptions_total", "counter" },
        { "prefix_cache_queries_total", "counter" }, { "prefix_cache_hits_total", "counter" },
        { "prompt_tokens_cached_total", "counter" }, { "prompt_tokens_by_source_total", "counter" },
        { "time_to_first_token_seconds", "histogram" },
        { "inter_token_latency_seconds", "histogram" },
        { "request_time_per_output_token_seconds", "histogram" },
        { "e2e_request_latency_seconds", "histogram" },
        { "request_queue_time_seconds", "histogram" },
        { "request_prefill_time_seconds", "histogram" },
        { "request_decode_time_seconds", "histogram" },
        { "request_inference_time_seconds", "histogram" },
        { "request_prompt_tokens", "histogram" }, { "request_generation_tokens", "histogram" },
        { "request_params_max_tokens", "histogram" }, { "request_params_n", "histogram" },
        { "request_max_num_generation_tokens", "histogram" },
        { "request_prefill_kv_computed_tokens", "histogram" },
        { "iteration_tokens_total", "histogram" },
        { "num_requests_waiting_by_reason", "gauge" }, { "corrupted_requests_total", "counter" },
    };
    char line[200];

    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        snprintf(line, sizeof(line), "# TYPE vllm:%s %s", row[i].name, row[i].type);
        ok(has(b, line), "%s", line);
    }
}

#define L "{model_name=\"m\",engine=\"0\""

static void check_cache(const struct buf *b)
{
    ok(has(b, "vllm:prefix_cache_queries_total" L "} 100"), "prompt tokens are looked up");
    ok(has(b, "vllm:prefix_cache_hits_total" L "} 64"), "and some are found");
    ok(has(b, "vllm:prompt_tokens_cached_total" L "} 64"), "under its other name too");
    ok(has(b, "vllm:prompt_tokens_by_source_total" L ",source=\"local_compute\"} 36"), "computed");
    ok(has(b, "vllm:prompt_tokens_by_source_total" L ",source=\"local_cache_hit\"} 64"), "cached");
    ok(has(b, "vllm:num_preemptions_total" L "} 3"), "preemptions");
    ok(has(b, "inferd_kv_pages{pool=\"full\",state=\"used\"} 2")
       && has(b, "inferd_kv_pages{pool=\"full\",state=\"cached\"} 5")
       && has(b, "inferd_kv_pages{pool=\"full\",state=\"free\"} 3"), "where the full pages are");
    ok(has(b, "inferd_kv_pages{pool=\"sliding\",state=\"used\"} 3")
       && has(b, "inferd_kv_pages{pool=\"sliding\",state=\"cached\"} 1")
       && has(b, "inferd_kv_pages{pool=\"sliding\",state=\"free\"} 0"), "and the sliding ones");
    ok(has(b, "inferd_refused_total{reason=\"busy\"} 4")
       && has(b, "inferd_refused_total{reason=\"quota\"} 5"), "refusals by their reason");
    ok(has(b, "inferd_reuse_points 6") && has(b, "inferd_prefix_evictions_total 7"),
       "reuse points");
    ok(has(b, "vllm:num_requests_waiting_by_reason" L ",reason=\"capacity\"} 3")
       && has(b, "vllm:num_requests_waiting_by_reason" L ",reason=\"deferred\"} 2")
       && has(b, "vllm:num_requests_waiting" L "} 5"), "those who wait, by reason");
    ok(has(b, "vllm:corrupted_requests_total" L "} 8"), "those who are not finite");
    ok(has(b, "inferd_step_seconds_bucket{phase=\"plan\",le=\"2e-05\"} 0")
       && has(b, "inferd_step_seconds_bucket{phase=\"plan\",le=\"5e-05\"} 1")
       && has(b, "inferd_step_seconds_bucket{phase=\"plan\",le=\"+Inf\"} 1")
       && has(b, "inferd_step_seconds_sum{phase=\"plan\"} 0.000030000")
       && has(b, "inferd_step_seconds_count{phase=\"forward\"} 0"), "a step's phases");
    ok(has(b, "inferd_queue_tokens 80") && has(b, "inferd_queue_wait_seconds 1.500"), "the queue");
    ok(has(b, "vllm:request_params_n_bucket" L ",le=\"2.0\"} 0")
       && has(b, "vllm:request_params_n_bucket" L ",le=\"5.0\"} 1"), "n has bounds of its own");
}

/* Work, and nothing that moves; the times are beside the limit. */
static void stalled(void)
{
    static const uint64_t limit = METRICS_STALL_NS;
    static const struct { uint64_t running, waiting, step, came, now; bool want; } rows[] = {
        { 0, 0, 0, 0, 0, false }, { 0, 0, 5, 5, 10 * limit, false },
        { 1, 0, 5, 5, 5 + limit, false }, { 1, 0, 5, 5, 6 + limit, true },
        { 0, 1, 5, 5, 6 + limit, true }, { 1, 0, 5, 6, 6 + limit, false },
        { 1, 0, 6, 5, 6 + limit, false }, { 1, 0, 0, 5, 6 + limit, true },
        { 1, 0, 5 + 10 * limit, 5, 5 + 9 * limit, false }, { 1, 0, 5, 5 + limit, 5, false },
        { 7, 9, 1, 2, UINT64_MAX, true },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct metrics m = {
            .running = rows[i].running, .waiting = rows[i].waiting,
            .step_ns = rows[i].step, .came_ns = rows[i].came,
        };

        is_int(metrics_stalled(&m, rows[i].now), rows[i].want, "stalled, row %zu", i);
    }
}

int main(void)
{
    static struct metrics m;
    struct buf b = { 0 }, q = { 0 };
    static struct histogram three;
    static const int us[] = { 1000, 2000, 3000, 4000, 5000, 7500 };    /* between tokens */
    int n;

    stalled();
    histogram_add(&m.ttft, HIST_TTFT, 1000000);
    histogram_add(&m.ttft, HIST_TTFT, 1000001);
    histogram_add(&m.ttft, HIST_TTFT, 3000000000000ull);
    histogram_add(&m.step_tok, HIST_STEP, 5);
    m.running = 7;
    m.done_abort = 2;
    m.page_tok = 16;
    m.pages_full_total = 10;
    m.pages_full_used = 2;
    m.pages_sliding_total = 4;
    m.pages_sliding_used = 3;
    m.pages_full_cached = 5;
    m.pages_sliding_cached = 1;
    m.prompt_tok = 100;
    m.cached_tok = 64;
    m.preempted = 3;
    m.refused_busy = 4;
    m.refused_quota = 5;
    m.points = 6;
    m.evicted = 7;
    m.waiting_tok = 80;
    m.wait_ns = 1500000000;
    m.waiting = 5;
    m.deferred = 2;
    m.corrupt = 8;
    histogram_add(&m.phase[PHASE_PLAN], HIST_PHASE, 30000);
    histogram_add(&three, HIST_N, 3);

    metrics_write(&m, "m", &b);
    metrics_histogram("request_params_n", "x", &three, HIST_N, "m", &b);
    metrics_histogram("request_max_num_generation_tokens", "x", &three, HIST_TOKENS, "m", &b);
    buf_put(&b, "", 1);
    check_histogram(&b);
    check_rest(&b);
    check_names(&b);
    check_cache(&b);

    for (int kind = HIST_TTFT; kind <= HIST_N; kind++) {
        const uint64_t *v = histogram_bounds((enum histogram_kind) kind, &n);
        bool rising = n < METRICS_BUCKET_MAX;

        for (int i = 1; i < n; i++)
            rising = rising && v[i] > v[i - 1];
        ok(rising, "the %d bounds of kind %d rise", n, kind);
    }
    for (int i = 0; i < 6; i++)
        is_int(histogram_bounds(HIST_ITL, &n)[i], us[i] * 1000, "%d us: a bound that vLLM lacks",
               us[i]);

    metrics_write(&m, "a\"b\\c\nd", &q);
    buf_put(&q, "", 1);
    ok(strstr(q.p, "{model_name=\"a\\\"b\\\\c\\nd\",") != NULL, "a label is escaped");

    buf_free(&b);
    buf_free(&q);
    return done_testing();
}
