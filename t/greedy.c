/* greedy.c - the real model under the real scheduler, on the three small checkpoints: what a
 * request gets does not depend on who runs beside it, on the size of the chunks or on the pages. A
 * logit that is no number ends all of them: no token is better than a wrong one. */
#include <stdlib.h>
#include <unistd.h>

#include "serve.h"
#include "tap.h"

#define N_REQ  32

static uint64_t ticks, rng;

static uint64_t tick(void *arg) { (void) arg; return ticks += 1000; }
static void wake(void *arg, int port) { (void) arg; (void) port; }
static void nothing(void *arg) { (void) arg; }

static int32_t rnd(int32_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (int32_t) (rng % (uint64_t) n);
}

struct setup {
    int32_t seq_max, step_tok_max, page_tok, n_page_full, n_page_sliding;
    bool    cache, overlap;
};

struct bench {
    struct model *model;
    struct serve *serve;
};

static struct bench bring_up(const char *dir, const struct setup *u)
{
    struct serve_conf c = {
        .seq_max = u->seq_max, .step_tok_max = u->step_tok_max, .model_len_max = 100,
        .queue_max = 100, .n_port = 1, .cache = u->cache, .overlap = u->overlap,
        .point_tok = 20, .kv = { u->page_tok, u->n_page_full, u->n_page_sliding },
        .now_ns = tick, .wake = wake, .sleep = nothing, .kick = nothing,
    };
    struct model_limits lim = {
        .kv = c.kv, .step_tok_max = u->step_tok_max, .seq_max = u->seq_max,
        .page_max = 99 / u->page_tok + 1, .n_thread = 2,
    };
    struct model_conf mc;
    struct bench b;
    struct err e;

    if (model_conf_load(&mc, dir, &e) != 0
        || model_open(&b.model, dir, &mc, &lim, NULL, NULL, &e) != 0
        || serve_open(&b.serve, b.model, &c, &e) != 0) {
        printf("Bail out! %s\n", e.msg);
        exit(1);
    }
    return b;
}

static void tear_down(struct bench *b)
{
    serve_close(b->serve);
    model_close(b->model);
}

/* The same 32 requests for every setup; half of them greedy. */
static void make(struct req *r, int32_t vocab)
{
    rng = 0x853c49e6748fea9bull;
    for (int i = 0; i < N_REQ; i++) {
        int32_t n_prompt = 1 + rnd(60);

        memset(&r[i], 0, sizeof(r[i]));
        if (req_alloc(&r[i], n_prompt, 1 + rnd(30), 1) != 0)
            exit(1);
        for (int32_t k = 0; k < r[i].n_prompt; k++)
            r[i].tok[k] = rnd(vocab);
        r[i].sample = (struct sample) {
            .temperature = i % 2 == 0 ? 0 : 1.3f, .top_p = 0.95f, .top_k = 40,
            .seed = (uint64_t) i + 1,
        };
    }
}

static void drop(struct req *r)
{
    for (int i = 0; i < N_REQ; i++)
        req_free(&r[i]);
}

static int n_running(struct req *r)
{
    int n = 0;

    for (int i = 0; i < N_REQ; i++)
        n += atomic_load(&r[i].finish) == FIN_NONE;
    return n;
}

static bool run_all(struct serve *s, struct req *r, bool together)
{
    struct err e;

    for (int i = 0; i < N_REQ; i++) {
        if (serve_submit(s, &r[i], &e) != 0)
            return false;
        while (!together && serve_once(s, &e))
            ;
    }
    while (serve_once(s, &e))
        ;
    return n_running(r) == 0;
}

static int n_same(const struct req *a, const struct req *b)
{
    int n = 0;

    for (int i = 0; i < N_REQ; i++)
        n += a[i].finish == FIN_LENGTH && b[i].finish == FIN_LENGTH && a[i].n_pub == b[i].n_pub
             && memcmp(a[i].tok, b[i].tok,
                       (size_t) (a[i].n_prompt + a[i].max_new) * sizeof(int32_t)) == 0;
    return n;
}

static bool pages_are_free(const struct serve *s)
{
    const struct metrics *m = serve_metrics(s);

    return m->pages_full_used == 0 && m->pages_sliding_used == 0;
}

static void disconnects(const char *dir, int32_t vocab)
{
    static const struct setup small = { 8, 24, 4, 120, 120, true, true };
    struct bench b = bring_up(dir, &small);
    struct req r[N_REQ];
    struct err e;
    int n = 0;

    make(r, vocab);
    for (int i = 0; i < N_REQ; i++)
        serve_submit(b.serve, &r[i], &e);
    while (n_running(r) > 0) {
        serve_once(b.serve, &e);
        serve_cancel(b.serve, &r[n++ % N_REQ]);
    }
    n = 0;
    for (int i = 0; i < N_REQ; i++)
        n += r[i].finish == FIN_CANCEL;
    ok(n > N_REQ / 2, "%s: %d of %d clients left", dir, n, N_REQ);
    ok(pages_are_free(b.serve), "%s: and their pages are free", dir);
    tear_down(&b);
    drop(r);
}

