/* fuzz/matcher.c - any grammar, any walk through it: a mask has the bits of exactly the ids that
 * are taken, and an id that is not taken changes nothing.
 *
 * An input spells a grammar (grammar_bytes.h); each byte behind it chooses a token of the mask. */
#include "../grammar_bytes.h"
#include "../words_make.h"
#include "matcher.h"

#define STEP_MAX 12
#define N_WORDS  16                      /* of a mask: 512 ids */

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static struct tok   *tok;
static struct vocab *vocab;

static void setup(void)
{
    static const char *const word[] = {
        "a", "b", "c", "x", "(", ")", "\"", "aa", "ab", "abc", "aab", "bc", "ca", "((", "))",
        "()", ")(", "(a", "a)", "a))", "\"a", "a\"", "\"(", ")\"", "\")\"(", M, M M, M "a", "a" M,
        "aaaaaaaa", "abababab", "\xc3\xa9", "\xc3\xa9" "a", "\xe1\x80\x80", "x" "\xe1\x80\x80", "",
    };

    tok = words_tok(word, sizeof(word) / sizeof(word[0]), NULL);
    if (tok == NULL || vocab_open(&vocab, tok, tok_n_vocab(tok) + 3, NULL) != 0)
        abort();
}

static bool has(const uint32_t *mask, int32_t id)
{
    return mask[id / 32] >> (id % 32) & 1;
}

/* The choice-th id of those that are taken, or -1. */
static int32_t step(struct matcher *m, struct matcher *probe, uint8_t choice)
{
    uint32_t mask[N_WORDS] = { 0 }, again[N_WORDS] = { 0 };
    int32_t  came[N_WORDS * 32], n = 0;

    matcher_mask(m, mask);
    matcher_copy(probe, m);
    for (int32_t id = 0; id < N_WORDS * 32; id++) {
        bool took = matcher_take(probe, id);

        if (took != has(mask, id))
            abort();
        if (!took)
            continue;
        came[n++] = id;
        matcher_copy(probe, m);
    }
    matcher_mask(probe, again);
    if (memcmp(mask, again, sizeof(mask)) != 0 || matcher_done(probe) != matcher_done(m)
        || (matcher_stuck(m) && n > 0))
        abort();
    return n > 0 ? came[choice % n] : -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct grammar *g;
    struct matcher *m, *probe;
    size_t          at = 0;

    if (tok == NULL)
        setup();
    g = n < 200 ? spell_grammar(p, n, &at) : NULL;
    if (g == NULL)
        return 0;
    m = matcher_open(g, vocab);
    probe = matcher_open(g, vocab);
    if (m == NULL || probe == NULL)
        abort();
    for (size_t end = at + STEP_MAX; at < n && at < end; at++) {
        int32_t id = step(m, probe, p[at]);

        if (id < 0)
            break;
        if (!matcher_take(m, id))
            abort();
    }
    matcher_close(m);
    matcher_close(probe);
    grammar_free(g);
    return 0;
}
