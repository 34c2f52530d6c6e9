/* serve.c - the loop, over a model that answers right only if every page was. */
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

#include "count_alloc.h"
#include "fake_serve.h"

/* Whatever may bend it, alone or together. */
static void random_wishes(struct req *r)
{
    static const uint32_t allow[] = { 0x12345678, 0xfedcba98, 0x0f0f0f0f, 0x1 };
    static const struct steer steer[] = {
        { .repetition = 1, .force = -1, .presence = 1 },
        { .repetition = 1, .force = -1, .allow = allow },
        { .repetition = 1, .force = -1, .presence = 1, .allow = allow },
    };
    static const int32_t force[] = { 3, 50, 3 }, close[] = { 60, 61, 60, 8 };
    static const struct req_think think[] = {
        { 7, 2, 3, close, 4, false }, { 7, 0, 0, close + 3, 1, false },
        { 7, 1, 2, close + 2, 2, true }, { 7, 0, 1, close, 4, true },
    };

    r->steer = rnd(3) == 0 ? &steer[rnd(3)] : NULL;
    r->force = force;
    r->n_force = rnd(6) == 0 ? rnd(4) : 0;
    r->guide = rnd(6) == 0 ? guide : NULL;
    r->guide_arg = (void *) &close[rnd(4)];
    r->think = rnd(4) == 0 ? &think[rnd(4)] : NULL;
    if (rnd(4) == 0) {
        r->lp.n = 1;
        r->lp.p = calloc((size_t) r->max_new + 1, 2 * sizeof(float));
    }
}

static void random_req(struct req *r)
{
    int32_t n_prompt = 1 + rnd(80);

    make(r, n_prompt, rnd(4) == 0 ? 0 : rnd(LEN_MAX - n_prompt));
    r->port = rnd(2);
    r->sample.temperature = (float) rnd(2);
    r->sample.seed = (uint64_t) rnd(1000);
    r->n_stop_id = rnd(3);
    r->stop_id[0] = EOS;
    r->stop_id[1] = rnd(VOCAB);
    r->min_new = rnd(3) == 0 ? rnd(30) : 0;
    random_wishes(r);
    if (rnd(3) == 0)
        r->prompt_lp.p = calloc((size_t) n_prompt, sizeof(float));
    if (rnd(3) == 0)
        r->last_logits = calloc(VOCAB, sizeof(float));
}

/* --- numbers that are none --- */

/* The requests with the id end, and nobody else does. */
static void corrupt(bool overlap)
{
    enum { N = 12, POISON = 96 };
    struct serve_conf c = usual();
    struct req r[N];
    struct serve *s;
    int n_bad = 0, n_right = 0, n_wrong = 0;

    c.overlap = overlap;
    c.cache = true;
    s = open_serve(&c);
    fake.poison = POISON;
    fake.late = overlap;
    for (int i = 0; i < N; i++) {
        int32_t n_prompt = 20 + i;

        make(&r[i], n_prompt, i == 7 ? 0 : 40);
        for (int32_t k = 0; k < n_prompt; k++)
            r[i].tok[k] = k == 9 && i % 3 == 1 ? POISON : (k * 5 + i) % 96;
        r[i].prompt_lp.p = i == 4 ? calloc((size_t) n_prompt, sizeof(float)) : NULL;
        serve_submit(s, &r[i], NULL);
    }
    while (serve_once(s, NULL))
        ;

    for (int i = 0; i < N; i++) {
        bool bad = false;
        int32_t n = atomic_load(&r[i].n_pub);

        for (int32_t k = 0; k < r[i].n_prompt + n; k++)
            bad = bad || r[i].tok[k] == POISON;
        if (fin_of(&r[i]) == FIN_CORRUPT && bad)
            n_bad++;
        else if (fin_of(&r[i]) != FIN_CORRUPT && as_expected(&r[i]))
            n_right++;
        else
            n_wrong++;
    }
    ok(n_bad >= 4 && n_right > 0 && n_wrong == 0, "not a number: %d requests end, %d go on", n_bad,
       n_right);
    is_int((int) serve_metrics(s)->corrupt, n_bad, "they are counted");
    is_int((int) serve_metrics(s)->done_error, n_bad, "as errors");
    ok(pages_are_free(s) && fake.wrong == NULL, "their pages are free");
    ok(serve_metrics(s)->pages_full_cached > 0, "what the others left is cached");
    drop(&r[0]);
    make(&r[0], 30, 3);
    r[0].tok[29] = POISON;
    serve_submit(s, &r[0], NULL);
    while (serve_once(s, NULL))
        ;
    is_int(fin_of(&r[0]), FIN_CORRUPT, "one more");
    is_int((int) serve_metrics(s)->pages_full_cached, 0, "after it no prefix is trusted");

    serve_close(s);
    for (int i = 0; i < N; i++)
        drop(&r[i]);
}

