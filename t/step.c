/* step.c - steps of single tokens in few shapes: the buckets; a step with the rows of its bucket is
 * bit for bit what it is without, on the CPU backend, which is made to keep steps here; steps of a
 * shape ask for the same ops with the same arguments; one launched before the ids are known that it
 * begins with is the one that knows them. Of the models named as arguments, on a GPU: the same, a
 * step that is launched as a graph is bit for bit the one that is not, and one with the rows of its
 * bucket is what it is where other sequences have these rows; nobody reads what is behind the pages
 * that are filled. A fault of the device ends what is launched behind it, too. */
#include "tap.h"
#include "backend_cuda.h"
#include "forward.h"
#include "steer.h"

#include <stdlib.h>

/* ROWS of a step: as many as there are without the long sequence. A step comes TIMES, more than it
 * takes until it is kept. */
enum { SEQ = 72, ROWS = SEQ - 1, PAGE_TOK = 4, PAGE_MAX = 600, TOK = 256, PROMPT = 40,
       LONG = 2100, TOP = 1 + MODEL_TOP_MAX, TIMES = 20 };

#define DRIVER_PIECE (2u << 20)            /* what a driver takes at once */

static uint64_t rng = 88172645463325252u;

static int32_t below(int32_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (int32_t) (rng % (uint64_t) n);
}

/* --- buckets --- */

static void test_buckets(int32_t row_max, int32_t ctx_max)
{
    struct buckets b = { row_max, ctx_max };
    int32_t count = bucket_count(&b, BUCKET_ROWS), most = 0, right = 1, n_edge = 0, n_few = 0;
    char *met = calloc((size_t) count, 1);

    for (int32_t n = 1; n <= row_max; n++) {
        int32_t rows = bucket_rows(&b, n);
        int32_t waste = n <= 8 || n > BUCKET_ROWS ? 0 : n <= 16 ? 3 : n <= 64 ? 7
                        : n <= 128 ? 15 : 31;

        right &= rows >= n && rows - n <= waste && rows <= row_max && rows >= most
                 && bucket_rows(&b, rows) == rows;
        most = rows;
        for (int64_t at_ctx = 1; at_ctx < 2 * (int64_t) ctx_max && rows == n;
             at_ctx = at_ctx < 4096 ? at_ctx + 1 : at_ctx * 2) {
            int32_t ctx = at_ctx < ctx_max ? (int32_t) at_ctx : ctx_max;
            int32_t class = bucket_ctx(&b, ctx), at = bucket_number(&b, rows, class);
            struct shape s;

            right &= class >= ctx && class <= ctx_max && bucket_ctx(&b, class) == class
                     && (class <= BUCKET_CTX || class <= 8 * (int64_t) ctx);
            if (n > BUCKET_ROWS) {
                right &= at == NO_SHAPE;
                continue;
            }
            right &= at >= 0 && at < count;
            if (!right)
                break;
            s = bucket_shape(&b, at);
            right &= s.n_row == rows && s.ctx == class;
            met[at] = 1;
        }
    }
    for (int32_t i = 0; i < count; i++) {
        n_edge += met[i];
        n_few += bucket_shape(&b, i).n_row <= BE_FEW;
    }
    ok(right && n_edge == count && n_few == bucket_count(&b, BE_FEW),
       "%d rows, %d positions: %d shapes, each met", row_max, ctx_max, count);
    free(met);
}

/* --- a backend that keeps steps, as far as one can see from outside --- */

static const struct backend_ops *real;
static struct backend_ops spied;
static uint64_t seen;                      /* of all ops and their arguments since the begin */
static int32_t  shape, n_op;
static bool     dry;                       /* nothing runs */
static int32_t  room[1 << 20];             /* the inputs of a step */
static size_t   used;

static void note(uint64_t v)
{
    seen = (seen ^ v) * 0x100000001b3u;
}

#define NOTE(x) note((uint64_t) (x))

static void begin(int32_t now)
{
    shape = now;
    seen = 0;
    n_op = 0;
    used = 0;
}

