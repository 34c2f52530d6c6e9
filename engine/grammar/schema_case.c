/* schema_case.c - a place as alternatives, and what the subschemas of one say together. */
#include "schema_priv.h"

#include <stdlib.h>
#include <string.h>

/* 1; 0: it is false; -1: failed. */
static int case_add(struct schema *s, struct schema_case *c, const struct json *schema,
                    uint32_t from)
{
    if (schema->type == JSON_FALSE)
        s->why = "the schema is false";
    if (schema->type == JSON_TRUE || schema->type == JSON_FALSE)
        return schema->type == JSON_TRUE;

    /* What led here may not be what it leads to: the schema would be defined by itself. */
    for (uint32_t i = from; i < c->n; i = c->all[i].from) {
        if (c->all[i].schema == schema)
            return schema_bad(s, schema, "it refers to itself and to nothing else");
        if (c->all[i].from == i)
            break;
    }
    for (uint32_t i = 0; i < c->n; i++)
        if (c->all[i].schema == schema)
            return 1;
    if (c->n == SCHEMA_ALL_MAX)
        return schema_bad(s, schema, "more than %d schemas hold at one place", SCHEMA_ALL_MAX);
    c->all[c->n].schema = schema;
    c->all[c->n].from = from < c->n ? from : c->n;
    c->n++;
    return 1;
}

static const struct json *follow(struct schema *s, const struct words *w)
{
    const struct json *ref = w->word[W_REF], *to;

    if (ref->type != JSON_STRING) {
        schema_bad(s, w->schema, "'$ref' must be a string");
        return NULL;
    }
    to = schema_follow(s->root, ref->text);
    if (to == NULL)
        schema_bad(s, w->schema, "'$ref' leads to nothing in this schema: %.*s",
                   (int) (ref->text.n < 80 ? ref->text.n : 80), ref->text.p);
    return to;
}

static const struct json *list_of(struct schema *s, const struct words *w, enum word word)
{
    const struct json *list = w->word[word];

    if (list != NULL && (list->type != JSON_ARRAY || list->n == 0)) {
        schema_bad(s, w->schema, "'%.*s' must be an array that is not empty", (int) list->key.n,
                   list->key.p);
        return NULL;
    }
    return list;
}

/* All that holds beside the subschema done. As case_add. */
static int add_all(struct schema *s, struct schema_case *c, const struct words *w)
{
    const struct json *to;
    int                rc = 1;

    if (w->word[W_REF] != NULL) {
        to = follow(s, w);
        rc = to == NULL ? -1 : case_add(s, c, to, c->done);
    }
    if (rc <= 0 || w->word[W_ALL_OF] == NULL)
        return rc;
    to = list_of(s, w, W_ALL_OF);
    if (to == NULL)
        return -1;
    for (to = to->child; to != NULL && rc > 0; to = to->next)
        rc = case_add(s, c, to, c->done);
    return rc;
}

/* Each costs a piece, so that the limits and the deadline of the grammar hold here, too. */
static int push(struct schema *s, struct cases *to, const struct schema_case *c)
{
    struct schema_case *v;

    if (grammar_empty(s->m) < 0)
        return -1;
    if (to->n == SCHEMA_CASE_MAX)
        return schema_bad(s, c->all[0].schema, "more than %d alternatives", SCHEMA_CASE_MAX);
    v = schema_grow(s, to->v, &to->cap, (uint64_t) to->n + 1, sizeof(*v));
    if (v == NULL)
        return -1;
    to->v = v;
    to->v[to->n++] = *c;
    return 0;
}

/* c once for each of these alternatives, so that the first is on top. */
static int split(struct schema *s, const struct schema_case *c, const struct words *w,
                 enum word word, struct cases *pend)
{
    const struct json *list = list_of(s, w, word);
    struct schema_case one, was;
    uint32_t           base = pend->n;
    int                rc = 0;

    if (list == NULL)
        return -1;
    for (const struct json *j = list->child; j != NULL; j = j->next) {
        one = *c;
        rc = case_add(s, &one, j, c->done);
        if (rc < 0 || (rc > 0 && push(s, pend, &one) < 0))
            return -1;
    }
    for (uint32_t i = base, k = pend->n; i + 1 < k; i++) {
        was = pend->v[i];
        pend->v[i] = pend->v[--k];
        pend->v[k] = was;
    }
    return 0;
}

/* 1: c is done; 0: it is no more, or many; -1: failed. */
static int expand(struct schema *s, struct schema_case *c, struct cases *pend)
{
    struct words w;
    int          rc;

    for (; c->done < c->n; c->done++, c->step = 0) {
        if (words_read(s, c->all[c->done].schema, &w) < 0)
            return -1;
        if (c->step == 0) {
            rc = add_all(s, c, &w);
            if (rc <= 0)
                return rc;
        }
        if (c->step < 1 && w.word[W_ANY_OF] != NULL) {
            c->step = 1;
            return split(s, c, &w, W_ANY_OF, pend);
        }
        if (c->step < 2 && w.word[W_ONE_OF] != NULL) {
            c->step = 2;
            return split(s, c, &w, W_ONE_OF, pend);
        }
    }
    return 1;
}

