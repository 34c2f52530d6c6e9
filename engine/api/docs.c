#include "docs.h"

#include <inttypes.h>
#include <string.h>

#include "format_in.h"
#include "translate.h"

/* What both kinds of tables say of a field. */
struct row {
    const char *prefix, *name;
    char        where[8];            /* routes as letters; "": the table is of one, no defaults */
    const char *type;                /* NULL: refused */
    double      min, max;            /* both 0: no bounds */
    const char *dflt, *help;
    const char *only;                /* refused, but for these values; NULL: always */
};

/* A '|' would end the cell. */
static void put_cell(struct buf *b, const char *s)
{
    buf_str(b, " ");
    for (const char *c = s; c != NULL && *c != '\0'; c++)
        buf_fmt(b, *c == '|' ? "\\%c" : "%c", *c);
    buf_str(b, s != NULL && *s != '\0' ? " |" : "|");
}

static void put_bounds(struct buf *b, const struct row *r)
{
    const char *unit = strcmp(r->type, "string") == 0 ? " bytes"
                       : strstr(r->type, "array") != NULL ? " elements"
                       : strcmp(r->type, "object") == 0 ? " members" : "";

    buf_fmt(b, " %s", r->type);
    if (r->min == 0 && r->max == 0)
        buf_str(b, " |");
    else if (r->max == INT32_MAX && r->min == INT32_MIN)
        buf_str(b, " of 32 bits |");
    else if (r->max == INT32_MAX)
        buf_fmt(b, ", %.0f or more |", r->min);
    else if (r->min == 0 && *unit != '\0')
        buf_fmt(b, ", at most %.0f%s |", r->max, unit);
    else
        buf_fmt(b, ", %g to %.10g%s |", r->min, r->max, unit);
}

static void put_row(struct buf *b, const struct row *r)
{
    buf_fmt(b, "| `%s%s` |", r->prefix, r->name);
    if (r->where[0] != '\0')
        put_cell(b, r->where);
    put_bounds(b, r);
    if (r->where[0] != '\0')
        put_cell(b, r->dflt);
    put_cell(b, r->help);
    buf_str(b, "\n");
}

/* One of a list of refused fields. */
static void put_refused(struct buf *b, const struct row *r, bool first)
{
    buf_fmt(b, "%s`%s%s`", first ? "" : ",\n", r->prefix, r->name);
    if (r->where[0] != '\0')
        buf_fmt(b, " (%s)", r->where);
    if (r->only != NULL)
        buf_fmt(b, " except `%s`", r->only);
}

/* OpenAI's own routes share a table: letters tell in which of them a field may stand. */

static const struct { uint32_t kind; char letter; const char *route; } letters[] = {
    { ASK_CHAT, 'C', "/v1/chat/completions" }, { ASK_TEXT, 'T', "/v1/completions" },
    { ASK_TOKENIZE, 'K', "/tokenize" }, { ASK_DETOKENIZE, 'D', "/detokenize" },
    { ASK_TEMPLATE, 'A', "/apply-template" },
};

#define N_LETTER (sizeof(letters) / sizeof(letters[0]))

static struct row row_of(const struct field_set *s, const struct field *f)
{
    const char *type = field_type(f);
    struct row  r = {
        .prefix = s->prefix, .name = f->name, .type = f->set == field_refuse ? NULL
                                                      : type != NULL ? type : "any",
        .min = f->min, .max = f->max, .dflt = f->dflt, .help = f->help, .only = f->note,
    };
    size_t      n = 0;

    for (size_t i = 0; i < N_LETTER; i++)
        if ((f->kinds & s->kinds & letters[i].kind) != 0)
            r.where[n++] = letters[i].letter;
    return r;
}

static void put_openai(struct buf *b)
{
    bool first = true;

    buf_str(b, "\n## OpenAI's and vLLM's fields\n\n");
    for (size_t i = 0; i < N_LETTER; i++)
        buf_fmt(b, "%s%c: `%s`", i == 0 ? "" : ", ", letters[i].letter, letters[i].route);
    buf_str(b, ".\n\n| field | in | type | default | |\n|---|---|---|---|---|\n");
    for (const struct field_set *s = openai_sets; s->rows != NULL; s++) {
        for (const struct field *f = s->rows; f->name != NULL; f++) {
            struct row r = row_of(s, f);

            if (r.type != NULL)
                put_row(b, &r);
        }
    }

    buf_str(b, "\nRefused by name:\n");
    for (const struct field_set *s = openai_sets; s->rows != NULL; s++) {
        for (const struct field *f = s->rows; f->name != NULL; f++) {
            struct row r = row_of(s, f);

            if (r.type != NULL)
                continue;
            put_refused(b, &r, first);
            first = false;
        }
    }
    buf_str(b, ".\n");
}

