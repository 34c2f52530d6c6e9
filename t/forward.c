/* forward.c - the tiny checkpoints of t/golden against transformers in float64; the same tokens in
 * any chunks, batches and threads, bit by bit; broken checkpoints and their one line. */
#include "tap.h"
#include "json.h"
#include "model.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE_TOK = 4, PAGE_MAX = 32, SEQ_MAX = 4, TOK_MAX = 80, LEN_MAX = 128, VOCAB_MAX = 512,
       CASE_MAX = 8 };

struct want {                              /* one line of expected.jsonl */
    int32_t n, n_greedy, tok[LEN_MAX], greedy[32];
    float   logprob[LEN_MAX], logits[VOCAB_MAX];
};

static struct want want[CASE_MAX];
static int n_want;

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "r");
    char *p = malloc(1 << 20);

    *n = f != NULL && p != NULL ? fread(p, 1, 1 << 20, f) : 0;
    if (f != NULL)
        fclose(f);
    return p;
}

static int floats(const struct json *o, const char *key, float *f, int32_t *i)
{
    int n = 0;

    for (const struct json *j = json_get(o, key)->child; j != NULL; j = j->next, n++) {
        double d = 0;

        json_double(j, &d);
        if (f != NULL)
            f[n] = (float) d;
        else
            i[n] = (int32_t) d;
    }
    return n;
}

