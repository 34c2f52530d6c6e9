/* cpu.c - the reference backend: the _ref kernels over a pool of threads.
 *
 * Threads split outputs, never sums, so their number leaves no trace in a result. */
#include "backend.h"
#include "pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CPU_ALLOC_MAX   16384
#define CPU_GRAIN_WORK  65536          /* multiply-adds that are worth handing to a thread */

struct cpu {
    struct backend        be;          /* first: the two share an address */
    struct backend_limits lim;
    struct pool          *pool;
    float                *attn;        /* [n_thread, lim.attn_scratch] */
    int32_t              *sample;      /* [n_thread, SAMPLE_SCRATCH * vocab] */
    void                 *moe;
    int32_t              *last;        /* [lim.step_tok_max] ids of the rows sampled last */
    int32_t               n_last;      /* of this step */
    struct { void *p; size_t n; } mem[CPU_ALLOC_MAX];
    int                   n_mem;
};

/* Reserved now, backed by memory when first written. */
static void *cpu_alloc(struct backend *be, size_t bytes)
{
    struct cpu *c = (struct cpu *) be;
    void *p;

    if (c->n_mem == CPU_ALLOC_MAX)
        return NULL;
    bytes += bytes == 0;
    p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
             0);
    if (p == MAP_FAILED)
        return NULL;
    c->mem[c->n_mem].p = p;
    c->mem[c->n_mem++].n = bytes;
    return p;
}

static void cpu_close(struct backend *be)
{
    struct cpu *c = (struct cpu *) be;

    pool_close(c->pool);
    for (int i = 0; i < c->n_mem; i++)
        munmap(c->mem[i].p, c->mem[i].n);
    free(c);
}

static const void *cpu_weight(struct backend *be, const struct be_file *from, size_t bytes)
{
    (void) be;
    (void) bytes;
    return from->p;
}

static uint64_t cpu_loading(struct backend *be)
{
    (void) be;                             /* the map brings what is read */
    return 0;
}

struct sizes { size_t attn, sample, moe, last; };

static struct sizes sizes_of(const struct backend_limits *lim)
{
    size_t n = (size_t) lim->n_thread;

    return (struct sizes) {
        .attn = n * lim->attn_scratch * sizeof(float),
        .sample = n * SAMPLE_SCRATCH * (size_t) lim->vocab * sizeof(int32_t),
        .moe = lim->moe.n_expert > 0 ? moe_scratch(&lim->moe) : 0,
        .last = (size_t) lim->step_tok_max * sizeof(int32_t),
    };
}

static void cpu_memory(struct backend *be, struct be_memory *m)
{
    struct cpu *c = (struct cpu *) be;
    struct sizes s = sizes_of(&c->lim);

    *m = (struct be_memory) { .planned = c->lim.model_bytes + s.attn + s.sample + s.moe
                                         + s.last + BE_SLACK };
    for (int i = 0; i < c->n_mem; i++)
        m->used += c->mem[i].n;
}

static void cpu_put(struct backend *be, void *to, const void *p, size_t bytes)
{
    (void) be;
    memcpy(to, p, bytes);
}

static const int32_t *cpu_input(struct backend *be, struct input *in)
{
    (void) be;
    assert(in->row == NULL);               /* asked of backends that keep steps only */
    return in->p;
}

static void cpu_step_begin(struct backend *be, int32_t shape)
{
    (void) be;
    (void) shape;
}

static void cpu_step_end(struct backend *be)
{
    ((struct cpu *) be)->n_last = 0;       /* every op was complete when it returned */
}

static int cpu_step_wait(struct backend *be, struct err *e)
{
    (void) be;
    (void) e;
    return 0;
}

/* Items of a loop in one piece, when an item costs so much. */
static int64_t grain(int64_t item_work)
{
    int64_t g = CPU_GRAIN_WORK / (item_work > 0 ? item_work : 1);

    return g > 0 ? g : 1;
}

