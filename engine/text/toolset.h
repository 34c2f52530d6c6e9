/* toolset.h - the tools that a request declares: their names, and what their schemas allow where.
 *
 * Read-only after toolset_open: all choices of a request share one. Names are few and looked for
 * one after the other. Schemas are walked, never compiled: a place is the list of subschemas that
 * speak of it, through anyOf, oneOf, allOf and local $ref, without recursion and bounded. */
#ifndef TEXT_TOOLSET_H
#define TEXT_TOOLSET_H

#include "err.h"
#include "json.h"

#define SCHEMA_ALT_MAX 12               /* subschemas of one place; beyond: nothing is known */

struct toolset;

/* tools: ARRAY of {"type":"function","function":{"name":...,"parameters":{...}}}, names checked.
 * What is needed of it is copied. 0, or E_FULL: out of memory. */
int  toolset_open(struct toolset **out, const struct json *tools, struct err *e);
void toolset_close(struct toolset *t);                /* NULL is fine */

int32_t toolset_find(const struct toolset *t, struct slice name);      /* -1: not declared */
/* Some name begins like this. */
bool toolset_begins(const struct toolset *t, struct slice start);

enum {                                  /* what may stand at a place, as bits */
    TYPE_STRING = 1, TYPE_NUMBER = 2, TYPE_INTEGER = 4, TYPE_BOOLEAN = 8, TYPE_NULL = 16,
    TYPE_OBJECT = 32, TYPE_ARRAY = 64,
};

struct schema_place {
    const struct json *root;            /* of the whole schema, for $ref */
    const struct json *alt[SCHEMA_ALT_MAX];
    int32_t            n;               /* 0: nothing is known of it */
};

/* What "#/$defs/Name", a JSON pointer as a URI writes it, leads to in a schema; NULL: nowhere. It
 * may lead back. */
const struct json *schema_follow(const struct json *root, struct slice ref);

/* The arguments of tool i; -1: nothing is known. */
void schema_root(const struct toolset *t, int32_t i, struct schema_place *at);
/* Inside: the value of a key, an element of an array. to may be at. */
void schema_key(const struct schema_place *at, struct slice key, struct schema_place *to);
void schema_element(const struct schema_place *at, struct schema_place *to);
/* TYPE_ bits; 0: anything. */
uint32_t schema_types(const struct schema_place *at);

#endif
