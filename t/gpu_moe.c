/* gpu_moe.c - the experts: routing, both products, the sum. */
#include "gpu.h"

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

    struct two z = two_random((size_t) (n_tok * n_expert), 4);
    struct two scale = two_random((size_t) n_expert, 1);
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
    float *beside, *alone, *z;
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
    moe.scale = two_random((size_t) n_expert, 1);
    moe.w = two_new((size_t) moe.n_tok);
    moe.id = two_new((size_t) moe.n_tok);
    moe.y = two_new(moe.x.n);
    z = calloc(moe.z.n, 4);
    for (int32_t t = 0; t < moe.n_tok; t++)
        z[t * n_expert + id[t]] = 1;
    two_set(&moe.z, z);
    free(z);
    moe_compare(&moe, name);

    beside = get_floats(moe.y.p[1], moe.y.n);
    two_poison(&moe.y);
    moe.n_tok -= moe.n_tok / 4;
    n = (size_t) moe.n_tok * (size_t) hidden;
    part = moe_of(&moe, 1);
    op_moe_route(be[1], &part);
    op_moe(be[1], &part);
    done();
    alone = get_floats(moe.y.p[1], n);
    ok(memcmp(beside, alone, n * 4) == 0, "moe: %s: the first %d alone, bit for bit", name,
       moe.n_tok);
    free(beside);
    free(alone);
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

void test_experts(void)
{
    /* Tokens, experts, so many of each token, hidden, ffn. */
    static const int32_t moes[][5] = {
        { 3, 128, 8, 256, 64 }, { 4, 128, 8, 256, 64 }, { 4, 20, 9, 256, 64 },
        { 64, 128, 8, 256, 64 }, { 2048, 128, 8, 64, 32 }, { MOE_CUDA_TOK, 32, 8, 64, 32 },
        { MOE_CUDA_TOK, 8, 8, 64, 20 },    /* rows of no whole 16 bytes */
        { MOE_CUDA_TOK + 33, 32, 2, 64, 24 }, { MOE_CUDA_TOK + 900, 32, 2, 64, 24 }, /* two parts */
        { 5, 8, 2, 64, 20 }, { 1, 128, 8, 2816, 704 }, { 33, 128, 8, 2816, 704 },
        { 128, 16, 2, 704, 64 },           /* 16 of each on average: tiles of two and four groups */
        { 160, 16, 1, 704, 64 }, { 256, 16, 1, 352, 40 }, { 7, 300, 3, 64, 24 },
    };

    for (size_t i = 0; i < sizeof(row_counts) / sizeof(row_counts[0]); i++) {
        test_moe(row_counts[i], 8, 3, 64, 24);
        test_moe(row_counts[i], 16, 8, 256, 704);
    }
    for (size_t i = 0; i < sizeof(moes) / sizeof(moes[0]); i++)
        test_moe(moes[i][0], moes[i][1], moes[i][2], moes[i][3], moes[i][4]);
    test_moe_loads();
}
