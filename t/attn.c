/* attn.c - a layer whose K is V's projection: the cache without the duplicate (pages.h) against the
 * whole one, from the same raw numbers; copies of its pages; where each head's numbers lie. */
#include "tap.h"
#include "attn.h"

#include <math.h>
#include <stdlib.h>

enum { PAGE_TOK = 4, N_PAGE = 12, SEQ = 2, PAGE_MAX = N_PAGE / SEQ, TOK = SEQ * PAGE_MAX * PAGE_TOK,
       HEADS = 4, DIM_MAX = 512 };

struct shape { int32_t n_kv, dim, n_rot; };

static const struct shape shapes[] = {
    { 1, 32, 8 }, { 2, 64, 8 }, { 2, 64, 24 }, { 4, 48, 16 }, { 2, 512, 64 },
};

static uint32_t seed = 7;

static float uniform(void)
{
    seed = seed * 1664525 + 1013904223;
    return (float) (seed >> 8) / (1 << 23) - 1;
}

static float *numbers(size_t n, float scale)
{
    float *v = malloc(n * sizeof(float));

    for (size_t i = 0; i < n; i++)
        v[i] = scale * uniform();
    return v;
}

/* Both caches of one layer, and what is stored in them. */
struct both {
    struct shape    s;
    int32_t         n_tok, pos[TOK], seq[TOK], page[N_PAGE];
    float          *raw, *q, *y, *cs, *scratch;
    float           k_norm[DIM_MAX], q_norm[2][DIM_MAX];         /* [is shared] */
    struct kv_layer kv[2];
};

static size_t page_floats(const struct both *b, int32_t dim)
{
    return (size_t) (PAGE_TOK * b->s.n_kv * dim);
}

static void *poison(size_t n)
{
    void *p = malloc(n * sizeof(float));

    memset(p, 0xff, n * sizeof(float));
    return p;
}

/* Sequence 0 fills its pages, sequence 1 ends in the middle of one. */
static void setup(struct both *b, const struct shape *s)
{
    int32_t half = s->dim / 2;

    *b = (struct both) { .s = *s };
    for (int32_t i = 0; i < N_PAGE; i++)
        b->page[i] = (i * 5 + 3) % N_PAGE;
    for (int32_t t = 0; t < TOK - 2; t++) {
        b->seq[t] = t / (PAGE_MAX * PAGE_TOK);
        b->pos[t] = t % (PAGE_MAX * PAGE_TOK);
    }
    b->n_tok = TOK - 2;
    b->raw = numbers((size_t) (TOK * s->n_kv * s->dim), 3);
    b->q = numbers((size_t) (TOK * HEADS * s->dim), 3);
    b->y = numbers((size_t) (TOK * HEADS * s->dim), 1);
    b->cs = numbers((size_t) (TOK * 2 * s->n_rot), 1);
    b->scratch = numbers(attn_scratch(HEADS, s->n_kv, PAGE_MAX * PAGE_TOK), 1);
    for (int32_t i = 0; i < s->dim; i++) {
        b->k_norm[i] = 1 + 0.5f * uniform();
        b->q_norm[0][i] = b->q_norm[1][i] = 0.3f * uniform();
        if (i % half >= s->n_rot)
            b->q_norm[1][i] *= b->k_norm[i];
    }
    for (int shared = 0; shared < 2; shared++) {
        struct kv_layer *kv = &b->kv[shared];

        *kv = (struct kv_layer) { NULL, NULL, PAGE_TOK, s->n_kv, s->dim,
                                  shared ? 2 * s->n_rot : s->dim };
        kv->k = poison(N_PAGE * page_floats(b, kv->k_dim));
        kv->v = poison(N_PAGE * page_floats(b, s->dim));
    }
}

static void teardown(struct both *b)
{
    for (int i = 0; i < 2; i++) {
        free(b->kv[i].k);
        free(b->kv[i].v);
    }
    free(b->raw);
    free(b->q);
    free(b->y);
    free(b->cs);
    free(b->scratch);
}

static struct kv_map map_of(const struct both *b)
{
    return (struct kv_map) { b->pos, b->seq, b->page, PAGE_MAX, b->n_tok };
}

static void store(const struct both *b, int i)
{
    kv_store_ref(&(struct kv_store) { b->kv[i], map_of(b), b->raw, b->raw, b->k_norm, b->cs, 1e-6f,
                                      b->s.n_rot }, 0, b->n_tok);
}

/* Of the tokens from `from` on; the caller frees. */
static float *attend(const struct both *b, int i, int32_t window, int32_t from)
{
    size_t n = (size_t) (b->n_tok * HEADS * b->s.dim);
    float *q = malloc(n * sizeof(float)), *y = poison(n);

    memcpy(q, b->q, n * sizeof(float));
    norm_rope_ref(&(struct norm_rope) { q, b->q_norm[i], b->cs, 1e-6f, b->n_tok, HEADS, b->s.dim,
                                        b->s.n_rot }, 0, b->n_tok);
    attn_ref(&(struct attn) { y, q, b->kv[i], map_of(b), HEADS, window, SEQ, 0,
                              PAGE_MAX * PAGE_TOK, NULL },
             (int64_t) from * b->s.n_kv, (int64_t) b->n_tok * b->s.n_kv, b->scratch);
    free(q);
    return y;
}

