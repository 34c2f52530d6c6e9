/* forward.c - Gemma 4: embed, layers, norm, head, sample. One page for all the sizes. */
#include "step.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static void linear(struct step *s, float *y, const void *x, struct mat w)
{
    op_linear(s->f->be, &(struct linear) { .g = { { y, x, w, s->n_tok } }, .n = 1 });
}

/* The stream goes on; *j says how, but for what all joins share. */
static void join(struct step *s, struct join *j)
{
    j->eps = s->f->c->rms_eps;
    j->n_row = s->n_tok;
    j->dim = s->f->c->hidden;
    op_join(s->f->be, j);
}

/* act = gelu(gate) * up */
static void geglu(struct step *s, const float *gate, const float *up, int32_t dim,
                  int32_t up_stride)
{
    op_geglu(s->f->be, &(struct geglu) { s->f->act, gate, up, s->n_tok, dim, up_stride });
}

static struct kv_map kv_map(const struct step *s, bool full)
{
    return (struct kv_map) { s->in.pos, s->in.seq, s->in.page[full], s->in.page_max[full],
                             s->n_tok };
}

/* q, k and v of xn. A layer with k_eq_v has no v: the raw k is its. */
static void project(struct step *s, const struct layer_w *w, bool own_kv)
{
    struct fwd *f = s->f;
    struct linear l = { .g = { { f->q, f->xn, w->wq, s->n_tok } }, .n = 1 };

    if (own_kv)
        l.g[l.n++] = (struct gemm) { f->k, f->xn, w->wk, s->n_tok };
    if (own_kv && w->wv.p != NULL)
        l.g[l.n++] = (struct gemm) { f->v, f->xn, w->wv, s->n_tok };
    op_linear(f->be, &l);
}

/* t1 = attention(xn). A shared layer has no K and V of its own: its donor, earlier in this step,
 * has stored them already. */
static void attention(struct step *s, int32_t il)
{
    struct fwd *f = s->f;
    const struct layer_w *w = &f->w->layer[il];
    const struct fwd_type *t = &f->type[f->c->is_full[il]];
    struct kv_map map = kv_map(s, f->c->is_full[il]);
    bool own_kv = model_kv_layer(f->c, il) == il;

    project(s, w, own_kv);
    op_attn_layer(f->be, &(struct attn_layer) {
        .rope = { .q = f->q, .w = w->q_norm, .cs = t->cs, .eps = f->c->rms_eps, .n_tok = s->n_tok,
                  .n_head = f->c->n_head, .head_dim = t->head_dim, .n_rot = t->n_rot },
        .store = { .kv = f->kv[il], .map = map, .k = own_kv ? f->k : NULL,
                   .v = w->wv.p != NULL ? f->v : f->k, .w = w->k_norm, .cs = t->cs,
                   .eps = f->c->rms_eps, .n_rot = t->n_rot },
        .attn = { .y = f->att, .q = f->q, .kv = f->kv[il], .map = map, .n_head = f->c->n_head,
                  .window = t->window, .n_seq = s->n_seq, .n_one = s->n_one,
                  .ctx = s->ctx, .n_own = s->in.n_own } });
    linear(s, f->t1, f->att, w->wo);
}

/* The experts of this layer, and what they work on. */
static struct moe experts(struct step *s, const struct layer_w *w)
{
    struct fwd *f = s->f;
    struct moe m = forward_moe(f->c);

    m.y = f->t2;
    m.x = f->x_expert;
    m.gate_up = w->expert_gate_up;
    m.down = w->expert_down;
    m.z = f->route;
    m.scale = w->expert_scale;
    m.idx = f->expert;
    m.w = f->expert_w;
    m.n_tok = s->n_tok;
    return m;
}

/* t1 = mlp(xn), t2 = experts(x_expert). The first product has the router's too, and who is chosen
 * is known before the dense down is multiplied. */
static void feed_forward(struct step *s, const struct layer_w *w)
{
    struct fwd *f = s->f;
    struct moe m = experts(s, w);
    struct linear l = { .g = { { f->gate, f->xn, w->gate, s->n_tok },
                               { f->up, f->xn, w->up, s->n_tok } },
                        .n = 2, .act = f->act };

    if (f->c->moe)
        l.g[l.n++] = (struct gemm) { f->route, f->x_route, w->router, s->n_tok };
    op_linear(f->be, &l);
    if (f->c->moe)
        op_moe_route(f->be, &m);
    linear(s, f->t1, f->act, w->down);
    if (f->c->moe)
        op_moe(f->be, &m);
}

