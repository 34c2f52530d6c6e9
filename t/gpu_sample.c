/* gpu_sample.c - from logits to ids, and these as the next step's input. */
#include "gpu.h"

static struct sample_row sample_case(int k, int32_t vocab)
{
    static const float temperature[] = { 0, 1, 0.7f, 1.5f };
    static const float top_p[] = { 1, 0.95f, 0.3f }, min_p[] = { 0, 0.05f };
    static const int32_t top_k[] = { 0, 64, 1, 5000 };

    return (struct sample_row) {
        .vocab = vocab, .target = k % 3 ? below(vocab) : -1, .pos = below(1000),
        .softcap = k % 2 ? 30 : 0, .n_top = k % 4 ? k % 4 * 5 : SAMPLE_TOP_MAX, .none = 1,
        .temperature = temperature[k % 4], .top_p = top_p[k / 4 % 3], .top_k = top_k[k / 12 % 4],
        .min_p = min_p[k / 48 % 2], .seed = next() };
}

/* The words of case k: each part of it in some, alone and together. Returns how many. */
static int32_t steer_case(int32_t *w, int k, int32_t vocab)
{
    struct steer_head h = { .repetition = 1, .force = -1 };
    int32_t n = sizeof(h) / sizeof(int32_t), mask = sample_mask_words(vocab), from = below(vocab);

    h.n_pend = k & 1;
    h.presence = k & 2 ? 1.5f : 0;
    h.frequency = k & 2 ? 0.25f : 0;
    h.repetition = k & 4 ? 1.3f : 1;
    for (int i = 0; (k & 8) && i < 50; i++, h.n_bias++)
        w[n++] = (from + 7 * i) % vocab;
    for (int i = 0; i < h.n_bias; i++, n++)
        memcpy(&w[n], &(float) { (float) (i % 9) - 4 }, sizeof(float));
    for (int i = 0; (k & 16) && i < 5; i++, h.n_stop++)
        w[n++] = below(vocab);
    for (int i = 0; (k & 16) && i < 40; i++, h.n_word += 2 + i % 2) {
        w[n++] = 1 + i % 2;                /* every id but a few may follow 11: so cases differ */
        if (i % 2)
            w[n++] = 11;
        w[n++] = below(vocab);
    }
    h.has_allow = (k & 32) != 0;
    for (int i = 0; h.has_allow && i < mask; i++)
        w[n++] = (int32_t) next();
    h.has_seen = (k & 4) != 0;
    for (int i = 0; h.has_seen && i < mask; i++)
        w[n++] = (int32_t) (next() & next());
    h.n_gen = k % 7 ? below(400) : 0;
    for (int i = 0; i < h.n_gen; i++)
        w[n++] = i == h.n_gen - 1 ? 11 : below(k % 2 ? 30 : vocab);
    if (k % 16 == 5)
        h.force = below(vocab);
    memcpy(w, &h, sizeof(h));
    return n;
}

/* n ints of a row for side i. The twin reads the caller's memory as it is when the op runs, so it
 * gets a copy, which the caller frees then. */
static const int32_t *row_input(int i, const int32_t *p, int32_t n)
{
    return i > 0 ? be_input(be[i], p, n) : memcpy(malloc((size_t) n * 4), p, (size_t) n * 4);
}

