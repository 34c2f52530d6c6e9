#include "format_in.h"

#include <stddef.h>

#define GEN   (ASK_CHAT | ASK_TEXT)
#define AT(f) offsetof(struct ask, f)

/* The answer has this form, unless it has one already. */
static int claim(struct ask *a, enum format_kind kind, const char *path, struct api_err *e)
{
    struct format *f = &a->format;

    if (f->kind != FORMAT_FREE)
        return api_err_400(e, "invalid_value", path, "'%s' excludes '%s': an answer has one form.",
                           path, f->field);
    f->kind = kind;
    snprintf(f->field, sizeof(f->field), "%s", path);
    return 0;
}

int format_json(const struct field *f, const struct json *v, struct ask *a, const char *path,
                struct api_err *e)
{
    (void) f;
    if (v->type != JSON_OBJECT && v->type != JSON_STRING)
        return field_bad_type(path, "a JSON schema: an object, or its text", v, e);
    if (v->type == JSON_STRING && (v->text.n == 0 || v->text.n > API_SCHEMA_BYTES_MAX))
        return api_err_400(e, "invalid_value", path, "'%s' must have 1 to %u bytes.", path,
                           API_SCHEMA_BYTES_MAX);
    a->format.value = v;
    return claim(a, FORMAT_SCHEMA, path, e);
}

static int set_text(enum format_kind kind, size_t max, const struct json *v, struct ask *a,
                    const char *path, struct api_err *e)
{
    if (v->type != JSON_STRING)
        return field_bad_type(path, "a string", v, e);
    if (v->text.n == 0 || v->text.n > max)
        return api_err_400(e, "invalid_value", path, "'%s' must have 1 to %zu bytes.", path, max);
    a->format.value = v;
    return claim(a, kind, path, e);
}

int format_regex(const struct field *f, const struct json *v, struct ask *a, const char *path,
                 struct api_err *e)
{
    (void) f;
    return set_text(FORMAT_REGEX, REGEX_BYTES_MAX, v, a, path, e);
}

int format_ebnf(const struct field *f, const struct json *v, struct ask *a, const char *path,
                struct api_err *e)
{
    (void) f;
    return set_text(FORMAT_EBNF, EBNF_BYTES_MAX, v, a, path, e);
}

int format_choice(const struct field *f, const struct json *v, struct ask *a, const char *path,
                  struct api_err *e)
{
    (void) f;
    if (v->type != JSON_ARRAY)
        return field_bad_type(path, "an array of strings", v, e);
    if (v->n == 0 || v->n > API_FORMAT_CHOICE_MAX)
        return api_err_400(e, "invalid_value", path, "'%s' must have 1 to %d strings.", path,
                           API_FORMAT_CHOICE_MAX);
    for (const struct json *s = v->child; s != NULL; s = s->next) {
        if (s->type != JSON_STRING)
            return field_bad_type(path, "an array of strings", s, e);
        if (s->text.n == 0 || s->text.n > API_FORMAT_CHOICE_BYTES_MAX)
            return api_err_400(e, "invalid_value", path, "Each string of '%s' must have 1 to %d "
                               "bytes.", path, API_FORMAT_CHOICE_BYTES_MAX);
    }
    a->format.value = v;
    return claim(a, FORMAT_CHOICE, path, e);
}

/* OpenAI's */

static int set_name(const struct field *f, const struct json *v, struct ask *a, const char *path,
                    struct api_err *e)
{
    if (field_str(f, v, a, path, e) != 0)
        return E_INVALID;
    for (size_t i = 0; i < v->text.n; i++) {
        char c = v->text.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
              || c == '_' || c == '-'))
            return api_err_400(e, "invalid_value", path, "'%s' may hold a-z, A-Z, 0-9, _ and - "
                               "only.", path);
    }
    return 0;
}

static int check_object(const struct field *f, const struct json *v, struct ask *a,
                        const char *path, struct api_err *e)
{
    (void) f, (void) a;
    return v->type == JSON_OBJECT ? 0 : field_bad_type(path, "an object", v, e);
}

const struct field format_schema_fields[] = {
    { "name", GEN, set_name, FIELD_NOWHERE, 1, API_FORMAT_NAME_MAX, "string", NULL,
      "required: letters, digits, _ and -" },
    { "schema", GEN, check_object, FIELD_NOWHERE, 0, 0, "object", NULL,
      "required: the JSON schema of the answer" },
    { "strict", GEN, field_bool, FIELD_NOWHERE, 0, 0, NULL, "true",
      "an answer is held to its schema, whatever this says" },
    { "description", GEN, field_str, FIELD_NOWHERE, 0, API_TEXT_BYTES_MAX, NULL, NULL, "" },
    { 0 }
};

static bool is_given(const struct json *o, const char *key)
{
    const struct json *v = json_get(o, key);

    return v != NULL && v->type != JSON_NULL;
}

int format_check_schema(const struct json *o, const char *path, bool named, struct ask *a,
                        struct api_err *e)
{
    static const char *const required[] = { "schema", "name" };
    char                     prefix[64];

