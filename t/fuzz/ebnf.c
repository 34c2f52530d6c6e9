/* fuzz/ebnf.c - any bytes as a grammar, within 50 ms: no crash, failures in words. */
#include "ebnf.h"

#include "buf.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct timespec      t;
    struct err           e = { 0 };
    struct grammar      *g;
    struct grammar_make *m;

    clock_gettime(CLOCK_MONOTONIC, &t);
    m = grammar_make((uint64_t) t.tv_sec * 1000000000u + (uint64_t) t.tv_nsec + 50000000);
    if (grammar_compile(&g, m, ebnf_gram(m, (const char *) p, n), &e) < 0
        && ((e.code != E_INVALID && e.code != E_FULL) || e.msg[0] == '\0'
            || !utf8_valid(e.msg, strlen(e.msg))))
        abort();
    grammar_make_free(m);
    grammar_free(g);
    return 0;
}
