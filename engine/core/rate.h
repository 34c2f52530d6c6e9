/* rate.h - how fast the queue moves, and so how long somebody would wait. Clock readings are given.
 */
#ifndef CORE_RATE_H
#define CORE_RATE_H

#include <stdbool.h>
#include <stdint.h>

#define RATE_WINDOW_NS   60000000000u    /* the past counts for about a minute */
#define RATE_AHEAD       4               /* so many times as far as it looked back it looks ahead */
#define RETRY_MS_MIN     100
#define RETRY_MS_MAX     120000

struct rate {                    /* of the queue since it came; all zeroes: there is none */
    double   tok, ns;            /* tokens that came in, over so long; both fade */
    uint64_t since_ns, last_ns;  /* the first plan that left somebody waiting, and the last */
    bool     waiting;
};

/* A plan was made: tok tokens of prompts came in. waiting: somebody is still in the queue. The plan
 * with which the queue begins counts: requests that run for equally long come in waves, and between
 * two of them hardly anybody does. */
void rate_note(struct rate *r, uint64_t now_ns, bool waiting, int64_t tok);

/* How long n_tok tokens will take to leave the queue; 0 while nothing is known. */
uint64_t rate_wait_ns(const struct rate *r, int64_t n_tok);

/* The same in milliseconds, within the bounds above. */
int32_t rate_retry_ms(uint64_t wait_ns);

/* The queue has been there for long enough to refuse somebody who would wait for more than wait_ns.
 * Before that, one slow step or one short answer is all that the pace is made of. */
bool rate_shows(const struct rate *r, uint64_t wait_ns);

#endif
