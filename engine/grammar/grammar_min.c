#include "grammar_priv.h"

#include <stdlib.h>
#include <string.h>

/* An edge backwards: from a state, by a byte or a token (rule NONE) or by a call. */
struct way_in { uint32_t from, rule; };

struct alive {
    struct grammar_make *m;
    struct dfa    *d;
    uint8_t       *live;                 /* [n_state] an end of its rule can be reached */
    uint32_t      *begin;                /* [n_state + 1] of in */
    struct way_in *in;
    uint32_t      *pend, n;
    uint32_t      *starts;               /* [n_state] 1 + the rule that begins there; 0: none */
    uint32_t      *wait, *next;          /* [n_rule] 1 + a way in that has to know whether the rule
                                            has a text; [ways] others like it */
};

static void way_in(struct alive *a, uint32_t to, uint32_t from, uint32_t rule)
{
    a->in[--a->begin[to]] = (struct way_in) { from, rule };
}

static void find_ways_in(struct alive *a)
{
    const struct dfa *d = a->d;

    for (uint32_t i = 0; i < d->edge.n; i++)
        a->begin[d->edge.p[i].to]++;
    for (uint32_t i = 0; i < d->token.n; i++)
        a->begin[d->token.p[i].to]++;
    for (uint32_t i = 0; i < d->call.n; i++)
        a->begin[d->call.p[i].to]++;
    for (uint32_t s = 0; s < d->state.n; s++)
        a->begin[s + 1] += a->begin[s];
    for (uint32_t s = 0; s < d->state.n; s++) {
        const struct grammar_state *p = &d->state.p[s];

        for (uint32_t i = p->edge; i < p[1].edge; i++)
            way_in(a, d->edge.p[i].to, s, GRAMMAR_NONE);
        for (uint32_t i = p->token; i < p[1].token; i++)
            way_in(a, d->token.p[i].to, s, GRAMMAR_NONE);
        for (uint32_t i = p->call; i < p[1].call; i++)
            way_in(a, d->call.p[i].to, s, d->call.p[i].rule);
    }
}

static void is_live(struct alive *a, uint32_t s)
{
    if (!a->live[s]) {
        a->live[s] = 1;
        a->pend[a->n++] = s;
    }
}

/* Backwards from the ends. A call whose end is live waits until its rule has a text. */
static int find_live(struct alive *a)
{
    const struct dfa *d = a->d;

    for (uint32_t r = 0; r < d->n_rule; r++)
        if (d->rule[r] != GRAMMAR_NONE)
            a->starts[d->rule[r]] = r + 1;
    for (uint32_t s = 0; s < d->state.n; s++)
        if (d->state.p[s].accept)
            is_live(a, s);
    while (a->n > 0) {
        uint32_t s = a->pend[--a->n];

        if (grammar_work(a->m, 1 + a->begin[s + 1] - a->begin[s]) < 0)
            return E_FULL;
        if (a->starts[s] != 0)
            for (uint32_t w = a->wait[a->starts[s] - 1]; w != 0; w = a->next[w - 1])
                is_live(a, a->in[w - 1].from);
        for (uint32_t i = a->begin[s]; i < a->begin[s + 1]; i++) {
            uint32_t rule = a->in[i].rule;

            if (rule == GRAMMAR_NONE || a->live[d->rule[rule]]) {
                is_live(a, a->in[i].from);
            } else {
                a->next[i] = a->wait[rule];
                a->wait[rule] = i + 1;
            }
        }
    }
    return 0;
}

/* Drop what is not live: the others move up, name[old] is a state's new number. */
static void cut(struct alive *a, uint32_t *name)
{
    struct dfa *d = a->d;
    uint32_t    n = 0, n_edge = 0, n_token = 0, n_call = 0;

    for (uint32_t s = 0; s < d->state.n; s++)
        name[s] = a->live[s] ? n++ : GRAMMAR_NONE;
    for (uint32_t s = 0; s < d->state.n; s++) {
        struct grammar_state p = d->state.p[s], end = d->state.p[s + 1];

        if (!a->live[s])
            continue;
        d->state.p[name[s]] = (struct grammar_state) { n_edge, n_token, n_call, 0, p.accept };
        for (uint32_t i = p.edge; i < end.edge; i++) {
            struct grammar_edge e = d->edge.p[i];

            if (a->live[e.to])
                d->edge.p[n_edge++] = (struct grammar_edge) { e.lo, e.hi, name[e.to] };
        }
        for (uint32_t i = p.token; i < end.token; i++) {
            struct grammar_token t = d->token.p[i];

            if (a->live[t.to])
                d->token.p[n_token++] = (struct grammar_token) { t.id, name[t.to] };
        }
        for (uint32_t i = p.call; i < end.call; i++) {
            struct grammar_call k = d->call.p[i];

            if (a->live[k.to] && a->live[d->rule[k.rule]])
                d->call.p[n_call++] = (struct grammar_call) { k.rule, name[k.to] };
        }
    }
    d->state.p[n] = (struct grammar_state) { n_edge, n_token, n_call, 0, false };
    d->state.n = n;
    d->edge.n = n_edge;
    d->token.n = n_token;
    d->call.n = n_call;
    for (uint32_t r = 0; r < d->n_rule; r++)
        if (d->rule[r] != GRAMMAR_NONE)
            d->rule[r] = name[d->rule[r]];
}

