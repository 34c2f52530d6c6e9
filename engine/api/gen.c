/* gen.c - one generation request: its choices, from admission to the last chunk.
 *
 * Tokens wait in req.tok until the stream has credit, so a slow client costs no memory beyond
 * API_TEXT_HOLD_MAX a choice: what came meanwhile leaves as one larger chunk. */
#include "admit.h"
#include "log.h"
#include "steering.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define EVENT_BYTES  1400              /* a chunk without its text: names, ids, usage */
#define ESCAPE_MAX   12                /* a byte as \u00XX, reasoning under two names */

struct gen {
    struct gen    *next, **link;       /* in port.gens */
    struct port   *port;
    struct stream *st;                 /* NULL: nobody listens, waiting for the core to let go */
    const struct dialect *dialect;
    struct out_id  id;
    struct buf     echo;               /* id.echo is its bytes */
    atomic_bool    aborted;            /* by an admin, from any thread */
    bool           stream, with_ids;
    uint64_t       spoke_ns;           /* of a stream: its last event, or its beginning */
    bool           ids_as_tokens, prompt_lp, prompt_text, echo_lp, progress;    /* as asked for */
    int32_t        interval;           /* tokens of a chunk */
    struct steering steering;
    int32_t        n_choice, n_per_prompt;
    struct guide  *guide;              /* what is demanded of the choices, or NULL */
    uint64_t       call_key[2];        /* of the ids of calls */
    char           stop_text[API_STOP_MAX][API_STOP_BYTES_MAX];
    struct choice  choice[];
};

/* Of all choices together: calls that a client gets mended, or as text. */
static void tell_bad_calls(const struct gen *g)
{
    int32_t n = 0;

    for (int32_t i = 0; i < g->n_choice; i++)
        n += g->choice[i].ch.n_bad_call;
    if (n == 0)
        return;
    atomic_fetch_add(&g->port->api->n_bad_call, (uint64_t) n);
    log_info("%s: %d malformed tool calls", g->id.id, n);
}

/* The metrics of whole requests: as vLLM does, each prompt is one. */
static void observe(const struct gen *g)
{
    struct api *a = g->port->api;

    for (int32_t i = 0; i < g->n_choice; i += g->n_per_prompt) {
        bool    ran = false;
        int32_t most = 0;

        for (int32_t k = i; k < i + g->n_per_prompt; k++) {
            const struct choice *c = &g->choice[k];
            int fin = atomic_load(&c->req.finish), n = atomic_load(&c->req.n_pub);

            ran = ran || (c->submitted && fin != FIN_BUSY && fin != FIN_QUOTA);
            most = n > most ? n : most;
        }
        if (ran) {
            histogram_add(&a->n_choice, HIST_N, (uint64_t) g->n_per_prompt);
            histogram_add(&a->new_tok, HIST_TOKENS, (uint64_t) most);
        }
    }
}

static void gen_free(struct gen *g)
{
    pthread_mutex_lock(&g->port->gens_lock);
    *g->link = g->next;
    if (g->next != NULL)
        g->next->link = g->link;
    pthread_mutex_unlock(&g->port->gens_lock);

    observe(g);
    tell_bad_calls(g);
    atomic_fetch_sub(&g->port->api->n_req, g->n_choice);
    for (int32_t i = 0; i < g->n_choice; i++)
        choice_close(&g->choice[i]);
    guide_close(g->guide);
    out_close(&g->id);
    buf_free(&g->echo);
    steering_close(&g->steering);
    free(g);
}

static bool gen_idle(const struct gen *g)
{
    for (int32_t i = 0; i < g->n_choice; i++)
        if (!choice_idle(&g->choice[i]))
            return false;
    return true;
}

static void gen_cancel(struct gen *g)
{
    for (int32_t i = 0; i < g->n_choice; i++)
        if (!choice_idle(&g->choice[i]))
            serve_cancel(api_serve(g->port->api), &g->choice[i].req);
}