int cases_of(struct schema *s, const struct list *l, struct cases *out)
{
    struct cases       pend = { 0 };
    struct schema_case c = { .n = 0 };
    int                rc = 1;

    *out = (struct cases) { 0 };
    for (uint32_t i = 0; i < l->n && rc > 0; i++)
        rc = case_add(s, &c, l->v[i], UINT32_MAX);
    if (rc > 0)
        rc = push(s, &pend, &c);
    while (rc >= 0 && pend.n > 0) {
        c = pend.v[--pend.n];
        rc = expand(s, &c, &pend);
        if (rc > 0)
            rc = push(s, out, &c);
    }
    free(pend.v);
    return rc < 0 ? -1 : 0;
}

void cases_free(struct cases *c)
{
    free(c->v);
}

/* What they say together */

static int merge_types(struct schema *s, const struct words *w, struct merged *out)
{
    const struct json *type = w->word[W_TYPE], *nullable = w->word[W_NULLABLE], *j = type;
    uint32_t           types = 0;
    int                one;

    if (type == NULL)
        return 0;
    if (type->type == JSON_ARRAY)
        j = type->child;
    do {
        one = j != NULL ? schema_type(j) : 0;
        if (one == 0)
            return schema_bad(s, w->schema, "'type' must be a type or an array of types");
        types |= (uint32_t) one;
        j = j->next;
    } while (type->type == JSON_ARRAY && j != NULL);

    if (nullable != NULL && nullable->type == JSON_TRUE)
        types |= TYPE_NULL;
    out->types &= types;
    return 0;
}

static int merge_list(struct schema *s, const struct words *w, struct merged *out)
{
    const struct json *list = w->word[W_ENUM], *one = w->word[W_CONST];

    if (list != NULL) {
        if (list->type != JSON_ARRAY || list->n == 0)
            return schema_bad(s, w->schema, "'enum' must be an array that is not empty");
        out->list[out->n_list++] = list;
    }
    if (one != NULL) {
        out->is_const[out->n_list] = true;
        out->list[out->n_list++] = one;
    }
    return 0;
}

/* exclusive may be true instead of a number: so it was in the fourth draft. */
static int merge_bound(struct schema *s, const struct words *w, enum word word,
                       enum word exclusive, int sign, struct dec *bound)
{
    enum word which[2] = { word, exclusive };

    for (int i = 0; i < 2; i++) {
        const struct json *j = w->word[which[i]], *open = w->word[exclusive];
        struct dec         d;
        int                cmp;

        if (j == NULL || (i == 1 && (j->type == JSON_TRUE || j->type == JSON_FALSE)))
            continue;
        if (j->type != JSON_NUMBER)
            return schema_bad(s, w->schema, "'%.*s' must be a number", (int) j->key.n, j->key.p);
        dec_read(j->text, &d);
        d.open = i == 1 || (open != NULL && open->type == JSON_TRUE);
        cmp = bound->given ? sign * dec_cmp(&d, bound) : 1;
        if (cmp > 0 || (cmp == 0 && d.open))
            *bound = d;
    }
    return 0;
}

static int merge_numbers(struct schema *s, const struct words *w, struct merged *out)
{
    const struct json *of = w->word[W_MULTIPLE_OF];
    struct dec         d, one;

    if (of != NULL) {
        dec_read(SLICE("1"), &one);
        if (of->type != JSON_NUMBER || (dec_read(of->text, &d), dec_cmp(&d, &one) != 0))
            return schema_bad(s, w->schema, "'multipleOf' cannot be enforced, but of 1");
        out->types &= ~(uint32_t) TYPE_NUMBER;
    }
    if (merge_bound(s, w, W_MINIMUM, W_EX_MINIMUM, 1, &out->lo) < 0
        || merge_bound(s, w, W_MAXIMUM, W_EX_MAXIMUM, -1, &out->hi) < 0)
        return -1;
    return 0;
}

/* A pair of counts, into what is known of them. */
static int merge_counts(struct schema *s, const struct words *w, enum word min_word,
                        enum word max_word, int64_t *min, int64_t *max)
{
    int64_t low = 0, high = SCHEMA_COUNT_MAX;

    if (words_count(s, w, min_word, &low) < 0 || words_count(s, w, max_word, &high) < 0)
        return -1;
    if (low == SCHEMA_COUNT_MAX)
        return schema_bad(s, w->schema, "'%.*s' is more than any answer has",
                          (int) w->word[min_word]->key.n, w->word[min_word]->key.p);
    if (low > *min)
        *min = low;
    if (high < SCHEMA_COUNT_MAX && (*max == NO_MAX || high < *max))
        *max = high;
    return 0;
}

