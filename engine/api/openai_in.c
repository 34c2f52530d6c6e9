#include "format_in.h"
#include "sampling_in.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define GEN   (ASK_CHAT | ASK_TEXT)
#define TOKS  (ASK_TOKENIZE | ASK_TEMPLATE)
#define ANY   (GEN | TOKS | ASK_DETOKENIZE)
#define AT(f) offsetof(struct ask, f)

/* Messages quote the client, and snprintf may have cut inside a character. */
static void keep_valid(char *s)
{
    size_t n = 0;
    int    k;

    while (s[n] != '\0' && (k = utf8_len(s + n, strlen(s + n))) > 0)
        n += (size_t) k;
    s[n] = '\0';
}

int api_err_set(struct api_err *e, int status, const char *type, const char *code,
                const char *param, const char *fmt, ...)
{
    va_list ap;

    *e = (struct api_err) { .status = status, .type = type, .code = code };

    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    if (param != NULL)
        snprintf(e->param, sizeof(e->param), "%s", param);

    keep_valid(e->msg);
    keep_valid(e->param);
    return E_INVALID;
}

bool api_request_id_ok(struct slice s)
{
    if (s.n == 0 || s.n > API_REQUEST_ID_MAX)
        return false;

    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
              || c == '.' || c == '_' || c == ':' || c == '-'))
            return false;
    }

    return true;
}

static int set_request_id(const struct field *f, const struct json *v, struct ask *a,
                          const char *path, struct api_err *e)
{
    if (field_str(f, v, a, path, e) != 0)
        return E_INVALID;
    if (!api_request_id_ok(v->text))
        return api_err_400(e, "invalid_value", path,
                           "'%s' may hold letters, digits and \"._:-\" only.", path);
    return 0;
}

static int set_prompt(const struct field *f, const struct json *v, struct ask *a,
                      const char *path, struct api_err *e)
{
    if (v->type != JSON_STRING && v->type != JSON_ARRAY)
        return field_bad_type(path, "a string or an array", v, e);

    *(const struct json **) ((char *) a + f->off) = v;
    return 0;
}

static int set_effort(const struct field *f, const struct json *v, struct ask *a,
                      const char *path, struct api_err *e)
{
    static const char *const name[] = {
        "none", "minimal", "low", "medium", "high", "xhigh", "max",
    };
    static const int32_t budget[] = { -1, 256, 1024, 4096, -1, -1, -1 };

    (void) f;
    if (v->type != JSON_STRING)
        return field_bad_type(path, "a string", v, e);

    for (size_t i = 0; i < sizeof(name) / sizeof(name[0]); i++) {
        if (slice_is(v->text, name[i])) {
            a->effort = i > 0 ? ASK_YES : ASK_NO;
            a->effort_budget = budget[i];
            return 0;
        }
    }

    return api_err_400(e, "invalid_value", path, "'%s' must be one of none, minimal, low, medium, "
                       "high, xhigh, max.", path);
}

/* Checked in full, and without effect: nothing of it is stored. */
static int accept_metadata(const struct field *f, const struct json *v, struct ask *a,
                           const char *path, struct api_err *e)
{
    (void) f, (void) a;
    if (v->type != JSON_OBJECT)
        return field_bad_type(path, "an object", v, e);

    for (const struct json *m = v->child; m != NULL; m = m->next)
        if (v->n > API_METADATA_MAX || m->type != JSON_STRING || m->key.n > API_METADATA_KEY_MAX
            || m->text.n > API_METADATA_VALUE_MAX)
            return api_err_400(e, "invalid_value", path, "'%s' may hold at most %d pairs of a key "
                               "of %d bytes and a string of %d bytes.", path, API_METADATA_MAX,
                               API_METADATA_KEY_MAX, API_METADATA_VALUE_MAX);
    return 0;
}

static int accept_modalities(const struct field *f, const struct json *v, struct ask *a,
                             const char *path, struct api_err *e)
{
    (void) f, (void) a;
    if (v->type != JSON_ARRAY)
        return field_bad_type(path, "an array", v, e);
    if (v->n != 1 || v->child->type != JSON_STRING || !slice_is(v->child->text, "text"))
        return api_err_400(e, "unsupported_parameter", path, "'%s': only [\"text\"] is supported.",
                           path);
    return 0;
}

/* Two classes are all there is: the answer says which one it was. */
static int set_tier(const struct field *f, const struct json *v, struct ask *a,
                    const char *path, struct api_err *e)
{
    static const char *const name[] = { "auto", "default", "flex", "scale", "priority" };

    (void) f;
    if (v->type != JSON_STRING)
        return field_bad_type(path, "a string", v, e);
    for (size_t i = 0; i < sizeof(name) / sizeof(name[0]); i++) {
        if (slice_is(v->text, name[i])) {
            a->service_tier = v->text;
            return 0;
        }
    }

    return api_err_400(e, "invalid_value", path, "'%s' must be one of auto, default, flex, scale, "
                       "priority.", path);
}

