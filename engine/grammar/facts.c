/* facts.c - what is found once for a grammar: which rules may be empty, what they can begin with,
 * and how deep each state must go at least before its rule can end. */
#include "matcher_priv.h"

#include <stdlib.h>
#include <string.h>

static void set(uint64_t *bits, uint32_t i)
{
    bits[i / 64] |= (uint64_t) 1 << (i % 64);
}

static bool may_end(const struct facts *f, uint32_t s)
{
    return f->state[s] & FACT_ENDS;
}

/* Who has to be looked at again when a state has changed: those with a way to it, and those that
 * call a rule that begins with it. */
struct ways {
    uint32_t *begin, *in;                /* [n_state + 1], of states */
    uint32_t *pend, n_pend;              /* [n_state] each at most once, as waits says */
    uint8_t  *waits;                     /* [n_state] */
};

static void ways_close(struct ways *w)
{
    free(w->begin);
    free(w->in);
    free(w->pend);
    free(w->waits);
}

static bool ways_open(struct ways *w, const struct grammar *g)
{
    const struct grammar_state *end = &g->state[g->n_state];
    size_t                      n = g->n_state;

    w->begin = calloc(n + 1, sizeof(*w->begin));
    w->in = malloc(((size_t) end->edge + end->token + 2 * (size_t) end->call + 1)
                   * sizeof(*w->in));
    w->pend = malloc((n + 1) * sizeof(*w->pend));
    w->waits = calloc(n + 1, 1);
    if (w->begin == NULL || w->in == NULL || w->pend == NULL || w->waits == NULL)
        return false;

    for (uint32_t k = 0; k < end->edge; k++)
        w->begin[g->edge[k].to]++;
    for (uint32_t k = 0; k < end->token; k++)
        w->begin[g->token[k].to]++;
    for (uint32_t k = 0; k < end->call; k++) {
        w->begin[g->call[k].to]++;
        w->begin[g->rule[g->call[k].rule]]++;
    }
    for (uint32_t s = 0; s < n; s++)
        w->begin[s + 1] += w->begin[s];

    /* From where each list ends down to where it begins. */
    for (uint32_t s = 0; s < n; s++) {
        const struct grammar_state *a = &g->state[s];

        for (uint32_t k = a->edge; k < a[1].edge; k++)
            w->in[--w->begin[g->edge[k].to]] = s;
        for (uint32_t k = a->token; k < a[1].token; k++)
            w->in[--w->begin[g->token[k].to]] = s;
        for (uint32_t k = a->call; k < a[1].call; k++) {
            w->in[--w->begin[g->call[k].to]] = s;
            w->in[--w->begin[g->rule[g->call[k].rule]]] = s;
        }
    }
    return true;
}

static void wake(struct ways *w, uint32_t s)
{
    if (!w->waits[s])
        w->pend[w->n_pend++] = s;
    w->waits[s] = 1;
}

static uint16_t most(uint32_t a, uint32_t b)
{
    uint32_t m = a > b ? a : b;

    return (uint16_t) (m < FACT_NEVER ? m : FACT_NEVER);
}

/* Look at a state with what is known of those behind it. False: nothing new. */
static bool examine(struct facts *f, const struct grammar *g, uint32_t s)
{
    const struct grammar_state *a = &g->state[s];
    uint16_t                    rise = may_end(f, s) ? 0 : f->rise[s];
    uint8_t                     fact = f->state[s];

    for (uint32_t k = a->edge; k < a[1].edge; k++)
        rise = f->rise[g->edge[k].to] < rise ? f->rise[g->edge[k].to] : rise;
    for (uint32_t k = a->token; k < a[1].token; k++)
        rise = f->rise[g->token[k].to] < rise ? f->rise[g->token[k].to] : rise;
    for (uint32_t k = a->call; k < a[1].call; k++) {
        uint32_t start = g->rule[g->call[k].rule], to = g->call[k].to;
        uint16_t way = f->state[to] & FACT_LEAF ? f->rise[start]
                                                : most(f->rise[start] + 1u, f->rise[to]);

        rise = way < rise ? way : rise;
        if (may_end(f, start)) {
            rise = f->rise[to] < rise ? f->rise[to] : rise;
            fact |= may_end(f, to) ? FACT_ENDS : 0;
        }
    }
    if (rise == f->rise[s] && fact == f->state[s])
        return false;
    f->rise[s] = rise;
    f->state[s] = fact;
    return true;
}

static bool find_ends(struct facts *f, const struct grammar *g)
{
    struct ways w = { 0 };
    bool        done = ways_open(&w, g);

    for (uint32_t s = 0; done && s < g->n_state; s++)
        wake(&w, s);
    while (done && w.n_pend > 0) {
        uint32_t s = w.pend[--w.n_pend];

        w.waits[s] = 0;
        if (!examine(f, g, s))
            continue;
        for (uint32_t k = w.begin[s]; k < w.begin[s + 1]; k++)
            wake(&w, w.in[k]);
    }
    ways_close(&w);
    return done;
}

