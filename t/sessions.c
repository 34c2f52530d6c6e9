/* sessions.c - the prefix cache under chats: many sessions, a common system prompt, one turn at a
 * time. What was hit is compared with an oracle that has the same memory and knows the future
 * (Belady: who is needed last goes first). Prints the curve of hit rate against occupancy. */
#include <stdlib.h>

#include "scheduler.h"
#include "tap.h"

#define SESSION_MAX  128
#define N_TURN       20
#define SYSTEM       2000
#define PAGE         16
#define WINDOW       1024        /* the 26B's */
#define STEP         2048
#define LEN_MAX      12288
#define VOCAB        1000

static uint64_t rng;

static int32_t rnd(int32_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (int32_t) (rng % (uint64_t) n);
}

struct session {
    int32_t tok[LEN_MAX], n, turn;
    int32_t same;                                /* tokens that the next prompt will begin with */
};

struct memory { int32_t full, sliding; };        /* pages */

struct tally { int64_t prompt, hit, oracle, most; };
struct way { bool shuffled, thinks; };

struct chat {
    bool            thinks;                      /* half of an answer does not come back */
    struct session *s;                           /* [n_session] */
    int32_t         n_session;
    int32_t        *order, n_order;              /* whose turn it is; all turns of all sessions */
    struct memory   memory;
};

/* A session at its end: system prompt, 20 times a question and an answer. */
static int32_t question(void) { return 60 + rnd(180); }
static int32_t answer(void) { return 50 + rnd(150); }
#define GROWN (SYSTEM + N_TURN * (150 + 125))

/* Room for n grown sessions: all their tokens, the common ones once, and for each the window at the
 * end of its last prompt and answer; and beside that for the window of the common ones and for one
 * that runs. */
static struct memory memory_for(int32_t n)
{
    int32_t window = (WINDOW + 200) / PAGE;

    return (struct memory) {
        .full = (SYSTEM + n * (GROWN - SYSTEM) + GROWN) / PAGE + 2 * n,
        .sliding = n * window + (WINDOW + STEP) / PAGE + 2 + window,
    };
}

static void make_order(struct chat *c, bool shuffled)
{
    c->n_order = c->n_session * N_TURN;
    c->order = malloc((size_t) c->n_order * sizeof(int32_t));
    for (int32_t i = 0; i < c->n_order; i++)
        c->order[i] = i % c->n_session;
    for (int32_t i = c->n_order - 1; shuffled && i > 0; i--) {
        int32_t k = rnd(i + 1), t = c->order[i];

        c->order[i] = c->order[k];
        c->order[k] = t;
    }
}

static void say(struct session *s, int32_t n)
{
    while (n-- > 0)
        s->tok[s->n++] = rnd(VOCAB);
}

static int32_t whole(int32_t n_tok)
{
    return n_tok / PAGE * PAGE;
}

/* --- the real thing --- */

struct engine { struct kv *kv; struct sched s; };

static struct engine bring_up(struct memory m)
{
    struct kv_conf c = {
        .shape = { PAGE, m.full, m.sliding }, .window = WINDOW, .step_tok_max = STEP, .seq_max = 4,
        .page_max = LEN_MAX / PAGE, .cache = true, .key = { 3, 4 }, .hash_mask = ~0ull,
    };
    struct engine en;
    struct err e;

    if (kv_open(&en.kv, &c, &e) != 0 || sched_open(&en.s, en.kv, STEP, 4, &e) != 0)
        exit(1);
    return en;
}

/* One turn: what was asked is computed, an answer is made, both stay in the session, but for the
 * thoughts. */
static int32_t run_turn(struct engine *en, struct session *s, int32_t n_answer, int32_t n_thought)
{
    struct req r = { 0 };
    int32_t cached = -1;

    req_alloc(&r, s->n, n_answer, PAGE);
    memcpy(r.tok, s->tok, (size_t) s->n * sizeof(int32_t));
    kv_keys(en->kv, &r);
    sched_add(&en->s, &r);
    while (r.n_known < s->n + n_answer) {
        sched_plan(&en->s);
        if (cached < 0)
            cached = r.seq.n_tok - en->s.plan.item[0].n;
        if (en->s.plan.item[0].samples)
            r.tok[r.n_known++] = rnd(VOCAB);
    }
    sched_remove(&en->s, &r);
    memcpy(s->tok + s->n, r.tok + s->n + n_thought,
           (size_t) (n_answer - n_thought) * sizeof(int32_t));
    s->n += n_answer - n_thought;
    req_free(&r);
    return cached;
}

