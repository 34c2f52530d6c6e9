#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"

int batch_open(struct batch_mem *m, const struct batch_conf *c, struct err *e)
{
    size_t n = (size_t) c->step_tok_max, n_page = (size_t) c->seq_max * (size_t) c->page_max;
    size_t seq_max = (size_t) c->seq_max;

    memset(m, 0, sizeof(*m));
    if (c->steer_words > INT32_MAX)
        return err_set(e, E_INVALID, "step arrays: the KV pool and %d requests are too large",
                       c->seq_max);
    m->step_tok_max = c->step_tok_max;
    m->seq_max = c->seq_max;
    m->vocab = c->vocab;
    m->steer.max = (int32_t) c->steer_words;

    m->tok = calloc(n, sizeof(*m->tok));
    m->from = calloc(n, sizeof(*m->from));
    m->pos = calloc(n, sizeof(*m->pos));
    m->seq = calloc(n, sizeof(*m->seq));
    m->out_row = calloc(n, sizeof(*m->out_row));
    m->target = calloc(n, sizeof(*m->target));
    m->sampled = calloc(n, sizeof(*m->sampled));
    m->sample = calloc(n, sizeof(*m->sample));
    m->ban_eos = calloc(n, sizeof(*m->ban_eos));
    m->n_top = calloc(n, sizeof(*m->n_top));
    m->lp_id = calloc(n, (1 + MODEL_TOP_MAX) * sizeof(*m->lp_id));
    m->lp = calloc(n, (1 + MODEL_TOP_MAX) * sizeof(*m->lp));
    m->steer_at = calloc(n, sizeof(*m->steer_at));
    m->steer.word = calloc((size_t) c->steer_words, sizeof(int32_t));
    m->mask = calloc((size_t) steer_mask_words(c->vocab), sizeof(*m->mask));
    m->logits = calloc(n, sizeof(*m->logits));
    m->out = calloc(n, sizeof(*m->out));
    m->item = calloc(seq_max, sizeof(*m->item));
    m->row = calloc(seq_max, sizeof(*m->row));
    m->copy = calloc(seq_max, sizeof(*m->copy));
    m->page_full = calloc(n_page, sizeof(*m->page_full));
    m->page_sliding = calloc(n_page, sizeof(*m->page_sliding));

    if (m->tok == NULL || m->from == NULL || m->pos == NULL || m->seq == NULL || m->out_row == NULL
        || m->target == NULL || m->sampled == NULL || m->sample == NULL || m->ban_eos == NULL
        || m->n_top == NULL || m->lp_id == NULL || m->lp == NULL || m->steer_at == NULL
        || m->steer.word == NULL || m->mask == NULL || m->logits == NULL || m->out == NULL
        || m->item == NULL || m->row == NULL || m->copy == NULL || m->page_full == NULL
        || m->page_sliding == NULL) {
        batch_close(m);
        return err_set(e, E_IO, "step arrays: out of memory for %d tokens of %d requests",
                       c->step_tok_max, c->seq_max);
    }

    m->b = (struct batch) {
        .tok = m->tok, .pos = m->pos, .seq = m->seq, .copy = m->copy,
        .page_full = m->page_full, .page_sliding = m->page_sliding, .page_max = c->page_max,
        .out_row = m->out_row, .sample = m->sample, .steer = m->steer.word,
    };
    m->o.tok = m->sampled;
    return 0;
}

void batch_close(struct batch_mem *m)
{
    free(m->tok);
    free(m->from);
    free(m->pos);
    free(m->seq);
    free(m->out_row);
    free(m->target);
    free(m->sampled);
    free(m->sample);
    free(m->ban_eos);
    free(m->n_top);
    free(m->lp_id);
    free(m->lp);
    free(m->steer_at);
    free(m->steer.word);
    free(m->mask);
    free(m->logits);
    free(m->out);
    free(m->item);
    free(m->row);
    free(m->copy);
    free(m->page_full);
    free(m->page_sliding);
    memset(m, 0, sizeof(*m));
}

/* What the guide says of the next id; its mask goes together with that of the request. */
static void ask_guide(struct batch_mem *m, struct req *r, struct steer *s)
{
    size_t n = (size_t) steer_mask_words(m->vocab);
    int32_t id;

    if (!r->guided)
        return;
    memset(m->mask, 0, n * sizeof(*m->mask));
    id = r->guide(r->guide_arg, r->tok + r->n_prompt, r->n_known - r->n_prompt, m->mask);
    if (id >= 0 && id < m->vocab)
        s->force = id;
    r->guided = id != GUIDE_OFF;
    if (id != GUIDE_MASK)
        return;
    for (size_t i = 0; s->allow != NULL && i < n; i++)
        m->mask[i] &= s->allow[i];
    s->allow = m->mask;
}

