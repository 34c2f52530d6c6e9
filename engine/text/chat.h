/* chat.h - messages -> the prompt text of Gemma 4 (the official template's bytes, 2026-07-09). */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H

#include "buf.h"
#include "err.h"
#include "json.h"

enum chat_variant { CHAT_LARGE, CHAT_SMALL };   /* small (E2B, E4B): no empty thought block */

struct chat_opts {
    enum chat_variant variant;
    bool enable_thinking;                       /* default false */
    bool preserve_thinking;                     /* default false */
    bool add_generation_prompt;                 /* default true */
    bool continue_final_message;                /* default false; excludes the one above */
    bool mend;                                  /* see below; default false: the template's bytes */
    struct spans *plain;                        /* see below; default NULL */
};

/* Append the prompt, "<bos>" included. messages is an ARRAY of objects, tools an ARRAY or NULL.
 * E_INVALID: e->msg says what is wrong, param (may be NULL) gets the path, e.g. "messages[2].role".
 * Images, audio and video come out as their placeholders: to count and fill them is the caller's.
 *
 * mend: where a call, its results and a text beside it end the conversation, the template closes
 * the model's turn and opens no new one. To get an answer, the usual generation prompt is added.
 * And where a schema says $ref, the template says nothing; what it leads to is printed instead.
 *
 * plain: gets the places of out that hold what clients wrote, so that nobody writes a control token
 * there (tok_encode_around). The text is the same, but for a <|think|> at the head of a system's
 * message: that is not printed. Who sets plain sets enable_thinking by chat_asks_to_think, too. */
int  chat_render(const struct json *messages, const struct json *tools,
                 const struct chat_opts *opts, struct buf *out, char param[64], struct err *e);

/* Does the first message, a system's, begin with <|think|>? Any messages, checked or not. */
bool chat_asks_to_think(const struct json *messages);

/* Which variant a model directory's chat_template.jinja is: by its hash if known, else by whether
 * it holds the closed empty thought block. 0 also when there is no file (*found false). */
int  chat_variant_detect(const char *dir, enum chat_variant *v, bool *known, bool *found,
                         struct err *e);

/* The order of an object's keys in the template: by their lower case. As strcmp; 0 for equal ones,
 * which keep the order they came in. */
int chat_key_cmp(struct slice a, struct slice b);

#endif
