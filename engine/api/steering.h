/* steering.h - what a request wishes of the ids that come, in the form that the core takes.
 *
 * One block of memory for all choices of a request; it must outlive their reqs. */
#ifndef API_STEERING_H
#define API_STEERING_H

#include "req.h"
#include "work.h"

struct steering {
    struct steer    *of;               /* [prompts]; NULL: nothing is bent */
    struct req_think think;            /* budget -1: none */
    int32_t          close;            /* what think.close points to */
    void            *block;
};

/* s is zeroed; ps: the prompts of the request. 0; E_INVALID and *e: an id is outside the
 * vocabulary, or there is no tokenizer for words; E_FULL: no memory. */
int  steering_open(struct steering *s, const struct api *a, const struct ask *ask,
                   const struct prompt_set *ps, struct api_err *e);
void steering_close(struct steering *s);

#endif