static void load_want(const char *name)
{
    struct json_limits lim = { 1 << 20, 8, 100000 };
    char path[256], *p, *line, *save = NULL;
    size_t n;

    n_want = 0;
    snprintf(path, sizeof(path), "t/golden/%s/expected.jsonl", name);
    p = slurp(path, &n);
    p[n] = '\0';
    for (line = strtok_r(p, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        struct want *w = &want[n_want];
        const struct json *root;
        struct json_doc *doc;
        struct err e;

        if (json_parse(&doc, &root, line, strlen(line), &lim, &e) < 0)
            break;
        w->n = floats(root, "prompt", NULL, w->tok);
        w->n_greedy = floats(root, "greedy", NULL, w->greedy);
        floats(root, "logprob_of_next", w->logprob, NULL);
        floats(root, "last_logits", w->logits, NULL);
        json_free(doc);
        n_want++;
    }
    free(p);
}

static struct model *open_dir(const char *dir, int n_thread, struct err *e)
{
    struct model_limits lim = {
        .kv = { PAGE_TOK, SEQ_MAX * PAGE_MAX, SEQ_MAX * PAGE_MAX },
        .step_tok_max = TOK_MAX, .seq_max = SEQ_MAX, .page_max = PAGE_MAX, .n_thread = n_thread };
    struct model_conf c;
    struct model *m = NULL;

    if (model_conf_load(&c, dir, e) < 0 || model_open(&m, dir, &c, &lim, NULL, NULL, e) < 0)
        return NULL;
    return m;
}

/* Sequences with their own, scattered pages. Row s uses every SEQ_MAX-th page, from the end. */
struct run {
    struct model *m;
    int32_t page_full[SEQ_MAX * PAGE_MAX], page_sliding[SEQ_MAX * PAGE_MAX];
    int32_t tok[TOK_MAX], pos[TOK_MAX], seq[TOK_MAX], n_tok;
    int32_t out_row[TOK_MAX], target[TOK_MAX], n_out;
    struct sample sample[TOK_MAX];
    float   logits[TOK_MAX][VOCAB_MAX], logprob[TOK_MAX];
    int32_t n_top[TOK_MAX], lp_id[TOK_MAX][1 + MODEL_TOP_MAX];
    float   lp[TOK_MAX][1 + MODEL_TOP_MAX];
    int32_t got[TOK_MAX];
};

static struct run *run_new(struct model *m)
{
    struct run *r = calloc(1, sizeof(*r));

    r->m = m;
    for (int s = 0; s < SEQ_MAX; s++) {
        for (int p = 0; p < PAGE_MAX; p++) {
            r->page_full[s * PAGE_MAX + p] = (PAGE_MAX - 1 - p) * SEQ_MAX + s;
            r->page_sliding[s * PAGE_MAX + p] = p * SEQ_MAX + (SEQ_MAX - 1 - s);
        }
    }
    return r;
}

static void put(struct run *r, int32_t seq, const int32_t *tok, int32_t from, int32_t n,
                const struct want *w)
{
    int32_t window = model_config(r->m)->window;

    /* what is behind the window of the first token is gone */
    for (int32_t p = 0; (p + 1) * PAGE_TOK <= from - window + 1; p++)
        r->page_sliding[seq * PAGE_MAX + p] = -1;

    for (int32_t i = 0; i < n; i++) {
        int32_t k = r->n_tok++;

        r->tok[k] = tok[i];
        r->pos[k] = from + i;
        r->seq[k] = seq;
        r->out_row[r->n_out] = k;
        r->target[r->n_out] = w != NULL && from + i + 1 < w->n ? w->tok[from + i + 1] : -1;
        r->sample[r->n_out++] = (struct sample) { .top_p = 1 };
    }
}

static int run_step(struct model *m, struct batch *b, struct step_out *o, struct err *e)
{
    model_launch(m, b, o);
    return model_wait(m, e);
}

/* All that was put; the next put begins another. */
static struct batch take_batch(struct run *r)
{
    struct batch b = {
        .n_tok = r->n_tok, .n_seq = SEQ_MAX, .n_out = r->n_out, .tok = r->tok, .pos = r->pos,
        .seq = r->seq, .page_full = r->page_full, .page_sliding = r->page_sliding,
        .page_max = PAGE_MAX, .out_row = r->out_row, .sample = r->sample, .target = r->target,
        .n_top = r->n_top };

    r->n_tok = r->n_out = 0;
    return b;
}

static int step(struct run *r, struct err *e)
{
    float *logits[TOK_MAX];
    struct batch b = take_batch(r);
    struct step_out o = { .tok = r->got, .lp_id = r->lp_id[0], .lp = r->lp[0], .logits = logits };
    int rc;

    for (int i = 0; i < TOK_MAX; i++)
        logits[i] = r->logits[i];
    rc = run_step(r->m, &b, &o, e);
    for (int i = 0; i < TOK_MAX; i++)
        r->logprob[i] = r->lp[i][0];
    return rc;
}

/* All logits of a prompt, computed in chunks of `chunk` tokens: [n, vocab]. */
static float *prompt_logits(struct model *m, const struct want *w, int32_t chunk, float *logprob)
{
    float *all = malloc((size_t) w->n * sizeof(float[VOCAB_MAX]));
    struct run *r = run_new(m);
    struct err e = {0};

    for (int32_t from = 0; from < w->n; from += chunk) {
        int32_t n = w->n - from < chunk ? w->n - from : chunk;

        put(r, 1, w->tok + from, from, n, w);
        if (step(r, &e) < 0) {
            printf("# step: %s\n", e.msg);
            memset(all, 0xff, (size_t) w->n * sizeof(float[VOCAB_MAX]));
            break;
        }
        memcpy(all + (size_t) from * VOCAB_MAX, r->logits, (size_t) n * sizeof(r->logits[0]));
        if (logprob != NULL)
            memcpy(logprob + from, r->logprob, (size_t) n * sizeof(float));
    }
    free(r);
    return all;
}

static void greedy(struct model *m, const struct want *w, int32_t *out)
{
    struct run *r = run_new(m);
    struct err e = {0};

    put(r, 0, w->tok, 0, w->n, NULL);
    r->out_row[0] = r->n_tok - 1;
    r->n_out = 1;
    for (int32_t i = 0; i < w->n_greedy; i++) {
        if (step(r, &e) < 0)
            printf("# step: %s\n", e.msg);
        out[i] = r->got[0];
        put(r, 0, &out[i], w->n + i, 1, NULL);
    }
    free(r);
}

/* max |got - ref| / max |ref| */
static double rel_error(const float *got, const float *ref, int n)
{
    double d = 0, max = 0;

    for (int i = 0; i < n; i++) {
        if (!isfinite(got[i]))
            return INFINITY;
        d = fmax(d, fabs((double) got[i] - (double) ref[i]));
        max = fmax(max, fabs((double) ref[i]));
    }
    return d / max;
}

static void test_reference(struct model *m, const char *name)
{
    float logprob[LEN_MAX], *all;
    int32_t out[32];
    double err;

    for (int i = 0; i < n_want; i++) {
        const struct want *w = &want[i];

        all = prompt_logits(m, w, TOK_MAX, logprob);
        err = rel_error(all + (size_t) (w->n - 1) * VOCAB_MAX, w->logits, VOCAB_MAX);
        ok(err < 1e-4, "%s: %d tokens: logits, relative error %.2g", name, (int) w->n, err);
        if (w->n > 1) {
            err = rel_error(logprob, w->logprob, w->n - 1);
            ok(err < 1e-4, "%s: %d tokens: logprobs, relative error %.2g", name, (int) w->n, err);
        }
        greedy(m, w, out);
        ok(memcmp(out, w->greedy, (size_t) w->n_greedy * sizeof(int32_t)) == 0,
           "%s: %d tokens: %d greedy ids", name, (int) w->n, (int) w->n_greedy);
        free(all);
    }
}

static void test_chunks(struct model *m, const char *name)
{
    static const int32_t chunks[] = { 1, 5, 7, 16 };
    const struct want *w = &want[n_want - 1];
    float *whole = prompt_logits(m, w, TOK_MAX, NULL), *part;

    for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
        part = prompt_logits(m, w, chunks[i], NULL);
        ok(memcmp(part, whole, (size_t) w->n * sizeof(float[VOCAB_MAX])) == 0,
           "%s: chunks of %d give the same bits", name, (int) chunks[i]);
        free(part);
    }
    free(whole);
}