static int set_side(const struct field *f, const struct json *v, struct ask *a,
                    const char *path, struct api_err *e)
{
    (void) f;
    if (v->type != JSON_STRING)
        return field_bad_type(path, "a string", v, e);
    if (!slice_is(v->text, "left") && !slice_is(v->text, "right"))
        return api_err_400(e, "invalid_value", path, "'%s' must be left or right.", path);

    a->truncate_right = slice_is(v->text, "right");
    return 0;
}

static const struct field stream_fields[] = {
    { "include_usage", GEN, field_bool, AT(include_usage), 0, 0, NULL, "false",
      "a last chunk with usage" },
    { "continuous_usage_stats", GEN, field_bool, AT(continuous_usage), 0, 0, NULL, "false",
      "usage on every chunk" },
    { "include_obfuscation", GEN, field_refuse, 0, 0, 0, "false", NULL, NULL },
    { 0 }
};

static const struct field template_fields[] = {
    { "enable_thinking", ANY, field_flag, AT(thinking), 0, 0, NULL, "false",
      "goes before reasoning_effort" },
    { "preserve_thinking", ANY, field_bool, AT(preserve_thinking), 0, 0, NULL, "false",
      "thoughts of the history stay in the prompt" },
    { 0 }
};

static int set_stream_options(const struct field *f, const struct json *v, struct ask *a,
                              const char *path, struct api_err *e)
{
    (void) f;
    if (v->type != JSON_OBJECT)
        return field_bad_type(path, "an object", v, e);
    return field_set_all(stream_fields, GEN, "stream_options.", v, a, e);
}

/* A template variable that the template does not know must not vanish in silence. */
static int set_template_kwargs(const struct field *f, const struct json *v, struct ask *a,
                               const char *path, struct api_err *e)
{
    char name[64];

    (void) f;
    if (v->type != JSON_OBJECT)
        return field_bad_type(path, "an object", v, e);

    for (const struct json *m = v->child; m != NULL; m = m->next) {
        if (slice_is(m->key, "enable_thinking") || slice_is(m->key, "preserve_thinking"))
            continue;
        snprintf(name, sizeof(name), "%s.%.*s", path, (int) (m->key.n < 40 ? m->key.n : 40),
                 m->key.p);
        return api_err_400(e, "unsupported_parameter", name, "'%s': this model's template knows "
                           "enable_thinking and preserve_thinking only.", name);
    }

    return field_set_all(template_fields, ANY, "chat_template_kwargs.", v, a, e);
}

/* The template would print any role as it is, control tokens too. */
static int check_role(const struct field *f, const struct json *v, struct ask *a,
                      const char *path, struct api_err *e)
{
    static const char *const roles[] = { "system", "developer", "user", "assistant", "tool" };

    (void) f, (void) a;
    if (v->type != JSON_STRING)
        return field_bad_type(path, "a string", v, e);
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (slice_is(v->text, roles[i]))
            return 0;
    if (slice_is(v->text, "function"))
        return api_err_400(e, "unsupported_parameter", path, "'%s': the old function calls are not "
                           "supported by this server: use tool_calls and the role tool.", path);
    return api_err_400(e, "invalid_value", path, "'%s' must be system, developer, user, assistant "
                       "or tool.", path);
}

/* Images and sounds are refused by name: the model is served without its towers. */
static int check_part_type(const struct field *f, const struct json *v, struct ask *a,
                           const char *path, struct api_err *e)
{
    (void) f, (void) a;
    if (v->type != JSON_STRING)
        return field_bad_type(path, "a string", v, e);
    if (!slice_is(v->text, "text"))
        return api_err_400(e, "unsupported_parameter", path, "'%s': parts of type \"%.*s\" are not "
                           "supported by this server, only \"text\".", path,
                           (int) (v->text.n < 40 ? v->text.n : 40), v->text.p);
    return 0;
}

static const struct field part_fields[] = {
    { "type", ANY, check_part_type, FIELD_NOWHERE, 0, 0, "\"text\"", NULL, "of a part" },
    { "text", ANY, field_leave, FIELD_NOWHERE, 0, 0, "string", NULL, "" },
    { 0 }
};

