/* cmd_bench_serve.c - the speed of a server as its clients see it: `vllm bench serve`, in C.
 *
 * A table on stdout; --result-file has the same under vLLM's names, --csv one row of it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench_run.h"
#include "cmd.h"

#define CSV_HEAD                                                                                  \
    "commit,device,shape,endpoint,concurrency,request_rate,prompts,isl,osl,range,prefix,"         \
    "completed,failed,duration_s,req_per_s,good_per_s,out_tok_per_s,tok_per_s,"                   \
    "ttft_mean_ms,ttft_p50_ms,ttft_p90_ms,ttft_p99_ms,tpot_mean_ms,tpot_p50_ms,tpot_p90_ms,"      \
    "tpot_p99_ms,itl_mean_ms,itl_p50_ms,itl_p90_ms,itl_p99_ms,e2el_mean_ms,e2el_p50_ms,"          \
    "e2el_p90_ms,e2el_p99_ms"

struct load {
    const struct conf *c;
    struct curl_lib    curl;
    struct buf         model;
    struct bench_shape shape;
    struct bench_item *item;
    struct bench_req  *req;
    struct bench_run   run;
    struct bench_sum   sum;
};

struct dist_row { const char *title, *unit, *key; const struct bench_dist *d; };

static void dist_rows(const struct bench_sum *s, struct dist_row row[4])
{
    struct dist_row all[4] = {
        { "Time to First Token", "TTFT", "ttft", &s->ttft },
        { "Time per Output Token (excl. 1st)", "TPOT", "tpot", &s->tpot },
        { "Inter-token Latency", "ITL", "itl", &s->itl },
        { "End-to-end Latency", "E2EL", "e2el", &s->e2el },
    };

    memcpy(row, all, sizeof(all));
}

static bool has_goal(const struct conf *c)
{
    return c->good_ms[0] > 0 || c->good_ms[1] > 0 || c->good_ms[2] > 0;
}

static void line(const char *name, double v)
{
    printf("%-40s %.2f\n", name, v);
}

static void table(const struct load *l)
{
    const struct bench_sum *s = &l->sum;
    struct dist_row row[4];

    printf("============ Serving Benchmark Result ============\n");
    printf("%-40s %d\n%-40s %d\n", "Successful requests:", s->completed, "Failed requests:",
           s->failed);
    if (l->c->max_concurrency > 0)
        printf("%-40s %d\n", "Maximum request concurrency:", l->c->max_concurrency);
    if (l->c->request_rate > 0)
        line("Request rate configured (req/s):", l->c->request_rate);
    line("Benchmark duration (s):", s->duration_s);
    printf("%-40s %" PRId64 "\n%-40s %" PRId64 "\n", "Total input tokens:", s->input_tok,
           "Total generated tokens:", s->output_tok);
    line("Request throughput (req/s):", s->req_per_s);
    if (has_goal(l->c))
        line("Request goodput (req/s):", s->good_per_s);
    line("Output token throughput (tok/s):", s->output_per_s);
    line("Total token throughput (tok/s):", s->tok_per_s);

    dist_rows(s, row);
    for (int i = 0; i < 4; i++) {
        const struct bench_dist *d = row[i].d;

        printf("--------- %s, ms\n", row[i].title);
        printf("%-5s mean %.2f, median %.2f, P90 %.2f, P99 %.2f\n", row[i].unit, d->mean, d->p50,
               d->p90, d->p99);
    }
    for (int32_t i = 0; i < l->run.n_fail; i++)
        printf("failed %d times: %s\n", l->run.fail[i].n, l->run.fail[i].msg);
    if (l->run.n_short > 0)
        printf("%d answers are shorter than --random-output-len asked for\n", l->run.n_short);
}

static void json_head(const struct load *l, struct buf *b)
{
    const struct conf *c = l->c;
    const char *name[] = { "commit", "device", "shape" };
    const char *word[] = { c->commit, c->device, c->shape };
    struct tm tm;
    char date[32];
    time_t now = time(NULL);

    strftime(date, sizeof(date), "%Y%m%d-%H%M%S", gmtime_r(&now, &tm));
    buf_fmt(b, "{\"date\":\"%s\",\"endpoint_type\":\"%s\",\"model_id\":", date,
            l->shape.chat ? "openai-chat" : "openai");
    buf_json_str(b, l->shape.model, strlen(l->shape.model));
    for (int i = 0; i < 3; i++) {
        buf_fmt(b, ",\"%s\":", name[i]);
        if (word[i] != NULL)
            buf_json_str(b, word[i], strlen(word[i]));
        else
            buf_str(b, "null");
    }
    buf_fmt(b, ",\"num_prompts\":%d,\"random_input_len\":%d,\"random_output_len\":%d"
            ",\"random_prefix_len\":%d,\"random_range_ratio\":%g,\"seed\":%d", c->num_prompts,
            c->random_input_len, c->random_output_len, c->random_prefix_len,
            c->random_range_ratio, c->seed);
    if (c->request_rate > 0)
        buf_fmt(b, ",\"request_rate\":%g", c->request_rate);
    else
        buf_str(b, ",\"request_rate\":\"inf\"");
    if (c->max_concurrency > 0)
        buf_fmt(b, ",\"max_concurrency\":%d", c->max_concurrency);
    else
        buf_str(b, ",\"max_concurrency\":null");
}

static void json(const struct load *l, struct buf *b)
{
    const struct bench_sum *s = &l->sum;
    struct dist_row row[4];

    json_head(l, b);
    buf_fmt(b, ",\"duration\":%.6f,\"completed\":%d,\"failed\":%d,\"total_input_tokens\":%" PRId64
            ",\"total_output_tokens\":%" PRId64 ",\"request_throughput\":%.6f"
            ",\"output_throughput\":%.6f,\"total_token_throughput\":%.6f", s->duration_s,
            s->completed, s->failed, s->input_tok, s->output_tok, s->req_per_s, s->output_per_s,
            s->tok_per_s);
    if (has_goal(l->c))
        buf_fmt(b, ",\"request_goodput\":%.6f", s->good_per_s);
    else
        buf_str(b, ",\"request_goodput\":null");

    dist_rows(s, row);
    for (int i = 0; i < 4; i++) {
        const struct bench_dist *d = row[i].d;
        const char *k = row[i].key;

        buf_fmt(b, ",\"mean_%s_ms\":%.6f,\"median_%s_ms\":%.6f,\"std_%s_ms\":%.6f"
                ",\"p50_%s_ms\":%.6f,\"p90_%s_ms\":%.6f,\"p99_%s_ms\":%.6f", k, d->mean, k, d->p50,
                k, d->std, k, d->p50, k, d->p90, k, d->p99);
    }
    buf_str(b, ",\"errors\":{");
    for (int32_t i = 0; i < l->run.n_fail; i++) {
        buf_str(b, i > 0 ? "," : "");
        buf_json_str(b, l->run.fail[i].msg, strlen(l->run.fail[i].msg));
        buf_fmt(b, ":%d", l->run.fail[i].n);
    }
    buf_fmt(b, "},\"short_answers\":%d}\n", l->run.n_short);
}

static int write_json(const struct load *l, struct err *e)
{
    struct buf b = {0};
    FILE *f = fopen(l->c->result_file, "w");
    int rc = 0;

    json(l, &b);
    if (f == NULL || fwrite(b.p, 1, b.n, f) != b.n)
        rc = err_set(e, E_IO, "--result-file: %s: %s", l->c->result_file, strerror(errno));
    if (f != NULL && fclose(f) != 0 && rc == 0)
        rc = err_set(e, E_IO, "--result-file: %s: %s", l->c->result_file, strerror(errno));
    buf_free(&b);
    return rc;
}

/* The file that rows go to: new, or with our columns. Asked before anything is measured. */
static int check_csv(const char *path, bool *is_new, struct err *e)
{
    FILE *f = fopen(path, "a+");
    char text[1024] = "#";
    int rc = 0;

    if (f == NULL)
        return err_set(e, E_IO, "--csv: %s: %s", path, strerror(errno));
    rewind(f);
    while (text[0] == '#' && fgets(text, sizeof(text), f) != NULL)
        text[strcspn(text, "\r\n")] = '\0';
    *is_new = text[0] == '#';
    if (!*is_new && strcmp(text, CSV_HEAD) != 0)
        rc = err_set(e, E_INVALID, "--csv: %s: has other columns", path);
    fclose(f);
    return rc;
}

