/* sample.c - one row's sampling against its definition, written again without care for speed; what
 * bends a row one thing at a time; and the words that carry it. */
#include <math.h>
#include <stdlib.h>

#include "sample.h"
#include "steer.h"
#include "tap.h"

#define VOCAB 70

static uint64_t state = 88172645463325252ull;

static int32_t below(int32_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (int32_t) (state % (uint64_t) n);
}

static float   raw[VOCAB], logits[VOCAB], lp[1 + SAMPLE_TOP_MAX];
static int32_t words[4096], lp_id[1 + SAMPLE_TOP_MAX], tok, scratch[SAMPLE_SCRATCH * VOCAB];

static void new_logits(void)
{
    for (int i = 0; i < VOCAB; i++)        /* with ties */
        raw[i] = (float) (below(400) - 200) / 16;
}

static struct sample_row row_of(const struct steer *s, const int32_t *tail)
{
    struct steer_buf b = { .word = words, .max = sizeof(words) / sizeof(words[0]) };

    memcpy(logits, raw, sizeof(logits));
    if (s != NULL)
        steer_put(&b, s, VOCAB);
    return (struct sample_row) {
        .logits = logits, .tok = &tok, .lp_id = lp_id, .lp = lp, .n_top = SAMPLE_TOP_MAX,
        .target = -1, .none = -1, .steer = s != NULL ? words : NULL, .tail = tail, .vocab = VOCAB,
        .top_p = 1 };
}

static const char *greedy(const struct steer *s, const int32_t *tail)
{
    struct sample_row r = row_of(s, tail);

    return sample_ref(&r, scratch);
}

/* --- the definition again --- */

static bool has(const int32_t *id, int32_t n, int32_t x)
{
    for (int32_t i = 0; i < n; i++)
        if (id[i] == x)
            return true;
    return false;
}

static double bent(const struct steer *s, const int32_t *past, int32_t n_past, int32_t id)
{
    double  x = raw[id];
    int32_t count = 0;

    for (int32_t i = 0; i < s->n_bias; i++)
        x += s->bias_id[i] == id ? s->bias[i] : 0;
    for (int32_t i = 0; i < n_past; i++)
        count += past[i] == id;
    if (count > 0 || (s->seen != NULL && sample_in(s->seen, id)))
        x = x > 0 ? x / s->repetition : x * s->repetition;
    if (count > 0)
        x -= s->presence + s->frequency * count;

    if (has(s->stop, s->n_stop, id) || (s->allow != NULL && !sample_in(s->allow, id)))
        return -INFINITY;
    for (int32_t i = 0; i < s->n_word; i += 1 + s->word[i]) {
        int32_t n = s->word[i];
        const int32_t *w = s->word + i + 1;

        if (w[n - 1] == id && n_past >= n - 1
            && memcmp(past + n_past - (n - 1), w, (size_t) (n - 1) * sizeof(int32_t)) == 0)
            return -INFINITY;
    }
    return x;
}

static bool near(double a, double b)
{
    return fabs(a - b) < 1e-4;
}

static bool logprobs_right(int32_t target)
{
    double  sum = 0;
    int32_t rank = 1;

    for (int i = 0; i < VOCAB; i++)
        sum += exp((double) raw[i]);
    for (int i = 0; i < VOCAB; i++)
        rank += raw[i] > raw[target];
    if (lp_id[0] != rank || !near(lp[0], (double) raw[target] - log(sum)))
        return false;
    for (int i = 1; i <= SAMPLE_TOP_MAX; i++) {
        int32_t a = lp_id[i], b = lp_id[i - 1];

        if (!near(lp[i], (double) raw[a] - log(sum)) || has(lp_id + 1, i - 1, a)
            || (i > 1 && (raw[a] > raw[b] || (raw[a] == raw[b] && a < b))))
            return false;
    }
    rank = 0;                              /* nobody better was left out */
    for (int i = 0; i < VOCAB; i++)
        rank += raw[i] > raw[lp_id[SAMPLE_TOP_MAX]];
    return rank < SAMPLE_TOP_MAX;
}

