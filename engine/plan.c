#include <inttypes.h>
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
static int memory(struct plan *p, const struct conf *c, struct err *e)
{
    uint64_t n_free, n_total, part;
    int rc;

    p->memory_bytes = c->memory_bytes != 0 ? c->memory_bytes : machine_memory();
    if (c->backend == BACKEND_CPU)
        return 0;
    if (c->memory_bytes == 0) {
        if ((rc = model_gpu_memory(&n_free, &n_total, e)) != 0)
            return rc;
        part = (uint64_t) ((double) n_total * c->gpu_memory_utilization);
        p->memory_bytes = part < n_free ? part : n_free;
    }
    return 0;
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

static uint64_t scratch(const struct plan *p, const struct model_conf *mc, const struct conf *c)
{
    struct model_limits lim = {
        .backend = MODEL_CUDA, .step_tok_max = c->max_num_batched_tokens,
        .seq_max = c->max_num_seqs, .page_max = p->full_pages_each,
        .kv.page_tok = c->block_size };

    return model_scratch_bytes(mc, &lim);
}

/* As many chats as fit, their pages in both pools; but at least one longest request. */
static int split(struct plan *p, uint64_t budget, struct err *e)
{
    uint64_t chat = (uint64_t) p->full_pages_session * p->full_page_bytes
                    + (uint64_t) p->sliding_pages_session * p->sliding_page_bytes;
    uint64_t n = budget / chat, full = n * (uint64_t) p->full_pages_session, sliding;

    if (full < (uint64_t) p->full_pages_each)
        full = (uint64_t) p->full_pages_each;
    sliding = p->sliding_page_bytes == 0 ? full
              : (budget - full * p->full_page_bytes) / p->sliding_page_bytes;
    if (sliding < (uint64_t) p->sliding_pages_each) {
        sliding = (uint64_t) p->sliding_pages_each;
        full = (budget - sliding * p->sliding_page_bytes) / p->full_page_bytes;
    }
    if (full > PAGE_MAX || sliding > PAGE_MAX)
        return err_set(e, E_INVALID, "--kv-cache-memory-bytes: more than %d pages: raise"
                       " --block-size", PAGE_MAX);

    p->sessions = (int32_t) n;
    p->kv.n_page_full = (int32_t) full;
    p->kv.n_page_sliding = (int32_t) sliding;
    p->kv_bytes = full * p->full_page_bytes + sliding * p->sliding_page_bytes;
    return 0;
}

int plan_make(struct plan *p, const struct model_conf *mc, const struct conf *c, struct err *e)
{
    uint64_t each, budget, want;
    int rc;

    memset(p, 0, sizeof(*p));
    model_size(mc, &p->size);
    p->weight_elem_bytes = 2;
    p->kv_elem_bytes = c->backend == BACKEND_CPU ? 4 : 2;
    p->weight_bytes = p->size.total * p->weight_elem_bytes;
    if ((rc = memory(p, c, e)) != 0)
        return rc;

    p->model_len = c->max_model_len != 0 ? c->max_model_len : mc->max_pos;
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

    pages_each(p, mc, c);
    if (c->backend == BACKEND_CUDA)
        p->scratch_bytes = scratch(p, mc, c);
    p->full_page_bytes = model_kv_page_bytes(mc, true, c->block_size, p->kv_elem_bytes);
    p->sliding_page_bytes = model_kv_page_bytes(mc, false, c->block_size, p->kv_elem_bytes);
    each = (uint64_t) p->full_pages_each * p->full_page_bytes
           + (uint64_t) p->sliding_pages_each * p->sliding_page_bytes;
    want = each * (uint64_t) c->max_num_seqs;

    budget = c->kv_cache_memory_bytes;
    if (budget == 0) {
        if (p->weight_bytes + p->scratch_bytes >= p->memory_bytes)
            return err_set(e, E_INVALID, "weights and scratch need %.0f MiB, %s %.0f MiB%s",
                           (double) (p->weight_bytes + p->scratch_bytes) / MIB,
                           c->memory_bytes != 0 ? "--memory-bytes is"
                           : c->backend == BACKEND_CPU ? "this machine has" : "the GPU has",
                           (double) p->memory_bytes / MIB, c->memory_bytes != 0 ? ""
                           : "; `inferd plan DIR --memory-bytes 141g` is for another one");
        budget = p->memory_bytes - p->weight_bytes - p->scratch_bytes;
        if (c->backend == BACKEND_CPU && budget > p->memory_bytes / 4)
            budget = p->memory_bytes / 4;
        if (budget > want)
            budget = want;
    }
    if (budget < each)
        return err_set(e, E_INVALID, "one request of %d tokens needs %.1f MiB of KV cache, there"
                       " are %.1f MiB: raise --kv-cache-memory-bytes to %" PRIu64 " or lower"
                       " --max-model-len", p->model_len, (double) each / MIB,
                       (double) budget / MIB, each);

    p->kv.page_tok = c->block_size;
    return split(p, budget, e);
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
    uint64_t all = p->weight_bytes + p->scratch_bytes + p->kv_bytes;

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

    printf("KV cache, %s, pages of %d tokens\n", p->kv_elem_bytes == 4 ? "fp32" : "bf16",
           p->kv.page_tok);
    pool_row("full", p->full_page_bytes, p->full_pages_session, p->kv.n_page_full, p);
    pool_row("sliding", p->sliding_page_bytes, p->sliding_pages_session, p->kv.n_page_sliding, p);
    printf("  split for sessions of %d tokens (--kv-session-tokens): %d fit; %lld tokens in all;\n"
           "  a request may have %d; at most %d run at once\n", p->session_len, p->sessions,
           (long long) p->kv.n_page_full * p->kv.page_tok, p->model_len, c->max_num_seqs);
    if (p->scratch_bytes > 0)
        printf("activations and work space of a step %.1f MiB\n",
               (double) p->scratch_bytes / MIB);
    printf("together %.1f MiB of %.1f MiB\n", (double) all / MIB,
           (double) p->memory_bytes / MIB);

    if (all > p->memory_bytes)
        printf("does not fit: lower --kv-cache-memory-bytes by %.1f MiB\n",
               (double) (all - p->memory_bytes) / MIB);
}
