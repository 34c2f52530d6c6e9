/* scheduler.h (sched_) - who gets how many tokens of the next step. Pure: no GPU, no clock, no I/O.
 *
 * Borrows requests and the KV pools; owns the running array and the waiting list. One thread. */
#ifndef CORE_SCHEDULER_H
#define CORE_SCHEDULER_H

#include "kv.h"

struct step_item { struct req *r; int32_t n; };   /* r's next n tokens are computed */

struct step_plan {
    struct step_item *item;      /* [run_max] */
    int32_t n_item, n_tok;
};

struct sched {
    struct kv       *kv;
    int32_t          step_tok_max;
    int32_t          run_max;    /* at most step_tok_max: all that run get a token in each step */
    struct req     **run;        /* [run_max] in order of admission */
    int32_t          n_run;
    struct req      *wait_head, **wait_tail;      /* linked by next, in order of arrival */
    int32_t          n_wait;
    struct step_plan plan;
};

int  sched_open(struct sched *s, struct kv *kv, int32_t step_tok_max, int32_t seq_max,
                struct err *e);
void sched_close(struct sched *s);

void sched_add(struct sched *s, struct req *r);   /* to the end of the waiting list */

/* Fill s->plan. Empty only if nobody runs or waits (a request that fits alone always comes in). */
void sched_plan(struct sched *s);

/* r has run and is done: its pages are free, nothing here refers to it any more. */
void sched_remove(struct sched *s, struct req *r);

/* Take out every request (only_cancelled: whose cancel is set), free its pages, and return them
 * linked by next. */
struct req *sched_take(struct sched *s, bool only_cancelled);

#endif
