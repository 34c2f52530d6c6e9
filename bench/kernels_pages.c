/* kernels_pages.c - heads and pages, each op alone as the path for every GPU launches it: norms and
 * turns of the queries, the store of keys and values, copies of pages. Elsewhere attention does the
 * first two itself (kernels_attn.c). */
#include "kernels.h"

enum { PAGE_TOK = 16 };

static const struct heads { const char *name; int32_t n_kv, dim, k_dim, n_rot; } heads[] = {
    { "sliding", 8, 256, 256, 128 }, { "global", 2, 512, 128, 64 },
};

static char name[32], shape[32];

static struct row row_of(const char *op, const struct heads *h, int32_t n_tok, double limit)
{
    snprintf(name, sizeof(name), "%s %s", op, h->name);
    snprintf(shape, sizeof(shape), "%d tokens", n_tok);
    return (struct row) { .name = name, .shape = shape, .limit = limit };
}

static double us_of(launch_fn *launch, const void *arg, int32_t n_tok)
{
    return n_tok > CHAIN_TOK ? time_us(launch, arg) : chain_us(launch, arg, 0, 1);
}

static void launch_rope(const void *p)
{
    norm_rope_cuda(p, stream);
}

static void launch_store(const void *p)
{
    kv_store_cuda(p, stream);
}

static void launch_copy(const void *p)
{
    kv_copy_cuda(p, stream);
}

/* In place, so what the first launch has left is compared. */
static void bench_rope(const struct heads *h, int32_t n_tok)
{
    size_t n = (size_t) (n_tok * HEADS * h->dim), n_cs = (size_t) (n_tok * 2 * h->n_rot);
    float *w = numbers((size_t) h->dim, 1), *cs = numbers(n_cs, 1);
    struct norm_rope host = { numbers(n, 4), w, cs, 1e-6f, n_tok, HEADS, h->dim, h->n_rot };
    struct norm_rope d = host;
    struct row r = row_of("norm and turn", h, n_tok, 1e-5);

    r.bytes = 8.0 * (double) n + 4.0 * (double) n_cs;
    d.q = dev_floats(host.q, n);
    d.w = dev_floats(w, (size_t) h->dim);
    d.cs = dev_floats(cs, n_cs);
    launch_rope(&d);
    check(cudaStreamSynchronize(stream));
    norm_rope_ref(&host, 0, n_tok);
    r.deviation = deviation_floats(d.q, host.q, n);
    r.us = us_of(launch_rope, &d, n_tok);
    report(&r);
    cudaFree(d.q);
    cudaFree((void *) (uintptr_t) d.w);
    cudaFree((void *) (uintptr_t) d.cs);
    free(host.q);
    free(cs);
    free(w);
}

/* Pages of the same numbers on both sides. */
struct pages { struct kv_layer host, dev; size_t n_k, n_v; };

static struct pages pages_new(const struct heads *h, int32_t n_page)
{
    size_t rows = (size_t) (n_page * PAGE_TOK * h->n_kv);
    struct pages p = { .n_k = rows * (size_t) h->k_dim, .n_v = rows * (size_t) h->dim };

    p.host = (struct kv_layer) { numbers(p.n_k, 1), numbers(p.n_v, 2), PAGE_TOK, h->n_kv, h->dim,
                                 h->k_dim };
    p.dev = p.host;
    p.dev.k = dev_halves(p.host.k, p.n_k);
    p.dev.v = dev_halves(p.host.v, p.n_v);
    return p;
}

static double pages_deviation(const struct pages *p)
{
    return fmax(deviation_halves(p->dev.k, p->host.k, p->n_k),
                deviation_halves(p->dev.v, p->host.v, p->n_v));
}

static void pages_free(const struct pages *p)
{
    cudaFree(p->dev.k);
    cudaFree(p->dev.v);
    free(p->host.k);
    free(p->host.v);
}

/* Few tokens are alone in their sequences, many are one; pages stand the other way round. */
static struct kv_map map_new(int32_t n_tok, int32_t n_page)
{
    bool alone = n_page == n_tok;
    int32_t *pos = malloc((size_t) n_tok * 4), *seq = malloc((size_t) n_tok * 4);
    int32_t *page = malloc((size_t) n_page * 4);

    if (pos == NULL || seq == NULL || page == NULL)
        check(cudaErrorMemoryAllocation);
    for (int32_t i = 0; i < n_tok; i++) {
        pos[i] = alone ? i % PAGE_TOK : i;
        seq[i] = alone ? i : 0;
    }
    for (int32_t i = 0; i < n_page; i++)
        page[i] = n_page - 1 - i;
    return (struct kv_map) { pos, seq, page, alone ? 1 : n_page, n_tok };
}

