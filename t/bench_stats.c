/* bench_stats.c - what `bench serve` reports, against numbers from hand; and the requests that it
 * makes: the same from the same seed, in their ranges, at their rate. */
#include "tap.h"
#include "bench_stats.h"
#include "bench_work.h"
#include "json.h"

#include <math.h>
#include <stdlib.h>

static struct err e;

static void near(double got, double want, const char *what)
{
    if (!ok(fabs(got - want) <= 1e-9 * (1 + fabs(want)), "%s", what))
        printf("# got %.12g, want %.12g\n", got, want);
}

static void percentiles(void)
{
    double v[] = { 1, 2, 3, 4 }, one[] = { 7 };

    near(bench_percentile(v, 4, 0), 1, "the least");
    near(bench_percentile(v, 4, 50), 2.5, "the median of four lies between two");
    near(bench_percentile(v, 4, 90), 3.7, "90 % as numpy has it");
    near(bench_percentile(v, 4, 100), 4, "the largest");
    near(bench_percentile(one, 1, 99), 7, "of one value");
}

static void sums(void)
{
    double a[] = { 0.1, 0.3 }, c[] = { 9 };
    struct bench_req r[] = {
        { true, 0.5, 0.9, a, 2, 10, 3 },            /* TPOT 0.2 s */
        { true, 0.2, 0.2, NULL, 0, 20, 1 },         /* one token: no TPOT, 0 for a goal */
        { false, 5, 9, c, 1, 1000, 1000 },          /* failed: counts nowhere */
        { true, 0.1, 1.1, NULL, 0, 30, 2 },         /* both in one event: TPOT 1 s, no ITL */
    };
    struct bench_goal any = {0}, tpot = { .tpot_ms = 200.0001 }, both = { 300, 200.0001, 0 },
                      e2el = { .e2el_ms = 900.0001 };
    struct bench_sum s;

    is_int(bench_stats(&s, r, 4, 2, &any, &e), 0, "three requests of four");
    is_int(s.completed, 3, "completed");
    is_int(s.failed, 1, "failed");
    is_int(s.input_tok, 60, "tokens in");
    is_int(s.output_tok, 6, "tokens out");
    near(s.req_per_s, 1.5, "requests a second");
    near(s.good_per_s, 1.5, "without a goal all are good");
    near(s.output_per_s, 3, "tokens a second");
    near(s.tok_per_s, 33, "both kinds");
    near(s.ttft.mean, 800.0 / 3, "TTFT");
    near(s.ttft.p50, 200, "its median");
    near(s.ttft.p99, 494, "its p99: 200 + 0.98 * 300");
    near(s.tpot.mean, 600, "TPOT of two");
    near(s.tpot.std, 400, "and its deviation");
    near(s.itl.mean, 200, "ITL");
    near(s.itl.p90, 280, "its p90: 100 + 0.9 * 200");
    near(s.e2el.p50, 900, "E2EL");

    bench_stats(&s, r, 4, 2, &tpot, &e);
    near(s.good_per_s, 1, "a goal for TPOT: one token always meets it");
    bench_stats(&s, r, 4, 2, &both, &e);
    near(s.good_per_s, 0.5, "two goals");
    bench_stats(&s, r, 4, 2, &e2el, &e);
    near(s.good_per_s, 1, "a goal for E2EL");

    is_int(bench_stats(&s, r + 2, 1, 2, &any, &e), 0, "only failures");
    ok(s.completed == 0 && s.ttft.p99 == 0 && s.itl.mean == 0, "are zeros, not NaN");
}

#define N_ITEM 4000

