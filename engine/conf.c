#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "log.h"

struct conf_opt;
typedef int conf_set(struct conf *c, const struct conf_opt *o, const char *v, struct err *e);

static conf_set set_i32, set_octal, set_bytes, set_str, set_flag, set_off, set_double, set_word,
                set_name, set_rate, set_good, set_cell;

#define AT(field)  offsetof(struct conf, field)
#define SEQS       256           /* that run at once, if nobody says otherwise */
#define ALL_BENCH  (CONF_BENCH | CONF_BENCH_PACE)
#define ALL_MODEL  (CONF_SERVE | CONF_PLAN | CONF_SCORE | CONF_CHAT | ALL_BENCH)
#define ALL_RUN    (CONF_SERVE | CONF_SCORE | CONF_CHAT | ALL_BENCH)

static const struct conf_opt {
    const char *name;
    conf_set   *set;
    size_t      off;
    double      min, max;
    const char *def;              /* NULL: unset, field stays zero */
    const char *words;            /* set_word: the choices, in the order of the enum */
    int         cmds;
    const char *help;
} opts[] = {
  { "--served-model-name", set_name, AT(served_name), 0, 0, NULL, NULL, CONF_SERVE,
    "name that requests use; repeat for aliases [the directory's name]" },
  { "--max-model-len", set_i32, AT(max_model_len), 1, 1 << 24, NULL, NULL, ALL_MODEL,
    "tokens of prompt and answer together [max_position_embeddings]" },
  { "--max-num-seqs", set_i32, AT(max_num_seqs), 1, 1024, NULL, NULL, ALL_MODEL,
    "requests that run at once [256, or the tokens of a step]" },
  { "--max-num-batched-tokens", set_i32, AT(max_num_batched_tokens), 1, 65536, "2048", NULL,
    ALL_MODEL, "tokens computed in one step" },
  { "--block-size", set_i32, AT(block_size), 1, 1024, "16", NULL, ALL_MODEL,
    "tokens in one page of the KV cache" },
  { "--kv-cache-memory-bytes", set_bytes, AT(kv_cache_memory_bytes), 1 << 16, 1ull << 50, NULL,
    NULL, ALL_MODEL, "memory of the KV cache, e.g. 2g [what max-num-seqs needs; on the CPU at"
    " most 1/4 of memory]" },
  { "--memory-bytes", set_bytes, AT(memory_bytes), 1 << 20, 1ull << 50, NULL, NULL, CONF_PLAN,
    "plan for a machine, or GPU, with this much memory [this one]" },
  { "--backend", set_word, AT(backend), 0, 0, "cpu", "cpu|cuda", ALL_MODEL,
    "where the model runs" },
  { "--gpu-memory-utilization", set_double, AT(gpu_memory_utilization), 0.05, 1, "0.9", NULL,
    ALL_MODEL, "part of the GPU's memory that may be used; with --kv-cache-memory-bytes all that"
    " is free may" },
  { "--load-format", set_word, AT(load_format), 0, 0, "auto", "auto|dummy",
    CONF_SERVE | CONF_PLAN | CONF_SCORE | ALL_BENCH,
    "dummy: random weights of the config's shape, no weight files (benchmarks)" },
  { "--threads", set_i32, AT(threads), 1, 256, NULL, NULL, ALL_RUN,
    "threads of the CPU backend [one per core]" },
  { "--api-threads", set_i32, AT(api_threads), 1, 16, "1", NULL, CONF_SERVE,
    "threads that parse requests and write answers" },
  { "--max-queue", set_i32, AT(max_queue), 1, 65536, "1024", NULL, CONF_SERVE,
    "requests that may wait; more are answered 503" },
  { "--max-queue-tokens", set_i32, AT(max_queue_tokens), 0, 1 << 30, "2097152", NULL, CONF_SERVE,
    "prompt tokens that may wait; more are answered 503. 0: no limit" },
  { "--max-queue-wait", set_i32, AT(max_queue_wait_s), 0, 3600, "60", NULL, CONF_SERVE,
    "seconds: who would wait longer is answered 503 at once. 0: no limit" },
  { "--max-requests-per-key", set_i32, AT(max_requests_per_key), 0, 65536, "0", NULL, CONF_SERVE,
    "unfinished requests of one API key; more are answered 429. 0: no limit" },
  { "--itl-target-ms", set_i32, AT(itl_target_ms), 0, 10000, "0", NULL,
    CONF_SERVE | CONF_BENCH_PACE,
    "time between two tokens that prompts of others may not spoil. 0: off" },
  { "--enable-prefix-caching", set_off, AT(no_prefix_cache), 0, 0, NULL, NULL, ALL_MODEL,
    "keep the KV cache of prompts for requests that begin alike [on]" },
  { "--no-enable-prefix-caching", set_flag, AT(no_prefix_cache), 0, 0, NULL, NULL, ALL_MODEL,
    "do not" },
  { "--reuse-point-tokens", set_i32, AT(reuse_point_tokens), 0, 1 << 24, "4096", NULL, ALL_MODEL,
    "prompts can be taken up every so many tokens, besides at their ends. 0: not" },
  { "--kv-session-tokens", set_i32, AT(kv_session_tokens), 1, 1 << 24, NULL, NULL, ALL_MODEL,
    "expected length of a chat: the KV pools are split by it [8192]" },
  { "--async-scheduling", set_off, AT(no_overlap), 0, 0, NULL, NULL,
    CONF_SERVE | CONF_SCORE | CONF_BENCH_PACE,
    "plan a step while the one before runs [on]" },
  { "--no-async-scheduling", set_flag, AT(no_overlap), 0, 0, NULL, NULL,
    CONF_SERVE | CONF_SCORE | CONF_BENCH_PACE, "do not" },
  { "--uds", set_str, AT(uds), 0, 107, NULL, NULL, CONF_SERVE,
    "unix socket for nginx [/run/inferd/NAME.sock]" },
  { "--uds-mode", set_octal, AT(uds_mode), 0, 0777, "0600", NULL, CONF_SERVE,
    "its permissions, octal" },
  { "--uds-group", set_str, AT(uds_group), 0, 32, NULL, NULL, CONF_SERVE,
    "its group, e.g. www-data (with --uds-mode 0660)" },
  { "--api-key-file", set_str, AT(api_key_file), 1, 4095, NULL, NULL, CONF_SERVE,
    "API keys that are let in: KEY [NAME [admin]] a line; SIGHUP reads it again" },
  { "--strict", set_flag, AT(strict), 0, 0, NULL, NULL, CONF_SERVE,
    "refuse requests with fields that no table knows" },
  { "--special-tokens-in-messages", set_word, AT(message_tokens), 0, 0, "text", "text|parse",
    CONF_SERVE, "what a message is that spells a control token, e.g. <|turn>; parse: that token, as"
    " with the official template" },
  { "--ping-interval", set_i32, AT(ping_interval_s), 0, 3600, "15", NULL, CONF_SERVE,
    "seconds of silence after which a stream gets a ping. 0: never" },
  { "--drain-timeout", set_i32, AT(drain_timeout_s), 0, 86400, "60", NULL, CONF_SERVE,
    "seconds that running requests get after SIGTERM" },
  { "--log-level", set_word, AT(log_level), 0, 0, "info", "error|warn|info", CONF_SERVE,
    "least important level that is logged" },
  { "--batch", set_i32, AT(batch), 1, 1024, "1", NULL, CONF_SCORE, "lines scored at once" },
  { "--system", set_str, AT(system), 0, 65536, NULL, NULL, CONF_CHAT, "system prompt" },
  { "--thinking", set_flag, AT(thinking), 0, 0, NULL, NULL, CONF_CHAT,
    "let the model think first" },
  { "--temperature", set_double, AT(temperature), 0, 2, NULL, NULL,
    CONF_CHAT | CONF_BENCH_SERVE, "0 is greedy [the model's default]" },
  { "--max-tokens", set_i32, AT(max_tokens), 1, 1 << 24, "1024", NULL, CONF_CHAT,
    "longest answer" },
  { "--batches", set_str, AT(batches), 0, 200, "1,8,64", NULL, CONF_BENCH,
    "numbers of requests that decode together" },
  { "--contexts", set_str, AT(contexts), 0, 200, "128,1024,8192", NULL, CONF_BENCH,
    "tokens of a prompt, and before a decoded token" },
  { "--prompt-tokens", set_i32, AT(prompt_tokens), 1, 1 << 22, "100000", NULL, CONF_BENCH_PACE,
    "tokens of the prompt" },
  { "--decodes", set_i32, AT(decodes), 1, 1023, "32", NULL, CONF_BENCH_PACE,
    "answers beside it" },
  { "--url", set_str, AT(url), 0, 2000, NULL, NULL, CONF_BENCH_SERVE,
    "http://HOST:PORT/v1/completions (prompts are ids) or .../v1/chat/completions (words)" },
  { "--model", set_str, AT(model), 0, 200, NULL, NULL, CONF_BENCH_SERVE,
    "its name in requests [the server's first]" },
  { "--header", set_str, AT(header), 0, 2000, NULL, NULL, CONF_BENCH_SERVE,
    "one more header, e.g. \"Authorization: Bearer ...\"" },
  { "--num-prompts", set_i32, AT(num_prompts), 1, 1000000, "1000", NULL, CONF_BENCH_SERVE,
    "requests in all" },
  { "--num-warmups", set_i32, AT(num_warmups), 0, 10000, "1", NULL, CONF_BENCH_SERVE,
    "requests before, with other prompts, that do not count" },
  { "--max-concurrency", set_i32, AT(max_concurrency), 0, 65536, "0", NULL, CONF_BENCH_SERVE,
    "requests under way at once: a closed loop. 0: no limit" },
  { "--request-rate", set_rate, AT(request_rate), 1e-3, 1e6, "inf", NULL, CONF_BENCH_SERVE,
    "requests a second, a Poisson process: an open loop. inf: all at once" },
  { "--random-input-len", set_i32, AT(random_input_len), 1, 1 << 20, "1024", NULL,
    CONF_BENCH_SERVE, "tokens of a prompt; for chat, words" },
  { "--random-output-len", set_i32, AT(random_output_len), 1, 1 << 20, "128", NULL,
    CONF_BENCH_SERVE, "tokens of an answer" },
  { "--random-range-ratio", set_double, AT(random_range_ratio), 0, 0.999, "0", NULL,
    CONF_BENCH_SERVE, "both are uniform in len * (1 - ratio) .. len * (1 + ratio)" },
  { "--random-prefix-len", set_i32, AT(random_prefix_len), 0, 1 << 20, "0", NULL,
    CONF_BENCH_SERVE, "tokens before these that all prompts share" },
  { "--random-vocab", set_i32, AT(random_vocab), 32, 1 << 22, "200000", NULL, CONF_BENCH_SERVE,
    "ids of prompts are below this, and not in its first 16th" },
  { "--seed", set_i32, AT(seed), 0, INT32_MAX, "0", NULL, CONF_BENCH_SERVE,
    "of prompts, lengths and times; the same again finds its prompts in a prefix cache" },
  { "--ignore-eos", set_off, AT(no_ignore_eos), 0, 0, NULL, NULL, CONF_BENCH_SERVE,
    "answers are as long as asked [on]" },
  { "--no-ignore-eos", set_flag, AT(no_ignore_eos), 0, 0, NULL, NULL, CONF_BENCH_SERVE,
    "they end where the model ends them" },
  { "--top-p", set_double, AT(top_p), 1e-6, 1, NULL, NULL, CONF_BENCH_SERVE,
    "[the model's default]" },
  { "--top-k", set_i32, AT(top_k), 0, 1 << 22, NULL, NULL, CONF_BENCH_SERVE,
    "0 is off [the model's default]" },
  { "--goodput", set_good, AT(good_ms), 0, 0, NULL, NULL, CONF_BENCH_SERVE,
    "ttft:MS tpot:MS e2el:MS, some of them: count the requests a second that keep to these" },
  { "--result-file", set_str, AT(result_file), 0, 4000, NULL, NULL, CONF_BENCH_SERVE,
    "write the result there as JSON" },
  { "--csv", set_str, AT(csv), 0, 4000, NULL, NULL, CONF_BENCH_SERVE,
    "append it there as a row, as in bench/results/serve.csv" },
  { "--commit", set_cell, AT(commit), 0, 200, NULL, NULL, CONF_BENCH_SERVE | ALL_BENCH,
    "for the row: of what was measured" },
  { "--device", set_cell, AT(device), 0, 200, NULL, NULL, CONF_BENCH_SERVE | ALL_BENCH,
    "for the row: what it ran on" },
  { "--shape", set_cell, AT(shape), 0, 200, NULL, NULL, CONF_BENCH_SERVE,
    "for the row: of the model, e.g. 26B-A4B-bf16-dummy" },
  { "--help", set_flag, AT(help), 0, 0, NULL, NULL, ~0, "this list" },
  { "-h", set_flag, AT(help), 0, 0, NULL, NULL, ~0, "the same" },
};