static void test_sample(int32_t vocab, float spread, bool steered)
{
    if (!mine(vocab > QUICK_VOCAB))
        return;

    enum { ROWS = 96, TOP = 1 + SAMPLE_TOP_MAX };
    static int32_t tok[2][ROWS], lp_id[2][ROWS * TOP];
    static float lp[2][ROWS * TOP];
    int32_t ban[3] = { 5, 17, vocab - 1 }, tail = 11, same = 0, ranks = 0;
    int32_t *words = malloc(((size_t) vocab / 16 + 1024) * sizeof(int32_t)), n_word;
    float *out[2] = { malloc((size_t) vocab * 4), malloc((size_t) vocab * 4) };
    struct sample_row row[2][32];

    memset(lp, 0, sizeof(lp));
    memset(lp_id, 0, sizeof(lp_id));
    for (int first = 0; first < ROWS; first += 32) {
        size_t n = (size_t) vocab * 32;
        struct two x = spread < 2 ? two_coarse(n, spread) : two_random(n, spread);

        for (int r = 0; r < 32; r++) {
            struct sample_row s = sample_case(first + r, vocab);

            n_word = steered ? steer_case(words, first + r, vocab) : 0;
            for (int i = 0; i < 2; i++) {
                row[i][r] = s;
                row[i][r].logits = x.p[i] + (size_t) r * (size_t) vocab;
                row[i][r].tok = &tok[i][first + r];
                row[i][r].lp_id = &lp_id[i][(first + r) * TOP];
                row[i][r].lp = &lp[i][(first + r) * TOP];
                row[i][r].logits_out = r == 7 ? out[i] : NULL;
                row[i][r].ban[0] = be_input(be[i], ban, 3);
                row[i][r].n_ban[0] = 3;
                row[i][r].tail = be_input(be[i], &tail, 1);
                row[i][r].steer = steered ? row_input(i, words, n_word) : NULL;
                tok[i][first + r] = -1;
            }
        }
        for (int i = 0; i < 2; i++)
            op_sample(be[i], row[i], 32);
        done();
        for (int r = 0; r < 32; r++)
            free((void *) row[0][r].steer);
        ok(error_of(out[1], out[0], (size_t) vocab) < 1e-5, "sample: logits out");
    }
    for (int r = 0; r < ROWS; r++) {
        same += tok[0][r] == tok[1][r];
        ranks += tok[0][r] != tok[1][r]
                 || memcmp(&lp_id[0][r * TOP], &lp_id[1][r * TOP], TOP * sizeof(int32_t)) == 0;
        if (tok[0][r] != tok[1][r]) {
            printf("# row %d: %d, not %d\n", r, tok[1][r], tok[0][r]);
            lp[1][r * TOP] = lp[0][r * TOP];
        }
    }
    /* Among so many ids a draw may lie between the two roundings of a sum: seen in 1 of 600. */
    ok(same >= ROWS - 2, "sample: %d ids: %d of %d draws are the twin's", vocab, same, ROWS);
    ok(error_of(lp[1], lp[0], ROWS * TOP) < 1e-5, "sample: %d ids: logprobs", vocab);
    /* two logits may change places when tanh rounds otherwise */
    ok(ranks >= ROWS - 8, "sample: %d ids: the best ids of %d of %d rows", vocab, ranks, ROWS);
    free(out[0]);
    free(out[1]);
    free(words);
}

/* Rows whose cuts lie on both sides of what the kernels sort, among logits that are far apart (0),
 * of few values (1), all equal (2) or next to each other (3); every second row without its best. */