static const int32_t *spy_input(struct backend *be, struct input *in)
{
    int32_t *to = room + used;

    if (!be->keeps)
        return real->input(be, in);
    used += (size_t) in->n_row * (size_t) in->width;
    if (used > sizeof(room) / sizeof(room[0]))
        abort();
    for (int32_t r = 0; in->n_col > 0 && r < in->n_row; r++) {
        size_t from = (size_t) (in->row != NULL ? in->row[r] : r) * (size_t) in->stride;

        memset(to + (size_t) r * (size_t) in->width, 0xff, (size_t) in->width * sizeof(int32_t));
        memcpy(to + (size_t) r * (size_t) in->width, in->p + from,
               (size_t) in->n_col * sizeof(int32_t));
    }
    in->stride = in->width;
    return to;
}

static void spy_step_begin(struct backend *be, int32_t now)
{
    (void) be;
    begin(now);
}

static bool spy_record(struct backend *be, int32_t now)
{
    (void) be;
    begin(now);
    return true;
}

static int spy_recorded(struct backend *be, struct err *e)
{
    (void) be;
    (void) e;
    return 0;
}

static void note_mat(const struct mat *w)
{
    NOTE(w->p), NOTE(w->rows), NOTE(w->cols);
}

#define SPY(name, type, op, ...)                                                            \
    static void spy_##name(struct backend *be, const struct type *a)                        \
    {                                                                                       \
        note((uint64_t) ++n_op);                                                            \
        __VA_ARGS__;                                                                        \
        if (!dry)                                                                           \
            real->op(be, a);                                                                \
    }

SPY(next_ids, next_ids, next_ids, NOTE(a->y), NOTE(a->id), NOTE(a->from), NOTE(a->n_tok))
SPY(embed, embed, embed, NOTE(a->y), NOTE(a->id), note_mat(&a->w), NOTE(a->n_tok))
SPY(norm, norm, norm, NOTE(a->y), NOTE(a->x), NOTE(a->w), NOTE(a->add), NOTE(a->n_row))
SPY(gather, gather, gather, NOTE(a->y), NOTE(a->x), NOTE(a->idx), NOTE(a->n_row))
SPY(join, join, join, NOTE(a->y), NOTE(a->x), NOTE(a->t[0]), NOTE(a->t[1]), NOTE(a->w),
    NOTE(a->out[0].y), NOTE(a->out[1].y), NOTE(a->out[2].y), NOTE(a->n_row))
SPY(to_act, to_act, to_act, NOTE(a->y), NOTE(a->x), NOTE(a->n))
SPY(geglu, geglu, geglu, NOTE(a->y), NOTE(a->gate), NOTE(a->up), NOTE(a->n_row))
SPY(rope_table, rope_table, rope_table, NOTE(a->cs), NOTE(a->pos), NOTE(a->n_tok))
SPY(kv_copy, kv_copy, kv_copy, NOTE(a->from_to), NOTE(a->n))
SPY(attn_layer, attn_layer, attn_layer, NOTE(a->rope.q), NOTE(a->rope.n_tok), NOTE(a->store.k),
    NOTE(a->store.map.pos), NOTE(a->attn.y), NOTE(a->attn.map.pos), NOTE(a->attn.map.seq),
    NOTE(a->attn.map.page), NOTE(a->attn.map.page_max), NOTE(a->attn.map.n_tok),
    NOTE(a->attn.n_seq), NOTE(a->attn.n_one), NOTE(a->attn.ctx), NOTE(a->attn.n_own))
SPY(moe_route, moe, moe_route, NOTE(a->z), NOTE(a->n_tok))
SPY(moe, moe, moe, NOTE(a->y), NOTE(a->x), note_mat(&a->gate_up), NOTE(a->n_tok))

static void spy_linear(struct backend *be, const struct linear *a)
{
    note((uint64_t) ++n_op);
    for (int32_t i = 0; i < a->n; i++)
        NOTE(a->g[i].y), NOTE(a->g[i].x), note_mat(&a->g[i].w), NOTE(a->g[i].n_row);
    if (!dry)
        real->linear(be, a);
}

/* Rows for nobody get a place of their own, as on a GPU. */
static void spy_sample(struct backend *be, const struct sample_row *rows, int32_t n_row)
{
    struct sample_row row[SAMPLE_ROW_MAX];
    int32_t nowhere[SAMPLE_ROW_MAX];

    note((uint64_t) ++n_op);
    NOTE(n_row);
    for (int32_t i = 0; i < n_row; i++) {
        NOTE(rows[i].logits);
        row[i] = rows[i];
        if (row[i].tok == NULL)
            row[i].tok = &nowhere[i];
    }
    if (!dry)
        real->sample(be, row, n_row);
}

