/* grammar.c - what comes out of grammar_compile, run by a chart that is written here and compared
 * with a recogniser that works on the pieces themselves; sizes of known automata; every limit. */
#include "grammar_priv.h"
#include "grammar_plain.h"
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

/* Each automaton as small as it can be, equal ends shared, also between rules. */
static void minimal(void)
{
    struct grammar_make *m = grammar_make(0);
    gram                 ab = chars(m, 'a', 'b');
    struct grammar      *g = compiled(m, grammar_seq(m, grammar_repeat(m, ab, 0, -1),
                                                     grammar_seq(m, grammar_text(m, "a"),
                                                                 grammar_repeat(m, ab, 3, 3))));
    int32_t              r, s;

    is_int(g->n_state, 16, "(a|b)*a(a|b){3}: which of the last four were a");
    grammar_free(g);

    m = grammar_make(0);
    g = compiled(m, grammar_alt(m, grammar_text(m, "abx"), grammar_text(m, "cbx")));
    is_int(g->n_state, 4, "abx|cbx: one tail");
    is_int(g->state[1].edge - g->state[0].edge, 2, "two edges");
    grammar_free(g);

    m = grammar_make(0);
    g = compiled(m, grammar_alt(m, chars(m, 'a', 'c'), chars(m, 'd', 'f')));
    is_int(g->state[1].edge - g->state[0].edge, 1, "ranges that touch are one edge");
    grammar_free(g);

    m = grammar_make(0);                 /* ( r ) or xyz, [ s ] or xyz */
    r = grammar_rule(m);
    s = grammar_rule(m);
    grammar_define(m, r, grammar_alt(m, grammar_text(m, "xyz"),
                                     grammar_seq(m, grammar_text(m, "("),
                                                 grammar_seq(m, grammar_call(m, r),
                                                             grammar_text(m, ")")))));
    grammar_define(m, s, grammar_alt(m, grammar_text(m, "xyz"),
                                     grammar_seq(m, grammar_text(m, "["),
                                                 grammar_seq(m, grammar_call(m, s),
                                                             grammar_text(m, "]")))));
    g = compiled(m, grammar_alt(m, grammar_call(m, r), grammar_call(m, s)));
    is_int(g->n_state, 10, "two rules of three states, the root's one, and x, xy and xyz once");
    is_int(g->n_rule, 3, "three rules");
    YES(g, "((xyz))");
    YES(g, "[xyz]");
    NO(g, "([xyz])");
    grammar_free(g);
}

/* A text of so many letters, called so often: has it a rule of its own? */
static uint32_t rules_of(int letters, int calls)
{
    struct grammar_make *m = grammar_make(0);
    int32_t              r = grammar_rule(m);
    gram                 all = grammar_empty(m);
    struct grammar      *g;
    uint32_t             n;

    grammar_define(m, r, grammar_bytes(m, "abcdefghijklmnopqrstuvwxyz", (size_t) letters));
    for (int i = 0; i < calls; i++)
        all = grammar_seq(m, all, grammar_call(m, r));
    g = compiled(m, all);
    n = g->n_rule;
    grammar_free(g);
    return n;
}

static void copied(void)
{
    struct grammar_make *m = grammar_make(0);
    int32_t              r = grammar_rule(m), unused = grammar_rule(m);
    struct grammar      *g;

    is_int(rules_of(26, 1), 1, "a rule called once is copied");
    is_int(rules_of(26, 2), 2, "one called twice is not");
    is_int(rules_of(15, 2), 1, "unless it is tiny");
    is_int(rules_of(16, 2), 2, "of 16 steps at most");
    is_int(rules_of(15, 16), 1, "and so are all its copies");
    is_int(rules_of(15, 17), 2, "of 256 steps at most");

    grammar_define(m, r, grammar_text(m, "r"));
    grammar_define(m, unused, grammar_alt(m, grammar_empty(m), grammar_call(m, unused)));
    g = compiled(m, grammar_repeat(m, grammar_call(m, r), 0, 0));
    is_int(g->n_rule, 1, "a rule that nobody calls is not there, nor looked at");
    is_int(g->n_state, 1, "and nothing of it");
    grammar_free(g);
}

