/* grammar_plain.h - the states of a grammar told apart in the plainest way, for the tests of those
 * that are quick at it. */
#ifndef T_GRAMMAR_PLAIN_H
#define T_GRAMMAR_PLAIN_H

#include "grammar_run.h"

/* Where symbol sym leads from s: a byte, RUN_TOKEN + id, or RUN_CALL + rule; -1: nowhere. */
#define RUN_CALL (1 << 24)
static int run_to(const struct grammar *g, uint32_t s, int sym)
{
    const struct grammar_state *p = &g->state[s];

    for (uint32_t k = p->edge; k < p[1].edge; k++)
        if (sym >= (int) g->edge[k].lo && sym <= (int) g->edge[k].hi)
            return (int) g->edge[k].to;
    for (uint32_t k = p->token; k < p[1].token; k++)
        if (sym == RUN_TOKEN + g->token[k].id)
            return (int) g->token[k].to;
    for (uint32_t k = p->call; k < p[1].call; k++)
        if (sym == RUN_CALL + (int) g->call[k].rule)
            return (int) g->call[k].to;
    return -1;
}

/* Do s and t agree for one step, their ends in one class? symbols: all there are. */
static bool run_agree(const struct grammar *g, const int *class, uint32_t s, uint32_t t,
                      const int *sym, int n_sym)
{
    if (g->state[s].accept != g->state[t].accept)
        return false;
    for (int i = 0; i < n_sym; i++) {
        int a = run_to(g, s, sym[i]), b = run_to(g, t, sym[i]);

        if ((a < 0) != (b < 0) || (a >= 0 && class[a] != class[b]))
            return false;
    }
    return true;
}

/* The plainest refinement there is: classes of states that agree for so many steps. Returns how
 * many there are; class [n_state]. */
static int run_classes(const struct grammar *g, int *class, int rounds, const int *sym, int n_sym)
{
    int *old = calloc(g->n_state, sizeof(int)), n = 0, before = -1;

    for (; rounds > 0 && n != before; rounds--) {
        before = n, n = 0;
        for (uint32_t s = 0; s < g->n_state; s++) {
            uint32_t t = 0;

            while (t < s && !(old[t] == old[s] && run_agree(g, old, s, t, sym, n_sym)))
                t++;
            class[s] = t < s ? class[t] : n++;
        }
        memcpy(old, class, g->n_state * sizeof(int));
    }
    free(old);
    return n;
}

#endif