static void spy_on(struct backend *be)
{
    real = be->ops;
    spied = *real;
    spied.input = spy_input;
    spied.step_begin = spy_step_begin;
    spied.record = spy_record;
    spied.recorded = spy_recorded;
    spied.next_ids = spy_next_ids;
    spied.embed = spy_embed;
    spied.norm = spy_norm;
    spied.gather = spy_gather;
    spied.join = spy_join;
    spied.to_act = spy_to_act;
    spied.linear = spy_linear;
    spied.geglu = spy_geglu;
    spied.rope_table = spy_rope_table;
    spied.kv_copy = spy_kv_copy;
    spied.attn_layer = spy_attn_layer;
    spied.moe_route = spy_moe_route;
    spied.moe = spy_moe;
    spied.sample = spy_sample;
    be->ops = &spied;
}

/* --- a model and sequences in it --- */

struct world {
    struct model_conf c;
    struct weights    w;
    struct fwd        f;
    struct backend   *be;
    int32_t page[SEQ * PAGE_MAX];          /* of both pools; no page is anywhere twice */
    int32_t len[SEQ], last[SEQ];           /* tokens stored, and the id that comes next */
    int32_t tok[TOK], pos[TOK], seq[TOK], out_row[TOK], n_top[TOK], steer_at[TOK];
    struct sample sample[TOK];
    struct batch b;
    struct steer_buf steer;
};

struct got {
    int32_t tok[TOK], lp_id[TOK][TOP];
    float   lp[TOK][TOP];
    float  *logits[TOK];                   /* NULL: not wanted */
};

static struct backend_limits limits(const struct world *w, bool cuda)
{
    const struct model_conf *c = &w->c;
    const struct model_limits *lim = &w->f.lim;
    struct buckets b = forward_buckets(lim);

    return (struct backend_limits) {
        .n_thread = 2, .vocab = c->vocab,
        .attn_scratch = attn_scratch(c->n_head, c->n_kv_full < c->n_kv_sliding ? c->n_kv_full
                                     : c->n_kv_sliding, PAGE_MAX * PAGE_TOK),
        .moe = forward_moe(c), .step_tok_max = TOK, .seq_max = ROWS, .page_max = PAGE_MAX,
        .steer_words = steer_words(c->vocab, SEQ, SEQ * LONG),
        .n_shape = bucket_count(&b, BUCKET_ROWS), .n_shape_few = bucket_count(&b, BE_FEW),
        .n_layer = c->n_layer,
        .hidden = c->hidden, .n_head = c->n_head, .n_kv = { c->n_kv_sliding, c->n_kv_full },
        .head_dim = { c->head_sliding, c->head_full }, .apart = cuda };
}

static int world_open(struct world *w, const char *dir, bool cuda, struct err *e)
{
    struct backend_limits lim;
    int rc = model_conf_load(&w->c, dir, e);

    if (rc != 0)
        return rc;
    if (w->c.n_layer > 20) {               /* the 26B's shapes: a layer of each type is enough */
        w->c.n_layer = 2;
        w->c.is_full[0] = false;
        w->c.is_full[1] = true;
    }
    w->f = (struct fwd) {
        .c = &w->c, .w = &w->w,
        .lim = { .kv = { PAGE_TOK, SEQ * PAGE_MAX, SEQ * PAGE_MAX }, .step_tok_max = TOK,
                 .seq_max = ROWS, .page_max = PAGE_MAX, .n_thread = 2 } };
    lim = limits(w, cuda);
    if ((rc = cuda ? be_open_cuda(&w->be, &lim, e) : be_open_cpu(&w->be, &lim, e)) != 0)
        return rc;
    w->f.be = w->be;
    rc = weights_load(&w->w, w->be, w->c.n_layer == 2 ? NULL : dir, &w->c, NULL, NULL, e);
    w->steer.max = (int32_t) lim.steer_words;
    w->steer.word = calloc((size_t) w->steer.max, sizeof(int32_t));
    for (int32_t i = 0; i < SEQ * PAGE_MAX; i++)
        w->page[i] = (int32_t) ((int64_t) i * 7919 % (SEQ * PAGE_MAX));
    return rc != 0 ? rc : forward_open(&w->f, e);
}

