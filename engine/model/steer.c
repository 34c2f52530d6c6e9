#include "steer.h"

#include <assert.h>
#include <string.h>

#include "sample.h"

#define HEAD_WORDS  ((int32_t) (sizeof(struct steer_head) / sizeof(int32_t)))

int32_t steer_mask_words(int32_t vocab)
{
    return sample_mask_words(vocab);
}

int64_t steer_words(int32_t vocab, int32_t seq_max, int64_t kv_tok)
{
    int64_t row = HEAD_WORDS + 2 * STEER_BIAS_MAX + STEER_STOP_MAX + STEER_WORD_MAX
                  + 2 * steer_mask_words(vocab) + 1;

    return row * seq_max + kv_tok;
}

static void put(struct steer_buf *b, const void *p, int32_t n)
{
    assert(n <= b->max - b->n);
    if (n > 0)
        memcpy(b->word + b->n, p, (size_t) n * sizeof(int32_t));
    b->n += n;
}

int32_t steer_put(struct steer_buf *b, const struct steer *s, int32_t vocab)
{
    int32_t at = b->n, mask = steer_mask_words(vocab), room, n_gen;
    struct steer_head h = {
        .presence = s->presence, .frequency = s->frequency, .repetition = s->repetition,
        .force = s->force, .n_bias = s->n_bias, .n_stop = s->n_stop, .n_word = s->n_word,
        .has_allow = s->allow != NULL, .has_seen = s->seen != NULL, .n_pend = s->n_pend };

    room = b->max - at - HEAD_WORDS - 2 * h.n_bias - h.n_stop - h.n_word
           - (h.has_allow + h.has_seen) * mask;
    n_gen = s->n_gen < room ? s->n_gen : room;
    h.n_gen = n_gen;

    put(b, &h, HEAD_WORDS);
    put(b, s->bias_id, h.n_bias);
    put(b, s->bias, h.n_bias);
    put(b, s->stop, h.n_stop);
    put(b, s->word, h.n_word);
    put(b, s->allow, h.has_allow * mask);
    put(b, s->seen, h.has_seen * mask);
    put(b, s->gen + s->n_gen - n_gen, n_gen);
    return at;
}
