/* forward.c - Gemma 4: embed, layers, norm, head, sample. One page for all the sizes. */
#include "forward.h"

#include <math.h>

/* The widths of a step, once: every op below is one of these on all tokens. */
struct step { struct fwd *f; const struct batch *b; int32_t n_tok; };

static void linear(struct step *s, float *y, const float *x, struct mat w)
{
    op_gemm(s->f->be, &(struct gemm) { y, x, w, s->n_tok });
}

/* y = scale * (add + N_w(x)) over n_row rows of dim. */
static void norm(struct step *s, float *y, const float *x, const float *w, const float *add,
                 float scale)
{
    op_norm(s->f->be, &(struct norm) {
        .y = y, .x = x, .w = w, .add = add, .scale = scale, .in_scale = 1,
        .eps = s->f->c->rms_eps, .n_row = s->n_tok, .dim = s->f->c->hidden });
}

static void geglu(struct step *s, float *y, const float *gate, const float *up, int32_t dim,
                  int32_t up_stride)
{
    op_geglu(s->f->be, &(struct geglu) { y, gate, up, s->n_tok, dim, up_stride });
}

static struct kv_map kv_map(const struct step *s, bool full)
{
    const struct batch *b = s->b;

    return (struct kv_map) { b->pos, b->seq, full ? b->page_full : b->page_sliding, b->page_max,
                             s->n_tok };
}

/* t1 = attention(xn). A shared layer has no K and V of its own: its donor, earlier in this step,
 * has stored them already. */
static void attention(struct step *s, int32_t il)
{
    struct fwd *f = s->f;
    const struct layer_w *w = &f->w->layer[il];
    const struct fwd_type *t = &f->type[f->c->is_full[il]];
    struct kv_map map = kv_map(s, f->c->is_full[il]);

    linear(s, f->q, f->xn, w->wq);
    op_norm_rope(f->be, &(struct norm_rope) {
        .q = f->q, .w = w->q_norm, .cs = t->cs, .eps = f->c->rms_eps, .n_tok = s->n_tok,
        .n_head = f->c->n_head, .head_dim = t->head_dim, .n_rot = t->n_rot });

    if (model_kv_layer(f->c, il) == il) {
        linear(s, f->k, f->xn, w->wk);
        if (w->wv.p != NULL)
            linear(s, f->v, f->xn, w->wv);
        op_kv_store(f->be, &(struct kv_store) {
            .kv = f->kv[il], .map = map, .k = f->k, .v = w->wv.p != NULL ? f->v : f->k,
            .w = w->k_norm, .cs = t->cs, .eps = f->c->rms_eps, .n_rot = t->n_rot });
    }

    op_attn(f->be, &(struct attn) {
        .y = f->att, .q = f->q, .kv = f->kv[il], .map = map, .n_head = f->c->n_head,
        .window = t->window });
    linear(s, f->t1, f->att, w->wo);
}

/* t1 = N_1(t1) + N_2(experts(N(x))), routed by the raw residual x. */
static void experts(struct step *s, const struct layer_w *w)
{
    struct fwd *f = s->f;
    const struct model_conf *c = f->c;
    struct moe m = forward_moe(c);

    op_norm(f->be, &(struct norm) {
        .y = f->xn, .x = f->x, .w = w->router_scale, .scale = 1 / sqrtf((float) c->hidden),
        .in_scale = 1, .eps = c->rms_eps, .n_row = s->n_tok, .dim = c->hidden });
    linear(s, f->route, f->xn, w->router);
    op_moe_route(f->be, &(struct moe_route) {
        f->route, w->expert_scale, f->expert, f->expert_w, s->n_tok, c->n_expert, c->top_k });

    norm(s, f->xn, f->x, w->ffn_norm_2, NULL, 1);
    m.y = f->t2;
    m.x = f->xn;
    m.gate_up = w->expert_gate_up;
    m.down = w->expert_down;
    m.idx = f->expert;
    m.w = f->expert_w;
    m.n_tok = s->n_tok;
    op_moe(f->be, &m);

    norm(s, f->t1, f->t1, w->post_ffn_norm_1, NULL, 1);
    norm(s, f->t1, f->t2, w->post_ffn_norm_2, f->t1, 1);
}

static void layer(struct step *s, int32_t il)
{
    struct fwd *f = s->f;
    const struct layer_w *w = &f->w->layer[il];
    int32_t ffn = (int32_t) w->gate.rows, ple = f->c->ple;

    norm(s, f->xn, f->x, w->attn_norm, NULL, 1);
    attention(s, il);
    norm(s, f->x, f->t1, w->post_attn_norm, f->x, 1);

    norm(s, f->xn, f->x, w->ffn_norm, NULL, 1);
    linear(s, f->gate, f->xn, w->gate);
    linear(s, f->up, f->xn, w->up);
    geglu(s, f->gate, f->gate, f->up, ffn, ffn);
    linear(s, f->t1, f->gate, w->down);
    if (f->c->moe)
        experts(s, w);

    /* The layer's scalar multiplies the whole stream, last. */
    norm(s, f->x, f->t1, w->post_ffn_norm, f->x, ple > 0 ? 1 : *w->scalar);
    if (ple > 0) {
        linear(s, f->gate, f->x, w->ple_gate);
        geglu(s, f->gate, f->gate, f->ple + (size_t) il * (size_t) ple, ple, f->c->n_layer * ple);
        linear(s, f->t1, f->gate, w->ple_proj);
        norm(s, f->x, f->t1, w->post_ple_norm, f->x, *w->scalar);
    }
}

