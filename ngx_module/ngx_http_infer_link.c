
/*
 * One link: this worker, one engine process.  Owns the control socket, the
 * rings (wire_link) and the slots.
 */


#include "ngx_http_infer.h"


static ngx_connection_t *ngx_http_infer_link_socket(
    ngx_http_infer_engine_t *engine);
static ngx_uint_t ngx_http_infer_engine_level(ngx_http_infer_engine_t *engine,
    uint32_t trouble);
static ngx_uint_t ngx_http_infer_words_level(ngx_http_infer_engine_t *engine,
    const char *why);
static ngx_int_t ngx_http_infer_link_hello(ngx_http_infer_link_t *link);
static void ngx_http_infer_link_read_handler(ngx_event_t *ev);
static void ngx_http_infer_link_write_handler(ngx_event_t *ev);
static void ngx_http_infer_link_timer_handler(ngx_event_t *ev);
static void ngx_http_infer_link_welcome(ngx_http_infer_link_t *link);
static ngx_int_t ngx_http_infer_link_attach(ngx_http_infer_link_t *link);
static ngx_int_t ngx_http_infer_link_drain(ngx_http_infer_link_t *link);
static void ngx_http_infer_link_record(ngx_http_infer_link_t *link,
    struct wire_rec *rec, u_char *payload);
static void ngx_http_infer_link_free_slot(ngx_http_infer_link_t *link,
    uint32_t n);
static void ngx_http_infer_link_pump(ngx_http_infer_link_t *link);
static ngx_int_t ngx_http_infer_link_send_next(ngx_http_infer_link_t *link,
    ngx_http_infer_ctx_t *ctx);
static ngx_int_t ngx_http_infer_link_room(ngx_http_infer_link_t *link,
    uint32_t len);
static ngx_int_t ngx_http_infer_link_send(ngx_http_infer_link_t *link,
    uint32_t slot, ngx_uint_t type, void *payload, uint32_t len);
static void ngx_http_infer_link_ring(ngx_http_infer_link_t *link,
    ngx_uint_t needed);
static void ngx_http_infer_link_close(ngx_http_infer_link_t *link,
    const char *why);
static ngx_uint_t ngx_http_infer_link_take_lost(ngx_http_infer_link_t *link,
    ngx_queue_t *lost);
static void ngx_http_infer_link_free(ngx_http_infer_link_t *link);
static void ngx_http_infer_engine_retry(ngx_http_infer_engine_t *engine);
static void ngx_http_infer_reconnect_handler(ngx_event_t *ev);


static ngx_queue_t  ngx_http_infer_links;       /* of this worker */
static uint64_t     ngx_http_infer_epoch;
static u_char       ngx_http_infer_rx_buf[WIRE_REC_BYTES_MAX];
static u_char       ngx_http_infer_tx_buf[WIRE_REC_BYTES_MAX];


void
ngx_http_infer_links_init(void)
{
    /* without a master the links of an old configuration are still there */

    if (ngx_http_infer_links.next == NULL) {
        ngx_queue_init(&ngx_http_infer_links);
    }

    ngx_http_infer_epoch = ((uint64_t) ngx_random() << 32)
                           ^ ((uint64_t) ngx_pid << 16)
                           ^ (uint64_t) ngx_random();
}


/* The worker ends, or without a master its old configuration does. */

void
ngx_http_infer_links_exit(void *data)
{
    ngx_queue_t            *q, *next;
    ngx_cycle_t            *cycle = data;
    ngx_http_infer_link_t  *link;

    for (q = ngx_queue_head(&ngx_http_infer_links);
         q != ngx_queue_sentinel(&ngx_http_infer_links);
         q = next)
    {
        next = ngx_queue_next(q);
        link = ngx_queue_data(q, ngx_http_infer_link_t, queue);

        if (link->connection->log == cycle->log) {
            ngx_http_infer_link_free(link);
        }
    }
}


