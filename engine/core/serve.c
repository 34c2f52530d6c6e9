#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "rate.h"
#include "serve.h"

/* One producer (the port's thread), one consumer (the core). It has room for every request that
 * may be unfinished, so a push cannot fail. */
struct port {
    _Alignas(64) _Atomic uint32_t tail;    /* pushed; the producer's */
    atomic_bool busy;                      /* the producer is inside serve_submit */
    _Alignas(64) _Atomic uint32_t head;    /* popped; the core's */
    struct req **ring;                     /* [ring_mask + 1] */
    bool touched;                          /* wake it at the end of this pass */
};

struct serve {
    struct model     *model;
    struct serve_conf c;
    struct kv        *kv;
    struct sched      sched;
    struct batch_mem  batch[MODEL_FLIGHT_MAX];
    int32_t           n_flight;            /* launched steps: batch[first_flight], then the other */
    int32_t           first_flight;
    struct rate       rate;
    uint64_t          done_ns;             /* when the last step came back */
    double            decode_ns, fill_ns;  /* of a step without prompts; of a prompt token. Means */
    struct metrics    metrics;
    int32_t           vocab;
    uint32_t          ring_mask;
    struct port       port[SERVE_PORT_MAX];
    _Atomic int32_t   n_live;              /* submitted and not finished */
    atomic_bool       any_cancel;          /* somebody's cancel was set since the last pass */
    atomic_bool       reset_cache;
    atomic_bool       stop;
    atomic_bool       closed;              /* no more requests are taken */
};

static void count(_Atomic uint64_t *v, uint64_t n)
{
    atomic_fetch_add_explicit(v, n, memory_order_relaxed);
}

/* In order: who sees one sees those before it. */
static void gauge(_Atomic uint64_t *v, uint64_t n)
{
    atomic_store_explicit(v, n, memory_order_release);
}

/* --- open and close --- */

static int check_conf(const struct serve_conf *c, struct err *e)
{
    if (c->seq_max < 1 || c->step_tok_max < 1 || c->model_len_max < 1 || c->queue_max < 0
        || c->queue_max > 1 << 20 || c->seq_max > 1 << 20)
        return err_set(e, E_INVALID, "core: seq_max %d, step_tok_max %d, model_len_max %d and "
                       "queue_max %d must be positive and sane", c->seq_max, c->step_tok_max,
                       c->model_len_max, c->queue_max);
    if (c->n_port < 1 || c->n_port > SERVE_PORT_MAX)
        return err_set(e, E_INVALID, "core: %d ports, not 1 to %d", c->n_port, SERVE_PORT_MAX);
    if (c->queue_tok_max < 0 || c->tenant_max < 0)
        return err_set(e, E_INVALID, "core: a negative limit of the queue");
    if (c->kv.page_tok < 1)
        return err_set(e, E_INVALID, "core: pages of %d tokens", c->kv.page_tok);
    return 0;
}

static int open_ports(struct serve *s, struct err *e)
{
    uint32_t n = 1;

    while (n < (uint32_t) s->c.queue_max + (uint32_t) s->c.seq_max)
        n *= 2;
    s->ring_mask = n - 1;

    for (int32_t i = 0; i < s->c.n_port; i++) {
        s->port[i].ring = calloc(n, sizeof(struct req *));
        if (s->port[i].ring == NULL)
            return err_set(e, E_IO, "core: out of memory for the queue");
    }
    return 0;
}

int serve_open(struct serve **out, struct model *m, const struct serve_conf *c, struct err *e)
{
    struct serve *s;
    int rc;

    if ((rc = check_conf(c, e)) != 0)
        return rc;
    s = aligned_alloc(64, sizeof(*s));
    if (s == NULL)
        return err_set(e, E_IO, "core: out of memory");
    memset(s, 0, sizeof(*s));
    s->model = m;
    s->c = *c;
    s->vocab = model_config(m)->vocab;

    struct kv_conf kc = {
        .shape = c->kv,
        .window = model_config(m)->window,
        .step_tok_max = c->step_tok_max,
        .seq_max = c->seq_max,
        .page_max = (c->model_len_max - 1) / c->kv.page_tok + 1,
        .cache = c->cache, .point_tok = c->point_tok, .key = c->key, .hash_mask = ~0ull,
    };
    struct batch_conf bc = {
        .step_tok_max = c->step_tok_max, .seq_max = c->seq_max, .page_max = kc.page_max,
        .vocab = s->vocab,
        .steer_words = steer_words(s->vocab, c->seq_max,
                                   (int64_t) c->kv.n_page_full * c->kv.page_tok),
    };
    if ((rc = kv_open(&s->kv, &kc, e)) != 0
        || (rc = sched_open(&s->sched, s->kv, c->step_tok_max, c->seq_max, e)) != 0
        || (rc = batch_open(&s->batch[0], &bc, e)) != 0
        || (rc = batch_open(&s->batch[1], &bc, e)) != 0
        || (rc = open_ports(s, e)) != 0) {
        serve_close(s);
        return rc;
    }

    gauge(&s->metrics.page_tok, (uint64_t) c->kv.page_tok);
    gauge(&s->metrics.pages_full_total, (uint64_t) c->kv.n_page_full);
    gauge(&s->metrics.pages_sliding_total, (uint64_t) c->kv.n_page_sliding);
    *out = s;
    return 0;
}