static void world_close(struct world *w)
{
    weights_free(&w->w);
    be_close(w->be);
    free(w->steer.word);
    free(w);
}

static void begin_batch(struct world *w)
{
    w->steer.n = 0;
    w->b = (struct batch) {
        .tok = w->tok, .pos = w->pos, .seq = w->seq, .page_full = w->page, .page_sliding = w->page,
        .page_max = PAGE_MAX, .out_row = w->out_row, .sample = w->sample, .n_top = w->n_top,
        .steer_at = w->steer_at, .steer = w->steer.word };
}

/* n tokens of a sequence, the last one sampled if out. */
static void add(struct world *w, int32_t seq, int32_t n, bool out)
{
    struct batch *b = &w->b;

    for (int32_t i = 0; i < n; i++, b->n_tok++) {
        w->tok[b->n_tok] = i == n - 1 ? w->last[seq] : below(w->c.vocab);
        w->pos[b->n_tok] = w->len[seq] + i;
        w->seq[b->n_tok] = seq;
    }
    b->n_seq = seq >= b->n_seq ? seq + 1 : b->n_seq;
    if (out) {
        w->out_row[b->n_out] = b->n_tok - 1;
        w->n_top[b->n_out] = -1;
        w->steer_at[b->n_out] = -1;
        w->sample[b->n_out++] = (struct sample) { .top_p = 1 };
    }
}

/* Row r is drawn, told of and bent, depending on its number. */
static void adorn(struct world *w, int32_t r, bool all)
{
    static uint32_t allow[8192];
    struct steer s = STEER_NONE;

    if (r % 3 == 1)
        w->sample[r] = (struct sample) { .temperature = 0.8f, .top_p = 0.9f, .top_k = 40,
                                         .seed = (uint64_t) r };
    w->n_top[r] = all || r % 4 == 2 ? r % 6 : -1;
    if (r % 5 != 3)
        return;
    memset(allow, 0, sizeof(allow));
    for (int i = 0; i < 50; i++) {
        int32_t id = below(w->c.vocab);

        allow[id / 32] |= 1u << id % 32;
    }
    s.allow = allow;
    s.presence = 0.5f;
    s.gen = &w->last[w->seq[r]];
    s.n_gen = 1;
    w->steer_at[r] = steer_put(&w->steer, &s, w->c.vocab);
}

/* Ids and logprobs to g; what is not filled is poisoned. */
static bool run(struct world *w, struct got *g, bool logits)
{
    struct step_out o = { .tok = g->tok, .lp_id = g->lp_id[0], .lp = g->lp[0],
                          .logits = logits ? g->logits : NULL };
    struct err e = {0};
    bool kept;

    memset(g->tok, 0x7f, sizeof(g->tok));
    memset(g->lp, 0x7f, sizeof(g->lp));
    memset(g->lp_id, 0x7f, sizeof(g->lp_id));
    w->b.n_steer = w->steer.n;
    if (w->be->keeps && w->be->due != NO_SHAPE
        && !ok(forward_record(&w->f, w->be->due, &kept, &e) == 0 && kept, "what is due is kept"))
        return false;
    forward_step(&w->f, &w->b, &o);
    return be_sync(w->be, &e) == 0 || ok(0, "a step of %d tokens: %s", w->b.n_tok, e.msg);
}

/* Prompts of many lengths, several in a step; none of these steps is kept. */
static void read_prompts(struct world *w)
{
    static struct got g;
    int right = 1;

    for (int32_t s = 0; s < SEQ; s++) {
        int32_t want = s == 5 ? LONG : 1 + below(PROMPT);

        w->last[s] = below(w->c.vocab);
        while (w->len[s] < want) {
            int32_t n = want - w->len[s] < TOK - 1 ? want - w->len[s] : TOK - 1;

            begin_batch(w);
            add(w, s, n, false);
            if (s > 0)                     /* the one before goes on beside it */
                add(w, s - 1, 1, true);
            right &= run(w, &g, false) && (w->be->ops != &spied || shape == NO_SHAPE);
            w->len[s] += n;
            if (s > 0) {
                w->last[s - 1] = g.tok[0];
                w->len[s - 1]++;
            }
        }
    }
    ok(right, "prompts: no step is like another");
}

