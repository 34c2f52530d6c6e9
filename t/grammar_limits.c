/* grammar_limits.c - every limit of a grammar at its edge and beyond, the deadline, and memory that
 * is refused at each place where it is asked for. */
#include "count_alloc.h"
#include "grammar_priv.h"
#include "tap.h"

#include <stdlib.h>
#include <time.h>

/* The end of a grammar that must be refused with these words, or (NULL) compiled. */
static void ends(struct grammar_make *m, gram root, const char *words, const char *what)
{
    struct grammar *g = NULL;
    struct err      e = { 0 };
    int             rc = grammar_compile(&g, m, root, &e);

    is_int(rc, words == NULL ? 0 : E_FULL, "%s: %s", what, words == NULL ? "fine" : words);
    ok(words == NULL ? g != NULL : g == NULL && strstr(e.msg, words) != NULL, "words: %s", e.msg);
    grammar_free(g);
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

static gram row(struct grammar_make *m, size_t n)
{
    char *p = malloc(n);
    gram  a;

    memset(p, 'a', n);
    a = grammar_bytes(m, p, n);
    free(p);
    return a;
}

static void pieces(int more)
{
    struct grammar_make *m = grammar_make(0);
    gram                 a = -1;

    for (uint32_t i = 0; i < GRAMMAR_NODE_MAX; i++)
        a = grammar_text(m, "a");
    is_int(a, GRAMMAR_NODE_MAX - 1, "so many pieces");
    if (more)
        is_int(grammar_text(m, "a"), -1, "and no more");
    ends(m, a, more ? "pieces" : NULL, "pieces");
}

static void rules(int more)
{
    struct grammar_make *m = grammar_make(0);
    int32_t              r = -1;
    gram                 all = grammar_text(m, "a");

    /* Each calls the one before it twice, in its middle: none is copied. */
    for (uint32_t i = 0; i < GRAMMAR_RULE_MAX + (uint32_t) more; i++) {
        r = grammar_rule(m);
        grammar_define(m, r, grammar_alt(m, grammar_text(m, "abcdefghijklmnopqr"), all));
        all = grammar_seq(m, grammar_text(m, "x"),
                          grammar_seq(m, grammar_call(m, r), grammar_call(m, r)));
    }
    is_int(r, more ? -1 : GRAMMAR_RULE_MAX - 1, "so many rules");
    ends(m, all, more ? "4096 rules" : NULL, "rules");
}

static void states(void)
{
    struct grammar_make *m = grammar_make(0);

    ends(m, row(m, GRAMMAR_STATE_MAX - 1), NULL, "states");
    m = grammar_make(0);
    ends(m, row(m, GRAMMAR_STATE_MAX), "65536 states", "states and one");

    /* a* and a row of a: raw states for the row, of which one is left. */
    m = grammar_make(0);
    ends(m, grammar_alt(m, row(m, GRAMMAR_RAW_MAX - 1), rep(m, "a", 0, -1)), NULL, "raw states");
    m = grammar_make(0);
    ends(m, grammar_alt(m, row(m, GRAMMAR_RAW_MAX), rep(m, "a", 0, -1)), "262144 states",
         "raw states and one");
}

/* (a|b)*a(a|b){n} has 2^(n + 1) states. */
static gram blow_up(struct grammar_make *m, int n)
{
    gram ab = chars(m, 'a', 'b');

    return grammar_seq(m, grammar_repeat(m, ab, 0, -1),
                       grammar_seq(m, grammar_text(m, "a"), grammar_repeat(m, ab, n, n)));
}

static void steps(void)
{
    static const int64_t most[] = { INT32_MAX, (int64_t) INT32_MAX + 1, UINT32_MAX, INT64_MAX };
    struct grammar_make *m = grammar_make(0);
    int64_t              n = GRAMMAR_NFA_MAX / 2;

    ok(rep(m, "a", n, n) >= 0, "as many steps as may be");
    is_int(rep(m, "a", n + 1, n + 1), -1, "and no more");
    ends(m, -1, "524288 steps", "steps");
    for (int i = 0; i < 8; i++) {
        m = grammar_make(0);
        is_int(rep(m, "a", i < 4 ? 0 : most[i % 4], most[i % 4]), -1, "%s%lld times",
               i < 4 ? "up to " : "", (long long) most[i % 4]);
        grammar_make_free(m);
    }
    m = grammar_make(0);
    ends(m, rep(m, "", INT64_MAX, INT64_MAX), NULL, "nothing, 2^63 - 1 times");
    m = grammar_make(0);
    ends(m, grammar_repeat(m, rep(m, "x", 1000, 1000), 1000, 1000), "524288 steps", "a million");

    /* What is copied is counted: rules that each call the one before twice would be 2^30. */
    m = grammar_make(0);
    gram all = grammar_text(m, "a");
    for (int i = 0; i < 30; i++) {
        int32_t r = grammar_rule(m);

        grammar_define(m, r, all);
        all = grammar_seq(m, grammar_call(m, r), grammar_call(m, r));
    }
    ends(m, all, NULL, "2^30 letters");
    m = grammar_make(0);
    all = grammar_text(m, "a");
    for (int i = 0; i < 30; i++)
        all = grammar_seq(m, all, all);
    ends(m, all, "524288 steps", "2^30 letters in pieces");
}

/* Tiny rules, that many places call, until their copies are more than there may be steps. */
static void copies(void)
{
    struct grammar_make *m = grammar_make(0);
    gram                 word = grammar_text(m, "abcdefghijklmno"), all = word;

    for (uint32_t i = 0; i < GRAMMAR_RULE_MAX; i++) {
        int32_t r = grammar_rule(m);

        grammar_define(m, r, word);
        all = grammar_alt(m, all, grammar_repeat(m, grammar_call(m, r), 16, 16));
    }
    ends(m, all, NULL, "copies as far as there is room");
}

static void sets(void)
{
    static struct code_range r[GRAMMAR_RANGE_MAX + 1];
    struct grammar_make     *m;

    for (uint32_t i = 0; i <= GRAMMAR_RANGE_MAX; i++)
        r[i].lo = r[i].hi = 0x10ffff - 2 * i;
    for (uint32_t more = 0; more < 2; more++) {
        m = grammar_make(0);
        ends(m, grammar_chars(m, r, GRAMMAR_RANGE_MAX + more), more ? "ranges" : NULL, "ranges");
        m = grammar_make(0);
        gram a = -1;
        for (uint32_t i = 0; i < GRAMMAR_SET_MAX + more; i++)
            a = chars(m, 0x20 + i, 0x20 + i);
        ends(m, a, more ? "sets of characters" : NULL, "different sets");
    }
    m = grammar_make(0);
    for (uint32_t i = 0; i < 2 * GRAMMAR_SET_MAX; i++)
        chars(m, 0x20, 0x10ffff);
    is_int(m->sets.n, 1, "the same set many times is one");
    grammar_make_free(m);
}

/* Each state has 64 edges, for every other one of 128 bytes. */
static void edges(void)
{
    struct code_range r[64];

    for (uint32_t i = 0; i < 64; i++)
        r[i].lo = r[i].hi = 2 * i;
    for (int more = 0; more < 2; more++) {
        struct grammar_make *m = grammar_make(0);
        gram                 a = grammar_chars(m, r, 64);

        ends(m, grammar_repeat(m, a, GRAMMAR_EDGE_MAX / 64 + more, GRAMMAR_EDGE_MAX / 64 + more),
             more ? "1048576 edges" : NULL, "edges");
    }
}

static void literals(void)
{
    struct grammar_make *m = grammar_make(0);
    gram                 a = -1;

    for (int i = 0; i < 4; i++)
        a = row(m, GRAMMAR_LIT_MAX / 4);
    ok(a >= 0, "so many bytes");
    is_int(grammar_text(m, "a"), -1, "and no more");
    ends(m, a, "bytes of literals", "literals");
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t) t.tv_sec * 1000000000u + (uint64_t) t.tv_nsec;
}

