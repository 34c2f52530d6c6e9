/* channel.h - generated token ids -> content, reasoning and tool calls, by id and never by text.
 *
 * One machine per choice, the same for streams and whole answers, independent of how the tokens
 * are cut into steps. Without tools in force the markers of calls are dropped and the text between
 * them is content. What looks like a call and is none becomes content. */
#ifndef TEXT_CHANNEL_H
#define TEXT_CHANNEL_H

#include "said.h"
#include "tok.h"
#include "toolcall.h"

struct channel_ids {            /* looked up by text once per tokenizer; -1 if it lacks one */
    int32_t pad, eos, bos, unk, mask, tool, tool_end, tool_call, tool_call_end, tool_response,
            tool_response_end, quote, think, channel, channel_end, turn, turn_end;
};
void channel_ids_find(const struct tok *t, struct channel_ids *ids);

struct channel {
    const struct tok         *tok;
    const struct channel_ids *ids;
    struct tok_stream         ts;
    int      state;             /* private */
    bool     ended;             /* a stop id was seen */
    bool     go_on;             /* set after channel_open: stop ids end nothing (ignore_eos) */
    bool     exact;             /* the same: white space behind a thought is content */
    bool     marked;            /* the same: there is no call without its marker */
    bool     seen_any;          /* text was produced, or a channel opened */
    uint32_t n_hold;            /* bytes of a label that are held until it is whole */
    struct buf ws;              /* trailing white space of a thought, or of content that a call
                                   may follow: dropped there */
    struct buf bare;            /* text that may be the head of a call without its marker */
    struct buf text;            /* scratch: the text of one token */
    int32_t  n_reasoning_tok;   /* text tokens inside the thought channel */
    int32_t  n_call;            /* calls that are complete */
    int32_t  n_bad_call;        /* what was none after all, and calls that had to be mended */
    const struct toolset *tools;         /* in force, or NULL */
    struct toolcall call;
};

/* Start state from the prompt's last ids: inside an open channel or not. tools are borrowed; NULL:
 * none are in force. */
void channel_open(struct channel *c, const struct tok *t, const struct channel_ids *ids,
                  const struct toolset *tools, const int32_t *prompt, size_t n_prompt);
bool channel_thinks(const struct channel *c);         /* it is inside a thought */
/* Feed one token; what it says is appended to out. */
void channel_put(struct channel *c, int32_t id, struct said *out);
/* No more tokens: flush what was held. cut: by a limit, not by the model. */
void channel_end(struct channel *c, bool cut, struct said *out);
void channel_close(struct channel *c);

#endif
