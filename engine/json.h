/* json.h - a JSON document as a tree, on yajl's event parser.
 *
 * All nodes live in one arena that json_free drops at once. Strings are NUL-safe slices of valid
 * UTF-8; numbers keep their text, so 1, 1.0 and 2^63 stay apart. No recursion on input anywhere.
 * Refused, with the byte offset: depth, node or byte limits, invalid UTF-8, lone surrogates,
 * duplicate keys, trailing bytes. */
#ifndef ENGINE_JSON_H
#define ENGINE_JSON_H

#include "buf.h"
#include "err.h"

enum json_type {
    JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT
};

struct json {
    enum json_type type;
    bool           is_int;      /* a NUMBER without '.', 'e', 'E' */
    uint32_t       n;           /* children of an ARRAY or OBJECT */
    struct slice   key;         /* when the parent is an OBJECT */
    struct slice   text;        /* bytes of a STRING, digits of a NUMBER */
    struct json   *child;       /* first child, in input order */
    struct json   *next;        /* next sibling */
};

struct json_limits { size_t bytes; uint32_t depth, nodes; };

struct json_doc;

int  json_parse(struct json_doc **out, const struct json **root, const char *p, size_t n,
                const struct json_limits *lim, struct err *e);
void json_free(struct json_doc *d);                   /* NULL is fine */

/* NULL when absent (or o is not an object). */
const struct json *json_get(const struct json *o, const char *key);

/* Numbers: E_INVALID if not a number, not integral (1.0 and 1e3 count as integral) or out of
 * range; json_double refuses non-finite results. */
int  json_int(const struct json *j, int64_t *v);
int  json_double(const struct json *j, double *v);

/* Write the tree compactly (numbers verbatim). */
void json_write(const struct json *j, struct buf *out);

const char *json_type_name(enum json_type t);         /* "an object", "a string", ... */

#endif