void
ngx_http_infer_link_connect(ngx_http_infer_engine_t *engine,
    ngx_msec_t timeout)
{
    ngx_pool_t             *pool;
    ngx_connection_t       *c;
    ngx_http_infer_link_t  *link;

    engine->attempted = ngx_current_msec;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return;
    }

    link = ngx_pcalloc(pool, sizeof(ngx_http_infer_link_t));
    c = link ? ngx_http_infer_link_socket(engine) : NULL;

    if (c == NULL) {
        goto failed;
    }

    link->engine = engine;
    link->pool = pool;
    link->connection = c;
    ngx_queue_init(&link->sending);
    ngx_queue_init(&link->cancels);
    ngx_queue_init(&link->dirty);

    c->data = link;
    c->read->handler = ngx_http_infer_link_read_handler;
    c->write->handler = ngx_http_infer_link_write_handler;
    c->read->log = c->write->log = c->log;

    /* not an HTTP connection: no "open socket left", no shutdown timer */
    c->read->channel = c->write->channel = 1;

    if (ngx_http_infer_link_hello(link) != NGX_OK) {
        ngx_close_connection(c);
        goto failed;
    }

    link->timer.handler = ngx_http_infer_link_timer_handler;
    link->timer.data = link;
    link->timer.log = c->log;
    link->timer.cancelable = 1;
    ngx_add_timer(&link->timer, timeout);

    ngx_queue_insert_tail(&ngx_http_infer_links, &link->queue);
    engine->link = link;

    return;

failed:

    ngx_destroy_pool(pool);
    ngx_http_infer_count(engine, connect_errors, 1);
    ngx_http_infer_engine_retry(engine);
}


static ngx_connection_t *
ngx_http_infer_link_socket(ngx_http_infer_engine_t *engine)
{
    ngx_log_t         *log;
    ngx_err_t          err;
    ngx_uint_t         level;
    ngx_socket_t       fd;
    ngx_connection_t  *c;

    log = ngx_cycle->log;

    fd = socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0);

    if (fd == (ngx_socket_t) -1) {
        ngx_log_error(NGX_LOG_ALERT, log, ngx_socket_errno,
                      "infer: no socket for engine \"%V\"", &engine->name);
        return NULL;
    }

    c = ngx_get_connection(fd, log);
    if (c == NULL) {
        ngx_close_socket(fd);
        return NULL;
    }

    /* a unix connect is immediate or fails, EAGAIN is a full backlog */

    if (connect(fd, (struct sockaddr *) &engine->addr,
                sizeof(struct sockaddr_un))
        == 0)
    {
        return c;
    }

    err = ngx_socket_errno;
    level = ngx_http_infer_engine_level(engine, err);

    ngx_log_error(level, log, err, "infer: connect() to engine \"%V\" failed",
                  &engine->name);

    ngx_close_connection(c);

    return NULL;
}


/* An engine is tried again and again: an error is told once, until there is
 * another one or a link. */

static ngx_uint_t
ngx_http_infer_engine_level(ngx_http_infer_engine_t *engine, uint32_t trouble)
{
    if (engine->trouble == trouble) {
        return NGX_LOG_INFO;
    }

    engine->trouble = trouble;

    return NGX_LOG_ERR;
}


static ngx_uint_t
ngx_http_infer_words_level(ngx_http_infer_engine_t *engine, const char *why)
{
    return ngx_http_infer_engine_level(engine,
                           ngx_crc32_short((u_char *) why, ngx_strlen(why)));
}


static ngx_int_t
ngx_http_infer_link_hello(ngx_http_infer_link_t *link)
{
    ngx_uint_t                   level;
    struct err                   e;
    ngx_connection_t            *c;
    ngx_http_infer_main_conf_t  *imcf;

    c = link->connection;
    imcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_infer_module);

    if (wire_link_hello(&link->wire, c->fd, &imcf->sizes,
                        ngx_http_infer_epoch, &e)
        != 0)
    {
        level = ngx_http_infer_words_level(link->engine, e.msg);
        ngx_log_error(level, c->log, 0,
                      "infer: hello to engine \"%V\" failed: %s",
                      &link->engine->name, e.msg);
        return NGX_ERROR;
    }

    if (ngx_add_event(c->read, NGX_READ_EVENT,
                      (ngx_event_flags & NGX_USE_CLEAR_EVENT)
                      ? NGX_CLEAR_EVENT : NGX_LEVEL_EVENT)
        != NGX_OK)
    {
        wire_link_close(&link->wire);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_infer_engine_retry(ngx_http_infer_engine_t *engine)
{
    ngx_msec_t  delay;

    if (engine->reconnect.timer_set) {
        return;
    }

    delay = engine->backoff ? engine->backoff : NGX_HTTP_INFER_RETRY_MIN;
    engine->backoff = ngx_min(delay * 2, NGX_HTTP_INFER_RETRY_MAX);

    engine->reconnect.handler = ngx_http_infer_reconnect_handler;
    engine->reconnect.data = engine;
    engine->reconnect.log = ngx_cycle->log;
    engine->reconnect.cancelable = 1;

    /* workers that lost the same engine do not come back as one */

    ngx_add_timer(&engine->reconnect,
                  delay + (ngx_msec_t) ngx_random() % (delay / 4 + 1));
}


static void
ngx_http_infer_reconnect_handler(ngx_event_t *ev)
{
    ngx_http_infer_engine_t  *engine = ev->data;

    if (engine->link == NULL) {
        ngx_http_infer_link_connect(engine, NGX_HTTP_INFER_RETRY_MAX);
    }
}


static void
ngx_http_infer_link_write_handler(ngx_event_t *ev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, ev->log, 0, "infer link: writable");
}


