/* schema.h - a JSON Schema as a grammar of the values that it allows.
 *
 * Keywords that only describe are passed over; what narrows a value and cannot be enforced is
 * refused by name, with the path to it. The language is at times narrower than the schema, never
 * wider: members come in the order of properties, none comes twice, and where properties are given
 * others come only if additionalProperties says so; numbers have at most 20 digits and an exponent,
 * free values nest at most SCHEMA_FREE_DEPTH deep. White space: at most one space behind ':' and
 * ','. */
#ifndef TEXT_SCHEMA_H
#define TEXT_SCHEMA_H

#include "grammar.h"
#include "json.h"

#define SCHEMA_FREE_DEPTH 64

enum schema_as {
    SCHEMA_JSON,
    SCHEMA_JSON_TIGHT,                   /* no white space at all */
    SCHEMA_CALL,                         /* as the arguments of a tool call are written: bare keys
                                            in order of chat.h, strings between two quote tokens */
};

/* quote: the id of <|"|>, of SCHEMA_CALL. root: the schema, true for any value. -1: failed, as m
 * says. */
gram schema_gram(struct grammar_make *m, const struct json *root, enum schema_as as, int32_t quote);
/* Any JSON object. */
gram schema_any_object(struct grammar_make *m, enum schema_as as, int32_t quote);

#endif