static int cut_to_live(struct grammar_make *m, struct dfa *d)
{
    uint64_t     n = d->state.n, n_in = (uint64_t) d->edge.n + d->token.n + d->call.n;
    struct alive a = { .m = m, .d = d };
    uint32_t    *p = grammar_alloc(m, 3 * n + 1 + n_in + d->n_rule, sizeof(*p));
    int          rc = E_FULL;

    a.live = grammar_alloc(m, n, 1);
    a.in = grammar_alloc(m, n_in, sizeof(*a.in));
    if (p != NULL && a.live != NULL && a.in != NULL) {
        a.begin = p;
        a.pend = p + n + 1;
        a.starts = p + 2 * n + 1;
        a.next = p + 3 * n + 1;
        a.wait = a.next + n_in;
        find_ways_in(&a);
        rc = find_live(&a);
    }
    if (rc == 0)
        cut(&a, a.pend);
    if (rc == 0 && d->rule[0] == GRAMMAR_NONE) {
        grammar_fail(m, E_INVALID, "no text matches");
        rc = E_INVALID;
    }
    free(p);
    free(a.live);
    free(a.in);
    return rc;
}

/* What of d goes into the grammar: a state of each class that can be reached, in the order in which
 * they are found from the root. */
struct pick {
    const struct dfa *d;
    struct classes    c;
    uint32_t *state, n_state;            /* [n_class] a state of each class picked */
    uint32_t *number;                    /* [n_class] 1 + where that is in state; 0: not picked */
    uint32_t *rule, n_rule;              /* [n_rule] rules picked; [n_rule] 1 + where; 0: not */
    uint32_t *rule_number;
    uint32_t  n_edge, n_token, n_call;   /* of them, edges that are one counted so */
};

static void pick_state(struct pick *k, uint32_t s)
{
    uint32_t class = k->c.of[s];

    if (k->number[class] == 0) {
        k->state[k->n_state++] = k->c.member[k->c.first[class]];
        k->number[class] = k->n_state;
    }
}

static void pick_rule(struct pick *k, uint32_t rule)
{
    if (k->rule_number[rule] == 0) {
        k->rule[k->n_rule++] = rule;
        k->rule_number[rule] = k->n_rule;
        pick_state(k, k->d->rule[rule]);
    }
}

/* Is edge i of a state that begins at from one with the edge before it? */
static bool goes_on(const struct pick *k, uint32_t i, uint32_t from)
{
    const struct grammar_edge *e = &k->d->edge.p[i];

    return i > from && e[-1].hi + 1 == e->lo && k->c.of[e[-1].to] == k->c.of[e->to];
}

static int pick_all(struct grammar_make *m, struct pick *k)
{
    const struct dfa *d = k->d;

    pick_rule(k, 0);
    for (uint32_t n = 0; n < k->n_state; n++) {
        const struct grammar_state *p = &d->state.p[k->state[n]];

        for (uint32_t i = p->edge; i < p[1].edge; i++) {
            k->n_edge += !goes_on(k, i, p->edge);
            pick_state(k, d->edge.p[i].to);
        }
        for (uint32_t i = p->token; i < p[1].token; i++, k->n_token++)
            pick_state(k, d->token.p[i].to);
        for (uint32_t i = p->call; i < p[1].call; i++, k->n_call++) {
            pick_rule(k, d->call.p[i].rule);
            pick_state(k, d->call.p[i].to);
        }
        if (grammar_work(m, 1 + p[1].edge - p->edge) < 0)
            return E_FULL;
    }
    if (k->n_state > GRAMMAR_STATE_MAX) {
        grammar_fail(m, E_FULL, "the grammar is too large: more than %u states",
                     GRAMMAR_STATE_MAX);
        return E_FULL;
    }
    return 0;
}