static void
ngx_http_infer_link_read_handler(ngx_event_t *ev)
{
    int                     goaway;
    ngx_int_t               rc, bell;
    ngx_connection_t       *c;
    ngx_http_infer_link_t  *link;

    c = ev->data;
    link = c->data;

    if (!link->ready) {
        ngx_http_infer_link_welcome(link);
        return;
    }

    goaway = 0;
    bell = wire_bell_drain(c->fd, &goaway);

    if (goaway && !link->goaway) {
        link->goaway = 1;
        ngx_log_error(NGX_LOG_NOTICE, c->log, 0,
                      "infer: engine \"%V\" goes away", &link->engine->name);
    }

    rc = ngx_http_infer_link_drain(link);

    if (rc == NGX_ERROR || link->broken) {
        ngx_log_error(NGX_LOG_CRIT, c->log, 0,
                      "infer: engine \"%V\" wrote nonsense into the ring",
                      &link->engine->name);
        ngx_http_infer_count(link->engine, faults, 1);
        ngx_http_infer_link_close(link, "broke the protocol");
        return;
    }

    if (rc == NGX_AGAIN) {
        ngx_post_event(ev, &ngx_posted_next_events);
        return;
    }

    if (bell < 0) {
        ngx_http_infer_link_close(link, "closed the connection");
        return;
    }

    ngx_http_infer_link_pump(link);
}


ngx_uint_t
ngx_http_infer_link_leaving(ngx_http_infer_link_t *link)
{
    return __atomic_load_n(&link->wire.ring.peer->draining, __ATOMIC_RELAXED);
}


static void
ngx_http_infer_link_welcome(ngx_http_infer_link_t *link)
{
    int                       rc;
    ngx_uint_t                level;
    const char               *why;
    struct err                e;
    ngx_http_infer_engine_t  *engine;

    engine = link->engine;
    e.msg[0] = '\0';

    rc = wire_link_welcome(&link->wire, link->connection->fd, &e);

    if (rc == E_AGAIN) {
        return;
    }

    if (rc == 0 && ngx_http_infer_link_attach(link) == NGX_OK) {
        ngx_log_error(NGX_LOG_INFO, link->connection->log, 0,
                      "infer: engine \"%V\" attached, %ui slots",
                      &engine->name, link->n_free);
        return;
    }

    why = e.msg[0] ? e.msg : "closed the connection";
    level = ngx_http_infer_words_level(engine, why);

    ngx_log_error(level, link->connection->log, 0,
                  "infer: engine \"%V\" refused the link: %s",
                  &engine->name, why);
    ngx_http_infer_count(engine, connect_errors, 1);
    ngx_http_infer_link_close(link, NULL);
}


static ngx_int_t
ngx_http_infer_link_attach(ngx_http_infer_link_t *link)
{
    uint32_t                  i, n;
    ngx_http_infer_engine_t  *engine;

    engine = link->engine;
    n = link->wire.ring.n_slot;

    link->slots = ngx_pcalloc(link->pool, n * sizeof(ngx_http_infer_slot_t));
    link->free = ngx_palloc(link->pool, n * sizeof(uint32_t));

    if (link->slots == NULL || link->free == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < n; i++) {
        link->free[i] = n - 1 - i;
    }

    link->n_free = n;
    link->ready = 1;
    link->beaten = ngx_current_msec;

    engine->trouble = 0;
    engine->backoff = 0;
    ngx_http_infer_count(engine, connects, 1);

    ngx_add_timer(&link->timer, NGX_HTTP_INFER_CHECK);

    if (wire_ring_arm(&link->wire.ring)) {
        ngx_post_event(link->connection->read, &ngx_posted_events);
    }

    ngx_http_infer_pool_wake(engine->pool);

    return NGX_OK;
}


