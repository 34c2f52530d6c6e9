#include "choice.h"

#include <stdlib.h>

int choice_open(struct choice *c, const struct channel_ids *ids)
{
    c->stop_str = -1;
    c->stop_id = -1;
    c->req.stop_at = -1;
    if (c->tok != NULL && c->chat)
        channel_open(&c->ch, c->tok, ids, c->guide != NULL ? c->guide->set : NULL, c->req.tok,
                     (size_t) c->req.n_prompt);
    c->ch.go_on = c->n_eos == 0;
    if (guide_walk_open(&c->walk, c->guide, c->chat && channel_thinks(&c->ch)) != 0)
        return E_FULL;
    if (c->walk.matcher != NULL) {
        c->ch.exact = c->guide->from_start;
        c->ch.marked = !c->guide->lets_go;
        c->req.guide = guide_next;
        c->req.guide_arg = &c->walk;
    }
    return 0;
}

/* Why an answer ended that ran into no limit. */
static const char *natural(const struct choice *c)
{
    return c->chat && c->ch.n_call > 0 ? "tool_calls" : "stop";
}

static void put_content(struct choice *c, const char *p, size_t n)
{
    c->passed.n = 0;
    c->stop_str = stop_put(&c->stop, p, n, &c->passed);
    said_put(&c->said, SAID_CONTENT, c->passed.p, c->passed.n);
    if (c->stop_str >= 0)
        c->finish = natural(c);
}

/* The stop strings hold nothing back any more. */
static void end_content(struct choice *c)
{
    c->passed.n = 0;
    stop_end(&c->stop, &c->passed);
    said_put(&c->said, SAID_CONTENT, c->passed.p, c->passed.n);
}

/* Stop strings are looked for in the content, and none spans a thought or a call. */
static void put_fresh(struct choice *c)
{
    struct said_part part;
    struct slice     bytes;

    while (c->finish == NULL && said_front(&c->fresh, SIZE_MAX, &part, &bytes)) {
        if (part.kind == SAID_CONTENT) {
            put_content(c, bytes.p, bytes.n);
        } else {
            end_content(c);
            if (part.kind != SAID_REASONING || c->keep_reasoning)
                said_put(&c->said, part.kind, bytes.p, bytes.n);
        }
        said_take(&c->fresh, bytes.n);
    }
    c->said.cut = c->fresh.cut;
    said_clear(&c->fresh);
}

static void put(struct choice *c, int32_t id)
{
    if (c->tok == NULL)
        return;

    if (c->chat) {
        channel_put(&c->ch, id, &c->fresh);
        put_fresh(c);
    } else {
        c->plain.n = 0;
        tok_stream_put(c->tok, &c->ts, id, &c->plain);
        put_content(c, c->plain.p, c->plain.n);
    }
}

/* cut: by the limit of tokens. */
static void put_end(struct choice *c, bool cut)
{
    if (c->tok != NULL && c->chat) {
        channel_end(&c->ch, cut, &c->fresh);
        put_fresh(c);
    } else if (c->tok != NULL) {
        c->plain.n = 0;
        tok_stream_end(&c->ts, &c->plain);
        put_content(c, c->plain.p, c->plain.n);
    }
    if (c->finish == NULL)
        end_content(c);
}

/* A stop id of the model came because nothing else was left: not by a wish of the client's, and not
 * where the answer is whole. */
static bool is_stuck(const struct choice *c)
{
    bool asked = false;

    for (int32_t i = c->n_eos; i < c->req.n_stop_id; i++)
        asked |= c->req.stop_id[i] == c->req.stop_at;
    return !asked && !guide_walk_whole(&c->walk);
}

