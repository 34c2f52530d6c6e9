/* t/tools.c - the tools of a request: what is borrowed, what is refused and where, every limit. */
#include "openai_in.h"
#include "tap.h"

#define HI   "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":"
#define TOOL "{\"type\":\"function\",\"function\":{\"name\":\"f\""

static struct json_doc *doc;
static struct ask       a;
static struct api_err   e;

static int read_body(const struct buf *b)
{
    static const struct json_limits lim = { 1 << 22, 64, 1 << 18 };
    const struct json *root;

    json_free(doc);
    doc = NULL;
    memset(&e, 0, sizeof(e));
    if (json_parse(&doc, &root, b->p, b->n, &lim, NULL) != 0)
        return -100;
    return ask_read(&a, ASK_CHAT, root, &e);
}

static int read_tools(const char *tools)
{
    struct buf b = { 0 };
    int        rc;

    buf_fmt(&b, HI "%s}", tools);
    rc = read_body(&b);
    buf_free(&b);
    return rc;
}

static void borrowed(void)
{
    is_int(read_tools("[" TOOL ",\"description\":\"d\",\"strict\":true,\"parameters\":"
                      "{\"type\":\"object\"}}},{\"function\":{\"name\":\"g-_9\","
                      "\"parameters\":null,\"mood\":1},\"cache_control\":{}}]"), 0, "two tools");
    is_int(a.tools.n, 2, "both are there");
    ok(a.tools.list != NULL && a.tools.list->n == 2, "as they came");
    ok(tools_find(&a.tools, SLICE("f")) == &a.tools.tool[0]
       && json_get(a.tools.tool[0].schema, "type") != NULL, "found by name, with its schema");
    ok(tools_find(&a.tools, SLICE("g-_9")) == &a.tools.tool[1]
       && a.tools.tool[1].schema == NULL, "no parameters, no schema");
    ok(tools_find(&a.tools, SLICE("F")) == NULL && tools_find(&a.tools, SLICE("")) == NULL
       && tools_find(&a.tools, SLICE("g-_")) == NULL, "no other name is found");
    is_int(a.n_unknown, 2, "what nobody knows is counted");
    is_int(read_tools("[]"), 0, "an empty list");
    ok(a.tools.n == 0 && a.tools.list == NULL, "is none");
    is_int(read_tools("null"), 0, "null");
    ok(a.tools.n == 0 && a.tools.list == NULL, "is none too");
}

static const char *const bad[][3] = {
    { "{}", "tools", "invalid_type" },
    { "[7]", "tools[0]", "invalid_type" },
    { "[{}]", "tools[0].function", "missing_required_parameter" },
    { "[{\"type\":\"custom\",\"custom\":{}}]", "tools[0].type", "unsupported_parameter" },
    { "[{\"type\":7}]", "tools[0].type", "unsupported_parameter" },
    { "[{\"function\":[]}]", "tools[0].function", "invalid_type" },
    { "[{\"function\":{}}]", "tools[0].function.name", "missing_required_parameter" },
    { "[{\"function\":{\"name\":1}}]", "tools[0].function.name", "invalid_type" },
    { "[{\"function\":{\"name\":\"\"}}]", "tools[0].function.name", "invalid_value" },
    { "[{\"function\":{\"name\":\"a.b\"}}]", "tools[0].function.name", "invalid_value" },
    { "[{\"function\":{\"name\":\"a\\u0000\"}}]", "tools[0].function.name", "invalid_value" },
    { "[{\"function\":{\"name\":\"\u00e9\"}}]", "tools[0].function.name", "invalid_value" },
    { "[" TOOL "}}," TOOL "}}]", "tools[1].function.name", "invalid_value" },
    { "[" TOOL ",\"description\":7}}]", "tools[0].function.description", "invalid_type" },
    { "[" TOOL ",\"parameters\":[]}}]", "tools[0].function.parameters", "invalid_type" },
    { "[" TOOL ",\"parameters\":\"{}\"}}]", "tools[0].function.parameters", "invalid_type" },
    { "[" TOOL ",\"strict\":1}}]", "tools[0].function.strict", "invalid_type" },
    { "[" TOOL ",\"response\":[]}}]", "tools[0].function.response", "invalid_type" },
};

static void refused(void)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        is_int(read_tools(bad[i][0]), E_INVALID, "%s", bad[i][0]);
        is_str(e.param, bad[i][1], "its place");
        is_str(e.code, bad[i][2], "its code: %s", e.msg);
    }
}

/* n tools whose names have len bytes and differ at the end. */
static int with_tools(int n, int len)
{
    struct buf b = { 0 };
    int        rc;

    buf_str(&b, HI "[");
    for (int i = 0; i < n; i++)
        buf_fmt(&b, "%s{\"function\":{\"name\":\"%0*d\"}}", i > 0 ? "," : "", len, i);
    buf_str(&b, "]}");
    rc = read_body(&b);
    buf_free(&b);
    return rc;
}

/* A schema of depth objects in each other, the innermost with width more values. */
static int with_schema(int depth, int width)
{
    struct buf b = { 0 };
    int        rc;

    buf_str(&b, HI "[" TOOL ",\"parameters\":{");
    for (int i = 1; i < depth; i++)
        buf_str(&b, "\"a\":{");
    buf_str(&b, "\"enum\":[1");
    for (int i = 1; i < width; i++)
        buf_str(&b, ",1");
    buf_str(&b, "]");
    for (int i = 0; i < depth; i++)
        buf_str(&b, "}");
    buf_str(&b, "}}]}");
    rc = read_body(&b);
    buf_free(&b);
    return rc;
}

static void limits(void)
{
    is_int(with_tools(API_TOOL_MAX, 4), 0, "as many tools as there may be");
    is_int(a.tools.n, API_TOOL_MAX, "all are there");
    is_int(with_tools(API_TOOL_MAX + 1, 4), E_INVALID, "one more");
    is_str(e.param, "tools", "is refused");
    is_int(with_tools(1, API_TOOL_NAME_MAX), 0, "the longest name");
    is_int(with_tools(1, API_TOOL_NAME_MAX + 1), E_INVALID, "a longer one");
    is_str(e.param, "tools[0].function.name", "is refused");

    /* The array is the innermost level. */
    is_int(with_schema(API_SCHEMA_DEPTH_MAX - 1, 1), 0, "the deepest schema");
    is_int(with_schema(API_SCHEMA_DEPTH_MAX, 1), E_INVALID, "a deeper one");
    is_str(e.param, "tools[0]", "is refused");
    is_int(with_schema(1, API_SCHEMA_NODES_MAX - 2), 0, "the largest schema");
    is_int(with_schema(1, API_SCHEMA_NODES_MAX - 1), E_INVALID, "a larger one");
    is_str(e.param, "tools[0]", "is refused: %s", e.msg);
}

int main(void)
{
    borrowed();
    refused();
    limits();
    json_free(doc);
    return done_testing();
}