#define N_OPT  (sizeof(opts) / sizeof(opts[0]))
#define FIELD(c, o, type)  (*(type *) ((char *) (c) + (o)->off))

static const struct { int cmd, n; const char *name, *args; } commands[] = {
    { CONF_SERVE,   1, "serve",   "DIR" },
    { CONF_PLAN,    1, "plan",    "DIR" },
    { CONF_INSPECT, 1, "inspect", "DIR" },
    { CONF_SCORE,   2, "score",   "DIR FILE" },
    { CONF_RENDER,  1, "render",  "FILE" },
    { CONF_CHAT,    1, "chat",    "DIR" },
    { CONF_BENCH,   1, "bench engine", "DIR" },
    { CONF_BENCH_PACE, 1, "bench pace", "DIR" },
    { CONF_BENCH_SERVE, 0, "bench serve", "--url URL" },
    { CONF_API,     0, "api",     "" },
};

static int bad_range(const struct conf_opt *o, const char *v, struct err *e)
{
    return err_set(e, E_INVALID, "%s: \"%.40s\" is not a whole number from %.0f to %.0f", o->name,
                   v, o->min, o->max);
}

static int set_i32(struct conf *c, const struct conf_opt *o, const char *v, struct err *e)
{
    char *end;
    long n;

    errno = 0;
    n = strtol(v, &end, 10);
    if (end == v || *end != '\0' || errno != 0 || isspace((unsigned char) *v)
        || n < (long) o->min || n > (long) o->max)
        return bad_range(o, v, e);

    FIELD(c, o, int32_t) = (int32_t) n;
    return 0;
}

