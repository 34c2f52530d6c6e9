/* gpu.c - every op of the GPU against its twin: fresh random inputs, outputs poisoned with NaN
 * before, shapes on both sides of every edge. Tolerances are relative to the largest number of the
 * reference and follow from what is rounded to bf16 where. Without a GPU there is nothing to
 * do, one that cannot be used is a failure.
 *
 * usage: t/gpu [quick] [K/N] [SEED]
 * quick: what a sanitizer has the time for, which looks at each access to shared memory. Every
 * kernel of ours runs with each set of its template's arguments and with the edges of its shapes;
 * what is left out are large shapes and more of the same: of contexts of one token alone three in
 * four, of numbers of columns two in five, contexts around 1,024 where that is no window's edge.
 * K/N: part K, 1 .. N, of the tests, which N processes share. */
#include "tap.h"
#include "backend_cuda.h"
#include "cuda.h"

#include <math.h>
#include <stdlib.h>
#include <sys/random.h>

enum { TOK = 2048, SEQ = 300, PAGE_TOK = 16, PAGES = 1024, VOCAB = 262144, QUICK_VOCAB = 20000 };
enum { QUICK_WEIGHTS = 2300000 };          /* that one product reads, at most */

static struct backend *be[2];              /* the twins, the GPU */
static struct hopper   hopper;
static uint64_t rng;
static bool    quick;
static int32_t part = 1, parts = 1, n_test;

/* This process has the next test. */
static bool mine(bool large)
{
    return !(quick && large) && n_test++ % parts == part - 1;
}

static uint64_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static int32_t below(int32_t n)
{
    return (int32_t) (next() % (uint64_t) n);
}

static float uniform(void)                 /* -1 .. 1 */
{
    return (float) (next() >> 40) * 0x1p-23f - 1;
}

static float to_bf16(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&f, &u, sizeof(f));
    return f;
}

/* n floats on both sides. */
struct two { float *p[2]; size_t n; };

static void check_memory(const void *a, const void *b, size_t n)
{
    if (a != NULL && b != NULL)
        return;
    ok(0, "memory for %zu numbers", n);
    exit(done_testing());
}

static struct two two_new(size_t n)
{
    struct two t = { { be_alloc(be[0], n * 4), be_alloc(be[1], n * 4) }, n };

    check_memory(t.p[0], t.p[1], n);
    return t;
}

static void two_set(const struct two *t, const float *v)
{
    for (int i = 0; i < 2; i++)
        be[i]->ops->put(be[i], t->p[i], v, t->n * 4);
}

static void two_poison(const struct two *t)
{
    float *v = malloc(t->n * 4);

    memset(v, 0xff, t->n * 4);
    two_set(t, v);
    free(v);
}

/* scale: of the numbers. round: to what bf16 can hold. */
static struct two two_random(size_t n, float scale, int round)
{
    struct two t = two_new(n);
    float *v = malloc(n * 4);

    for (size_t i = 0; i < n; i++) {
        v[i] = scale * uniform();
        v[i] = round ? to_bf16(v[i]) : v[i];
    }
    two_set(&t, v);
    free(v);
    return t;
}

static double error_of(const float *got, const float *ref, size_t n)
{
    double d = 0, max = 0;

    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i]) || !isfinite(ref[i]))
            return INFINITY;
        d = fmax(d, fabs((double) got[i] - (double) ref[i]));
        max = fmax(max, fabs((double) ref[i]));
    }
    return max > 0 ? d / max : INFINITY;
}

static void done(void)
{
    struct err e;

    for (int i = 0; i < 2; i++)
        if (be_sync(be[i], &e) < 0)
            ok(0, "%s", e.msg);
}

/* What lies on the GPU as bf16. */
static void get_bf16(float *to, const void *p, size_t n)
{
    uint16_t *h = malloc(n * 2);

    be[1]->ops->get(be[1], h, p, n * 2);
    for (size_t i = 0; i < n; i++)
        to[i] = ((union { uint32_t u; float f; }) { (uint32_t) h[i] << 16 }).f;
    free(h);
}

/* n acts: fp32 there, bf16 here, the same numbers. */
static struct two act_random(size_t n, float scale)
{
    struct two t = two_new(n);
    float *v = malloc(n * 4);
    uint16_t *h = malloc(n * 2);

    for (size_t i = 0; i < n; i++) {
        v[i] = to_bf16(scale * uniform());
        h[i] = (uint16_t) (((union { float f; uint32_t u; }) { v[i] }).u >> 16);
    }
    be[0]->ops->put(be[0], t.p[0], v, n * 4);
    be[1]->ops->put(be[1], t.p[1], h, n * 2);
    free(v);
    free(h);
    return t;
}

/* The output of an op that ran on both. */
static void compare_as(bool act, const struct two *t, size_t n, double limit, const char *what)
{
    float *got = malloc(n * 4);
    double d;

    done();
    if (act)
        get_bf16(got, t->p[1], n);
    else
        be[1]->ops->get(be[1], got, t->p[1], n * 4);
    d = error_of(got, t->p[0], n);
    ok(d <= limit, "%s: deviation %.2g, allowed %.2g", what, d, limit);
    free(got);
}

static void compare(const struct two *t, size_t n, double limit, const char *what)
{
    compare_as(false, t, n, limit, what);
}

static void compare_act(const struct two *t, size_t n, double limit, const char *what)
{
    compare_as(true, t, n, limit, what);
}

static struct mat mat_random(int i, int64_t rows, int32_t cols, uint64_t seed)
{
    struct mat m = { be_alloc(be[i], (size_t) rows * (size_t) cols * 2), MAT_BF16, rows, cols };

    op_fill(be[i], &(struct fill) { (void *) (uintptr_t) m.p, rows * cols, seed });
    return m;
}

static char *say(const char *fmt, ...)
{
    static char s[200];
    __builtin_va_list ap;

    __builtin_va_start(ap, fmt);
    vsnprintf(s, sizeof(s), fmt, ap);
    __builtin_va_end(ap);
    return s;
}

static void test_embed(void)
{
    if (!mine(false))
        return;

    int32_t id[65];
    struct two y = two_new(65 * 2816);

    for (int i = 0; i < 65; i++)
        id[i] = below(1000);
    two_poison(&y);
    for (int i = 0; i < 2; i++)
        op_embed(be[i], &(struct embed) { y.p[i], be_input(be[i], id, 65),
                                          mat_random(i, 1000, 2816, 7), 53, 65 });
    compare(&y, y.n, 0, "embed, and the random weights");
}