static int by_rule(const void *pa, const void *pb)
{
    const struct grammar_call *a = pa, *b = pb;

    return a->rule < b->rule ? -1 : a->rule > b->rule;
}

/* The edges of the n-th state picked behind those of the states before it. */
static void fill_state(const struct pick *k, struct grammar *g, uint32_t n)
{
    const struct dfa           *d = k->d;
    const struct grammar_state *p = &d->state.p[k->state[n]];
    struct grammar_state       *to = &g->state[n];

    to->accept = p->accept;
    to[1] = *to;
    for (uint32_t i = p->edge; i < p[1].edge; i++) {
        struct grammar_edge e = d->edge.p[i];

        if (goes_on(k, i, p->edge))
            g->edge[to[1].edge - 1].hi = e.hi;
        else
            g->edge[to[1].edge++] = (struct grammar_edge) {
                e.lo, e.hi, k->number[k->c.of[e.to]] - 1,
            };
    }
    for (uint32_t i = p->token; i < p[1].token; i++)
        g->token[to[1].token++] = (struct grammar_token) {
            d->token.p[i].id, k->number[k->c.of[d->token.p[i].to]] - 1,
        };
    for (uint32_t i = p->call; i < p[1].call; i++)
        g->call[to[1].call++] = (struct grammar_call) {
            k->rule_number[d->call.p[i].rule] - 1, k->number[k->c.of[d->call.p[i].to]] - 1,
        };
    if (to[1].call - to->call > 1)
        qsort(&g->call[to->call], to[1].call - to->call, sizeof(*g->call), by_rule);
}

/* One block of memory, so that it is freed as one. */
static struct grammar *fill(struct grammar_make *m, const struct pick *k)
{
    size_t bytes = sizeof(struct grammar) + (k->n_state + 1) * sizeof(struct grammar_state)
                   + k->n_edge * sizeof(struct grammar_edge)
                   + k->n_token * sizeof(struct grammar_token)
                   + k->n_call * sizeof(struct grammar_call) + k->n_rule * sizeof(uint32_t);
    struct grammar *g = grammar_alloc(m, 1, bytes);

    if (g == NULL)
        return NULL;
    g->bytes = bytes;
    g->n_state = k->n_state;
    g->n_rule = k->n_rule;
    g->state = (struct grammar_state *) (g + 1);
    g->edge = (struct grammar_edge *) (g->state + k->n_state + 1);
    g->token = (struct grammar_token *) (g->edge + k->n_edge);
    g->call = (struct grammar_call *) (g->token + k->n_token);
    g->rule = (uint32_t *) (g->call + k->n_call);
    for (uint32_t r = 0; r < k->n_rule; r++)
        g->rule[r] = k->number[k->c.of[k->d->rule[k->rule[r]]]] - 1;
    for (uint32_t n = 0; n < k->n_state; n++)
        fill_state(k, g, n);
    g->state[g->n_state].accept = false;
    return g;
}

static int find_alike(struct grammar_make *m, struct grammar *g)
{
    struct classes c = { .state = g->state, .edge = g->edge, .token = g->token, .call = g->call,
                         .n = g->n_state };
    int            rc = grammar_classes(m, &c, GRAMMAR_LOOK + 1);

    for (uint32_t s = 0; s < g->n_state && rc == 0; s++)
        g->state[s].alike = c.of[s];
    g->n_alike = c.n_class;
    grammar_classes_free(&c);
    return rc;
}

int grammar_min(struct grammar_make *m, struct dfa *d, struct grammar **out)
{
    struct pick     k = { .d = d };
    struct grammar *g = NULL;
    uint32_t       *p = NULL;
    int             rc = cut_to_live(m, d);

    if (rc < 0)
        return rc;
    k.c = (struct classes) { .state = d->state.p, .edge = d->edge.p, .token = d->token.p,
                             .call = d->call.p, .n = d->state.n };
    rc = grammar_classes(m, &k.c, GRAMMAR_NONE);
    if (rc == 0)
        p = grammar_alloc(m, 2 * ((uint64_t) k.c.n_class + d->n_rule), sizeof(*p));
    if (p != NULL) {
        k.state = p;
        k.number = p + k.c.n_class;
        k.rule = p + 2 * (size_t) k.c.n_class;
        k.rule_number = k.rule + d->n_rule;
        if (pick_all(m, &k) == 0)
            g = fill(m, &k);
    }
    free(p);
    grammar_classes_free(&k.c);
    if (g == NULL || find_alike(m, g) < 0) {
        grammar_free(g);
        return m->err.code;
    }
    *out = g;
    return 0;
}