static int write_csv(const struct load *l, bool is_new, struct err *e)
{
    const struct conf *c = l->c;
    const struct bench_sum *s = &l->sum;
    FILE *f = fopen(c->csv, "a");
    struct dist_row row[4];

    if (f == NULL)
        return err_set(e, E_IO, "--csv: %s: %s", c->csv, strerror(errno));
    if (is_new)
        fprintf(f, CSV_HEAD "\n");
    fprintf(f, "%s,%s,%s,%s,", cmd_cell(c->commit), cmd_cell(c->device), cmd_cell(c->shape),
            l->shape.chat ? "chat" : "completions");
    fprintf(f, c->max_concurrency > 0 ? "%d," : "inf,", c->max_concurrency);
    fprintf(f, c->request_rate > 0 ? "%g," : "inf,", c->request_rate);
    fprintf(f, "%d,%d,%d,%g,%d,%d,%d,%.3f,%.3f,", c->num_prompts, c->random_input_len,
            c->random_output_len, c->random_range_ratio, c->random_prefix_len, s->completed,
            s->failed, s->duration_s, s->req_per_s);
    if (has_goal(c))
        fprintf(f, "%.3f", s->good_per_s);
    fprintf(f, ",%.1f,%.1f", s->output_per_s, s->tok_per_s);
    dist_rows(s, row);
    for (int i = 0; i < 4; i++)
        fprintf(f, ",%.3f,%.3f,%.3f,%.3f", row[i].d->mean, row[i].d->p50, row[i].d->p90,
                row[i].d->p99);
    fprintf(f, "\n");
    return fclose(f) == 0 ? 0 : err_set(e, E_IO, "--csv: %s: %s", c->csv, strerror(errno));
}

