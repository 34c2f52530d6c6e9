/* messages_in.c - Anthropic's /v1/messages as a chat body. */
#include "format_in.h"
#include "translate.h"

#include <string.h>

/* Blocks: what one element of a content array may be. Answers of this API come back as they were,
 * so what its blocks have is known, citations and signatures too. */

static int block_type(struct tr *t, const struct json *b, const char *path, struct slice *type)
{
    const struct json *cache;
    char               full[TR_PATH_BYTES];

    if (b->type != JSON_OBJECT)
        return tr_bad_type(t, path, "an object", b);

    /* prompts are cached without being asked for it */
    cache = tr_get(b, "cache_control");
    tr_path(full, "%s.cache_control", path);
    if (cache != NULL && cache->type != JSON_OBJECT)
        return tr_bad_type(t, full, "an object", cache);
    tr_known(t, b, "type cache_control text citations thinking signature id name input caller "
             "tool_use_id content is_error");
    return tr_need_str(t, b, path, "type", type);
}

static int no_block(struct tr *t, const char *path, const char *where, struct slice type)
{
    char full[TR_PATH_BYTES];

    tr_path(full, "%s.type", path);
    return api_err_400(t->e, "unsupported_parameter", full, "'%s': blocks of type \"%.*s\" are not "
                       "supported in %s.", full, (int) (type.n < 40 ? type.n : 40), type.p, where);
}

/* A string, or an array of text blocks, as one text. */
static int plain_text(struct tr *t, const struct json *v, const char *path, const char *where,
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
        return tr_bad_type(t, path, "a string or an array of blocks", v);

    for (const struct json *b = v->child; b != NULL; b = b->next) {
        tr_path(at, "%s[%u]", path, i);
        if (block_type(t, b, at, &type) != 0)
            return E_INVALID;
        if (!slice_is(type, "text"))
            return no_block(t, at, where, type);
        if (tr_need_str(t, b, at, "text", &s) != 0)
            return E_INVALID;
        buf_str(text, i++ > 0 ? "\n" : "");
        buf_put(text, s.p, s.n);
    }
    return 0;
}

static int put_plain(struct tr *t, const struct json *v, const char *path, const char *where,
                     const char *before)
{
    struct buf text = { 0 };
    int        rc;

    buf_str(&text, before);
    rc = plain_text(t, v, path, where, &text);
    buf_str(t->out, ",\"content\":");
    buf_json_str(t->out, text.n > 0 ? text.p : "", text.n);
    t->out->full = t->out->full || text.full;
    buf_free(&text);
    return rc;
}

/* The model is told in words that a call has failed. */
static int put_result(struct tr *t, const struct json *b, const char *path)
{
    const struct json *content = tr_get(b, "content"), *failed = tr_get(b, "is_error");
    char               at[TR_PATH_BYTES];
    struct slice       id;
    int                rc = 0;

    if (tr_need_str(t, b, path, "tool_use_id", &id) != 0)
        return E_INVALID;
    tr_path(at, "%s.is_error", path);
    if (failed != NULL && failed->type != JSON_TRUE && failed->type != JSON_FALSE)
        return tr_bad_type(t, at, "true or false", failed);

    tr_message(t, "tool");
    buf_str(t->out, ",\"tool_call_id\":");
    buf_json_str(t->out, id.p, id.n);
    tr_path(at, "%s.content", path);
    if (content != NULL)
        rc = put_plain(t, content, at, "tool results",
                       failed != NULL && failed->type == JSON_TRUE ? "error: " : "");
    else
        buf_str(t->out, ",\"content\":\"\"");
    buf_str(t->out, "}");
    return rc;
}

