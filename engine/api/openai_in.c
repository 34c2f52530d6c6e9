#include "openai_in.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define GEN   (ASK_CHAT | ASK_TEXT)
#define TOKS  (ASK_TOKENIZE | ASK_TEMPLATE)
#define ANY   (GEN | TOKS | ASK_DETOKENIZE)
#define AT(f) offsetof(struct ask, f)
#define NOWHERE SIZE_MAX             /* checked, not stored: it cannot change the answer */

struct field {
    const char *name;
    uint32_t    kinds;               /* enum ask_kind bits; elsewhere the field is unknown */
    int       (*set)(const struct field *f, const struct json *v, struct ask *a,
                     const char *path, struct api_err *e);
    size_t      off;                 /* AT(field of struct ask), or NOWHERE */
    double      min, max;
    const char *only;                /* refuse: the values without effect, space-separated */
};

/* Messages quote the client, and snprintf may have cut inside a character. */
static void keep_valid(char *s)
{
    size_t n = 0;
    int    k;

    while (s[n] != '\0' && (k = utf8_len(s + n, strlen(s + n))) > 0)
        n += (size_t) k;
    s[n] = '\0';
}

int api_err_set(struct api_err *e, int status, const char *type, const char *code,
                const char *param, const char *fmt, ...)
{
    va_list ap;

    *e = (struct api_err) { .status = status, .type = type, .code = code };

    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    if (param != NULL)
        snprintf(e->param, sizeof(e->param), "%s", param);

    keep_valid(e->msg);
    keep_valid(e->param);
    return E_INVALID;
}

bool api_request_id_ok(struct slice s)
{
    if (s.n == 0 || s.n > API_REQUEST_ID_MAX)
        return false;

    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
              || c == '.' || c == '_' || c == ':' || c == '-'))
            return false;
    }

    return true;
}

static int bad_type(const char *path, const char *want, const struct json *v, struct api_err *e)
{
    return api_err_400(e, "invalid_type", path, "'%s' must be %s, not %s.", path, want,
                       json_type_name(v->type));
}

/* Setters: the type and the bounds of one field, in words. */

static int set_int(const struct field *f, const struct json *v, struct ask *a,
                   const char *path, struct api_err *e)
{
    int64_t x;

    if (v->type != JSON_NUMBER)
        return bad_type(path, "an integer", v, e);
    if (json_int(v, &x) != 0 || (double) x < f->min || (double) x > f->max)
        return api_err_400(e, "invalid_value", path, "'%s' must be an integer from %.0f to %.0f.",
                           path, f->min, f->max);

    *(int64_t *) ((char *) a + f->off) = x;
    return 0;
}

static int set_seed(const struct field *f, const struct json *v, struct ask *a,
                    const char *path, struct api_err *e)
{
    if (v->type != JSON_NUMBER)
        return bad_type(path, "an integer", v, e);
    if (json_int(v, (int64_t *) ((char *) a + f->off)) != 0)
        return api_err_400(e, "invalid_value", path, "'%s' must be a 64-bit integer.", path);

    a->has_seed = a->seed != -1;         /* -1 means "none" to vLLM's clients */
    return 0;
}

static int set_num(const struct field *f, const struct json *v, struct ask *a,
                   const char *path, struct api_err *e)
{
    double x;

    if (v->type != JSON_NUMBER)
        return bad_type(path, "a number", v, e);
    if (json_double(v, &x) != 0 || !(x >= f->min && x <= f->max))
        return api_err_400(e, "invalid_value", path, "'%s' must be a number from %g to %g.",
                           path, f->min, f->max);

    *(double *) ((char *) a + f->off) = x;
    return 0;
}

static int get_bool(const struct json *v, bool *b, const char *path, struct api_err *e)
{
    if (v->type != JSON_TRUE && v->type != JSON_FALSE)
        return bad_type(path, "true or false", v, e);

    *b = v->type == JSON_TRUE;
    return 0;
}

static int set_bool(const struct field *f, const struct json *v, struct ask *a,
                    const char *path, struct api_err *e)
{
    bool unused;

    return get_bool(v, f->off != NOWHERE ? (bool *) ((char *) a + f->off) : &unused, path, e);
}

static int set_flag(const struct field *f, const struct json *v, struct ask *a,
                    const char *path, struct api_err *e)
{
    bool b = false;

    if (get_bool(v, &b, path, e) != 0)
        return E_INVALID;

    *(enum ask_flag *) ((char *) a + f->off) = b ? ASK_YES : ASK_NO;
    return 0;
}

