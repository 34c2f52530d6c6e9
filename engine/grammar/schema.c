/* schema.c - places and their rules.
 *
 * A place is a list of subschemas that hold for one value, found by that list: so a $ref that leads
 * back comes to the rule that is there already. Scalars are pieces at once; the rule of an object
 * or array waits until its turn comes, and so nothing recurses. */
#include "schema_priv.h"

#include <stdlib.h>
#include <string.h>

#define HOPS_MAX 64                     /* a $ref to a $ref to .. */

/* What the arguments of a call are, whatever else is said of them. */
static const struct json object_word = {
    .type = JSON_STRING, .key = { "type", 4 }, .text = { "object", 6 },
};
static const struct json object_schema = {
    .type = JSON_OBJECT, .n = 1, .child = (struct json *) &object_word,
};

/* Pieces of which one may be NOTHING, or failed */

gram schema_seq(struct schema *s, gram a, gram b)
{
    if (a == -1 || b == -1)
        return -1;
    return a == NOTHING || b == NOTHING ? NOTHING : grammar_seq(s->m, a, b);
}

gram schema_alt(struct schema *s, gram a, gram b)
{
    if (a == -1 || b == -1)
        return -1;
    if (a == NOTHING || b == NOTHING)
        return a == NOTHING ? b : a;
    return grammar_alt(s->m, a, b);
}

gram schema_opt(struct schema *s, gram a)
{
    return schema_alt(s, grammar_empty(s->m), a);
}

gram schema_rule(struct schema *s, gram body)
{
    int32_t rule;

    if (body < 0)
        return body;
    rule = grammar_rule(s->m);
    grammar_define(s->m, rule, body);
    return grammar_call(s->m, rule);
}

void *schema_grow(struct schema *s, void *p, uint32_t *cap, uint64_t need, size_t size)
{
    uint64_t want = *cap == 0 ? 16 : *cap;

    if (need <= *cap)
        return p;
    while (want < need)
        want *= 2;
    p = realloc(p, want * size);
    if (p == NULL)
        grammar_fail(s->m, E_FULL, "out of memory");
    else
        *cap = (uint32_t) want;
    return p;
}

/* What schemas have in common */

static gram digits(struct schema *s, int64_t min, int64_t max)
{
    return grammar_repeat(s->m, grammar_chars(s->m, &(struct code_range) { '0', '9' }, 1), min,
                          max);
}

static gram integer(struct schema *s)
{
    gram g = grammar_chars(s->m, &(struct code_range) { '1', '9' }, 1);

    g = schema_alt(s, grammar_text(s->m, "0"), schema_seq(s, g, digits(s, 0, 19)));
    return schema_seq(s, schema_opt(s, grammar_text(s->m, "-")), g);
}

static gram number(struct schema *s)
{
    static const struct code_range e[] = { { 'E', 'E' }, { 'e', 'e' } };
    static const struct code_range sign[] = { { '+', '+' }, { '-', '-' } };
    gram power = schema_seq(s, grammar_chars(s->m, e, 2),
                            schema_seq(s, schema_opt(s, grammar_chars(s->m, sign, 2)),
                                       digits(s, 1, 3)));
    gram fraction = schema_seq(s, grammar_text(s->m, "."), digits(s, 1, 20));

    return schema_seq(s, integer(s), schema_seq(s, schema_opt(s, fraction), schema_opt(s, power)));
}

/* Any number of these between brackets. */
static gram in_brackets(struct schema *s, const char *open, gram one, const char *end)
{
    gram more = grammar_repeat(s->m, schema_seq(s, s->comma, one), 0, -1);

    return schema_seq(s, grammar_text(s->m, open),
                      schema_seq(s, schema_opt(s, schema_seq(s, one, more)),
                                 grammar_text(s->m, end)));
}

static gram any_object(struct schema *s)
{
    gram key = s->as == SCHEMA_CALL ? schema_other_key(s, NULL, 0)
                                    : schema_shared(s, SHARED_STRING);

    return in_brackets(s, "{", schema_seq(s, key, schema_seq(s, s->colon,
                                                             schema_shared(s, SHARED_ANY))), "}");
}

