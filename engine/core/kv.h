/* kv.h - paged KV cache: which page holds which tokens, in two pools.
 *
 * Full-attention layers need every token, sliding layers only those of the window, so a request has
 * two page tables over two pools and its sliding pages go back as the window passes them. Owns page
 * numbers, free lists and the tables of every running slot; never touches the KV bytes. One thread.
 *
 * A request is admitted only if the most it can ever hold is still unpromised in both pools, so
 * whoever runs can always finish: kv_grow cannot fail. */
#ifndef CORE_KV_H
#define CORE_KV_H

#include "err.h"
#include "req.h"

struct kv_conf {
    struct kv_shape shape;
    int32_t window;              /* keys visible to a sliding query, itself included */
    int32_t step_tok_max;        /* the largest n of kv_grow */
    int32_t seq_max;             /* slots */
    int32_t page_max;            /* entries of one page table */
};

struct kv;                       /* opaque; kv_open .. kv_close */
struct kv_count { int32_t full, sliding; };       /* pages */

/* Reserve everything: the only allocation this module makes. */
int  kv_open(struct kv **out, const struct kv_conf *c, struct err *e);
void kv_close(struct kv *kv);    /* NULL is fine; asserts that nothing is held */

/* The most pages that a request of n_tok tokens in all holds at once. Any thread. */
struct kv_count kv_need(const struct kv *kv, int32_t n_tok);

/* Promise the pages for n_tok tokens in all and take a slot. E_FULL: not now, s is unchanged. */
int  kv_admit(struct kv *kv, struct kv_seq *s, int32_t n_tok);

/* Hold the pages for n more tokens, to be computed in one step. */
void kv_grow(struct kv *kv, struct kv_seq *s, int32_t n);

/* The n tokens are stored: count them and free the sliding pages that no later query sees. */
void kv_advance(struct kv *kv, struct kv_seq *s, int32_t n);

/* Give back pages, promise and slot. s is empty afterwards; an empty s is fine. */
void kv_release(struct kv *kv, struct kv_seq *s);

struct kv_count kv_used(const struct kv *kv);

#endif
