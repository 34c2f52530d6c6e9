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
#include "prefix.h"
#include "steer.h"

#define REQ_STOP_MAX STEER_STOP_MAX          /* the model's stop ids and the request's */
#define REQ_SALT_MAX 160         /* bytes that keep tenants' prefixes apart */

enum req_finish {
    FIN_NONE, FIN_STOP, FIN_LENGTH, FIN_CANCEL, FIN_ERROR,
    FIN_CORRUPT,                 /* what the model made of it is not finite */
    FIN_BUSY,                    /* never started: it would have waited too long; see retry_ms */
    FIN_QUOTA,                   /* never started: its tenant has too many */
};

enum req_class { REQ_INTERACTIVE, REQ_BATCH, REQ_CLASS_N };

struct kv_seq {                  /* one request's view of the two pools; filled by kv.c */
    int32_t *page_full;          /* [page_max] in the slot's memory; NULL: not admitted */
    int32_t *page_sliding;       /* [page_max], -1 behind the window */
    int32_t  slot;
    uint32_t rev;                /* changes when entries that were there already change */
    int32_t  n_fill;             /* tokens known at admission, and one more: pages are promised */
    int32_t  promised_full;      /* of these, those not taken yet */
    int32_t  promised_sliding;
    int32_t  n_page;             /* entries in use, the same in both tables */
    int32_t  n_sliding_freed;    /* leading entries of page_sliding that went back */
    int32_t  n_tok;              /* tokens whose K and V are stored or in a step under way */
    int32_t  n_whole;            /* leading pages that are full of known tokens */
    int32_t  node;               /* of the last of them in the prefix cache, or NO_NODE */
    int32_t  taken;              /* the reuse point that it started from, or NO_NODE */
    struct prefix_habit habit;
    int32_t  branch;             /* make a reuse point after so many pages: others came here too */
};

struct req_lp {                  /* room for logprobs: rows of 1 + n, as of struct step_out */
    int32_t *id;                 /* NULL: not wanted */
    float   *p;                  /* NULL: none of this is wanted */
    int32_t  n;                  /* 0 .. MODEL_TOP_MAX */
};

/* Thoughts begin behind the id open and end with the last id of close. When so many of their tokens
 * came, the first n_free behind each open not counted, the core makes the ids of close come. */
struct req_think {
    int32_t open, n_free;        /* n_free: the channel's name */
    int32_t budget;              /* >= 0, of all thoughts together */
    const int32_t *close;
    int32_t n_close;             /* >= 1 */
    bool    inside;              /* the prompt ends in a thought, behind its name */
};

/* Asked by the core's thread before each token, with all ids before it known: what may come after
 * gen[0 .. n_gen). An id (>= 0): this one; GUIDE_MASK: the ids whose bits it has set in mask, which
 * comes zeroed, steer_mask_words() long; GUIDE_ANY; GUIDE_OFF: any, from now on. It must be quick
 * and take no lock. Where the mask and the request's other wishes leave no id, the first of the
 * model's stop ids comes. */
enum { GUIDE_ANY = -1, GUIDE_MASK = -2, GUIDE_OFF = -3 };
typedef int32_t req_guide(void *arg, const int32_t *gen, int32_t n_gen, uint32_t *mask);

struct req {
    /* the owner's, constant after serve_submit */
    int32_t      *tok;           /* [n_prompt + max_new]; the prompt filled in */
    struct hash128 *key;         /* [n_prompt / page_tok] filled at submit; NULL: the core hashes
                                    in its own time */
    int32_t       n_prompt;      /* >= 1 */
    int32_t       max_new;       /* >= 0; 0: prefill only (score) */
    struct sample sample;
    int32_t       stop_id[REQ_STOP_MAX], n_stop_id;
    int32_t       min_new;       /* until so many tokens came no stop id can come */
    const struct steer *steer;   /* penalties, biases, words, masks: NULL or as long-lived as this.
                                    force, stop, gen and n_pend are the core's to fill in */
    const int32_t *force;        /* [n_force] the first generated ids; alive until finish */
    int32_t       n_force;
    req_guide    *guide;         /* NULL: nobody is asked. Such a request has one step in two, so
                                    that each token is known when the next is chosen */
    void         *guide_arg;
    const struct req_think *think;       /* NULL: no budget */
    struct req_lp lp;            /* [max_new] rows, of the generated ids; valid as n_pub says */
    struct req_lp prompt_lp;     /* [n_prompt - 1] rows, each of the prompt's next id; who wants
                                    them reads no prefix cache */
    float        *last_logits;   /* [vocab] of the last prompt position, or NULL */
    bool          tell_read;     /* publish n_read too */
    void         *user;          /* the owner's */
    int           port;          /* which serve_port is woken */
    uint64_t      tenant;        /* who asks: shares of the engine go by it. 0: unknown */
    enum req_class class;
    char          salt[REQ_SALT_MAX];    /* prefixes are shared only under the same one */
    int32_t       n_salt;
    uint64_t      identity[2];   /* of images and adapters, which the ids do not tell; 0: none */
    const struct req *twin;      /* NULL, or submitted before with the same prompt: its pages may be
                                    shared; lives as long as this one */

    /* owner -> core */
    atomic_bool   cancel;

    /* core -> owner */
    atomic_int    n_read;        /* prompt tokens stored, if tell_read; n_cached is set then */
    atomic_int    n_pub;         /* generated tokens valid at tok[n_prompt ..] */
    atomic_int    finish;        /* enum req_finish; last word of the core */
    int32_t       stop_at;       /* the stop id that ended it (not published in tok), or -1 */
    int32_t       retry_ms;      /* of FIN_BUSY and FIN_QUOTA: when it may fare better */
    int32_t       n_cached;      /* prompt tokens that came from the prefix cache */
    uint64_t      submit_ns, start_ns, first_ns, done_ns;   /* the core's clock hook; 0: not yet */

    /* the core's */
    struct hash128 root;
    struct kv_seq seq;
    int32_t       n_known;       /* ids known: prompt + sampled and read */
    int32_t       want_tok;      /* n_known + those sampled and not read yet: where seq.n_tok is
                                    heading */
    int32_t       n_flight;      /* launched steps that it is part of */
    int32_t       row;           /* of its sampled token in the step before */
    bool          guided;        /* guide is still asked */
    bool          thinks;        /* inside a thought */
    int32_t       n_inside;      /* ids since its open */
    int32_t       n_thought;     /* counted ones, of all thoughts */
    int32_t       n_close;       /* of think->close, that were forced */
    int32_t       leaving;       /* enum req_finish, once the steps under way are back */
    bool          started;       /* n_cached and start_ns are set */
    int32_t       item;          /* in the plan being made, or -1 */
    int32_t       at;            /* in the running array */
    struct flow  *flow;
    int32_t       wait_tok;      /* counted in the queue */
    uint64_t      last_ns;       /* when its newest token came */
    struct req   *next;
};

/* Room for the tokens and keys, one block: req_free gives it back. 0 or E_FULL. */
int  req_alloc(struct req *r, int32_t n_prompt, int32_t max_new, int32_t page_tok);
void req_free(struct req *r);

/* The core's: at the start, at each new id, and whether its next row must wait for the id that is
 * under way. */
void req_reset(struct req *r);
void req_note(struct req *r, int32_t id);
bool req_must_know(const struct req *r);
/* The id that must come next, all before it known; -1: none. */
int32_t req_closing(const struct req *r);

#endif