static void put_translated(struct buf *b, const char *title, const struct tr_set *sets)
{
    bool first = true;

    buf_fmt(b, "\n## %s\n\n| field | type | |\n|---|---|---|\n", title);
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1)
            buf_str(b, "\nRefused by name:\n");
        for (const struct tr_set *s = sets; s->rows != NULL; s++) {
            for (const struct tr_field *f = s->rows; f->name != NULL; f++) {
                struct row r = {
                    .prefix = s->prefix, .name = f->name, .type = tr_type(f), .min = f->min,
                    .max = f->max, .help = f->help, .only = f->note,
                };

                if (pass == 0 && r.type != NULL)
                    put_row(b, &r);
                if (pass == 0 || r.type != NULL)
                    continue;
                put_refused(b, &r, first);
                first = false;
            }
        }
    }
    buf_str(b, ".\n");
}

static void put_limits(struct buf *b)
{
    static const struct { const char *what; uint64_t n; const char *status; } rows[] = {
        { "bytes of a request body", API_BODY_BYTES_MAX, "413" },
        { "bytes of all bodies on their way, of one API thread", API_BODY_TOTAL_MAX, "503" },
        { "bytes of a URI", API_URI_BYTES_MAX, "414" },
        { "depth of its JSON", API_JSON_DEPTH_MAX, "400" },
        { "values in it", API_JSON_NODES_MAX, "400" },
        { "bytes of text to tokenise", API_TEXT_BYTES_MAX, "400" },
        { "messages", API_MESSAGE_MAX, "400" },
        { "prompts of a completion", API_PROMPT_MAX, "400" },
        { "answers of a request, prompts times `n`", API_CHOICE_MAX, "400" },
        { "bytes of a stop string", API_STOP_BYTES_MAX, "400" },
        { "tools", API_TOOL_MAX, "400" },
        { "calls, or results, of one message", API_TOOL_CALL_MAX, "400" },
        { "bytes of a tool's name", API_TOOL_NAME_MAX, "400" },
        { "values in the schemas of all tools", API_SCHEMA_NODES_MAX, "400" },
        { "depth of a tool's schema", API_SCHEMA_DEPTH_MAX, "400" },
        { "bytes of a schema that comes as text", API_SCHEMA_BYTES_MAX, "400" },
        { "bytes of a regular expression", REGEX_BYTES_MAX, "400" },
        { "bytes of an EBNF grammar", EBNF_BYTES_MAX, "400" },
        { "strings of `choice`", API_FORMAT_CHOICE_MAX, "400" },
        { "bytes of one of them", API_FORMAT_CHOICE_BYTES_MAX, "400" },
        { "states of a compiled grammar", GRAMMAR_STATE_MAX, "400" },
        { "milliseconds to compile it", API_GRAMMAR_MS, "400" },
        { "bytes of a request id", API_REQUEST_ID_MAX, "400" },
        { "API keys in a file", API_KEY_MAX, "does not start" },
    };

    buf_str(b, "\n## Limits\n\n| at most | | beyond |\n|---|---|---|\n");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        buf_fmt(b, "| %" PRIu64 " | %s | %s |\n", rows[i].n, rows[i].what, rows[i].status);
}

void docs_write(struct buf *b)
{
    buf_str(b, "# The API\n\n"
            "Written by `inferd api` from the tables that the server runs on; a test compares.\n\n"
            "Bodies are JSON, with `Content-Type: application/json` or none; another is answered\n"
            "415. `null` is as good as absent.\n"
            "Fields that no table knows are accepted and counted, or refused under `--strict`.\n"
            "Errors name the field in `param`. Keys are asked for where the engine has a file of\n"
            "them ([engine.md](engine.md)).\n\n"
            "## Endpoints\n\n| request | key | |\n|---|---|---|\n");
    docs_routes(b);
    put_openai(b);
    put_translated(b, "Fields of `/v1/messages` and `/v1/messages/count_tokens`", messages_sets);
    put_translated(b, "Fields of `/v1/responses` and `/v1/responses/input_tokens`", responses_sets);
    put_limits(b);
}
