/* api_in.c - request bodies into asks; stop strings cut at every place. */
#include "field.h"
#include "stop.h"
#include "tap.h"

#include <math.h>

#define M "[{\"role\":\"user\",\"content\":\"x\"}]"

static struct json_doc *doc;
static struct ask       a;
static struct api_err   e;

static int read_as(enum ask_kind kind, const char *body)
{
    static const struct json_limits lim = { 1 << 20, 64, 10000 };
    const struct json *root;

    json_free(doc);
    doc = NULL;
    memset(&e, 0, sizeof(e));
    if (json_parse(&doc, &root, body, strlen(body), &lim, NULL) != 0)
        return -100;
    return ask_read(&a, kind, root, &e);
}

static void fields(void)
{
    is_int(read_as(ASK_CHAT, "{\"messages\":" M ",\"n\":3,\"stop\":[\"a\",\"b\"],\"zz\":1,\"yy\":2,"
                   "\"seed\":-1,\"top_k\":-1,\"chat_template_kwargs\":{\"enable_thinking\":false},"
                   "\"reasoning_effort\":\"low\",\"temperature\":null}"), 0, "a chat request");
    is_int(a.n, 3, "n");
    is_int(a.n_stop, 2, "two stop strings");
    is_int(a.n_unknown, 2, "unknown fields are counted");
    ok(!a.has_seed, "seed -1 is no seed");
    is_int(a.top_k, -1, "top_k -1");
    ok(a.temperature < 0, "null is absent");
    ok(a.thinking == ASK_NO && a.effort == ASK_YES, "thinking and effort stay apart");

    is_int(read_as(ASK_TEXT, "{\"prompt\":\"x\",\"messages\":7,\"max_tokens\":0}"), 0,
           "a field of another route is unknown here");
    is_int(a.n_unknown, 1, "and counted");
    is_int(read_as(ASK_CHAT, "{\"messages\":" M ",\"max_tokens\":0}"), E_INVALID,
           "chat needs a token");
    is_str(e.param, "max_tokens", "its name");

    is_int(read_as(ASK_CHAT, "{\"messages\":" M ",\"stream_options\":{\"include_usage\":1}}"),
           E_INVALID, "a nested field");
    is_str(e.param, "stream_options.include_usage", "is named with its path");
    is_int(read_as(ASK_CHAT, "{\"messages\":" M ",\"chat_template_kwargs\":"
                   "{\"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
                   "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
                   "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\":1}}"), E_INVALID, "a foreign variable");
    ok(utf8_valid(e.param, strlen(e.param)) && utf8_valid(e.msg, strlen(e.msg)),
       "errors that quote it stay valid UTF-8");
    is_int(read_as(ASK_CHAT, "{\"messages\":" M ",\"continue_final_message\":true,"
                   "\"add_generation_prompt\":true}"), E_INVALID, "two that exclude each other");
    is_int(read_as(ASK_TEXT, "{\"prompt\":\"x\",\"n\":2,\"best_of\":2}"), 0, "best_of = n");
    is_int(read_as(ASK_TEXT, "{\"prompt\":\"x\",\"best_of\":2}"), E_INVALID, "best_of > n");
    is_str(e.code, "unsupported_parameter", "is not built");
    ok(!api_request_id_ok(SLICE("")) && !api_request_id_ok(SLICE("a\r\nb"))
       && api_request_id_ok(SLICE("a-1.B_:")), "request ids");
}

static void classes(void)
{
    is_int(read_as(ASK_CHAT, "{\"messages\":" M ",\"priority\":-3,\"service_tier\":\"flex\","
                   "\"cache_salt\":\"a\\u0000b\"}"), 0, "priority, service_tier, cache_salt");
    is_int(a.priority, -3, "priority");
    ok(slice_is(a.service_tier, "flex") && a.cache_salt.n == 3, "a salt may hold any byte");
    is_int(read_as(ASK_TEXT, "{\"prompt\":\"x\"}"), 0, "none of them");
    ok(a.priority == 0 && a.service_tier.p == NULL && a.cache_salt.p == NULL, "is interactive");
    is_int(read_as(ASK_TEXT, "{\"prompt\":\"x\",\"cache_salt\":\"\"}"), E_INVALID, "empty: %s",
           e.msg);
    is_str(e.param, "cache_salt", "its name");
    is_int(read_as(ASK_TEXT, "{\"prompt\":\"x\",\"priority\":0.5}"), E_INVALID, "half: %s", e.msg);
    is_str(e.param, "priority", "its name");
    is_int(read_as(ASK_TEXT, "{\"prompt\":\"x\",\"service_tier\":\"gold\"}"), E_INVALID, "gold: %s",
           e.msg);
    is_str(e.param, "service_tier", "its name");
}

