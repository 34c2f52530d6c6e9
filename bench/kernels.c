/* kernels.c - the GPU's launchers at the shapes of Gemma 4 26B-A4B: each is compared with its twin,
 * then timed with a cold L2, the median of ROUNDS.
 *
 * usage: build/bench/kernels [NAME [TOKENS]]
 * Prints CSV. bytes: read once and written once; floor_pct: of the larger of bytes over 4.39 TB/s
 * and operations over 790 TFLOP/s, an H200's measured speeds. deviation: the largest from the
 * twin, relative to the twin's largest number. The exit code is 1 if one is over its limit. */
#include "backend.h"
#include "cuda.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS     15
#define READ_SPEED 4.39e12
#define MATH_SPEED 790e12
#define FLUSH      (256u << 20)            /* bytes written between rounds: more than any L2 */

static struct backend *twin;
static struct hopper   hopper, base;       /* base: has nothing */
static cudaStream_t    stream;
static void           *flush;
static uint64_t        rng = 0x9e3779b97f4a7c15ull;
static size_t          smem_max;
static int             n_bad, only;       /* only: rows of so many tokens, 0: all */

static void check(cudaError_t rc)
{
    if (rc != cudaSuccess) {
        fprintf(stderr, "kernels: %s\n", cudaGetErrorString(rc));
        exit(1);
    }
}

static uint32_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t) (rng >> 32);
}

static float uniform(void)                 /* -1 .. 1 */
{
    return (float) next() * 0x1p-31f - 1;
}

static void *dev(size_t bytes)
{
    void *p;

    check(cudaMalloc(&p, bytes));
    check(cudaMemset(p, 0xff, bytes));     /* NaN */
    return p;
}

static void *dev_copy(const void *p, size_t bytes)
{
    void *d = dev(bytes);

    check(cudaMemcpy(d, p, bytes, cudaMemcpyHostToDevice));
    return d;
}

/* n rows of cols on the host and on the device, the same. */
struct weights { struct mat host, dev; };

static struct weights weights_new(int64_t rows, int32_t cols, uint64_t seed)
{
    size_t bytes = (size_t) rows * (size_t) cols * 2;
    struct weights w = { { be_alloc(twin, bytes), MAT_BF16, rows, cols },
                         { dev(bytes), MAT_BF16, rows, cols } };
    struct err e;

    if (w.host.p == NULL)
        check(cudaErrorMemoryAllocation);
    op_fill(twin, &(struct fill) { (void *) (uintptr_t) w.host.p, rows * cols, seed });
    be_step_end(twin, &e);
    fill_cuda(&(struct fill) { (void *) (uintptr_t) w.dev.p, rows * cols, seed }, stream);
    return w;
}

static int by_size(const void *a, const void *b)
{
    return (*(const float *) a > *(const float *) b) - (*(const float *) a < *(const float *) b);
}

static double time_us(void (*launch)(const void *), const void *arg)
{
    cudaEvent_t from, to;
    float ms[ROUNDS];

    check(cudaEventCreate(&from));
    check(cudaEventCreate(&to));
    for (int i = 0; i < ROUNDS; i++) {
        check(cudaMemsetAsync(flush, i, FLUSH, stream));
        check(cudaEventRecord(from, stream));
        launch(arg);
        check(cudaEventRecord(to, stream));
        check(cudaEventSynchronize(to));
        check(cudaGetLastError());
        check(cudaEventElapsedTime(&ms[i], from, to));
    }
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    qsort(ms, ROUNDS, sizeof(ms[0]), by_size);
    return ms[ROUNDS / 2] * 1e3;
}

/* One row of the table. */
struct row { const char *name, *shape; double us, bytes, flops, deviation, limit; };

