#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "plan.h"

#define MIB          (1024.0 * 1024.0)
#define PAGE_MAX     (INT32_MAX / 2)
#define SESSION_TOK  8192        /* of a chat, if nobody says otherwise */
#define ANSWER_TOK   256         /* between the two windows of a chat: end of prompt, of answer */

static int32_t ceil_div(int64_t a, int64_t b)
{
    return (int32_t) ((a + b - 1) / b);
}

static uint64_t machine_memory(void)
{
    return (uint64_t) sysconf(_SC_PHYS_PAGES) * (uint64_t) sysconf(_SC_PAGESIZE);
}

/* What may be used, all together. */
static uint64_t memory(const struct conf *c, const struct plan_memory *gpu)
{
    uint64_t part;

    if (c->backend == BACKEND_CPU)
        return c->memory_bytes != 0 ? c->memory_bytes : machine_memory();
    if (c->kv_cache_memory_bytes != 0)     /* the cache has its size: nothing is to be shared out */
        return gpu->n_free;
    part = (uint64_t) ((double) gpu->n_total * c->gpu_memory_utilization);
    return part < gpu->n_free ? part : gpu->n_free;
}

/* A request keeps its whole context in the full pool, and in the sliding pool the window, the
 * largest chunk of a step and two pages of rounding (kv.c). What a chat keeps between two turns is
 * its context and the window. */
static void pages_each(struct plan *p, const struct model_conf *mc, const struct conf *c)
{
    int32_t page = c->block_size;
    int64_t span = (int64_t) mc->window + c->max_num_batched_tokens;

    p->full_pages_each = ceil_div(p->model_len, page);
    p->sliding_pages_each = ceil_div(span, page) + 2;
    if (p->sliding_pages_each > p->full_pages_each)
        p->sliding_pages_each = p->full_pages_each;

    p->session_len = c->kv_session_tokens != 0 ? c->kv_session_tokens : SESSION_TOK;
    if (p->session_len > p->model_len)
        p->session_len = p->model_len;
    p->full_pages_session = ceil_div(p->session_len, page);
    p->sliding_pages_session = ceil_div((int64_t) mc->window + ANSWER_TOK, page);
    if (p->sliding_pages_session > p->full_pages_session)
        p->sliding_pages_session = p->full_pages_session;
}

/* With the pages known so far. */
static struct model_limits limits(const struct plan *p, const struct conf *c)
{
    return (struct model_limits) {
        .backend = MODEL_CUDA, .step_tok_max = c->max_num_batched_tokens,
        .seq_max = c->max_num_seqs, .page_max = p->full_pages_each,
        .kv = { .page_tok = c->block_size, .n_page_full = p->kv.n_page_full } };
}

/* Some of it grows with the pages. */
static uint64_t scratch(const struct plan *p, const struct model_conf *mc, const struct conf *c)
{
    struct model_limits lim = limits(p, c);

    return model_scratch_bytes(mc, &lim);
}

/* All but how many pages there are. */
static void sizes(struct plan *p, const struct model_conf *mc, const struct conf *c)
{
    p->weight_bytes = p->size.total * p->weight_elem_bytes;
    pages_each(p, mc, c);
    if (c->backend == BACKEND_CUDA) {
        struct model_limits lim = limits(p, c);

        p->weight_bytes += sizeof(float) * p->size.vec_f32 - p->weight_elem_bytes * p->size.vec;
        p->scratch_bytes = scratch(p, mc, c);
        p->kv.n_page_full = 1;
        p->full_page_scratch = scratch(p, mc, c) - p->scratch_bytes;
        p->kv.n_page_full = 0;
        p->graph_bytes = model_graph_bytes(mc, &lim);
        p->reserve_bytes = MODEL_GPU_RESERVE;
    }
    p->full_page_bytes = model_kv_page_bytes(mc, true, c->block_size, p->kv_elem_bytes);
    p->sliding_page_bytes = model_kv_page_bytes(mc, false, c->block_size, p->kv_elem_bytes);
}

