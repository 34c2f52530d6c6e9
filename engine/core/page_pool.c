#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "page_pool.h"

int page_pool_open(struct page_pool *p, int32_t n)
{
    memset(p, 0, sizeof(*p));
    p->free_id = malloc((size_t) n * sizeof(int32_t));
    p->live = calloc((size_t) n, sizeof(int32_t));
    p->kept = calloc((size_t) n, sizeof(int32_t));
    if (p->free_id == NULL || p->live == NULL || p->kept == NULL) {
        page_pool_close(p);
        return E_IO;
    }

    p->n = p->n_free = n;
    for (int32_t i = 0; i < n; i++)
        p->free_id[i] = n - 1 - i;
    return 0;
}

void page_pool_close(struct page_pool *p)
{
    free(p->free_id);
    free(p->live);
    free(p->kept);
    memset(p, 0, sizeof(*p));
}

int32_t page_take(struct page_pool *p)
{
    int32_t id;

    assert(p->n_free > 0);
    id = p->free_id[--p->n_free];
    p->live[id] = 1;
    return id;
}

void page_hold(struct page_pool *p, int32_t id)
{
    assert(p->live[id] + p->kept[id] > 0);
    p->n_idle -= p->live[id]++ == 0;
}

void page_keep(struct page_pool *p, int32_t id)
{
    assert(p->live[id] + p->kept[id] > 0);
    p->kept[id]++;
}

static void give(struct page_pool *p, int32_t id)
{
    assert(p->n_free < p->n);
    p->free_id[p->n_free++] = id;
}

void page_drop(struct page_pool *p, int32_t id)
{
    assert(p->live[id] > 0);
    if (--p->live[id] > 0)
        return;
    if (p->kept[id] > 0)
        p->n_idle++;
    else
        give(p, id);
}

void page_unkeep(struct page_pool *p, int32_t id)
{
    assert(p->kept[id] > 0);
    if (--p->kept[id] > 0 || p->live[id] > 0)
        return;
    p->n_idle--;
    give(p, id);
}