const struct metrics *serve_metrics(const struct serve *s)
{
    return &s->metrics;
}

/* --- the owners' side --- */

static int check_fit(const struct serve *s, const struct req *r, struct err *e)
{
    int64_t len = (int64_t) r->n_prompt + r->max_new;
    struct kv_count need;

    if (r->n_prompt < 1)
        return err_set(e, E_INVALID, "the prompt is empty");
    if (r->max_new < 0 || r->min_new < 0)
        return err_set(e, E_INVALID, "a negative number of tokens to generate");
    if (len > s->c.model_len_max)
        return err_set(e, E_INVALID, "the prompt has %d tokens and up to %d are to be generated:"
                       " %lld, at most %d fit", r->n_prompt, r->max_new, (long long) len,
                       s->c.model_len_max);

    need = kv_need(s->kv, (int32_t) len);
    if (need.full > s->c.kv.n_page_full || need.sliding > s->c.kv.n_page_sliding)
        return err_set(e, E_INVALID, "%lld tokens need %d full and %d sliding pages of %d tokens,"
                       " the KV cache has %d and %d", (long long) len, need.full, need.sliding,
                       s->c.kv.page_tok, s->c.kv.n_page_full, s->c.kv.n_page_sliding);
    return 0;
}

/* The model would refuse the whole step. */
static int check_sample(const struct sample *p, struct err *e)
{
    if (!(p->temperature >= 0) || isinf(p->temperature))
        return err_set(e, E_INVALID, "temperature %g is not a number from 0 on",
                       (double) p->temperature);
    if (!(p->top_p > 0 && p->top_p <= 1) || !(p->min_p >= 0 && p->min_p <= 1) || p->top_k < 0)
        return err_set(e, E_INVALID, "top_p %g, min_p %g or top_k %d is out of range",
                       (double) p->top_p, (double) p->min_p, p->top_k);
    return 0;
}

static int check_ids(const struct serve *s, const int32_t *id, int32_t n, const char *what,
                     struct err *e)
{
    for (int32_t i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= s->vocab)
            return err_set(e, E_INVALID, "token id %d of %s is not in the vocabulary of %d", id[i],
                           what, s->vocab);
    return 0;
}

/* Words are a length and so many ids each. */
static int check_words(const struct serve *s, const struct steer *st, struct err *e)
{
    int rc = 0;

    for (int32_t i = 0; i < st->n_word && rc == 0; i += 1 + st->word[i]) {
        if (st->word[i] < 1 || st->word[i] > st->n_word - i - 1)
            return err_set(e, E_INVALID, "a word of %d ids that may not come", st->word[i]);
        rc = check_ids(s, st->word + i + 1, st->word[i], "a word that may not come", e);
    }
    return rc;
}

