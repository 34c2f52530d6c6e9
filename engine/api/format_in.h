/* format_in.h - setters of the fields that tell what the text of an answer has to be; see field.h.
 *
 * OpenAI, vLLM, SGLang and llama.cpp have names of their own for it: one of them may be given, and
 * lands in struct format. Shapes and lengths are checked here; whether a schema, an expression or a
 * grammar can be enforced is found out by guide_open. */
#ifndef API_FORMAT_IN_H
#define API_FORMAT_IN_H

#include "ebnf.h"
#include "field.h"
#include "regex.h"

/* An object of the tables below. */
field_fn format_response, format_outputs;
extern const struct field format_response_fields[], format_schema_fields[],
                          format_output_fields[];

/* A schema, as an object or as its text; an expression; texts; EBNF. */
field_fn format_json, format_regex, format_choice, format_ebnf;

/* An OBJECT of format_schema_fields at path; named: a name is required. Unknown members are counted
 * in a, and nothing is stored. 0, or E_INVALID and *e. */
int format_check_schema(const struct json *o, const char *path, bool named, struct ask *a,
                        struct api_err *e);

#endif
