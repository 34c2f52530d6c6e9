/* model.h - a Gemma 4 checkpoint that can be stepped. What the core sees of everything below it.
 *
 * Knows shapes, weights and the KV storage; knows nothing of requests. One thread steps it. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "err.h"

#define MODEL_LAYER_MAX     128
#define MODEL_EOS_MAX       16
#define MODEL_SUPPRESS_MAX  64
#define MODEL_TOP_MAX       20            /* logprobs of a row beside its own */

struct model_conf {                       /* config.json + generation_config.json, checked */
    int32_t n_layer, hidden, vocab;
    int32_t n_head, n_kv_sliding, n_kv_full;
    int32_t head_sliding, head_full;      /* head_dim of the two layer types */
    int32_t window;                       /* keys visible to a sliding query, itself included */
    int32_t ffn;                          /* dense MLP width; double in KV-shared layers if wide */
    bool    double_wide;
    bool    k_eq_v;                       /* full layers: V is the raw K projection */
    int32_t n_kv_shared;                  /* last layers that use an earlier layer's K and V */
    int32_t ple;                          /* per-layer embedding width, 0: none */
    bool    moe;
    int32_t n_expert, top_k, expert_ffn;
    bool    is_full[MODEL_LAYER_MAX];     /* layer type */
    float   rope_theta_sliding, rope_theta_full, rope_partial_full, rope_factor_full;
    float   rms_eps, softcap;             /* softcap 0: none */
    int32_t max_pos;
    bool    tied;                         /* the head may be the embedding: no lm_head.weight */
    int32_t eos[MODEL_EOS_MAX], n_eos;    /* stop ids */
    int32_t bos, pad;
    int32_t suppress[MODEL_SUPPRESS_MAX], n_suppress;
    float   temperature, top_p;           /* defaults of generation_config.json */
    int32_t top_k_default;
    char    name[64];                     /* last part of the directory */
    bool    has_vision, has_audio;        /* present in the file: their tensors are ignored */
};

/* dir/config.json and, if present, dir/generation_config.json; no weights are touched. Errors name
 * the file and the field. Accepts the published and the re-saved (per_layer_config) form. */
int  model_conf_load(struct model_conf *c, const char *dir, struct err *e);

/* Which layer's K and V layer il reads: il itself, or the donor of a KV-shared layer. */
int32_t model_kv_layer(const struct model_conf *c, int32_t il);

/* Pairs of a head that turn: (i, i + head_dim/2) for i below it. */
int32_t model_n_rot(const struct model_conf *c, bool full);

/* Dims of a head's K in the cache: all; or, of full layers with k_eq_v, the turned ones only, since
 * the others are V's but for a weight. */
int32_t model_k_dim(const struct model_conf *c, bool full);

/* KV bytes of one page of page_tok tokens, all layers of the pool, fp32 on the CPU backend. */
size_t model_kv_page_bytes(const struct model_conf *c, bool full, int32_t page_tok,
                           size_t elem_bytes);

/* The text weights by component, from the shapes (for plan). Elements, not bytes. */
struct model_size {
    uint64_t embed, ple_embed, attn, mlp, experts, router, norms, head, total;
    uint64_t vec;                         /* of the total: in vectors, */
    uint64_t vec_f32;                     /* which take so many floats where they are copied */
};
void model_size(const struct model_conf *c, struct model_size *s);

struct kv_shape { int32_t page_tok, n_page_full, n_page_sliding; };

enum model_backend { MODEL_CPU, MODEL_CUDA };

struct model_limits {
    enum model_backend backend;
    bool    dummy;                        /* random weights instead of the files: for benchmarks */
    struct kv_shape kv;
    int32_t step_tok_max;                 /* tokens of one step, all sequences together */
    int32_t seq_max;                      /* sequences of one step */
    int32_t page_max;                     /* entries of one row of a page table */
    int32_t n_thread;
    /* The device failed with no step under way that would say so. In a thread of the model's; NULL:
     * the next step says it. */
    void  (*lost)(void *arg, const struct err *e);
    void   *lost_arg;
};

/* false: what is said about a GPU leaves out what its kernels hold. */
bool    model_has_cuda(void);
/* Words of struct batch.steer that a model with these limits takes. */
int64_t model_steer_words(const struct model_conf *c, const struct model_limits *lim);

/* What model_open reserves besides weights and KV pages. */
uint64_t model_scratch_bytes(const struct model_conf *c, const struct model_limits *lim);