static void test_norm(int32_t n_row, int32_t dim)
{
    if (!mine(false))
        return;

    struct two x = two_random((size_t) (n_row * dim), 3, 0), w = two_random((size_t) dim, 1, 0);
    struct two add = two_random(x.n, 1, 0), y = two_new(x.n);

    two_poison(&y);
    for (int i = 0; i < 2; i++)
        op_norm(be[i], &(struct norm) { .y = y.p[i], .x = x.p[i], .w = w.p[i], .add = add.p[i],
                                        .eps = 1e-6f, .scale = 0.7f, .in_scale = 0.02f,
                                        .n_row = n_row, .dim = dim });
    compare(&y, y.n, 1e-5, say("norm %d x %d", n_row, dim));
    for (int i = 0; i < 2; i++)
        op_norm(be[i], &(struct norm) { .y = add.p[i], .x = x.p[i], .add = add.p[i], .scale = 1,
                                        .eps = 1e-6f, .in_scale = 1, .n_row = n_row, .dim = dim });
    compare(&add, add.n, 1e-5, say("norm %d x %d, into add, without weights", n_row, dim));
}

static void test_small(int32_t n, int32_t dim)
{
    if (!mine(false))
        return;

    size_t all = (size_t) (n * dim);
    struct two x = two_random(all, 4, 0), up = two_random(3 * all, 1, 0), y = two_new(all);
    int32_t idx[65];

    for (int32_t i = 0; i < n; i++)
        idx[i] = below(n);
    two_poison(&y);
    for (int i = 0; i < 2; i++)
        op_gather(be[i], &(struct gather) { y.p[i], x.p[i], be_input(be[i], idx, n), n, dim });
    compare(&y, all, 0, say("gather %d x %d", n, dim));
    two_poison(&y);
    for (int i = 0; i < 2; i++)
        op_geglu(be[i], &(struct geglu) { y.p[i], x.p[i], up.p[i] + dim, n, dim, 3 * dim - dim });
    compare_act(&y, all, 4e-3, say("geglu %d x %d", n, dim));
    two_poison(&y);
    for (int i = 0; i < 2; i++)
        op_to_act(be[i], &(struct to_act) { y.p[i], up.p[i] + 4, (int64_t) all - 1 });
    compare_act(&y, all - 1, 4e-3, say("to_act %d", n * dim - 1));
}

/* No branch, one, two; the stream in place, and into another. */
static void test_join(int32_t n, int32_t dim)
{
    if (!mine(false))
        return;

    size_t all = (size_t) (n * dim);

    for (int k = 0; k < 3; k++) {
        struct two x = two_random(all, 3, 0), y = k == 1 ? two_new(all) : x;
        struct two t0 = two_random(all, 20, 0), t1 = two_random(all, 0.1f, 0), out[3], w[6];

        for (int i = 0; i < 6; i++)
            w[i] = two_random((size_t) dim, 1, 0);
        for (int i = 0; i < 3; i++)
            out[i] = two_new(all), two_poison(&out[i]);
        if (k == 1)
            two_poison(&y);
        for (int i = 0; i < 2; i++)
            op_join(be[i], &(struct join) {
                .y = y.p[i], .x = x.p[i],
                .t = { k > 0 ? t0.p[i] : NULL, k > 1 ? t1.p[i] : NULL },
                .tw = { w[0].p[i], w[1].p[i] }, .w = w[2].p[i], .scale = 0.7f, .eps = 1e-6f,
                .out = { { out[0].p[i], w[3].p[i], 1 }, { out[1].p[i], w[4].p[i], 0.02f },
                         { k < 2 ? out[2].p[i] : NULL, w[5].p[i], 1 } },
                .n_row = n, .dim = dim });
        compare(&y, all, 1e-5, say("join %d x %d of %d branches: the stream", n, dim, k));
        for (int i = 0; i < (k < 2 ? 3 : 2); i++)
            compare_act(&out[i], all, 4e-3, say("join %d x %d of %d: output %d", n, dim, k, i));
    }
}

static void test_rope(int32_t n_tok, int32_t dim, int32_t n_rot)
{
    if (!mine(false))
        return;

    struct two freq = two_new((size_t) n_rot), cs = two_new((size_t) (n_tok * 2 * n_rot));
    int32_t pos[65];
    float f[256];

    for (int32_t i = 0; i < n_rot; i++)
        f[i] = powf(10000, -2.0f * (float) i / (float) dim);
    for (int32_t i = 0; i < n_tok; i++)
        pos[i] = below(262144);
    two_set(&freq, f);
    two_poison(&cs);
    for (int i = 0; i < 2; i++)
        op_rope_table(be[i], &(struct rope_table) { cs.p[i], be_input(be[i], pos, n_tok),
                                                    freq.p[i], n_tok, n_rot });
    compare(&cs, cs.n, 1e-6, say("rope_table %d x %d", n_tok, n_rot));
}

/* l, the GPU's, makes of the same inputs the bytes that it has made of them. */
static void again(const struct two *y, const struct linear *l, const char *what)
{
    float *first = malloc(y->n * 4), *second = malloc(y->n * 4);

    be[1]->ops->get(be[1], first, y->p[1], y->n * 4);
    two_poison(y);
    op_linear(be[1], l);
    done();
    be[1]->ops->get(be[1], second, y->p[1], y->n * 4);
    ok(memcmp(first, second, y->n * 4) == 0, "%s", what);
    free(first);
    free(second);
}

static void test_linear(int32_t n_row, int64_t rows, int32_t cols)
{
    if (!mine(n_row > 200 || rows * cols > QUICK_WEIGHTS))
        return;

    struct two x = act_random((size_t) n_row * (size_t) cols, 1);
    struct two y = two_new((size_t) n_row * (size_t) rows);
    struct linear l = { .n = 1 };

    two_poison(&y);
    for (int i = 0; i < 2; i++) {
        l.g[0] = (struct gemm) { y.p[i], x.p[i], mat_random(i, rows, cols, 3), n_row };
        op_linear(be[i], &l);
    }
    compare(&y, y.n, 1e-4, say("linear %d x %d -> %d", n_row, cols, (int) rows));
    again(&y, &l, say("linear %d x %d -> %d: the same bytes again", n_row, cols, (int) rows));
}

/* Three or two matrices of different heights in one op, without and with the activation of two. */
static void test_linears(int32_t n_row, int32_t cols)
{
    if (!mine(false))
        return;

    static const int64_t rows[2][3] = { { 100, 33, 8 }, { 52, 52, 19 } };
    struct two x = act_random((size_t) n_row * (size_t) cols, 1);
    struct two z = act_random((size_t) n_row * (size_t) cols, 1);

    for (int k = 0; k < 4; k++) {
        int with_act = k % 2, n = 3 - k / 2;
        struct two y[3], act = two_new((size_t) n_row * 52);

        two_poison(&act);
        for (int j = 0; j < n; j++)
            y[j] = two_new((size_t) n_row * (size_t) rows[with_act][j]), two_poison(&y[j]);
        for (int i = 0; i < 2; i++) {
            struct linear l = { .n = n, .act = with_act ? act.p[i] : NULL };

            for (int j = 0; j < n; j++)
                l.g[j] = (struct gemm) { y[j].p[i], j == 2 ? z.p[i] : x.p[i],
                                         mat_random(i, rows[with_act][j], cols, 3 + (uint64_t) j),
                                         n_row };
            op_linear(be[i], &l);
        }
        for (int j = with_act ? 2 : 0; j < n; j++)
            compare(&y[j], y[j].n, 1e-4, say("linears %d x %d: %d of %d", n_row, cols, j, n));
        if (with_act)
            compare_act(&act, act.n, 5e-3, say("linears %d x %d: act", n_row, cols));
    }
}

