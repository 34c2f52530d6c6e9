/* weights.h - the text model's parameters, found by name and checked by shape.
 *
 * Matrices stay where the file is mapped, or are the backend's copies; vectors are fp32 copies. */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "backend.h"
#include "model.h"
#include "safetensors.h"

struct layer_w {
    const float *attn_norm, *post_attn_norm;                           /* [hidden] */
    const float *ffn_norm, *post_ffn_norm;                             /* [hidden] */
    const float *q_norm, *k_norm;         /* [head_dim]; q_norm is times k_norm where the cache has
                                             no K (model_k_dim) */
    struct mat   wq, wk, wv, wo;          /* wk: none in KV-shared layers; wv: nor with k_eq_v */
    struct mat   gate, up, down;
    const float *scalar;                                               /* [1] the host reads it */

    /* moe */
    const float *post_ffn_norm_1, *ffn_norm_2, *post_ffn_norm_2;       /* [hidden] */
    struct mat   router;                                               /* [n_expert, hidden] */
    const float *router_scale;                                         /* [hidden] */
    const float *expert_scale;                                         /* [n_expert] */
    struct mat   expert_gate_up;          /* [n_expert * 2 * expert_ffn, hidden] */
    struct mat   expert_down;             /* [n_expert * hidden, expert_ffn] */

    /* per-layer embeddings */
    struct mat   ple_gate, ple_proj;                                   /* [ple, hidden] and back */
    const float *post_ple_norm;                                        /* [hidden] */
};

struct weights {
    struct mat      embed, head;                                       /* [vocab, hidden] */
    struct mat      ple_embed;                                         /* [vocab, n_layer * ple] */
    struct mat      ple_model_proj;                                    /* [n_layer * ple, hidden] */
    const float    *ple_norm;                                          /* [ple] */
    const float    *norm;                                              /* [hidden] */
    struct layer_w  layer[MODEL_LAYER_MAX];
    float          *vec;                  /* what the vectors point into, on the host */
    struct st      *st;
};

/* Strict: every parameter filled, every text tensor used. Errors name file and tensor. dir NULL:
 * no file, random weights of these shapes. */
int  weights_load(struct weights *w, struct backend *be, const char *dir,
                  const struct model_conf *c, model_progress *progress, void *arg,
                  struct err *e);
void weights_free(struct weights *w);              /* before the backend is closed */

#endif