static int check_parts(const struct field *f, const struct json *v, struct ask *a,
                       const char *path, struct api_err *e)
{
    char     prefix[64];
    uint32_t k = 0;

    (void) f;
    for (const struct json *p = v->type == JSON_ARRAY ? v->child : NULL; p != NULL; p = p->next) {
        snprintf(prefix, sizeof(prefix), "%s[%u].", path, k++);
        if (p->type == JSON_OBJECT && field_set_all(part_fields, ANY, prefix, p, a, e) != 0)
            return E_INVALID;
    }
    return 0;
}

static int check_calls(const struct field *f, const struct json *v, struct ask *a,
                       const char *path, struct api_err *e)
{
    (void) f;
    if (v->type != JSON_ARRAY)
        return field_bad_type(path, "an array", v, e);
    return tools_check_calls(v, path, &a->n_unknown, e);
}

/* Gemma's own form of results, in the message of the calls; chat_render checks what it holds. */
static int check_responses(const struct field *f, const struct json *v, struct ask *a,
                           const char *path, struct api_err *e)
{
    (void) f, (void) a;
    if (v->type != JSON_ARRAY)
        return field_bad_type(path, "an array", v, e);
    if (v->n > API_TOOL_CALL_MAX)
        return api_err_400(e, "invalid_value", path, "'%s' may hold at most %d results.", path,
                           API_TOOL_CALL_MAX);
    return 0;
}

static const struct field message_fields[] = {
    { "role", ANY, check_role, FIELD_NOWHERE, 0, 0, "string", NULL,
      "system, developer (the same), user, assistant or tool" },
    { "content", ANY, check_parts, FIELD_NOWHERE, 0, 0, "string or array", NULL,
      "text, or parts of type text; null beside tool_calls or thoughts" },
    { "reasoning", ANY, field_leave, FIELD_NOWHERE, 0, 0, "string", NULL,
      "an earlier thought of the assistant" },
    { "reasoning_content", ANY, field_leave, FIELD_NOWHERE, 0, 0, "string", NULL, "the same" },
    { "name", ANY, field_str, FIELD_NOWHERE, 0, API_LABEL_BYTES_MAX, NULL, NULL,
      "of a tool; else without effect" },
    { "tool_calls", ANY, check_calls, FIELD_NOWHERE, 0, 0, "array", NULL,
      "of the assistant: up to 128" },
    { "tool_call_id", ANY, field_str, FIELD_NOWHERE, 1, API_LABEL_BYTES_MAX, NULL, NULL,
      "of a tool's message: required" },
    { "tool_responses", ANY, check_responses, FIELD_NOWHERE, 0, 0, "array", NULL,
      "Gemma's own form of results, beside tool_calls" },
    { "refusal", ANY, field_refuse, FIELD_NOWHERE, 0, 0, NULL, NULL, NULL },
    { "annotations", ANY, field_refuse, FIELD_NOWHERE, 0, 0, "[]", NULL, NULL },
    { "audio", ANY, field_refuse, FIELD_NOWHERE, 0, 0, NULL, NULL, NULL },
    { "function_call", ANY, field_refuse, FIELD_NOWHERE, 0, 0, NULL, NULL, NULL },
    { 0 }
};

static bool is_empty(const struct json *v)
{
    return v == NULL || v->type == JSON_NULL || (v->type == JSON_ARRAY && v->n == 0);
}

static bool is_from(const struct json *m, const char *role)
{
    return slice_is(json_get(m, "role")->text, role);
}

/* Our own answers may be thoughts or calls alone, with "content": null, and come back as history.
 * A tool may have nothing to say. */
static bool may_be_silent(const struct json *m)
{
    const struct json *a = json_get(m, "reasoning"), *b = json_get(m, "reasoning_content");

    if (!is_from(m, "assistant"))
        return is_from(m, "tool");
    return !is_empty(json_get(m, "tool_calls")) || (a != NULL && a->text.n > 0)
           || (b != NULL && b->text.n > 0);
}

/* Which of the fields a role may and must have. */
static int check_role_fields(const struct json *m, uint32_t i, struct api_err *e)
{
    static const char *const own[][2] = {
        { "tool_calls", "assistant" }, { "tool_responses", "assistant" },
        { "tool_call_id", "tool" },
    };
    char path[64];

    for (size_t k = 0; k < sizeof(own) / sizeof(own[0]); k++) {
        snprintf(path, sizeof(path), "messages[%u].%s", i, own[k][0]);
        if (!is_empty(json_get(m, own[k][0])) && !is_from(m, own[k][1]))
            return api_err_400(e, "invalid_value", path, "'%s' belongs to messages of the role "
                               "\"%s\".", path, own[k][1]);
    }
    snprintf(path, sizeof(path), "messages[%u].tool_call_id", i);
    if (is_from(m, "tool") && is_empty(json_get(m, "tool_call_id")))
        return api_err_400(e, "missing_required_parameter", path, "'%s' is required.", path);

    snprintf(path, sizeof(path), "messages[%u].content", i);
    if (is_empty(json_get(m, "content")) && !may_be_silent(m))
        return api_err_400(e, "missing_required_parameter", path, "'%s' is required: a string, or "
                           "an array of parts that is not empty.", path);
    return 0;
}