/* 9 to 128 rows: an output does not depend on the run, nor, in our own kernel of a Hopper, on how
 * many other rows there are. */
static void test_same(int32_t n_row, int32_t fewer, int64_t rows, int32_t cols)
{
    if (!mine(rows * cols > QUICK_WEIGHTS))
        return;

    struct two x = act_random((size_t) n_row * (size_t) cols, 1);
    struct mat w = mat_random(1, rows, cols, 3);
    size_t n = (size_t) n_row * (size_t) rows;
    float *got[2] = { malloc(n * 4), malloc(n * 4) };

    for (int32_t k = 0; k < (hopper.n_sm > 0 ? 3 : 2); k++) {
        struct two y = two_new(n);
        int32_t some = k < 2 ? n_row : fewer;

        two_poison(&y);
        op_linear(be[1], &(struct linear) { .g = { { y.p[1], x.p[1], w, some } }, .n = 1 });
        done();
        be[1]->ops->get(be[1], got[k > 0], y.p[1], n * 4);
        if (k > 0)
            ok(error_of(got[1], got[0], (size_t) some * (size_t) rows) == 0,
               "linear %d x %d -> %d: %d rows again", n_row, cols, (int) rows, some);
    }
    free(got[0]);
    free(got[1]);
}

struct experts {
    struct two x, z, scale, w, id, y;
    int32_t    n_tok, n_expert, top_k, hidden, ffn;
    struct mat gate_up[2], down[2];
};

static struct moe moe_of(const struct experts *m, int i)
{
    return (struct moe) {
        .y = m->y.p[i], .x = m->x.p[i], .z = m->z.p[i], .scale = m->scale.p[i],
        .idx = (int32_t *) m->id.p[i], .w = m->w.p[i],
        .n_tok = m->n_tok, .gate_up = m->gate_up[i], .down = m->down[i], .n_expert = m->n_expert,
        .top_k = m->top_k, .hidden = m->hidden, .ffn = m->ffn };
}

static void moe_compare(struct experts *m, const char *name)
{
    two_poison(&m->y);
    for (int i = 0; i < 2; i++) {
        struct moe a;

        m->gate_up[i] = mat_random(i, (int64_t) m->n_expert * 2 * m->ffn, m->hidden, 5);
        m->down[i] = mat_random(i, (int64_t) m->n_expert * m->hidden, m->ffn, 6);
        a = moe_of(m, i);
        op_moe_route(be[i], &a);
        op_moe(be[i], &a);
    }
    compare(&m->y, m->y.n, 1e-2, say("moe: %s", name));
}

static void test_moe(int32_t n_tok, int32_t n_expert, int32_t top_k, int32_t hidden, int32_t ffn)
{
    int64_t used = n_tok * top_k < n_expert ? n_tok * top_k : n_expert;

    if (!mine(n_tok > 1000 || used * hidden * ffn > QUICK_WEIGHTS))
        return;

    struct two z = two_random((size_t) (n_tok * n_expert), 4, 0);
    struct two scale = two_random((size_t) n_expert, 1, 0);
    size_t pairs = (size_t) (n_tok * top_k);
    struct experts moe = { act_random((size_t) (n_tok * hidden), 1), z, scale, two_new(pairs),
                           two_new(pairs), two_new((size_t) (n_tok * hidden)),
                           n_tok, n_expert, top_k, hidden, ffn, { { 0 } }, { { 0 } } };
    int32_t *got = malloc(pairs * 4);
    char name[100];

    snprintf(name, sizeof(name), "%d tokens, %d of %d experts %d x %d", n_tok, top_k, n_expert,
             hidden, ffn);
    two_poison(&moe.w);
    moe_compare(&moe, name);
    compare(&moe.w, pairs, 1e-5, say("moe: %s: how much of each", name));
    be[1]->ops->get(be[1], got, moe.id.p[1], pairs * 4);
    ok(memcmp(got, moe.id.p[0], pairs * 4) == 0, "moe: %s: the same experts", name);
    free(got);
}

/* count[e] tokens go to expert e, in any order; top_k is 1. Whatever is beside a token must not
 * change a bit of its result: not the order of those of its expert, which is left to chance, and
 * not their number. */
static void test_moe_counts(const int32_t *count, int32_t n_expert, int32_t hidden, int32_t ffn)
{
    if (!mine((int64_t) n_expert * hidden * ffn > QUICK_WEIGHTS))
        return;

    struct experts moe = { .n_expert = n_expert, .top_k = 1, .hidden = hidden, .ffn = ffn };
    int32_t id[TOK];
    float *once, *again, *z;
    struct moe part;
    char name[100];
    size_t n;

    for (int32_t e = 0; e < n_expert; e++)
        for (int32_t i = 0; i < count[e]; i++)
            id[moe.n_tok++] = e;
    for (int32_t i = moe.n_tok - 1; i > 0; i--) {
        int32_t k = below(i + 1), e = id[i];

        id[i] = id[k];
        id[k] = e;
    }
    snprintf(name, sizeof(name), "%d tokens, %d experts of chosen load, %d x %d", moe.n_tok,
             n_expert, hidden, ffn);
    moe.x = act_random((size_t) (moe.n_tok * hidden), 1);
    moe.z = two_new((size_t) (moe.n_tok * n_expert));
    moe.scale = two_random((size_t) n_expert, 1, 0);
    moe.w = two_new((size_t) moe.n_tok);
    moe.id = two_new((size_t) moe.n_tok);
    moe.y = two_new(moe.x.n);
    z = calloc(moe.z.n, 4);
    for (int32_t t = 0; t < moe.n_tok; t++)
        z[t * n_expert + id[t]] = 1;
    two_set(&moe.z, z);
    free(z);
    moe_compare(&moe, name);

    once = malloc(moe.y.n * 4);
    again = malloc(moe.y.n * 4);
    be[1]->ops->get(be[1], once, moe.y.p[1], moe.y.n * 4);
    two_poison(&moe.y);
    moe.n_tok -= moe.n_tok / 4;
    n = (size_t) moe.n_tok * (size_t) hidden * 4;
    part = moe_of(&moe, 1);
    op_moe_route(be[1], &part);
    op_moe(be[1], &part);
    done();
    be[1]->ops->get(be[1], again, moe.y.p[1], n);
    ok(memcmp(once, again, n) == 0, "moe: %s: the first %d alone, bit for bit", name, moe.n_tok);
    free(once);
    free(again);
}

