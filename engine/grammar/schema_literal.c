/* schema_literal.c - the values of enum and const: which of them the other keywords leave, and how
 * each is written, in one way only. */
#include "schema_priv.h"

#include <stdlib.h>
#include <string.h>

/* Which of a literal's members comes next. */
struct level { const struct json *node; const struct json **kids; uint32_t n_done; };

struct order { const struct json *j; uint32_t at; };

static int by_key(const void *a, const void *b)
{
    const struct order *x = a, *y = b;
    int                 c = chat_key_cmp(x->j->key, y->j->key);

    return c != 0 ? c : (x->at > y->at) - (x->at < y->at);
}

/* An object's members in the order of a call, an array's as they are. */
static const struct json **kids_of(struct schema *s, const struct json *j)
{
    const struct json **kids = malloc((j->n + 1) * sizeof(*kids));
    struct order       *order = malloc((j->n + 1) * sizeof(*order));
    uint32_t            n = 0;

    if (kids == NULL || order == NULL) {
        free(kids);
        kids = NULL;
        grammar_fail(s->m, E_FULL, "out of memory");
    } else {
        for (const struct json *k = j->child; k != NULL; k = k->next, n++)
            order[n] = (struct order) { k, n };
        if (j->type == JSON_OBJECT)
            qsort(order, n, sizeof(*order), by_key);
        for (uint32_t i = 0; i < n; i++)
            kids[i] = order[i].j;
    }
    free(order);
    return kids;
}

static gram scalar_in_call(struct schema *s, const struct json *j)
{
    switch (j->type) {
    case JSON_NULL:   return grammar_text(s->m, "null");
    case JSON_FALSE:  return grammar_text(s->m, "false");
    case JSON_TRUE:   return grammar_text(s->m, "true");
    case JSON_NUMBER: return grammar_bytes(s->m, j->text.p, j->text.n);
    case JSON_STRING: return schema_quoted(s, grammar_bytes(s->m, j->text.p, j->text.n));
    case JSON_ARRAY:
    case JSON_OBJECT: break;
    }
    return grammar_text(s->m, j->type == JSON_ARRAY ? "[" : "{");
}

static gram in_call(struct schema *s, const struct json *j, const struct json *of)
{
    struct level level[SCHEMA_DEPTH_MAX], *l;
    uint32_t     n = 0;
    gram         g = grammar_empty(s->m);

    do {
        g = schema_seq(s, g, scalar_in_call(s, j));
        if (j->type == JSON_ARRAY || j->type == JSON_OBJECT) {
            if (n == SCHEMA_DEPTH_MAX)
                g = schema_bad(s, of, "a value is nested deeper than %d levels", SCHEMA_DEPTH_MAX);
            else
                level[n++] = (struct level) { j, kids_of(s, j), 0 };
        }
        for (j = NULL; n > 0 && j == NULL && g >= 0;) {
            l = &level[n - 1];
            if (l->kids != NULL && l->n_done < l->node->n) {
                g = l->n_done > 0 ? schema_seq(s, g, grammar_text(s->m, ",")) : g;
                j = l->kids[l->n_done++];
                if (l->node->type == JSON_OBJECT)
                    g = schema_seq(s, g, schema_seq(s, schema_key_text(s, j->key),
                                                    grammar_text(s->m, ":")));
                continue;
            }
            g = schema_seq(s, g, grammar_text(s->m, l->node->type == JSON_OBJECT ? "}" : "]"));
            free(l->kids);
            n--;
        }
    } while (j != NULL && g >= 0);
    while (n > 0)
        free(level[--n].kids);
    return g;
}

static gram literal(struct schema *s, const struct json *j, const struct json *of)
{
    struct buf text = { 0 };
    gram       g;

    if (s->as == SCHEMA_CALL)
        return in_call(s, j, of);
    json_write(j, &text);
    g = text.full ? grammar_fail(s->m, E_FULL, "out of memory")
                  : grammar_bytes(s->m, text.p, text.n);
    buf_free(&text);
    return g;
}

/* Which are left */

static bool alike(const struct json *a, const struct json *b)
{
    struct buf x = { 0 }, y = { 0 };
    struct dec d, e;
    bool       same;

    if (a->type != b->type)
        return false;
    if (a->type == JSON_NUMBER) {
        dec_read(a->text, &d);
        dec_read(b->text, &e);
        if (!d.huge && !d.more && !e.huge && !e.more)
            return dec_cmp(&d, &e) == 0;
    }
    json_write(a, &x);
    json_write(b, &y);
    same = !x.full && !y.full && x.n == y.n && memcmp(x.p, y.p, x.n) == 0;
    buf_free(&x);
    buf_free(&y);
    return same;
}

static bool in_list(const struct merged *m, uint32_t i, const struct json *j)
{
    if (m->is_const[i])
        return alike(m->list[i], j);
    for (const struct json *k = m->list[i]->child; k != NULL; k = k->next)
        if (alike(k, j))
            return true;
    return false;
}

static uint32_t type_of(const struct json *j)
{
    struct dec d;

    switch (j->type) {
    case JSON_NULL:   return TYPE_NULL;
    case JSON_FALSE:
    case JSON_TRUE:   return TYPE_BOOLEAN;
    case JSON_STRING: return TYPE_STRING;
    case JSON_ARRAY:  return TYPE_ARRAY;
    case JSON_OBJECT: return TYPE_OBJECT;
    case JSON_NUMBER: break;
    }
    dec_read(j->text, &d);
    return dec_is_whole(&d) ? TYPE_INTEGER : TYPE_NUMBER;
}

/* 1: it may come; 0: it may not; -1: nobody here can say. */
static int left(struct schema *s, const struct merged *m, const struct json *j)
{
    uint32_t   type = type_of(j);
    int64_t    n;
    struct dec d;

    if ((m->types & type) == 0)
        return 0;
    for (uint32_t i = 1; i < m->n_list; i++)
        if (!in_list(m, i, j))
            return 0;
    if (j->type == JSON_NUMBER) {
        dec_read(j->text, &d);
        return dec_within(&d, &m->lo, &m->hi);
    }
    if (j->type == JSON_STRING) {
        n = (int64_t) schema_length(j->text);
        if (m->pattern != NULL)
            return schema_bad(s, m->schema, "'pattern' beside 'enum' cannot be enforced");
        return n >= m->min_length && (m->max_length == NO_MAX || n <= m->max_length);
    }
    if (j->type == JSON_ARRAY && m->n_array > 0)
        return schema_bad(s, m->schema, "'items' beside 'enum' cannot be enforced");
    if (j->type == JSON_ARRAY)
        return j->n >= m->min_items && (m->max_items == NO_MAX || j->n <= m->max_items);
    if (j->type == JSON_OBJECT && (m->n_object > 0))
        return schema_bad(s, m->schema, "'properties' beside 'enum' cannot be enforced");
    if (j->type == JSON_OBJECT)
        return j->n >= m->min_members && (m->max_members == NO_MAX || j->n <= m->max_members);
    return 1;
}

gram schema_literals(struct schema *s, const struct merged *m)
{
    const struct json *j = m->is_const[0] ? m->list[0] : m->list[0]->child, *next;
    gram               g = NOTHING;
    int                rc;

    for (; j != NULL && g != -1; j = next) {
        next = m->is_const[0] ? NULL : j->next;
        rc = left(s, m, j);
        if (rc != 0)
            g = rc < 0 ? -1 : schema_alt(s, g, literal(s, j, m->schema));
    }
    if (g == NOTHING)
        s->why = "no value of 'enum' or 'const' is left";
    return g;
}