/* A safety net under the doorbells, and the engine's pulse. */

static void
ngx_http_infer_link_timer_handler(ngx_event_t *ev)
{
    uint64_t                beat, head, tail;
    ngx_uint_t              level;
    ngx_http_infer_link_t  *link;

    static const char       mute[] = "did not answer the handshake";

    link = ev->data;

    if (!link->ready) {
        level = ngx_http_infer_words_level(link->engine, mute);
        ngx_log_error(level, ev->log, 0, "infer: engine \"%V\" %s",
                      &link->engine->name, mute);
        ngx_http_infer_count(link->engine, connect_errors, 1);
        ngx_http_infer_engine_fail(link->engine);
        ngx_http_infer_link_close(link, NULL);
        return;
    }

    beat = __atomic_load_n(&link->wire.ring.peer->heartbeat,
                           __ATOMIC_RELAXED);

    if (beat != link->heartbeat) {
        link->heartbeat = beat;
        link->beaten = ngx_current_msec;

    } else if (ngx_current_msec - link->beaten > NGX_HTTP_INFER_HANG) {
        ngx_http_infer_link_close(link, "hangs: no heartbeat");
        return;
    }

    ngx_add_timer(ev, NGX_HTTP_INFER_CHECK);

    /* Records that have lain there since the last check were never rung
     * for: a lost wake-up. */

    tail = __atomic_load_n(&link->wire.ring.peer->tail, __ATOMIC_ACQUIRE);
    head = link->wire.ring.rx_head;

    if (tail != head && link->stuck && link->stuck_head == head) {
        ngx_http_infer_count(link->engine, rescues, 1);
        link->stuck = 0;
        ngx_http_infer_link_read_handler(link->connection->read);
        return;
    }

    link->stuck = (tail != head);
    link->stuck_head = head;

    ngx_http_infer_link_pump(link);
}


/* NGX_OK: the ring is empty and armed.  NGX_AGAIN: the budget is used up. */

static ngx_int_t
ngx_http_infer_link_drain(ngx_http_infer_link_t *link)
{
    int                    rc;
    ngx_uint_t             n, bell;
    ngx_queue_t           *q;
    struct wire_rec        rec;
    struct wire_ring      *ring;
    ngx_connection_t      *c;
    ngx_http_infer_ctx_t  *ctx;

    ring = &link->wire.ring;
    n = 0;

again:

    rc = 0;

    while (n < NGX_HTTP_INFER_BUDGET) {
        rc = wire_ring_recv(ring, &rec, ngx_http_infer_rx_buf);

        if (rc != 1) {
            break;
        }

        n++;
        ngx_http_infer_link_record(link, &rec, ngx_http_infer_rx_buf);
    }

    /* one shared cache line for all workers: not for each token */

    ngx_http_infer_count(link->engine, bytes_in, link->bytes_in);
    link->bytes_in = 0;

    /* what is not on its way yet may still be answered by another engine */

    if (rc < 0 || link->n_faults > NGX_HTTP_INFER_FAULTS_MAX) {
        return NGX_ERROR;
    }

    while (!ngx_queue_empty(&link->dirty)) {
        q = ngx_queue_head(&link->dirty);
        ngx_queue_remove(q);

        ctx = ngx_queue_data(q, ngx_http_infer_ctx_t, dirty_queue);
        ctx->dirty = 0;

        c = ctx->request->connection;
        ngx_http_infer_flush(ctx);
        ngx_http_run_posted_requests(c);
    }

    bell = wire_ring_release(ring);
    ngx_http_infer_link_ring(link, bell);

    if (n >= NGX_HTTP_INFER_BUDGET) {
        return NGX_AGAIN;
    }

    if (wire_ring_arm(ring)) {
        goto again;
    }

    return NGX_OK;
}