/* t1 = W_proj (gelu(W_gate x) * this layer's inputs) */
static void per_layer_embedding(struct step *s, int32_t il)
{
    struct fwd *f = s->f;
    const struct layer_w *w = &f->w->layer[il];
    int32_t ple = f->c->ple;

    op_to_act(f->be, &(struct to_act) { f->xn, f->x, (int64_t) s->n_tok * f->c->hidden });
    linear(s, f->gate, f->xn, w->ple_gate);
    geglu(s, f->gate, f->ple + (size_t) il * (size_t) ple, ple, f->c->n_layer * ple);
    linear(s, f->t1, f->act, w->ple_proj);
}

/* x moves on by one layer. xn is N(x) of this layer before, and of the next one after. */
static void layer(struct step *s, int32_t il)
{
    struct fwd *f = s->f;
    const struct model_conf *c = f->c;
    const struct layer_w *w = &f->w->layer[il];
    bool moe = c->moe, last = il + 1 == c->n_layer;
    struct join_out next = { last ? NULL : f->xn, last ? NULL : w[1].attn_norm, 1 };

    attention(s, il);
    join(s, &(struct join) {
        .y = f->x, .x = f->x, .t = { f->t1 }, .w = w->post_attn_norm, .scale = 1,
        .out = { { f->xn, w->ffn_norm, 1 },
                 { moe ? f->x_expert : NULL, w->ffn_norm_2, 1 },
                 { moe ? f->x_route : NULL, w->router_scale, 1 / sqrtf((float) c->hidden) } } });

    feed_forward(s, w);

    /* The layer's scalar multiplies the whole stream, last. */
    join(s, &(struct join) {
        .y = f->x, .x = f->x, .t = { f->t1, moe ? f->t2 : NULL },
        .tw = { w->post_ffn_norm_1, w->post_ffn_norm_2 }, .w = w->post_ffn_norm,
        .scale = c->ple > 0 ? 1 : *w->scalar,
        .out = { c->ple > 0 ? (struct join_out) {0} : next } });
    if (c->ple > 0) {
        per_layer_embedding(s, il);
        join(s, &(struct join) {
            .y = f->x, .x = f->x, .t = { f->t1 }, .w = w->post_ple_norm, .scale = *w->scalar,
            .out = { next } });
    }
}

/* ple = (E_ple[id] * sqrt(ple) + N(W x0 / sqrt(hidden))) / sqrt(2), for all layers at once. */
static void per_layer_inputs(struct step *s)
{
    struct fwd *f = s->f;
    const struct model_conf *c = f->c;

    op_embed(f->be, &(struct embed) { f->ple, s->in.tok, f->w->ple_embed, sqrtf((float) c->ple),
                                      s->n_tok });
    op_to_act(f->be, &(struct to_act) { f->xn, f->x, (int64_t) s->n_tok * c->hidden });
    linear(s, f->ple_proj, f->xn, f->w->ple_model_proj);
    op_norm(f->be, &(struct norm) {
        .y = f->ple, .x = f->ple_proj, .w = f->w->ple_norm, .add = f->ple, .scale = sqrtf(0.5f),
        .in_scale = 1 / sqrtf((float) c->hidden), .eps = c->rms_eps,
        .n_row = s->n_tok * c->n_layer, .dim = c->ple });
}

/* Row r of the batch, without its logits. */
static struct sample_row sample_row(const struct step *s, const struct step_out *o, int32_t r)
{
    const struct fwd *f = s->f;
    const struct model_conf *c = f->c;
    const struct batch *b = s->b;
    const struct sample *p = &b->sample[r];
    bool lp = b->n_top != NULL && o->lp != NULL && b->n_top[r] >= 0;
    bool steered = b->steer_at != NULL && b->steer_at[r] >= 0;
    size_t at = (size_t) r * (1 + MODEL_TOP_MAX);

    return (struct sample_row) {
        .logits_out = o->logits != NULL ? o->logits[r] : NULL,
        .tok = &o->tok[r],
        .lp_id = lp ? o->lp_id + at : NULL,
        .lp = lp ? o->lp + at : NULL,
        .n_top = lp ? b->n_top[r] : 0,
        .target = b->target != NULL ? b->target[r] : -1,
        .ban = { f->suppress, f->eos },
        .n_ban = { c->n_suppress, b->ban_eos != NULL && b->ban_eos[r] ? c->n_eos : 0 },
        .none = steered && c->n_eos > 0 ? c->eos[0] : -1,
        .steer = steered ? s->in.steer + b->steer_at[r] : NULL,
        .tail = s->in.tok + b->out_row[r],
        .vocab = c->vocab, .pos = b->pos[b->out_row[r]], .softcap = c->softcap,
        .temperature = p->temperature, .top_p = p->top_p, .min_p = p->min_p,
        .top_k = p->top_k, .seed = p->seed };
}