/* --- the oracle --- */

struct oracle { struct memory left; bool kept[SESSION_MAX]; int32_t size[SESSION_MAX]; };

static int32_t next_use(const struct chat *c, int32_t from, int32_t who)
{
    for (int32_t i = from; i < c->n_order; i++)
        if (c->order[i] == who)
            return i;
    return c->n_order + who;
}

static void oracle_keep(struct oracle *o, const struct chat *c, int32_t now, int32_t who)
{
    int32_t window = (WINDOW + 200) / PAGE;

    if (o->kept[who]) {
        o->left.full += o->size[who];
        o->left.sliding += window;
    }
    o->kept[who] = true;
    o->size[who] = (c->s[who].n - SYSTEM) / PAGE;
    o->left.full -= o->size[who];
    o->left.sliding -= window;

    while (o->left.full < 0 || o->left.sliding < 0) {
        int32_t last = -1, at = -1;

        for (int32_t i = 0; i < c->n_session; i++)
            if (o->kept[i] && next_use(c, now + 1, i) > at) {
                at = next_use(c, now + 1, i);
                last = i;
            }
        o->kept[last] = false;
        o->left.full += o->size[last];
        o->left.sliding += window;
    }
}

/* --- both --- */

static struct tally chat(int32_t n_session, struct memory m, struct way way)
{
    struct chat c = { .thinks = way.thinks, .n_session = n_session, .memory = m };
    struct oracle o = { .left = { m.full - (SYSTEM + GROWN) / PAGE,
                                  m.sliding - (2 * WINDOW + STEP + 200) / PAGE - 2 } };
    struct engine en = bring_up(m);
    struct tally t = { 0 };

    rng = 88172645463325252ull;
    c.s = calloc((size_t) n_session, sizeof(*c.s));
    say(&c.s[0], SYSTEM);
    for (int32_t i = 1; i < n_session; i++) {
        memcpy(c.s[i].tok, c.s[0].tok, SYSTEM * sizeof(int32_t));
        c.s[i].n = SYSTEM;
    }
    make_order(&c, way.shuffled);

    for (int32_t i = 0; i < c.n_order; i++) {
        struct session *s = &c.s[c.order[i]];
        int32_t before = s->same, known = i == 0 ? 0 : SYSTEM, n_answer;

        say(s, question());
        n_answer = answer();
        t.prompt += s->n;
        t.most += whole(s->turn > 0 ? before : known);
        t.oracle += whole(o.kept[c.order[i]] ? before : known);
        s->same = c.thinks ? s->n : s->n + n_answer;
        t.hit += run_turn(&en, s, n_answer, c.thinks ? n_answer / 2 : 0);
        s->turn++;
        oracle_keep(&o, &c, i, c.order[i]);
    }

    sched_close(&en.s);
    kv_close(en.kv);
    free(c.order);
    free(c.s);
    return t;
}

static double share(int64_t a, int64_t b)
{
    return 100.0 * (double) a / (double) b;
}

static void against_the_oracle(struct way way)
{
    struct tally t = chat(64, memory_for(40), way);

    ok(10 * t.hit >= 9 * t.oracle, "64 sessions, memory for 40, turns %s, %s: %.1f %% of what the"
       " oracle hits", way.shuffled ? "at random" : "in rotation",
       way.thinks ? "thoughts taken out" : "answers kept", share(t.hit, t.oracle));
    printf("# %lld prompt tokens: hit %.1f %%, oracle %.1f %%, endless memory %.1f %%\n",
           (long long) t.prompt, share(t.hit, t.prompt), share(t.oracle, t.prompt),
           share(t.most, t.prompt));
}

static void curve(void)
{
    bool good = true;

    printf("# occupancy   hit, of what endless memory would hit\n");
    for (int32_t n = 4; n <= 40; n += 4) {
        struct tally t = chat(n, memory_for(40), (struct way) { .shuffled = true });

        printf("# %8d %%   %.1f %%\n", n * 100 / 40, share(t.hit, t.most));
        good = good && 10 * t.hit >= 9 * t.most;
    }
    ok(good, "above 90 %% until the memory is full");
}

int main(void)
{
    against_the_oracle((struct way) { .shuffled = true });
    against_the_oracle((struct way) { .shuffled = false });
    against_the_oracle((struct way) { .shuffled = true, .thinks = true });
    against_the_oracle((struct way) { .shuffled = false, .thinks = true });
    curve();
    return done_testing();
}
