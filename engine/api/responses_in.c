/* responses_in.c - OpenAI's /v1/responses, without what would have to be stored, as a chat body. */
#include "format_in.h"
#include "translate.h"

#include <string.h>

/* Content: a string, or parts of text, as one text. want: "input_text" for what came from outside,
 * "output_text" for what the model wrote. */
static int read_text(struct tr *t, const struct json *v, const char *path, const char *want,
                     struct buf *text)
{
    char         at[TR_PATH_BYTES];
    struct slice type, s;
    uint32_t     i = 0;

    if (v->type == JSON_STRING) {
        buf_put(text, v->text.p, v->text.n);
        return 0;
    }
    if (v->type != JSON_ARRAY)
        return tr_bad_type(t, path, "a string or an array of parts", v);

    for (const struct json *p = v->child; p != NULL; p = p->next) {
        tr_path(at, "%s[%u]", path, i++);
        if (p->type != JSON_OBJECT)
            return tr_bad_type(t, at, "an object", p);
        if (tr_need_str(t, p, at, "type", &type) != 0)
            return E_INVALID;
        tr_known(t, p, "type text annotations logprobs");
        if (!slice_is(type, want)) {
            tr_path(at, "%s[%u].type", path, i - 1);
            return api_err_400(t->e, "unsupported_parameter", at, "'%s': parts of type \"%.*s\" "
                               "are not supported here, only \"%s\".", at,
                               (int) (type.n < 40 ? type.n : 40), type.p, want);
        }
        if (tr_need_str(t, p, at, "text", &s) != 0)
            return E_INVALID;
        buf_put(text, s.p, s.n);
    }
    return 0;
}

/* The text at key of item, as the content of the message that was begun. */
static int put_content(struct tr *t, const struct json *item, const char *path, const char *key)
{
    const struct json *v = tr_get(item, key);
    struct buf         text = { 0 };
    char               at[TR_PATH_BYTES];
    int                rc;

    tr_path(at, "%s.%s", path, key);
    if (v == NULL)
        return tr_missing(t, at);
    rc = read_text(t, v, at, "input_text", &text);
    buf_str(t->out, ",\"content\":");
    buf_json_str(t->out, text.n > 0 ? text.p : "", text.n);
    buf_str(t->out, "}");
    t->out->full = t->out->full || text.full;
    buf_free(&text);
    return rc;
}

/* Items */

struct items {
    struct tr_said said;            /* what the assistant said since the last other message */
    bool           any;
};

static void flush(struct tr *t, struct items *s)
{
    if (s->any)
        tr_said_put(t, &s->said);
    s->any = false;
}

static int on_message(struct tr *t, struct items *s, const struct json *item, const char *path)
{
    static const char *const roles[] = { "user", "system", "developer" };
    const struct json       *content = tr_get(item, "content");
    char                     at[TR_PATH_BYTES];
    struct slice             role;
    size_t                   i = 0;

    if (tr_need_str(t, item, path, "role", &role) != 0)
        return E_INVALID;
    if (slice_is(role, "assistant")) {
        tr_path(at, "%s.content", path);
        if (content == NULL)
            return tr_missing(t, at);
        if (s->said.text.n > 0)
            flush(t, s);
        s->any = true;
        return read_text(t, content, at, "output_text", &s->said.text);
    }

    while (i < 3 && !slice_is(role, roles[i]))
        i++;
    if (i == 3) {
        tr_path(at, "%s.role", path);
        return api_err_400(t->e, "invalid_value", at, "'%s' must be user, assistant, system or "
                           "developer.", at);
    }
    flush(t, s);
    tr_message(t, roles[i]);
    return put_content(t, item, path, "content");
}

static int on_call(struct tr *t, struct items *s, const struct json *item, const char *path)
{
    struct slice id, name, args;

    if (tr_need_str(t, item, path, "call_id", &id) != 0
        || tr_need_str(t, item, path, "name", &name) != 0
        || tr_need_str(t, item, path, "arguments", &args) != 0)
        return E_INVALID;
    s->any = true;
    tr_said_call(&s->said, id, name, tr_get(item, "arguments"));
    return 0;
}

static int on_result(struct tr *t, struct items *s, const struct json *item, const char *path)
{
    struct slice id;

    if (tr_need_str(t, item, path, "call_id", &id) != 0)
        return E_INVALID;
    flush(t, s);
    tr_message(t, "tool");
    buf_str(t->out, ",\"tool_call_id\":");
    buf_json_str(t->out, id.p, id.n);
    return put_content(t, item, path, "output");
}

/* Our own thoughts come back as content; a summary would not be them. */
static int on_reasoning(struct tr *t, struct items *s, const struct json *item, const char *path)
{
    const struct json *content = tr_get(item, "content");
    char               at[TR_PATH_BYTES];

    tr_path(at, "%s.content", path);
    if (s->said.text.n > 0)
        flush(t, s);
    if (content == NULL)
        return 0;
    s->any = true;
    return read_text(t, content, at, "reasoning_text", &s->said.thoughts);
}

