#include "field.h"
#include "translate.h"

#include <stdarg.h>
#include <stdio.h>

void tr_path(char *path, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(path, TR_PATH_BYTES, fmt, ap);
    va_end(ap);
}

const struct json *tr_get(const struct json *obj, const char *key)
{
    const struct json *v = json_get(obj, key);

    return v == NULL || v->type == JSON_NULL ? NULL : v;
}

static void count_unknown(struct tr *t, const struct json *v)
{
    t->unknown = t->n_unknown++ == 0 ? v->key : t->unknown;
}

void tr_known(struct tr *t, const struct json *obj, const char *names)
{
    for (const struct json *v = obj->child; v != NULL; v = v->next)
        if (!field_among(v->key, names))
            count_unknown(t, v);
}

int tr_fields(struct tr *t, const struct tr_field *table, const char *prefix,
              const struct json *obj)
{
    char path[TR_PATH_BYTES];

    for (const struct json *v = obj->child; v != NULL; v = v->next) {
        const struct tr_field *f = table;

        while (f->name != NULL && !slice_is(v->key, f->name))
            f++;
        if (f->name == NULL) {
            count_unknown(t, v);
            continue;
        }
        if (v->type == JSON_NULL)
            continue;
        tr_path(path, "%s%s", prefix, f->name);
        if (f->put(t, f, v, path) != 0)
            return E_INVALID;
    }
    return 0;
}

void tr_member(struct tr *t, const char *name)
{
    buf_fmt(t->out, "%s\"%s\":", t->n_member++ > 0 ? "," : "", name);
}

void tr_message(struct tr *t, const char *role)
{
    buf_fmt(t->out, "%s{\"role\":\"%s\"", t->n_message++ > 0 ? "," : "", role);
}

void tr_text_part(struct tr *t, struct slice text)
{
    buf_str(t->out, "{\"type\":\"text\",\"text\":");
    buf_json_str(t->out, text.p, text.n);
    buf_str(t->out, "}");
}

void tr_function(struct tr *t, struct slice name)
{
    buf_str(t->out, "{\"type\":\"function\",\"function\":{\"name\":");
    buf_json_str(t->out, name.p, name.n);
}

int tr_tools(struct tr *t, const struct json *v, const char *path,
             int (*put)(struct tr *t, const struct json *tool, uint32_t i))
{
    uint32_t i = 0;

    if (v->type != JSON_ARRAY)
        return tr_bad_type(t, path, "an array", v);
    if (v->n == 0)
        return 0;
    tr_member(t, "tools");
    for (const struct json *tool = v->child; tool != NULL; tool = tool->next) {
        buf_str(t->out, i == 0 ? "[" : ",");
        if (put(t, tool, i++) != 0)
            return E_INVALID;
    }
    buf_str(t->out, "]");
    return 0;
}

void tr_said_call(struct tr_said *m, struct slice id, struct slice name, const struct json *args)
{
    buf_str(&m->calls, m->calls.n > 0 ? "," : "");
    buf_str(&m->calls, "{\"type\":\"function\",\"id\":");
    buf_json_str(&m->calls, id.p, id.n);
    buf_str(&m->calls, ",\"function\":{\"name\":");
    buf_json_str(&m->calls, name.p, name.n);
    buf_str(&m->calls, ",\"arguments\":");
    json_write(args, &m->calls);
    buf_str(&m->calls, "}}");
}

void tr_said_put(struct tr *t, struct tr_said *m)
{
    tr_message(t, "assistant");
    if (m->thoughts.n > 0) {
        buf_str(t->out, ",\"reasoning\":");
        buf_json_str(t->out, m->thoughts.p, m->thoughts.n);
    }
    buf_str(t->out, ",\"content\":");
    if (m->text.n > 0 || (m->thoughts.n == 0 && m->calls.n == 0))
        buf_json_str(t->out, m->text.n > 0 ? m->text.p : "", m->text.n);
    else
        buf_str(t->out, "null");
    if (m->calls.n > 0) {
        buf_str(t->out, ",\"tool_calls\":[");
        buf_put(t->out, m->calls.p, m->calls.n);
        buf_str(t->out, "]");
    }
    buf_str(t->out, "}");
    t->out->full = t->out->full || m->thoughts.full || m->text.full || m->calls.full;
    m->thoughts.n = m->text.n = m->calls.n = 0;
}

void tr_said_free(struct tr_said *m)
{
    buf_free(&m->thoughts);
    buf_free(&m->text);
    buf_free(&m->calls);
}

int tr_bad_type(struct tr *t, const char *path, const char *want, const struct json *v)
{
    return api_err_400(t->e, "invalid_type", path, "'%s' must be %s, not %s.", path, want,
                       json_type_name(v->type));
}

