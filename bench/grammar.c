/* grammar.c - what a grammar costs: once, for each of its states, and for each token.
 *
 * usage: build/bench/grammar [ROUNDS]
 * Prints CSV; medians, one thread; of what takes milliseconds its own time, since others may be
 * busy. The vocabulary is made up: 262,144 tokens, most of them words with and without a space
 * before them, an eighth beyond ASCII, 13,000 with punctuation. The grammar is JSON. */
#include "automata_json.h"
#include "words_make.h"

#include <time.h>

#define N_TOKEN 262144
#define N_WORD  (N_TOKEN - WORDS_SPECIAL - 256)

static uint32_t seed = 1;

static uint32_t dice(uint32_t n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % n;
}

static double us(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double) t.tv_sec * 1e6 + (double) t.tv_nsec * 1e-3;
}

static double now_us(void)
{
    return us(CLOCK_MONOTONIC);
}

static double own_us(void)
{
    return us(CLOCK_THREAD_CPUTIME_ID);
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t) n, sizeof(*v), by_value);
    return v[n / 2];
}

static void put_word(struct buf *b, bool beyond)
{
    static const char *const syllable[] = {
        "ka", "to", "ri", "ment", "ing", "er", "st", "re", "con", "al", "en", "ly", "un", "tion",
        "ab", "le", "o", "is", "pre", "s", "ch", "qu", "ar", "ve", "di", "ght", "ou", "m",
    };
    static const char *const letter[] = {
        "\xd0\xb0", "\xd0\xb5", "\xd1\x81", "\xd1\x82", "\xc3\xa9", "\xc3\xbc", "\xce\xb1",
        "\xe4\xb8\xad", "\xe6\x96\x87", "\xe3\x81\x82", "\xed\x95\x9c", "\xf0\x9f\x98\x80",
    };

    for (uint32_t k = 1 + dice(4); k > 0; k--)
        buf_str(b, beyond ? letter[dice(12)] : syllable[dice(28)]);
}

static void put_mark(struct buf *b)
{
    static const char mark[] = "'{}[]():;,.<>/\\|=+-*&^%$#@!?`~_";

    buf_fmt(b, "%c", dice(3) == 0 ? '"' : mark[dice(sizeof(mark) - 1)]);
}

/* Of 80 entries four have marks, a third of these quotes: before a word, between two and behind. */
static void put_entry(struct buf *b, uint32_t i)
{
    size_t was;

    if (dice(2) == 0)
        buf_str(b, M);
    for (uint32_t k = i % 80 == 0 ? 1 + dice(3) : 0; k > 0; k--)
        put_mark(b);
    was = b->n;
    if (i % 160 != 0)
        put_word(b, i % 8 == 1);
    if (i % 8 == 3)
        b->p[was] -= 'a' - 'A';
    for (uint32_t k = i % 80 == 20 || i % 80 == 40 ? 1 + dice(3) : 0; k > 0; k--)
        put_mark(b);
    if (i % 80 == 60) {
        put_mark(b);
        put_word(b, false);
    }
}

/* Whether the text at at is new; then its place is kept. */
static bool is_new(const struct buf *b, size_t at, size_t *seen)
{
    const char *p = b->p + at;
    uint32_t    h = 1;

    for (; *p != 0; p++)
        h = (h ^ (uint8_t) *p) * 16777619u;
    for (h ^= h >> 15;; h++) {
        size_t *k = &seen[h % (4 * N_TOKEN)];

        if (*k == 0) {
            *k = at + 1;
            return true;
        }
        if (strcmp(b->p + *k - 1, b->p + at) == 0)
            return false;
    }
}

static struct tok *made_up(struct err *e)
{
    const char **word = malloc(N_WORD * sizeof(*word));
    size_t      *at = malloc(N_WORD * sizeof(*at));
    size_t      *seen = calloc(4 * N_TOKEN, sizeof(*seen));
    struct buf   b = { 0 };
    struct tok  *t;

    for (uint32_t i = 0; i < N_WORD; i++) {
        at[i] = b.n;
        put_entry(&b, i);
        for (buf_put(&b, "", 1); !is_new(&b, at[i], seen); buf_put(&b, "", 1)) {
            b.n--;
            buf_fmt(&b, "%c", 'a' + (char) dice(26));
        }
    }
    for (uint32_t i = 0; i < N_WORD; i++)
        word[i] = b.p + at[i];
    t = words_tok(word, N_WORD, e);
    buf_free(&b);
    free(seen);
    free(at);
    free(word);
    return t;
}

