/* chat_decl.c - tool declarations: a JSON schema in the template's words, its oddities included.
 *
 * A schema is walked with frames instead of recursion. PROPS is a map of properties, ITEMS the
 * schema of an array's elements; both come sorted. What stands behind a frame in its parent is
 * printed when the frame is closed. */
#include "chat_priv.h"

#include "toolset.h"

#include <stdlib.h>
#include <string.h>

struct frame {
    enum { PROPS, ITEMS } kind;
    bool     schema;                /* PROPS: the node is a schema, its own keywords are skipped */
    bool     any;                   /* something stands before: a comma comes first */
    uint32_t i, n;                  /* children done, of n */
    size_t   base;                  /* the children, in r->kids */
    const struct json *of;          /* the schema that is open */
    const struct json *tail;        /* PROPS: the property whose end is still to be printed */
};

struct decl {
    struct render *r;
    uint32_t       i;               /* tools[i] */
    const struct json *root;        /* its parameters, for $ref */
    size_t         begin;           /* where the declarations begin in the prompt */
    int            n;
    struct frame   frame[CHAT_DEPTH_MAX];
};

/* Printed once for all fields of a tool: schemas nest, and their paths would be long. */
#define AT(d) chat_at((d)->r, "tools[%u].function", (d)->i)

/* Python's idea of it. */
static bool truthy(const struct json *j)
{
    if (j == NULL)
        return false;
    switch (j->type) {
    case JSON_NULL:
    case JSON_FALSE:  return false;
    case JSON_TRUE:   return true;
    case JSON_NUMBER: return strtod(j->text.p, NULL) != 0;
    case JSON_STRING: return j->text.n > 0;
    case JSON_ARRAY:
    case JSON_OBJECT: return j->n > 0;
    }
    return false;
}

static void put_str(struct decl *d, struct slice s)
{
    buf_str(d->r->out, Q);
    chat_put(d->r, s);
    buf_str(d->r->out, Q);
}

/* name:Q..Q of a text, if it is there. */
static int put_description(struct decl *d, const struct json *text)
{
    buf_str(d->r->out, "description:");
    if (text->type != JSON_STRING)
        return chat_bad(d->r, AT(d), ": a description must be a string, not %s",
                        json_type_name(text->type));
    put_str(d, text->text);
    return 0;
}

/* The name of a type is ASCII without quotes, so its upper case and its repr are clear. */
static int put_upper(struct decl *d, const struct json *type)
{
    static const char *const other[] = {
        [JSON_NULL] = "NONE", [JSON_FALSE] = "FALSE", [JSON_TRUE] = "TRUE",
    };
    struct slice s = type->text;

    if (type->type <= JSON_TRUE) {
        buf_str(d->r->out, other[type->type]);
        return 0;
    }
    if (type->type != JSON_STRING)
        return chat_bad(d->r, AT(d), ": a type must be a string or an array of strings, not %s",
                        json_type_name(type->type));
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (c < ' ' || c > '~' || c == '\'' || c == '\\')
            return chat_bad(d->r, AT(d), ": the name of a type must be printable ASCII "
                            "without quotes");
        if (c >= 'a' && c <= 'z')
            c -= 'a' - 'A';
        chat_put(d->r, (struct slice) { &c, 1 });
    }
    return 0;
}

/* type:Q..Q; an array of types is printed as Python would print its list. */
static int put_type(struct decl *d, const struct json *type)
{
    int rc = 0;

    buf_str(d->r->out, "type:" Q);
    if (type != NULL && type->type == JSON_ARRAY) {
        buf_str(d->r->out, "[");
        for (const struct json *t = type->child; t != NULL && rc == 0; t = t->next) {
            const char *quote = t->type == JSON_STRING ? "'" : "";

            buf_str(d->r->out, quote);
            rc = put_upper(d, t);
            buf_str(d->r->out, quote);
            buf_str(d->r->out, t->next != NULL ? ", " : "");
        }
        buf_str(d->r->out, "]");
    } else if (type != NULL) {
        rc = put_upper(d, type);
    }
    buf_str(d->r->out, Q);
    return rc;
}

static bool type_is(const struct json *schema, const char *upper)
{
    const struct json *type = json_get(schema, "type");

    return type != NULL && type->type == JSON_STRING && type->text.n == strlen(upper)
           && strncasecmp(type->text.p, upper, type->text.n) == 0;
}

/* required:[Q..Q,Q..Q], in the order that they were given. */
static int put_required(struct decl *d, const struct json *names)
{
    if (names->type != JSON_ARRAY)
        return chat_bad(d->r, AT(d), ": required must be an array, not %s",
                        json_type_name(names->type));

    buf_str(d->r->out, "required:[");
    for (const struct json *s = names->child; s != NULL; s = s->next) {
        if (s->type != JSON_STRING)
            return chat_bad(d->r, AT(d), ": required must hold strings only, not %s",
                        json_type_name(s->type));
        put_str(d, s->text);
        buf_str(d->r->out, s->next != NULL ? "," : "");
    }
    buf_str(d->r->out, "]");
    return 0;
}

