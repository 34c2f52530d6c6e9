/* serve.c - the loop, over a model of our own that is linked in place of the real one.
 *
 * It keeps each token and its position in the pages that it is told to, and what it samples is a
 * hash of all tokens that it finds through the page tables. So an answer is right only if every
 * page was, and an answer must be the same alone, in chunks and among others. */
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

#include "count_alloc.h"
#include "rate.h"
#include "sample.h"
#include "serve.h"
#include "tap.h"

#define VOCAB     97
#define EOS       5
#define PAGE_CAP  600
#define TOK_CAP   32             /* of one page */
#define LEN_MAX   150

struct model {
    struct model_conf c;
    struct kv_shape   kv;
    int32_t full[PAGE_CAP][TOK_CAP][2], sliding[PAGE_CAP][TOK_CAP][2];    /* id, position */
    int     n_step, n_tok, fail_at;
    int32_t poison;              /* whoever has seen this id gets no token; 0: none */
    const char *wrong;
    struct { struct batch *b; struct step_out *o; struct err e; bool done; }
            flight[MODEL_FLIGHT_MAX];    /* the first n_flight are under way */
    int     n_flight;
    bool    late;                /* a step runs when it is waited for, else at its launch */
    const int32_t *sampled;      /* by the step before */
};

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

static int32_t draw(uint64_t h, const struct sample *s, int32_t pos, bool ban)
{
    int32_t id;

    if (s->temperature > 0)
        h = mix(mix(h, s->seed), (uint64_t) pos);
    id = (int32_t) (h % VOCAB);
    return ban && id == EOS ? EOS + 1 : id;
}

/* What bends a row, as far as this model shows it: each thing leaves its trace in the id. */
static int32_t draw_bent(uint64_t h, const struct sample *s, int32_t pos, bool ban,
                         const int32_t *words, const int32_t *tail)
{
    struct steer_lists l = steer_of(words, VOCAB);
    int32_t id;

    if (l.h->force >= 0)
        return l.h->force;
    for (int32_t i = 0; l.h->presence != 0 && i < steer_n_past(&l); i++)
        h = mix(h, (uint64_t) steer_past(&l, tail, i));
    id = draw(h, s, pos, ban);
    for (int32_t i = 0; i < 2 * VOCAB; i++) {
        bool out = l.h->has_allow && !sample_in(l.allow, id);

        for (int32_t k = 0; k < l.h->n_stop; k++)
            out = out || l.stop[k] == id;
        id = out ? (id + 1) % VOCAB : id;
    }
    return id;
}

static float logprob(uint64_t h, int32_t target)
{
    return -(float) (mix(h, (uint64_t) target) % 1000);
}

const struct model_conf *model_config(const struct model *m)
{
    return &m->c;
}

static uint64_t look(struct model *m, const struct batch *b, int32_t t, bool *poisoned)
{
    const int32_t *full = b->page_full + b->seq[t] * b->page_max;
    const int32_t *sliding = b->page_sliding + b->seq[t] * b->page_max;
    int32_t pt = m->kv.page_tok;
    uint64_t h = 1;

    for (int32_t p = 0; p <= b->pos[t]; p++) {
        const int32_t *f = m->full[full[p / pt]][p % pt];

        if (f[1] != p)
            m->wrong = "a full page holds something else";
        h = mix(h, (uint64_t) f[0]);
        *poisoned = *poisoned || (m->poison != 0 && f[0] == m->poison);
        if (p <= b->pos[t] - m->c.window)
            continue;
        if (sliding[p / pt] < 0 || m->sliding[sliding[p / pt]][p % pt][1] != p
            || m->sliding[sliding[p / pt]][p % pt][0] != f[0])
            m->wrong = "a sliding page of the window holds something else";
    }
    return h;
}

