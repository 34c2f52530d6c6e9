/* choice.h - one generated answer: a req of the core, and its tokens turned into text.
 *
 * Streams and whole answers run the same code. Chat splits reasoning from content by token id
 * (channel.h); completions decode plainly. Stop strings are looked for in the content only. */
#ifndef API_CHOICE_H
#define API_CHOICE_H

#include "guide.h"
#include "req.h"
#include "stop.h"

struct choice {
    struct req        req;             /* req.tok is owned */
    const struct tok *tok;             /* NULL: ids only, no text */
    bool              chat;
    bool              keep_reasoning;
    const struct guide *guide;         /* what is demanded, or NULL; borrowed */
    struct guide_walk walk;
    bool              submitted;
    int32_t           n_seen;          /* generated tokens turned into text */
    int32_t           n_eos;           /* leading stop ids that are the model's own */
    struct channel    ch;              /* chat */
    struct tok_stream ts;              /* completions */
    struct stop       stop;
    struct said       fresh;           /* what a token of a chat said, before the stop strings */
    struct buf        plain, passed;   /* scratch: text of a token; what the stop strings let by */
    struct said       said;            /* not yet written to the client */
    int32_t          *run;             /* [repeat_max] how many of the newest tokens are the same as
                                          so many before; owned, NULL: not looked for */
    int32_t           repeat_min, repeat_max, repeat_count;
    bool              repeats;         /* that ended it */
    const char       *finish;          /* "stop", "length" or "tool_calls"; NULL: goes on */
    bool              early;           /* ended here, not by the core: the caller cancels it */
    bool              broken;          /* no answer: req.finish is an error, a refusal or a
                                          cancel that is not ours */
    int32_t           stop_str;        /* index of the stop string that ended it, or -1 */
    int32_t           stop_id;         /* the request's stop id that ended it, or -1 */

    bool    began, ended;              /* the first, the last chunk was written */
    int32_t n_ids_sent;                /* of return_token_ids */
    int32_t n_lp_sent;                 /* of logprobs */
    int64_t lp_at;                     /* and the characters of their tokens */
    int32_t n_told;                    /* tokens seen at the last chunk */
    int32_t n_read_told;               /* of the prompt, for return_progress */
};

/* After req.tok, stop and the flags are set. 0, or E_FULL: out of memory. */
int  choice_open(struct choice *c, const struct channel_ids *ids);
/* Take what the core has published, at most until text_max bytes of text wait (0: no limit). True
 * when anything changed. The req of an answer that has ended may run on: the caller cancels it. */
bool choice_step(struct choice *c, size_t text_max);
/* The core will not touch it any more. */
bool choice_idle(const struct choice *c);
/* Completion tokens so far, a stop id included as vLLM counts it. */
int32_t choice_n_tok(const struct choice *c);
void choice_close(struct choice *c);   /* only when idle */

#endif
