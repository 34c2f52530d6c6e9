#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "queue.h"

static const int32_t weight[REQ_CLASS_N] = { [REQ_INTERACTIVE] = 8, [REQ_BATCH] = 1 };

int queue_open(struct queue *q, int32_t quantum)
{
    memset(q, 0, sizeof(*q));
    q->quantum = quantum;
    q->last = &q->turn;
    q->flow = calloc(FLOW_MAX, sizeof(*q->flow));
    if (q->flow == NULL)
        return E_IO;
    for (q->n_flow = 0; q->n_flow < REQ_CLASS_N; q->n_flow++) {
        q->flow[q->n_flow].class = (enum req_class) q->n_flow;
        q->flow[q->n_flow].tail = &q->flow[q->n_flow].head;
    }
    return 0;
}

void queue_close(struct queue *q)
{
    free(q->flow);
    memset(q, 0, sizeof(*q));
}

bool queue_backlog(const struct flow *f)
{
    return f->n_wait > FLOW_LIGHT;
}

static int64_t turn(const struct queue *q, enum req_class class, bool backlog)
{
    int64_t n = (int64_t) q->quantum * weight[class] / weight[REQ_INTERACTIVE];

    n = backlog ? n / 2 : n;
    return n > 0 ? n : 1;
}

static int64_t quantum(const struct queue *q, const struct flow *f)
{
    return turn(q, f->class, queue_backlog(f));
}

/* --- flows --- */

static bool idle(const struct flow *f)
{
    return f->n_wait == 0 && f->n_run == 0;
}

static struct flow *flow_of(struct queue *q, uint64_t tenant, enum req_class class)
{
    struct flow *free_one = NULL;

    for (int32_t i = REQ_CLASS_N; i < q->n_flow; i++) {
        struct flow *f = &q->flow[i];

        if (f->tenant == tenant && f->class == class && (!idle(f) || f->in_ring))
            return f;
        if (idle(f) && !f->in_ring)
            free_one = f;
    }
    if (free_one == NULL && q->n_flow == FLOW_MAX)
        return &q->flow[class];
    if (free_one == NULL)
        free_one = &q->flow[q->n_flow++];
    *free_one = (struct flow) { .tenant = tenant, .class = class, .tail = &free_one->head };
    return free_one;
}

static void ring_push_front(struct queue *q, struct flow *f)
{
    f->next = q->turn;
    q->turn = f;
    if (f->next == NULL)
        q->last = &f->next;
    f->in_ring = true;
    q->n_ring++;
}

static void ring_push_back(struct queue *q, struct flow *f)
{
    f->next = NULL;
    *q->last = f;
    q->last = &f->next;
    f->in_ring = true;
    q->n_ring++;
}

static struct flow *ring_pop(struct queue *q)
{
    struct flow *f = q->turn;

    q->turn = f->next;
    if (q->turn == NULL)
        q->last = &q->turn;
    f->in_ring = false;
    q->n_ring--;
    return f;
}

/* Whoever comes anew gets its turn first, but not twice in a round: it stays in the ring until the
 * others had theirs. */
static void wake(struct queue *q, struct flow *f)
{
    if (f->in_ring)
        return;
    if (idle(f) || f->credit > 0) {
        f->credit = f->credit > 0 ? f->credit : quantum(q, f);
        ring_push_front(q, f);
    } else {
        ring_push_back(q, f);
    }
}

/* It has nothing to do. */
static void pass_by(struct queue *q)
{
    struct flow *f = ring_pop(q);

    if (f->served && q->n_ring > 0) {
        f->credit = quantum(q, f);
        ring_push_back(q, f);
    }
    f->served = false;
}

struct flow *queue_turn(struct queue *q)
{
    struct flow *f;

    while ((f = q->turn) != NULL) {
        if (f->head == NULL && f->filling == NULL) {
            pass_by(q);
        } else if (f->credit <= 0) {
            f->credit += quantum(q, f);
            queue_rotate(q);
        } else {
            return f;
        }
    }
    return NULL;
}

void queue_rotate(struct queue *q)
{
    if (q->n_ring > 1)
        ring_push_back(q, ring_pop(q));
}

void queue_spend(struct flow *f, int32_t n_tok)
{
    f->credit -= n_tok;
    f->served = true;
}

/* --- requests --- */

