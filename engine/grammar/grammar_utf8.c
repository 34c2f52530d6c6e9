/* A set of characters becomes the smallest acyclic automaton of their UTF-8: its ranges are cut
 * where the length of a character or a whole block of continuation bytes ends, so that each piece
 * is a row of at most four byte ranges. The rows come in ascending order, so at any time only the
 * nodes on the way to the last one are open; what is left behind is closed, and a closed node that
 * equals an older one is that one. */
#include "grammar_priv.h"

#include <stdlib.h>
#include <string.h>

/* A range is at most 21 rows, of which each closes at most 3 nodes; and no set has more different
 * nodes than there are blocks of 64 characters, of 4,096, and leading bytes. */
#define NODE_MAX (0x110000 / 64 + 0x110000 / 4096 + 256)

struct open_node { uint32_t n; struct trie_edge edge[256]; };

struct trie {
    struct grammar_make *m;
    struct open_node     open[4];        /* [0]: where a character begins */
    uint32_t             n_open;
    uint32_t             node, edge;     /* where this set begins in m */
    uint32_t            *next;           /* closed nodes of one hash */
    uint32_t             bucket[256];    /* 1 + the newest of a hash */
};

static uint32_t hash_edges(const struct trie_edge *e, uint32_t n)
{
    uint32_t h = n;

    for (uint32_t i = 0; i < n; i++) {
        h = (h ^ ((uint32_t) e[i].lo | (uint32_t) e[i].hi << 8 | (uint32_t) e[i].to << 16))
            * 0x9e3779b1u;
        h ^= h >> 15;
    }
    return h;
}

/* The closed node with these edges, made if it is new. */
static int close_node(struct trie *t, const struct open_node *o)
{
    struct grammar_make *m = t->m;
    uint32_t *bucket = &t->bucket[hash_edges(o->edge, o->n) % 256];
    uint32_t  id = m->nodes.n - t->node;

    for (uint32_t i = *bucket; i != 0; i = t->next[i - 1]) {
        uint32_t from = m->nodes.p[t->node + i - 1];
        uint32_t to = t->node + i < m->nodes.n ? m->nodes.p[t->node + i] : m->edges.n;

        if (grammar_work(m, 1) < 0)
            return -1;
        if (to - from == o->n
            && memcmp(&m->edges.p[from], o->edge, o->n * sizeof(o->edge[0])) == 0)
            return (int) i - 1;
    }
    if (vec_room(m, &m->nodes, 1, GRAMMAR_TRIE_MAX, "nodes of character sets") < 0
        || vec_room(m, &m->edges, o->n, 4 * GRAMMAR_TRIE_MAX, "edges of character sets") < 0)
        return -1;
    m->nodes.p[m->nodes.n++] = m->edges.n;
    if (o->n > 0)
        memcpy(&m->edges.p[m->edges.n], o->edge, o->n * sizeof(o->edge[0]));
    m->edges.n += o->n;
    t->next[id] = *bucket;
    *bucket = id + 1;
    return (int) id;
}

/* Close all open nodes below the first keep ones. The last edge of the one above leads there, and
 * is one with the edge before it if they go on in the same way. */
static int close_below(struct trie *t, uint32_t keep)
{
    while (t->n_open > keep) {
        struct open_node *up = &t->open[t->n_open - 2];
        struct trie_edge *last = &up->edge[up->n - 1];
        int               id = close_node(t, &t->open[--t->n_open]);

        if (id < 0)
            return -1;
        last->to = (uint16_t) id;
        if (up->n > 1 && last[-1].to == last->to && last[-1].hi + 1 == last->lo) {
            last[-1].hi = last->hi;
            up->n--;
        }
    }
    return 0;
}

/* Add a row of byte ranges. */
static int add_row(struct trie *t, const struct trie_edge *row, uint32_t n)
{
    uint32_t same = 0;
    struct open_node *o;

    /* Ranges at one place are equal or disjoint: see above how they were cut. */
    while (same + 1 < t->n_open && same + 1 < n && t->open[same].n > 0
           && t->open[same].edge[t->open[same].n - 1].lo == row[same].lo
           && t->open[same].edge[t->open[same].n - 1].hi == row[same].hi)
        same++;
    if (close_below(t, same + 1) < 0)
        return -1;
    for (uint32_t i = same; i < n; i++) {
        if (i > same)
            t->open[t->n_open++].n = 0;
        o = &t->open[i];
        o->edge[o->n++] = (struct trie_edge) { row[i].lo, row[i].hi, TRIE_END };
    }
    o = &t->open[n - 1];
    if (o->n > 1 && o->edge[o->n - 2].to == TRIE_END
        && o->edge[o->n - 2].hi + 1 == o->edge[o->n - 1].lo) {
        o->edge[o->n - 2].hi = o->edge[o->n - 1].hi;
        o->n--;
    }
    return 0;
}

static uint32_t utf8_len(uint32_t c)
{
    return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
}

static void utf8_put(uint8_t *p, uint32_t c, uint32_t n)
{
    static const uint8_t lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };

    for (uint32_t i = n; i-- > 1; c >>= 6)
        p[i] = (uint8_t) (0x80 | (c & 0x3f));
    p[0] = (uint8_t) (lead[n] | c);
}

/* The greatest hi such that lo .. hi is one row: bytes that differ are followed by whole ranges of
 * continuation bytes alone. */
