/* serve.h - the loop: drain, plan, batch, forward, sample, publish. One thread owns it all.
 *
 * Ports connect api threads to it: per port one bounded single-producer queue in and one wake-up
 * out. The core waits for nobody: no lock, no client, no file. */
#ifndef CORE_SERVE_H
#define CORE_SERVE_H

#include "err.h"
#include "metrics.h"
#include "model.h"
#include "req.h"

#define SERVE_PORT_MAX 16

struct serve_conf {
    int32_t seq_max;             /* --max-num-seqs: running at once */
    int32_t step_tok_max;        /* --max-num-batched-tokens: budget of a step */
    int32_t model_len_max;       /* --max-model-len: prompt + generated of one request */
    int32_t queue_max;           /* unfinished requests beyond seq_max, all ports together */
    int64_t queue_tok_max;       /* prompt tokens that wait; 0: no limit */
    int32_t tenant_max;          /* unfinished requests of one tenant but 0; 0: no limit */
    uint64_t wait_max_ns;        /* who would wait longer is refused; 0: nobody is */
    uint64_t itl_target_ns;      /* beside answers a step gets so much of prompts that it takes so
                                    long; 0: 13/16 of it */
    bool    overlap;             /* plan a step while the one before runs */
    bool    cache;               /* keep prefixes */
    int32_t point_tok;           /* a reuse point every so many prompt tokens; 0: none */
    struct hash_key key;         /* of the prefix cache: random */
    int32_t n_port;
    struct kv_shape kv;
    /* hooks: the core has no clock and no descriptors of its own */
    uint64_t (*now_ns)(void *arg);
    void     (*wake)(void *arg, int port);        /* something was published for this port */
    void     (*sleep)(void *arg);                 /* nothing to do: return after serve_kick */
    void     (*kick)(void *arg);                  /* make sleep return; any thread */
    void     *arg;
};

struct serve;

int  serve_open(struct serve **out, struct model *m, const struct serve_conf *c, struct err *e);
void serve_close(struct serve *s);                /* after serve_run returned */

/* Any time, by the port's own thread. E_INVALID: it could never fit (numbers in e). E_FULL: the
 * queue is full, try later. E_GONE: the core has stopped. Not 0: r is still the caller's. Who waits
 * too long or has too many already is told by finish. */
int  serve_submit(struct serve *s, struct req *r, struct err *e);
/* All of them or none, for one port: what of them is refused by finish is so before another of them
 * has a token. */
int  serve_submit_all(struct serve *s, struct req *const *r, int32_t n, struct err *e);
void serve_cancel(struct serve *s, struct req *r);    /* finish becomes FIN_CANCEL within a step */

/* The loop, until serve_stop. 0, or E_GPU when a step was lost (every request got FIN_ERROR). */
int  serve_run(struct serve *s, struct err *e);
void serve_stop(struct serve *s);                 /* any thread: cancel everything and return */
void serve_reset_cache(struct serve *s);          /* any thread: forget idle prefixes, soon */

/* One pass: drain, plan, launch, and the results of the step before. false: there was nothing to
 * do. serve_run is this and sleep. e->code is 0 unless a step was lost; then every request got
 * FIN_ERROR and no more are taken. */
bool serve_once(struct serve *s, struct err *e);

const struct metrics *serve_metrics(const struct serve *s);

#endif