/* The step behind the bad one has the end of the prompt, whose logits go to the owner's memory: it
 * is told when that is over. */
static void corrupt_behind(void)
{
    enum { N = 28, POISON = 96 };
    struct serve_conf c = usual();
    struct req r[N + 1];
    struct serve *s;

    c.overlap = true;
    c.seq_max = N + 1;
    s = open_serve(&c);
    fake.poison = POISON;
    fake.late = true;
    for (int i = 0; i < N; i++) {
        make(&r[i], 1, 60);
        r[i].tok[0] = i;
        r[i].sample.temperature = 1;
        serve_submit(s, &r[i], NULL);
    }
    for (int i = 0; i < 4; i++)
        serve_once(s, NULL);
    make(&r[N], 10, 0);
    for (int i = 0; i < 10; i++)
        r[N].tok[i] = i == 5 ? POISON : i;
    r[N].prompt_lp.p = calloc(10, sizeof(float));
    r[N].last_logits = calloc(VOCAB, sizeof(float));
    serve_submit(s, &r[N], NULL);
    while (fin_of(&r[N]) == FIN_NONE && serve_once(s, NULL))
        ;
    is_int(fin_of(&r[N]), FIN_CORRUPT, "not a number in the middle of a scored prompt");
    drop(&r[N]);
    while (serve_once(s, NULL))
        ;
    ok(pages_are_free(s) && fake.wrong == NULL, "and nothing is written to what it was");
    serve_close(s);
    for (int i = 0; i < N; i++)
        drop(&r[i]);
}

/* --- the allocator --- */

static void no_allocation(void)
{
    struct serve_conf c = usual();
    struct req r[20];
    struct serve *s;
    struct err e;
    long before;

    s = open_serve(&c);
    for (int i = 0; i < 20; i++)
        random_req(&r[i]);
    before = n_alloc;
    for (int i = 0; i < 20; i++)
        serve_submit(s, &r[i], &e);
    while (serve_once(s, &e))
        ;
    is_int(n_alloc, before, "nothing is allocated from submit to finish");
    ok(before > 20, "and the counter works");
    serve_close(s);
    for (int i = 0; i < 20; i++)
        drop(&r[i]);
}

/* --- tests --- */

/* Some begin as others did, answers and all; some are twins, so their prompts are the same. */
static void random_friend(struct req *r, int i, const struct req *others)
{
    const struct req *o = i > 0 ? &others[rnd(i)] : NULL;
    int32_t n, n_known;

    random_req(r);
    r->tenant = (uint64_t) rnd(3);
    r->class = (enum req_class) rnd(REQ_CLASS_N);
    r->n_salt = rnd(8) == 0;
    if (o == NULL || rnd(4) == 0)
        return;

    n_known = o->n_prompt + atomic_load(&o->n_pub);
    n = rnd((n_known < r->n_prompt ? n_known : r->n_prompt) + 1);
    memcpy(r->tok, o->tok, (size_t) n * sizeof(int32_t));
    if (n < r->n_prompt || n != o->n_prompt || rnd(2) == 0)
        return;
    r->twin = o;
    r->tenant = o->tenant;
    r->class = o->class;
}

static void random_twin(struct req *r, const struct req *o)
{
    drop(r);
    make(r, o->n_prompt, rnd(LEN_MAX - o->n_prompt));
    memcpy(r->tok, o->tok, (size_t) o->n_prompt * sizeof(int32_t));
    r->sample.temperature = 1;
    r->sample.seed = (uint64_t) rnd(1000);
    r->tenant = o->tenant;
    r->class = o->class;
    r->port = o->port;
    r->twin = o;
}

struct seen { uint64_t cached, preempted, evicted, stopped; };