/* Results become messages of their own; the text between them, one message each time. */
static int put_user(struct tr *t, const struct json *content, const char *path)
{
    bool         open = false;
    char         at[TR_PATH_BYTES];
    struct slice type, s;
    uint32_t     i = 0;

    for (const struct json *b = content->child; b != NULL; b = b->next) {
        tr_path(at, "%s[%u]", path, i++);
        if (block_type(t, b, at, &type) != 0)
            return E_INVALID;

        if (slice_is(type, "text")) {
            if (tr_need_str(t, b, at, "text", &s) != 0)
                return E_INVALID;
            if (!open)
                tr_message(t, "user");
            buf_str(t->out, open ? "," : ",\"content\":[");
            tr_text_part(t, s);
            open = true;
            continue;
        }
        if (!slice_is(type, "tool_result"))
            return no_block(t, at, "messages of the user", type);
        buf_str(t->out, open ? "]}" : "");
        open = false;
        if (put_result(t, b, at) != 0)
            return E_INVALID;
    }
    buf_str(t->out, open ? "]}" : "");
    return 0;
}

static int assistant_call(struct tr *t, const struct json *b, const char *path, struct tr_said *m)
{
    const struct json *input = tr_get(b, "input");
    char               at[TR_PATH_BYTES];
    struct slice       id, name;

    if (tr_need_str(t, b, path, "id", &id) != 0 || tr_need_str(t, b, path, "name", &name) != 0)
        return E_INVALID;
    tr_path(at, "%s.input", path);
    if (input == NULL)
        return tr_missing(t, at);
    if (input->type != JSON_OBJECT)
        return tr_bad_type(t, at, "an object", input);
    tr_said_call(m, id, name, input);
    return 0;
}

static int assistant_block(struct tr *t, const struct json *b, const char *path,
                           struct tr_said *m)
{
    struct slice type, s;

    if (block_type(t, b, path, &type) != 0)
        return E_INVALID;
    if (slice_is(type, "tool_use"))
        return assistant_call(t, b, path, m);
    if (!slice_is(type, "text") && !slice_is(type, "thinking"))
        return no_block(t, path, "messages of the assistant", type);
    if (tr_need_str(t, b, path, slice_is(type, "text") ? "text" : "thinking", &s) != 0)
        return E_INVALID;
    buf_put(slice_is(type, "text") ? &m->text : &m->thoughts, s.p, s.n);
    return 0;
}

static int put_assistant(struct tr *t, const struct json *content, const char *path)
{
    struct tr_said m = { 0 };
    char           at[TR_PATH_BYTES];
    uint32_t       i = 0;
    int            rc = 0;

    for (const struct json *b = content->child; b != NULL && rc == 0; b = b->next) {
        tr_path(at, "%s[%u]", path, i++);
        rc = assistant_block(t, b, at, &m);
    }
    if (rc == 0)
        tr_said_put(t, &m);
    tr_said_free(&m);
    return rc;
}

/* Messages */

static int put_message(struct tr *t, const struct json *m, uint32_t i)
{
    const struct json *content = tr_get(m, "content");
    char               path[TR_PATH_BYTES];
    struct slice       role;
    bool               user;

    tr_path(path, "messages[%u]", i);
    if (m->type != JSON_OBJECT)
        return tr_bad_type(t, path, "an object", m);
    if (tr_need_str(t, m, path, "role", &role) != 0)
        return E_INVALID;
    tr_known(t, m, "role content");
    user = slice_is(role, "user");

    if (!user && !slice_is(role, "assistant")) {
        tr_path(path, "messages[%u].role", i);
        return api_err_400(t->e, "invalid_value", path, "'%s' must be user or assistant.", path);
    }
    tr_path(path, "messages[%u].content", i);
    if (content == NULL)
        return tr_missing(t, path);
    if (content->type == JSON_STRING) {
        tr_message(t, user ? "user" : "assistant");
        buf_str(t->out, ",\"content\":");
        buf_json_str(t->out, content->text.p, content->text.n);
        buf_str(t->out, "}");
        return 0;
    }
    if (content->type != JSON_ARRAY)
        return tr_bad_type(t, path, "a string or an array of blocks", content);
    if (content->n == 0)
        return api_err_400(t->e, "invalid_value", path, "'%s' must not be empty.", path);
    return user ? put_user(t, content, path) : put_assistant(t, content, path);
}

