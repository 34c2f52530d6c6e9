/* link.c - one nginx worker: records in, requests out of them, replies within their credit.
 *
 * The worker's memory is hostile: whatever breaks the protocol drops the link, which cancels its
 * requests and nobody else's. A dead link is only marked; link_reap frees it when no loop holds it.
 */
#define _GNU_SOURCE
#include "log.h"
#include "work.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define RELEASE_EVERY  16               /* records between two releases: a body flows on */
#define POLL_MAX       512              /* records of one turn, then the other links */
#define PUBLISH_EVERY  16
#define HELLO_NS       2000000000ull    /* a worker says HELLO right after connect */
#define ALIVE_NS       5000000000ull    /* a request hears of us at least so often */

/* The worker did what none of ours does: one line for the whole link. */
static void drop(struct link *l, const char *why)
{
    struct ucred u = { .pid = 0 };
    socklen_t    n = sizeof(u);

    if (l->dead)
        return;

    (void) !getsockopt(l->fd, SOL_SOCKET, SO_PEERCRED, &u, &n);
    log_warn("the link of process %d (uid %d) is dropped with %u requests: %s", (int) u.pid,
             (int) u.uid, l->n_stream, why);
    l->dead = true;
}

void link_open(struct port *p, int fd)
{
    struct link       *l = calloc(1, sizeof(*l));
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = l };

    if (l == NULL || epoll_ctl(p->epfd, EPOLL_CTL_ADD, fd, &ev) != 0) {
        free(l);
        close(fd);
        atomic_fetch_sub(&p->n_link, 1);
        return;
    }

    l->port = p;
    l->fd = fd;
    l->open_ns = api_now_ns();
    l->next = p->links;
    p->links = l;
}

/* Streams */

/* What has been received of the body is not wanted. */
static void drop_body(struct stream *st)
{
    st->link->port->body_held -= st->body_bytes;
    st->body_bytes = 0;
    buf_free(&st->body);
    st->body = (struct buf) { 0 };
}

static void stream_free(struct stream *st)
{
    struct link *l = st->link;

    if (st->gen != NULL)
        gen_abandon(st->gen);
    if (st->work != NULL)
        work_abandon(st->work);
    early_remove(st);
    l->stream[st->slot] = NULL;
    l->n_stream--;
    drop_body(st);
    atomic_fetch_sub(&l->port->api->n_stream, 1);
    buf_free(&st->out);
    free(st);
}

/* May this stream send a record of len payload bytes, leaving the reserve free? */
static bool has_credit(struct stream *st, uint32_t len, uint32_t reserve)
{
    const struct wire_ring *w = &st->link->wire.ring;
    uint64_t acked = wire_ring_acked(w, st->slot);

    if (acked > st->sent) {
        drop(st->link, "it acknowledged more than was sent");
        return false;
    }
    return st->sent - acked + WIRE_REC_SIZE(len) + reserve <= w->window;
}

/* The credits make the ring impossible to overflow, so E_FULL is a worker that lies. */
static void send_rec(struct stream *st, uint16_t type, uint16_t flags, const void *p, uint32_t n)
{
    struct link    *l = st->link;
    struct wire_rec rec = {
        .len = n, .type = type, .flags = flags, .slot = st->slot, .gen = st->gen_no,
        .seq = st->tx_seq,
    };

    if (l->dead)
        return;
    if (wire_ring_send(&l->wire.ring, &rec, p) != 0) {
        drop(l, "no room in the reply ring in spite of the credit");
        return;
    }

    st->tx_seq++;
    st->sent += WIRE_REC_SIZE(n);
    st->sent_ns = api_now_ns();
    if (++l->n_unpublished >= PUBLISH_EVERY)
        link_publish(l);
}

void link_publish(struct link *l)
{
    if (l->dead || l->n_unpublished == 0)
        return;

    l->n_unpublished = 0;
    if (wire_ring_publish(&l->wire.ring) && wire_bell(l->fd, WIRE_BYTE_WAKE) != 0)
        l->dead = true;
}

