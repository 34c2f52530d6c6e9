/* matcher.c - a mask has the bits of exactly the ids that come, and what comes is the grammar's
 * text: against a slow recogniser that knows nothing of masks, frames and limits. */
#include "automata_json.h"
#include "count_alloc.h"
#include "grammar_bytes.h"
#include "matcher_priv.h"
#include "tap.h"
#include "words_make.h"

#define N_ID_MORE 40                     /* ids that the model has and the tokenizer has not */

static struct tok   *tok;
static struct vocab *vocab;
static int32_t       n_id;
static uint32_t      seed = 1;

static uint32_t dice(uint32_t n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % n;
}

static void open_words(void)
{
    static const char *const word[] = {
        "a", "b", "c", "aa", "aaa", "ab", "abc", "abcabc", "ba", "bb", "bca", "cab", "ca", "aab",
        M, M M, M M M M, M "a", M "ab", "a" M "b", " ", "\n", "\n\n", "", "true", "tr", "false",
        "e,", "true,", "\"", "\"a", "a\"", "\":", "\": ", "\":" M "\"", "\",", "\"," M "\"", "\"}",
        "\"}]},\"", "\"}]}", "}]", "]}", "}}", "]]", "}},", "{\"", "{\"a\":", "[[", "[[[[", "[{\"",
        "[]", "{}", "[],", ",[", "1", "12", "-", "-1", "1,", "1]", "12}", "\\", "\\n", "\\\"",
        "\\u", "\\u00", "\xc3\xa9", "\xc3\xa9\xc3\xa9", "a\xc3\xa9", "\xf0\x9f\x98\x80", "()", ")(",
        "((", "))", "(a)", "(a", "a)", "a))", "ac", "acb", "x", "xy", "xyz", "xyzx",
    };
    static char  runs[8][700];
    const char  *all[sizeof(word) / sizeof(word[0]) + 8];
    size_t       n = 0;
    struct err   e = { 0 };
    const size_t len[8] = { 16, 31, 62, 63, 64, 65, 130, 600 };

    for (size_t i = 0; i < sizeof(word) / sizeof(word[0]); i++)
        all[n++] = word[i];
    for (size_t i = 0; i < 8; i++) {
        memset(runs[i], 'a', len[i]);
        all[n++] = runs[i];
    }
    tok = words_tok(all, n, &e);
    if (tok == NULL) {
        printf("Bail out! %s\n", e.msg);
        exit(1);
    }
    n_id = tok_n_vocab(tok) + N_ID_MORE;
    ok(vocab_open(&vocab, tok, n_id, &e) == 0, "vocab_open");
}

static bool has(const uint32_t *mask, int32_t id)
{
    return mask[id / 32] >> (id % 32) & 1;
}

struct score { long n_step, n_set, n_bad; };

/* One step of a walk: every id is tried. The one that the dice chose of those that came, or -1. */
static int32_t try_all(struct matcher *m, struct matcher *probe, struct score *s)
{
    uint32_t mask[64] = { 0 }, again[64] = { 0 };
    int32_t  chosen = -1, n = 0;

    matcher_mask(m, mask);
    for (int32_t id = 0; id < n_id; id++) {
        bool took;

        matcher_copy(probe, m);
        took = matcher_take(probe, id);
        n += took;
        if (took && dice((uint32_t) n) == 0)
            chosen = id;
        if (took != has(mask, id) && s->n_bad++ < 5)
            printf("# id %d '%.*s': taken %d, mask %d\n", id, (int) tok_text(tok, id).n,
                   tok_text(tok, id).p, took, has(mask, id));
        if (!took && dice(40) == 0) {
            memset(again, 0, sizeof(again));
            matcher_mask(probe, again);
            s->n_bad += memcmp(mask, again, sizeof(mask)) != 0
                        || matcher_done(probe) != matcher_done(m);
        }
    }
    for (int32_t id = n_id; id < 64 * 32; id++)
        s->n_bad += has(mask, id);
    s->n_bad += matcher_stuck(m) && n > 0;
    s->n_step++;
    s->n_set += n;
    return chosen;
}

static struct score walk(struct grammar *g, int n_walk, int n_step)
{
    struct score    s = { 0 };
    struct matcher *m, *probe = matcher_open(g, vocab);