static int check_message(const struct json *m, uint32_t i, struct ask *a, struct api_err *e)
{
    char path[64];

    snprintf(path, sizeof(path), "messages[%u]", i);
    if (m->type != JSON_OBJECT)
        return field_bad_type(path, "an object", m, e);

    snprintf(path, sizeof(path), "messages[%u].", i);
    if (field_set_all(message_fields, ANY, path, m, a, e) != 0)
        return E_INVALID;

    snprintf(path, sizeof(path), "messages[%u].role", i);
    if (is_empty(json_get(m, "role")))
        return api_err_400(e, "missing_required_parameter", path, "'%s' is required.", path);
    return check_role_fields(m, i, e);
}

static int set_messages(const struct field *f, const struct json *v, struct ask *a,
                        const char *path, struct api_err *e)
{
    uint32_t i = 0;

    if (field_array(f, v, a, path, e) != 0)
        return E_INVALID;
    for (const struct json *m = v->child; m != NULL; m = m->next)
        if (check_message(m, i++, a, e) != 0)
            return E_INVALID;
    return 0;
}

static int set_tools(const struct field *f, const struct json *v, struct ask *a,
                     const char *path, struct api_err *e)
{
    (void) f;
    if (v->type != JSON_ARRAY)
        return field_bad_type(path, "an array", v, e);
    return tools_read(&a->tools, v, path, &a->n_unknown, e);
}

static int set_tool_choice(const struct field *f, const struct json *v, struct ask *a,
                           const char *path, struct api_err *e)
{
    (void) f;
    return tools_read_choice(v, path, &a->tool_choice, &a->tool_name, e);
}

/* name, bodies, setter, where, least, most, note, default, help. Three parts: what is implemented;
 * what is accepted because it cannot change the answer; what is not built, where the value without
 * effect passes and anything else is refused by name. */
