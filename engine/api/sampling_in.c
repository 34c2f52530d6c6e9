#include "sampling_in.h"

int sampling_seed(const struct field *f, const struct json *v, struct ask *a, const char *path,
                  struct api_err *e)
{
    if (v->type != JSON_NUMBER)
        return field_bad_type(path, "an integer", v, e);
    if (json_int(v, (int64_t *) ((char *) a + f->off)) != 0)
        return api_err_400(e, "invalid_value", path, "'%s' must be a 64-bit integer.", path);

    a->has_seed = a->seed != -1;         /* -1 means "none" to vLLM's clients */
    return 0;
}

int sampling_stop(const struct field *f, const struct json *v, struct ask *a, const char *path,
                  struct api_err *e)
{
    const struct json *s = v->type == JSON_ARRAY ? v->child : v;

    (void) f;
    if (v->type != JSON_ARRAY && v->type != JSON_STRING)
        return field_bad_type(path, "a string or an array of strings", v, e);
    if (v->type == JSON_ARRAY && v->n > API_STOP_MAX)
        return api_err_400(e, "invalid_value", path, "'%s' may hold at most %d strings.", path,
                           API_STOP_MAX);

    for (; s != NULL; s = v->type == JSON_ARRAY ? s->next : NULL) {
        if (s->type != JSON_STRING)
            return field_bad_type(path, "a string or an array of strings", s, e);
        if (s->text.n == 0 || s->text.n > API_STOP_BYTES_MAX)
            return api_err_400(e, "invalid_value", path,
                               "Each string of '%s' must have 1 to %d bytes.", path,
                               API_STOP_BYTES_MAX);
        a->stop[a->n_stop++] = s->text;
    }

    return 0;
}

int sampling_stop_ids(const struct field *f, const struct json *v, struct ask *a, const char *path,
                      struct api_err *e)
{
    int64_t id;

    (void) f;
    if (v->type != JSON_ARRAY)
        return field_bad_type(path, "an array of token ids", v, e);
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

int64_t sampling_bias_id(struct slice key)
{
    int64_t id = 0;

    if (key.n == 0 || key.n > 9 || (key.n > 1 && key.p[0] == '0'))
        return -1;
    for (size_t i = 0; i < key.n; i++) {
        if (key.p[i] < '0' || key.p[i] > '9')
            return -1;
        id = id * 10 + (key.p[i] - '0');
    }
    return id;
}

int sampling_bias(const struct field *f, const struct json *v, struct ask *a, const char *path,
                  struct api_err *e)
{
    double x;

    (void) f;
    if (v->type != JSON_OBJECT)
        return field_bad_type(path, "an object of token ids and numbers", v, e);
    if (v->n > API_BIAS_MAX)
        return api_err_400(e, "invalid_value", path, "'%s' may hold at most %d ids.", path,
                           API_BIAS_MAX);

    for (const struct json *m = v->child; m != NULL; m = m->next) {
        if (sampling_bias_id(m->key) < 0)
            return api_err_400(e, "invalid_value", path, "The keys of '%s' must be token ids in "
                               "decimal digits.", path);
        if (json_double(m, &x) != 0 || !(x >= -API_BIAS_VALUE_MAX && x <= API_BIAS_VALUE_MAX))
            return api_err_400(e, "invalid_value", path, "The values of '%s' must be numbers from "
                               "-%d to %d.", path, API_BIAS_VALUE_MAX, API_BIAS_VALUE_MAX);
    }

    a->logit_bias = v;
    return 0;
}

int sampling_ids(const struct field *f, const struct json *v, struct ask *a, const char *path,
                 struct api_err *e)
{
    int64_t id;

    if (field_array(f, v, a, path, e) != 0)
        return E_INVALID;
    for (const struct json *m = v->child; m != NULL; m = m->next)
        if (json_int(m, &id) != 0 || id < 0 || id > INT32_MAX)
            return api_err_400(e, "invalid_value", path, "'%s' must hold token ids only.", path);
    return 0;
}

int sampling_words(const struct field *f, const struct json *v, struct ask *a, const char *path,
                   struct api_err *e)
{
    if (field_array(f, v, a, path, e) != 0)
        return E_INVALID;
    for (const struct json *m = v->child; m != NULL; m = m->next) {
        if (m->type != JSON_STRING)
            return field_bad_type(path, "an array of strings", m, e);
        if (m->text.n == 0 || m->text.n > API_BAD_WORD_BYTES_MAX)
            return api_err_400(e, "invalid_value", path, "Each string of '%s' must have 1 to %d "
                               "bytes.", path, API_BAD_WORD_BYTES_MAX);
    }
    return 0;
}

#define AT(f) offsetof(struct ask, f)
#define GEN   (ASK_CHAT | ASK_TEXT)

const struct field sampling_repetition_fields[] = {
    { "max_pattern_size", GEN, field_int, AT(repeat_max), 0, API_REPEAT_MAX, NULL, "0",
      "tokens of the longest pattern; 0: off" },
    { "min_pattern_size", GEN, field_int, AT(repeat_min), 0, API_REPEAT_MAX, NULL, "1",
      "tokens of the shortest" },
    { "min_count", GEN, field_int, AT(repeat_count), 0, API_REPEAT_MAX, NULL, NULL,
      "so often in a row ends the answer; at least 2" },
    { 0 }
};

int sampling_repetition(const struct field *f, const struct json *v, struct ask *a,
                        const char *path, struct api_err *e)
{
    char prefix[64];

    (void) f;
    if (v->type != JSON_OBJECT)
        return field_bad_type(path, "an object", v, e);
    snprintf(prefix, sizeof(prefix), "%s.", path);
    if (field_set_all(sampling_repetition_fields, GEN, prefix, v, a, e) != 0)
        return E_INVALID;
    if (a->repeat_max > 0 && (a->repeat_count < 2 || a->repeat_min > a->repeat_max))
        return api_err_400(e, "invalid_value", path, "'%s' needs 'min_count' of 2 or more and "
                           "'min_pattern_size' up to 'max_pattern_size'.", path);
    return 0;
}
