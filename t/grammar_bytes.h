/* grammar_bytes.h - a grammar that any bytes spell, for tests with many: a stack of pieces, each
 * byte an operation. */
#ifndef T_GRAMMAR_BYTES_H
#define T_GRAMMAR_BYTES_H

#include "grammar.h"

#define SPELL_RULES 3
#define SPELL_STACK 16
#define SPELL_REPEATS 3                  /* with bounds: each copies what it repeats */

struct spell {
    struct grammar_make *m;
    gram    stack[SPELL_STACK];
    int     n, defined, n_repeat;
    int32_t rule[SPELL_RULES];
};

static gram spell_pop(struct spell *s)
{
    return s->n > 0 ? s->stack[--s->n] : grammar_empty(s->m);
}

static gram spell_piece(struct spell *s, uint8_t c)
{
    static const char letter[] = "abc()\" x";
    struct code_range r = { 'a', 'a' + c % 4u };
    gram              a, b;

    switch (c >> 5) {
    case 0: case 1:
        return grammar_bytes(s->m, &letter[c % 8], 1);
    case 2:
        if (c & 8)
            r = (struct code_range) { 0xe0, 0xe0u + c % 8 * 0x1000u };
        return c & 16 ? grammar_token(s->m, c % 4) : grammar_chars(s->m, &r, 1);
    case 3:
        a = spell_pop(s);
        if (s->n_repeat++ >= SPELL_REPEATS)
            return grammar_repeat(s->m, a, 0, -1);
        return grammar_repeat(s->m, a, c & 3, (c >> 2 & 3) == 3 ? -1 : (c & 3) + (c >> 2 & 3));
    case 4:
        return grammar_call(s->m, s->rule[c % SPELL_RULES]);
    case 5:
        b = spell_pop(s);
        a = spell_pop(s);
        return grammar_alt(s->m, a, b);
    default:
        b = spell_pop(s);
        a = spell_pop(s);
        return grammar_seq(s->m, a, b);
    }
}

/* 0xff ends a rule's body, the last one's is that of the root; what comes behind that is left.
 * NULL: these bytes spell no grammar. used: how many did. */
static struct grammar *spell_grammar(const uint8_t *p, size_t n, size_t *used)
{
    struct spell    s = { .m = grammar_make(0) };
    struct grammar *g = NULL;
    gram            root;
    size_t          i;

    if (s.m == NULL)
        return NULL;
    for (int k = 0; k < SPELL_RULES; k++)
        s.rule[k] = grammar_rule(s.m);
    for (i = 0; i < n && s.defined < SPELL_RULES; i++) {
        if (p[i] != 0xff) {
            gram x = spell_piece(&s, p[i]);

            if (s.n < SPELL_STACK)
                s.stack[s.n++] = x;
            continue;
        }
        root = spell_pop(&s);
        grammar_define(s.m, s.rule[s.defined++], root);
        s.n = 0;
    }
    *used = i;
    while (s.defined < SPELL_RULES)
        grammar_define(s.m, s.rule[s.defined++], spell_pop(&s));
    root = grammar_call(s.m, s.rule[SPELL_RULES - 1]);
    if (grammar_compile(&g, s.m, root, NULL) != 0)
        g = NULL;
    grammar_make_free(s.m);
    return g;
}

#endif