static const struct field fields[] = {
    { "model", ANY, field_str, AT(model), 1, 256, NULL, "the first served name",
      "a served name; the answer echoes it" },
    { "messages", ASK_CHAT | TOKS, set_messages, AT(messages), 1, API_MESSAGE_MAX, "array", NULL,
      "the conversation" },
    { "tools", ASK_CHAT | TOKS, set_tools, 0, 0, API_TOOL_MAX, "array", "[]",
      "functions that the model may call" },
    { "tool_choice", ASK_CHAT | TOKS, set_tool_choice, 0, 0, 0, "string or object", "auto",
      "none, auto, required, or a function by name" },
    { "parallel_tool_calls", ASK_CHAT, field_bool, AT(parallel_calls), 0, 0, NULL, "true",
      "false: the answer ends with its first call" },
    { "prompt", ASK_TEXT | ASK_TOKENIZE, set_prompt, AT(prompt), 0, 0, "string or array", NULL,
      "a text, texts, token ids, or lists of them (up to 256)" },
    { "content", ASK_TOKENIZE, set_prompt, AT(prompt), 0, 0, "string or array", NULL,
      "the same as prompt" },
    { "tokens", ASK_DETOKENIZE, field_array, AT(tokens), 0, 1 << 22, NULL, NULL, "token ids" },
    { "max_tokens", ASK_CHAT, field_int, AT(max_tok), 1, INT32_MAX, NULL, "rest of the context",
      "older name of max_completion_tokens" },
    { "max_tokens", ASK_TEXT, field_int, AT(max_tok), 0, INT32_MAX, NULL, "rest of the context",
      "tokens that may come; 0 only reads the prompt" },
    { "max_completion_tokens", GEN, field_int, AT(max_completion_tok), 1, INT32_MAX, NULL,
      "rest of the context", "tokens that may come, thoughts included" },
    { "temperature", GEN, field_num, AT(temperature), 0, 2, NULL, "the model's",
      "0: always the likeliest token; others below 0.01 count as 0.01" },
    { "top_p", GEN, field_num, AT(top_p), 0, 1, NULL, "the model's", "0: one token is kept" },
    { "top_k", GEN, field_int, AT(top_k), -1, INT32_MAX, NULL, "the model's", "-1, 0: off" },
    { "min_p", GEN, field_num, AT(min_p), 0, 1, NULL, "0", "relative to the likeliest token" },
    { "presence_penalty", GEN, field_num, AT(presence), -2, 2, NULL, "0",
      "subtracted from the logits of generated tokens" },
    { "frequency_penalty", GEN, field_num, AT(frequency), -2, 2, NULL, "0",
      "the same for each time that one came" },
    { "repetition_penalty", GEN, field_num, AT(repetition), 1e-30, 1e30, NULL, "1",
      "logits of tokens of the prompt and the answer, divided by it or, below 0, times it" },
    { "logit_bias", GEN, sampling_bias, 0, 0, API_BIAS_MAX, "object", "{}",
      "token ids and what is added to their logits, -100 to 100" },
    { "allowed_token_ids", GEN, sampling_ids, AT(allowed_ids), 1, API_ALLOWED_ID_MAX, "array", NULL,
      "only these ids may come" },
    { "bad_words", GEN, sampling_words, AT(bad_words), 0, API_BAD_WORD_MAX, "array", "[]",
      "texts that may not come, with or without a space before them" },
    { "seed", GEN, sampling_seed, AT(seed), 0, 0, "integer of 64 bits", "random",
      "same request, same seed, same answer; -1: none" },
    { "n", GEN, field_int, AT(n), 1, API_N_MAX, NULL, "1", "answers to each prompt" },
    { "best_of", ASK_TEXT, field_int, AT(best_of), 1, API_N_MAX, NULL, "n", "must be n" },
    { "stop", GEN, sampling_stop, 0, 0, API_STOP_MAX, "string or array", "[]",
      "texts that end the answer, up to 256 bytes each" },
    { "stop_token_ids", GEN, sampling_stop_ids, 0, 0, API_STOP_ID_MAX, "array", "[]",
      "token ids that end it" },
    { "include_stop_str_in_output", GEN, field_bool, AT(include_stop), 0, 0, NULL, "false",
      "the text that ended it is part of the answer" },
    { "ignore_eos", GEN, field_bool, AT(ignore_eos), 0, 0, NULL, "false",
      "the model's own end is no end" },
    { "min_tokens", GEN, field_int, AT(min_tok), 0, INT32_MAX, NULL, "0",
      "no stop id comes before so many tokens" },
    { "response_format", GEN, format_response, 0, 0, 0, "object", "{\"type\":\"text\"}",
      "what the answer has to be" },
    { "structured_outputs", GEN, format_outputs, 0, 0, 0, "object", NULL,
      "vLLM's words for it: one of json, json_object, regex, choice, grammar" },
    { "guided_json", GEN, format_json, 0, 0, 0, "object or string", NULL,
      "vLLM's older words: a JSON schema" },
    { "guided_regex", GEN, format_regex, 0, 1, REGEX_BYTES_MAX, "string", NULL,
      "the same: an expression" },
    { "guided_choice", GEN, format_choice, 0, 1, API_FORMAT_CHOICE_MAX, "array", NULL,
      "the same: texts" },
    { "guided_grammar", GEN, format_ebnf, 0, 1, EBNF_BYTES_MAX, "string", NULL,
      "the same: EBNF" },
    { "json_schema", GEN, format_json, 0, 0, 0, "object or string", NULL,
      "llama.cpp's and SGLang's: a JSON schema" },
    { "regex", GEN, format_regex, 0, 1, REGEX_BYTES_MAX, "string", NULL,
      "SGLang's: an expression" },
    { "ebnf", GEN, format_ebnf, 0, 1, EBNF_BYTES_MAX, "string", NULL, "SGLang's: EBNF" },
    { "grammar", GEN, format_ebnf, 0, 1, EBNF_BYTES_MAX, "string", NULL, "llama.cpp's: EBNF" },
    { "repetition_detection", GEN, sampling_repetition, 0, 0, 0, "object", "off",
      "ends an answer that goes round in circles" },
    { "logprobs", ASK_CHAT, field_bool, AT(logprobs), 0, 0, NULL, "false",
      "logprobs of the tokens, of the model's own logits" },
    { "top_logprobs", ASK_CHAT, field_int, AT(top_logprobs), 0, API_LOGPROB_MAX, NULL, "0",
      "and of so many likeliest ones" },
    { "logprobs", ASK_TEXT, field_int, AT(top_logprobs), 0, API_LOGPROB_MAX, NULL, NULL,
      "logprobs of the tokens and of so many likeliest ones; with echo of the prompt too" },
    { "prompt_logprobs", GEN, field_int, AT(prompt_logprobs), 0, API_LOGPROB_MAX, NULL, NULL,
      "the same of the prompt's tokens, as vLLM tells them; not with stream" },
    { "return_tokens_as_token_ids", GEN, field_bool, AT(ids_as_tokens), 0, 0, NULL, "false",
      "tokens of logprobs are written token_id:ID" },
    { "stream", GEN, field_bool, AT(stream), 0, 0, NULL, "false", "server-sent events" },
    { "stream_options", GEN, set_stream_options, 0, 0, 0, "object", "{}", "only with stream" },
    { "stream_interval", GEN, field_int, AT(stream_interval), 1, API_STREAM_INTERVAL_MAX, NULL,
      "1", "tokens of a chunk behind the first, at least" },
    { "return_progress", GEN, field_bool, AT(return_progress), 0, 0, NULL, "false",
      "chunks with prompt_progress while the prompt is read; only with stream" },
    { "chat_template_kwargs", ASK_CHAT | TOKS, set_template_kwargs, 0, 0, 0, "object", "{}",
      "variables of the model's template" },
    { "reasoning_effort", ASK_CHAT | TOKS, set_effort, 0, 0, 0, "string", "none",
      "none; minimal, low, medium think for up to 256, 1024, 4096 tokens; high, xhigh, max" },
    { "thinking_token_budget", ASK_CHAT, field_int, AT(thinking_budget), -1, INT32_MAX, NULL, "-1",
      "tokens of thoughts, then they are ended; -1: no limit" },
    { "reasoning_budget", ASK_CHAT, field_int, AT(thinking_budget), -1, INT32_MAX, NULL, "-1",
      "the same" },
    { "include_reasoning", ASK_CHAT, field_bool, AT(include_reasoning), 0, 0, NULL, "true",
      "thoughts are part of the answer" },
    { "continue_final_message", ASK_CHAT | TOKS, field_bool, AT(continue_final), 0, 0, NULL,
      "false", "the answer goes on with the last message" },
    { "add_generation_prompt", ASK_CHAT | TOKS, field_flag, AT(add_generation), 0, 0, NULL,
      "not continue_final_message", "excludes continue_final_message" },
    { "add_special_tokens", GEN | TOKS, field_flag, AT(add_special), 0, 0, NULL,
      "true, false for messages", "a <bos> before the text" },
    { "truncate_prompt_tokens", GEN, field_int, AT(truncate), -1, INT32_MAX, NULL, NULL,
      "only so many tokens of the prompt are kept, up to the context; -1: what fits" },
    { "truncation_side", GEN, set_side, 0, 0, 0, "string", "left",
      "left or right: where tokens are cut off" },
    { "echo", ASK_TEXT, field_bool, AT(echo), 0, 0, NULL, "false",
      "the prompt is part of the answer" },
    { "return_token_ids", GEN, field_bool, AT(return_token_ids), 0, 0, NULL, "false",
      "token_ids and prompt_token_ids" },
    { "return_prompt_text", GEN, field_bool, AT(return_prompt_text), 0, 0, NULL, "false",
      "prompt_text: the prompt as the model read it, control tokens too" },
    { "return_token_strs", ASK_TOKENIZE, field_bool, AT(return_token_strs), 0, 0, NULL, "false",
      "token_strs too" },
    { "skip_special_tokens", ASK_TEXT, field_bool, AT(skip_special), 0, 0, NULL, "true",
      "control tokens are no text" },
    { "priority", GEN, field_int, AT(priority), INT32_MIN, INT32_MAX, NULL, "0",
      "larger than 0: behind all others" },
    { "service_tier", GEN, set_tier, 0, 0, 0, "string", NULL,
      "flex: behind all others; auto, default, scale, priority; the answer tells which it was" },
    { "cache_salt", GEN, field_str, AT(cache_salt), 1, API_CACHE_SALT_MAX, NULL, NULL,
      "prompts are shared in the prefix cache under the same salt only" },
    { "request_id", GEN, set_request_id, AT(request_id), 1, API_REQUEST_ID_MAX, "string", "random",
      "letters, digits and ._:-" },
    { "rid", GEN, set_request_id, AT(request_id), 1, API_REQUEST_ID_MAX, "string", "random",
      "the same" },

    { "user", GEN, field_str, FIELD_NOWHERE, 0, API_LABEL_BYTES_MAX, NULL, NULL, "" },
    { "safety_identifier", GEN, field_str, FIELD_NOWHERE, 0, API_LABEL_BYTES_MAX, NULL, NULL, "" },
    { "prompt_cache_key", GEN, field_str, FIELD_NOWHERE, 0, API_LABEL_BYTES_MAX, NULL, NULL, "" },
    { "metadata", GEN, accept_metadata, FIELD_NOWHERE, 0, API_METADATA_MAX, "object", "{}",
      "texts of up to 512 bytes" },
    { "store", GEN, field_bool, FIELD_NOWHERE, 0, 0, NULL, "false", "nothing is stored" },
    { "cache_prompt", GEN, field_bool, FIELD_NOWHERE, 0, 0, NULL, "true",
      "the cache changes no answer" },
    { "modalities", ASK_CHAT, accept_modalities, FIELD_NOWHERE, 0, 0, "array", NULL,
      "[\"text\"] only" },

    { "length_penalty", GEN, field_refuse, 0, 0, 0, "1", NULL, NULL },
    { "use_beam_search", GEN, field_refuse, 0, 0, 0, "false", NULL, NULL },
    { "top_logprobs", ASK_TEXT, field_refuse, 0, 0, 0, "0", NULL, NULL },
    { "logprob_token_ids", GEN, field_refuse, 0, 0, 0, "[]", NULL, NULL },
    { "functions", ASK_CHAT, field_refuse, 0, 0, 0, "[]", NULL, NULL },
    { "function_call", ASK_CHAT, field_refuse, 0, 0, 0, "none auto", NULL, NULL },
    { "echo", ASK_CHAT, field_refuse, 0, 0, 0, "false", NULL, NULL },
    { "skip_special_tokens", ASK_CHAT, field_refuse, 0, 0, 0, "true", NULL, NULL },
    { "spaces_between_special_tokens", GEN, field_refuse, 0, 0, 0, "true", NULL, NULL },
    { "separate_reasoning", ASK_CHAT, field_refuse, 0, 0, 0, "true", NULL, NULL },
    { "stream_reasoning", ASK_CHAT, field_refuse, 0, 0, 0, "true", NULL, NULL },
    { "verbosity", ASK_CHAT, field_refuse, 0, 0, 0, "medium", NULL, NULL },
    { "prediction", ASK_CHAT, field_refuse, 0, 0, 0, NULL, NULL, NULL },
    { "audio", ASK_CHAT, field_refuse, 0, 0, 0, NULL, NULL, NULL },
    { "web_search_options", ASK_CHAT, field_refuse, 0, 0, 0, NULL, NULL, NULL },
    { "suffix", ASK_TEXT, field_refuse, 0, 0, 0, NULL, NULL, NULL },
    { "timings_per_token", GEN, field_refuse, 0, 0, 0, "false", NULL, NULL },
    { "chat_template", ASK_CHAT | TOKS, field_refuse, 0, 0, 0, NULL, NULL, NULL },
    { "documents", ASK_CHAT | TOKS, field_refuse, 0, 0, 0, "[]", NULL, NULL },
    { "mm_processor_kwargs", GEN | TOKS, field_refuse, 0, 0, 0, NULL, NULL, NULL },
    { "media_io_kwargs", GEN | TOKS, field_refuse, 0, 0, 0, NULL, NULL, NULL },
    { "kv_transfer_params", GEN, field_refuse, 0, 0, 0, NULL, NULL, NULL },
    { "vllm_xargs", GEN, field_refuse, 0, 0, 0, NULL, NULL, NULL },
    { "custom_logit_processor", GEN, field_refuse, 0, 0, 0, NULL, NULL, NULL },
    { "mirostat", GEN, field_refuse, 0, 0, 0, "0", NULL, NULL },
    { "typical_p", GEN, field_refuse, 0, 0, 0, "1", NULL, NULL },
    { "top_n_sigma", GEN, field_refuse, 0, 0, 0, "-1", NULL, NULL },
    { "dynatemp_range", GEN, field_refuse, 0, 0, 0, "0", NULL, NULL },
    { "dry_multiplier", GEN, field_refuse, 0, 0, 0, "0", NULL, NULL },
    { "xtc_probability", GEN, field_refuse, 0, 0, 0, "0", NULL, NULL },
    { "id_slot", GEN, field_refuse, 0, 0, 0, "-1", NULL, NULL },
    { 0 }
};

