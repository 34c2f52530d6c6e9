/* sim.c - the scheduler, the pools and the prefix cache through years of load in seconds: no model,
 * no clock. After every step each page is counted by hand. Prints TAP. `sim FIRST N` runs other
 * loads than the usual 4,000. */
#include <stdlib.h>

#include "scheduler.h"
#include "tap.h"

#define REQ_N     40
#define PAGE_CAP  400
#define LEN_CAP   200

static uint64_t rng;

static int32_t rnd(int32_t n)                   /* 0 .. n-1 */
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (int32_t) (rng % (uint64_t) n);
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

struct load {
    struct kv_conf c;
    struct kv     *kv;
    struct sched   s;
    struct req     r[REQ_N];
    int            n_in, n_out, n_tenant;
    bool           overlap;
    struct step_plan before;                     /* under way, if overlap */
    uint64_t       full[PAGE_CAP];               /* hash of all tokens to the end of a whole page */
    uint64_t       n_step, n_cached, n_cancelled, n_fork;
};

static int32_t len_of(const struct req *r)
{
    return r->n_prompt + r->max_new;
}

static bool over(const struct req *r)
{
    return atomic_load(&r->finish) != FIN_NONE;
}

/* --- the count --- */

static const char *recount(const struct load *l, bool full)
{
    const struct page_pool *p = kv_pool(l->kv, full);
    const struct prefix *x = kv_prefix(l->kv);
    int32_t live[PAGE_CAP] = { 0 }, kept[PAGE_CAP] = { 0 }, n_free = 0, n_idle = 0;
    bool is_free[PAGE_CAP] = { 0 };

    for (int i = 0; i < l->n_in; i++) {
        const struct kv_seq *s = &l->r[i].seq;

        for (int32_t k = full ? 0 : s->n_sliding_freed; k < s->n_page; k++)
            live[full ? s->page_full[k] : s->page_sliding[k]]++;
        for (int32_t n = s->page_full != NULL ? s->node : NO_NODE; full && n != NO_NODE;
             n = prefix_parent(x, n))
            kept[n] = 1;
    }
    for (int32_t n = NO_NODE; (n = prefix_next_point(x, n)) != NO_NODE; ) {
        const int32_t *page;
        int32_t n_page = prefix_kept(x, n, &page);

        for (int32_t k = 0; !full && k < n_page; k++)
            kept[page[k]]++;
        for (int32_t up = n; full && up != NO_NODE; up = prefix_parent(x, up))
            kept[up] = 1;
    }

    for (int32_t i = 0; i < p->n_free; i++) {
        if (is_free[p->free_id[i]])
            return "a page is free twice";
        is_free[p->free_id[i]] = true;
    }
    for (int32_t i = 0; i < p->n; i++) {
        n_free += live[i] == 0 && kept[i] == 0;
        n_idle += live[i] == 0 && kept[i] > 0;
        if (live[i] != p->live[i] || kept[i] != p->kept[i])
            return full ? "a full page is not held as often as counted"
                        : "a sliding page is not held as often as counted";
        if (is_free[i] != (live[i] == 0 && kept[i] == 0))
            return "a page that is held is free, or one that is not is lost";
    }
    return n_free == p->n_free && n_idle == p->n_idle ? NULL : "the sums are wrong";
}

static const char *check_queue(const struct load *l)
{
    int64_t tok = 0;
    int32_t n = 0;

    for (int i = 0; i < l->n_in; i++)
        if (!over(&l->r[i]) && l->r[i].seq.page_full == NULL) {
            tok += l->r[i].wait_tok;
            n++;
        }
    return n == l->s.queue.n_wait && tok == l->s.queue.wait_tok ? NULL
           : "the queue counts others than those who wait";
}

