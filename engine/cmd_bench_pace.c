/* cmd_bench_pace.c - what a long prompt does to the answers beside it, through the real scheduler.
 *
 * Three rounds: the prompt alone, so many decodes alone, both. A gap is the time between two tokens
 * of a decode; none should be longer than two steps of decodes alone and one step of the prompt
 * alone (its 99th percentile: the context grows from step to step). With --itl-target-ms the gaps
 * should keep to that instead.
 *
 * stdout gets CSV, stderr the same for the eye. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "engine.h"

#define PROMPT_SHORT  16           /* tokens of the prompt of a decode */
#define LEN_USUAL     8192         /* room for a decode */
#define STEP_ALONE    200          /* of the decodes */
#define STEP_MAX      65536        /* of one round */

struct round { double *ms; int32_t n; double sum; };       /* of each step */

struct pace {
    const struct conf *c;
    struct engine      en;
    struct req        *decode, prompt;     /* [c->decodes] */
    struct round       alone, decodes, both;
};

/* r's words are nobody else's: nothing of it is cached. */
static int submit(struct pace *p, struct req *r, int32_t n_prompt, int32_t max_new, int32_t who,
                  struct err *e)
{
    req_free(r);
    memset(r, 0, sizeof(*r));
    if (req_alloc(r, n_prompt, max_new, p->en.plan.kv.page_tok) != 0)
        return err_set(e, E_IO, "out of memory");
    for (int32_t i = 0; i < n_prompt; i++)
        r->tok[i] = (int32_t) ((2654435761u * (uint32_t) (who * 7919 + i)) >> 8) % p->en.mc.vocab;
    r->sample.top_p = 1;
    return serve_submit(p->en.serve, r, e);
}

static int finished(const struct req *r)
{
    return atomic_load(&((struct req *) r)->finish);
}

/* One pass of the loop; how long it took goes to to, if it brought somebody something. */
static int step(struct pace *p, struct round *to, struct err *e)
{
    uint64_t steps = serve_metrics(p->en.serve)->steps, t0 = engine_now_ns();

    (void) serve_once(p->en.serve, e);
    if (e->code != 0)
        return e->code;
    if (to == NULL || serve_metrics(p->en.serve)->steps == steps)
        return 0;
    if (to->n == STEP_MAX)
        return err_set(e, E_INVALID, "more than %d steps: --max-num-batched-tokens or"
                       " --itl-target-ms is too small for this prompt", STEP_MAX);
    to->ms[to->n] = (double) (engine_now_ns() - t0) / 1e6;
    to->sum += to->ms[to->n++];
    return 0;
}

static int prompt_through(struct pace *p, int32_t who, struct round *to, struct err *e)
{
    int rc = submit(p, &p->prompt, p->c->prompt_tokens, 1, who, e);

    while (rc == 0 && finished(&p->prompt) == FIN_NONE)
        rc = step(p, to, e);
    return rc;
}

static int too_short(struct err *e)
{
    return err_set(e, E_INVALID, "the answers ended or were set back before the prompt was through:"
                   " set --max-model-len or --kv-cache-memory-bytes higher");
}

static int measure(struct pace *p, struct err *e)
{
    int32_t each = p->en.plan.model_len - PROMPT_SHORT;
    struct req *last = &p->decode[p->c->decodes - 1];
    struct round warm = p->alone;
    int rc;

    if (each < 1)
        return too_short(e);
    if ((rc = prompt_through(p, -1, &warm, e)) != 0
        || (rc = prompt_through(p, -2, &p->alone, e)) != 0)
        return rc;
    for (int32_t i = 0; i < p->c->decodes; i++)
        if ((rc = submit(p, &p->decode[i], PROMPT_SHORT, each, i, e)) != 0)
            return rc;
    while (atomic_load(&last->n_pub) < 8 && finished(last) == FIN_NONE)
        if ((rc = step(p, NULL, e)) != 0)
            return rc;
    for (int32_t i = 0; i < STEP_ALONE; i++)
        if ((rc = step(p, &p->decodes, e)) != 0)
            return rc;
    if ((rc = prompt_through(p, -3, &p->both, e)) != 0)
        return rc;
    for (int32_t i = 0; i < p->c->decodes; i++)
        if (finished(&p->decode[i]) != FIN_NONE || serve_metrics(p->en.serve)->preempted > 0)
            return too_short(e);
    return 0;
}

static int by_size(const void *a, const void *b)
{
    double d = *(const double *) a - *(const double *) b;

    return d < 0 ? -1 : d > 0;
}

