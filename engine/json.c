#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <yajl/yajl_parse.h>

#define CHUNK_BYTES  (64 * 1024)
#define DUP_LINEAR   8              /* up to here every pair of keys is compared */

struct chunk { struct chunk *next; size_t used, cap; char bytes[]; };

struct json_doc { struct chunk *chunks; };

/* One open ARRAY or OBJECT. */
struct level { struct json *node, *last; };

struct parse {
    struct json_doc          *doc;
    const struct json_limits *lim;
    struct json              *root;
    struct slice              key;
    struct level             *open;
    uint32_t                  n_open, open_cap, n_nodes;
    int                       rc;
    const char               *why;      /* static words */
    char                      dup[40];  /* the start of a repeated key */
};

static void *doc_alloc(struct json_doc *d, size_t n)
{
    struct chunk *c = d->chunks;
    void         *p;

    n = (n + 15) & ~(size_t) 15;
    if (c == NULL || n > c->cap - c->used) {
        /* Chunks grow with the document, so that a large one takes few mallocs. */
        size_t cap = c == NULL ? CHUNK_BYTES / 16 : c->cap < 16 * CHUNK_BYTES ? c->cap * 2 : c->cap;

        if (cap < n)
            cap = n;
        c = malloc(sizeof(*c) + cap);
        if (c == NULL)
            return NULL;
        *c = (struct chunk) { .next = d->chunks, .cap = cap };
        d->chunks = c;
    }
    p = c->bytes + c->used;
    c->used += n;
    return p;
}

/* Both return 0 so that a callback can say `return stop(...)`: that cancels yajl. */
static int stop(struct parse *s, int rc, const char *why)
{
    s->rc = rc;
    s->why = why;
    return 0;
}

static int copy(struct parse *s, struct slice *to, const unsigned char *p, size_t n)
{
    char *at = doc_alloc(s->doc, n + 1);

    if (at == NULL)
        return stop(s, E_FULL, "out of memory");
    if (n > 0)
        memcpy(at, p, n);
    at[n] = '\0';                       /* strtod needs the end; nobody else relies on it */
    *to = (struct slice) { at, n };
    return 1;
}

static struct json *add(struct parse *s, enum json_type type)
{
    struct json *j;

    if (s->n_nodes >= s->lim->nodes) {
        stop(s, E_INVALID, "too many values");
        return NULL;
    }
    j = doc_alloc(s->doc, sizeof(*j));
    if (j == NULL) {
        stop(s, E_FULL, "out of memory");
        return NULL;
    }
    s->n_nodes++;
    *j = (struct json) { .type = type };

    if (s->n_open == 0) {
        s->root = j;
    } else {
        struct level *up = &s->open[s->n_open - 1];

        if (up->node->type == JSON_OBJECT)
            j->key = s->key;
        if (up->last == NULL)
            up->node->child = j;
        else
            up->last->next = j;
        up->last = j;
        up->node->n++;
    }
    return j;
}

static int on_null(void *ctx)
{
    return add(ctx, JSON_NULL) != NULL;
}

static int on_bool(void *ctx, int v)
{
    return add(ctx, v ? JSON_TRUE : JSON_FALSE) != NULL;
}

static int on_number(void *ctx, const char *p, size_t n)
{
    struct json *j = add(ctx, JSON_NUMBER);

    if (j == NULL || !copy(ctx, &j->text, (const unsigned char *) p, n))
        return 0;
    j->is_int = memchr(p, '.', n) == NULL && memchr(p, 'e', n) == NULL && memchr(p, 'E', n) == NULL;
    return 1;
}

static int on_string(void *ctx, const unsigned char *p, size_t n)
{
    struct json *j = add(ctx, JSON_STRING);

    return j != NULL && copy(ctx, &j->text, p, n);
}

static int on_key(void *ctx, const unsigned char *p, size_t n)
{
    struct parse *s = ctx;

    return copy(s, &s->key, p, n);
}

