/* backend.h - the op table. The forward pass is written once, over these; a backend implements
 * them.
 *
 * Ops return void: a wrong argument is an assert, a failure of the device is latched here and
 * asked for once, after step_end. Buffers come from be_alloc() and live until be_close(). An op
 * sees the results of all ops before it, of the steps before as well. One thread asks for ops,
 * another may wait for the steps that have ended. */
#ifndef BACKEND_BACKEND_H
#define BACKEND_BACKEND_H

#include <assert.h>
#include <stdbool.h>
#include "attn.h"
#include "err.h"
#include "gemm.h"
#include "moe.h"
#include "norm.h"
#include "pump.h"
#include "sample.h"

struct backend;

/* Bytes: planned from the limits, and really allocated; of a GPU, all processes counted, free
 * before and now (0: no GPU). */
struct be_memory { uint64_t planned, used, free_before, free_now; };

#define BE_FLIGHT_MAX 2                    /* steps that have ended and not been waited for */
#define NO_SHAPE (-1)                      /* of a step that is like no other */
#define BE_FEW   8                         /* rows of a step whose ops all go one after the other */

struct input {                             /* ints of this step */
    const int32_t *p;
    const int32_t *row;                    /* [n_row] which rows of p; NULL: 0, 1, 2 ... */
    int32_t        n_row, n_col;
    int32_t        stride;                 /* of rows in p; afterwards, where ops read them */
    int32_t        width;                  /* ops see rows of so many, >= n_col; what is behind the
                                              n_col is nobody's */
};

struct backend_ops {
    void *(*alloc)(struct backend *be, size_t bytes);            /* NULL: no memory */
    void  (*close)(struct backend *be);
    void  (*memory)(struct backend *be, struct be_memory *m);

    /* A tensor of the checkpoint where ops can read it: from->p itself, or a copy that is on its
     * way. NULL: no memory. */
    const void *(*weight)(struct backend *be, const struct be_file *from, size_t bytes);
    /* Bytes on their way, after a moment of waiting. 0: none, or it failed (latched). Asked until
     * then before the first step. */
    uint64_t (*loading)(struct backend *be);
    void  (*put)(struct backend *be, void *to, const void *p, size_t bytes);   /* before steps, */
    void  (*get)(struct backend *be, void *to, const void *p, size_t bytes);   /* for tests: wait */
    const int32_t *(*input)(struct backend *be, struct input *in);   /* where ops can read it */
    /* Ops of a step come between these two, which only queue work: up to BE_FLIGHT_MAX steps have
     * ended and not been waited for. Nothing of the caller's is read after the second. Steps of one
     * shape, of lim.n_shape, ask for the same ops with the same arguments, but for what inputs and
     * sampled rows hold. Their inputs are as large and come in the same order; those that are not
     * come last, and only sampled rows point there. So a backend that keeps steps can launch what
     * it launched before. */
    void  (*step_begin)(struct backend *be, int32_t shape);
    void  (*step_end)(struct backend *be);
    /* Until the oldest step that has ended is done, beside the thread that asks for the next one.
     * E_GPU: it is not, nor will any later one be. Results, and be->times, are there after it. */
    int   (*step_wait)(struct backend *be, struct err *e);
    /* Of a backend that keeps steps. As step_begin and step_end, but nothing runs, the step is only
     * kept. false: it is already, or no more are. E_FULL: it could not be, and e says why; from now
     * on no more are kept, and all that are not run op by op. */
    bool  (*record)(struct backend *be, int32_t shape);
    int   (*recorded)(struct backend *be, struct err *e);

    /* last: the backend's own, of each row that the step before sampled its id, or 0 for none */
    void (*next_ids)  (struct backend *be, const struct next_ids *a);
    void (*embed)     (struct backend *be, const struct embed *a);
    void (*norm)      (struct backend *be, const struct norm *a);
    void (*gather)    (struct backend *be, const struct gather *a);
    void (*join)      (struct backend *be, const struct join *a);
    void (*to_act)    (struct backend *be, const struct to_act *a);
    void (*linear)    (struct backend *be, const struct linear *a);
    void (*geglu)     (struct backend *be, const struct geglu *a);
    void (*rope_table)(struct backend *be, const struct rope_table *a);
    void (*kv_copy)   (struct backend *be, const struct kv_copy *a);
    void (*attn_layer)(struct backend *be, const struct attn_layer *a);
    /* the same argument; between the two only a linear of one product may come. scratch: backend's
       own */
    void (*moe_route) (struct backend *be, const struct moe *a);
    void (*moe)       (struct backend *be, const struct moe *a);
    void (*fill)      (struct backend *be, const struct fill *a);
    /* rows, logits_out, lp_id, lp and tok are the caller's memory, filled by step_wait */
    void (*sample)    (struct backend *be, const struct sample_row *rows, int32_t n_row);
};