/* One token of each of n sequences, at random; may they be long? */
static void pick(struct world *w, int32_t n, bool with_long)
{
    int32_t left = n;

    begin_batch(w);
    for (int32_t s = 0; s < SEQ; s++) {
        int32_t can = SEQ - s - (!with_long && s <= 5);

        if (!with_long && s == 5)
            continue;
        if (below(can) < left) {
            add(w, s, 1, true);
            left--;
        }
    }
}

static void go_on(struct world *w, const struct got *g)
{
    for (int32_t i = 0; i < w->b.n_tok; i++) {
        w->len[w->seq[i]]++;
        w->last[w->seq[i]] = g->tok[i];
    }
}

static int32_t number_of(const struct world *w)
{
    int32_t ctx = 0;

    for (int32_t i = 0; i < w->b.n_tok; i++)
        ctx = w->pos[i] >= ctx ? w->pos[i] + 1 : ctx;
    return bucket_number(&w->f.buckets, bucket_rows(&w->f.buckets, w->b.n_tok),
                         bucket_ctx(&w->f.buckets, ctx));
}

/* --- steps that begin with ids that only the backend knows --- */

enum { DEEP = 5 };                         /* steps, two of them under way at a time */

/* The batch of step t: one token of each of n sequences, and of one more, in front of the last of
 * them, three of a prompt if mixed. All that is random depends on t alone. bad: row 0 may not have
 * any id. */
static void lay(struct world *w, const int32_t *seq, int32_t n, int t, bool mixed, bool bad)
{
    static uint32_t none[8192];
    struct steer s = STEER_NONE;

    rng = 1234567 + (uint64_t) t;
    begin_batch(w);
    for (int32_t i = 0; i < n; i++) {
        if (mixed && i == n - 1)
            add(w, seq[n], 3, false);
        add(w, seq[i], 1, true);
        adorn(w, i, true);
    }
    s.allow = none;
    if (bad)
        w->steer_at[0] = steer_put(&w->steer, &s, w->c.vocab);
    w->b.n_steer = w->steer.n;
}

/* The ids become unknown: those there are wrong, and what steer.h has of them is pending. */
static void forget(struct world *w, int32_t *from)
{
    for (int32_t i = 0; i < w->b.n_tok; i++)
        from[i] = -1;
    for (int32_t r = 0; r < w->b.n_out; r++) {
        int32_t *at = w->steer.word + w->steer_at[r];

        from[w->out_row[r]] = r;
        w->tok[w->out_row[r]] = (w->tok[w->out_row[r]] + 1) % w->c.vocab;
        if (w->steer_at[r] < 0 || ((struct steer_head *) at)->n_gen == 0)
            continue;
        ((struct steer_head *) at)->n_gen = 0;
        ((struct steer_head *) at)->n_pend = 1;
    }
    w->b.from = from;
}

static void step_on(struct world *w, const struct got *g)
{
    for (int32_t r = 0; r < w->b.n_out; r++)
        w->last[w->seq[w->out_row[r]]] = g->tok[r] >= 0 ? g->tok[r] : 0;
    for (int32_t i = 0; i < w->b.n_tok; i++)
        w->len[w->seq[i]]++;
}

/* Of what the rows got; a row without an id has no more than that. */
static bool same_rows(const struct got *a, const struct got *b, int32_t n)
{
    bool same = true;

    for (int32_t r = 0; r < n; r++)
        same = same && a->tok[r] == b->tok[r]
               && (a->tok[r] < 0
                   || (memcmp(a->lp[r], b->lp[r], (size_t) (1 + r % 6) * sizeof(float)) == 0
                       && memcmp(a->lp_id[r], b->lp_id[r],
                                 (size_t) (1 + r % 6) * sizeof(int32_t)) == 0));
    return same;
}

static bool launch(struct world *w, struct got *g)
{
    struct step_out o = { .tok = g->tok, .lp_id = g->lp_id[0], .lp = g->lp[0] };
    struct err e;

    memset(g, 0x7f, sizeof(*g));
    forward_step(&w->f, &w->b, &o);
    w->be->ops->step_end(w->be);
    return be_failed(w->be, &e) == 0;
}