static int on_open(struct parse *s, enum json_type type)
{
    struct json *j;

    if (s->n_open >= s->lim->depth)
        return stop(s, E_INVALID, "nested too deeply");
    j = add(s, type);
    if (j == NULL)
        return 0;

    if (s->n_open == s->open_cap) {
        uint32_t      cap = s->open_cap == 0 ? 16 : s->open_cap * 2;
        struct level *p = realloc(s->open, cap * sizeof(*p));

        if (p == NULL)
            return stop(s, E_FULL, "out of memory");
        s->open = p;
        s->open_cap = cap;
    }
    s->open[s->n_open++] = (struct level) { .node = j };
    return 1;
}

static int on_map(void *ctx)
{
    return on_open(ctx, JSON_OBJECT);
}

static int on_array(void *ctx)
{
    return on_open(ctx, JSON_ARRAY);
}

static int key_cmp(const struct json *a, const struct json *b)
{
    if (a->key.n != b->key.n)
        return a->key.n < b->key.n ? -1 : 1;
    return memcmp(a->key.p, b->key.p, a->key.n);
}

static int key_ptr_cmp(const void *a, const void *b)
{
    return key_cmp(*(const struct json *const *) a, *(const struct json *const *) b);
}

static int dup_found(struct parse *s, const struct json *j)
{
    size_t n = 0;

    /* Whole printable ASCII only: the words go into logs and answers. */
    while (n < j->key.n && n + 1 < sizeof(s->dup) && j->key.p[n] >= ' ' && j->key.p[n] < 127) {
        s->dup[n] = j->key.p[n];
        n++;
    }
    s->dup[n] = '\0';
    return stop(s, E_INVALID, "duplicate key");
}

/* Sorting keeps an object of many keys at O(n log n), whatever the keys are. */
static int on_map_end(void *ctx)
{
    struct parse       *s = ctx;
    const struct json  *o = s->open[s->n_open - 1].node, *j, *k, **v;
    uint32_t            n = 0;

    s->n_open--;
    if (o->n <= DUP_LINEAR) {
        for (j = o->child; j != NULL; j = j->next)
            for (k = o->child; k != j; k = k->next)
                if (key_cmp(j, k) == 0)
                    return dup_found(s, j);
        return 1;
    }

    v = malloc(o->n * sizeof(*v));
    if (v == NULL)
        return stop(s, E_FULL, "out of memory");
    for (j = o->child; j != NULL; j = j->next)
        v[n++] = j;
    qsort(v, n, sizeof(*v), key_ptr_cmp);
    k = NULL;
    for (uint32_t i = 1; i < n && k == NULL; i++)
        if (key_cmp(v[i - 1], v[i]) == 0)
            k = v[i];
    free(v);
    return k == NULL ? 1 : dup_found(s, k);
}

static int on_array_end(void *ctx)
{
    ((struct parse *) ctx)->n_open--;
    return 1;
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null, .yajl_boolean = on_bool, .yajl_number = on_number,
    .yajl_string = on_string, .yajl_start_map = on_map, .yajl_map_key = on_key,
    .yajl_end_map = on_map_end, .yajl_start_array = on_array, .yajl_end_array = on_array_end,
};

/* -1, or the code unit of the \uXXXX at p. */
static int escape_unit(const char *p, const char *end)
{
    int v = 0;

    if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
        return -1;
    for (int i = 2; i < 6; i++) {
        int c = p[i], lower = c | 0x20;

        if (c >= '0' && c <= '9')
            v = v * 16 + c - '0';
        else if (lower >= 'a' && lower <= 'f')
            v = v * 16 + lower - 'a' + 10;
        else
            return -1;
    }
    return v;
}

/* yajl turns a lone surrogate escape into '?', so look before it does. A backslash outside a string
 * is an error anyway, hence no need to know where strings begin. NULL, or where the bad one is. */
static const char *lone_surrogate(const char *p, size_t n)
{
    const char *end = p + n;

    while ((p = memchr(p, '\\', (size_t) (end - p))) != NULL) {
        int u = escape_unit(p, end);

        if (u >= 0xD800 && u <= 0xDFFF) {
            int low = escape_unit(p + 6, end);

            if (u >= 0xDC00 || low < 0xDC00 || low > 0xDFFF)
                return p;
            p += 12;
        } else {
            p += end - p < 2 ? 1 : 2;
        }
    }
    return NULL;
}