static void test_moe_loads(void)
{
    static const int32_t edges[16] = { 0, 1, 31, 32, 33, 63, 64, 65, 95, 97, 128, 129, 159, 160,
                                       161, 321 };
    static const int32_t one[8] = { 0, 0, 0, 777 }, few[5] = { 2, 0, 60, 0, 3 };
    /* More than MOE_HOPPER_TOK on average: for pairs of blocks, of which one may get nothing. */
    static const int32_t many[12] = { 0, 1, 16, 33, 65, 127, 128, 129, 257, 319, 321, 642 };
    static const int32_t halves[5] = { 288, 0, 290, 161, 352 };

    test_moe_counts(edges, 16, 256, 704);
    test_moe_counts(edges, 16, 200, 136);          /* no multiples of a tile, */
    test_moe_counts(edges, 16, 264, 8);            /* less than one, */
    test_moe_counts(edges, 16, 8, 72);
    test_moe_counts(edges, 16, 36, 20);            /* rows that are not whole 16 bytes */
    test_moe_counts(one, 8, 256, 704);
    test_moe_counts(few, 5, 136, 200);
    test_moe_counts(many, 12, 256, 704);
    test_moe_counts(many, 12, 200, 136);
    test_moe_counts(many, 12, 8, 72);
    test_moe_counts(halves, 5, 264, 328);
}

/* The pages of one layer, of the same numbers on both sides: all of them fit bf16. */
static void kv_new(struct kv_layer kv[2], int32_t n_page, int32_t n_kv, int32_t dim, int32_t k_dim)
{
    size_t most = (size_t) n_page * PAGE_TOK * (size_t) (n_kv * dim);
    float *v = malloc(most * 4);
    uint16_t *h = malloc(most * 2);

    for (int side = 0; side < 2; side++) {
        void **p[2] = { side == 0 ? &kv[0].k : &kv[0].v, side == 0 ? &kv[1].k : &kv[1].v };
        size_t n = most / (size_t) dim * (size_t) (side == 0 ? k_dim : dim);

        for (size_t i = 0; i < n; i++) {
            v[i] = to_bf16(uniform());
            h[i] = (uint16_t) (((union { float f; uint32_t u; }) { v[i] }).u >> 16);
        }
        *p[0] = be_alloc(be[0], n * 4);
        *p[1] = be_alloc(be[1], n * 2);
        check_memory(*p[0], *p[1], n);
        be[0]->ops->put(be[0], *p[0], v, n * 4);
        be[1]->ops->put(be[1], *p[1], h, n * 2);
    }
    for (int i = 0; i < 2; i++) {
        kv[i].page_tok = PAGE_TOK;
        kv[i].n_kv = n_kv;
        kv[i].head_dim = dim;
        kv[i].k_dim = k_dim;
    }
    free(v);
    free(h);
}

static void kv_compare(const struct kv_layer kv[2], int32_t n_page, const char *what)
{
    size_t heads = (size_t) n_page * PAGE_TOK * (size_t) kv[0].n_kv;
    float *v = malloc(heads * (size_t) kv[0].head_dim * 4);
    float *ref = malloc(heads * (size_t) kv[0].head_dim * 4);

    done();
    for (int side = 0; side < 2; side++) {
        size_t n = heads * (size_t) (side == 0 ? kv[0].k_dim : kv[0].head_dim);
        double d;

        get_bf16(v, side == 0 ? kv[1].k : kv[1].v, n);
        memcpy(ref, side == 0 ? kv[0].k : kv[0].v, n * 4);
        for (size_t i = 0; i < n; i++)
            if (isnan(ref[i]) && isnan(v[i]))                  /* poison, still there */
                ref[i] = v[i] = 0;
        d = error_of(v, ref, n);
        ok(d <= 4e-3, "%s: %s: deviation %.2g, allowed 4e-3", what, side == 0 ? "K" : "V", d);
    }
    free(v);
    free(ref);
}

/* Sequence s has n tokens up to position last; its pages are scattered. */
struct run { int32_t last, n; };
struct place { int32_t pos[TOK], seq[TOK], page[SEQ * PAGES], n_tok, n_seq, ctx, n_page; };

static void place_runs(struct place *p, const struct run *r, int32_t n_seq, int32_t window)
{
    p->n_tok = 0;
    p->n_seq = n_seq;
    p->ctx = 1;
    for (int32_t s = 0; s < n_seq; s++) {
        for (int32_t i = 0; i < r[s].n; i++) {
            p->pos[p->n_tok] = r[s].last - r[s].n + 1 + i;
            p->seq[p->n_tok++] = s;
        }
        p->ctx = r[s].last >= p->ctx ? r[s].last + 1 : p->ctx;
    }
    p->n_page = (p->ctx - 1) / PAGE_TOK + 1;
    for (int32_t s = 0; s < n_seq; s++) {
        int32_t first = r[s].last - r[s].n + 1 - window + 1;

        for (int32_t k = 0; k < p->n_page; k++) {
            p->page[s * p->n_page + k] = (p->n_page - 1 - k) * n_seq + s;
            if (window > 0 && (k + 1) * PAGE_TOK <= first)
                p->page[s * p->n_page + k] = -1;
        }
    }
}

/* What lies behind a sequence's last token in its page is no number. */
static void poison_tails(const struct kv_layer kv[2], const struct place *p, const struct run *r)
{
    size_t wide = (size_t) (kv->n_kv * kv->head_dim) * 4;
    size_t k_wide = (size_t) (kv->n_kv * kv->k_dim) * 4;
    char *nan = malloc(PAGE_TOK * wide);

    memset(nan, 0xff, PAGE_TOK * wide);
    for (int32_t s = 0; s < p->n_seq; s++) {
        int32_t page = p->page[s * p->n_page + r[s].last / PAGE_TOK], n = r[s].last % PAGE_TOK + 1;
        size_t at = (size_t) (page * PAGE_TOK + n), more = (size_t) (PAGE_TOK - n);

        for (int i = 0; i < 2; i++) {                          /* bf16 is half as wide */
            be[i]->ops->put(be[i], (char *) kv[i].k + (at * k_wide >> i), nan, more * k_wide >> i);
            be[i]->ops->put(be[i], (char *) kv[i].v + (at * wide >> i), nan, more * wide >> i);
        }
    }
    free(nan);
}

static struct kv_map map_of(int i, const struct place *p)
{
    return (struct kv_map) { be_input(be[i], p->pos, p->n_tok), be_input(be[i], p->seq, p->n_tok),
                             be_input(be[i], p->page, p->n_seq * p->n_page), p->n_page,
                             p->n_tok };
}

static void test_copy(int32_t n_kv, int32_t dim, int32_t k_dim)
{
    if (!mine(false))
        return;

    static const int32_t copy[8] = { 0, 3, 99, 99, 5, 1, 99, 99 };
    struct kv_layer kv[2];

    kv_new(kv, 8, n_kv, dim, k_dim);
    for (int i = 0; i < 2; i++)
        op_kv_copy(be[i], &(struct kv_copy) { kv[i], be_input(be[i], copy, 8), 2, 4 });
    kv_compare(kv, 8, say("kv_copy %d x %d, %d", n_kv, dim, k_dim));
}

