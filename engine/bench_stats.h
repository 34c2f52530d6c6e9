/* bench_stats.h - what `bench serve` reports, by the definitions of `vllm bench serve`.
 *
 * TTFT  from sending a request to its first event with a choice.
 * ITL   between two such events; of all requests together.
 * E2EL  from sending a request to its last such event.
 * TPOT  (E2EL - TTFT) / (tokens - 1), of requests with more than one token.
 * Throughputs are over the whole run. Percentiles lie between the two nearest values, as numpy's.
 * Failed requests count nowhere else. Pure arithmetic. */
#ifndef ENGINE_BENCH_STATS_H
#define ENGINE_BENCH_STATS_H

#include <stdbool.h>
#include <stdint.h>
#include "err.h"

struct bench_req {                         /* one request; times in seconds */
    bool    done;                          /* false: failed */
    double  ttft, latency;
    double *itl;                           /* [n_itl], the caller's */
    int32_t n_itl;
    int64_t prompt_tok, output_tok;
};

struct bench_goal { double ttft_ms, tpot_ms, e2el_ms; };       /* 0: any */

struct bench_dist { double mean, std, p50, p90, p99; };        /* ms; all 0 without values */

struct bench_sum {
    int32_t completed, failed;
    int64_t input_tok, output_tok;
    double  duration_s;
    double  req_per_s, output_per_s, tok_per_s;
    double  good_per_s;                    /* requests that met every goal; TPOT of 1 token is 0 */
    struct bench_dist ttft, tpot, itl, e2el;
};

/* E_IO: no memory. */
int bench_stats(struct bench_sum *s, const struct bench_req *req, int32_t n, double duration_s,
              const struct bench_goal *goal, struct err *e);

/* The q-th percentile, 0 to 100, of n > 0 rising values. */
double bench_percentile(const double *v, int64_t n, double q);

#endif
