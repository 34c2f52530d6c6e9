/* step.h - the shape of a step, and what its batch says where the ops can read it.
 *
 * On a backend that keeps steps, one whose tokens are each alone in their sequences and sampled
 * has the rows of its bucket (bucket.h). Token i is sequence i there, with only its own row of the
 * page tables. Rows behind the last token are it again, each in a sequence of its own with the same
 * pages: they go to the same experts, and attention need not look at their keys again (n_own); what
 * is sampled of them goes nowhere. */
#ifndef MODEL_STEP_H
#define MODEL_STEP_H

#include "forward.h"

struct inputs {
    const int32_t *tok, *pos, *seq, *out_row, *steer;
    const int32_t *from;                   /* of struct batch; NULL: all ids are in tok */
    const int32_t *page[2];                /* [is_full] */
    int32_t        page_max[2];
    const int32_t *n_own;                  /* of attn.h */
    const int32_t *copy;                   /* [n_copy] of struct page_copy */
};

/* The widths of a step, once: every op is one of these on all tokens. */
struct step {
    struct fwd         *f;
    const struct batch *b;
    struct inputs       in;
    int32_t             n_tok, n_seq, n_out;           /* at least the batch's */
    int32_t             n_one;             /* the first tokens that are alone in their sequences */
    int32_t             ctx;               /* class of the longest context */
    bool                single;            /* as above */
};

struct step step_of(struct fwd *f, const struct batch *b);
/* The number of its shape, or NO_SHAPE. */
int32_t     step_shape(const struct step *s, const struct step_out *o);
void        step_bring(struct step *s);    /* s->in */

#endif