/* Step by step, and again two deep. */
static void test_two_deep(struct world *w, const char *name, int32_t n, bool mixed, bool bad)
{
    static struct got alone[DEEP], deep[DEEP];
    static int32_t from[DEEP][TOK];
    int32_t seq[SEQ], len[SEQ], last[SEQ], n_eos = w->c.n_eos, right = 1;
    uint64_t was = rng;
    struct err e;

    for (int32_t i = 0; i <= n; i++)
        seq[i] = i < 5 ? i : i + 1;                    /* not the long one */
    memcpy(len, w->len, sizeof(len));
    memcpy(last, w->last, sizeof(last));
    w->c.n_eos = bad ? 0 : n_eos;                      /* else that comes where nothing may */
    for (int t = 0; t < DEEP; t++) {
        lay(w, seq, n, t, mixed, bad && t == 1);
        right &= launch(w, &alone[t]) && w->be->ops->step_wait(w->be, &e) == 0
                 && (alone[t].tok[0] == SAMPLE_NONE) == (bad && t == 1);
        step_on(w, &alone[t]);
    }
    memcpy(w->len, len, sizeof(len));
    memcpy(w->last, last, sizeof(last));
    for (int t = 0; t < DEEP; t++) {
        lay(w, seq, n, t, mixed, bad && t == 1);
        if (t > 0)
            forget(w, from[t]);
        right &= launch(w, &deep[t]) && (t == 0 || w->be->ops->step_wait(w->be, &e) == 0);
        step_on(w, &alone[t]);
    }
    right &= w->be->ops->step_wait(w->be, &e) == 0;
    for (int t = 0; t < DEEP; t++)
        right &= same_rows(&alone[t], &deep[t], n);
    ok(right, "%s: %d rows%s%s: launched before their ids are known, the same bits", name, n,
       mixed ? " beside a prompt" : "", bad ? ", one has none" : "");
    w->c.n_eos = n_eos;
    rng = was;
}

static void test_deep(struct world *w, const char *name)
{
    static const int32_t n[] = { 1, 2, 8, 13, 40, 64 };

    for (size_t i = 0; i < sizeof(n) / sizeof(n[0]); i++)
        for (int mixed = 0; mixed < 2; mixed++)
            for (int bad = 0; bad < 2; bad++)
                test_two_deep(w, name, n[i], mixed, bad);
}

static const int32_t sizes[] = { 1, 2, 7, 8, 9, 11, 12, 13, 16, 17, 24, 25, 39, 40, 41, 63, 64, 65,
                                 70, 3, 10, 12, 37, 40, 1, 12 };

#define N_SIZE ((int) (sizeof(sizes) / sizeof(sizes[0])))

/* --- the CPU backend as one that keeps steps --- */

static void test_padded(struct world *w, const char *name)
{
    static struct got plain, padded;
    struct { uint64_t seen; int32_t n_op; } kept[100] = {{0}};
    int same = 1, alike = 1, recorded = 1;
    struct err e;
    bool is_kept;

    for (int i = 0; i < 2 * N_SIZE; i++) {
        int32_t n = sizes[i % N_SIZE];

        pick(w, n, i >= N_SIZE);
        for (int32_t r = 0; r < n; r++)
            adorn(w, r, false);
        w->be->keeps = false;
        same &= run(w, &plain, false);
        w->be->keeps = true;
        same &= run(w, &padded, false) && shape == number_of(w);
        same &= memcmp(&plain, &padded, sizeof(plain)) == 0;

        if (kept[shape].n_op == 0) {
            kept[shape].seen = seen;
            kept[shape].n_op = n_op;
        }
        alike &= kept[shape].seen == seen && kept[shape].n_op == n_op;
        dry = true;
        recorded &= forward_record(&w->f, shape, &is_kept, &e) == 0 && is_kept
                    && kept[shape].seen == seen && kept[shape].n_op == n_op;
        dry = false;
        go_on(w, &padded);
    }
    ok(same, "%s: with the rows of their buckets steps give the same bits", name);
    ok(alike, "%s: steps of a shape ask for the same, whatever their rows want", name);
    ok(recorded, "%s: and so does one that is only recorded", name);
}

