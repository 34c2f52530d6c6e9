#include "admit.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int context_error(int64_t n_prompt, int64_t n_new, int64_t n_ctx, const char *param,
                         struct api_err *e)
{
    api_err_400(e, "context_length_exceeded", param, "This model's maximum context length is %"
                PRId64 " tokens. However, you requested %" PRId64 " tokens (%" PRId64
                " in the prompt, %" PRId64 " in the completion).", n_ctx, n_prompt + n_new,
                n_prompt, n_new);
    e->n_prompt_tok = n_prompt;
    e->n_ctx = n_ctx;
    return E_INVALID;
}

/* How many tokens may come after n_prompt. */
static int room(const struct api *a, const struct ask *ask, const struct dialect *d,
                int64_t n_prompt, int32_t *max_new, struct api_err *e)
{
    const char *param = d->prompt_field;
    bool        newer = ask->max_completion_tok >= 0;
    int64_t     n_ctx = a->c.model_len_max;
    int64_t     n = newer ? ask->max_completion_tok : ask->max_tok;

    if (n < 0 && n_prompt >= n_ctx)
        return context_error(n_prompt, 1, n_ctx, param, e);
    if (n < 0)
        n = n_ctx - n_prompt;
    if (n_prompt + n > n_ctx)
        return context_error(n_prompt, n, n_ctx,
                             n_prompt >= n_ctx ? param
                             : d->max_field != NULL ? d->max_field
                             : newer ? "max_completion_tokens" : "max_tokens", e);
    if (ask->min_tok > n)
        return api_err_400(e, "invalid_value", "min_tokens", "'min_tokens' is %" PRId64 ", more "
                           "than the %" PRId64 " tokens that may come.", ask->min_tok, n);

    *max_new = (int32_t) n;
    return 0;
}

static struct sample sampling(const struct api *a, const struct ask *ask, uint64_t seed)
{
    const struct model_conf *mc = a->mc;
    double  t = ask->temperature >= 0 ? ask->temperature : mc->temperature;
    double  top_p = ask->top_p >= 0 ? ask->top_p : mc->top_p;
    int64_t top_k = ask->top_k >= -1 ? ask->top_k : mc->top_k_default;

    if (t < 1e-5)
        t = 0;
    else if (t < 0.01)
        t = 0.01;                      /* as vLLM: a smaller one overflows the logits */

    return (struct sample) {
        .temperature = (float) t,
        .top_p = top_p > 1e-6 ? (float) top_p : 1e-6f,    /* 0: the best token alone */
        .min_p = ask->min_p >= 0 ? (float) ask->min_p : 0,
        .top_k = top_k > 0 && top_k < mc->vocab ? (int32_t) top_k : 0,
        .seed = seed,
    };
}

static int stop_ids(const struct api *a, const struct ask *ask, struct choice *c,
                    struct api_err *e)
{
    struct req *r = &c->req;

    if (!ask->ignore_eos)
        for (int32_t i = 0; i < a->mc->n_eos; i++)
            r->stop_id[r->n_stop_id++] = a->mc->eos[i];
    c->n_eos = r->n_stop_id;

    for (int32_t i = 0; i < ask->n_stop_id; i++) {
        if (ask->stop_id[i] >= a->mc->vocab)
            return api_err_400(e, "invalid_value", "stop_token_ids", "'stop_token_ids': %d is "
                               "outside the vocabulary of %d.", ask->stop_id[i], a->mc->vocab);
        r->stop_id[r->n_stop_id++] = ask->stop_id[i];
    }
    return 0;
}

_Static_assert(MODEL_EOS_MAX + API_STOP_ID_MAX <= REQ_STOP_MAX, "all stop ids fit a req");

bool admit_is_batch(const struct ask *ask)
{
    return ask->priority > 0 || slice_is(ask->service_tier, "flex");
}

/* Prefixes are shared by those only who have the same key, or none, and give the same salt. A key's
 * part is of one length, so nobody's salt can look like a key. */
