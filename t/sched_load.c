/* sched_load.c - what a plan costs, and that nobody pays for somebody else: a full engine is
 * planned in microseconds without an allocation, a long prompt leaves the decodes their pace, and a
 * tenant with a thousand requests does not make another wait. Prints TAP. */
#include <stdlib.h>
#include <time.h>

#include "batch.h"
#include "count_alloc.h"
#include "tap.h"

#define STEP_TOK  2048

struct engine { struct kv *kv; struct sched s; struct batch_mem b; };

static struct engine bring_up(struct kv_conf c)
{
    struct engine en;
    struct err e;

    c.key = (struct hash_key) { 5, 6 };
    c.hash_mask = ~0ull;
    c.cache = true;
    if (kv_open(&en.kv, &c, &e) != 0
        || sched_open(&en.s, en.kv, c.step_tok_max, c.seq_max, &e) != 0
        || batch_open(&en.b, c.step_tok_max, c.seq_max, c.page_max, &e) != 0) {
        printf("Bail out! %s\n", e.msg);
        exit(1);
    }
    return en;
}

static void tear_down(struct engine *en)
{
    for (struct req *r = sched_take(&en->s, false); r != NULL; r = r->next)
        ;
    batch_close(&en->b);
    sched_close(&en->s);
    kv_close(en->kv);
}

static void make(struct engine *en, struct req *r, int32_t n_prompt, int32_t max_new, uint64_t who)
{
    memset(r, 0, sizeof(*r));
    if (req_alloc(r, n_prompt, max_new, 16) != 0)
        exit(1);
    for (int32_t i = 0; i < n_prompt; i++)
        r->tok[i] = (int32_t) (((uint64_t) i * 2654435761u + who * 97 + (uint64_t) n_prompt)
                               % 1000);
    r->tenant = who;
    kv_keys(en->kv, r);
}

/* The step is over: everybody gets a token. How many were planned. */
static int32_t run_step(struct engine *en)
{
    sched_plan(&en->s);
    batch_fill(&en->b, &en->s.plan);
    for (int32_t i = 0; i < en->s.plan.n_item; i++) {
        struct req *r = en->s.plan.item[i].r;

        if (en->s.plan.item[i].samples)
            r->tok[r->n_known++] = 1;
        if (r->n_known == r->n_prompt + r->max_new)
            sched_remove(&en->s, r);
    }
    return en->s.plan.n_tok;
}

/* --- a full engine --- */

static double now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double) ts.tv_sec * 1e6 + (double) ts.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}

/* 256 requests of about 4,000 tokens in 100,000 pages of 16. */
static void full_engine(void)
{
    enum { N = 256, STEPS = 1000 };
    struct engine en = bring_up((struct kv_conf) {
        .shape = { 16, 100000, 100000 }, .window = 1024, .step_tok_max = STEP_TOK, .seq_max = N,
        .page_max = 1024 });
    struct req *r = calloc(N, sizeof(*r));
    double *us = calloc(STEPS, sizeof(*us));
    long before;

    for (int i = 0; i < N; i++) {
        make(&en, &r[i], 4000 - i, 4000, (uint64_t) i % 5);
        sched_add(&en.s, &r[i]);
    }
    while (en.s.n_run < N || run_step(&en) > N)
        run_step(&en);
    is_int(en.s.n_run, N, "256 requests run");
    ok(kv_used(en.kv).full > 60000, "in %d of 100,000 pages", kv_used(en.kv).full);

    before = n_alloc;
    for (int i = 0; i < STEPS; i++) {
        double start = now_us();

        sched_plan(&en.s);
        batch_fill(&en.b, &en.s.plan);
        us[i] = now_us() - start;
        for (int k = 0; k < en.s.plan.n_item; k++) {
            struct req *v = en.s.plan.item[k].r;

            v->tok[v->n_known++] = 1 + i % 7;
        }
    }
    if (COUNTS_ALLOC)
        is_int(n_alloc, before, "nothing is allocated");
    qsort(us, STEPS, sizeof(*us), by_value);
    printf("# a step is planned in %.1f us, 99 %% in %.1f us\n", us[STEPS / 2],
           us[STEPS * 99 / 100]);
    if (COUNTS_ALLOC)
        ok(us[STEPS / 2] < 50, "in less than 50 us");

    tear_down(&en);
    for (int i = 0; i < N; i++)
        req_free(&r[i]);
    free(r);
    free(us);
}

