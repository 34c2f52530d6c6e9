#include "grammar_priv.h"

#include <stdlib.h>

/* A piece to be built between two states, of which the first has no way out yet. */
struct span { gram piece; uint32_t from, to; };

struct build {
    struct grammar_make *m;
    const struct calls  *calls;
    struct nfa          *nfa;
    uint16_t             rule;
    VEC(struct span)     pend;
};

static uint32_t new_state(struct build *b)
{
    if (vec_room(b->m, &b->nfa->state, 1, GRAMMAR_NFA_MAX, "steps") < 0)
        return GRAMMAR_NONE;
    b->nfa->state.p[b->nfa->state.n] = (struct nfa_state) {
        .type = NFA_EPS, .rule = b->rule, .to = GRAMMAR_NONE, .arg = GRAMMAR_NONE,
    };
    return b->nfa->state.n++;
}

static int later(struct build *b, gram piece, uint32_t from, uint32_t to)
{
    if (vec_room(b->m, &b->pend, 1, GRAMMAR_NFA_MAX, "steps") < 0)
        return E_FULL;
    b->pend.p[b->pend.n++] = (struct span) { piece, from, to };
    return 0;
}

static void set(struct build *b, uint32_t at, enum nfa_type type, uint32_t to, uint32_t arg)
{
    struct nfa_state *s = &b->nfa->state.p[at];

    s->type = (uint8_t) type;
    s->to = to;
    s->arg = arg;
}

static int bytes(struct build *b, const struct piece *p, uint32_t from, uint32_t to)
{
    for (int32_t i = 0; i < p->b; i++) {
        uint32_t next = i == p->b - 1 ? to : new_state(b);

        if (next == GRAMMAR_NONE)
            return E_FULL;
        set(b, from, NFA_BYTE, next, 0);
        b->nfa->state.p[from].byte = (uint8_t) b->m->lit.p[p->a + i];
        from = next;
    }
    return 0;
}

/* The last node of the set is from; the others get states of their own, in order. */
static int chars(struct build *b, const struct piece *p, uint32_t from, uint32_t to)
{
    const struct char_set *c = &b->m->sets.p[p->a];
    uint32_t               base = b->nfa->state.n;

    for (uint32_t i = 0; i < c->n_node; i++) {
        uint32_t at = i == c->n_node - 1 ? from : new_state(b);

        if (at == GRAMMAR_NONE)
            return E_FULL;
        set(b, at, NFA_NODE, to, c->node + i);
        b->nfa->state.p[at].base = base;
    }
    return 0;
}

/* Copies in a row:        a{2,4}   from a x a x . a x . a to     each . may go to the end at once
 * without an end:         a{2,}    from a x . a y                y leads back to . or to the end */
static int repeat(struct build *b, const struct piece *p, uint32_t from, uint32_t to)
{
    bool    endless = p->max == -1;
    int32_t n = !endless ? p->max : p->b > 0 ? p->b : 1;

    if (n == 0)
        set(b, from, NFA_EPS, to, GRAMMAR_NONE);
    for (int32_t i = 0; i < n; i++) {
        bool     last = i == n - 1, split = i >= p->b || (last && endless);
        uint32_t body = split ? new_state(b) : from;
        uint32_t next = last && !endless ? to : new_state(b);

        if (body == GRAMMAR_NONE || next == GRAMMAR_NONE || later(b, p->a, body, next) < 0)
            return E_FULL;
        if (split)
            set(b, from, NFA_EPS, body, i >= p->b ? to : GRAMMAR_NONE);
        if (last && endless)
            set(b, next, NFA_EPS, body, to);
        from = next;
    }
    return 0;
}

static int pair(struct build *b, const struct piece *p, uint32_t from, uint32_t to)
{
    uint32_t x = new_state(b), y;

    if (x == GRAMMAR_NONE)
        return E_FULL;
    if (p->type == PIECE_SEQ)
        return later(b, p->b, x, to) < 0 ? E_FULL : later(b, p->a, from, x);
    y = new_state(b);
    if (y == GRAMMAR_NONE)
        return E_FULL;
    set(b, from, NFA_EPS, x, y);
    return later(b, p->b, y, to) < 0 ? E_FULL : later(b, p->a, x, to);
}

static int call(struct build *b, uint32_t rule, uint32_t from, uint32_t to)
{
    if (b->calls->rule[rule].copied)
        return later(b, b->calls->rule[rule].body, from, to);
    set(b, from, NFA_CALL, to, rule);
    return 0;
}

static int build_one(struct build *b, struct span s)
{
    const struct piece *p = &b->m->pieces.p[s.piece];

    switch (p->type) {
    case PIECE_EMPTY:  set(b, s.from, NFA_EPS, s.to, GRAMMAR_NONE); return 0;
    case PIECE_BYTES:  return bytes(b, p, s.from, s.to);
    case PIECE_CHARS:  return chars(b, p, s.from, s.to);
    case PIECE_TOKEN:  set(b, s.from, NFA_TOKEN, s.to, (uint32_t) p->a); return 0;
    case PIECE_CALL:   return call(b, (uint32_t) p->a + 1, s.from, s.to);
    case PIECE_REPEAT: return repeat(b, p, s.from, s.to);
    default:           return pair(b, p, s.from, s.to);
    }
}

static int build_rule(struct build *b, uint32_t rule)
{
    uint32_t from, to;

    b->rule = (uint16_t) rule;
    from = new_state(b);
    to = new_state(b);
    if (from == GRAMMAR_NONE || to == GRAMMAR_NONE)
        return E_FULL;
    b->nfa->start[rule] = from;
    b->nfa->state.p[to].type = NFA_END;
    if (later(b, b->calls->rule[rule].body, from, to) < 0)
        return E_FULL;
    while (b->pend.n > 0)
        if (grammar_work(b->m, 1) < 0 || build_one(b, b->pend.p[--b->pend.n]) < 0)
            return E_FULL;
    return 0;
}

