/* mask.c - which tokens a state allows, whatever is below it; kept with the grammar. */
#include "matcher_priv.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* So wide a mask is better stored as bits. */
#define IDS_MAX(v)  ((uint32_t) (v)->n / 64)

/* States that are alike may differ in how many readings they make of a text, and too many are
 * dropped: what is shared is far from that. */
#define SHARED_WIDTH 4

/* Steps that states which are alike agree on, with one to spare for what is behind a call. */
#define LOOK_MAX (GRAMMAR_LOOK - 2)

/* A state that begins fewer tokens than this is quick enough when it is met. */
#define WARM_TOKENS(v) ((v)->all.n / 256)

static void set_bit(uint32_t *mask, int32_t id)
{
    mask[id / 32] |= 1u << (id % 32);
}

static void open_put(struct open *o, struct rest **p, uint32_t *n, uint32_t *cap, struct rest r)
{
    if (*n == *cap) {
        uint32_t     more = *cap == 0 ? 256 : *cap * 2;
        struct rest *q = o->failed || more > 1u << 24 ? NULL : realloc(*p, more * sizeof(**p));

        if (q == NULL) {
            o->failed = true;
            return;
        }
        *p = q;
        *cap = more;
    }
    (*p)[(*n)++] = r;
}

/* No reading above the bottom takes the p + 1 bytes that texts i .. end of r begin with. */
static void open_add(struct open *o, const struct walk *w, const struct rests *r, uint32_t i,
                     uint32_t end, uint32_t p)
{
    bool far = w->level[p + 1].step > LOOK_MAX;

    if (!far && w->level[p].n_cross == 0)
        return;
    for (; i < end && !o->failed; i++) {
        struct rest t = r->p[i];

        if (far)
            open_put(o, &o->whole, &o->n_whole, &o->cap_whole, t);
        for (uint32_t j = 1; j <= p && !far; j++)
            if (w->lone[j].base == j && w->level[j].cross)
                open_put(o, &o->below, &o->n_below, &o->cap_below, (struct rest) {
                         .at = t.at + j, .id = t.id, .n = (uint16_t) (t.n - j) });
    }
}

/* How many bytes of a text readings take, from level p on. */
static uint32_t take_on(struct walk *w, uint32_t p, const uint8_t *s, uint32_t n, uint32_t look)
{
    for (;;) {
        uint32_t b = w->lone[p].base, far = b + look - w->level[b].step;

        p = walk_run(w, p, s, far < n ? far : n);
        if (p == n || !walk_step(w, p, s[p]) || w->level[p + 1].step > look)
            return p;
        p++;
    }
}

void walk_list(struct walk *w, const struct rests *r, const uint8_t *bytes, uint32_t *mask,
               struct open *o)
{
    for (uint32_t i = 0; i < r->n; ) {
        const struct rest *t = &r->p[i];
        uint32_t           p = take_on(w, t->lcp, bytes + t->at, t->n,
                                       o != NULL ? LOOK_MAX : UINT32_MAX / 2);

        if (p == t->n) {
            set_bit(mask, t->id);
            i++;
        } else {
            uint32_t end = rests_skip(r, i, p);

            if (o != NULL)
                open_add(o, w, r, i, end, p);
            i = end;
        }
    }
}

static void mask_free(struct mask *m)
{
    if (m == NULL)
        return;
    free(m->in);
    free(m->bits);
    free(m->below.p);
    free(m->whole.p);
    free(m);
}

/* Take it out of the cache. */
static void drop(struct mask_cache *c, struct mask *m)
{
    struct mask **at = &c->of[m->alike];

    while (*at != m)
        at = &(*at)->other;
    *at = m->other;
    c->bytes -= m->bytes;
    mask_free(m);
}

/* Room for n more bytes, the longest unused go. False: it is too much. */
static bool make_room(struct mask_cache *c, size_t n)
{
    while (c->bytes + n > c->bytes_max && c->bytes > 0) {
        struct mask *oldest = NULL;

        for (uint32_t i = 0; i < c->n_alike; i++)
            for (struct mask *m = c->of[i]; m != NULL; m = m->other)
                if (oldest == NULL || m->used < oldest->used)
                    oldest = m;
        drop(c, oldest);
    }
    return n <= c->bytes_max;
}