/* Where what bends the row of the next id begins, or -1. pos: of the newest id before it. */
static int32_t add_steer(struct batch_mem *m, struct req *r, int32_t pos)
{
    static const struct steer none = STEER_NONE;
    struct steer s = r->steer != NULL ? *r->steer : none;
    int32_t n_new = pos + 1 - r->n_prompt, closing = req_closing(r);

    if (n_new < r->n_force)
        s.force = r->force[n_new];
    else if (closing >= 0)
        s.force = closing;
    else
        ask_guide(m, r, &s);
    if (n_new < r->min_new) {
        s.stop = r->stop_id;
        s.n_stop = r->n_stop_id;
    }
    if (r->steer == NULL && s.force < 0 && s.n_stop == 0 && s.allow == NULL)
        return -1;

    s.gen = r->tok + r->n_prompt;
    s.n_gen = r->n_known - r->n_prompt;
    s.n_pend = n_new - s.n_gen;
    return steer_put(&m->steer, &s, m->vocab);
}

/* The row of position pos of r. samples: its token is wanted. */
static void add_out(struct batch_mem *m, struct req *r, int32_t pos, bool samples)
{
    static const struct sample greedy = { .top_p = 1 };
    int32_t i = m->b.n_out++;
    bool scores = !samples && pos < r->n_prompt - 1;
    const struct req_lp *lp = scores ? &r->prompt_lp : &r->lp;

    m->out[i] = (struct batch_out) { r, pos, samples };
    m->out_row[i] = m->b.n_tok;
    m->sample[i] = samples ? r->sample : greedy;       /* what comes of the others is dropped */
    m->ban_eos[i] = samples && pos + 1 - r->n_prompt < r->min_new;
    m->target[i] = scores ? r->tok[pos + 1] : -1;
    m->n_top[i] = (scores || samples) && lp->p != NULL ? lp->n : -1;
    m->steer_at[i] = samples ? add_steer(m, r, pos) : -1;
    m->logits[i] = pos == r->n_prompt - 1 ? r->last_logits : NULL;

    if (samples)
        r->row = i;
    if (m->ban_eos[i])
        m->b.ban_eos = m->ban_eos;
    if (scores)
        m->b.target = m->target;
    if (m->n_top[i] >= 0) {
        m->b.n_top = m->n_top;
        m->o.lp_id = m->lp_id;
        m->o.lp = m->lp;
    }
    if (m->steer_at[i] >= 0)
        m->b.steer_at = m->steer_at;
    if (m->logits[i] != NULL)
        m->o.logits = m->logits;
}

/* The id at pos is known, or it is what the step before samples. */
static void add_tok(struct batch_mem *m, struct req *r, int32_t pos)
{
    struct batch *b = &m->b;
    bool known = pos < r->n_known;

    m->tok[b->n_tok] = known ? r->tok[pos] : -1;
    m->from[b->n_tok] = known ? -1 : r->row;
    m->pos[b->n_tok] = pos;
    m->seq[b->n_tok] = r->seq.slot;
    b->n_seq = r->seq.slot >= b->n_seq ? r->seq.slot + 1 : b->n_seq;
    if (!known)
        b->from = m->from;
}

static void copy_tables(struct batch_mem *m, const struct kv_seq *s)
{
    struct table_row *have = &m->row[s->slot];
    size_t at = (size_t) s->slot * (size_t) m->b.page_max;
    int32_t first = have->rev == s->rev ? have->n_page : 0;
    size_t bytes = (size_t) (s->n_page - first) * sizeof(int32_t);

    memcpy(m->page_full + at + first, s->page_full + first, bytes);
    memcpy(m->page_sliding + at + first, s->page_sliding + first, bytes);
    *have = (struct table_row) { s->rev, s->n_page };
}

static void add_item(struct batch_mem *m, const struct step_item *it)
{
    struct req *r = it->r;
    int32_t end = r->seq.n_tok;

    copy_tables(m, &r->seq);
    for (int32_t pos = end - it->n; pos < end; pos++) {
        bool last = pos == end - 1;

        add_tok(m, r, pos);
        if ((last && it->samples) || (r->prompt_lp.p != NULL && pos < r->n_prompt - 1)
            || (r->last_logits != NULL && pos == r->n_prompt - 1))
            add_out(m, r, pos, last && it->samples);
        m->b.n_tok++;
    }
}

void batch_fill(struct batch_mem *m, const struct step_plan *p)
{
    struct batch *b = &m->b;

    assert(p->n_tok <= m->step_tok_max && p->n_item <= m->seq_max);
    b->n_tok = b->n_out = b->n_seq = 0;
    b->from = NULL;
    b->ban_eos = NULL;
    b->target = b->n_top = b->steer_at = NULL;
    m->steer.n = 0;
    m->o.lp_id = NULL;
    m->o.lp = NULL;
    m->o.logits = NULL;

    m->n_item = p->n_item;
    m->n_fill_tok = p->n_fill_tok;
    memcpy(m->item, p->item, (size_t) p->n_item * sizeof(*p->item));
    b->n_copy = p->n_copy;
    memcpy(m->copy, p->copy, (size_t) p->n_copy * sizeof(*p->copy));

    for (int32_t i = 0; i < p->n_item; i++)
        add_item(m, &p->item[i]);
    b->n_steer = m->steer.n;
}

void batch_forget(struct batch_mem *m, const struct req *r)
{
    for (int32_t i = 0; i < m->b.n_out; i++)
        if (m->out[i].r == r)
            m->out[i].r = NULL;
    for (int32_t i = 0; i < m->n_item; i++)
        if (m->item[i].r == r)
            m->item[i].r = NULL;
}
