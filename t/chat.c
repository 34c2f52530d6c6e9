/* t/chat.c - the golden prompts through chat_render, what is refused and where, the variant. */
#include "chat.h"
#include "sha256.h"
#include "tap.h"

#include <stdlib.h>
#include <unistd.h>

static const struct json_limits lim = { .bytes = 1 << 24, .depth = 32, .nodes = 1 << 20 };

static bool flag(const struct json *o, const char *key, bool def)
{
    const struct json *j = json_get(o, key);

    return j == NULL || j->type == JSON_NULL ? def : j->type == JSON_TRUE;
}

static struct chat_opts opts_of(const struct json *c)
{
    const struct json *kw = json_get(c, "chat_template_kwargs"), *v = json_get(c, "variant");

    return (struct chat_opts) {
        .variant = v != NULL && slice_is(v->text, "small") ? CHAT_SMALL : CHAT_LARGE,
        .enable_thinking = flag(kw, "enable_thinking", false),
        .preserve_thinking = flag(kw, "preserve_thinking", false),
        .add_generation_prompt = flag(c, "add_generation_prompt", true),
        .continue_final_message = flag(c, "continue_final_message", false),
    };
}

/* Parse {"messages":..} as a request and render it. plain may be NULL. */
static int render(const char *p, size_t n, struct spans *plain, struct buf *out, char param[64],
                  struct err *e)
{
    struct json_doc   *d;
    const struct json *c;
    struct chat_opts   o;
    int                rc = json_parse(&d, &c, p, n, &lim, e);

    if (rc < 0)
        return rc;
    o = opts_of(c);
    o.plain = plain;
    rc = chat_render(json_get(c, "messages"), json_get(c, "tools"), &o, out, param, e);
    json_free(d);
    return rc;
}

static void golden(void)
{
    FILE   *f = fopen("t/golden/chat_cases.jsonl", "r");
    char   *line = NULL;
    size_t  cap = 0;
    ssize_t n;
    int     n_case = 0;

    if (!ok(f != NULL, "t/golden/chat_cases.jsonl is there"))
        return;
    while ((n = getline(&line, &cap, f)) > 0) {
        struct json_doc   *d;
        const struct json *c;
        struct buf         out = { 0 }, same = { 0 };
        struct spans       plain = { 0 };
        struct err         e = { 0 };
        char               param[64];
        int                rc = render(line, (size_t) n, NULL, &out, param, &e);
        struct slice       name, want;

        json_parse(&d, &c, line, (size_t) n, &lim, NULL);
        name = json_get(c, "name")->text;
        want = json_get(c, "expected")->text;
        n_case++;
        ok(rc == 0 && out.n == want.n && memcmp(out.p, want.p, want.n) == 0, "%.*s", (int) name.n,
           name.p);
        rc = render(line, (size_t) n, &plain, &same, param, &e);
        ok(rc == 0 && plain.n > 0 && same.n == out.n && memcmp(same.p, out.p, out.n) == 0,
           "the same text, whatever is a control token in it");
        spans_free(&plain);
        buf_free(&same);
        buf_free(&out);
        json_free(d);
    }
    is_int(n_case, 60, "all cases");
    free(line);
    fclose(f);
}

#define HI    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
#define TOOL  HI ",\"tools\":[{\"function\":{\"name\":\"f\""
#define CALLS "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":"
#define FN    "{\"function\":{\"name\":\"f\""
#define NAME  "messages[0].tool_calls[0].function.name"
#define ARGS  "messages[0].tool_calls[0].function.arguments"