static int step(struct model *m, struct batch *b, struct step_out *o, struct err *e)
{
    int32_t pt = m->kv.page_tok;

    if (m->fail_at != 0 && ++m->n_step >= m->fail_at)
        return err_set(e, E_GPU, "the device is lost");

    m->n_tok += b->n_tok;
    for (int32_t i = 0; i < b->n_copy; i++) {
        const struct page_copy *c = &b->copy[i];

        memcpy(m->full[c->full_to], m->full[c->full_from], sizeof(m->full[0]));
        memcpy(m->sliding[c->sliding_to], m->sliding[c->sliding_from], sizeof(m->sliding[0]));
    }

    for (int32_t t = 0; t < b->n_tok; t++) {
        int32_t at = b->seq[t] * b->page_max + b->pos[t] / pt;
        int32_t *f = m->full[b->page_full[at]][b->pos[t] % pt];
        int32_t *s = m->sliding[b->page_sliding[at]][b->pos[t] % pt];

        if (b->from != NULL && b->from[t] >= 0)
            b->tok[t] = m->sampled[b->from[t]] >= 0 ? m->sampled[b->from[t]] : 0;
        if (b->tok[t] < 0 || b->tok[t] >= VOCAB)
            m->wrong = "an id that is not known";
        if (t > 0 && b->seq[t] == b->seq[t - 1] && b->pos[t] != b->pos[t - 1] + 1)
            m->wrong = "tokens out of order";
        if (b->seq[t] < 0 || b->seq[t] >= b->n_seq)
            m->wrong = "a token of no sequence";
        f[0] = s[0] = b->tok[t];
        f[1] = s[1] = b->pos[t];
    }

    for (int32_t i = 0; i < b->n_out; i++) {
        int32_t t = b->out_row[i];
        bool poisoned = false;
        uint64_t h = look(m, b, t, &poisoned);

        bool ban = b->ban_eos != NULL && b->ban_eos[i];

        o->tok[i] = b->steer_at == NULL || b->steer_at[i] < 0
                    ? draw(h, &b->sample[i], b->pos[t], ban)
                    : draw_bent(h, &b->sample[i], b->pos[t], ban, b->steer + b->steer_at[i],
                                b->tok + t);
        if (b->n_top != NULL && b->n_top[i] >= 0)
            o->lp[i * (1 + MODEL_TOP_MAX)] = logprob(h, b->target != NULL && b->target[i] >= 0
                                                        ? b->target[i] : o->tok[i]);
        for (int v = 0; o->logits != NULL && o->logits[i] != NULL && v < VOCAB; v++)
            o->logits[i][v] = logprob(h, v);
        if (poisoned)
            o->tok[i] = -1;
    }
    m->sampled = o->tok;
    return 0;
}

static void run_flight(struct model *m, int i)
{
    if (!m->flight[i].done) {
        m->flight[i].done = true;
        m->flight[i].e.code = 0;
        step(m, m->flight[i].b, m->flight[i].o, &m->flight[i].e);
    }
}

void model_launch(struct model *m, struct batch *b, struct step_out *o)
{
    int i = m->n_flight++;

    m->flight[i].b = b;
    m->flight[i].o = o;
    m->flight[i].done = false;
    if (!m->late)
        run_flight(m, i);
}

int model_wait(struct model *m, struct err *e)
{
    if (m->n_flight == 0)
        m->wrong = "nothing to wait for";
    run_flight(m, 0);
    *e = m->flight[0].e;
    m->flight[0] = m->flight[1];
    m->n_flight--;
    return e->code;
}

/* --- the definition: one request by itself, straight from its text --- */

/* A guide without a memory: some ids are forced, some masked, and in the end it lets go. */
static int32_t guide(void *arg, const int32_t *gen, int32_t n_gen, uint32_t *mask)
{
    int32_t sum = *(const int32_t *) arg;

    for (int32_t i = 0; i < n_gen; i++)
        sum += gen[i];
    if (n_gen >= 25)
        return GUIDE_OFF;
    if (n_gen % 3 == 0)
        return GUIDE_ANY;
    if (n_gen % 3 == 1)
        return sum % VOCAB;
    for (int32_t id = sum % 5; id < VOCAB; id += 5)
        mask[id / 32] |= 1u << id % 32;
    return GUIDE_MASK;
}

/* The id that a budget of thoughts wants after out[0 .. n), or -1. */
static int32_t budget_wants(const struct req *r, const int32_t *out, int32_t n)
{
    const struct req_think *t = r->think;
    int32_t since = t->inside ? t->n_free : -1, counted = 0, closed = 0;

    for (int32_t i = 0; i <= n; i++) {
        bool due = i >= r->n_force && since >= t->n_free && counted >= t->budget;

        if (i == n)
            return due ? t->close[closed] : -1;
        if (due) {
            since = ++closed == t->n_close ? -1 : since;
        } else if (since < 0) {
            since = out[i] == t->open ? 0 : -1;
            closed = 0;
        } else if (out[i] == t->close[t->n_close - 1]) {
            since = -1;
        } else {
            counted += since++ >= t->n_free;
        }
    }
    return -1;
}

