/* page_pool.h - page numbers of one pool: who is free, and how many hold each of the others.
 *
 * Two kinds of holders, since only one of them can be told to let go: running requests ("live"),
 * and the prefix cache ("kept"). A page with neither is free. Owns the counts, never the bytes. */
#ifndef CORE_PAGE_POOL_H
#define CORE_PAGE_POOL_H

#include "err.h"
#include <stdint.h>

struct page_pool {
    int32_t *free_id;            /* [n] the first n_free are free, the last one goes out next */
    int32_t *live, *kept;        /* [n] holders */
    int32_t  n, n_free;
    int32_t  n_idle;             /* pages that are kept and not live: free on demand */
};

int  page_pool_open(struct page_pool *p, int32_t n);      /* 0 or E_IO */
void page_pool_close(struct page_pool *p);                /* all zeroes are fine */

int32_t page_take(struct page_pool *p);                   /* live 1; asserts that one is free */
void page_hold(struct page_pool *p, int32_t id);          /* live + 1; it is held already */
void page_drop(struct page_pool *p, int32_t id);          /* live - 1 */
void page_keep(struct page_pool *p, int32_t id);          /* kept + 1; it is held already */
void page_unkeep(struct page_pool *p, int32_t id);        /* kept - 1 */

#endif
