#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "prefix.h"

struct node {                    /* of the page with the same number */
    struct hash128 key, root;
    int32_t parent;              /* NO_NODE: the first page */
    int32_t next;                /* in its bucket */
    int32_t depth;               /* pages up to and with this one; 0: not in the tree */
    int32_t n_child;
    int32_t n_kept;              /* of a point */
    int32_t n_used;              /* times that the point was taken up */
    bool    point;
    enum point_kind kind, habit; /* of the point; of the chat that made it */
    int32_t newer, older;        /* of a point, in the order of use */
};

#define GHOST_LOOK_MAX  128      /* pages of a prompt, last first, looked up among the ghosts */
#define THRASH_MIN      0.1      /* share of requests that would have hit a ghost */

struct prefix {
    struct prefix_conf c;
    struct page_pool  *full, *sliding;
    struct node       *node;     /* [full->n] */
    int32_t           *tok;      /* [full->n, page_tok] */
    int32_t           *kept;     /* [full->n, keep_max] */
    int32_t           *bucket;   /* [bucket_mask + 1] first node, or NO_NODE */
    uint64_t           bucket_mask;
    uint64_t          *ghost;    /* [bucket_mask + 1] key.a of evicted points, at key.b */
    double             thrash;   /* share of the last requests that would have hit one */
    uint32_t           n_lost;   /* such requests */
    int32_t            newest, oldest;
    struct prefix_count count;
};

int prefix_open(struct prefix **out, const struct prefix_conf *c, struct page_pool *full,
                struct page_pool *sliding, struct err *e)
{
    size_t n = (size_t) full->n, n_bucket = 1;
    struct prefix *p = calloc(1, sizeof(*p));

    while (n_bucket < 2 * n)
        n_bucket *= 2;
    if (p != NULL) {
        p->node = calloc(n, sizeof(*p->node));
        p->tok = calloc(n, (size_t) c->page_tok * sizeof(int32_t));
        p->kept = calloc(n, ((size_t) c->keep_max + 1) * sizeof(int32_t));
        p->bucket = malloc(n_bucket * sizeof(int32_t));
        p->ghost = calloc(n_bucket, sizeof(uint64_t));
    }
    if (p == NULL || p->node == NULL || p->tok == NULL || p->kept == NULL || p->bucket == NULL
        || p->ghost == NULL) {
        prefix_close(p);
        return err_set(e, E_IO, "prefix cache: out of memory for %d pages", full->n);
    }

    p->c = *c;
    p->full = full;
    p->sliding = sliding;
    p->bucket_mask = n_bucket - 1;
    p->newest = p->oldest = NO_NODE;
    memset(p->bucket, 0xff, n_bucket * sizeof(int32_t));
    *out = p;
    return 0;
}

void prefix_close(struct prefix *p)
{
    if (p == NULL)
        return;
    free(p->node);
    free(p->tok);
    free(p->kept);
    free(p->bucket);
    free(p->ghost);
    free(p);
}

struct hash128 prefix_key(const struct prefix *p, struct hash128 above, const int32_t *tok)
{
    uint64_t w[2] = { above.a, above.b };
    struct hash128 h = hash_bytes(&p->c.key, w, 2, tok, (size_t) p->c.page_tok * sizeof(int32_t));

    return (struct hash128) { h.a & p->c.hash_mask, h.b & p->c.hash_mask };
}

static int32_t *node_tok(const struct prefix *p, int32_t node)
{
    return p->tok + (size_t) node * (size_t) p->c.page_tok;
}

static int32_t *node_kept(const struct prefix *p, int32_t node)
{
    return p->kept + (size_t) node * (size_t) p->c.keep_max;
}

static bool same(struct hash128 x, struct hash128 y)
{
    return x.a == y.a && x.b == y.b;
}

static int32_t find(const struct prefix *p, int32_t parent, struct hash128 root,
                    struct hash128 key, const int32_t *tok)
{
    int32_t n = p->bucket[key.a & p->bucket_mask];