static void put_header(uint8_t *buf, uint32_t *n, const char *name, const char *value)
{
    /* Our own few, short headers: they always fit. */
    (void) wire_hdr_put(buf, WIRE_HEAD_BYTES_MAX, n,
                        (struct wire_str) { name, strlen(name) },
                        (struct wire_str) { value, strlen(value) });
}

void stream_head(struct stream *st, int status, const char *ctype, uint64_t body_bytes,
                 const struct header *extra)
{
    struct wire_rep_head h = {
        .body_bytes = body_bytes, .status = (uint16_t) status, .n_hdr = 2,
        .flags = body_bytes == WIRE_BODY_UNKNOWN ? WIRE_REP_STREAM : 0,
    };
    uint8_t  buf[WIRE_RESERVE];
    uint32_t n = sizeof(h);

    if (h.flags != 0 && st->named_events)
        h.flags |= WIRE_REP_NAMED;
    put_header(buf, &n, "content-type", ctype);
    put_header(buf, &n, "x-request-id", st->request_id);
    if (st->id_header != NULL) {
        put_header(buf, &n, st->id_header, st->request_id);
        h.n_hdr++;
    }
    for (; extra != NULL && extra->name != NULL; extra++) {
        put_header(buf, &n, extra->name, extra->value);
        h.n_hdr++;
    }
    memcpy(buf, &h, sizeof(h));

    st->head_sent = true;
    st->sse = body_bytes == WIRE_BODY_UNKNOWN;
    atomic_fetch_add(&st->link->port->api->n_reply[status / 100 % 6], 1);
    send_rec(st, WIRE_REP_HEAD, 0, buf, n);
}

/* Half a window: while one record leaves the worker, the next one is on its way. */
size_t stream_record_max(const struct stream *st)
{
    size_t n = (st->link->wire.ring.window - WIRE_RESERVE) / 2 - sizeof(struct wire_rec);

    return n < WIRE_REC_BYTES_MAX ? n & ~(size_t) 7 : WIRE_REC_BYTES_MAX;
}

/* How much of p goes into one record: whole events, unless the first one is larger than that. */
static size_t cut_events(const struct stream *st, const char *p, size_t n, size_t max)
{
    const char *end;

    if (n <= max)
        return n;
    if (!st->sse)
        return max;

    for (end = p + max; end - p >= 2; end--)
        if (end[-1] == '\n' && end[-2] == '\n')
            return (size_t) (end - p);
    return max;
}

bool stream_flush(struct stream *st)
{
    while (st->out_pos < st->out.n && !st->link->dead) {
        size_t n = cut_events(st, st->out.p + st->out_pos, st->out.n - st->out_pos,
                              stream_record_max(st));

        if (!has_credit(st, (uint32_t) n, WIRE_RESERVE)) {
            /* Ask for a bell, then look again: the ack may have come in between. */
            wire_ring_want_space(&st->link->wire.ring, (uint32_t) n);
            if (!has_credit(st, (uint32_t) n, WIRE_RESERVE))
                return false;
        }
        send_rec(st, WIRE_REP_DATA, WIRE_FLUSH, st->out.p + st->out_pos, (uint32_t) n);
        st->out_pos += n;
    }

    if (st->link->dead)
        return false;
    st->out.n = st->out_pos = 0;
    return true;
}

static void finish(struct stream *st)
{
    struct wire_end end = { .reason = st->end_reason };

    if (st->head_sent) {
        snprintf(st->stats.request_id, sizeof(st->stats.request_id), "%s", st->request_id);
        send_rec(st, WIRE_REP_STATS, 0, &st->stats, sizeof(st->stats));
    }
    send_rec(st, WIRE_REP_END, 0, &end, sizeof(end));
    stream_free(st);
}

void stream_end(struct stream *st, uint32_t reason)
{
    st->state = STREAM_DRAIN;
    st->end_reason = reason;
    early_remove(st);
    drop_body(st);
    if (stream_flush(st))
        finish(st);
}

