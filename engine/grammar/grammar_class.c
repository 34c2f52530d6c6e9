/* Refinement in rounds, as Moore has it, that looks only at what may have changed: a class that
 * falls apart leaves its number to its largest part, and in the next round those states are looked
 * at again that have an edge into a part with a new number. A state's number changes at most log n
 * times so, and the rest of the round is in proportion: a chain of n states, which falls apart one
 * by one in n rounds, takes O(n) in all. */
#include "grammar_priv.h"

#include <stdlib.h>
#include <string.h>

struct refine {
    struct grammar_make *m;
    struct classes      *c;
    uint32_t *place;                     /* [n] where a state is in member */
    uint32_t *size, *n_again;            /* [n] of a class; of its states, looked at this round:
                                            they come first in it */
    uint32_t *in_begin, *in;             /* [n + 1] [edges] states with edges into a state */
    uint32_t *again, n_list;             /* [n] states to look at */
    uint32_t *class, n_touched;          /* [n] their classes */
    uint32_t *hash, *part;               /* [n] of a state's edges; its part of its class */
    uint32_t *sorted;                    /* [n] the same as again, which waits for no one then */
    uint32_t *moved;                     /* [n] states with a new number; the same as part, which
                                            nobody asks for then */
    uint32_t *part_size;                 /* [n + 1] */
    uint32_t *table;                     /* 1 + state, by hash; a power of two, > 2 n */
};

/* Bytes lo .. hi lead to one class; edges that touch and lead alike are one. */
struct range { uint32_t at, end, lo, hi, to; };

static bool next_range(const struct classes *c, struct range *r)
{
    const struct grammar_edge *e = c->edge;

    if (r->at == r->end)
        return false;
    r->lo = e[r->at].lo;
    r->to = c->of[e[r->at].to];
    do
        r->hi = e[r->at++].hi;
    while (r->at < r->end && e[r->at].lo == r->hi + 1 && c->of[e[r->at].to] == r->to);
    return true;
}

static uint32_t mix(uint32_t h, uint32_t x)
{
    h = (h ^ x) * 0x9e3779b1u;
    return h ^ h >> 15;
}

static uint32_t hash_of(const struct classes *c, uint32_t s)
{
    const struct grammar_state *p = &c->state[s];
    struct range r = { .at = p->edge, .end = p[1].edge };
    uint32_t     h = p->accept;

    while (next_range(c, &r))
        h = mix(mix(h, r.lo << 8 | r.hi), r.to);
    for (uint32_t i = p->token; i < p[1].token; i++)
        h = mix(mix(h, (uint32_t) c->token[i].id), c->of[c->token[i].to]);
    for (uint32_t i = p->call; i < p[1].call; i++)
        h = mix(mix(h, c->call[i].rule), c->of[c->call[i].to]);
    return h;
}

static bool agree(const struct classes *c, uint32_t s, uint32_t t)
{
    const struct grammar_state *p = &c->state[s], *q = &c->state[t];
    uint32_t     n_token = p[1].token - p->token, n_call = p[1].call - p->call;
    struct range a = { .at = p->edge, .end = p[1].edge }, b = { .at = q->edge, .end = q[1].edge };

    if (p->accept != q->accept || n_token != q[1].token - q->token
        || n_call != q[1].call - q->call)
        return false;
    while (next_range(c, &a))
        if (!next_range(c, &b) || a.lo != b.lo || a.hi != b.hi || a.to != b.to)
            return false;
    if (next_range(c, &b))
        return false;
    for (uint32_t i = 0; i < n_token; i++) {
        const struct grammar_token *x = &c->token[p->token + i], *y = &c->token[q->token + i];

        if (x->id != y->id || c->of[x->to] != c->of[y->to])
            return false;
    }
    for (uint32_t i = 0; i < n_call; i++) {
        const struct grammar_call *x = &c->call[p->call + i], *y = &c->call[q->call + i];

        if (x->rule != y->rule || c->of[x->to] != c->of[y->to])
            return false;
    }
    return true;
}