static void set_identity(struct req *r, const struct stream *st, const struct ask *ask)
{
    r->tenant = st->has_key ? st->key.a | 1 : 0;
    r->class = admit_is_batch(ask) ? REQ_BATCH : REQ_INTERACTIVE;

    r->salt[r->n_salt++] = st->has_key;
    if (st->has_key) {
        memcpy(r->salt + r->n_salt, &st->key, sizeof(st->key));
        r->n_salt += (int32_t) sizeof(st->key);
    }
    if (ask->cache_salt.n > 0)
        memcpy(r->salt + r->n_salt, ask->cache_salt.p, ask->cache_salt.n);
    r->n_salt += (int32_t) ask->cache_salt.n;
}

_Static_assert(1 + sizeof(struct hash128) + API_CACHE_SALT_MAX <= REQ_SALT_MAX,
               "a salt fits a req");

static int take_lp(struct req_lp *lp, int64_t n_row, int64_t n_top)
{
    size_t n = (size_t) n_row * (size_t) (1 + n_top) + 1;

    lp->n = (int32_t) n_top;
    lp->id = malloc(n * sizeof(*lp->id));
    lp->p = malloc(n * sizeof(*lp->p));
    return lp->id == NULL || lp->p == NULL ? E_FULL : 0;
}

/* Room for what is asked for beside ids; the prompt's logprobs come with its first choice. Room for
 * an answer takes no memory until it comes. */
static int take_room(struct choice *c, const struct ask *ask, bool first)
{
    bool    lp = c->chat ? ask->logprobs : ask->top_logprobs >= 0;
    int64_t top = ask->top_logprobs > 0 ? ask->top_logprobs : 0, most = ask->prompt_logprobs;

    if (lp && take_lp(&c->req.lp, c->req.max_new, top) != 0)
        return E_FULL;
    if (lp && ask->echo && top > most)
        most = top;
    if (first && most >= 0 && take_lp(&c->req.prompt_lp, c->req.n_prompt - 1, most) != 0)
        return E_FULL;

    c->repeat_max = (int32_t) ask->repeat_max;
    c->repeat_min = ask->repeat_min > 0 ? (int32_t) ask->repeat_min : 1;
    c->repeat_count = (int32_t) ask->repeat_count;
    if (c->repeat_max > 0 && (c->run = calloc((size_t) c->repeat_max, sizeof(*c->run))) == NULL)
        return E_FULL;
    return 0;
}

int admit_choice(struct choice *c, const struct admit *w, struct out_ids prompt, bool first,
                 uint64_t seed, struct api_err *e)
{
    const struct api *a = w->st->link->port->api;
    const struct ask *ask = w->ask;
    int32_t           max_new = 0;

    if (room(a, ask, w->dialect, (int64_t) prompt.n, &max_new, e) != 0
        || stop_ids(a, ask, c, e) != 0)
        return E_INVALID;

    if (req_alloc(&c->req, (int32_t) prompt.n, max_new, a->c.page_tok) != 0)
        return E_FULL;
    memcpy(c->req.tok, prompt.p, prompt.n * sizeof(int32_t));
    if (take_room(c, ask, first) != 0)
        return E_FULL;

    c->req.min_new = (int32_t) ask->min_tok;
    c->req.sample = sampling(a, ask, seed);
    set_identity(&c->req, w->st, ask);
    return 0;
}

int admit_lp(const struct ask *ask, const struct prompt_set *ps, struct api_err *e)
{
    bool    echo = ask->echo && ask->top_logprobs >= 0;
    int64_t top = echo && ask->top_logprobs > ask->prompt_logprobs ? ask->top_logprobs
                                                                   : ask->prompt_logprobs;

    if (top < 0 || (int64_t) ps->ids.n * (1 + top) <= API_PROMPT_LOGPROB_MAX)
        return 0;
    return api_err_400(e, "invalid_value", echo ? "logprobs" : "prompt_logprobs", "The prompts have"
                       " %zu tokens: that makes more than %d logprobs.", ps->ids.n,
                       API_PROMPT_LOGPROB_MAX);
}