static int set_str(const struct field *f, const struct json *v, struct ask *a,
                   const char *path, struct api_err *e)
{
    if (v->type != JSON_STRING)
        return bad_type(path, "a string", v, e);
    if ((double) v->text.n < f->min || (double) v->text.n > f->max)
        return api_err_400(e, "invalid_value", path, "'%s' must have %.0f to %.0f bytes.", path,
                           f->min, f->max);

    if (f->off != NOWHERE)
        *(struct slice *) ((char *) a + f->off) = v->text;
    return 0;
}

static int set_request_id(const struct field *f, const struct json *v, struct ask *a,
                          const char *path, struct api_err *e)
{
    if (set_str(f, v, a, path, e) != 0)
        return E_INVALID;
    if (!api_request_id_ok(v->text))
        return api_err_400(e, "invalid_value", path,
                           "'%s' may hold letters, digits and \"._:-\" only.", path);
    return 0;
}

static int set_array(const struct field *f, const struct json *v, struct ask *a,
                     const char *path, struct api_err *e)
{
    if (v->type != JSON_ARRAY)
        return bad_type(path, "an array", v, e);
    if ((double) v->n < f->min || (double) v->n > f->max)
        return api_err_400(e, "invalid_value", path, "'%s' must have %.0f to %.0f elements.", path,
                           f->min, f->max);

    *(const struct json **) ((char *) a + f->off) = v;
    return 0;
}

static int set_prompt(const struct field *f, const struct json *v, struct ask *a,
                      const char *path, struct api_err *e)
{
    if (v->type != JSON_STRING && v->type != JSON_ARRAY)
        return bad_type(path, "a string or an array", v, e);

    *(const struct json **) ((char *) a + f->off) = v;
    return 0;
}

static int set_stop(const struct field *f, const struct json *v, struct ask *a,
                    const char *path, struct api_err *e)
{
    const struct json *s = v->type == JSON_ARRAY ? v->child : v;

    (void) f;
    if (v->type != JSON_ARRAY && v->type != JSON_STRING)
        return bad_type(path, "a string or an array of strings", v, e);
    if (v->type == JSON_ARRAY && v->n > API_STOP_MAX)
        return api_err_400(e, "invalid_value", path, "'%s' may hold at most %d strings.", path,
                           API_STOP_MAX);

    for (; s != NULL; s = v->type == JSON_ARRAY ? s->next : NULL) {
        if (s->type != JSON_STRING)
            return bad_type(path, "a string or an array of strings", s, e);
        if (s->text.n == 0 || s->text.n > API_STOP_BYTES_MAX)
            return api_err_400(e, "invalid_value", path,
                               "Each string of '%s' must have 1 to %d bytes.", path,
                               API_STOP_BYTES_MAX);
        a->stop[a->n_stop++] = s->text;
    }

    return 0;
}

static int set_stop_ids(const struct field *f, const struct json *v, struct ask *a,
                        const char *path, struct api_err *e)
{
    int64_t id;

    (void) f;
    if (v->type != JSON_ARRAY)
        return bad_type(path, "an array of token ids", v, e);
    if (v->n > API_STOP_ID_MAX)
        return api_err_400(e, "invalid_value", path, "'%s' may hold at most %d ids.", path,
                           API_STOP_ID_MAX);

    for (const struct json *s = v->child; s != NULL; s = s->next) {
        if (json_int(s, &id) != 0 || id < 0 || id > INT32_MAX)
            return api_err_400(e, "invalid_value", path, "'%s' must hold token ids only.", path);
        a->stop_id[a->n_stop_id++] = (int32_t) id;
    }

    return 0;
}

static int set_effort(const struct field *f, const struct json *v, struct ask *a,
                      const char *path, struct api_err *e)
{
    static const char *const name[] = {
        "none", "minimal", "low", "medium", "high", "xhigh", "max",
    };

    (void) f;
    if (v->type != JSON_STRING)
        return bad_type(path, "a string", v, e);

    for (size_t i = 0; i < sizeof(name) / sizeof(name[0]); i++) {
        if (slice_is(v->text, name[i])) {
            a->effort = i > 0 ? ASK_YES : ASK_NO;
            return 0;
        }
    }

    return api_err_400(e, "invalid_value", path, "'%s' must be one of none, minimal, low, medium, "
                       "high, xhigh, max.", path);
}

