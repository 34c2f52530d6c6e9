/* grammar.c - what comes out of grammar_compile, run by a chart that is written here and compared
 * with a recogniser that works on the pieces themselves; sizes of known automata; every limit. */
#include "grammar_run.h"
#include "tap.h"

#include <stdlib.h>

static struct grammar *compiled(struct grammar_make *m, gram root)
{
    struct grammar *g;
    struct err      e = { 0 };

    if (grammar_compile(&g, m, root, &e) < 0)
        printf("# %s\n", e.msg);
    else if (run_broken(g) != NULL)
        ok(false, "sound: %s", run_broken(g));
    grammar_make_free(m);
    return g;
}

static bool takes(const struct grammar *g, const char *s, size_t n)
{
    int sym[64];

    for (size_t i = 0; i < n; i++)
        sym[i] = (unsigned char) s[i];
    return g != NULL && run_takes(g, sym, (int) n);
}

#define YES(g, s) ok(takes(g, s, sizeof(s) - 1), "taken: %s", #s)
#define NO(g, s)  ok(!takes(g, s, sizeof(s) - 1), "not taken: %s", #s)

/* The sizes and what is said of a compile that fails. */
static void refused(struct grammar_make *m, gram root, int code, const char *words)
{
    struct grammar *g = (void *) m;
    struct err      e = { 0 };

    is_int(grammar_compile(&g, m, root, &e), code, "refused: %s", words);
    ok(strstr(e.msg, words) != NULL && g == NULL, "in words: %s", e.msg);
    grammar_make_free(m);
}

static gram chars(struct grammar_make *m, uint32_t lo, uint32_t hi)
{
    return grammar_chars(m, &(struct code_range) { lo, hi }, 1);
}

static gram rep(struct grammar_make *m, const char *s, int64_t min, int64_t max)
{
    return grammar_repeat(m, grammar_text(m, s), min, max);
}

static void basics(void)
{
    struct grammar_make *m = grammar_make(0);
    gram                 a = grammar_alt(m, grammar_text(m, "foo"), grammar_text(m, "for"));
    struct grammar      *g = compiled(m, a);

    YES(g, "foo");
    YES(g, "for");
    NO(g, "fo");
    NO(g, "fooo");
    NO(g, "");
    is_int(g->n_state, 4, "foo|for: one state a letter, and an end");
    is_int(g->n_rule, 1, "and one rule");
    grammar_free(g);

    m = grammar_make(0);
    g = compiled(m, grammar_seq(m, rep(m, "ab", 2, 3), rep(m, "c", 0, -1)));
    YES(g, "abab");
    YES(g, "abababcc");
    NO(g, "ab");
    NO(g, "abababab");
    grammar_free(g);

    m = grammar_make(0);
    g = compiled(m, grammar_empty(m));
    YES(g, "");
    NO(g, "a");
    is_int(g->n_state, 1, "the empty text: one state");
    grammar_free(g);
}

/* value: "x" or [ values with commas ]; the rule calls itself in its middle. */
static void nested(void)
{
    struct grammar_make *m = grammar_make(0);
    int32_t              value = grammar_rule(m);
    gram v = grammar_call(m, value);
    gram more = grammar_repeat(m, grammar_seq(m, grammar_text(m, ","), v), 0, -1);
    gram list = grammar_seq(m, grammar_text(m, "["),
                            grammar_seq(m, grammar_repeat(m, grammar_seq(m, v, more), 0, 1),
                                        grammar_text(m, "]")));
    struct grammar *g;

    grammar_define(m, value, grammar_alt(m, grammar_text(m, "x"), list));
    g = compiled(m, v);
    YES(g, "x");
    YES(g, "[]");
    YES(g, "[x,[x,x],[[]]]");
    NO(g, "[x,]");
    NO(g, "[x");
    NO(g, "");
    grammar_free(g);
}

/* UTF-8 of c, also of what is none; bytes, 0 where there is no way to write it. */
static int utf8_of(char p[4], uint32_t c)
{
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : c < 0x200000 ? 4 : 0;

    for (int i = n - 1; i > 0; i--, c >>= 6)
        p[i] = (char) (0x80 | (c & 0x3f));
    if (n > 0)
        p[0] = (char) ((n == 1 ? 0 : n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | c);
    return n;
}

/* One character of lo .. hi, asked for each code point around the edges of UTF-8. */
static void utf8_range(uint32_t lo, uint32_t hi)
{
    const uint32_t edge[] = { 0, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xd800, 0xdfff, 0xe000, 0xfff,
                              0x1000, 0xffff, 0x10000, 0x3ffff, 0x40000, 0xfffff, 0x100000,
                              0x10ffff, 0x110000, lo, hi };
    struct grammar_make  *m = grammar_make(0);
    struct grammar       *g = compiled(m, chars(m, lo, hi));
    int                   bad = 0;

    for (size_t i = 0; i < sizeof(edge) / sizeof(edge[0]); i++)
        for (uint32_t c = edge[i] < 2 ? 0 : edge[i] - 2; c <= edge[i] + 2; c++) {
            char p[4];
            int  n = utf8_of(p, c);
            bool want = c >= lo && c <= hi && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);

            bad += n > 0 && takes(g, p, (size_t) n) != want;
        }
    is_int(bad, 0, "characters %x to %x and no others", lo, hi);
    grammar_free(g);
}

