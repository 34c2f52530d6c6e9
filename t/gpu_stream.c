/* gpu_stream.c - what moves the stream of a step's tokens between the products: embedding, norms,
 * the rows that the head wants, activations, joins, angles. */
#include "gpu.h"

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

    struct two x = two_random((size_t) (n_row * dim), 3), w = two_random((size_t) dim, 1);
    struct two add = two_random(x.n, 1), y = two_new(x.n);

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
    struct two x = two_random(all, 4), up = two_random(3 * all, 1), y = two_new(all);
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
        struct two x = two_random(all, 3), y = k == 1 ? two_new(all) : x;
        struct two t0 = two_random(all, 20), t1 = two_random(all, 0.1f), out[3], w[6];

        for (int i = 0; i < 6; i++)
            w[i] = two_random((size_t) dim, 1);
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

void test_stream(void)
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
}