static gram words(struct schema *s, const char *a, const char *b)
{
    return schema_alt(s, grammar_text(s->m, a), grammar_text(s->m, b));
}

static gram any(struct schema *s)
{
    gram g = schema_alt(s, grammar_text(s->m, "null"), words(s, "true", "false"));

    g = schema_alt(s, g, schema_shared(s, SHARED_STRING));
    g = schema_alt(s, g, schema_shared(s, SHARED_NUMBER));
    return schema_alt(s, g, schema_alt(s, schema_shared(s, SHARED_ARRAY),
                                       schema_shared(s, SHARED_OBJECT)));
}

/* A rule is known before its body is written: any is made of itself. */
gram schema_shared(struct schema *s, enum shared which)
{
    gram g = -1;

    if (s->shared[which] >= 0)
        return grammar_call(s->m, s->shared[which]);
    s->shared[which] = grammar_rule(s->m);
    if (s->shared[which] < 0)
        return -1;
    switch (which) {
    case SHARED_ANY:      g = any(s); break;
    case SHARED_OBJECT:   g = any_object(s); break;
    case SHARED_ARRAY:    g = in_brackets(s, "[", schema_shared(s, SHARED_ANY), "]"); break;
    case SHARED_STRING:   g = schema_any_string(s); break;
    case SHARED_NUMBER:   g = number(s); break;
    case SHARED_INTEGER:  g = integer(s); break;
    case SHARED_KEY_REST: g = schema_key_rest(s); break;
    case SHARED_KEY_RARE: g = schema_key_rare(s); break;
    case SHARED_N:        break;
    }
    grammar_define(s->m, s->shared[which], g);
    return grammar_call(s->m, s->shared[which]);
}

/* Places */

static const struct json *only_word(const struct words *w, enum word word)
{
    for (int i = 0; i < W_N; i++)
        if (i != (int) word && w->word[i] != NULL)
            return NULL;
    return w->word[word];
}

/* Where a schema that is a $ref and nothing else leads, so that all who refer to one share its
 * rule; a list of one, too. */
static const struct json *behind(struct schema *s, const struct json *schema)
{
    for (int i = 0; i < HOPS_MAX && schema->type == JSON_OBJECT; i++) {
        const struct json *one, *to = NULL;
        struct words       w;

        if (words_read(s, schema, &w) < 0)
            return NULL;
        one = only_word(&w, W_REF);
        if (one != NULL && one->type == JSON_STRING)
            to = schema_follow(s->root, one->text);
        one = only_word(&w, W_ALL_OF);
        if (one != NULL && one->type == JSON_ARRAY && one->n == 1)
            to = one->child;
        if (to == NULL)
            return schema;
        schema = to;
    }
    return schema;
}

int schema_list_add(struct schema *s, struct list *l, const struct json *schema,
                    const struct json *of)
{
    if (schema->type != JSON_TRUE && schema->type != JSON_FALSE && schema->type != JSON_OBJECT)
        return (int) schema_bad(s, schema, "a schema is an object or a boolean, not %s",
                                json_type_name(schema->type));
    schema = behind(s, schema);
    if (schema == NULL)
        return -1;
    if (schema->type == JSON_TRUE || (schema->type == JSON_OBJECT && schema->n == 0))
        return 0;
    for (uint32_t i = 0; i < l->n; i++)
        if (l->v[i] == schema)
            return 0;
    if (l->n == SCHEMA_ALL_MAX)
        return (int) schema_bad(s, of, "more than %d schemas hold at one place", SCHEMA_ALL_MAX);
    l->v[l->n++] = schema;
    return 0;
}

/* One of m's types, or all of them. */
static gram case_body(struct schema *s, const struct merged *m)
{
    gram g = NOTHING;

    if (m->n_list > 0)
        return schema_literals(s, m);
    if ((m->types & TYPE_NULL) != 0)
        g = grammar_text(s->m, "null");
    if ((m->types & TYPE_BOOLEAN) != 0)
        g = schema_alt(s, g, words(s, "true", "false"));
    if ((m->types & TYPE_STRING) != 0)
        g = schema_alt(s, g, schema_string(s, m));
    if ((m->types & (TYPE_NUMBER | TYPE_INTEGER)) != 0)
        g = schema_alt(s, g, schema_number(s, m));
    if ((m->types & TYPE_ARRAY) != 0)
        g = schema_alt(s, g, schema_array(s, m));
    if ((m->types & TYPE_OBJECT) != 0)
        g = schema_alt(s, g, schema_object(s, m));
    return g;
}

