/* admit.h - may a request have what it asks for? The core's req of each of its choices: room in the
 * context, stop ids, sampling, logprobs, and whose it is. */
#ifndef API_ADMIT_H
#define API_ADMIT_H

#include "choice.h"
#include "dialect.h"
#include "work.h"

struct admit {                       /* the same for all choices of a request */
    const struct stream  *st;
    const struct ask     *ask;
    const struct dialect *dialect;
};

/* c->chat is set, the rest of c zeros. first: of its prompt, so the prompt's logprobs come with it.
 * 0; E_INVALID and *e; E_FULL: no memory. What c owns is for choice_close() in any case. */
int  admit_choice(struct choice *c, const struct admit *w, struct out_ids prompt, bool first,
                  uint64_t seed, struct api_err *e);

/* 0, or E_INVALID and *e: logprobs of prompts are written to memory as soon as they are asked for,
 * so there may be so many only. */
int  admit_lp(const struct ask *ask, const struct prompt_set *ps, struct api_err *e);

/* Of the batch class: by its priority or service tier. */
bool admit_is_batch(const struct ask *ask);

#endif
