/* queue.h - who waits, and whose turn it is.
 *
 * A flow is the requests of one tenant in one class, first come, first served. Flows share what the
 * decodes leave of a step by deficit round robin: each may compute so many prompt tokens in its
 * turn as its class has weight, half as many with a backlog of requests. A flow that comes anew
 * gets its first turn at once, unless it had one in this round. Owns the flows; links requests by
 * next. One thread. */
#ifndef CORE_QUEUE_H
#define CORE_QUEUE_H

#include "req.h"

#define FLOW_MAX 1024            /* the first REQ_CLASS_N are for all for whom there is no other */
#define FLOW_LIGHT 4             /* requests; with more of them waiting it is a backlog */
#define QUEUE_SHARED 16384       /* plans; so long a tenant that left counts as still around */

struct flow {
    uint64_t       tenant;
    enum req_class class;
    struct req    *head, **tail;
    int32_t        n_wait, n_run;
    int64_t        wait_tok;
    struct req    *filling;      /* runs and is in the middle of its prompt */
    int64_t        credit;       /* prompt tokens that it may still compute in this turn */
    bool           in_ring;      /* it has work: somebody waits or is filling; or had some lately */
    bool           served;       /* it computed something since it came or was passed by */
    struct flow   *next;
};

struct queue {
    struct flow   *flow;         /* [FLOW_MAX] */
    int32_t        n_flow;       /* the first so many have been used */
    struct flow   *turn, **last; /* the ring, as a list: turn is next */
    int32_t        n_ring;
    int32_t        n_wait;
    int64_t        wait_tok;     /* known tokens of those who wait */
    int32_t        quantum;      /* tokens of a turn of the interactive class */
    int32_t        shared;       /* plans to come for which there is more than one tenant */
    bool           keyed;        /* a tenant but 0 has been here */
};

int  queue_open(struct queue *q, int32_t quantum);      /* 0 or E_IO */
void queue_close(struct queue *q);

void queue_add(struct queue *q, struct req *r);          /* r->flow is set */
void queue_return(struct queue *q, struct req *r);       /* preempted: first of its flow again */
struct req *queue_pop(struct queue *q, struct flow *f);  /* its head, no longer waiting */
void queue_remove(struct queue *q, struct req *r);       /* it waits, and shall no more */

/* What a request that comes now has before it: waiting prompt tokens that come in first, by the
 * order of turns, none if it is the first of its flow and gets another's place; requests of its
 * tenant that wait or run. */
struct queue_ahead { int64_t n_tok; int32_t n_own; };
struct queue_ahead queue_ahead(const struct queue *q, const struct req *r);

/* The flow whose turn it is, with credit; NULL: no flow has work. Flows without work leave. */
struct flow *queue_turn(struct queue *q);
void queue_rotate(struct queue *q);                      /* it is the next one's turn */
void queue_spend(struct flow *f, int32_t n_tok);         /* of its turn */
bool queue_backlog(const struct flow *f);

/* Take out all that wait (only_cancelled: whose cancel is set) and hang them behind *end. */
struct req **queue_take(struct queue *q, bool only_cancelled, struct req **end);

#endif
