/* rate.h - how fast the queue moves, and so how long somebody would wait. Clock readings are given.
 */
#ifndef CORE_RATE_H
#define CORE_RATE_H

#include <stdbool.h>
#include <stdint.h>

#define RATE_WINDOW_NS   10000000000u    /* the past counts for about 10 s */
#define RETRY_MS_MIN     100
#define RETRY_MS_MAX     120000

struct rate {                    /* while somebody waited; all zeroes: nothing known yet */
    double   tok, ns;            /* tokens that came in, over so long; both fade */
    uint64_t last_ns;
    bool     waiting;            /* somebody was in the queue after the last plan */
};

/* A plan was made: tok tokens of prompts came in. waiting: somebody is still in the queue. Only the
 * time counts in which somebody was. */
void rate_note(struct rate *r, uint64_t now_ns, bool waiting, int64_t tok);

/* How long n_tok tokens will take to leave the queue; 0 while nothing is known. */
uint64_t rate_wait_ns(const struct rate *r, int64_t n_tok);

/* The same in milliseconds, within the bounds above. */
int32_t rate_retry_ms(uint64_t wait_ns);

#endif