/* What no shape may be said of. */
static void test_not_alike(struct world *w)
{
    static struct got g;
    static float row[1 << 10];
    struct page_copy copy = { SEQ * PAGE_MAX - 1, SEQ * PAGE_MAX - 2, SEQ * PAGE_MAX - 1,
                              SEQ * PAGE_MAX - 2 };

    pick(w, 3, false);
    g.logits[1] = row;
    run(w, &g, true);
    is_int(shape, NO_SHAPE, "logits are wanted");
    w->b.copy = &copy;
    w->b.n_copy = 1;
    run(w, &g, false);
    is_int(shape, NO_SHAPE, "pages are copied");
    w->b.n_copy = 0;
    w->b.n_out = 2;
    run(w, &g, false);
    is_int(shape, NO_SHAPE, "a row is not sampled");
    w->b.n_out = 3;
    w->out_row[0] = 1;
    w->out_row[1] = 0;
    run(w, &g, false);
    is_int(shape, NO_SHAPE, "in another order");
    pick(w, 3, false);
    run(w, &g, false);
    ok(shape != NO_SHAPE, "none of these");
}

static void test_cpu(const char *name)
{
    struct world *w = calloc(1, sizeof(*w));
    struct err e = {0};
    char dir[64];

    snprintf(dir, sizeof(dir), "t/golden/%s", name);
    if (!ok(world_open(w, dir, false, &e) == 0, "%s: %s", name, e.msg))
        return;
    spy_on(w->be);
    w->be->keeps = true;
    read_prompts(w);
    test_padded(w, name);
    test_not_alike(w);
    test_deep(w, name);
    w->be->keeps = false;
    test_deep(w, name);
    world_close(w);
}

/* --- a GPU --- */

#define NO_PAGE (1 << 20)                  /* far from all that is there */

static const struct backend_ops *gpu_real;
static struct backend_ops        gpu_ops;

/* Every other table goes up as wide as its class, with pages behind its own that are nowhere. They
 * stay there when the next one brings only its own. */
static const int32_t *gpu_input(struct backend *be, struct input *in)
{
    static uint32_t n;
    struct input wide = { .p = room, .n_row = in->n_row, .n_col = in->width, .stride = in->width,
                          .width = in->width };
    const int32_t *dev;

    if (in->n_col == in->width || n++ / 2 % 2 > 0)     /* both of a step, or none */
        return gpu_real->input(be, in);
    for (int32_t r = 0; r < in->n_row; r++) {
        int32_t *to = room + (size_t) r * (size_t) in->width;

        for (int32_t i = 0; i < in->width; i++)
            to[i] = NO_PAGE;
        memcpy(to, in->p + (size_t) (in->row != NULL ? in->row[r] : r) * (size_t) in->stride,
               (size_t) in->n_col * sizeof(int32_t));
    }
    dev = gpu_real->input(be, &wide);
    in->stride = in->width;
    return dev;
}

/* What the first n rows got, all of it. */
static bool same(const struct got *a, const struct got *b, int32_t n)
{
    size_t rows = (size_t) n;

    return memcmp(a->tok, b->tok, rows * sizeof(a->tok[0])) == 0
           && memcmp(a->lp, b->lp, rows * sizeof(a->lp[0])) == 0
           && memcmp(a->lp_id, b->lp_id, rows * sizeof(a->lp_id[0])) == 0;
}

/* Step by step without graphs, the rows of the bucket those of other sequences. */
static void run_among_others(struct world *w, int32_t rows, struct got *g)
{
    struct batch own = w->b;
    int32_t n_steer = w->steer.n;
    bool in[SEQ] = {0};

    for (int32_t i = 0; i < own.n_tok; i++)
        in[own.seq[i]] = true;
    for (int32_t s = 0; s < SEQ && w->b.n_tok < rows; s++) {
        if (in[s] || s == 5)
            continue;
        add(w, s, 1, true);
        adorn(w, w->b.n_out - 1, true);
    }
    w->be->keeps = false;
    run(w, g, false);
    w->be->keeps = true;
    w->b = own;
    w->steer.n = n_steer;
}

/* Launched op by op without and with the rows of its bucket, and then so often that it is a graph
 * from some time on. */
static void test_step(struct world *w, int32_t n, bool with_long, int times)
{
    static struct got others, eager, got;
    static float row[1 << 18];
    int32_t rows = bucket_rows(&w->f.buckets, n), first;
    int right = 1;

    pick(w, n, with_long);
    for (int32_t r = 0; r < n; r++)
        adorn(w, r, true);
    run_among_others(w, rows, &others);
    eager.logits[0] = row;
    run(w, &eager, true);
    for (int i = 0; i < times; i++)
        right &= run(w, &got, false) && same(&eager, &got, n);
    ok(right, "%d rows: as a graph the same bits", n);
    for (first = 0; first < n && same(&others, &eager, first + 1); first++)
        ;
    if (!ok(first == n, "%d rows, filled up to %d: the same bits as among others", n, rows))
        printf("# row %d: id %d, logprob %.7g; among others %d, %.7g\n", first, eager.tok[first],
               (double) eager.lp[first][0], others.tok[first], (double) others.lp[first][0]);
    go_on(w, &got);
}