    for (int i = 0; i < n_walk; i++) {
        m = matcher_open(g, vocab);
        for (int k = 0; k < n_step; k++) {
            int32_t id = try_all(m, probe, &s);

            if (id < 0 || !matcher_take(m, id))
                break;
        }
        matcher_close(m);
    }
    matcher_close(probe);
    return s;
}

/* Stacks written out; of states, the deepest first. */
#define SLOW_DEPTH 24
#define SLOW_MAX   3000
struct slow_stack { uint8_t n; uint16_t s[SLOW_DEPTH]; };
struct slow {
    const struct grammar *g;
    int  n;
    bool over;
    struct slow_stack at[SLOW_MAX];
    bool ends[AUTO_STATES];              /* the rule's end can be reached from there */
};

static void slow_open(struct slow *w, const struct grammar *g)
{
    w->g = g;
    w->n = 0;
    w->over = false;
    for (uint32_t s = 0; s < g->n_state; s++)
        w->ends[s] = g->state[s].accept;
    for (uint32_t round = 0; round < g->n_state; round++)
        for (uint32_t s = 0; s < g->n_state; s++) {
            const struct grammar_state *a = &g->state[s];

            for (uint32_t k = a->edge; k < a[1].edge; k++)
                w->ends[s] |= w->ends[g->edge[k].to];
            for (uint32_t k = a->token; k < a[1].token; k++)
                w->ends[s] |= w->ends[g->token[k].to];
            for (uint32_t k = a->call; k < a[1].call; k++)
                w->ends[s] |= w->ends[g->call[k].to] && w->ends[g->rule[g->call[k].rule]];
        }
}

static void slow_put(struct slow *w, struct slow_stack k)
{
    for (int i = 0; i < w->n; i++)
        if (w->at[i].n == k.n && memcmp(w->at[i].s, k.s, k.n * sizeof(k.s[0])) == 0)
            return;
    if (w->n == SLOW_MAX)
        w->over = true;
    else
        w->at[w->n++] = k;
}

/* Whatever can be entered or left without a byte. */
static void slow_close(struct slow *w)
{
    const struct grammar *g = w->g;

    for (int i = 0; i < w->n; i++) {
        struct slow_stack k = w->at[i];
        uint32_t          s = k.s[k.n - 1];

        for (uint32_t c = g->state[s].call; c < g->state[s + 1].call; c++) {
            struct slow_stack t = k;

            if (t.n == SLOW_DEPTH) {
                w->over = true;
                continue;
            }
            if (!w->ends[g->call[c].to])
                continue;
            t.s[t.n - 1] = (uint16_t) g->call[c].to;
            t.s[t.n++] = (uint16_t) g->rule[g->call[c].rule];
            slow_put(w, t);
        }
        if (g->state[s].accept && k.n > 1) {
            k.n--;
            slow_put(w, k);
        }
    }
}

static bool slow_step(struct slow *w, uint8_t b)
{
    static struct slow next;
    const struct grammar *g = w->g;

    next.g = g;
    next.n = 0;
    next.over = w->over;
    memcpy(next.ends, w->ends, g->n_state);
    for (int i = 0; i < w->n; i++) {
        struct slow_stack k = w->at[i];
        uint32_t          s = k.s[k.n - 1];

        for (uint32_t e = g->state[s].edge; e < g->state[s + 1].edge; e++) {
            if (b < g->edge[e].lo || b > g->edge[e].hi || !w->ends[g->edge[e].to])
                continue;
            k.s[k.n - 1] = (uint16_t) g->edge[e].to;
            slow_put(&next, k);
        }
    }
    if (next.n == 0)
        return false;
    slow_close(&next);
    memcpy(w->at, next.at, (size_t) next.n * sizeof(next.at[0]));
    w->n = next.n;
    w->over = next.over;
    return true;
}

static bool slow_done(const struct slow *w)
{
    for (int i = 0; i < w->n; i++)
        if (w->at[i].n == 1 && w->g->state[w->at[i].s[0]].accept)
            return true;
    return false;
}

/* Random texts, byte by byte, beside the slow recogniser; also in larger pieces. */
static struct score compare(struct grammar *g, const char *of, int n_text)
{
    static struct slow w;
    struct score       s = { 0 };