/* Of a step. launch: the host's, until all was queued. device: a GPU's, from its first input or op
 * to the last result; both run side by side unless the step was one graph. 0: no GPU. */
struct be_times { double launch_ms, device_ms; };

struct backend {
    const struct backend_ops *ops;
    struct err                err;     /* the first failure but step_wait's; E_GPU, sticky */
    struct be_times           times;   /* of the last step waited for */
    const char               *note;    /* to be said at the start, NULL: nothing */
    bool                      sealed;  /* ready: no be_alloc any more */
    bool                      keeps;   /* steps, by their shapes */
    int32_t                   due;     /* the shape that is worth it now, or NO_SHAPE */
    bool                      device;  /* memory of its own; matrices, acts (norm.h) and KV pages
                                          are bf16 there */
};

struct backend_limits {                /* of all ops to come; sizes the backend's own scratch */
    int32_t    n_thread;
    int32_t    vocab;
    size_t     attn_scratch;           /* attn_scratch() of the largest layer, 0: none */
    struct moe moe;                    /* shape fields only; n_expert 0: none */
    int32_t    step_tok_max, seq_max, page_max;
    int64_t    steer_words;            /* of the inputs of a step */
    int32_t    n_shape, n_shape_few;   /* of steps that are alike; of these up to BE_FEW rows */
    int32_t    n_layer;
    int32_t    hidden, ffn, ple;       /* of the stream, a dense layer, per-layer inputs */
    int32_t    n_head, n_kv[2], head_dim[2];           /* of the two layer types */
    uint64_t   model_bytes;            /* weights, KV pages and activations, allocated later */
    uint64_t   kv_bytes;               /* of these */
    bool       apart;                  /* tests: every buffer is an allocation of the device's, so
                                          that its tools see who leaves one */
};

#define BE_SLACK         (1u << 20)    /* for the rounding of all allocations together */
#define BE_CUDA_RESERVE  (128ull << 20)    /* that driver and libraries take while we run */

int be_open_cpu(struct backend **out, const struct backend_limits *lim, struct err *e);

static inline void be_close(struct backend *be)
{
    if (be != NULL)
        be->ops->close(be);
}

static inline void *be_alloc(struct backend *be, size_t bytes)
{
    assert(!be->sealed);
    return be->ops->alloc(be, bytes);
}

/* 0, or the latched failure. */
static inline int be_failed(const struct backend *be, struct err *e)
{
    return be->err.code == 0 ? 0 : err_set(e, be->err.code, "%s", be->err.msg);
}

/* Wait for all ops since the last time, with nothing else under way. */
static inline int be_sync(struct backend *be, struct err *e)
{
    be->ops->step_end(be);
    return be_failed(be, e) < 0 ? e->code : be->ops->step_wait(be, e);
}

/* Bytes of an act. */
static inline size_t be_act_bytes(const struct backend *be)
{
    return be->device ? 2 : sizeof(float);
}

static inline const int32_t *be_input_rows(struct backend *be, struct input *in)
{
    return be->ops->input(be, in);
}

static inline const int32_t *be_input(struct backend *be, const int32_t *p, int32_t n)
{
    return be->ops->input(be, &(struct input) { .p = p, .n_row = 1, .n_col = n, .stride = n,
                                                .width = n });
}

#define BE_OP(name, type)                                                       \
    static inline void op_##name(struct backend *be, const struct type *a)     \
    {                                                                           \
        be->ops->name(be, a);                                                   \
    }

BE_OP(next_ids, next_ids)
BE_OP(embed, embed)
BE_OP(norm, norm)
BE_OP(gather, gather)
BE_OP(join, join)
BE_OP(to_act, to_act)
BE_OP(linear, linear)
BE_OP(geglu, geglu)
BE_OP(rope_table, rope_table)
BE_OP(kv_copy, kv_copy)
BE_OP(attn_layer, attn_layer)
BE_OP(moe_route, moe)
BE_OP(moe, moe)
BE_OP(fill, fill)

#undef BE_OP

static inline void op_sample(struct backend *be, const struct sample_row *rows, int32_t n_row)
{
    be->ops->sample(be, rows, n_row);
}

#endif
