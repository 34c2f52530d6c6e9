/* schema_priv.h - the steps from a schema to a grammar; only schema_*.c see it.
 *
 * schema.c          places and their rules: which subschemas hold where, each combination once
 * schema_words.c    keywords: which are known, which are refused, and where in the schema that was
 * schema_case.c     $ref, allOf, anyOf, oneOf away: a place as alternatives, each a list of
 *                   subschemas that hold together; and what those say together of each type
 * schema_object.c   objects         schema_array.c   arrays and counts
 * schema_number.c   numbers         schema_string.c  strings, formats
 * schema_literal.c  enum, const     schema_key.c     keys
 *
 * Nothing recurses: a value inside another is a rule, whose body is written later. */
#ifndef GRAMMAR_SCHEMA_PRIV_H
#define GRAMMAR_SCHEMA_PRIV_H

#include "buf.h"
#include "chat.h"
#include "dec.h"
#include "schema.h"
#include "toolset.h"

#define SCHEMA_ALL_MAX   32             /* subschemas that hold at one place together */
#define SCHEMA_CASE_MAX  1024           /* alternatives of one place */
#define SCHEMA_COUNT_MAX (1 << 24)      /* no answer has so many characters or elements */
#define SCHEMA_FORMAT_N  10
#define SCHEMA_DEPTH_MAX 128            /* of a path, of an enum's value */

#define NOTHING (-2)                    /* instead of a piece: no text at all. -1 is failed */
#define NO_MAX  (-1)

#define TYPE_ANY (TYPE_STRING | TYPE_NUMBER | TYPE_INTEGER | TYPE_BOOLEAN | TYPE_NULL \
                  | TYPE_OBJECT | TYPE_ARRAY)

enum word {
    W_ADDITIONAL_ITEMS, W_ADDITIONAL, W_ALL_OF, W_ANY_OF, W_CONST, W_ENUM, W_EX_MAXIMUM,
    W_EX_MINIMUM, W_FORMAT, W_ITEMS, W_MAX_ITEMS, W_MAX_LENGTH, W_MAX_PROPERTIES, W_MAXIMUM,
    W_MIN_ITEMS, W_MIN_LENGTH, W_MIN_PROPERTIES, W_MINIMUM, W_MULTIPLE_OF, W_NULLABLE, W_ONE_OF,
    W_PATTERN, W_PATTERN_PROPERTIES, W_PREFIX_ITEMS, W_PROPERTIES, W_REF, W_REQUIRED, W_TYPE,
    W_N,
};
struct words { const struct json *schema, *word[W_N]; };

/* What one subschema says of an object's members or an array's elements: of those that it names, of
 * the others. */
struct part { const struct json *schema, *own, *other, *by_pattern; };

/* What the subschemas of a case say together. */
struct merged {
    uint32_t           types;           /* INTEGER without NUMBER: no fractions */
    const struct json *list[2 * SCHEMA_ALL_MAX];     /* enum arrays and const values */
    bool               is_const[2 * SCHEMA_ALL_MAX];
    uint32_t           n_list;
    struct dec         lo, hi;
    int64_t            min_length, max_length;       /* max NO_MAX: none */
    const struct json *pattern, *format, *schema;
    struct part        object[SCHEMA_ALL_MAX];
    const struct json *required[SCHEMA_ALL_MAX];     /* with the same index; NULL: none */
    struct part        array[SCHEMA_ALL_MAX];
    uint32_t           n_object, n_array;
    int64_t            min_members, max_members, min_items, max_items;
};

/* A list of subschemas, from: the index of the one that led to each; itself: it was there first. */
struct schema_case {
    uint32_t n, done, step;             /* done: how many have no $ref, allOf .. left */
    struct { const struct json *schema; uint32_t from; } all[SCHEMA_ALL_MAX];
};
struct cases { struct schema_case *v; uint32_t n, cap; };

struct list { const struct json *v[SCHEMA_ALL_MAX]; uint32_t n; };

struct place {                          /* subschemas that hold together, in any order */
    uint32_t at, n;                     /* in keys */
    uint32_t hash;
    gram     piece;
    int32_t  rule;                      /* to be defined; -1: piece is all there is */
};