/* The schema that a $ref leads to, unless that is open already: then it has no end. */
static const struct json *resolve(struct decl *d, const struct json *schema)
{
    const struct json *to = schema, *ref;

    if (!d->r->opts->mend)
        return schema;
    for (int hop = 0; (ref = json_get(to, "$ref")) != NULL && ref->type == JSON_STRING; hop++) {
        to = schema_follow(d->root, ref->text);
        if (to == NULL || to->type != JSON_OBJECT || hop == CHAT_REF_HOPS_MAX)
            return schema;
    }
    for (int i = 0; i < d->n; i++)
        if (d->frame[i].of == to)
            return schema;
    return to;
}

/* of: the schema that node, its properties, its items or itself, belongs to. */
static int open_frame(struct decl *d, int kind, const struct json *node, const struct json *of)
{
    if (d->n == CHAT_DEPTH_MAX)
        return chat_bad(d->r, AT(d), ": the schema is nested deeper than %d levels",
                        CHAT_DEPTH_MAX);
    d->frame[d->n++] = (struct frame) {
        .kind = kind, .schema = kind == PROPS && node == of, .n = node->n, .of = of,
        .base = d->r->kids.n,
    };
    buf_str(d->r->out, kind == PROPS ? "properties:{" : "items:{");
    return chat_sort(d->r, node);
}

static void comma(struct decl *d, bool *any)
{
    if (*any)
        buf_str(d->r->out, ",");
    *any = true;
}

/* What a property says after its nested schema: nothing may stand before if it has none. */
static int put_prop_end(struct decl *d, const struct json *schema, bool any)
{
    int rc = 0;

    if (type_is(schema, "ARRAY") && truthy(json_get(schema, "nullable"))) {
        comma(d, &any);
        buf_str(d->r->out, "nullable:true");
    }
    if (type_is(schema, "OBJECT") && truthy(json_get(schema, "required"))) {
        comma(d, &any);
        rc = put_required(d, json_get(schema, "required"));
    }
    comma(d, &any);
    if (rc == 0)
        rc = put_type(d, json_get(schema, "type"));
    buf_str(d->r->out, "}");
    return rc;
}

/* One property up to its nested schema, or all of it. */
static int put_prop(struct decl *d, struct frame *f, const struct json *own)
{
    const struct json *schema = resolve(d, own), *props = json_get(schema, "properties");
    const struct json *text = json_get(own, "description"), *allowed = json_get(schema, "enum");
    const struct json *items = resolve(d, json_get(schema, "items"));
    bool               array = type_is(schema, "ARRAY"), any = false;
    int                rc;

    comma(d, &f->any);
    chat_put(d->r, own->key);
    buf_str(d->r->out, ":{");
    if (!truthy(text))
        text = json_get(schema, "description");
    if (truthy(text)) {
        any = true;
        rc = put_description(d, text);
        if (rc < 0)
            return rc;
    }
    if (type_is(schema, "STRING") && truthy(allowed)) {
        comma(d, &any);
        buf_str(d->r->out, "enum:");
        rc = chat_value(d->r, allowed, true, AT(d));
        if (rc < 0)
            return rc;
    }
    if (array && items != NULL && items->type == JSON_OBJECT && items->n > 0) {
        comma(d, &any);
        f->tail = schema;
        return open_frame(d, ITEMS, items, items);
    }
    if (!array && truthy(json_get(schema, "nullable"))) {
        comma(d, &any);
        buf_str(d->r->out, "nullable:true");
    }
    if (type_is(schema, "OBJECT")) {
        comma(d, &any);
        f->tail = schema;
        return open_frame(d, PROPS, props != NULL && props->type == JSON_OBJECT ? props : schema,
                          schema);
    }
    return put_prop_end(d, schema, any);
}

/* Here a list of types is a list in the model's notation. */
static int put_item_type(struct decl *d, const struct json *type)
{
    bool               list = type->type == JSON_ARRAY;
    const struct json *t = list ? type->child : type;
    int                rc = 0;

    if (!list && type->type != JSON_STRING)
        return chat_bad(d->r, AT(d), ": a type must be a string or an array of strings, not %s",
                        json_type_name(type->type));

    buf_str(d->r->out, list ? "type:[" : "type:");
    for (; t != NULL && rc == 0; t = list ? t->next : NULL) {
        buf_str(d->r->out, Q);
        rc = put_upper(d, t);
        buf_str(d->r->out, list && t->next != NULL ? Q "," : Q);
    }
    buf_str(d->r->out, list ? "]" : "");
    return rc;
}