/* As many chats as fit, their pages in both pools; but at least one longest request. */
static int split(struct plan *p, uint64_t budget, struct err *e)
{
    uint64_t full_page = p->full_page_bytes + p->full_page_scratch;
    uint64_t chat = (uint64_t) p->full_pages_session * full_page
                    + (uint64_t) p->sliding_pages_session * p->sliding_page_bytes;
    uint64_t n = budget / chat, full = n * (uint64_t) p->full_pages_session, sliding;

    if (full < (uint64_t) p->full_pages_each)
        full = (uint64_t) p->full_pages_each;
    sliding = p->sliding_page_bytes == 0 ? full
              : (budget - full * full_page) / p->sliding_page_bytes;
    if (sliding < (uint64_t) p->sliding_pages_each) {
        sliding = (uint64_t) p->sliding_pages_each;
        full = (budget - sliding * p->sliding_page_bytes) / full_page;
    }
    if (full > PAGE_MAX || sliding > PAGE_MAX)
        return err_set(e, E_INVALID, "--kv-cache-memory-bytes: more than %d pages: raise"
                       " --block-size", PAGE_MAX);

    p->sessions = (int32_t) n;
    p->kv.n_page_full = (int32_t) full;
    p->kv.n_page_sliding = (int32_t) sliding;
    p->kv_bytes = full * p->full_page_bytes + sliding * p->sliding_page_bytes;
    p->scratch_bytes += full * p->full_page_scratch;
    return 0;
}

static uint64_t each_bytes(const struct plan *p)
{
    return (uint64_t) p->full_pages_each * (p->full_page_bytes + p->full_page_scratch)
           + (uint64_t) p->sliding_pages_each * p->sliding_page_bytes;
}

static uint64_t fixed_bytes(const struct plan *p)
{
    return p->weight_bytes + p->scratch_bytes + p->graph_bytes + p->reserve_bytes;
}

/* Of the GPU's memory, rounded up to two digits. */
static double share(uint64_t bytes, const struct plan_memory *gpu)
{
    return ceil((double) bytes / (double) gpu->n_total * 100) / 100;
}

/* The longest request that fits into budget, in tokens. */
static int32_t longest(const struct plan *p, const struct model_conf *mc, const struct conf *c,
                       uint64_t budget)
{
    int32_t low = 0, high = p->model_len / c->block_size;      /* pages: one that fits; at most */

    while (low < high) {
        struct plan q = *p;

        q.model_len = (low + (high - low + 1) / 2) * c->block_size;
        pages_each(&q, mc, c);
        if (each_bytes(&q) <= budget)
            low = q.model_len / c->block_size;
        else
            high = q.model_len / c->block_size - 1;
    }
    return low * c->block_size;
}

/* A flag is named if what it says then fits. room: what weights and scratch leave. */
static int no_request_fits(const struct plan *p, const struct model_conf *mc, const struct conf *c,
                           const struct plan_memory *gpu, uint64_t budget, uint64_t room,
                           struct err *e)
{
    bool by_flag = c->kv_cache_memory_bytes != 0;
    double each = (double) each_bytes(p) / MIB;
    uint64_t need = fixed_bytes(p) + each_bytes(p);
    int32_t len = longest(p, mc, c, budget);
    char lower[60] = "", more[80] = "take more memory";

    if ((by_flag || c->backend == BACKEND_CPU) && each_bytes(p) <= room)
        snprintf(more, sizeof(more), "raise --kv-cache-memory-bytes to %" PRIu64, each_bytes(p));
    else if (!by_flag && c->backend == BACKEND_CUDA && need <= gpu->n_free)
        snprintf(more, sizeof(more), "raise --gpu-memory-utilization to %.2f", share(need, gpu));
    if (len > 0)
        snprintf(lower, sizeof(lower), " or lower --max-model-len to %d", len);
    return err_set(e, E_INVALID, "one request of %d tokens needs %.1f MiB of KV cache, there are"
                   " %.1f MiB: %s%s", p->model_len, each, (double) budget / MIB, more, lower);
}

/* --kv-cache-memory-bytes is more than weights and scratch leave. */
static int no_cache_fits(const struct plan *p, const struct model_conf *mc, const struct conf *c,
                         uint64_t room, struct err *e)
{
    uint64_t mib = room >> 20;
    int32_t len = longest(p, mc, c, mib << 20);
    char lower[100] = "take more memory";

    if (each_bytes(p) <= mib << 20)
        snprintf(lower, sizeof(lower), "lower --kv-cache-memory-bytes to %" PRIu64 "m", mib);
    else if (len > 0)
        snprintf(lower, sizeof(lower), "lower --kv-cache-memory-bytes to %" PRIu64 "m and"
                 " --max-model-len to %d", mib, len);
    return err_set(e, E_INVALID, "does not fit: of %.1f MiB weights and scratch need %.1f MiB: %s",
                   (double) p->memory_bytes / MIB, (double) fixed_bytes(p) / MIB, lower);
}