static void map_free(const struct kv_map *host, const struct kv_map *d)
{
    cudaFree((void *) (uintptr_t) d->pos);
    cudaFree((void *) (uintptr_t) d->seq);
    cudaFree((void *) (uintptr_t) d->page);
    free((void *) (uintptr_t) host->pos);
    free((void *) (uintptr_t) host->seq);
    free((void *) (uintptr_t) host->page);
}

/* Of global layers the raw projection is both k and v. */
static void bench_store(const struct heads *h, int32_t n_tok)
{
    int32_t n_page = n_tok <= CHAIN_TOK ? n_tok : n_tok / PAGE_TOK;
    size_t n = (size_t) (n_tok * h->n_kv * h->dim), n_cs = (size_t) (n_tok * 2 * h->n_rot);
    bool whole = h->k_dim == h->dim;
    float *w = numbers((size_t) h->dim, 1), *cs = numbers(n_cs, 1);
    float *k = numbers(n, 4), *v = whole ? numbers(n, 2) : k;
    struct pages p = pages_new(h, n_page);
    struct kv_store host = { p.host, map_new(n_tok, n_page), k, v, w, cs, 1e-6f, h->n_rot };
    struct kv_store d = host;
    struct row r = row_of("kv store", h, n_tok, 4e-3);

    r.bytes = (whole ? 8.0 : 4.0) * (double) n + 4.0 * (double) n_cs
              + 2.0 * (double) (n_tok * h->n_kv) * (h->k_dim + h->dim);
    d.kv = p.dev;
    d.map.pos = dev_copy(host.map.pos, (size_t) n_tok * 4);
    d.map.seq = dev_copy(host.map.seq, (size_t) n_tok * 4);
    d.map.page = dev_copy(host.map.page, (size_t) n_page * 4);
    d.k = dev_floats(k, n);
    d.v = whole ? dev_floats(v, n) : d.k;
    d.w = dev_floats(w, (size_t) h->dim);
    d.cs = dev_floats(cs, n_cs);
    launch_store(&d);
    check(cudaStreamSynchronize(stream));
    r.us = us_of(launch_store, &d, n_tok);
    kv_store_ref(&host, 0, n_tok);
    r.deviation = pages_deviation(&p);
    report(&r);
    map_free(&host.map, &d.map);
    pages_free(&p);
    cudaFree((void *) (uintptr_t) d.k);
    if (whole) {
        cudaFree((void *) (uintptr_t) d.v);
        free(v);
    }
    cudaFree((void *) (uintptr_t) d.w);
    cudaFree((void *) (uintptr_t) d.cs);
    free(k);
    free(cs);
    free(w);
}

/* The pages of so many tokens, from the first half of the pool to the second. */
static void bench_copy(const struct heads *h, int32_t n_tok)
{
    int32_t n = (n_tok + PAGE_TOK - 1) / PAGE_TOK;
    int32_t *from_to = malloc((size_t) n * 2 * 4);
    struct pages p = pages_new(h, 2 * n);
    struct kv_copy host = { p.host, from_to, n, 2 }, d = { p.dev, NULL, n, 2 };
    struct row r = row_of("kv copy", h, n_tok, 0);

    if (from_to == NULL)
        check(cudaErrorMemoryAllocation);
    for (int32_t i = 0; i < n; i++) {
        from_to[2 * i] = i;
        from_to[2 * i + 1] = 2 * n - 1 - i;
    }
    r.bytes = 2.0 * (double) (p.n_k + p.n_v);          /* half of them, read and written */
    d.from_to = dev_copy(from_to, (size_t) n * 2 * 4);
    launch_copy(&d);
    check(cudaStreamSynchronize(stream));
    r.us = us_of(launch_copy, &d, n_tok);
    kv_copy_ref(&host, 0, n);
    r.deviation = pages_deviation(&p);
    report(&r);
    cudaFree((void *) (uintptr_t) d.from_to);
    pages_free(&p);
    free(from_to);
}

void bench_pages(void)
{
    static const int32_t n_tok[] = { 1, 64, TOK_MAX };

    for (size_t i = 0; i < sizeof(n_tok) / sizeof(n_tok[0]); i++)
        for (size_t k = 0; k < sizeof(heads) / sizeof(heads[0]); k++) {
            if (!wanted(n_tok[i]))
                continue;
            bench_rope(&heads[k], n_tok[i]);
            bench_store(&heads[k], n_tok[i]);
            bench_copy(&heads[k], n_tok[i]);
        }
}
