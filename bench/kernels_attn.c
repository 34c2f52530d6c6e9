/* kernels_attn.c - attention: one sequence, n_tok tokens behind `past`, or n_tok sequences of one
 * each. */
#include "kernels.h"
#include "bucket.h"

enum { PAGE_TOK = 16, PROBES = 4 };

struct attn_shape { const char *name; int32_t n_kv, dim, k_dim, window, n_rot; };

/* host and dev: the same layer; its tokens all in one array. n: numbers in q, in raw k or v, in the
 * pages. */
struct attn_case {
    struct attn_layer host, dev;
    void             *scratch;
    bool              fast, alone;
    size_t            n_q, n_k, k_page, v_page;
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

/* The class of the longest context of a step. */
static int32_t step_ctx(int32_t n)
{
    return bucket_ctx(&(struct buckets) { 1, INT32_MAX }, n);
}

static void attn_new(struct attn_case *c, const struct attn_shape *h, int32_t past, int32_t n_tok)
{
    struct kv_map map = attn_map(past, n_tok, c->alone), on_dev = map;
    int32_t n_seq = c->alone ? n_tok : 1, n_page = n_seq * map.page_max;
    size_t heads = (size_t) n_page * (size_t) (PAGE_TOK * h->n_kv);
    size_t n_cs = (size_t) (n_tok * 2 * h->n_rot);
    struct kv_layer kv = { NULL, NULL, PAGE_TOK, h->n_kv, h->dim, h->k_dim };
    struct attn_layer *l = &c->host, *d = &c->dev;
    float *raw;

    c->n_q = (size_t) (n_tok * HEADS * h->dim);
    c->n_k = (size_t) (n_tok * h->n_kv * h->dim);
    c->k_page = heads * (size_t) h->k_dim;
    c->v_page = heads * (size_t) h->dim;
    kv.k = numbers(c->k_page, 1);
    kv.v = numbers(c->v_page, 1);
    raw = numbers(c->n_k, 4);
    /* where K is not whole, the queries' weight is in most dims that of both */
    l->rope = (struct norm_rope) { numbers(c->n_q, 4),
                                   numbers((size_t) h->dim, h->k_dim < h->dim ? 0.125f : 0.5f),
                                   numbers(n_cs, 1), 1e-6f, n_tok, HEADS, h->dim, h->n_rot };
    l->store = (struct kv_store) { kv, map, raw, h->k_dim < h->dim ? raw : numbers(c->n_k, 4),
                                   l->rope.w, l->rope.cs, 1e-6f, h->n_rot };
    l->attn = (struct attn) { malloc(c->n_q * sizeof(float)), l->rope.q, kv, map, HEADS, h->window,
                              n_seq, c->alone ? n_tok : 0,
                              step_ctx(past + (c->alone ? 1 : n_tok)), NULL };

    *d = *l;
    on_dev.pos = dev_copy(map.pos, (size_t) n_tok * 4);
    on_dev.seq = dev_copy(map.seq, (size_t) n_tok * 4);
    on_dev.page = dev_copy(map.page, (size_t) n_page * 4);
    d->store.kv.k = dev_halves(kv.k, c->k_page);
    d->store.kv.v = dev_halves(kv.v, c->v_page);
    d->store.map = d->attn.map = on_dev;
    d->store.k = dev_floats(l->store.k, c->n_k);
    d->store.v = l->store.v == raw ? d->store.k : dev_floats(l->store.v, c->n_k);
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
    bool one = l->store.v == l->store.k;
    const void *host[] = { l->rope.q, l->rope.w, l->rope.cs, l->store.k,
                           one ? NULL : l->store.v, l->store.kv.k, l->store.kv.v,
                           l->store.map.pos, l->store.map.seq, l->store.map.page, l->attn.y };
    const void *gpu[] = { d->rope.q, d->rope.w, d->rope.cs, d->store.k,
                          one ? NULL : d->store.v, d->store.kv.k, d->store.kv.v,
                          d->store.map.pos, d->store.map.seq, d->store.map.page, d->attn.y,
                          c->scratch };

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
    int32_t n = n_tok < PROBES ? n_tok : PROBES;           /* the twin turns q in place: once */
    size_t row = c->n_q / (size_t) n_tok;
    float *scratch = malloc(attn_scratch(HEADS, n_kv, l->attn.ctx) * sizeof(float));
    double d = 0;

    if (scratch == NULL)
        check(cudaErrorMemoryAllocation);
    kv_store_ref(&l->store, 0, n_tok);
    for (int64_t i = 0; i < n; i++) {
        int64_t t = i * (n_tok - 1) / (n > 1 ? n - 1 : 1);
        size_t at = (size_t) t * row;

        norm_rope_ref(&l->rope, t, t + 1);
        attn_ref(&l->attn, t * n_kv, (t + 1) * n_kv, scratch);
        d = fmax(d, deviation_halves((char *) c->dev.attn.y + at * 2,
                                     (const float *) l->attn.y + at, row));
    }
    free(scratch);
    return d;
}

/* q is read and y written, raw keys and values read and stored, `old` keys of the pages read. */
static double attn_bytes(const struct attn_case *c, const struct attn_shape *h, int64_t old)
{
    double raw = c->host.store.k == c->host.store.v ? 4 : 8, heads = (double) c->n_k / h->dim;
    double key = 2.0 * (h->k_dim + h->dim);

    return 6.0 * (double) c->n_q + (raw * h->dim + key) * heads + key * (double) (old * h->n_kv);
}

/* In a chain each launch has pages of its own. */
static double attn_chain_us(const struct attn_case *c, double bytes)
{
    int n = chain_copies(bytes);
    struct attn_case all[64];
    double us;

    for (int k = 0; k < n; k++) {
        struct kv_layer *kv = &all[k].dev.store.kv;

        all[k] = *c;
        if (k > 0) {
            kv->k = dev_copy(kv->k, c->k_page * 2);
            kv->v = dev_copy(kv->v, c->v_page * 2);
        }
        all[k].dev.attn.kv = *kv;
    }
    us = chain_us(launch_attn, all, sizeof(all[0]), n);
    for (int k = 1; k < n; k++) {
        cudaFree(all[k].dev.store.kv.k);
        cudaFree(all[k].dev.store.kv.v);
    }
    return us;
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
    for (int32_t i = 0; i < n_tok; i++)
        r.flops += 4.0 * HEADS * h->dim
                   * (h->window > 0 && past + i >= h->window ? h->window : past + i + 1);
    r.bytes = attn_bytes(&c, h, seen - n_tok);
    r.us = n_tok > CHAIN_TOK ? time_us(launch_attn, &c) : attn_chain_us(&c, r.bytes);
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
    r.flops = 4.0 * HEADS * h->dim * (double) (seen * n_seq);
    r.bytes = attn_bytes(&c, h, (seen - 1) * n_seq);
    r.us = attn_chain_us(&c, r.bytes);
    snprintf(name, sizeof(name), "%s decode", h->name);
    snprintf(shape, sizeof(shape), "%d of 1 token behind %d", n_seq, past);
    report(&r);
    attn_free(&c);
}

void bench_attention(void)
{
    static const struct attn_shape shape[] = {
        { "attention sliding", 8, 256, 256, 1024, 128 },
        { "attention global", 2, 512, 128, 0, 64 },
        { "attention global (whole K)", 2, 512, 512, 0, 64 },
    };
    static const int32_t one[][2] = { { 1024, 1 }, { 8192, 1 }, { 1024, 8 }, { 1024, 64 },
                                      { 8192, 64 }, { 131071, 1 } };
    static const int32_t many[][2] = { { 0, 128 }, { 0, 512 }, { 0, 2048 }, { 0, 8192 },
                                       { 4096, 64 }, { 4096, 128 }, { 4096, 512 }, { 4096, 2048 },
                                       { 6144, 128 }, { 6144, 512 }, { 6144, 2048 } };
    const int n_many = sizeof(many) / sizeof(many[0]), n_one = sizeof(one) / sizeof(one[0]);

    for (int s = 0; s < 3; s++)
        for (int i = 0; i < (shape[s].window > 0 ? 4 : n_one); i++)  /* no window sees more */
            if (wanted(one[i][1]))
                bench_decode(&shape[s], one[i][0], one[i][1]);
    /* Contexts of so few tokens that they are split are the base path's, on Hopper too. */
    for (int s = 0; s < 3; s++)
        for (int i = 0; i < n_many; i++)
            for (int fast = hopper.n_sm > 0 && many[i][1] > ATTN_SPLIT_TOK; fast >= 0; fast--)
                if (wanted(many[i][1]))
                    bench_attn(&shape[s], many[i][0], many[i][1], fast != 0);
}
