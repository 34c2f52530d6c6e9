/* conf.c - the option table: defaults, bounds at their edges, and words that name the option. */
#include "tap.h"
#include "conf.h"

static struct conf c;
static struct err e;

static int parse(int cmd, int n, ...)
{
    char *arg[8];
    __builtin_va_list ap;

    __builtin_va_start(ap, n);
    for (int i = 0; i < n; i++)
        arg[i] = __builtin_va_arg(ap, char *);
    __builtin_va_end(ap);
    e.msg[0] = '\0';
    return conf_parse(&c, cmd, n, arg, &e);
}

static void refuse(const char *opt, const char *value)
{
    int rc = parse(CONF_SERVE, 3, "dir", opt, value);

    ok(rc == E_INVALID && strstr(e.msg, opt) != NULL && strchr(e.msg, '\n') == NULL,
       "%s %s: %s", opt, value, e.msg);
}

/* Two options that contradict each other: the words name both. */
static void refuse_both(const char *a, const char *b)
{
    int rc = parse(CONF_SERVE, 3, "dir", a, b);
    char name[40];

    snprintf(name, sizeof(name), "%.*s", (int) strcspn(b, "="), b);
    ok(rc == E_INVALID && strstr(e.msg, name) != NULL && strchr(e.msg, '\n') == NULL, "%s %s: %s",
       a, b, e.msg);
}

static void queue_and_cache(void)
{
    static const struct { const char *opt, *least, *most, *below, *above; } row[] = {
        { "--max-queue", "1", "65536", "0", "65537" },
        { "--max-queue-tokens", "0", "1073741824", "-1", "1073741825" },
        { "--max-queue-wait", "0", "3600", "-1", "3601" },
        { "--max-requests-per-key", "0", "65536", "-1", "65537" },
        { "--itl-target-ms", "0", "10000", "-1", "10001" },
        { "--reuse-point-tokens", "0", "16777216", "-1", "16777217" },
        { "--kv-session-tokens", "1", "16777216", "0", "16777217" },
    };

    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        ok(parse(CONF_SERVE, 3, "dir", row[i].opt, row[i].least) == 0
           && parse(CONF_SERVE, 3, "dir", row[i].opt, row[i].most) == 0, "%s from %s to %s",
           row[i].opt, row[i].least, row[i].most);
        refuse(row[i].opt, row[i].below);
        refuse(row[i].opt, row[i].above);
        refuse(row[i].opt, "1.5");
    }

    is_int(parse(CONF_SERVE, 1, "dir"), 0, "by default");
    ok(!c.no_prefix_cache && !c.no_overlap && c.max_queue_wait_s == 60, "cache and overlap are on");
    is_int(parse(CONF_SERVE, 3, "dir", "--no-enable-prefix-caching", "--no-async-scheduling"), 0,
           "vLLM's names");
    ok(c.no_prefix_cache && c.no_overlap, "turn them off");
    is_int(parse(CONF_SERVE, 3, "dir", "--no-enable-prefix-caching", "--enable-prefix-caching"), 0,
           "the last one");
    ok(!c.no_prefix_cache, "counts");
    is_int(parse(CONF_SCORE, 3, "dir", "file", "--max-queue=1"), E_INVALID, "serve's alone: %s",
           e.msg);

    refuse_both("--max-num-seqs=65", "--max-num-batched-tokens=64");
    is_int(parse(CONF_SERVE, 3, "dir", "--max-num-seqs=64", "--max-num-batched-tokens=64"), 0,
           "a token each is enough");
    refuse_both("--reuse-point-tokens=15", "--block-size=16");
    is_int(parse(CONF_SERVE, 3, "dir", "--reuse-point-tokens=16", "--block-size=16"), 0, "a page");
    is_int(parse(CONF_SERVE, 5, "dir", "--itl-target-ms=20", "--block-size=64", "--max-num-seqs=64",
                 "--max-num-batched-tokens=64"), E_INVALID, "a step of one page: %s", e.msg);
    is_int(parse(CONF_SERVE, 5, "dir", "--itl-target-ms=20", "--block-size=64", "--max-num-seqs=64",
                 "--max-num-batched-tokens=65"), 0, "a token more");
}

static void sizes(void)
{
    static const struct { const char *s; int rc; unsigned long long v; } row[] = {
        { "0", 0, 0 }, { "1048576", 0, 1048576 }, { "64k", 0, 65536 }, { "2G", 0, 2ull << 30 },
        { "18446744073709551615", 0, ~0ull }, { "18446744073709551616", E_INVALID, 0 },
        { "17179869184g", E_INVALID, 0 }, { "", E_INVALID, 0 }, { "-1", E_INVALID, 0 },
        { "1kb", E_INVALID, 0 }, { " 1", E_INVALID, 0 }, { "k", E_INVALID, 0 },
    };

    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        uint64_t v = 0;
        int rc = conf_size(row[i].s, &v);

        ok(rc == row[i].rc && (rc != 0 || v == row[i].v), "size \"%s\"", row[i].s);
    }
}

