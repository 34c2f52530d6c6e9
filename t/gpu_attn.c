/* gpu_attn.c - attention over pages: contexts, windows, heads and neighbours of every kind. */
#include "gpu.h"

/* Sequence s has n tokens up to position last; its pages are scattered. */
struct run { int32_t last, n; };
struct place { int32_t pos[TOK], seq[TOK], page[SEQ * PAGES], n_tok, n_seq, ctx, n_page; };

static void place_runs(struct place *p, const struct run *r, int32_t n_seq, int32_t window)
{
    p->n_tok = 0;
    p->n_seq = n_seq;
    p->ctx = 1;
    for (int32_t s = 0; s < n_seq; s++) {
        for (int32_t i = 0; i < r[s].n; i++) {
            p->pos[p->n_tok] = r[s].last - r[s].n + 1 + i;
            p->seq[p->n_tok++] = s;
        }
        p->ctx = r[s].last >= p->ctx ? r[s].last + 1 : p->ctx;
    }
    p->n_page = (p->ctx - 1) / PAGE_TOK + 1;
    for (int32_t s = 0; s < n_seq; s++) {
        int32_t first = r[s].last - r[s].n + 1 - window + 1;

        for (int32_t k = 0; k < p->n_page; k++) {
            p->page[s * p->n_page + k] = (p->n_page - 1 - k) * n_seq + s;
            if (window > 0 && (k + 1) * PAGE_TOK <= first)
                p->page[s * p->n_page + k] = -1;
        }
    }
}

/* What lies behind a sequence's last token in its page is no number. */
static void poison_tails(const struct kv_layer kv[2], const struct place *p, const struct run *r)
{
    size_t wide = (size_t) (kv->n_kv * kv->head_dim) * 4;
    size_t k_wide = (size_t) (kv->n_kv * kv->k_dim) * 4;
    char *nan = malloc(PAGE_TOK * wide);

    memset(nan, 0xff, PAGE_TOK * wide);
    for (int32_t s = 0; s < p->n_seq; s++) {
        int32_t page = p->page[s * p->n_page + r[s].last / PAGE_TOK], n = r[s].last % PAGE_TOK + 1;
        size_t at = (size_t) (page * PAGE_TOK + n), more = (size_t) (PAGE_TOK - n);

        for (int i = 0; i < 2; i++) {                          /* bf16 is half as wide */
            be[i]->ops->put(be[i], (char *) kv[i].k + (at * k_wide >> i), nan, more * k_wide >> i);
            be[i]->ops->put(be[i], (char *) kv[i].v + (at * wide >> i), nan, more * wide >> i);
        }
    }
    free(nan);
}

static struct kv_map map_of(int i, const struct place *p)
{
    return (struct kv_map) { be_input(be[i], p->pos, p->n_tok), be_input(be[i], p->seq, p->n_tok),
                             be_input(be[i], p->page, p->n_seq * p->n_page), p->n_page,
                             p->n_tok };
}

struct heads { int32_t n_head, n_kv, dim, k_dim, window; };

/* The tokens of r, and pages for them that hold numbers up to the last of each sequence. */
static void place_heads(struct place *p, struct kv_layer kv[2], const struct heads *h,
                        const struct run *r, int32_t n_seq)
{
    place_runs(p, r, n_seq, h->window);
    kv_new(kv, n_seq * p->n_page, h->n_kv, h->dim, h->k_dim);
    poison_tails(kv, p, r);
}