static int check_steer(const struct serve *s, const struct req *r, struct err *e)
{
    const struct steer *st = r->steer;
    int rc;

    if ((rc = check_ids(s, r->force, r->n_force, "those to come first", e)) != 0
        || (rc = check_ids(s, r->stop_id, r->n_stop_id, "those that end it", e)) != 0)
        return rc;
    if (r->think != NULL
        && (r->think->budget < 0 || r->think->n_free < 0 || r->think->n_close < 1
            || check_ids(s, r->think->close, r->think->n_close, "the end of a thought", e) != 0))
        return err_set(e, E_INVALID, "a budget of thoughts that makes no sense");
    if (r->lp.n < 0 || r->lp.n > MODEL_TOP_MAX || r->prompt_lp.n < 0
        || r->prompt_lp.n > MODEL_TOP_MAX || r->lp.n > s->vocab || r->prompt_lp.n > s->vocab)
        return err_set(e, E_INVALID, "more than %d logprobs", MODEL_TOP_MAX);
    if (st == NULL)
        return 0;

    if (!isfinite(st->presence) || !isfinite(st->frequency) || !isfinite(st->repetition)
        || !(st->repetition > 0))
        return err_set(e, E_INVALID, "a penalty that is no number");
    if (st->n_bias < 0 || st->n_bias > STEER_BIAS_MAX || st->n_word < 0
        || st->n_word > STEER_WORD_MAX)
        return err_set(e, E_INVALID, "%d biases or %d words of ids: too many", st->n_bias,
                       st->n_word);
    for (int32_t i = 0; i < st->n_bias; i++)
        if (!isfinite(st->bias[i]))
            return err_set(e, E_INVALID, "a bias that is no number");
    rc = check_ids(s, st->bias_id, st->n_bias, "a bias", e);
    return rc != 0 ? rc : check_words(s, st, e);
}

static int check_req(const struct serve *s, const struct req *r, struct err *e)
{
    int rc;

    if (r->port < 0 || r->port >= s->c.n_port)
        return err_set(e, E_INVALID, "port %d of %d", r->port, s->c.n_port);
    if (r->n_salt < 0 || r->n_salt > REQ_SALT_MAX)
        return err_set(e, E_INVALID, "a salt of %d bytes, at most %d", r->n_salt, REQ_SALT_MAX);
    if (r->n_stop_id < 0 || r->n_stop_id > REQ_STOP_MAX)
        return err_set(e, E_INVALID, "%d stop ids, at most %d", r->n_stop_id, REQ_STOP_MAX);
    if ((rc = check_fit(s, r, e)) != 0 || (rc = check_sample(&r->sample, e)) != 0
        || (rc = check_steer(s, r, e)) != 0)
        return rc;
    for (int32_t i = 0; i < r->n_prompt; i++)
        if (r->tok[i] < 0 || r->tok[i] >= s->vocab)
            return err_set(e, E_INVALID, "token id %d at position %d is not in the vocabulary of"
                           " %d", r->tok[i], i, s->vocab);
    return 0;
}

static int push(struct serve *s, struct req *const *r, int32_t n, struct err *e)
{
    struct port *p = &s->port[r[0]->port];
    uint32_t tail = atomic_load_explicit(&p->tail, memory_order_relaxed);
    int32_t limit = s->c.queue_max + s->c.seq_max;

    if (atomic_load(&s->closed))
        return err_set(e, E_GONE, "the engine has stopped");
    if (atomic_fetch_add(&s->n_live, n) > limit - n) {
        atomic_fetch_sub(&s->n_live, n);
        return err_set(e, E_FULL, "at most %d requests may run or wait", limit);
    }
    for (int32_t i = 0; i < n; i++)
        p->ring[(tail + (uint32_t) i) & s->ring_mask] = r[i];
    atomic_store_explicit(&p->tail, tail + (uint32_t) n, memory_order_release);
    return 0;
}

static void prepare(struct serve *s, struct req *r)
{
    atomic_init(&r->cancel, false);
    atomic_init(&r->n_pub, 0);
    atomic_init(&r->n_read, 0);
    atomic_init(&r->finish, FIN_NONE);
    r->stop_at = -1;
    r->n_cached = r->retry_ms = r->n_flight = 0;
    r->started = false;
    r->leaving = FIN_NONE;
    r->start_ns = r->first_ns = r->done_ns = r->last_ns = 0;
    r->seq = (struct kv_seq) { 0 };
    req_reset(r);
    r->submit_ns = s->c.now_ns(s->c.arg);
    kv_keys(s->kv, r);
}

int serve_submit_all(struct serve *s, struct req *const *r, int32_t n, struct err *e)
{
    struct port *p;
    int rc;

    for (int32_t i = 0; i < n; i++)
        if ((rc = check_req(s, r[i], e)) != 0)
            return rc;
    for (int32_t i = 0; i < n; i++)
        prepare(s, r[i]);

    /* Either we see that the core has closed, or it sees us busy and waits for what we push. */
    p = &s->port[r[0]->port];
    atomic_store(&p->busy, true);
    rc = push(s, r, n, e);
    atomic_store(&p->busy, false);
    if (rc == 0)
        s->c.kick(s->c.arg);
    return rc;
}

