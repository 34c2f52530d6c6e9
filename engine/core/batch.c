#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"

int batch_open(struct batch_mem *m, int32_t step_tok_max, int32_t seq_max, int32_t page_max,
               struct err *e)
{
    size_t n = (size_t) step_tok_max, n_page = (size_t) seq_max * (size_t) page_max;

    memset(m, 0, sizeof(*m));
    m->step_tok_max = step_tok_max;
    m->seq_max = seq_max;

    m->tok = calloc(n, sizeof(*m->tok));
    m->pos = calloc(n, sizeof(*m->pos));
    m->seq = calloc(n, sizeof(*m->seq));
    m->out_row = calloc(n, sizeof(*m->out_row));
    m->target = calloc(n, sizeof(*m->target));
    m->sampled = calloc(n, sizeof(*m->sampled));
    m->sample = calloc(n, sizeof(*m->sample));
    m->ban_eos = calloc(n, sizeof(*m->ban_eos));
    m->logprob = calloc(n, sizeof(*m->logprob));
    m->logits = calloc(n, sizeof(*m->logits));
    m->out = calloc(n, sizeof(*m->out));
    m->page_full = calloc(n_page, sizeof(*m->page_full));
    m->page_sliding = calloc(n_page, sizeof(*m->page_sliding));

    if (m->tok == NULL || m->pos == NULL || m->seq == NULL || m->out_row == NULL
        || m->target == NULL || m->sampled == NULL || m->sample == NULL || m->ban_eos == NULL
        || m->logprob == NULL || m->logits == NULL || m->out == NULL || m->page_full == NULL
        || m->page_sliding == NULL) {
        batch_close(m);
        return err_set(e, E_IO, "step arrays: out of memory for %d tokens of %d requests",
                       step_tok_max, seq_max);
    }

    m->b = (struct batch) {
        .tok = m->tok, .pos = m->pos, .seq = m->seq,
        .page_full = m->page_full, .page_sliding = m->page_sliding, .page_max = page_max,
        .out_row = m->out_row, .sample = m->sample,
    };
    m->o.tok = m->sampled;
    return 0;
}

void batch_close(struct batch_mem *m)
{
    free(m->tok);
    free(m->pos);
    free(m->seq);
    free(m->out_row);
    free(m->target);
    free(m->sampled);
    free(m->sample);
    free(m->ban_eos);
    free(m->logprob);
    free(m->logits);
    free(m->out);
    free(m->page_full);
    free(m->page_sliding);
    memset(m, 0, sizeof(*m));
}

static void add_out(struct batch_mem *m, struct req *r, int32_t pos, int32_t row)
{
    static const struct sample greedy = { .top_p = 1 };
    int32_t i = m->b.n_out++;
    bool last = pos == r->want_tok - 1;

    m->out[i] = (struct batch_out) { r, pos };
    m->out_row[i] = row;
    m->sample[i] = last ? r->sample : greedy;         /* what comes of the others is dropped */
    m->ban_eos[i] = last && r->want_tok - r->n_prompt < r->min_new;
    m->target[i] = last ? -1 : r->tok[pos + 1];
    m->logits[i] = pos == r->n_prompt - 1 ? r->last_logits : NULL;

    if (m->ban_eos[i])
        m->b.ban_eos = m->ban_eos;
    if (!last) {
        m->b.target = m->target;
        m->o.target_logprob = m->logprob;
    }
    if (m->logits[i] != NULL)
        m->o.logits = m->logits;
}

static bool wants_out(const struct req *r, int32_t pos)
{
    if (pos < r->want_tok - 1)
        return r->logprob != NULL && pos < r->n_prompt - 1;
    return r->max_new > 0 || r->last_logits != NULL;
}

void batch_fill(struct batch_mem *m, const struct step_plan *p)
{
    struct batch *b = &m->b;

    assert(p->n_tok <= m->step_tok_max && p->n_item <= m->seq_max);
    b->n_tok = b->n_out = 0;
    b->n_seq = p->n_item;
    b->ban_eos = NULL;
    b->target = NULL;
    m->o.target_logprob = NULL;
    m->o.logits = NULL;

    for (int32_t i = 0; i < p->n_item; i++) {
        struct req *r = p->item[i].r;
        size_t row = (size_t) i * (size_t) b->page_max;
        size_t bytes = (size_t) r->seq.n_page * sizeof(int32_t);

        memcpy(m->page_full + row, r->seq.page_full, bytes);
        memcpy(m->page_sliding + row, r->seq.page_sliding, bytes);

        for (int32_t k = 0; k < p->item[i].n; k++) {
            int32_t pos = r->seq.n_tok + k;

            m->tok[b->n_tok] = r->tok[pos];
            m->pos[b->n_tok] = pos;
            m->seq[b->n_tok] = i;
            if (wants_out(r, pos))
                add_out(m, r, pos, b->n_tok);
            b->n_tok++;
        }
    }
}
