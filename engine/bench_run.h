/* bench_run.h - requests sent over HTTP as they are due, and when their events came back.
 *
 * One thread and one libcurl multi handle, HTTP/1.1 with connections kept. A request is sent when
 * it is due and fewer than max_concurrency are under way; waiting for the latter is no part of its
 * times. */
#ifndef ENGINE_BENCH_RUN_H
#define ENGINE_BENCH_RUN_H

#include "bench_stats.h"
#include "bench_work.h"
#include "curl_lib.h"

#define BENCH_FAIL_MAX  16                 /* kinds of failure that are told apart */

struct bench_fail { char msg[160]; int32_t n; };

struct bench_run {
    const struct curl_lib    *curl;        /* all of these borrowed */
    const char               *url;
    const char               *header;      /* one more, "Name: value", or NULL */
    const struct bench_shape *shape;
    const struct bench_item  *item;        /* [n] */
    int32_t                   n;
    int32_t                   max_concurrency;         /* 0: no limit */
    bool                      quiet;       /* no progress on stderr */

    struct bench_req         *req;         /* [n], zeroed by the caller; bench_free frees itl */
    double                    duration_s;
    struct bench_fail         fail[BENCH_FAIL_MAX];    /* the last one: all others */
    int32_t                   n_fail;
    int32_t                   n_short;     /* done, with fewer tokens than asked for */
};

/* Failed requests are results, not errors. */
int  bench_run(struct bench_run *r, struct err *e);
void bench_free(struct bench_run *r);

/* The id of the first model of the server: GET .../v1/models beside url's .../v1/completions. */
int  bench_model(const struct curl_lib *c, const char *url, const char *header, struct buf *name,
                 struct err *e);

#endif