/* One message of a chat; what of it is wrong stands in param. */
static void message(const char *m, const char *param, const char *code)
{
    char body[300];
    int  rc;

    snprintf(body, sizeof(body), "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},%s]}", m);
    rc = read_as(ASK_CHAT, body);
    if (param == NULL) {
        is_int(rc, 0, "%s", m);
        return;
    }
    is_int(rc, E_INVALID, "%s", m);
    is_str(e.param, param, "its place");
    is_str(e.code, code, "its code");
}

static void messages(void)
{
    static const char missing[] = "missing_required_parameter", no[] = "unsupported_parameter";

    message("7", "messages[1]", "invalid_type");
    message("{}", "messages[1].role", missing);
    message("{\"role\":null}", "messages[1].role", missing);
    message("{\"role\":[]}", "messages[1].role", "invalid_type");
    message("{\"role\":\"critic\",\"content\":\"x\"}", "messages[1].role", "invalid_value");
    message("{\"role\":\"function\",\"content\":\"x\"}", "messages[1].role", no);
    message("{\"role\":\"user\"}", "messages[1].content", missing);
    message("{\"role\":\"user\",\"content\":null}", "messages[1].content", missing);
    message("{\"role\":\"user\",\"content\":[]}", "messages[1].content", missing);
    message("{\"role\":\"user\",\"content\":null,\"reasoning\":\"r\"}", "messages[1].content",
            missing);
    message("{\"role\":\"assistant\",\"content\":null,\"reasoning\":\"\"}", "messages[1].content",
            missing);
    message("{\"role\":\"assistant\",\"content\":null,\"reasoning\":\"r\",\"refusal\":null}", NULL,
            NULL);
    message("{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[],\"annotations\":[]}", NULL,
            NULL);
    message("{\"role\":\"assistant\",\"content\":\"x\",\"audio\":{\"id\":\"1\"}}",
            "messages[1].audio", no);
    message("{\"role\":\"user\",\"content\":\"x\",\"name\":7}", "messages[1].name", "invalid_type");
    is_int(a.n_unknown, 0, "what is known is not counted");

    message("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\",\"cache\":1}],"
            "\"name\":\"u\",\"mood\":\"good\"}", NULL, NULL);
    is_int(a.n_unknown, 2, "unknown fields of a message and of its parts are counted");
}

/* Calls and results in the history, by the roles that have them. */
static void call_messages(void)
{
    static const char missing[] = "missing_required_parameter", no[] = "unsupported_parameter";
    static const char call[] = "messages[1].tool_calls[0]";

#define CALLS(list) "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":" list "}"
#define CALL(more)  CALLS("[{\"id\":\"c\",\"function\":{\"name\":\"f.1\"" more "}}]")
    message(CALL(""), NULL, NULL);
    message(CALL(",\"arguments\":\"{}\""), NULL, NULL);
    message(CALL(",\"arguments\":{\"a\":1}"), NULL, NULL);
    message(CALL(",\"arguments\":[1]"), "messages[1].tool_calls[0].function.arguments",
            "invalid_type");
    message(CALLS("[]"), "messages[1].content", missing);
    message(CALLS("{}"), "messages[1].tool_calls", "invalid_type");
    message(CALLS("[7]"), call, "invalid_type");
    message(CALLS("[{}]"), "messages[1].tool_calls[0].function", missing);
    message(CALLS("[{\"type\":\"custom\"}]"), "messages[1].tool_calls[0].type", no);
    message(CALLS("[{\"function\":7}]"), "messages[1].tool_calls[0].function", "invalid_type");
    message(CALLS("[{\"function\":{\"name\":\"a b\"}}]"),
            "messages[1].tool_calls[0].function.name", "invalid_value");
    message(CALLS("[{\"function\":{\"name\":\"f\"}}]"), "messages[1].tool_calls[0].id", missing);
    message(CALLS("[{\"id\":\"\",\"function\":{\"name\":\"f\"}}]"),
            "messages[1].tool_calls[0].id", "invalid_value");
    message("{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[{}]}",
            "messages[1].tool_calls[0].function", missing);
    message("{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[{\"id\":\"c\",\"function\":"
            "{\"name\":\"f\"}}]}", "messages[1].tool_calls", "invalid_value");
    message("{\"role\":\"user\",\"content\":\"x\",\"tool_call_id\":\"1\"}",
            "messages[1].tool_call_id", "invalid_value");
    message("{\"role\":\"user\",\"content\":\"x\",\"tool_responses\":[{}]}",
            "messages[1].tool_responses", "invalid_value");

    message("{\"role\":\"tool\",\"content\":\"x\"}", "messages[1].tool_call_id", missing);
    message("{\"role\":\"tool\",\"tool_call_id\":7}", "messages[1].tool_call_id", "invalid_type");
    message("{\"role\":\"tool\",\"tool_call_id\":\"\"}", "messages[1].tool_call_id",
            "invalid_value");
    message("{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":null}", NULL, NULL);
    message("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},"
            "{\"type\":\"image_url\"}]}", "messages[1].content[1].type", no);
}