static void lengths_and_times(void)
{
    struct bench_shape s = { .input_len = 100, .output_len = 1, .range = 0.25, .rate = 50,
                             .seed = 3 };
    static struct bench_item a[N_ITEM], b[N_ITEM];
    int32_t low = 1000, high = 0, bad = 0, over = 0;
    double mean = 0;

    bench_work(a, N_ITEM, &s);
    bench_work(b, N_ITEM, &s);
    is_int(memcmp(a, b, sizeof(a)), 0, "the same seed, the same work");
    s.seed = 4;
    bench_work(b, N_ITEM, &s);
    ok(memcmp(a, b, sizeof(a)) != 0, "another one, another");

    for (int32_t i = 0; i < N_ITEM; i++) {
        low = a[i].input_len < low ? a[i].input_len : low;
        high = a[i].input_len > high ? a[i].input_len : high;
        mean += a[i].input_len / (double) N_ITEM;
        bad += a[i].output_len < 1 || a[i].output_len > 2;
        bad += i > 0 && a[i].due_s < a[i - 1].due_s;
        over += i > 0 && a[i].due_s - a[i - 1].due_s > 1 / 50.0;
    }
    ok(low == 75 && high == 125 && fabs(mean - 100) < 1, "75 to 125 tokens, both ends met");
    is_int(bad, 0, "answers have a token at least, times rise");
    near(a[N_ITEM - 1].due_s, N_ITEM / 50.0, "the last one is due at n / rate");
    ok(fabs(over / (double) N_ITEM - exp(-1)) < 0.03, "gaps are exponential: %d of %d over the"
       " mean", over, N_ITEM);

    s.rate = 0;
    s.range = 0;
    bench_work(a, N_ITEM, &s);
    ok(a[N_ITEM - 1].due_s == 0 && a[7].input_len == 100 && a[7].output_len == 1, "all at once");
}

/* The ids of a body, or the words of its message. */
static int32_t prompt_of(const struct buf *b, bool chat, int32_t id[16])
{
    struct json_limits lim = { 1 << 20, 16, 10000 };
    const struct json *root, *p;
    struct json_doc *doc;
    int32_t n = 0;
    int64_t v;

    if (json_parse(&doc, &root, b->p, b->n, &lim, &e) != 0)
        return -1;
    p = json_get(root, chat ? "messages" : "prompt");
    if (chat) {
        struct slice t = json_get(p->child, "content")->text;

        for (size_t i = 0; i < t.n; i++)
            n += t.p[i] == ' ';
        n++;
    } else {
        for (const struct json *j = p->child; j != NULL; j = j->next)
            if (json_int(j, &v) == 0 && v >= 64 && v < 1024 && n < 16)
                id[n++] = (int32_t) v;
    }
    json_free(doc);
    return n;
}

static void bodies(void)
{
    struct bench_shape s = { .model = "a \"model\"", .prefix_len = 4, .input_len = 8,
                             .output_len = 5, .vocab = 1024, .temperature = -1, .top_p = -1,
                             .top_k = -1, .ignore_eos = true, .seed = 9 };
    struct bench_item item[2];
    struct buf b = {0}, c = {0};
    int32_t x[16], y[16];

    bench_work(item, 2, &s);
    bench_body(&b, &item[0], &s);
    bench_body(&c, &item[1], &s);
    is_int(prompt_of(&b, false, x), 12, "prefix and prompt, all ids in their range");
    is_int(prompt_of(&c, false, y), 12, "so has the next");
    ok(memcmp(x, y, 16) == 0 && memcmp(x + 4, y + 4, 32) != 0, "the prefix is shared, the rest"
       " not");
    buf_put(&b, "", 1);
    ok(strstr(b.p, "\"max_tokens\":5,\"ignore_eos\":true,") != NULL
       && !strstr(b.p, "temperature"), "what was not asked for is not sent");

    s.chat = true;
    s.temperature = 0;
    s.top_k = 0;
    s.ignore_eos = false;
    b.n = 0;
    bench_body(&b, &item[0], &s);
    is_int(prompt_of(&b, true, x), 12, "words of a chat");
    buf_put(&b, "", 1);
    ok(strstr(b.p, "\"max_completion_tokens\":5,\"temperature\":0,\"top_k\":0,") != NULL,
       "its fields");
    ok(!strstr(b.p, "ignore_eos") && !strstr(b.p, "top_p"), "and no others");
    buf_free(&b);
    buf_free(&c);
}

int main(void)
{
    percentiles();
    sums();
    lengths_and_times();
    bodies();
    return done_testing();
}