static int check_text(const char *p, size_t n, const struct json_limits *lim, struct err *e)
{
    const char *bad;

    if (n > lim->bytes)
        return err_set(e, E_INVALID, "JSON: %zu bytes, at most %zu are allowed", n, lim->bytes);

    if (!utf8_valid(p, n)) {
        size_t at = 0;

        for (int len; (len = utf8_len(p + at, n - at)) > 0; )
            at += (size_t) len;
        return err_set(e, E_INVALID, "JSON: invalid UTF-8 at byte %zu", at);
    }

    bad = n == 0 ? NULL : lone_surrogate(p, n);
    if (bad != NULL)
        return err_set(e, E_INVALID, "JSON: unpaired surrogate escape at byte %zu",
                       (size_t) (bad - p));
    return 0;
}

static int say_why(struct parse *s, yajl_handle h, size_t at, struct err *e)
{
    unsigned char *words;
    int            rc;

    if (s->why != NULL)
        return err_set(e, s->rc, "JSON: %s%s%s%s at byte %zu", s->why, s->dup[0] ? " \"" : "",
                       s->dup, s->dup[0] ? "\"" : "", at);

    words = yajl_get_error(h, 0, NULL, 0);
    rc = err_set(e, E_INVALID, "JSON: %.*s at byte %zu",
                 words == NULL ? 7 : (int) strcspn((char *) words, "\n"),
                 words == NULL ? "invalid" : (char *) words, at);
    if (words != NULL)
        yajl_free_error(h, words);
    return rc;
}

int json_parse(struct json_doc **out, const struct json **root, const char *p, size_t n,
               const struct json_limits *lim, struct err *e)
{
    struct parse s = { .lim = lim };
    yajl_handle  h = NULL;
    yajl_status  st;
    size_t       at;
    int          rc;

    *out = NULL;
    *root = NULL;
    rc = check_text(p, n, lim, e);
    if (rc < 0)
        return rc;

    s.doc = calloc(1, sizeof(*s.doc));
    h = yajl_alloc(&callbacks, NULL, &s);
    if (s.doc == NULL || h == NULL) {
        rc = err_set(e, E_FULL, "JSON: out of memory");
        goto done;
    }
    yajl_config(h, yajl_dont_validate_strings, 1);      /* check_text did, and more strictly */

    st = yajl_parse(h, (const unsigned char *) p, n);
    at = yajl_get_bytes_consumed(h);
    if (st == yajl_status_ok && s.root != NULL && s.n_open == 0) {
        /* What begins a token behind the end counts as white space, unless that cannot go on. */
        st = yajl_parse(h, (const unsigned char *) "\n", 1);
        at = n;
    }
    if (st == yajl_status_ok) {
        st = yajl_complete_parse(h);
        at = n;
    }
    if (st != yajl_status_ok || s.root == NULL) {
        rc = say_why(&s, h, at, e);
        goto done;
    }
    *out = s.doc;
    *root = s.root;
    s.doc = NULL;

done:
    if (h != NULL)
        yajl_free(h);
    free(s.open);
    json_free(s.doc);
    return rc;
}