static const char *const bad[][3] = {
    { "{}", "messages", "must be an array" },
    { "{\"messages\":[]}", "messages", "not empty" },
    { "{\"messages\":[\"x\"]}", "messages[0]", "must be an object, not a string" },
    { "{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role", "must be a string" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":7}]}", "messages[1].role",
      "must be a string" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":7}]}", "messages[0].content",
      "must be a string or an array, not a number" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":[\"x\"]}]}", "messages[0].content[0]",
      "must be an object" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"x\"}]}]}",
      "messages[0].content[0].type", "must be a string" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
      "messages[0].content[0].text", "must be a string" },
    { CALLS "{}}]}", "messages[0].tool_calls", "must be an array, not an object" },
    { CALLS "[{}]}]}", NAME, "must be a string" },
    { CALLS "[{\"function\":{\"name\":\"\"}}]}]}", NAME, "must be a string that is not empty" },
    { CALLS "[" FN ",\"arguments\":7}}]}]}", ARGS, "not a number" },
    { CALLS "[" FN ",\"arguments\":\"[]\"}}]}]}", ARGS, "not an array" },
    { CALLS "[" FN ",\"arguments\":\"{\"}}]}]}", ARGS, "is not the text of an object. JSON: " },
    { CALLS "[" FN ",\"arguments\":\"{\\\"a\\\":1e999}\"}}]}]}", ARGS, "out of range" },
    { CALLS "[" FN "}}]},{\"role\":\"tool\",\"content\":{}}]}", "messages[1].content",
      "a string or an array, not an object" },
    { CALLS "[" FN "}}]},{\"role\":\"tool\",\"content\":[7]}]}", "messages[1].content",
      "an object with a type" },
    { CALLS "[],\"tool_responses\":[{}]}]}", "messages[0].tool_responses[0].response",
      "required" },
    { HI ",\"tools\":[{}]}", "tools[0].function", "must be an object" },
    { HI ",\"tools\":[7]}", "tools[0].function", "must be an object" },
    { HI ",\"tools\":[{\"function\":{}}]}", "tools[0].function.name", "must be a string" },
    { TOOL ",\"description\":1}}]}", "tools[0].function", "description must be a string" },
    { TOOL ",\"parameters\":[1]}}]}", "tools[0].function", "parameters must be an object" },
    { TOOL ",\"parameters\":{\"properties\":[1]}}}]}", "tools[0].function",
      "properties must be an object" },
    { TOOL ",\"parameters\":{\"required\":true}}}]}", "tools[0].function",
      "required must be an array" },
    { TOOL ",\"parameters\":{\"required\":[1]}}}]}", "tools[0].function", "strings only" },
    { TOOL ",\"parameters\":{\"type\":{\"a\":1}}}}]}", "tools[0].function",
      "a type must be a string or an array" },
    { TOOL ",\"parameters\":{\"type\":[\"it's\"]}}}]}", "tools[0].function",
      "without quotes" },
    { TOOL ",\"parameters\":{\"type\":\"\u00e9\"}}}]}", "tools[0].function", "ASCII" },
    { TOOL ",\"parameters\":{\"properties\":{\"a\":{\"type\":\"array\",\"items\":"
      "{\"type\":1}}}}}}]}", "tools[0].function", "a type must be" },
    { TOOL ",\"parameters\":{\"properties\":{\"a\":{\"type\":\"string\",\"enum\":"
      "[1e999]}}}}}]}", "tools[0].function", "out of range" },
    { "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\",\"reasoning\":1}]}",
      "messages[0].reasoning", "must be a string" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":{}}", "tools",
      "must be an array" },
    { "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}],"
      "\"continue_final_message\":true}", "continue_final_message", "exclude each other" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"continue_final_message\":true,"
      "\"add_generation_prompt\":false}", "messages[0].role", "needs an assistant's" },
    { "{\"messages\":[{\"role\":\"assistant\",\"content\":\" \"}],"
      "\"continue_final_message\":true,\"add_generation_prompt\":false}",
      "messages[0].content", "no text to continue" },
};

static void refused(void)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct buf out = { 0 };
        struct err e = { 0 };
        char       param[64] = "";

        buf_str(&out, "before");
        is_int(render(bad[i][0], strlen(bad[i][0]), NULL, &out, param, &e), E_INVALID,
               "refuse %zu", i);
        is_str(param, bad[i][1], "its path");
        ok(strstr(e.msg, bad[i][2]) != NULL, "its words: %s", e.msg);
        ok(out.n == 6, "nothing was appended");
        buf_free(&out);
    }
}