static int set_octal(struct conf *c, const struct conf_opt *o, const char *v, struct err *e)
{
    char *end;
    long n = strtol(v, &end, 8);

    if (end == v || *end != '\0' || n < 0 || n > (long) o->max)
        return err_set(e, E_INVALID, "%s: \"%.40s\" is not an octal mode from 0 to %lo", o->name, v,
                       (long) o->max);

    FIELD(c, o, int32_t) = (int32_t) n;
    return 0;
}

int conf_size(const char *s, uint64_t *v)
{
    static const char units[] = "kmgt";
    unsigned shift = 0;
    const char *u;
    char *end;

    if (!isdigit((unsigned char) *s))
        return E_INVALID;

    errno = 0;
    *v = strtoull(s, &end, 10);
    if (*end != '\0' && (u = strchr(units, tolower((unsigned char) *end))) != NULL) {
        shift = 10 * (unsigned) (u - units + 1);
        end++;
    }
    if (errno != 0 || *end != '\0' || *v > (UINT64_MAX >> shift))
        return E_INVALID;

    *v <<= shift;
    return 0;
}

static int set_bytes(struct conf *c, const struct conf_opt *o, const char *v, struct err *e)
{
    uint64_t n;

    if (conf_size(v, &n) != 0 || n < (uint64_t) o->min || n > (uint64_t) o->max)
        return err_set(e, E_INVALID, "%s: \"%.40s\" is not a size from %.0f to %.0f bytes"
                       " (k, m, g and t are understood)", o->name, v, o->min, o->max);

    FIELD(c, o, uint64_t) = n;
    return 0;
}

