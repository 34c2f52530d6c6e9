/* api.c - what a request costs before its first token, and a token on its way to the client.
 *
 * usage: build/bench/api DIR [ROUNDS]
 * Prints CSV: medians, for one thread. DIR has the tokenizer. The request is a chat of about 2,000
 * tokens with 20 tools; the answers are as long as a context allows and leave token by token. */
#include "chat.h"
#include "choice.h"
#include "dialect.h"
#include "guide.h"
#include "work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N_TOOL     20
#define PROMPT_TOK 2000
#define ANSWER_TOK 4000
#define PAGE       16

static struct tok       *tok;
static struct model_conf mc;
static struct api        api = { .mc = &mc };        /* as far as a guide looks into it */

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec * 1e6 + (double) t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t) n, sizeof(*v), by_value);
    return v[n / 2];
}

static void put_tools(struct buf *b)
{
    for (int i = 0; i < N_TOOL; i++)
        buf_fmt(b, "%s{\"type\":\"function\",\"function\":{\"name\":\"tool_%d\",\"description\":"
                "\"Look up number %d.\",\"parameters\":{\"type\":\"object\",\"properties\":{"
                "\"query\":{\"type\":\"string\",\"description\":\"What to look for\"},"
                "\"limit\":{\"type\":\"integer\"}},\"required\":[\"query\"]}}}",
                i > 0 ? "," : "\"tools\":[", i, i);
    buf_str(b, "]");
}

static void put_body(struct buf *b, int n_message)
{
    b->n = 0;
    buf_str(b, "{\"model\":\"demo\",\"stream\":true,");
    put_tools(b);
    for (int i = 0; i < n_message; i++)
        buf_fmt(b, "%s{\"role\":\"%s\",\"content\":\"What is the weather in Paris today, and what "
                "would you wear there in the evening of day %d?\"}",
                i > 0 ? "," : ",\"messages\":[", i % 2 ? "assistant" : "user", i);
    buf_str(b, "]}");
}

struct cost { double parse, render, tokenise, tools; };

/* One request, as work.c does it. The number of its tokens, or -1. */
static int read_request(const struct buf *body, struct cost *c)
{
    static struct ask ask;
    const struct json_limits lim = { API_BODY_BYTES_MAX, API_JSON_DEPTH_MAX, API_JSON_NODES_MAX };
    struct spans             plain = { 0 };
    const struct chat_opts   opts = { .add_generation_prompt = true, .plain = &plain };
    struct json_doc   *doc = NULL;
    const struct json *root;
    struct buf         text = { 0 };
    struct ids         prompt = { 0 };
    struct guide      *guide = NULL;
    struct api_err     e;
    struct err         err;
    double             t[5];
    int                n;

    t[0] = now_us();
    if (json_parse(&doc, &root, body->p, body->n, &lim, &err) != 0
        || ask_read(&ask, ASK_CHAT, root, &e) != 0)
        return -1;
    t[1] = now_us();
    if (chat_render(ask.messages, ask_tools(&ask), &opts, &text, NULL, &err) != 0)
        return -1;
    t[2] = now_us();
    if (tok_encode_around(tok, text.p, text.n, &plain, &prompt, &err) != 0)
        return -1;
    t[3] = now_us();
    if (guide_open(&guide, &api, ASK_CHAT, &ask, &e) != 0)
        return -1;
    t[4] = now_us();
    *c = (struct cost) { t[1] - t[0], t[2] - t[1], t[3] - t[2], t[4] - t[3] };
    n = (int) prompt.n;

    guide_close(guide);
    ids_free(&prompt);
    spans_free(&plain);
    buf_free(&text);
    json_free(doc);
    return n;
}

static int request(int rounds)
{
    double      *v = malloc(5 * (size_t) rounds * sizeof(*v));
    const char  *name[] = { "parse", "render", "tokenise", "tools", "all" };
    struct buf   body = { 0 };
    struct cost  c;
    int          n_message = 1, n = 0;

    do {
        put_body(&body, n_message += 2);
        n = read_request(&body, &c);
    } while (n >= 0 && n < PROMPT_TOK);
    for (int i = 0; v != NULL && n > 0 && i < rounds; i++) {
        read_request(&body, &c);
        v[i] = c.parse;
        v[rounds + i] = c.render;
        v[2 * rounds + i] = c.tokenise;
        v[3 * rounds + i] = c.tools;
        v[4 * rounds + i] = c.parse + c.render + c.tokenise + c.tools;
    }
    for (int k = 0; v != NULL && n > 0 && k < 5; k++)
        printf("request,%s,%d,%zu,%.1f\n", name[k], n, body.n, median(v + k * rounds, rounds));
    free(v);
    buf_free(&body);
    return v != NULL && n > 0 ? 0 : -1;
}