static void test_attn(const struct heads *h, const struct run *r, int32_t n_seq)
{
    if (!mine(r->last > 3000 || n_seq > 64))
        return;

    static struct place p;
    struct kv_layer kv[2];
    struct two q, k, v, w, wq, cs, y;
    bool donor = n_seq == 2;               /* another layer has stored the keys */
    int32_t n_one = 0;
    char name[150];

    place_heads(&p, kv, h, r, n_seq);
    while (n_one < n_seq && r[n_one].n == 1)
        n_one++;
    q = two_random((size_t) (p.n_tok * h->n_head * h->dim), 5);
    k = two_random((size_t) (p.n_tok * h->n_kv * h->dim), 3);
    v = h->window > 0 && h->k_dim == h->dim ? two_random(k.n, 3) : k;
    w = two_random((size_t) h->dim, 0.5f);
    wq = h->k_dim < h->dim ? two_random((size_t) h->dim, 0.15f) : w;       /* K's is in it */
    cs = two_random((size_t) (p.n_tok * h->dim), 1);
    y = two_new(q.n);
    two_poison(&y);
    for (int i = 0; i < 2; i++) {
        int32_t n_rot = h->k_dim < h->dim ? h->k_dim / 2 : h->dim == 512 ? 64 : h->dim / 2;
        struct kv_map map = map_of(i, &p);

        op_attn_layer(be[i], &(struct attn_layer) {
            .rope = { q.p[i], wq.p[i], cs.p[i], 1e-6f, p.n_tok, h->n_head, h->dim, n_rot },
            .store = { .kv = kv[i], .map = map, .k = donor ? NULL : k.p[i], .v = v.p[i],
                       .w = w.p[i], .cs = cs.p[i], .eps = 1e-6f, .n_rot = n_rot },
            .attn = { y.p[i], q.p[i], kv[i], map, h->n_head, h->window, n_seq, n_one, p.ctx,
                      NULL } });
    }
    snprintf(name, sizeof(name), "attn %d/%d x %d (%d), window %d: %d tokens of %d up to %d",
             h->n_head, h->n_kv, h->dim, h->k_dim, h->window, p.n_tok, n_seq, p.ctx - 1);
    compare_act(&y, y.n, 2e-2, name);      /* q, k and the softmax are rounded to bf16 */
    kv_compare(kv, n_seq * p.n_page, name);
}

/* Tokens behind n_own get the result of the last before, the others the same bits as without. */
static void test_attn_copies(const struct heads *h)
{
    if (!mine(false))
        return;

    enum { N = 5, OWN = 3 };
    static const struct run r[N] = { { 90, 1 }, { 1100, 1 }, { 1040, 1 }, { 7, 1 }, { 9, 1 } };
    static const int32_t own = OWN;
    static struct place p;
    size_t row = (size_t) (h->n_head * h->dim);
    struct kv_layer kv[2];
    struct two q, k, cs, y;
    float *got[2];
    int right;

    place_heads(&p, kv, h, r, N);
    q = two_random(N * row, 5);
    k = two_random((size_t) (N * h->n_kv * h->dim), 3);
    cs = two_random((size_t) (N * h->dim), 1);
    y = two_new(q.n);
    for (int copies = 0; copies < 2; copies++) {
        struct kv_map map = map_of(1, &p);

        two_poison(&y);
        op_attn_layer(be[1], &(struct attn_layer) {
            .rope = { q.p[1], NULL, cs.p[1], 1e-6f, N, h->n_head, h->dim, h->k_dim / 2 },
            .store = { .kv = kv[1], .map = map, .k = k.p[1], .v = k.p[1], .cs = cs.p[1],
                       .eps = 1e-6f, .n_rot = h->k_dim / 2 },
            .attn = { y.p[1], q.p[1], kv[1], map, h->n_head, h->window, N, N, p.ctx,
                      copies ? be_input(be[1], &own, 1) : NULL } });
        done();
        got[copies] = get_halves(y.p[1], y.n);
    }
    right = memcmp(got[0], got[1], OWN * row * sizeof(float)) == 0;
    for (int i = OWN; i < N; i++)
        right &= memcmp(got[1] + (OWN - 1) * row, got[1] + (size_t) i * row,
                        row * sizeof(float)) == 0;
    for (size_t i = 0; i < N * row; i++)
        right &= isfinite(got[1][i]);
    ok(right, "attn %d/%d x %d (%d), window %d: copies of a token", h->n_head, h->n_kv, h->dim,
       h->k_dim, h->window);
    free(got[0]);
    free(got[1]);
}

/* As many alone as there are in a launch, and more; at last a chunk beside them. */
static void test_crowd(const struct heads *h)
{
    struct run r[SEQ];

    for (int i = 0; i < SEQ; i++)
        r[i] = (struct run) { below(40), 1 };
    r[SEQ - 1] = (struct run) { 60, 20 };
    test_attn(h, r, ATTN_DECODE_TOK);
    test_attn(h, r, ATTN_DECODE_TOK + 1);
    test_attn(h, r, SEQ);
}

