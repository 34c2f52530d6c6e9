/* openai_in.h - a request body -> struct ask, by one table of fields.
 *
 * Each known field is either implemented, accepted because it cannot change the answer, or refused
 * by name (400 unsupported_parameter). null means absent everywhere. Unknown fields are counted.
 * Slices and nodes in an ask are borrowed from the JSON document. No allocation, no recursion. */
#ifndef API_OPENAI_IN_H
#define API_OPENAI_IN_H

#include "json.h"
#include "limits.h"
#include "tools.h"

enum ask_kind {                      /* bits: a field names the bodies it may stand in */
    ASK_CHAT = 1, ASK_TEXT = 2, ASK_TOKENIZE = 4, ASK_DETOKENIZE = 8, ASK_TEMPLATE = 16,
    ASK_MESSAGES = 32, ASK_COUNT = 64, ASK_RESPONSES = 128,   /* read as chats: translate.h */
    ASK_RESPONSES_COUNT = 256,
};

#define ASK_GENERATE    (ASK_CHAT | ASK_TEXT | ASK_MESSAGES | ASK_RESPONSES)
#define ASK_TRANSLATED  (ASK_MESSAGES | ASK_COUNT | ASK_RESPONSES | ASK_RESPONSES_COUNT)

struct api_err {                     /* what the client is told */
    int         status;              /* 400 .. 599 */
    const char *type, *code;         /* static; code may be NULL */
    char        param[64];           /* empty: null */
    char        msg[320];            /* valid UTF-8 */
    int64_t     n_prompt_tok, n_ctx; /* of context_length_exceeded, else 0 */
    int32_t     retry_ms;            /* of 429 and 503: when to come again; 0: not known */
    bool        final;               /* to try again makes no sense, though the status may say so */
};

enum ask_flag { ASK_UNSET = -1, ASK_NO, ASK_YES };

enum format_kind {                   /* what the text of an answer has to be; format_in.c */
    FORMAT_FREE, FORMAT_OBJECT, FORMAT_SCHEMA, FORMAT_REGEX, FORMAT_CHOICE, FORMAT_EBNF, FORMAT_N,
};

struct format {
    enum format_kind   kind;
    const struct json *value;        /* of SCHEMA an OBJECT or a STRING of its text; of CHOICE an
                                        ARRAY of STRINGs; of REGEX and EBNF a STRING */
    bool               tight;        /* JSON without white space */
    char               field[64];    /* which asked for it */
};

struct ask {
    struct slice       model;                      /* p NULL: absent */
    struct slice       request_id;                 /* the same */
    struct slice       service_tier;               /* the same */
    struct slice       cache_salt;                 /* the same */
    const struct json *messages;                   /* ARRAY, 1 .. API_MESSAGE_MAX, or NULL */
    const struct json *prompt;                     /* STRING or ARRAY, or NULL */
    const struct json *tokens;                     /* ARRAY, or NULL */
    const struct json *logit_bias;                 /* OBJECT of ids and numbers, or NULL */
    const struct json *allowed_ids;                /* ARRAY of ids, or NULL */
    const struct json *bad_words;                  /* ARRAY of strings, or NULL */
    struct tools       tools;                      /* n 0: none */
    enum tool_choice   tool_choice;
    struct slice       tool_name;                  /* of TOOL_CHOICE_NAMED */
    bool               parallel_calls;
    struct format      format;
    int64_t max_tok, max_completion_tok;           /* -1: absent */
    int64_t n, best_of, seed, min_tok, top_k;      /* top_k: -2 absent; best_of: -1 absent */
    int64_t priority;                              /* larger: later */
    int64_t top_logprobs, prompt_logprobs;         /* -1: absent */
    int64_t thinking_budget, effort_budget;        /* tokens; -1: none */
    int64_t stream_interval;                       /* >= 1 */
    int64_t truncate;                              /* -2: absent; -1: to what fits */
    int64_t repeat_max, repeat_min, repeat_count;  /* of repetition_detection; repeat_max 0: off */
    double  temperature, top_p, min_p;             /* < 0: absent */
    double  presence, frequency, repetition;       /* 0, 0, 1: off */
    bool    has_seed;
    struct slice stop[API_STOP_MAX];
    int32_t n_stop;
    int32_t stop_id[API_STOP_ID_MAX], n_stop_id;   /* >= 0; the vocabulary is checked later */
    bool    include_stop, ignore_eos;
    bool    stream, include_usage, continuous_usage;
    enum ask_flag thinking, effort, add_generation, add_special;
    bool    preserve_thinking, include_reasoning, continue_final;
    bool    echo, return_token_ids, return_token_strs, skip_special;
    bool    logprobs, ids_as_tokens, return_progress, return_prompt_text, truncate_right;
    uint32_t n_unknown;                            /* fields that no table knows */
    struct slice unknown;                          /* the first of them */
};

/* The tools that the model is told of, or NULL: none. */
const struct json *ask_tools(const struct ask *a);

/* For docs (field.h): table i of the fields of a body and what stands before its names; NULL: there
 * are no more. */
struct field;
const struct field *ask_fields(int i, const char **prefix);

/* 0, or E_INVALID and *e filled. doc is the root of the body. */
int ask_read(struct ask *a, enum ask_kind kind, const struct json *doc, struct api_err *e);

/* Fill e and return E_INVALID. param may be NULL; msg is cut to valid UTF-8. */
__attribute__((format(printf, 6, 7)))
int api_err_set(struct api_err *e, int status, const char *type, const char *code,
                const char *param, const char *fmt, ...);

/* The usual one: 400 invalid_request_error. */
#define api_err_400(e, code, param, ...) \
    api_err_set(e, 400, "invalid_request_error", code, param, __VA_ARGS__)

/* Letters, digits and "._:-" only, 1 .. API_REQUEST_ID_MAX: safe in a header and in a log. */
bool api_request_id_ok(struct slice s);

#endif
