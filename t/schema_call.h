/* schema_call.h - texts of a call's arguments, in which <|"|> is the token, through the parser of
 * calls. */
#ifndef T_SCHEMA_CALL_H
#define T_SCHEMA_CALL_H

#include "json.h"
#include "toolcall.h"

#include <stdlib.h>
#include <string.h>

#define CALL_MARK "<|\"|>"

static bool call_mark(struct slice text, size_t at)
{
    return text.n - at >= strlen(CALL_MARK)
           && memcmp(text.p + at, CALL_MARK, strlen(CALL_MARK)) == 0;
}

/* What the parser of calls makes of arguments: JSON. */
static void call_read(const struct toolset *tools, struct slice text, struct buf *out)
{
    static struct toolcall t;
    struct said            said = { 0 };
    struct said_walk       w = { 0 };
    struct said_call       call;

    toolcall_begin(&t, tools);
    toolcall_text(&t, "call:f", 6, &said);
    for (size_t i = 0, k; i < text.n; i = k) {
        bool quote = call_mark(text, i);

        k = i + (quote ? strlen(CALL_MARK) : 1);
        while (!quote && k < text.n && !call_mark(text, k))
            k++;
        if (quote)
            toolcall_quote(&t, &said);
        else
            toolcall_text(&t, text.p + i, k - i, &said);
    }
    toolcall_end(&t, TOOLCALL_CLOSED, &said);
    if (!said_next_call(&said, &w, &call))
        abort();
    buf_put(out, call.args.p, call.args.n);
    said_free(&said);
    toolcall_free(&t);
}

/* One tool, f, that has these parameters. */
static struct toolset *call_tools(const struct json *schema)
{
    const struct json_limits any = { SIZE_MAX, UINT32_MAX, UINT32_MAX };
    struct buf               text = { 0 };
    struct json_doc         *doc = NULL;
    const struct json       *root;
    struct toolset          *t = NULL;

    buf_str(&text, "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":");
    json_write(schema, &text);
    buf_str(&text, "}}]");
    if (json_parse(&doc, &root, text.p, text.n, &any, NULL) != 0
        || toolset_open(&t, root, NULL) != 0)
        abort();
    json_free(doc);
    buf_free(&text);
    return t;
}

#endif