static const struct {
    const char *type;
    const char *known;               /* its members */
    int       (*read)(struct tr *t, struct items *s, const struct json *item, const char *path);
} item_types[] = {
    { "message", "type id status role content", on_message },
    { "function_call", "type id status call_id name arguments", on_call },
    { "function_call_output", "type id status call_id output", on_result },
    { "reasoning", "type id status summary content encrypted_content", on_reasoning },
};

#define N_TYPE (sizeof(item_types) / sizeof(item_types[0]))

static int on_item(struct tr *t, struct items *s, const struct json *item, uint32_t i)
{
    const struct json *type = tr_get(item, "type");
    struct slice       name = SLICE("message");      /* what has no type */
    char               path[TR_PATH_BYTES];
    size_t             k = 0;

    tr_path(path, "input[%u]", i);
    if (item->type != JSON_OBJECT)
        return tr_bad_type(t, path, "an object", item);
    if (type != NULL && tr_need_str(t, item, path, "type", &name) != 0)
        return E_INVALID;
    while (k < N_TYPE && !slice_is(name, item_types[k].type))
        k++;
    if (k < N_TYPE) {
        tr_known(t, item, item_types[k].known);
        return item_types[k].read(t, s, item, path);
    }

    tr_path(path, "input[%u].type", i);
    return api_err_400(t->e, "unsupported_parameter", path, "'%s': items of type \"%.*s\" are not "
                       "supported by this server.", path, (int) (name.n < 40 ? name.n : 40),
                       name.p);
}

static int put_items(struct tr *t, const struct json *v)
{
    struct items s = { .any = false };
    uint32_t     i = 0;
    int          rc = 0;

    for (const struct json *item = v->child; item != NULL && rc == 0; item = item->next)
        rc = on_item(t, &s, item, i++);
    if (rc == 0)
        flush(t, &s);
    tr_said_free(&s.said);
    return rc;
}

static int put_input(struct tr *t, const struct tr_field *f, const struct json *v,
                     const char *path)
{
    const struct json *first = tr_get(t->root, "instructions");

    (void) f;
    if (v->type != JSON_STRING && v->type != JSON_ARRAY)
        return tr_bad_type(t, path, "a string or an array of items", v);
    if (v->type == JSON_ARRAY && (v->n == 0 || v->n > API_MESSAGE_MAX))
        return api_err_400(t->e, "invalid_value", path, "'%s' must have 1 to %d items.", path,
                           API_MESSAGE_MAX);

    tr_member(t, "messages");
    buf_str(t->out, "[");
    if (first != NULL) {
        tr_message(t, "system");
        buf_str(t->out, ",\"content\":");
        json_write(first, t->out);
        buf_str(t->out, "}");
    }
    if (v->type == JSON_STRING) {
        tr_message(t, "user");
        buf_str(t->out, ",\"content\":");
        json_write(v, t->out);
        buf_str(t->out, "}");
    } else if (put_items(t, v) != 0) {
        return E_INVALID;
    }
    buf_str(t->out, "]");
    return 0;
}

/* The row of input puts it before the messages. */
static int check_instructions(struct tr *t, const struct tr_field *f, const struct json *v,
                              const char *path)
{
    (void) f;
    return v->type == JSON_STRING ? 0 : tr_bad_type(t, path, "a string", v);
}

/* Tools */

static int put_tool(struct tr *t, const struct json *v, uint32_t i)
{
    static const char *const keys[] = { "description", "parameters", "strict" };
    const struct json       *k;
    char                     path[TR_PATH_BYTES];
    struct slice             type, name;

    tr_path(path, "tools[%u]", i);
    if (v->type != JSON_OBJECT)
        return tr_bad_type(t, path, "an object", v);
    if (tr_need_str(t, v, path, "type", &type) != 0)
        return E_INVALID;
    if (!slice_is(type, "function")) {
        tr_path(path, "tools[%u].type", i);
        return api_err_400(t->e, "unsupported_parameter", path, "'%s' must be \"function\": this "
                           "server has no tools of its own.", path);
    }
    if (tr_need_str(t, v, path, "name", &name) != 0)
        return E_INVALID;

    tr_known(t, v, "type name description parameters strict");
    tr_function(t, name);
    for (size_t n = 0; n < sizeof(keys) / sizeof(keys[0]); n++) {
        if ((k = tr_get(v, keys[n])) == NULL)
            continue;
        buf_fmt(t->out, ",\"%s\":", keys[n]);
        json_write(k, t->out);
    }
    buf_str(t->out, "}}");
    return 0;
}

