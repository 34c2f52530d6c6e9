/* schema_walk.h - random texts of a compiled grammar, for the tests of what writes grammars. */
#ifndef T_SCHEMA_WALK_H
#define T_SCHEMA_WALK_H

#include "buf.h"
#include "grammar.h"

#include <stdlib.h>

#define WALK_FAR   UINT32_MAX
#define WALK_LONG  10000                 /* symbols: no way that needs so many is gone */
#define WALK_DEPTH 250                   /* rules inside each other, but for the shortest way */

struct walk {
    const struct grammar *g;
    uint32_t             *need;          /* of a state: symbols to the end of its rule */
    uint64_t              seed;
};

static uint32_t walk_rand(struct walk *w, uint32_t n)
{
    w->seed ^= w->seed << 13;
    w->seed ^= w->seed >> 7;
    w->seed ^= w->seed << 17;
    return (uint32_t) ((w->seed >> 32) * n >> 32);
}

static uint32_t walk_sum(uint32_t a, uint32_t b)
{
    return a >= WALK_FAR - b ? WALK_FAR : a + b;
}

/* One way on: a byte, a token, a call, or the rule's end. */
struct walk_way { uint32_t need; int sym; uint32_t rule, to; };
enum { WALK_CALL = -1, WALK_END = -2 };

static uint32_t walk_count(const struct grammar *g, uint32_t at)
{
    const struct grammar_state *s = &g->state[at];

    return s->accept + (s[1].edge - s->edge) + (s[1].token - s->token) + (s[1].call - s->call);
}

static struct walk_way walk_nth(struct walk *w, uint32_t at, uint32_t i)
{
    const struct grammar_state *s = &w->g->state[at];
    uint32_t                    n_edge = s[1].edge - s->edge, n_token = s[1].token - s->token;

    if (s->accept && i-- == 0)
        return (struct walk_way) { 0, WALK_END, 0, 0 };
    if (i < n_edge) {
        const struct grammar_edge *e = &w->g->edge[s->edge + i];

        return (struct walk_way) { walk_sum(1, w->need[e->to]),
                                   (int) (e->lo + walk_rand(w, e->hi - e->lo + 1)), 0, e->to };
    }
    if ((i -= n_edge) < n_token) {
        const struct grammar_token *t = &w->g->token[s->token + i];

        return (struct walk_way) { walk_sum(1, w->need[t->to]), 256 + t->id, 0, t->to };
    }
    const struct grammar_call *c = &w->g->call[s->call + i - n_token];

    return (struct walk_way) { walk_sum(w->need[w->g->rule[c->rule]], w->need[c->to]), WALK_CALL,
                               c->rule, c->to };
}

static struct walk_way walk_shortest(struct walk *w, uint32_t at)
{
    struct walk_way best = walk_nth(w, at, 0), way;

    for (uint32_t i = 1; i < walk_count(w->g, at); i++) {
        way = walk_nth(w, at, i);
        if (way.need < best.need)
            best = way;
    }
    return best;
}

static void walk_open(struct walk *w, const struct grammar *g, uint64_t seed)
{
    bool more = true;

    *w = (struct walk) { g, malloc(g->n_state * sizeof(*w->need)),
                         seed * 0x9E3779B97F4A7C15u + 88172645463325252u };
    for (uint32_t i = 0; i < g->n_state; i++)
        w->need[i] = WALK_FAR;
    while (more) {
        more = false;
        for (uint32_t i = g->n_state; i-- > 0;) {
            uint32_t n = walk_shortest(w, i).need;

            more |= n < w->need[i];
            w->need[i] = n;
        }
    }
}

static void walk_close(struct walk *w)
{
    free(w->need);
}

/* Any way for so many steps, then the shortest. Bytes go to out, a token as the text mark. False:
 * all texts are long. */
static bool walk_text(struct walk *w, uint32_t n_step, const char *mark, struct buf *out)
{
    uint32_t  n = 0, at = w->g->rule[0];
    uint32_t *stack;

    if (w->need[at] >= WALK_LONG)
        return false;
    /* On the shortest way no rule is inside itself. */
    stack = malloc((WALK_DEPTH + w->g->n_rule) * sizeof(*stack));
    for (uint32_t step = 0;; step++) {
        struct walk_way way = walk_nth(w, at, walk_rand(w, walk_count(w->g, at)));

        if (step >= n_step || n >= WALK_DEPTH || way.need >= WALK_LONG)
            way = walk_shortest(w, at);
        if (way.sym == WALK_END && n == 0)
            break;
        if (way.sym == WALK_END) {
            at = stack[--n];
            continue;
        }
        if (way.sym >= 256)
            buf_str(out, mark);
        else if (way.sym >= 0)
            buf_put(out, &(char) { (char) way.sym }, 1);
        if (way.sym == WALK_CALL)
            stack[n++] = way.to;
        at = way.sym == WALK_CALL ? w->g->rule[way.rule] : way.to;
    }
    free(stack);
    return true;
}

#endif
