/* t/format_in.c - what an answer has to be, in the words of four APIs: each field, each refusal. */
#include "format_in.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

static const char *const kinds[FORMAT_N] = {
    "free", "object", "schema", "regex", "choice", "ebnf",
};

/* "KIND FIELD", or "CODE PARAM" of a refusal. */
static void read(enum ask_kind kind, const char *fields, const char *want)
{
    static const char *const head[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]", "{\"prompt\":\"a\"",
    };
    const struct json_limits lim = { 1 << 24, 64, 1 << 20 };
    static struct ask  ask;
    struct json_doc   *doc = NULL;
    const struct json *root;
    struct api_err     e = { 0 };
    struct err         err = { 0 };
    struct buf         text = { 0 };
    char               got[256];

    buf_fmt(&text, "%s,%s}", head[kind == ASK_TEXT], fields);
    if (json_parse(&doc, &root, text.p, text.n, &lim, &err) != 0)
        snprintf(got, sizeof(got), "%s", err.msg);
    else if (ask_read(&ask, kind, root, &e) != 0)
        snprintf(got, sizeof(got), "%s %s", e.code, e.param);
    else
        snprintf(got, sizeof(got), "%s%s%s%s", kinds[ask.format.kind],
                 *ask.format.field != '\0' ? " " : "", ask.format.field,
                 ask.format.tight ? " tight" : "");
    is_str(got, want, "%.100s", fields);
    json_free(doc);
    buf_free(&text);
}

static const struct { const char *fields, *want; } rows[] = {
#define RF  "\"response_format\":"
#define JS  RF "{\"type\":\"json_schema\",\"json_schema\":"
    { RF "null", "free" },
    { RF "{\"type\":\"text\"}", "free" },
    { RF "{\"type\":\"json_object\"}", "object response_format" },
    { JS "{\"name\":\"a_B-9\",\"schema\":{}}}", "schema response_format.json_schema.schema" },
    { JS "{\"name\":\"a\",\"schema\":{},\"strict\":false,\"description\":\"d\"}}",
      "schema response_format.json_schema.schema" },
    { JS "{\"name\":\"a\",\"schema\":{},\"strict\":null}}",
      "schema response_format.json_schema.schema" },
    { RF "7", "invalid_type response_format" },
    { RF "{}", "missing_required_parameter response_format.type" },
    { RF "{\"type\":null}", "missing_required_parameter response_format.type" },
    { RF "{\"type\":7}", "invalid_type response_format.type" },
    { RF "{\"type\":\"xml\"}", "invalid_value response_format.type" },
    { RF "{\"type\":\"json_object\",\"schema\":{}}",
      "unsupported_parameter response_format.schema" },
    { RF "{\"type\":\"json_schema\"}", "missing_required_parameter response_format.json_schema" },
    { JS "null}", "missing_required_parameter response_format.json_schema" },
    { JS "[]}", "invalid_type response_format.json_schema" },
    { JS "{\"name\":\"a\"}}", "missing_required_parameter response_format.json_schema.schema" },
    { JS "{\"schema\":{}}}", "missing_required_parameter response_format.json_schema.name" },
    { JS "{\"name\":\"a\",\"schema\":\"{}\"}}", "invalid_type response_format.json_schema.schema" },
    { JS "{\"name\":7,\"schema\":{}}}", "invalid_type response_format.json_schema.name" },
    { JS "{\"name\":\"\",\"schema\":{}}}", "invalid_value response_format.json_schema.name" },
    { JS "{\"name\":\"a b\",\"schema\":{}}}", "invalid_value response_format.json_schema.name" },
    { JS "{\"name\":\"a\",\"schema\":{},\"strict\":1}}",
      "invalid_type response_format.json_schema.strict" },
    { JS "{\"name\":\"a\",\"schema\":{},\"description\":1}}",
      "invalid_type response_format.json_schema.description" },

#define SO  "\"structured_outputs\":"
    { SO "null", "free" },
    { SO "{\"json\":{}}", "schema structured_outputs.json" },
    { SO "{\"json\":\"{}\",\"disable_any_whitespace\":true}",
      "schema structured_outputs.json tight" },
    { SO "{\"json_object\":true,\"regex\":null}", "object structured_outputs.json_object" },
    { SO "{\"regex\":\"a\"}", "regex structured_outputs.regex" },
    { SO "{\"choice\":[\"a\"],\"json_object\":false}", "choice structured_outputs.choice" },
    { SO "{\"grammar\":\"root ::= \\\"a\\\"\"}", "ebnf structured_outputs.grammar" },
    { SO "{}", "invalid_value structured_outputs" },
    { SO "{\"json_object\":false}", "invalid_value structured_outputs" },
    { SO "{\"disable_any_whitespace\":true}", "invalid_value structured_outputs" },
    { SO "[]", "invalid_type structured_outputs" },
    { SO "{\"json\":7}", "invalid_type structured_outputs.json" },
    { SO "{\"json\":\"\"}", "invalid_value structured_outputs.json" },
    { SO "{\"regex\":7}", "invalid_type structured_outputs.regex" },
    { SO "{\"regex\":\"\"}", "invalid_value structured_outputs.regex" },
    { SO "{\"choice\":\"a\"}", "invalid_type structured_outputs.choice" },
    { SO "{\"choice\":[]}", "invalid_value structured_outputs.choice" },
    { SO "{\"choice\":[\"\"]}", "invalid_value structured_outputs.choice" },
    { SO "{\"choice\":[1]}", "invalid_type structured_outputs.choice" },
    { SO "{\"grammar\":{}}", "invalid_type structured_outputs.grammar" },
    { SO "{\"json_object\":1}", "invalid_type structured_outputs.json_object" },
    { SO "{\"json\":{},\"disable_any_whitespace\":1}",
      "invalid_type structured_outputs.disable_any_whitespace" },
    { SO "{\"json\":{},\"regex\":\"a\"}", "invalid_value structured_outputs.regex" },
    { SO "{\"structural_tag\":\"x\"}", "unsupported_parameter structured_outputs.structural_tag" },
    { SO "{\"json\":{},\"whitespace_pattern\":\" \"}",
      "unsupported_parameter structured_outputs.whitespace_pattern" },
    { SO "{\"json\":{},\"mode\":1}", "unsupported_parameter structured_outputs.mode" },

    { "\"guided_json\":{}", "schema guided_json" },
    { "\"guided_json\":\"{}\"", "schema guided_json" },
    { "\"guided_regex\":\"a\"", "regex guided_regex" },
    { "\"guided_choice\":[\"a\",\"b\"]", "choice guided_choice" },
    { "\"guided_grammar\":\"root ::= \\\"a\\\"\"", "ebnf guided_grammar" },
    { "\"json_schema\":{}", "schema json_schema" },
    { "\"json_schema\":\"{}\"", "schema json_schema" },
    { "\"json_schema\":true", "invalid_type json_schema" },
    { "\"regex\":\"a\"", "regex regex" },
    { "\"ebnf\":\"a\"", "ebnf ebnf" },
    { "\"grammar\":\"a\"", "ebnf grammar" },
    { "\"grammar\":[]", "invalid_type grammar" },
    { "\"regex\":\"a\",\"grammar\":\"a\"", "invalid_value grammar" },
    { "\"regex\":\"a\"," RF "{\"type\":\"json_object\"}", "invalid_value response_format" },
    { "\"regex\":\"a\"," RF "{\"type\":\"text\"}", "regex regex" },
    { "\"regex\":\"a\"," SO "{\"choice\":[\"a\"]}", "invalid_value structured_outputs.choice" },
    { "\"guided_json\":{},\"guided_choice\":[\"a\"]", "invalid_value guided_choice" },
    { "\"regex\":\"a\",\"ignore_eos\":true", "invalid_value ignore_eos" },
    { RF "{\"type\":\"text\"},\"ignore_eos\":true", "free" },
};