static int put_tools(struct tr *t, const struct tr_field *f, const struct json *v,
                     const char *path)
{
    (void) f;
    return tr_tools(t, v, path, put_tool);
}

static int put_choice(struct tr *t, const struct tr_field *f, const struct json *v,
                      const char *path)
{
    struct slice type, name;

    if (v->type == JSON_STRING)
        return tr_copy(t, f, v, path);
    if (v->type != JSON_OBJECT)
        return tr_bad_type(t, path, "a string or an object", v);
    if (tr_need_str(t, v, path, "type", &type) != 0)
        return E_INVALID;
    if (!slice_is(type, "function"))
        return api_err_400(t->e, "unsupported_parameter", "tool_choice.type", "'tool_choice.type' "
                           "must be \"function\".");
    if (tr_need_str(t, v, path, "name", &name) != 0)
        return E_INVALID;
    tr_known(t, v, "type name");
    tr_member(t, "tool_choice");
    tr_function(t, name);
    buf_str(t->out, "}}");
    return 0;
}

/* Objects */

/* Nobody writes summaries here: whoever wants one gets more, the thoughts themselves. */
static int check_summary(struct tr *t, const struct tr_field *f, const struct json *v,
                         const char *path)
{
    static const char *const words[] = { "auto", "concise", "detailed", "none" };

    (void) f;
    if (v->type != JSON_STRING)
        return tr_bad_type(t, path, "a string", v);
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (slice_is(v->text, words[i]))
            return 0;
    return api_err_400(t->e, "invalid_value", path, "'%s' must be auto, concise, detailed or "
                       "none.", path);
}

static const struct tr_field reasoning_fields[] = {
    { "effort",  tr_copy, "reasoning_effort", 0, 0, NULL, "none to max: whether to think" },
    { "summary", check_summary, NULL, 0, 0, "string", "auto, concise, detailed, none: all the same;"
      " thoughts come whole, as reasoning_text, and summaries are empty" },
    { "generate_summary", check_summary, NULL, 0, 0, "string", "its old name" },
    { 0 }
};

static int put_format(struct tr *t, const struct tr_field *f, const struct json *v,
                      const char *path)
{
    struct ask   unknown = { 0 };
    struct slice type;
    bool         first = true;

    (void) f;
    if (v->type != JSON_OBJECT)
        return tr_bad_type(t, path, "an object", v);
    if (tr_need_str(t, v, path, "type", &type) != 0)
        return E_INVALID;
    if (!slice_is(type, "text") && !slice_is(type, "json_object") && !slice_is(type, "json_schema"))
        return api_err_400(t->e, "invalid_value", "text.format.type", "'text.format.type' must be "
                           "text, json_object or json_schema.");
    tr_member(t, "response_format");
    if (!slice_is(type, "json_schema")) {
        json_write(v, t->out);
        return 0;
    }
    if (format_check_schema(v, path, true, &unknown, t->e) != 0)
        return E_INVALID;

    /* a chat has the schema and its name one level deeper */
    buf_str(t->out, "{\"type\":\"json_schema\",\"json_schema\":{");
    for (const struct json *m = v->child; m != NULL; m = m->next) {
        if (slice_is(m->key, "type"))
            continue;
        buf_str(t->out, first ? "" : ",");
        buf_json_str(t->out, m->key.p, m->key.n);
        buf_str(t->out, ":");
        json_write(m, t->out);
        first = false;
    }
    buf_str(t->out, "}}");
    return 0;
}

static const struct tr_field text_fields[] = {
    { "format",    put_format, NULL, 0, 0, "object",
      "response_format of a chat, with name, schema, strict one level higher" },
    { "verbosity", tr_copy, "verbosity", 0, 0, NULL, "" },
    { 0 }
};

static const struct tr_field stream_fields[] = {
    { "include_obfuscation", tr_refuse, NULL, 0, 0, "false", NULL },
    { 0 }
};

static int put_object(struct tr *t, const struct tr_field *f, const struct json *v,
                      const char *path)
{
    const struct tr_field *rows = strcmp(f->name, "reasoning") == 0 ? reasoning_fields
                                  : strcmp(f->name, "text") == 0 ? text_fields : stream_fields;
    char                   prefix[TR_PATH_BYTES];

    tr_path(prefix, "%s.", path);
    return v->type != JSON_OBJECT ? tr_bad_type(t, path, "an object", v)
                                  : tr_fields(t, rows, prefix, v);
}

/* Thoughts come in full, so that nothing encrypted is needed to send them back. */
static int check_include(struct tr *t, const struct tr_field *f, const struct json *v,
                         const char *path)
{
    (void) f;
    if (v->type != JSON_ARRAY)
        return tr_bad_type(t, path, "an array of strings", v);
    for (const struct json *s = v->child; s != NULL; s = s->next)
        if (s->type != JSON_STRING || !slice_is(s->text, "reasoning.encrypted_content"))
            return api_err_400(t->e, "unsupported_parameter", path, "'%s': only "
                               "\"reasoning.encrypted_content\" is known to this server.", path);
    return 0;
}