int serve_submit(struct serve *s, struct req *r, struct err *e)
{
    return serve_submit_all(s, &r, 1, e);
}

void serve_cancel(struct serve *s, struct req *r)
{
    atomic_store_explicit(&r->cancel, true, memory_order_relaxed);
    atomic_store_explicit(&s->any_cancel, true, memory_order_release);
    s->c.kick(s->c.arg);
}

void serve_reset_cache(struct serve *s)
{
    atomic_store(&s->reset_cache, true);
    s->c.kick(s->c.arg);
}

void serve_stop(struct serve *s)
{
    atomic_store(&s->stop, true);
    s->c.kick(s->c.arg);
}

/* --- the core --- */

static void count_done(struct metrics *m, const struct req *r, int fin, uint64_t now)
{
    int32_t n_new = r->n_known - r->n_prompt;

    if (fin == FIN_BUSY || fin == FIN_QUOTA) {
        count(fin == FIN_BUSY ? &m->refused_busy : &m->refused_quota, 1);
        return;
    }
    count(fin == FIN_STOP ? &m->done_stop : fin == FIN_LENGTH ? &m->done_length
          : fin == FIN_CANCEL ? &m->done_abort : &m->done_error, 1);
    count(&m->corrupt, fin == FIN_CORRUPT);
    histogram_add(&m->e2e, HIST_E2E, now - r->submit_ns);
    histogram_add(&m->prompt_len, HIST_TOKENS, (uint64_t) r->n_prompt);
    histogram_add(&m->generation_len, HIST_TOKENS, (uint64_t) n_new);
    histogram_add(&m->max_tok, HIST_TOKENS, (uint64_t) r->max_new);
    if (r->started)
        histogram_add(&m->prefill_len, HIST_TOKENS, (uint64_t) (r->n_prompt - r->n_cached));
    if (n_new > 0) {
        histogram_add(&m->decode, HIST_E2E, r->last_ns - r->first_ns);
        histogram_add(&m->inference, HIST_E2E, r->last_ns - r->start_ns);
    }
    if (n_new > 1)
        histogram_add(&m->tpot, HIST_ITL, (r->last_ns - r->first_ns) / (uint64_t) (n_new - 1));
}

/* Nothing in core refers to r any more. The store to finish is the last touch: from then on the
 * owner may free it. */
static void finish(struct serve *s, struct req *r, enum req_finish fin, uint64_t now)
{
    count_done(&s->metrics, r, fin, now);
    s->port[r->port].touched = true;
    r->done_ns = now;
    atomic_fetch_sub(&s->n_live, 1);
    atomic_store_explicit(&r->finish, fin, memory_order_release);
}

/* With pages free already, but perhaps in a step under way that writes to its memory. */
static void finish_later(struct serve *s, struct req *r, enum req_finish fin, uint64_t now)
{
    if (r->n_flight > 0)
        r->leaving = fin;
    else
        finish(s, r, fin, now);
}

static bool finish_taken(struct serve *s, bool only_cancelled, enum req_finish fin)
{
    struct req *r = sched_take(&s->sched, only_cancelled), *next;
    uint64_t now = s->c.now_ns(s->c.arg);
    bool any = r != NULL;

    for (; r != NULL; r = next) {
        next = r->next;
        finish_later(s, r, fin, now);
    }
    return any;
}

/* --- arrival --- */

/* Nobody waits long in silence: who would is told at once when to come again. */
static void arrive(struct serve *s, struct req *r, uint64_t now)
{
    struct queue_ahead a = queue_ahead(&s->sched.queue, r);
    uint64_t wait = rate_wait_ns(&s->rate, a.n_tok), limit = s->c.wait_max_ns;
    int64_t over = s->sched.queue.wait_tok + r->n_prompt - s->c.queue_tok_max;
    enum req_finish fin = FIN_NONE;

    gauge(&s->metrics.came_ns, now);
    r->n_known = r->n_prompt;
    if (s->c.tenant_max > 0 && r->tenant != 0 && a.n_own >= s->c.tenant_max) {
        fin = FIN_QUOTA;
        r->retry_ms = rate_retry_ms(wait);
    } else if (limit > 0 && wait > limit && rate_shows(&s->rate, limit)) {
        fin = FIN_BUSY;
        r->retry_ms = rate_retry_ms(wait - limit);
    } else if (s->c.queue_tok_max > 0 && a.n_tok > 0 && over > 0) {
        fin = FIN_BUSY;
        r->retry_ms = rate_retry_ms(rate_wait_ns(&s->rate, over));
    }

    if (fin == FIN_NONE)
        sched_add(&s->sched, r);
    else
        finish(s, r, fin, now);
}

