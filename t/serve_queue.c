/* serve_queue.c - who waits in the loop, for what and how long; who is refused; the pace that
 * prompts leave to answers. */
#include "fake_serve.h"
#include "rate.h"

/* --- who waits for another's prompt --- */

static void deferred(void)
{
    struct serve_conf c = usual();
    struct req r[3];
    struct serve *s;

    c.cache = true;
    c.seq_max = 2;
    s = open_serve(&c);
    make(&r[0], 100, 9);
    make(&r[1], 100, 9);
    memcpy(r[1].tok, r[0].tok, 100 * sizeof(int32_t));
    r[1].twin = &r[0];
    for (int i = 0; i < 2; i++)
        serve_submit(s, &r[i], NULL);
    serve_once(s, NULL);
    ok(serve_metrics(s)->waiting == 1 && serve_metrics(s)->deferred == 1,
       "the second answer to a prompt waits until it is computed");
    for (int i = 0; i < 4; i++)
        serve_once(s, NULL);
    ok(serve_metrics(s)->running == 2 && serve_metrics(s)->deferred == 0, "and no longer");
    make(&r[2], 10, 2);
    serve_submit(s, &r[2], NULL);
    serve_once(s, NULL);
    ok(serve_metrics(s)->waiting == 1 && serve_metrics(s)->deferred == 0, "a third has no room");
    while (serve_once(s, NULL))
        ;
    ok(as_expected(&r[0]) && as_expected(&r[1]) && as_expected(&r[2]), "all have their answers");
    ok(serve_metrics(s)->phase[PHASE_PLAN].count == serve_metrics(s)->steps
       && serve_metrics(s)->phase[PHASE_FORWARD].count == serve_metrics(s)->steps
       && serve_metrics(s)->phase[PHASE_OUTPUT].count == serve_metrics(s)->steps
       && serve_metrics(s)->phase[PHASE_FORWARD].sum_ns > 0, "each step has three phases");
    serve_close(s);
    for (int i = 0; i < 3; i++)
        drop(&r[i]);
}

/* --- limits of the queue --- */

enum { MS = 1000000 };

static bool near(uint64_t ns, double want_s)
{
    return (double) ns > want_s * 0.9e9 && (double) ns < want_s * 1.1e9;
}

static void pace_of_the_queue(void)
{
    struct rate r = { 0 };
    uint64_t t = 1000 * MS;

    is_int(rate_wait_ns(&r, 1000), 0, "nothing is known at first");
    for (int i = 0; i <= 30; i++)
        rate_note(&r, t += 100 * MS, true, 50);
    ok(near(rate_wait_ns(&r, 500), 1), "at 500 tokens a second 500 tokens take a second");
    ok(rate_shows(&r, 12000ull * MS) && !rate_shows(&r, 12001ull * MS),
       "after 3 s of a queue a wait of 12 s can be told, and no longer one");
    for (int i = 0; i < 600; i++)
        rate_note(&r, t += 100 * MS, true, 5);
    ok(rate_wait_ns(&r, 500) > 4000ull * MS, "a pace that falls is seen within a minute");
    rate_note(&r, t += 100 * MS, false, 50);
    ok(rate_wait_ns(&r, 500) == 0 && !rate_shows(&r, 0), "without a queue nothing is known");

    /* for a minute there is somebody in the queue at every 20th step, and then always */
    for (int i = 0; i < 600; i++)
        rate_note(&r, t += 100 * MS, i % 20 == 0, 50);
    for (int i = 0; i <= 30; i++)
        rate_note(&r, t += 100 * MS, true, 50);
    ok(near(rate_wait_ns(&r, 500), 1), "a queue that comes and goes does not make it look quicker");

    r = (struct rate) { 0 };
    rate_note(&r, t, true, 64 * 20);
    rate_note(&r, t += 10000ull * MS, true, 20);
    ok(rate_wait_ns(&r, 65 * 20) < 15000ull * MS, "one that came in late is not all of a wave");
    is_int(rate_retry_ms(1), RETRY_MS_MIN, "nobody is told to come back at once");
    is_int(rate_retry_ms(UINT64_MAX), RETRY_MS_MAX, "or in an hour");
}

