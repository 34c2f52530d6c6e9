/* Subset construction, a rule at a time. States are made in the order in which they are found and
 * get their edges in that order, so all edges of a state stand together. */
#include "grammar_priv.h"

#include <stdlib.h>
#include <string.h>

struct way { uint32_t key, to; };        /* a token or a call, into the NFA */

struct subsets {
    struct grammar_make *m;
    const struct nfa    *nfa;
    struct dfa          *d;
    uint32_t             first;          /* DFA state of the rule; below, i - first */
    VEC(uint32_t)        member;         /* of its states, each ascending */
    VEC(uint32_t)        begin;          /* where a state's members begin, and one more */
    VEC(uint32_t)        hash;           /* of its members */
    uint32_t            *table, n_table; /* 1 + state by hash; 0: free; a power of two */
    uint32_t            *mark, now;      /* [NFA states] member of the subset being made */
    uint32_t            *pend;           /* [NFA states] */
    uint32_t            *alone;          /* [NFA states] 1 + the DFA state of it and what follows
                                            from it without a byte; 0: not known */
    VEC(struct grammar_edge) edge;       /* the bytes of one state, into the NFA */
    VEC(struct way)          token, call;
    VEC(uint32_t)            target;     /* of edge, byte range by byte range */
};

static int by_number(const void *pa, const void *pb)
{
    uint32_t a = *(const uint32_t *) pa, b = *(const uint32_t *) pb;

    return a < b ? -1 : a > b;
}

/* Mostly they are in order: a step through literals leaves them as they were. */
static void sort(uint32_t *p, uint32_t n)
{
    uint32_t k = 1;

    while (k < n && p[k - 1] < p[k])
        k++;
    if (k < n)
        qsort(p, n, sizeof(*p), by_number);
}

static uint32_t see(struct subsets *s, uint32_t at, uint32_t n)
{
    if (at == GRAMMAR_NONE || s->mark[at] == s->now)
        return n;
    s->mark[at] = s->now;
    s->pend[n] = at;
    return n + 1;
}

/* Append what follows from these NFA states without a byte to member. */
static int closure(struct subsets *s, const uint32_t *from, uint32_t n_from)
{
    uint32_t begin = s->member.n, n = 0, i;

    s->now++;
    for (i = 0; i < n_from; i++)
        n = see(s, from[i], n);
    for (i = 0; i < n; i++) {
        uint32_t                at = s->pend[i];
        const struct nfa_state *f = &s->nfa->state.p[at];

        if (f->type == NFA_EPS) {
            n = see(s, f->to, n);
            n = see(s, f->arg, n);
            continue;
        }
        if (f->type == NFA_CALL && s->nfa->nullable[f->arg])
            n = see(s, f->to, n);
        if (vec_room(s->m, &s->member, 1, GRAMMAR_SUBSET_MAX, "steps in its states") < 0)
            return E_FULL;
        s->member.p[s->member.n++] = at;
    }
    sort(s->member.p + begin, s->member.n - begin);
    return grammar_work(s->m, n + 1);
}

/* The members at the end of member become a state. */
static int add_state(struct subsets *s, bool may_end, uint32_t hash, uint32_t *out)
{
    struct grammar_state d = { 0 };

    for (uint32_t i = s->begin.p[s->begin.n - 1]; i < s->member.n && may_end; i++)
        d.accept |= s->nfa->state.p[s->member.p[i]].type == NFA_END;
    if (vec_room(s->m, &s->d->state, 1, GRAMMAR_RAW_MAX, "states") < 0
        || vec_room(s->m, &s->begin, 1, GRAMMAR_RAW_MAX + 1, "states") < 0
        || vec_room(s->m, &s->hash, 1, GRAMMAR_RAW_MAX, "states") < 0)
        return E_FULL;
    *out = s->d->state.n;
    s->d->state.p[s->d->state.n++] = d;
    s->begin.p[s->begin.n++] = s->member.n;
    s->hash.p[s->hash.n++] = hash;
    return 0;
}