static void drain(struct serve *s)
{
    uint64_t now = s->c.now_ns(s->c.arg);

    for (int32_t i = 0; i < s->c.n_port; i++) {
        struct port *p = &s->port[i];
        uint32_t head = atomic_load_explicit(&p->head, memory_order_relaxed);
        uint32_t tail = atomic_load_explicit(&p->tail, memory_order_acquire);

        for (; head != tail; head++)
            arrive(s, p->ring[head & s->ring_mask], now);
        atomic_store_explicit(&p->head, head, memory_order_relaxed);
    }
}

/* Once a pass: the gauges and one wake-up for each port that something came for. */
static void report(struct serve *s)
{
    const struct queue *q = &s->sched.queue;
    struct kv_count used = kv_used(s->kv);
    struct prefix_count cached = kv_cached(s->kv);
    struct metrics *m = &s->metrics;

    gauge(&m->deferred, (uint64_t) sched_deferred(&s->sched));
    gauge(&m->waiting_tok, (uint64_t) q->wait_tok);
    gauge(&m->wait_ns, rate_wait_ns(&s->rate, q->wait_tok));
    gauge(&m->points, (uint64_t) cached.n_point);
    gauge(&m->evicted, cached.n_evicted);
    gauge(&m->preempted, s->sched.n_preempted);
    gauge(&m->pages_full_cached, (uint64_t) kv_pool(s->kv, true)->n_idle);
    gauge(&m->pages_sliding_cached, (uint64_t) kv_pool(s->kv, false)->n_idle);
    gauge(&m->pages_full_used, (uint64_t) used.full);
    gauge(&m->pages_sliding_used, (uint64_t) used.sliding);
    gauge(&m->waiting, (uint64_t) q->n_wait);
    gauge(&m->running, (uint64_t) s->sched.n_run);

    for (int32_t i = 0; i < s->c.n_port; i++)
        if (s->port[i].touched) {
            s->port[i].touched = false;
            s->c.wake(s->c.arg, i);
        }
}

/* Those who left while a step was under way are done when it is back. */
static void land(struct serve *s, struct batch_mem *b, uint64_t now)
{
    s->n_flight--;
    s->first_flight ^= 1;
    for (int32_t i = 0; i < b->n_item; i++) {
        struct req *r = b->item[i].r;

        if (r != NULL && --r->n_flight == 0 && r->leaving != FIN_NONE) {
            batch_forget(b, r);
            finish(s, r, r->leaving, now);
        }
    }
}

/* No request is taken from here on, and all that were get fin. */
static void shut(struct serve *s, enum req_finish fin)
{
    struct err e;

    atomic_store(&s->closed, true);
    for (int32_t i = 0; i < s->c.n_port; i++)
        while (atomic_load(&s->port[i].busy))
            sched_yield();
    drain(s);
    finish_taken(s, false, fin);
    while (s->n_flight > 0) {
        (void) model_wait(s->model, &e);
        land(s, &s->batch[s->first_flight], s->c.now_ns(s->c.arg));
    }
    report(s);
}

/* The first step of these requests is launched now. */
static void note_start(struct serve *s, uint64_t now)
{
    struct metrics *m = &s->metrics;

    for (int32_t i = 0; i < s->sched.plan.n_item; i++) {
        struct step_item *it = &s->sched.plan.item[i];
        struct req *r = it->r;

        r->n_flight++;
        if (r->started)
            continue;
        r->started = true;
        r->start_ns = now;
        r->n_cached = r->seq.n_tok - it->n;
        histogram_add(&m->queue, HIST_E2E, now - r->submit_ns);
        count(&m->prompt_tok, (uint64_t) r->n_prompt);
        count(&m->cached_tok, (uint64_t) r->n_cached);
    }
}

static bool is_stop(const struct req *r, int32_t id)
{
    for (int32_t i = 0; i < r->n_stop_id; i++)
        if (r->stop_id[i] == id)
            return true;
    return false;
}