/* Checked in full, and without effect: nothing of it is stored. */
static int accept_metadata(const struct field *f, const struct json *v, struct ask *a,
                           const char *path, struct api_err *e)
{
    (void) f, (void) a;
    if (v->type != JSON_OBJECT)
        return bad_type(path, "an object", v, e);

    for (const struct json *m = v->child; m != NULL; m = m->next)
        if (v->n > API_METADATA_MAX || m->type != JSON_STRING || m->key.n > API_METADATA_KEY_MAX
            || m->text.n > API_METADATA_VALUE_MAX)
            return api_err_400(e, "invalid_value", path, "'%s' may hold at most %d pairs of a key "
                               "of %d bytes and a string of %d bytes.", path, API_METADATA_MAX,
                               API_METADATA_KEY_MAX, API_METADATA_VALUE_MAX);
    return 0;
}

static int accept_format(const struct field *f, const struct json *v, struct ask *a,
                         const char *path, struct api_err *e)
{
    const struct json *t = json_get(v, "type");

    (void) f, (void) a;
    if (v->type != JSON_OBJECT || t == NULL || t->type != JSON_STRING)
        return api_err_400(e, "invalid_type", path, "'%s' must be an object with a 'type'.", path);
    if (!slice_is(t->text, "text"))
        return api_err_400(e, "unsupported_parameter", path,
                           "'%s': only {\"type\":\"text\"} is supported.", path);
    return 0;
}

static int accept_modalities(const struct field *f, const struct json *v, struct ask *a,
                             const char *path, struct api_err *e)
{
    (void) f, (void) a;
    if (v->type != JSON_ARRAY)
        return bad_type(path, "an array", v, e);
    if (v->n != 1 || v->child->type != JSON_STRING || !slice_is(v->child->text, "text"))
        return api_err_400(e, "unsupported_parameter", path, "'%s': only [\"text\"] is supported.",
                           path);
    return 0;
}

static bool is_neutral(const char *only, size_t n, const struct json *v)
{
    char   text[32];
    double x;

    snprintf(text, sizeof(text), "%.*s", (int) n, only);

    switch (v->type) {
    case JSON_FALSE:   return strcmp(text, "false") == 0;
    case JSON_TRUE:    return strcmp(text, "true") == 0;
    case JSON_ARRAY:   return strcmp(text, "[]") == 0 && v->n == 0;
    case JSON_OBJECT:  return strcmp(text, "{}") == 0 && v->n == 0;
    case JSON_STRING:  return slice_is(v->text, text);
    case JSON_NUMBER:
        return ((text[0] >= '0' && text[0] <= '9') || text[0] == '-')
               && json_double(v, &x) == 0 && x == strtod(text, NULL);
    case JSON_NULL:    return true;
    }
    return false;
}

/* Known, not built: only what would have no effect anyway passes. */
static int refuse(const struct field *f, const struct json *v, struct ask *a,
                  const char *path, struct api_err *e)
{
    const char *only = f->only;

    (void) a;
    if (only == NULL)
        return api_err_400(e, "unsupported_parameter", path,
                           "'%s' is not supported by this server.", path);

    for (const char *s = only; *s != '\0';) {
        size_t n = strcspn(s, " ");

        if (is_neutral(s, n, v))
            return 0;
        s += n + (s[n] == ' ');
    }

    return api_err_400(e, "unsupported_parameter", path,
                       "'%s' is not supported by this server, except the value without effect: %s.",
                       path, only);
}

/* Two classes are all there is: the answer says which one it was. */
static int set_tier(const struct field *f, const struct json *v, struct ask *a,
                    const char *path, struct api_err *e)
{
    static const char *const name[] = { "auto", "default", "flex", "scale", "priority" };

    (void) f;
    if (v->type != JSON_STRING)
        return bad_type(path, "a string", v, e);
    for (size_t i = 0; i < sizeof(name) / sizeof(name[0]); i++) {
        if (slice_is(v->text, name[i])) {
            a->service_tier = v->text;
            return 0;
        }
    }

    return api_err_400(e, "invalid_value", path, "'%s' must be one of auto, default, flex, scale, "
                       "priority.", path);
}

static int set_fields(const struct field *table, uint32_t kind, const char *prefix,
                      const struct json *obj, struct ask *a, struct api_err *e);

static const struct field stream_fields[] = {
    { "include_usage",          GEN, set_bool, AT(include_usage),    0, 0, NULL },
    { "continuous_usage_stats", GEN, set_bool, AT(continuous_usage), 0, 0, NULL },
    { "include_obfuscation",    GEN, refuse,   0, 0, 0, "false" },
    { 0 }
};

static const struct field template_fields[] = {
    { "enable_thinking",   ANY, set_flag, AT(thinking),          0, 0, NULL },
    { "preserve_thinking", ANY, set_bool, AT(preserve_thinking), 0, 0, NULL },
    { 0 }
};

