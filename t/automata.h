/* automata.h - a grammar's automata state by state, also such as no compiler makes, for the tests
 * of what runs them. Free with automata_free. */
#ifndef T_AUTOMATA_H
#define T_AUTOMATA_H

#include "matcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AUTO_STATES 1024
#define AUTO_ARCS   4096                 /* calls, and tokens */
#define AUTO_NONE   UINT16_MAX

struct automata {
    uint32_t n_state, n_rule, n_call, n_token;
    bool     accept[AUTO_STATES];
    uint16_t next[AUTO_STATES][256];
    uint32_t rule[AUTO_STATES];
    struct { uint32_t s, rule, to; } call[AUTO_ARCS];
    struct { uint32_t s, to; int32_t id; } token[AUTO_ARCS];
};

__attribute__((unused))
static struct automata *automata_make(void)
{
    return calloc(1, sizeof(struct automata));
}

static uint32_t auto_state(struct automata *a, bool accept)
{
    if (a->n_state == AUTO_STATES)
        abort();
    a->accept[a->n_state] = accept;
    memset(a->next[a->n_state], 0xff, sizeof(a->next[0]));
    return a->n_state++;
}

__attribute__((unused))
static uint32_t auto_rule(struct automata *a, uint32_t start)
{
    a->rule[a->n_rule] = start;
    return a->n_rule++;
}

static void auto_edge(struct automata *a, uint32_t s, uint8_t lo, uint8_t hi, uint32_t to)
{
    for (uint32_t b = lo; b <= hi; b++)
        a->next[s][b] = (uint16_t) to;
}

__attribute__((unused))
static void auto_text(struct automata *a, uint32_t s, const char *text, uint32_t to)
{
    for (; *text != 0; text++) {
        uint32_t t = text[1] == 0 ? to : a->next[s][(uint8_t) *text];

        t = t == AUTO_NONE ? auto_state(a, false) : t;
        auto_edge(a, s, (uint8_t) *text, (uint8_t) *text, t);
        s = t;
    }
}

__attribute__((unused))
static void auto_call(struct automata *a, uint32_t s, uint32_t rule, uint32_t to)
{
    if (a->n_call == AUTO_ARCS)
        abort();
    a->call[a->n_call].s = s;
    a->call[a->n_call].rule = rule;
    a->call[a->n_call++].to = to;
}

/* Of a state in ascending order. */
__attribute__((unused))
static void auto_token(struct automata *a, uint32_t s, int32_t id, uint32_t to)
{
    a->token[a->n_token].s = s;
    a->token[a->n_token].id = id;
    a->token[a->n_token++].to = to;
}

static uint64_t auto_mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

/* The texts of up to GRAMMAR_LOOK steps tell states apart. */
static void auto_alike(const struct automata *a, struct grammar *g)
{
    uint64_t *now = malloc(a->n_state * sizeof(*now)), *was = malloc(a->n_state * sizeof(*was));

    for (uint32_t s = 0; s < a->n_state; s++)
        now[s] = a->accept[s];
    for (int round = 0; round < GRAMMAR_LOOK; round++) {
        memcpy(was, now, a->n_state * sizeof(*now));
        for (uint32_t s = 0; s < a->n_state; s++) {
            now[s] = a->accept[s];
            for (int b = 0; b < 256; b++)
                now[s] = auto_mix(now[s], a->next[s][b] == AUTO_NONE ? 7 : was[a->next[s][b]]);
        }
        for (uint32_t k = 0; k < a->n_call; k++)
            now[a->call[k].s] += auto_mix(a->call[k].rule + 1000, was[a->call[k].to]);
        for (uint32_t k = 0; k < a->n_token; k++)
            now[a->token[k].s] += auto_mix((uint64_t) a->token[k].id << 32, was[a->token[k].to]);
    }
    g->n_alike = 0;
    for (uint32_t s = 0; s < a->n_state; s++) {
        uint32_t k = 0;

        while (k < s && now[k] != now[s])
            k++;
        g->state[s].alike = k < s ? g->state[k].alike : g->n_alike++;
    }
    free(now);
    free(was);
}

static uint32_t auto_edges(const struct automata *a, uint32_t s, struct grammar_edge *out)
{
    uint32_t n = 0;

    for (uint32_t b = 0; b < 256; b++) {
        uint32_t to = a->next[s][b];

        if (to == AUTO_NONE)
            continue;
        if (n > 0 && out[n - 1].hi + 1 == b && out[n - 1].to == to)
            out[n - 1].hi = b;
        else
            out[n++] = (struct grammar_edge) { b, b, to };
    }
    return n;
}

/* The grammar of them, rule 0 its root; a is freed. */
__attribute__((unused))
static struct grammar *automata_end(struct automata *a)
{
    struct grammar *g = calloc(1, sizeof(*g));
    uint32_t        n_edge = 0, n_token = 0, n_call = 0;

    g->n_state = a->n_state;
    g->n_rule = a->n_rule;
    g->state = calloc(a->n_state + 1, sizeof(*g->state));
    g->edge = calloc((size_t) a->n_state * 256 + 1, sizeof(*g->edge));
    g->token = calloc(a->n_token + 1, sizeof(*g->token));
    g->call = calloc(a->n_call + 1, sizeof(*g->call));
    g->rule = calloc(a->n_rule + 1, sizeof(*g->rule));
    memcpy(g->rule, a->rule, a->n_rule * sizeof(*g->rule));
    for (uint32_t s = 0; s <= a->n_state; s++) {
        g->state[s].edge = n_edge;
        g->state[s].token = n_token;
        g->state[s].call = n_call;
        if (s == a->n_state)
            break;
        g->state[s].accept = a->accept[s];
        n_edge += auto_edges(a, s, g->edge + n_edge);
        for (uint32_t k = 0; k < a->n_token; k++)
            if (a->token[k].s == s)
                g->token[n_token++] = (struct grammar_token) { a->token[k].id, a->token[k].to };
        for (uint32_t k = 0; k < a->n_call; k++)
            if (a->call[k].s == s)
                g->call[n_call++] = (struct grammar_call) { a->call[k].rule, a->call[k].to };
    }
    auto_alike(a, g);
    free(a);
    return g;
}

__attribute__((unused))
static void automata_free(struct grammar *g)
{
    if (g->masks != NULL)
        g->masks_free(g->masks);
    free(g->state);
    free(g->edge);
    free(g->token);
    free(g->call);
    free(g->rule);
    free(g);
}

#endif