static uint64_t still(void *arg)
{
    (void) arg;
    return ticks;
}

/* 32 run, whose answers take 3 s but for a few short ones. Then 150 come, of whom nginx lets in as
 * many as make 80 with those who run: nobody waits for 16 s. A first short answer lets in one of 48
 * after a moment, which is no reason to refuse the others. */
static void crowd(void)
{
    enum { SLOTS = 32, IN = 80, N = SLOTS + 150 };
    struct serve_conf c = usual();
    struct req r[N];
    struct serve *s;
    uint64_t longest = 0;
    int n = 0, refused = 0, done;

    c.now_ns = still;
    c.wait_max_ns = 16000ull * MS;
    c.seq_max = SLOTS;
    c.step_tok_max = 64;
    c.kv = (struct kv_shape) { 16, 400, 400 };
    s = open_serve(&c);
    for (int i = 0; i < N; i++)
        make(&r[i], 4, i % 10 == 3 ? 40 : 100);
    do {
        done = 0;
        for (int i = 0; i < n; i++)
            done += fin_of(&r[i]) != FIN_NONE;
        for (int most = n < SLOTS ? n + 1 : IN + done; n < most && n < N; n++)
            serve_submit(s, &r[n], NULL);
        ticks += 30 * MS;
    } while (serve_once(s, NULL));
    for (int i = 0; i < N; i++) {
        refused += fin_of(&r[i]) == FIN_BUSY;
        if (r[i].started && r[i].start_ns - r[i].submit_ns > longest)
            longest = r[i].start_ns - r[i].submit_ns;
        drop(&r[i]);
    }
    ok(n == N && longest > 2000ull * MS && longest < c.wait_max_ns, "a crowd waits for %d ms at"
       " most", (int) (longest / MS));
    is_int(refused, 0, "and nobody of it is refused");
    serve_close(s);
}

/* One key has all slots for long answers to short prompts, and as many that wait as may: the queue
 * moves by next to nothing. Who has nobody in it comes in nonetheless, in the place of one of its
 * answers. */
static void one_key_has_all(void)
{
    enum { SLOTS = 8, N = 60 };
    struct serve_conf c = usual();
    struct req r[N], other;
    struct serve *s;

    c.now_ns = still;
    c.wait_max_ns = 60000ull * MS;
    c.queue_tok_max = (N - SLOTS) * 50 + 20;
    c.kv = (struct kv_shape) { 16, 400, 400 };
    s = open_serve(&c);
    for (int i = 0; i < N; i++) {
        make(&r[i], i < SLOTS ? 2 : 50, 100);
        r[i].tenant = 1;
        serve_submit(s, &r[i], NULL);
    }
    make(&other, 60, 2);
    other.tenant = 2;
    for (int i = 0; i < 60; i++, ticks += 500 * MS)
        serve_once(s, NULL);
    ok(serve_metrics(s)->running == SLOTS && serve_metrics(s)->waiting == N - SLOTS,
       "for 30 s one key has all there is");
    serve_submit(s, &other, NULL);
    for (int i = 0; i < 6; i++, ticks += 500 * MS)
        serve_once(s, NULL);
    ok(as_expected(&other), "another is served at once: %d", fin_of(&other));
    for (int i = 0; i < N; i++)
        serve_cancel(s, &r[i]);
    while (serve_once(s, NULL))
        ;
    serve_close(s);
    for (int i = 0; i < N; i++)
        drop(&r[i]);
    drop(&other);
}