/* One op whose kernel takes (args, lo, hi): the loop body and the table entry. */
#define CPU_OP(name, type, n_item, item_work)                                               \
    static void name##_part(void *arg, int64_t lo, int64_t hi, int thread)                  \
    {                                                                                       \
        (void) thread;                                                                      \
        name##_ref(arg, lo, hi);                                                            \
    }                                                                                       \
    static void cpu_##name(struct backend *be, const struct type *a)                        \
    {                                                                                       \
        pool_run(((struct cpu *) be)->pool, name##_part, (void *) a, (n_item),              \
                 grain(item_work));                                                         \
    }

static void cpu_next_ids(struct backend *be, const struct next_ids *a)
{
    struct next_ids all = *a;

    all.last = ((struct cpu *) be)->last;
    next_ids_ref(&all, 0, a->n_tok);
}

CPU_OP(embed, embed, a->n_tok, a->w.cols)
CPU_OP(norm, norm, a->n_row, 2 * a->dim)
CPU_OP(join, join, a->n_row, 8 * a->dim)
CPU_OP(to_act, to_act, a->n, 1)
CPU_OP(gather, gather, a->n_row, a->dim)
CPU_OP(geglu, geglu, a->n_row, 8 * a->dim)
CPU_OP(rope_table, rope_table, a->n_tok, 40 * a->n_rot)
CPU_OP(norm_rope, norm_rope, a->n_tok, 4 * a->n_head * a->head_dim)
CPU_OP(kv_store, kv_store, a->map.n_tok, 8 * a->kv.n_kv * a->kv.head_dim)
CPU_OP(kv_copy, kv_copy, a->n, (int64_t) a->kv.page_tok * a->kv.n_kv * a->kv.head_dim)
CPU_OP(fill, fill, a->n, 8)

static void gemm_part(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void) thread;
    gemm_ref(arg, lo, hi);
}

static void cpu_gemm(struct backend *be, const struct gemm *a)
{
    int64_t g = grain((int64_t) a->w.cols * a->n_row);

    g = (g + 63) / 64 * 64;            /* whole blocks, so that few outputs are computed alone */
    pool_run(((struct cpu *) be)->pool, gemm_part, (void *) a, a->w.rows, g);
}

static void cpu_linear(struct backend *be, const struct linear *a)
{
    for (int32_t i = 0; i < a->n; i++)
        cpu_gemm(be, &a->g[i]);
    if (a->act != NULL)
        cpu_geglu(be, &(struct geglu) { a->act, a->g[0].y, a->g[1].y, a->g[0].n_row,
                                        (int32_t) a->g[0].w.rows, (int32_t) a->g[1].w.rows });
}

struct attn_arg { const struct attn *a; struct cpu *c; };

static void attn_part(void *arg, int64_t lo, int64_t hi, int thread)
{
    struct attn_arg *x = arg;

    attn_ref(x->a, lo, hi, x->c->attn + (size_t) thread * x->c->lim.attn_scratch);
}

static void cpu_attn(struct backend *be, const struct attn *a)
{
    struct attn_arg x = { a, (struct cpu *) be };
    int64_t ctx = a->window > 0 && a->ctx > a->window ? a->window : a->ctx;

    pool_run(x.c->pool, attn_part, &x, (int64_t) a->map.n_tok * a->kv.n_kv,
             grain(2 * ctx * (a->n_head / a->kv.n_kv) * a->kv.head_dim));
}

static void cpu_attn_layer(struct backend *be, const struct attn_layer *a)
{
    cpu_norm_rope(be, &a->rope);
    if (a->store.k != NULL)
        cpu_kv_store(be, &a->store);
    cpu_attn(be, &a->attn);
}

#define MOE_PART(name)                                                                      \
    static void name##_part(void *arg, int64_t lo, int64_t hi, int thread)                  \
    {                                                                                       \
        (void) thread;                                                                      \
        name##_ref(arg, lo, hi);                                                            \
    }

MOE_PART(moe_up)
MOE_PART(moe_act)
MOE_PART(moe_down)
MOE_PART(moe_sum)

static void moe_route_part(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void) thread;
    moe_route_ref(arg, lo, hi);
}

static void cpu_moe_route(struct backend *be, const struct moe *a)
{
    struct moe_route route = moe_route_of(a);

    pool_run(((struct cpu *) be)->pool, moe_route_part, &route, a->n_tok,
             grain((int64_t) a->n_expert * a->top_k));
}

