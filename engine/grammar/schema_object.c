/* schema_object.c - objects: their members in one order, each at most once. */
#include "schema_priv.h"

#include <stdlib.h>
#include <string.h>

struct member {
    struct slice key;
    uint32_t     at;                    /* its place among the others, for a stable order */
    bool         required;
    uint32_t     first, last;           /* links to what its parts say of it; 0: none */
};
struct link { const struct json *schema; uint32_t part, next; };

/* Of one object while it is written. */
struct members {
    struct member *v;
    struct link   *link;
    uint32_t      *slot;                /* members by hash; 0: free, else 1 + its index */
    uint32_t       n, n_link, n_slot;
};

static uint32_t hash(struct slice key)
{
    uint32_t h = 2166136261u;

    for (size_t i = 0; i < key.n; i++)
        h = (h ^ (unsigned char) key.p[i]) * 16777619u;
    return h ^ h >> 15;
}

static struct member *member_of(struct members *o, struct slice key)
{
    uint32_t at = hash(key) & (o->n_slot - 1);

    for (; o->slot[at] != 0; at = (at + 1) & (o->n_slot - 1)) {
        struct member *v = &o->v[o->slot[at] - 1];

        if (v->key.n == key.n && memcmp(v->key.p, key.p, key.n) == 0)
            return v;
    }
    o->v[o->n] = (struct member) { .key = key, .at = o->n };
    o->slot[at] = ++o->n;
    return &o->v[o->n - 1];
}

static int by_key(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    int                  c = chat_key_cmp(x->key, y->key);

    return c != 0 ? c : (x->at > y->at) - (x->at < y->at);
}

static void collect(struct members *o, const struct merged *m)
{
    for (uint32_t k = 0; k < m->n_object; k++) {
        const struct json *own = m->object[k].own;

        for (const struct json *j = own != NULL ? own->child : NULL; j != NULL; j = j->next) {
            struct member *v = member_of(o, j->key);

            o->link[++o->n_link] = (struct link) { j, k, 0 };
            *(v->first == 0 ? &v->first : &o->link[v->last].next) = o->n_link;
            v->last = o->n_link;
        }
    }
    for (uint32_t k = 0; k < m->n_object; k++)
        for (const struct json *j = m->required[k] != NULL ? m->required[k]->child : NULL;
             j != NULL; j = j->next)
            member_of(o, j->text)->required = true;
}

static int members_open(struct schema *s, struct members *o, const struct merged *m)
{
    uint64_t n = 1;

    for (uint32_t k = 0; k < m->n_object; k++)
        n += (m->object[k].own != NULL ? m->object[k].own->n : 0)
             + (m->required[k] != NULL ? m->required[k]->n : 0);
    *o = (struct members) { .n_slot = 16 };
    while (o->n_slot < 2 * n)
        o->n_slot *= 2;
    o->v = malloc(n * sizeof(*o->v));
    o->link = malloc((n + 1) * sizeof(*o->link));
    o->slot = calloc(o->n_slot, sizeof(*o->slot));
    if (o->v == NULL || o->link == NULL || o->slot == NULL)
        return (int) grammar_fail(s->m, E_FULL, "out of memory");

    collect(o, m);
    if (s->as == SCHEMA_CALL)
        qsort(o->v, o->n, sizeof(*o->v), by_key);
    return 0;
}

static void members_free(struct members *o)
{
    free(o->v);
    free(o->link);
    free(o->slot);
}

/* What the parts say of a member, each by its properties or else by additionalProperties. v NULL:
 * of a key that none of them names. */
static gram member_value(struct schema *s, const struct members *o, const struct merged *m,
                         const struct member *v)
{
    struct list l = { .n = 0 };
    uint32_t    at = v != NULL ? v->first : 0;

    for (uint32_t k = 0; k < m->n_object; k++) {
        const struct json *schema = m->object[k].other;

        if (at != 0 && o->link[at].part == k) {
            schema = o->link[at].schema;
            at = o->link[at].next;
        }
        if (schema != NULL && schema_list_add(s, &l, schema, m->object[k].schema) < 0)
            return -1;
    }
    return schema_value(s, &l);
}

/* A member, or any number of them: as the first that comes, and behind another, with the comma. */
struct run { gram first, behind; bool may_lack; };

static struct run one(struct schema *s, gram member, bool required)
{
    gram behind = schema_seq(s, s->comma, member);

    return (struct run) { member, required ? behind : schema_opt(s, behind), !required };
}

/* What comes of the first i members, and i behind it; or, if none of those need be there, i as the
 * first: each is written twice, however many there are. */
static gram join(struct schema *s, const struct run *run, uint32_t n, bool may_lack)
{
    bool lack = true;
    gram g = NOTHING;

    for (uint32_t i = 0; i < n; i++) {
        g = schema_seq(s, g, run[i].behind);
        if (lack)
            g = schema_alt(s, g, run[i].first);
        lack &= run[i].may_lack;
    }
    return lack && (may_lack || n == 0) ? schema_opt(s, g) : g;
}

/* Keys that no properties name: are there any? One that patternProperties means is *pattern. */
static bool has_others(struct schema *s, const struct merged *m, const struct members *o,
                       const struct json **pattern, bool *bad)
{
    bool named = false, said = false, none = false;

    *pattern = NULL;
    *bad = false;
    for (uint32_t k = 0; k < m->n_object; k++) {
        const struct part *p = &m->object[k];

        named |= p->own != NULL;
        said |= p->other != NULL;
        if (p->by_pattern == NULL || p->by_pattern->n == 0) {
            none |= p->other != NULL && p->other->type == JSON_FALSE;
            continue;
        }
        if (*pattern != NULL || p->by_pattern->n > 1 || o->n > 0) {
            schema_bad(s, p->schema, "'patternProperties' cannot be enforced, but for one pattern "
                       "and nothing beside it");
            *bad = true;
            return false;
        }
        *pattern = p->by_pattern->child;
    }
    return !none && (*pattern != NULL || said || !named);
}