static struct bench_shape shape_of(const struct conf *c, const char *model)
{
    return (struct bench_shape) {
        .chat = strstr(c->url, "/chat/completions") != NULL, .model = model,
        .input_len = c->random_input_len, .output_len = c->random_output_len,
        .prefix_len = c->random_prefix_len, .range = c->random_range_ratio,
        .vocab = c->random_vocab, .rate = c->request_rate, .seed = (uint64_t) c->seed,
        .ignore_eos = !c->no_ignore_eos, .temperature = c->temperature, .top_p = c->top_p,
        .top_k = c->top_k };
}

/* Requests that do not count, of another seed: their prompts are in nobody's prefix cache. */
static int warm_up(struct load *l, struct err *e)
{
    int32_t n = l->c->num_warmups;
    struct bench_shape shape = l->shape;
    struct bench_run r = l->run;
    int rc;

    if (n == 0)
        return 0;
    shape.seed = ~shape.seed;
    shape.rate = 0;
    r.shape = &shape;
    r.n = n;
    r.quiet = true;
    r.item = calloc((size_t) n, sizeof(*r.item));
    r.req = calloc((size_t) n, sizeof(*r.req));
    if (r.item == NULL || r.req == NULL) {
        rc = err_set(e, E_IO, "out of memory");
    } else {
        bench_work((struct bench_item *) r.item, n, &shape);
        rc = bench_run(&r, e);
        if (rc == 0 && r.n_fail > 0)
            rc = err_set(e, E_IO, "%s: %.160s", l->c->url, r.fail[0].msg);
        bench_free(&r);
    }
    free((void *) r.item);
    free(r.req);
    return rc;
}

static int measure(struct load *l, struct err *e)
{
    const struct conf *c = l->c;
    struct bench_goal goal = { c->good_ms[0], c->good_ms[1], c->good_ms[2] };
    size_t n = (size_t) c->num_prompts;
    int rc;

    l->item = calloc(n, sizeof(*l->item));
    l->req = calloc(n, sizeof(*l->req));
    if (l->item == NULL || l->req == NULL)
        return err_set(e, E_IO, "out of memory");
    l->shape = shape_of(c, l->model.p);
    bench_work(l->item, c->num_prompts, &l->shape);
    l->run = (struct bench_run) {
        .curl = &l->curl, .url = c->url, .header = c->header, .shape = &l->shape,
        .item = l->item, .n = c->num_prompts, .max_concurrency = c->max_concurrency,
        .req = l->req };

    if ((rc = warm_up(l, e)) != 0 || (rc = bench_run(&l->run, e)) != 0)
        return rc;
    return bench_stats(&l->sum, l->req, c->num_prompts, l->run.duration_s, &goal, e);
}

static int run(struct load *l, struct err *e)
{
    const struct conf *c = l->c;
    bool is_new = false;
    int rc;

    if (c->csv != NULL && (rc = check_csv(c->csv, &is_new, e)) != 0)
        return rc;
    if ((rc = curl_lib_open(&l->curl, e)) != 0)
        return rc;
    if (c->model != NULL)
        buf_put(&l->model, c->model, strlen(c->model) + 1);
    else if ((rc = bench_model(&l->curl, c->url, c->header, &l->model, e)) != 0)
        return rc;
    if ((rc = measure(l, e)) != 0)
        return rc;

    table(l);
    if (c->result_file != NULL && (rc = write_json(l, e)) != 0)
        return rc;
    if (c->csv != NULL && (rc = write_csv(l, is_new, e)) != 0)
        return rc;
    if (l->sum.completed == 0)
        return err_set(e, E_IO, "no request was answered: %.160s", l->run.fail[0].msg);
    return 0;
}

int cmd_bench_serve(const struct conf *c)
{
    struct load l = { .c = c };
    struct err e;
    int rc = run(&l, &e);

    bench_free(&l.run);
    buf_free(&l.model);
    free(l.item);
    free(l.req);
    return rc != 0 ? cmd_fail(&e) : 0;
}
