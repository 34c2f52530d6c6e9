/* fuzz/ebnf.c - any bytes as a grammar, within 50 ms: no crash, failures in words. */
#include "ebnf.h"

#include "../grammar_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct grammar_make *m = grammar_make(text_now_ns() + 50000000);
    struct grammar      *g;
    struct err           e = { 0 };

    if (grammar_compile(&g, m, ebnf_gram(m, (const char *) p, n), &e) < 0
        && ((e.code != E_INVALID && e.code != E_FULL) || e.msg[0] == '\0'
            || !utf8_valid(e.msg, strlen(e.msg))))
        abort();
    grammar_make_free(m);
    if (g != NULL)
        text_matches(g, "", 0);
    grammar_free(g);
    return 0;
}
