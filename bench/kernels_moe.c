/* kernels_moe.c - the experts: routing, both products, the sum. */
#include "kernels.h"

enum { CHECKED = 48, ROUTES = 8 };         /* tokens that the twin takes; of a chain */

struct moe_case { struct moe m; const struct hopper *h; void *scratch; };

static void launch_route(const void *p)
{
    const struct moe_case *c = p;

    moe_route_cuda(&c->m, c->h, c->scratch, smem_max, stream);
}

static void launch_moe(const void *p)
{
    const struct moe_case *c = p;

    launch_route(c);
    moe_cuda(&c->m, c->h, c->scratch, smem_max, stream);
}

static struct weights gate_up, down;
static float          z[TOK_MAX * EXPERTS], ones[EXPERTS];

/* Each token picks at random: 8 different ones, whose logits are the largest. Returns the bytes of
 * the weights that are met. */
static double routes(int32_t n_tok)
{
    bool met[EXPERTS] = { false };
    int n = 0;

    for (int32_t t = 0; t < n_tok; t++) {
        bool taken[EXPERTS] = { false };

        for (int e = 0; e < EXPERTS; e++)
            z[t * EXPERTS + e] = -9;
        for (int j = 0; j < TOP_K; j++) {
            int e;

            do
                e = (int) (next() % EXPERTS);
            while (taken[e]);
            taken[e] = met[e] = true;
            z[t * EXPERTS + e] = uniform();
        }
    }
    for (int e = 0; e < EXPERTS; e++)
        n += met[e];
    return (double) n * 3 * FFN * HIDDEN * 2;
}

/* The twin takes a sample of the tokens: each is computed for itself. */
static double moe_deviation(const struct moe *shape, const float *x)
{
    static float sx[CHECKED * HIDDEN], sz[CHECKED * EXPERTS], sw[CHECKED * TOP_K];
    static float sy[CHECKED * HIDDEN];
    static int32_t si[CHECKED * TOP_K];
    int32_t n_tok = shape->n_tok, n = n_tok < CHECKED ? n_tok : CHECKED;
    struct moe m = *shape;
    double d = 0;
    struct err e;

    for (int32_t i = 0; i < n; i++) {
        int32_t t = (int32_t) ((int64_t) i * n_tok / n);

        memcpy(sx + i * HIDDEN, x + (size_t) t * HIDDEN, HIDDEN * sizeof(float));
        memcpy(sz + i * EXPERTS, z + t * EXPERTS, EXPERTS * sizeof(float));
    }
    m.x = sx;
    m.y = sy;
    m.z = sz;
    m.scale = ones;
    m.w = sw;
    m.idx = si;
    m.n_tok = n;
    m.gate_up = gate_up.host;
    m.down = down.host;
    op_moe_route(twin, &m);
    op_moe(twin, &m);
    if (be_sync(twin, &e) < 0)
        return INFINITY;
    for (int32_t i = 0; i < n; i++) {
        int64_t t = (int64_t) i * n_tok / n;

        d = fmax(d, deviation_floats(shape->y + t * HIDDEN, sy + i * HIDDEN, HIDDEN));
    }
    return d;
}

/* The op's first half by itself: who is chosen, how much of each, and the grouping. */
static void bench_route(const struct moe_case *c)
{
    size_t pairs = (size_t) c->m.n_tok * TOP_K;
    float *w = numbers(pairs, 1);
    int32_t *want = malloc(2 * pairs * sizeof(*want)), *got = want + pairs;
    char shape[32];
    struct row r = { .name = c->h->n_sm > 0 ? "moe route" : "moe route (base path)",
                     .shape = shape, .limit = 1e-5 };

    if (want == NULL)
        check(cudaErrorMemoryAllocation);
    moe_route_ref(&(struct moe_route) { z, ones, want, w, c->m.n_tok, EXPERTS, TOP_K }, 0,
                  c->m.n_tok);
    check(cudaMemcpy(got, c->m.idx, pairs * sizeof(*got), cudaMemcpyDeviceToHost));
    r.deviation = memcmp(want, got, pairs * sizeof(*got)) == 0
                  ? deviation_floats(c->m.w, w, pairs) : INFINITY;
    r.us = c->m.n_tok > CHAIN_TOK ? time_us(launch_route, c) : chain_us(launch_route, c, 0, 1);
    r.bytes = 4.0 * c->m.n_tok * EXPERTS + 8.0 * (double) pairs;
    snprintf(shape, sizeof(shape), "%d tokens", c->m.n_tok);
    report(&r);
    free(want);
    free(w);
}