static void quota(void)
{
    struct serve_conf c = usual();
    struct req r[6];
    struct serve *s;
    struct err e;

    c.tenant_max = 2;
    s = open_serve(&c);
    for (int i = 0; i < 6; i++) {
        make(&r[i], 5, 3);
        r[i].tenant = i < 4 ? 1 : 2;
        serve_submit(s, &r[i], &e);
    }
    while (serve_once(s, &e))
        ;
    ok(as_expected(&r[0]) && as_expected(&r[1]), "two of a tenant are served");
    ok(fin_of(&r[2]) == FIN_QUOTA && fin_of(&r[3]) == FIN_QUOTA, "two more are not");
    ok(r[2].retry_ms >= 100 && r[2].retry_ms <= 120000, "and are told to come back in %d ms",
       r[2].retry_ms);
    ok(as_expected(&r[4]) && as_expected(&r[5]), "another tenant is not concerned");
    is_int(serve_metrics(s)->refused_quota, 2, "both are counted");
    is_int(serve_submit(s, &r[2], &e), 0, "later");
    while (serve_once(s, &e))
        ;
    ok(as_expected(&r[2]), "it is served");
    serve_close(s);
    for (int i = 0; i < 6; i++)
        drop(&r[i]);
}

/* Every pass takes some ticks of 1 ms; requests of 64 prompt tokens at 32 tokens a step. */
static void long_queue(void)
{
    enum { N = 60 };
    struct serve_conf c = usual();
    struct req r[N];
    struct serve *s;
    struct err e;
    int n = 0, retry = 0;

    c.wait_max_ns = 40 * 1000000ull;
    s = open_serve(&c);
    for (int i = 0; i < N; i++) {
        make(&r[i], 64, 2);
        r[i].tenant = i < N - 1;
    }
    for (int i = 0; i < 30; i++)
        serve_submit(s, &r[i], &e);
    for (int i = 0; i < 10; i++)
        serve_once(s, &e);
    for (int i = 30; i < N; i++)
        serve_submit(s, &r[i], &e);
    serve_once(s, &e);
    for (int i = 30; i < N - 1; i++) {
        n += fin_of(&r[i]) == FIN_BUSY;
        retry = r[i].retry_ms > retry ? r[i].retry_ms : retry;
    }
    ok(n > 20, "%d of 29 that would have waited longer than 40 ms are told at once", n);
    ok(retry >= 100, "to come back in at most %d ms", retry);
    is_int(fin_of(&r[N - 1]), FIN_NONE, "the first of another tenant is not among them");
    while (serve_once(s, &e))
        ;
    ok(as_expected(&r[N - 1]) && pages_are_free(s), "and is served");
    serve_close(s);

    c = usual();
    c.queue_tok_max = 200;
    c.seq_max = 1;
    s = open_serve(&c);
    for (int i = 0; i < 8; i++)
        serve_submit(s, &r[i], &e);
    serve_once(s, &e);
    n = 0;
    for (int i = 0; i < 8; i++)
        n += fin_of(&r[i]) == FIN_BUSY;
    is_int(n, 5, "of 8 prompts of 64 tokens 3 may wait where 200 tokens may");
    serve_close(s);
    for (int i = 0; i < N; i++)
        drop(&r[i]);
}

/* What waited for nobody must not make the next one wait, and what was preempted is counted once.
 */
static void idle_engine(void)
{
    enum { N = 40 };
    struct serve_conf c = usual();
    struct req r[N];
    struct serve *s;
    struct err e;
    int n = 0;

    c.wait_max_ns = 60 * 1000000000ull;
    c.cache = c.overlap = true;
    c.kv = (struct kv_shape) { 4, 40, 40 };
    s = open_serve(&c);
    fake.late = true;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < N; i++) {
            make(&r[i], 8, 100);
            serve_submit(s, &r[i], &e);
        }
        while (serve_once(s, &e))
            ;
        for (int i = 0; i < N; i++) {
            n += fin_of(&r[i]) == FIN_BUSY;
            drop(&r[i]);
        }
        ticks += 200 * 1000000000ull;
    }
    is_int(n, 0, "bursts after minutes of idleness are taken");
    ok(serve_metrics(s)->preempted > 20, "though %lu were preempted",
       (unsigned long) serve_metrics(s)->preempted);
    is_int(serve_metrics(s)->waiting_tok, 0, "no token is thought to wait");
    serve_close(s);
}

