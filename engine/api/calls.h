/* calls.h - the tools in force for a request, and what its tool_choice demands of each answer.
 *
 * "required" and a named tool are no request to the model: until the name of the first call is
 * complete only such ids may come as spell one, beside a thought before it where thinking is on. */
#ifndef API_CALLS_H
#define API_CALLS_H

#include "channel.h"
#include "openai_in.h"
#include "req.h"

struct calls {                       /* read-only once open: all choices of a request share it */
    struct toolset *set;
    const struct channel_ids *ids;   /* borrowed */
    bool            must;            /* an answer begins with a call */
    bool            one;             /* and ends with its first one */
    bool            may_think;       /* an answer may begin with a thought */
    int32_t         vocab;
    struct ids      head;            /* must: "call:NAME{" of each allowed tool: length, ids */
};

/* NULL in *out: no tools are in force. may_think: thinking is on. 0, or E_ and *e. */
int  calls_open(struct calls **out, const struct ask *ask, const struct tok *tok,
                const struct channel_ids *ids, int32_t vocab, bool may_think, struct api_err *e);
void calls_close(struct calls *c);           /* NULL is fine */

struct call_guide {                  /* of one choice; private */
    const struct calls *calls;
    bool    inside;                  /* a thought */
    int32_t n_seen;                  /* generated ids looked at */
    int32_t at;                      /* the first id behind <|tool_call>; -1: not yet there */
};

/* inside: the prompt ends in a thought. Only where calls->must. */
void call_guide_open(struct call_guide *g, const struct calls *calls, bool inside);
/* The req_guide; arg: the call_guide. */
int32_t call_guide(void *arg, const int32_t *gen, int32_t n_gen, uint32_t *mask);

#endif