static void accepted(void)
{
    static const char *const rows[][2] = {
        { "{\"messages\":[{\"role\":\"user\",\"content\":null}],\"tools\":[]}",
          "<bos><|turn>user\n<turn|>\n<|turn>model\n<|channel>thought\n<channel|>" },
        { "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\",\"tool_calls\":[]}],"
          "\"tools\":null}",
          "<bos><|turn>model\nx<turn|>\n<|turn>model\n<|channel>thought\n<channel|>" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\" a \"},"
          "{\"type\":\"text\",\"text\":\"\\u2003b\\u0085\\u001c\"}]}],"
          "\"add_generation_prompt\":false}", "<bos><|turn>user\nab<turn|>\n" },
        { "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a<channel|>b<|channel>c<channel|>"
          " d <|chan\"}],\"add_generation_prompt\":false}",
          "<bos><|turn>model\nab d <|chan<turn|>\n" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\","
          "\"content\":\"x\",\"reasoning\":\"\",\"reasoning_content\":\" r \"}],"
          "\"add_generation_prompt\":false}",
          "<bos><|turn>user\nq<turn|>\n<|turn>model\n<|channel>thought\n r \n<channel|>x<turn|>"
          "\n" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct buf out = { 0 };
        struct err e = { 0 };

        is_int(render(rows[i][0], strlen(rows[i][0]), NULL, &out, NULL, &e), 0, "accept %zu", i);
        buf_put(&out, "", 1);
        ok(strcmp(out.p, rows[i][1]) == 0, "prompt %zu", i);
        buf_free(&out);
    }

    struct buf  small = { .max = 40 };
    struct err  e = { 0 };
    const char *p = rows[0][0];

    is_int(render(p, strlen(p), NULL, &small, NULL, &e), E_FULL,
           "a prompt past the buffer's ceiling");
    buf_free(&small);
}

/* n objects in each other, each the value of "a". */
static char *nested(int n)
{
    char *s = malloc((size_t) n * 6 + 8), *p = s;

    for (int i = 1; i < n; i++)
        p += sprintf(p, "{\"a\":");
    p += sprintf(p, "{}");
    memset(p, '}', (size_t) n - 1);
    p[n - 1] = '\0';
    return s;
}

/* A call whose arguments nest n deep, as an object and as text; the limit is on either. */
static void depth(void)
{
    static const struct json_limits deep = { .bytes = 1 << 16, .depth = 200, .nodes = 1 << 16 };

    for (int n = 64; n <= 65; n++) {
        char              *args = nested(n), body[2000], param[64];
        struct json_doc   *d;
        const struct json *c;
        struct chat_opts   o = { 0 };
        struct buf         out = { 0 };
        struct err         e = { 0 };

        snprintf(body, sizeof(body), CALLS "[" FN ",\"arguments\":%s}}]}]}", args);
        is_int(json_parse(&d, &c, body, strlen(body), &deep, NULL), 0, "%d deep", n);
        is_int(chat_render(json_get(c, "messages"), NULL, &o, &out, param, &e),
               n == 64 ? 0 : E_INVALID, "as an object: %s", e.msg);
        ok(n == 64 || (strcmp(param, ARGS) == 0 && strstr(e.msg, "nested deeper than 64") != NULL),
           "refused by name");
        json_free(d);
        buf_free(&out);
        free(args);
    }
}

/* A text beside a call and its result: the template leaves the prompt without a turn to fill. */
static void mend(void)
{
    static const char body[] =
        "[{\"role\":\"assistant\",\"content\":\"a\",\"tool_calls\":[{\"id\":\"c\",\"function\":"
        "{\"name\":\"f\",\"arguments\":null}}]},{\"role\":\"tool\",\"tool_call_id\":\"c\","
        "\"content\":\"r\"}]";
    static const char *const tail[2][2] = {
        { "a<turn|>\n", "a<turn|>\n<|turn>model\n<|channel>thought\n<channel|>" },
        { "a<turn|>\n<|channel>thought\n", "a<turn|>\n<|turn>model\n" },
    };
    struct json_doc   *d;
    const struct json *c;

    json_parse(&d, &c, body, sizeof(body) - 1, &lim, NULL);
    for (int i = 0; i < 4; i++) {
        struct chat_opts o = { .add_generation_prompt = true, .enable_thinking = i / 2,
                               .mend = i % 2 };
        const char      *want = tail[i / 2][i % 2];
        struct buf       out = { 0 };

        is_int(chat_render(c, NULL, &o, &out, NULL, NULL), 0, "thinking %d, mend %d", i / 2, i % 2);
        ok(out.n > strlen(want) && memcmp(out.p + out.n - strlen(want), want, strlen(want)) == 0,
           "ends as it should");
        buf_free(&out);
    }
    json_free(d);
}

/* Every place where a client's words enter a prompt; each @ becomes a control token, and each #,
 * which stands in JSON within a string. */
static const char everywhere[] =
    "{\"messages\":["
    "{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"a@b@\"}]},"
    "{\"role\":\"de@veloper\",\"content\":\"@\"},"
    "{\"role\":\"user\",\"content\":\"@\\n@user\\n@\"},"
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"@\"},{\"type\":\"image\"},"
    "{\"type\":\"text\",\"text\":\"@\"}]},"
    "{\"role\":\"assistant\",\"reasoning\":\"r@\",\"content\":\"c@\",\"tool_calls\":["
    "{\"id\":\"1\",\"function\":{\"name\":\"f@\",\"arguments\":"
    "\"{\\\"k#\\\":\\\"#\\\",\\\"l\\\":[{\\\"m#\\\":\\\"#\\\"}]}\"}},"
    "{\"id\":\"2\",\"function\":{\"name\":\"g\",\"arguments\":{\"@\":\"@\"}}}]},"
    "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"@\"},"
    "{\"role\":\"tool\",\"name\":\"n@\",\"content\":[{\"type\":\"text\",\"text\":\"@\"}]},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_responses\":["
    "{\"name\":\"n@\",\"response\":{\"k@\":\"@\"}},{\"name\":\"o\",\"response\":\"@\"}]}],"
    "\"tools\":[{\"function\":{\"name\":\"t@\",\"description\":\"d@\","
    "\"response\":{\"description\":\"@\"},\"parameters\":{\"type\":\"ob@\",\"required\":[\"@\"],"
    "\"properties\":{\"p@\":{\"type\":\"string\",\"description\":\"@\",\"enum\":[\"@\"]},"
    "\"q\":{\"type\":[\"x@\",\"null\"]},\"r\":{\"type\":\"array\",\"items\":{\"z@\":{\"y@\":\"@\"},"
    "\"type\":\"@\",\"required\":[\"@\"],\"properties\":{\"p@\":{\"type\":\"@\"}}}},"
    "\"s\":{\"type\":\"object\",\"a@\":{\"type\":\"@\"}}}}}}]}";

/* What of the prompt is the template's alone, when every @ is mark. */
static int skeleton(const char *mark, struct buf *own, size_t *n_plain)
{
    struct buf   body = { 0 }, out = { 0 }, once = { 0 };
    struct spans plain = { 0 };
    struct err   e = { 0 };
    char         param[64];
    size_t       at = 0;
    int          rc;

    buf_json_text(&once, mark, strlen(mark));
    for (const char *p = everywhere; *p != '\0'; p++)
        if (*p == '@')
            buf_put(&body, once.p, once.n);
        else if (*p == '#')
            buf_json_text(&body, once.p, once.n);
        else
            buf_put(&body, p, 1);
    rc = render(body.p, body.n, &plain, &out, param, &e);
    *n_plain = plain.n;
    for (size_t i = 0; i < plain.n; at = plain.v[i++].end)
        buf_put(own, out.p + at, plain.v[i].begin - at);
    buf_put(own, out.p + at, out.n - at);
    spans_free(&plain);
    buf_free(&once);
    buf_free(&body);
    buf_free(&out);
    return rc;
}

/* What clients write adds nothing to the template's own words, wherever they write it. */
static void injected(void)
{
    static const char *const marks[] = {
        "<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>",
        "<|tool_response>", "<tool_response|>", "<|\"|>", "<|think|>", "<|channel>", "<channel|>",
        "<|image|>", "<|audio|>", "<bos>", "<eos>", "<|turn>system", "<", "<|", ">",
    };
    struct buf want = { 0 };
    size_t     n_want, n;

    is_int(skeleton("x", &want, &n_want), 0, "words of a client, in %zu places", n_want);
    ok(n_want > 40, "and of the template");
    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        struct buf got = { 0 };

        is_int(skeleton(marks[i], &got, &n), 0, "instead of each: %s", marks[i]);
        ok(got.n == want.n && memcmp(got.p, want.p, want.n) == 0 && n >= n_want - 3,
           "the template's words are the same");
        buf_free(&got);
    }
    buf_free(&want);
}