void test_attention(void)
{
    static const struct heads heads[] = {
        { 16, 8, 256, 256, 1024 }, { 16, 2, 512, 512, 0 }, { 4, 2, 16, 16, 16 },
        { 4, 1, 32, 32, 0 }, { 4, 1, 64, 64, 0 }, { 6, 2, 128, 128, 40 }, { 16, 1, 256, 256, 512 },
        /* K without what V has */
        { 16, 2, 512, 128, 0 }, { 16, 1, 512, 128, 0 }, { 4, 1, 64, 16, 0 }, { 6, 2, 48, 32, 20 },
    };
    static const struct heads odd[] = { { 12, 4, 256, 256, 100 }, { 12, 2, 512, 512, 0 },
                                        { 12, 2, 512, 128, 0 }, { 5, 1, 272, 48, 0 },
                                        { 5, 1, 272, 272, 0 }, { 16, 1, 272, 272, 30 },
                                        { 16, 1, 64, 64, 0 }, { 16, 1, 512, 512, 0 } };
    static const int32_t last[] = { 0, 1, 14, 15, 16, 17, 31, 32, 127, 128, 511, 512, 1022, 1023,
                                    1024, 1025, 2100 };
    static const struct run decode[] = { { 0, 1 }, { 33, 1 }, { 1023, 1 }, { 1024, 1 }, { 9, 1 } };
    static const struct run chunk[] = { { 119, 20 } };
    static const struct run mixed[] = { { 90, 1 }, { 69, 70 }, { 5, 1 } };
    static const struct run two[] = { { 99, 100 }, { 1100, 77 } };
    const struct run prompt[] = { { quick ? 399 : 1299, 200 } };
    static const struct run beside[] = { { 1023, 1 }, { 1024, 1 }, { 1102, 99 }, { 31, 1 },
                                         { 1025, 1 }, { 64, 65 } };
    static const struct run pair[] = { { 40, 1 }, { 1100, 1 } };
    static const int32_t behind[] = { 0, 1, 7, 8, 63, 64, 65, 120, 127, 4096 };
    static struct run ends[16], many[64], few[20];

    for (int i = 0; i < 16; i++)
        ends[i] = (struct run) { last[i], 1 };
    for (int i = 0; i < 20; i++)
        few[i] = (struct run) { 3 + 41 * i, 4 - i % 3 };
    for (int i = 0; i < 64; i++)
        many[i] = (struct run) { below(300), 1 };
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        for (size_t k = 0; k < sizeof(last) / sizeof(last[0]); k += quick ? 4 : 1)
            test_attn(&heads[i], &(struct run) { last[k], 1 }, 1);
        test_attn(&heads[i], ends, 16);
        test_attn(&heads[i], decode, 5);
        test_attn(&heads[i], chunk, 1);
        test_attn(&heads[i], mixed, 3);
        test_attn(&heads[i], prompt, 1);
        test_attn(&heads[i], two, 2);
        test_attn(&heads[i], beside, 6);
        /* the first row's, the last row's */
        for (int32_t edge = 1022; edge < 1026 && (!quick || heads[i].window == 1024); edge++) {
            test_attn(&heads[i], &(struct run) { edge + 64, 65 }, 1);
            test_attn(&heads[i], &(struct run) { edge, 129 }, 1);
        }
        test_attn(&heads[i], pair, 2);
        if (heads[i].k_dim == heads[i].dim || heads[i].dim == 512)
            test_attn_copies(&heads[i]);
        test_attn(&heads[i], many, 64);
        test_crowd(&heads[i]);
    }
    /* tiles of tokens and of keys that begin and end anywhere */
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        for (size_t k = 0; heads[i].dim == 512 && k < sizeof(behind) / sizeof(behind[0]); k++)
            test_attn(&heads[i], &(struct run) { behind[k] + 69, 70 }, 1);
        if (heads[i].dim == 512)
            test_attn(&heads[i], few, 20);
    }
    /* groups that do not fill a tile's rows, and those of 16 of each width */
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        test_attn(&odd[i], decode, 5);
        test_attn(&odd[i], prompt, 1);
        test_attn(&odd[i], beside, 6);
    }
    /* contexts whose parts are longer, beside one whose are not */
    test_attn(&heads[3], (struct run[]) { { 9000, 1 }, { 8190, 1 }, { 8330, 1 } }, 3);
    test_attn(&heads[3], (struct run[]) { { 9000, 66 } }, 1);
    test_attn(&heads[7], (struct run[]) { { 9000, 1 }, { 8190, 1 }, { 8330, 1 } }, 3);
}