static void note_wait(struct queue *q, struct req *r, int sign)
{
    r->flow->n_wait += sign;
    q->n_wait += sign;
    if (sign > 0)
        r->wait_tok = r->n_known;              /* a step under way may still bring it a token */
    r->flow->wait_tok += (int64_t) sign * r->wait_tok;
    q->wait_tok += (int64_t) sign * r->wait_tok;
}

/* Nobody can tell how soon another tenant follows the first one; after a while without it is alone.
 * Those without a key are one tenant. */
static void note_tenant(struct queue *q, uint64_t tenant)
{
    bool several = tenant != 0 && !q->keyed;

    for (int32_t i = 0; i < q->n_flow && !several; i++)
        several = !idle(&q->flow[i]) && (i < REQ_CLASS_N || q->flow[i].tenant != tenant);
    if (several)
        q->shared = QUEUE_SHARED;
    q->keyed = q->keyed || tenant != 0;
}

void queue_add(struct queue *q, struct req *r)
{
    struct flow *f = flow_of(q, r->tenant, r->class);

    note_tenant(q, r->tenant);
    r->flow = f;
    r->next = NULL;
    wake(q, f);
    *f->tail = r;
    f->tail = &r->next;
    note_wait(q, r, 1);
}

void queue_return(struct queue *q, struct req *r)
{
    struct flow *f = r->flow;

    r->next = f->head;
    f->head = r;
    if (r->next == NULL)
        f->tail = &r->next;
    note_wait(q, r, 1);
    wake(q, f);
}

static void unlink_req(struct queue *q, struct req **link)
{
    struct req *r = *link;

    *link = r->next;
    if (r->next == NULL)
        r->flow->tail = link;
    note_wait(q, r, -1);
}

struct req *queue_pop(struct queue *q, struct flow *f)
{
    struct req *r = f->head;

    unlink_req(q, &f->head);
    return r;
}

void queue_remove(struct queue *q, struct req *r)
{
    struct req **link = &r->flow->head;

    while (*link != r)
        link = &(*link)->next;
    unlink_req(q, link);
}

/* Whose place a flow gets of which nobody runs: victim_for() in scheduler.c. */
static int32_t places(const struct flow *f, enum req_class class)
{
    return f->class > class ? f->n_run : f->class == class && f->n_run > 1 ? f->n_run - 1 : 0;
}

/* Each other flow gets at most as many turns as this one needs for what it has to do. */
struct queue_ahead queue_ahead(const struct queue *q, const struct req *r)
{
    struct queue_ahead a = { 0 };
    const struct flow *own = NULL;
    int64_t own_tok, own_turn;
    int32_t left = 0;                      /* places, less who gets one before it */

    for (int32_t i = 0; i < q->n_flow; i++) {
        const struct flow *f = &q->flow[i];

        if (i >= REQ_CLASS_N && !idle(f) && f->tenant == r->tenant) {
            a.n_own += f->n_wait + f->n_run;
            if (f->class == r->class)
                own = f;
        }
        left += places(f, r->class);
        left -= f->n_run == 0 && f->n_wait > 0 && f->class <= r->class;
    }
    if (own == NULL && left > 0)
        return a;

    own_tok = r->n_prompt + (own != NULL ? own->wait_tok : 0);
    own_turn = turn(q, r->class, own != NULL && own->n_wait >= FLOW_LIGHT);
    for (int32_t i = 0; i < q->n_flow; i++) {
        const struct flow *f = &q->flow[i];
        int64_t share = own_tok * quantum(q, f) / own_turn;

        if (f != own)
            a.n_tok += f->wait_tok < share ? f->wait_tok : share;
    }
    a.n_tok += own_tok - r->n_prompt;
    return a;
}

static bool goes(struct req *r, bool only_cancelled)
{
    return !only_cancelled || atomic_load_explicit(&r->cancel, memory_order_relaxed);
}

struct req **queue_take(struct queue *q, bool only_cancelled, struct req **end)
{
    for (int32_t i = 0; i < q->n_flow; i++) {
        struct req **link = &q->flow[i].head, *r;

        while ((r = *link) != NULL) {
            if (!goes(r, only_cancelled)) {
                link = &r->next;
                continue;
            }
            unlink_req(q, link);
            *end = r;
            end = &r->next;
        }
    }
    *end = NULL;
    return end;
}