void json_free(struct json_doc *d)
{
    struct chunk *c, *next;

    if (d == NULL)
        return;
    for (c = d->chunks; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    free(d);
}

const struct json *json_get(const struct json *o, const char *key)
{
    if (o == NULL || o->type != JSON_OBJECT)
        return NULL;
    for (const struct json *j = o->child; j != NULL; j = j->next)
        if (slice_is(j->key, key))
            return j;
    return NULL;
}

/* A decimal number as digits and a power of ten. */
struct decimal {
    bool        neg;
    const char *p, *end;        /* digits and perhaps one '.', no zeros at either end */
    int64_t     n_digits, exp;  /* value = digits * 10^exp */
};

static void decimal_read(struct slice t, struct decimal *d)
{
    const char *p = t.p, *end = t.p + t.n, *e;
    int64_t     exp = 0;
    bool        neg = false;

    *d = (struct decimal) { .neg = p < end && *p == '-' };
    p += d->neg;
    for (e = p; e < end && *e != 'e' && *e != 'E'; e++) { }

    for (const char *x = e + 1; x < end; x++) {
        if (*x == '-')
            neg = true;
        else if (*x != '+' && exp < (int64_t) 1 << 50)
            exp = exp * 10 + *x - '0';
    }
    d->exp = neg ? -exp : exp;

    if (memchr(p, '.', (size_t) (e - p)) != NULL)
        for (const char *x = e - 1; *x != '.'; x--)
            d->exp--;

    /* What is cut at the end raises the power, wherever the '.' stands. */
    while (p < e && (*p == '0' || *p == '.'))
        p++;
    while (e > p && (e[-1] == '0' || e[-1] == '.')) {
        d->exp += e[-1] == '0';
        e--;
    }
    d->p = p;
    d->end = e;
    for (; p < e; p++)
        d->n_digits += *p != '.';
}

int json_int(const struct json *j, int64_t *v)
{
    struct decimal d;
    uint64_t       u = 0, max;

    if (j == NULL || j->type != JSON_NUMBER)
        return E_INVALID;
    decimal_read(j->text, &d);
    if (d.n_digits == 0) {
        *v = 0;
        return 0;
    }
    if (d.exp < 0 || d.n_digits + d.exp > 19)           /* 2^63 has 19 digits */
        return E_INVALID;

    for (const char *p = d.p; p < d.end; p++)
        if (*p != '.')
            u = u * 10 + (uint64_t) (*p - '0');         /* < 10^19 < 2^64 */
    for (int64_t i = 0; i < d.exp; i++)
        u *= 10;

    max = (uint64_t) INT64_MAX + d.neg;
    if (u > max)
        return E_INVALID;
    *v = d.neg ? (int64_t) (0 - u) : (int64_t) u;
    return 0;
}

int json_double(const struct json *j, double *v)
{
    double d;

    if (j == NULL || j->type != JSON_NUMBER)
        return E_INVALID;
    d = strtod(j->text.p, NULL);
    if (!isfinite(d))
        return E_INVALID;
    *v = d;
    return 0;
}

static void write_open(const struct json *j, struct buf *out)
{
    switch (j->type) {
    case JSON_NULL:   buf_str(out, "null"); break;
    case JSON_FALSE:  buf_str(out, "false"); break;
    case JSON_TRUE:   buf_str(out, "true"); break;
    case JSON_NUMBER: buf_put(out, j->text.p, j->text.n); break;
    case JSON_STRING: buf_json_str(out, j->text.p, j->text.n); break;
    case JSON_ARRAY:  buf_str(out, "["); break;
    case JSON_OBJECT: buf_str(out, "{"); break;
    }
}

void json_write(const struct json *j, struct buf *out)
{
    const struct json **up = NULL, **p;
    size_t              n = 0, cap = 0;

    for (;;) {
        if (n > 0 && up[n - 1]->type == JSON_OBJECT) {
            buf_json_str(out, j->key.p, j->key.n);
            buf_str(out, ":");
        }
        write_open(j, out);

        if ((j->type == JSON_ARRAY || j->type == JSON_OBJECT) && j->child != NULL) {
            if (n == cap) {
                cap = cap == 0 ? 32 : cap * 2;
                p = realloc(up, cap * sizeof(*p));
                if (p == NULL) {
                    out->full = true;
                    break;
                }
                up = p;
            }
            up[n++] = j;
            j = j->child;
            continue;
        }
        if (j->type == JSON_ARRAY || j->type == JSON_OBJECT)
            buf_str(out, j->type == JSON_ARRAY ? "]" : "}");

        /* The root may have siblings of its own: they are not ours to write. */
        while (n > 0 && j->next == NULL) {
            j = up[--n];
            buf_str(out, j->type == JSON_ARRAY ? "]" : "}");
        }
        if (n == 0)
            break;
        buf_str(out, ",");
        j = j->next;
    }
    free(up);
}

const char *json_type_name(enum json_type t)
{
    static const char *const name[] = {
        [JSON_NULL] = "null", [JSON_FALSE] = "a boolean", [JSON_TRUE] = "a boolean",
        [JSON_NUMBER] = "a number", [JSON_STRING] = "a string", [JSON_ARRAY] = "an array",
        [JSON_OBJECT] = "an object",
    };

    return name[t];
}
