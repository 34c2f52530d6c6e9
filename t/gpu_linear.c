/* gpu_linear.c - the dense products. */
#include "gpu.h"

/* l, the GPU's, makes of the same inputs the bytes that it has made of them. */
static void again(const struct two *y, const struct linear *l, const char *what)
{
    float *first = get_floats(y->p[1], y->n), *second;

    two_poison(y);
    op_linear(be[1], l);
    done();
    second = get_floats(y->p[1], y->n);
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
    float *got[3] = { NULL };

    for (int32_t k = 0; k < (hopper.n_sm > 0 ? 3 : 2); k++) {
        struct two y = two_new((size_t) n_row * (size_t) rows);
        int32_t some = k < 2 ? n_row : fewer;

        two_poison(&y);
        op_linear(be[1], &(struct linear) { .g = { { y.p[1], x.p[1], w, some } }, .n = 1 });
        done();
        got[k] = get_floats(y.p[1], y.n);
        if (k > 0)
            ok(error_of(got[k], got[0], (size_t) some * (size_t) rows) == 0,
               "linear %d x %d -> %d: %d rows again", n_row, cols, (int) rows, some);
    }
    for (int k = 0; k < 3; k++)
        free(got[k]);
}

void test_products(void)
{
    static const int32_t wide[] = { 17, 32, 100, 128, 129 };
    static const int32_t all[][2] = { { 512, 2816 }, { 2816, 4096 }, { 100, 64 }, { 64, 100 },
                                      { 33, 8192 }, { 512, 48 }, { 1, 4096 } };
    static const int32_t more[][2] = { { 2112, 2816 }, { 65, 2112 }, { 63, 8 }, { 33, 8192 } };

    for (size_t i = 0; i < sizeof(row_counts) / sizeof(row_counts[0]); i++)
        for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++)
            test_linear(row_counts[i], all[k][0], all[k][1]);
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
    for (size_t i = 0; i < sizeof(row_counts) / sizeof(row_counts[0]); i++)
        for (int32_t cols = 40; cols < 9000; cols = cols * (quick ? 9 : 3) / 8 * 8)
            test_linears(row_counts[i], cols);
}