/* --- a long prompt --- */

static void long_prompt(void)
{
    enum { N = 32 };
    struct engine en = bring_up((struct kv_conf) {
        .shape = { 16, 10000, 10000 }, .window = 1024, .step_tok_max = STEP_TOK, .seq_max = N + 1,
        .page_max = 10000 });
    struct req r[N + 1];
    bool all = true;
    int n = 0;

    for (int i = 0; i < N; i++) {
        make(&en, &r[i], 100 + i, 1000, 1);
        sched_add(&en.s, &r[i]);
    }
    while (en.s.plan.n_item < N || en.s.plan.n_tok > N)
        run_step(&en);

    make(&en, &r[N], 100000, 2, 2);
    sched_add(&en.s, &r[N]);
    for (; r[N].n_known == r[N].n_prompt; n++) {
        run_step(&en);
        all = all && en.s.plan.n_item == N + 1 && en.s.plan.n_tok <= STEP_TOK;
    }
    ok(all, "while 100,000 tokens of a prompt come in, each of 32 decodes moves in every step");
    is_int(n, (100000 + STEP_TOK - N - 1) / (STEP_TOK - N), "of one budget");

    tear_down(&en);
    for (int i = 0; i <= N; i++)
        req_free(&r[i]);
}

/* --- two tenants --- */

/* Time of a step of n tokens, in microseconds: about an H200's. */
static double step_us(int32_t n)
{
    return 3000 + 20 * n;
}

/* The time to the first token of each of 20 requests that come one by one, the worst, beside
 * n_other requests of another tenant. They come in the middle of a step. */
static double worst_ttft(int n_other, enum req_class class)
{
    struct engine en = bring_up((struct kv_conf) {
        .shape = { 16, 20000, 20000 }, .window = 1024, .step_tok_max = STEP_TOK, .seq_max = 64,
        .page_max = 1024 });
    struct req *other = calloc((size_t) n_other + 1, sizeof(*other)), r;
    double worst = 0;

    for (int i = 0; i < n_other; i++) {
        make(&en, &other[i], 1000 + i % 100, 300, 1);
        other[i].class = class;
        sched_add(&en.s, &other[i]);
    }
    for (int i = 0; i < 100 && n_other > 0; i++)
        run_step(&en);

    for (int i = 0; i < 20; i++) {
        double t = n_other > 0 ? step_us(STEP_TOK) / 2 : 0;      /* of the step under way */

        make(&en, &r, 1500, 20, 2);
        r.tok[0] = i;
        kv_keys(en.kv, &r);
        sched_add(&en.s, &r);
        while (r.n_known == r.n_prompt)
            t += step_us(run_step(&en));
        worst = t > worst ? t : worst;
        while (r.n_known < r.n_prompt + r.max_new)
            run_step(&en);
        req_free(&r);
    }

    tear_down(&en);
    for (int i = 0; i < n_other; i++)
        req_free(&other[i]);
    free(other);
    return worst;
}

static void tenants(void)
{
    double alone = worst_ttft(0, REQ_INTERACTIVE), beside = worst_ttft(1000, REQ_INTERACTIVE);

    ok(beside <= 2 * alone, "beside 1,000 requests of another tenant the worst first token takes"
       " %.1f ms, alone %.1f", beside / 1000, alone / 1000);
    beside = worst_ttft(1000, REQ_BATCH);
    ok(beside <= 2 * alone, "beside 1,000 of the batch class: %.1f ms", beside / 1000);
}

int main(void)
{
    full_engine();
    long_prompt();
    tenants();
    return done_testing();
}