/* One member of the schema of an array's elements. */
static int put_item_member(struct decl *d, struct frame *f, const struct json *m)
{
    if (m->type == JSON_NULL)
        return 0;
    comma(d, &f->any);

    if (slice_is(m->key, "properties") && m->type == JSON_OBJECT)
        return open_frame(d, PROPS, m, f->of);
    if (slice_is(m->key, "properties")) {
        buf_str(d->r->out, "properties:{}");
        return 0;
    }
    if (slice_is(m->key, "required"))
        return put_required(d, m);
    if (!slice_is(m->key, "type")) {
        chat_put(d->r, m->key);
        buf_str(d->r->out, ":");
        return chat_value(d->r, m, true, AT(d));
    }

    return put_item_type(d, m);
}

static bool is_keyword(struct slice key)
{
    return slice_is(key, "description") || slice_is(key, "type") || slice_is(key, "properties")
           || slice_is(key, "required") || slice_is(key, "nullable");
}

static int step(struct decl *d, struct frame *f)
{
    const struct json *x;

    /* References may be to references: a few lines of JSON would fill any memory. */
    if (d->r->out->n - d->begin > CHAT_TOOLS_BYTES_MAX)
        return chat_bad(d->r, AT(d), ": the declarations are longer than %u bytes",
                        CHAT_TOOLS_BYTES_MAX);
    if (f->tail != NULL) {
        x = f->tail;
        f->tail = NULL;
        return put_prop_end(d, x, true);
    }
    if (f->i == f->n) {
        d->r->kids.n = f->base;
        d->n--;
        buf_str(d->r->out, "}");
        return 0;
    }

    x = d->r->kids.v[f->base + f->i++];
    if (f->kind == ITEMS)
        return put_item_member(d, f, x);
    return f->schema && is_keyword(x->key) ? 0 : put_prop(d, f, x);
}

static int put_parameters(struct decl *d, const struct json *p)
{
    const struct json *props = json_get(p, "properties"), *type = json_get(p, "type");
    int                rc = 0;

    if (p->type != JSON_OBJECT)
        return chat_bad(d->r, AT(d), ": parameters must be an object, not %s",
                        json_type_name(p->type));
    if (truthy(props) && props->type != JSON_OBJECT)
        return chat_bad(d->r, AT(d), ": parameters.properties must be an object, not %s",
                        json_type_name(props->type));

    d->root = p;
    buf_str(d->r->out, ",parameters:{");
    if (truthy(props)) {
        rc = open_frame(d, PROPS, props, p);
        while (rc == 0 && d->n > 0)
            rc = step(d, &d->frame[d->n - 1]);
        buf_str(d->r->out, ",");
    }
    if (rc == 0 && truthy(json_get(p, "required"))) {
        rc = put_required(d, json_get(p, "required"));
        buf_str(d->r->out, ",");
    }
    if (rc == 0 && truthy(type)) {
        rc = put_type(d, type);
        buf_str(d->r->out, "}");
    }
    return rc;
}

/* Of the result only this much: whether it is an object, and its description. */
static int put_response(struct decl *d, const struct json *p)
{
    const struct json *text = json_get(p, "description");
    int                rc = 0;

    buf_str(d->r->out, ",response:{");
    if (truthy(text)) {
        rc = put_description(d, text);
        buf_str(d->r->out, ",");
    }
    if (type_is(p, "OBJECT"))
        buf_str(d->r->out, "type:" Q "OBJECT" Q "}");
    return rc;
}

static int put_tool(struct decl *d, const struct json *fn)
{
    const struct json *name = json_get(fn, "name"), *text = chat_get(fn, "description");
    const struct json *response = json_get(fn, "response");
    int                rc = 0;

    if (fn == NULL || fn->type != JSON_OBJECT)
        return chat_bad(d->r, AT(d), " must be an object");
    if (name == NULL || name->type != JSON_STRING || name->text.n == 0)
        return chat_bad(d->r, chat_at(d->r, "tools[%u].function.name", d->i),
                        " must be a string that is not empty");

    buf_str(d->r->out, "<|tool>declaration:");
    chat_put(d->r, name->text);
    buf_str(d->r->out, "{");
    if (text != NULL)
        rc = put_description(d, text);
    else
        buf_str(d->r->out, "description:" Q Q);
    if (rc == 0 && truthy(json_get(fn, "parameters")))
        rc = put_parameters(d, json_get(fn, "parameters"));
    if (rc == 0 && response != NULL)
        rc = put_response(d, response);
    buf_str(d->r->out, "}<tool|>");
    return rc;
}

int chat_tools(struct render *r, const struct json *tools)
{
    struct decl d = { .r = r, .begin = r->out->n };
    int         rc = 0;

    for (const struct json *t = tools->child; t != NULL && rc == 0; t = t->next, d.i++)
        rc = put_tool(&d, json_get(t, "function"));
    return rc;
}
