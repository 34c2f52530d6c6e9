/* metrics.h - counters that the core writes and anybody reads (relaxed atomics, no locks). */
#ifndef CORE_METRICS_H
#define CORE_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#define METRICS_BUCKET_MAX 26

struct histogram {               /* upper bounds are in the table of metrics.c */
    _Atomic uint64_t bucket[METRICS_BUCKET_MAX];   /* not cumulative; last used one is +Inf */
    _Atomic uint64_t sum_ns;     /* nanoseconds, or plain units for token counts */
    _Atomic uint64_t count;
};

struct metrics {
    _Atomic uint64_t running, waiting;             /* gauges */
    _Atomic uint64_t page_tok;                     /* constant */
    _Atomic uint64_t pages_full_used, pages_full_total;
    _Atomic uint64_t pages_sliding_used, pages_sliding_total;
    _Atomic uint64_t prompt_tok, generation_tok;   /* counters */
    _Atomic uint64_t cached_tok;                   /* of prompt_tok: from the prefix cache */
    _Atomic uint64_t preempted, evicted;
    _Atomic uint64_t refused_busy, refused_quota;
    _Atomic uint64_t pages_full_cached, points;    /* gauges: idle prefixes, reuse points */
    _Atomic uint64_t done_stop, done_length, done_abort, done_error;
    _Atomic uint64_t steps;
    struct histogram ttft, itl, tpot, e2e, queue, prefill, decode, inference;
    struct histogram prompt_len, generation_len, max_tok, step_tok;
};

enum histogram_kind { HIST_TTFT, HIST_ITL, HIST_E2E, HIST_TOKENS, HIST_STEP };

void histogram_add(struct histogram *h, enum histogram_kind kind, uint64_t value);
/* Upper bounds of a kind, ns for times, tokens for lengths; *n excludes +Inf. */
const uint64_t *histogram_bounds(enum histogram_kind kind, int *n);

/* Append the Prometheus text under vLLM's names, labels model_name="..." and engine="0". */
struct buf;
void metrics_write(const struct metrics *m, const char *model_name, struct buf *out);

#endif
