/* work.h - what is read of a request body: an ask, its prompts, and a whole answer if that is all.
 *
 * A work may run on the reader thread of its port, so it touches no link and no stream. */
#ifndef API_WORK_H
#define API_WORK_H

#include "port.h"

/* prompt.c: what the model is to read */
struct prompt_set {
    struct ids ids;                           /* all of them, one after the other */
    int32_t    n;
    bool       for_context;                   /* it must leave room in the context as it is */
    size_t     text_bytes;                    /* tokenised so far, <= API_TEXT_BYTES_MAX */
    size_t     end[API_PROMPT_MAX];           /* where each ends in ids */
};
/* The text of a conversation, and where in it no control token is to be looked for. */
int  prompt_chat_text(const struct api *a, const struct ask *ask, struct buf *text,
                      struct spans *plain, struct api_err *e);
int  prompt_read(const struct api *a, enum ask_kind kind, const struct ask *ask,
                 struct prompt_set *out, struct api_err *e);
void prompt_free(struct prompt_set *s);
/* Thoughts may come before the answer of a chat. */
bool prompt_thinks(const struct api *a, const struct ask *ask);

/* work.c: what is read of a body, and the thread that reads the long ones */
typedef int work_fn(struct work *w);          /* after ask: fill prompts or out; 0, or E_ and e */

struct work {
    struct work      *next;
    struct stream    *st;                     /* dangles once left is set */
    atomic_bool       left;                   /* nobody waits for it: free it */
    struct api       *api;
    enum ask_kind     kind;
    work_fn          *fn;
    struct buf        body;
    struct json_doc  *doc;                    /* ask borrows from it */
    struct ask        ask;
    struct prompt_set prompts;
    struct guide     *guide;                  /* or NULL; who takes it sets NULL */
    struct buf        echo;                   /* members that the answer repeats (translate.h) */
    struct buf        out;                    /* a whole answer */
    bool              is_read;                /* ask is filled, or rc says why not */
    int               rc;                     /* 0, or E_INVALID and e */
    struct api_err    e;
};

/* The body is complete: http_finish comes at once, or from work_take_done. */
void work_start(struct stream *st, enum ask_kind kind, work_fn *fn);
void work_take_done(struct port *p);
void work_abandon(struct work *w);            /* the stream is gone */
int  reader_open(struct port *p);             /* 0, or E_IO */
void reader_close(struct port *p);

#endif