/* Who leads to whom, by counting. */
static void find_ways_in(struct refine *f)
{
    const struct classes *c = f->c;
    uint32_t              n_edge = c->state[c->n].edge, n_token = c->state[c->n].token;
    uint32_t              n_call = c->state[c->n].call;

    for (uint32_t i = 0; i < n_edge; i++)
        f->in_begin[c->edge[i].to]++;
    for (uint32_t i = 0; i < n_token; i++)
        f->in_begin[c->token[i].to]++;
    for (uint32_t i = 0; i < n_call; i++)
        f->in_begin[c->call[i].to]++;
    for (uint32_t s = 0; s < c->n; s++)
        f->in_begin[s + 1] += f->in_begin[s];

    /* in_begin[s] is where those of s end; filled from there down. */
    for (uint32_t s = 0; s < c->n; s++) {
        const struct grammar_state *p = &c->state[s];

        for (uint32_t i = p->edge; i < p[1].edge; i++)
            f->in[--f->in_begin[c->edge[i].to]] = s;
        for (uint32_t i = p->token; i < p[1].token; i++)
            f->in[--f->in_begin[c->token[i].to]] = s;
        for (uint32_t i = p->call; i < p[1].call; i++)
            f->in[--f->in_begin[c->call[i].to]] = s;
    }
}

/* s is looked at in the coming round: it moves to the front of its class. */
static void look_again(struct refine *f, uint32_t s)
{
    struct classes *c = f->c;
    uint32_t        k = c->of[s], to = c->first[k] + f->n_again[k], at = f->place[s];

    if (at < to)
        return;
    if (f->n_again[k]++ == 0)
        f->class[f->n_touched++] = k;
    c->member[at] = c->member[to];
    f->place[c->member[at]] = at;
    c->member[to] = s;
    f->place[s] = to;
    f->again[f->n_list++] = s;
}

/* Sort the states of class k that are looked at into parts that agree. Returns how many. */
static uint32_t find_parts(struct refine *f, uint32_t k)
{
    const struct classes *c = f->c;
    const uint32_t       *p = &c->member[c->first[k]];
    uint32_t              n = f->n_again[k], mask = 1, n_part = 0;

    while (mask < 2 * n)
        mask *= 2;
    memset(f->table, 0, mask * sizeof(*f->table));
    mask--;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = f->hash[p[i]] & mask, t;

        while ((t = f->table[at]) != 0
               && (f->hash[t - 1] != f->hash[p[i]] || !agree(c, t - 1, p[i])))
            at = (at + 1) & mask;
        if (t == 0) {
            f->table[at] = p[i] + 1;
            f->part_size[n_part] = 0;
            f->part[p[i]] = n_part++;
        } else {
            f->part[p[i]] = f->part[t - 1];
        }
        f->part_size[f->part[p[i]]]++;
    }
    return n_part;
}

/* The states of class k that are looked at, in order of their parts. */
static void sort_parts(struct refine *f, uint32_t k, uint32_t n_part)
{
    struct classes *c = f->c;
    uint32_t       *p = &c->member[c->first[k]], n = f->n_again[k], sum = 0;

    for (uint32_t i = 0; i < n_part; i++) {
        sum += f->part_size[i];
        f->part_size[i] = sum;           /* where it ends */
    }
    for (uint32_t i = n; i-- > 0; )
        f->sorted[--f->part_size[f->part[p[i]]]] = p[i];
    for (uint32_t i = 0; i < n; i++) {
        p[i] = f->sorted[i];
        f->place[p[i]] = c->first[k] + i;
    }
    f->part_size[n_part] = n;            /* and part_size[i] is where part i begins */
}

/* Class k falls apart; those that were not looked at are a part, too: none of them agrees with one
 * that was, which has an edge to a class that was not there when they were last told apart. */