struct heads { int32_t n_head, n_kv, dim, k_dim, window; };

static void test_attn(const struct heads *h, const struct run *r, int32_t n_seq)
{
    if (!mine(r->last > 3000 || n_seq > 64))
        return;

    static struct place p;
    struct kv_layer kv[2];
    struct two q, k, v, w, wq, cs, y;
    bool donor = n_seq == 2;               /* another layer has stored the keys */
    int32_t n_one = 0;
    char name[150];

    place_runs(&p, r, n_seq, h->window);
    while (n_one < n_seq && r[n_one].n == 1)
        n_one++;
    kv_new(kv, n_seq * p.n_page, h->n_kv, h->dim, h->k_dim);
    poison_tails(kv, &p, r);
    q = two_random((size_t) (p.n_tok * h->n_head * h->dim), 5, 0);
    k = two_random((size_t) (p.n_tok * h->n_kv * h->dim), 3, 0);
    v = h->window > 0 && h->k_dim == h->dim ? two_random(k.n, 3, 0) : k;
    w = two_random((size_t) h->dim, 0.5f, 0);
    wq = h->k_dim < h->dim ? two_random((size_t) h->dim, 0.15f, 0) : w;       /* K's is in it */
    cs = two_random((size_t) (p.n_tok * h->dim), 1, 0);
    y = two_new(q.n);
    two_poison(&y);
    for (int i = 0; i < 2; i++) {
        int32_t n_rot = h->k_dim < h->dim ? h->k_dim / 2 : h->dim == 512 ? 64 : h->dim / 2;
        struct kv_map map = map_of(i, &p);

        op_attn_layer(be[i], &(struct attn_layer) {
            .rope = { q.p[i], wq.p[i], cs.p[i], 1e-6f, p.n_tok, h->n_head, h->dim, n_rot },
            .store = { .kv = kv[i], .map = map, .k = donor ? NULL : k.p[i], .v = v.p[i],
                       .w = w.p[i], .cs = cs.p[i], .eps = 1e-6f, .n_rot = n_rot },
            .attn = { y.p[i], q.p[i], kv[i], map, h->n_head, h->window, n_seq, n_one, p.ctx,
                      NULL } });
    }
    snprintf(name, sizeof(name), "attn %d/%d x %d (%d), window %d: %d tokens of %d up to %d",
             h->n_head, h->n_kv, h->dim, h->k_dim, h->window, p.n_tok, n_seq, p.ctx - 1);
    compare_act(&y, y.n, 2e-2, name);      /* q, k and the softmax are rounded to bf16 */
    kv_compare(kv, n_seq * p.n_page, name);
}

/* Tokens behind n_own get the result of the last before, the others the same bits as without. */
static void test_attn_copies(const struct heads *h)
{
    if (!mine(false))
        return;

    enum { N = 5, OWN = 3 };
    static const struct run r[N] = { { 90, 1 }, { 1100, 1 }, { 1040, 1 }, { 7, 1 }, { 9, 1 } };
    static const int32_t own = OWN;
    static struct place p;
    size_t row = (size_t) (h->n_head * h->dim);
    struct kv_layer kv[2];
    struct two q, k, cs, y;
    float *got[2];
    int right;

    place_runs(&p, r, N, h->window);
    kv_new(kv, N * p.n_page, h->n_kv, h->dim, h->k_dim);
    poison_tails(kv, &p, r);
    q = two_random(N * row, 5, 0);
    k = two_random((size_t) (N * h->n_kv * h->dim), 3, 0);
    cs = two_random((size_t) (N * h->dim), 1, 0);
    y = two_new(q.n);
    for (int copies = 0; copies < 2; copies++) {
        struct kv_map map = map_of(1, &p);

        two_poison(&y);
        op_attn_layer(be[1], &(struct attn_layer) {
            .rope = { q.p[1], NULL, cs.p[1], 1e-6f, N, h->n_head, h->dim, h->k_dim / 2 },
            .store = { .kv = kv[1], .map = map, .k = k.p[1], .v = k.p[1], .cs = cs.p[1],
                       .eps = 1e-6f, .n_rot = h->k_dim / 2 },
            .attn = { y.p[1], q.p[1], kv[1], map, h->n_head, h->window, N, N, p.ctx,
                      copies ? be_input(be[1], &own, 1) : NULL } });
        done();
        got[copies] = malloc(N * row * sizeof(float));
        get_bf16(got[copies], y.p[1], N * row);
    }
    right = memcmp(got[0], got[1], OWN * row * sizeof(float)) == 0;
    for (int i = OWN; i < N; i++)
        right &= memcmp(got[1] + (OWN - 1) * row, got[1] + (size_t) i * row,
                        row * sizeof(float)) == 0;
    for (size_t i = 0; i < N * row; i++)
        right &= isfinite(got[1][i]);
    ok(right, "attn %d/%d x %d (%d), window %d: copies of a token", h->n_head, h->n_kv, h->dim,
       h->k_dim, h->window);
    free(got[0]);
    free(got[1]);
}

/* As many alone as there are in a launch, and more; at last a chunk beside them. */
static void test_crowd(const struct heads *h)
{
    struct run r[SEQ];

    for (int i = 0; i < SEQ; i++)
        r[i] = (struct run) { below(40), 1 };
    r[SEQ - 1] = (struct run) { 60, 20 };
    test_attn(h, r, ATTN_DECODE_TOK);
    test_attn(h, r, ATTN_DECODE_TOK + 1);
    test_attn(h, r, SEQ);
}