/* Two prompts and two decoding sequences in one step, each as if it were alone. */
static void test_batch(struct model *m, const char *name)
{
    const struct want *a = &want[n_want - 1], *b = &want[n_want - 2];
    float *la = prompt_logits(m, a, TOK_MAX, NULL), *lb = prompt_logits(m, b, TOK_MAX, NULL);
    struct run *r = run_new(m);
    struct err e = {0};
    int same = 1;

    put(r, 0, a->tok, 0, a->n - 1, NULL);
    put(r, 3, b->tok, 0, b->n - 1, NULL);
    same &= step(r, &e) == 0;

    put(r, 2, a->tok, 0, 20, NULL);
    put(r, 0, a->tok + a->n - 1, a->n - 1, 1, NULL);
    put(r, 1, b->tok, 0, b->n, NULL);
    put(r, 3, b->tok + b->n - 1, b->n - 1, 1, NULL);
    same &= step(r, &e) == 0;

    same &= memcmp(r->logits[0], la, sizeof(float[20][VOCAB_MAX])) == 0;
    same &= memcmp(r->logits[20], la + (size_t) (a->n - 1) * VOCAB_MAX,
                   sizeof(float[VOCAB_MAX])) == 0;
    same &= memcmp(r->logits[21], lb, (size_t) b->n * sizeof(float[VOCAB_MAX])) == 0;
    same &= memcmp(r->logits[21 + b->n], lb + (size_t) (b->n - 1) * VOCAB_MAX,
                   sizeof(float[VOCAB_MAX])) == 0;
    ok(same, "%s: a mixed batch gives the same bits as each sequence alone", name);
    free(r);
    free(la);
    free(lb);
}

static void test_threads(struct model *m, const char *name, const char *dir)
{
    struct err e = {0};
    struct model *m3 = open_dir(dir, 3, &e);
    const struct want *w = &want[n_want - 1];
    float *one = prompt_logits(m, w, TOK_MAX, NULL), *three;

    if (ok(m3 != NULL, "%s: opens with 3 threads", name)) {
        three = prompt_logits(m3, w, TOK_MAX, NULL);
        ok(memcmp(one, three, (size_t) w->n * sizeof(float[VOCAB_MAX])) == 0,
           "%s: 3 threads give the same bits as 1", name);
        free(three);
    }
    free(one);
    model_close(m3);
}