/* An assistant's message at the end is the beginning of the answer. */
static int prefill(struct tr *t, const struct json *last)
{
    const struct json *thinking = tr_get(t->root, "thinking");
    const struct json *type = thinking != NULL ? tr_get(thinking, "type") : NULL;
    struct slice       role = tr_get(last, "role")->text;
    char               path[TR_PATH_BYTES];

    if (!slice_is(role, "assistant"))
        return 0;
    if (type != NULL && !slice_is(type->text, "disabled")) {
        tr_path(path, "messages[%u]", tr_get(t->root, "messages")->n - 1);
        return api_err_400(t->e, "invalid_value", path, "'%s': where 'thinking' is on, the last "
                           "message cannot be the assistant's.", path);
    }
    if (tr_get(t->root, "output_format") != NULL
        || tr_get(tr_get(t->root, "output_config"), "format") != NULL) {
        tr_path(path, "messages[%u]", tr_get(t->root, "messages")->n - 1);
        return api_err_400(t->e, "invalid_value", path, "'%s': where the answer has a format, the "
                           "last message cannot be the assistant's.", path);
    }
    tr_member(t, "continue_final_message");
    buf_str(t->out, "true");
    return 0;
}

static int put_messages(struct tr *t, const struct tr_field *f, const struct json *v,
                        const char *path)
{
    const struct json *system = tr_get(t->root, "system"), *last = NULL;
    uint32_t           i = 0;

    (void) f;
    if (v->type != JSON_ARRAY)
        return tr_bad_type(t, path, "an array", v);
    if (v->n == 0 || v->n > API_MESSAGE_MAX)
        return api_err_400(t->e, "invalid_value", path, "'%s' must have 1 to %d elements.", path,
                           API_MESSAGE_MAX);

    tr_member(t, "messages");
    buf_str(t->out, "[");
    if (system != NULL) {
        tr_message(t, "system");
        if (put_plain(t, system, "system", "'system'", "") != 0)
            return E_INVALID;
        buf_str(t->out, "}");
    }
    for (const struct json *m = v->child; m != NULL; last = m, m = m->next)
        if (put_message(t, m, i++) != 0)
            return E_INVALID;
    buf_str(t->out, "]");
    return prefill(t, last);
}

/* Tools */

static int put_tool(struct tr *t, const struct json *v, uint32_t i)
{
    const struct json *type = tr_get(v, "type"), *schema = tr_get(v, "input_schema");
    const struct json *text = tr_get(v, "description"), *strict = tr_get(v, "strict");
    char               path[TR_PATH_BYTES], at[TR_PATH_BYTES];
    struct slice       name;

    tr_path(path, "tools[%u]", i);
    if (v->type != JSON_OBJECT)
        return tr_bad_type(t, path, "an object", v);
    tr_path(at, "%s.type", path);
    if (type != NULL && !slice_is(type->text, "custom"))
        return api_err_400(t->e, "unsupported_parameter", at, "'%s' must be \"custom\": this "
                           "server has no tools of its own.", at);
    if (tr_need_str(t, v, path, "name", &name) != 0)
        return E_INVALID;
    tr_path(at, "%s.input_schema", path);
    if (schema == NULL)
        return tr_missing(t, at);
    if (schema->type != JSON_OBJECT)
        return tr_bad_type(t, at, "an object", schema);
    tr_path(at, "%s.strict", path);
    if (strict != NULL && strict->type != JSON_TRUE && strict->type != JSON_FALSE)
        return tr_bad_type(t, at, "true or false", strict);

    tr_known(t, v, "type name description input_schema strict cache_control");
    tr_function(t, name);
    if (text != NULL) {
        buf_str(t->out, ",\"description\":");
        json_write(text, t->out);
    }
    buf_str(t->out, ",\"parameters\":");
    json_write(schema, t->out);
    if (strict != NULL)
        buf_fmt(t->out, ",\"strict\":%s", strict->type == JSON_TRUE ? "true" : "false");
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
    static const struct { const char *type, *chat; } words[] = {
        { "auto", "\"auto\"" }, { "any", "\"required\"" }, { "none", "\"none\"" },
        { "tool", NULL },
    };
    const struct json *one = tr_get(v, "disable_parallel_tool_use");
    struct slice       type, name;
    size_t             i = 0;

    (void) f;
    if (v->type != JSON_OBJECT)
        return tr_bad_type(t, path, "an object", v);
    if (tr_need_str(t, v, path, "type", &type) != 0)
        return E_INVALID;
    tr_known(t, v, "type name disable_parallel_tool_use");
    while (i < 4 && !slice_is(type, words[i].type))
        i++;
    if (i == 4)
        return api_err_400(t->e, "invalid_value", "tool_choice.type", "'tool_choice.type' must be "
                           "auto, any, tool or none.");
    if (one != NULL && one->type != JSON_TRUE && one->type != JSON_FALSE)
        return tr_bad_type(t, "tool_choice.disable_parallel_tool_use", "true or false", one);

    if (words[i].chat == NULL && tr_need_str(t, v, path, "name", &name) != 0)
        return E_INVALID;
    tr_member(t, "tool_choice");
    if (words[i].chat != NULL) {
        buf_str(t->out, words[i].chat);
    } else {
        tr_function(t, name);
        buf_str(t->out, "}}");
    }
    if (one != NULL && one->type == JSON_TRUE) {
        tr_member(t, "parallel_tool_calls");
        buf_str(t->out, "false");
    }
    return 0;
}