static void stream_cancel(struct stream *st)
{
    if (st->gen != NULL)
        gen_abandon(st->gen);
    st->end_reason = WIRE_END_CANCELLED;
    finish(st);
}

/* Records */

/* Without regard to case: the names come in lower case anyway. */
static bool is(struct wire_str s, const char *lit)
{
    return s.n == strlen(lit) && strncasecmp(s.p, lit, s.n) == 0;
}

/* "application/json" in any case, parameters aside. */
static bool is_json(struct wire_str v)
{
    static const char want[] = "application/json";
    size_t            n = sizeof(want) - 1;

    return v.n >= n && strncasecmp(v.p, want, n) == 0
           && (v.n == n || v.p[n] == ';' || v.p[n] == ' ' || v.p[n] == '\t');
}

static void fresh_request_id(char *id)
{
    uint8_t rnd[16] = { 0 };

    (void) !getrandom(rnd, sizeof(rnd), GRND_NONBLOCK);
    for (size_t i = 0; i < sizeof(rnd); i++)
        snprintf(id + 2 * i, 3, "%02x", rnd[i]);
}

/* "Bearer KEY", or the bare KEY of x-api-key. The better one counts, if there are two. */
static void read_key(struct stream *st, struct slice v, bool bearer)
{
    struct keyring *keys = st->link->port->api->keys;
    enum key_role   role;
    struct hash128  tenant;

    if (bearer) {
        if (v.n < 7 || strncasecmp(v.p, "bearer ", 7) != 0)
            return;
        v.p += 7, v.n -= 7;
    }
    while (v.n > 0 && *v.p == ' ')
        v.p++, v.n--;
    if (keys == NULL || v.n == 0)
        return;

    st->gave_key = true;
    role = keyring_find(keys, v, &tenant);
    if (role > st->role) {
        st->role = role;
        st->key = tenant;
        st->has_key = true;
    }
}

/* Whom nginx has authenticated is the tenant, even if a key of ours is needed besides. */
static int read_headers(struct stream *st, struct wire_hdr_iter *it)
{
    struct wire_str name, value, nginx_key = { NULL, 0 };
    int             rc;

    st->json_body = true;
    fresh_request_id(st->request_id);

    while ((rc = wire_hdr_next(it, &name, &value)) == 1) {
        if (is(name, "x-request-id") && api_request_id_ok((struct slice) { value.p, value.n })) {
            memcpy(st->request_id, value.p, value.n);
            st->request_id[value.n] = '\0';
        }
        if (is(name, "content-type"))
            st->json_body = is_json(value);
        if (is(name, "content-encoding"))
            st->coded_body = !is(value, "identity");
        if (is(name, "authorization") || is(name, "x-api-key"))
            read_key(st, (struct slice) { value.p, value.n }, is(name, "authorization"));
        if (is(name, ":key"))
            nginx_key = value;
    }

    if (nginx_key.n > 0) {
        st->key = hash_bytes(&st->link->port->api->key, NULL, 0, nginx_key.p, nginx_key.n);
        st->has_key = true;
    }
    return rc;
}

static void refuse_head(struct stream *st, int status, const char *code, const char *msg)
{
    struct api_err e;

    api_err_set(&e, status, "invalid_request_error", code, NULL, "%s", msg);
    http_error(st, &e);
}

