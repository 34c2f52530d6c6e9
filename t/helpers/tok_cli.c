/* tok_cli.c - a tokenizer on standard input, for t/tok_reference.py.
 *
 * usage: tok_cli DIR [plain]
 * A JSON string a line: prints its ids as an array; "plain" leaves special tokens unparsed.
 * A JSON array of ids a line: prints their text as a string. */
#include "json.h"
#include "tok.h"

#include <stdlib.h>
#include <string.h>

static int answer(const struct tok *t, const struct json *j, bool special, struct buf *out)
{
    struct err e;

    if (j->type == JSON_STRING) {
        struct ids ids = { 0 };

        if (tok_encode(t, j->text.p, j->text.n, special, &ids, &e) < 0)
            return -1;
        buf_str(out, "[");
        for (size_t i = 0; i < ids.n; i++)
            buf_fmt(out, "%s%d", i ? "," : "", ids.p[i]);
        buf_str(out, "]");
        ids_free(&ids);
    } else {
        struct tok_stream s = { 0 };
        struct buf        text = { 0 };
        int64_t           id;

        for (const struct json *k = j->child; k != NULL; k = k->next)
            if (json_int(k, &id) == 0)
                tok_stream_put(t, &s, (int32_t) id, &text);
        tok_stream_end(&s, &text);
        buf_json_str(out, text.p, text.n);
        buf_free(&text);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct json_limits lim = { .bytes = 1 << 26, .depth = 2, .nodes = 1 << 24 };
    struct tok *t;
    struct err  e;
    char       *line = NULL;
    size_t      cap = 0;
    ssize_t     n;

    if (argc < 2 || tok_open(&t, argv[1], &e) < 0) {
        fprintf(stderr, "%s\n", argc < 2 ? "usage: tok_cli DIR [plain]" : e.msg);
        return 1;
    }
    while ((n = getline(&line, &cap, stdin)) > 0) {
        struct json_doc   *d;
        const struct json *j;
        struct buf         out = { 0 };

        if (json_parse(&d, &j, line, (size_t) n, &lim, &e) < 0
            || answer(t, j, argc < 3, &out) < 0) {
            fprintf(stderr, "%s\n", e.msg);
            return 1;
        }
        buf_str(&out, "\n");
        fwrite(out.p, 1, out.n, stdout);
        buf_free(&out);
        json_free(d);
    }
    free(line);
    tok_close(t);
    return 0;
}