_Static_assert(MODEL_TOP_MAX == SAMPLE_TOP_MAX, "the model promises what the kernel gives");

/* Of a row that the batch does not have: the largest logit, for nobody. */
static struct sample_row no_row(const struct step *s)
{
    return (struct sample_row) { .target = -1, .none = -1, .tail = s->in.tok,
                                 .vocab = s->f->c->vocab, .softcap = s->f->c->softcap,
                                 .top_p = 1 };
}

/* Logits and samples of the rows that want them, SAMPLE_ROW_MAX at a time. */
static void sample(struct step *s, struct step_out *o)
{
    struct fwd *f = s->f;
    const struct model_conf *c = f->c;
    struct sample_row row[SAMPLE_ROW_MAX];
    struct step rows = *s;

    for (int32_t r = 0; r < s->n_out; r += rows.n_tok) {
        rows.n_tok = s->n_out - r < SAMPLE_ROW_MAX ? s->n_out - r : SAMPLE_ROW_MAX;
        op_gather(f->be, &(struct gather) { f->t1, f->x, s->in.out_row + r, rows.n_tok,
                                            c->hidden });
        join(&rows, &(struct join) { .x = f->t1, .out = { { f->xn, f->w->norm, 1 } } });
        linear(&rows, f->logits, f->xn, f->w->head);

        for (int32_t i = 0; i < rows.n_tok; i++) {
            row[i] = r + i < s->b->n_out ? sample_row(s, o, r + i) : no_row(s);
            row[i].logits = f->logits + (size_t) i * (size_t) c->vocab;
        }
        op_sample(f->be, row, rows.n_tok);
    }
}

/* Requests that begin alike part in the middle of a page. */
static void copy_pages(struct step *s)
{
    const int32_t full = offsetof(struct page_copy, full_from) / sizeof(int32_t);
    const int32_t sliding = offsetof(struct page_copy, sliding_from) / sizeof(int32_t);

    for (int32_t il = 0; il < s->f->c->n_layer && s->b->n_copy > 0; il++)
        if (model_kv_layer(s->f->c, il) == il)
            op_kv_copy(s->f->be, &(struct kv_copy) {
                .kv = s->f->kv[il], .n = s->b->n_copy,
                .stride = sizeof(struct page_copy) / sizeof(int32_t),
                .from_to = s->in.copy + (s->f->c->is_full[il] ? full : sliding) });
}

/* Ids that the step before has sampled; the host need not know them. */
static void fill_in(struct step *s)
{
    struct fwd *f = s->f;

    if (s->in.from == NULL)
        return;
    op_next_ids(f->be, &(struct next_ids) { .y = f->ids, .id = s->in.tok, .from = s->in.from,
                                            .n_tok = s->n_tok });
    s->in.tok = f->ids;
}

/* All ops of a step. */
static void run(struct step *s, struct step_out *o)
{
    struct fwd *f = s->f;

    step_bring(s);
    fill_in(s);
    copy_pages(s);
    /* The reference in float64 takes the root as it is; in bf16 it is 53.0 for 2816, not 53.07. */
    op_embed(f->be, &(struct embed) { f->x, s->in.tok, f->w->embed, sqrtf((float) f->c->hidden),
                                      s->n_tok });
    for (int full = 0; full < 2; full++)
        op_rope_table(f->be, &(struct rope_table) {
            f->type[full].cs, s->in.pos, f->type[full].inv_freq, s->n_tok, f->type[full].n_rot });
    if (f->c->ple > 0)
        per_layer_inputs(s);

    join(s, &(struct join) { .x = f->x, .out = { { f->xn, f->w->layer[0].attn_norm, 1 } } });
    for (int32_t il = 0; il < f->c->n_layer; il++)
        layer(s, il);

    sample(s, o);
}

void forward_step(struct fwd *f, const struct batch *b, struct step_out *o)
{
    struct step s = step_of(f, b);

    f->be->ops->step_begin(f->be, step_shape(&s, o));
    run(&s, o);
}

