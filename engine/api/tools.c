#include "field.h"
#include "tools.h"

#include "openai_in.h"

#include <stdio.h>
#include <string.h>

#define PATH_BYTES 64

/* What tools and calls have in common: {"type":"function","function":{"name":..}}. */
struct entry {
    char               path[PATH_BYTES];        /* tools[3] */
    const struct json *fn, *name;
    uint32_t          *n_unknown;
    struct api_err    *e;
};

static const struct json *get(const struct json *o, const char *key)
{
    const struct json *j = json_get(o, key);

    return j == NULL || j->type == JSON_NULL ? NULL : j;
}

static int bad(struct entry *en, const char *code, const char *key, const char *words)
{
    char path[PATH_BYTES + 32];

    snprintf(path, sizeof(path), "%s%s", en->path, key);
    return api_err_400(en->e, code, path, "'%s' %s.", path, words);
}

static bool is_name(struct slice s, const char *more)
{
    if (s.n == 0 || s.n > API_TOOL_NAME_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
              || (c != '\0' && strchr(more, c) != NULL)))
            return false;
    }
    return true;
}

static void count_unknown(struct entry *en, const struct json *o, const char *known)
{
    for (const struct json *j = o->child; j != NULL; j = j->next)
        *en->n_unknown += !field_among(j->key, known);
}

static int entry_read(struct entry *en, const struct json *v, const char *more)
{
    const struct json *type = get(v, "type");

    en->fn = get(v, "function");
    en->name = get(en->fn, "name");
    if (v->type != JSON_OBJECT)
        return bad(en, "invalid_type", "", "must be an object");
    if (type != NULL && (type->type != JSON_STRING || !slice_is(type->text, "function")))
        return bad(en, "unsupported_parameter", ".type", "must be \"function\"");
    if (en->fn == NULL)
        return bad(en, "missing_required_parameter", ".function", "is required");
    if (en->fn->type != JSON_OBJECT)
        return bad(en, "invalid_type", ".function", "must be an object");
    if (en->name == NULL)
        return bad(en, "missing_required_parameter", ".function.name", "is required");
    if (en->name->type != JSON_STRING)
        return bad(en, "invalid_type", ".function.name", "must be a string");
    if (!is_name(en->name->text, more))
        return bad(en, "invalid_value", ".function.name", "must be 1 to 64 of the characters "
                   "a-z, A-Z, 0-9, _ and -");
    return 0;
}

/* Is this tree within the bounds of a schema? Walked without recursion. */
static bool fits(const struct json *root, uint32_t *n_node)
{
    const struct json *up[API_SCHEMA_DEPTH_MAX], *j = root;
    int                n = 0;

    for (;;) {
        if (++*n_node > API_SCHEMA_NODES_MAX)
            return false;
        if (j->child != NULL) {
            if (n == API_SCHEMA_DEPTH_MAX)
                return false;
            up[n++] = j;
            j = j->child;
            continue;
        }
        while (n > 0 && j->next == NULL)
            j = up[--n];
        if (n == 0)
            return true;
        j = j->next;
    }
}

static int function_read(struct entry *en, struct tool *tool, uint32_t *n_node)
{
    const struct json *text = get(en->fn, "description"), *schema = get(en->fn, "parameters");
    const struct json *strict = get(en->fn, "strict"), *response = get(en->fn, "response");

    if (text != NULL && text->type != JSON_STRING)
        return bad(en, "invalid_type", ".function.description", "must be a string");
    if (schema != NULL && schema->type != JSON_OBJECT)
        return bad(en, "invalid_type", ".function.parameters", "must be an object");
    if (strict != NULL && strict->type != JSON_TRUE && strict->type != JSON_FALSE)
        return bad(en, "invalid_type", ".function.strict", "must be true or false");
    if (response != NULL && response->type != JSON_OBJECT)
        return bad(en, "invalid_type", ".function.response", "must be an object");
    if (schema != NULL && !fits(schema, n_node))
        return api_err_400(en->e, "invalid_value", en->path, "'%s': the schemas of all tools may "
                           "have %d values, and be nested %d deep.", en->path,
                           API_SCHEMA_NODES_MAX, API_SCHEMA_DEPTH_MAX);

    *tool = (struct tool) {
        .name = en->name->text, .schema = schema,
        .strict = strict != NULL && strict->type == JSON_TRUE,
    };
    return 0;
}

int tools_read(struct tools *t, const struct json *v, const char *path, uint32_t *n_unknown,
               struct api_err *e)
{
    struct entry en = { .n_unknown = n_unknown, .e = e };
    uint32_t     n_node = 0;