static int set_stream_options(const struct field *f, const struct json *v, struct ask *a,
                              const char *path, struct api_err *e)
{
    (void) f;
    if (v->type != JSON_OBJECT)
        return bad_type(path, "an object", v, e);
    return set_fields(stream_fields, GEN, "stream_options.", v, a, e);
}

/* A template variable that the template does not know must not vanish in silence. */
static int set_template_kwargs(const struct field *f, const struct json *v, struct ask *a,
                               const char *path, struct api_err *e)
{
    char name[64];

    (void) f;
    if (v->type != JSON_OBJECT)
        return bad_type(path, "an object", v, e);

    for (const struct json *m = v->child; m != NULL; m = m->next) {
        if (slice_is(m->key, "enable_thinking") || slice_is(m->key, "preserve_thinking"))
            continue;
        snprintf(name, sizeof(name), "%s.%.*s", path, (int) (m->key.n < 40 ? m->key.n : 40),
                 m->key.p);
        return api_err_400(e, "unsupported_parameter", name, "'%s': this model's template knows "
                           "enable_thinking and preserve_thinking only.", name);
    }

    return set_fields(template_fields, ANY, "chat_template_kwargs.", v, a, e);
}

/* The template would print any role as it is, control tokens too. */
static int check_role(const struct field *f, const struct json *v, struct ask *a,
                      const char *path, struct api_err *e)
{
    static const char *const roles[] = { "system", "developer", "user", "assistant", "tool" };

    (void) f, (void) a;
    if (v->type != JSON_STRING)
        return bad_type(path, "a string", v, e);
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (slice_is(v->text, roles[i]))
            return 0;
    if (slice_is(v->text, "function"))
        return api_err_400(e, "unsupported_parameter", path, "'%s': the old function calls are not "
                           "supported by this server: use tool_calls and the role tool.", path);
    return api_err_400(e, "invalid_value", path, "'%s' must be system, developer, user, assistant "
                       "or tool.", path);
}

/* Known: the template reads it, and chat_render checks it. */
static int leave(const struct field *f, const struct json *v, struct ask *a, const char *path,
                 struct api_err *e)
{
    (void) f, (void) v, (void) a, (void) path, (void) e;
    return 0;
}

/* The template has a placeholder for images and sounds, but nobody reads them yet. */
static int check_part_type(const struct field *f, const struct json *v, struct ask *a,
                           const char *path, struct api_err *e)
{
    (void) f, (void) a;
    if (v->type != JSON_STRING)
        return bad_type(path, "a string", v, e);
    if (!slice_is(v->text, "text"))
        return api_err_400(e, "unsupported_parameter", path, "'%s': parts of type \"%.*s\" are not "
                           "supported by this server, only \"text\".", path,
                           (int) (v->text.n < 40 ? v->text.n : 40), v->text.p);
    return 0;
}

static const struct field part_fields[] = {
    { "type", ANY, check_part_type, NOWHERE, 0, 0, NULL },
    { "text", ANY, leave, NOWHERE, 0, 0, NULL },
    { 0 }
};

static int check_parts(const struct field *f, const struct json *v, struct ask *a,
                       const char *path, struct api_err *e)
{
    char     prefix[64];
    uint32_t k = 0;

    (void) f;
    for (const struct json *p = v->type == JSON_ARRAY ? v->child : NULL; p != NULL; p = p->next) {
        snprintf(prefix, sizeof(prefix), "%s[%u].", path, k++);
        if (p->type == JSON_OBJECT && set_fields(part_fields, ANY, prefix, p, a, e) != 0)
            return E_INVALID;
    }
    return 0;
}

static int check_calls(const struct field *f, const struct json *v, struct ask *a,
                       const char *path, struct api_err *e)
{
    (void) f;
    if (v->type != JSON_ARRAY)
        return bad_type(path, "an array", v, e);
    return tools_check_calls(v, path, &a->n_unknown, e);
}

/* Gemma's own form of results, in the message of the calls; chat_render checks what it holds. */
static int check_responses(const struct field *f, const struct json *v, struct ask *a,
                           const char *path, struct api_err *e)
{
    (void) f, (void) a;
    if (v->type != JSON_ARRAY)
        return bad_type(path, "an array", v, e);
    if (v->n > API_TOOL_CALL_MAX)
        return api_err_400(e, "invalid_value", path, "'%s' may hold at most %d results.", path,
                           API_TOOL_CALL_MAX);
    return 0;
}