/* All shapes that did not come. */
static void test_record(struct world *w)
{
    int32_t n_shape = bucket_count(&w->f.buckets, BUCKET_ROWS), n_new = 0;
    struct backend_limits lim = limits(w, true);
    uint64_t before;
    struct be_memory m;
    struct err e;
    bool kept;
    int right = 1;

    w->be->ops->memory(w->be, &m);
    before = m.free_now;
    for (int32_t i = 0; i < n_shape; i++) {
        right &= forward_record(&w->f, i, &kept, &e) == 0;
        n_new += kept;
    }
    ok(right, "all shapes are recorded");
    w->be->ops->memory(w->be, &m);
    ok(before < m.free_now + be_graphs_cuda(&lim) + DRIVER_PIECE, "%d of %d shapes recorded: %.1f"
       " MiB, at most %.1f were planned for all", n_new, n_shape,
       ((double) before - (double) m.free_now) / 0x1p20, (double) be_graphs_cuda(&lim) / 0x1p20);
    ok(n_new > 0 && n_new < n_shape && forward_record(&w->f, 0, &kept, &e) == 0 && !kept,
       "each once");
}

/* The device is lost: of two steps under way the first writes to nowhere, and no result may come of
 * either. */
static void test_fault(struct world *w)
{
    struct mat m = w->w.embed;
    float *to[2] = { (float *) (uintptr_t) 4096, w->f.x };
    const int32_t id = 3;
    struct err e = {0};
    int rc[2];

    for (int i = 0; i < 2; i++) {
        w->be->ops->step_begin(w->be, NO_SHAPE);
        op_embed(w->be, &(struct embed) { to[i], be_input(w->be, &id, 1), m, 1, 1 });
        w->be->ops->step_end(w->be);
        rc[i] = be_failed(w->be, &e);
    }
    for (int i = 0; i < 2; i++)
        rc[i] = rc[i] < 0 ? rc[i] : w->be->ops->step_wait(w->be, &e);
    is_int(rc[0], E_GPU, "a step that writes to nowhere fails: %s", e.msg);
    is_int(rc[1], E_GPU, "and the one launched behind it");
}

/* last: the device may be lost. */
static void test_gpu(const char *dir, bool last)
{
    struct world *w = calloc(1, sizeof(*w));
    struct err e = {0};
    uint64_t n_free, total;

    if (be_memory_cuda(&n_free, &total, &e) == E_INVALID) {
        printf("# %s: no GPU: %s\n", dir, e.msg);
        free(w);
        return;
    }
    if (!ok(world_open(w, dir, true, &e) == 0, "%s: opened", dir)) {
        printf("# %s\n", e.msg);
        free(w);
        return;
    }
    gpu_real = w->be->ops;
    gpu_ops = *gpu_real;
    gpu_ops.input = gpu_input;
    w->be->ops = &gpu_ops;
    read_prompts(w);
    for (int i = 0; i < N_SIZE; i++)
        test_step(w, sizes[i], i % 3 == 2, TIMES);
    w->be->keeps = false;
    test_deep(w, "op by op");
    w->be->keeps = true;
    test_record(w);
    test_deep(w, "as graphs");
    for (int i = 0; i < 3 * N_SIZE; i++)
        test_step(w, 1 + below(ROWS), i % 2, 2);
    if (last)
        test_fault(w);
    world_close(w);
}

int main(int argc, char **argv)
{
    test_buckets(1, 1);
    test_buckets(3, 100);
    test_buckets(8, 2048);
    test_buckets(9, 2049);
    test_buckets(100, 8192);
    test_buckets(256, 40000);
    test_buckets(257, 131072);
    test_buckets(1000, INT32_MAX);
    test_cpu("moe");
    test_cpu("dense");
    test_cpu("ple");
    for (int i = 1; i < argc; i++)
        test_gpu(argv[i], i == argc - 1);
    return done_testing();
}