const struct field_set openai_sets[] = {
    { "", ANY, fields }, { "stream_options.", GEN, stream_fields },
    { "chat_template_kwargs.", ASK_CHAT | TOKS, template_fields },
    { "response_format.", GEN, format_response_fields },
    { "response_format.json_schema.", GEN, format_schema_fields },
    { "structured_outputs.", GEN, format_output_fields },
    { "messages[].", ASK_CHAT | TOKS, message_fields },
    { "messages[].content[].", ASK_CHAT | TOKS, part_fields }, { NULL, 0, NULL },
};

/* Some call is held to its schema. */
static bool holds_tool(const struct ask *a)
{
    for (uint32_t i = 0; a->tool_choice != TOOL_CHOICE_NONE && i < a->tools.n; i++)
        if (a->tools.tool[i].strict)
            return true;
    return false;
}

/* What no single field can say. */
static int check_together(struct ask *a, enum ask_kind kind, struct api_err *e)
{
    if (kind == ASK_CHAT && a->messages == NULL)
        return api_err_400(e, "missing_required_parameter", "messages", "'messages' is required.");
    if (kind == ASK_TEXT && a->prompt == NULL)
        return api_err_400(e, "missing_required_parameter", "prompt", "'prompt' is required.");
    if (kind == ASK_TEMPLATE && a->messages == NULL)
        return api_err_400(e, "missing_required_parameter", "messages", "'messages' is required.");
    if (kind == ASK_DETOKENIZE && a->tokens == NULL)
        return api_err_400(e, "missing_required_parameter", "tokens", "'tokens' is required.");
    if (kind == ASK_TOKENIZE && (a->messages == NULL) == (a->prompt == NULL))
        return api_err_400(e, "missing_required_parameter", "prompt",
                           "Give 'prompt' or 'messages', one of them.");
    if ((a->include_usage || a->continuous_usage) && !a->stream)
        return api_err_400(e, "invalid_value", "stream_options",
                           "'stream_options' is allowed only with 'stream': true.");
    if (a->best_of >= 0 && a->best_of != a->n)
        return api_err_400(e, "unsupported_parameter", "best_of",
                           "'best_of' is supported only where it equals 'n'.");
    if (kind == ASK_CHAT && a->top_logprobs > 0 && !a->logprobs)
        return api_err_400(e, "invalid_value", "top_logprobs",
                           "'top_logprobs' is allowed only with 'logprobs': true.");
    if (a->prompt_logprobs >= 0 && a->stream)
        return api_err_400(e, "invalid_value", "prompt_logprobs",
                           "'prompt_logprobs' is not allowed with 'stream': true.");
    if (a->return_progress && !a->stream)
        return api_err_400(e, "invalid_value", "return_progress",
                           "'return_progress' is allowed only with 'stream': true.");
    if (a->truncate == 0)
        return api_err_400(e, "invalid_value", "truncate_prompt_tokens",
                           "'truncate_prompt_tokens' must be -1 or an integer from 1 on.");
    if (a->continue_final && a->add_generation == ASK_YES)
        return api_err_400(e, "invalid_value", "continue_final_message",
                           "'continue_final_message' excludes 'add_generation_prompt': true.");
    if (a->tool_choice >= TOOL_CHOICE_REQUIRED && a->allowed_ids != NULL)
        return api_err_400(e, "invalid_value", "tool_choice", "'tool_choice' demands a call: that "
                           "excludes 'allowed_token_ids'.");
    if (a->ignore_eos && (a->format.kind != FORMAT_FREE || holds_tool(a)))
        return api_err_400(e, "invalid_value", "ignore_eos", "'ignore_eos' is not allowed with "
                           "'%s': an answer that is whole could not end.",
                           holds_tool(a) ? "strict" : a->format.field);
    return tools_check_choice(&a->tools, a->tool_choice, a->tool_name, e);
}