/* The rest */

/* The row of messages writes it, at its place. */
static int with_messages(struct tr *t, const struct tr_field *f, const struct json *v,
                         const char *path)
{
    (void) t, (void) f, (void) v, (void) path;
    return 0;
}

static int put_thinking(struct tr *t, const struct tr_field *f, const struct json *v,
                        const char *path)
{
    const struct json *budget = tr_get(v, "budget_tokens"), *max = tr_get(t->root, "max_tokens");
    struct slice       type;
    int64_t            n, n_max;
    bool               enabled;

    (void) f;
    if (v->type != JSON_OBJECT)
        return tr_bad_type(t, path, "an object", v);
    if (tr_need_str(t, v, path, "type", &type) != 0)
        return E_INVALID;
    tr_known(t, v, "type budget_tokens");
    enabled = slice_is(type, "enabled");
    if (!enabled && !slice_is(type, "disabled") && !slice_is(type, "adaptive"))
        return api_err_400(t->e, "invalid_value", "thinking.type", "'thinking.type' must be "
                           "enabled, adaptive or disabled.");
    tr_member(t, "chat_template_kwargs");
    buf_fmt(t->out, "{\"enable_thinking\":%s}", slice_is(type, "disabled") ? "false" : "true");
    if (!enabled)
        return 0;

    if (budget == NULL)
        return tr_missing(t, "thinking.budget_tokens");
    if (budget->type != JSON_NUMBER)
        return tr_bad_type(t, "thinking.budget_tokens", "an integer", budget);
    if (json_int(budget, &n) != 0 || n < 1
        || (max != NULL && json_int(max, &n_max) == 0 && n >= n_max))
        return api_err_400(t->e, "invalid_value", "thinking.budget_tokens", "'thinking."
                           "budget_tokens' must be at least 1 and less than 'max_tokens'.");
    tr_member(t, "thinking_token_budget");
    buf_fmt(t->out, "%lld", (long long) n);
    return 0;
}

/* How long to think, where it thinks at all and no budget says so. */
static int put_effort(struct tr *t, const struct tr_field *f, const struct json *v,
                      const char *path)
{
    const struct json *thinking = tr_get(t->root, "thinking");
    const struct json *type = thinking != NULL ? tr_get(thinking, "type") : NULL;

    if (v->type != JSON_STRING)
        return tr_bad_type(t, path, "a string", v);
    if (!slice_is(v->text, "low") && !slice_is(v->text, "medium") && !slice_is(v->text, "high")
        && !slice_is(v->text, "xhigh") && !slice_is(v->text, "max"))
        return api_err_400(t->e, "invalid_value", path, "'%s' must be low, medium, high, xhigh or "
                           "max.", path);
    return type != NULL && slice_is(type->text, "adaptive") ? tr_copy(t, f, v, path) : 0;
}