/* The core's last word, all tokens seen. */
static void settle(struct choice *c, enum req_finish fin)
{
    struct req *r = &c->req;
    int32_t     n_pub = atomic_load_explicit(&r->n_pub, memory_order_relaxed);
    bool        cut = fin == FIN_LENGTH || (fin == FIN_STOP && is_stuck(c));

    if (fin != FIN_STOP && fin != FIN_LENGTH) {
        c->broken = true;
        return;
    }

    put_end(c, cut);
    if (c->finish != NULL)
        return;                        /* the flushed text completed a stop string */

    c->finish = cut ? "length" : natural(c);
    if (fin != FIN_STOP || r->stop_at < 0)
        return;

    if (n_pub < r->max_new)            /* beside the published ones, for return_token_ids */
        r->tok[r->n_prompt + n_pub] = r->stop_at;
    for (int32_t i = c->n_eos; i < r->n_stop_id; i++)
        if (r->stop_id[i] == r->stop_at)
            c->stop_id = r->stop_at;
    for (int32_t i = 0; i < c->n_eos; i++)
        if (r->stop_id[i] == r->stop_at)
            c->stop_id = -1;
}

/* The only call that was asked for is complete, or the model has begun another turn. */
static bool has_ended(const struct choice *c)
{
    return c->chat && (c->ch.ended || (c->guide != NULL && c->guide->one && c->ch.n_call > 0));
}

/* A pattern of len tokens has come count times when the newest len * (count - 1) are as those len
 * before. */
static bool find_repeat(struct choice *c)
{
    const int32_t *tok = c->req.tok + c->req.n_prompt;
    int32_t        n = c->n_seen;

    for (int32_t len = 1; c->run != NULL && len <= c->repeat_max; len++) {
        int32_t *run = &c->run[len - 1];

        *run = n > len && tok[n - 1] == tok[n - 1 - len] ? *run + 1 : 0;
        if (len >= c->repeat_min && *run >= (int64_t) len * (c->repeat_count - 1))
            return true;
    }
    return false;
}

bool choice_step(struct choice *c, size_t text_max)
{
    struct req *r = &c->req;
    /* finish first: then n_pub is final if it is set */
    enum req_finish fin = atomic_load_explicit(&r->finish, memory_order_acquire);
    int32_t n_pub = atomic_load_explicit(&r->n_pub, memory_order_acquire);
    int32_t n_seen = c->n_seen;

    if (c->finish != NULL || c->broken)
        return false;

    while (c->n_seen < n_pub && c->finish == NULL) {
        if (text_max > 0 && said_bytes(&c->said) >= text_max)
            return c->n_seen > n_seen;
        put(c, r->tok[r->n_prompt + c->n_seen]);
        c->n_seen++;
        if (c->finish == NULL && has_ended(c)) {
            put_end(c, false);
            c->finish = natural(c);
            c->early = true;
        } else if (c->finish == NULL && find_repeat(c)) {
            put_end(c, true);
            c->finish = "stop";
            c->early = c->repeats = true;
        }
    }

    if (c->finish == NULL && fin != FIN_NONE)
        settle(c, fin);

    return c->n_seen > n_seen || c->finish != NULL || c->broken;
}

bool choice_idle(const struct choice *c)
{
    return !c->submitted
           || atomic_load_explicit(&c->req.finish, memory_order_acquire) != FIN_NONE;
}

int32_t choice_n_tok(const struct choice *c)
{
    bool by_id = c->finish != NULL && c->stop_str < 0 && !c->early && c->req.stop_at >= 0;

    return c->n_seen + (by_id && c->n_seen < c->req.max_new);
}

void choice_close(struct choice *c)
{
    if (c->tok != NULL && c->chat)
        channel_close(&c->ch);
    guide_walk_close(&c->walk);
    free(c->run);
    free(c->req.lp.id);
    free(c->req.lp.p);
    free(c->req.prompt_lp.id);
    free(c->req.prompt_lp.p);
    stop_free(&c->stop);
    buf_free(&c->plain);
    buf_free(&c->passed);
    said_free(&c->fresh);
    said_free(&c->said);
    req_free(&c->req);
}