static void salts(void)
{
    struct serve_conf c = usual();
    struct req r;
    struct serve *s;
    struct err e;

    c.cache = true;
    s = open_serve(&c);
    make(&r, 60, 3);
    for (int i = 0; i < 4; i++) {
        r.n_salt = i < 2 ? 0 : 3;
        memcpy(r.salt, "abc", 3);
        serve_submit(s, &r, &e);
        while (serve_once(s, &e))
            ;
        is_int(r.n_cached, i % 2 == 0 ? 0 : 56, "%s salt, %s time: %d tokens cached",
               i < 2 ? "no" : "with a", i % 2 == 0 ? "first" : "second", r.n_cached);
    }
    serve_reset_cache(s);
    serve_once(s, &e);
    is_int(serve_metrics(s)->points, 0, "a reset forgets them");
    r.n_salt = REQ_SALT_MAX + 1;
    is_int(serve_submit(s, &r, &e), E_INVALID, "a salt too long: %s", e.msg);
    serve_close(s);
    drop(&r);
}

/* A step of n tokens takes n ms: with a target of 12 ms beside 4 decodes prompts get 8 tokens of
 * it. */
static uint64_t tok_ticks(void *arg)
{
    (void) arg;
    return (uint64_t) fake.n_tok * 1000000;
}

static void itl_target(void)
{
    struct serve_conf c = usual();
    struct req r[5];
    struct serve *s;
    struct err e;
    int before, most = 0;

    c.now_ns = tok_ticks;
    c.itl_target_ns = 12 * 1000000;
    c.kv.page_tok = 2;
    s = open_serve(&c);
    for (int i = 0; i < 4; i++) {
        make(&r[i], 3, 140);
        serve_submit(s, &r[i], &e);
    }
    make(&r[4], 140, 1);
    for (int i = 0; i < 20; i++)
        serve_once(s, &e);
    serve_submit(s, &r[4], &e);
    for (int i = 0; i < 12; i++) {
        before = fake.n_tok;
        serve_once(s, &e);
        if (i > 3 && fake.n_tok - before > most)
            most = fake.n_tok - before;
    }
    ok(most >= 8 && most <= 13, "a step beside a long prompt has %d tokens, not 32", most);
    while (serve_once(s, &e))
        ;
    ok(as_expected(&r[4]), "and the prompt is done nonetheless");
    drop(&r[4]);
    make(&r[4], 140, 1);
    serve_submit(s, &r[4], &e);
    for (before = fake.n_tok, most = 0; serve_once(s, &e); before = fake.n_tok)
        most = fake.n_tok - before > most ? fake.n_tok - before : most;
    is_int(most, 32, "alone it has whole steps");
    serve_close(s);
    for (int i = 0; i < 5; i++)
        drop(&r[i]);
}

/* A crowd's decodes took longer than the target. It is gone, and a prompt beside one answer finds
 * its pace by itself, though no step without prompts shows that decodes are quick again. */
static void itl_after_crowd(void)
{
    enum { N = 20 };
    struct serve_conf c = usual();
    struct req r[N + 2];
    struct serve *s;
    int n = 0;

    c.now_ns = tok_ticks;
    c.itl_target_ns = 12 * 1000000;
    c.seq_max = N;
    c.kv = (struct kv_shape) { 4, 400, 400 };
    s = open_serve(&c);
    for (int i = 0; i < N; i++) {
        make(&r[i], 3, 30);
        serve_submit(s, &r[i], NULL);
    }
    while (serve_once(s, NULL))
        ;
    make(&r[N], 3, 60);
    make(&r[N + 1], 140, 1);
    for (int i = N; i < N + 2; i++)
        serve_submit(s, &r[i], NULL);
    for (; fin_of(&r[N + 1]) == FIN_NONE; n++)
        serve_once(s, NULL);
    ok(n <= 24 && fin_of(&r[N]) == FIN_NONE, "after a crowd a prompt of 140 tokens beside an"
       " answer is through in %d steps", n);
    serve_close(s);
    for (int i = 0; i < N + 2; i++)
        drop(&r[i]);
}

int main(void)
{
    deferred();
    pace_of_the_queue();
    crowd();
    one_key_has_all();
    quota();
    long_queue();
    idle_engine();
    salts();
    itl_target();
    itl_after_crowd();
    return done_testing();
}
