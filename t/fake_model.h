/* fake_model.h - a model of the tests' own that is linked in place of the real one.
 *
 * It keeps each token and its position in the pages that it is told to, and what it samples is a
 * hash of all tokens that it finds through the page tables. So an answer is right only if every
 * page was, and an answer must be the same alone, in chunks and among others. */
#ifndef T_FAKE_MODEL_H
#define T_FAKE_MODEL_H

#include <stdlib.h>

#include "sample.h"
#include "serve.h"
#include "tap.h"

#define VOCAB     97
#define EOS       5
#define PAGE_CAP  600
#define TOK_CAP   32             /* of one page */
#define LEN_MAX   150

struct model {
    struct model_conf c;
    struct kv_shape   kv;
    int32_t full[PAGE_CAP][TOK_CAP][2], sliding[PAGE_CAP][TOK_CAP][2];    /* id, position */
    int     n_step, n_tok, fail_at;
    int32_t poison;              /* whoever has seen this id gets no token; 0: none */
    const char *wrong;
    struct { struct batch *b; struct step_out *o; struct err e; bool done; }
            flight[MODEL_FLIGHT_MAX];    /* the first n_flight are under way */
    int     n_flight;
    bool    late;                /* a step runs when it is waited for, else at its launch */
    const int32_t *sampled;      /* by the step before */
};

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

static int32_t draw(uint64_t h, const struct sample *s, int32_t pos, bool ban)
{
    int32_t id;

    if (s->temperature > 0)
        h = mix(mix(h, s->seed), (uint64_t) pos);
    id = (int32_t) (h % VOCAB);
    return ban && id == EOS ? EOS + 1 : id;
}

/* What bends a row, as far as this model shows it: each thing leaves its trace in the id. */
static int32_t draw_bent(uint64_t h, const struct sample *s, int32_t pos, bool ban,
                         const int32_t *words, const int32_t *tail)
{
    struct steer_lists l = steer_of(words, VOCAB);
    int32_t id;

    if (l.h->force >= 0)
        return l.h->force;
    for (int32_t i = 0; l.h->presence != 0 && i < steer_n_past(&l); i++)
        h = mix(h, (uint64_t) steer_past(&l, tail, i));
    id = draw(h, s, pos, ban);
    for (int32_t i = 0; i < 2 * VOCAB; i++) {
        bool out = l.h->has_allow && !sample_in(l.allow, id);

        for (int32_t k = 0; k < l.h->n_stop; k++)
            out = out || l.stop[k] == id;
        id = out ? (id + 1) % VOCAB : id;
    }
    return id;
}

static float logprob(uint64_t h, int32_t target)
{
    return -(float) (mix(h, (uint64_t) target) % 1000);
}

const struct model_conf *model_config(const struct model *m)
{
    return &m->c;
}

static uint64_t look(struct model *m, const struct batch *b, int32_t t, bool *poisoned)
{
    const int32_t *full = b->page_full + b->seq[t] * b->page_max;
    const int32_t *sliding = b->page_sliding + b->seq[t] * b->page_max;
    int32_t pt = m->kv.page_tok;
    uint64_t h = 1;

    for (int32_t p = 0; p <= b->pos[t]; p++) {
        const int32_t *f = m->full[full[p / pt]][p % pt];

        if (f[1] != p)
            m->wrong = "a full page holds something else";
        h = mix(h, (uint64_t) f[0]);
        *poisoned = *poisoned || (m->poison != 0 && f[0] == m->poison);
        if (p <= b->pos[t] - m->c.window)
            continue;
        if (sliding[p / pt] < 0 || m->sliding[sliding[p / pt]][p % pt][1] != p
            || m->sliding[sliding[p / pt]][p % pt][0] != f[0])
            m->wrong = "a sliding page of the window holds something else";
    }
    return h;
}

static int step(struct model *m, struct batch *b, struct step_out *o, struct err *e)
{
    int32_t pt = m->kv.page_tok;

    if (m->fail_at != 0 && ++m->n_step >= m->fail_at)
        return err_set(e, E_GPU, "the device is lost");

    m->n_tok += b->n_tok;
    for (int32_t i = 0; i < b->n_copy; i++) {
        const struct page_copy *c = &b->copy[i];

        memcpy(m->full[c->full_to], m->full[c->full_from], sizeof(m->full[0]));
        memcpy(m->sliding[c->sliding_to], m->sliding[c->sliding_from], sizeof(m->sliding[0]));
    }

    for (int32_t t = 0; t < b->n_tok; t++) {
        int32_t at = b->seq[t] * b->page_max + b->pos[t] / pt;
        int32_t *f = m->full[b->page_full[at]][b->pos[t] % pt];
        int32_t *s = m->sliding[b->page_sliding[at]][b->pos[t] % pt];

        if (b->from != NULL && b->from[t] >= 0)
            b->tok[t] = m->sampled[b->from[t]] >= 0 ? m->sampled[b->from[t]] : 0;
        if (b->tok[t] < 0 || b->tok[t] >= VOCAB)
            m->wrong = "an id that is not known";
        if (t > 0 && b->seq[t] == b->seq[t - 1] && b->pos[t] != b->pos[t - 1] + 1)
            m->wrong = "tokens out of order";
        if (b->seq[t] < 0 || b->seq[t] >= b->n_seq)
            m->wrong = "a token of no sequence";
        f[0] = s[0] = b->tok[t];
        f[1] = s[1] = b->pos[t];
    }

    for (int32_t i = 0; i < b->n_out; i++) {
        int32_t t = b->out_row[i];
        bool poisoned = false;
        uint64_t h = look(m, b, t, &poisoned);

        bool ban = b->ban_eos != NULL && b->ban_eos[i];

        o->tok[i] = b->steer_at == NULL || b->steer_at[i] < 0
                    ? draw(h, &b->sample[i], b->pos[t], ban)
                    : draw_bent(h, &b->sample[i], b->pos[t], ban, b->steer + b->steer_at[i],
                                b->tok + t);
        if (b->n_top != NULL && b->n_top[i] >= 0)
            o->lp[i * (1 + MODEL_TOP_MAX)] = logprob(h, b->target != NULL && b->target[i] >= 0
                                                        ? b->target[i] : o->tok[i]);
        for (int v = 0; o->logits != NULL && o->logits[i] != NULL && v < VOCAB; v++)
            o->logits[i][v] = logprob(h, v);
        if (poisoned)
            o->tok[i] = -1;
    }
    m->sampled = o->tok;
    return 0;
}

static void run_flight(struct model *m, int i)
{
    if (!m->flight[i].done) {
        m->flight[i].done = true;
        m->flight[i].e.code = 0;
        step(m, m->flight[i].b, m->flight[i].o, &m->flight[i].e);
    }
}

void model_launch(struct model *m, struct batch *b, struct step_out *o)
{
    int i = m->n_flight++;

    m->flight[i].b = b;
    m->flight[i].o = o;
    m->flight[i].done = false;
    if (!m->late)
        run_flight(m, i);
}

int model_wait(struct model *m, struct err *e)
{
    if (m->n_flight == 0)
        m->wrong = "nothing to wait for";
    run_flight(m, 0);
    *e = m->flight[0].e;
    m->flight[0] = m->flight[1];
    m->n_flight--;
    return e->code;
}

#endif
