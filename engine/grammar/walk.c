/* walk.c - all readings of a text at once, byte by byte, and back to where two texts part. */
#include "matcher_priv.h"

#include <stdlib.h>
#include <string.h>

struct walk *walk_open(const struct grammar *g)
{
    struct walk *w = calloc(1, sizeof(*w));

    if (w == NULL || !facts_open(&w->facts, g)) {
        free(w);
        return NULL;
    }
    w->g = g;
    for (uint32_t i = 0; i < WALK_ROWS; i++)
        w->row[i].state = NONE;
    memset(w->hash, 0xff, sizeof(w->hash));
    return w;
}

void walk_close(struct walk *w)
{
    if (w == NULL)
        return;
    facts_close(&w->facts);
    free(w);
}

/* Fibonacci's: the upper bits of a product are mixed well. */
static uint32_t hash(uint32_t state, uint32_t frame)
{
    return (uint32_t) (((uint64_t) state << 32 | frame) * 0x9E3779B97F4A7C15u >> 40);
}

static uint32_t *bucket(struct walk *w, uint32_t state, uint32_t below)
{
    return &w->hash[hash(state, below) & (WALK_HASH - 1)];
}

/* Frames leave in the order opposite to that of their coming, so each is first in its bucket. */
static void frames_cut(struct walk *w, uint32_t n)
{
    while (w->n_frame > n) {
        const struct frame *f = &w->frame[--w->n_frame];

        if (w->n_frame > 0)
            *bucket(w, f->state, f->below) = f->same;
    }
}

void walk_clear(struct walk *w, uint32_t depth_max)
{
    frames_cut(w, 0);
    w->frame[0] = (struct frame) { NONE, NONE, 0, NONE };
    w->n_frame = w->n_kept = 1;
    w->n_clear++;
    w->n_item = w->n_part = 0;
    w->depth_max = depth_max;
    w->rise = w->width = 0;
    w->refused = false;
}

/* Whether the rule can end from this state, so deep, without going too deep. */
static bool fits(struct walk *w, uint32_t state, uint32_t depth)
{
    depth += w->facts.rise[state];
    if (depth > w->depth_max) {
        w->refused = true;
        return false;
    }
    w->rise = depth > w->rise ? depth : w->rise;
    return true;
}

uint32_t walk_push(struct walk *w, uint32_t state, uint32_t below)
{
    uint32_t *b = bucket(w, state, below), depth = w->frame[below].depth + 1;

    for (uint32_t f = *b; f != NONE; f = w->frame[f].same)
        if (w->frame[f].state == state && w->frame[f].below == below)
            return f;
    if (depth > w->depth_max || w->n_frame == WALK_FRAME_MAX || !fits(w, state, depth - 1)) {
        w->refused = true;
        return NONE;
    }
    w->frame[w->n_frame] = (struct frame) { state, below, depth, *b };
    *b = w->n_frame;
    w->rise = depth > w->rise ? depth : w->rise;
    return w->n_frame++;
}

/* A part of level to that begins with this reading. */
static void part_begin(struct walk *w, struct level *to, uint32_t state, uint32_t bottom,
                       uint32_t of)
{
    if (w->n_part == WALK_PART_MAX || w->n_item == WALK_ITEM_MAX)
        return;
    w->part[w->n_part] = (struct part) { bottom, of, w->n_item, 1 };
    w->item[w->n_item++] = (struct item) { state, bottom };
    to->n_part = ++w->n_part;
    to->n_item = w->n_item;
}

/* A rule above frame f has ended: the text goes on below, and where nothing must come there, too,
 * below that. */
static void part_below(struct walk *w, struct level *to, uint32_t first, uint32_t f)
{
    for (; f != 0; f = w->frame[f].below) {
        for (uint32_t k = first; k < w->n_part; k++)
            if (w->part[k].of == f)
                return;
        part_begin(w, to, w->frame[f].state, w->frame[f].below, f);
        if (!(w->facts.state[w->frame[f].state] & FACT_ENDS))
            return;
    }
}

static struct level *level_begin(struct walk *w, uint32_t p)
{
    w->level[p] = (struct level) { w->n_part, w->n_part, w->n_item, w->n_frame, 0, 0, false };
    w->lone[p].base = p;
    return &w->level[p];
}

static void walk_back(struct walk *w, const struct level *l)
{
    w->n_item = l->n_item;
    w->n_part = l->n_part;
    frames_cut(w, l->n_frame);
}

static struct level *level_first(struct walk *w)
{
    w->n_item = w->n_part = 0;
    frames_cut(w, w->n_kept);
    return level_begin(w, 0);
}

void walk_keep(struct walk *w)
{
    w->n_kept = w->n_frame;
}

