/* metrics.h - counters that the core writes and anybody reads (relaxed atomics, no locks). */
#ifndef CORE_METRICS_H
#define CORE_METRICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define METRICS_BUCKET_MAX 26
#define METRICS_STALL_NS   60000000000u      /* as long as nginx waits for a sign of life */

struct histogram {               /* upper bounds are in the table of metrics.c */
    _Atomic uint64_t bucket[METRICS_BUCKET_MAX];   /* not cumulative; last used one is +Inf */
    _Atomic uint64_t sum_ns;     /* nanoseconds, or plain units for token counts */
    _Atomic uint64_t count;
};

/* Planned and launched; under way, alone; its results taken. With overlap the second hides the
 * others. */
enum step_phase { PHASE_PLAN, PHASE_FORWARD, PHASE_OUTPUT, PHASE_N };

struct metrics {
    _Atomic uint64_t running, waiting;             /* gauges */
    _Atomic uint64_t deferred;                     /* of waiting: for another's result */
    _Atomic uint64_t waiting_tok, wait_ns;         /* prompt tokens that wait; for how long yet */
    _Atomic uint64_t page_tok;                     /* constant */
    _Atomic uint64_t pages_full_used, pages_full_total;
    _Atomic uint64_t pages_sliding_used, pages_sliding_total;
    _Atomic uint64_t prompt_tok, generation_tok;   /* counters */
    _Atomic uint64_t cached_tok;                   /* of prompt_tok: from the prefix cache */
    _Atomic uint64_t preempted, evicted;
    _Atomic uint64_t refused_busy, refused_quota;
    _Atomic uint64_t pages_full_cached, pages_sliding_cached;    /* gauges: kept and not used */
    _Atomic uint64_t points;                       /* gauge: reuse points */
    _Atomic uint64_t done_stop, done_length, done_abort, done_error;
    _Atomic uint64_t corrupt;                      /* of done_error: not finite */
    _Atomic uint64_t steps;
    _Atomic uint64_t step_ns, came_ns;             /* the clock at the last step's end, and when */
                                                   /* the last request came; 0: never */
    struct histogram ttft, itl, tpot, e2e, queue, prefill, decode, inference;
    struct histogram prompt_len, prefill_len, generation_len, max_tok, step_tok;
    struct histogram phase[PHASE_N];               /* of each step */
};

/* times first */
enum histogram_kind {
    HIST_TTFT, HIST_ITL, HIST_E2E, HIST_PHASE, HIST_TOKENS, HIST_STEP, HIST_N,
};

void histogram_add(struct histogram *h, enum histogram_kind kind, uint64_t value);
/* Upper bounds of a kind, ns for times, else plain numbers; *n excludes +Inf. */
const uint64_t *histogram_bounds(enum histogram_kind kind, int *n);

/* Append the Prometheus text: vLLM's names with labels model_name="...", engine="0"; and ours. */
struct buf;
void metrics_write(const struct metrics *m, const char *model_name, struct buf *out);
/* What running requests hold of the fuller pool, 0 to 1. */
double metrics_kv_usage(const struct metrics *m);
/* There is work, and for METRICS_STALL_NS the core has neither ended a step nor taken a request. */
bool metrics_stalled(const struct metrics *m, uint64_t now_ns);
/* One more, counted elsewhere; its name goes without the "vllm:". */
void metrics_histogram(const char *name, const char *help, const struct histogram *h,
                       enum histogram_kind kind, const char *model_name, struct buf *out);

#endif