/* A string of n bytes, in front and behind what it is in. */
static void at_length(const char *front, size_t n, const char *back, const char *want)
{
    struct buf b = { 0 };

    buf_str(&b, front);
    for (size_t i = 0; i < n; i++)
        buf_put(&b, "a", 1);
    buf_str(&b, back);
    buf_put(&b, "", 1);
    read(ASK_CHAT, b.p, want);
    buf_free(&b);
}

static void limits(void)
{
    struct buf b = { 0 };

    at_length("\"regex\":\"", REGEX_BYTES_MAX, "\"", "regex regex");
    at_length("\"regex\":\"", REGEX_BYTES_MAX + 1, "\"", "invalid_value regex");
    at_length("\"ebnf\":\"", EBNF_BYTES_MAX, "\"", "ebnf ebnf");
    at_length("\"ebnf\":\"", EBNF_BYTES_MAX + 1, "\"", "invalid_value ebnf");
    at_length("\"guided_json\":\"", API_SCHEMA_BYTES_MAX, "\"", "schema guided_json");
    at_length("\"guided_json\":\"", API_SCHEMA_BYTES_MAX + 1, "\"", "invalid_value guided_json");
    at_length("\"guided_choice\":[\"", API_FORMAT_CHOICE_BYTES_MAX, "\"]", "choice guided_choice");
    at_length("\"guided_choice\":[\"", API_FORMAT_CHOICE_BYTES_MAX + 1, "\"]",
              "invalid_value guided_choice");
    at_length(JS "{\"schema\":{},\"name\":\"", API_FORMAT_NAME_MAX, "\"}}",
              "schema response_format.json_schema.schema");
    at_length(JS "{\"schema\":{},\"name\":\"", API_FORMAT_NAME_MAX + 1, "\"}}",
              "invalid_value response_format.json_schema.name");

    for (int more = 0; more < 2; more++) {
        b.n = 0;
        buf_str(&b, "\"guided_choice\":[\"a\"");
        for (int i = 1; i < API_FORMAT_CHOICE_MAX + more; i++)
            buf_str(&b, ",\"a\"");
        buf_put(&b, "]", 2);
        read(ASK_CHAT, b.p, more ? "invalid_value guided_choice" : "choice guided_choice");
    }
    buf_free(&b);
}

#define STRICT "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true}}],"

int main(void)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        read(ASK_CHAT, rows[i].fields, rows[i].want);
        read(ASK_TEXT, rows[i].fields, rows[i].want);
    }
    limits();
    read(ASK_CHAT, STRICT "\"ignore_eos\":true", "invalid_value ignore_eos");
    read(ASK_CHAT, STRICT "\"ignore_eos\":true,\"tool_choice\":\"none\"", "free");
    return done_testing();
}