/* The text of the answer; the older output_format had the same object in another place. */
static int put_format(struct tr *t, const struct tr_field *f, const struct json *v,
                      const char *path)
{
    const struct json *config = tr_get(t->root, "output_config");
    char               at[TR_PATH_BYTES];
    struct ask         unknown = { 0 };
    struct slice       type;

    (void) f;
    if (v->type != JSON_OBJECT)
        return tr_bad_type(t, path, "an object", v);
    if (tr_need_str(t, v, path, "type", &type) != 0)
        return E_INVALID;
    tr_path(at, "%s.type", path);
    if (!slice_is(type, "json_schema"))
        return api_err_400(t->e, "invalid_value", at, "'%s' must be json_schema.", at);
    if (tr_get(config, "format") != NULL && tr_get(t->root, "output_format") != NULL)
        return api_err_400(t->e, "invalid_value", "output_format", "'output_format' is the older "
                           "name of 'output_config.format': give one of them.");
    if (format_check_schema(v, path, false, &unknown, t->e) != 0)
        return E_INVALID;

    tr_member(t, "response_format");
    buf_str(t->out, "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"schema\":");
    json_write(tr_get(v, "schema"), t->out);
    buf_str(t->out, "}}");
    return 0;
}

static const struct tr_field output_fields[] = {
    { "effort", put_effort, "reasoning_effort", 0, 0, "string",
      "low to max; with adaptive thinking only" },
    { "format", put_format, NULL, 0, 0, "object",
      "{\"type\":\"json_schema\",\"schema\":..}: the answer is held to it" },
    { 0 }
};

static int put_output(struct tr *t, const struct tr_field *f, const struct json *v,
                      const char *path)
{
    (void) f;
    return v->type != JSON_OBJECT ? tr_bad_type(t, path, "an object", v)
                                  : tr_fields(t, output_fields, "output_config.", v);
}

/* The template leaves the thoughts of earlier turns out anyway; nothing else can be cleared. */
static int check_edits(struct tr *t, const struct tr_field *f, const struct json *v,
                       const char *path)
{
    static const char thoughts[] = "clear_thinking_";
    char              at[TR_PATH_BYTES];
    struct slice      type;
    uint32_t          i = 0;

    (void) f;
    if (v->type != JSON_ARRAY)
        return tr_bad_type(t, path, "an array", v);
    for (const struct json *edit = v->child; edit != NULL; edit = edit->next) {
        tr_path(at, "%s[%u]", path, i++);
        if (edit->type != JSON_OBJECT)
            return tr_bad_type(t, at, "an object", edit);
        if (tr_need_str(t, edit, at, "type", &type) != 0)
            return E_INVALID;
        if (type.n < sizeof(thoughts) - 1 || memcmp(type.p, thoughts, sizeof(thoughts) - 1) != 0)
            return api_err_400(t->e, "unsupported_parameter", at, "'%s': only edits of the type "
                               "clear_thinking_... are known to this server.", at);
    }
    return 0;
}

static const struct tr_field context_fields[] = {
    { "edits", check_edits, NULL, 0, 0, "array",
      "clear_thinking_...: thoughts of earlier turns are left out anyway" },
    { 0 }
};

static int check_context(struct tr *t, const struct tr_field *f, const struct json *v,
                         const char *path)
{
    (void) f;
    return v->type != JSON_OBJECT ? tr_bad_type(t, path, "an object", v)
                                  : tr_fields(t, context_fields, "context_management.", v);
}

static const struct tr_field metadata_fields[] = {
    { "user_id", tr_str, "user", 0, API_LABEL_BYTES_MAX, NULL, "" },
    { 0 }
};

static int check_metadata(struct tr *t, const struct tr_field *f, const struct json *v,
                          const char *path)
{
    (void) f;
    if (v->type != JSON_OBJECT)
        return tr_bad_type(t, path, "an object", v);
    return tr_fields(t, metadata_fields, "metadata.", v);
}