/* What `part` of a round's steps do not pass, which is one of them: each is a gap of all decodes,
 * so of a few the longest is more than a hundredth of the gaps. They are sorted afterwards. */
static double at(struct round *r, double part)
{
    qsort(r->ms, (size_t) r->n, sizeof(*r->ms), by_size);
    return r->ms[(int32_t) ceil(part * r->n) - 1];
}

static void report(struct pace *p)
{
    const struct conf *c = p->c;
    double bound = 2 * at(&p->decodes, .5) + at(&p->alone, .99);

    printf("model,backend,prompt,decodes,budget,itl_target_ms,decode_ms,decode_p99_ms,prefill_step"
           "_ms,prefill_step_max_ms,gap_ms,gap_p99_ms,gap_max_ms,bound_ms,prompt_alone_s,"
           "prompt_s,commit,device\n");
    printf("%s,%s,%d,%d,%d,%d,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%s,%s\n",
           p->en.mc.name, c->backend == BACKEND_CUDA ? "cuda" : "cpu", c->prompt_tokens, c->decodes,
           c->max_num_batched_tokens, c->itl_target_ms, at(&p->decodes, .5), at(&p->decodes, .99),
           at(&p->alone, .5), at(&p->alone, 1), at(&p->both, .5), at(&p->both, .99),
           at(&p->both, 1), bound, p->alone.sum / 1e3, p->both.sum / 1e3, cmd_cell(c->commit),
           cmd_cell(c->device));
    fprintf(stderr, "decodes alone  %9.3f ms a step\n"
            "prompt alone   %9.3f ms a step, at most %.3f, %.2f s in all\n"
            "both           %9.3f ms between two tokens, 99 %% %.3f, at most %.3f, %.2f s in all\n"
            "bound          %9.3f ms\n", at(&p->decodes, .5), at(&p->alone, .5), at(&p->alone, 1),
            p->alone.sum / 1e3, at(&p->both, .5), at(&p->both, .99), at(&p->both, 1),
            p->both.sum / 1e3, bound);
}

static int run(struct pace *p, struct conf *c, struct err *e)
{
    struct round *rounds[] = { &p->alone, &p->decodes, &p->both };
    int rc;

    if (c->decodes >= c->max_num_batched_tokens)
        return err_set(e, E_INVALID, "--decodes %d: a step of %d (--max-num-batched-tokens) leaves"
                       " nothing for the prompt", c->decodes, c->max_num_batched_tokens);
    if ((rc = engine_config(&p->en, c, e)) != 0)
        return rc;
    if (c->max_model_len == 0) {
        c->max_model_len = p->en.mc.max_pos < LEN_USUAL ? p->en.mc.max_pos : LEN_USUAL;
        if (c->max_model_len <= c->prompt_tokens)
            c->max_model_len = c->prompt_tokens + 1;
        if (c->max_model_len > p->en.mc.max_pos)
            return err_set(e, E_INVALID, "--prompt-tokens: %d, and one of the answer, are more than"
                           " the %d positions of the model", c->prompt_tokens, p->en.mc.max_pos);
    }
    c->max_num_seqs = c->decodes + 1;
    c->no_prefix_cache = true;
    for (size_t i = 0; i < 3; i++)
        if ((rounds[i]->ms = calloc(STEP_MAX, sizeof(double))) == NULL)
            return err_set(e, E_IO, "out of memory");
    if ((p->decode = calloc((size_t) c->decodes, sizeof(*p->decode))) == NULL)
        return err_set(e, E_IO, "out of memory");
    if ((rc = plan_make(&p->en.plan, &p->en.mc, c, e)) != 0
        || (rc = engine_load(&p->en, c, 1, 1, NULL, NULL, e)) != 0
        || (rc = measure(p, e)) != 0)
        return rc;
    report(p);
    return 0;
}

int cmd_bench_pace(const struct conf *c)
{
    struct conf own = *c;
    struct pace p = { .c = &own, .en.kick_fd = -1 };
    struct err e;
    int rc = run(&p, &own, &e);

    engine_close(&p.en);
    for (int32_t i = 0; p.decode != NULL && i < c->decodes; i++)
        req_free(&p.decode[i]);
    req_free(&p.prompt);
    free(p.decode);
    free(p.alone.ms);
    free(p.decodes.ms);
    free(p.both.ms);
    return rc != 0 ? cmd_fail(&e) : 0;
}