static const struct field message_fields[] = {
    { "role",              ANY, check_role,  NOWHERE, 0, 0, NULL },
    { "content",           ANY, check_parts, NOWHERE, 0, 0, NULL },
    { "reasoning",         ANY, leave,       NOWHERE, 0, 0, NULL },
    { "reasoning_content", ANY, leave,       NOWHERE, 0, 0, NULL },
    { "name",              ANY, set_str,     NOWHERE, 0, API_LABEL_BYTES_MAX, NULL },
    { "refusal",           ANY, refuse,      NOWHERE, 0, 0, NULL },
    { "annotations",       ANY, refuse,      NOWHERE, 0, 0, "[]" },
    { "audio",             ANY, refuse,      NOWHERE, 0, 0, NULL },
    { "tool_calls",        ANY, check_calls, NOWHERE, 0, 0, NULL },
    { "tool_call_id",      ANY, set_str,     NOWHERE, 1, API_LABEL_BYTES_MAX, NULL },
    { "tool_responses",    ANY, check_responses, NOWHERE, 0, 0, NULL },
    { "function_call",     ANY, refuse,      NOWHERE, 0, 0, NULL },
    { 0 }
};

static bool is_empty(const struct json *v)
{
    return v == NULL || v->type == JSON_NULL || (v->type == JSON_ARRAY && v->n == 0);
}

static bool is_from(const struct json *m, const char *role)
{
    return slice_is(json_get(m, "role")->text, role);
}

/* Our own answers may be thoughts or calls alone, with "content": null, and come back as history.
 * A tool may have nothing to say. */
static bool may_be_silent(const struct json *m)
{
    const struct json *a = json_get(m, "reasoning"), *b = json_get(m, "reasoning_content");

    if (!is_from(m, "assistant"))
        return is_from(m, "tool");
    return !is_empty(json_get(m, "tool_calls")) || (a != NULL && a->text.n > 0)
           || (b != NULL && b->text.n > 0);
}

/* Which of the fields a role may and must have. */
static int check_role_fields(const struct json *m, uint32_t i, struct api_err *e)
{
    static const char *const own[][2] = {
        { "tool_calls", "assistant" }, { "tool_responses", "assistant" },
        { "tool_call_id", "tool" },
    };
    char path[64];

    for (size_t k = 0; k < sizeof(own) / sizeof(own[0]); k++) {
        snprintf(path, sizeof(path), "messages[%u].%s", i, own[k][0]);
        if (!is_empty(json_get(m, own[k][0])) && !is_from(m, own[k][1]))
            return api_err_400(e, "invalid_value", path, "'%s' belongs to messages of the role "
                               "\"%s\".", path, own[k][1]);
    }
    snprintf(path, sizeof(path), "messages[%u].tool_call_id", i);
    if (is_from(m, "tool") && is_empty(json_get(m, "tool_call_id")))
        return api_err_400(e, "missing_required_parameter", path, "'%s' is required.", path);

    snprintf(path, sizeof(path), "messages[%u].content", i);
    if (is_empty(json_get(m, "content")) && !may_be_silent(m))
        return api_err_400(e, "missing_required_parameter", path, "'%s' is required: a string, or "
                           "an array of parts that is not empty.", path);
    return 0;
}

static int check_message(const struct json *m, uint32_t i, struct ask *a, struct api_err *e)
{
    char path[64];

    snprintf(path, sizeof(path), "messages[%u]", i);
    if (m->type != JSON_OBJECT)
        return bad_type(path, "an object", m, e);

    snprintf(path, sizeof(path), "messages[%u].", i);
    if (set_fields(message_fields, ANY, path, m, a, e) != 0)
        return E_INVALID;

    snprintf(path, sizeof(path), "messages[%u].role", i);
    if (is_empty(json_get(m, "role")))
        return api_err_400(e, "missing_required_parameter", path, "'%s' is required.", path);
    return check_role_fields(m, i, e);
}

static int set_messages(const struct field *f, const struct json *v, struct ask *a,
                        const char *path, struct api_err *e)
{
    uint32_t i = 0;

    if (set_array(f, v, a, path, e) != 0)
        return E_INVALID;
    for (const struct json *m = v->child; m != NULL; m = m->next)
        if (check_message(m, i++, a, e) != 0)
            return E_INVALID;
    return 0;
}

static int set_tools(const struct field *f, const struct json *v, struct ask *a,
                     const char *path, struct api_err *e)
{
    (void) f;
    if (v->type != JSON_ARRAY)
        return bad_type(path, "an array", v, e);
    return tools_read(&a->tools, v, path, &a->n_unknown, e);
}

static int set_tool_choice(const struct field *f, const struct json *v, struct ask *a,
                           const char *path, struct api_err *e)
{
    (void) f;
    return tools_read_choice(v, path, &a->tool_choice, &a->tool_name, e);
}