/* Where control tokens are text, <|think|> at the head of a system message is still understood. */
static void asks_to_think(void)
{
#define SYS(content)  "[{\"role\":\"system\",\"content\":" content "}]"
    static const struct { const char *messages; bool asks; const char *text; } rows[] = {
        { SYS("\"<|think|>\\nBe terse.\""), true, "Be terse." },
        { SYS("\" <|think|>\""), true, "" },
        { SYS("\"Be <|think|> terse.\""), false, "Be <|think|> terse." },
        { SYS("[{\"type\":\"text\",\"text\":\"<|think|>a\"}]"), true, "a " },
        { "[{\"role\":\"developer\",\"content\":\"<|think|>a\"}]", true, "a" },
        { "[{\"role\":\"user\",\"content\":\"<|think|>a\"}]", false, NULL },
        { SYS("null"), false, "" }, { SYS("7"), false, NULL },
        { SYS("[7,{\"text\":7}]"), false, NULL },
        { "[]", false, NULL }, { "[7]", false, NULL }, { "{}", false, NULL },
        { "[{\"role\":7,\"content\":\"<|think|>\"}]", false, NULL },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct json_doc   *d;
        const struct json *m;
        struct buf         out = { 0 }, want = { 0 };
        struct spans       plain = { 0 };
        struct chat_opts   o = { .enable_thinking = rows[i].asks, .plain = &plain };

        json_parse(&d, &m, rows[i].messages, strlen(rows[i].messages), &lim, NULL);
        is_int(chat_asks_to_think(m), rows[i].asks, "%s", rows[i].messages);
        if (rows[i].text != NULL) {
            buf_fmt(&want, "<bos><|turn>system\n%s%s<turn|>\n", rows[i].asks ? "<|think|>\n" : "",
                    rows[i].text);
            is_int(chat_render(m, NULL, &o, &out, NULL, NULL), 0, "is rendered");
            ok(out.n == want.n && memcmp(out.p, want.p, want.n) == 0, "without the mark");
        }
        spans_free(&plain);
        json_free(d);
        buf_free(&want);
        buf_free(&out);
    }
    ok(!chat_asks_to_think(NULL), "no messages");
}