/* At least half of it is free. A rule's first state is not in it: see rule_states. */
static int grow_table(struct subsets *s)
{
    uint32_t  n = s->n_table < 256 ? 256 : 2 * s->n_table, *p;

    if (2 * s->hash.n < s->n_table)
        return 0;
    p = grammar_alloc(s->m, n, sizeof(*p));
    if (p == NULL)
        return E_FULL;
    for (uint32_t i = 1; i < s->hash.n; i++) {
        uint32_t at = s->hash.p[i] & (n - 1);

        while (p[at] != 0)
            at = (at + 1) & (n - 1);
        p[at] = i + 1;
    }
    free(s->table);
    s->table = p;
    s->n_table = n;
    return 0;
}

static uint32_t hash_of(const uint32_t *p, uint32_t n)
{
    uint32_t h = n;

    for (uint32_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 0x9e3779b1u;
        h ^= h >> 15;
    }
    return h;
}

/* The state of these NFA states. Of one that stands alone it is remembered. */
static int state_of(struct subsets *s, const uint32_t *from, uint32_t n_from, uint32_t *out)
{
    uint32_t begin = s->member.n, n, hash, at;

    if (n_from == 1 && s->alone[from[0]] != 0) {
        *out = s->alone[from[0]] - 1;
        return 0;
    }
    if (closure(s, from, n_from) < 0 || grow_table(s) < 0)
        return E_FULL;
    n = s->member.n - begin;
    hash = hash_of(s->member.p + begin, n);
    for (at = hash & (s->n_table - 1); s->table[at] != 0; at = (at + 1) & (s->n_table - 1)) {
        uint32_t i = s->table[at] - 1;

        if (s->hash.p[i] == hash && s->begin.p[i + 1] - s->begin.p[i] == n
            && memcmp(s->member.p + s->begin.p[i], s->member.p + begin, n * sizeof(n)) == 0)
            break;
    }
    if (s->table[at] != 0) {
        s->member.n = begin;
        *out = s->first + s->table[at] - 1;
    } else {
        if (add_state(s, true, hash, out) < 0)
            return E_FULL;
        s->table[at] = *out - s->first + 1;
    }
    if (n_from == 1)
        s->alone[from[0]] = *out + 1;
    return 0;
}

static int add_edge(struct subsets *s, uint32_t lo, uint32_t hi, uint32_t to)
{
    if (vec_room(s->m, &s->edge, 1, GRAMMAR_EDGE_MAX, "edges") < 0)
        return E_FULL;
    s->edge.p[s->edge.n++] = (struct grammar_edge) { lo, hi, to };
    return 0;
}

static int node_edges(struct subsets *s, const struct nfa_state *f)
{
    struct grammar_make *m = s->m;
    uint32_t             end = f->arg + 1 < m->nodes.n ? m->nodes.p[f->arg + 1] : m->edges.n;

    for (uint32_t i = m->nodes.p[f->arg]; i < end; i++) {
        struct trie_edge e = m->edges.p[i];

        if (add_edge(s, e.lo, e.hi, e.to == TRIE_END ? f->to : f->base + e.to) < 0)
            return E_FULL;
    }
    return 0;
}

/* All ways out of a state's members. */
static int gather(struct subsets *s, uint32_t state)
{
    s->edge.n = s->token.n = s->call.n = 0;
    for (uint32_t i = s->begin.p[state]; i < s->begin.p[state + 1]; i++) {
        const struct nfa_state *f = &s->nfa->state.p[s->member.p[i]];
        int                     rc = 0;

        if (f->type == NFA_BYTE)
            rc = add_edge(s, f->byte, f->byte, f->to);
        else if (f->type == NFA_NODE)
            rc = node_edges(s, f);
        else if (f->type == NFA_TOKEN
                 && (rc = vec_room(s->m, &s->token, 1, GRAMMAR_EDGE_MAX, "edges")) == 0)
            s->token.p[s->token.n++] = (struct way) { f->arg, f->to };
        else if (f->type == NFA_CALL
                 && (rc = vec_room(s->m, &s->call, 1, GRAMMAR_EDGE_MAX, "edges")) == 0)
            s->call.p[s->call.n++] = (struct way) { f->arg, f->to };
        if (rc < 0)
            return rc;
    }
    return grammar_work(s->m, s->edge.n);
}