/* Feed text in two pieces, cut at every byte, and byte by byte. */
static void stop_case(const char *text, const char *s0, const char *s1, bool include,
                      const char *want, int want_i)
{
    size_t n = strlen(text);
    int    wrong = 0;

    for (size_t cut = 0; cut <= n + 1; cut++) {
        struct stop st = { .n_str = s1 != NULL ? 2 : 1, .include = include };
        struct buf  out = { 0 };
        int         i = -1;

        st.str[0] = (struct slice) { s0, strlen(s0) };
        if (s1 != NULL)
            st.str[1] = (struct slice) { s1, strlen(s1) };

        if (cut <= n) {
            i = stop_put(&st, text, cut, &out);
            if (i < 0)
                i = stop_put(&st, text + cut, n - cut, &out);
        } else {
            for (size_t k = 0; k < n && i < 0; k++)
                i = stop_put(&st, text + k, 1, &out);
        }
        if (i < 0)
            stop_end(&st, &out);

        wrong += i != want_i || out.n != strlen(want)
                 || (out.n > 0 && memcmp(out.p, want, out.n) != 0);
        stop_free(&st);
        buf_free(&out);
    }
    is_int(wrong, 0, "stop '%s' in '%s'", s0, text);
}

/* By the definition: the match that ends first, of those the one that begins first. */
static int stop_want(const struct stop *st, const char *text, size_t n, size_t *shown)
{
    for (size_t end = 1; end <= n; end++)
        for (size_t at = 0; at < end; at++)
            for (int32_t i = 0; i < st->n_str; i++)
                if (st->str[i].n == end - at && !memcmp(st->str[i].p, text + at, end - at)) {
                    *shown = st->include ? end : at;
                    return i;
                }
    *shown = n;
    return -1;
}

/* Random texts and stop strings of two letters, in two pieces cut anywhere and in random ones. */
static void stop_random(void)
{
    uint32_t seed = 1;
    int      wrong = 0, hits = 0;

#define RND(n)  ((seed = seed * 1664525u + 1013904223u) >> 8) % (n)
    for (int k = 0; k < 20000; k++) {
        char        text[16], str[3][4];
        size_t      n = 1 + RND(16), shown;
        struct stop st = { .n_str = 1 + (int32_t) RND(3), .include = RND(2) };
        int         want;

        for (size_t i = 0; i < n; i++)
            text[i] = "ab"[RND(2)];
        for (int32_t i = 0; i < st.n_str; i++) {
            st.str[i] = (struct slice) { str[i], 1 + RND(4) };
            for (size_t j = 0; j < st.str[i].n; j++)
                str[i][j] = "ab"[RND(2)];
        }
        want = stop_want(&st, text, n, &shown);
        hits += want >= 0;

        for (size_t cut = 0; cut <= n + 1; cut++) {
            struct buf out = { 0 };
            int        got = -1;

            for (size_t at = 0, len; at < n && got < 0; at += len) {
                len = cut > n ? 1 + RND(n - at) : at == 0 && cut > 0 ? cut : n - at;
                got = stop_put(&st, text + at, len, &out);
            }
            if (got < 0)
                stop_end(&st, &out);
            wrong += got != want || out.n != shown || (shown > 0 && memcmp(out.p, text, shown));
            buf_free(&out);
        }
        stop_free(&st);
    }
    ok(wrong == 0 && hits > 5000, "of 20000 random texts %d stop; %d pieces differ", hits, wrong);
}

