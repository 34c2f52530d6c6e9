/* bench_work.h - the requests of `bench serve`: when each is due, how long, and its JSON.
 *
 * All of it follows from the seed, so two runs ask the same. Names and ranges of the lengths are
 * those of vLLM's random data set. */
#ifndef ENGINE_BENCH_WORK_H
#define ENGINE_BENCH_WORK_H

#include <stdbool.h>
#include <stdint.h>
#include "buf.h"

#define BENCH_PROMPT_MAX  1000000          /* requests of a run */

struct bench_shape {
    bool        chat;                      /* words to /v1/chat/completions, else ids */
    const char *model;
    int32_t     input_len, output_len;
    int32_t     prefix_len;                /* tokens before these that all prompts share */
    double      range;                     /* lengths are uniform in len * (1 -+ range) */
    int32_t     vocab;                     /* ids are from vocab / 16 up to this */
    double      rate;                      /* requests a second on average; 0: all at once */
    uint64_t    seed;
    bool        ignore_eos;
    double      temperature, top_p;        /* < 0: not sent */
    int32_t     top_k;
};

struct bench_item {
    double   due_s;                        /* after the start; rising */
    int32_t  input_len, output_len;
    uint64_t seed;
};

/* n items. Gaps are exponential (a Poisson process), scaled so that the last is due at n / rate. */
void bench_work(struct bench_item *item, int32_t n, const struct bench_shape *s);

/* The body of a request. */
void bench_body(struct buf *b, const struct bench_item *item, const struct bench_shape *s);

#endif