static void test_sampling(struct model *m)
{
    const struct want *w = &want[0];
    struct run *r = run_new(m);
    struct err e = {0};
    int32_t first[TOK_MAX], n_diff = 0, n_top = 0, top = w->greedy[0];
    int same = 1;

    for (int again = 0; again < 2; again++) {
        put(r, 0, w->tok, 0, 1, NULL);
        for (r->n_out = 0; r->n_out < TOK_MAX; r->n_out++) {
            r->out_row[r->n_out] = 0;
            r->target[r->n_out] = -1;
            r->sample[r->n_out] = (struct sample) {
                .temperature = 1, .top_p = 1, .seed = (uint64_t) r->n_out };
        }
        step(r, &e);
        if (again == 0)
            memcpy(first, r->got, sizeof(first));
    }
    for (int i = 0; i < TOK_MAX; i++) {
        same &= r->got[i] == first[i];
        n_diff += r->got[i] != first[0];
        n_top += r->got[i] == top;
    }
    ok(same, "the same seed draws the same token");
    ok(n_diff > 0, "other seeds draw others");
    ok(n_top > 0, "the likeliest token is among %d draws", TOK_MAX);

    put(r, 0, w->tok, 0, 1, NULL);
    r->sample[0] = (struct sample) { .temperature = 2, .top_p = 1, .top_k = 1, .seed = 7 };
    step(r, &e);
    is_int(r->got[0], top, "top_k 1 is greedy");

    put(r, 0, w->tok, 0, 1, NULL);
    r->sample[0] = (struct sample) { .temperature = 2, .top_p = 1e-6f, .seed = 8 };
    step(r, &e);
    is_int(r->got[0], top, "a tiny top_p is greedy");

    put(r, 0, w->tok, 0, 1, NULL);
    r->sample[0] = (struct sample) { .temperature = 2, .top_p = 1, .min_p = 1, .seed = 9 };
    step(r, &e);
    is_int(r->got[0], top, "min_p 1 is greedy");
    free(r);
}

/* Stop ids and suppressed ids are never drawn: a model whose greedy answer is one or the other. */
static void test_bans(const char *dir)
{
    struct model_limits lim = {
        .kv = { PAGE_TOK, SEQ_MAX * PAGE_MAX, SEQ_MAX * PAGE_MAX },
        .step_tok_max = TOK_MAX, .seq_max = SEQ_MAX, .page_max = PAGE_MAX, .n_thread = 1 };
    const struct want *w = &want[0];
    struct model_conf c;
    struct model *m = NULL;
    struct err e = {0};
    struct run *r;
    float *logits;
    bool ban = true;
    struct batch b;
    struct step_out o;

    model_conf_load(&c, dir, &e);
    c.suppress[0] = w->greedy[0];
    c.n_suppress = 1;
    model_open(&m, dir, &c, &lim, NULL, NULL, &e);
    r = run_new(m);
    put(r, 0, w->tok, 0, 1, NULL);
    step(r, &e);
    ok(r->got[0] != w->greedy[0], "a suppressed id is not drawn");
    ok(rel_error(r->logits[0], w->logits, VOCAB_MAX) < 1e-4, "its logit is still reported");
    model_close(m);

    c.n_suppress = 0;
    c.eos[0] = w->greedy[0];
    model_open(&m, dir, &c, &lim, NULL, NULL, &e);
    r->m = m;
    put(r, 0, w->tok, 0, 1, NULL);
    logits = r->logits[0];
    b = (struct batch) {
        .n_tok = 1, .n_seq = 1, .n_out = 1, .tok = r->tok, .pos = r->pos, .seq = r->seq,
        .page_full = r->page_full, .page_sliding = r->page_sliding, .page_max = PAGE_MAX,
        .out_row = r->out_row, .sample = r->sample, .ban_eos = &ban };
    o = (struct step_out) { .tok = r->got, .logits = &logits };
    run_step(m, &b, &o, &e);
    ok(r->got[0] != w->greedy[0], "ban_eos masks the stop ids");
    ban = false;
    run_step(m, &b, &o, &e);
    is_int(r->got[0], w->greedy[0], "and without it they are drawn");
    model_close(m);
    free(r);
}