static size_t n_words(const struct vocab *v)
{
    return ((size_t) v->n + 31) / 32;
}

/* What was found goes into m. False: out of memory. */
static bool keep_bits(struct mask *m, const struct mask_cache *c)
{
    size_t n = n_words(c->vocab);

    for (size_t i = 0; i < n; i++)
        m->n_in += (uint32_t) __builtin_popcount(c->bits[i]);
    if (m->n_in > IDS_MAX(c->vocab)) {
        m->bits = malloc(n * sizeof(*m->bits));
        if (m->bits != NULL)
            memcpy(m->bits, c->bits, n * sizeof(*m->bits));
        m->bytes += n * sizeof(*m->bits);
        return m->bits != NULL;
    }
    m->in = malloc((m->n_in + (size_t) 1) * sizeof(*m->in));
    m->bytes += m->n_in * sizeof(*m->in);
    m->n_in = 0;
    for (size_t i = 0; m->in != NULL && i < n; i++)
        for (uint32_t b = c->bits[i]; b != 0; b &= b - 1)
            m->in[m->n_in++] = (int32_t) (i * 32) + __builtin_ctz(b);
    return m->in != NULL;
}

static void put_token(void *arg, int32_t id)
{
    const struct mask_cache *c = arg;

    if (id < c->vocab->n && vocab_is_special(c->vocab, id))
        set_bit(c->bits, id);
}

/* Sorted, and no larger than it must be: a grammar has many. False: out of memory. */
static bool keep_rests(struct rests *r, struct rest *p, uint32_t n, const struct vocab *v)
{
    struct rest *q = n > 0 ? realloc(p, n * sizeof(*p)) : p;

    *r = (struct rests) { q != NULL ? q : p, n };
    return rests_sort(r, v->bytes);
}

/* NULL: out of memory. */
static struct mask *mask_make(struct mask_cache *c, uint32_t state, uint32_t room)
{
    const struct vocab *v = c->vocab;
    struct mask        *m = calloc(1, sizeof(*m));
    struct open         o = { 0 };
    bool                done;

    if (m == NULL)
        return NULL;
    walk_clear(c->walk, room);
    walk_start(c->walk, state, 0);
    memset(c->bits, 0, n_words(v) * sizeof(*c->bits));
    walk_list(c->walk, &v->all, v->bytes, c->bits, &o);
    walk_tokens(c->walk, put_token, c);

    *m = (struct mask) {
        .alike = c->walk->g->state[state].alike,
        .state = c->walk->width <= SHARED_WIDTH ? NONE : state,
        .room = room, .rise = c->walk->rise, .refused = c->walk->refused,
        .bytes = sizeof(*m) + (o.n_below + (size_t) o.n_whole) * sizeof(*o.below),
    };
    done = keep_rests(&m->below, o.below, o.n_below, v);
    done &= keep_rests(&m->whole, o.whole, o.n_whole, v);
    if (!done || o.failed || !keep_bits(m, c)) {
        mask_free(m);
        return NULL;
    }
    return m;
}

const struct mask *mask_get(struct mask_cache *c, uint32_t state, uint32_t room)
{
    struct mask **at = &c->of[c->walk->g->state[state].alike], *m;

    for (m = *at; m != NULL; m = m->other) {
        if ((m->state == NONE || m->state == state)
            && (m->refused ? m->room == room : m->rise <= room)) {
            m->used = ++c->now;
            return m;
        }
    }
    m = mask_make(c, state, room);
    if (m == NULL || !make_room(c, m->bytes)) {
        mask_free(m);
        return NULL;
    }
    m->other = *at;
    *at = m;
    m->used = ++c->now;
    c->bytes += m->bytes;
    return m;
}

static void drop_all(struct mask_cache *c)
{
    for (uint32_t i = 0; i < c->n_alike; i++)
        while (c->of[i] != NULL)
            drop(c, c->of[i]);
}

struct mask_cache *mask_cache(struct grammar *g, const struct vocab *v)
{
    struct mask_cache *c = g->masks;