static const struct field fields[] = {
    /* implemented */
    { "model",                 ANY,       set_str,     AT(model),    1, 256, NULL },
    { "messages",              ASK_CHAT | TOKS, set_messages, AT(messages), 1, API_MESSAGE_MAX,
      NULL },
    { "tools",                 ASK_CHAT | TOKS, set_tools, 0,        0, 0, NULL },
    { "tool_choice",           ASK_CHAT | TOKS, set_tool_choice, 0,  0, 0, NULL },
    { "parallel_tool_calls",   ASK_CHAT,  set_bool,    AT(parallel_calls), 0, 0, NULL },
    { "prompt",                ASK_TEXT | ASK_TOKENIZE, set_prompt, AT(prompt), 0, 0, NULL },
    { "content",               ASK_TOKENIZE, set_prompt, AT(prompt), 0, 0, NULL },
    { "tokens",                ASK_DETOKENIZE, set_array, AT(tokens), 0, 1 << 22, NULL },
    { "max_tokens",            ASK_CHAT,  set_int,     AT(max_tok),  1, INT32_MAX, NULL },
    { "max_tokens",            ASK_TEXT,  set_int,     AT(max_tok),  0, INT32_MAX, NULL },
    { "max_completion_tokens", GEN,       set_int,     AT(max_completion_tok), 1, INT32_MAX, NULL },
    { "temperature",           GEN,       set_num,     AT(temperature), 0, 2, NULL },
    { "top_p",                 GEN,       set_num,     AT(top_p),    0, 1, NULL },
    { "top_k",                 GEN,       set_int,     AT(top_k),   -1, INT32_MAX, NULL },
    { "min_p",                 GEN,       set_num,     AT(min_p),    0, 1, NULL },
    { "seed",                  GEN,       set_seed,    AT(seed),     0, 0, NULL },
    { "n",                     GEN,       set_int,     AT(n),        1, API_N_MAX, NULL },
    { "best_of",               ASK_TEXT,  set_int,     AT(best_of),  1, API_N_MAX, NULL },
    { "stop",                  GEN,       set_stop,    0,            0, 0, NULL },
    { "stop_token_ids",        GEN,       set_stop_ids, 0,           0, 0, NULL },
    { "include_stop_str_in_output", GEN,  set_bool,    AT(include_stop), 0, 0, NULL },
    { "ignore_eos",            GEN,       set_bool,    AT(ignore_eos), 0, 0, NULL },
    { "min_tokens",            GEN,       set_int,     AT(min_tok),  0, INT32_MAX, NULL },
    { "stream",                GEN,       set_bool,    AT(stream),   0, 0, NULL },
    { "stream_options",        GEN,       set_stream_options, 0,     0, 0, NULL },
    { "chat_template_kwargs",  ASK_CHAT | TOKS, set_template_kwargs, 0, 0, 0, NULL },
    { "reasoning_effort",      ASK_CHAT | TOKS, set_effort, 0,       0, 0, NULL },
    { "include_reasoning",     ASK_CHAT,  set_bool,    AT(include_reasoning), 0, 0, NULL },
    { "continue_final_message", ASK_CHAT | TOKS, set_bool, AT(continue_final), 0, 0, NULL },
    { "add_generation_prompt", ASK_CHAT | TOKS, set_flag, AT(add_generation), 0, 0, NULL },
    { "add_special_tokens",    GEN | TOKS, set_flag,   AT(add_special), 0, 0, NULL },
    { "echo",                  ASK_TEXT,  set_bool,    AT(echo),     0, 0, NULL },
    { "return_token_ids",      GEN,       set_bool,    AT(return_token_ids), 0, 0, NULL },
    { "return_token_strs",     ASK_TOKENIZE, set_bool, AT(return_token_strs), 0, 0, NULL },
    { "skip_special_tokens",   ASK_TEXT,  set_bool,    AT(skip_special), 0, 0, NULL },
    { "priority",              GEN,       set_int,     AT(priority), INT32_MIN, INT32_MAX, NULL },
    { "service_tier",          GEN,       set_tier,    0,            0, 0, NULL },
    { "cache_salt",            GEN,       set_str,     AT(cache_salt), 1, API_CACHE_SALT_MAX,
      NULL },
    { "request_id",            GEN,       set_request_id, AT(request_id), 1, API_REQUEST_ID_MAX,
      NULL },

    /* accepted: they cannot change the answer of this server */
    { "user",                  GEN,       set_str, NOWHERE, 0, API_LABEL_BYTES_MAX, NULL },
    { "safety_identifier",     GEN,       set_str, NOWHERE, 0, API_LABEL_BYTES_MAX, NULL },
    { "prompt_cache_key",      GEN,       set_str, NOWHERE, 0, API_LABEL_BYTES_MAX, NULL },
    { "metadata",              GEN,       accept_metadata, 0, 0, 0, NULL },
    { "response_format",       GEN,       accept_format, 0, 0, 0, NULL },
    { "modalities",            ASK_CHAT,  accept_modalities, 0, 0, 0, NULL },

    /* not built: the neutral value passes, anything else is refused by name */
    { "store",                 GEN,       refuse, 0, 0, 0, "false" },
    { "presence_penalty",      GEN,       refuse, 0, 0, 0, "0" },
    { "frequency_penalty",     GEN,       refuse, 0, 0, 0, "0" },
    { "repetition_penalty",    GEN,       refuse, 0, 0, 0, "1" },
    { "length_penalty",        GEN,       refuse, 0, 0, 0, "1" },
    { "use_beam_search",       GEN,       refuse, 0, 0, 0, "false" },
    { "logit_bias",            GEN,       refuse, 0, 0, 0, "{}" },
    { "logprobs",              ASK_CHAT,  refuse, 0, 0, 0, "false" },
    { "logprobs",              ASK_TEXT,  refuse, 0, 0, 0, NULL },
    { "top_logprobs",          GEN,       refuse, 0, 0, 0, "0" },
    { "prompt_logprobs",       GEN,       refuse, 0, 0, 0, NULL },
    { "logprob_token_ids",     GEN,       refuse, 0, 0, 0, "[]" },
    { "functions",             ASK_CHAT,  refuse, 0, 0, 0, "[]" },
    { "function_call",         ASK_CHAT,  refuse, 0, 0, 0, "none auto" },
    { "structured_outputs",    GEN,       refuse, 0, 0, 0, NULL },
    { "guided_json",           GEN,       refuse, 0, 0, 0, NULL },
    { "guided_regex",          GEN,       refuse, 0, 0, 0, NULL },
    { "guided_choice",         GEN,       refuse, 0, 0, 0, NULL },
    { "guided_grammar",        GEN,       refuse, 0, 0, 0, NULL },
    { "json_schema",           GEN,       refuse, 0, 0, 0, NULL },
    { "grammar",               GEN,       refuse, 0, 0, 0, NULL },
    { "regex",                 GEN,       refuse, 0, 0, 0, NULL },
    { "ebnf",                  GEN,       refuse, 0, 0, 0, NULL },
    { "bad_words",             GEN,       refuse, 0, 0, 0, "[]" },
    { "allowed_token_ids",     GEN,       refuse, 0, 0, 0, NULL },
    { "echo",                  ASK_CHAT,  refuse, 0, 0, 0, "false" },
    { "skip_special_tokens",   ASK_CHAT,  refuse, 0, 0, 0, "true" },
    { "spaces_between_special_tokens", GEN, refuse, 0, 0, 0, "true" },
    { "separate_reasoning",    ASK_CHAT,  refuse, 0, 0, 0, "true" },
    { "stream_reasoning",      ASK_CHAT,  refuse, 0, 0, 0, "true" },
    { "thinking_token_budget", GEN,       refuse, 0, 0, 0, "-1" },
    { "reasoning_budget",      GEN,       refuse, 0, 0, 0, "-1" },
    { "stream_interval",       GEN,       refuse, 0, 0, 0, "1" },
    { "verbosity",             ASK_CHAT,  refuse, 0, 0, 0, "medium" },
    { "prediction",            ASK_CHAT,  refuse, 0, 0, 0, NULL },
    { "audio",                 ASK_CHAT,  refuse, 0, 0, 0, NULL },
    { "web_search_options",    ASK_CHAT,  refuse, 0, 0, 0, NULL },
    { "suffix",                ASK_TEXT,  refuse, 0, 0, 0, NULL },
    { "truncate_prompt_tokens", GEN,      refuse, 0, 0, 0, NULL },
    { "truncation_side",       GEN,       refuse, 0, 0, 0, NULL },
    { "return_tokens_as_token_ids", GEN,  refuse, 0, 0, 0, "false" },
    { "return_prompt_text",    GEN,       refuse, 0, 0, 0, "false" },
    { "return_progress",       GEN,       refuse, 0, 0, 0, "false" },
    { "timings_per_token",     GEN,       refuse, 0, 0, 0, "false" },
    { "repetition_detection",  GEN,       refuse, 0, 0, 0, NULL },
    { "chat_template",         ASK_CHAT | TOKS, refuse, 0, 0, 0, NULL },
    { "documents",             ASK_CHAT | TOKS, refuse, 0, 0, 0, "[]" },
    { "mm_processor_kwargs",   GEN | TOKS, refuse, 0, 0, 0, NULL },
    { "media_io_kwargs",       GEN | TOKS, refuse, 0, 0, 0, NULL },
    { "kv_transfer_params",    GEN,       refuse, 0, 0, 0, NULL },
    { "vllm_xargs",            GEN,       refuse, 0, 0, 0, NULL },
    { "custom_logit_processor", GEN,      refuse, 0, 0, 0, NULL },
    { "mirostat",              GEN,       refuse, 0, 0, 0, "0" },
    { "typical_p",             GEN,       refuse, 0, 0, 0, "1" },
    { "top_n_sigma",           GEN,       refuse, 0, 0, 0, "-1" },
    { "dynatemp_range",        GEN,       refuse, 0, 0, 0, "0" },
    { "dry_multiplier",        GEN,       refuse, 0, 0, 0, "0" },
    { "xtc_probability",       GEN,       refuse, 0, 0, 0, "0" },
    { "id_slot",               GEN,       refuse, 0, 0, 0, "-1" },
    { 0 }
};