static void gen_usage(const struct gen *g, struct out_usage *u)
{
    *u = (struct out_usage) { 0 };

    for (int32_t i = 0; i < g->n_choice; i++) {
        const struct choice *c = &g->choice[i];

        u->completion += choice_n_tok(c);
        if (c->chat && c->tok != NULL)
            u->reasoning += c->ch.n_reasoning_tok;
        if (i % g->n_per_prompt == 0) {
            u->prompt += c->req.n_prompt;
            if (c->n_seen > 0 || c->finish != NULL)   /* the core has published: n_cached is set */
                u->cached += c->req.n_cached;
        }
    }
}

static void gen_stats(const struct gen *g, const char *finish)
{
    const struct choice *c = &g->choice[0];
    struct wire_stats   *s = &g->st->stats;
    struct out_usage     u;

    gen_usage(g, &u);
    *s = (struct wire_stats) {
        .prompt_tok = (uint32_t) u.prompt, .cached_tok = (uint32_t) u.cached,
        .completion_tok = (uint32_t) u.completion, .reasoning_tok = (uint32_t) u.reasoning,
    };
    if (c->n_seen > 0 || c->finish != NULL)
        s->queue_ns = c->req.start_ns - c->req.submit_ns;
    snprintf(s->model, sizeof(s->model), "%.63s", g->id.model);
    snprintf(s->finish, sizeof(s->finish), "%s", finish);
}

/* Nothing more goes to the client from here; the choices may still have to come home. */
static void gen_leave(struct gen *g)
{
    g->st->gen = NULL;
    g->st = NULL;
    gen_cancel(g);
    if (gen_idle(g))
        gen_free(g);
}

void gen_abandon(struct gen *g)
{
    gen_stats(g, "abort");
    gen_leave(g);
}

/* Admission */

const char *gen_alias(const struct api *a, struct slice model)
{
    for (int32_t i = 0; i < a->c.n_model_name; i++)
        if (model.p == NULL || slice_is(model, a->c.model_name[i]))
            return a->c.model_name[i];
    return NULL;
}

static void set_steering(const struct gen *g, struct req *r, int32_t prompt)
{
    const struct steering *s = &g->steering;

    r->steer = s->of != NULL ? &s->of[prompt] : NULL;
    r->think = s->think.budget >= 0 ? &s->think : NULL;
    r->tell_read = g->progress;
}

static int choice_fill(struct gen *g, int32_t i, const struct ask *ask, struct out_ids prompt,
                       uint64_t seed, struct api_err *e)
{
    const struct admit w = { g->st, ask, g->dialect };
    struct api        *a = g->port->api;
    struct choice     *c = &g->choice[i];
    int                rc;

    c->chat = g->id.chat;
    rc = admit_choice(c, &w, prompt, i % g->n_per_prompt == 0, seed, e);
    if (rc != 0)
        return rc;

    set_steering(g, &c->req, i / g->n_per_prompt);
    if (i % g->n_per_prompt > 0)
        c->req.twin = &g->choice[i - i % g->n_per_prompt].req;
    c->req.user = g;
    c->req.port = g->port->index;

    c->tok = a->tok;
    c->guide = g->guide;
    c->said.id_key[0] = g->call_key[0] + (uint64_t) i;
    c->said.id_key[1] = g->call_key[1];
    c->keep_reasoning = ask->include_reasoning;
    c->ts.skip_special = ask->skip_special;
    c->stop.include = ask->include_stop;
    c->stop.n_str = ask->n_stop;
    for (int32_t k = 0; k < ask->n_stop; k++)
        c->stop.str[k] = (struct slice) { g->stop_text[k], ask->stop[k].n };
    return choice_open(c, &a->ids);
}

static void echo_prompt(struct choice *c)
{
    struct tok_stream ts = { .skip_special = true };

    for (int32_t i = 0; c->tok != NULL && i < c->req.n_prompt; i++)
        tok_stream_put(c->tok, &ts, c->req.tok[i], &c->plain);
    if (c->tok != NULL)
        tok_stream_end(&ts, &c->plain);
    said_put(&c->said, SAID_CONTENT, c->plain.p, c->plain.n);
}