const struct json *ask_tools(const struct ask *a)
{
    return a->tool_choice == TOOL_CHOICE_NONE ? NULL : a->tools.list;
}

int ask_read(struct ask *a, enum ask_kind kind, const struct json *doc, struct api_err *e)
{
    *a = (struct ask) {
        .max_tok = -1, .max_completion_tok = -1, .n = 1, .best_of = -1, .top_k = -2,
        .temperature = -1, .top_p = -1, .min_p = -1, .repetition = 1,
        .top_logprobs = -1, .prompt_logprobs = -1, .thinking_budget = -1, .effort_budget = -1,
        .stream_interval = 1, .truncate = -2,
        .thinking = ASK_UNSET, .effort = ASK_UNSET, .add_generation = ASK_UNSET,
        .add_special = ASK_UNSET, .include_reasoning = true, .skip_special = true,
        .parallel_calls = true,
    };

    if (doc->type != JSON_OBJECT)
        return api_err_400(e, "invalid_type", NULL, "The request body must be an object, not %s.",
                           json_type_name(doc->type));
    if (field_set_all(fields, kind, "", doc, a, e) != 0)
        return E_INVALID;
    return check_together(a, kind, e);
}

const struct field *ask_fields(int i, const char **prefix)
{
    static const struct { const struct field *table; const char *prefix; } rows[] = {
        { fields, "" }, { message_fields, "messages[]." }, { part_fields, "messages[].content[]." },
        { stream_fields, "stream_options." }, { template_fields, "chat_template_kwargs." },
        { sampling_repetition_fields, "repetition_detection." },
        { format_response_fields, "response_format." },
        { format_schema_fields, "response_format.json_schema." },
        { format_output_fields, "structured_outputs." },
    };

    if (i < 0 || (size_t) i >= sizeof(rows) / sizeof(rows[0]))
        return NULL;
    *prefix = rows[i].prefix;
    return rows[i].table;
}