int tr_missing(struct tr *t, const char *path)
{
    return api_err_400(t->e, "missing_required_parameter", path, "'%s' is required.", path);
}

int tr_need_str(struct tr *t, const struct json *obj, const char *path, const char *key,
                struct slice *s)
{
    const struct json *v = tr_get(obj, key);
    char               full[TR_PATH_BYTES];

    tr_path(full, "%s.%s", path, key);
    if (v == NULL)
        return tr_missing(t, full);
    if (v->type != JSON_STRING)
        return tr_bad_type(t, full, "a string", v);
    *s = v->text;
    return 0;
}

/* Rows */

static void copy(struct tr *t, const struct tr_field *f, const struct json *v)
{
    if (f->to == NULL)
        return;
    tr_member(t, f->to);
    json_write(v, t->out);
}

int tr_int(struct tr *t, const struct tr_field *f, const struct json *v, const char *path)
{
    int64_t x;

    if (v->type != JSON_NUMBER)
        return tr_bad_type(t, path, "an integer", v);
    if (json_int(v, &x) != 0 || (double) x < f->min || (double) x > f->max)
        return api_err_400(t->e, "invalid_value", path, "'%s' must be an integer from %.0f to "
                           "%.0f.", path, f->min, f->max);
    copy(t, f, v);
    return 0;
}

int tr_num(struct tr *t, const struct tr_field *f, const struct json *v, const char *path)
{
    double x;

    if (v->type != JSON_NUMBER)
        return tr_bad_type(t, path, "a number", v);
    if (json_double(v, &x) != 0 || !(x >= f->min && x <= f->max))
        return api_err_400(t->e, "invalid_value", path, "'%s' must be a number from %g to %g.",
                           path, f->min, f->max);
    copy(t, f, v);
    return 0;
}

int tr_bool(struct tr *t, const struct tr_field *f, const struct json *v, const char *path)
{
    if (v->type != JSON_TRUE && v->type != JSON_FALSE)
        return tr_bad_type(t, path, "true or false", v);
    copy(t, f, v);
    return 0;
}

int tr_str(struct tr *t, const struct tr_field *f, const struct json *v, const char *path)
{
    if (v->type != JSON_STRING)
        return tr_bad_type(t, path, "a string", v);
    if ((double) v->text.n < f->min || (double) v->text.n > f->max)
        return api_err_400(t->e, "invalid_value", path, "'%s' must have %.0f to %.0f bytes.", path,
                           f->min, f->max);
    copy(t, f, v);
    return 0;
}

int tr_object(struct tr *t, const struct tr_field *f, const struct json *v, const char *path)
{
    if (v->type != JSON_OBJECT)
        return tr_bad_type(t, path, "an object", v);
    copy(t, f, v);
    return 0;
}

/* The chat's own check is as good, and names it alike. */
int tr_copy(struct tr *t, const struct tr_field *f, const struct json *v, const char *path)
{
    (void) path;
    copy(t, f, v);
    return 0;
}

int tr_refuse(struct tr *t, const struct tr_field *f, const struct json *v, const char *path)
{
    struct buf text = { .max = 64 };
    bool       pass;

    json_write(v, &text);
    pass = f->note != NULL && !text.full && slice_is((struct slice) { text.p, text.n }, f->note);
    buf_free(&text);
    if (pass)
        return 0;
    return api_err_400(t->e, "unsupported_parameter", path, "'%s' is not supported by this "
                       "server%s%s.", path, f->note != NULL ? ", except " : "",
                       f->note != NULL ? f->note : "");
}

const char *tr_type(const struct tr_field *f)
{
    return f->put == tr_refuse ? NULL : f->put == tr_int ? "integer" : f->put == tr_num ? "number"
           : f->put == tr_bool ? "boolean" : f->put == tr_str ? "string"
           : f->put == tr_object ? "object" : f->note != NULL ? f->note : "as in a chat";
}

int tr_body(struct tr *t, enum ask_kind kind)
{
    int rc;

    if (t->root->type != JSON_OBJECT)
        return api_err_400(t->e, "invalid_type", NULL, "The request body must be an object, not "
                           "%s.", json_type_name(t->root->type));
    buf_str(t->out, "{");
    rc = (kind & (ASK_RESPONSES | ASK_RESPONSES_COUNT)) != 0 ? responses_in(t)
                                                              : messages_in(t, kind);
    buf_str(t->out, "}");
    if (rc == 0 && (t->out->full || t->echo->full))
        rc = api_err_set(t->e, 500, "server_error", "internal_error", NULL, "Out of memory.");
    return rc;
}