/* The bytes cut into ranges, each of whose bytes are in the same edges: part[byte] is the number
 * of its range. Returns how many. */
static uint32_t cut_ranges(const struct subsets *s, uint8_t part[256])
{
    bool     cut[257] = { 0 };
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->edge.n; i++)
        cut[s->edge.p[i].lo] = cut[s->edge.p[i].hi + 1] = true;
    for (uint32_t b = 0; b < 256; b++) {
        n += b > 0 && cut[b];
        part[b] = (uint8_t) n;
    }
    return n + 1;
}

static int put_edge(struct subsets *s, uint32_t lo, uint32_t hi, const uint32_t *target, uint32_t n)
{
    uint32_t to;

    if (n == 0)
        return 0;
    if (state_of(s, target, n, &to) < 0
        || vec_room(s->m, &s->d->edge, 1, GRAMMAR_EDGE_MAX, "edges") < 0)
        return E_FULL;
    s->d->edge.p[s->d->edge.n++] = (struct grammar_edge) { lo, hi, to };
    return 0;
}

/* Edges that overlap: each range of bytes leads to the subset of all that its edges lead to. */
static int put_ranges(struct subsets *s)
{
    uint8_t  part[256];
    uint32_t n_part = cut_ranges(s, part), at[257] = { 0 }, lo = 0;

    for (uint32_t i = 0; i < s->edge.n; i++)
        for (uint32_t k = part[s->edge.p[i].lo]; k <= part[s->edge.p[i].hi]; k++)
            at[k + 1]++;
    for (uint32_t k = 0; k < n_part; k++)
        at[k + 1] += at[k];
    s->target.n = 0;
    if (grammar_work(s->m, at[n_part] / 16) < 0
        || vec_room(s->m, &s->target, at[n_part], GRAMMAR_SUBSET_MAX, "steps in its states") < 0)
        return E_FULL;
    for (uint32_t i = 0; i < s->edge.n; i++)
        for (uint32_t k = part[s->edge.p[i].lo]; k <= part[s->edge.p[i].hi]; k++)
            s->target.p[at[k]++] = s->edge.p[i].to;

    /* at[k] is now where range k ends. */
    for (uint32_t k = 0; k < n_part; k++) {
        uint32_t begin = k > 0 ? at[k - 1] : 0, hi = lo;

        while (hi < 255 && part[hi + 1] == k)
            hi++;
        if (put_edge(s, lo, hi, s->target.p + begin, at[k] - begin) < 0)
            return E_FULL;
        lo = hi + 1;
    }
    return 0;
}

/* The byte edges of a state. Most have one member with edges, whose ranges are apart. */
static int put_edges(struct subsets *s)
{
    for (uint32_t i = 1; i < s->edge.n; i++)
        if (s->edge.p[i].lo <= s->edge.p[i - 1].hi)
            return put_ranges(s);
    for (uint32_t i = 0; i < s->edge.n; i++)
        if (put_edge(s, s->edge.p[i].lo, s->edge.p[i].hi, &s->edge.p[i].to, 1) < 0)
            return E_FULL;
    return 0;
}

static int by_key(const void *pa, const void *pb)
{
    const struct way *a = pa, *b = pb;

    return a->key < b->key ? -1 : a->key > b->key;
}

/* The ways from i on with one key, as a state. Returns how many they are, or E_FULL. */
static int same_key(struct subsets *s, const struct way *w, uint32_t n, uint32_t i, uint32_t *to)
{
    uint32_t k = i;

    s->target.n = 0;
    for (; k < n && w[k].key == w[i].key; k++) {
        if (vec_room(s->m, &s->target, 1, GRAMMAR_SUBSET_MAX, "steps in its states") < 0)
            return E_FULL;
        s->target.p[s->target.n++] = w[k].to;
    }
    return state_of(s, s->target.p, s->target.n, to) < 0 ? E_FULL : (int) (k - i);
}