static bool is_free(const struct merged *m)
{
    return m->types == TYPE_ANY && m->n_list + m->n_object + m->n_array == 0 && !m->lo.given
           && !m->hi.given && m->min_length + m->min_items + m->min_members == 0
           && m->max_length == NO_MAX && m->max_items == NO_MAX && m->max_members == NO_MAX
           && m->pattern == NULL && m->format == NULL;
}

/* It holds other values, and these have schemas. */
static bool is_container(const struct merged *m)
{
    return m->n_list == 0 && (((m->types & TYPE_OBJECT) != 0 && m->n_object > 0)
                              || ((m->types & TYPE_ARRAY) != 0 && m->n_array > 0));
}

/* The alternatives of a place; *deep: one is a container, and the body was not written. NULL: write
 * it anyway. */
static gram place_body(struct schema *s, const struct list *l, bool *deep)
{
    struct cases  c;
    struct merged m;
    gram          g = NOTHING;
    int           rc = 1;

    s->why = "all alternatives are false";
    if (cases_of(s, l, &c) < 0) {
        cases_free(&c);
        return -1;
    }
    for (uint32_t i = 0; i < c.n && deep != NULL && rc >= 0 && !*deep; i++) {
        rc = case_merge(s, &c.v[i], &m);
        *deep = rc > 0 && is_container(&m);
    }
    for (uint32_t i = 0; i < c.n && (deep == NULL || !*deep) && g != -1; i++) {
        rc = case_merge(s, &c.v[i], &m);
        if (rc > 0)
            g = schema_alt(s, g, is_free(&m) ? schema_shared(s, SHARED_ANY) : case_body(s, &m));
        else if (rc < 0)
            g = -1;
    }
    cases_free(&c);
    if (g == NOTHING && (deep == NULL || !*deep))
        return schema_bad(s, l->v[0], "nothing is allowed: %s", s->why);
    return rc < 0 ? -1 : g;
}

static uint32_t hash(const struct list *l)
{
    uint64_t h = 0;

    for (uint32_t i = 0; i < l->n; i++)
        h = (h + (uint64_t) (uintptr_t) l->v[i]) * 0x9E3779B97F4A7C15u;
    return (uint32_t) (h >> 32);
}

/* Twice as many slots as places, at least. */
static int room_for_place(struct schema *s, const struct list *l)
{
    uint32_t            n_slot = s->n_slot == 0 ? 256 : 2 * s->n_slot, *slot;
    const struct json **key = schema_grow(s, s->key, &s->cap_key, (uint64_t) s->n_key + l->n,
                                          sizeof(*key));
    struct place       *place;

    if (key == NULL)
        return -1;
    s->key = key;
    place = schema_grow(s, s->place, &s->cap_place, (uint64_t) s->n_place + 1, sizeof(*place));
    if (place == NULL)
        return -1;
    s->place = place;
    if (2 * (s->n_place + 1) <= s->n_slot)
        return 0;

    slot = calloc(n_slot, sizeof(*slot));
    if (slot == NULL)
        return (int) grammar_fail(s->m, E_FULL, "out of memory");
    for (uint32_t i = 0; i < s->n_place; i++) {
        uint32_t at = s->place[i].hash & (n_slot - 1);

        while (slot[at] != 0)
            at = (at + 1) & (n_slot - 1);
        slot[at] = i + 1;
    }
    free(s->slot);
    s->slot = slot;
    s->n_slot = n_slot;
    return 0;
}

