/* schema_array.c - arrays, and counts of anything. */
#include "schema_priv.h"

#include <stdlib.h>

#define BLOCK 256

gram schema_times_end(struct schema *s, gram unit, int64_t min, int64_t max, gram end,
                      int32_t *block, int32_t *fewer)
{
    int64_t more = max - min;
    gram    g, whole, some;

    if (unit < 0)
        return unit;
    if (min <= BLOCK && max <= BLOCK)
        return schema_seq(s, grammar_repeat(s->m, unit, min, max), end);

    if (*block < 0) {
        *block = grammar_rule(s->m);
        *fewer = grammar_rule(s->m);
        grammar_define(s->m, *block, grammar_repeat(s->m, unit, BLOCK, BLOCK));
        grammar_define(s->m, *fewer, schema_seq(s, grammar_repeat(s->m, unit, 1, BLOCK - 1), end));
    }
    whole = grammar_call(s->m, *block);
    some = grammar_call(s->m, *fewer);
    if (max == NO_MAX)
        g = grammar_repeat(s->m, unit, 0, -1);
    else
        g = grammar_repeat(s->m, unit, 0, more % BLOCK);
    g = schema_seq(s, g, end);
    for (int64_t n = max == NO_MAX ? 0 : more / BLOCK; n > 0 && g >= 0; n--)
        g = schema_alt(s, end, schema_alt(s, some, schema_seq(s, whole, g)));
    return schema_seq(s, grammar_repeat(s->m, whole, min / BLOCK, min / BLOCK),
                      schema_seq(s, grammar_repeat(s->m, unit, min % BLOCK, min % BLOCK), g));
}

gram schema_times(struct schema *s, gram unit, int64_t min, int64_t max, int32_t *block,
                  int32_t *fewer)
{
    return schema_times_end(s, unit, min, max, grammar_empty(s->m), block, fewer);
}

/* What holds for the elements behind the first ones, which have schemas of their own. */
static gram other_element(struct schema *s, const struct merged *m)
{
    struct list l = { .n = 0 };

    for (uint32_t k = 0; k < m->n_array; k++)
        if (m->array[k].other != NULL
            && schema_list_add(s, &l, m->array[k].other, m->array[k].schema) < 0)
            return -1;
    return schema_value(s, &l);
}

/* The first n elements, each by all lists of first ones and by what is said of the others. */
static int first_elements(struct schema *s, const struct merged *m, gram *to, uint32_t n)
{
    const struct json *own[SCHEMA_ALL_MAX];

    for (uint32_t k = 0; k < m->n_array; k++)
        own[k] = m->array[k].own != NULL ? m->array[k].own->child : NULL;
    for (uint32_t i = 0; i < n; i++) {
        struct list l = { .n = 0 };

        for (uint32_t k = 0; k < m->n_array; k++) {
            const struct json *one = own[k] != NULL ? own[k] : m->array[k].other;

            if (one != NULL && schema_list_add(s, &l, one, m->array[k].schema) < 0)
                return -1;
            own[k] = own[k] != NULL ? own[k]->next : NULL;
        }
        to[i] = schema_value(s, &l);
        if (to[i] == -1)
            return -1;
    }
    return 0;
}

/* From the last element to the first: one comes if it must, or may and those before it came. rest:
 * what may follow them. */
static gram in_a_row(struct schema *s, const gram *first, uint32_t n, int64_t min, int64_t max,
                     gram rest)
{
    gram g = rest;

    for (uint32_t i = n; i-- > 0;) {
        if (max != NO_MAX && i >= max) {
            g = grammar_empty(s->m);
            continue;
        }
        g = schema_seq(s, first[i], g);
        if (i > 0)
            g = schema_seq(s, s->comma, g);
        if (i >= min)
            g = schema_opt(s, g);
    }
    return g;
}

/* How many elements have schemas of their own, and whether others may follow. */
static uint32_t count_first(const struct merged *m, bool *others)
{
    uint32_t n = 0;

    *others = false;
    for (uint32_t k = 0; k < m->n_array; k++) {
        if (m->array[k].own != NULL && m->array[k].own->n > n)
            n = m->array[k].own->n;
        *others |= m->array[k].other != NULL;
    }
    *others |= n == 0 || m->min_items > n;
    return n;
}

static gram elements(struct schema *s, const struct merged *m)
{
    bool     others;
    uint32_t n = count_first(m, &others);
    int64_t  min = m->min_items, max = m->max_items, own = n > 0 ? n : 1;
    int32_t  block = -1, fewer = -1;
    gram     one = NOTHING, rest = grammar_empty(s->m), *first, g;

    if (others && (max == NO_MAX || max > n))
        one = other_element(s, m);
    if (one == NOTHING && (max == NO_MAX || max > n))
        max = n;
    if (max != NO_MAX && min > max)
        return NOTHING;
    if (one != NOTHING && (max == NO_MAX || max > own))
        rest = schema_times(s, schema_seq(s, s->comma, one), min > own ? min - own : 0,
                            max == NO_MAX ? NO_MAX : max - own, &block, &fewer);
    if (n == 0)
        return max == 0 ? rest : in_a_row(s, &one, 1, min, max, rest);

    first = calloc(n, sizeof(*first));
    if (first == NULL)
        return grammar_fail(s->m, E_FULL, "out of memory");
    g = first_elements(s, m, first, n) < 0 ? -1 : in_a_row(s, first, n, min, max, rest);
    free(first);
    return g;
}

gram schema_array(struct schema *s, const struct merged *m)
{
    gram g;

    if (m->n_array == 0 && m->min_items == 0 && m->max_items == NO_MAX)
        return schema_shared(s, SHARED_ARRAY);
    g = elements(s, m);
    if (g == NOTHING)
        s->why = "an array of it must have more elements than it can have";
    return schema_seq(s, grammar_text(s->m, "["), schema_seq(s, g, grammar_text(s->m, "]")));
}