static void
ngx_http_infer_link_record(ngx_http_infer_link_t *link, struct wire_rec *rec,
    u_char *payload)
{
    ngx_connection_t       *c;
    ngx_http_infer_ctx_t   *ctx;
    ngx_http_infer_slot_t  *slot;

    if (rec->slot >= link->wire.ring.n_slot
        || !link->slots[rec->slot].busy
        || link->slots[rec->slot].gen != rec->gen)
    {
        ngx_http_infer_count(link->engine, stale, 1);
        return;
    }

    link->n_records++;

    slot = &link->slots[rec->slot];
    slot->received += WIRE_REC_SIZE(rec->len);
    ctx = slot->ctx;

    if (ctx == NULL) {

        /* nobody waits any more: dropped bytes count as gone */

        wire_ring_ack(&link->wire.ring, rec->slot, slot->received);

        if (rec->type == WIRE_REP_END) {
            ngx_http_infer_link_free_slot(link, rec->slot);
        }

        return;
    }

    c = ctx->request->connection;

    if (rec->seq != slot->rx_seq) {
        ngx_http_infer_link_fault(ctx, "sequence");

    } else if (ngx_http_infer_link_unacked(ctx) > link->wire.ring.window) {
        ngx_http_infer_link_fault(ctx, "credit");

    } else {
        slot->rx_seq++;

        if (rec->type == WIRE_REP_END) {
            ngx_http_infer_link_free_slot(link, rec->slot);
            ngx_http_infer_count(link->engine, replies, 1);
        }

        ngx_http_infer_reply(ctx, rec, payload);
    }

    ngx_http_run_posted_requests(c);
}


void
ngx_http_infer_link_fault(ngx_http_infer_ctx_t *ctx, const char *what)
{
    ngx_http_infer_link_t  *link = ctx->link;

    ngx_log_error(NGX_LOG_ERR, ctx->request->connection->log, 0,
                  "infer: engine \"%V\" broke the protocol: %s",
                  &ctx->engine->name, what);

    ngx_http_infer_count(ctx->engine, faults, 1);

    if (link) {
        link->n_faults++;
    }

    ngx_http_infer_failed(ctx, NGX_HTTP_INFER_NEXT_ERROR);
}


/* The engine ended the stream, or never heard of it. */

static void
ngx_http_infer_link_free_slot(ngx_http_infer_link_t *link, uint32_t n)
{
    ngx_http_infer_slot_t  *slot = &link->slots[n];

    if (slot->ctx) {
        slot->ctx->link = NULL;
        slot->ctx = NULL;
        link->engine->n_active--;
    }

    if (slot->doomed) {
        ngx_queue_remove(&slot->queue);
        slot->doomed = 0;
    }

    slot->busy = 0;
    link->free[link->n_free++] = n;

    ngx_http_infer_pool_wake(link->engine->pool);
}


void
ngx_http_infer_link_submit(ngx_http_infer_link_t *link,
    ngx_http_infer_ctx_t *ctx)
{
    uint32_t                n;
    ngx_http_infer_slot_t  *slot;

    n = link->free[--link->n_free];
    slot = &link->slots[n];

    slot->gen++;
    slot->busy = 1;
    slot->ctx = ctx;
    slot->received = 0;
    slot->tx_seq = 0;
    slot->rx_seq = 0;

    ctx->link = link;
    ctx->slot = n;
    ctx->heard = link->n_records;
    ctx->acked = 0;
    ctx->head_sent = 0;
    ctx->end_sent = 0;
    ngx_http_infer_rewind_body(ctx);

    wire_ring_ack(&link->wire.ring, n, 0);

    link->engine->n_active++;
    ngx_http_infer_count(link->engine, requests, 1);

    ngx_queue_insert_tail(&link->sending, &ctx->queue);
    ctx->queued = 1;

    ngx_http_infer_link_pump(link);
}


void
ngx_http_infer_link_detach(ngx_http_infer_ctx_t *ctx)
{
    ngx_http_infer_link_t  *link;
    ngx_http_infer_slot_t  *slot;

    link = ctx->link;

    if (ctx->dirty) {
        ngx_queue_remove(&ctx->dirty_queue);
        ctx->dirty = 0;
    }

    if (ctx->queued) {
        ngx_queue_remove(&ctx->queue);
        ctx->queued = 0;
    }

    if (link == NULL) {
        return;
    }

    slot = &link->slots[ctx->slot];

    if (!ctx->head_sent) {
        ngx_http_infer_link_free_slot(link, ctx->slot);
        return;
    }

    slot->ctx = NULL;
    ctx->link = NULL;
    link->engine->n_active--;
    ngx_http_infer_count(link->engine, cancelled, 1);

    wire_ring_ack(&link->wire.ring, ctx->slot, slot->received);

    slot->doomed = 1;
    ngx_queue_insert_tail(&link->cancels, &slot->queue);

    ngx_http_infer_link_pump(link);
}