    *t = (struct tools) { .list = v->n > 0 ? v : NULL };
    if (v->n > API_TOOL_MAX)
        return api_err_400(e, "invalid_value", path, "'%s' may hold at most %d tools.", path,
                           API_TOOL_MAX);

    for (const struct json *o = v->child; o != NULL; o = o->next, t->n++) {
        snprintf(en.path, sizeof(en.path), "%s[%u]", path, t->n);
        if (entry_read(&en, o, "_-") != 0)
            return E_INVALID;
        if (tools_find(t, en.name->text) != NULL)
            return bad(&en, "invalid_value", ".function.name", "is the name of another tool too");
        if (function_read(&en, &t->tool[t->n], &n_node) != 0)
            return E_INVALID;
        count_unknown(&en, o, "type function");
        count_unknown(&en, en.fn, "name description parameters strict response");
    }
    return 0;
}

const struct tool *tools_find(const struct tools *t, struct slice name)
{
    for (uint32_t i = 0; i < t->n; i++)
        if (t->tool[i].name.n == name.n && memcmp(t->tool[i].name.p, name.p, name.n) == 0)
            return &t->tool[i];
    return NULL;
}

int tools_check_calls(const struct json *v, const char *path, uint32_t *n_unknown,
                      struct api_err *e)
{
    struct entry en = { .n_unknown = n_unknown, .e = e };
    uint32_t     i = 0;

    if (v->n > API_TOOL_CALL_MAX)
        return api_err_400(e, "invalid_value", path, "'%s' may hold at most %d calls.", path,
                           API_TOOL_CALL_MAX);

    for (const struct json *o = v->child; o != NULL; o = o->next, i++) {
        const struct json *id = get(o, "id"), *args;

        /* A dot may be in the name of a call that the model made up. */
        snprintf(en.path, sizeof(en.path), "%s[%u]", path, i);
        if (entry_read(&en, o, "_-.") != 0)
            return E_INVALID;
        args = get(en.fn, "arguments");
        if (id == NULL)
            return bad(&en, "missing_required_parameter", ".id", "is required");
        if (id->type != JSON_STRING)
            return bad(&en, "invalid_type", ".id", "must be a string");
        if (id->text.n == 0 || id->text.n > API_LABEL_BYTES_MAX)
            return bad(&en, "invalid_value", ".id", "must have 1 to 512 bytes");
        if (args != NULL && args->type != JSON_STRING && args->type != JSON_OBJECT)
            return bad(&en, "invalid_type", ".function.arguments", "must be a string or an object");
        count_unknown(&en, o, "id type function index");
        count_unknown(&en, en.fn, "name arguments");
    }
    return 0;
}

int tools_read_choice(const struct json *v, const char *path, enum tool_choice *choice,
                      struct slice *name, struct api_err *e)
{
    static const char *const word[] = { "auto", "none", "required" };
    const struct json *fn = get(v, "function");
    struct entry       en = { .e = e };
    uint32_t           n_unknown = 0;

    if (v->type == JSON_STRING) {
        for (int i = 0; i < 3; i++) {
            if (slice_is(v->text, word[i])) {
                *choice = (enum tool_choice) i;
                return 0;
            }
        }
    } else if (v->type == JSON_OBJECT && fn != NULL) {
        snprintf(en.path, sizeof(en.path), "%s", path);
        en.n_unknown = &n_unknown;
        if (entry_read(&en, v, "_-") != 0)
            return E_INVALID;
        *choice = TOOL_CHOICE_NAMED;
        *name = en.name->text;
        return 0;
    }
    return api_err_400(e, v->type == JSON_STRING || v->type == JSON_OBJECT ? "invalid_value"
                       : "invalid_type", path, "'%s' must be \"none\", \"auto\", \"required\" or "
                       "{\"type\":\"function\",\"function\":{\"name\":..}}.", path);
}

int tools_check_choice(const struct tools *t, enum tool_choice choice, struct slice name,
                       struct api_err *e)
{
    if (choice < TOOL_CHOICE_REQUIRED)
        return 0;
    if (t->n == 0)
        return api_err_400(e, "invalid_value", "tool_choice", "'tool_choice' demands a call, but "
                           "there are no 'tools'.");
    if (choice == TOOL_CHOICE_NAMED && tools_find(t, name) == NULL)
        return api_err_400(e, "invalid_value", "tool_choice", "'tool_choice': \"%.*s\" is not "
                           "among the 'tools'.", (int) name.n, name.p);
    return 0;
}