static void utf8(void)
{
    static const uint32_t edge[] = { 0, 0x20, 0x7f, 0x80, 0x7ff, 0x800, 0x1234, 0xd7ff, 0xe000,
                                     0xffff, 0x10000, 0x12345, 0x10ffff };
    struct grammar_make  *m = grammar_make(0);
    struct grammar       *g;

    for (size_t i = 0; i < sizeof(edge) / sizeof(edge[0]); i++)
        for (size_t k = i; k < sizeof(edge) / sizeof(edge[0]); k++)
            utf8_range(edge[i], edge[k]);

    g = compiled(m, chars(m, 0, UINT32_MAX));
    NO(g, "\xc0\x80");
    NO(g, "\xc1\xbf");
    NO(g, "\xe0\x9f\xbf");
    NO(g, "\xed\xa0\x80");
    NO(g, "\xf0\x8f\xbf\xbf");
    NO(g, "\xf4\x90\x80\x80");
    NO(g, "\x80");
    NO(g, "\xff");
    NO(g, "\xe2\x82");
    YES(g, "\xe2\x82\xac");
    is_int(g->n_state, 9, "any character: begin, end, 1, 2 and 3 more, after e0, ed, f0 and f4");
    grammar_free(g);
}

static void refusals(void)
{
    struct grammar_make *m = grammar_make(0);
    int32_t              r = grammar_rule(m), s;

    grammar_name(m, r, "expr", 4);
    grammar_define(m, r, grammar_alt(m, grammar_text(m, "x"),
                                     grammar_seq(m, grammar_call(m, r), grammar_text(m, "+x"))));
    refused(m, grammar_call(m, r), E_INVALID, "left recursion: rule expr");

    m = grammar_make(0);
    r = grammar_rule(m);
    s = grammar_rule(m);
    grammar_define(m, r, grammar_seq(m, grammar_call(m, s), grammar_text(m, "x")));
    grammar_define(m, s, grammar_alt(m, grammar_text(m, "y"),
                                     grammar_seq(m, rep(m, "z", 0, 1), grammar_call(m, r))));
    refused(m, grammar_call(m, r), E_INVALID, "left recursion");

    m = grammar_make(0);                                 /* hidden behind a rule that can be "" */
    r = grammar_rule(m);
    s = grammar_rule(m);
    grammar_define(m, s, grammar_alt(m, grammar_empty(m),
                                     grammar_seq(m, grammar_text(m, "("),
                                                 grammar_seq(m, grammar_call(m, s),
                                                             grammar_text(m, ")")))));
    grammar_define(m, r, grammar_alt(m, grammar_text(m, "x"),
                                     grammar_seq(m, grammar_call(m, s), grammar_call(m, r))));
    refused(m, grammar_call(m, r), E_INVALID, "left recursion");

    m = grammar_make(0);
    r = grammar_rule(m);
    refused(m, grammar_call(m, r), E_INVALID, "has no body");
    m = grammar_make(0);
    r = grammar_rule(m);
    grammar_define(m, r, grammar_empty(m));
    grammar_define(m, r, grammar_empty(m));
    refused(m, grammar_call(m, r), E_INVALID, "two bodies");
    m = grammar_make(0);
    refused(m, grammar_chars(m, NULL, 0), E_INVALID, "no text matches");
    m = grammar_make(0);
    refused(m, grammar_seq(m, grammar_text(m, "a"), chars(m, 0xd800, 0xdfff)), E_INVALID,
            "no text matches");
    m = grammar_make(0);
    r = grammar_rule(m);
    grammar_define(m, r, grammar_seq(m, grammar_text(m, "a"), grammar_call(m, r)));
    refused(m, grammar_call(m, r), E_INVALID, "no text matches");
    m = grammar_make(0);
    refused(m, grammar_repeat(m, grammar_text(m, "a"), 3, 2), E_INVALID, "3 to 2");
    m = grammar_make(0);
    refused(m, grammar_repeat(m, grammar_text(m, "a"), -1, 2), E_INVALID, "-1 to 2");
    m = grammar_make(0);
    refused(m, grammar_token(m, -1), E_INVALID, "no such token");
    m = grammar_make(0);
    grammar_fail(m, E_INVALID, "first");
    grammar_fail(m, E_FULL, "second");
    refused(m, grammar_text(m, "a"), E_INVALID, "first");
}

int main(void)
{
    basics();
    nested();
    utf8();
    refusals();
    return done_testing();
}
