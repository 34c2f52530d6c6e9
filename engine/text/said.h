/* said.h - what a model said and no writer has taken yet: reasoning, content and tool calls.
 *
 * The bytes of each kind lie together, for whole answers; parts tell their order, for streams. A
 * call is a CALL part with its name, then ARGS: JSON text that is only ever appended to. All bytes
 * are valid UTF-8. Memory that runs out drops bytes and sets content.full. */
#ifndef TEXT_SAID_H
#define TEXT_SAID_H

#include "buf.h"

#define SAID_ID_BYTES 32                /* "call_", 24 letters or digits, NUL */

enum said_kind { SAID_REASONING, SAID_CONTENT, SAID_CALL, SAID_ARGS };

struct said_part {
    enum said_kind kind;
    size_t         n;                   /* bytes of it */
};

struct said {
    struct buf        reasoning, content, calls;    /* calls: names and arguments */
    struct said_part *part;             /* [first, n_part) wait */
    size_t            first, n_part, cap_part;
    int32_t           n_call;           /* calls begun so far, taken ones too */
    int32_t           n_taken;          /* of these, those whose name was taken */
    bool              cut;              /* the last call is: its arguments are no whole JSON */
    uint64_t          id_key[2];        /* random: ids of calls are made of it */
};

struct said_call {
    int32_t      index;                 /* in the order of the answer, from 0 */
    char         id[SAID_ID_BYTES];
    struct slice name;                  /* n 0: more arguments of a call that was told before */
    struct slice args;                  /* JSON text, or a piece of it; borrowed, as name is */
    bool         cut;                   /* of a whole answer: args stop in the middle */
};

/* Append; text goes on in the last part if that is of its kind. */
void said_put(struct said *s, enum said_kind kind, const char *p, size_t n);
size_t said_bytes(const struct said *s);            /* that wait */

/* The first part that waits, at most max bytes of it and whole characters only, but a name always
 * whole. False: nothing waits. */
bool said_front(const struct said *s, size_t max, struct said_part *part, struct slice *bytes);
/* It has been written: drop n bytes of the front part. */
void said_take(struct said *s, size_t n);

/* The call that a CALL or ARGS part at the front belongs to, with name or args set to bytes. */
void said_front_call(const struct said *s, struct said_part part, struct slice bytes,
                     struct said_call *call);
/* Walk the calls of an answer of which nothing was taken; *w begins as zeros. False: no more. */
struct said_walk { size_t part, at; int32_t index; };
bool said_next_call(const struct said *s, struct said_walk *w, struct said_call *call);

void said_clear(struct said *s);        /* all was taken; call numbers go on */
void said_free(struct said *s);

#endif