/* The most tokens of a step, halved as often as it takes, with which weights, scratch and a request
 * fit; 0: none do. */
static int32_t smaller_step(const struct plan *p, const struct model_conf *mc,
                            const struct conf *c)
{
    struct conf less = *c;
    struct plan q = *p;

    for (int32_t n = c->max_num_batched_tokens / 2; n >= c->max_num_seqs && n > c->block_size;
         n /= 2) {
        less.max_num_batched_tokens = n;
        sizes(&q, mc, &less);
        if (fixed_bytes(&q) + each_bytes(&q) <= p->memory_bytes)
            return n;
    }
    return 0;
}

/* Weights and scratch alone are too much. need: with a request. */
static int no_room(const struct plan *p, const struct model_conf *mc, const struct conf *c,
                   const struct plan_memory *gpu, struct err *e)
{
    uint64_t need = fixed_bytes(p) + each_bytes(p);
    double mib = (double) fixed_bytes(p) / MIB, total = (double) gpu->n_total / MIB;
    int32_t step = smaller_step(p, mc, c);

    if (step > 0 && gpu->n_total - gpu->n_free <= gpu->n_total / 20)
        return err_set(e, E_INVALID, "weights and scratch need %.0f MiB, there are %.0f MiB: lower"
                       " --max-num-batched-tokens to %d", mib, (double) p->memory_bytes / MIB,
                       step);
    if (c->backend == BACKEND_CPU)
        return err_set(e, E_INVALID, "weights and scratch need %.0f MiB, %s %.0f MiB, and no flag"
                       " helps: take more memory or a smaller model (`inferd plan DIR --backend"
                       " cuda --memory-bytes 143771m` is for an H200)", mib,
                       c->memory_bytes != 0 ? "--memory-bytes is" : "this machine has",
                       (double) p->memory_bytes / MIB);
    if (need > gpu->n_total)
        return err_set(e, E_INVALID, "weights and scratch need %.0f MiB, the GPU has %.0f MiB:"
                       " take a larger one or a smaller model", mib, total);
    if (need > gpu->n_free)
        return err_set(e, E_INVALID, "weights and scratch need %.0f MiB, %.0f of the GPU's %.0f MiB"
                       " are free: end what holds the others (nvidia-smi shows it)", mib,
                       (double) gpu->n_free / MIB, total);
    return err_set(e, E_INVALID, "weights and scratch need %.0f MiB, of the GPU's %.0f MiB %.0f may"
                   " be used: raise --gpu-memory-utilization to %.2f", mib, total,
                   (double) p->memory_bytes / MIB, share(need, gpu));
}

static int check_lengths(const struct plan *p, const struct model_conf *mc, const struct conf *c,
                         struct err *e)
{
    if (p->model_len > mc->max_pos)
        return err_set(e, E_INVALID, "--max-model-len: %d is more than the %d positions of the"
                       " model", p->model_len, mc->max_pos);
    if (c->kv_session_tokens > p->model_len)
        return err_set(e, E_INVALID, "--kv-session-tokens: a chat of %d tokens is longer than the"
                       " %d that fit (--max-model-len)", c->kv_session_tokens, p->model_len);
    if (c->max_queue_tokens > 0 && c->max_queue_tokens < p->model_len)
        return err_set(e, E_INVALID, "--max-queue-tokens: a prompt may have nearly %d tokens, of"
                       " which %d may wait; lower --max-model-len", p->model_len,
                       c->max_queue_tokens);
    return 0;
}