void walk_start(struct walk *w, uint32_t state, uint32_t frame)
{
    part_begin(w, level_first(w), state, frame, NONE);
}

void walk_start_below(struct walk *w, uint32_t frame)
{
    part_below(w, level_first(w), 0, frame);
}

/* The state behind a byte or a token, or NONE. */
static uint32_t edge_to(const struct grammar *g, uint32_t s, uint32_t sym)
{
    const struct grammar_state *a = &g->state[s];
    uint32_t                    lo, hi;

    if (sym < 256) {
        for (lo = a->edge, hi = a[1].edge; lo < hi; ) {
            uint32_t mid = (lo + hi) / 2;

            if (g->edge[mid].hi < sym)
                lo = mid + 1;
            else if (g->edge[mid].lo > sym)
                hi = mid;
            else
                return g->edge[mid].to;
        }
        return NONE;
    }
    for (lo = a->token, hi = a[1].token; lo < hi; ) {
        uint32_t mid = (lo + hi) / 2;

        if ((uint32_t) g->token[mid].id < sym - 256)
            lo = mid + 1;
        else if ((uint32_t) g->token[mid].id > sym - 256)
            hi = mid;
        else
            return g->token[mid].to;
    }
    return NONE;
}

/* All bytes of a state that stays for long, as in a string. */
static const uint32_t *row_of(struct walk *w, uint32_t s)
{
    uint32_t i = s % WALK_ROWS;

    if (w->row[i].state != s) {
        memset(w->row[i].to, 0xff, sizeof(w->row[i].to));
        for (uint32_t k = w->g->state[s].edge; k < w->g->state[s + 1].edge; k++)
            for (uint32_t b = w->g->edge[k].lo; b <= w->g->edge[k].hi; b++)
                w->row[i].to[b] = w->g->edge[k].to;
        w->row[i].state = s;
    }
    return w->row[i].to;
}

static void todo_clear(struct walk *w)
{
    w->n_pend = 0;
    if (++w->stamp == 0) {
        memset(w->seen, 0, sizeof(w->seen));
        w->stamp = 1;
    }
}

static void todo_put(struct walk *w, uint32_t state, uint32_t frame)
{
    uint32_t i = hash(state, frame);

    for (;; i++) {
        struct seen *k = &w->seen[i & (2 * WALK_TODO_MAX - 1)];

        if (k->stamp != w->stamp) {
            if (w->n_pend >= WALK_TODO_MAX / 4)
                w->width = MATCHER_STACK_MAX;
            if (w->n_pend == WALK_TODO_MAX)
                return;
            *k = (struct seen) { w->stamp, w->n_pend };
            w->pend[w->n_pend++] = (struct item) { state, frame };
            return;
        }
        if (w->pend[k->pend].state == state && w->pend[k->pend].frame == frame)
            return;
    }
}

static void item_put(struct walk *w, uint32_t first, uint32_t state, uint32_t frame)
{
    for (uint32_t i = first; i < w->n_item; i++)
        if (w->item[i].state == state && w->item[i].frame == frame)
            return;
    if (!fits(w, state, w->frame[frame].depth) || w->n_item == WALK_ITEM_MAX
        || w->n_item - first == MATCHER_STACK_MAX)
        return;
    w->item[w->n_item++] = (struct item) { state, frame };
    w->width = w->n_item - first > w->width ? w->n_item - first : w->width;
}

/* The readings of a part before the next symbol, rules that have ended left. */
static void todo_begin(struct walk *w, const struct part *q)
{
    todo_clear(w);
    for (uint32_t i = q->item; i < q->item + q->n; i++) {
        struct item t = w->item[i];

        todo_put(w, t.state, t.frame);
        while (t.frame != q->bottom && w->facts.state[t.state] & FACT_ENDS) {
            t = (struct item) { w->frame[t.frame].state, w->frame[t.frame].below };
            todo_put(w, t.state, t.frame);
            w->extra += t.frame == q->bottom;
        }
    }
}

/* The rules that a reading may enter for this symbol, and what is behind them if they are empty.
 * Where nothing is left of the caller, nobody needs to come back to it. */
static void todo_enter(struct walk *w, struct item t, uint32_t bottom, uint32_t sym)
{
    const struct grammar *g = w->g;
    uint32_t              bit = sym < 256 ? sym : FACT_TOKEN, f;

    for (uint32_t k = g->state[t.state].call; k < g->state[t.state + 1].call; k++) {
        const struct grammar_call *c = &g->call[k];
        uint32_t                   start = g->rule[c->rule];

        if (w->facts.first[c->rule][bit / 64] >> (bit % 64) & 1) {
            f = w->facts.state[c->to] & FACT_LEAF ? t.frame : walk_push(w, c->to, t.frame);
            if (f != NONE)
                todo_put(w, start, f);
        }
        if (w->facts.state[start] & FACT_ENDS) {
            todo_put(w, c->to, t.frame);
            w->extra += t.frame == bottom;
        }
    }
}