/* ple = (E_ple[id] * sqrt(ple) + N(W x0 / sqrt(hidden))) / sqrt(2), for all layers at once. */
static void per_layer_inputs(struct step *s)
{
    struct fwd *f = s->f;
    const struct model_conf *c = f->c;

    op_embed(f->be, &(struct embed) { f->ple, s->b->tok, f->w->ple_embed, sqrtf((float) c->ple),
                                      s->n_tok });
    linear(s, f->ple_proj, f->x, f->w->ple_model_proj);
    op_norm(f->be, &(struct norm) {
        .y = f->ple, .x = f->ple_proj, .w = f->w->ple_norm, .add = f->ple, .scale = sqrtf(0.5f),
        .in_scale = 1 / sqrtf((float) c->hidden), .eps = c->rms_eps,
        .n_row = s->n_tok * c->n_layer, .dim = c->ple });
}

/* Logits and samples of the rows that want them, SAMPLE_ROW_MAX at a time. */
static void sample(struct step *s, struct step_out *o)
{
    struct fwd *f = s->f;
    const struct model_conf *c = f->c;
    const struct batch *b = s->b;
    struct sample_row row[SAMPLE_ROW_MAX];
    struct step rows = *s;

    for (int32_t r = 0; r < b->n_out; r += rows.n_tok) {
        rows.n_tok = b->n_out - r < SAMPLE_ROW_MAX ? b->n_out - r : SAMPLE_ROW_MAX;
        op_gather(f->be, &(struct gather) { f->t1, f->x, b->out_row + r, rows.n_tok, c->hidden });
        norm(&rows, f->t1, f->t1, f->w->norm, NULL, 1);
        linear(&rows, f->logits, f->t1, f->w->head);

        for (int32_t i = 0; i < rows.n_tok; i++) {
            const struct sample *p = &b->sample[r + i];
            bool target = b->target != NULL && o->target_logprob != NULL && b->target[r + i] >= 0;

            row[i] = (struct sample_row) {
                .logits = f->logits + (size_t) i * (size_t) c->vocab,
                .logits_out = o->logits != NULL ? o->logits[r + i] : NULL,
                .logprob = target ? &o->target_logprob[r + i] : NULL,
                .target = target ? b->target[r + i] : 0,
                .tok = &o->tok[r + i],
                .ban = { c->suppress, c->eos },
                .n_ban = { c->n_suppress,
                           b->ban_eos != NULL && b->ban_eos[r + i] ? c->n_eos : 0 },
                .vocab = c->vocab, .pos = b->pos[b->out_row[r + i]], .softcap = c->softcap,
                .temperature = p->temperature, .top_p = p->top_p, .min_p = p->min_p,
                .top_k = p->top_k, .seed = p->seed };
        }
        op_sample(f->be, row, rows.n_tok);
    }
}

/* Requests that begin alike part in the middle of a page. */
static void copy_pages(struct step *s)
{
    const struct page_copy *c = s->b->copy;

    for (int32_t il = 0; il < s->f->c->n_layer && s->b->n_copy > 0; il++)
        if (model_kv_layer(s->f->c, il) == il)
            op_kv_copy(s->f->be, &(struct kv_copy) {
                .kv = s->f->kv[il], .n = s->b->n_copy, .stride = sizeof(*c) / sizeof(int32_t),
                .from_to = s->f->c->is_full[il] ? &c->full_from : &c->sliding_from });
}

void forward_step(struct fwd *f, const struct batch *b, struct step_out *o)
{
    struct step s = { f, b, b->n_tok };

    copy_pages(&s);
    /* The reference in float64 takes the root as it is; in bf16 it is 53.0 for 2816, not 53.07. */
    op_embed(f->be, &(struct embed) { f->x, b->tok, f->w->embed, sqrtf((float) f->c->hidden),
                                      s.n_tok });
    for (int full = 0; full < 2; full++)
        op_rope_table(f->be, &(struct rope_table) {
            f->type[full].cs, b->pos, f->type[full].inv_freq, s.n_tok, f->type[full].n_rot });
    if (f->c->ple > 0)
        per_layer_inputs(&s);

    for (int32_t il = 0; il < f->c->n_layer; il++)
        layer(&s, il);

    sample(&s, o);
}

