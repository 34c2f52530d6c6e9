/* schema_walk.c - what a schema's grammar says, on standard input, for t/schema_reference.py.
 *
 * A line: {"schema": .., "as": "json", "tight" or "call", "walks": n, "seed": n, "texts": [..]}.
 * Answer: {"error": ".."}, or {"us": microseconds to compile, "states": n, "walks": [random texts],
 * "takes": [of each text, whether it is one]}. In a call's texts <|"|> is the token, and its walks
 * are arguments as the parser of calls reads them, beside the texts themselves in "calls". A schema
 * that is an array: alternatives of one grammar. */
#include "../grammar_run.h"
#include "../schema_call.h"
#include "../schema_walk.h"

#include "schema.h"

#include <time.h>

#define QUOTE 52
#define STEPS 400

static const struct json_limits lim = { 1 << 24, 128, 1 << 20 };

/* Of the processor, so that a busy machine does not count. */
static uint64_t used_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

static enum schema_as style(const struct json *in)
{
    struct slice as = json_get(in, "as")->text;

    return slice_is(as, "call") ? SCHEMA_CALL : slice_is(as, "tight") ? SCHEMA_JSON_TIGHT
                                                                      : SCHEMA_JSON;
}

static int compile(const struct json *in, struct grammar **g, uint64_t *us, struct err *e)
{
    const struct json   *schema = json_get(in, "schema");
    uint64_t             start = used_us();
    struct grammar_make *m = grammar_make(0);
    struct schema       *s = schema_open(m, style(in), QUOTE);
    bool                 many = schema->type == JSON_ARRAY;
    gram                 root = -1, one;
    int                  rc;

    for (schema = many ? schema->child : schema; schema != NULL; schema = schema->next) {
        one = schema_add(s, schema);
        root = root < 0 || one < 0 ? one : grammar_alt(m, root, one);
        if (one < 0 || !many)
            break;
    }
    schema_close(s);
    rc = grammar_compile(g, m, root, e);
    *us = used_us() - start;
    grammar_make_free(m);
    return rc;
}

static bool takes(const struct grammar *g, struct slice text)
{
    int *sym = malloc((text.n + 1) * sizeof(*sym)), n = 0;
    bool yes;

    for (size_t i = 0; i < text.n;) {
        if (call_mark(text, i)) {
            sym[n++] = RUN_TOKEN + QUOTE;
            i += strlen(CALL_MARK);
        } else {
            sym[n++] = (unsigned char) text.p[i++];
        }
    }
    yes = run_takes(g, sym, n);
    free(sym);
    return yes;
}

static void walks(const struct json *in, const struct grammar *g, struct buf *out)
{
    bool            call = style(in) == SCHEMA_CALL;
    struct toolset *tools = call ? call_tools(json_get(in, "schema")) : NULL;
    struct buf      text = { 0 }, raw = { 0 }, args = { 0 };
    struct walk     w;
    int64_t         n = 0, seed = 0;

    json_int(json_get(in, "walks"), &n);
    json_int(json_get(in, "seed"), &seed);
    walk_open(&w, g, (uint64_t) seed);
    buf_str(out, ",\"walks\":[");
    for (int64_t i = 0; i < n; i++) {
        text.n = 0;
        if (!walk_text(&w, (uint32_t) (i % 4 == 0 ? 20 : STEPS), CALL_MARK, &text))
            abort();
        buf_str(out, i > 0 ? "," : "");
        buf_str(&raw, i > 0 ? "," : "");
        buf_json_str(&raw, text.p, text.n);
        if (call) {
            args.n = 0;
            call_read(tools, (struct slice) { text.p, text.n }, &args);
            buf_json_str(out, args.p, args.n);
        } else {
            buf_json_str(out, text.p, text.n);
        }
    }
    buf_str(out, "]");
    if (call) {
        buf_str(out, ",\"calls\":[");
        buf_put(out, raw.p, raw.n);
        buf_str(out, "]");
    }
    walk_close(&w);
    toolset_close(tools);
    buf_free(&text);
    buf_free(&raw);
    buf_free(&args);
}

static void answer(const struct json *in, struct buf *out)
{
    const struct json *texts = json_get(in, "texts");
    const char        *broken;
    struct grammar    *g;
    struct err         e;
    uint64_t           us;

    if (compile(in, &g, &us, &e) != 0) {
        buf_str(out, "{\"error\":");
        buf_json_str(out, e.msg, strlen(e.msg));
        buf_str(out, "}");
        return;
    }
    broken = run_broken(g);
    if (broken != NULL) {
        fprintf(stderr, "%s\n", broken);
        abort();
    }
    buf_fmt(out, "{\"us\":%llu,\"states\":%u", (unsigned long long) us, g->n_state);
    walks(in, g, out);
    buf_str(out, ",\"takes\":[");
    for (const struct json *j = texts != NULL ? texts->child : NULL; j != NULL; j = j->next)
        buf_fmt(out, "%s%s", takes(g, j->text) ? "true" : "false", j->next != NULL ? "," : "");
    buf_str(out, "]}");
    grammar_free(g);
}

int main(void)
{
    char   *line = NULL;
    size_t  cap = 0;
    ssize_t n;

    while ((n = getline(&line, &cap, stdin)) > 0) {
        struct buf         out = { 0 };
        struct json_doc   *doc;
        const struct json *in;
        struct err         e;

        if (json_parse(&doc, &in, line, (size_t) n, &lim, &e) != 0) {
            fprintf(stderr, "%s\n", e.msg);
            return 1;
        }
        answer(in, &out);
        printf("%.*s\n", (int) out.n, out.p);
        fflush(stdout);
        buf_free(&out);
        json_free(doc);
    }
    free(line);
    return 0;
}