static const char *check_plan(const struct load *l)
{
    const struct step_plan *p = &l->s.plan;
    int32_t sum = 0, fills = 0, page = l->c.shape.page_tok;
    bool decodes = false;

    if (p->n_item == 0 && l->before.n_item == 0 && (l->s.n_run > 0 || l->s.queue.n_wait > 0))
        return "nothing moves";
    for (int32_t i = 0; i < p->n_item; i++) {
        const struct req *r = p->item[i].r;
        const struct kv_seq *s = &r->seq;

        if (p->item[i].n < 1 || s->page_full == NULL || s->n_page * page < s->n_tok)
            return "an item without tokens or pages";
        if (s->n_tok > r->want_tok)
            return "more tokens than there are";
        if (s->n_page - s->n_sliding_freed > kv_need(l->kv, len_of(r)).sliding)
            return "sliding pages behind the window are kept";
        sum += p->item[i].n;
        fills += p->item[i].fills ? p->item[i].n : 0;
        decodes = decodes || !p->item[i].fills;
        if (!p->item[i].fills && p->item[i].n != 1)
            return "a decode of more than one token";
    }
    if (sum != p->n_tok || sum > l->c.step_tok_max)
        return "the budget of the step was passed";
    if (fills != p->n_fill_tok || (decodes && fills > l->s.fill_tok_max))
        return "the budget of prompts was passed";
    return NULL;
}

/* Whole pages hold what the request's text says, whoever wrote them. */
static const char *write_pages(struct load *l, const struct step_plan *p)
{
    for (int32_t i = 0; i < p->n_copy; i++)
        l->full[p->copy[i].full_to] = l->full[p->copy[i].full_from];
    for (int32_t i = 0; i < p->n_item; i++) {
        const struct req *r = p->item[i].r;
        int32_t page = l->c.shape.page_tok, from = r->seq.n_tok - p->item[i].n;
        uint64_t h = 1;

        for (int32_t k = 0; k < r->seq.n_tok && k < r->n_known; k++) {
            h = mix(h, (uint64_t) r->tok[k]);
            if ((k + 1) % page != 0)
                continue;
            if (k >= from - 1)                   /* its last token may not have been known before */
                l->full[r->seq.page_full[k / page]] = h;
            else if (l->full[r->seq.page_full[k / page]] != h)
                return "a shared page holds another text";
        }
    }
    return NULL;
}

/* --- one load --- */

static void random_text(struct load *l, struct req *r)
{
    const struct req *o = l->n_in > 0 ? &l->r[rnd(l->n_in)] : NULL;
    int32_t most = o != NULL ? (o->n_known < r->n_prompt ? o->n_known : r->n_prompt) : 0;
    int32_t n = o != NULL && rnd(4) != 0 ? rnd(most + 1) : 0;

    for (int32_t i = 0; i < r->n_prompt; i++)
        r->tok[i] = i < n ? o->tok[i] : rnd(50);
}

static void arrive(struct load *l)
{
    struct req *r, *o;
    struct kv_count need;

    while (l->n_in < REQ_N && rnd(3) != 0) {
        r = &l->r[l->n_in];
        o = l->n_in > 0 && rnd(3) == 0 ? r - 1 : NULL;
        do {
            req_free(r);
            req_alloc(r, o != NULL ? o->n_prompt : 1 + rnd(60), rnd(30), 1);
            need = kv_need(l->kv, len_of(r));
        } while (need.full > l->c.shape.n_page_full || need.sliding > l->c.shape.n_page_sliding);

        random_text(l, r);
        r->tenant = (uint64_t) rnd(l->n_tenant);
        r->class = (enum req_class) rnd(REQ_CLASS_N);
        if (o != NULL) {
            memcpy(r->tok, o->tok, (size_t) r->n_prompt * sizeof(int32_t));
            r->twin = o;
            r->tenant = o->tenant;
            r->class = o->class;
        }
        kv_keys(l->kv, r);
        sched_add(&l->s, r);
        l->n_in++;
    }
}

static void cancel(struct load *l)
{
    for (int i = 0; i < l->n_in; i++)
        if (!over(&l->r[i]) && rnd(60) == 0)
            atomic_store(&l->r[i].cancel, true);
    for (struct req *r = sched_take(&l->s, true); r != NULL; r = r->next) {
        atomic_store(&r->finish, FIN_CANCEL);
        l->n_out++;
        l->n_cancelled++;
    }
}

/* r's newest token is known; if the step under way has it in a whole page, that holds it. */
static void note_text(struct load *l, const struct req *r)
{
    uint64_t h = 1;

    if (r->seq.n_tok < r->n_known || r->n_known % l->c.shape.page_tok != 0)
        return;
    for (int32_t k = 0; k < r->n_known; k++)
        h = mix(h, (uint64_t) r->tok[k]);
    l->full[r->seq.page_full[r->n_known / l->c.shape.page_tok - 1]] = h;
}

