/* schema.h - a JSON Schema as a grammar of the values that it allows.
 *
 * Keywords that only describe are passed over, unknown ones and null among them; what narrows a
 * value and cannot be enforced is refused by name, with the path to it, and so is what allows no
 * value. The language is at times narrower than the schema, never wider but where said:
 * - Members come in the order of properties, in a call by their keys, each at most once; then
 *   required ones that no properties name; then others, whose keys are none of these. Of those two
 *   may be the same: no automaton counts them. Where properties are given there are others only if
 *   additionalProperties says so. Behind prefixItems, likewise, if items says so or minItems needs
 *   them.
 * - oneOf is anyOf: its alternatives are taken to exclude each other.
 * - Numbers have at most 20 digits before the point, 20 behind it and an exponent of 3; between
 *   bounds no exponent and, with a fraction, 15 digits in all, which a double keeps apart. An
 *   integer is written without a point.
 * - enum and const are written compactly, as they stand in the schema.
 * - Formats (date, time, date-time, duration, email, hostname, ipv4, ipv6, uri, uuid) are shapes
 *   with an end; beside pattern, enum or const they only describe, as unknown ones do.
 * - Values nest as deep as the matcher goes (MATCHER_DEPTH_MAX). In a call the parser reads
 *   brackets beyond its TOOLCALL_DEPTH_MAX as text.
 * White space: at most one space behind ':' and ','.
 *
 * Enforced: type, enum, const, nullable, properties, required, additionalProperties,
 * patternProperties (one, and nothing beside it), minProperties (0, 1, or as many as must come),
 * maxProperties (as many as may come, or where all that are declared must), items, prefixItems,
 * additionalItems, the counts of elements and characters, pattern (not with lengths), the bounds,
 * multipleOf 1, anyOf, oneOf, allOf and $ref, beside other keywords too, into the schema itself. */
#ifndef GRAMMAR_SCHEMA_H
#define GRAMMAR_SCHEMA_H

#include "grammar.h"
#include "json.h"

enum schema_as {
    SCHEMA_JSON,
    SCHEMA_JSON_TIGHT,                   /* no white space at all */
    SCHEMA_CALL,                         /* as the arguments of a tool call are written: an object,
                                            bare keys in order of chat.h, strings between two quote
                                            tokens */
};

/* quote: the id of <|"|>, of SCHEMA_CALL. root: the schema, true for any value. -1: failed, as m
 * says. */
gram schema_gram(struct grammar_make *m, const struct json *root, enum schema_as as, int32_t quote);
/* Any JSON object. */
gram schema_any_object(struct grammar_make *m, enum schema_as as, int32_t quote);

/* The same for several schemas of one grammar: they share the rules that they have in common.
 * open: NULL if out of memory. A root must live until schema_add returns. */
struct schema;
struct schema *schema_open(struct grammar_make *m, enum schema_as as, int32_t quote);
gram schema_add(struct schema *s, const struct json *root);
void schema_close(struct schema *s);                     /* NULL is fine; the pieces stay */

#endif