/* A member that is not declared. */
static gram other_member(struct schema *s, const struct members *o, const struct merged *m,
                         const struct json *pattern)
{
    struct slice *name;
    gram          key, value;

    if (pattern != NULL) {
        struct list l = { .n = 0 };

        for (uint32_t k = 0; k < m->n_object; k++) {
            const struct part *p = &m->object[k];
            bool               by_it = p->by_pattern != NULL && p->by_pattern->n > 0;
            const struct json *schema = by_it ? pattern : p->other;

            if (schema != NULL && schema_list_add(s, &l, schema, p->schema) < 0)
                return -1;
        }
        key = schema_pattern(s, pattern, pattern->key);
        return schema_seq(s, key, schema_seq(s, s->colon, schema_value(s, &l)));
    }

    value = member_value(s, o, m, NULL);
    if (o->n == 0 && s->as != SCHEMA_CALL)
        return schema_seq(s, schema_shared(s, SHARED_STRING), schema_seq(s, s->colon, value));
    name = malloc((o->n + 1) * sizeof(*name));
    if (name == NULL)
        return grammar_fail(s->m, E_FULL, "out of memory");
    for (uint32_t i = 0; i < o->n; i++)
        name[i] = o->v[i].key;
    key = schema_rule(s, schema_other_key(s, name, o->n));
    free(name);
    return schema_seq(s, key, schema_seq(s, s->colon, value));
}

/* 1; 0: minProperties and maxProperties leave nothing; -1: they would have to be counted among
 * members that may be left out, or of which two may be the same. */
static int obeys(struct schema *s, const struct merged *m, uint32_t n_required, uint32_t n,
                 bool others)
{
    int64_t min = m->min_members, max = m->max_members;

    if ((max != NO_MAX && (min > max || n_required > max)) || (min > n && !others)) {
        s->why = "an object of it must have more members than it may have";
        return 0;
    }
    if (min > n_required && min > 1)
        return schema_bad(s, m->schema, "'minProperties' cannot be enforced here");
    if (max != NO_MAX && n > n_required && (n > max || others))
        return schema_bad(s, m->schema, "'maxProperties' cannot be enforced here");
    return 1;
}

/* All declared members into runs. 1; 0: one that is required cannot be there; -1: failed. */
static int declared(struct schema *s, const struct members *o, const struct merged *m,
                    struct run *run, uint32_t *n, uint32_t *n_required)
{
    *n = *n_required = 0;
    for (uint32_t i = 0; i < o->n; i++) {
        const struct member *v = &o->v[i];
        gram                 g = member_value(s, o, m, v);

        if (v->first == 0 && g == NOTHING)
            s->why = "a required key may not be there";
        else if (g == NOTHING)
            s->why = "a required key has no value";
        if (g == -1 || (g == NOTHING && v->required))
            return g == -1 ? -1 : 0;
        if (g == NOTHING)
            continue;
        g = schema_seq(s, schema_key_text(s, v->key), schema_seq(s, s->colon, g));
        run[(*n)++] = one(s, g, v->required);
        *n_required += v->required;
    }
    return 1;
}

static gram body(struct schema *s, const struct members *o, const struct merged *m,
                 struct run *run)
{
    const struct json *pattern;
    uint32_t           n, n_required;
    bool               bad, others = has_others(s, m, o, &pattern, &bad);
    int                rc = bad ? -1 : declared(s, o, m, run, &n, &n_required);
    int64_t            max = m->max_members;
    gram               g = NOTHING;

    if (rc <= 0)
        return rc < 0 ? -1 : NOTHING;
    if (others)
        g = other_member(s, o, m, pattern);
    if (g == -1)
        return -1;
    rc = obeys(s, m, n_required, n, g != NOTHING);
    if (rc <= 0)
        return rc < 0 ? -1 : NOTHING;
    if (g != NOTHING && max != n) {
        int64_t more = max == NO_MAX ? NO_MAX : max - n;
        int32_t block = -1, fewer = -1;
        gram    next = schema_seq(s, s->comma, g);

        run[n].behind = schema_times(s, next, 0, more, &block, &fewer);
        run[n].first = schema_seq(s, g, schema_times(s, next, 0, more == NO_MAX ? NO_MAX : more - 1,
                                                     &block, &fewer));
        run[n++].may_lack = true;
    }
    return join(s, run, n, m->min_members == 0);
}

gram schema_object(struct schema *s, const struct merged *m)
{
    struct members o;
    struct run    *run = NULL;
    gram           g = -1;

    if (m->n_object == 0 && m->min_members == 0 && m->max_members == NO_MAX)
        return schema_shared(s, SHARED_OBJECT);
    if (members_open(s, &o, m) == 0) {
        run = malloc((o.n + 1) * sizeof(*run));
        g = run == NULL ? grammar_fail(s->m, E_FULL, "out of memory") : body(s, &o, m, run);
    }
    free(run);
    members_free(&o);
    return schema_seq(s, grammar_text(s->m, "{"), schema_seq(s, g, grammar_text(s->m, "}")));
}