    while (n != NO_NODE) {
        const struct node *v = &p->node[n];

        if (same(v->key, key) && v->parent == parent && same(v->root, root)
            && memcmp(node_tok(p, n), tok, (size_t) p->c.page_tok * sizeof(int32_t)) == 0)
            break;
        n = v->next;
    }
    return n;
}

static struct hash128 key_above(const struct prefix *p, int32_t parent, struct hash128 root)
{
    return parent != NO_NODE ? p->node[parent].key : root;
}

static uint64_t *ghost_of(const struct prefix *p, struct hash128 key)
{
    return &p->ghost[key.b & p->bucket_mask];
}

static bool had_more(const struct prefix *p, const struct hash128 *key, int32_t n_key,
                     int32_t n_hit)
{
    int32_t first = n_key - GHOST_LOOK_MAX > n_hit ? n_key - GHOST_LOOK_MAX : n_hit;

    for (int32_t i = n_key - 1; i >= first; i--)
        if (*ghost_of(p, key[i]) == key[i].a)
            return true;
    return false;
}

struct prefix_hit prefix_match(const struct prefix *p, struct hash128 root, const int32_t *tok,
                               int32_t n_page, const struct hash128 *key, int32_t n_key)
{
    struct prefix_hit hit = { .node = NO_NODE };
    int32_t at = NO_NODE;

    for (int32_t i = 0; i < n_page; i++, tok += p->c.page_tok) {
        at = find(p, at, root, i < n_key ? key[i] : prefix_key(p, key_above(p, at, root), tok),
                  tok);
        if (at == NO_NODE)
            break;
        hit.n_known = i + 1;
        if (p->node[at].point) {
            hit.node = at;
            hit.n_page = i + 1;
        }
    }
    hit.ghost = had_more(p, key, n_key < n_page ? n_key : n_page, hit.n_page);
    return hit;
}

int32_t prefix_parent(const struct prefix *p, int32_t node)
{
    return p->node[node].parent;
}

void prefix_path(const struct prefix *p, int32_t node, int32_t *out)
{
    for (; node != NO_NODE; node = p->node[node].parent)
        out[p->node[node].depth - 1] = node;
}

int32_t prefix_kept(const struct prefix *p, int32_t node, const int32_t **page)
{
    assert(p->node[node].point);
    *page = node_kept(p, node);
    return p->node[node].n_kept;
}

/* --- the order of use --- */

static void unlink_point(struct prefix *p, int32_t n)
{
    struct node *v = &p->node[n];

    *(v->newer != NO_NODE ? &p->node[v->newer].older : &p->newest) = v->older;
    *(v->older != NO_NODE ? &p->node[v->older].newer : &p->oldest) = v->newer;
}

static void link_newest(struct prefix *p, int32_t n)
{
    p->node[n].newer = NO_NODE;
    p->node[n].older = p->newest;
    *(p->newest != NO_NODE ? &p->node[p->newest].newer : &p->oldest) = n;
    p->newest = n;
}

static void link_oldest(struct prefix *p, int32_t n)
{
    p->node[n].older = NO_NODE;
    p->node[n].newer = p->oldest;
    *(p->oldest != NO_NODE ? &p->node[p->oldest].older : &p->newest) = n;
    p->oldest = n;
}

/* Whoever takes up the end of a prompt though an answer follows there does not send it as it was.
 * If the answer was evicted nothing is learned. */
static enum point_kind habit(const struct prefix *p, const struct prefix_hit *hit)
{
    const struct node *v = &p->node[hit->node];

    if (v->kind == POINT_PROMPT && v->n_child == 0)
        return v->habit;
    if (v->kind == POINT_PROMPT && (v->n_child > 1 || hit->n_known > hit->n_page))
        return POINT_OTHER;
    return v->kind;
}

struct prefix_habit prefix_admit(struct prefix *p, const struct prefix_hit *hit)
{
    struct prefix_habit h = { POINT_OTHER, false };

