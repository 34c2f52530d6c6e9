/* matcher.c - a mask has the bits of exactly the ids that come, and what comes is the grammar's
 * text: against a slow recogniser that knows nothing of masks, frames and limits. */
#include "automata.h"
#include "count_alloc.h"
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
struct slow { const struct grammar *g; int n; bool over; struct slow_stack at[SLOW_MAX]; };

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
    for (int i = 0; i < w->n; i++) {
        struct slow_stack k = w->at[i];
        uint32_t          s = k.s[k.n - 1];

        for (uint32_t e = g->state[s].edge; e < g->state[s + 1].edge; e++) {
            if (b < g->edge[e].lo || b > g->edge[e].hi)
                continue;
            k.s[k.n - 1] = (uint16_t) g->edge[e].to;
            slow_put(&next, k);
        }
    }
    if (next.n == 0)
        return false;
    slow_close(&next);
    *w = next;
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

        w.g = g;
        w.n = 0;
        w.over = false;
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

static void random_grammars(void)
{
    struct score all = { 0 }, texts = { 0 };

    for (int i = 0; i < 400; i++) {
        struct grammar *g = random_grammar();
        struct score    s = walk(g, 2, 12);

        all.n_step += s.n_step;
        all.n_set += s.n_set;
        all.n_bad += s.n_bad;
        s = compare(g, "abc()", 20);
        texts.n_step += s.n_step;
        texts.n_set += s.n_set;
        texts.n_bad += s.n_bad;
        automata_free(g);
    }
    printf("# %ld steps, %ld ids taken; %ld bytes, %ld taken\n", all.n_step, all.n_set,
           texts.n_step, texts.n_set);
    ok(all.n_set > 1000 && texts.n_set > 1000, "random grammars say something");
    is_int(all.n_bad, 0, "their masks are what is taken");
    is_int(texts.n_bad, 0, "and what is taken is their text");
}

static void json(void)
{
    struct grammar *g = automata_json();
    struct score    s;
    struct matcher *m;
    static const char text[] = "{\"a\": [1,-2, {\"\\u00e9\xc3\xa9\":\"\"}], \"b\":null}";

    s = walk(g, 40, 40);
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

int main(void)
{
    open_words();
    json();
    random_grammars();
    vocab_close(vocab);
    tok_close(tok);
    return done_testing();
}
