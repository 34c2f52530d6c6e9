#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kv.h"

struct pool {
    int32_t *free_id;            /* [n] the first n_free are free, the last one goes out next */
    int32_t  n, n_free;
    int32_t  n_promised;
};

struct kv {
    struct kv_conf c;
    struct pool    full, sliding;
    int32_t       *table;        /* [seq_max, 2, page_max] */
    int32_t       *free_slot;    /* [seq_max] the first n_slot_free are free */
    int32_t        n_slot_free;
};

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t n_page_of(const struct kv *kv, int64_t n_tok)
{
    return (int32_t) ((n_tok + kv->c.shape.page_tok - 1) / kv->c.shape.page_tok);
}

static int pool_open(struct pool *p, int32_t n)
{
    p->free_id = malloc((size_t) n * sizeof(int32_t));
    if (p->free_id == NULL)
        return E_IO;
    p->n = p->n_free = n;
    for (int32_t i = 0; i < n; i++)
        p->free_id[i] = n - 1 - i;
    return 0;
}

static int32_t pool_take(struct pool *p)
{
    assert(p->n_free > 0);
    return p->free_id[--p->n_free];
}

static void pool_give(struct pool *p, int32_t id)
{
    assert(id >= 0 && id < p->n && p->n_free < p->n);
    p->free_id[p->n_free++] = id;
}

int kv_open(struct kv **out, const struct kv_conf *c, struct err *e)
{
    struct kv *kv;

    if (c->shape.page_tok < 1 || c->shape.n_page_full < 1 || c->shape.n_page_sliding < 1
        || c->window < 1 || c->step_tok_max < 1 || c->seq_max < 1 || c->page_max < 1)
        return err_set(e, E_INVALID, "KV cache: every size must be at least 1");

    kv = calloc(1, sizeof(*kv));
    if (kv == NULL)
        return err_set(e, E_IO, "KV cache: out of memory");

    kv->c = *c;
    kv->table = calloc((size_t) c->seq_max * 2 * (size_t) c->page_max, sizeof(int32_t));
    kv->free_slot = malloc((size_t) c->seq_max * sizeof(int32_t));
    if (kv->table == NULL || kv->free_slot == NULL
        || pool_open(&kv->full, c->shape.n_page_full) != 0
        || pool_open(&kv->sliding, c->shape.n_page_sliding) != 0) {
        kv_close(kv);
        return err_set(e, E_IO, "KV cache: out of memory for %d page tables of %d pages",
                       c->seq_max, c->page_max);
    }

    for (int32_t i = 0; i < c->seq_max; i++)
        kv->free_slot[i] = c->seq_max - 1 - i;
    kv->n_slot_free = c->seq_max;
    *out = kv;
    return 0;
}

void kv_close(struct kv *kv)
{
    if (kv == NULL)
        return;
    assert(kv->full.n_promised == 0 && kv->full.n_free == kv->full.n);
    assert(kv->sliding.n_promised == 0 && kv->sliding.n_free == kv->sliding.n);
    free(kv->full.free_id);
    free(kv->sliding.free_id);
    free(kv->free_slot);
    free(kv->table);
    free(kv);
}

/* While n tokens are computed the window - 1 before the first of them stay, and such a span may
 * begin anywhere in a page: one page of rounding. */
struct kv_count kv_need(const struct kv *kv, int32_t n_tok)
{
    int64_t span = (int64_t) kv->c.window - 1 + kv->c.step_tok_max;
    struct kv_count need;

    need.full = n_page_of(kv, n_tok);
    need.sliding = min_i32(n_page_of(kv, span) + 1, need.full);
    return need;
}

int kv_admit(struct kv *kv, struct kv_seq *s, int32_t n_tok)
{
    struct kv_count need = kv_need(kv, n_tok);

    assert(s->page_full == NULL && need.full <= kv->c.page_max);
    if (kv->n_slot_free == 0 || need.full > kv->full.n - kv->full.n_promised
        || need.sliding > kv->sliding.n - kv->sliding.n_promised)
        return E_FULL;

    memset(s, 0, sizeof(*s));
    s->slot = kv->free_slot[--kv->n_slot_free];
    s->page_full = kv->table + (size_t) s->slot * 2 * (size_t) kv->c.page_max;
    s->page_sliding = s->page_full + kv->c.page_max;
    kv->full.n_promised += s->promised_full = need.full;
    kv->sliding.n_promised += s->promised_sliding = need.sliding;
    return 0;
}

void kv_grow(struct kv *kv, struct kv_seq *s, int32_t n)
{
    int32_t n_page = n_page_of(kv, (int64_t) s->n_tok + n);

    assert(s->page_full != NULL && n >= 1 && n <= kv->c.step_tok_max);
    assert(n_page <= s->promised_full && n_page - s->n_sliding_freed <= s->promised_sliding);
    for (; s->n_page < n_page; s->n_page++) {
        s->page_full[s->n_page] = pool_take(&kv->full);
        s->page_sliding[s->n_page] = pool_take(&kv->sliding);
    }
}

/* The next query is at n_tok and sees keys from n_tok - window + 1 on. */
void kv_advance(struct kv *kv, struct kv_seq *s, int32_t n)
{
    int64_t first_seen;

    s->n_tok += n;
    assert(n_page_of(kv, s->n_tok) <= s->n_page);

    first_seen = (int64_t) s->n_tok - kv->c.window + 1;
    while ((int64_t) (s->n_sliding_freed + 1) * kv->c.shape.page_tok <= first_seen) {
        pool_give(&kv->sliding, s->page_sliding[s->n_sliding_freed]);
        s->page_sliding[s->n_sliding_freed++] = -1;
    }
}

void kv_release(struct kv *kv, struct kv_seq *s)
{
    if (s->page_full == NULL)
        return;
    for (int32_t i = s->n_page - 1; i >= 0; i--) {
        pool_give(&kv->full, s->page_full[i]);
        if (i >= s->n_sliding_freed)
            pool_give(&kv->sliding, s->page_sliding[i]);
    }
    kv->full.n_promised -= s->promised_full;
    kv->sliding.n_promised -= s->promised_sliding;
    kv->free_slot[kv->n_slot_free++] = s->slot;
    memset(s, 0, sizeof(*s));
}

struct kv_count kv_used(const struct kv *kv)
{
    return (struct kv_count) { kv->full.n - kv->full.n_free, kv->sliding.n - kv->sliding.n_free };
}
