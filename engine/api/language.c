#include "language.h"

#include <string.h>

#include "ebnf.h"
#include "regex.h"
#include "schema.h"

static bool is_allowed(const struct language *l, const struct tool *t)
{
    return l->only.p == NULL
           || (t->name.n == l->only.n && memcmp(t->name.p, l->only.p, t->name.n) == 0);
}

void language_name(const struct language *l, struct buf *b)
{
    const struct format *f = l->format;

    buf_fmt(b, "%d%d%d%d;", f != NULL ? (int) f->kind : -1, f != NULL && f->tight, l->many,
            l->heads);
    if (f != NULL && f->value != NULL)
        json_write(f->value, b);
    for (uint32_t i = 0; l->tools != NULL && i < l->tools->n; i++) {
        const struct tool *t = &l->tools->tool[i];

        if (!is_allowed(l, t))
            continue;
        buf_fmt(b, "%.*s;%d", (int) t->name.n, t->name.p, t->strict && !l->heads);
        if (t->strict && !l->heads && t->schema != NULL)
            json_write(t->schema, b);
    }
}

/* A schema that comes as a text is parsed here, far from the threads that stream. */
static gram schema_of(struct grammar_make *m, const struct format *f)
{
    static const struct json_limits lim = {
        .bytes = API_SCHEMA_BYTES_MAX, .depth = API_JSON_DEPTH_MAX, .nodes = API_JSON_NODES_MAX,
    };
    enum schema_as     as = f->tight ? SCHEMA_JSON_TIGHT : SCHEMA_JSON;
    const struct json *root = f->value;
    struct json_doc   *doc = NULL;
    struct err         err;
    gram               g;

    if (root->type == JSON_STRING
        && json_parse(&doc, &root, root->text.p, root->text.n, &lim, &err) != 0)
        return grammar_fail(m, err.code, "not valid %s", err.msg);
    g = schema_gram(m, root, as, -1);
    json_free(doc);
    return g;
}

static gram document(struct grammar_make *m, const struct format *f)
{
    struct slice text = f->value != NULL ? f->value->text : SLICE("");
    gram         g = -1;

    switch (f->kind) {
    case FORMAT_OBJECT:
        return schema_any_object(m, f->tight ? SCHEMA_JSON_TIGHT : SCHEMA_JSON, -1);
    case FORMAT_SCHEMA:
        return schema_of(m, f);
    case FORMAT_REGEX:
        return regex_gram(m, text.p, text.n, REGEX_PLAIN, false);
    case FORMAT_EBNF:
        return ebnf_gram(m, text.p, text.n);
    case FORMAT_CHOICE:
        for (const struct json *s = f->value->child; s != NULL; s = s->next) {
            gram one = grammar_bytes(m, s->text.p, s->text.n);

            g = s == f->value->child ? one : grammar_alt(m, g, one);
        }
        return g;
    case FORMAT_FREE:
    case FORMAT_N:
        break;
    }
    return grammar_fail(m, E_INVALID, "no format");
}

/* What stands behind the name of a call. any: of an object of any kind. */
static gram arguments(struct grammar_make *m, const struct tool *t, gram any, struct schema *s)
{
    const struct json *type = json_get(t->schema, "type");

    if (!t->strict)
        return any;
    if (t->schema == NULL)
        return grammar_text(m, "{}");
    if (type == NULL || type->type != JSON_STRING || !slice_is(type->text, "object"))
        return grammar_fail(m, E_INVALID, "arguments can be held to a schema of \"type\": "
                            "\"object\" only");
    return schema_add(s, t->schema);
}

/* The names that may be called, each with its arguments or the brace that opens them. */
static gram names(struct grammar_make *m, const struct language *l, struct schema *s, gram any,
                  int32_t *tool)
{
    gram all = -1, one;

    for (uint32_t i = 0; i < l->tools->n; i++) {
        const struct tool *t = &l->tools->tool[i];

        if (!is_allowed(l, t))
            continue;
        one = grammar_bytes(m, t->name.p, t->name.n);
        one = grammar_seq(m, one, l->heads ? any : arguments(m, t, any, s));
        if (one < 0) {
            *tool = (int32_t) i;
            return one;
        }
        all = all < 0 ? one : grammar_alt(m, all, one);
    }
    return all;
}

/* <|tool_call>call:NAME{..}<tool_call|>, or up to the brace. */
static gram calls(struct grammar_make *m, const struct language *l, const struct channel_ids *ids,
                  int32_t *tool)
{
    const struct json anything = { .type = JSON_TRUE };
    struct schema    *s = schema_open(m, SCHEMA_CALL, ids->quote);
    gram              any = l->heads ? grammar_text(m, "{") : -1, all;

    if (s == NULL)
        return grammar_fail(m, E_FULL, "out of memory");
    if (!l->heads)
        any = schema_add(s, &anything);
    all = names(m, l, s, any, tool);
    schema_close(s);
    if (all < 0)
        return -1;
    all = grammar_seq(m, grammar_text(m, "call:"), all);
    all = grammar_seq(m, grammar_token(m, ids->tool_call), all);
    if (!l->heads)
        all = grammar_seq(m, all, grammar_token(m, ids->tool_call_end));
    return l->many ? grammar_repeat(m, all, 1, -1) : all;
}

int language_compile(struct grammar **out, const struct language *l, const struct channel_ids *ids,
                     uint64_t deadline_ns, int32_t *tool, struct err *err)
{
    struct grammar_make *m = grammar_make(deadline_ns);
    gram                 root = -1;
    int                  rc;

    *out = NULL;
    *tool = -1;
    if (m == NULL)
        return err_set(err, E_FULL, "out of memory");
    if (l->format != NULL)
        root = document(m, l->format);
    if (l->tools != NULL && (l->format == NULL || root >= 0)) {
        gram call = calls(m, l, ids, tool);

        root = l->format != NULL ? grammar_alt(m, root, call) : call;
    }
    rc = grammar_compile(out, m, root, err);
    grammar_make_free(m);
    return rc;
}