static double deviation(const float *a, const float *b, size_t n)
{
    double d = 0, max = 0;

    for (size_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i]))
            return INFINITY;
        d = fmax(d, fabs((double) a[i] - b[i]));
        max = fmax(max, fabs((double) b[i]));
    }
    return d / max;
}

/* Every number of the shared cache is one of the whole one; what no token has is untouched. */
static void test_places(const struct both *b, const char *name)
{
    int32_t dim = b->s.dim, n_rot = b->s.n_rot, n = 0, bad = 0;
    struct kv_map map = map_of(b);
    const uint32_t *k = b->kv[1].k;

    for (int32_t h = 0; h < b->n_tok * b->s.n_kv; h++) {
        int32_t t = h / b->s.n_kv;
        size_t slot = kv_slot(&b->kv[0], &map, b->seq[t], b->pos[t]) + (size_t) (h % b->s.n_kv);
        const float *whole = (float *) b->kv[0].k + slot * (size_t) dim;
        const float *turned = (float *) b->kv[1].k + slot * (size_t) (2 * n_rot);

        bad += memcmp(turned, whole, (size_t) n_rot * sizeof(float)) != 0;
        bad += memcmp(turned + n_rot, whole + dim / 2, (size_t) n_rot * sizeof(float)) != 0;
    }
    is_int(bad, 0, "%s: the turned dims are those of the whole K", name);
    ok(memcmp(b->kv[0].v, b->kv[1].v, N_PAGE * page_floats(b, dim) * sizeof(float)) == 0,
       "%s: V is the same", name);
    for (size_t i = 0; i < N_PAGE * page_floats(b, 2 * n_rot); i++)
        n += k[i] == UINT32_MAX;
    is_int(n, (TOK - b->n_tok) * b->s.n_kv * 2 * n_rot, "%s: nothing else is written", name);
}

/* A page of sequence 0 goes over that which sequence 1 has at the same place. */
static void test_copy(struct both *b, const char *name)
{
    int32_t from = b->page[1], to = b->page[PAGE_MAX + 1];
    size_t n = page_floats(b, b->kv[1].k_dim), m = page_floats(b, b->s.dim);
    int32_t rows[4] = { from, to, -1, -1 };
    float *k = b->kv[1].k, *v = b->kv[1].v, *k0 = malloc(n * N_PAGE * sizeof(float)), *a, *y;
    int same = 1;

    memcpy(k0, k, n * N_PAGE * sizeof(float));
    for (int i = 0; i < 2; i++)
        kv_copy_ref(&(struct kv_copy) { b->kv[i], rows, 1, 4 }, 0, 1);
    for (int32_t p = 0; p < N_PAGE; p++)
        same &= memcmp(k + (size_t) p * n, k0 + (size_t) (p == to ? from : p) * n,
                       n * sizeof(float)) == 0;
    ok(same && memcmp(v + (size_t) to * m, v + (size_t) from * m, m * sizeof(float)) == 0,
       "%s: a page is copied, all others stay", name);
    free(k0);
    a = attend(b, 0, 0, PAGE_MAX * PAGE_TOK);
    y = attend(b, 1, 0, PAGE_MAX * PAGE_TOK);
    m = (size_t) (PAGE_MAX * PAGE_TOK * HEADS * b->s.dim);
    n = (size_t) (b->n_tok * HEADS * b->s.dim) - m;
    ok(deviation(y + m, a + m, n) < 1e-5, "%s: attention over the copy, deviation %.2g", name,
       deviation(y + m, a + m, n));
    free(a);
    free(y);
}

static void test_shape(const struct shape *s)
{
    static const int32_t window[] = { 0, 5 };
    struct both b;
    char name[80];

    snprintf(name, sizeof(name), "%d heads of %d, %d turned pairs", (int) s->n_kv, (int) s->dim,
             (int) s->n_rot);
    setup(&b, s);
    store(&b, 0);
    store(&b, 1);
    test_places(&b, name);
    for (int i = 0; i < 2; i++) {
        float *whole = attend(&b, 0, window[i], 0), *y = attend(&b, 1, window[i], 0);
        double d = deviation(y, whole, (size_t) (b.n_tok * HEADS * s->dim));

        ok(d < 1e-5, "%s, window %d: as with the whole K, deviation %.2g", name, (int) window[i],
           d);
        free(whole);
        free(y);
    }
    test_copy(&b, name);
    teardown(&b);
}

int main(void)
{
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        test_shape(&shapes[i]);
    return done_testing();
}
