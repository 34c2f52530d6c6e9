/* steer.h - what bends one row of a step besides struct sample, and the words in which a batch
 * carries it to the sampler (kernels/sample.h has their layout). */
#ifndef MODEL_STEER_H
#define MODEL_STEER_H

#include <stdint.h>

#define STEER_BIAS_MAX  1024
#define STEER_STOP_MAX  80
#define STEER_WORD_MAX  1024         /* of bad_words: ids and one length each */

struct steer {                       /* borrowed lists; STEER_NONE bends nothing */
    float           presence, frequency, repetition;   /* 0, 0, 1: off */
    int32_t         force;           /* the id that comes; -1: none */
    const int32_t  *bias_id;         /* [n_bias] distinct */
    const float    *bias;            /* [n_bias] */
    const int32_t  *stop;            /* [n_stop] ids that may not be drawn */
    const int32_t  *word;            /* [n_word] length, ids; length, ids: the last id of a word may
                                        not follow the others */
    const uint32_t *allow;           /* [steer_mask_words] only these may be drawn; NULL: all */
    const uint32_t *seen;            /* [steer_mask_words] ids of the prompt, for repetition */
    const int32_t  *gen;             /* [n_gen] generated ids known now */
    int32_t         n_bias, n_stop, n_word, n_gen;
    int32_t         n_pend;          /* as many of the row's newest input ids are generated too */
};

#define STEER_NONE { .repetition = 1, .force = -1 }

struct steer_buf {                   /* of a batch; owned by the core */
    int32_t *word;                   /* [max] */
    int32_t  n, max;
};

/* A bit an id, lowest first. */
int32_t steer_mask_words(int32_t vocab);

/* Room for the rows of a step: seq_max rows, their generated ids as many as the KV pool has tokens
 * and one each. */
int64_t steer_words(int32_t vocab, int32_t seq_max, int64_t kv_tok);

/* Where it is from now on. Of more generated ids than there is room for only the newest are kept:
 * so many are there only where requests share the pages of equal answers. */
int32_t steer_put(struct steer_buf *b, const struct steer *s, int32_t vocab);

#endif
