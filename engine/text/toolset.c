#include "toolset.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct toolset {
    struct json_doc *doc;               /* a copy of the declarations */
    int32_t          n;
    struct tool { struct slice name; const struct json *schema; } tool[];
};

static const struct json *object(const struct json *j)
{
    return j != NULL && j->type == JSON_OBJECT ? j : NULL;
}

/* A document of its own, so that it outlives the request's body. */
static int copy_tree(const struct json *j, struct json_doc **doc, const struct json **root,
                     struct err *e)
{
    const struct json_limits lim = { SIZE_MAX, UINT32_MAX, UINT32_MAX };
    struct buf               text = { 0 };
    int                      rc;

    json_write(j, &text);
    rc = text.full ? err_set(e, E_FULL, "tools: out of memory")
                   : json_parse(doc, root, text.p, text.n, &lim, e);
    buf_free(&text);
    return rc;
}

int toolset_open(struct toolset **out, const struct json *tools, struct err *e)
{
    struct toolset    *t = calloc(1, sizeof(*t) + tools->n * sizeof(t->tool[0]));
    const struct json *root = NULL, *j;

    *out = NULL;
    if (t == NULL)
        return err_set(e, E_FULL, "tools: out of memory");
    if (copy_tree(tools, &t->doc, &root, e) != 0) {
        free(t);
        return E_FULL;
    }

    for (j = root->child; j != NULL; j = j->next) {
        const struct json *f = json_get(j, "function");

        t->tool[t->n++] = (struct tool) {
            .name = json_get(f, "name")->text, .schema = object(json_get(f, "parameters")),
        };
    }
    *out = t;
    return 0;
}

void toolset_close(struct toolset *t)
{
    if (t == NULL)
        return;
    json_free(t->doc);
    free(t);
}

bool toolset_begins(const struct toolset *t, struct slice start)
{
    for (int32_t i = 0; i < t->n; i++)
        if (start.n <= t->tool[i].name.n && memcmp(start.p, t->tool[i].name.p, start.n) == 0)
            return true;
    return false;
}

int32_t toolset_find(const struct toolset *t, struct slice name)
{
    for (int32_t i = 0; i < t->n; i++)
        if (name.n == t->tool[i].name.n && memcmp(name.p, t->tool[i].name.p, name.n) == 0)
            return i;
    return -1;
}

/* One more subschema of a place, unless it is there: a $ref may lead back. */
static void add(struct schema_place *at, const struct json *schema, bool *full)
{
    if (object(schema) == NULL)
        return;
    for (int32_t i = 0; i < at->n; i++)
        if (at->alt[i] == schema)
            return;
    if (at->n == SCHEMA_ALT_MAX)
        *full = true;
    else
        at->alt[at->n++] = schema;
}

/* The next character of a URI's fragment, where %XX stands for one. */
static char unescape(const char **p, const char *end)
{
    int c = (unsigned char) *(*p)++;

    if (c == '%' && end - *p >= 2 && isxdigit((unsigned char) (*p)[0])
        && isxdigit((unsigned char) (*p)[1])) {
        char hex[3] = { (*p)[0], (*p)[1], 0 };

        c = (int) strtol(hex, NULL, 16);
        *p += 2;
    }
    return (char) c;
}

/* step, where ~0 and ~1 stand for ~ and /, is this key. */
static bool is_key(struct slice step, struct slice key)
{
    const char *p = step.p, *end = p + step.n;
    size_t      n = 0;

    while (p < end && n < key.n) {
        char        c = unescape(&p, end);
        const char *q = p;
        char        more = c == '~' && p < end ? unescape(&q, end) : 0;

        if (more == '0' || more == '1') {
            c = more == '0' ? '~' : '/';
            p = q;
        }
        if (c != key.p[n++])
            return false;
    }
    return p == end && n == key.n;
}

/* One step of a JSON pointer: a key, or the number of an element. */
static const struct json *step_into(const struct json *parent, struct slice step)
{
    const struct json *j = parent->child;
    uint32_t           n = 0;

    if (parent->type == JSON_OBJECT) {
        while (j != NULL && !is_key(step, j->key))
            j = j->next;
        return j;
    }
    if (parent->type != JSON_ARRAY || step.n == 0 || step.n > 9
        || (step.n > 1 && step.p[0] == '0'))
        return NULL;
    for (size_t i = 0; i < step.n; i++) {
        if (step.p[i] < '0' || step.p[i] > '9')
            return NULL;
        n = n * 10 + (uint32_t) (step.p[i] - '0');
    }
    while (j != NULL && n-- > 0)
        j = j->next;
    return j;
}

