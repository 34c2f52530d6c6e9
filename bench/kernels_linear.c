/* kernels_linear.c - linear layers: all products of an op. */
#include "kernels.h"

struct linear_shape { const char *name; int32_t n, cols; int64_t rows[LINEAR_MAX]; bool act; };
/* own: as the backend does it, our kernels as far as they go; else the library alone. */
struct linear_case { struct linear dev; struct gemm_lt *lt; bool own; };

static bool launch_own(const struct linear *l)
{
    return gemm_skinny_cuda(l, smem_max, stream) || gemm_hopper_cuda(l, &hopper, stream);
}

static void launch_linear(const void *p)
{
    const struct linear_case *c = p;
    const struct gemm *g = c->dev.g;

    if (c->own && launch_own(&c->dev))
        return;
    for (int32_t i = 0; i < c->dev.n; i++) {
        int launched = gemm_lt_cuda(c->lt, &g[i], stream);

        if (launched < 0)
            check(cudaErrorLaunchFailure);
        if (launched == 0)
            gemm_tile_cuda(&g[i], stream);
    }
    if (c->dev.act != NULL)
        geglu_cuda(&(struct geglu) { c->dev.act, g[0].y, g[1].y, g[0].n_row,
                                     (int32_t) g[0].w.rows, (int32_t) g[1].w.rows }, stream);
}

/* The twin takes the first and the last row. Of an activation's two products nobody asks. */
static double linear_deviation(const struct linear_case *c, const float *in,
                               const struct weights *w)
{
    const struct linear *d = &c->dev;
    bool act = d->act != NULL;
    struct linear l = { .n = d->n, .act = act ? numbers((size_t) w->host.rows, 1) : NULL };
    double far = 0;
    struct err e;

    for (int32_t i = 0; i < d->n; i++)
        l.g[i] = (struct gemm) { numbers((size_t) w[i].host.rows, 1), NULL, w[i].host, 1 };
    for (int64_t k = 0; k < 2; k++) {
        int64_t row = k * (d->g[0].n_row - 1);

        for (int32_t i = 0; i < d->n; i++)
            l.g[i].x = in + row * w->host.cols;
        op_linear(twin, &l);
        be_sync(twin, &e);
        for (int32_t i = act ? 2 : 0; i < d->n; i++)
            far = fmax(far, deviation_floats(d->g[i].y + row * w[i].host.rows, l.g[i].y,
                                             (size_t) w[i].host.rows));
        if (act)
            far = fmax(far, deviation_halves((char *) d->act + row * w->host.rows * 2, l.act,
                                             (size_t) w->host.rows));
    }
    for (int32_t i = 0; i < d->n; i++)
        free(l.g[i].y);
    free(l.act);
    return far;
}

/* In a chain each launch has weights of its own. */
static double linear_us(const struct linear_case *c, double bytes)
{
    int n = chain_copies(bytes);
    struct linear_case all[64];
    double us;

    if (c->dev.g[0].n_row > GEMM_HOPPER_TOK)
        return time_us(launch_linear, c);
    for (int k = 0; k < n; k++) {
        all[k] = *c;
        for (int32_t i = 0; i < c->dev.n && k > 0; i++) {
            const struct mat *w = &c->dev.g[i].w;

            all[k].dev.g[i].w.p = dev_copy(w->p, (size_t) w->rows * (size_t) w->cols * 2);
        }
    }
    us = chain_us(launch_linear, all, sizeof(all[0]), n);
    for (int k = 1; k < n; k++)
        for (int32_t i = 0; i < c->dev.n; i++)
            cudaFree((void *) (uintptr_t) all[k].dev.g[i].w.p);
    return us;
}

static void bench_rows(const struct linear_shape *h, const struct weights *w, struct gemm_lt *lt,
                       int32_t n_row, bool own)
{
    struct linear_case c = { .lt = lt, .own = own };
    float *in = numbers((size_t) n_row * (size_t) h->cols, 1);
    void *x = dev_halves(in, (size_t) n_row * (size_t) h->cols);
    char name[40], shape[32];
    struct row r = { .name = name, .shape = shape, .limit = h->act ? 5e-3 : 1e-4 };

    c.dev.n = h->n;
    c.dev.act = h->act ? dev((size_t) n_row * (size_t) h->rows[0] * 2) : NULL;
    for (int32_t i = 0; i < h->n; i++) {
        c.dev.g[i] = (struct gemm) { dev((size_t) n_row * (size_t) h->rows[i] * 4), x, w[i].dev,
                                     n_row };
        r.flops += 2.0 * n_row * (double) h->rows[i] * h->cols;
        r.bytes += 2.0 * (double) h->rows[i] * h->cols;
        if (!h->act || i >= 2)             /* gate and up need not leave the chip */
            r.bytes += 4.0 * n_row * (double) h->rows[i];
    }
    r.bytes += 2.0 * n_row * h->cols + (h->act ? 2.0 * n_row * (double) h->rows[0] : 0);
    launch_linear(&c);
    check(cudaStreamSynchronize(stream));
    r.deviation = linear_deviation(&c, in, w);
    r.us = linear_us(&c, r.bytes);
    snprintf(name, sizeof(name), "%s%s", h->name, own ? "" : " (cuBLASLt)");
    snprintf(shape, sizeof(shape), "%d rows", n_row);
    report(&r);

    for (int32_t i = 0; i < h->n; i++)
        cudaFree(c.dev.g[i].y);
    cudaFree(c.dev.act);
    cudaFree(x);
    free(in);
}

void bench_linear(void)
{
    static const struct linear_shape shape[] = {
        { "linear qkv sliding", 3, HIDDEN, { 4096, 2048, 2048 }, false },
        { "linear qk global", 2, HIDDEN, { 8192, 1024 }, false },
        { "linear o sliding", 1, 4096, { HIDDEN }, false },
        { "linear o global", 1, 8192, { HIDDEN }, false },
        { "linear gate up router", 3, HIDDEN, { DENSE, DENSE, EXPERTS }, true },
        { "linear down", 1, DENSE, { HIDDEN }, false },
        { "linear head", 1, HIDDEN, { VOCAB }, false },
    };
    static const int32_t n_row[] = { 1, 8, 16, 64, 100, 128, 2048, 8192 };
    struct gemm_lt *lt = gemm_lt_open();

    if (lt == NULL)
        check(cudaErrorSharedObjectInitFailed);
    for (size_t s = 0; s < sizeof(shape) / sizeof(shape[0]); s++) {
        struct weights w[LINEAR_MAX];

        for (int32_t i = 0; i < shape[s].n; i++)
            w[i] = weights_new(shape[s].rows[i], shape[s].cols, 7 + (uint64_t) i);
        for (size_t i = 0; i < sizeof(n_row) / sizeof(n_row[0]); i++)
            for (int own = 1; own >= 0; own--)
                if ((double) shape[s].rows[0] * n_row[i] < 1e8
                    && (!own || n_row[i] <= GEMM_HOPPER_TOK) && wanted(n_row[i]))
                    bench_rows(&shape[s], w, lt, n_row[i], own);
    }
    gemm_lt_close(lt);
}