enum shared { SHARED_ANY, SHARED_OBJECT, SHARED_ARRAY, SHARED_STRING, SHARED_NUMBER,
              SHARED_INTEGER, SHARED_KEY_REST, SHARED_KEY_RARE, SHARED_N };

struct schema {
    struct grammar_make *m;
    const struct json   *root;
    enum schema_as       as;
    int32_t              quote;
    const char          *why;           /* the last alternative that fell away did because of it */
    int32_t              shared[SHARED_N];           /* rules; -1: not made yet */
    int32_t              chars, fewer_chars;         /* rules of schema_times; likewise */
    gram                 comma, colon, character;    /* the last: NOTHING until it is made */
    struct place        *place;
    const struct json  **key;           /* the lists of all places */
    uint32_t            *slot;          /* places by hash, 0: free, else 1 + its index */
    uint32_t             n_place, cap_place, n_key, cap_key, n_slot;
    struct sized { int64_t min, max; gram g; } *sized;           /* strings by their lengths */
    struct ranged { struct dec lo, hi; bool whole; gram g; } *ranged;    /* numbers */
    uint32_t             n_sized, cap_sized, n_ranged, cap_ranged;
    gram                 format[SCHEMA_FORMAT_N];    /* NOTHING: not made yet */
    int64_t              n_flat;        /* of FLAT_MAX in schema_string.c */
};

/* schema.c. A piece for a value of which all of the list hold; NOTHING: one of them is false. */
gram schema_value(struct schema *s, const struct list *l);
int  schema_list_add(struct schema *s, struct list *l, const struct json *schema,
                     const struct json *of);        /* 0 or -1: it is none, or they are too many */
/* Pieces where one may be NOTHING, or failed. */
gram schema_seq(struct schema *s, gram a, gram b);
gram schema_alt(struct schema *s, gram a, gram b);
gram schema_opt(struct schema *s, gram a);
gram schema_rule(struct schema *s, gram body);      /* as a rule of its own */
gram schema_shared(struct schema *s, enum shared which);
void *schema_grow(struct schema *s, void *p, uint32_t *cap, uint64_t need, size_t size);

/* schema_words.c */
int  words_read(struct schema *s, const struct json *schema, struct words *w);
/* A count, if it is there. -1: failed. */
int  words_count(struct schema *s, const struct words *w, enum word word, int64_t *v);
__attribute__((format(printf, 3, 4)))
gram schema_bad(struct schema *s, const struct json *at, const char *fmt, ...);
int  schema_type(const struct json *name);          /* TYPE_ bit, 0: no type */

/* schema_case.c */
int  cases_of(struct schema *s, const struct list *l, struct cases *out);
void cases_free(struct cases *c);
/* 1; 0: nothing fits, s->why says why; -1: failed. */
int  case_merge(struct schema *s, const struct schema_case *c, struct merged *out);
/* One type of a case. */
gram schema_object(struct schema *s, const struct merged *m);
gram schema_array(struct schema *s, const struct merged *m);
gram schema_number(struct schema *s, const struct merged *m);
gram schema_string(struct schema *s, const struct merged *m);
gram schema_literals(struct schema *s, const struct merged *m);

/* schema_array.c. unit, min to max times; where that is many, in blocks. block, fewer: the rules of
 * those of this unit, -1 until they are made. */
gram schema_times(struct schema *s, gram unit, int64_t min, int64_t max, int32_t *block,
                  int32_t *fewer);
/* And what stands behind them; block and fewer are of this end. A rule that may end anywhere makes
 * masks slow, so what ends it is better in it. */
gram schema_times_end(struct schema *s, gram unit, int64_t min, int64_t max, gram end,
                      int32_t *block, int32_t *fewer);

/* schema_string.c */
gram schema_quoted(struct schema *s, gram inside);
gram schema_any_string(struct schema *s);
gram schema_pattern(struct schema *s, const struct json *at, struct slice p);    /* quoted */
bool schema_is_format(const struct json *name);     /* one that is enforced; NULL is none */
size_t schema_length(struct slice text);            /* code points */

/* schema_key.c; the last two are bodies of shared rules. */
gram schema_key_text(struct schema *s, struct slice key);        /* as it is written */
gram schema_other_key(struct schema *s, const struct slice *key, uint32_t n);    /* but these */
gram schema_key_rest(struct schema *s);
gram schema_key_rare(struct schema *s);

#endif