static uint32_t row_end(uint32_t lo, uint32_t hi)
{
    static const uint32_t len_max[] = { 0, 0x7f, 0x7ff, 0xffff, 0x10ffff };
    uint32_t n = utf8_len(lo), bits = 6 * (n - 1), end;

    if (hi > len_max[n])
        hi = len_max[n];
    for (; bits > 0; bits -= 6) {
        uint32_t low = (1u << bits) - 1;

        if ((lo & low) != 0 || lo + low > hi)
            continue;
        /* Whole blocks of so many bits, while what is above the next six stays. */
        end = lo | low << 6 | 0x3f;
        return (((hi < end ? hi : end) + 1) & ~low) - 1;
    }
    end = n == 1 ? 0x7f : lo | 0x3f;
    return hi < end ? hi : end;
}

static int add_range(struct trie *t, uint32_t lo, uint32_t hi)
{
    while (lo <= hi) {
        uint32_t         end = row_end(lo, hi), n = utf8_len(lo);
        uint8_t          a[4], b[4];
        struct trie_edge row[4];

        utf8_put(a, lo, n);
        utf8_put(b, end, n);
        for (uint32_t i = 0; i < n; i++)
            row[i] = (struct trie_edge) { a[i], b[i], 0 };
        if (grammar_work(t->m, 1) < 0 || add_row(t, row, n) < 0)
            return -1;
        lo = end + 1;
    }
    return 0;
}

static int by_lo(const void *pa, const void *pb)
{
    const struct code_range *a = pa, *b = pb;

    return a->lo < b->lo ? -1 : a->lo > b->lo;
}

/* Ascending, neither overlapping nor touching; surrogates cut out by add_chars. */
static size_t merge(struct code_range *r, size_t n)
{
    size_t k = 0;

    qsort(r, n, sizeof(*r), by_lo);
    for (size_t i = 0; i < n; i++) {
        if (r[i].lo > r[i].hi || r[i].lo > 0x10ffff)
            continue;
        if (r[i].hi > 0x10ffff)
            r[i].hi = 0x10ffff;
        if (k > 0 && r[i].lo <= r[k - 1].hi + 1) {
            if (r[i].hi > r[k - 1].hi)
                r[k - 1].hi = r[i].hi;
        } else {
            r[k++] = r[i];
        }
    }
    return k;
}

static int add_chars(struct trie *t, const struct code_range *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((r[i].lo < 0xd800
             && add_range(t, r[i].lo, r[i].hi < 0xd800 ? r[i].hi : 0xd7ff) < 0)
            || (r[i].hi > 0xdfff
                && add_range(t, r[i].lo > 0xdfff ? r[i].lo : 0xe000, r[i].hi) < 0))
            return -1;
    return close_below(t, 1) < 0 ? -1 : close_node(t, &t->open[0]);
}

/* An older set with the same automaton as the one just made, which goes; or the new one. */
static int same_set(struct grammar_make *m, const struct trie *t)
{
    struct char_set s = { .node = t->node, .n_node = m->nodes.n - t->node, .edge = t->edge,
                          .n_edge = m->edges.n - t->edge };
    uint32_t       *bucket;

    s.hash = hash_edges(&m->edges.p[s.edge], s.n_edge);
    bucket = &m->bucket[s.hash % 256];
    for (uint32_t i = *bucket; i != 0; i = m->sets.p[i - 1].next) {
        const struct char_set *o = &m->sets.p[i - 1];
        bool                   same = o->hash == s.hash && o->n_node == s.n_node
                                      && o->n_edge == s.n_edge;

        for (uint32_t k = 0; same && k < s.n_node; k++)
            same = m->nodes.p[o->node + k] - o->edge == m->nodes.p[s.node + k] - s.edge;
        if (same && memcmp(&m->edges.p[o->edge], &m->edges.p[s.edge],
                           s.n_edge * sizeof(struct trie_edge)) == 0) {
            m->nodes.n = s.node;
            m->edges.n = s.edge;
            return (int) i - 1;
        }
    }
    if (vec_room(m, &m->sets, 1, GRAMMAR_SET_MAX, "sets of characters") < 0)
        return -1;
    s.next = *bucket;
    m->sets.p[m->sets.n++] = s;
    *bucket = m->sets.n;
    return (int) m->sets.n - 1;
}

int grammar_char_set(struct grammar_make *m, const struct code_range *r, size_t n)
{
    struct trie       *t = NULL;
    struct code_range *own = NULL;
    int                set = -1;

    if (n > GRAMMAR_RANGE_MAX)
        return grammar_fail(m, E_FULL, "a set of characters has more than %u ranges",
                            GRAMMAR_RANGE_MAX);
    own = grammar_alloc(m, n, sizeof(*own));
    t = own != NULL ? grammar_alloc(m, 1, sizeof(*t)) : NULL;
    if (t != NULL)
        t->next = grammar_alloc(m, 64 * n < NODE_MAX ? 64 * n + 1 : NODE_MAX, sizeof(*t->next));
    if (t != NULL && t->next != NULL) {
        t->m = m;
        t->n_open = 1;
        t->node = m->nodes.n;
        t->edge = m->edges.n;
        if (n > 0)
            memcpy(own, r, n * sizeof(*own));
        if (add_chars(t, own, merge(own, n)) >= 0)
            set = same_set(m, t);
        free(t->next);
    }
    free(t);
    free(own);
    return set;
}