    for (int i = 0; i < n_text; i++) {
        struct matcher *m = matcher_open(g, vocab), *whole = matcher_open(g, vocab);
        char            text[10];
        size_t          n = 0;

        slow_open(&w, g);
        slow_put(&w, (struct slow_stack) { 1, { (uint16_t) g->rule[0] } });
        slow_close(&w);
        for (int tries = 0; tries < 40 && n < sizeof(text) && !w.over; tries++) {
            bool slow, fast;

            text[n] = of[dice((uint32_t) strlen(of))];
            slow = slow_step(&w, (uint8_t) text[n]);
            fast = matcher_take_bytes(m, &text[n], 1);
            if (w.over)
                break;
            n += slow;
            s.n_step++;
            s.n_set += slow;
            s.n_bad += slow != fast || slow_done(&w) != matcher_done(m);
        }
        if (!w.over)
            s.n_bad += !matcher_take_bytes(whole, text, n)
                       || matcher_done(whole) != matcher_done(m);
        matcher_close(m);
        matcher_close(whole);
    }
    return s;
}

/* Rules that may be empty, ambiguous, or endless; never left recursive: what can come first in a
 * rule calls only rules behind it. */
static struct grammar *random_grammar(void)
{
    struct automata *a = automata_make();
    uint32_t         n_rule = 1 + dice(5), n[5], at[5];

    for (uint32_t r = 0; r < n_rule; r++) {
        n[r] = 1 + dice(5);
        at[r] = a->n_state;
        for (uint32_t i = 0; i < n[r]; i++)
            auto_state(a, i + 1 == n[r] || dice(4) == 0);
        auto_rule(a, at[r]);
    }
    for (uint32_t r = 0; r < n_rule; r++) {
        bool fresh[5] = { true };

        for (uint32_t i = 0; i < n[r]; i++) {
            for (uint32_t k = dice(4); k > 0; k--) {
                uint8_t b = (uint8_t) ("abc()"[dice(5)]);

                auto_edge(a, at[r] + i, b, b, at[r] + dice(n[r]));
            }
            for (uint32_t k = dice(3); k > 0 && i + 1 < n[r]; k--) {
                uint32_t to = i + 1 + dice(n[r] - i - 1);
                uint32_t rule = fresh[i] ? r + 1 + dice(n_rule) : dice(n_rule);

                if (rule >= n_rule)
                    continue;
                fresh[to] |= fresh[i];
                auto_call(a, at[r] + i, rule, at[r] + to);
            }
            if (dice(6) == 0)
                auto_token(a, at[r] + i, (int32_t) dice(6), at[r] + dice(n[r]));
        }
    }
    return automata_end(a);
}

static void add_score(struct score *all, struct score s)
{
    all->n_step += s.n_step;
    all->n_set += s.n_set;
    all->n_bad += s.n_bad;
}

static void random_grammars(void)
{
    struct score all = { 0 }, texts = { 0 };

    for (int i = 0; i < 70; i++) {
        struct grammar *g = random_grammar();

        add_score(&all, walk(g, 2, 6));
        add_score(&texts, compare(g, "abc()", 20));
        automata_free(g);
    }
    printf("# %ld steps, %ld ids taken; %ld bytes, %ld taken\n", all.n_step, all.n_set,
           texts.n_step, texts.n_set);
    ok(all.n_set > 1000 && texts.n_set > 1000, "random grammars say something");
    is_int(all.n_bad, 0, "their masks are what is taken");
    is_int(texts.n_bad, 0, "and what is taken is their text");
}

/* What the compiler makes of random pieces. */
static void compiled_grammars(void)
{
    struct score all = { 0 }, texts = { 0 };
    int          n = 0;

    for (int i = 0; i < 700; i++) {
        uint8_t         p[40];
        size_t          used;
        struct grammar *g;

        for (size_t k = 0; k < sizeof(p); k++)
            p[k] = dice(10) == 0 ? 0xff : (uint8_t) dice(256);
        g = spell_grammar(p, sizeof(p), &used);
        if (g == NULL || g->n_state < 5) {
            grammar_free(g);
            continue;
        }
        n++;
        add_score(&all, walk(g, 1, 6));
        add_score(&texts, compare(g, "abc()\" x", 10));
        grammar_free(g);
    }
    printf("# %d: %ld steps, %ld ids taken; %ld bytes, %ld taken\n", n, all.n_step, all.n_set,
           texts.n_step, texts.n_set);
    ok(n > 30 && all.n_set > 1000 && texts.n_set > 1000, "compiled grammars say something");
    is_int(all.n_bad, 0, "their masks are what is taken");
    is_int(texts.n_bad, 0, "and what is taken is their text");
}

