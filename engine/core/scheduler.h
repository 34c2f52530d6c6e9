/* scheduler.h (sched_) - who gets how many tokens of the next step. Pure: no GPU, no clock, no I/O.
 *
 * Borrows requests and the KV pools; owns the running array and the queue. One thread. A plan may
 * be made while the step before is under way: then the last token of a request is sampled, not
 * known. */
#ifndef CORE_SCHEDULER_H
#define CORE_SCHEDULER_H

#include "kv.h"
#include "queue.h"

struct step_item {
    struct req *r;
    int32_t     n;               /* r's next n tokens are computed, */
    int32_t     end;             /* to this one */
    bool        samples;         /* and the one after them sampled */
    bool        ends_prompt;     /* the prompt is stored after this */
    bool        fills;           /* not a decode */
};

struct step_plan {
    struct step_item *item;      /* [run_max] */
    struct page_copy *copy;      /* [run_max] pages to copy before the step */
    int32_t n_item, n_tok, n_copy;
    int32_t n_fill_tok;          /* of n_tok: not decodes */
    bool    goes_on;             /* a flow without backlog is in the middle of its turn */
};

struct sched {
    struct kv       *kv;
    struct queue     queue;
    int32_t          step_tok_max;
    int32_t          fill_tok_max;   /* of a step, for prompts while answers run: 13/16 of it; may
                                        be set anew before a plan */
    int32_t          behind_tok;     /* of prompts in the step under way; set before a plan */
    int32_t          run_max;        /* at most step_tok_max: who runs moves in each step */
    struct req     **run;            /* [run_max] in order of admission */
    int32_t          n_run;
    uint64_t         n_admitted, n_preempted;
    int64_t          admitted_tok;   /* known tokens of those admitted */
    struct step_plan plan;
};

int  sched_open(struct sched *s, struct kv *kv, int32_t step_tok_max, int32_t seq_max,
                struct err *e);
void sched_close(struct sched *s);

void sched_add(struct sched *s, struct req *r);   /* to the end of its flow */

/* Fill s->plan; the one before has been launched. Empty only if nobody runs or waits, or all that
 * could move wait for the result of a step under way. */
void sched_plan(struct sched *s);

/* The step under way has so much of prompts that it takes long. Do not plan before it is back:
 * beside it the pause is nothing, and who comes meanwhile waits for it alone. */
bool sched_is_long(const struct sched *s);

/* Of those who wait: for another's result, not for room. */
int32_t sched_deferred(const struct sched *s);

/* r has run and is done: its pages are free, nothing here refers to it any more. */
void sched_remove(struct sched *s, struct req *r);

/* Take out every request (only_cancelled: whose cancel is set), free its pages, and return them
 * linked by next. */
struct req *sched_take(struct sched *s, bool only_cancelled);

#endif