static void part_step(struct walk *w, const struct part *q, uint32_t sym)
{
    uint32_t first = w->n_item;

    todo_begin(w, q);
    for (uint32_t i = 0; i < w->n_pend; i++) {
        uint32_t to = edge_to(w->g, w->pend[i].state, sym);

        if (to != NONE)
            item_put(w, first, to, w->pend[i].frame);
        todo_enter(w, w->pend[i], q->bottom, sym);
    }
    w->work += w->n_pend;
}

static bool part_ends(const struct walk *w, const struct part *q)
{
    for (uint32_t i = q->item; i < q->item + q->n; i++)
        if (w->item[i].frame == q->bottom && w->facts.state[w->item[i].state] & FACT_ENDS)
            return true;
    return false;
}

const struct level *walk_at(struct walk *w, uint32_t p)
{
    const struct level *base = &w->level[w->lone[p].base];
    const struct part  *q = &w->part[base->part];
    struct level       *l;

    if (w->lone[p].base == p)
        return base;
    walk_back(w, base);
    l = level_begin(w, p);
    part_begin(w, l, w->lone[p].state, q->bottom, NONE);
    if (w->n_part > l->part)
        w->item[l->n_item - 1].frame = w->item[q->item].frame;
    l->step = base->step + (p - w->lone[p].base);
    l->n_cross = base->n_cross;
    return l;
}

bool walk_step(struct walk *w, uint32_t p, uint32_t sym)
{
    const struct level *from = walk_at(w, p);
    struct level       *to;
    uint32_t            stepped;

    walk_back(w, from);
    to = level_begin(w, p + 1);
    w->extra = 0;
    for (uint32_t k = from->part; k < from->n_part && w->n_part < WALK_PART_MAX; k++) {
        uint32_t first = w->n_item;

        part_step(w, &w->part[k], sym);
        if (w->n_item > first)
            w->part[w->n_part++] = (struct part) { w->part[k].bottom, NONE, first,
                                                   w->n_item - first };
    }
    to->n_item = w->n_item;
    to->n_part = stepped = w->n_part;
    for (uint32_t k = to->part; k < stepped; k++) {
        if (!part_ends(w, &w->part[k]))
            continue;
        to->cross |= w->part[k].bottom == 0;
        part_below(w, to, stepped, w->part[k].bottom);
    }
    to->n_frame = w->n_frame;
    to->step = from->step + 1 + w->extra;
    to->n_cross = from->n_cross + to->cross;
    return to->n_part > to->part;
}

uint32_t walk_run(struct walk *w, uint32_t p, const uint8_t *s, uint32_t n)
{
    uint32_t            b = w->lone[p].base, state = w->lone[p].state, rise = 0;
    const struct level *base = &w->level[b];
    const struct part  *q = &w->part[base->part];
    struct item         t;
    uint32_t            depth;
    uint8_t             stop;

    if (base->n_part != base->part + 1 || q->n != 1)
        return p;
    t = w->item[q->item];
    state = b == p ? t.state : state;
    depth = w->frame[t.frame].depth;
    stop = t.frame == q->bottom ? FACT_CALLS : FACT_CALLS | FACT_ENDS;
    while (p < n && !(w->facts.state[state] & stop)) {
        state = row_of(w, state)[s[p]];
        if (state == NONE || w->facts.state[state] & FACT_ENDS
            || depth + w->facts.rise[state] > w->depth_max)
            break;
        rise = w->facts.rise[state] > rise ? w->facts.rise[state] : rise;
        w->lone[++p] = (struct lone) { state, b };
    }
    w->rise = depth + rise > w->rise ? depth + rise : w->rise;
    return p;
}

void walk_tokens(struct walk *w, void (*put)(void *arg, int32_t id), void *arg)
{
    const struct grammar *g = w->g;

    walk_back(w, &w->level[0]);
    for (uint32_t k = 0; k < w->level[0].n_part; k++) {
        todo_begin(w, &w->part[k]);
        for (uint32_t i = 0; i < w->n_pend; i++) {
            uint32_t s = w->pend[i].state;

            for (uint32_t j = g->state[s].token; j < g->state[s + 1].token; j++)
                if (fits(w, g->token[j].to, w->frame[w->pend[i].frame].depth))
                    put(arg, g->token[j].id);
            todo_enter(w, w->pend[i], w->part[k].bottom, FACT_TOKEN);
        }
    }
}