/* The tokens that a step brought; some are the last of their request. */
static void results(struct load *l, const struct step_plan *p)
{
    for (int32_t i = 0; i < p->n_item; i++) {
        struct req *r = p->item[i].r;
        bool last = r->max_new == 0 && p->item[i].ends_prompt;

        if (over(r))
            continue;
        if (p->item[i].samples) {
            r->tok[r->n_known++] = rnd(50);
            note_text(l, r);
            last = r->n_known == len_of(r) || rnd(25) == 0;
        }
        if (last) {
            sched_remove(&l->s, r);
            atomic_store(&r->finish, FIN_STOP);
            l->n_out++;
        }
    }
}

static void copy_plan(struct step_plan *to, const struct step_plan *from)
{
    to->n_item = from->n_item;
    to->n_fill_tok = from->n_fill_tok;
    memcpy(to->item, from->item, (size_t) from->n_item * sizeof(*from->item));
}

static const char *step(struct load *l)
{
    const char *wrong;

    arrive(l);
    cancel(l);
    if (rnd(200) == 0)
        kv_reset_cache(l->kv);
    if (rnd(20) == 0)                            /* as with a target for the pace of decodes */
        l->s.fill_tok_max = 1 + rnd(l->c.step_tok_max);
    l->s.behind_tok = l->overlap ? l->before.n_fill_tok : 0;
    if (rnd(50) == 0)
        l->s.queue.shared = 0;
    sched_plan(&l->s);
    l->n_step++;
    l->n_fork += (uint64_t) l->s.plan.n_copy;
    for (int32_t i = 0; i < l->s.plan.n_item; i++) {
        struct req *r = l->s.plan.item[i].r;

        if (!r->started)
            l->n_cached += (uint64_t) (r->seq.n_tok - l->s.plan.item[i].n);
        r->started = true;
        r->n_flight += l->overlap;
    }
    if ((wrong = check_plan(l)) != NULL || (wrong = write_pages(l, &l->s.plan)) != NULL)
        return wrong;

    if (l->overlap) {
        for (int32_t i = 0; i < l->before.n_item; i++)
            l->before.item[i].r->n_flight--;
        results(l, &l->before);
        copy_plan(&l->before, &l->s.plan);
    } else {
        results(l, &l->s.plan);
    }
    if ((wrong = check_queue(l)) != NULL)
        return wrong;
    wrong = recount(l, true);
    return wrong != NULL ? wrong : recount(l, false);
}

static void open_load(struct load *l)
{
    int32_t page = rnd(6) == 0 ? 1 : 1 + rnd(16), most = (90 - 1) / page + 1;

    memset(l, 0, sizeof(*l));
    l->overlap = rnd(2);
    l->n_tenant = rnd(3) == 0 ? 1 : 1 + rnd(12);
    l->c = (struct kv_conf) {
        .shape = { page, most + rnd(most), most + rnd(most) },
        .window = rnd(8) == 0 ? 1 : 1 + rnd(30), .step_tok_max = rnd(4) == 0 ? 1 : 1 + rnd(40),
        .seq_max = rnd(4) == 0 ? 1 : 1 + rnd(12), .page_max = LEN_CAP, .cache = rnd(6) != 0,
        .point_tok = rnd(2) * rnd(40), .key = { rng, 1 }, .hash_mask = rnd(4) == 0 ? 1 : ~0ull,
    };
    l->before.item = calloc(64, sizeof(*l->before.item));
    if (kv_open(&l->kv, &l->c, NULL) != 0
        || sched_open(&l->s, l->kv, l->c.step_tok_max, l->c.seq_max, NULL) != 0)
        exit(1);
}

static const char *run(struct load *l)
{
    const char *wrong = NULL;

    open_load(l);
    while (l->n_out < REQ_N && wrong == NULL) {
        wrong = step(l);
        if (l->n_step > REQ_N * 1000)
            wrong = "somebody starves";
    }
    if (wrong == NULL && (kv_used(l->kv).full != 0 || kv_used(l->kv).sliding != 0))
        wrong = "pages are held after everybody left";

    for (struct req *r = sched_take(&l->s, false); r != NULL; r = r->next)
        ;
    for (int i = 0; i < l->n_in; i++)
        req_free(&l->r[i]);
    free(l->before.item);
    kv_close(l->kv);
    return wrong;
}

