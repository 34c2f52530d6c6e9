/* gram_match.c - which texts a pattern allows, on standard input, for the *_reference.py tests.
 *
 * A line is {"kind": KIND, "pattern": "...", "texts": [...]}; prints [1,0,...], a number a text, or
 * {"error": "..."}. KIND: regex and regex_json match as a whole, search and search_json a part,
 * the text written plain or as in a JSON string; ebnf. */
#include "ebnf.h"
#include "json.h"
#include "regex.h"

#include "../grammar_text.h"


static gram written(struct grammar_make *m, struct slice kind, struct slice p)
{
    if (slice_is(kind, "regex"))
        return regex_gram(m, p.p, p.n, REGEX_PLAIN, false);
    if (slice_is(kind, "search"))
        return regex_gram(m, p.p, p.n, REGEX_PLAIN, true);
    if (slice_is(kind, "regex_json"))
        return regex_gram(m, p.p, p.n, REGEX_JSON, false);
    if (slice_is(kind, "search_json"))
        return regex_gram(m, p.p, p.n, REGEX_JSON, true);
    if (slice_is(kind, "ebnf"))
        return ebnf_gram(m, p.p, p.n);
    return grammar_fail(m, E_INVALID, "unknown kind");
}

static int answer(const struct json *j, struct buf *out)
{
    const struct json   *kind = json_get(j, "kind"), *pattern = json_get(j, "pattern");
    const struct json   *texts = json_get(j, "texts");
    struct grammar_make *m = grammar_make(0);
    struct grammar      *g;
    struct err           e;

    if (kind == NULL || pattern == NULL || texts == NULL || m == NULL)
        return -1;
    if (grammar_compile(&g, m, written(m, kind->text, pattern->text), &e) < 0) {
        buf_str(out, "{\"error\":");
        buf_json_str(out, e.msg, strlen(e.msg));
        buf_str(out, "}");
    } else {
        buf_str(out, "[");
        for (const struct json *t = texts->child; t != NULL; t = t->next)
            buf_fmt(out, "%d%s", text_matches(g, t->text.p, t->text.n), t->next ? "," : "");
        buf_str(out, "]");
        grammar_free(g);
    }
    grammar_make_free(m);
    return 0;
}

int main(void)
{
    static const struct json_limits lim = { .bytes = 1 << 24, .depth = 4, .nodes = 1 << 16 };
    char   *line = NULL;
    size_t  cap = 0;
    ssize_t n;

    while ((n = getline(&line, &cap, stdin)) > 0) {
        struct json_doc   *d;
        const struct json *j;
        struct buf         out = { 0 };
        struct err         e = { .msg = "a line has no kind, pattern and texts" };

        if (json_parse(&d, &j, line, (size_t) n, &lim, &e) < 0 || answer(j, &out) < 0) {
            fprintf(stderr, "%s\n", e.msg);
            return 1;
        }
        buf_str(&out, "\n");
        fwrite(out.p, 1, out.n, stdout);
        fflush(stdout);
        buf_free(&out);
        json_free(d);
    }
    free(line);
    return 0;
}