struct moe forward_moe(const struct model_conf *c)
{
    return (struct moe) { .n_expert = c->moe ? c->n_expert : 0, .top_k = c->top_k,
                          .hidden = c->hidden, .ffn = c->expert_ffn };
}

/* Reserving. */

static int alloc_f32(struct fwd *f, float **p, int64_t rows, int64_t width, struct err *e)
{
    size_t bytes;

    if (__builtin_mul_overflow((size_t) rows, (size_t) width, &bytes)
        || __builtin_mul_overflow(bytes, sizeof(float), &bytes)
        || (*p = be_alloc(f->be, bytes)) == NULL)
        return err_set(e, E_IO, "cannot reserve %lld x %lld floats", (long long) rows,
                       (long long) width);
    return 0;
}

static int open_type(struct fwd *f, bool full, struct err *e)
{
    const struct model_conf *c = f->c;
    struct fwd_type *t = &f->type[full];
    int32_t half;
    int rc;

    t->head_dim = full ? c->head_full : c->head_sliding;
    t->n_kv = full ? c->n_kv_full : c->n_kv_sliding;
    t->window = full ? 0 : c->window;
    half = t->head_dim / 2;
    t->n_rot = full ? (int32_t) (c->rope_partial_full * (float) t->head_dim / 2) : half;

    if ((rc = alloc_f32(f, &t->inv_freq, t->n_rot, 1, e)) < 0
        || (rc = alloc_f32(f, &t->cs, f->lim.step_tok_max, 2 * t->n_rot, e)) < 0)
        return rc;

    /* The exponent's denominator is the whole head, however few pairs turn. */
    for (int32_t i = 0; i < t->n_rot; i++) {
        double theta = full ? c->rope_theta_full : c->rope_theta_sliding;

        t->inv_freq[i] = (float) (pow(theta, -2.0 * i / t->head_dim)
                                  / (full ? c->rope_factor_full : 1));
    }
    return 0;
}

static int open_kv(struct fwd *f, struct err *e)
{
    int rc;

    for (int32_t il = 0; il < f->c->n_layer; il++) {
        bool full = f->c->is_full[il];
        int32_t donor = model_kv_layer(f->c, il);
        int32_t width = f->type[full].n_kv * f->type[full].head_dim;
        int64_t slots = (int64_t) f->lim.kv.page_tok
                        * (full ? f->lim.kv.n_page_full : f->lim.kv.n_page_sliding);
        struct kv_layer *kv = &f->kv[il];

        if (donor != il) {
            *kv = f->kv[donor];
            continue;
        }
        *kv = (struct kv_layer) { NULL, NULL, f->lim.kv.page_tok, f->type[full].n_kv,
                                  f->type[full].head_dim };
        if ((rc = alloc_f32(f, &kv->k, slots, width, e)) < 0
            || (rc = alloc_f32(f, &kv->v, slots, width, e)) < 0)
            return rc;
    }
    return 0;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int forward_open(struct fwd *f, struct err *e)
{
    const struct model_conf *c = f->c;
    int64_t n = f->lim.step_tok_max;
    int64_t q = (int64_t) c->n_head * max64(c->head_full, c->head_sliding);
    int64_t kv = max64((int64_t) c->n_kv_full * c->head_full,
                       (int64_t) c->n_kv_sliding * c->head_sliding);
    int64_t ffn = max64(c->double_wide ? 2 * (int64_t) c->ffn : c->ffn, c->ple);
    int64_t all_ple = (int64_t) c->n_layer * c->ple;
    struct { float **p; int64_t rows, width; } buf[] = {
        { &f->x, n, c->hidden },      { &f->xn, n, c->hidden },
        { &f->t1, max64(n, SAMPLE_ROW_MAX), c->hidden },      { &f->t2, n, c->hidden },
        { &f->q, n, q },              { &f->att, n, q },
        { &f->k, n, kv },             { &f->v, n, kv },
        { &f->gate, n, ffn },         { &f->up, n, ffn },
        { &f->route, n, c->moe ? c->n_expert : 0 },
        { &f->expert_w, n, c->moe ? c->top_k : 0 },
        { &f->ple, n, all_ple },      { &f->ple_proj, n, all_ple },
        { &f->logits, SAMPLE_ROW_MAX, c->vocab },
    };
    int rc;

    for (size_t i = 0; i < sizeof(buf) / sizeof(buf[0]); i++)
        if ((rc = alloc_f32(f, buf[i].p, buf[i].rows, buf[i].width, e)) < 0)
            return rc;
    f->expert = be_alloc(f->be, (size_t) n * (size_t) (c->moe ? c->top_k : 0) * sizeof(int32_t));
    if (f->expert == NULL)
        return err_set(e, E_IO, "out of memory");

    if ((rc = open_type(f, false, e)) < 0 || (rc = open_type(f, true, e)) < 0)
        return rc;
    return open_kv(f, e);
}