/* As gen.c does it: each token alone, to the bytes of its event. */
static void take_token(struct choice *c, int32_t n, struct out_id *id, struct buf *out)
{
    struct said_part  part;
    struct slice      bytes;
    struct out_choice o;

    atomic_store_explicit(&c->req.n_pub, n, memory_order_release);
    choice_step(c, API_TEXT_HOLD_MAX);
    while (said_front(&c->said, 4096, &part, &bytes)) {
        o = (struct out_choice) { .role = !c->began, .stop_id = -1 };
        if (part.kind == SAID_CONTENT)
            o.text = bytes;
        else if (part.kind == SAID_REASONING)
            o.reasoning = bytes;
        else
            said_front_call(&c->said, part, bytes, &o.call);
        dialect_chat.delta(out, id, &o, NULL);
        said_take(&c->said, bytes.n);
        c->began = true;
    }
}

/* raw is said again and again in one answer. */
static int answer(const char *what, const char *begin, const char *again, int rounds)
{
    struct out_id id = { .id = "chatcmpl-0123456789abcdef0123456789abcdef", .chat = true,
                         .model = "demo", .fingerprint = "fp_01234567", .created = 1790000000 };
    double       *v = malloc((size_t) rounds * sizeof(*v));
    static const char tools[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":[{"
                                "\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}";
    const struct json_limits lim = { 1 << 16, 64, 1 << 12 };
    static struct ask  ask;
    const struct json *root;
    struct json_doc   *doc = NULL;
    struct guide      *guide = NULL;
    struct ids         raw = { 0 };
    struct buf         out = { 0 };
    struct api_err     e;
    size_t             n_bytes = 0;

    if (json_parse(&doc, &root, tools, strlen(tools), &lim, NULL) != 0
        || ask_read(&ask, ASK_CHAT, root, &e) != 0
        || guide_open(&guide, &api, ASK_CHAT, &ask, &e) != 0
        || tok_encode(tok, begin, strlen(begin), true, &raw, NULL) != 0)
        return -1;
    while (raw.n < ANSWER_TOK)
        if (tok_encode(tok, again, strlen(again), true, &raw, NULL) != 0)
            return -1;

    for (int i = 0; v != NULL && i < rounds; i++) {
        struct choice c = { .tok = tok, .chat = true, .keep_reasoning = true, .guide = guide };
        double        t0;

        if (req_alloc(&c.req, 1, (int32_t) raw.n, PAGE) != 0)
            return -1;
        c.req.tok[0] = api.ids.bos;
        choice_open(&c, &api.ids);
        memcpy(c.req.tok + 1, raw.p, raw.n * sizeof(*raw.p));
        n_bytes = 0;
        t0 = now_us();
        for (int32_t n = 1; n <= (int32_t) raw.n; n++) {
            out.n = 0;
            take_token(&c, n, &id, &out);
            n_bytes += out.n;
        }
        v[i] = (now_us() - t0) / (double) raw.n;
        choice_close(&c);
    }
    if (v != NULL)
        printf("token,%s,%zu,%zu,%.3f\n", what, raw.n, n_bytes, median(v, rounds));
    free(v);
    guide_close(guide);
    json_free(doc);
    ids_free(&raw);
    buf_free(&out);
    return v != NULL ? 0 : -1;
}

int main(int argc, char **argv)
{
    int        rounds = argc > 2 ? atoi(argv[2]) : 201;
    struct err e = { 0 };
    int        rc;

    if (argc < 2 || rounds < 1 || tok_open(&tok, argv[1], &e) != 0) {
        fprintf(stderr, "usage: api DIR [ROUNDS] %s\n", e.msg);
        return 1;
    }
    mc.vocab = tok_n_vocab(tok);
    api.tok = tok;
    channel_ids_find(tok, &api.ids);

    printf("what,part,tokens,bytes,us\n");
    rc = request(rounds);
    if (rc == 0)
        rc = answer("content", "", "Hello! What is the weather in Paris today?\n", rounds);
    if (rc == 0)
        rc = answer("reasoning", "<|channel>thought\n", "I call get_weather for Paris. ", rounds);
    if (rc == 0)
        rc = answer("arguments", "<|tool_call>call:f{a:[",
                    "<|\"|>Paris, \"France\"<|\"|>,{b:12,c:true},", rounds);
    tok_close(tok);
    return rc != 0;
}