void
ngx_http_infer_link_ack(ngx_http_infer_ctx_t *ctx, size_t held)
{
    uint64_t                left;
    ngx_http_infer_link_t  *link;

    link = ctx->link;

    if (link == NULL) {
        return;
    }

    /* held is less than its records were, so this never goes back */

    left = link->slots[ctx->slot].received - held;

    if (left != ctx->acked) {
        ctx->acked = left;
        wire_ring_ack(&link->wire.ring, ctx->slot, left);

        /* the engine may wait for this credit */

        ngx_http_infer_link_ring(link, wire_ring_release(&link->wire.ring));
    }
}


uint64_t
ngx_http_infer_link_unacked(ngx_http_infer_ctx_t *ctx)
{
    return ctx->link ? ctx->link->slots[ctx->slot].received - ctx->acked : 0;
}


/* Cancels first, then one record of each unsent request in turn, so that a
 * long upload does not hold up short prompts. */

static void
ngx_http_infer_link_pump(ngx_http_infer_link_t *link)
{
    uint32_t                n;
    ngx_int_t               rc;
    ngx_queue_t            *q;
    ngx_http_infer_ctx_t   *ctx;
    ngx_http_infer_slot_t  *slot;

    rc = NGX_OK;

    while (rc == NGX_OK && !ngx_queue_empty(&link->cancels)) {
        q = ngx_queue_head(&link->cancels);
        slot = ngx_queue_data(q, ngx_http_infer_slot_t, queue);
        n = slot - link->slots;

        rc = ngx_http_infer_link_send(link, n, WIRE_REQ_CANCEL, NULL, 0);

        if (rc == NGX_OK) {
            ngx_queue_remove(q);
            slot->doomed = 0;
        }
    }

    while (rc == NGX_OK && !ngx_queue_empty(&link->sending)) {
        q = ngx_queue_head(&link->sending);
        ctx = ngx_queue_data(q, ngx_http_infer_ctx_t, queue);

        rc = ngx_http_infer_link_send_next(link, ctx);

        if (rc == NGX_OK) {
            ngx_queue_remove(q);

            if (ctx->end_sent || ctx->broken) {
                ctx->queued = 0;

            } else {
                ngx_queue_insert_tail(&link->sending, q);
            }
        }
    }

    ngx_http_infer_link_ring(link, wire_ring_publish(&link->wire.ring));
}


static ngx_int_t
ngx_http_infer_link_send_next(ngx_http_infer_link_t *link,
    ngx_http_infer_ctx_t *ctx)
{
    uint32_t   n;
    ngx_int_t  rc;

    if (ctx->broken) {
        return NGX_OK;
    }

    if (!ctx->head_sent) {
        rc = ngx_http_infer_link_send(link, ctx->slot, WIRE_REQ_HEAD,
                                      ctx->head, ctx->head_len);
        if (rc == NGX_OK) {
            ctx->head_sent = 1;
        }

        return rc;
    }

    if (ctx->body_left == 0) {
        rc = ngx_http_infer_link_send(link, ctx->slot, WIRE_REQ_END, NULL, 0);

        if (rc == NGX_OK) {
            ctx->end_sent = 1;
        }

        return rc;
    }

    n = (uint32_t) ngx_min(ctx->body_left, WIRE_REC_BYTES_MAX);

    rc = ngx_http_infer_link_room(link, n);

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_infer_read_body(ctx, ngx_http_infer_tx_buf, n) != NGX_OK) {

        /* not here: the caller may be another request's handler */

        ctx->broken = 1;
        ngx_add_timer(&ctx->timer, 0);
        return NGX_OK;
    }

    ctx->submitted = ngx_current_msec;
    ngx_http_infer_count(link->engine, bytes_out, n);

    return ngx_http_infer_link_send(link, ctx->slot, WIRE_REQ_BODY,
                                    ngx_http_infer_tx_buf, n);
}


