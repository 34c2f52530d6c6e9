/* schema_words.c - the keywords of one subschema, and the words of a refusal. */
#include "schema_priv.h"

#include <string.h>
#include <strings.h>

/* Together with what joins them, less than a struct err holds. */
#define PATH_BYTES_MAX 90
#define WHY_BYTES_MAX  140

/* What is not here only describes. */
enum { REFUSED = W_N, UNLESS_FALSE, UNLESS_TRUE };

static const struct known { const char *name; int word; } known[] = {   /* sorted */
    { "$dynamicRef", REFUSED }, { "$recursiveRef", REFUSED }, { "$ref", W_REF },
    { "additionalItems", W_ADDITIONAL_ITEMS }, { "additionalProperties", W_ADDITIONAL },
    { "allOf", W_ALL_OF }, { "anyOf", W_ANY_OF }, { "const", W_CONST }, { "contains", REFUSED },
    { "dependencies", REFUSED }, { "dependentRequired", REFUSED }, { "dependentSchemas", REFUSED },
    { "enum", W_ENUM }, { "exclusiveMaximum", W_EX_MAXIMUM }, { "exclusiveMinimum", W_EX_MINIMUM },
    { "format", W_FORMAT }, { "if", REFUSED }, { "items", W_ITEMS }, { "maxItems", W_MAX_ITEMS },
    { "maxLength", W_MAX_LENGTH }, { "maxProperties", W_MAX_PROPERTIES }, { "maximum", W_MAXIMUM },
    { "minItems", W_MIN_ITEMS }, { "minLength", W_MIN_LENGTH },
    { "minProperties", W_MIN_PROPERTIES }, { "minimum", W_MINIMUM },
    { "multipleOf", W_MULTIPLE_OF }, { "not", REFUSED }, { "nullable", W_NULLABLE },
    { "oneOf", W_ONE_OF }, { "pattern", W_PATTERN }, { "patternProperties", W_PATTERN_PROPERTIES },
    { "prefixItems", W_PREFIX_ITEMS }, { "properties", W_PROPERTIES },
    { "propertyNames", REFUSED }, { "required", W_REQUIRED }, { "type", W_TYPE },
    { "unevaluatedItems", UNLESS_TRUE }, { "unevaluatedProperties", UNLESS_TRUE },
    { "uniqueItems", UNLESS_FALSE },
};
#define N_KNOWN (sizeof(known) / sizeof(known[0]))

static const struct known *find(struct slice name)
{
    size_t low = 0, high = N_KNOWN;

    while (low < high) {
        size_t mid = (low + high) / 2, n = strlen(known[mid].name);
        int    cmp = memcmp(name.p, known[mid].name, name.n < n ? name.n : n);

        if (cmp == 0 && name.n == n)
            return &known[mid];
        if (cmp > 0 || (cmp == 0 && name.n > n))
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

int words_read(struct schema *s, const struct json *schema, struct words *w)
{
    *w = (struct words) { .schema = schema };
    if (schema->type != JSON_OBJECT)
        return schema_bad(s, schema, "a schema is an object or a boolean, not %s",
                          json_type_name(schema->type));
    for (const struct json *j = schema->child; j != NULL; j = j->next) {
        const struct known *k = find(j->key);

        /* Some clients write null for what they do not set. */
        if (k == NULL || (j->type == JSON_NULL && k->word != W_CONST))
            continue;
        if (k->word == REFUSED || (k->word == UNLESS_FALSE && j->type != JSON_FALSE)
            || (k->word == UNLESS_TRUE && j->type != JSON_TRUE))
            return schema_bad(s, schema, "'%s' cannot be enforced", k->name);
        if (k->word < W_N)
            w->word[k->word] = j;
    }
    return 0;
}

int words_count(struct schema *s, const struct words *w, enum word word, int64_t *v)
{
    const struct json *j = w->word[word];
    double             d;

    if (j == NULL)
        return 0;
    if (json_int(j, v) != 0 || *v < 0) {
        if (json_double(j, &d) != 0 || d < SCHEMA_COUNT_MAX)
            return schema_bad(s, w->schema, "'%.*s' must be a whole number that is not negative",
                              (int) j->key.n, j->key.p);
        *v = SCHEMA_COUNT_MAX;
    }
    if (*v > SCHEMA_COUNT_MAX)
        *v = SCHEMA_COUNT_MAX;
    return 0;
}

int schema_type(const struct json *name)
{
    static const struct { const char *name; int type; } types[] = {
        { "string", TYPE_STRING }, { "number", TYPE_NUMBER | TYPE_INTEGER },
        { "integer", TYPE_INTEGER }, { "boolean", TYPE_BOOLEAN }, { "null", TYPE_NULL },
        { "object", TYPE_OBJECT }, { "array", TYPE_ARRAY },
    };

    /* In any case, as in toolset.c. */
    for (size_t i = 0; name->type == JSON_STRING && i < sizeof(types) / sizeof(types[0]); i++)
        if (name->text.n == strlen(types[i].name)
            && strncasecmp(name->text.p, types[i].name, name->text.n) == 0)
            return types[i].type;
    return 0;
}

/* Refusals */

/* One step of a JSON pointer. */
static void put_step(const struct json *parent, const struct json *child, struct buf *out)
{
    uint32_t i = 0;

    buf_str(out, "/");
    if (parent->type == JSON_ARRAY) {
        for (const struct json *j = parent->child; j != child; j = j->next)
            i++;
        buf_fmt(out, "%u", i);
        return;
    }
    for (size_t k = 0; k < child->key.n; k++) {
        char c = child->key.p[k];

        if (c == '~' || c == '/')
            buf_str(out, c == '~' ? "~0" : "~1");
        else
            buf_put(out, &c, 1);
    }
}

/* Where at is in the schema: looked for only when something is refused. */
static void put_path(const struct json *root, const struct json *at, struct buf *out)
{
    const struct json *up[SCHEMA_DEPTH_MAX], *j = root;
    uint32_t           n = 0;

    buf_str(out, "#");
    while (j != at) {
        if (j->child != NULL && n < SCHEMA_DEPTH_MAX) {
            up[n++] = j;
            j = j->child;
            continue;
        }
        while (n > 0 && j->next == NULL)
            j = up[--n];
        if (n == 0)
            return;
        j = j->next;
    }
    for (uint32_t i = 0; i < n && !out->full; i++)
        put_step(up[i], i + 1 < n ? up[i + 1] : at, out);
}

/* As much of p as is whole characters. */
static int whole(const char *p, size_t n)
{
    while (n > 0 && !utf8_valid(p, n))
        n--;
    return (int) n;
}

gram schema_bad(struct schema *s, const struct json *at, const char *fmt, ...)
{
    struct buf path = { .max = PATH_BYTES_MAX };
    char       why[WHY_BYTES_MAX];
    va_list    ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    put_path(s->root, at, &path);
    grammar_fail(s->m, E_INVALID, "%.*s%s: %.*s", whole(path.p, path.n),
                 path.p != NULL ? path.p : "", path.full ? ".." : "", whole(why, strlen(why)), why);
    buf_free(&path);
    return -1;
}