static int set_fields(const struct field *table, uint32_t kind, const char *prefix,
                      const struct json *obj, struct ask *a, struct api_err *e)
{
    const struct field *f;
    char                path[64];

    for (const struct json *v = obj->child; v != NULL; v = v->next) {
        for (f = table; f->name != NULL; f++)
            if ((f->kinds & kind) != 0 && slice_is(v->key, f->name))
                break;

        if (f->name == NULL) {
            a->n_unknown++;
            continue;
        }
        if (v->type == JSON_NULL)
            continue;

        snprintf(path, sizeof(path), "%s%s", prefix, f->name);
        if (f->set(f, v, a, path, e) != 0)
            return E_INVALID;
    }

    return 0;
}

/* What no single field can say. */
static int check_together(struct ask *a, enum ask_kind kind, struct api_err *e)
{
    if (kind == ASK_CHAT && a->messages == NULL)
        return api_err_400(e, "missing_required_parameter", "messages", "'messages' is required.");
    if (kind == ASK_TEXT && a->prompt == NULL)
        return api_err_400(e, "missing_required_parameter", "prompt", "'prompt' is required.");
    if (kind == ASK_TEMPLATE && a->messages == NULL)
        return api_err_400(e, "missing_required_parameter", "messages", "'messages' is required.");
    if (kind == ASK_DETOKENIZE && a->tokens == NULL)
        return api_err_400(e, "missing_required_parameter", "tokens", "'tokens' is required.");
    if (kind == ASK_TOKENIZE && (a->messages == NULL) == (a->prompt == NULL))
        return api_err_400(e, "missing_required_parameter", "prompt",
                           "Give 'prompt' or 'messages', one of them.");
    if ((a->include_usage || a->continuous_usage) && !a->stream)
        return api_err_400(e, "invalid_value", "stream_options",
                           "'stream_options' is allowed only with 'stream': true.");
    if (a->best_of >= 0 && a->best_of != a->n)
        return api_err_400(e, "unsupported_parameter", "best_of",
                           "'best_of' is supported only where it equals 'n'.");
    if (a->continue_final && a->add_generation == ASK_YES)
        return api_err_400(e, "invalid_value", "continue_final_message",
                           "'continue_final_message' excludes 'add_generation_prompt': true.");
    return tools_check_choice(&a->tools, a->tool_choice, a->tool_name, e);
}

const struct json *ask_tools(const struct ask *a)
{
    return a->tool_choice == TOOL_CHOICE_NONE ? NULL : a->tools.list;
}

int ask_read(struct ask *a, enum ask_kind kind, const struct json *doc, struct api_err *e)
{
    *a = (struct ask) {
        .max_tok = -1, .max_completion_tok = -1, .n = 1, .best_of = -1, .top_k = -2,
        .temperature = -1, .top_p = -1, .min_p = -1,
        .thinking = ASK_UNSET, .effort = ASK_UNSET, .add_generation = ASK_UNSET,
        .add_special = ASK_UNSET, .include_reasoning = true, .skip_special = true,
        .parallel_calls = true,
    };

    if (doc->type != JSON_OBJECT)
        return api_err_400(e, "invalid_type", NULL, "The request body must be an object, not %s.",
                           json_type_name(doc->type));
    if (set_fields(fields, kind, "", doc, a, e) != 0)
        return E_INVALID;
    return check_together(a, kind, e);
}