static int fill_all(struct gen *g, const struct ask *ask, const struct prompt_set *ps,
                    struct api_err *e)
{
    uint64_t seed = (uint64_t) ask->seed;

    if ((!ask->has_seed && getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
        || getrandom(g->call_key, sizeof(g->call_key), 0) != sizeof(g->call_key))
        return api_err_set(e, 500, "server_error", "internal_error", NULL, "No random seed.");

    for (int32_t k = 0; k < ask->n_stop; k++)
        memcpy(g->stop_text[k], ask->stop[k].p, ask->stop[k].n);

    for (int32_t i = 0; i < g->n_choice; i++) {
        int32_t p = i / g->n_per_prompt;
        size_t  at = p > 0 ? ps->end[p - 1] : 0;

        /* Prompts of one request are alike unless seeds differ: only n needs different ones. */
        int     rc = choice_fill(g, i, ask, (struct out_ids) { ps->ids.p + at, ps->end[p] - at },
                                 seed + (uint64_t) (ask->has_seed ? i % g->n_per_prompt : i), e);

        if (rc != 0)
            return rc;
        if (ask->echo)
            echo_prompt(&g->choice[i]);
    }
    return 0;
}

static int submit_all(struct gen *g, struct api_err *e)
{
    struct req *all[API_CHOICE_MAX];
    struct err  err;
    int         rc;

    for (int32_t i = 0; i < g->n_choice; i++)
        all[i] = &g->choice[i].req;
    rc = serve_submit_all(api_serve(g->port->api), all, g->n_choice, &err);
    if (rc == E_INVALID)
        return api_err_400(e, "context_length_exceeded", g->dialect->prompt_field, "%s", err.msg);
    if (rc != 0)
        return E_FULL;                     /* or the core has stopped */

    for (int32_t i = 0; i < g->n_choice; i++)
        g->choice[i].submitted = true;
    return 0;
}

static struct gen *gen_new(struct stream *st, int32_t n_choice, enum ask_kind kind,
                           const struct ask *ask, const char *model)
{
    struct port *p = st->link->port;
    struct gen  *g = calloc(1, sizeof(*g) + (size_t) n_choice * sizeof(struct choice));

    if (g == NULL)
        return NULL;

    g->port = p;
    g->st = st;
    g->n_choice = n_choice;
    g->n_per_prompt = (int32_t) ask->n;
    g->dialect = dialect_of(kind);
    g->spoke_ns = st->start_ns;
    st->named_events = g->dialect->named_events;
    g->stream = ask->stream;
    g->with_ids = ask->return_token_ids || p->api->tok == NULL;
    g->ids_as_tokens = ask->ids_as_tokens;
    g->prompt_lp = ask->prompt_logprobs >= 0;
    g->prompt_text = ask->return_prompt_text;
    g->echo_lp = ask->echo && ask->top_logprobs >= 0;
    g->progress = ask->return_progress;
    g->interval = (int32_t) ask->stream_interval;
    g->id = (struct out_id) {
        .chat = kind != ASK_TEXT, .model = model, .fingerprint = p->api->fingerprint,
        .include_usage = ask->include_usage, .continuous_usage = ask->continuous_usage,
        .tier = ask->service_tier.p == NULL ? NULL : admit_is_batch(ask) ? "flex" : "default",
        .created = (int64_t) time(NULL),
    };
    snprintf(g->id.id, sizeof(g->id.id), "%s%s", g->dialect->id_prefix, st->request_id);

    pthread_mutex_lock(&p->gens_lock);
    g->next = p->gens;
    g->link = &p->gens;
    if (g->next != NULL)
        g->next->link = &g->next;
    p->gens = g;
    atomic_init(&g->aborted, early_leave(st));
    pthread_mutex_unlock(&p->gens_lock);
    return g;
}

int gen_start(struct stream *st, struct work *w, struct api_err *e)
{
    struct api       *a = st->link->port->api;
    const struct ask *ask = &w->ask;
    int64_t           n = w->prompts.n * ask->n;
    int32_t           max = a->c.request_max < API_CHOICE_MAX ? a->c.request_max : API_CHOICE_MAX;
    struct gen       *g;
    int               rc;

    if (st->has_key && a->c.tenant_max > 0 && a->c.tenant_max < max)
        max = a->c.tenant_max;
    if (n > max)
        return api_err_400(e, "invalid_value", "n", "'n' times the number of prompts is %" PRId64
                           ", over the limit of %d.", n, max);
    if (atomic_fetch_add(&a->n_req, (int) n) + n > a->c.request_max) {
        atomic_fetch_sub(&a->n_req, (int) n);
        return E_FULL;
    }

    g = gen_new(st, (int32_t) n, w->kind, ask, gen_alias(a, ask->model));
    if (g == NULL) {
        atomic_fetch_sub(&a->n_req, (int) n);
        return E_FULL;
    }

    g->echo = w->echo;
    w->echo = (struct buf) { 0 };
    g->id.echo = (struct slice) { g->echo.p, g->echo.n };
    st->gen = g;
    g->guide = w->guide;
    w->guide = NULL;
    rc = admit_lp(ask, &w->prompts, e);
    if (rc == 0)
        rc = steering_open(&g->steering, a, ask, &w->prompts, e);
    if (rc == 0)
        rc = fill_all(g, ask, &w->prompts, e);
    if (rc == 0)
        rc = submit_all(g, e);
    if (rc != 0)
        gen_leave(g);
    return rc;
}

/* Answers */

static const struct choice *first_of(const struct gen *g, const struct choice *c)
{
    int32_t i = (int32_t) (c - g->choice);

    return &g->choice[i - i % g->n_per_prompt];
}

/* n tokens of r from the one at place at; lp: where its logprobs begin. */
static struct out_lp lp_of(const struct gen *g, const int32_t *ids, const struct req_lp *lp,
                           size_t at, size_t n)
{
    size_t row = at * (size_t) (1 + lp->n);

    return (struct out_lp) {
        .wanted = lp->p != NULL, .tok = g->port->api->tok, .as_ids = g->ids_as_tokens, .ids = ids,
        .id = lp->id + row, .p = lp->p + row, .n = lp->p != NULL ? n : 0, .n_top = lp->n };
}

static void describe_lp(const struct gen *g, struct choice *c, struct out_choice *o)
{
    const struct req *r = &c->req, *first = &first_of(g, c)->req;
    size_t            at = (size_t) c->n_lp_sent, n_echo = (size_t) first->n_prompt - 1;

    o->lp_at = c->lp_at;
    if (r->lp.p != NULL)
        o->lp = lp_of(g, r->tok + r->n_prompt + at, &r->lp, at, (size_t) c->n_seen - at);
    o->lp.specials = !c->chat && !c->ts.skip_special;
    if (!c->began && g->echo_lp)
        o->echo_lp = lp_of(g, first->tok + 1, &first->prompt_lp, 0, n_echo);
    if (!c->began && g->prompt_lp)
        o->prompt_lp = lp_of(g, first->tok + 1, &first->prompt_lp, 0, n_echo);
}

/* It was written. */
static void told(struct choice *c, const struct out_choice *o)
{
    c->n_ids_sent += (int32_t) o->ids.n;
    c->n_lp_sent = c->n_seen;
    c->n_told = c->n_seen;
    c->lp_at = out_lp_end(o);
    c->began = true;
}

static void describe(const struct gen *g, struct choice *c, struct out_choice *o)
{
    *o = (struct out_choice) {
        .index = (int32_t) (c - g->choice), .stop_id = -1, .with_ids = g->with_ids,
        .with_prompt_ids = g->with_ids && !c->began,
        .prompt_tok = g->prompt_text && !c->began ? g->port->api->tok : NULL,
        .prompt_ids = { c->req.tok, (size_t) c->req.n_prompt },
    };
    o->ids.p = c->req.tok + c->req.n_prompt + c->n_ids_sent;
    o->ids.n = (size_t) (choice_n_tok(c) - c->n_ids_sent);
    describe_lp(g, c, o);
}

static void describe_finish(const struct choice *c, struct out_choice *o)
{
    o->finish = c->finish;
    o->stop_id = c->stop_id;
    if (c->stop_str >= 0)
        o->stop_str = c->stop.str[c->stop_str];
    else if (c->repeats)
        o->stop_str = (struct slice) { "repetition", 10 };
}

static void write_chunk(struct gen *g, const struct out_choice *o)
{
    bool             with_usage = g->id.continuous_usage || g->dialect->usage_on_delta;
    struct out_usage u;

    if (with_usage)
        gen_usage(g, &u);
    g->dialect->delta(&g->st->out, &g->id, o, with_usage ? &u : NULL);
}

/* The next piece that waits, of at most max bytes, as a delta. False: there is none. */
static bool describe_next(struct choice *c, size_t max, struct out_choice *o)
{
    struct said_part part;
    struct slice     bytes;

    if (!said_front(&c->said, max, &part, &bytes))
        return false;

    if (part.kind == SAID_REASONING)
        o->reasoning = bytes;
    else if (part.kind == SAID_CONTENT)
        o->text = bytes;
    else
        said_front_call(&c->said, part, bytes, &o->call);
    return true;
}

/* How much of the prompt is stored, when that has changed. */
static void write_progress(struct gen *g, struct choice *c)
{
    struct req         *r = &c->req;
    int32_t             n = atomic_load_explicit(&r->n_read, memory_order_acquire);
    struct out_progress p = { r->n_prompt, r->n_cached, n, 0 };
    struct out_choice   o = { .index = (int32_t) (c - g->choice), .stop_id = -1, .progress = &p };

    if (n <= c->n_read_told || c->began || c != first_of(g, c))
        return;
    p.ms = (int64_t) (api_now_ns() - g->st->start_ns) / 1000000;
    write_chunk(g, &o);
    c->n_read_told = n;
}

/* So many tokens as a chunk needs have come, or nothing can be waited for. */
static bool is_due(const struct gen *g, const struct choice *c)
{
    const struct req *first = &first_of(g, c)->req;

    if (g->echo_lp && atomic_load_explicit(&first->n_pub, memory_order_acquire) == 0
        && atomic_load_explicit(&first->finish, memory_order_acquire) == FIN_NONE)
        return false;                   /* the prompt's logprobs are on their way */
    return !c->began || c->finish != NULL || c->n_seen - c->n_told >= g->interval
           || said_bytes(&c->said) >= API_TEXT_HOLD_MAX;
}

/* Everything that this choice has to say now, as whole events of bounded size. */
static void write_choice(struct gen *g, struct choice *c, size_t piece)
{
    struct out_choice o;
    bool              more;

    if (g->progress)
        write_progress(g, c);
    if (!is_due(g, c))
        return;
    for (;;) {
        describe(g, c, &o);
        more = describe_next(c, piece, &o);

        if (more || (c->chat && c->finish != NULL && !c->began)
            || (c->finish == NULL && ((g->with_ids && o.ids.n > 0) || o.lp.n > 0))) {
            o.role = !c->began;
            write_chunk(g, &o);
            if (more)
                said_take(&c->said, o.text.n + o.reasoning.n + o.call.name.n + o.call.args.n);
            told(c, &o);
            continue;
        }

        if (c->finish != NULL && !c->ended) {
            describe_finish(c, &o);
            write_chunk(g, &o);
            told(c, &o);
            c->ended = true;
        }
        return;
    }
}

static void finish_stream(struct gen *g, uint32_t reason)
{
    struct stream *st = g->st;

    gen_leave(g);
    stream_end(st, reason);
}

/* The core refused this one on arrival, so nothing has been sent. */
static void tell_refusal(const struct gen *g, const struct req *r, struct api_err *e)
{
    if (atomic_load(&r->finish) == FIN_QUOTA)
        api_err_set(e, 429, "rate_limit_error", "rate_limit_exceeded", NULL,
                    "This API key may have %d unfinished requests at a time (each of 'n' counts).",
                    g->port->api->c.tenant_max);
    else
        api_err_set(e, 503, "service_unavailable_error", "server_is_overloaded", NULL,
                    "Too many requests are waiting; try again in %.1f s.", r->retry_ms / 1000.0);
    e->retry_ms = r->retry_ms;
}

static bool is_corrupt(const struct gen *g)
{
    for (int32_t i = 0; i < g->n_choice; i++)
        if (atomic_load(&g->choice[i].req.finish) == FIN_CORRUPT)
            return true;
    return false;
}

static void tell_loss(const struct gen *g, bool closing, struct api_err *e)
{
    if (atomic_load(&g->aborted)) {
        http_aborted(g->st, e);
    } else if (closing) {
        api_err_set(e, 503, "service_unavailable_error", "draining", NULL,
                    "The server is shutting down.");
    } else if (is_corrupt(g)) {
        api_err_set(e, 500, "server_error", "internal_error", NULL,
                    "What the model computed for this request is not a finite number (%s).",
                    g->st->request_id);
        e->final = true;
    } else {
        api_err_set(e, 500, "server_error", "internal_error", NULL,
                    "The engine lost this request (%s).", g->st->request_id);
    }
}

/* There will be no answer, or no more of it; refused: because of this one, or NULL. */
static void gen_fail(struct gen *g, const struct req *refused)
{
    const struct api *a = g->port->api;
    struct stream    *st = g->st;
    bool              closing = atomic_load(&a->draining) || atomic_load(&a->stopping);
    struct api_err    e;

    if (refused != NULL) {
        tell_refusal(g, refused, &e);
    } else if (closing && !atomic_load(&g->aborted) && !st->head_sent) {
        gen_leave(g);
        http_busy(st);
        return;
    } else {
        tell_loss(g, closing, &e);
    }

    gen_stats(g, refused != NULL ? "refused" : atomic_load(&g->aborted) ? "abort" : "error");
    if (!st->head_sent) {
        gen_leave(g);
        http_error(st, &e);
        return;
    }

    g->dialect->fail(&st->out, &g->id, &e);
    finish_stream(g, WIRE_END_ERROR);
}

/* A proxy or a client may take a long silence for a dead connection. */
static void ping_if_silent(struct gen *g)
{
    uint64_t now = api_now_ns(), limit = (uint64_t) g->port->api->c.ping_s * 1000000000u;

    if (g->st->out.n == 0 && limit > 0 && now - g->spoke_ns >= limit)
        g->dialect->ping(&g->st->out, &g->id);
    if (g->st->out.n > 0)
        g->spoke_ns = now;
}

static void pump_stream(struct gen *g, bool all_done)
{
    struct stream *st = g->st;
    size_t         max = stream_record_max(st);
    size_t         piece = max > EVENT_BYTES + ESCAPE_MAX * 64 ? (max - EVENT_BYTES) / ESCAPE_MAX
                                                               : 64;
    struct out_usage u;

    if (!stream_flush(st))
        return;                         /* no credit: the text waits and merges */

    for (int32_t i = 0; i < g->n_choice; i++)
        write_choice(g, &g->choice[i], piece);
    if (!all_done)
        ping_if_silent(g);

    if (st->out.n > 0 && !st->head_sent)
        stream_head(st, 200, "text/event-stream; charset=utf-8", WIRE_BODY_UNKNOWN, NULL);

    if (!all_done) {
        stream_flush(st);
        return;
    }

    gen_usage(g, &u);
    g->dialect->end(&st->out, &g->id, &u);
    gen_stats(g, g->choice[0].finish);
    finish_stream(g, WIRE_END_OK);
}

/* Content beside calls is stripped; its front could not be before the calls were known. */
static struct slice whole_text(const struct said *s)
{
    struct slice text = { s->content.p, s->content.n };