static void json(void)
{
    struct grammar *g = automata_json();
    struct score    s;
    struct matcher *m;
    static const char text[] = "{\"a\": [1,-2, {\"\\u00e9\xc3\xa9\":\"\"}], \"b\":null}";

    s = walk(g, 20, 30);
    printf("# %ld steps, %ld ids taken\n", s.n_step, s.n_set);
    is_int(s.n_bad, 0, "JSON: masks are what is taken");
    s = compare(g, "[]{}\",:1ae ", 2000);
    is_int(s.n_bad, 0, "JSON: what is taken is JSON");
    m = matcher_open(g, vocab);
    for (size_t i = 0; i + 1 < sizeof(text); i++)
        ok(!matcher_done(m) && matcher_take_bytes(m, text + i, 1), "JSON: byte %zu", i);
    ok(matcher_done(m) && matcher_stuck(m), "JSON: done, and nothing follows");
    ok(!matcher_take_bytes(m, " ", 1) && matcher_done(m), "JSON: not even a space");
    ok(matcher_take_bytes(m, "", 0), "nothing is always taken");
    matcher_close(m);
    automata_free(g);
}

/* root: '(' root ')' | 'x' */
static struct grammar *nested(void)
{
    struct automata *a = automata_make();
    uint32_t         s[4];

    for (int i = 0; i < 4; i++)
        s[i] = auto_state(a, i == 3);
    auto_rule(a, s[0]);
    auto_text(a, s[0], "(", s[1]);
    auto_text(a, s[0], "x", s[3]);
    auto_call(a, s[1], 0, s[2]);
    auto_text(a, s[2], ")", s[3]);
    return automata_end(a);
}

static void depth(void)
{
    struct grammar *g = nested();
    struct matcher *m = matcher_open(g, vocab), *probe = matcher_open(g, vocab);
    struct score    s = { 0 };
    int             n = 0;

    while (n < MATCHER_DEPTH_MAX && matcher_take_bytes(m, "(", 1)) {
        if (++n > MATCHER_DEPTH_MAX - 4)
            try_all(m, probe, &s);
    }
    is_int(n, MATCHER_DEPTH_MAX, "as deep as it may be");
    ok(!matcher_take_bytes(m, "(", 1), "one deeper is not taken");
    ok(matcher_take_bytes(m, "x", 1), "what is taken can be finished");
    try_all(m, probe, &s);
    is_int(s.n_bad, 0, "masks near the limit");
    while (n > 0 && matcher_take_bytes(m, ")", 1))
        n--;
    ok(n == 0 && matcher_done(m) && matcher_stuck(m), "all of them closed");
    matcher_close(m);
    matcher_close(probe);
    automata_free(g);
}

/* A rule without a text of less than two rules inside each other, and so on. */
static struct grammar *deep(uint32_t n)
{
    struct automata *a = automata_make();
    uint32_t         s[3] = { 0 };

    for (uint32_t i = 0; i <= n; i++) {
        for (int k = 0; k < 3; k++)
            s[k] = auto_state(a, k == 2);
        auto_rule(a, s[0]);
        if (i < n)
            auto_call(a, s[0], i + 1, s[1]);
        else
            auto_text(a, s[0], "x", s[1]);
        auto_text(a, s[1], "a", s[2]);
    }
    return automata_end(a);
}

