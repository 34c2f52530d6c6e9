/* sample.h - from a row of raw logits to one token id and, if asked, logprobs.
 *
 * softcap -> logits out, logprobs -> bias -> penalties -> bans and masks -> temperature -> top_k ->
 * top_p -> min_p -> draw. The draw depends on (seed, pos) and the row alone. Logprobs are of the
 * logits as the model has them, after the softcap and before all else. */
#ifndef KERNELS_SAMPLE_H
#define KERNELS_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

#define SAMPLE_ROW_MAX 64         /* rows of one call of the op */
#define SAMPLE_NONE    (-1)       /* the op's result where no token can be drawn */
#define SAMPLE_TOP_MAX 20
#define SAMPLE_SCRATCH 3          /* [vocab] int32 of a row */

/* What bends a row: this head and behind it its lists, in the order of struct steer_lists, all of
 * 32-bit words. Ids of lists are in the vocabulary; those of bias are distinct. */
struct steer_head {
    float   presence, frequency;  /* of a generated id: logit - presence - frequency * count */
    float   repetition;           /* of a prompt or generated id: > 0 by it, < 0 times it; 1: off */
    int32_t force;                /* the id that comes whatever the row says; -1: none */
    int32_t n_bias, n_stop;
    int32_t n_word;               /* words of the list, lengths included */
    int32_t has_allow, has_seen;  /* 0 or 1 */
    int32_t n_gen;                /* generated ids that were known when this was written */
    int32_t n_pend;               /* and how many came since: they end at sample_row.tail */
};

struct steer_lists {
    const struct steer_head *h;
    const int32_t  *bias_id;      /* [n_bias] */
    const float    *bias;         /* [n_bias] added */
    const int32_t  *stop;         /* [n_stop] ids that may not be drawn */
    const int32_t  *word;         /* length, ids; length, ids: the last id may not follow the others
                                     at the end of the generated ids */
    const uint32_t *allow;        /* [words of vocab bits] only these may be drawn */
    const uint32_t *seen;         /* [words of vocab bits] ids of the prompt */
    const int32_t  *gen;          /* [n_gen] */
};

struct sample_row {
    float         *logits;        /* [vocab]; overwritten */
    float         *logits_out;    /* [vocab] after the softcap, NULL: not wanted */
    int32_t       *tok;           /* the result */
    int32_t       *lp_id;         /* [1 + n_top] both, NULL: not wanted. First the rank of target */
    float         *lp;            /* (1: nothing is larger) and its logprob, then the n_top largest,
                                     the lowest id of equals first */
    int32_t        n_top;         /* 0 .. SAMPLE_TOP_MAX, <= vocab */
    int32_t        target;        /* -1: the id that is drawn */
    const int32_t *ban[2];        /* ids that may not be drawn */
    int32_t        n_ban[2];
    int32_t        none;          /* what comes where every id is banned; -1: that is a failure */
    const int32_t *steer;         /* head and lists; NULL: nothing bends this row */
    const int32_t *tail;          /* newest input id of the row */
    int32_t        vocab, pos;
    float          softcap;       /* 0: none */
    float          temperature;   /* 0: the largest logit, lowest id on ties */
    float          top_p, min_p;  /* 1, 0: off */
    int32_t        top_k;         /* 0: off */
    uint64_t       seed;
};

/* scratch: [SAMPLE_SCRATCH * vocab] int32. Returns NULL, or why no token can be drawn: a logit is
 * not a finite number, or every id is banned. */
const char *sample_ref(const struct sample_row *r, int32_t *scratch);

/* Uniform in [0, 1): a counter-based generator, the same for the same (seed, pos) everywhere. */
double sample_uniform(uint64_t seed, uint64_t pos);

#ifdef __CUDACC__
#define SAMPLE_FN __host__ __device__ static inline
#else
#define SAMPLE_FN static inline
#endif

SAMPLE_FN int32_t sample_mask_words(int32_t vocab)
{
    return (vocab + 31) / 32;
}

SAMPLE_FN bool sample_in(const uint32_t *mask, int32_t id)
{
    return (mask[id / 32] >> (id % 32) & 1) != 0;
}

SAMPLE_FN struct steer_lists steer_of(const int32_t *w, int32_t vocab)
{
    struct steer_lists s;
    int32_t mask = sample_mask_words(vocab);

    s.h = (const struct steer_head *) w;
    s.bias_id = w + sizeof(struct steer_head) / sizeof(int32_t);
    s.bias = (const float *) (s.bias_id + s.h->n_bias);
    s.stop = s.bias_id + 2 * s.h->n_bias;
    s.word = s.stop + s.h->n_stop;
    s.allow = (const uint32_t *) (s.word + s.h->n_word);
    s.seen = s.allow + s.h->has_allow * mask;
    s.gen = (const int32_t *) (s.seen + s.h->has_seen * mask);
    return s;
}

SAMPLE_FN int32_t steer_n_past(const struct steer_lists *s)
{
    return s->h->n_gen + s->h->n_pend;
}

/* Generated id i of steer_n_past(). */
SAMPLE_FN int32_t steer_past(const struct steer_lists *s, const int32_t *tail, int32_t i)
{
    int32_t n = s->h->n_gen;

    return i < n ? s->gen[i] : tail[i - n - s->h->n_pend + 1];
}

/* All of the word but its last id is what was generated last. */
SAMPLE_FN bool steer_at_word(const struct steer_lists *s, const int32_t *tail, const int32_t *id,
                             int32_t n)
{
    int32_t past = steer_n_past(s), i = 0;

    if (past < n - 1)
        return false;
    while (i < n - 1 && steer_past(s, tail, past - (n - 1) + i) == id[i])
        i++;
    return i == n - 1;
}

/* No sum or quotient leaves the floats. */
SAMPLE_FN float steer_finite(float x)
{
    return x > 1e30f ? 1e30f : x < -1e30f ? -1e30f : x;
}

SAMPLE_FN float steer_repeat(const struct steer_lists *s, float x)
{
    return steer_finite(x > 0 ? x / s->h->repetition : x * s->h->repetition);
}

/* The logit of an id that was generated count times, before the repetition of prompt ids. */
SAMPLE_FN float steer_penalty(const struct steer_lists *s, int32_t id, float x, int32_t count)
{
    if (s->h->repetition != 1 && !(s->h->has_seen && sample_in(s->seen, id)))
        x = steer_repeat(s, x);
    return steer_finite(x - (s->h->presence + s->h->frequency * (float) count));
}

#endif