static void bench_vocab(const struct tok *tok, double *v, int rounds)
{
    int n = rounds < 11 ? rounds : 11;

    for (int i = 0; i < n; i++) {
        struct vocab *vocab;
        double        t0 = own_us();

        if (vocab_open(&vocab, tok, N_TOKEN, NULL) != 0)
            exit(1);
        v[i] = own_us() - t0;
        vocab_close(vocab);
    }
    printf("once,vocabulary,,%.1f\n", median(v, n));
}

/* The first mask of a state, and those after it. */
static void bench_mask(const struct vocab *vocab, const char *what, const char *text, double *v,
                       int rounds)
{
    static uint32_t mask[N_TOKEN / 32];
    int             n = rounds < 11 ? rounds : 11;
    uint32_t        n_set = 0;
    struct grammar *g = NULL;
    struct matcher *m = NULL;

    for (int i = 0; i < n; i++) {
        double t0;

        g = automata_json();
        m = matcher_open(g, vocab);
        if (m == NULL || !matcher_take_bytes(m, text, strlen(text)))
            exit(1);
        t0 = own_us();
        matcher_mask(m, mask);
        v[i] = own_us() - t0;
        if (i + 1 < n) {
            matcher_close(m);
            automata_free(g);
        }
    }
    printf("state,%s,,%.1f\n", what, median(v, n));
    for (int i = 0; i < rounds; i++) {
        double t0;

        memset(mask, 0, sizeof(mask));
        t0 = now_us();
        matcher_mask(m, mask);
        v[i] = now_us() - t0;
    }
    for (int i = 0; i < N_TOKEN / 32; i++)
        n_set += (uint32_t) __builtin_popcount(mask[i]);
    printf("mask,%s,%u,%.2f\n", what, n_set, median(v, rounds));
    matcher_close(m);
    automata_free(g);
}

/* An answer of tokens that the dice choose of each mask; that of what is taken is timed. */
static void bench_take(const struct vocab *vocab, double *v, int rounds)
{
    static uint32_t mask[N_TOKEN / 32];
    struct grammar *g = automata_json();
    struct matcher *m = matcher_open(g, vocab);
    double          t0;
    int             n = 0;

    if (m == NULL || !matcher_take_bytes(m, "[[\"", 3))
        exit(1);
    while (n < rounds) {
        uint32_t id = dice(N_TOKEN);

        memset(mask, 0, sizeof(mask));
        matcher_mask(m, mask);
        for (; !(mask[id / 32] >> (id % 32) & 1); id = (id + 1) % N_TOKEN) { }
        t0 = now_us();
        if (!matcher_take(m, (int32_t) id))
            exit(1);
        v[n++] = now_us() - t0;
        if (matcher_stuck(m)) {
            matcher_close(m);
            m = matcher_open(g, vocab);
        }
    }
    printf("take,a token,%d,%.3f\n", rounds, median(v, rounds));
    matcher_close(m);
    automata_free(g);
}

int main(int argc, char **argv)
{
    int             rounds = argc > 1 ? atoi(argv[1]) : 2001;
    double         *v = rounds > 0 ? malloc((size_t) rounds * sizeof(*v)) : NULL;
    struct err      e = { 0 };
    struct tok     *tok = made_up(&e);
    struct vocab   *vocab = NULL;
    struct grammar *g = automata_json();
    double          t0;

    if (v == NULL || tok == NULL || vocab_open(&vocab, tok, N_TOKEN, &e) != 0) {
        fprintf(stderr, "usage: grammar [ROUNDS] %s\n", e.msg);
        return 1;
    }
    printf("what,part,n,us\n");
    bench_vocab(tok, v, rounds);
    t0 = own_us();
    if (grammar_warm(g, vocab, 0, &e) != 0)
        return 1;
    printf("once,all wide states of JSON,,%.1f\n", own_us() - t0);
    bench_mask(vocab, "a value", "", v, rounds);
    bench_mask(vocab, "a string", "[\"a", v, rounds);
    bench_mask(vocab, "behind a string", "[\"a\"", v, rounds);
    bench_mask(vocab, "a number", "[{\"a\":1", v, rounds);
    bench_mask(vocab, "a string 200 deep", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
               "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
               "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
               "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"", v, rounds);
    bench_take(vocab, v, rounds);
    automata_free(g);
    vocab_close(vocab);
    tok_close(tok);
    free(v);
    return 0;
}