/* The prompt of one tool with these parameters, between the tool's marks. */
static const char *declared(const char *parameters, bool mend, struct buf *out)
{
    struct chat_opts   o = { .mend = mend };
    struct buf         body = { 0 };
    struct json_doc   *d;
    const struct json *c;
    struct err         e = { 0 };
    char              *end;

    out->n = 0;
    buf_fmt(&body, TOOL ",\"parameters\":%s}}]}", parameters);
    json_parse(&d, &c, body.p, body.n, &lim, NULL);
    if (chat_render(json_get(c, "messages"), json_get(c, "tools"), &o, out, NULL, &e) < 0) {
        out->n = 0;
        buf_str(out, e.msg);
        buf_put(out, "", 1);
    } else {
        buf_put(out, "", 1);
        end = strstr(out->p, "}<tool|>");
        *end = '\0';
    }
    json_free(d);
    buf_free(&body);
    return strstr(out->p, ",parameters:") != NULL ? strstr(out->p, ",parameters:") : out->p;
}

static void references(void)
{
#define T(t)   "type:<|\"|>" t "<|\"|>"
#define DEFS   "\"$defs\":{\"P\":{\"type\":\"object\",\"description\":\"A place\",\"properties\":" \
               "{\"x\":{\"type\":\"number\"}}},\"Q\":{\"$ref\":\"#/$defs/P\"},\"S\":{\"$ref\":" \
               "\"#/$defs/S\"},\"N\":{\"type\":\"object\",\"properties\":{\"next\":{\"$ref\":" \
               "\"#/$defs/N\"},\"all\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/N\"}}}}}"
#define REF(r) "{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"" r "\"}}," DEFS "}"
#define GOT(a) ",parameters:{properties:{a:{" a "}}," T("OBJECT") "}"
#define PLACE  "properties:{x:{" T("NUMBER") "}}," T("OBJECT")
    static const char *const rows[][2] = {
        { REF("#/$defs/P"), GOT("description:<|\"|>A place<|\"|>," PLACE) },
        { REF("#/$defs/Q"), GOT("description:<|\"|>A place<|\"|>," PLACE) },
        { REF("#/$defs/P\",\"description\":\"Here"), GOT("description:<|\"|>Here<|\"|>," PLACE) },
        { REF("#/$defs/P/properties/x"), GOT(T("NUMBER")) },
        { REF("#/$defs/Z"), GOT(T("")) },
        { REF("#/$defs/S"), GOT(T("")) },
        { REF("http://a.b/c"), GOT(T("")) },
        { REF("#/type"), GOT(T("")) },
        { REF("#/$defs/N"), GOT("properties:{all:{items:{$ref:<|\"|>#/$defs/N<|\"|>}," T("ARRAY")
                                "},next:{" T("") "}}," T("OBJECT")) },
        { REF("#"), GOT(T("")) },
    };
    struct buf  out = { 0 }, many = { 0 };
    const char *why;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        is_str(declared(rows[i][0], true, &out), rows[i][1], "reference %zu", i);
    is_str(declared(rows[0][0], false, &out), GOT(T("")), "the template itself knows none");

    /* Ten levels of ten references to the next one. */
    buf_str(&many, "{\"properties\":{\"a\":{\"$ref\":\"#/$defs/0\"}},\"$defs\":{\"10\":{}");
    for (int i = 0; i < 10; i++) {
        buf_fmt(&many, ",\"%d\":{\"type\":\"object\",\"properties\":{", i);
        for (int k = 0; k < 10; k++)
            buf_fmt(&many, "%s\"%d\":{\"$ref\":\"#/$defs/%d\"}", k > 0 ? "," : "", k, i + 1);
        buf_str(&many, "}}");
    }
    buf_put(&many, "}}", 3);
    why = declared(many.p, true, &out);
    ok(strstr(why, "longer than 4194304 bytes") != NULL, "ten to the tenth power: %s", why);
    buf_free(&many);
    buf_free(&out);
}