static int put_tokens(struct subsets *s)
{
    struct dfa *d = s->d;
    uint32_t    to;

    if (s->token.n > 1)
        qsort(s->token.p, s->token.n, sizeof(struct way), by_key);
    for (uint32_t i = 0; i < s->token.n; ) {
        int n = same_key(s, s->token.p, s->token.n, i, &to);

        if (n < 0 || vec_room(s->m, &d->token, 1, GRAMMAR_EDGE_MAX, "edges") < 0)
            return E_FULL;
        d->token.p[d->token.n++] = (struct grammar_token) { (int32_t) s->token.p[i].key, to };
        i += (uint32_t) n;
    }
    return 0;
}

static int put_calls(struct subsets *s)
{
    struct dfa *d = s->d;
    uint32_t    to;

    if (s->call.n > 1)
        qsort(s->call.p, s->call.n, sizeof(struct way), by_key);
    for (uint32_t i = 0; i < s->call.n; ) {
        int n = same_key(s, s->call.p, s->call.n, i, &to);

        if (n < 0 || vec_room(s->m, &d->call, 1, GRAMMAR_EDGE_MAX, "edges") < 0)
            return E_FULL;
        d->call.p[d->call.n++] = (struct grammar_call) { s->call.p[i].key, to };
        i += (uint32_t) n;
    }
    return 0;
}

/* A rule's first state is not the one that the same subset gets later: it does not accept. */
static int rule_states(struct subsets *s, uint32_t rule)
{
    struct dfa *d = s->d;

    s->first = d->state.n;
    s->member.n = s->hash.n = s->begin.n = s->n_table = 0;
    if (vec_room(s->m, &s->begin, 1, GRAMMAR_RAW_MAX + 1, "states") < 0)
        return E_FULL;
    s->begin.p[s->begin.n++] = 0;
    if (closure(s, &s->nfa->start[rule], 1) < 0 || add_state(s, rule == 0, 0, &d->rule[rule]) < 0)
        return E_FULL;
    for (uint32_t i = s->first; i < d->state.n; i++) {
        d->state.p[i].edge = d->edge.n;
        d->state.p[i].token = d->token.n;
        d->state.p[i].call = d->call.n;
        if (gather(s, i - s->first) < 0 || put_edges(s) < 0 || put_tokens(s) < 0
            || put_calls(s) < 0)
            return E_FULL;
    }
    return 0;
}

static int all_rules(struct subsets *s)
{
    struct dfa *d = s->d;

    for (uint32_t r = 0; r < d->n_rule; r++) {
        d->rule[r] = GRAMMAR_NONE;
        if (s->nfa->start[r] != GRAMMAR_NONE && rule_states(s, r) < 0)
            return E_FULL;
    }
    if (vec_room(s->m, &d->state, 1, GRAMMAR_RAW_MAX + 1, "states") < 0)
        return E_FULL;
    d->state.p[d->state.n] = (struct grammar_state) {
        .edge = d->edge.n, .token = d->token.n, .call = d->call.n,
    };
    return 0;
}

int grammar_dfa(struct grammar_make *m, const struct nfa *n, struct dfa *out)
{
    struct subsets s = { .m = m, .nfa = n, .d = out };
    uint32_t      *p = grammar_alloc(m, 3 * (uint64_t) n->state.n, sizeof(*p));
    int            rc = E_FULL;

    out->n_rule = n->n_rule;
    out->rule = grammar_alloc(m, n->n_rule, sizeof(*out->rule));
    if (p != NULL && out->rule != NULL) {
        s.mark = p;
        s.pend = p + n->state.n;
        s.alone = p + 2 * (size_t) n->state.n;
        rc = all_rules(&s);
    }
    free(p);
    free(s.member.p);
    free(s.begin.p);
    free(s.hash.p);
    free(s.table);
    free(s.edge.p);
    free(s.token.p);
    free(s.call.p);
    free(s.target.p);
    return rc;
}

void grammar_dfa_free(struct dfa *d)
{
    free(d->state.p);
    free(d->edge.p);
    free(d->token.p);
    free(d->call.p);
    free(d->rule);
}
