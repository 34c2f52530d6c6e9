/* fake_serve.h - a loop over the model of fake_model.h, and requests for it. */
#ifndef T_FAKE_SERVE_H
#define T_FAKE_SERVE_H

#include "fake_expect.h"

static struct model fake;
static uint64_t rng = 1, ticks;
static int wakes[SERVE_PORT_MAX];

static int32_t rnd(int32_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (int32_t) (rng % (uint64_t) n);
}

static uint64_t tick(void *arg) { (void) arg; return ticks += 1000000; }
static void wake(void *arg, int port) { (void) arg; wakes[port]++; }
static void nothing(void *arg) { (void) arg; }

static struct serve *open_serve(struct serve_conf *c)
{
    struct serve *s;
    struct err e;

    memset(&fake, 0, sizeof(fake));
    memset(wakes, 0, sizeof(wakes));
    fake.c.vocab = VOCAB;
    fake.c.window = 13;
    fake.kv = c->kv;
    c->now_ns = c->now_ns != NULL ? c->now_ns : tick;
    c->wake = c->wake != NULL ? c->wake : wake;
    c->sleep = c->sleep != NULL ? c->sleep : nothing;
    c->kick = c->kick != NULL ? c->kick : nothing;
    if (serve_open(&s, &fake, c, &e) != 0) {
        printf("Bail out! %s\n", e.msg);
        exit(1);
    }
    return s;
}

static struct serve_conf usual(void)
{
    return (struct serve_conf) {
        .seq_max = 8, .step_tok_max = 32, .model_len_max = LEN_MAX, .queue_max = 100, .n_port = 2,
        .kv = { 4, 200, 200 },
    };
}

static void make(struct req *r, int32_t n_prompt, int32_t max_new)
{
    memset(r, 0, sizeof(*r));
    if (req_alloc(r, n_prompt, max_new, 1) != 0)     /* keys for pages of any size */
        exit(1);
    r->sample.top_p = 1;
    for (int32_t i = 0; i < n_prompt; i++)
        r->tok[i] = rnd(VOCAB);
}

static void drop(struct req *r)
{
    req_free(r);
    free(r->lp.p);
    free(r->prompt_lp.p);
    free(r->last_logits);
}

static int fin_of(struct req *r)
{
    return atomic_load_explicit(&r->finish, memory_order_acquire);
}

static bool as_expected(struct req *r)
{
    int32_t want[LEN_MAX], n;
    enum req_finish fin;

    n = expect(r, want, &fin);
    if (fin_of(r) != (int) fin || atomic_load(&r->n_pub) != n
        || memcmp(want, r->tok + r->n_prompt, (size_t) n * sizeof(int32_t)) != 0)
        return false;
    for (int32_t p = 0; r->prompt_lp.p != NULL && p < r->n_prompt - 1; p++) {
        uint64_t h = 1;

        for (int32_t q = 0; q <= p; q++)
            h = mix(h, (uint64_t) r->tok[q]);
        if (r->prompt_lp.p[p] != logprob(h, r->tok[p + 1]))
            return false;
    }
    for (int32_t v = 0; r->last_logits != NULL && v < VOCAB; v++) {
        uint64_t h = 1;

        for (int32_t q = 0; q < r->n_prompt; q++)
            h = mix(h, (uint64_t) r->tok[q]);
        if (r->last_logits[v] != logprob(h, v))
            return false;
    }
    return true;
}

static bool pages_are_free(struct serve *s)
{
    const struct metrics *m = serve_metrics(s);

    return m->pages_full_used == 0 && m->pages_sliding_used == 0 && m->running == 0
           && m->waiting == 0;
}

#endif