/* A sampled token: r's end, or published and, perhaps, in the next step already. */
static enum req_finish take_token(struct serve *s, struct req *r, int32_t id, uint64_t now)
{
    struct metrics *m = &s->metrics;
    int32_t n_new = r->n_known - r->n_prompt;

    if (n_new >= r->min_new && is_stop(r, id)) {
        r->stop_at = id;
        return FIN_STOP;
    }

    if (n_new == 0) {
        r->first_ns = now;
        histogram_add(&m->ttft, HIST_TTFT, now - r->submit_ns);
        histogram_add(&m->prefill, HIST_E2E, now - r->start_ns);
    } else {
        histogram_add(&m->itl, HIST_ITL, now - r->last_ns);
    }
    r->last_ns = now;
    count(&m->generation_tok, 1);

    req_note(r, id);
    r->tok[r->n_known++] = id;
    s->port[r->port].touched = true;
    atomic_store_explicit(&r->n_pub, n_new + 1, memory_order_release);
    return n_new + 1 == r->max_new ? FIN_LENGTH : FIN_NONE;
}

/* It may be in the step behind this one; what that brings is not wanted. */
static void end(struct serve *s, struct req *r, enum req_finish fin, uint64_t now)
{
    sched_remove(&s->sched, r);
    for (int i = 0; i < MODEL_FLIGHT_MAX; i++)
        batch_forget(&s->batch[i], r);
    finish(s, r, fin, now);
}

/* Its numbers are none. The step behind this one may have the row whose logits are for its owner,
 * so that is told when it is back. What r has stored may be the reason: no prefix is trusted. */
static void end_corrupt(struct serve *s, struct req *r, uint64_t now)
{
    if (r->n_flight == 0) {
        end(s, r, FIN_CORRUPT, now);
    } else {
        sched_remove(&s->sched, r);
        r->leaving = FIN_CORRUPT;
    }
    kv_reset_cache(s->kv);
}

/* Of row i of the step, to row at of what the request has room for. */
static void take_logprobs(const struct req_lp *lp, const struct batch_mem *b, int32_t i, int32_t at)
{
    size_t n = (size_t) lp->n + 1, from = (size_t) i * (1 + MODEL_TOP_MAX), to = (size_t) at * n;

    if (lp->p == NULL)
        return;
    memcpy(lp->p + to, b->lp + from, n * sizeof(*lp->p));
    if (lp->id != NULL)
        memcpy(lp->id + to, b->lp_id + from, n * sizeof(*lp->id));
}

static void take_row(struct serve *s, struct batch_mem *b, int32_t i, uint64_t now)
{
    struct req *r = b->out[i].r;
    enum req_finish fin;

    if (r == NULL || r->leaving != FIN_NONE)
        return;
    if (b->sampled[i] < 0) {
        end_corrupt(s, r, now);
    } else if (b->target[i] >= 0) {
        take_logprobs(&r->prompt_lp, b, i, b->out[i].pos);
    } else if (b->out[i].samples) {
        take_logprobs(&r->lp, b, i, b->out[i].pos + 1 - r->n_prompt);
        fin = take_token(s, r, b->sampled[i], now);
        if (fin != FIN_NONE)
            end(s, r, fin, now);
    }
}

/* With a target for the time between two tokens prompts get what is left of it beside answers. */
static void tune(struct serve *s, const struct batch_mem *b, double ns)
{
    double *mean = b->n_fill_tok == 0 ? &s->decode_ns : &s->fill_ns, budget;

    if (s->c.itl_target_ns == 0)
        return;
    if (b->n_fill_tok > 0) {
        s->decode_ns = fmin(s->decode_ns, ns);         /* with prompts it was quicker */
        ns = (ns - s->decode_ns) / b->n_fill_tok;
    }
    *mean = *mean == 0 ? ns : *mean + (ns - *mean) / 8;
    if (s->fill_ns == 0)
        return;

    budget = ((double) s->c.itl_target_ns - s->decode_ns) / s->fill_ns;
    s->sched.fill_tok_max = (int32_t) fmin(fmax(budget, s->c.kv.page_tok), s->c.step_tok_max);
}

static void tell_read(struct serve *s, struct req *r, int32_t n)
{
    if (n > r->n_prompt || n <= atomic_load_explicit(&r->n_read, memory_order_relaxed))
        return;
    atomic_store_explicit(&r->n_read, n, memory_order_release);
    s->port[r->port].touched = true;
}