/* Each step launched before the one is known whose id it begins with. */
static void test_two_deep(struct model *m, const char *name)
{
    const struct want *w = &want[n_want - 1];
    struct run *r[2] = { run_new(m), run_new(m) };
    struct batch b[2];
    struct step_out o[2];
    struct err e = {0};
    int32_t out[32], unknown = -1, from = 0;
    int right = 1;

    put(r[0], 0, w->tok, 0, w->n, NULL);
    r[0]->out_row[0] = r[0]->n_tok - 1;
    r[0]->n_out = 1;
    for (int32_t i = 0; i <= w->n_greedy; i++) {
        int k = i % 2;

        if (i > 0)
            put(r[k], 0, &unknown, w->n + i - 1, 1, NULL);
        b[k] = take_batch(r[k]);
        b[k].from = i > 0 ? &from : NULL;
        o[k] = (struct step_out) { .tok = r[k]->got };
        model_launch(m, &b[k], &o[k]);
        if (i > 0) {
            right &= model_wait(m, &e) == 0;
            out[i - 1] = r[!k]->got[0];
        }
    }
    right &= model_wait(m, &e) == 0;
    ok(right && memcmp(out, w->greedy, (size_t) w->n_greedy * sizeof(int32_t)) == 0,
       "%s: the same ids where each step begins with one that only the model knows", name);
    free(r[0]);
    free(r[1]);
}

/* A step that is refused, in these words, and one behind it that nothing is wrong with. */
static void refused(const char *dir, int32_t id, int32_t pos, int32_t page, int32_t from,
                    const char *words)
{
    struct err e = {0};
    struct model *m = open_dir(dir, 1, &e);
    struct run *r = run_new(m);
    struct batch b;
    struct step_out o = { .tok = r->got };
    int32_t good = 5;

    put(r, 0, &good, 0, 1, NULL);
    is_int(step(r, &e), 0, "a step of one row; then");
    put(r, 0, &id, pos, 1, NULL);
    r->page_full[0] = page;
    b = take_batch(r);
    b.from = &from;
    ok(run_step(m, &b, &o, &e) == E_INVALID && strstr(e.msg, words) != NULL, "refused: %s", e.msg);
    r->page_full[0] = 0;
    put(r, 0, &good, 0, 1, NULL);
    ok(step(r, &e) == E_INVALID && strstr(e.msg, words) != NULL, "and what comes behind it");
    free(r);
    model_close(m);
}

static void test_bad_batches(const char *dir)
{
    refused(dir, 512, 0, 0, -1, "token 0 is out of range");
    refused(dir, -1, 0, 0, -1, "token 0 is out of range");
    refused(dir, -1, 0, 0, 1, "row 1 of the step before: it had 1");
    refused(dir, 5, PAGE_TOK * PAGE_MAX, 0, -1, "beyond the page table");
    refused(dir, 5, 3, -1, -1, "a full page is missing");
}

/* k_dim: of what the pages of its full layers hold of a K. */
static void test_fixture(const char *name, int32_t k_dim)
{
    char dir[128];
    struct err e = {0};
    struct model *m;

    snprintf(dir, sizeof(dir), "t/golden/%s", name);
    load_want(name);
    is_int(n_want, 5, "%s: reference read", name);
    m = open_dir(dir, 1, &e);
    if (!ok(m != NULL, "%s: opens%s%s", name, m == NULL ? ": " : "", e.msg))
        return;
    is_int(model_k_dim(model_config(m), true), k_dim, "%s: dims of K", name);
    test_reference(m, name);
    test_chunks(m, name);
    test_batch(m, name);
    test_threads(m, name, dir);
    test_sampling(m);
    test_two_deep(m, name);
    test_bad_batches(dir);
    model_close(m);
    test_bans(dir);
}

int main(void)
{
    test_fixture("moe", 32);               /* 4 pairs turn: too few for pages without the rest */
    test_fixture("dense", 16);
    test_fixture("ple", 32);
    return done_testing();
}