static void on_head(struct link *l, const struct wire_rec *rec, const uint8_t *buf)
{
    struct port         *p = l->port;
    struct stream       *st;
    struct wire_req_head h;
    struct wire_hdr_iter it;
    struct wire_str      uri;
    size_t               n;

    if (l->stream[rec->slot] != NULL || rec->seq != 0
        || wire_req_head_read(buf, rec->len, &h, &uri, &it) != 0) {
        drop(l, "a request head that makes no sense, or on a busy slot");
        return;
    }
    if ((st = calloc(1, sizeof(*st))) == NULL) {
        drop(l, "out of memory");
        return;
    }

    st->link = l;
    st->slot = rec->slot;
    st->gen_no = rec->gen;
    st->rx_seq = 1;
    st->method = h.method;
    st->start_ns = st->sent_ns = api_now_ns();
    l->stream[rec->slot] = st;
    l->n_stream++;
    atomic_fetch_add(&p->api->n_stream, 1);

    if (read_headers(st, &it) != 0) {
        l->dead = true;
        return;
    }
    n = uri.n <= API_URI_BYTES_MAX ? uri.n : API_URI_BYTES_MAX;
    memcpy(st->uri, uri.p, n);
    http_route(st);
    if (n < uri.n) {
        refuse_head(st, 414, "uri_too_long", "The URI is too long.");
        return;
    }
    if (!http_admit(st))
        return;

    if (h.body_bytes > API_BODY_BYTES_MAX)
        refuse_head(st, 413, "request_too_large", "The request body is too large.");
    else if (p->body_held + h.body_bytes > API_BODY_TOTAL_MAX)
        http_busy(st);
    else
        p->body_held += st->body_bytes = h.body_bytes;
}

static void on_body(struct stream *st, const uint8_t *p, uint32_t n)
{
    if (st->state != STREAM_BODY || st->body.n + n > st->body_bytes) {
        drop(st->link, "more of a body than its head says");
        return;
    }

    buf_put(&st->body, p, n);
    if (st->body.full)
        drop(st->link, "out of memory");
}

static void on_end(struct stream *st)
{
    if (st->state != STREAM_BODY || st->body.n != st->body_bytes) {
        drop(st->link, "an end where the body has none");
        return;
    }

    st->state = STREAM_WORK;
    http_handle(st);
}

static void on_rec(struct link *l, const struct wire_rec *rec, const uint8_t *buf)
{
    struct stream *st;

    if (rec->slot >= l->wire.ring.n_slot) {
        l->dead = true;
        return;
    }
    if (rec->type == WIRE_REQ_HEAD) {
        on_head(l, rec, buf);
        return;
    }

    st = l->stream[rec->slot];
    if (st == NULL || st->gen_no != rec->gen)
        return;                          /* we were done with it before the worker knew */
    if (rec->seq != st->rx_seq++) {
        drop(l, "a gap in the sequence of a request");
        return;
    }

    /* The reply is complete and waits for credit only: what still comes of the body is dropped. */
    if (st->state == STREAM_DRAIN && rec->type != WIRE_REQ_CANCEL)
        return;

    switch (rec->type) {
    case WIRE_REQ_BODY:   on_body(st, buf, rec->len);  return;
    case WIRE_REQ_END:    on_end(st);                  return;
    case WIRE_REQ_CANCEL: stream_cancel(st);           return;
    }
    if ((rec->type & WIRE_OPTIONAL) == 0)
        l->dead = true;
}

static void release(struct link *l)
{
    if (wire_ring_release(&l->wire.ring) && wire_bell(l->fd, WIRE_BYTE_WAKE) != 0)
        l->dead = true;
}

void link_poll(struct link *l)
{
    struct wire_rec rec;
    int             rc = 0, n = 0;

    if (!l->attached || l->dead)
        return;

    do {
        while (!l->dead && (rc = wire_ring_recv(&l->wire.ring, &rec, l->port->rec_buf)) == 1) {
            on_rec(l, &rec, l->port->rec_buf);
            if (++n % RELEASE_EVERY == 0 && !l->dead)
                release(l);
            if (n >= POLL_MAX) {
                api_wake(l->port->api, l->port->index);    /* the rest at the next turn */
                return;
            }
        }
        if (l->dead)
            return;
        if (rc < 0) {
            drop(l, "nonsense in the ring");
            return;
        }
        release(l);
    } while (!l->dead && wire_ring_arm(&l->wire.ring));

    for (uint32_t i = 0, left = l->n_stream; left > 0 && i < l->wire.ring.n_slot; i++) {
        struct stream *st = l->stream[i];

        if (st == NULL)
            continue;
        left--;
        if (st->state == STREAM_DRAIN && stream_flush(st))
            finish(st);
    }
    link_publish(l);
}