/* What the oldest step brought: K and V of every item, a logprob or a token for every row. */
static void take_step(struct serve *s, uint64_t now)
{
    struct batch_mem *b = &s->batch[s->first_flight];
    uint64_t since = b->launch_ns > s->done_ns ? b->launch_ns : s->done_ns;

    count(&s->metrics.steps, 1);
    histogram_add(&s->metrics.phase[PHASE_FORWARD], HIST_PHASE, now - since);
    histogram_add(&s->metrics.step_tok, HIST_STEP, (uint64_t) b->b.n_tok);
    tune(s, b, (double) (now - since));
    s->done_ns = now;
    gauge(&s->metrics.step_ns, now);

    land(s, b, now);
    for (int32_t i = 0; i < b->b.n_out; i++)
        take_row(s, b, i, now);
    for (int32_t i = 0; i < b->n_item; i++) {
        struct req *r = b->item[i].r;

        if (r == NULL || r->leaving != FIN_NONE)
            continue;
        if (r->tell_read)
            tell_read(s, r, b->item[i].end);
        if (r->max_new == 0 && b->item[i].ends_prompt)
            end(s, r, FIN_LENGTH, now);
    }
    histogram_add(&s->metrics.phase[PHASE_OUTPUT], HIST_PHASE, s->c.now_ns(s->c.arg) - now);
}

static void launch(struct serve *s)
{
    struct batch_mem *b = &s->batch[s->first_flight ^ s->n_flight];
    uint64_t now = s->c.now_ns(s->c.arg);

    note_start(s, now);
    batch_fill(b, &s->sched.plan);
    b->launch_ns = now;
    s->n_flight++;
    model_launch(s->model, &b->b, &b->o);
}

static bool arrivals(struct serve *s)
{
    bool cancelled, worked = false;

    /* In this order: a request whose cancel we are told of is in our lists after the drain. */
    cancelled = atomic_exchange_explicit(&s->any_cancel, false, memory_order_acquire);
    drain(s);
    if (cancelled)
        worked = finish_taken(s, true, FIN_CANCEL);
    if (atomic_exchange(&s->reset_cache, false))
        kv_reset_cache(s->kv);
    return worked;
}

/* The next step, planned and launched. false: there is none, or not yet. */
static bool next_step(struct serve *s)
{
    int64_t before = s->sched.admitted_tok;
    uint64_t start = s->c.now_ns(s->c.arg);

    s->sched.behind_tok = s->n_flight > 0 ? s->batch[s->first_flight].n_fill_tok : 0;
    if (sched_is_long(&s->sched))
        return false;
    sched_plan(&s->sched);
    rate_note(&s->rate, s->c.now_ns(s->c.arg), s->sched.queue.n_wait > 0,
              s->sched.admitted_tok - before);
    if (s->sched.plan.n_item == 0)
        return false;
    launch(s);
    histogram_add(&s->metrics.phase[PHASE_PLAN], HIST_PHASE, s->c.now_ns(s->c.arg) - start);
    return true;
}

bool serve_once(struct serve *s, struct err *e)
{
    struct err own;
    bool worked, launched;

    e = e != NULL ? e : &own;
    e->code = 0;

    worked = arrivals(s);
    launched = next_step(s);
    worked = worked || launched;
    if (s->n_flight > (launched && s->c.overlap)) {
        if (model_wait(s->model, e) != 0) {
            land(s, &s->batch[s->first_flight], s->c.now_ns(s->c.arg));
            shut(s, FIN_ERROR);
            return true;
        }
        take_step(s, s->c.now_ns(s->c.arg));
        worked = true;
    }
    report(s);
    return worked;
}

int serve_run(struct serve *s, struct err *e)
{
    struct err own;

    e = e != NULL ? e : &own;
    while (!atomic_load(&s->stop)) {
        if (!serve_once(s, e))
            s->c.sleep(s->c.arg);
        else if (e->code != 0)
            return e->code;
    }
    shut(s, FIN_CANCEL);
    return 0;
}

void serve_close(struct serve *s)
{
    if (s->batch[1].tok != NULL)
        shut(s, FIN_CANCEL);
    sched_close(&s->sched);
    batch_close(&s->batch[0]);
    batch_close(&s->batch[1]);
    kv_close(s->kv);
    for (int32_t i = 0; i < s->c.n_port; i++)
        free(s->port[i].ring);
    free(s);
}