/* One seed: requests come and go in any mix; whoever was not cancelled is right to the last id. */
static const char *load(int seed, struct seen *seen)
{
    enum { N = 40 };
    struct req r[N];
    struct serve_conf c = usual();
    struct serve *s;
    const char *wrong = NULL;
    int n_in = 0, n_done = 0;
    int32_t need;
    struct err e;

    rng = 0x2545f4914f6cdd1dull + (uint64_t) seed;
    c.seq_max = rnd(5) == 0 ? 1 : 1 + rnd(12);
    c.step_tok_max = rnd(4) == 0 ? 1 + rnd(3) : 1 + rnd(100);
    c.kv.page_tok = 1 + rnd(20);
    need = (LEN_MAX - 1) / c.kv.page_tok + 1;
    c.kv.n_page_full = need + rnd(3) * rnd(need);
    c.kv.n_page_sliding = need + rnd(3) * rnd(need);
    c.overlap = rnd(2);
    c.cache = rnd(5) != 0;
    c.point_tok = rnd(2) * rnd(50);
    c.itl_target_ns = (uint64_t) (rnd(2) * rnd(5)) * 1000000;
    s = open_serve(&c);
    fake.late = rnd(2);

    memset(r, 0, sizeof(r));
    while (n_done < N && wrong == NULL) {
        while (n_in < N && rnd(4) != 0) {
            random_friend(&r[n_in], n_in, r);
            if (n_in > 0 && rnd(4) == 0)
                random_twin(&r[n_in], &r[n_in - 1]);
            if (serve_submit(s, &r[n_in++], &e) != 0)
                wrong = "refused";
        }
        if (n_in > 0 && rnd(30) == 0)
            serve_cancel(s, &r[rnd(n_in)]);
        if (rnd(200) == 0)
            serve_reset_cache(s);
        if (!serve_once(s, &e) && n_in == N)
            wrong = wrong != NULL ? wrong : "nothing to do though somebody is unfinished";
        n_done = 0;
        for (int i = 0; i < n_in; i++) {
            if (atomic_load(&r[i].cancel) && fin_of(&r[i]) == FIN_NONE)
                wrong = "a cancelled request is alive after a step";
            n_done += fin_of(&r[i]) != FIN_NONE;
        }
    }
    for (int i = 0; i < n_in; i++) {
        if (fin_of(&r[i]) != FIN_CANCEL && !as_expected(&r[i]))
            wrong = wrong != NULL ? wrong : "an answer differs from the same request alone";
        if (r[i].n_cached >= r[i].n_prompt)
            wrong = "more cached than there can be";
        seen->stopped += fin_of(&r[i]) == FIN_STOP;
    }
    if (fake.wrong != NULL)
        wrong = fake.wrong;
    while (serve_once(s, &e))
        ;
    if (wrong == NULL && !pages_are_free(s))
        wrong = "pages are held after everybody left";
    seen->cached += serve_metrics(s)->cached_tok;
    seen->preempted += serve_metrics(s)->preempted;
    seen->evicted += serve_metrics(s)->evicted;

    serve_close(s);
    for (int i = 0; i < N; i++)
        drop(&r[i]);
    return wrong;
}

static void random_loads(void)
{
    const char *wrong = NULL;
    struct seen seen = { 0 };
    int n = 0;

    for (; n < 2000 && wrong == NULL; n++)
        wrong = load(n, &seen);
    ok(wrong == NULL, "random loads: every answer is that of the request alone");
    if (wrong != NULL)
        printf("# load %d: %s\n", n - 1, wrong);
    printf("# %lu tokens cached, %lu preempted, %lu reuse points evicted, %lu stopped\n",
           (unsigned long) seen.cached, (unsigned long) seen.preempted,
           (unsigned long) seen.evicted, (unsigned long) seen.stopped);
    ok(seen.cached > 10000 && seen.preempted > 1000 && seen.evicted > 1000 && seen.stopped > 1000,
       "through hits, preemption, eviction and stops");
}