static int put_stop(struct tr *t, const struct tr_field *f, const struct json *v, const char *path)
{
    if (v->type != JSON_ARRAY)
        return tr_bad_type(t, path, "an array of strings", v);
    if (v->n > API_STOP_MAX)
        return api_err_400(t->e, "invalid_value", path, "'%s' may hold at most %d strings.", path,
                           API_STOP_MAX);
    for (const struct json *s = v->child; s != NULL; s = s->next) {
        if (s->type != JSON_STRING)
            return tr_bad_type(t, path, "an array of strings", s);
        if (s->text.n == 0 || s->text.n > API_STOP_BYTES_MAX)
            return api_err_400(t->e, "invalid_value", path, "Each string of '%s' must have 1 to %d "
                               "bytes.", path, API_STOP_BYTES_MAX);
    }
    return tr_copy(t, f, v, path);
}

static int put_tier(struct tr *t, const struct tr_field *f, const struct json *v, const char *path)
{
    (void) f;
    if (v->type != JSON_STRING)
        return tr_bad_type(t, path, "a string", v);
    if (!slice_is(v->text, "auto") && !slice_is(v->text, "standard_only"))
        return api_err_400(t->e, "invalid_value", path, "'%s' must be auto or standard_only.",
                           path);
    return 0;
}

static const struct tr_field fields[] = {
    { "model",          tr_str, "model", 1, 256, NULL, "a served name" },
    { "max_tokens",     tr_int, "max_tokens", 1, INT32_MAX, NULL,
      "required (not to count): of the answer, thoughts too" },
    { "messages",       put_messages, NULL, 1, API_MESSAGE_MAX, "array",
      "user and assistant; blocks text, thinking, tool_use, tool_result. An assistant's message at "
      "the end is continued" },
    { "system",         with_messages, NULL, 0, 0, "string or array", "a string, or text blocks" },
    { "tools",          put_tools, NULL, 0, API_TOOL_MAX, "array",
      "name, description, input_schema; strict: calls are held to it" },
    { "tool_choice",    put_choice, NULL, 0, 0, "object",
      "auto, any, tool with a name, none; disable_parallel_tool_use" },
    { "thinking",       put_thinking, NULL, 0, 0, "object",
      "enabled with budget_tokens, adaptive, disabled" },
    { "temperature",    tr_num, "temperature", 0, 1, NULL, "if absent, the model's" },
    { "top_p",          tr_num, "top_p", 0, 1, NULL, "likewise" },
    { "top_k",          tr_int, "top_k", 0, INT32_MAX, NULL, "likewise; 0: off" },
    { "stop_sequences", put_stop, "stop", 0, API_STOP_MAX, "array",
      "strings that end the answer" },
    { "stream",         tr_bool, "stream", 0, 0, NULL, "named events" },
    { "metadata",       check_metadata, NULL, 0, 0, "object", "user_id" },
    { "service_tier",   put_tier, NULL, 0, 0, "string", "auto, standard_only: there is one tier" },
    { "cache_control",  tr_object, NULL, 0, 0, NULL, "prompts are cached anyway" },
    { "output_config",  put_output, NULL, 0, 0, "object", "effort; format" },
    { "output_format",  put_format, NULL, 0, 0, "object",
      "the older name of output_config.format" },
    { "context_management", check_context, NULL, 0, 0, "object", "edits" },
    { "container",      tr_refuse, NULL, 0, 0, NULL, NULL },
    { "mcp_servers",    tr_refuse, NULL, 0, 0, "[]", NULL },
    { "inference_geo",  tr_refuse, NULL, 0, 0, NULL, NULL },
    { "speed",          tr_refuse, NULL, 0, 0, "\"standard\"", NULL },
    { 0 }
};

const struct tr_set messages_sets[] = {
    { "", fields }, { "metadata.", metadata_fields }, { "output_config.", output_fields },
    { "context_management.", context_fields }, { NULL, NULL },
};

int messages_in(struct tr *t, enum ask_kind kind)
{
    if (tr_get(t->root, "messages") == NULL)
        return tr_missing(t, "messages");
    if (kind == ASK_MESSAGES && tr_get(t->root, "max_tokens") == NULL)
        return tr_missing(t, "max_tokens");
    return tr_fields(t, fields, "", t->root);
}