static void random_loads(int first, int end)
{
    static struct load l;
    uint64_t n_step = 0, n_cached = 0, n_cancelled = 0, n_fork = 0, n_preempted = 0;
    const char *wrong = NULL;
    int n = first;

    for (; n < end && wrong == NULL; n++) {
        rng = 0x9e3779b97f4a7c15ull + (uint64_t) n;
        wrong = run(&l);
        n_step += l.n_step;
        n_cached += l.n_cached;
        n_cancelled += l.n_cancelled;
        n_fork += l.n_fork;
        n_preempted += l.s.n_preempted;
        sched_close(&l.s);
    }
    ok(wrong == NULL, "random loads: every page is free, cached or held as often as counted");
    if (wrong != NULL)
        printf("# load %d: %s\n", n - 1, wrong);
    printf("# %lu steps, %lu tokens cached, %lu preempted, %lu copies, %lu cancelled\n",
           (unsigned long) n_step, (unsigned long) n_cached, (unsigned long) n_preempted,
           (unsigned long) n_fork, (unsigned long) n_cancelled);
    ok(n_cached > 10000 && n_preempted > 1000 && n_fork > 500 && n_cancelled > 1000,
       "through hits, preemption, forks and cancels");
}

/* --- more tenants than flows --- */

static bool counts_agree(const struct queue *q, int32_t n_run)
{
    int32_t run = 0, wait = 0, ring = 0;

    for (int32_t i = 0; i < q->n_flow; i++) {
        run += q->flow[i].n_run;
        wait += q->flow[i].n_wait;
    }
    for (const struct flow *f = q->turn; f != NULL; f = f->next)
        ring++;
    return run == n_run && wait == q->n_wait && ring == q->n_ring;
}

/* Bursts of thousands: flows run out, are shared, and are used again by others. */
static void many_tenants(void)
{
    enum { N = 9000, TENANTS = 4000 };
    struct load *l = calloc(1, sizeof(*l));
    struct req *r = calloc(N, sizeof(*r));
    int n_in = 0, n_out = 0, n_step = 0;
    bool agree = true, moves = true;

    rng = 88172645463325252ull;
    l->c = (struct kv_conf) { .shape = { 16, 400, 400 }, .window = 64, .step_tok_max = 300,
                              .seq_max = 30, .page_max = 64, .cache = true, .hash_mask = ~0ull };
    if (kv_open(&l->kv, &l->c, NULL) != 0 || sched_open(&l->s, l->kv, 300, 30, NULL) != 0)
        exit(1);
    for (; n_out < N && agree && moves; n_step++) {
        for (int n = rnd(40) == 0 ? rnd(3000) : rnd(4); n > 0 && n_in < N; n--, n_in++) {
            req_alloc(&r[n_in], 1 + rnd(100), 1 + rnd(8), 16);
            for (int32_t k = 0; k < r[n_in].n_prompt; k++)
                r[n_in].tok[k] = rnd(50);
            r[n_in].tenant = (uint64_t) rnd(TENANTS);
            r[n_in].class = (enum req_class) rnd(REQ_CLASS_N);
            kv_keys(l->kv, &r[n_in]);
            sched_add(&l->s, &r[n_in]);
        }
        sched_plan(&l->s);
        moves = l->s.plan.n_item > 0 || (l->s.n_run == 0 && l->s.queue.n_wait == 0);
        for (int32_t i = 0; i < l->s.plan.n_item; i++) {
            struct req *v = l->s.plan.item[i].r;

            if (l->s.plan.item[i].samples)
                v->tok[v->n_known++] = 1;
            if (v->n_known == len_of(v)) {
                sched_remove(&l->s, v);
                n_out++;
            }
        }
        agree = counts_agree(&l->s.queue, l->s.n_run);
    }
    ok(agree && moves && n_out == N, "%d requests of %d tenants in %d steps", n_out, TENANTS,
       n_step);
    is_int(l->s.queue.n_flow, FLOW_MAX, "all flows were in use");
    sched_close(&l->s);
    kv_close(l->kv);
    for (int i = 0; i < n_in; i++)
        req_free(&r[i]);
    free(r);
    free(l);
}

int main(int argc, char **argv)
{
    int first = argc == 3 ? atoi(argv[1]) : 0, n = argc == 3 ? atoi(argv[2]) : 4000;

    random_loads(first, first + n);
    many_tenants();
    return done_testing();
}