static void report(const struct row *r)
{
    double floor = fmax(r->bytes / READ_SPEED, r->flops / MATH_SPEED) * 1e6;

    printf("%s,%s,%.1f,%.0f,%.1f,%.1f,%.2g\n", r->name, r->shape, r->us, r->bytes / r->us / 1e3,
           r->flops / r->us / 1e6, 100 * floor / r->us, r->deviation);
    fflush(stdout);
    if (!(r->deviation <= r->limit)) {
        fprintf(stderr, "kernels: %s %s: deviation %.2g, allowed %.2g\n", r->name, r->shape,
                r->deviation, r->limit);
        n_bad++;
    }
}

/* --- the experts --- */

enum { EXPERTS = 128, TOP_K = 8, HIDDEN = 2816, FFN = 704, TOK_MAX = 2048, CHECKED = 48 };

struct moe_case { struct moe m; const struct hopper *h; void *scratch; };

static void launch_moe(const void *p)
{
    const struct moe_case *c = p;

    moe_route_cuda(&c->m, c->h, c->scratch, smem_max, stream);
    moe_cuda(&c->m, c->h, c->scratch, smem_max, stream);
}

static struct weights gate_up, down;
static float          x[TOK_MAX * HIDDEN], z[TOK_MAX * EXPERTS], y[TOK_MAX * HIDDEN];
static float          ones[EXPERTS];

/* Each token picks at random: 8 different ones, whose logits are the largest. x is what bf16 can
 * hold. Returns the bytes of the weights that are met. */
static double moe_inputs(int32_t n_tok)
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
        for (int i = 0; i < HIDDEN; i++)
            x[t * HIDDEN + i] = (float) (next() % 511) / 256 - 1;
    }
    for (int e = 0; e < EXPERTS; e++)
        n += met[e];
    return (double) n * 3 * FFN * HIDDEN * 2;
}