static const struct tr_field fields[] = {
    { "model",               tr_str, "model", 1, 256, NULL, "a served name" },
    { "input",               put_input, NULL, 1, API_MESSAGE_MAX, "string or array",
      "a string, or items: message, function_call, function_call_output, reasoning" },
    { "instructions",        check_instructions, NULL, 0, 0, "string", "the system prompt" },
    { "max_output_tokens",   tr_int, "max_completion_tokens", 1, INT32_MAX, NULL,
      "of the answer, thoughts too" },
    { "tools",               put_tools, NULL, 0, 0, "array", "of type function" },
    { "tool_choice",         put_choice, "tool_choice", 0, 0, "string or object",
      "none, auto, required, or a function by name" },
    { "parallel_tool_calls", tr_bool, "parallel_tool_calls", 0, 0, NULL, "" },
    { "reasoning",           put_object, NULL, 0, 0, "object", "effort; summary" },
    { "text",                put_object, NULL, 0, 0, "object", "format; verbosity" },
    { "temperature",         tr_num, "temperature", 0, 2, NULL, "if absent, the model's" },
    { "top_p",               tr_num, "top_p", 0, 1, NULL, "likewise" },
    { "top_k",               tr_copy, "top_k", 0, 0, NULL, "" },
    { "min_p",               tr_copy, "min_p", 0, 0, NULL, "" },
    { "seed",                tr_copy, "seed", 0, 0, NULL, "" },
    { "stream",              tr_bool, "stream", 0, 0, NULL, "named events" },
    { "stream_options",      put_object, NULL, 0, 0, "object", "include_obfuscation: false" },
    { "metadata",            tr_copy, "metadata", 0, 0, NULL, "is repeated" },
    { "user",                tr_str, "user", 0, API_LABEL_BYTES_MAX, NULL, "" },
    { "safety_identifier",   tr_str, "safety_identifier", 0, API_LABEL_BYTES_MAX, NULL, "" },
    { "prompt_cache_key",    tr_str, "prompt_cache_key", 0, API_LABEL_BYTES_MAX, NULL, "" },
    { "service_tier",        tr_copy, "service_tier", 0, 0, NULL, "" },
    { "store",               tr_bool, NULL, 0, 0, NULL,
      "nothing is stored, and the answer says so" },
    { "include",             check_include, NULL, 0, 0, "array", "reasoning.encrypted_content" },
    { "truncation",          tr_refuse, NULL, 0, 0, "\"disabled\"", NULL },
    { "background",          tr_refuse, NULL, 0, 0, "false", NULL },
    { "top_logprobs",        tr_refuse, NULL, 0, 0, "0", NULL },
    { "previous_response_id", tr_refuse, NULL, 0, 0, NULL, NULL },
    { "conversation",        tr_refuse, NULL, 0, 0, NULL, NULL },
    { "prompt",              tr_refuse, NULL, 0, 0, NULL, NULL },
    { "max_tool_calls",      tr_refuse, NULL, 0, 0, NULL, NULL },
    { "context_management",  tr_refuse, NULL, 0, 0, NULL, NULL },
    { 0 }
};

/* The answer shows what was asked for, or what it means to have asked for nothing. */
static void put_echo(struct tr *t)
{
    static const struct { const char *name, *absent; } members[] = {
        { "instructions", "null" }, { "max_output_tokens", "null" }, { "metadata", "{}" },
        { "parallel_tool_calls", "true" }, { "temperature", "null" }, { "tool_choice", "\"auto\"" },
        { "tools", "[]" }, { "top_p", "null" }, { "user", "null" },
        { "reasoning", "{\"effort\":null,\"summary\":null}" },
        { "text", "{\"format\":{\"type\":\"text\"}}" },
    };

    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        const struct json *v = tr_get(t->root, members[i].name);

        buf_fmt(t->echo, ",\"%s\":", members[i].name);
        if (v != NULL)
            json_write(v, t->echo);
        else
            buf_str(t->echo, members[i].absent);
    }
    buf_str(t->echo, ",\"background\":false,\"previous_response_id\":null,\"store\":false,"
                     "\"truncation\":\"disabled\"");
}

const struct tr_set responses_sets[] = {
    { "", fields }, { "reasoning.", reasoning_fields }, { "text.", text_fields },
    { "stream_options.", stream_fields }, { NULL, NULL },
};

int responses_in(struct tr *t)
{
    if (tr_get(t->root, "input") == NULL)
        return tr_missing(t, "input");
    if (tr_fields(t, fields, "", t->root) != 0)
        return E_INVALID;
    put_echo(t);
    return 0;
}