/* In a chain each launch meets other experts; *weights becomes the mean of what they read. */
static double moe_us(const struct moe_case *c, double *weights)
{
    struct moe_case all[ROUTES];
    double us;

    if (c->m.n_tok > CHAIN_TOK)
        return time_us(launch_moe, c);
    *weights = 0;
    for (int k = 0; k < ROUTES; k++) {
        all[k] = *c;
        *weights += routes(c->m.n_tok) / ROUTES;
        all[k].m.z = dev_floats(z, (size_t) c->m.n_tok * EXPERTS);
    }
    us = chain_us(launch_moe, all, sizeof(all[0]), ROUTES);
    for (int k = 0; k < ROUTES; k++)
        cudaFree((void *) (uintptr_t) all[k].m.z);
    return us;
}

static void bench_moe(const char *name, const struct hopper *h, int32_t n_tok)
{
    struct moe_case c = { .h = h };
    double weights = routes(n_tok);
    size_t n = (size_t) n_tok * HIDDEN, pairs = (size_t) n_tok * TOP_K;
    float *x = numbers(n, 1);
    char shape[32];
    struct row r = { .name = name, .shape = shape, .limit = 1e-2 };

    c.m = (struct moe) { .gate_up = gate_up.dev, .down = down.dev, .n_tok = n_tok,
                         .n_expert = EXPERTS, .top_k = TOP_K, .hidden = HIDDEN, .ffn = FFN };
    c.m.x = dev_halves(x, n);
    c.m.z = dev_floats(z, (size_t) n_tok * EXPERTS);
    c.m.scale = dev_floats(ones, EXPERTS);
    c.m.w = dev(pairs * sizeof(float));
    c.m.idx = dev(pairs * sizeof(int32_t));
    c.m.y = dev(n * sizeof(float));
    c.scratch = dev(moe_cuda_scratch(&c.m));

    launch_moe(&c);
    check(cudaStreamSynchronize(stream));
    r.deviation = moe_deviation(&c.m, x);
    bench_route(&c);
    r.us = moe_us(&c, &weights);
    r.bytes = weights + 6.0 * (double) n;
    r.flops = 2.0 * 3 * FFN * HIDDEN * (double) pairs;
    snprintf(shape, sizeof(shape), "%d tokens", n_tok);
    report(&r);

    cudaFree((void *) (uintptr_t) c.m.x);
    cudaFree((void *) (uintptr_t) c.m.z);
    cudaFree((void *) (uintptr_t) c.m.scale);
    cudaFree(c.m.w);
    cudaFree(c.m.idx);
    cudaFree(c.m.y);
    cudaFree(c.scratch);
    free(x);
}

void bench_experts(void)
{
    static const int32_t n_tok[] = { 1, 8, 16, 32, 48, 64, 128, 256, 512, 1024, 2048, 8192 };

    for (int i = 0; i < EXPERTS; i++)
        ones[i] = 1;
    gate_up = weights_new((int64_t) EXPERTS * 2 * FFN, HIDDEN, 5);
    down = weights_new((int64_t) EXPERTS * HIDDEN, FFN, 6);
    for (size_t i = 0; i < sizeof(n_tok) / sizeof(n_tok[0]); i++) {
        if (!wanted(n_tok[i]))
            continue;
        if (hopper.n_sm > 0)
            bench_moe("moe", &hopper, n_tok[i]);
        bench_moe("moe (base path)", &base, n_tok[i]);
    }
}