/* Everything at random, alone or together. */
static bool random_case(void)
{
    int32_t past[40], bias_id[8], stop[4], word[24], n_past = below(40), n_pend, best = -1;
    uint32_t allow[3], seen[3];
    float bias[8];
    double top = -INFINITY;
    struct steer s = STEER_NONE;

    new_logits();
    for (int i = 0; i < n_past; i++)
        past[i] = below(below(2) ? 6 : VOCAB);
    for (int i = 0; i < 8; i++) {
        bias_id[i] = i * 8 + below(8);
        bias[i] = (float) (below(200) - 100);
    }
    for (int i = 0; i < 4; i++)
        stop[i] = below(VOCAB);
    for (int i = 0; i < 24; i += 3) {
        word[i] = 2;
        word[i + 1] = below(6);
        word[i + 2] = below(VOCAB);
    }
    for (int i = 0; i < 3; i++) {
        allow[i] = (uint32_t) below(INT32_MAX);
        seen[i] = (uint32_t) below(INT32_MAX);
    }

    n_pend = below(n_past < 3 ? n_past + 1 : 4);
    s.gen = past;
    s.n_gen = n_past - n_pend;
    s.n_pend = n_pend;
    s.presence = below(2) ? (float) (below(64) - 32) / 16 : 0;
    s.frequency = below(2) ? (float) (below(64) - 32) / 16 : 0;
    s.repetition = below(2) ? 1 + (float) below(8) / 8 : 1;
    s.bias_id = bias_id;
    s.bias = bias;
    s.n_bias = below(3) == 0 ? 8 : 0;
    s.stop = stop;
    s.n_stop = below(3) == 0 ? 4 : 0;
    s.word = word;
    s.n_word = below(2) ? 24 : 0;
    s.allow = below(3) == 0 ? allow : NULL;
    s.seen = s.repetition != 1 && below(2) ? seen : NULL;

    for (int32_t i = 0; i < VOCAB; i++) {
        double x = bent(&s, past, n_past, i);

        if (x > top + 1e-5) {              /* what differs by less is a tie to a float */
            top = x;
            best = i;
        }
    }
    if (best < 0)
        return greedy(&s, past + n_past - 1) != NULL;
    return greedy(&s, past + n_past - 1) == NULL && bent(&s, past, n_past, tok) > top - 1e-4
           && logprobs_right(tok);
}

static void alone(void)
{
    const int32_t gen[] = { 4, 9, 4 }, word[] = { 3, 9, 4, 1, 1, 2 }, stop[] = { 0, 1, 2 };
    const uint32_t only_two[] = { 6, 0, 0 }, none[] = { 0, 0, 0 };
    struct steer s = STEER_NONE;
    struct sample_row r;

    for (int i = 0; i < VOCAB; i++)
        raw[i] = i == 1 ? 5 : i == 2 ? 4.5f : i == 4 ? 4.75f : -1;
    ok(greedy(NULL, NULL) == NULL && tok == 1, "nothing bends it: the largest");

    s.gen = gen;
    s.n_gen = 3;
    s.word = word;
    s.n_word = 6;
    ok(greedy(&s, NULL) == NULL && tok == 4, "9 4 1 may not come, nor may 2");
    s.n_gen = 2;
    s.n_pend = 1;
    ok(greedy(&s, &gen[2]) == NULL && tok == 4, "nor if the 4 is under way");
    s.n_gen = 1;
    s.n_pend = 0;
    ok(greedy(&s, NULL) == NULL && tok == 1, "9 4 has not come yet");
    s.n_word = 0;

    s.allow = only_two;
    ok(greedy(&s, NULL) == NULL && tok == 1, "a mask");
    s.stop = stop;
    s.n_stop = 2;
    ok(greedy(&s, NULL) == NULL && tok == 2, "and the stop ids are masked");
    s.n_stop = 3;
    ok(greedy(&s, NULL) != NULL, "nothing is left: that is an error");
    r = row_of(&s, NULL);
    r.none = 9;
    ok(sample_ref(&r, scratch) == NULL && tok == 9, "unless somebody says what comes then");
    s.force = 33;
    ok(greedy(&s, NULL) == NULL && tok == 33 && near(lp[0], lp[1] - 6.0f),
       "a forced id comes whatever is banned, with its own logprob");
    s.force = -1;
    s.allow = none;
    s.n_stop = 0;
    ok(greedy(&s, NULL) != NULL, "an empty mask");

    s = (struct steer) STEER_NONE;
    s.repetition = 1e30f;
    s.gen = gen;
    s.n_gen = 3;
    ok(greedy(&s, NULL) == NULL && tok == 1, "a repetition_penalty as large as can be");
    s.repetition = 1e-30f;
    ok(greedy(&s, NULL) == NULL && tok == 4, "and as small: no number is lost");
    r = row_of(&s, NULL);
    r.temperature = 0.01f;
    ok(sample_ref(&r, scratch) == NULL && tok == 4, "nor at a temperature");

    r = row_of(NULL, NULL);
    r.target = 2;
    ok(sample_ref(&r, scratch) == NULL && tok == 1 && logprobs_right(2), "logprobs of another id");
}

/* The words have room for what serve lets by. */
static void room(void)
{
    static int32_t word[8192], gen[8000];
    struct steer_buf b = { .word = word, .max = 2000 };
    struct steer s = STEER_NONE;
    struct steer_lists l;

    for (int32_t i = 0; i < 8000; i++)
        gen[i] = i % VOCAB;
    s.gen = gen;
    s.n_gen = 8000;
    is_int(steer_put(&b, &s, VOCAB), 0, "where a row begins");
    is_int(b.n, 2000, "as many generated ids as there is room for");
    l = steer_of(word, VOCAB);
    ok(l.gen[l.h->n_gen - 1] == gen[7999] && l.gen[0] == gen[8000 - l.h->n_gen], "the newest");

    is_int(steer_words(VOCAB, 2, 100),
           100 + 2 * (int64_t) (sizeof(struct steer_head) / 4 + 1 + 2 * STEER_BIAS_MAX
                                + STEER_STOP_MAX + STEER_WORD_MAX + 2 * 3), "room for a step");
}

int main(void)
{
    int right = 0;

    alone();
    for (int i = 0; i < 20000; i++)
        right += random_case();
    is_int(right, 20000, "random rows are as the definition says");
    room();
    return done_testing();
}
