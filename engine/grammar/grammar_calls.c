/* Which rule calls which, and which of them have no automaton of their own: a rule that is not
 * recursive is copied into its callers if one place alone calls it, or if it is tiny and so are all
 * its copies together. That lets alternatives that begin alike share states. All others stay
 * rules: what many places call (the body of a JSON string) keeps one set of states, and so of
 * masks. */
#include "grammar_priv.h"

#include <stdlib.h>

#define TINY     16                      /* NFA states of a rule that is copied */
#define TINY_ALL 256                     /* and of all copies */

struct visit { gram piece; uint32_t times; };

static uint32_t add_sat(uint32_t a, uint64_t b)
{
    return b > UINT32_MAX - a ? UINT32_MAX : a + (uint32_t) b;
}

static uint32_t mul_sat(uint32_t a, uint32_t b)
{
    return a != 0 && b > UINT32_MAX / a ? UINT32_MAX : a * b;
}

/* How often its child stands in the NFA of a repetition. */
static uint32_t copies(const struct piece *p)
{
    return p->max != -1 ? (uint32_t) p->max : p->b > 0 ? (uint32_t) p->b : 1;
}

/* The calls of one rule, in order, from all its pieces; a shared piece counts wherever it is used,
 * as it will in the NFA. What may be visited is bounded by the size of that. */
static int list_calls(struct grammar_make *m, struct calls *c, struct rule_info *r)
{
    VEC(struct visit) pend = { 0 };
    int rc = vec_room(m, &pend, 1, GRAMMAR_NFA_MAX, "pieces");

    if (rc == 0)
        pend.p[pend.n++] = (struct visit) { r->body, 1 };
    r->call = c->call.n;
    while (rc == 0 && pend.n > 0) {
        struct visit        v = pend.p[--pend.n];
        const struct piece *p = &m->pieces.p[v.piece];

        if ((rc = grammar_work(m, 1)) < 0
            || (rc = vec_room(m, &pend, 2, GRAMMAR_NFA_MAX, "pieces")) < 0)
            break;
        if (p->type == PIECE_CALL) {
            rc = vec_room(m, &c->call, 1, 2 * GRAMMAR_NFA_MAX, "calls");
            if (rc == 0)
                c->call.p[c->call.n++] = (struct rule_call) { (uint32_t) p->a + 1, v.times };
        } else if (p->type == PIECE_SEQ || p->type == PIECE_ALT) {
            pend.p[pend.n++] = (struct visit) { p->b, v.times };
            pend.p[pend.n++] = (struct visit) { p->a, v.times };
        } else if (p->type == PIECE_REPEAT && p->max != 0) {
            pend.p[pend.n++] = (struct visit) { p->a, mul_sat(v.times, copies(p)) };
        }
    }
    r->n_call = c->call.n - r->call;
    free(pend.p);
    return rc;
}

/* All rules that can be reached from 0: their calls, how often each is called, and that all their
 * NFAs together are not too large. */
static int reach(struct grammar_make *m, struct calls *c, uint32_t *pend)
{
    uint32_t n = 0;
    uint64_t size = 0;

    pend[n++] = 0;
    c->rule[0].reached = true;
    while (n > 0) {
        struct rule_info *r = &c->rule[pend[--n]];

        r->size = m->pieces.p[r->body].size + 2;
        size += r->size;
        if (size > GRAMMAR_NFA_MAX) {
            grammar_fail(m, E_FULL, "the grammar is too large: more than %u steps",
                         GRAMMAR_NFA_MAX);
            return E_FULL;
        }
        if (list_calls(m, c, r) < 0)
            return E_FULL;
        for (uint32_t i = 0; i < r->n_call; i++) {
            const struct rule_call *k = &c->call.p[r->call + i];
            struct rule_info       *to = &c->rule[k->rule];

            to->calls = add_sat(to->calls, k->times);
            if (!to->reached) {
                to->reached = true;
                pend[n++] = k->rule;
            }
        }
    }
    return 0;
}

struct frame { uint32_t rule, next; };

struct components {                      /* Tarjan's strongly connected components */
    uint32_t     *index, *low;           /* index 0: not seen yet; low 0: its component is done */
    uint32_t     *open, n_open, n_index; /* seen, in an unfinished component */
    struct frame *frame;                 /* the way to where the search is */
    uint32_t     *order, n_order;
};