static void test_attns(void)
{
    static const struct heads heads[] = {
        { 16, 8, 256, 256, 1024 }, { 16, 2, 512, 512, 0 }, { 4, 2, 16, 16, 16 },
        { 4, 1, 32, 32, 0 }, { 4, 1, 64, 64, 0 }, { 6, 2, 128, 128, 40 }, { 16, 1, 256, 256, 512 },
        /* K without what V has */
        { 16, 2, 512, 128, 0 }, { 16, 1, 512, 128, 0 }, { 4, 1, 64, 16, 0 }, { 6, 2, 48, 32, 20 },
    };
    static const struct heads odd[] = { { 12, 4, 256, 256, 100 }, { 12, 2, 512, 512, 0 },
                                        { 12, 2, 512, 128, 0 }, { 5, 1, 272, 48, 0 },
                                        { 5, 1, 272, 272, 0 }, { 16, 1, 272, 272, 30 },
                                        { 16, 1, 64, 64, 0 }, { 16, 1, 512, 512, 0 } };
    static const int32_t last[] = { 0, 1, 14, 15, 16, 17, 31, 32, 127, 128, 511, 512, 1022, 1023,
                                    1024, 1025, 2100 };
    static const struct run decode[] = { { 0, 1 }, { 33, 1 }, { 1023, 1 }, { 1024, 1 }, { 9, 1 } };
    static const struct run chunk[] = { { 119, 20 } };
    static const struct run mixed[] = { { 90, 1 }, { 69, 70 }, { 5, 1 } };
    static const struct run two[] = { { 99, 100 }, { 1100, 77 } };
    const struct run prompt[] = { { quick ? 399 : 1299, 200 } };
    static const struct run beside[] = { { 1023, 1 }, { 1024, 1 }, { 1102, 99 }, { 31, 1 },
                                         { 1025, 1 }, { 64, 65 } };
    static const struct run pair[] = { { 40, 1 }, { 1100, 1 } };
    static const int32_t behind[] = { 0, 1, 7, 8, 63, 64, 65, 120, 127, 4096 };
    static struct run ends[16], many[64], few[20];

    for (int i = 0; i < 16; i++)
        ends[i] = (struct run) { last[i], 1 };
    for (int i = 0; i < 20; i++)
        few[i] = (struct run) { 3 + 41 * i, 4 - i % 3 };
    for (int i = 0; i < 64; i++)
        many[i] = (struct run) { below(300), 1 };
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        for (size_t k = 0; k < sizeof(last) / sizeof(last[0]); k += quick ? 4 : 1)
            test_attn(&heads[i], &(struct run) { last[k], 1 }, 1);
        test_attn(&heads[i], ends, 16);
        test_attn(&heads[i], decode, 5);
        test_attn(&heads[i], chunk, 1);
        test_attn(&heads[i], mixed, 3);
        test_attn(&heads[i], prompt, 1);
        test_attn(&heads[i], two, 2);
        test_attn(&heads[i], beside, 6);
        /* the first row's, the last row's */
        for (int32_t edge = 1022; edge < 1026 && (!quick || heads[i].window == 1024); edge++) {
            test_attn(&heads[i], &(struct run) { edge + 64, 65 }, 1);
            test_attn(&heads[i], &(struct run) { edge, 129 }, 1);
        }
        test_attn(&heads[i], pair, 2);
        if (heads[i].k_dim == heads[i].dim || heads[i].dim == 512)
            test_attn_copies(&heads[i]);
        test_attn(&heads[i], many, 64);
        test_crowd(&heads[i]);
    }
    /* tiles of tokens and of keys that begin and end anywhere */
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        for (size_t k = 0; heads[i].dim == 512 && k < sizeof(behind) / sizeof(behind[0]); k++)
            test_attn(&heads[i], &(struct run) { behind[k] + 69, 70 }, 1);
        if (heads[i].dim == 512)
            test_attn(&heads[i], few, 20);
    }
    /* groups that do not fill a tile's rows, and those of 16 of each width */
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        test_attn(&odd[i], decode, 5);
        test_attn(&odd[i], prompt, 1);
        test_attn(&odd[i], beside, 6);
    }
    /* contexts whose parts are longer, beside one whose are not */
    test_attn(&heads[3], (struct run[]) { { 9000, 1 }, { 8190, 1 }, { 8330, 1 } }, 3);
    test_attn(&heads[3], (struct run[]) { { 9000, 66 } }, 1);
    test_attn(&heads[7], (struct run[]) { { 9000, 1 }, { 8190, 1 }, { 8330, 1 } }, 3);
}

static struct sample_row sample_case(int k, int32_t vocab)
{
    static const float temperature[] = { 0, 1, 0.7f, 1.5f };
    static const float top_p[] = { 1, 0.95f, 0.3f }, min_p[] = { 0, 0.05f };
    static const int32_t top_k[] = { 0, 64, 1, 5000 };

    return (struct sample_row) {
        .vocab = vocab, .target = k % 3 ? below(vocab) : -1, .pos = below(1000),
        .softcap = k % 2 ? 30 : 0, .n_top = k % 4 ? k % 4 * 5 : SAMPLE_TOP_MAX, .none = 1,
        .temperature = temperature[k % 4], .top_p = top_p[k / 4 % 3], .top_k = top_k[k / 12 % 4],
        .min_p = min_p[k / 48 % 2], .seed = next() };
}

/* The words of case k: each part of it in some, alone and together. Returns how many. */
static int32_t steer_case(int32_t *w, int k, int32_t vocab)
{
    struct steer_head h = { .repetition = 1, .force = -1 };
    int32_t n = sizeof(h) / sizeof(int32_t), mask = sample_mask_words(vocab), from = below(vocab);

    h.n_pend = k & 1;
    h.presence = k & 2 ? 1.5f : 0;
    h.frequency = k & 2 ? 0.25f : 0;
    h.repetition = k & 4 ? 1.3f : 1;
    for (int i = 0; (k & 8) && i < 50; i++, h.n_bias++)
        w[n++] = (from + 7 * i) % vocab;
    for (int i = 0; i < h.n_bias; i++, n++)
        memcpy(&w[n], &(float) { (float) (i % 9) - 4 }, sizeof(float));
    for (int i = 0; (k & 16) && i < 5; i++, h.n_stop++)
        w[n++] = below(vocab);
    for (int i = 0; (k & 16) && i < 40; i++, h.n_word += 2 + i % 2) {
        w[n++] = 1 + i % 2;                /* every id but a few may follow 11: so cases differ */
        if (i % 2)
            w[n++] = 11;
        w[n++] = below(vocab);
    }
    h.has_allow = (k & 32) != 0;
    for (int i = 0; h.has_allow && i < mask; i++)
        w[n++] = (int32_t) next();
    h.has_seen = (k & 4) != 0;
    for (int i = 0; h.has_seen && i < mask; i++)
        w[n++] = (int32_t) (next() & next());
    h.n_gen = k % 7 ? below(400) : 0;
    for (int i = 0; i < h.n_gen; i++)
        w[n++] = i == h.n_gen - 1 ? 11 : below(k % 2 ? 30 : vocab);
    if (k % 16 == 5)
        h.force = below(vocab);
    memcpy(w, &h, sizeof(h));
    return n;
}

