/* guide.h - what the ids of an answer may be, where a request demands more of it than the model
 * does: a format, a call, the arguments of strict tools.
 *
 * Thoughts are free but for what would end the answer. Behind them, or behind <|tool_call> where
 * text may come too, only such ids may come as go on with the language that was asked for; when it
 * is whole also the model's stop ids, and when nothing can follow only these. */
#ifndef API_GUIDE_H
#define API_GUIDE_H

#include "channel.h"
#include "grammars.h"
#include "openai_in.h"
#include "req.h"

struct api;

struct guide {                       /* read-only once open: all choices of a request share it */
    const struct api *api;
    struct toolset *set;             /* the tools in force, or NULL */
    struct kept    *kept;            /* NULL: no ids are ruled out */
    bool            must;            /* an answer begins with a call */
    bool            one;             /* and ends with its first one */
    bool            may_think;       /* an answer may begin with a thought */
    bool            from_start;      /* the language begins behind the thoughts, not with a call */
    bool            lets_go;         /* what follows the language is free */
};

/* Something has to be compiled for it, or looked for: not on a thread that streams. */
bool guide_is_work(const struct ask *ask);
/* NULL in *out: no tools, and nothing is demanded. kind: in whose words errors are told. 0, or E_
 * and *e. */
int  guide_open(struct guide **out, const struct api *a, enum ask_kind kind, const struct ask *ask,
                struct api_err *e);
void guide_close(struct guide *g);           /* NULL is fine */

struct guide_walk {                  /* of one choice; private */
    const struct guide *guide;
    struct matcher *matcher;         /* NULL: the choice is free */
    int             state;
    int32_t         n_seen;          /* generated ids looked at */
};

/* inside: the prompt ends in a thought. guide may be NULL. 0, or E_FULL: out of memory. */
int  guide_walk_open(struct guide_walk *w, const struct guide *guide, bool inside);
void guide_walk_close(struct guide_walk *w);
/* What came may end here; when the core has let go of it. */
bool guide_walk_whole(const struct guide_walk *w);
/* The req_guide; arg: a guide_walk with a matcher. */
int32_t guide_next(void *arg, const int32_t *gen, int32_t n_gen, uint32_t *mask);

#endif
