/* req.h - one generation request, shared by exactly two threads.
 *
 * The api thread fills it, hands it to serve_submit and from then on only reads, except cancel.
 * The core appends tokens and publishes them with n_pub; when finish is set (release) the core
 * never touches the request again and the api thread may free it. Nothing here can overflow:
 * tok has room for every token that may ever come. */
#ifndef CORE_REQ_H
#define CORE_REQ_H

#include <stdatomic.h>
#include "model.h"

#define REQ_STOP_MAX 80          /* the model's stop ids and the request's */

enum req_finish { FIN_NONE, FIN_STOP, FIN_LENGTH, FIN_CANCEL, FIN_ERROR };

struct kv_seq {                  /* one request's view of the two pools; filled by kv.c */
    int32_t *page_full;          /* [page_max] in the slot's memory; NULL: not admitted */
    int32_t *page_sliding;       /* [page_max], -1 behind the window */
    int32_t  slot;
    int32_t  promised_full;      /* pages it may come to hold at once, set at admission */
    int32_t  promised_sliding;
    int32_t  n_page;             /* entries in use, the same in both tables */
    int32_t  n_sliding_freed;    /* leading entries of page_sliding that went back */
    int32_t  n_tok;              /* tokens whose K and V are stored */
};

struct req {
    /* the owner's, constant after serve_submit */
    int32_t      *tok;           /* [n_prompt + max_new]; the prompt filled in */
    int32_t       n_prompt;      /* >= 1 */
    int32_t       max_new;       /* >= 0; 0: prefill only (score) */
    struct sample sample;
    int32_t       stop_id[REQ_STOP_MAX], n_stop_id;
    int32_t       min_new;       /* until so many tokens came the model's stop ids are masked and
                                    stop_id ends nothing */
    float        *logprob;       /* [n_prompt - 1] of each next prompt token, or NULL */
    float        *last_logits;   /* [vocab] of the last prompt position, or NULL */
    void         *user;          /* the owner's */
    int           port;          /* which serve_port is woken */

    /* owner -> core */
    atomic_bool   cancel;

    /* core -> owner */
    atomic_int    n_pub;         /* generated tokens valid at tok[n_prompt ..] */
    atomic_int    finish;        /* enum req_finish; last word of the core */
    int32_t       stop_at;       /* the stop id that ended it (not published in tok), or -1 */
    int32_t       n_cached;      /* prompt tokens that came from the prefix cache */
    uint64_t      submit_ns, start_ns, first_ns, done_ns;   /* the core's clock hook; 0: not yet */

    /* the core's */
    struct kv_seq seq;
    int32_t       want_tok;      /* prompt + sampled: where seq.n_tok is heading */
    uint64_t      last_ns;       /* when its newest token came */
    struct req   *next;
};

#endif