static int set_double(struct conf *c, const struct conf_opt *o, const char *v, struct err *e)
{
    char *end;
    double d = strtod(v, &end);

    if (end == v || *end != '\0' || !isfinite(d) || d < o->min || d > o->max)
        return err_set(e, E_INVALID, "%s: \"%.40s\" is not a number from %g to %g", o->name, v,
                       o->min, o->max);

    FIELD(c, o, double) = d;
    return 0;
}

static int set_str(struct conf *c, const struct conf_opt *o, const char *v, struct err *e)
{
    if (*v == '\0' || strlen(v) > (size_t) o->max)
        return err_set(e, E_INVALID, "%s: must be 1 to %.0f bytes long", o->name, o->max);

    FIELD(c, o, const char *) = v;
    return 0;
}

static int set_flag(struct conf *c, const struct conf_opt *o, const char *v, struct err *e)
{
    (void) v;
    (void) e;
    FIELD(c, o, bool) = true;
    return 0;
}

static int set_off(struct conf *c, const struct conf_opt *o, const char *v, struct err *e)
{
    (void) v;
    (void) e;
    FIELD(c, o, bool) = false;
    return 0;
}

static int set_word(struct conf *c, const struct conf_opt *o, const char *v, struct err *e)
{
    const char *w = o->words;
    size_t n = strlen(v);

    for (int32_t i = 0; ; i++) {
        size_t len = strcspn(w, "|");

        if (len == n && memcmp(w, v, n) == 0) {
            FIELD(c, o, int32_t) = i;
            return 0;
        }
        if (w[len] == '\0')
            return err_set(e, E_INVALID, "%s: \"%.40s\" is none of %s", o->name, v, o->words);
        w += len + 1;
    }
}

