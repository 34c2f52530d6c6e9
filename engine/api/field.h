/* field.h - tables of the fields of a JSON body: names, types, bounds, defaults, a line of help.
 *
 * The setters check and store; docs/api.md is made of the same rows. A null is an absent field. */
#ifndef API_FIELD_H
#define API_FIELD_H

#include "openai_in.h"

#define FIELD_NOWHERE SIZE_MAX       /* checked, not stored: it cannot change the answer */

struct field {
    const char *name;                /* NULL: the end of a table */
    uint32_t    kinds;               /* enum ask_kind bits; elsewhere the field is unknown */
    int       (*set)(const struct field *f, const struct json *v, struct ask *a,
                     const char *path, struct api_err *e);
    size_t      off;                 /* of struct ask, or FIELD_NOWHERE */
    double      min, max;            /* of a number; of the bytes of a string, the length of an
                                        array */
    const char *note;                /* field_refuse: the values without effect, space-separated;
                                        of a setter that does not tell it: the type, for docs */
    const char *dflt;                /* for docs: what an absent field means; NULL: nothing */
    const char *help;                /* for docs */
};

typedef int field_fn(const struct field *f, const struct json *v, struct ask *a, const char *path,
                     struct api_err *e);

struct field_set { const char *prefix; uint32_t kinds; const struct field *rows; };
extern const struct field_set openai_sets[];     /* openai_in.c, for docs; rows NULL: the end */

/* What is stored: int64_t; double; bool; enum ask_flag; struct slice; const struct json *. */
field_fn field_int, field_num, field_bool, field_flag, field_str, field_array;
/* Known, not built: only what would have no effect anyway passes. */
field_fn field_refuse;
/* Whatever it is, somebody else looks at it. */
field_fn field_leave;

/* "integer", "string", ...; NULL: of field_refuse. */
const char *field_type(const struct field *f);

/* 400 invalid_type: what it must be, and what it is. */
int field_bad_type(const char *path, const char *want, const struct json *v, struct api_err *e);

/* All members of obj by the table; who is in no row of this kind is counted in a->n_unknown, and
 * the first of them named in a->unknown. prefix goes before names in errors. */
int field_set_all(const struct field *table, uint32_t kind, const char *prefix,
                  const struct json *obj, struct ask *a, struct api_err *e);

/* Is it one of these names, with a space between? */
bool field_among(struct slice key, const char *names);

#endif
