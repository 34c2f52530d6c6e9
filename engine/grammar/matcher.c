/* matcher.c - the stacks of one answer, and its masks. */
#include "matcher_priv.h"

#include <stdlib.h>
#include <string.h>

/* Between two tokens: the readings, and the frames that they stand on, each behind those below it.
 * Frame 0 is the end of the text. */
#define FRAME_MAX 2048

struct kept { uint32_t state, below, depth; };
struct stacks {
    struct item top[MATCHER_STACK_MAX];
    struct kept frame[FRAME_MAX];
    uint32_t    n_top, n_frame;
    bool        done;
};

struct matcher {
    struct mask_cache  *masks;
    const struct vocab *vocab;
    struct stacks      *now, *next, *back;
    int64_t             credit;          /* of work; below zero: the next mask is none */
    bool                over;
    struct stacks       room[3];
};

/* A reading of the text so far, and what it is where rules have ended. */
static void put_top(struct stacks *s, const struct walk *w, uint32_t state, uint32_t frame)
{
    for (;;) {
        uint8_t  fact = w->facts.state[state];
        uint32_t i = 0;

        while (i < s->n_top && (s->top[i].state != state || s->top[i].frame != frame))
            i++;
        if (i == s->n_top && i < MATCHER_STACK_MAX && !(fact & FACT_LEAF))
            s->top[s->n_top++] = (struct item) { state, frame };
        if (!(fact & FACT_ENDS))
            return;
        if (frame == 0) {
            s->done = true;
            return;
        }
        state = w->frame[frame].state;
        frame = w->frame[frame].below;
    }
}

/* Only the frames that the tops stand on, in the same order. A top that needs too many goes. */
static void keep_frames(struct stacks *s, struct walk *w)
{
    uint32_t n_live = 1, n_top = 0, *map = w->map;

    memset(map, 0, w->n_frame * sizeof(*map));
    map[0] = 1;
    for (uint32_t i = 0; i < s->n_top; i++) {
        uint32_t n = 0;

        for (uint32_t f = s->top[i].frame; map[f] == 0; f = w->frame[f].below)
            n++;
        if (n_live + n > FRAME_MAX)
            continue;
        n_live += n;
        for (uint32_t f = s->top[i].frame; map[f] == 0; f = w->frame[f].below)
            map[f] = 1;
        s->top[n_top++] = s->top[i];
    }
    s->n_top = n_top;
    s->n_frame = 0;
    for (uint32_t f = 0; f < w->n_frame; f++) {
        const struct frame *t = &w->frame[f];

        if (map[f] == 0)
            continue;
        map[f] = s->n_frame;
        s->frame[s->n_frame++] = (struct kept) { t->state, f > 0 ? map[t->below] : 0,
                                                 t->depth };
    }
    for (uint32_t i = 0; i < n_top; i++)
        s->top[i].frame = map[s->top[i].frame];
}

static void load(struct walk *w, const struct stacks *s)
{
    walk_clear(w, MATCHER_DEPTH_MAX);
    for (uint32_t f = 1; f < s->n_frame; f++)
        walk_push(w, s->frame[f].state, s->frame[f].below);
    walk_keep(w);
}

struct matcher *matcher_open(struct grammar *g, const struct vocab *v)
{
    struct mask_cache *c = mask_cache(g, v);
    struct matcher    *m = c != NULL ? calloc(1, sizeof(*m)) : NULL;

    if (m == NULL)
        return NULL;
    m->masks = c;
    m->vocab = v;
    m->credit = MATCHER_WORK_MAX;
    m->now = &m->room[0];
    m->next = &m->room[1];
    m->back = &m->room[2];
    walk_clear(c->walk, MATCHER_DEPTH_MAX);
    put_top(m->now, c->walk, g->rule[0], 0);
    keep_frames(m->now, c->walk);
    return m;
}

struct matcher *matcher_clone(const struct matcher *from)
{
    struct matcher *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return NULL;
    m->masks = from->masks;
    m->vocab = from->vocab;
    m->now = &m->room[0];
    m->next = &m->room[1];
    m->back = &m->room[2];
    matcher_copy(m, from);
    return m;
}

void matcher_close(struct matcher *m)
{
    free(m);
}

void matcher_copy(struct matcher *to, const struct matcher *from)
{
    const struct stacks *a = from->now;
    struct stacks       *b = to->now;

    memcpy(b->top, a->top, a->n_top * sizeof(*a->top));
    memcpy(b->frame, a->frame, a->n_frame * sizeof(*a->frame));
    b->n_top = a->n_top;
    b->n_frame = a->n_frame;
    b->done = a->done;
    to->credit = from->credit;
    to->over = from->over;
}

static void swap(struct stacks **a, struct stacks **b)
{
    struct stacks *t = *a;

    *a = *b;
    *b = t;
}