const struct json *schema_follow(const struct json *root, struct slice ref)
{
    const char *p = ref.p, *end = ref.p + ref.n;

    if (ref.n == 0 || *p++ != '#')
        return NULL;
    while (root != NULL && p < end) {
        const char *slash = memchr(p + 1, '/', (size_t) (end - p - 1));
        const char *next = slash != NULL ? slash : end;

        if (*p != '/')
            return NULL;
        root = step_into(root, (struct slice) { p + 1, (size_t) (next - p - 1) });
        p = next;
    }
    return root;
}

/* alt is also the list of what is still to be looked into. */
static void expand(struct schema_place *at, bool full)
{
    static const char *const of[] = { "anyOf", "oneOf", "allOf" };

    for (int32_t i = 0; i < at->n && !full; i++) {
        const struct json *schema = at->alt[i], *ref = json_get(schema, "$ref");

        if (ref != NULL && ref->type == JSON_STRING)
            add(at, schema_follow(at->root, ref->text), &full);
        for (size_t k = 0; k < sizeof(of) / sizeof(of[0]); k++) {
            const struct json *list = json_get(schema, of[k]);

            if (list == NULL || list->type != JSON_ARRAY)
                continue;
            for (const struct json *j = list->child; j != NULL && !full; j = j->next)
                add(at, j, &full);
        }
    }
    if (full)
        at->n = 0;
}

void schema_root(const struct toolset *t, int32_t i, struct schema_place *at)
{
    bool full = false;

    *at = (struct schema_place) { .root = i >= 0 ? t->tool[i].schema : NULL };
    add(at, at->root, &full);
    expand(at, full);
}

void schema_key(const struct schema_place *at, struct slice key, struct schema_place *to)
{
    struct schema_place found = { .root = at->root };
    bool                full = false;

    for (int32_t i = 0; i < at->n; i++) {
        const struct json *list = object(json_get(at->alt[i], "properties"));
        const struct json *p = list != NULL ? list->child : NULL;

        while (p != NULL && (p->key.n != key.n || memcmp(p->key.p, key.p, key.n) != 0))
            p = p->next;
        add(&found, p != NULL ? p : json_get(at->alt[i], "additionalProperties"), &full);
    }
    expand(&found, full);
    *to = found;
}

void schema_element(const struct schema_place *at, struct schema_place *to)
{
    static const char *const of[] = { "items", "prefixItems" };
    struct schema_place found = { .root = at->root };
    bool                full = false;

    for (int32_t i = 0; i < at->n; i++) {
        for (size_t k = 0; k < sizeof(of) / sizeof(of[0]); k++) {
            const struct json *items = json_get(at->alt[i], of[k]);

            if (items == NULL)
                continue;
            add(&found, items, &full);
            for (items = items->type == JSON_ARRAY ? items->child : NULL; items != NULL && !full;
                 items = items->next)
                add(&found, items, &full);
        }
    }
    expand(&found, full);
    *to = found;
}

/* Names in any case: Google's own clients write "STRING". */
static uint32_t named(const struct json *name)
{
    static const char *const names[] = {
        "string", "number", "integer", "boolean", "null", "object", "array",
    };

    for (size_t i = 0; name->type == JSON_STRING && i < sizeof(names) / sizeof(names[0]); i++)
        if (name->text.n == strlen(names[i])
            && strncasecmp(name->text.p, names[i], name->text.n) == 0)
            return 1u << i;
    return 0;
}

static uint32_t type_of(const struct json *value)
{
    switch (value->type) {
    case JSON_NULL:   return TYPE_NULL;
    case JSON_FALSE:
    case JSON_TRUE:   return TYPE_BOOLEAN;
    case JSON_NUMBER: return value->is_int ? TYPE_INTEGER : TYPE_NUMBER;
    case JSON_STRING: return TYPE_STRING;
    case JSON_ARRAY:  return TYPE_ARRAY;
    case JSON_OBJECT: return TYPE_OBJECT;
    }
    return 0;
}

static uint32_t types_of(const struct json *schema)
{
    const struct json *type = json_get(schema, "type"), *list = json_get(schema, "enum");
    const struct json *one = json_get(schema, "const"), *nullable = json_get(schema, "nullable");
    uint32_t           types = 0;

    if (type != NULL && type->type == JSON_ARRAY)
        for (const struct json *j = type->child; j != NULL; j = j->next)
            types |= named(j);
    else if (type != NULL)
        types = named(type);
    if (types == 0 && list != NULL && list->type == JSON_ARRAY)
        for (const struct json *j = list->child; j != NULL; j = j->next)
            types |= type_of(j);
    if (types == 0 && one != NULL)
        types = type_of(one);
    if (types != 0 && nullable != NULL && nullable->type == JSON_TRUE)
        types |= TYPE_NULL;
    return types;
}

uint32_t schema_types(const struct schema_place *at)
{
    uint32_t types = 0;

    for (int32_t i = 0; i < at->n; i++)
        types |= types_of(at->alt[i]);
    return types;
}
