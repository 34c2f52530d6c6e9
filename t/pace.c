/* pace.c - on the real CPU engine: while a long prompt comes in, no decode waits longer for its
 * next token than two steps of decodes alone and one budget of the prompt alone. Prints TAP. */
#include <stdlib.h>
#include <time.h>

#include "serve.h"
#include "tap.h"

#define N_DECODE  32
#define PROMPT    4000
#define BUDGET    160
#define STEPS     ((PROMPT + BUDGET - N_DECODE - 1) / (BUDGET - N_DECODE))

/* Of the processors, not of the wall: others on this machine do not count. */
static uint64_t now(void *arg)
{
    struct timespec ts;

    (void) arg;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}

static void wake(void *arg, int port) { (void) arg; (void) port; }
static void nothing(void *arg) { (void) arg; }

struct engine { struct model *model; struct serve *serve; };

static struct engine bring_up(int32_t budget)
{
    struct serve_conf c = {
        .seq_max = N_DECODE + 1, .step_tok_max = budget, .model_len_max = 8192, .queue_max = 10,
        .n_port = 1, .cache = true, .kv = { 16, 1200, 1200 },
        .now_ns = now, .wake = wake, .sleep = nothing, .kick = nothing,
    };
    struct model_limits lim = { .kv = c.kv, .step_tok_max = budget, .seq_max = N_DECODE + 1,
                                .page_max = 512, .n_thread = 2 };
    struct model_conf mc;
    struct engine en;
    struct err e;

    if (model_conf_load(&mc, "t/golden/moe", &e) != 0
        || model_open(&en.model, "t/golden/moe", &mc, &lim, NULL, NULL, &e) != 0
        || serve_open(&en.serve, en.model, &c, &e) != 0) {
        printf("Bail out! %s\n", e.msg);
        exit(1);
    }
    return en;
}

static void tear_down(struct engine *en)
{
    serve_close(en->serve);
    model_close(en->model);
}

static void make(struct req *r, int32_t n_prompt, int32_t max_new)
{
    memset(r, 0, sizeof(*r));
    if (req_alloc(r, n_prompt, max_new, 16) != 0)
        exit(1);
    for (int32_t i = 0; i < n_prompt; i++)
        r->tok[i] = (i * 7 + max_new + n_prompt) % 500;
    r->sample.top_p = 1;
}

static double step_ms(struct engine *en)
{
    uint64_t start = now(NULL);
    struct err e;

    serve_once(en->serve, &e);
    return (double) (now(NULL) - start) / 1e6;
}

static void submit_decodes(struct engine *en, struct req *r)
{
    for (int i = 0; i < N_DECODE; i++) {
        make(&r[i], 10 + i, 1000);
        serve_submit(en->serve, &r[i], NULL);
    }
    for (int i = 0; i < 10; i++)
        (void) step_ms(en);
}

/* Decodes alone, the prompt alone, and both together take turns, step by step, so that the noise of
 * the machine meets all three. How many steps of both took longer than they may. */
static int late_steps(struct engine *both, struct engine *decodes, struct engine *prompt, int round)
{
    struct req r, same;
    double decode, alone, gap, sum[3] = { 0 };
    int n_late = 0;

    make(&r, PROMPT - round, 1);        /* of another length: nothing of it is in the cache */
    make(&same, PROMPT - round, 1);
    serve_submit(both->serve, &r, NULL);
    serve_submit(prompt->serve, &same, NULL);
    for (int i = 0; i < STEPS; i++) {
        decode = step_ms(decodes);
        alone = step_ms(prompt);
        gap = step_ms(both);
        n_late += gap > 2 * decode + alone;
        sum[0] += decode;
        sum[1] += gap;
        sum[2] += alone;
    }
    while (atomic_load(&r.finish) == FIN_NONE)
        (void) step_ms(both);
    while (atomic_load(&same.finish) == FIN_NONE)
        (void) step_ms(prompt);
    req_free(&r);
    req_free(&same);

    printf("# a step of 32 decodes takes %.2f ms; with up to 128 tokens of the prompt %.2f, these"
           " by themselves %.2f\n", sum[0] / STEPS, sum[1] / STEPS, sum[2] / STEPS);
    printf("# %d of %d steps took longer than 2 x the first + the third\n", n_late, STEPS);
    return n_late;
}

int main(void)
{
    struct engine en = bring_up(BUDGET), quiet = bring_up(BUDGET);
    struct engine other = bring_up(BUDGET - N_DECODE);
    struct req r[N_DECODE], still[N_DECODE];
    int n_late = STEPS;

    submit_decodes(&en, r);
    submit_decodes(&quiet, still);
    for (int round = 0; round < 5 && n_late > STEPS / 2; round++)
        n_late = late_steps(&en, &quiet, &other, round);

    ok(n_late <= STEPS / 2, "a gap is at most two steps of decodes and one budget of prompt: in"
       " most steps of one of five prompts, this machine is not alone");
    ok(atomic_load(&r[0].n_pub) >= STEPS, "the decodes went on all the while");

    tear_down(&en);
    tear_down(&quiet);
    tear_down(&other);
    for (int i = 0; i < N_DECODE; i++) {
        req_free(&r[i]);
        req_free(&still[i]);
    }
    return done_testing();
}