static void test_sample(int32_t vocab, float spread, bool steered)
{
    if (!mine(vocab > QUICK_VOCAB))
        return;

    enum { ROWS = 96, TOP = 1 + SAMPLE_TOP_MAX };
    static int32_t tok[2][ROWS], lp_id[2][ROWS * TOP];
    static float lp[2][ROWS * TOP];
    int32_t ban[3] = { 5, 17, vocab - 1 }, tail = 11, same = 0, ranks = 0;
    int32_t *words = malloc(((size_t) vocab / 16 + 1024) * sizeof(int32_t)), n_word;
    float *out[2] = { malloc((size_t) vocab * 4), malloc((size_t) vocab * 4) };
    struct sample_row row[2][32];

    memset(lp, 0, sizeof(lp));
    memset(lp_id, 0, sizeof(lp_id));
    for (int first = 0; first < ROWS; first += 32) {
        struct two x = two_random((size_t) vocab * 32, spread, spread < 2);

        for (int r = 0; r < 32; r++) {
            struct sample_row s = sample_case(first + r, vocab);

            n_word = steered ? steer_case(words, first + r, vocab) : 0;
            for (int i = 0; i < 2; i++) {
                row[i][r] = s;
                row[i][r].logits = x.p[i] + (size_t) r * (size_t) vocab;
                row[i][r].tok = &tok[i][first + r];
                row[i][r].lp_id = &lp_id[i][(first + r) * TOP];
                row[i][r].lp = &lp[i][(first + r) * TOP];
                row[i][r].logits_out = r == 7 ? out[i] : NULL;
                row[i][r].ban[0] = be_input(be[i], ban, 3);
                row[i][r].n_ban[0] = 3;
                row[i][r].tail = be_input(be[i], &tail, 1);
                if (steered) {
                    const int32_t *at = be_input(be[i], words, n_word);

                    if (i == 0)            /* the twin reads the caller's memory */
                        at = memcpy(malloc((size_t) n_word * 4), words, (size_t) n_word * 4);
                    row[i][r].steer = at;
                }
                tok[i][first + r] = -1;
            }
        }
        for (int i = 0; i < 2; i++)
            op_sample(be[i], row[i], 32);
        done();
        for (int r = 0; r < 32; r++)
            free((void *) row[0][r].steer);
        ok(error_of(out[1], out[0], (size_t) vocab) < 1e-5, "sample: logits out");
    }
    for (int r = 0; r < ROWS; r++) {
        same += tok[0][r] == tok[1][r];
        ranks += tok[0][r] != tok[1][r]
                 || memcmp(&lp_id[0][r * TOP], &lp_id[1][r * TOP], TOP * sizeof(int32_t)) == 0;
        if (tok[0][r] != tok[1][r]) {
            printf("# row %d: %d, not %d\n", r, tok[1][r], tok[0][r]);
            lp[1][r * TOP] = lp[0][r * TOP];
        }
    }
    /* Among so many ids a draw may lie between the two roundings of a sum: seen in 1 of 600. */
    ok(same >= ROWS - 2, "sample: %d ids: %d of %d draws are the twin's", vocab, same, ROWS);
    ok(error_of(lp[1], lp[0], ROWS * TOP) < 1e-5, "sample: %d ids: logprobs", vocab);
    /* two logits may change places when tanh rounds otherwise */
    ok(ranks >= ROWS - 8, "sample: %d ids: the best ids of %d of %d rows", vocab, ranks, ROWS);
    free(out[0]);
    free(out[1]);
    free(words);
}

/* Rows whose cuts lie on both sides of what the kernels sort, among logits that are far apart (0),
 * of few values (1), all equal (2) or next to each other (3); every second row without its best. */
static void test_cuts(int32_t vocab, int kind)
{
    if (!mine(vocab > QUICK_VOCAB))
        return;

    enum { CUTS = 16, ROWS = 2 * CUTS };
    const struct { int32_t top_k; float top_p, min_p; } cut[CUTS] = {
        { 1, 1, 0 }, { 63, 1, 0 }, { 64, 0.95f, 0 }, { 65, 1, 0 }, { 64, 1e-9f, 0 },
        { 64, 0.5f, 0.05f }, { 2047, 1, 0 }, { 2048, 0.9f, 0.01f }, { 2049, 1, 0 },
        { vocab - 1, 0.9f, 0 }, { vocab, 1, 0 }, { INT32_MAX, 0.95f, 0 }, { 0, 1e-9f, 0 },
        { 0, 0.9f, 0.02f }, { 0, 1, 0.02f }, { 0, 1, 0 } };
    size_t n = (size_t) vocab * ROWS;
    struct two x = two_new(n);
    float *v = malloc(n * sizeof(float));
    struct sample_row row[2][ROWS];
    int32_t tok[2][ROWS], best, same = 0;

    for (size_t i = 0; i < n; i++)
        v[i] = kind == 0 ? 12 * uniform() : kind == 1 ? (float) below(2000) / 64 - 9
               : kind == 2 ? -3 : 5 + (float) below(4096) * 0x1p-20f;
    two_set(&x, v);
    for (int r = 0; r < ROWS; r++) {
        size_t at = (size_t) r * (size_t) vocab;
        uint64_t seed = next();

        best = 0;
        for (int32_t i = 1; i < vocab; i++)
            best = v[at + (size_t) i] > v[at + (size_t) best] ? i : best;
        for (int i = 0; i < 2; i++) {
            row[i][r] = (struct sample_row) {
                .logits = x.p[i] + at, .tok = &tok[i][r], .ban = { be_input(be[i], &best, 1) },
                .n_ban = { r % 2 }, .none = -1, .vocab = vocab, .pos = r, .seed = seed,
                .temperature = r % 4 < 2 ? 1 : 0.7f, .top_k = cut[r / 2].top_k,
                .top_p = cut[r / 2].top_p, .min_p = cut[r / 2].min_p };
            tok[i][r] = -1;
            if (i == 0)                    /* the twin reads the caller's memory */
                row[i][r].ban[0] = memcpy(malloc(sizeof(best)), &best, sizeof(best));
        }
    }
    for (int i = 0; i < 2; i++)
        op_sample(be[i], row[i], ROWS);
    done();
    for (int r = 0; r < ROWS; r++) {
        free((void *) row[0][r].ban[0]);
        same += tok[0][r] == tok[1][r];
        if (tok[0][r] != tok[1][r])
            printf("# top_k %d top_p %g min_p %g: %d, not %d\n", row[0][r].top_k,
                   (double) row[0][r].top_p, (double) row[0][r].min_p, tok[1][r], tok[0][r]);
    }
    /* as above; sums of equals are exact */
    ok(same >= ROWS - (kind == 2 ? 0 : 1), "sample: %d ids, logits of kind %d: %d of %d draws are"
       " the twin's", vocab, kind, same, ROWS);
    free(v);
}

/* A number that is none ends its own row only, and the next step, which may begin with the ids of
 * both, has 0 in its place. */
static void test_bad(void)
{
    if (!mine(false))
        return;

    enum { N = 600 };
    struct two x = two_random(2 * 512, 1, 0);
    int32_t id[N], from[N], want[N], got[N], last[2] = { 0, 99 };
    struct ids a = { want, id, from, last, N };
    struct sample_row row[2];
    float v[2 * 512] = { 0 };
    int32_t tok[2] = { 7, 7 };
    struct err e = { 0 };

    v[77] = NAN;
    v[512 + 99] = 1;
    be[1]->ops->put(be[1], x.p[1], v, sizeof(v));
    for (int i = 0; i < 2; i++)
        row[i] = (struct sample_row) { .logits = x.p[1] + 512 * i, .tok = &tok[i], .vocab = 512,
                                       .top_p = 1, .none = -1, .pos = 9 };
    op_sample(be[1], row, 2);
    is_int(be_sync(be[1], &e), 0, "a step with a logit that is no number");
    is_int(tok[0], SAMPLE_NONE, "its row has no token,");
    is_int(tok[1], 99, "the other has its own");

    for (int t = 0; t < N; t++) {
        id[t] = below(VOCAB);
        from[t] = below(3) - 1;
    }
    ids_ref(&a, 0, N);
    two_poison(&x);
    op_ids(be[1], &(struct ids) { .y = (int32_t *) x.p[1], .id = be_input(be[1], id, N),
                                  .from = be_input(be[1], from, N), .n_tok = N });
    done();
    be[1]->ops->get(be[1], got, x.p[1], sizeof(got));
    ok(memcmp(got, want, sizeof(got)) == 0, "ids of the step before, in the next");
}