static void bench_serve(void)
{
    char *url = "--url=http://h:1/v1/completions";

    is_int(parse(CONF_BENCH_SERVE, 1, url), 0, "bench serve");
    ok(c.request_rate == 0 && c.max_concurrency == 0 && c.num_prompts == 1000 && !c.no_ignore_eos
       && c.temperature < 0 && c.top_p < 0 && c.top_k < 0, "the defaults");
    is_int(parse(CONF_BENCH_SERVE, 0), E_INVALID, "no url: %s", e.msg);
    is_int(parse(CONF_BENCH_SERVE, 1, "--url=http://h/v1/models"), E_INVALID, "another: %s", e.msg);
    is_int(parse(CONF_BENCH_SERVE, 1, "--url=ftp://h/v1/completions"), E_INVALID, "no http: %s",
           e.msg);
    is_int(parse(CONF_BENCH_SERVE, 5, url, "--goodput", "ttft:5", "tpot:0.5", "--seed=1"), 0,
           "several values");
    ok(c.good_ms[0] == 5 && c.good_ms[1] == 0.5 && c.good_ms[2] == 0 && c.seed == 1, "are taken");
    is_int(parse(CONF_BENCH_SERVE, 3, url, "--goodput=e2el:1", "ttft:1"), E_INVALID,
           "not after a =: %s", e.msg);
    is_int(parse(CONF_BENCH_SERVE, 3, url, "--goodput", "ttft:0"), E_INVALID, "0: %s", e.msg);
    is_int(parse(CONF_BENCH_SERVE, 3, url, "--goodput", "ttft:inf"), E_INVALID, "inf: %s", e.msg);
    is_int(parse(CONF_BENCH_SERVE, 2, url, "--request-rate=inf"), 0, "--request-rate inf");
    is_int(parse(CONF_BENCH_SERVE, 2, url, "--request-rate=2.5"), 0, "--request-rate 2.5");
    ok(c.request_rate == 2.5, "is a number");
    is_int(parse(CONF_BENCH_SERVE, 2, url, "--request-rate=0"), E_INVALID, "0: %s", e.msg);
}

int main(void)
{
    is_int(parse(CONF_SERVE, 1, "dir"), 0, "only the directory");
    is_str(c.pos[0], "dir", "the directory");
    is_int(c.max_num_seqs, 256, "a default");
    is_int(c.uds_mode, 0600, "the socket is private by default");
    is_int(parse(CONF_SERVE, 4, "--max-num-seqs", "1", "dir", "--block-size=1024"), 0,
           "options before and after, both forms");
    is_int(c.block_size, 1024, "the largest value is taken");

    refuse("--max-num-seqs", "0");
    refuse("--max-num-seqs", "1025");
    refuse("--max-num-seqs", "-1");
    refuse("--max-num-seqs", "9223372036854775808");
    refuse("--max-num-seqs", "many");
    refuse("--max-num-seqs", "");
    refuse("--max-num-seqs", " 5");
    refuse("--max-num-seqs", "5x");
    refuse("--max-num-seqs", "nan");
    refuse("--kv-cache-memory-bytes", "65535");
    refuse("--kv-cache-memory-bytes", "1p");
    refuse("--uds-mode", "0888");
    refuse("--uds-mode", "1000");
    refuse("--backend", "gpu");
    refuse("--log-level", "loud");
    refuse("--log-level", "debug");
    refuse("--special-tokens-in-messages", "ids");
    refuse("--uds", "");

    is_int(parse(CONF_SERVE, 2, "dir", "--gpus=1"), E_INVALID, "an unknown option: %s", e.msg);
    is_int(parse(CONF_SERVE, 2, "dir", "--thinking"), E_INVALID, "another command's: %s", e.msg);
    is_int(parse(CONF_SERVE, 2, "dir", "--uds"), E_INVALID, "no value: %s", e.msg);
    is_int(parse(CONF_SERVE, 0), E_INVALID, "no directory: %s", e.msg);
    is_int(parse(CONF_SERVE, 2, "a", "b"), E_INVALID, "two directories: %s", e.msg);
    is_int(parse(CONF_SCORE, 1, "a"), E_INVALID, "score without FILE: %s", e.msg);
    is_int(parse(CONF_CHAT, 3, "a", "--temperature", "nan"), E_INVALID, "NaN: %s", e.msg);
    is_int(parse(CONF_CHAT, 3, "a", "--temperature", "2"), 0, "temperature 2");
    is_int(parse(CONF_CHAT, 3, "a", "--temperature", "2.01"), E_INVALID, "2.01: %s", e.msg);
    sizes();
    queue_and_cache();
    bench_serve();

    return done_testing();
}
