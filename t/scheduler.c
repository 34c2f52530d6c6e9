/* scheduler.c - plans under random loads: the budget holds, all that run move in every step, first
 * come first served, nobody starves, and no page is lost whatever ends a request. */
#include <stdlib.h>

#include "scheduler.h"
#include "tap.h"

#define REQ_N  60

static uint64_t rng;

static int32_t rnd(int32_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (int32_t) (rng % (uint64_t) n);
}

struct load {
    struct kv_conf c;
    struct kv     *kv;
    struct sched   s;
    struct req     r[REQ_N];
    int            n_in, n_out, n_cancelled;
    int            admitted;             /* requests start in this order */
};

static int32_t len_of(const struct req *r)
{
    return r->n_prompt + r->max_new;
}

static void make_req(struct load *l, struct req *r)
{
    int32_t room;

    do {
        r->n_prompt = 1 + rnd(60);
        r->max_new = rnd(30);
        room = kv_need(l->kv, len_of(r)).full;
    } while (room > l->c.shape.n_page_full || room > l->c.page_max
             || kv_need(l->kv, len_of(r)).sliding > l->c.shape.n_page_sliding);
}

static void arrive(struct load *l)
{
    while (l->n_in < REQ_N && rnd(3) != 0) {
        make_req(l, &l->r[l->n_in]);
        sched_add(&l->s, &l->r[l->n_in++]);
    }
}

static void cancel(struct load *l)
{
    int marked = 0;

    for (int i = 0; i < l->n_in; i++)
        if (atomic_load(&l->r[i].finish) == FIN_NONE && rnd(40) == 0) {
            atomic_store(&l->r[i].cancel, true);
            marked++;
        }
    for (struct req *r = sched_take(&l->s, true); r != NULL; r = r->next, marked--) {
        atomic_store(&r->finish, FIN_CANCEL);
        l->n_out++;
        l->n_cancelled++;
    }
    if (marked != 0)
        l->n_cancelled = -1000000;
}

static const char *check_plan(struct load *l)
{
    const struct step_plan *p = &l->s.plan;
    int32_t sum = 0;

    if (p->n_item != l->s.n_run)
        return "somebody runs and got nothing";
    if (p->n_item == 0 && l->s.n_wait > 0)
        return "somebody waits and nobody runs";
    for (int32_t i = 0; i < p->n_item; i++) {
        struct req *r = p->item[i].r;

        if (r != l->s.run[i] || p->item[i].n < 1)
            return "an item without tokens or out of order";
        if (i < p->n_item - 1 && r->seq.n_tok + p->item[i].n != r->want_tok)
            return "somebody was admitted though another prompt was not done";
        if (r->seq.n_tok + p->item[i].n > r->want_tok)
            return "more tokens than there are";
        if (r->seq.n_tok == 0) {
            if (r < &l->r[l->admitted])
                return "a later request overtook";
            l->admitted = (int) (r - l->r) + 1;
        }
        sum += p->item[i].n;
    }
    if (sum != p->n_tok || sum > l->c.step_tok_max)
        return "the budget of the step was passed";
    return NULL;
}

static void step(struct load *l)
{
    for (int32_t i = 0; i < l->s.plan.n_item; i++) {
        struct req *r = l->s.plan.item[i].r;

        kv_advance(l->kv, &r->seq, l->s.plan.item[i].n);
        if (r->seq.n_tok < r->want_tok)
            continue;
        if (r->want_tok < len_of(r) && rnd(25) != 0) {
            r->want_tok++;
            if (r->want_tok < len_of(r))
                continue;
        }
        sched_remove(&l->s, r);
        atomic_store(&r->finish, FIN_STOP);
        l->n_out++;
    }
}

static const char *run(struct load *l)
{
    const char *wrong = NULL;

    memset(l, 0, sizeof(*l));
    l->c = (struct kv_conf) {
        .shape = { 1 + rnd(16), 20 + rnd(100), 20 + rnd(100) },
        .window = 1 + rnd(30), .step_tok_max = rnd(4) == 0 ? 1 : 1 + rnd(40),
        .seq_max = rnd(4) == 0 ? 1 : 1 + rnd(12), .page_max = 100,
    };
    if (kv_open(&l->kv, &l->c, NULL) != 0
        || sched_open(&l->s, l->kv, l->c.step_tok_max, l->c.seq_max, NULL) != 0)
        return "open failed";

    for (int n = 0; l->n_out < REQ_N && wrong == NULL; n++) {
        arrive(l);
        cancel(l);
        sched_plan(&l->s);
        wrong = check_plan(l);
        step(l);
        if (n > REQ_N * 100)
            wrong = "somebody starves";
    }

    if (wrong == NULL && (kv_used(l->kv).full != 0 || kv_used(l->kv).sliding != 0))
        wrong = "pages are held after everybody left";
    if (wrong == NULL && l->n_cancelled < 0)
        wrong = "a cancelled request was not found";
    for (struct req *r = sched_take(&l->s, false); r != NULL; r = r->next)
        ;
    sched_close(&l->s);
    kv_close(l->kv);
    return wrong;
}

static void order(void)
{
    struct kv_conf c = { { 4, 12, 12 }, .window = 100, .step_tok_max = 10, .seq_max = 8,
                         .page_max = 12 };
    struct req a = { .n_prompt = 14, .max_new = 6 }, b = { .n_prompt = 4, .max_new = 20 },
               d = { .n_prompt = 4, .max_new = 1 };
    struct kv *kv;
    struct sched s;

    kv_open(&kv, &c, NULL);
    sched_open(&s, kv, c.step_tok_max, c.seq_max, NULL);
    sched_add(&s, &a);
    sched_add(&s, &b);
    sched_add(&s, &d);

    sched_plan(&s);
    is_int(s.plan.n_item, 1, "a long prompt takes the whole budget");
    is_int(s.plan.item[0].n, 10, "in a chunk");
    kv_advance(kv, &a.seq, 10);

    sched_plan(&s);
    is_int(s.plan.n_item, 2, "the rest of it leaves room for the next");
    is_int(s.plan.item[1].n, 4, "which comes in whole");
    ok(s.plan.item[1].r == &b && s.n_wait == 1, "the third waits: it needs 2 pages, 11 of 12"
       " are promised");
    sched_remove(&s, &a);
    sched_remove(&s, &b);
    sched_plan(&s);
    is_int(s.n_wait, 0, "and comes in when there is room");
    sched_remove(&s, &d);
    sched_close(&s);
    kv_close(kv);
}

int main(void)
{
    static struct load l;
    const char *wrong = NULL;
    long n_cancelled = 0;
    int n = 0;

    order();
    for (; n < 3000 && wrong == NULL; n++) {
        rng = 0x9e3779b97f4a7c15ull + (uint64_t) n;
        wrong = run(&l);
        n_cancelled += l.n_cancelled;
    }
    ok(wrong == NULL, "random loads");
    if (wrong != NULL)
        printf("# load %d: %s\n", n - 1, wrong);
    ok(n_cancelled > 1000, "with cancels");
    return done_testing();
}