    if (c == NULL) {
        c = calloc(1, sizeof(*c));
        if (c == NULL)
            return NULL;
        c->n_alike = g->n_alike;
        c->bytes_max = MASK_CACHE_BYTES;
        c->work_max = MASKS_WORK_MAX;
        c->of = calloc(g->n_alike + (size_t) 1, sizeof(struct mask *));
        c->walk = walk_open(g);
        if (c->of == NULL || c->walk == NULL) {
            mask_cache_free(c);
            return NULL;
        }
        g->masks = c;
        g->masks_free = mask_cache_free;
    }
    if (c->vocab != v) {
        uint32_t *bits = malloc((n_words(v) + 1) * sizeof(*bits));

        if (bits == NULL)
            return NULL;
        drop_all(c);
        free(c->bits);
        c->bits = bits;
        c->vocab = v;
    }
    return c;
}

void mask_cache_free(struct mask_cache *c)
{
    if (c == NULL)
        return;
    if (c->of != NULL)
        drop_all(c);
    walk_close(c->walk);
    free(c->of);
    free(c->bits);
    free(c);
}

size_t grammar_mask_bytes(const struct grammar *g)
{
    return g->masks != NULL ? sizeof(*g->masks) + sizeof(*g->masks->walk) + g->masks->bytes : 0;
}

static bool is_late(uint64_t deadline_ns)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return deadline_ns != 0
           && (uint64_t) t.tv_sec * 1000000000u + (uint64_t) t.tv_nsec > deadline_ns;
}

/* Tokens that a walk from here has to look at, about. */
static uint32_t n_tokens(const struct vocab *v, const uint64_t *first)
{
    uint32_t n = 0;

    for (uint32_t b = 0; b < 256; b++)
        if (first[b / 64] >> (b % 64) & 1)
            n += v->n_first[b];
    return n;
}

/* A state of each alike class, and how long its walk may take. */
struct cost { uint32_t state, n; };

static int by_cost(const void *a, const void *b)
{
    const struct cost *x = a, *y = b;

    if (x->n != y->n)
        return x->n > y->n ? -1 : 1;
    return (x->state > y->state) - (x->state < y->state);
}

/* The classes that are not quick, the longest first. Their number. */
static uint32_t find_costs(const struct mask_cache *c, const struct grammar *g,
                           struct facts_room *room, struct cost *cost)
{
    uint32_t n = 0;

    memset(cost, 0, g->n_alike * sizeof(*cost));
    for (uint32_t s = g->n_state; s-- > 0; )
        cost[g->state[s].alike].state = s;
    for (uint32_t k = 0; k < g->n_alike; k++) {
        uint64_t    first[5] = { 0 };
        struct cost t = cost[k];

        facts_first(&c->walk->facts, g, t.state, room, first);
        t.n = n_tokens(c->vocab, first);
        if (t.n > WARM_TOKENS(c->vocab))
            cost[n++] = t;
    }
    qsort(cost, n, sizeof(*cost), by_cost);
    return n;
}

static int warm(struct mask_cache *c, const struct cost *cost, uint32_t n, uint64_t deadline_ns,
                struct err *e)
{
    for (uint32_t k = 0; k < n; k++) {
        if (is_late(deadline_ns) || c->bytes > c->bytes_max / 4 * 3)
            return 0;
        if (mask_get(c, cost[k].state, MATCHER_DEPTH_MAX) == NULL)
            return err_set(e, E_FULL, "the grammar needs too much memory");
        if (c->walk->work > c->work_max)
            return err_set(e, E_FULL, "the grammar reads one text in too many ways");
    }
    return 0;
}

int grammar_warm(struct grammar *g, const struct vocab *v, uint64_t deadline_ns, struct err *e)
{
    struct mask_cache *c = mask_cache(g, v);
    struct cost       *cost = malloc((g->n_alike + (size_t) 1) * sizeof(*cost));
    struct facts_room  room = { 0 };
    int                rc;

    if (c == NULL || cost == NULL || !facts_room_open(&room, g))
        rc = err_set(e, E_FULL, "grammar: out of memory");
    else if (c->walk->facts.rise[g->rule[0]] > MATCHER_DEPTH_MAX)
        rc = err_set(e, E_INVALID, "the grammar: every text has rules inside each other more than "
                     "%d deep", MATCHER_DEPTH_MAX);
    else
        rc = warm(c, cost, find_costs(c, g, &room, cost), deadline_ns, e);
    facts_room_close(&room);
    free(cost);
    return rc;
}
