/* forward.h - one step of the text model over the ops of a backend.
 *
 * Owns nothing but its scratch, which lives in the backend. Activations are [n_tok, width], the
 * tokens of all sequences in one flat list; fp32, what only products read as norm.h says. */
#ifndef MODEL_FORWARD_H
#define MODEL_FORWARD_H

#include "backend.h"
#include "bucket.h"
#include "model.h"
#include "weights.h"

struct fwd_type {                     /* what differs between sliding and full layers */
    int32_t head_dim, n_kv, n_rot;
    int32_t window;                   /* 0: none */
    float  *inv_freq;                 /* [n_rot] */
    float  *cs;                       /* rope_table.cs of this step */
};

struct fwd {
    const struct model_conf *c;
    const struct weights    *w;
    struct model_limits      lim;
    struct backend          *be;
    struct fwd_type          type[2];                  /* [is_full] */
    struct kv_layer          kv[MODEL_LAYER_MAX];      /* a shared layer has its donor's */
    int32_t *ids;                                      /* [step_tok] */
    float *x, *t1, *t2;                                /* [step_tok, hidden] */
    void  *xn, *x_route, *x_expert;                    /* act [step_tok, hidden] */
    float *q;                                          /* [step_tok, n_head * head_dim] */
    void  *att;                                        /* act, the same */
    float *k, *v;                                      /* [step_tok, n_kv * head_dim] */
    float *gate, *up;                                  /* [step_tok, ffn] */
    void  *act;                                        /* act [step_tok, ffn] */
    float *route;                                      /* [step_tok, n_expert] */
    float *expert_w;                                   /* [step_tok, top_k] */
    int32_t *expert;                                   /* [step_tok, top_k] */
    float *ple, *ple_proj;                             /* [step_tok, n_layer * ple] */
    float *logits;                                     /* [SAMPLE_ROW_MAX, vocab] */
    int32_t *suppress, *eos;                           /* of the config, as the ops read them */
    struct buckets buckets;
    int32_t *each;                                     /* [BUCKET_ROWS] 0, 1, 2 ... */
};

/* be and everything else of f is set; reserve the scratch and the KV pages. */
int  forward_open(struct fwd *f, struct err *e);

/* b was checked. Asks for all ops of the step, from the begin on; the end is the caller's. */
void forward_step(struct fwd *f, const struct batch *b, struct step_out *o);

/* Of a backend that keeps steps: steps of this shape (bucket.h) from now on are kept, nothing runs.
 * 0, also where nothing was to do; *kept if it was; E_FULL as backend.h says. */
int  forward_record(struct fwd *f, int32_t shape, bool *kept, struct err *e);

struct buckets forward_buckets(const struct model_limits *lim);

/* Bytes that forward_open takes, without and of the KV pages. */
uint64_t forward_scratch(const struct model_conf *c, const struct model_limits *lim,
                         size_t act_bytes);
uint64_t forward_kv(const struct model_conf *c, const struct model_limits *lim, size_t elem_bytes);

/* The shape of the routed experts, without data. */
struct moe forward_moe(const struct model_conf *c);

#endif