static void deadline(void)
{
    struct grammar_make *m = grammar_make(now_ns() - 1);
    gram                 a = grammar_text(m, "a");

    ends(m, blow_up(m, 12), "too long", "the deadline, while it is compiled");
    m = grammar_make(now_ns() - 1);
    for (int i = 0; i < 2000; i++)
        a = grammar_text(m, "a");
    ends(m, a, "too long", "and while it is written");
    m = grammar_make(now_ns() + 3600 * 1000000000ull);
    ends(m, blow_up(m, 12), NULL, "a deadline far ahead");
}

/* A grammar that goes through all of it. */
static int all_steps(void)
{
    struct grammar_make *m = grammar_make(0);
    struct grammar      *g;
    struct err           e = { 0 };
    int                  rc = E_FULL;

    if (m != NULL) {
        int32_t r = grammar_rule(m);
        gram    c = grammar_alt(m, chars(m, 0x20, 0x10ffff), grammar_token(m, 3));

        grammar_name(m, r, "r", 1);
        grammar_define(m, r, grammar_alt(m, rep(m, "abc", 0, 100),
                                         grammar_seq(m, c, grammar_call(m, r))));
        rc = grammar_compile(&g, m, grammar_seq(m, grammar_call(m, r), blow_up(m, 8)), &e);
        if (rc < 0 && strcmp(e.msg, "out of memory") != 0)
            rc = E_INVALID;
        grammar_free(g);
    }
    grammar_make_free(m);
    return rc;
}

static void memory(void)
{
    long before = n_alloc, n, held, bad = 0;

    is_int(all_steps(), 0, "with memory enough");
    n = n_alloc - before;
    held = n_held;
    if (!COUNTS_ALLOC)
        return;
    ok(n > 20, "%ld times memory is asked for", n);
    for (long i = 1; i <= n; i++) {
        alloc_left = i;
        bad += all_steps() != E_FULL || alloc_left != 0;
    }
    alloc_left = -1;
    is_int(bad, 0, "refused at each, that is said");
    is_int(n_held, held, "and all that was had is given back");
}

int main(void)
{
    for (int more = 0; more < 2; more++) {
        pieces(more);
        rules(more);
    }
    states();
    steps();
    copies();
    sets();
    edges();
    literals();
    struct grammar_make *m = grammar_make(0);
    ends(m, blow_up(m, 30), "262144 states", "(a|b)*a(a|b){30}");
    m = grammar_make(0);
    ends(m, grammar_repeat(m, rep(m, "a", 0, 1), 5000, 5000), "4194304 steps", "(a?){5000}");
    deadline();
    memory();
    return done_testing();
}