int plan_fit(struct plan *p, const struct model_conf *mc, const struct conf *c,
             const struct plan_memory *gpu, struct err *e)
{
    uint64_t budget, room, want;
    int rc;

    memset(p, 0, sizeof(*p));
    model_size(mc, &p->size);
    p->weight_elem_bytes = 2;
    p->kv_elem_bytes = c->backend == BACKEND_CPU ? 4 : 2;
    p->memory_bytes = memory(c, gpu);
    p->model_len = c->max_model_len != 0 ? c->max_model_len : mc->max_pos;
    p->kv.page_tok = c->block_size;
    if ((rc = check_lengths(p, mc, c, e)) != 0)
        return rc;

    sizes(p, mc, c);
    if (fixed_bytes(p) >= p->memory_bytes)
        return no_room(p, mc, c, gpu, e);
    room = p->memory_bytes - fixed_bytes(p);
    budget = c->kv_cache_memory_bytes;
    if (budget > room)
        return no_cache_fits(p, mc, c, room, e);
    if (budget == 0) {
        budget = room;
        if (c->backend == BACKEND_CPU && budget > p->memory_bytes / 4)
            budget = p->memory_bytes / 4;
        want = each_bytes(p) * (uint64_t) c->max_num_seqs;
        if (budget > want)
            budget = want;
    }
    return budget < each_bytes(p) ? no_request_fits(p, mc, c, gpu, budget, room, e)
                                  : split(p, budget, e);
}

int plan_make(struct plan *p, const struct model_conf *mc, const struct conf *c, struct err *e)
{
    struct plan_memory gpu = { c->memory_bytes, c->memory_bytes };
    int rc = 0;

    if (c->backend == BACKEND_CUDA && c->memory_bytes == 0)
        rc = model_gpu_memory(&gpu.n_free, &gpu.n_total, e);
    return rc != 0 ? rc : plan_fit(p, mc, c, &gpu, e);
}

static void weight_row(const char *name, uint64_t n, const struct plan *p)
{
    if (n != 0)
        printf("  %-28s %14" PRIu64 " x %zu B %12.1f MiB\n", name, n, p->weight_elem_bytes,
               (double) (n * p->weight_elem_bytes) / MIB);
}

static void pool_row(const char *name, uint64_t page_bytes, int32_t each, int32_t n,
                     const struct plan *p)
{
    printf("  %-8s %10.0f B a token %8d pages a session %8d pages in all %12.1f MiB\n", name,
           (double) page_bytes / p->kv.page_tok, each, n,
           (double) page_bytes * n / MIB);
}

void plan_print(const struct plan *p, const struct model_conf *mc, const struct conf *c)
{
    printf("model %s: %d layers, hidden %d, vocabulary %d, window %d\n", mc->name, mc->n_layer,
           mc->hidden, mc->vocab, mc->window);
    printf("weights\n");
    weight_row("embedding (tied head)", p->size.embed, p);
    weight_row("per-layer embedding", p->size.ple_embed, p);
    weight_row("attention", p->size.attn, p);
    weight_row("dense MLP", p->size.mlp, p);
    weight_row("experts", p->size.experts, p);
    weight_row("router", p->size.router, p);
    weight_row("norms, scalars", p->size.norms, p);
    weight_row("separate head", p->size.head, p);
    weight_row("all", p->size.total, p);
    if (p->weight_bytes > p->size.total * p->weight_elem_bytes)
        printf("  vectors are fp32 there %34.1f MiB more\n",
               (double) (p->weight_bytes - p->size.total * p->weight_elem_bytes) / MIB);

    printf("KV cache, %s, pages of %d tokens\n", p->kv_elem_bytes == 4 ? "fp32" : "bf16",
           p->kv.page_tok);
    pool_row("full", p->full_page_bytes, p->full_pages_session, p->kv.n_page_full, p);
    pool_row("sliding", p->sliding_page_bytes, p->sliding_pages_session, p->kv.n_page_sliding, p);
    printf("  split for sessions of %d tokens (--kv-session-tokens): %d fit; %lld tokens in all;\n"
           "  a request may have %d; at most %d run at once (--max-num-seqs)\n", p->session_len,
           p->sessions, (long long) p->kv.n_page_full * p->kv.page_tok, p->model_len,
           c->max_num_seqs);
    if (p->scratch_bytes > 0)
        printf("activations and work space of a step %.1f MiB\n",
               (double) p->scratch_bytes / MIB);
    if (p->scratch_bytes > 0 && !model_has_cuda())
        printf("  and what kernels hold, which a build without nvcc does not know (1 or 2 GiB)\n");
    if (p->graph_bytes > 0)
        printf("graphs of steps, captured when idle %.1f MiB\n", (double) p->graph_bytes / MIB);
    if (p->reserve_bytes > 0)
        printf("left to the driver and libraries %.1f MiB\n", (double) p->reserve_bytes / MIB);
    printf("together %.1f MiB of %.1f MiB\n", (double) (fixed_bytes(p) + p->kv_bytes) / MIB,
           (double) p->memory_bytes / MIB);
}