static const int32_t rows[] = { 1, 2, 7, 8, 9, 16, 33, 64, 65, 200 };

static void test_all_linear(void)
{
    static const int32_t wide[] = { 17, 32, 100, 128, 129 };
    static const int32_t all[][2] = { { 512, 2816 }, { 2816, 4096 }, { 100, 64 }, { 64, 100 },
                                      { 33, 8192 }, { 512, 48 }, { 1, 4096 } };
    static const int32_t more[][2] = { { 2112, 2816 }, { 65, 2112 }, { 63, 8 }, { 33, 8192 } };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++)
            test_linear(rows[i], all[k][0], all[k][1]);
    for (size_t i = 0; i < sizeof(wide) / sizeof(wide[0]); i++) {
        for (size_t k = 0; k < sizeof(more) / sizeof(more[0]); k++)
            test_linear(wide[i], more[k][0], more[k][1]);
        test_linears(wide[i], 2816);
        test_linears(wide[i], 72);
    }
    test_same(128, 9, 2816, 4096);
    test_same(100, 33, 4096, 2816);
    test_same(64, 17, 65, 2112);
    test_linear(300, 6000, 704);
    for (int32_t n = 12; n <= TOK; n = n * 5 / 2) {        /* of kernels/gemm_table.inc */
        test_linear(n, 2112, 2816);
        test_linear(n, 2816, 2112);
        test_linear(n, 128, 2816);
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (int32_t cols = 40; cols < 9000; cols = cols * (quick ? 9 : 3) / 8 * 8)
            test_linears(rows[i], cols);
}

/* Tokens, experts, so many of each token, hidden, ffn. */
static const int32_t moes[][5] = {
    { 3, 128, 8, 256, 64 }, { 4, 128, 8, 256, 64 }, { 4, 20, 9, 256, 64 }, { 64, 128, 8, 256, 64 },
    { 2048, 128, 8, 64, 32 }, { MOE_CUDA_TOK, 32, 8, 64, 32 },
    { MOE_CUDA_TOK, 8, 8, 64, 20 },        /* rows of no whole 16 bytes */
    { MOE_CUDA_TOK + 33, 32, 2, 64, 24 }, { MOE_CUDA_TOK + 900, 32, 2, 64, 24 }, /* in two parts */
    { 5, 8, 2, 64, 20 }, { 1, 128, 8, 2816, 704 }, { 33, 128, 8, 2816, 704 },
    { 128, 16, 2, 704, 64 },               /* 16 of each on average: tiles of two and four groups */
    { 160, 16, 1, 704, 64 }, { 256, 16, 1, 352, 40 }, { 7, 300, 3, 64, 24 },
};

static void test_all(void)
{
    test_embed();
    test_norm(1, 2816);
    test_norm(65, 2816);
    test_norm(9, 64);
    test_norm(7, 16);
    test_small(1, 2112);
    test_small(65, 48);
    test_join(1, 2816);
    test_join(65, 5376);
    test_join(9, 16);
    test_rope(5, 256, 128);
    test_rope(65, 512, 64);
    test_rope(3, 16, 8);
    test_rope(3, 32, 4);
    test_copy(8, 256, 256);
    test_copy(2, 512, 512);
    test_copy(2, 512, 128);
    test_copy(1, 48, 16);
    test_copy(2, 16, 16);
    test_all_linear();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_moe(rows[i], 8, 3, 64, 24);
        test_moe(rows[i], 16, 8, 256, 704);
    }
    for (size_t i = 0; i < sizeof(moes) / sizeof(moes[0]); i++)
        test_moe(moes[i][0], moes[i][1], moes[i][2], moes[i][3], moes[i][4]);
    test_moe_loads();
    test_attns();
    for (int steered = 0; steered < 2; steered++) {
        test_sample(512, 8, steered);
        test_sample(QUICK_VOCAB, 12, steered);
        test_sample(VOCAB, 12, steered);
        test_sample(VOCAB, 1, steered);    /* full of ties */
    }
    for (int kind = 0; kind < 4; kind++) {
        test_cuts(512, kind);
        test_cuts(QUICK_VOCAB, kind);
        test_cuts(VOCAB, kind);
    }
    test_bad();
}

static bool read_args(int argc, char **argv)
{
    char *end = "", more;

    for (int i = 1; i < argc && *end == '\0'; i++)
        if (strcmp(argv[i], "quick") == 0)
            quick = true;
        else if (strchr(argv[i], '/') != NULL)
            end = sscanf(argv[i], "%d/%d%c", &part, &parts, &more) == 2 ? "" : argv[i];
        else
            rng = strtoull(argv[i], &end, 0);
    return *end == '\0' && part >= 1 && part <= parts && rng != 0;
}

int main(int argc, char **argv)
{
    struct backend_limits lim = {
        .n_thread = 8, .vocab = VOCAB, .attn_scratch = attn_scratch(16, 1, 16384),
        .moe = { .n_expert = 300, .top_k = 8, .hidden = 2816, .ffn = 704 },
        .steer_words = 32 * (VOCAB / 16 + 2048),
        .step_tok_max = MOE_CUDA_TOK + TOK,
        .seq_max = SEQ, .page_max = PAGES, .hidden = 8192, .n_head = 16,
        .n_kv = { 8, 2 }, .head_dim = { 256, 512 },
        .apart = true };
    struct err e = { 0 };
    uint64_t n_free, n_total;

    if (getrandom(&rng, sizeof(rng), 0) != sizeof(rng))
        return 1;
    rng |= 1;
    if (!read_args(argc, argv)) {
        fprintf(stderr, "usage: %s [quick] [K/N] [SEED]\n", argv[0]);
        return 2;
    }
    if (parts > 1)
        lim.n_thread = 1;                  /* the parts share the cores */
    if (be_memory_cuda(&n_free, &n_total, &e) == E_INVALID) {
        printf("1..0 # SKIP no GPU: %s\n", e.msg);
        return 0;
    }
    if (be_open_cuda(&be[1], &lim, &e) < 0 || be_open_cpu(&be[0], &lim, &e) < 0) {
        ok(0, "%s", e.msg);
        return done_testing();
    }
#ifdef HAVE_CUDA
    hopper_open(&hopper);
#endif
    printf("# part %d/%d, seed %llu (arguments repeat it)\n", part, parts,
           (unsigned long long) rng);
    printf("# %s\n", be[1]->note != NULL ? be[1]->note : "all kernels, as measured");
    test_all();
    be_close(be[0]);
    be_close(be[1]);
    return done_testing();
}
