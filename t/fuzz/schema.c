/* fuzz/schema.c - any JSON as a schema, within 50 ms: no crash, failures in words; what its grammar
 * allows is JSON, and in a call the parser makes JSON of it.
 *
 * An input is a byte, whose last digit in base 3 is the style, and the schema's text. */
#include "schema.h"

#include "../grammar_text.h"
#include "../schema_call.h"
#include "../schema_walk.h"

#define QUOTE 7

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static struct grammar *compile(const struct json *root, enum schema_as as)
{
    struct grammar_make *m = grammar_make(text_now_ns() + 50000000);
    struct grammar      *g;
    struct err           e = { 0 };

    if (grammar_compile(&g, m, schema_gram(m, root, as, QUOTE), &e) < 0
        && ((e.code != E_INVALID && e.code != E_FULL) || e.msg[0] == '\0'
            || !utf8_valid(e.msg, strlen(e.msg))))
        abort();
    grammar_make_free(m);
    return g;
}

/* Keys that are not declared may come twice, but not as a call's parser reads them. */
static void check(struct slice text, bool call)
{
    static const struct json_limits lim = { SIZE_MAX, 1 << 16, UINT32_MAX };
    struct json_doc                *doc = NULL;
    const struct json              *root;
    struct err                      e;

    if (json_parse(&doc, &root, text.p, text.n, &lim, &e) != 0
        && (call || strstr(e.msg, "duplicate key") == NULL)) {
        fprintf(stderr, "%s: %.*s\n", e.msg, (int) text.n, text.p);
        abort();
    }
    json_free(doc);
}

static void walk(const struct grammar *g, const struct json *root, enum schema_as as)
{
    struct toolset *tools = as == SCHEMA_CALL ? call_tools(root) : NULL;
    struct buf      text = { 0 }, args = { 0 };
    struct walk     w;

    walk_open(&w, g, g->n_state);
    for (int i = 0; i < 4; i++) {
        text.n = args.n = 0;
        if (!walk_text(&w, 40u << i, CALL_MARK, &text))
            break;
        if (tools != NULL)
            call_read(tools, (struct slice) { text.p, text.n }, &args);
        check(tools != NULL ? (struct slice) { args.p, args.n }
                            : (struct slice) { text.p, text.n }, tools != NULL);
    }
    walk_close(&w);
    toolset_close(tools);
    buf_free(&text);
    buf_free(&args);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static const struct json_limits lim = { 1 << 16, 64, 16384 };
    struct json_doc                *doc = NULL;
    const struct json              *root;
    struct grammar                 *g;

    if (n == 0 || json_parse(&doc, &root, (const char *) p + 1, n - 1, &lim, NULL) != 0)
        return 0;
    g = compile(root, p[0] % 3);
    if (g != NULL)
        walk(g, root, p[0] % 3);
    grammar_free(g);
    json_free(doc);
    return 0;
}