static void too_deep(void)
{
    for (uint32_t n = MATCHER_DEPTH_MAX; n <= MATCHER_DEPTH_MAX + 1; n++) {
        struct grammar *g = deep(n);
        struct err      e = { 0 };
        uint32_t        mask[64] = { 0 }, n_set = 0;
        struct matcher *m;
        int             rc = grammar_warm(g, vocab, 0, &e);

        ok(rc == (n > MATCHER_DEPTH_MAX ? E_INVALID : 0), "%u rules deep: %d %s", n, rc, e.msg);
        m = matcher_open(g, vocab);
        matcher_mask(m, mask);
        for (int i = 0; i < 64; i++)
            n_set += (uint32_t) __builtin_popcount(mask[i]);
        ok((n_set > 0) == (rc == 0), "%u rules deep: %u ids", n, n_set);
        matcher_close(m);
        automata_free(g);
    }
}

/* root: 'a' root | 'b'; and with an item as a rule: root: item root | 'b' */
static void long_text(void)
{
    for (int items = 0; items < 2; items++) {
        struct automata *a = automata_make();
        struct grammar  *g;
        struct matcher  *m;
        uint32_t         s[4], mask[64];
        long             before, n = 0;

        for (int i = 0; i < 4; i++)
            s[i] = auto_state(a, i == 2);
        auto_rule(a, s[0]);
        auto_rule(a, s[3]);
        auto_text(a, s[0], "b", s[2]);
        auto_text(a, s[3], "a", s[2]);
        if (items)
            auto_call(a, s[0], 1, s[1]);
        else
            auto_text(a, s[0], "a", s[1]);
        auto_call(a, s[1], 0, s[2]);
        g = automata_end(a);
        m = matcher_open(g, vocab);
        matcher_mask(m, mask);
        matcher_take_bytes(m, "a", 1);
        matcher_mask(m, mask);
        before = n_alloc;
        while (n < 100000 && matcher_take_bytes(m, "aaa", 3) && !matcher_done(m)) {
            memset(mask, 0, sizeof(mask));
            matcher_mask(m, mask);
            n++;
        }
        is_int(n, 100000, "right recursion %d goes on and on", items);
        ok(!COUNTS_ALLOC || n_alloc == before, "and takes no memory");
        ok(matcher_take_bytes(m, "b", 1) && matcher_done(m), "and ends");
        matcher_close(m);
        automata_free(g);
    }
}

/* More readings than there is room for: each a is followed by one of two ends, and stacks tell
 * which. */
static struct grammar *doubling(void)
{
    struct automata *a = automata_make();
    uint32_t         r = auto_state(a, false), b = auto_state(a, false), c = auto_state(a, false);
    uint32_t         end = auto_state(a, true), x = auto_state(a, false);

    auto_rule(a, r);
    auto_text(a, r, "a", x);
    auto_text(a, r, "x", end);
    auto_call(a, x, 0, b);
    auto_call(a, x, 0, c);
    auto_text(a, b, "b", end);
    auto_text(a, c, "c", end);
    auto_text(a, c, "b", end);
    return automata_end(a);
}

static void many_readings(void)
{
    struct grammar *g = doubling();
    struct score    s = walk(g, 1, 3);
    struct matcher *m = matcher_open(g, vocab);
    uint32_t        mask[64] = { 0 }, none[64] = { 0 };
    int             n = 0;

    is_int(s.n_bad, 0, "too many readings: masks are what is taken");
    ok(matcher_take_bytes(m, "aaaaaaaaaaaaaaaaaaaax", 21), "2^20 readings");
    ok(!matcher_done(m), "not done");
    matcher_close(m);

    m = matcher_open(g, vocab);
    matcher_take_bytes(m, "aaaaaaaaaaaaaaa", 15);
    for (; n < 100000 && !matcher_over(m); n++) {
        memset(mask, 0, sizeof(mask));
        matcher_mask(m, mask);
    }
    ok(n > 2 && matcher_over(m), "%d such masks are too much work", n);
    ok(memcmp(mask, none, sizeof(mask)) == 0 && matcher_stuck(m)
       && !matcher_take_bytes(m, "a", 1) && !matcher_done(m), "then nothing is taken");
    matcher_close(m);
    automata_free(g);

    g = doubling();
    is_int(grammar_warm(g, vocab, 0, NULL), 0, "its masks can be found");
    automata_free(g);
    g = doubling();
    mask_cache(g, vocab)->work_max = 1000;
    is_int(grammar_warm(g, vocab, 0, NULL), E_FULL, "but not if that is too much");
    automata_free(g);
}

