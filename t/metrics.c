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

int main(void)
{
    static struct metrics m;
    struct buf b = { 0 }, q = { 0 };
    static const char *names[] = {
        "inter_token_latency_seconds", "request_time_per_output_token_seconds",
        "e2e_request_latency_seconds", "request_queue_time_seconds",
        "request_prefill_time_seconds", "request_decode_time_seconds",
        "request_inference_time_seconds", "request_prompt_tokens", "request_generation_tokens",
        "request_params_max_tokens",
    };
    int n;

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

    metrics_write(&m, "m", &b);
    buf_put(&b, "", 1);
    check_histogram(&b);
    check_rest(&b);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char line[200];

        snprintf(line, sizeof(line), "# TYPE vllm:%s histogram", names[i]);
        ok(has(&b, line), "%s", names[i]);
    }

    for (int kind = HIST_TTFT; kind <= HIST_STEP; kind++) {
        const uint64_t *v = histogram_bounds((enum histogram_kind) kind, &n);
        bool rising = n < METRICS_BUCKET_MAX;

        for (int i = 1; i < n; i++)
            rising = rising && v[i] > v[i - 1];
        ok(rising, "the %d bounds of kind %d rise", n, kind);
    }
    is_int(histogram_bounds(HIST_ITL, &n)[5], 7500000, "7.5 ms is a bound between tokens");

    metrics_write(&m, "a\"b\\c\nd", &q);
    buf_put(&q, "", 1);
    ok(strstr(q.p, "{model_name=\"a\\\"b\\\\c\\nd\",") != NULL, "a label is escaped");

    buf_free(&b);
    buf_free(&q);
    return done_testing();
}