/* All calls of rule are followed: if its component began there, it ends. */
static void leave(struct calls *c, struct components *s, uint32_t rule)
{
    uint32_t r;

    if (s->low[rule] != s->index[rule])
        return;
    c->rule[rule].recursive |= s->open[s->n_open - 1] != rule;
    do {
        r = s->open[--s->n_open];
        c->rule[r].recursive |= c->rule[rule].recursive;
        s->low[r] = 0;
        s->order[s->n_order++] = r;
    } while (r != rule);
}

static int search(struct grammar_make *m, struct calls *c, struct components *s, uint32_t from)
{
    uint32_t depth = 1;

    s->frame[0] = (struct frame) { from, 0 };
    while (depth > 0) {
        struct frame *f = &s->frame[depth - 1];
        uint32_t      r = f->rule, to;

        if (grammar_work(m, 1) < 0)
            return E_FULL;
        if (f->next == 0) {
            s->index[r] = s->low[r] = ++s->n_index;
            s->open[s->n_open++] = r;
        }
        if (f->next == c->rule[r].n_call) {
            leave(c, s, r);
            depth--;
            if (depth > 0 && s->low[r] != 0 && s->low[r] < s->low[f[-1].rule])
                s->low[f[-1].rule] = s->low[r];
            continue;
        }
        to = c->call.p[c->rule[r].call + f->next++].rule;
        c->rule[r].recursive |= to == r;
        if (s->index[to] == 0)
            s->frame[depth++] = (struct frame) { to, 0 };
        else if (s->low[to] != 0 && s->index[to] < s->low[r])
            s->low[r] = s->index[to];
    }
    return 0;
}

int grammar_recursive(struct grammar_make *m, struct calls *c, uint32_t *order, uint32_t *n_order)
{
    uint32_t          n = c->n_rule, *p = grammar_alloc(m, 3 * (uint64_t) n, sizeof(*p));
    struct components s = { .frame = grammar_alloc(m, n, sizeof(*s.frame)), .order = order };
    int               rc = p != NULL && s.frame != NULL ? 0 : E_FULL;

    if (rc == 0) {
        s.index = p;
        s.low = p + n;
        s.open = p + 2 * n;
    }
    for (uint32_t r = 0; r < n && rc == 0; r++)
        if (c->rule[r].reached && s.index[r] == 0)
            rc = search(m, c, &s, r);
    *n_order = s.n_order;
    free(p);
    free(s.frame);
    return rc;
}

/* Callees first, so that a rule's size is known with all that was copied into it. */
static void choose(struct calls *c, const uint32_t *order, uint32_t n_order)
{
    uint64_t all = 0;

    for (uint32_t i = 0; i < n_order; i++)
        all += c->rule[order[i]].size;
    for (uint32_t i = 0; i < n_order; i++) {
        struct rule_info *r = &c->rule[order[i]];
        uint64_t          more;

        for (uint32_t k = 0; k < r->n_call; k++) {
            const struct rule_call *to = &c->call.p[r->call + k];

            if (c->rule[to->rule].copied)
                r->size = add_sat(r->size, (uint64_t) to->times * c->rule[to->rule].size);
        }
        more = r->calls > 1 ? (uint64_t) (r->calls - 1) * r->size : 0;
        if (order[i] == 0 || r->recursive || all + more > GRAMMAR_NFA_MAX)
            continue;
        r->copied = r->calls == 1
                    || (r->size <= TINY && (uint64_t) r->calls * r->size <= TINY_ALL);
        if (r->copied)
            all += more;
    }
}

int grammar_calls(struct grammar_make *m, gram root, struct calls *c)
{
    uint32_t *order, n_order;
    int       rc;

    c->n_rule = m->rules.n + 1;
    c->rule = grammar_alloc(m, c->n_rule, sizeof(*c->rule));
    if (c->rule == NULL)
        return E_FULL;
    c->rule[0].body = root;
    for (uint32_t i = 0; i < m->rules.n; i++) {
        c->rule[i + 1].body = m->rules.p[i].body;
        if (m->rules.p[i].body == -1) {
            grammar_fail(m, E_INVALID, "rule %s has no body",
                         grammar_rule_name(m, (int32_t) i).s);
            return E_INVALID;
        }
    }
    order = grammar_alloc(m, c->n_rule, sizeof(*order));
    if (order == NULL)
        return E_FULL;
    rc = reach(m, c, order);
    if (rc == 0)
        rc = grammar_recursive(m, c, order, &n_order);
    if (rc == 0)
        choose(c, order, n_order);
    free(order);
    return rc;
}

void grammar_calls_free(struct calls *c)
{
    free(c->rule);
    free(c->call.p);
}