struct closing {
    uint8_t  *seen;                      /* [n_state] */
    uint32_t *pend, n;                   /* [n_state] */
    uint32_t *wait, *next;               /* [n_rule] 1 + a call that has to know whether the rule
                                            can be empty; [n_state] the others like it */
};

static void see(struct closing *k, uint32_t at)
{
    if (at == GRAMMAR_NONE || k->seen[at])
        return;
    k->seen[at] = 1;
    k->pend[k->n++] = at;
}

/* What can be reached from the starts without a byte. A call waits until its rule turns out to be
 * nullable. Each state is looked at once. */
static int find_nullable(struct grammar_make *m, struct nfa *n, struct closing *k)
{
    for (uint32_t r = 0; r < n->n_rule; r++)
        see(k, n->start[r]);
    while (k->n > 0) {
        uint32_t                at = k->pend[--k->n];
        const struct nfa_state *s = &n->state.p[at];

        if (grammar_work(m, 1) < 0)
            return E_FULL;
        if (s->type == NFA_EPS) {
            see(k, s->to);
            see(k, s->arg);
        } else if (s->type == NFA_CALL && n->nullable[s->arg]) {
            see(k, s->to);
        } else if (s->type == NFA_CALL) {
            k->next[at] = k->wait[s->arg];
            k->wait[s->arg] = at + 1;
        } else if (s->type == NFA_END && !n->nullable[s->rule]) {
            n->nullable[s->rule] = 1;
            for (uint32_t w = k->wait[s->rule]; w != 0; w = k->next[w - 1])
                see(k, n->state.p[w - 1].to);
        }
    }
    return 0;
}

/* The calls that a rule may begin with, as the calls of left. */
static int left_calls(struct grammar_make *m, const struct nfa *n, struct closing *k,
                      struct calls *left)
{
    for (uint32_t r = 0; r < n->n_rule; r++) {
        left->rule[r].reached = n->start[r] != GRAMMAR_NONE;
        left->rule[r].call = left->call.n;
        see(k, n->start[r]);
        while (k->n > 0) {
            const struct nfa_state *s = &n->state.p[k->pend[--k->n]];

            if (grammar_work(m, 1) < 0)
                return E_FULL;
            if (s->type == NFA_EPS) {
                see(k, s->to);
                see(k, s->arg);
            } else if (s->type == NFA_CALL) {
                if (vec_room(m, &left->call, 1, GRAMMAR_NFA_MAX, "calls") < 0)
                    return E_FULL;
                left->call.p[left->call.n++] = (struct rule_call) { s->arg, 1 };
                if (n->nullable[s->arg])
                    see(k, s->to);
            }
        }
        left->rule[r].n_call = left->call.n - left->rule[r].call;
    }
    return 0;
}

static int refuse_left_recursion(struct grammar_make *m, const struct nfa *n, struct closing *k)
{
    struct calls left = { .n_rule = n->n_rule };
    uint32_t    *order = grammar_alloc(m, n->n_rule, sizeof(*order)), n_order;
    int          rc = E_FULL;

    left.rule = grammar_alloc(m, n->n_rule, sizeof(*left.rule));
    if (order != NULL && left.rule != NULL)
        rc = left_calls(m, n, k, &left);
    if (rc == 0)
        rc = grammar_recursive(m, &left, order, &n_order);
    for (uint32_t r = 1; r < n->n_rule && rc == 0; r++)
        if (left.rule[r].recursive) {
            grammar_fail(m, E_INVALID, "left recursion: rule %s can begin with itself",
                         grammar_rule_name(m, (int32_t) r - 1).s);
            rc = E_INVALID;
        }
    grammar_calls_free(&left);
    free(order);
    return rc;
}

static int examine(struct grammar_make *m, struct nfa *n)
{
    struct closing k = { 0 };
    uint32_t      *p = grammar_alloc(m, 2 * (uint64_t) n->state.n + n->n_rule, sizeof(*p));
    uint8_t       *seen = grammar_alloc(m, 2 * (uint64_t) n->state.n, 1);
    int            rc = E_FULL;

    if (p != NULL && seen != NULL) {
        k.pend = p;
        k.next = p + n->state.n;
        k.wait = p + 2 * (size_t) n->state.n;
        k.seen = seen;
        rc = find_nullable(m, n, &k);
        k.seen = seen + n->state.n;
        k.n = 0;
    }
    if (rc == 0)
        rc = refuse_left_recursion(m, n, &k);
    free(p);
    free(seen);
    return rc;
}

int grammar_nfa(struct grammar_make *m, const struct calls *c, struct nfa *out)
{
    struct build b = { .m = m, .calls = c, .nfa = out };
    int          rc = 0;

    out->n_rule = c->n_rule;
    out->start = grammar_alloc(m, c->n_rule, sizeof(*out->start));
    out->nullable = grammar_alloc(m, c->n_rule, 1);
    if (out->start == NULL || out->nullable == NULL)
        return E_FULL;
    for (uint32_t r = 0; r < c->n_rule && rc == 0; r++) {
        out->start[r] = GRAMMAR_NONE;
        if (c->rule[r].reached && !c->rule[r].copied)
            rc = build_rule(&b, r);
    }
    free(b.pend.p);
    return rc == 0 ? examine(m, out) : rc;
}

void grammar_nfa_free(struct nfa *n)
{
    free(n->state.p);
    free(n->start);
    free(n->nullable);
}