static void variant_row(const char *dir, const char *text, enum chat_variant want)
{
    char              path[80];
    enum chat_variant v;
    bool              known, found;
    FILE             *f;

    snprintf(path, sizeof(path), "%s/chat_template.jinja", dir);
    f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    ok(chat_variant_detect(dir, &v, &known, &found, NULL) == 0 && found && !known && v == want,
       "an unknown template is told by the closed block");
    unlink(path);
}

static void variant(void)
{
    char              dir[] = "/tmp/inferd-chat-XXXXXX", *many = malloc(1000000);
    enum chat_variant v;
    bool              known = true, found = true;

    ok(mkdtemp(dir) != NULL, "a directory");
    is_int(chat_variant_detect(dir, &v, &known, &found, NULL), 0, "no template is no error");
    ok(!found && !known && v == CHAT_LARGE, "not found: large");
    variant_row(dir, "x{{ '<|channel>thought\\n<channel|>' }}", CHAT_LARGE);
    variant_row(dir, "x{{ '<|channel>thought\n<channel|>' }}", CHAT_SMALL);
    variant_row(dir, "", CHAT_SMALL);
    rmdir(dir);

    memset(many, 'a', 1000000);
    ok(sha256_64("", 0) == 0xe3b0c44298fc1c14u && sha256_64("abc", 3) == 0xba7816bf8f01cfeau
       && sha256_64(many, 1000000) == 0xcdc76e5c9914fb92u
       && sha256_64("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56)
          == 0x248d6a61d20638b8u, "SHA-256 of the standard's examples");
    free(many);
}

int main(void)
{
    golden();
    refused();
    accepted();
    depth();
    mend();
    injected();
    asks_to_think();
    references();
    variant();
    return done_testing();
}
