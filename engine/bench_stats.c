#include "bench_stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double bench_percentile(const double *v, int64_t n, double q)
{
    double at = q / 100 * (double) (n - 1);
    int64_t i = (int64_t) at;

    return i + 1 < n ? v[i] + (at - (double) i) * (v[i + 1] - v[i]) : v[n - 1];
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}

/* v in seconds; sorted on return. */
static struct bench_dist dist(double *v, int64_t n)
{
    struct bench_dist d = {0};
    double sum = 0, var = 0;

    if (n == 0)
        return d;
    qsort(v, (size_t) n, sizeof(*v), by_size);
    for (int64_t i = 0; i < n; i++)
        sum += v[i];
    d.mean = sum / (double) n;
    for (int64_t i = 0; i < n; i++)
        var += (v[i] - d.mean) * (v[i] - d.mean);
    d.std = sqrt(var / (double) n);
    d.mean *= 1e3;
    d.std *= 1e3;
    d.p50 = 1e3 * bench_percentile(v, n, 50);
    d.p90 = 1e3 * bench_percentile(v, n, 90);
    d.p99 = 1e3 * bench_percentile(v, n, 99);
    return d;
}

static double tpot(const struct bench_req *r)
{
    return r->output_tok > 1 ? (r->latency - r->ttft) / (double) (r->output_tok - 1) : 0;
}

static bool good(const struct bench_req *r, const struct bench_goal *g)
{
    return (g->ttft_ms <= 0 || r->ttft * 1e3 <= g->ttft_ms)
           && (g->tpot_ms <= 0 || tpot(r) * 1e3 <= g->tpot_ms)
           && (g->e2el_ms <= 0 || r->latency * 1e3 <= g->e2el_ms);
}

int bench_stats(struct bench_sum *s, const struct bench_req *req, int32_t n, double duration_s,
              const struct bench_goal *goal, struct err *e)
{
    int64_t n_itl = 0, n_tpot = 0, k = 0;
    int32_t n_good = 0;
    double *v;

    memset(s, 0, sizeof(*s));
    for (int32_t i = 0; i < n; i++)
        n_itl += req[i].done ? req[i].n_itl : 0;
    if ((v = malloc((size_t) (n_itl + 3 * (int64_t) n + 1) * sizeof(*v))) == NULL)
        return err_set(e, E_IO, "out of memory");

    for (int32_t i = 0; i < n; i++) {
        const struct bench_req *r = &req[i];

        s->failed += !r->done;
        if (!r->done)
            continue;
        v[n_itl + s->completed] = r->ttft;
        v[n_itl + n + s->completed++] = r->latency;
        if (r->output_tok > 1)
            v[n_itl + 2 * (int64_t) n + n_tpot++] = tpot(r);
        if (r->n_itl > 0)
            memcpy(v + k, r->itl, (size_t) r->n_itl * sizeof(*v));
        k += r->n_itl;
        s->input_tok += r->prompt_tok;
        s->output_tok += r->output_tok;
        n_good += good(r, goal);
    }

    s->itl = dist(v, n_itl);
    s->ttft = dist(v + n_itl, s->completed);
    s->e2el = dist(v + n_itl + n, s->completed);
    s->tpot = dist(v + n_itl + 2 * (int64_t) n, n_tpot);
    s->duration_s = duration_s;
    s->req_per_s = s->completed / duration_s;
    s->good_per_s = n_good / duration_s;
    s->output_per_s = (double) s->output_tok / duration_s;
    s->tok_per_s = (double) (s->input_tok + s->output_tok) / duration_s;
    free(v);
    return 0;
}
