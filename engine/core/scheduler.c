#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler.h"

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t max_i32(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

int sched_open(struct sched *s, struct kv *kv, int32_t step_tok_max, int32_t seq_max,
               struct err *e)
{
    memset(s, 0, sizeof(*s));
    s->kv = kv;
    s->step_tok_max = step_tok_max;
    /* of 2,048 tokens, beside 32 answers, for 40 ms between two of theirs: bench/SPEED.md */
    s->fill_tok_max = step_tok_max - step_tok_max * 3 / 16;
    s->run_max = min_i32(seq_max, step_tok_max);
    s->run = calloc((size_t) s->run_max, sizeof(*s->run));
    s->plan.item = calloc((size_t) s->run_max, sizeof(*s->plan.item));
    s->plan.copy = calloc((size_t) s->run_max, sizeof(*s->plan.copy));
    if (s->run == NULL || s->plan.item == NULL || s->plan.copy == NULL
        || queue_open(&s->queue, step_tok_max) != 0) {
        sched_close(s);
        return err_set(e, E_IO, "scheduler: out of memory");
    }
    return 0;
}

void sched_close(struct sched *s)
{
    queue_close(&s->queue);
    free(s->run);
    free(s->plan.item);
    free(s->plan.copy);
    memset(s, 0, sizeof(*s));
}

void sched_add(struct sched *s, struct req *r)
{
    r->n_known = r->want_tok = r->n_prompt;
    r->item = -1;
    queue_add(&s->queue, r);
}

/* --- leaving the running array --- */

static void plan_drop(struct step_plan *p, struct req *r)
{
    struct step_item *last = &p->item[p->n_item - 1];

    if (r->item < 0)
        return;
    p->n_tok -= p->item[r->item].n;
    p->n_fill_tok -= p->item[r->item].fills ? p->item[r->item].n : 0;
    last->r->item = r->item;
    p->item[r->item] = *last;
    p->n_item--;
    r->item = -1;
}

static void leave(struct sched *s, struct req *r)
{
    int32_t i = r->at;

    assert(i < s->n_run && s->run[i] == r);
    plan_drop(&s->plan, r);
    kv_release(s->kv, r);
    r->flow->n_run--;
    if (r->flow->filling == r)
        r->flow->filling = NULL;
    for (s->n_run--; i < s->n_run; i++) {
        s->run[i] = s->run[i + 1];
        s->run[i]->at = i;
    }
}

void sched_remove(struct sched *s, struct req *r)
{
    if (r->seq.page_full != NULL)
        leave(s, r);
    else
        queue_remove(&s->queue, r);
}

static void preempt(struct sched *s, struct req *r)
{
    leave(s, r);
    queue_return(&s->queue, r);
    s->n_preempted++;
}

/* The last to come goes first, batch before interactive; the oldest of the class goes last, so
 * somebody always gets done. */
static struct req *youngest(const struct sched *s)
{
    for (int32_t i = s->n_run - 1; i >= 0; i--)
        if (s->run[i]->class == REQ_BATCH)
            return s->run[i];
    return s->run[s->n_run - 1];
}

/* --- the plan --- */

/* Tokens that may be computed for r: the last of its answer is sampled, but never looked at. */
static int32_t left(const struct req *r)
{
    int32_t end = r->n_prompt + max_i32(r->max_new - 1, 0);

    if (req_must_know(r))
        return 0;
    return min_i32(r->want_tok, end) - r->seq.n_tok;
}

/* n more tokens of r, which runs. false: it was itself the youngest when pages ran out. */
static bool plan_add(struct sched *s, struct req *r, int32_t n)
{
    struct step_plan *p = &s->plan;
    int32_t before = r->item >= 0 ? p->item[r->item].n : 0;

    while (kv_grow(s->kv, r, before + n) != 0) {
        struct req *v = youngest(s);

        preempt(s, v);
        if (v == r)
            return false;
    }
    if (r->item < 0) {
        r->item = p->n_item++;
        p->item[r->item] = (struct step_item) { .r = r };
    }
    p->item[r->item].n += n;
    p->n_tok += n;
    return true;
}

static void plan_decodes(struct sched *s)
{
    for (int32_t i = 0; i < s->n_run; i++) {
        struct req *r = s->run[i];

        if (r->item >= 0 || r->flow->filling == r || left(r) == 0)
            continue;
        i = plan_add(s, r, 1) ? r->at : -1;        /* others may have left the array */
    }
}

/* One flow's worth of pages and a slot must not be kept by another's second request. */
static struct req *victim_for(const struct sched *s, const struct flow *f)
{
    struct req *v = NULL;

    if (f->n_run > 0)
        return NULL;
    for (int32_t i = 0; i < s->n_run; i++) {
        struct req *r = s->run[i];
        bool lower = r->class > f->class, many = r->flow->n_run > 1 && r->class == f->class;

        if ((lower || many) && (v == NULL || r->class > v->class
                                || (r->class == v->class && r->flow->n_run >= v->flow->n_run)))
            v = r;
    }
    return v;
}

static int come_in_once(struct sched *s, struct req *r)
{
    int32_t spare = s->n_run;
    struct step_plan *p = &s->plan;
    int rc = E_AGAIN;

    if (s->n_run == s->run_max)
        return E_FULL;
    if (r->twin != NULL && r->twin->seq.page_full != NULL) {
        rc = kv_fork(s->kv, r, r->twin, spare, &p->copy[p->n_copy]);
        if (rc == 0 && p->copy[p->n_copy].full_to >= 0)
            p->n_copy++;
    }
    return rc == E_AGAIN ? kv_admit(s->kv, r, spare) : rc;
}

/* A twin that is about to store the same prompt is worth waiting for. */
static bool must_wait(const struct req *r)
{
    return r->n_flight > 0 || (r->twin != NULL && r->twin->flow == r->flow
                               && r->twin->seq.page_full != NULL
                               && r->twin->seq.n_tok < r->n_prompt && r->n_known == r->n_prompt
                               && r->twin->max_new > 1);
}

/* The first of the flow runs. false: there is no room for it. */
static bool come_in(struct sched *s, struct flow *f)
{
    struct req *r = f->head, *v;

    while (come_in_once(s, r) != 0) {
        v = victim_for(s, f);
        if (v == NULL)
            return false;
        preempt(s, v);
    }

    queue_pop(&s->queue, f);
    r->at = s->n_run;
    s->run[s->n_run++] = r;
    s->n_admitted++;
    s->admitted_tok += r->n_known;
    f->n_run++;
    f->filling = r;
    return true;
}

/* At most budget tokens more of the request that its flow is at. Returns how many. */
static int32_t fill(struct sched *s, struct flow *f, int32_t budget)
{
    struct req *r = f->filling;
    int32_t n = left(r) - (r->item >= 0 ? s->plan.item[r->item].n : 0);
    bool all = n <= budget;

    n = min_i32(n, budget);
    if (!plan_add(s, r, n))
        return 0;
    if (all)
        f->filling = NULL;
    queue_spend(f, n);
    s->plan.item[r->item].fills = true;
    s->plan.n_fill_tok += n;
    return n;
}

/* How much of the budget f may fill. With several tenants around nobody's backlog makes a step, or
 * two, long: who comes next waits for them. Nor is it added where another's prompt that took more
 * than one step comes to its end. */
static int32_t room_for(const struct sched *s, const struct flow *f, int32_t budget)
{
    const struct step_plan *p = &s->plan;

    if (s->queue.shared > 0 && queue_backlog(f))
        budget = p->goes_on && p->n_fill_tok > 0 ? 0
                 : min_i32(budget, max_i32(s->step_tok_max / 2 - s->behind_tok, 1));
    return budget - p->n_fill_tok;
}

/* Nobody comes in any more, so those who are at their prompts have the rest. */
static void fill_rest(struct sched *s, int32_t budget)
{
    for (int32_t i = 0; i < s->n_run; i++) {
        struct req *r = s->run[i];
        int32_t room = room_for(s, r->flow, budget);

        if (r->flow->filling == r && room > 0)
            i = fill(s, r->flow, room) > 0 ? r->at : -1;
    }
}

/* Prompts share what the decodes left of the step. Who is next and finds no room waits at the
 * front: nobody comes in before it, but for a flow of which nobody runs if of its own somebody
 * does. */
static void plan_fills(struct sched *s, int32_t budget)
{
    uint64_t preempted_before = s->n_preempted;
    int32_t stuck = 0, room;         /* flows in a row that wait */
    bool full = false;
    struct flow *f;

    while (stuck < s->queue.n_ring && (f = queue_turn(&s->queue)) != NULL
           && (room = room_for(s, f, budget)) > 0) {
        if (f->filling == NULL && (must_wait(f->head) || (full && f->n_run > 0))) {
            stuck++;
            queue_rotate(&s->queue);
            continue;
        }
        if (f->filling == NULL && !come_in(s, f)) {
            full = true;
            if (f->n_run == 0)
                break;
            continue;
        }
        stuck = 0;
        s->plan.goes_on = s->plan.goes_on || (f->served && !queue_backlog(f));
        (void) fill(s, f, min_i32(room, (int32_t) f->credit));
        if (s->n_preempted != preempted_before)
            break;
    }
    fill_rest(s, budget);
}

/* Somebody who runs waits for the next token of an answer, whether or not it is in this step. */
static bool answers_run(const struct sched *s)
{
    for (int32_t i = 0; i < s->n_run; i++) {
        const struct req *r = s->run[i];

        if (r->flow->filling != r && r->want_tok - r->n_prompt < r->max_new)
            return true;
    }
    return false;
}

/* From here on the step will be computed: later plans build on it. */
static void commit(struct sched *s)
{
    for (int32_t i = 0; i < s->plan.n_item; i++) {
        struct step_item *it = &s->plan.item[i];
        struct req *r = it->r;

        it->ends_prompt = r->seq.n_tok < r->n_prompt && r->seq.n_tok + it->n >= r->n_prompt;
        kv_advance(s->kv, r, it->n);
        it->end = r->seq.n_tok;
        it->samples = r->seq.n_tok == r->want_tok && r->want_tok - r->n_prompt < r->max_new;
        r->want_tok += it->samples;
        r->item = -1;
    }
}

/* A request is two counters: seq.n_tok (in the KV cache) and want_tok (prompt + sampled). Each step
 * moves the first towards the second within one token budget: prefill, chunks, resumed requests and
 * decodes are one case. Who decodes comes first. */
void sched_plan(struct sched *s)
{
    int32_t budget;

    s->plan.n_item = s->plan.n_tok = s->plan.n_copy = s->plan.n_fill_tok = 0;
    s->plan.goes_on = false;
    for (int32_t i = 0; i < s->n_run; i++)
        kv_settle(s->kv, s->run[i]);

    plan_decodes(s);
    budget = s->step_tok_max - s->plan.n_tok;
    plan_fills(s, answers_run(s) ? min_i32(budget, s->fill_tok_max) : budget);
    commit(s);
    s->queue.shared -= s->queue.shared > 0;
}

bool sched_is_long(const struct sched *s)
{
    return s->behind_tok > s->step_tok_max / 4;
}

int32_t sched_deferred(const struct sched *s)
{
    int32_t n = 0;

    for (const struct flow *f = s->queue.turn; f != NULL; f = f->next)
        for (const struct req *r = f->head; r != NULL && must_wait(r); r = r->next)
            n++;
    return n;
}

/* --- */

struct req *sched_take(struct sched *s, bool only_cancelled)
{
    struct req *out = NULL, **end = &out;

    for (int32_t i = s->n_run - 1; i >= 0; i--) {
        struct req *r = s->run[i];

        if (only_cancelled && !atomic_load_explicit(&r->cancel, memory_order_relaxed))
            continue;
        leave(s, r);
        *end = r;
        end = &r->next;
    }
    queue_take(&s->queue, only_cancelled, end);
    return out;
}