int forward_record(struct fwd *f, int32_t shape, bool *kept, struct err *e)
{
    static const int32_t zero;
    static const struct sample greedy = { .top_p = 1 };
    struct shape want = bucket_shape(&f->buckets, shape);
    int32_t id = 0, got;
    struct batch b = { .n_tok = 1, .n_seq = 1, .n_out = 1, .tok = &id, .pos = &zero, .seq = &zero,
                       .page_full = &zero, .page_sliding = &zero, .page_max = 1,
                       .out_row = &zero, .sample = &greedy };
    struct step s = step_of(f, &b);
    int rc;

    *kept = false;
    if (!f->be->ops->record(f->be, shape))
        return 0;
    s.n_tok = s.n_seq = s.n_out = s.n_one = want.n_row;
    s.ctx = want.ctx;
    run(&s, &(struct step_out) { .tok = &got });
    rc = f->be->ops->recorded(f->be, e);
    *kept = rc == 0;
    return rc;
}

struct buckets forward_buckets(const struct model_limits *lim)
{
    int64_t ctx = (int64_t) lim->page_max * lim->kv.page_tok;

    return (struct buckets) { lim->seq_max < lim->step_tok_max ? lim->seq_max : lim->step_tok_max,
                              ctx < INT32_MAX ? (int32_t) ctx : INT32_MAX };
}

struct moe forward_moe(const struct model_conf *c)
{
    return (struct moe) { .n_expert = c->moe ? c->n_expert : 0, .top_k = c->top_k,
                          .hidden = c->hidden, .ffn = c->expert_ffn };
}

/* Reserving. */

#define HEAD_MAX 4096

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int alloc(struct fwd *f, void **p, int64_t rows, int64_t width, size_t elem, struct err *e)
{
    size_t bytes;

    if (__builtin_mul_overflow((size_t) rows, (size_t) width, &bytes)
        || __builtin_mul_overflow(bytes, elem, &bytes)
        || (*p = be_alloc(f->be, bytes)) == NULL)
        return err_set(e, E_IO, "cannot reserve %lld x %lld numbers of %d bytes", (long long) rows,
                       (long long) width, (int) elem);
    return 0;
}

static int alloc_f32(struct fwd *f, float **p, int64_t rows, int64_t width, struct err *e)
{
    return alloc(f, (void **) p, rows, width, sizeof(float), e);
}

static int open_type(struct fwd *f, bool full, struct err *e)
{
    const struct model_conf *c = f->c;
    struct fwd_type *t = &f->type[full];
    float inv_freq[HEAD_MAX / 2];
    int rc;

    t->head_dim = full ? c->head_full : c->head_sliding;
    t->n_kv = full ? c->n_kv_full : c->n_kv_sliding;
    t->window = full ? 0 : c->window;
    if (t->head_dim > HEAD_MAX)
        return err_set(e, E_INVALID, "head_dim %d, at most %d", (int) t->head_dim, HEAD_MAX);
    t->n_rot = model_n_rot(c, full);

    if ((rc = alloc_f32(f, &t->inv_freq, t->n_rot, 1, e)) < 0
        || (rc = alloc_f32(f, &t->cs, f->lim.step_tok_max, 2 * t->n_rot, e)) < 0)
        return rc;

    /* The exponent's denominator is the whole head, however few pairs turn. */
    for (int32_t i = 0; i < t->n_rot; i++) {
        double theta = full ? c->rope_theta_full : c->rope_theta_sliding;

        inv_freq[i] = (float) (pow(theta, -2.0 * i / t->head_dim)
                               / (full ? c->rope_factor_full : 1));
    }
    f->be->ops->put(f->be, t->inv_freq, inv_freq, (size_t) t->n_rot * sizeof(float));
    return 0;
}

static int open_kv(struct fwd *f, struct err *e)
{
    size_t elem = be_act_bytes(f->be);
    int rc;

    for (int32_t il = 0; il < f->c->n_layer; il++) {
        bool full = f->c->is_full[il];
        int32_t donor = model_kv_layer(f->c, il);
        int64_t heads = (int64_t) f->lim.kv.page_tok * f->type[full].n_kv
                        * (full ? f->lim.kv.n_page_full : f->lim.kv.n_page_sliding);
        struct kv_layer *kv = &f->kv[il];

        if (donor != il) {
            *kv = f->kv[donor];
            continue;
        }
        *kv = (struct kv_layer) { NULL, NULL, f->lim.kv.page_tok, f->type[full].n_kv,
                                  f->type[full].head_dim, model_k_dim(f->c, full) };
        if ((rc = alloc(f, &kv->k, heads, kv->k_dim, elem, e)) < 0
            || (rc = alloc(f, &kv->v, heads, kv->head_dim, elem, e)) < 0)
            return rc;
    }
    return 0;
}

enum { N_BUF = 20 };

/* The activations: where a buffer goes in struct fwd, and how large it is. */
struct buf_row { size_t off; int64_t rows, width; bool is_act; };

