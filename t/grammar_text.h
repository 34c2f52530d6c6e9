/* grammar_text.h - texts for the grammars of grammar_run.h. */
#ifndef T_GRAMMAR_TEXT_H
#define T_GRAMMAR_TEXT_H

#include "buf.h"
#include "grammar_run.h"

#include <time.h>

/* p is a text of g; g keeps its promises. */
__attribute__((unused))
static bool text_matches(const struct grammar *g, const char *p, size_t n)
{
    int        *sym = calloc(n + 1, sizeof(*sym));
    const char *broken = run_broken(g);
    bool        yes;

    for (size_t i = 0; i < n; i++)
        sym[i] = (unsigned char) p[i];
    yes = run_takes(g, sym, (int) n);
    free(sym);
    if (broken == NULL)
        return yes;
    fprintf(stderr, "a grammar breaks its promises: %s\n", broken);
    abort();
}

/* s as a test's name can hold it; good until the next but one. */
__attribute__((unused))
static const char *text_shown(const char *s)
{
    static struct buf b[2];
    static int        i;

    i = !i;
    b[i].n = 0;
    buf_json_str(&b[i], s, strlen(s));
    for (size_t k = 0; k < b[i].n; k++)
        if ((unsigned char) b[i].p[k] >= 0x7F)
            b[i].p[k] = '?';
    buf_put(&b[i], "", 1);
    return b[i].p;
}

/* begin, then middle as often as n bytes allow, then end as often. */
__attribute__((unused))
static struct buf text_many(const char *begin, const char *middle, const char *end, size_t n)
{
    struct buf b = { 0 };
    size_t     times = (n - strlen(begin)) / (strlen(middle) + strlen(end));

    buf_str(&b, begin);
    for (size_t i = 0; i < times; i++)
        buf_str(&b, middle);
    for (size_t i = 0; i < times; i++)
        buf_str(&b, end);
    return b;
}

__attribute__((unused))
static uint64_t text_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t) t.tv_sec * 1000000000u + (uint64_t) t.tv_nsec;
}

#endif