static int set_name(struct conf *c, const struct conf_opt *o, const char *v, struct err *e)
{
    if (*v == '\0' || strlen(v) > 63)
        return err_set(e, E_INVALID, "%s: must be 1 to 63 bytes long", o->name);
    if (c->n_served_name == CONF_NAME_MAX)
        return err_set(e, E_INVALID, "%s: at most %d names", o->name, CONF_NAME_MAX);

    c->served_name[c->n_served_name++] = v;
    return 0;
}

/* "inf", or a number. */
static int set_rate(struct conf *c, const struct conf_opt *o, const char *v, struct err *e)
{
    FIELD(c, o, double) = 0;
    return strcmp(v, "inf") == 0 ? 0 : set_double(c, o, v, e);
}

static int set_good(struct conf *c, const struct conf_opt *o, const char *v, struct err *e)
{
    static const char *const name[] = { "ttft:", "tpot:", "e2el:" };
    char *end;

    for (int i = 0; i < 3; i++) {
        double ms = strncmp(v, name[i], 5) == 0 ? strtod(v + 5, &end) : 0;

        if (ms > 0 && isfinite(ms) && *end == '\0') {
            (&FIELD(c, o, double))[i] = ms;
            return 0;
        }
    }
    return err_set(e, E_INVALID, "%s: \"%.40s\" is not ttft:MS, tpot:MS or e2el:MS", o->name, v);
}

/* One field of a CSV row: nothing that would have to be quoted. */
static int set_cell(struct conf *c, const struct conf_opt *o, const char *v, struct err *e)
{
    if (strpbrk(v, ",\"\r\n") != NULL)
        return err_set(e, E_INVALID, "%s: no commas, quotes or line ends", o->name);
    return set_str(c, o, v, e);
}

/* "--name value" and "--name=value"; *used counts the arguments eaten. */
static int one_option(struct conf *c, int cmd, int n_arg, char **arg, int *used, struct err *e)
{
    const char *eq = strchr(arg[0], '=');
    size_t n = eq != NULL ? (size_t) (eq - arg[0]) : strlen(arg[0]);
    const struct conf_opt *o = NULL;

    for (size_t i = 0; i < N_OPT; i++) {
        if (strlen(opts[i].name) == n && memcmp(opts[i].name, arg[0], n) == 0
            && (opts[i].cmds & cmd) != 0)
            o = &opts[i];
    }
    if (o == NULL)
        return err_set(e, E_INVALID, "unknown option %.60s (--help lists them)", arg[0]);

    *used = 1;
    if (o->set == set_flag || o->set == set_off) {
        if (eq != NULL)
            return err_set(e, E_INVALID, "%s: takes no value", o->name);
        return o->set(c, o, NULL, e);
    }
    if (eq != NULL)
        return o->set(c, o, eq + 1, e);
    if (n_arg < 2)
        return err_set(e, E_INVALID, "%s: needs a value", o->name);

    *used = 2;
    while (o->set == set_good && *used < n_arg && arg[*used][0] != '-') {
        int rc = o->set(c, o, arg[*used - 1], e);      /* vLLM takes several values */

        if (rc != 0)
            return rc;
        ++*used;
    }
    return o->set(c, o, arg[*used - 1], e);
}

