#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kv.h"

struct kv {
    struct kv_conf   c;
    struct page_pool full, sliding;
    struct prefix   *prefix;
    int32_t         *table;      /* [seq_max, 2, page_max] */
    int32_t         *free_slot;  /* [seq_max] the first n_slot_free are free */
    int32_t          n_slot_free;
    int64_t          promised_full, promised_sliding;      /* of all requests */
    int32_t          point_page; /* a point every so many pages; 0: none */
    uint32_t         rev;
};

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t max_i32(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static int32_t ceil_page(const struct kv *kv, int64_t n_tok)
{
    return (int32_t) ((n_tok + kv->c.shape.page_tok - 1) / kv->c.shape.page_tok);
}

/* Sliding pages that a query at the border after page n still sees. */
static int32_t n_window_page(const struct kv *kv)
{
    return ceil_page(kv, kv->c.window - 1);
}

static int check_conf(const struct kv_conf *c, struct err *e)
{
    if (c->shape.page_tok < 1 || c->shape.n_page_full < 1 || c->shape.n_page_sliding < 1
        || c->window < 1 || c->step_tok_max < 1 || c->seq_max < 1 || c->page_max < 1)
        return err_set(e, E_INVALID, "KV cache: every size must be at least 1");
    if (c->point_tok < 0)
        return err_set(e, E_INVALID, "KV cache: a reuse point every %d tokens", c->point_tok);
    return 0;
}

int kv_open(struct kv **out, const struct kv_conf *c, struct err *e)
{
    struct kv *kv;
    int rc;

    if ((rc = check_conf(c, e)) != 0)
        return rc;
    kv = calloc(1, sizeof(*kv));
    if (kv == NULL)
        return err_set(e, E_IO, "KV cache: out of memory");

    kv->c = *c;
    kv->point_page = c->point_tok / c->shape.page_tok;
    kv->table = calloc((size_t) c->seq_max * 2 * (size_t) c->page_max, sizeof(int32_t));
    kv->free_slot = malloc((size_t) c->seq_max * sizeof(int32_t));

    struct prefix_conf pc = {
        .page_tok = c->shape.page_tok, .keep_max = n_window_page(kv), .key = c->key,
        .hash_mask = c->hash_mask,
    };
    if (kv->table == NULL || kv->free_slot == NULL
        || page_pool_open(&kv->full, c->shape.n_page_full) != 0
        || page_pool_open(&kv->sliding, c->shape.n_page_sliding) != 0
        || prefix_open(&kv->prefix, &pc, &kv->full, &kv->sliding, e) != 0) {
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
    if (kv->prefix != NULL) {
        kv_reset_cache(kv);
        assert(kv->promised_full == 0 && kv->full.n_free == kv->full.n);
        assert(kv->promised_sliding == 0 && kv->sliding.n_free == kv->sliding.n);
    }
    prefix_close(kv->prefix);
    page_pool_close(&kv->full);
    page_pool_close(&kv->sliding);
    free(kv->free_slot);
    free(kv->table);
    free(kv);
}

/* While n tokens are computed the window before the first of them stays. It is freed by whole pages
 * of known tokens, and such a span may begin anywhere in a page: two pages of rounding. */
struct kv_count kv_need(const struct kv *kv, int64_t n_tok)
{
    int64_t span = (int64_t) kv->c.window - 1 + kv->c.step_tok_max;
    struct kv_count need;

    need.full = ceil_page(kv, n_tok);
    need.sliding = min_i32(ceil_page(kv, span) + 2, need.full);
    return need;
}

void kv_keys(const struct kv *kv, struct req *r)
{
    int32_t page = kv->c.shape.page_tok;
    struct hash128 above;

    r->root = hash_bytes(&kv->c.key, r->identity, 2, r->salt, (size_t) r->n_salt);
    above = r->root;
    for (int32_t i = 0; r->key != NULL && i < r->n_prompt / page; i++)
        above = r->key[i] = prefix_key(kv->prefix, above, r->tok + (size_t) i * (size_t) page);
}

/* --- promises --- */

/* Pages that the promised tokens will take beyond those held. */
static void promise(struct kv *kv, struct kv_seq *s)
{
    int32_t left = max_i32(ceil_page(kv, s->n_fill) - s->n_page, 0);
    int32_t most = kv_need(kv, s->n_fill).sliding;
    int32_t sliding = max_i32(min_i32(left, most - (s->n_page - s->n_sliding_freed)), 0);

    kv->promised_full += left - s->promised_full;
    kv->promised_sliding += sliding - s->promised_sliding;
    s->promised_full = left;
    s->promised_sliding = sliding;
}

/* The watermark: beside others at least a hundredth of a pool stays free for answers to grow. */
static bool pool_has_room(const struct page_pool *p, int64_t promised, int32_t spare)
{
    if (spare > 0)
        spare = max_i32(spare, p->n / 100);
    return promised + spare <= (int64_t) p->n_free + p->n_idle;
}

static bool has_room(const struct kv *kv, int32_t spare)
{
    return pool_has_room(&kv->full, kv->promised_full, spare)
           && pool_has_room(&kv->sliding, kv->promised_sliding, spare);
}

/* --- admission --- */

static void take_slot(struct kv *kv, struct req *r)
{
    struct kv_seq *s = &r->seq;
    size_t page_max = (size_t) kv->c.page_max;

    *s = (struct kv_seq) { .slot = kv->free_slot[--kv->n_slot_free], .rev = ++kv->rev,
                           .node = NO_NODE, .taken = NO_NODE,
                           .n_fill = min_i32(r->n_known + 1, r->n_prompt + r->max_new) };
    s->page_full = kv->table + (size_t) s->slot * 2 * page_max;
    s->page_sliding = s->page_full + page_max;
}

/* Hold what a reuse point has. */
static void take_up(struct kv *kv, struct kv_seq *s, const struct prefix_hit *hit)
{
    const int32_t *kept;
    int32_t n_kept;

    if (hit->node == NO_NODE)
        return;
    n_kept = prefix_kept(kv->prefix, hit->node, &kept);
    prefix_path(kv->prefix, hit->node, s->page_full);
    s->n_page = s->n_whole = hit->n_page;
    s->n_tok = hit->n_page * kv->c.shape.page_tok;
    s->n_sliding_freed = hit->n_page - n_kept;
    s->node = s->taken = hit->node;

    for (int32_t i = 0; i < s->n_page; i++) {
        page_hold(&kv->full, s->page_full[i]);
        s->page_sliding[i] = i < s->n_sliding_freed ? -1 : kept[i - s->n_sliding_freed];
        if (s->page_sliding[i] != -1)
            page_hold(&kv->sliding, s->page_sliding[i]);
    }
}

static void let_go(struct kv *kv, struct req *r)
{
    struct kv_seq *s = &r->seq;

    for (int32_t i = s->n_page - 1; i >= 0; i--) {
        page_drop(&kv->full, s->page_full[i]);
        if (i >= s->n_sliding_freed)
            page_drop(&kv->sliding, s->page_sliding[i]);
    }
    prefix_trim(kv->prefix, s->node);
    kv->promised_full -= s->promised_full;
    kv->promised_sliding -= s->promised_sliding;
    kv->free_slot[kv->n_slot_free++] = s->slot;
    memset(s, 0, sizeof(*s));
}

int kv_admit(struct kv *kv, struct req *r, int32_t spare)
{
    struct prefix_hit hit = { .node = NO_NODE };
    bool look = kv->c.cache && r->prompt_lp.p == NULL;    /* those need every position's logits */
    int32_t page = kv->c.shape.page_tok;

    assert(r->seq.page_full == NULL && ceil_page(kv, r->n_known) <= kv->c.page_max);
    if (kv->n_slot_free == 0 || !has_room(kv, spare))
        return E_FULL;
    if (look)                                              /* the last token is always computed */
        hit = prefix_match(kv->prefix, r->root, r->tok, (r->n_known - 1) / page, r->key,
                           r->key != NULL ? r->n_prompt / page : 0);

    take_slot(kv, r);
    take_up(kv, &r->seq, &hit);
    promise(kv, &r->seq);
    if (!has_room(kv, spare)) {
        let_go(kv, r);
        return E_FULL;
    }

    r->seq.branch = hit.n_known > hit.n_page ? hit.n_known : 0;
    r->seq.habit = prefix_admit(kv->prefix, &hit);
    return 0;
}

static void share(struct kv *kv, struct kv_seq *s, const struct kv_seq *from, int32_t n_page)
{
    s->n_page = s->n_whole = n_page;
    s->n_sliding_freed = from->n_sliding_freed;
    for (int32_t i = 0; i < n_page; i++) {
        s->page_full[i] = from->page_full[i];
        s->page_sliding[i] = from->page_sliding[i];
        page_hold(&kv->full, s->page_full[i]);
        if (i >= s->n_sliding_freed)
            page_hold(&kv->sliding, s->page_sliding[i]);
    }
}

static int make_room(struct kv *kv, int32_t n)
{
    while (kv->full.n_free < n || kv->sliding.n_free < n)
        if (!prefix_evict(kv->prefix))
            return E_FULL;
    return 0;
}

static void add_page(struct kv *kv, struct kv_seq *s)
{
    s->page_full[s->n_page] = page_take(&kv->full);
    s->page_sliding[s->n_page++] = page_take(&kv->sliding);
}

int kv_fork(struct kv *kv, struct req *r, const struct req *from, int32_t spare,
            struct page_copy *copy)
{
    const struct kv_seq *f = &from->seq;
    int32_t page = kv->c.shape.page_tok, n_tok = r->n_prompt - 1, whole = n_tok / page;
    int32_t first_seen = max_i32(n_tok - kv->c.window + 1, 0) / page;
    int32_t node = f->node;

    if (!kv->c.cache || f->page_full == NULL || f->n_tok < r->n_prompt
        || f->n_sliding_freed > first_seen || r->n_known > r->n_prompt || r->prompt_lp.p != NULL
        || memcmp(&r->root, &from->root, sizeof(r->root)) != 0)
        return E_AGAIN;
    if (kv->n_slot_free == 0 || make_room(kv, 1) != 0)
        return E_FULL;

    take_slot(kv, r);
    share(kv, &r->seq, f, whole);
    r->seq.n_tok = n_tok;
    for (int32_t i = f->n_whole; i > whole; i--)
        node = prefix_parent(kv->prefix, node);
    r->seq.node = node;

    copy->full_to = -1;
    if (n_tok % page != 0) {
        add_page(kv, &r->seq);
        *copy = (struct page_copy) { f->page_full[whole], r->seq.page_full[whole],
                                   f->page_sliding[whole], r->seq.page_sliding[whole] };
    }
    promise(kv, &r->seq);
    if (has_room(kv, spare))
        return 0;
    let_go(kv, r);
    return E_FULL;
}

/* --- growth --- */

int kv_grow(struct kv *kv, struct req *r, int32_t n)
{
    struct kv_seq *s = &r->seq;
    int32_t n_page = ceil_page(kv, (int64_t) s->n_tok + n);
    int rc;

    assert(s->page_full != NULL && n >= 1 && n <= kv->c.step_tok_max && n_page <= kv->c.page_max);
    if ((rc = make_room(kv, n_page - s->n_page)) != 0)
        return rc;
    while (s->n_page < n_page)
        add_page(kv, s);
    promise(kv, &r->seq);
    return 0;
}

/* The page is full of known tokens: from now on others may find it. If the same prefix is known in
 * another page already, that one takes its place. */
static void make_known(struct kv *kv, struct req *r)
{
    struct kv_seq *s = &r->seq;
    int32_t i = s->n_whole++, own = s->page_full[i];

    s->node = prefix_add(kv->prefix, s->node, r->root,
                         r->tok + (size_t) i * (size_t) kv->c.shape.page_tok, own);
    if (s->node != own) {
        page_hold(&kv->full, s->node);
        page_drop(&kv->full, own);
        s->page_full[i] = s->node;
        s->rev = ++kv->rev;
    }
}

static void point_here(struct kv *kv, struct kv_seq *s, enum point_kind kind)
{
    struct prefix_habit h = s->habit;
    int32_t n = min_i32(n_window_page(kv), s->n_whole);

    h.old = h.old || (kind == POINT_ANSWER && h.next == POINT_PROMPT);
    if (s->node != NO_NODE && s->n_sliding_freed <= s->n_whole - n)
        prefix_point(kv->prefix, s->node, s->page_sliding + s->n_whole - n, n, h, kind);
}

static void point_of_prompt(struct kv *kv, struct req *r)
{
    int32_t n = r->seq.n_whole, page = kv->c.shape.page_tok;

    if (n == (r->n_prompt - 1) / page)
        point_here(kv, &r->seq, POINT_PROMPT);
    else if (n == r->seq.branch || (kv->point_page > 0 && n % kv->point_page == 0
                                    && (int64_t) n * page < r->n_prompt))
        point_here(kv, &r->seq, POINT_OTHER);
}

/* What this chat has used so far, the next turn will not. */
static void point_of_answer(struct kv *kv, struct kv_seq *s)
{
    int32_t used = s->taken;

    if (s->node == NO_NODE || s->node == s->taken)
        return;
    point_here(kv, s, POINT_ANSWER);
    if (s->habit.next == POINT_ANSWER)
        used = prefix_parent(kv->prefix, s->node);
    prefix_age(kv->prefix, used);
}

static void note_whole(struct kv *kv, struct req *r)
{
    int32_t n = min_i32(r->seq.n_tok, r->n_known) / kv->c.shape.page_tok;

    while (r->seq.n_whole < n) {
        if (!kv->c.cache) {
            r->seq.n_whole++;
            continue;
        }
        make_known(kv, r);
        point_of_prompt(kv, r);
    }
}

/* The next query is at n_tok; the window of the last whole page stays, for a reuse point there. */
static void free_behind(struct kv *kv, struct kv_seq *s)
{
    int32_t keep = s->n_whole - n_window_page(kv);

    for (; s->n_sliding_freed < keep; s->n_sliding_freed++) {
        page_drop(&kv->sliding, s->page_sliding[s->n_sliding_freed]);
        s->page_sliding[s->n_sliding_freed] = -1;
    }
}

void kv_advance(struct kv *kv, struct req *r, int32_t n)
{
    r->seq.n_tok += n;
    assert(ceil_page(kv, r->seq.n_tok) <= r->seq.n_page);
}

void kv_settle(struct kv *kv, struct req *r)
{
    note_whole(kv, r);
    free_behind(kv, &r->seq);
    promise(kv, &r->seq);
}

void kv_release(struct kv *kv, struct req *r)
{
    struct kv_seq *s = &r->seq;

    if (s->page_full == NULL)
        return;
    note_whole(kv, r);
    point_of_answer(kv, s);
    let_go(kv, r);
}

void kv_reset_cache(struct kv *kv)
{
    while (prefix_evict(kv->prefix))
        ;
}

const struct page_pool *kv_pool(const struct kv *kv, bool full)
{
    return full ? &kv->full : &kv->sliding;
}

const struct prefix *kv_prefix(const struct kv *kv)
{
    return kv->prefix;
}

struct kv_count kv_used(const struct kv *kv)
{
    return (struct kv_count) { kv->full.n - kv->full.n_free - kv->full.n_idle,
                               kv->sliding.n - kv->sliding.n_free - kv->sliding.n_idle };
}

struct prefix_count kv_cached(const struct kv *kv)
{
    return prefix_count(kv->prefix);
}
