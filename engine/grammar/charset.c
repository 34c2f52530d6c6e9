#include "charset.h"

#include <stdlib.h>

void charset_clear(struct charset *s)
{
    s->n = 0;
}

static bool grow(struct charset *s)
{
    size_t             cap = s->cap > 0 ? 2 * s->cap : 64;
    struct code_range *r = realloc(s->r, cap * sizeof(*r));

    if (r == NULL)
        return false;
    s->r = r;
    s->cap = cap;
    return true;
}

void charset_add(struct charset *s, uint32_t lo, uint32_t hi)
{
    if (s->added == CHARSET_ADD_MAX || (s->n == s->cap && !grow(s))) {
        s->full = true;
        return;
    }
    s->added++;
    s->r[s->n++] = (struct code_range) { lo, hi };
}

static int by_lo(const void *a, const void *b)
{
    uint32_t x = ((const struct code_range *) a)->lo, y = ((const struct code_range *) b)->lo;

    return (x > y) - (x < y);
}

static void tidy_from(struct charset *s, size_t from)
{
    size_t n = from;

    if (s->n > from)
        qsort(s->r + from, s->n - from, sizeof(*s->r), by_lo);
    for (size_t i = from; i < s->n; i++) {
        if (n == from || s->r[i].lo > s->r[n - 1].hi + 1)
            s->r[n++] = s->r[i];
        else if (s->r[i].hi > s->r[n - 1].hi)
            s->r[n - 1].hi = s->r[i].hi;
    }
    s->n = n;
}

void charset_tidy(struct charset *s)
{
    tidy_from(s, 0);
}

void charset_invert(struct charset *s, size_t from)
{
    size_t   n = from;
    uint32_t next = 0;                  /* the first that is not decided */

    tidy_from(s, from);
    for (size_t i = from; i < s->n; i++) {
        struct code_range r = s->r[i];

        if (r.lo > next)
            s->r[n++] = (struct code_range) { next, r.lo - 1 };
        next = r.hi + 1;
    }
    s->n = n;
    if (next <= CODE_MAX)
        charset_add(s, next, CODE_MAX);
}

void charset_close(struct charset *s)
{
    free(s->r);
    *s = (struct charset) { 0 };
}