static void refusals(void)
{
    struct serve_conf c = usual();
    struct req r[12], bad;
    struct serve *s;
    struct err e;
    int rc = 0;

    c.seq_max = 2;
    c.queue_max = 3;
    c.kv.n_page_full = 20;
    s = open_serve(&c);

    make(&bad, 100, 51);
    is_int(serve_submit(s, &bad, &e), E_INVALID, "too long: %s", e.msg);
    bad.max_new = 50;
    is_int(serve_submit(s, &bad, &e), E_INVALID, "could never fit: %s", e.msg);
    bad.n_prompt = 10;
    bad.tok[3] = VOCAB;
    is_int(serve_submit(s, &bad, &e), E_INVALID, "a wrong id: %s", e.msg);
    bad.tok[3] = -1;
    is_int(serve_submit(s, &bad, &e), E_INVALID, "a negative one: %s", e.msg);
    bad.tok[3] = 0;
    bad.sample.top_p = 0;
    is_int(serve_submit(s, &bad, &e), E_INVALID, "a sample: %s", e.msg);
    bad.sample = (struct sample) { .temperature = -1, .top_p = 1 };
    is_int(serve_submit(s, &bad, &e), E_INVALID, "another: %s", e.msg);
    bad.n_prompt = 0;
    is_int(serve_submit(s, &bad, &e), E_INVALID, "nothing: %s", e.msg);
    bad.n_prompt = 1;
    bad.max_new = INT32_MAX;
    is_int(serve_submit(s, &bad, &e), E_INVALID, "a sum that overflows: %s", e.msg);
    drop(&bad);

    for (int i = 0; i < 12; i++) {
        make(&r[i], 5, 3);
        rc = serve_submit(s, &r[i], &e);
        if (i < 5)
            is_int(rc, 0, "%d of 2 + 3", i + 1);
    }
    is_int(rc, E_FULL, "then: %s", e.msg);
    while (serve_once(s, &e))
        ;
    is_int(serve_submit(s, &r[5], &e), 0, "later there is room");
    while (serve_once(s, &e))
        ;
    ok(as_expected(&r[5]), "and it runs");
    ok(!serve_once(s, &e), "then there is nothing to do");
    serve_close(s);
    for (int i = 0; i < 12; i++)
        drop(&r[i]);
}

static void wake_and_count(void)
{
    struct serve_conf c = usual();
    struct req a, b, d;
    const struct metrics *m;
    struct serve *s;
    struct err e;
    int n = 0;

    s = open_serve(&c);
    m = serve_metrics(s);
    make(&a, 10, 7);
    make(&b, 3, 7);
    make(&d, 40, 0);
    b.port = d.port = 1;
    serve_submit(s, &a, &e);
    serve_submit(s, &b, &e);

    serve_once(s, &e);
    ok(wakes[0] == 1 && wakes[1] == 1, "one wake-up for each port that something came for");
    is_int(atomic_load(&a.n_pub), 1, "the prefill's logits gave the first token");
    is_int(m->running, 2, "two run");
    is_int(m->pages_full_used, 4, "in 3 + 1 pages");
    ok(a.submit_ns < a.start_ns && a.start_ns < a.first_ns, "the times are in order");

    serve_submit(s, &d, &e);
    serve_cancel(s, &b);
    serve_once(s, &e);
    is_int(fin_of(&b), FIN_CANCEL, "cancelled within a step");
    is_int(fin_of(&d), FIN_NONE, "31 of 40 prompt tokens beside the decode");
    serve_once(s, &e);
    is_int(fin_of(&d), FIN_LENGTH, "max_new 0 ends after the prompt");
    while (serve_once(s, &e))
        n++;
    is_int(n, 4, "7 tokens take 7 steps");
    ok(as_expected(&a), "and are right");

    ok(m->done_length == 2 && m->done_abort == 1 && m->done_stop == 0, "ends by reason");
    is_int(m->prompt_tok, 53, "prompt tokens");
    is_int(m->generation_tok, 8, "generated tokens");
    is_int(m->steps, 7, "steps");
    is_int(m->ttft.count, 2, "two had a first token");
    is_int(m->itl.count, 6, "six had one before");
    is_int(m->queue.count, 3, "three were started");
    is_int(m->e2e.count, 3, "three ended");
    is_int(m->tpot.count, 1, "one had more than one token");
    ok(pages_are_free(s), "all pages are free");
    serve_close(s);
    drop(&a);
    drop(&b);
    drop(&d);
}

static void stops(void)
{
    struct serve_conf c = usual();
    struct req r, again;
    struct serve *s = open_serve(&c);
    struct err e;

    make(&r, 10, 40);
    make(&again, 10, 40);
    memcpy(again.tok, r.tok, 10 * sizeof(int32_t));
    serve_submit(s, &r, &e);
    while (serve_once(s, &e))
        ;

    again.n_stop_id = 1;
    again.stop_id[0] = r.tok[10 + 6];
    serve_submit(s, &again, &e);
    while (serve_once(s, &e))
        ;
    is_int(fin_of(&again), FIN_STOP, "a stop id ends it");
    is_int(again.stop_at, r.tok[16], "it is named");
    ok(atomic_load(&again.n_pub) <= 6, "and not published");
    ok(memcmp(again.tok, r.tok, (10 + (size_t) again.n_pub) * sizeof(int32_t)) == 0,
       "what comes before it is");

    again.min_new = 40;
    serve_submit(s, &again, &e);
    while (serve_once(s, &e))
        ;
    is_int(fin_of(&again), FIN_LENGTH, "min_new keeps it going");
    is_int(atomic_load(&again.n_pub), 40, "to the end");
    serve_close(s);
    drop(&r);
    drop(&again);
}