#define AT(field)  offsetof(struct fwd, field)

static void buf_rows(struct buf_row row[N_BUF], const struct model_conf *c, int64_t n)
{
    int64_t q = (int64_t) c->n_head * max64(c->head_full, c->head_sliding);
    int64_t kv = max64((int64_t) c->n_kv_full * c->head_full,
                       (int64_t) c->n_kv_sliding * c->head_sliding);
    int64_t ffn = max64(c->double_wide ? 2 * (int64_t) c->ffn : c->ffn, c->ple);
    int64_t all_ple = (int64_t) c->n_layer * c->ple;
    struct buf_row all[N_BUF] = {
        { AT(ids), n, 1, false },     { AT(x), n, c->hidden, false },
        { AT(t1), max64(n, SAMPLE_ROW_MAX), c->hidden, false },
        { AT(t2), n, c->hidden, false },
        { AT(xn), max64(n, SAMPLE_ROW_MAX), c->hidden, true },
        { AT(x_route), n, c->moe ? c->hidden : 0, true },
        { AT(x_expert), n, c->moe ? c->hidden : 0, true },
        { AT(q), n, q, false },       { AT(att), n, q, true },
        { AT(k), n, kv, false },      { AT(v), n, kv, false },
        { AT(gate), n, ffn, false },  { AT(up), n, ffn, false },
        { AT(act), n, ffn, true },
        { AT(route), n, c->moe ? c->n_expert : 0, false },
        { AT(expert_w), n, c->moe ? c->top_k : 0, false },
        { AT(expert), n, c->moe ? c->top_k : 0, false },
        { AT(ple), n, all_ple, false },      { AT(ple_proj), n, all_ple, false },
        { AT(logits), SAMPLE_ROW_MAX, c->vocab, false },
    };

    memcpy(row, all, sizeof(all));
}

uint64_t forward_scratch(const struct model_conf *c, const struct model_limits *lim,
                         size_t act_bytes)
{
    struct buf_row row[N_BUF];
    uint64_t n = 0;

    buf_rows(row, c, lim->step_tok_max);
    for (int i = 0; i < N_BUF; i++)
        n += (uint64_t) row[i].rows * (uint64_t) row[i].width
             * (row[i].is_act ? act_bytes : sizeof(float));
    for (int full = 0; full < 2; full++)
        n += (uint64_t) model_n_rot(c, full) * (2 * (uint64_t) lim->step_tok_max + 1)
             * sizeof(float);
    return n;
}

uint64_t forward_kv(const struct model_conf *c, const struct model_limits *lim, size_t elem_bytes)
{
    return (uint64_t) lim->kv.n_page_full
           * model_kv_page_bytes(c, true, lim->kv.page_tok, elem_bytes)
           + (uint64_t) lim->kv.n_page_sliding
             * model_kv_page_bytes(c, false, lim->kv.page_tok, elem_bytes);
}

/* Ids that the ops read. */
static int put_ids(struct fwd *f, int32_t **to, const int32_t *id, int32_t n, struct err *e)
{
    *to = be_alloc(f->be, (size_t) n * sizeof(*id));
    if (*to == NULL)
        return err_set(e, E_IO, "out of memory");
    f->be->ops->put(f->be, *to, id, (size_t) n * sizeof(*id));
    return 0;
}

int forward_open(struct fwd *f, struct err *e)
{
    struct buf_row row[N_BUF];
    int32_t each[BUCKET_ROWS];
    int rc;

    for (int32_t i = 0; i < BUCKET_ROWS; i++)
        each[i] = i;
    f->buckets = forward_buckets(&f->lim);
    buf_rows(row, f->c, f->lim.step_tok_max);
    for (int i = 0; i < N_BUF; i++)                    /* ints are as wide as floats */
        if ((rc = alloc(f, (void **) (void *) ((char *) f + row[i].off), row[i].rows,
                        row[i].width, row[i].is_act ? be_act_bytes(f->be) : sizeof(float), e)) < 0)
            return rc;

    if ((rc = put_ids(f, &f->suppress, f->c->suppress, f->c->n_suppress, e)) < 0
        || (rc = put_ids(f, &f->eos, f->c->eos, f->c->n_eos, e)) < 0
        || (rc = put_ids(f, &f->each, each, BUCKET_ROWS, e)) < 0
        || (rc = open_type(f, false, e)) < 0 || (rc = open_type(f, true, e)) < 0
        || (rc = open_kv(f, e)) < 0)
        return rc;
    return be_failed(f->be, e);
}