static void split(struct refine *f, uint32_t k)
{
    struct classes *c = f->c;
    uint32_t        n_part = find_parts(f, k), from = c->first[k], all = f->size[k], big = 0;

    if (n_part == 1 && f->n_again[k] == all)
        return;
    sort_parts(f, k, n_part);
    if (f->n_again[k] < all)
        f->part_size[++n_part] = all;
    for (uint32_t i = 1; i < n_part; i++)
        if (f->part_size[i + 1] - f->part_size[i] > f->part_size[big + 1] - f->part_size[big])
            big = i;
    for (uint32_t i = 0; i < n_part; i++) {
        uint32_t id = i == big ? k : c->n_class++;

        c->first[id] = from + f->part_size[i];
        f->size[id] = f->part_size[i + 1] - f->part_size[i];
    }
}

/* One round; what the next will look at is left in again. */
static int refine_round(struct refine *f)
{
    struct classes *c = f->c;
    uint32_t        old = c->n_class, n_touched = f->n_touched, n_moved = 0;

    for (uint32_t i = 0; i < f->n_list; i++) {
        const struct grammar_state *p = &c->state[f->again[i]];

        f->hash[f->again[i]] = hash_of(c, f->again[i]);
        if (grammar_work(f->m, 1 + p[1].edge - p->edge + p[1].call - p->call) < 0)
            return E_FULL;
    }
    for (uint32_t i = 0; i < n_touched; i++) {
        if (f->size[f->class[i]] > 1)
            split(f, f->class[i]);
        f->n_again[f->class[i]] = 0;
    }
    f->n_list = f->n_touched = 0;
    /* Apart, because look_again moves the members of classes, of those with new numbers, too. */
    for (uint32_t k = old; k < c->n_class; k++)
        for (uint32_t i = 0; i < f->size[k]; i++) {
            f->moved[n_moved] = c->member[c->first[k] + i];
            c->of[f->moved[n_moved++]] = k;
        }
    for (uint32_t i = 0; i < n_moved; i++) {
        uint32_t s = f->moved[i];

        if (grammar_work(f->m, 1 + f->in_begin[s + 1] - f->in_begin[s]) < 0)
            return E_FULL;
        for (uint32_t j = f->in_begin[s]; j < f->in_begin[s + 1]; j++)
            look_again(f, f->in[j]);
    }
    return 0;
}

static int refine(struct refine *f, uint32_t rounds)
{
    struct classes *c = f->c;

    f->size[0] = c->n;
    c->n_class = 1;
    for (uint32_t s = 0; s < c->n; s++)
        c->member[s] = f->place[s] = s;
    for (uint32_t s = 0; s < c->n; s++)
        look_again(f, s);
    for (; rounds > 0 && f->n_list > 0; rounds--)
        if (refine_round(f) < 0)
            return E_FULL;
    return 0;
}

int grammar_classes(struct grammar_make *m, struct classes *c, uint32_t rounds)
{
    uint32_t       n = c->n, n_table = 2;
    uint64_t       n_in = (uint64_t) c->state[n].edge + c->state[n].token + c->state[n].call;
    struct refine  f = { .m = m, .c = c };
    uint32_t      *p;

    while (n_table < 2 * n)
        n_table *= 2;
    c->memory = p = grammar_alloc(m, 12 * ((uint64_t) n + 1) + n_in + n_table, sizeof(*p));
    if (p == NULL)
        return E_FULL;
    uint32_t **part[] = { &c->of, &c->first, &c->member, &f.place, &f.size, &f.n_again,
                          &f.in_begin, &f.again, &f.class, &f.hash, &f.part, &f.part_size };
    for (uint32_t i = 0; i < sizeof(part) / sizeof(part[0]); i++, p += n + 1)
        *part[i] = p;
    f.in = p;
    f.table = p + n_in;
    f.sorted = f.again;
    f.moved = f.part;
    find_ways_in(&f);
    return refine(&f, rounds);
}

void grammar_classes_free(struct classes *c)
{
    free(c->memory);
}
