/* openai_out.h - what goes back: errors, usage, chunks and whole answers, as bytes.
 *
 * Pure writers into a struct buf; text must be valid UTF-8 (the detokeniser sees to it). */
#ifndef API_OPENAI_OUT_H
#define API_OPENAI_OUT_H

#include "openai_in.h"

struct out_id {                     /* the same on every chunk of an answer */
    char        id[API_REQUEST_ID_MAX + 16];
    bool        chat;
    const char *model;              /* the alias that was asked for */
    const char *fingerprint;
    const char *tier;               /* the service tier that it got; NULL: it named none */
    int64_t     created;            /* seconds */
};

struct out_usage { int64_t prompt, cached, completion, reasoning; };

struct out_ids { const int32_t *p; size_t n; };

struct out_choice {                 /* one delta, or one whole choice */
    int32_t        index;
    bool           role;            /* delta: the first of its choice */
    struct slice   text, reasoning; /* n 0: absent */
    const char    *finish;          /* NULL: not yet */
    struct slice   stop_str;        /* the stop string that ended it, p NULL: none */
    int32_t        stop_id;         /* or the request's stop id, -1: none */
    bool           with_ids;        /* return_token_ids */
    bool           with_prompt_ids; /* delta: on the first one only */
    struct out_ids ids, prompt_ids;
};

void out_error(struct buf *b, const struct api_err *e);
void out_usage(struct buf *b, const struct out_usage *u);

/* One SSE event. usage: NULL leaves the key out unless null_usage. */
void out_chunk(struct buf *b, const struct out_id *id, const struct out_choice *c,
               const struct out_usage *usage, bool null_usage);
/* The event with usage and no choice. */
void out_usage_chunk(struct buf *b, const struct out_id *id, const struct out_usage *u);
void out_done(struct buf *b);
void out_error_event(struct buf *b, const struct api_err *e);

/* A whole answer: out_whole_begin, out_whole_choice for each, out_whole_end. */
void out_whole_begin(struct buf *b, const struct out_id *id);
void out_whole_choice(struct buf *b, const struct out_id *id, const struct out_choice *c,
                      bool first);
void out_whole_end(struct buf *b, const struct out_usage *u);

void out_ids(struct buf *b, struct out_ids ids);

#endif
