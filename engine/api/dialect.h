/* dialect.h - how an answer is written, in the words of each kind of client.
 *
 * gen.c and http.c know what there is to tell and when; a dialect only knows how it is spelled.
 * Pure writers into a struct buf, no state but struct out_id. Text must be valid UTF-8 (the
 * detokeniser sees to it). One dialect is one file, *_out.c. */
#ifndef API_DIALECT_H
#define API_DIALECT_H

#include "openai_in.h"
#include "said.h"
#include "tok.h"

struct out_id {                     /* of one answer */
    char        id[API_REQUEST_ID_MAX + 16];
    bool        chat;
    bool        include_usage, continuous_usage;   /* of a stream, as asked for */
    const char *model;              /* the alias that was asked for */
    const char *fingerprint;
    const char *tier;               /* the service tier that it got; NULL: it named none */
    int64_t     created;            /* seconds */

    struct slice echo;              /* members that the answer repeats, each with a ',' before */

    struct {                        /* of a stream: where its writer is; out_close frees it */
        int32_t        n;           /* blocks that are closed */
        enum said_kind kind;        /* of the open one */
        bool           open;
        int32_t        seq;         /* events so far */
        const char    *finish;
        struct buf     text, name;  /* of the open one */
        char           call_id[SAID_ID_BYTES];
        struct buf     items;       /* the closed ones, as elements of an array */
    } block;
};

struct out_usage { int64_t prompt, cached, completion, reasoning; };

struct out_ids { const int32_t *p; size_t n; };

struct out_lp {                     /* logprobs of tokens */
    bool            wanted;
    bool            as_ids;         /* tokens are told as token_id:ID */
    bool            specials;       /* control tokens are part of the text */
    const struct tok *tok;          /* NULL: the same as as_ids */
    const int32_t  *ids;            /* [n] */
    const int32_t  *id;             /* [n, 1 + n_top] as of struct req_lp: rank, then the best */
    const float    *p;              /* the same: of the token itself, then of the best */
    size_t          n;
    int32_t         n_top;
};

struct out_progress { int64_t total, cached, read, ms; };

struct out_choice {                 /* one delta, or one whole choice */
    int32_t        index;
    bool           role;            /* delta: the first of its choice */
    struct slice   text, reasoning; /* n 0: absent. A delta has one of these or a call */
    struct said_call call;          /* delta: its beginning, then pieces of args; else all zero */
    const struct said *said;        /* whole: its calls, by said_next_call; NULL: none */
    const char    *finish;          /* NULL: not yet */
    struct slice   stop_str;        /* the stop string that ended it, p NULL: none */
    int32_t        stop_id;         /* or the request's stop id, -1: none */
    bool           with_ids;        /* return_token_ids */
    bool           with_prompt_ids; /* delta: on the first one only */
    const struct tok *prompt_tok;   /* the same for the prompt's text, which it spells; or NULL */
    struct out_ids ids, prompt_ids;
    struct out_lp  lp;              /* of what this brings */
    struct out_lp  echo_lp;         /* of an echoed prompt, but its first id, which goes before */
    struct out_lp  prompt_lp;       /* the same for prompt_logprobs */
    int64_t        lp_at;           /* characters of the choice before this */
    const struct out_progress *progress;   /* delta: of the prompt, and nothing else; or NULL */
};

struct dialect {
    const char *id_prefix;          /* "chatcmpl-"; the request id follows */
    const char *id_header;          /* one more name of x-request-id; NULL: none */
    const char *prompt_field;       /* to blame for a prompt that is too long */
    const char *max_field;          /* and for too long an answer; NULL: a chat has two */
    const char *format_field;       /* to blame for a schema that cannot be enforced; NULL: which
                                       field it was */
    const char *schema_field;       /* the same of a tool: what stands behind "tools[0]." */
    bool        named_events;       /* "event: NAME" stands before each "data: " */
    bool        usage_on_delta;     /* delta is told the usage so far, whoever asks */

    /* A stream: delta*, then end; or fail at any point, which is then the last word. Whole SSE
     * events only. usage of delta: NULL unless usage_on_delta or continuous_usage. */
    void (*delta)(struct buf *b, struct out_id *id, const struct out_choice *c,
                  const struct out_usage *usage);
    void (*end)(struct buf *b, struct out_id *id, const struct out_usage *usage);
    void (*ping)(struct buf *b, const struct out_id *id);    /* nothing to say, but still here */
    void (*fail)(struct buf *b, struct out_id *id, const struct api_err *e);

    /* A whole answer: begin, each choice, end. */
    void (*whole_begin)(struct buf *b, struct out_id *id);
    void (*whole_choice)(struct buf *b, struct out_id *id, const struct out_choice *c);
    void (*whole_end)(struct buf *b, struct out_id *id, const struct out_usage *usage);

    /* The body of an error reply; returns the status that goes with it. */
    int  (*error)(struct buf *b, const struct api_err *e, const char *request_id);
};

void out_close(struct out_id *id);
/* The ping that every decoder skips: a comment, with the blank line that some need. */
void out_ping(struct buf *b, const struct out_id *id);

/* Where in the text of the choice the next token after these begins, in characters. */
int64_t out_lp_end(const struct out_choice *c);

/* Of a kind of body; 0, or one without a dialect of its own: OpenAI's chat. */
const struct dialect *dialect_of(enum ask_kind kind);

extern const struct dialect dialect_chat, dialect_text;   /* openai_out.c */
extern const struct dialect dialect_messages;             /* messages_out.c */
extern const struct dialect dialect_responses;            /* responses_out.c */

#endif