static void failure(bool overlap)
{
    struct serve_conf c = usual();
    struct req r[20];
    struct serve *s;
    struct err e;
    int n = 0;

    c.overlap = overlap;
    s = open_serve(&c);
    fake.fail_at = 4;
    for (int i = 0; i < 20; i++) {
        make(&r[i], 5, 30);
        serve_submit(s, &r[i], &e);
    }
    is_int(serve_run(s, &e), E_GPU, "a lost step ends the core: %s", e.msg);
    for (int i = 0; i < 20; i++)
        n += fin_of(&r[i]) == FIN_ERROR;
    is_int(n, 20, "and every request, running or waiting");
    ok(pages_are_free(s), "no page is held");
    is_int(serve_submit(s, &r[0], &e), E_GONE, "no more are taken: %s", e.msg);
    serve_close(s);
    for (int i = 0; i < 20; i++)
        drop(&r[i]);
}

/* --- two owners and the core, each in a thread --- */

static sem_t kicked, woken[2];

static uint64_t no_time(void *arg) { (void) arg; return 1; }
static void sem_sleep(void *arg) { (void) arg; sem_wait(&kicked); }
static void sem_kick(void *arg) { (void) arg; sem_post(&kicked); }
static void sem_wake(void *arg, int port) { (void) arg; sem_post(&woken[port]); }

struct owner { struct serve *s; int port; uint64_t seed; bool right; };

static void *own(void *arg)
{
    struct owner *o = arg;
    uint64_t x = o->seed;
    struct req r[4];
    struct err e;

    o->right = true;
    for (int round = 0; round < 300; round++) {
        for (int i = 0; i < 4; i++) {
            int32_t n = 1 + (int32_t) ((x = mix(x, 7)) % 50);

            memset(&r[i], 0, sizeof(r[i]));
            req_alloc(&r[i], n, 20, 1);
            r[i].port = o->port;
            r[i].sample.top_p = 1;
            for (int32_t k = 0; k < n; k++)
                r[i].tok[k] = (int32_t) ((x = mix(x, 3)) % VOCAB);
            if (serve_submit(o->s, &r[i], &e) != 0)
                o->right = false;
        }
        serve_cancel(o->s, &r[x % 4]);
        for (int i = 0; i < 4; i++) {
            while (fin_of(&r[i]) == FIN_NONE)
                sem_wait(&woken[o->port]);
            if (fin_of(&r[i]) != FIN_CANCEL && !as_expected(&r[i]))
                o->right = false;
            drop(&r[i]);                 /* finish was the core's last touch */
        }
    }
    return NULL;
}

static void *run_core(void *arg)
{
    return serve_run(arg, NULL) == 0 ? NULL : arg;
}

static void threads(void)
{
    struct serve_conf c = usual();
    struct owner o[2];
    pthread_t core, t[2];
    void *rc;

    sem_init(&kicked, 0, 0);
    sem_init(&woken[0], 0, 0);
    sem_init(&woken[1], 0, 0);
    c.now_ns = no_time;
    c.sleep = sem_sleep;
    c.kick = sem_kick;
    c.wake = sem_wake;
    c.seq_max = 5;
    o[0] = (struct owner) { open_serve(&c), 0, 11, false };
    o[1] = (struct owner) { o[0].s, 1, 22, false };

    pthread_create(&core, NULL, run_core, o[0].s);
    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, own, &o[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    serve_stop(o[0].s);
    pthread_join(core, &rc);

    ok(o[0].right && o[1].right, "two owners, with cancels: every answer is right");
    ok(fake.wrong == NULL, "and every page");
    ok(rc == NULL, "serve_stop ends the core");
    ok(pages_are_free(o[0].s), "which holds nothing");
    serve_close(o[0].s);
}

int main(void)
{
    refusals();
    wake_and_count();
    stops();
    failure(false);
    failure(true);
    corrupt(false);
    corrupt(true);
    corrupt_behind();
    if (COUNTS_ALLOC)
        no_allocation();
    random_loads();
    threads();
    return done_testing();
}
