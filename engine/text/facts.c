/* facts.c - which rules may be empty and what they can begin with, found once for a grammar. */
#include "matcher_priv.h"

#include <stdlib.h>
#include <string.h>

static void set(uint64_t *bits, uint32_t i)
{
    bits[i / 64] |= (uint64_t) 1 << (i % 64);
}

static bool may_end(const struct facts *f, uint32_t s)
{
    return f->state[s] & FACT_ENDS;
}

/* A state ends if an empty call leads to one that does. False: nothing new. */
static bool find_ends(struct facts *f, const struct grammar *g)
{
    bool more = false;

    for (uint32_t s = g->n_state; s-- > 0; ) {
        for (uint32_t k = g->state[s].call; k < g->state[s + 1].call && !may_end(f, s); k++) {
            const struct grammar_call *c = &g->call[k];

            if (may_end(f, g->rule[c->rule]) && may_end(f, c->to)) {
                f->state[s] |= FACT_ENDS;
                more = true;
            }
        }
    }
    return more;
}

/* Of the state alone: the rules that it calls add theirs. */
static void first_here(const struct grammar *g, uint32_t s, uint64_t *first)
{
    for (uint32_t k = g->state[s].edge; k < g->state[s + 1].edge; k++)
        for (uint32_t b = g->edge[k].lo; b <= g->edge[k].hi; b++)
            set(first, b);
    if (g->state[s].token < g->state[s + 1].token)
        set(first, 256);
}

void facts_first(const struct facts *f, const struct grammar *g, uint32_t state,
                 struct facts_room *r, uint64_t *first)
{
    uint32_t n = 0;

    if (++r->stamp == 0) {
        memset(r->mark, 0, (g->n_state + (size_t) 1) * sizeof(*r->mark));
        r->stamp = 1;
    }
    r->todo[n++] = state;
    r->mark[state] = r->stamp;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t s = r->todo[i];

        first_here(g, s, first);
        for (uint32_t k = g->state[s].call; k < g->state[s + 1].call; k++) {
            const struct grammar_call *c = &g->call[k];

            for (int j = 0; j < 5; j++)
                first[j] |= f->first[c->rule][j];
            if (may_end(f, g->rule[c->rule]) && r->mark[c->to] != r->stamp) {
                r->mark[c->to] = r->stamp;
                r->todo[n++] = c->to;
            }
        }
    }
}

bool facts_room_open(struct facts_room *r, const struct grammar *g)
{
    r->stamp = 0;
    r->mark = calloc(g->n_state + (size_t) 1, sizeof(*r->mark));
    r->todo = malloc((g->n_state + (size_t) 1) * sizeof(*r->todo));
    return r->mark != NULL && r->todo != NULL;
}

void facts_room_close(struct facts_room *r)
{
    free(r->mark);
    free(r->todo);
}

static uint8_t state_facts(const struct grammar *g, uint32_t s)
{
    const struct grammar_state *a = &g->state[s], *b = a + 1;
    bool                        more = a->edge < b->edge || a->token < b->token || a->call < b->call;

    return (a->accept ? FACT_ENDS : 0) | (a->call < b->call ? FACT_CALLS : 0)
           | (a->accept && !more ? FACT_LEAF : 0);
}

bool facts_open(struct facts *f, const struct grammar *g)
{
    struct facts_room room;
    bool              done, more = true;

    f->state = calloc(g->n_state + (size_t) 1, 1);
    f->first = calloc(g->n_rule + (size_t) 1, sizeof(*f->first));
    done = facts_room_open(&room, g) && f->state != NULL && f->first != NULL;
    for (uint32_t s = 0; done && s < g->n_state; s++)
        f->state[s] = state_facts(g, s);
    while (done && find_ends(f, g)) { }
    while (done && more) {
        more = false;
        for (uint32_t r = g->n_rule; r-- > 0; ) {
            uint64_t was[5];

            memcpy(was, f->first[r], sizeof(was));
            facts_first(f, g, g->rule[r], &room, f->first[r]);
            more |= memcmp(was, f->first[r], sizeof(was)) != 0;
        }
    }
    facts_room_close(&room);
    if (!done)
        facts_close(f);
    return done;
}

void facts_close(struct facts *f)
{
    free(f->state);
    free(f->first);
    *f = (struct facts) { 0 };
}