/* A word that is a string; there may be one of them, or the same one again. Formats that are not
 * enforced only describe. */
static int merge_text(struct schema *s, const struct words *w, enum word word,
                      const struct json **to)
{
    const struct json *j = w->word[word];

    if (j == NULL)
        return 0;
    if (j->type != JSON_STRING)
        return schema_bad(s, w->schema, "'%.*s' must be a string", (int) j->key.n, j->key.p);
    if (word == W_FORMAT && !schema_is_format(j))
        return 0;
    if (*to != NULL && ((*to)->text.n != j->text.n
                        || memcmp((*to)->text.p, j->text.p, j->text.n) != 0))
        return schema_bad(s, w->schema, "'%.*s' beside another cannot be enforced",
                          (int) j->key.n, j->key.p);
    *to = j;
    return 0;
}

static bool is_a(const struct json *j, bool object, bool array, bool boolean)
{
    return j == NULL || (object && j->type == JSON_OBJECT) || (array && j->type == JSON_ARRAY)
           || (boolean && (j->type == JSON_TRUE || j->type == JSON_FALSE));
}

static int merge_object(struct schema *s, const struct words *w, struct merged *out)
{
    const struct json *own = w->word[W_PROPERTIES], *other = w->word[W_ADDITIONAL];
    const struct json *by_pattern = w->word[W_PATTERN_PROPERTIES], *must = w->word[W_REQUIRED];

    if (!is_a(own, true, false, false) || !is_a(by_pattern, true, false, false))
        return schema_bad(s, w->schema, "'properties' must be an object of schemas");
    if (!is_a(other, true, false, true))
        return schema_bad(s, w->schema, "'additionalProperties' must be a schema");
    if (!is_a(must, false, true, false))
        return schema_bad(s, w->schema, "'required' must be an array of strings");
    for (const struct json *j = must != NULL ? must->child : NULL; j != NULL; j = j->next)
        if (j->type != JSON_STRING)
            return schema_bad(s, w->schema, "'required' must be an array of strings");
    if (merge_counts(s, w, W_MIN_PROPERTIES, W_MAX_PROPERTIES, &out->min_members,
                     &out->max_members) < 0)
        return -1;

    if (own == NULL && other == NULL && by_pattern == NULL && must == NULL)
        return 0;
    out->required[out->n_object] = must;
    out->object[out->n_object++] = (struct part) { w->schema, own, other, by_pattern };
    return 0;
}

static int merge_array(struct schema *s, const struct words *w, struct merged *out)
{
    const struct json *items = w->word[W_ITEMS], *first = w->word[W_PREFIX_ITEMS];
    const struct json *other = items;

    if (!is_a(first, false, true, false) || !is_a(items, true, true, true)
        || !is_a(w->word[W_ADDITIONAL_ITEMS], true, false, true))
        return schema_bad(s, w->schema, "'items' and 'prefixItems' must be schemas and arrays");
    if (items != NULL && items->type == JSON_ARRAY) {    /* as it was before prefixItems */
        if (first != NULL)
            return schema_bad(s, w->schema, "'items' is an array beside 'prefixItems'");
        first = items;
        other = w->word[W_ADDITIONAL_ITEMS];
    }
    if (merge_counts(s, w, W_MIN_ITEMS, W_MAX_ITEMS, &out->min_items, &out->max_items) < 0)
        return -1;
    if (first != NULL || other != NULL)
        out->array[out->n_array++] = (struct part) { w->schema, first, other, NULL };
    return 0;
}

int case_merge(struct schema *s, const struct schema_case *c, struct merged *out)
{
    struct words w;

    *out = (struct merged) {
        .types = TYPE_ANY, .max_length = NO_MAX, .max_members = NO_MAX, .max_items = NO_MAX,
        .schema = c->n > 0 ? c->all[0].schema : s->root,
    };
    for (uint32_t i = 0; i < c->n; i++)
        if (words_read(s, c->all[i].schema, &w) < 0 || merge_types(s, &w, out) < 0
            || merge_list(s, &w, out) < 0 || merge_numbers(s, &w, out) < 0
            || merge_counts(s, &w, W_MIN_LENGTH, W_MAX_LENGTH, &out->min_length,
                            &out->max_length) < 0
            || merge_text(s, &w, W_PATTERN, &out->pattern) < 0
            || merge_text(s, &w, W_FORMAT, &out->format) < 0
            || merge_object(s, &w, out) < 0 || merge_array(s, &w, out) < 0)
            return -1;
    if (out->types == 0)
        s->why = "its types exclude each other";
    return out->types != 0;
}