static gram add_place(struct schema *s, const struct list *l, uint32_t at)
{
    struct place p = { .at = s->n_key, .n = l->n, .hash = hash(l), .rule = -1 };
    bool         deep = false;

    p.piece = place_body(s, l, &deep);
    if (deep) {
        p.rule = grammar_rule(s->m);
        p.piece = p.rule < 0 ? -1 : grammar_call(s->m, p.rule);
    }
    if (p.piece == -1)
        return -1;
    memcpy(s->key + s->n_key, l->v, l->n * sizeof(l->v[0]));
    s->n_key += l->n;
    s->place[s->n_place++] = p;
    s->slot[at] = s->n_place;
    return p.piece;
}

gram schema_value(struct schema *s, const struct list *l)
{
    uint32_t h = hash(l), at;

    if (l->n == 0)
        return schema_shared(s, SHARED_ANY);
    for (uint32_t i = 0; i < l->n; i++)
        if (l->v[i]->type == JSON_FALSE)
            return NOTHING;
    if (room_for_place(s, l) < 0)
        return -1;
    for (at = h & (s->n_slot - 1); s->slot[at] != 0; at = (at + 1) & (s->n_slot - 1)) {
        const struct place *p = &s->place[s->slot[at] - 1];

        if (p->hash == h && p->n == l->n
            && memcmp(s->key + p->at, l->v, l->n * sizeof(l->v[0])) == 0)
            return p->piece;
    }
    return add_place(s, l, at);
}

/* The bodies that wait, and those that come to wait meanwhile. */
static int write_bodies(struct schema *s)
{
    struct list l;
    gram        g;

    for (uint32_t i = 0; i < s->n_place; i++) {
        if (s->place[i].rule < 0)
            continue;
        l.n = s->place[i].n;
        memcpy(l.v, s->key + s->place[i].at, l.n * sizeof(l.v[0]));
        g = place_body(s, &l, NULL);
        if (g < 0)
            return -1;
        grammar_define(s->m, s->place[i].rule, g);
    }
    return 0;
}

/* The header's functions */

struct schema *schema_open(struct grammar_make *m, enum schema_as as, int32_t quote)
{
    struct schema *s = calloc(1, sizeof(*s));
    gram           blank;

    if (s == NULL)
        return NULL;
    s->m = m;
    s->as = as;
    s->quote = quote;
    s->chars = s->fewer_chars = -1;
    s->character = NOTHING;
    for (int i = 0; i < SHARED_N; i++)
        s->shared[i] = -1;
    for (int i = 0; i < SCHEMA_FORMAT_N; i++)
        s->format[i] = NOTHING;
    blank = as == SCHEMA_JSON ? schema_opt(s, grammar_text(m, " ")) : grammar_empty(m);
    s->comma = schema_seq(s, grammar_text(m, ","), blank);
    s->colon = schema_seq(s, grammar_text(m, ":"), blank);
    return s;
}

void schema_close(struct schema *s)
{
    if (s == NULL)
        return;
    free(s->place);
    free(s->key);
    free(s->slot);
    free(s->sized);
    free(s->ranged);
    free(s);
}

gram schema_add(struct schema *s, const struct json *root)
{
    struct list l = { .n = 0 };
    gram        g;

    s->root = root;
    s->n_place = s->n_key = 0;
    if (s->n_slot > 0)
        memset(s->slot, 0, s->n_slot * sizeof(*s->slot));
    if (schema_list_add(s, &l, root, root) < 0
        || (s->as == SCHEMA_CALL && schema_list_add(s, &l, &object_schema, root) < 0))
        return -1;
    g = schema_value(s, &l);
    if (g == NOTHING)
        return schema_bad(s, root, "nothing is allowed: the schema is false");
    return g < 0 || write_bodies(s) < 0 ? -1 : g;
}

gram schema_gram(struct grammar_make *m, const struct json *root, enum schema_as as, int32_t quote)
{
    struct schema *s = schema_open(m, as, quote);
    gram           g = s == NULL ? grammar_fail(m, E_FULL, "out of memory") : schema_add(s, root);

    schema_close(s);
    return g;
}

gram schema_any_object(struct grammar_make *m, enum schema_as as, int32_t quote)
{
    struct schema *s = schema_open(m, as, quote);
    gram           g = s == NULL ? grammar_fail(m, E_FULL, "out of memory")
                                 : schema_shared(s, SHARED_OBJECT);

    schema_close(s);
    return g;
}
