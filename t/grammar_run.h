/* grammar_run.h - grammars in tests: a struct grammar run by a chart, in the plainest way; and all
 * that grammar.h promises of one. */
#ifndef T_GRAMMAR_RUN_H
#define T_GRAMMAR_RUN_H

#include "grammar.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

#define RUN_TOKEN 256                    /* a symbol is a byte, or this and a token's id */

/* Item: in this rule, which began at from, at this state. */
struct run_item { uint32_t rule, state; int from; };
struct run_set  { struct run_item *p; int n, cap; };

static void run_add(struct run_set *s, struct run_item x)
{
    for (int i = 0; i < s->n; i++)
        if (memcmp(&s->p[i], &x, sizeof(x)) == 0)
            return;
    if (s->n == s->cap)
        s->p = realloc(s->p, (size_t) (s->cap = 2 * s->cap + 16) * sizeof(x));
    s->p[s->n++] = x;
}

/* Rules that end here let their callers go on; no rule but the root is empty, so those callers are
 * of an earlier set. Then the rules called from here. */
static void run_complete(const struct grammar *g, struct run_set *set, int at)
{
    for (int i = 0; i < set[at].n; i++) {
        struct run_item             x = set[at].p[i];
        const struct grammar_state *s = &g->state[x.state];

        for (uint32_t k = s->call; k < s[1].call; k++)
            run_add(&set[at], (struct run_item) { g->call[k].rule, g->rule[g->call[k].rule], at });
        for (int j = 0; s->accept && x.from < at && j < set[x.from].n; j++) {
            struct run_item             y = set[x.from].p[j];
            const struct grammar_state *t = &g->state[y.state];

            for (uint32_t k = t->call; k < t[1].call; k++)
                if (g->call[k].rule == x.rule)
                    run_add(&set[at], (struct run_item) { y.rule, g->call[k].to, y.from });
        }
    }
}

static void run_step(const struct grammar *g, const struct run_set *set, struct run_set *next,
                     int sym)
{
    for (int i = 0; i < set->n; i++) {
        struct run_item             x = set->p[i];
        const struct grammar_state *s = &g->state[x.state];

        for (uint32_t k = s->edge; k < s[1].edge; k++)
            if (sym >= (int) g->edge[k].lo && sym <= (int) g->edge[k].hi)
                run_add(next, (struct run_item) { x.rule, g->edge[k].to, x.from });
        for (uint32_t k = s->token; k < s[1].token; k++)
            if (sym == RUN_TOKEN + g->token[k].id)
                run_add(next, (struct run_item) { x.rule, g->token[k].to, x.from });
    }
}

static bool run_takes(const struct grammar *g, const int *sym, int n)
{
    struct run_set *set = calloc((size_t) n + 1, sizeof(*set));
    bool            yes = false;

    run_add(&set[0], (struct run_item) { 0, g->rule[0], 0 });
    run_complete(g, set, 0);
    for (int i = 0; i < n; i++) {
        run_step(g, &set[i], &set[i + 1], sym[i]);
        run_complete(g, set, i + 1);
    }
    for (int i = 0; i < set[n].n; i++)
        yes |= set[n].p[i].rule == 0 && g->state[set[n].p[i].state].accept;
    for (int i = 0; i <= n; i++)
        free(set[i].p);
    free(set);
    return yes;
}

/* What grammar.h promises of any grammar; NULL, or what is wrong. */
static const char *run_broken(const struct grammar *g)
{
    bool *end = calloc(g->n_state, sizeof(*end)), more = true;
    const char *bad = NULL;

    for (uint32_t i = 0; i < g->n_state && bad == NULL; i++) {
        const struct grammar_state *s = &g->state[i];

        if (s->alike >= g->n_alike)
            bad = "alike is out of bounds";
        if (s[1].edge < s->edge || s[1].token < s->token || s[1].call < s->call)
            return free(end), "edges that end before they begin";
        for (uint32_t k = s->edge; k < s[1].edge; k++)
            if (g->edge[k].lo > g->edge[k].hi || g->edge[k].hi > 255
                || g->edge[k].to >= g->n_state
                || (k > s->edge && g->edge[k].lo <= g->edge[k - 1].hi))
                bad = "an edge";
        for (uint32_t k = s->token; k < s[1].token; k++)
            if (g->token[k].to >= g->n_state
                || (k > s->token && g->token[k].id <= g->token[k - 1].id))
                bad = "a token";
        for (uint32_t k = s->call; k < s[1].call; k++)
            if (g->call[k].to >= g->n_state || g->call[k].rule >= g->n_rule
                || g->call[k].rule == 0
                || (k > s->call && g->call[k].rule <= g->call[k - 1].rule))
                bad = "a call";
    }
    for (uint32_t r = 0; r < g->n_rule && bad == NULL; r++)
        if (g->rule[r] >= g->n_state || (r > 0 && g->state[g->rule[r]].accept))
            bad = "a rule";
    while (more && bad == NULL) {
        more = false;
        for (uint32_t i = g->n_state; i-- > 0; ) {
            const struct grammar_state *s = &g->state[i];
            bool                        now = s->accept;

            for (uint32_t k = s->edge; k < s[1].edge; k++)
                now |= end[g->edge[k].to];
            for (uint32_t k = s->token; k < s[1].token; k++)
                now |= end[g->token[k].to];
            for (uint32_t k = s->call; k < s[1].call; k++)
                now |= end[g->call[k].to] && end[g->rule[g->call[k].rule]];
            more |= now && !end[i];
            end[i] |= now;
        }
    }
    for (uint32_t i = 0; i < g->n_state && bad == NULL; i++)
        if (!end[i])
            bad = "a state without an end";
    free(end);
    return bad;
}

#endif