    for (; s->n_call > 0 && text.n > 0; text.p++, text.n--)
        if (*text.p != ' ' && (*text.p < '\t' || *text.p > '\r'))
            break;
    return text;
}

static void write_whole(struct gen *g)
{
    struct stream    *st = g->st;
    struct out_choice o;
    struct out_usage  u;
    char              ms[24];
    struct header     extra[] = { { "openai-processing-ms", ms }, { NULL, NULL } };

    g->dialect->whole_begin(&st->out, &g->id);
    for (int32_t i = 0; i < g->n_choice; i++) {
        struct choice *c = &g->choice[i];

        describe(g, c, &o);
        describe_finish(c, &o);
        o.text = whole_text(&c->said);
        o.reasoning = (struct slice) { c->said.reasoning.p, c->said.reasoning.n };
        o.said = &c->said;
        g->dialect->whole_choice(&st->out, &g->id, &o);
    }
    gen_usage(g, &u);
    g->dialect->whole_end(&st->out, &g->id, &u);

    snprintf(ms, sizeof(ms), "%" PRIu64, (api_now_ns() - st->start_ns) / 1000000);
    stream_head(st, 200, "application/json", st->out.n, extra);
    gen_stats(g, g->choice[0].finish);
    finish_stream(g, WIRE_END_OK);
}

static bool is_refusal(const struct req *r)
{
    int fin = atomic_load_explicit(&r->finish, memory_order_acquire);

    return fin == FIN_BUSY || fin == FIN_QUOTA;
}

static void gen_pump(struct gen *g)
{
    bool all_done = true;

    if (g->st == NULL) {
        if (gen_idle(g))
            gen_free(g);
        return;
    }

    if (atomic_load(&g->aborted)) {
        gen_fail(g, NULL);
        return;
    }

    for (int32_t i = 0; i < g->n_choice; i++) {
        struct choice *c = &g->choice[i];

        if (choice_step(c, g->stream ? API_TEXT_HOLD_MAX : 0) && c->finish != NULL
            && !choice_idle(c))
            serve_cancel(api_serve(g->port->api), &c->req);
        if (c->broken) {
            gen_fail(g, is_refusal(&c->req) ? &c->req : NULL);
            return;
        }
        all_done = all_done && c->finish != NULL;
    }

    if (g->stream)
        pump_stream(g, all_done);
    else if (all_done)
        write_whole(g);
}

void gen_pump_all(struct port *p)
{
    for (struct gen *g = p->gens, *next; g != NULL; g = next) {
        next = g->next;
        gen_pump(g);
    }
}

int gen_abort(struct api *a, const char *request_id)
{
    int n = 0;

    for (int i = 0; i < a->c.n_thread; i++) {
        struct port *p = &a->port[i];
        int          here = 0;

        pthread_mutex_lock(&p->gens_lock);
        for (struct gen *g = p->gens; g != NULL; g = g->next) {
            /* with or without "chatcmpl-": answers have the one, headers the other */
            if (strcmp(g->id.id, request_id) != 0
                && strcmp(g->id.id + strlen(g->dialect->id_prefix), request_id) != 0)
                continue;
            atomic_store(&g->aborted, true);
            here++;
        }
        here += early_abort(p, request_id);
        pthread_mutex_unlock(&p->gens_lock);

        if (here > 0)
            api_wake(a, i);
        n += here;
    }
    return n;
}

void gen_drop_all(struct port *p)
{
    while (p->gens != NULL) {
        if (p->gens->st != NULL)
            p->gens->st->gen = NULL;
        gen_free(p->gens);
    }
}