/* The next id after out[0 .. n), whose text's hash is h. */
static int32_t expect_next(const struct req *r, uint64_t h, const int32_t *out, int32_t n)
{
    uint32_t mask[VOCAB / 32 + 1] = { 0 };
    int32_t id = r->think != NULL ? budget_wants(r, out, n) : -1, says = GUIDE_ANY;
    bool ban = n < r->min_new;

    if (n < r->n_force)
        return r->force[n];
    if (id >= 0)
        return id;
    if (r->guide != NULL)
        says = r->guide(r->guide_arg, out, n, mask);
    if (says >= 0)
        return says;
    for (int32_t i = 0; r->steer != NULL && r->steer->presence != 0 && i < n; i++)
        h = mix(h, (uint64_t) out[i]);
    id = draw(h, &r->sample, r->n_prompt + n - 1, ban);
    for (int32_t i = 0; i < 2 * VOCAB; i++) {
        bool no = says == GUIDE_MASK && (mask[id / 32] >> id % 32 & 1) == 0;

        no = no || (r->steer != NULL && r->steer->allow != NULL
                    && (r->steer->allow[id / 32] >> id % 32 & 1) == 0);
        for (int32_t k = 0; ban && k < r->n_stop_id; k++)
            no = no || r->stop_id[k] == id;
        id = no ? (id + 1) % VOCAB : id;
    }
    return id;
}

static int32_t expect(const struct req *r, int32_t *out, enum req_finish *fin)
{
    int32_t all[2 * LEN_MAX], n = 0;

    memcpy(all, r->tok, (size_t) r->n_prompt * sizeof(int32_t));
    *fin = FIN_LENGTH;
    while (n < r->max_new) {
        int32_t len = r->n_prompt + n, id;
        uint64_t h = 1;

        for (int32_t p = 0; p < len; p++)
            h = mix(h, (uint64_t) all[p]);
        id = expect_next(r, h, out, n);
        if (r->lp.p != NULL && r->lp.p[2 * n] != logprob(h, id))
            return -1;
        for (int32_t i = 0; i < r->n_stop_id && n >= r->min_new; i++)
            if (r->stop_id[i] == id)
                *fin = FIN_STOP;
        if (*fin == FIN_STOP)
            break;
        out[n++] = all[len] = id;
    }
    return n;
}

/* --- the fixture --- */

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

/* --- limits of the queue --- */

static void pace_of_the_queue(void)
{
    struct rate r = { 0 };
    uint64_t t = 1000000000u;

    is_int(rate_wait_ns(&r, 1000), 0, "nothing is known at first");
    for (int i = 0; i <= 20; i++)
        rate_note(&r, t += 100000000, i > 0, 50);
    ok(rate_wait_ns(&r, 500) > 900000000u && rate_wait_ns(&r, 500) < 1100000000u,
       "at 500 tokens a second 500 tokens take a second");
    rate_note(&r, t += 100000000, false, 50);
    rate_note(&r, t += 5000000000u, false, 0);
    ok(rate_wait_ns(&r, 500) < 600000000u, "after 5 s without a queue it is thought to be faster");
    rate_note(&r, t += 10000000000u, false, 0);
    is_int(rate_wait_ns(&r, 500), 0, "after 10 s nothing is known");
    is_int(rate_retry_ms(1), RETRY_MS_MIN, "nobody is told to come back at once");
    is_int(rate_retry_ms(UINT64_MAX), RETRY_MS_MAX, "or in an hour");
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
    serve_close(s);
    for (int i = 0; i < 5; i++)
        drop(&r[i]);
}

/* A crowd's decodes took longer than the target. It is gone, and a prompt finds its pace by itself,
 * though no step without prompts shows that decodes are quick again. */
static void itl_after_crowd(void)
{
    enum { N = 20 };
    struct serve_conf c = usual();
    struct req r[N + 1];
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
    make(&r[N], 140, 1);
    serve_submit(s, &r[N], NULL);
    while (serve_once(s, NULL))
        n++;
    ok(n <= 24, "after a crowd a prompt of 140 tokens is through in %d steps", n);
    serve_close(s);
    for (int i = 0; i <= N; i++)
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
    deferred();
    corrupt(false);
    corrupt(true);
    corrupt_behind();
    pace_of_the_queue();
    quota();
    long_queue();
    idle_engine();
    salts();
    itl_target();
    itl_after_crowd();
    if (COUNTS_ALLOC)
        no_allocation();
    random_loads();
    threads();
    return done_testing();
}