    p->thrash += (hit->ghost - p->thrash) / 64;
    if (hit->node != NO_NODE) {
        h.next = habit(p, hit);
        p->node[hit->node].n_used++;
        unlink_point(p, hit->node);
        link_newest(p, hit->node);
    }
    h.old = hit->ghost && p->thrash > THRASH_MIN && ++p->n_lost % PREFIX_ADOPT != 0;
    return h;
}

void prefix_age(struct prefix *p, int32_t node)
{
    for (; node != NO_NODE; node = p->node[node].parent) {
        struct node *v = &p->node[node];

        if (v->n_child > 1 || (v->point && v->n_used > 1))
            return;
        if (v->point) {
            unlink_point(p, node);
            link_oldest(p, node);
        }
    }
}

/* --- nodes --- */

int32_t prefix_add(struct prefix *p, int32_t parent, struct hash128 root, const int32_t *tok,
                   int32_t page)
{
    struct node *v = &p->node[page];
    struct hash128 key = prefix_key(p, key_above(p, parent, root), tok);
    int32_t *head = &p->bucket[key.a & p->bucket_mask], known = find(p, parent, root, key, tok);

    if (known != NO_NODE)
        return known;

    assert(v->depth == 0 && (parent == NO_NODE || p->node[parent].depth > 0));
    *v = (struct node) { .key = key, .root = root, .parent = parent, .next = *head, .depth = 1 };
    *head = page;
    memcpy(node_tok(p, page), tok, (size_t) p->c.page_tok * sizeof(int32_t));
    page_keep(p->full, page);
    if (parent != NO_NODE) {
        v->depth = p->node[parent].depth + 1;
        p->node[parent].n_child++;
    }
    p->count.n_node++;
    return page;
}

static void forget(struct prefix *p, int32_t n)
{
    struct node *v = &p->node[n];
    int32_t *link = &p->bucket[v->key.a & p->bucket_mask];

    while (*link != n)
        link = &p->node[*link].next;
    *link = v->next;
    if (v->parent != NO_NODE)
        p->node[v->parent].n_child--;
    v->depth = 0;
    p->count.n_node--;
    page_unkeep(p->full, n);
}

void prefix_trim(struct prefix *p, int32_t node)
{
    int32_t parent;

    for (; node != NO_NODE; node = parent) {
        struct node *v = &p->node[node];

        if (v->n_child > 0 || v->point || p->full->live[node] > 0)
            return;
        parent = v->parent;
        forget(p, node);
    }
}

void prefix_point(struct prefix *p, int32_t node, const int32_t *sliding, int32_t n,
                  struct prefix_habit habit, enum point_kind kind)
{
    struct node *v = &p->node[node];

    assert(v->depth > 0 && n <= p->c.keep_max);
    if (v->point) {
        v->kind = kind == v->kind ? kind : POINT_OTHER;
        return;
    }

    v->point = true;
    v->kind = kind;
    v->habit = habit.next;
    v->n_used = 0;
    v->n_kept = n;
    for (int32_t i = 0; i < n; i++) {
        node_kept(p, node)[i] = sliding[i];
        page_keep(p->sliding, sliding[i]);
    }
    if (habit.old)
        link_oldest(p, node);
    else
        link_newest(p, node);
    p->count.n_point++;
}

bool prefix_evict(struct prefix *p)
{
    int32_t n = p->oldest;

    if (n == NO_NODE)
        return false;
    unlink_point(p, n);
    p->node[n].point = false;
    *ghost_of(p, p->node[n].key) = p->node[n].key.a;
    for (int32_t i = 0; i < p->node[n].n_kept; i++)
        page_unkeep(p->sliding, node_kept(p, n)[i]);
    p->count.n_point--;
    p->count.n_evicted++;
    prefix_trim(p, n);
    return true;
}

int32_t prefix_next_point(const struct prefix *p, int32_t node)
{
    return node == NO_NODE ? p->newest : p->node[node].older;
}

struct prefix_count prefix_count(const struct prefix *p)
{
    return p->count;
}
