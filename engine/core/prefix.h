/* prefix.h - the prefix cache: full pages known by their tokens, and where one may start from them.
 *
 * A page of the full pool whose tokens are all known is a node of a tree: its key is the hash of
 * its tokens and of its parent's key, so equal keys mean equal prefixes; a lookup compares the
 * tokens and the parent all the same. The sliding layers need the pages of the last window too, so
 * a prefix can be taken up only at a reuse point: a node that keeps them. Points are evicted, least
 * recently used first, as one: the sliding pages and all full pages that lead to no other point.
 *
 * When more chats take turns than memory holds, LRU drops each just before its turn. So evicted
 * points leave a ghost, and while many requests would have hit a ghost, what such a request adds
 * goes to the old end: the others keep theirs. One in PREFIX_ADOPT is taken in all the same, so
 * that chats that have ended make room (the bimodal insertion of Qureshi et al., ISCA 2007).
 *
 * A node stays while a request holds its page, it has children, or it is a point. One thread,
 * except prefix_key. */
#ifndef CORE_PREFIX_H
#define CORE_PREFIX_H

#include <stdbool.h>

#include "hash.h"
#include "page_pool.h"

#define NO_NODE        (-1)
#define PREFIX_ADOPT   16

struct prefix_conf {
    int32_t page_tok;
    int32_t keep_max;            /* sliding pages of a window that ends at a page border */
    struct hash_key key;
    uint64_t hash_mask;          /* ~0; the tests force collisions with less */
};

struct prefix;                   /* opaque */

struct prefix_hit {
    int32_t node;                /* the deepest reuse point on the way, or NO_NODE */
    int32_t n_page;              /* pages up to it: nodes of the way, root first, by prefix_path */
    int32_t n_known;             /* pages that are known, >= n_page: worth a point for the next */
    bool    ghost;               /* more was there, but was evicted */
};

/* The pools stay the caller's. Everything is reserved here. */
int  prefix_open(struct prefix **out, const struct prefix_conf *c, struct page_pool *full,
                 struct page_pool *sliding, struct err *e);
void prefix_close(struct prefix *p);             /* NULL is fine */

/* The key of a page below a page with this key; root: hash of what separates tenants, for the first
 * page. Any thread. */
struct hash128 prefix_key(const struct prefix *p, struct hash128 above, const int32_t *tok);

/* How much of n_page pages is cached. root is the salt's hash; key[] of the first n_key pages, to
 * save the hashing of them. */
struct prefix_hit prefix_match(const struct prefix *p, struct hash128 root, const int32_t *tok,
                               int32_t n_page, const struct hash128 *key, int32_t n_key);

int32_t prefix_parent(const struct prefix *p, int32_t node);
/* The pages of a node's way: out[0 .. depth-1]. */
void prefix_path(const struct prefix *p, int32_t node, int32_t *out);
/* The sliding pages of a point, the last ones before its border. Returns how many. */
int32_t prefix_kept(const struct prefix *p, int32_t node, const int32_t **page);

/* The page after parent holds these tokens. Returns its node: the page itself, or another page that
 * is known for the same prefix. */
int32_t prefix_add(struct prefix *p, int32_t parent, struct hash128 root, const int32_t *tok,
                   int32_t page);

/* Where a point lies in its request. The next turn of a chat takes up one of two, always the same
 * one: the end of the answer, or, where answers come back changed (thoughts are taken out of them),
 * the end of the prompt. */
enum point_kind { POINT_OTHER, POINT_PROMPT, POINT_ANSWER };

/* A request with such a hit was admitted. */
struct prefix_habit {
    enum point_kind next;        /* where its chat goes on; OTHER: not known */
    bool            old;         /* its points go to the old end */
};
struct prefix_habit prefix_admit(struct prefix *p, const struct prefix_hit *hit);

/* Make node a reuse point with these sliding pages (each gets one more holder), at the new end of
 * the order of use or at the old one. */
void prefix_point(struct prefix *p, int32_t node, const int32_t *sliding, int32_t n,
                  struct prefix_habit habit, enum point_kind kind);
/* Points on the way to node and at it that lead nowhere else are the next to go: a longer one has
 * taken their place. */
void prefix_age(struct prefix *p, int32_t node);

/* Drop the oldest point. false: there is none. */
bool prefix_evict(struct prefix *p);
/* A request let go of node's page: nodes that nobody needs leave the tree. */
void prefix_trim(struct prefix *p, int32_t node);

/* The points from the newest on: NO_NODE gives the first, the last gives NO_NODE. */
int32_t prefix_next_point(const struct prefix *p, int32_t node);

struct prefix_count { int32_t n_node, n_point; uint64_t n_evicted; };
struct prefix_count prefix_count(const struct prefix *p);

#endif