void link_event(struct link *l)
{
    struct err e;
    int        rc;

    if (l->dead)
        return;

    if (!l->attached) {
        rc = wire_link_accept(&l->wire, l->fd, l->port->api->c.epoch, &e);
        if (rc == E_AGAIN)
            return;
        if (rc == 0)
            l->stream = calloc(l->wire.ring.n_slot, sizeof(*l->stream));
        if (rc == 0 && l->stream == NULL) {
            wire_link_close(&l->wire);
            rc = err_set(&e, E_IO, "out of memory");
        }
        if (rc != 0) {
            if (rc != E_GONE)
                drop(l, e.msg);
            l->dead = true;
            return;
        }
        l->attached = true;
        link_beat(l);
    }

    rc = wire_bell_drain(l->fd, NULL);
    if (rc != 0) {
        if (rc != E_GONE)
            drop(l, "a byte on the socket that means nothing");
        l->dead = true;
        return;
    }
    link_poll(l);
}

/* So that nginx tells a long answer, or a wait for its turn, from an engine that hangs: a core that
 * makes no steps keeps nobody waiting. */
static void say_alive(struct link *l, struct serve *s)
{
    uint64_t now = api_now_ns(), steps = s != NULL ? atomic_load(&serve_metrics(s)->steps) : 0;

    for (uint32_t i = 0, left = l->n_stream; left > 0 && i < l->wire.ring.n_slot; i++) {
        struct stream *st = l->stream[i];

        if (st == NULL)
            continue;
        left--;
        if (st->state != STREAM_WORK || now - st->sent_ns < ALIVE_NS
            || (st->gen != NULL && st->alive_steps == steps) || !has_credit(st, 0, WIRE_RESERVE))
            continue;
        st->alive_steps = steps;
        send_rec(st, WIRE_REP_ALIVE, 0, NULL, 0);
    }
}

/* Liveness and load, for the pool's choice in nginx. */
void link_beat(struct link *l)
{
    struct api     *a = l->port->api;
    struct serve   *s = api_serve(a);
    struct wire_seg *seg = l->wire.ring.own;
    bool            draining = atomic_load(&a->draining);

    if (!l->attached && api_now_ns() - l->open_ns > HELLO_NS)
        drop(l, "it never said HELLO");
    if (!l->attached || l->dead)
        return;

    if (s != NULL) {
        const struct metrics *m = serve_metrics(s);

        __atomic_store_n(&seg->running, (uint32_t) atomic_load(&m->running), __ATOMIC_RELAXED);
        __atomic_store_n(&seg->waiting, (uint32_t) atomic_load(&m->waiting), __ATOMIC_RELAXED);
    }
    __atomic_store_n(&seg->ready, s != NULL && !draining, __ATOMIC_RELAXED);
    __atomic_store_n(&seg->draining, draining, __ATOMIC_RELAXED);
    __atomic_store_n(&seg->heartbeat, seg->heartbeat + 1, __ATOMIC_RELEASE);
    say_alive(l, s);
}

void link_goaway(struct link *l)
{
    if (!l->attached || l->dead || l->goaway)
        return;

    l->goaway = true;
    __atomic_store_n(&l->wire.ring.own->draining, 1, __ATOMIC_RELEASE);
    if (wire_bell(l->fd, WIRE_BYTE_GOAWAY) != 0)
        l->dead = true;
}

void link_reap(struct port *p, bool all)
{
    struct link **at = &p->links, *l;

    while ((l = *at) != NULL) {
        if (!l->dead && !all) {
            at = &l->next;
            continue;
        }

        *at = l->next;
        l->dead = true;
        for (uint32_t i = 0; l->attached && i < l->wire.ring.n_slot; i++)
            if (l->stream[i] != NULL)
                stream_free(l->stream[i]);
        if (l->attached)
            wire_link_close(&l->wire);
        close(l->fd);
        free(l->stream);
        free(l);
        atomic_fetch_sub(&p->n_link, 1);
    }
}
