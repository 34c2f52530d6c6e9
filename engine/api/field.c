#include "field.h"

#include <stdlib.h>
#include <string.h>

int field_bad_type(const char *path, const char *want, const struct json *v, struct api_err *e)
{
    return api_err_400(e, "invalid_type", path, "'%s' must be %s, not %s.", path, want,
                       json_type_name(v->type));
}

int field_int(const struct field *f, const struct json *v, struct ask *a, const char *path,
              struct api_err *e)
{
    int64_t x;

    if (v->type != JSON_NUMBER)
        return field_bad_type(path, "an integer", v, e);
    if (json_int(v, &x) != 0 || (double) x < f->min || (double) x > f->max)
        return api_err_400(e, "invalid_value", path, "'%s' must be an integer from %.0f to %.0f.",
                           path, f->min, f->max);

    *(int64_t *) ((char *) a + f->off) = x;
    return 0;
}

int field_num(const struct field *f, const struct json *v, struct ask *a, const char *path,
              struct api_err *e)
{
    double x;

    if (v->type != JSON_NUMBER)
        return field_bad_type(path, "a number", v, e);
    if (json_double(v, &x) != 0 || !(x >= f->min && x <= f->max))
        return api_err_400(e, "invalid_value", path, "'%s' must be a number from %g to %g.",
                           path, f->min, f->max);

    *(double *) ((char *) a + f->off) = x;
    return 0;
}

static int get_bool(const struct json *v, bool *b, const char *path, struct api_err *e)
{
    if (v->type != JSON_TRUE && v->type != JSON_FALSE)
        return field_bad_type(path, "true or false", v, e);

    *b = v->type == JSON_TRUE;
    return 0;
}

int field_bool(const struct field *f, const struct json *v, struct ask *a, const char *path,
               struct api_err *e)
{
    bool unused;

    return get_bool(v, f->off != FIELD_NOWHERE ? (bool *) ((char *) a + f->off) : &unused, path, e);
}

int field_flag(const struct field *f, const struct json *v, struct ask *a, const char *path,
               struct api_err *e)
{
    bool b = false;

    if (get_bool(v, &b, path, e) != 0)
        return E_INVALID;

    *(enum ask_flag *) ((char *) a + f->off) = b ? ASK_YES : ASK_NO;
    return 0;
}

int field_str(const struct field *f, const struct json *v, struct ask *a, const char *path,
              struct api_err *e)
{
    if (v->type != JSON_STRING)
        return field_bad_type(path, "a string", v, e);
    if ((double) v->text.n < f->min || (double) v->text.n > f->max)
        return api_err_400(e, "invalid_value", path, "'%s' must have %.0f to %.0f bytes.", path,
                           f->min, f->max);

    if (f->off != FIELD_NOWHERE)
        *(struct slice *) ((char *) a + f->off) = v->text;
    return 0;
}

int field_array(const struct field *f, const struct json *v, struct ask *a, const char *path,
                struct api_err *e)
{
    if (v->type != JSON_ARRAY)
        return field_bad_type(path, "an array", v, e);
    if ((double) v->n < f->min || (double) v->n > f->max)
        return api_err_400(e, "invalid_value", path, "'%s' must have %.0f to %.0f elements.", path,
                           f->min, f->max);

    *(const struct json **) ((char *) a + f->off) = v;
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

int field_refuse(const struct field *f, const struct json *v, struct ask *a, const char *path,
                 struct api_err *e)
{
    const char *only = f->note;

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

int field_set_all(const struct field *table, uint32_t kind, const char *prefix,
                  const struct json *obj, struct ask *a, struct api_err *e)
{
    const struct field *f;
    char                path[64];

    for (const struct json *v = obj->child; v != NULL; v = v->next) {
        for (f = table; f->name != NULL; f++)
            if ((f->kinds & kind) != 0 && slice_is(v->key, f->name))
                break;

        if (f->name == NULL) {
            a->unknown = a->n_unknown++ == 0 ? v->key : a->unknown;
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

int field_leave(const struct field *f, const struct json *v, struct ask *a, const char *path,
                struct api_err *e)
{
    (void) f, (void) v, (void) a, (void) path, (void) e;
    return 0;
}

const char *field_type(const struct field *f)
{
    static const struct { field_fn *set; const char *type; } rows[] = {
        { field_int, "integer" }, { field_num, "number" }, { field_bool, "boolean" },
        { field_flag, "boolean" }, { field_str, "string" }, { field_array, "array" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].set == f->set)
            return rows[i].type;
    return f->set != field_refuse ? f->note : NULL;
}

bool field_among(struct slice key, const char *names)
{
    size_t n;

    for (; (n = strcspn(names, " ")) > 0; names += n + (names[n] == ' '))
        if (n == key.n && memcmp(names, key.p, n) == 0)
            return true;
    return false;
}