static void check(const char *dir, int32_t vocab)
{
    static const struct setup setups[] = {
        { 32, 2048, 16, 300, 300, false, false },    /* all at once */
        { 32,   40,  7, 600, 600, true, true },      /* prompts in chunks, odd pages */
        {  5,    5,  1, 400, 200, true, false },     /* a handful, few pages: most of them wait */
        { 20,   60,  4,  30,  30, true, true },      /* far too few pages for so many */
    };
    struct req alone[N_REQ], r[N_REQ];
    struct bench b = bring_up(dir, &setups[0]);
    uint64_t n_preempted = 0, n_cached = 0;

    make(alone, vocab);
    ok(run_all(b.serve, alone, false), "%s: one after the other", dir);
    tear_down(&b);

    for (size_t i = 0; i < sizeof(setups) / sizeof(setups[0]); i++) {
        b = bring_up(dir, &setups[i]);
        for (int again = 0; again < 2; again++) {
            make(r, vocab);
            ok(run_all(b.serve, r, true), "%s: together, budget %d, pages of %d%s", dir,
               setups[i].step_tok_max, setups[i].page_tok, again ? ", again" : "");
            is_int(n_same(alone, r), N_REQ, "%s: all the same to the last id", dir);
            ok(pages_are_free(b.serve), "%s: pages are free", dir);
            drop(r);
        }
        n_preempted += serve_metrics(b.serve)->preempted;
        n_cached += serve_metrics(b.serve)->cached_tok;
        tear_down(&b);
    }
    ok(n_preempted > 10 && n_cached > 500, "%s: %lu were preempted and %lu tokens cached", dir,
       (unsigned long) n_preempted, (unsigned long) n_cached);
    drop(alone);
    disconnects(dir, vocab);
}

/* A copy of a file, with two bytes changed where at is not 0. */
static void copy(const char *from, const char *to, const char *name, long at, const char *two)
{
    char path[128];
    FILE *in, *out;
    int c;

    snprintf(path, sizeof(path), "%s/%s", from, name);
    in = fopen(path, "r");
    snprintf(path, sizeof(path), "%s/%s", to, name);
    out = fopen(path, "w");
    if (in == NULL || out == NULL)
        exit(1);
    for (long i = 0; (c = getc(in)) != EOF; i++)
        putc(at != 0 && (i == at || i == at + 1) ? two[i - at] : c, out);
    fclose(in);
    fclose(out);
}

/* The first weight of the embedding is also the head's: it spoils the logit of id 0 everywhere. */
static void spoiled(const char *name, const char *bf16)
{
    static const struct setup usual = { 32, 2048, 16, 300, 300, true, true };
    char dir[] = "/tmp/inferd-greedy-XXXXXX", path[64];
    uint64_t header;
    FILE *f = fopen("t/golden/dense/model.safetensors", "r");
    struct req r[N_REQ];
    struct bench b;
    struct err e;
    int n = 0;

    if (f == NULL || fread(&header, 8, 1, f) != 1 || mkdtemp(dir) == NULL)
        exit(1);
    fclose(f);
    copy("t/golden/dense", dir, "config.json", 0, NULL);
    copy("t/golden/dense", dir, "model.safetensors", 8 + (long) header, bf16);

    b = bring_up(dir, &usual);
    make(r, 512);
    r[0].prompt_lp.p = calloc((size_t) r[0].n_prompt, sizeof(float));
    for (int i = 0; i < N_REQ; i++)
        serve_submit(b.serve, &r[i], &e);
    while (serve_once(b.serve, &e) && e.code == 0)
        ;
    is_int(e.code, 0, "%s in the weights is no failure of the engine", name);
    for (int i = 0; i < N_REQ; i++)
        n += r[i].finish == FIN_CORRUPT && r[i].n_pub == 0;
    is_int(n, N_REQ, "%s: every request ends in an error, without a token", name);
    ok(pages_are_free(b.serve), "%s: and their pages are free", name);

    tear_down(&b);
    free(r[0].prompt_lp.p);
    drop(r);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    unlink(path);
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    static const char *dirs[] = { "t/golden/moe", "t/golden/dense", "t/golden/ple" };
    struct model_conf mc;
    struct err e;

    for (int i = 0; i < 3; i++)
        if (ok(model_conf_load(&mc, dirs[i], &e) == 0, "%s", dirs[i]))
            check(dirs[i], mc.vocab);
    spoiled("NaN", "\xc0\x7f");
    spoiled("an infinity", "\x80\x7f");
    return done_testing();
}