/* What was not found in time is found when it is met. */
static void late(void)
{
    struct grammar *g = automata_json();
    struct score    s;

    is_int(grammar_warm(g, vocab, 1, NULL), 0, "no time");
    ok(g->masks->bytes == 0, "no masks");
    s = walk(g, 3, 10);
    ok(s.n_bad == 0 && g->masks->bytes > 0, "they come");
    automata_free(g);

    g = automata_json();
    mask_cache(g, vocab)->bytes_max = 40000;
    is_int(grammar_warm(g, vocab, 0, NULL), 0, "little room");
    printf("# %zu bytes\n", (size_t) g->masks->bytes);
    automata_free(g);
}

/* The same walk with hardly any room for masks. */
static void small_cache(void)
{
    struct grammar *g = automata_json();
    struct score    s, t;
    uint32_t        was;

    seed = 5;
    s = walk(g, 10, 30);
    was = seed;
    automata_free(g);

    g = automata_json();
    seed = 5;
    mask_cache(g, vocab)->bytes_max = 3000;
    t = walk(g, 10, 30);
    ok(g->masks->bytes > 0 && g->masks->bytes <= 3000, "%zu bytes of masks", g->masks->bytes);
    is_int(t.n_bad, 0, "a small cache");
    ok(t.n_step == s.n_step && t.n_set == s.n_set && was == seed, "as with a large one");
    automata_free(g);

    g = automata_json();
    seed = 5;
    mask_cache(g, vocab)->bytes_max = 0;
    t = walk(g, 10, 30);
    ok(g->masks->bytes == 0, "no masks");
    is_int(t.n_bad, 0, "without a cache");
    ok(t.n_step == s.n_step && t.n_set == s.n_set && was == seed, "as with one");
    automata_free(g);
}

#if COUNTS_ALLOC
/* The k-th allocation of all and those after it fail. */
static void no_memory(void)
{
    struct grammar *g = NULL;
    struct matcher *m = NULL;
    struct vocab   *v;
    struct err      e = { 0 };
    uint32_t        want[64] = { 0 }, got[64];
    long            k = 1, n_bad = 0;

    g = automata_json();
    m = matcher_open(g, vocab);
    matcher_take_bytes(m, "[\"", 2);
    matcher_mask(m, want);
    matcher_close(m);
    automata_free(g);

    for (m = NULL; m == NULL && k < 100; k++) {
        g = automata_json();
        alloc_left = k;
        m = matcher_open(g, vocab);
        alloc_left = -1;
        if (m == NULL)
            automata_free(g);
    }
    ok(m != NULL && k > 5, "matcher_open fails %ld times", k - 2);
    for (k = 1; m != NULL && k < 40; k++) {
        matcher_close(m);
        automata_free(g);
        g = automata_json();
        m = matcher_open(g, vocab);
        matcher_take_bytes(m, "[\"", 2);
        memset(got, 0, sizeof(got));
        alloc_left = k;
        matcher_mask(m, got);
        alloc_left = -1;
        n_bad += memcmp(want, got, sizeof(got)) != 0;
    }
    is_int(n_bad, 0, "the mask is the same without memory");
    matcher_close(m);
    automata_free(g);

    for (k = 1, v = NULL; v == NULL && k < 100; k++) {
        alloc_left = k;
        n_bad += vocab_open(&v, tok, n_id, &e) != (v != NULL ? 0 : E_FULL);
        alloc_left = -1;
    }
    ok(v != NULL && k > 5 && n_bad == 0, "vocab_open fails %ld times", k - 2);
    vocab_close(v);

    for (int rc = k = 1; rc != 0 && k < 5000; k++) {
        g = automata_json();
        alloc_left = k;
        rc = grammar_warm(g, vocab, 0, &e);
        alloc_left = -1;
        n_bad += rc != 0 && rc != E_FULL;
        automata_free(g);
    }
    ok(k > 5 && k < 5000 && n_bad == 0, "grammar_warm fails %ld times", k - 2);
}
#endif

int main(void)
{
    open_words();
    json();
    random_grammars();
    compiled_grammars();
    depth();
    too_deep();
    long_text();
    many_readings();
    late();
    small_cache();
#if COUNTS_ALLOC
    no_memory();
#endif
    vocab_close(vocab);
    tok_close(tok);
    return done_testing();
}
