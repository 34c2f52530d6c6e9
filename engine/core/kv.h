/* kv.h - paged KV cache: which page holds which tokens, in two pools, and what of it is cached.
 *
 * Full-attention layers need every token, sliding layers only those of the window, so a request has
 * two page tables over two pools and its sliding pages go back as the window passes them. Pages are
 * counted, not owned: requests with the same beginning and the prefix cache hold the same ones.
 * Owns page numbers and the tables of every running slot; never touches the KV bytes. One thread,
 * except kv_keys and kv_need.
 *
 * Pages are given when they are needed. Who is admitted has its prompt promised; when the answers
 * outgrow the pools kv_grow says E_FULL and the scheduler preempts somebody. */
#ifndef CORE_KV_H
#define CORE_KV_H

#include "prefix.h"
#include "req.h"

struct kv_conf {
    struct kv_shape shape;
    int32_t window;              /* keys visible to a sliding query, itself included */
    int32_t step_tok_max;        /* the largest n of kv_grow */
    int32_t seq_max;             /* slots */
    int32_t page_max;            /* entries of one page table */
    bool    cache;               /* keep prefixes */
    int32_t point_tok;           /* a reuse point every so many tokens of a prompt; 0: none */
    struct hash_key key;         /* of the prefix cache, random */
    uint64_t hash_mask;          /* ~0 */
};

struct kv;                       /* opaque; kv_open .. kv_close */
struct kv_count { int32_t full, sliding; };       /* pages */

/* Reserve everything: the only allocation this module makes. */
int  kv_open(struct kv **out, const struct kv_conf *c, struct err *e);
void kv_close(struct kv *kv);    /* NULL is fine; asserts that no request holds anything */

/* The most pages that a request of n_tok tokens in all holds at once. Any thread. */
struct kv_count kv_need(const struct kv *kv, int64_t n_tok);
/* r->root from its salt, and the keys of the prompt's pages: once, before kv_admit. Any thread. */
void kv_keys(const struct kv *kv, struct req *r);

/* Take a slot, take up the longest cached prefix (r->seq.n_tok is its length) and promise the pages
 * that the known tokens still need. E_FULL: not now; r is unchanged. spare: pages of each pool that
 * must be left beyond that (with a hundredth of the pool as the least, unless it is 0). */
int  kv_admit(struct kv *kv, struct req *r, int32_t spare);
/* Instead: share the prompt with the running request from, whose prompt is the same and stored in
 * an earlier step: all but the last token. copy says which half-filled pages must be copied before
 * the next step (full_to -1: none). E_FULL: not now; E_AGAIN: there is nothing to share (any more).
 */
int  kv_fork(struct kv *kv, struct req *r, const struct req *from, int32_t spare,
             struct page_copy *copy);

/* Hold the pages for n more tokens, to be computed in one step. E_FULL: nothing changed. */
int  kv_grow(struct kv *kv, struct req *r, int32_t n);

/* The n tokens will be stored by the step that is planned. */
void kv_advance(struct kv *kv, struct req *r, int32_t n);
/* The step with r's newest tokens is launched, so later ones find them: make the whole pages of
 * known tokens known to the prefix cache (one that is there already takes the place of r's own),
 * with reuse points where they belong, and free the sliding pages that no later query sees. */
void kv_settle(struct kv *kv, struct req *r);

/* Give back pages, promise and slot; what is stored stays as a reuse point. r->seq is empty
 * afterwards; an empty one is fine. */
void kv_release(struct kv *kv, struct req *r);

/* Forget all cached prefixes that nobody runs on. */
void kv_reset_cache(struct kv *kv);

/* For whoever wants to count pages by himself. */
const struct page_pool *kv_pool(const struct kv *kv, bool full);
const struct prefix *kv_prefix(const struct kv *kv);

struct kv_count kv_used(const struct kv *kv);    /* held by running requests */
struct prefix_count kv_cached(const struct kv *kv);

#endif