/* Of the state alone: the rules that it calls add theirs. */
static void first_here(const struct grammar *g, uint32_t s, uint64_t *first)
{
    for (uint32_t k = g->state[s].edge; k < g->state[s + 1].edge; k++)
        for (uint32_t b = g->edge[k].lo; b <= g->edge[k].hi; b++)
            set(first, b);
    if (g->state[s].token < g->state[s + 1].token)
        set(first, FACT_TOKEN);
}

/* The states that stand where this one does, with empty calls between: r->pend. How many. */
static uint32_t near(const struct facts *f, const struct grammar *g, uint32_t state,
                     struct facts_room *r)
{
    uint32_t n = 0;

    if (++r->stamp == 0) {
        memset(r->mark, 0, (g->n_state + (size_t) 1) * sizeof(*r->mark));
        r->stamp = 1;
    }
    r->pend[n++] = state;
    r->mark[state] = r->stamp;
    for (uint32_t i = 0; i < n; i++) {
        const struct grammar_state *a = &g->state[r->pend[i]];

        for (uint32_t k = a->call; k < a[1].call; k++) {
            uint32_t to = g->call[k].to;

            if (may_end(f, g->rule[g->call[k].rule]) && r->mark[to] != r->stamp) {
                r->mark[to] = r->stamp;
                r->pend[n++] = to;
            }
        }
    }
    return n;
}

void facts_first(const struct facts *f, const struct grammar *g, uint32_t state,
                 struct facts_room *r, uint64_t *first)
{
    uint32_t n = near(f, g, state, r);

    for (uint32_t i = 0; i < n; i++) {
        const struct grammar_state *a = &g->state[r->pend[i]];

        first_here(g, r->pend[i], first);
        for (uint32_t k = a->call; k < a[1].call; k++)
            for (int j = 0; j < 5; j++)
                first[j] |= f->first[g->call[k].rule][j];
    }
}

bool facts_room_open(struct facts_room *r, const struct grammar *g)
{
    r->stamp = 0;
    r->mark = calloc(g->n_state + (size_t) 1, sizeof(*r->mark));
    r->pend = malloc((g->n_state + (size_t) 1) * sizeof(*r->pend));
    return r->mark != NULL && r->pend != NULL;
}

void facts_room_close(struct facts_room *r)
{
    free(r->mark);
    free(r->pend);
}

/* A rule that this one may begin with and that nobody has come to; NONE. */
static uint32_t left_call(const struct facts *f, const struct grammar *g, uint32_t rule,
                          struct facts_room *r, const uint8_t *seen)
{
    uint32_t n = near(f, g, g->rule[rule], r);

    for (uint32_t i = 0; i < n; i++) {
        const struct grammar_state *a = &g->state[r->pend[i]];

        for (uint32_t k = a->call; k < a[1].call; k++)
            if (!seen[g->call[k].rule])
                return g->call[k].rule;
    }
    return NONE;
}

/* No rule begins with itself, so each can come behind those that it begins with. */
static bool find_firsts(struct facts *f, const struct grammar *g)
{
    struct facts_room room;
    uint32_t         *way = malloc((g->n_rule + (size_t) 1) * sizeof(*way)), n = 0;
    uint8_t          *seen = calloc(g->n_rule + (size_t) 1, 1);
    bool              done = facts_room_open(&room, g) && way != NULL && seen != NULL;

    for (uint32_t r = 0; done && r < g->n_rule; r++) {
        if (seen[r])
            continue;
        for (way[n++] = r; n > 0; ) {
            uint32_t at = way[n - 1], left;

            seen[at] = 1;
            left = left_call(f, g, at, &room, seen);
            if (left != NONE) {
                way[n++] = left;
            } else {
                facts_first(f, g, g->rule[at], &room, f->first[at]);
                n--;
            }
        }
    }
    facts_room_close(&room);
    free(way);
    free(seen);
    return done;
}

static uint8_t facts_here(const struct grammar *g, uint32_t s)
{
    const struct grammar_state *a = &g->state[s], *b = a + 1;
    bool more = a->edge < b->edge || a->token < b->token || a->call < b->call;

    return (a->accept ? FACT_ENDS : 0) | (a->call < b->call ? FACT_CALLS : 0)
           | (a->accept && !more ? FACT_LEAF : 0);
}

bool facts_open(struct facts *f, const struct grammar *g)
{
    f->state = calloc(g->n_state + (size_t) 1, 1);
    f->rise = malloc((g->n_state + (size_t) 1) * sizeof(*f->rise));
    f->first = calloc(g->n_rule + (size_t) 1, sizeof(*f->first));
    if (f->state == NULL || f->rise == NULL || f->first == NULL) {
        facts_close(f);
        return false;
    }
    for (uint32_t s = 0; s < g->n_state; s++) {
        f->state[s] = facts_here(g, s);
        f->rise[s] = FACT_NEVER;
    }
    if (!find_ends(f, g) || !find_firsts(f, g)) {
        facts_close(f);
        return false;
    }
    return true;
}

void facts_close(struct facts *f)
{
    free(f->state);
    free(f->rise);
    free(f->first);
    *f = (struct facts) { 0 };
}