static void cpu_moe(struct backend *be, const struct moe *a)
{
    struct cpu *c = (struct cpu *) be;
    int64_t pairs, share;

    for (int32_t t = 0; t < a->n_tok; t += MOE_TOK_MAX) {
        int32_t n = a->n_tok - t < MOE_TOK_MAX ? a->n_tok - t : MOE_TOK_MAX;
        struct moe m = moe_slice(a, t, n, sizeof(float));

        moe_scratch_set(&m, c->moe);
        pairs = (int64_t) m.n_tok * m.top_k;
        share = pairs / m.n_expert + 1;                /* pairs of a row of weights, on average */
        moe_group_ref(&m);
        pool_run(c->pool, moe_up_part, &m, (int64_t) m.n_expert * 2 * m.ffn,
                 grain(share * m.hidden) + 3);
        pool_run(c->pool, moe_act_part, &m, pairs, grain(8 * m.ffn));
        pool_run(c->pool, moe_down_part, &m, (int64_t) m.n_expert * m.hidden,
                 grain(share * m.ffn) + 3);
        pool_run(c->pool, moe_sum_part, &m, m.n_tok, grain((int64_t) m.top_k * m.hidden));
    }
}

struct sample_arg { const struct sample_row *rows; struct cpu *c; };

static void sample_part(void *arg, int64_t lo, int64_t hi, int thread)
{
    struct sample_arg *x = arg;
    int32_t *scratch = x->c->sample
                       + (size_t) thread * SAMPLE_SCRATCH * (size_t) x->c->lim.vocab;

    for (int64_t r = lo; r < hi; r++)
        if (sample_ref(&x->rows[r], scratch) != NULL)
            *x->rows[r].tok = SAMPLE_NONE;
}

static void cpu_sample(struct backend *be, const struct sample_row *rows, int32_t n_row)
{
    struct sample_arg x = { rows, (struct cpu *) be };

    assert(n_row <= SAMPLE_ROW_MAX && x.c->n_last + n_row <= x.c->lim.step_tok_max);
    pool_run(x.c->pool, sample_part, &x, n_row, 1);
    for (int32_t r = 0; r < n_row; r++)
        x.c->last[x.c->n_last++] = *rows[r].tok != SAMPLE_NONE ? *rows[r].tok : 0;
}

static const struct backend_ops cpu_ops = {
    .alloc = cpu_alloc,           .close = cpu_close,         .weight = cpu_weight,
    .loading = cpu_loading,       .memory = cpu_memory,
    .put = cpu_put,               .get = cpu_put,             .input = cpu_input,
    .step_begin = cpu_step_begin, .step_end = cpu_step_end,   .step_wait = cpu_step_wait,
    .next_ids = cpu_next_ids,
    .embed = cpu_embed,           .norm = cpu_norm,           .gather = cpu_gather,
    .join = cpu_join,             .to_act = cpu_to_act,       .linear = cpu_linear,
    .geglu = cpu_geglu,           .rope_table = cpu_rope_table, .kv_copy = cpu_kv_copy,
    .attn_layer = cpu_attn_layer, .moe_route = cpu_moe_route, .moe = cpu_moe,
    .fill = cpu_fill,             .sample = cpu_sample,
};

int be_open_cpu(struct backend **out, const struct backend_limits *lim, struct err *e)
{
    struct cpu *c = calloc(1, sizeof(*c));
    int rc;

    if (c == NULL)
        return err_set(e, E_IO, "out of memory");
    c->be.ops = &cpu_ops;
    c->be.due = NO_SHAPE;
    c->lim = *lim;

    rc = pool_open(&c->pool, lim->n_thread, e);
    if (rc == 0) {
        struct sizes s = sizes_of(lim);

        c->attn = cpu_alloc(&c->be, s.attn);
        c->sample = cpu_alloc(&c->be, s.sample);
        c->moe = cpu_alloc(&c->be, s.moe);
        c->last = cpu_alloc(&c->be, s.last);
        if (c->attn == NULL || c->sample == NULL || c->moe == NULL || c->last == NULL)
            rc = err_set(e, E_IO, "out of memory for the scratch of %d threads", lim->n_thread);
    }
    if (rc < 0) {
        cpu_close(&c->be);
        return rc;
    }

    *out = &c->be;
    return 0;
}