static void test_cuts(int32_t vocab, int kind)
{
    if (!mine(vocab > QUICK_VOCAB))
        return;

    enum { CUTS = 16, ROWS = 2 * CUTS };
    const struct { int32_t top_k; float top_p, min_p; } cut[CUTS] = {
        { 1, 1, 0 }, { 63, 1, 0 }, { 64, 0.95f, 0 }, { 65, 1, 0 }, { 64, 1e-9f, 0 },
        { 64, 0.5f, 0.05f }, { 2047, 1, 0 }, { 2048, 0.9f, 0.01f }, { 2049, 1, 0 },
        { vocab - 1, 0.9f, 0 }, { vocab, 1, 0 }, { INT32_MAX, 0.95f, 0 }, { 0, 1e-9f, 0 },
        { 0, 0.9f, 0.02f }, { 0, 1, 0.02f }, { 0, 1, 0 } };
    size_t n = (size_t) vocab * ROWS;
    struct two x = two_new(n);
    float *v = malloc(n * sizeof(float));
    struct sample_row row[2][ROWS];
    int32_t tok[2][ROWS], best, same = 0;

    for (size_t i = 0; i < n; i++)
        v[i] = kind == 0 ? 12 * uniform() : kind == 1 ? (float) below(2000) / 64 - 9
               : kind == 2 ? -3 : 5 + (float) below(4096) * 0x1p-20f;
    two_set(&x, v);
    for (int r = 0; r < ROWS; r++) {
        size_t at = (size_t) r * (size_t) vocab;
        uint64_t seed = next();

        best = 0;
        for (int32_t i = 1; i < vocab; i++)
            best = v[at + (size_t) i] > v[at + (size_t) best] ? i : best;
        for (int i = 0; i < 2; i++) {
            row[i][r] = (struct sample_row) {
                .logits = x.p[i] + at, .tok = &tok[i][r], .ban = { row_input(i, &best, 1) },
                .n_ban = { r % 2 }, .none = -1, .vocab = vocab, .pos = r, .seed = seed,
                .temperature = r % 4 < 2 ? 1 : 0.7f, .top_k = cut[r / 2].top_k,
                .top_p = cut[r / 2].top_p, .min_p = cut[r / 2].min_p };
            tok[i][r] = -1;
        }
    }
    for (int i = 0; i < 2; i++)
        op_sample(be[i], row[i], ROWS);
    done();
    for (int r = 0; r < ROWS; r++) {
        free((void *) row[0][r].ban[0]);
        same += tok[0][r] == tok[1][r];
        if (tok[0][r] != tok[1][r])
            printf("# top_k %d top_p %g min_p %g: %d, not %d\n", row[0][r].top_k,
                   (double) row[0][r].top_p, (double) row[0][r].min_p, tok[1][r], tok[0][r]);
    }
    /* as above; sums of equals are exact */
    ok(same >= ROWS - (kind == 2 ? 0 : 1), "sample: %d ids, logits of kind %d: %d of %d draws are"
       " the twin's", vocab, kind, same, ROWS);
    free(v);
}

/* A number that is none ends its own row only, and the next step, which may begin with the ids of
 * both, has 0 in its place. */
static void test_bad(void)
{
    if (!mine(false))
        return;

    enum { N = 600 };
    struct two x = two_random(2 * 512, 1);
    int32_t id[N], from[N], want[N], got[N], last[2] = { 0, 99 };
    struct next_ids a = { want, id, from, last, N };
    struct sample_row row[2];
    float v[2 * 512] = { 0 };
    int32_t tok[2] = { 7, 7 };
    struct err e = { 0 };

    v[77] = NAN;
    v[512 + 99] = 1;
    be[1]->ops->put(be[1], x.p[1], v, sizeof(v));
    for (int i = 0; i < 2; i++)
        row[i] = (struct sample_row) { .logits = x.p[1] + 512 * i, .tok = &tok[i], .vocab = 512,
                                       .top_p = 1, .none = -1, .pos = 9 };
    op_sample(be[1], row, 2);
    is_int(be_sync(be[1], &e), 0, "a step with a logit that is no number");
    is_int(tok[0], SAMPLE_NONE, "its row has no token,");
    is_int(tok[1], 99, "the other has its own");

    for (int t = 0; t < N; t++) {
        id[t] = below(VOCAB);
        from[t] = below(3) - 1;
    }
    next_ids_ref(&a, 0, N);
    two_poison(&x);
    op_next_ids(be[1], &(struct next_ids) { .y = (int32_t *) x.p[1], .id = be_input(be[1], id, N),
                                  .from = be_input(be[1], from, N), .n_tok = N });
    done();
    be[1]->ops->get(be[1], got, x.p[1], sizeof(got));
    ok(memcmp(got, want, sizeof(got)) == 0, "ids of the step before, in the next");
}

void test_samples(void)
{
    for (int steered = 0; steered < 2; steered++) {
        test_sample(512, 8, steered);
        test_sample(QUICK_VOCAB, 12, steered);
        test_sample(VOCAB, 12, steered);
        test_sample(VOCAB, 1, steered);    /* full of ties */
    }
    for (int kind = 0; kind < 4; kind++) {
        test_cuts(512, kind);
        test_cuts(QUICK_VOCAB, kind);
        test_cuts(VOCAB, kind);
    }
    test_bad();
}
