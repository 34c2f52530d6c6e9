/* gpu_pages.c - pages of keys and values, and copies of them. */
#include "gpu.h"

void kv_new(struct kv_layer kv[2], int32_t n_page, int32_t n_kv, int32_t dim, int32_t k_dim)
{
    size_t heads = (size_t) n_page * PAGE_TOK * (size_t) n_kv;
    struct two k = act_random(heads * (size_t) k_dim, 1), v = act_random(heads * (size_t) dim, 1);

    for (int i = 0; i < 2; i++)
        kv[i] = (struct kv_layer) { .k = k.p[i], .v = v.p[i], .page_tok = PAGE_TOK, .n_kv = n_kv,
                                    .head_dim = dim, .k_dim = k_dim };
}

void kv_compare(const struct kv_layer kv[2], int32_t n_page, const char *what)
{
    size_t heads = (size_t) n_page * PAGE_TOK * (size_t) kv[0].n_kv;

    done();
    for (int side = 0; side < 2; side++) {
        size_t n = heads * (size_t) (side == 0 ? kv[0].k_dim : kv[0].head_dim);
        float *v = get_halves(side == 0 ? kv[1].k : kv[1].v, n), *ref = malloc(n * 4);
        double d;

        memcpy(ref, side == 0 ? kv[0].k : kv[0].v, n * 4);
        for (size_t i = 0; i < n; i++)
            if (isnan(ref[i]) && isnan(v[i]))                  /* poison, still there */
                ref[i] = v[i] = 0;
        d = error_of(v, ref, n);
        ok(d <= 4e-3, "%s: %s: deviation %.2g, allowed 4e-3", what, side == 0 ? "K" : "V", d);
        free(v);
        free(ref);
    }
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

void test_pages(void)
{
    test_copy(8, 256, 256);
    test_copy(2, 512, 512);
    test_copy(2, 512, 128);
    test_copy(1, 48, 16);
    test_copy(2, 16, 16);
}
