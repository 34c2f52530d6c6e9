#include "step.h"

static int32_t lone_tokens(const struct batch *b)
{
    int32_t n = 0;

    while (n + 1 < b->n_tok && b->seq[n] != b->seq[n + 1])
        n++;
    return n + 1 == b->n_tok ? n + 1 : n;
}

/* Each token is alone in its sequence, and sampled. */
static bool is_single(const struct step *s)
{
    const struct batch *b = s->b;
    bool each = s->n_one == b->n_tok && b->n_out == b->n_tok && b->n_tok <= BUCKET_ROWS;

    for (int32_t i = 0; each && i < b->n_tok; i++)
        each = b->out_row[i] == i;
    return each;
}

static int32_t longest(const struct batch *b)
{
    int32_t ctx = 0;

    for (int32_t i = 0; i < b->n_tok; i++)
        ctx = b->pos[i] >= ctx ? b->pos[i] + 1 : ctx;
    return ctx;
}

struct step step_of(struct fwd *f, const struct batch *b)
{
    struct step s = { .f = f, .b = b, .n_tok = b->n_tok, .n_seq = b->n_seq, .n_out = b->n_out,
                      .n_one = lone_tokens(b), .ctx = bucket_ctx(&f->buckets, longest(b)) };

    if (f->be->keeps && is_single(&s)) {
        s.single = true;
        s.n_tok = s.n_seq = s.n_out = s.n_one = bucket_rows(&f->buckets, b->n_tok);
    }
    return s;
}

int32_t step_shape(const struct step *s, const struct step_out *o)
{
    return s->single && s->b->n_copy == 0 && o->logits == NULL
           ? bucket_number(&s->f->buckets, s->n_tok, s->ctx) : NO_SHAPE;
}

/* The page tables of these sequences, NULL: of all. Only what the longest has is copied; where it
 * lies it is as wide in all steps of a shape. */
static void bring_tables(struct step *s, const int32_t *seq)
{
    const int32_t *page[2] = { s->b->page_sliding, s->b->page_full };
    int32_t page_tok = s->f->lim.kv.page_tok, n_col = (longest(s->b) - 1) / page_tok + 1;

    for (int full = 0; full < 2; full++) {
        struct input in = { .p = page[full], .row = seq, .n_row = s->n_seq, .n_col = n_col,
                            .stride = s->b->page_max,
                            .width = s->single ? (s->ctx - 1) / page_tok + 1 : n_col };

        s->in.page[full] = be_input_rows(s->f->be, &in);
        s->in.page_max[full] = in.stride;
    }
}

static void bring_single(struct step *s)
{
    const struct batch *b = s->b;
    struct backend *be = s->f->be;
    int32_t tok[BUCKET_ROWS], seq[BUCKET_ROWS], from[BUCKET_ROWS];
    struct input each = { .row = tok, .n_row = s->n_tok, .n_col = 1, .stride = 1, .width = 1 };

    for (int32_t i = 0; i < s->n_tok; i++) {
        tok[i] = i < b->n_tok ? i : b->n_tok - 1;
        seq[i] = b->seq[tok[i]];
        from[i] = b->from != NULL ? b->from[tok[i]] : -1;
    }
    s->in.from = be_input(be, from, s->n_tok);
    each.p = b->tok;
    s->in.tok = be_input_rows(be, &each);
    each.p = b->pos;
    s->in.pos = be_input_rows(be, &each);
    s->in.n_own = be_input(be, &b->n_tok, 1);
    s->in.seq = s->in.out_row = s->f->each;
    bring_tables(s, seq);
}

/* First what is as long in all steps of a shape. */
void step_bring(struct step *s)
{
    const struct batch *b = s->b;
    struct backend *be = s->f->be;

    if (s->single) {
        bring_single(s);
    } else {
        s->in.from = b->from != NULL ? be_input(be, b->from, b->n_tok) : NULL;
        s->in.tok = be_input(be, b->tok, b->n_tok);
        s->in.pos = be_input(be, b->pos, b->n_tok);
        s->in.seq = be_input(be, b->seq, b->n_tok);
        s->in.out_row = be_input(be, b->out_row, b->n_out);
        bring_tables(s, NULL);
    }
    s->in.steer = be_input(be, b->steer, b->n_steer);
    s->in.copy = be_input(be, (const int32_t *) b->copy,
                          b->n_copy * (int32_t) (sizeof(*b->copy) / sizeof(int32_t)));
}