/* What a GPU's driver takes after model_open for steps that are launched as one (bucket.h). */
uint64_t model_graph_bytes(const struct model_conf *c, const struct model_limits *lim);

/* Of the first GPU, in bytes; E_INVALID with the reason if there is none, E_GPU if it fails. */
int  model_gpu_memory(uint64_t *free_bytes, uint64_t *total_bytes, struct err *e);

struct model;

/* Of the backend, in bytes: planned from the shapes alone, and really allocated. On a GPU what was
 * free before, and is now, counts for all processes. */
struct model_memory { uint64_t planned, used, free_before, free_now; };

#define MODEL_MEMORY_SLACK  (1u << 20)    /* that planned may be more than used: rounding */
#define MODEL_GPU_RESERVE   (128ull << 20)     /* not allocated: for the driver and libraries */

void model_memory(const struct model *m, struct model_memory *mem);

/* What the log says at the start of how the model is computed here; NULL: nothing. */
const char *model_note(const struct model *m);

typedef void model_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes);

/* Load the weights strictly and reserve everything. progress may be NULL. */
int  model_open(struct model **out, const char *dir, const struct model_conf *c,
                const struct model_limits *lim, model_progress *progress, void *arg,
                struct err *e);
void model_close(struct model *m);
const struct model_conf *model_config(const struct model *m);

struct sample {                           /* one row's sampling, all fields valid */
    float    temperature;                 /* 0: greedy */
    float    top_p, min_p;                /* 1 and 0: off */
    int32_t  top_k;                       /* 0: off */
    uint64_t seed;                        /* with the position: the whole state of the RNG */
};

struct page_copy { int32_t full_from, full_to, sliding_from, sliding_to; };

/* One step, flat. Tokens of a sequence are contiguous, in order, and end at its newest token. */
struct batch {
    int32_t        n_tok, n_seq, n_out;
    int32_t       *tok;                   /* [n_tok] ids */
    const int32_t *from;                  /* [n_tok] or -1: tok is what row from[i] of the step
                                             launched before samples, or id 0 where that is -1, and
                                             tok[i] is not looked at. NULL: all are in tok */
    const int32_t *pos;                   /* [n_tok] absolute position in the sequence */
    const int32_t *seq;                   /* [n_tok] row in the page tables */
    const int32_t *page_full;             /* [n_seq, page_max] page of pos is at pos/page_tok */
    const int32_t *page_sliding;          /* [n_seq, page_max], anything behind the window */
    int32_t        page_max;
    const int32_t *out_row;               /* [n_out] index into tok: rows whose logits are wanted */
    const struct sample *sample;          /* [n_out] */
    const bool    *ban_eos;               /* [n_out] mask the stop ids (min_tokens), NULL: none */
    const int32_t *n_top;                 /* [n_out] logprobs wanted: of one id and of so many best,
                                             0 .. MODEL_TOP_MAX; -1: none. NULL: of no row */
    const int32_t *target;                /* [n_out] that id, -1: the sampled one; NULL: all -1 */
    const int32_t *steer;                 /* [n_steer] words of steer.h */
    const int32_t *steer_at;              /* [n_out] where a row's begin or -1; NULL: all -1 */
    int32_t        n_steer;
    const struct page_copy *copy;         /* [n_copy] pages copied before all else */
    int32_t        n_copy;
};

struct step_out {                         /* the caller's memory */
    int32_t *tok;                         /* [n_out] sampled; RNG keyed (seed, pos of the row). -1:
                                             the row's logits are not finite, or all ids banned */
    int32_t *lp_id;                       /* [n_out, 1 + MODEL_TOP_MAX] for n_top >= 0: a rank */
    float   *lp;                          /* and logprob, then the best. NULL: none wanted */
    float  **logits;                      /* [n_out] rows of vocab floats (after softcap, before
                                             suppression) or NULL each; NULL: none wanted */
};

#define MODEL_FLIGHT_MAX 2

/* Queue a step; they run one after the other, on a GPU without the host between them. b, o and what
 * they point to stay the model's until model_wait has returned for it. At most MODEL_FLIGHT_MAX are
 * under way. */
void model_launch(struct model *m, struct batch *b, struct step_out *o);
/* Of the last step waited for, with none under way: until the host had queued it, and on a GPU from
 * the first to the last of it. 0: no GPU. */
void model_times(const struct model *m, double *launch_ms, double *device_ms);

/* Wait for the oldest step. Steps launched behind a failed one fail too, with the same words. */
int  model_wait(struct model *m, struct err *e);

#endif
