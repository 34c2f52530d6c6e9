/* plan.h - the memory budget: what the weights take, what is left for the KV cache, who fits.
 *
 * Arithmetic on model_conf and conf; no weights. With --backend cuda plan_make asks the GPU how
 * much it has, unless --memory-bytes says so. On a GPU weight_bytes + scratch_bytes + kv_bytes is
 * what model_open allocates, less MODEL_MEMORY_SLACK at most. */
#ifndef ENGINE_PLAN_H
#define ENGINE_PLAN_H

#include "conf.h"
#include "model.h"

struct plan {
    struct model_size size;                 /* elements */
    uint64_t weight_bytes;
    uint64_t memory_bytes;                  /* of the machine, or the GPU's part that may be used */
    uint64_t scratch_bytes;                 /* on a GPU: activations and work space */
    uint64_t graph_bytes;                   /* on a GPU: of steps that are launched as one, */
    uint64_t reserve_bytes;                 /* and left to the driver and libraries */
    uint64_t kv_bytes;                      /* both pools as reserved */
    uint64_t full_page_bytes, sliding_page_bytes;
    uint64_t full_page_scratch;             /* of the step, for each full page: in scratch_bytes */
    int32_t  model_len;                     /* tokens of one request at most */
    int32_t  full_pages_each;               /* pages that one longest request takes */
    int32_t  sliding_pages_each;
    int32_t  session_len;                   /* expected, of a chat: the pools are split by it */
    int32_t  full_pages_session;            /* pages that such a chat keeps between its turns */
    int32_t  sliding_pages_session;
    int32_t  sessions;                      /* such chats that fit at once */
    size_t   kv_elem_bytes, weight_elem_bytes;
    struct kv_shape kv;
};

struct plan_memory { uint64_t n_free, n_total; };  /* of the GPU, now; not asked for on the CPU */

/* E_INVALID when not even one request fits, or not --kv-cache-memory-bytes: the words name the flag
 * to change and to what, if that helps. */
int  plan_fit(struct plan *p, const struct model_conf *mc, const struct conf *c,
              const struct plan_memory *gpu, struct err *e);
int  plan_make(struct plan *p, const struct model_conf *mc, const struct conf *c, struct err *e);
void plan_print(const struct plan *p, const struct model_conf *mc, const struct conf *c);

#endif
