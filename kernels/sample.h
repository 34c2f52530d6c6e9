/* sample.h - from a row of raw logits to one token id and, if asked, a logprob.
 *
 * softcap -> logits out, target logprob -> suppressed ids -> temperature -> top_k -> top_p ->
 * min_p -> draw. The draw depends on (seed, pos) and the row alone. */
#ifndef KERNELS_SAMPLE_H
#define KERNELS_SAMPLE_H

#include <stdint.h>
#include <stddef.h>

#define SAMPLE_ROW_MAX 32         /* rows of one call of the op */

struct sample_row {
    float         *logits;        /* [vocab]; overwritten */
    float         *logits_out;    /* [vocab] after the softcap, NULL: not wanted */
    float         *logprob;       /* of target, NULL: not wanted */
    int32_t       *tok;           /* the result */
    const int32_t *ban[2];        /* ids that may not be drawn */
    int32_t        n_ban[2];
    int32_t        vocab, target, pos;
    float          softcap;       /* 0: none */
    float          temperature;   /* 0: the largest logit, lowest id on ties */
    float          top_p, min_p;  /* 1, 0: off */
    int32_t        top_k;         /* 0: off */
    uint64_t       seed;
};

/* scratch: [2 * vocab] int32. Returns NULL, or why no token can be drawn: a logit is not a finite
 * number, or every id is banned. */
const char *sample_ref(const struct sample_row *r, int32_t *scratch);

/* Uniform in [0, 1): a counter-based generator, the same for the same (seed, pos) everywhere. */
double sample_uniform(uint64_t seed, uint64_t pos);

#endif