static ngx_int_t
ngx_http_infer_link_send(ngx_http_infer_link_t *link, uint32_t n,
    ngx_uint_t type, void *payload, uint32_t len)
{
    struct wire_rec         rec;
    ngx_http_infer_slot_t  *slot;

    slot = &link->slots[n];

    ngx_memzero(&rec, sizeof(struct wire_rec));
    rec.len = len;
    rec.type = type;
    rec.slot = n;
    rec.gen = slot->gen;
    rec.seq = slot->tx_seq;

    if (ngx_http_infer_link_room(link, len) != NGX_OK
        || wire_ring_send(&link->wire.ring, &rec, payload) != 0)
    {
        return NGX_AGAIN;
    }

    slot->tx_seq++;

    return NGX_OK;
}


/* NGX_AGAIN: the engine will ring when there is room. */

static ngx_int_t
ngx_http_infer_link_room(ngx_http_infer_link_t *link, uint32_t len)
{
    int  rc;

    rc = wire_ring_room(&link->wire.ring, len);

    if (rc == 0) {
        rc = wire_ring_want_space(&link->wire.ring, len);
    }

    if (rc == 1) {
        return NGX_OK;
    }

    if (rc < 0) {
        link->broken = 1;
        ngx_post_event(link->connection->read, &ngx_posted_events);
    }

    return NGX_AGAIN;
}


/* A dead peer is noticed by the read handler, never here: the caller may be
 * deep in a request. */

static void
ngx_http_infer_link_ring(ngx_http_infer_link_t *link, ngx_uint_t needed)
{
    if (needed
        && wire_bell(link->connection->fd, WIRE_BYTE_WAKE) == E_GONE)
    {
        ngx_post_event(link->connection->read, &ngx_posted_events);
    }
}


/* why: what the engine did to its streams; NULL if there are none or it is
 * logged already. */

static void
ngx_http_infer_link_close(ngx_http_infer_link_t *link, const char *why)
{
    ngx_uint_t                n, level;
    ngx_queue_t               lost, *q;
    ngx_connection_t         *c;
    ngx_http_infer_ctx_t     *ctx;
    ngx_http_infer_engine_t  *engine;

    engine = link->engine;
    ngx_queue_init(&lost);
    n = link->ready ? ngx_http_infer_link_take_lost(link, &lost) : 0;

    if (why) {
        level = n == 0 && ngx_http_infer_link_leaving(link)
                ? NGX_LOG_NOTICE : NGX_LOG_ERR;

        ngx_log_error(level, link->connection->log, 0,
                      "infer: engine \"%V\" %s, %ui requests lost",
                      &engine->name, why, n);
        ngx_http_infer_count(engine, lost, n);
    }

    if (n) {
        ngx_http_infer_engine_fail(engine);
    }

    if (engine->link == link) {
        engine->link = NULL;

        if (!ngx_exiting) {
            ngx_http_infer_engine_retry(engine);
        }
    }

    ngx_http_infer_link_free(link);

    while (!ngx_queue_empty(&lost)) {
        q = ngx_queue_head(&lost);
        ngx_queue_remove(q);

        ctx = ngx_queue_data(q, ngx_http_infer_ctx_t, queue);
        ctx->queued = 0;

        c = ctx->request->connection;
        ngx_http_infer_failed(ctx, NGX_HTTP_INFER_NEXT_ERROR);
        ngx_http_run_posted_requests(c);
    }

    ngx_http_infer_pool_wake(engine->pool);
}


static ngx_uint_t
ngx_http_infer_link_take_lost(ngx_http_infer_link_t *link, ngx_queue_t *lost)
{
    uint32_t               i;
    ngx_uint_t             n;
    ngx_http_infer_ctx_t  *ctx;

    n = 0;

    for (i = 0; i < link->wire.ring.n_slot; i++) {
        ctx = link->slots[i].ctx;

        if (ctx == NULL) {
            continue;
        }

        if (ctx->queued) {
            ngx_queue_remove(&ctx->queue);
        }

        if (ctx->dirty) {
            ngx_queue_remove(&ctx->dirty_queue);
            ctx->dirty = 0;
        }

        ctx->link = NULL;
        ngx_queue_insert_tail(lost, &ctx->queue);
        ctx->queued = 1;
        link->engine->n_active--;
        n++;
    }

    return n;
}


static void
ngx_http_infer_link_free(ngx_http_infer_link_t *link)
{
    if (link->timer.timer_set) {
        ngx_del_timer(&link->timer);
    }

    if (link->engine->link == link) {
        link->engine->link = NULL;
    }

    ngx_queue_remove(&link->queue);
    ngx_close_connection(link->connection);
    wire_link_close(&link->wire);
    ngx_destroy_pool(link->pool);
}