    snprintf(prefix, sizeof(prefix), "%s.", path);
    if (field_set_all(format_schema_fields, GEN, prefix, o, a, e) != 0)
        return E_INVALID;
    for (int i = 0; i < 1 + named; i++) {
        snprintf(prefix, sizeof(prefix), "%s.%s", path, required[i]);
        if (!is_given(o, required[i]))
            return api_err_400(e, "missing_required_parameter", prefix, "'%s' is required.",
                               prefix);
    }
    return 0;
}

static int set_schema(const struct field *f, const struct json *v, struct ask *a,
                      const char *path, struct api_err *e)
{
    (void) f;
    return v->type != JSON_OBJECT ? field_bad_type(path, "an object", v, e)
                                  : format_check_schema(v, path, true, a, e);
}

const struct field format_response_fields[] = {
    { "type", GEN, field_str, FIELD_NOWHERE, 0, API_LABEL_BYTES_MAX, "string", NULL,
      "text, json_object (any object) or json_schema" },
    { "json_schema", GEN, set_schema, FIELD_NOWHERE, 0, 0, "object", NULL, "of json_schema" },
    { "schema", GEN, field_refuse, 0, 0, 0, NULL, NULL, NULL },
    { 0 }
};

int format_response(const struct field *f, const struct json *v, struct ask *a, const char *path,
                    struct api_err *e)
{
    const struct json *type = json_get(v, "type"), *schema = json_get(v, "json_schema");

    (void) f;
    if (v->type != JSON_OBJECT)
        return field_bad_type(path, "an object", v, e);
    if (!is_given(v, "type"))
        return api_err_400(e, "missing_required_parameter", "response_format.type",
                           "'response_format.type' is required.");
    if (field_set_all(format_response_fields, GEN, "response_format.", v, a, e) != 0)
        return E_INVALID;

    if (slice_is(type->text, "text"))
        return 0;
    if (slice_is(type->text, "json_object"))
        return claim(a, FORMAT_OBJECT, path, e);
    if (!slice_is(type->text, "json_schema"))
        return api_err_400(e, "invalid_value", "response_format.type", "'response_format.type' "
                           "must be text, json_object or json_schema.");
    if (!is_given(v, "json_schema"))
        return api_err_400(e, "missing_required_parameter", "response_format.json_schema",
                           "'response_format.json_schema' is required.");
    a->format.value = json_get(schema, "schema");
    return claim(a, FORMAT_SCHEMA, "response_format.json_schema.schema", e);
}

/* vLLM's */

static int set_object(const struct field *f, const struct json *v, struct ask *a,
                      const char *path, struct api_err *e)
{
    bool on = v->type == JSON_TRUE;

    return field_bool(f, v, a, path, e) != 0 ? E_INVALID
           : on ? claim(a, FORMAT_OBJECT, path, e) : 0;
}

const struct field format_output_fields[] = {
    { "json", GEN, format_json, 0, 0, 0, "object or string", NULL, "a JSON schema, or its text" },
    { "json_object", GEN, set_object, FIELD_NOWHERE, 0, 0, "boolean", "false", "any object" },
    { "regex", GEN, format_regex, 0, 1, REGEX_BYTES_MAX, "string", NULL,
      "an expression that all of the answer matches" },
    { "choice", GEN, format_choice, 0, 1, API_FORMAT_CHOICE_MAX, "array", NULL,
      "the answer is one of these strings" },
    { "grammar", GEN, format_ebnf, 0, 1, EBNF_BYTES_MAX, "string", NULL,
      "EBNF as llama.cpp and xgrammar read it: root ::= .." },
    { "disable_any_whitespace", GEN, field_bool, AT(format.tight), 0, 0, NULL, "false",
      "no space behind ':' and ',' of JSON" },
    { "structural_tag", GEN, field_refuse, 0, 0, 0, NULL, NULL, NULL },
    { "whitespace_pattern", GEN, field_refuse, 0, 0, 0, NULL, NULL, NULL },
    { "disable_fallback", GEN, field_refuse, 0, 0, 0, "true false", NULL, NULL },
    { "disable_additional_properties", GEN, field_refuse, 0, 0, 0, "false", NULL, NULL },
    { 0 }
};

/* A member that is not known may be one more way to ask for a form: none goes by unseen. */
static int check_known(const struct json *o, const char *path, struct api_err *e)
{
    char name[64];

    for (const struct json *m = o->child; m != NULL; m = m->next) {
        const struct field *f = format_output_fields;

        while (f->name != NULL && !slice_is(m->key, f->name))
            f++;
        snprintf(name, sizeof(name), "%s.%.*s", path, (int) (m->key.n < 40 ? m->key.n : 40),
                 m->key.p);
        if (f->name == NULL)
            return api_err_400(e, "unsupported_parameter", name, "'%s' is not supported by this "
                               "server.", name);
    }
    return 0;
}

int format_outputs(const struct field *f, const struct json *v, struct ask *a, const char *path,
                   struct api_err *e)
{
    struct format before = a->format;

    (void) f;
    if (v->type != JSON_OBJECT)
        return field_bad_type(path, "an object", v, e);
    if (check_known(v, path, e) != 0
        || field_set_all(format_output_fields, GEN, "structured_outputs.", v, a, e) != 0)
        return E_INVALID;
    if (a->format.kind == before.kind)
        return api_err_400(e, "invalid_value", path, "'%s' must have one of json, json_object, "
                           "regex, choice and grammar.", path);
    return 0;
}