static void empty_rules(void)
{
    struct grammar_make *m = grammar_make(0);
    int32_t              r = grammar_rule(m), s;
    struct grammar      *g;

    grammar_define(m, r, grammar_alt(m, grammar_empty(m), grammar_seq(m, grammar_text(m, "("),
                         grammar_seq(m, grammar_call(m, r), grammar_text(m, ")")))));
    g = compiled(m, grammar_seq(m, grammar_call(m, r), grammar_call(m, r)));
    YES(g, "");
    YES(g, "(())()");
    NO(g, "()()()");
    is_int(g->n_rule, 2, "a rule that may be empty, called where it is not");
    ok(g->state[g->rule[0]].accept && !g->state[g->rule[1]].accept, "only the root accepts \"\"");
    grammar_free(g);

    for (int first = 0; first < 2; first++) {            /* r: s s; s: nothing or ( r ) */
        int32_t two[2];

        m = grammar_make(0);
        two[0] = grammar_rule(m);
        two[1] = grammar_rule(m);
        r = two[first];
        s = two[!first];
        grammar_define(m, r, grammar_seq(m, grammar_call(m, s), grammar_call(m, s)));
        grammar_define(m, s, grammar_alt(m, grammar_empty(m), grammar_seq(m, grammar_text(m, "("),
                             grammar_seq(m, grammar_call(m, r), grammar_text(m, ")")))));
        g = compiled(m, grammar_seq(m, grammar_call(m, r), grammar_call(m, r)));
        YES(g, "");
        YES(g, "()(()())()()");
        NO(g, "()()()()()");
        NO(g, "(()()())");
        grammar_free(g);
    }

    m = grammar_make(0);                 /* s has no text, so an end behind it is none */
    r = grammar_rule(m);
    s = grammar_rule(m);
    grammar_define(m, s, grammar_seq(m, grammar_text(m, "("), grammar_call(m, s)));
    grammar_define(m, r, grammar_alt(m, grammar_text(m, "x"),
                                     grammar_seq(m, grammar_call(m, s), grammar_text(m, "y"))));
    g = compiled(m, grammar_call(m, r));
    is_int(g->n_state, 2, "a rule without a text is dropped, and what only it leads to");
    is_int(g->n_rule, 1, "with all its calls");
    grammar_free(g);
}

static void tokens(void)
{
    struct grammar_make *m = grammar_make(0);
    gram                 any = grammar_repeat(m, grammar_alt(m, grammar_token(m, 50),
                                              grammar_alt(m, grammar_token(m, 7),
                                                          grammar_text(m, "x"))), 0, -1);
    struct grammar      *g = compiled(m, grammar_seq(m, any, grammar_token(m, 1 << 20)));
    const int            text[] = { RUN_TOKEN + 7, 'x', RUN_TOKEN + 50, RUN_CALL };

    is_int(g->n_state, 2, "tokens are edges");
    is_int(g->state[1].token, 3, "three of them");
    is_int(g->token[2].id, 1 << 20, "ascending");
    ok(!run_takes(g, text, 3) && run_to(g, g->rule[0], RUN_TOKEN + 7) == 0, "7, x, 50: no end");
    grammar_free(g);
}

static void alike(void)
{
    static const int     sym[] = { 'a', 'b', 'c' };
    struct grammar_make *m = grammar_make(0);
    struct grammar      *g = compiled(m, rep(m, "a", 0, 5000));

    is_int(g->n_state, 5001, "a{0,5000}: a state each");
    is_int(g->n_alike, GRAMMAR_LOOK + 2, "alike but for the last %d", GRAMMAR_LOOK + 1);
    is_int(g->state[0].alike, g->state[5000 - GRAMMAR_LOOK - 1].alike, "65 to go: as at first");
    ok(g->state[0].alike != g->state[5000 - GRAMMAR_LOOK].alike, "with 64 not");
    grammar_free(g);

    for (int n = GRAMMAR_LOOK - 1; n <= GRAMMAR_LOOK + 1; n += 2) {
        int class[2 * GRAMMAR_LOOK + 8], n_class;

        m = grammar_make(0);
        g = compiled(m, grammar_alt(m,
            grammar_seq(m, grammar_text(m, "a"), grammar_seq(m, rep(m, "a", n, n),
                                                             grammar_text(m, "b"))),
            grammar_seq(m, grammar_text(m, "b"), grammar_seq(m, rep(m, "a", n, n),
                                                             grammar_text(m, "c")))));
        int a = run_to(g, g->rule[0], 'a'), b = run_to(g, g->rule[0], 'b');

        is_int(g->state[a].alike == g->state[b].alike, n > GRAMMAR_LOOK,
               "states that differ after %d bytes", n);
        n_class = run_classes(g, class, GRAMMAR_LOOK + 1, sym, 3);
        is_int(g->n_alike, n_class, "%d classes, as found plainly", n_class);
        grammar_free(g);
    }
}

/* Rows of pieces as long as may be, leaning to either side. */
static void deep(void)
{
    for (int left = 0; left < 2; left++) {
        struct grammar_make *m = grammar_make(0);
        gram                 a = grammar_text(m, "a"), all = a, any = a;
        struct grammar      *g;

        for (int i = 1; i < 60000; i++)
            all = left ? grammar_seq(m, all, a) : grammar_seq(m, a, all);
        for (int i = 1; i < 60000; i++)
            any = left ? grammar_alt(m, any, a) : grammar_alt(m, a, any);
        g = compiled(m, grammar_seq(m, all, any));
        is_int(g->n_state, 60002, "60,000 in a row, and 60,000 alternatives");
        grammar_free(g);
    }
}

int main(void)
{
    basics();
    nested();
    utf8();
    refusals();
    minimal();
    copied();
    empty_rules();
    tokens();
    alike();
    deep();
    return done_testing();
}
