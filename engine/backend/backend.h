/* backend.h - the op table. The forward pass is written once, over these; a backend implements
 * them.
 *
 * Ops return void: a wrong argument is an assert, a failure of the device is latched here and
 * asked for once, by be_step_end(). Buffers come from be_alloc() and live until be_close(). An op
 * sees the results of all ops before it. */
#ifndef BACKEND_BACKEND_H
#define BACKEND_BACKEND_H

#include "attn.h"
#include "err.h"
#include "gemm.h"
#include "moe.h"
#include "norm.h"
#include "sample.h"

struct backend;

struct backend_ops {
    void *(*alloc)(struct backend *be, size_t bytes);            /* NULL: no memory */
    void  (*close)(struct backend *be);

    void (*embed)     (struct backend *be, const struct embed *a);
    void (*norm)      (struct backend *be, const struct norm *a);
    void (*gather)    (struct backend *be, const struct gather *a);
    void (*gemm)      (struct backend *be, const struct gemm *a);
    void (*geglu)     (struct backend *be, const struct geglu *a);
    void (*rope_table)(struct backend *be, const struct rope_table *a);
    void (*norm_rope) (struct backend *be, const struct norm_rope *a);
    void (*kv_store)  (struct backend *be, const struct kv_store *a);
    void (*kv_copy)   (struct backend *be, const struct kv_copy *a);
    void (*attn)      (struct backend *be, const struct attn *a);
    void (*moe_route) (struct backend *be, const struct moe_route *a);
    void (*moe)       (struct backend *be, const struct moe *a);     /* scratch: backend's own */
    void (*sample)    (struct backend *be, const struct sample_row *rows, int32_t n_row);
};

struct backend {
    const struct backend_ops *ops;
    struct err                err;     /* the first failure; E_GPU, sticky */
};

struct backend_limits {                /* of all ops to come; sizes the backend's own scratch */
    int32_t    n_thread;
    int32_t    vocab;
    size_t     attn_scratch;           /* attn_scratch() of the largest layer, 0: none */
    struct moe moe;                    /* shape fields only; n_expert 0: none */
};

int be_open_cpu(struct backend **out, const struct backend_limits *lim, struct err *e);

static inline void be_close(struct backend *be)
{
    if (be != NULL)
        be->ops->close(be);
}

static inline void *be_alloc(struct backend *be, size_t bytes)
{
    return be->ops->alloc(be, bytes);
}

/* 0, or the latched failure. */
static inline int be_step_end(struct backend *be, struct err *e)
{
    return be->err.code == 0 ? 0 : err_set(e, be->err.code, "%s", be->err.msg);
}

#define BE_OP(name, type)                                                       \
    static inline void op_##name(struct backend *be, const struct type *a)     \
    {                                                                           \
        be->ops->name(be, a);                                                   \
    }

BE_OP(embed, embed)
BE_OP(norm, norm)
BE_OP(gather, gather)
BE_OP(gemm, gemm)
BE_OP(geglu, geglu)
BE_OP(rope_table, rope_table)
BE_OP(norm_rope, norm_rope)
BE_OP(kv_store, kv_store)
BE_OP(kv_copy, kv_copy)
BE_OP(attn, attn)
BE_OP(moe_route, moe_route)
BE_OP(moe, moe)

#undef BE_OP

static inline void op_sample(struct backend *be, const struct sample_row *rows, int32_t n_row)
{
    be->ops->sample(be, rows, n_row);
}

#endif