/* n bytes, or a special token's 256 + id at sym. False: now is as it was. */
static bool step(struct matcher *m, const uint8_t *p, uint32_t n, uint32_t sym)
{
    struct walk   *w = m->masks->walk;
    struct stacks *s = m->next;

    s->n_top = 0;
    s->done = false;
    load(w, m->now);
    for (uint32_t i = 0; i < m->now->n_top; i++) {
        const struct level *l;
        uint32_t            k = 0;

        walk_start(w, m->now->top[i].state, m->now->top[i].frame);
        for (bool on = true; on && k < n; k += on) {
            k = p != NULL ? walk_run(w, k, p, n) : 0;
            on = k < n && walk_step(w, k, p != NULL ? p[k] : sym);
        }
        if (k < n)
            continue;
        l = walk_at(w, n);
        for (uint32_t j = w->part[l->part].item; j < l->n_item; j++)
            put_top(s, w, w->item[j].state, w->item[j].frame);
        walk_keep(w);
    }
    if (m->over || (s->n_top == 0 && !s->done))
        return false;
    m->credit = m->credit + MATCHER_WORK_TOKEN < MATCHER_WORK_MAX
                ? m->credit + MATCHER_WORK_TOKEN : MATCHER_WORK_MAX;
    keep_frames(s, w);
    swap(&m->now, &m->next);
    return true;
}

bool matcher_take_bytes(struct matcher *m, const char *p, size_t n)
{
    bool moved = false;

    while (n > 0) {
        uint32_t len = n < VOCAB_BYTES_MAX ? (uint32_t) n : VOCAB_BYTES_MAX;

        if (!step(m, (const uint8_t *) p, len, 0)) {
            if (moved)
                swap(&m->now, &m->back);
            return false;
        }
        if (!moved)
            swap(&m->next, &m->back);
        moved = true;
        p += len;
        n -= len;
    }
    return true;
}

bool matcher_take(struct matcher *m, int32_t id)
{
    const struct vocab *v = m->vocab;

    if (id < 0 || id >= v->n)
        return false;
    if (vocab_is_special(v, id))
        return step(m, NULL, 1, 256 + (uint32_t) id);
    if (v->place[id] == NONE)
        return false;
    return step(m, v->bytes + v->all.p[v->place[id]].at, v->all.p[v->place[id]].n, 0);
}

static void put_mask(const struct mask *k, const struct vocab *v, uint32_t *mask)
{
    for (uint32_t i = 0; k->in != NULL && i < k->n_in; i++)
        mask[k->in[i] / 32] |= 1u << (k->in[i] % 32);
    for (int32_t i = 0; k->bits != NULL && i < (v->n + 31) / 32; i++)
        mask[i] |= k->bits[i];
}

struct token_to { const struct vocab *vocab; uint32_t *mask; };

static void put_token(void *arg, int32_t id)
{
    struct token_to *to = arg;

    if (id < to->vocab->n && vocab_is_special(to->vocab, id))
        to->mask[id / 32] |= 1u << (id % 32);
}

/* What the tops allow, each by what is known of its state and by a try of the rest. */
static void put_tops(struct matcher *m, uint32_t *mask)
{
    const struct vocab  *v = m->vocab;
    const struct stacks *s = m->now;
    struct token_to      to = { v, mask };
    struct walk         *w = m->masks->walk;
    uint32_t             loaded = w->n_clear - 1;

    for (uint32_t i = 0; i < s->n_top; i++) {
        struct item        t = s->top[i];
        const struct mask *k = mask_get(m->masks, t.state,
                                        MATCHER_DEPTH_MAX - s->frame[t.frame].depth);
        bool               below = k != NULL && k->below.n > 0 && t.frame != 0;

        if (k != NULL)
            put_mask(k, v, mask);
        if (k != NULL && !below && k->whole.n == 0)
            continue;
        if (w->n_clear != loaded)
            load(w, s);
        loaded = w->n_clear;
        if (below) {
            walk_start_below(w, t.frame);
            walk_list(w, &k->below, v->bytes, mask, NULL);
        }
        if (k == NULL || k->whole.n > 0) {
            walk_start(w, t.state, t.frame);
            walk_list(w, k != NULL ? &k->whole : &v->all, v->bytes, mask, NULL);
        }
        if (k == NULL)
            walk_tokens(w, put_token, &to);
    }
}

void matcher_mask(struct matcher *m, uint32_t *mask)
{
    uint64_t was = m->masks->walk->work;

    m->over |= m->credit < 0;
    if (!m->over)
        put_tops(m, mask);
    m->credit -= (int64_t) (m->masks->walk->work - was);
}

bool matcher_done(const struct matcher *m)
{
    return m->now->done;
}

bool matcher_stuck(const struct matcher *m)
{
    return m->over || m->now->n_top == 0;
}

bool matcher_over(const struct matcher *m)
{
    return m->over;
}