/* One field beside what its kind of body needs. */
static int read_field(const struct field *f, const char *value)
{
    enum ask_kind kind = f->kinds & ASK_CHAT ? ASK_CHAT : f->kinds & ASK_TEXT ? ASK_TEXT
                         : f->kinds & ASK_TOKENIZE ? ASK_TOKENIZE : ASK_DETOKENIZE;
    static const char *const need[] = {
        [ASK_CHAT] = "\"messages\":" M ",\"logprobs\":true", [ASK_TEXT] = "\"prompt\":\"x\"",
        [ASK_TOKENIZE] = "\"prompt\":\"x\"", [ASK_DETOKENIZE] = "\"tokens\":[1]" };
    char body[4096], *at = strstr(need[kind], f->name);

    snprintf(body, sizeof(body), "{%s%s\"%s\":%s}", at == NULL ? need[kind] : "",
             at == NULL ? "," : "", f->name, value);
    return read_as(kind, body);
}

static bool refused(const struct field *f, double v)
{
    char text[64];

    snprintf(text, sizeof(text), "%.17g", v);
    return read_field(f, text) == E_INVALID && strcmp(e.param, f->name) == 0;
}

/* Every row at its limits and beyond, and of another type. */
static void limits_of(const struct field *f)
{
    static const char *const other[] = { "\"1\"", "true", "[1]", "{}", "NaN", "-Infinity" };
    char   text[64];
    bool   is_int = f->set == field_int, in = true, out = true;
    double step = is_int ? 1 : fabs(f->max) / 1000;

    for (int i = 0; i < 2; i++) {
        snprintf(text, sizeof(text), "%.17g", i ? f->max : f->min);
        /* what goes together with another field is refused, but not for its value */
        in = in && (read_field(f, text) == 0 || strstr(e.msg, "must be a") == NULL);
    }
    ok(in, "%s: %g and %g", f->name, f->min, f->max);
    ok(refused(f, f->max + step) && refused(f, f->min - step), "%s: one more, one less", f->name);
    ok(f->max >= 0x1p63 || refused(f, 0x1p63), "%s: 2^63", f->name);
    for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++)
        out = out && read_field(f, other[i]) != 0;
    ok(out && (!is_int || refused(f, 1.5)), "%s: of another type", f->name);
}

static void table(void)
{
    const char         *prefix;
    const struct field *f;
    int                 n = 0;

    for (int i = 0; (f = ask_fields(i, &prefix)) != NULL; i++) {
        for (; f->name != NULL; f++, n++) {
            bool refused = f->set == field_refuse;

            for (const struct field *g = f + 1; g->name != NULL; g++)
                if (strcmp(f->name, g->name) == 0 && (f->kinds & g->kinds) != 0)
                    ok(false, "%s%s is there twice", prefix, f->name);
            if ((f->help == NULL) != refused || (field_type(f) == NULL) != refused)
                ok(false, "%s%s: a row without help or type", prefix, f->name);
            if (i == 0 && (f->set == field_int || f->set == field_num))
                limits_of(f);
            if (i == 0 && (f->set == field_bool || f->set == field_flag))
                ok(read_field(f, "1") == E_INVALID && read_field(f, "\"true\"") == E_INVALID
                   && strcmp(e.code, "invalid_type") == 0, "%s: true or false only", f->name);
            if (i == 0 && f->set == field_str)
                ok(read_field(f, "5") == E_INVALID && strcmp(e.param, f->name) == 0,
                   "%s: a string only", f->name);
            if (i == 0 && refused && read_field(f, "[\"x\"]") != E_INVALID)
                ok(false, "%s is refused by name", f->name);
        }
    }
    ok(n > 100, "%d rows", n);
}

int main(void)
{
    fields();
    table();
    classes();
    messages();
    call_messages();

    stop_case("hello world", "lo w", NULL, false, "hel", 0);
    stop_case("hello world", "lo w", NULL, true, "hello w", 0);
    stop_case("aaab", "aab", NULL, false, "a", 0);
    stop_case("ababac", "abac", "zz", false, "ab", 0);
    stop_case("no match, no matc", "match!", NULL, false, "no match, no matc", -1);
    stop_case("one two", "two", "one", false, "", 1);
    stop_case("abc", "abcX", "c", false, "ab", 1);
    stop_case("abcX", "abcX", "c", false, "ab", 1);
    stop_case("abcX", "bcX", "abcX", true, "abcX", 1);
    stop_random();
    stop_case("snow \xe2\x98\x83 man", "\xe2\x98\x83", NULL, false, "snow ", 0);

    json_free(doc);
    return done_testing();
}
