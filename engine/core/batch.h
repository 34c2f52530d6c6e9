/* batch.h - the plan of a step as the flat arrays that the model takes.
 *
 * Owns the arrays, reserved at open; borrows the requests for the time of the step. */
#ifndef CORE_BATCH_H
#define CORE_BATCH_H

#include "scheduler.h"

struct batch_out { struct req *r; int32_t pos; };    /* what row i of the output belongs to */

struct batch_mem {
    struct batch      b;
    struct step_out   o;
    struct batch_out *out;       /* [step_tok_max] */
    int32_t           step_tok_max, seq_max;
    int32_t          *tok, *pos, *seq, *out_row, *target, *sampled;    /* [step_tok_max] */
    int32_t          *page_full, *page_sliding;                        /* [seq_max, page_max] */
    struct sample    *sample;    /* [step_tok_max] */
    bool             *ban_eos;
    float            *logprob, **logits;
};

int  batch_open(struct batch_mem *m, int32_t step_tok_max, int32_t seq_max, int32_t page_max,
                struct err *e);
void batch_close(struct batch_mem *m);

/* m->b, m->o and m->out for this plan. An output row is asked for at the newest token of a request
 * (unless nothing is to come of it) and, for a score, at every prompt token before. */
void batch_fill(struct batch_mem *m, const struct step_plan *p);

#endif