static int check_url(const struct conf *c, struct err *e)
{
    const char *end = "/completions";
    size_t n = c->url != NULL ? strlen(c->url) : 0, k = strlen(end);

    if (n < k || strcmp(c->url + n - k, end) != 0
        || (strncmp(c->url, "http://", 7) != 0 && strncmp(c->url, "https://", 8) != 0))
        return err_set(e, E_INVALID, "--url: must be http://HOST:PORT/v1/completions or"
                       " .../v1/chat/completions");
    return 0;
}

/* What no single option can say. */
static int check_together(struct conf *c, int cmd, struct err *e)
{
    if (cmd == CONF_BENCH_SERVE && !c->help)
        return check_url(c, e);
    if (c->max_num_seqs == 0)
        c->max_num_seqs = c->max_num_batched_tokens < SEQS ? c->max_num_batched_tokens : SEQS;
    if (cmd == CONF_SERVE && c->max_num_seqs > c->max_num_batched_tokens)
        return err_set(e, E_INVALID, "--max-num-seqs: %d requests that run get a token each in a"
                       " step of %d (--max-num-batched-tokens)", c->max_num_seqs,
                       c->max_num_batched_tokens);
    if (c->reuse_point_tokens > 0 && c->reuse_point_tokens < c->block_size)
        return err_set(e, E_INVALID, "--reuse-point-tokens: %d is less than a page of %d"
                       " (--block-size); 0 turns it off", c->reuse_point_tokens, c->block_size);
    if (c->itl_target_ms > 0 && c->max_num_batched_tokens <= c->block_size)
        return err_set(e, E_INVALID, "--itl-target-ms: prompts get a page of %d tokens at least"
                       " (--block-size), so a step of %d (--max-num-batched-tokens) leaves nothing"
                       " to choose", c->block_size, c->max_num_batched_tokens);
    return 0;
}

int conf_parse(struct conf *c, int cmd, int n_arg, char **arg, struct err *e)
{
    int rc, used, n_pos = 0;

    memset(c, 0, sizeof(*c));
    c->temperature = c->top_p = c->top_k = -1;
    for (size_t i = 0; i < N_OPT; i++) {
        if (opts[i].def != NULL && (opts[i].cmds & cmd) != 0
            && (rc = opts[i].set(c, &opts[i], opts[i].def, e)) != 0)
            return rc;
    }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (commands[i].cmd == cmd)
            n_pos = commands[i].n;
    }

    for (int i = 0; i < n_arg; i += used) {
        used = 1;
        if (arg[i][0] == '-' && arg[i][1] != '\0') {
            if ((rc = one_option(c, cmd, n_arg - i, arg + i, &used, e)) != 0)
                return rc;
            continue;
        }
        if (c->n_pos == n_pos)
            return err_set(e, E_INVALID, "unexpected argument %.60s", arg[i]);
        c->pos[c->n_pos++] = arg[i];
    }

    if (!c->help && c->n_pos < n_pos)
        return err_set(e, E_INVALID, "%s is missing (--help shows the usage)",
                       cmd == CONF_RENDER || (cmd == CONF_SCORE && c->n_pos == 1) ? "FILE"
                       : "DIR");
    return check_together(c, cmd, e);
}

void conf_help(int cmd)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (commands[i].cmd == cmd)
            printf("usage: inferd %s%s%s [options]\n\n", commands[i].name,
                   commands[i].args[0] != '\0' ? " " : "", commands[i].args);
    }
    for (size_t i = 0; i < N_OPT; i++) {
        const struct conf_opt *o = &opts[i];

        if ((o->cmds & cmd) == 0)
            continue;
        printf("  %-26s %s", o->name, o->help);
        if (o->words != NULL)
            printf(": %s", o->words);
        if (o->def != NULL)
            printf(" [%s]", o->def);
        printf("\n");
    }
}