/* The twin takes a sample of the tokens: each is computed for itself. */
static double moe_deviation(const struct moe *shape, int32_t n_tok, const float *got)
{
    static float sx[CHECKED * HIDDEN], sz[CHECKED * EXPERTS], sw[CHECKED * TOP_K];
    static float sy[CHECKED * HIDDEN];
    static int32_t si[CHECKED * TOP_K];
    int32_t n = n_tok < CHECKED ? n_tok : CHECKED;
    struct moe m = *shape;
    double d = 0, max = 0;
    struct err e;

    for (int32_t i = 0; i < n; i++) {
        int32_t t = (int32_t) ((int64_t) i * n_tok / n);

        memcpy(sx + i * HIDDEN, x + t * HIDDEN, HIDDEN * sizeof(float));
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
    if (be_step_end(twin, &e) < 0)
        return INFINITY;
    for (int32_t i = 0; i < n * HIDDEN; i++) {
        int32_t t = (int32_t) ((int64_t) (i / HIDDEN) * n_tok / n);
        double v = got[t * HIDDEN + i % HIDDEN];

        if (!isfinite(v))
            return INFINITY;
        d = fmax(d, fabs(v - (double) sy[i]));
        max = fmax(max, fabs((double) sy[i]));
    }
    return max > 0 ? d / max : INFINITY;
}

/* The upper halves. */
static uint16_t *bf16_of(const float *v, size_t n)
{
    uint16_t *h = malloc(n * 2);

    if (h == NULL)
        check(cudaErrorMemoryAllocation);
    for (size_t i = 0; i < n; i++)
        memcpy(&h[i], (const char *) &v[i] + 2, 2);
    return h;
}

static void bench_moe(const char *name, const struct hopper *h, int32_t n_tok)
{
    struct moe_case c = { .h = h };
    double weights = moe_inputs(n_tok);
    size_t n = (size_t) n_tok * HIDDEN, bytes = n * sizeof(float);
    size_t pairs = (size_t) n_tok * TOP_K;
    uint16_t *half = bf16_of(x, n);
    char shape[32];
    struct row r = { .name = name, .shape = shape, .limit = 1e-2 };

    c.m = (struct moe) { .gate_up = gate_up.dev, .down = down.dev, .n_tok = n_tok,
                         .n_expert = EXPERTS, .top_k = TOP_K, .hidden = HIDDEN, .ffn = FFN };
    c.m.x = dev_copy(half, n * 2);
    c.m.z = dev_copy(z, (size_t) n_tok * EXPERTS * sizeof(float));
    c.m.scale = dev_copy(ones, sizeof(ones));
    c.m.w = dev(pairs * sizeof(float));
    c.m.idx = dev(pairs * sizeof(int32_t));
    free(half);
    c.m.y = dev(bytes);
    c.scratch = dev(moe_cuda_scratch(&c.m));

    launch_moe(&c);
    check(cudaStreamSynchronize(stream));
    check(cudaMemcpy(y, c.m.y, bytes, cudaMemcpyDeviceToHost));
    r.deviation = moe_deviation(&c.m, n_tok, y);
    r.us = time_us(launch_moe, &c);
    r.bytes = weights + 1.5 * (double) bytes;
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
}

static void bench_experts(void)
{
    static const int32_t n_tok[] = { 1, 8, 16, 32, 48, 64, 128, 256, 512, 1024, 2048 };

    gate_up = weights_new((int64_t) EXPERTS * 2 * FFN, HIDDEN, 5);
    down = weights_new((int64_t) EXPERTS * HIDDEN, FFN, 6);
    for (size_t i = 0; i < sizeof(n_tok) / sizeof(n_tok[0]); i++) {
        if (only != 0 && only != n_tok[i])
            continue;
        if (hopper.n_sm > 0)
            bench_moe("moe", &hopper, n_tok[i]);
        bench_moe("moe (base path)", &base, n_tok[i]);
    }
}

/* --- attention: one sequence, n_tok tokens behind `past`, or n_tok sequences of one each --- */

enum { HEADS = 16, PAGE_TOK = 16, PROBES = 4 };

struct attn_shape { const char *name; int32_t n_kv, dim, window, n_rot; };

/* host and dev: the same layer; its tokens all in one array. n: floats in q, in k and v. */
struct attn_case {
    struct attn_layer host, dev;
    void             *scratch;
    bool              fast, alone;
    size_t            n_q, n_k, n_page;
};

static void launch_attn(const void *p)
{
    const struct attn_case *c = p;

    if (c->alone) {
        attn_decode_cuda(&c->dev, c->scratch, stream);
        return;
    }
    if (c->fast && attn_prefill_cuda(&c->dev, stream))
        return;
    norm_rope_cuda(&c->dev.rope, stream);
    kv_store_cuda(&c->dev.store, stream);
    attn_cuda(&c->dev.attn, c->scratch, smem_max, stream);
}

/* n numbers that bf16 can hold, within scale, which is a power of 2. */
static float *numbers(size_t n, float scale)
{
    float *v = malloc(n * sizeof(float));

    if (v == NULL)
        check(cudaErrorMemoryAllocation);
    for (size_t i = 0; i < n; i++)
        v[i] = scale * ((float) (next() % 511) / 256 - 1);
    return v;
}

static void *dev_floats(const float *v, size_t n)
{
    return dev_copy(v, n * sizeof(float));
}

static void *dev_halves(const float *v, size_t n)
{
    uint16_t *h = bf16_of(v, n);
    void *d = dev_copy(h, n * 2);

    free(h);
    return d;
}

/* The pages are in no order. */
static struct kv_map attn_map(int32_t past, int32_t n_tok, bool alone)
{
    int32_t each = (past + (alone ? 1 : n_tok) - 1) / PAGE_TOK + 1;
    int32_t n_page = alone ? n_tok * each : each;
    int32_t *pos = malloc((size_t) n_tok * 4), *seq = calloc((size_t) n_tok, 4);
    int32_t *page = malloc((size_t) n_page * 4);

    if (pos == NULL || seq == NULL || page == NULL)
        check(cudaErrorMemoryAllocation);
    for (int32_t i = 0; i < n_tok; i++) {
        pos[i] = alone ? past : past + i;
        seq[i] = alone ? i : 0;
    }
    for (int32_t i = 0; i < n_page; i++) {
        int32_t k = (int32_t) (next() % (uint32_t) (i + 1));

        page[i] = page[k];
        page[k] = i;
    }
    return (struct kv_map) { pos, seq, page, each, n_tok };
}

static void attn_new(struct attn_case *c, const struct attn_shape *h, int32_t past, int32_t n_tok)
{
    struct kv_map map = attn_map(past, n_tok, c->alone), on_dev = map;
    int32_t n_seq = c->alone ? n_tok : 1, n_page = n_seq * map.page_max;
    size_t width = (size_t) (h->n_kv * h->dim), n_cs = (size_t) (n_tok * 2 * h->n_rot);
    struct kv_layer kv = { NULL, NULL, PAGE_TOK, h->n_kv, h->dim, h->dim };
    struct attn_layer *l = &c->host, *d = &c->dev;

    c->n_q = (size_t) (n_tok * HEADS * h->dim);
    c->n_k = (size_t) n_tok * width;
    c->n_page = (size_t) n_page * PAGE_TOK * width;
    kv.k = numbers(c->n_page, 1);
    kv.v = numbers(c->n_page, 1);
    l->rope = (struct norm_rope) { numbers(c->n_q, 4), numbers((size_t) h->dim, 0.5f),
                                   numbers(n_cs, 1), 1e-6f, n_tok, HEADS, h->dim, h->n_rot };
    l->store = (struct kv_store) { kv, map, numbers(c->n_k, 4), numbers(c->n_k, 4), l->rope.w,
                                   l->rope.cs, 1e-6f, h->n_rot };
    l->attn = (struct attn) { malloc(c->n_q * sizeof(float)), l->rope.q, kv, map, HEADS, h->window,
                              n_seq, c->alone ? n_tok : 0,
                              past + (c->alone ? 1 : n_tok) };

    *d = *l;
    on_dev.pos = dev_copy(map.pos, (size_t) n_tok * 4);
    on_dev.seq = dev_copy(map.seq, (size_t) n_tok * 4);
    on_dev.page = dev_copy(map.page, (size_t) n_page * 4);
    d->store.kv.k = dev_halves(kv.k, c->n_page);
    d->store.kv.v = dev_halves(kv.v, c->n_page);
    d->store.map = d->attn.map = on_dev;
    d->store.k = dev_floats(l->store.k, c->n_k);
    d->store.v = dev_floats(l->store.v, c->n_k);
    d->store.w = d->rope.w = dev_floats(l->rope.w, (size_t) h->dim);
    d->store.cs = d->rope.cs = dev_floats(l->rope.cs, n_cs);
    d->rope.q = dev_floats(l->rope.q, c->n_q);
    d->attn.q = d->rope.q;
    d->attn.kv = d->store.kv;
    d->attn.y = dev(c->n_q * 2);
    c->scratch = dev(c->alone ? attn_decode_scratch(n_tok, HEADS, h->dim)
                              : attn_cuda_scratch(HEADS, h->dim));
}

static void attn_free(const struct attn_case *c)
{
    const struct attn_layer *l = &c->host, *d = &c->dev;
    const void *host[] = { l->rope.q, l->rope.w, l->rope.cs, l->store.k, l->store.v,
                           l->store.kv.k, l->store.kv.v, l->store.map.pos, l->store.map.seq,
                           l->store.map.page, l->attn.y };
    const void *gpu[] = { d->rope.q, d->rope.w, d->rope.cs, d->store.k, d->store.v,
                          d->store.kv.k, d->store.kv.v, d->store.map.pos, d->store.map.seq,
                          d->store.map.page, d->attn.y, c->scratch };

    for (size_t i = 0; i < sizeof(host) / sizeof(host[0]); i++)
        free((void *) (uintptr_t) host[i]);
    for (size_t i = 0; i < sizeof(gpu) / sizeof(gpu[0]); i++)
        cudaFree((void *) (uintptr_t) gpu[i]);
}

/* The twin takes some of the tokens, the first and the last among them. */
static double attn_deviation(const struct attn_case *c)
{
    const struct attn_layer *l = &c->host;
    int32_t n_tok = l->rope.n_tok, n_kv = l->attn.kv.n_kv;
    size_t row = c->n_q / (size_t) n_tok;
    uint16_t *got = malloc(row * 2);
    float *scratch = malloc(attn_scratch(HEADS, n_kv, l->attn.ctx) * sizeof(float));
    double d = 0, max = 0;

    if (got == NULL || scratch == NULL)
        check(cudaErrorMemoryAllocation);
    kv_store_ref(&l->store, 0, n_tok);
    for (int64_t i = 0; i < PROBES; i++) {
        int64_t t = i * (n_tok - 1) / (PROBES - 1);
        const float *y = (const float *) l->attn.y + (size_t) t * row;

        norm_rope_ref(&l->rope, t, t + 1);
        attn_ref(&l->attn, t * n_kv, (t + 1) * n_kv, scratch);
        check(cudaMemcpy(got, (char *) c->dev.attn.y + (size_t) t * row * 2, row * 2,
                         cudaMemcpyDeviceToHost));
        for (size_t k = 0; k < row; k++) {
            uint32_t u = (uint32_t) got[k] << 16;
            float v;

            memcpy(&v, &u, sizeof(v));
            if (!isfinite(v))
                return INFINITY;
            d = fmax(d, fabs((double) (v - y[k])));
            max = fmax(max, fabs((double) y[k]));
        }
    }
    free(got);
    free(scratch);
    return max > 0 ? d / max : INFINITY;
}

static void bench_attn(const struct attn_shape *h, int32_t past, int32_t n_tok, bool fast)
{
    struct attn_case c = { .fast = fast };
    int64_t seen = h->window > 0 && h->window < past ? h->window + n_tok : past + n_tok;
    char name[48], shape[48];
    struct row r = { .name = name, .shape = shape, .limit = 2e-2 };

    attn_new(&c, h, past, n_tok);
    launch_attn(&c);
    check(cudaStreamSynchronize(stream));
    r.deviation = attn_deviation(&c);
    r.us = time_us(launch_attn, &c);
    for (int32_t i = 0; i < n_tok; i++)
        r.flops += 4.0 * HEADS * h->dim
                   * (h->window > 0 && past + i >= h->window ? h->window : past + i + 1);
    r.bytes = 6.0 * (double) c.n_q + 12.0 * (double) c.n_k
              + 4.0 * (double) ((seen - n_tok) * h->n_kv * h->dim);
    snprintf(name, sizeof(name), "%s%s", h->name, fast ? "" : " (base path)");
    snprintf(shape, sizeof(shape), "%d tokens behind %d", n_tok, past);
    report(&r);
    attn_free(&c);
}

static void bench_decode(const struct attn_shape *h, int32_t past, int32_t n_seq)
{
    struct attn_case c = { .alone = true };
    int64_t seen = h->window > 0 && h->window < past ? h->window : past + 1;
    char name[48], shape[48];
    struct row r = { .name = name, .shape = shape, .limit = 2e-2 };

    attn_new(&c, h, past, n_seq);
    launch_attn(&c);
    check(cudaStreamSynchronize(stream));
    r.deviation = attn_deviation(&c);
    r.us = time_us(launch_attn, &c);
    r.flops = 4.0 * HEADS * h->dim * (double) (seen * n_seq);
    r.bytes = 6.0 * (double) c.n_q + 4.0 * (double) (seen * n_seq * h->n_kv * h->dim);
    snprintf(name, sizeof(name), "%s, decode", h->name);
    snprintf(shape, sizeof(shape), "%d of 1 token behind %d", n_seq, past);
    report(&r);
    attn_free(&c);
}

static void bench_attention(void)
{
    static const struct attn_shape shape[] = { { "attention sliding", 8, 256, 1024, 128 },
                                               { "attention global", 2, 512, 0, 64 } };
    static const int32_t one[][2] = { { 1024, 1 }, { 8192, 1 }, { 1024, 8 }, { 1024, 64 } };
    static const int32_t past[] = { 0, 4096, 6144 }, n_tok[] = { 128, 512, 2048 };

    for (int s = 0; s < 2; s++)
        for (int i = 0; i < 4; i++)
            if (only == 0 || only == one[i][1])
                bench_decode(&shape[s], one[i][0], one[i][1]);
    for (int s = 0; s < 2; s++)
        for (int p = 0; p < 3; p++)
            for (int n = 0; n < 3; n++)
                for (int fast = hopper.n_sm > 0; fast >= 0; fast--)
                    if (only == 0 || only == n_tok[n])
                        bench_attn(&shape[s], past[p], n_tok[n], fast != 0);
}

/* --- linear layers: all products of an op --- */

struct linear_shape { const char *name; int32_t n, cols; int64_t rows[LINEAR_MAX]; bool act; };
struct linear_case { struct linear dev; struct gemm_lt *lt; };

static void launch_linear(const void *p)
{
    const struct linear_case *c = p;
    const struct gemm *g = c->dev.g;

    if (gemm_skinny_cuda(&c->dev, smem_max, stream))
        return;
    for (int32_t i = 0; i < c->dev.n; i++)
        if (!gemm_lt_cuda(c->lt, &g[i], stream))
            gemm_tile_cuda(&g[i], stream);
    if (c->dev.act != NULL)
        geglu_cuda(&(struct geglu) { c->dev.act, g[0].y, g[1].y, g[0].n_row,
                                     (int32_t) g[0].w.rows, (int32_t) g[1].w.rows }, stream);
}

/* The twin takes the first and the last row of the last matrix. */
static double linear_deviation(const struct linear_case *c, const float *in,
                               const struct weights *w)
{
    const struct gemm *g = &c->dev.g[c->dev.n - 1];
    size_t rows = (size_t) w->host.rows, cols = (size_t) w->host.cols;
    float *got = malloc(2 * rows * sizeof(float)), *want = got + rows;
    double d = 0, max = 0;
    struct err e;

    if (got == NULL)
        check(cudaErrorMemoryAllocation);
    for (size_t k = 0; k < 2; k++) {
        size_t row = k * (size_t) (g->n_row - 1);

        op_linear(twin, &(struct linear) { .g = { { want, in + row * cols, w->host, 1 } },
                                           .n = 1 });
        be_step_end(twin, &e);
        check(cudaMemcpy(got, g->y + row * rows, rows * sizeof(float), cudaMemcpyDeviceToHost));
        for (size_t i = 0; i < rows; i++) {
            if (!isfinite(got[i]))
                return INFINITY;
            d = fmax(d, fabs((double) (got[i] - want[i])));
            max = fmax(max, fabs((double) want[i]));
        }
    }
    free(got);
    return max > 0 ? d / max : INFINITY;
}

/* w: the matrices of this shape; the activation, if there is one, is not compared: the last matrix
 * of such a shape is a router. */
static void bench_rows(const struct linear_shape *h, const struct weights *w, struct gemm_lt *lt,
                       int32_t n_row)
{
    struct linear_case c = { .lt = lt };
    float *in = numbers((size_t) n_row * (size_t) h->cols, 1);
    void *x = dev_halves(in, (size_t) n_row * (size_t) h->cols);
    char shape[32];
    struct row r = { .name = h->name, .shape = shape, .limit = 1e-4 };

    c.dev.n = h->n;
    c.dev.act = h->act ? dev((size_t) n_row * (size_t) h->rows[0] * 2) : NULL;
    for (int32_t i = 0; i < h->n; i++) {
        c.dev.g[i] = (struct gemm) { dev((size_t) n_row * (size_t) h->rows[i] * 4), x, w[i].dev,
                                     n_row };
        r.flops += 2.0 * n_row * (double) h->rows[i] * h->cols;
        r.bytes += 2.0 * (double) h->rows[i] * h->cols + 4.0 * n_row * (double) h->rows[i];
    }
    launch_linear(&c);
    check(cudaStreamSynchronize(stream));
    r.deviation = linear_deviation(&c, in, &w[h->n - 1]);
    r.us = time_us(launch_linear, &c);
    snprintf(shape, sizeof(shape), "%d rows", n_row);
    report(&r);

    for (int32_t i = 0; i < h->n; i++)
        cudaFree(c.dev.g[i].y);
    cudaFree(c.dev.act);
    cudaFree(x);
    free(in);
}

static void bench_linear(void)
{
    static const struct linear_shape shape[] = {
        { "linear qkv sliding", 3, HIDDEN, { 4096, 2048, 2048 }, false },
        { "linear qk global", 2, HIDDEN, { 8192, 1024 }, false },
        { "linear o sliding", 1, 4096, { HIDDEN }, false },
        { "linear o global", 1, 8192, { HIDDEN }, false },
        { "linear gate up router", 3, HIDDEN, { 2112, 2112, EXPERTS }, true },
        { "linear down", 1, 2112, { HIDDEN }, false },
        { "linear head", 1, HIDDEN, { 262144 }, false },
    };
    static const int32_t n_row[] = { 1, 8, 64, 2048 };
    struct gemm_lt *lt = gemm_lt_open();

    if (lt == NULL)
        check(cudaErrorSharedObjectInitFailed);
    for (size_t s = 0; s < sizeof(shape) / sizeof(shape[0]); s++) {
        struct weights w[LINEAR_MAX];

        for (int32_t i = 0; i < shape[s].n; i++)
            w[i] = weights_new(shape[s].rows[i], shape[s].cols, 7 + (uint64_t) i);
        for (size_t i = 0; i < sizeof(n_row) / sizeof(n_row[0]); i++)
            if ((only == 0 || only == n_row[i]) && (double) shape[s].rows[0] * n_row[i] < 1e8)
                bench_rows(&shape[s], w, lt, n_row[i]);
    }
    gemm_lt_close(lt);
}

static const struct { const char *name; void (*run)(void); } table[] = {
    { "moe", bench_experts }, { "attention", bench_attention }, { "linear", bench_linear },
};

int main(int argc, char **argv)
{
    struct backend_limits lim = { .n_thread = 16, .vocab = 8, .step_tok_max = TOK_MAX,
                                  .attn_scratch = 64, .seq_max = 1, .page_max = 1,
                                  .hidden = HIDDEN, .n_head = 1, .n_kv = { 1, 1 },
                                  .head_dim = { 16, 16 },
                                  .moe = { .n_expert = EXPERTS, .top_k = TOP_K,
                                           .hidden = HIDDEN, .ffn = FFN } };
    struct err e;
    int smem = 0;

    check(cudaStreamCreate(&stream));
    if (be_open_cpu(&twin, &lim, &e) < 0) {
        fprintf(stderr, "kernels: %s\n", e.msg);
        return 1;
    }
    flush = dev(FLUSH);
    hopper_open(&hopper);
    check(cudaDeviceGetAttribute(&smem, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    smem_max = (size_t) smem;
    for (int i = 0; i < EXPERTS; i++)
        ones[i] = 1;
    printf("kernel,shape,us,GB_s,TFLOP_s,floor_pct,deviation\n");
    only = argc > 2 ? atoi(argv[2]) : 0;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (argc == 1 || strcmp(argv[1], table[i].name) == 0)
            table[i].run();
    be_close(twin);
    return n_bad > 0;
}
