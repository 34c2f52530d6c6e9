/* batch.h - the plan of a step as the flat arrays that the model takes, and who is in it.
 *
 * Owns the arrays, reserved at open; borrows the requests while the step is under way. The page
 * tables stay from step to step, so that a step writes only what has changed. */
#ifndef CORE_BATCH_H
#define CORE_BATCH_H

#include "scheduler.h"

struct batch_out { struct req *r; int32_t pos; bool samples; };  /* whose row i is */

struct table_row { uint32_t rev; int32_t n_page; };  /* what of a slot's tables is here */

struct batch_mem {
    struct batch      b;
    struct step_out   o;
    struct batch_out *out;       /* [step_tok_max]; r NULL: nobody wants it any more */
    struct step_item *item;      /* [seq_max] of the plan; r NULL: as above */
    int32_t           n_item, n_fill_tok;
    uint64_t          launch_ns;
    int32_t           step_tok_max, seq_max;
    int32_t          *tok, *from, *pos, *seq, *out_row, *target, *sampled;    /* [step_tok_max] */
    int32_t          *n_top, *steer_at;    /* [step_tok_max] */
    struct steer_buf  steer;
    uint32_t         *mask;      /* [steer_mask_words(vocab)] for a guide */
    int32_t           vocab;
    int32_t          *page_full, *page_sliding;                        /* [seq_max, page_max] */
    struct table_row *row;       /* [seq_max] */
    struct page_copy *copy;      /* [seq_max] */
    struct sample    *sample;    /* [step_tok_max] */
    bool             *ban_eos;
    int32_t          *lp_id;     /* [step_tok_max, 1 + MODEL_TOP_MAX] */
    float            *lp, **logits;
};

struct batch_conf {
    int32_t step_tok_max, seq_max, page_max, vocab;
    int64_t steer_words;         /* of model_steer_words() */
};

int  batch_open(struct batch_mem *m, const struct batch_conf *c, struct err *e);
void batch_close(struct batch_mem *m);

/* m->b, m->o, m->out and m->item for this plan. A row is asked for where a token is sampled, at the
 * last prompt token if its logits are wanted, and, for a score, at every prompt token before. */
void batch_fill(struct batch_mem *m, const struct step_plan *p);

/* r is over: what the step brings for it goes nowhere. */
void batch_forget(struct batch_mem *m, const struct req *r);

#endif
