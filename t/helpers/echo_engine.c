/* echo_engine.c - an engine that answers what it was asked, so that tests see what the module sent.
 *
 *     echo_engine SOCKET
 *
 * The reply is text: method, URI, the headers in order, length and FNV-1a of the body, then the
 * body itself if it is short. The path decides the form:
 *
 *     /stream       the lines as SSE events, one record each     /big/N     N bytes of letters
 *     /status/N     with that status and Retry-After: 7          other      one whole reply
 *
 * One worker at a time, one blocking loop, credits honoured by waiting for them. */
#define _GNU_SOURCE
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "wire_link.h"

#define TEXT_BYTES_MAX  (64u << 10)
#define LINK_MAX        8

struct req {
    uint32_t gen, tx_seq;
    uint64_t sent, n_body, hash;
    uint32_t n_text, status;
    uint64_t big;
    int      cancelled, stream;
    char    *text;
    char     small[256];
};

struct link {
    int              sock, up;
    struct wire_link l;
    struct req      *req;
};

static struct link  links[LINK_MAX];
static uint8_t      rx[WIRE_REC_BYTES_MAX];
static uint64_t     epoch;

__attribute__((format(printf, 2, 3)))
static void text(struct req *q, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    q->n_text += (uint32_t) vsnprintf(q->text + q->n_text, TEXT_BYTES_MAX - q->n_text, fmt, ap);
    va_end(ap);
}

static void on_head(struct req *q, const struct wire_rec *r)
{
    static const char *const method[] = { "", "GET", "POST", "OTHER" };

    struct wire_str       uri, name, value;
    struct wire_req_head  h;
    struct wire_hdr_iter  it;

    if (wire_req_head_read(rx, r->len, &h, &uri, &it) != 0) {
        abort();
    }

    free(q->text);
    *q = (struct req) { .gen = r->gen, .status = 200, .hash = 14695981039346656037ull };
    q->text = malloc(TEXT_BYTES_MAX);
    text(q, "%s %.*s\n", method[h.method], (int) uri.n, uri.p);

    while (wire_hdr_next(&it, &name, &value) == 1) {
        text(q, "%.*s: %.*s\n", (int) name.n, name.p, (int) value.n, value.p);
    }

    q->stream = uri.n >= 7 && memcmp(uri.p, "/stream", 7) == 0;
    if (uri.n > 8 && memcmp(uri.p, "/status/", 8) == 0) {
        q->status = (uint32_t) atoi(uri.p + 8);
    }
    if (uri.n > 5 && memcmp(uri.p, "/big/", 5) == 0) {
        q->big = strtoull(uri.p + 5, NULL, 10);
    }
}

static void on_body(struct req *q, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++) {
        q->hash = (q->hash ^ rx[i]) * 1099511628211ull;
        if (q->n_body + i < sizeof(q->small) - 1) {
            q->small[q->n_body + i] = (char) rx[i];
        }
    }
    q->n_body += len;
}

static int drain(struct link *k);

/* One record, as soon as credit and ring allow; nothing if the client has left. */
static void put(struct link *k, uint32_t slot, uint16_t type, uint16_t flags, const void *p,
                uint32_t len)
{
    struct req      *q = &k->req[slot];
    struct wire_rec  r = {
        .len = len, .type = type, .flags = flags, .slot = slot, .gen = q->gen, .seq = q->tx_seq
    };

    while (!q->cancelled
           && q->sent - wire_ring_acked(&k->l.ring, slot) + WIRE_REC_SIZE(len)
              > k->l.sizes.window - (type == WIRE_REP_DATA ? WIRE_RESERVE : 0))
    {
        usleep(200);
        if (drain(k) != 0) {
            return;
        }
    }

    if (q->cancelled && type != WIRE_REP_END) {
        return;
    }

    if (wire_ring_send(&k->l.ring, &r, p) != 0) {
        abort();                                /* impossible: credits */
    }

    q->tx_seq++;
    q->sent += WIRE_REC_SIZE(len);
    if (wire_ring_publish(&k->l.ring)) {
        (void) wire_bell(k->sock, WIRE_BYTE_WAKE);
    }
}

static void put_head(struct link *k, uint32_t slot, uint64_t body_bytes)
{
    uint8_t               b[512];
    uint32_t              n = sizeof(struct wire_rep_head);
    const struct req     *q = &k->req[slot];
    struct wire_rep_head  h = {
        .body_bytes = body_bytes, .status = (uint16_t) q->status, .n_hdr = 3,
        .flags = q->stream ? WIRE_REP_STREAM : 0
    };
    const char *type = q->stream ? "text/event-stream; charset=utf-8" : "text/plain";
    const char *retry = q->status == 200 ? "0" : "7";

    memcpy(b, &h, sizeof(h));
    if (wire_hdr_put(b, sizeof(b), &n, (struct wire_str) { "content-type", 12 },
                     (struct wire_str) { type, strlen(type) }) != 0
        || wire_hdr_put(b, sizeof(b), &n, (struct wire_str) { "retry-after", 11 },
                        (struct wire_str) { retry, 1 }) != 0
        || wire_hdr_put(b, sizeof(b), &n, (struct wire_str) { "x-secret", 8 },
                        (struct wire_str) { "1", 1 }) != 0)
    {
        abort();
    }

    put(k, slot, WIRE_REP_HEAD, 0, b, n);
}

static void put_body(struct link *k, uint32_t slot)
{
    char         event[1024];
    char        *line, *save = NULL;
    struct req  *q = &k->req[slot];

    if (!q->stream) {
        put(k, slot, WIRE_REP_DATA, 0, q->text, q->n_text);
        return;
    }

    for (line = strtok_r(q->text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        put(k, slot, WIRE_REP_DATA, WIRE_FLUSH, event,
            (uint32_t) snprintf(event, sizeof(event), "data: %.900s\n\n", line));
        usleep(20000);
    }
}

static void put_big(struct link *k, uint32_t slot)
{
    char      b[3000];
    uint64_t  left = k->req[slot].big, n;

    for (uint64_t at = 0; left != 0; left -= n, at += n) {
        n = left < sizeof(b) ? left : sizeof(b);
        for (uint64_t i = 0; i < n; i++) {
            b[i] = (char) ('a' + (at + i) % 26);
        }
        put(k, slot, WIRE_REP_DATA, 0, b, (uint32_t) n);
    }
}

static void on_end(struct link *k, uint32_t slot)
{
    struct req        *q = &k->req[slot];
    struct wire_end    end = { 0 };
    struct wire_stats  st = {
        .prompt_tok = 11, .cached_tok = 4, .completion_tok = 5, .reasoning_tok = 2,
        .queue_ns = 3000000, .model = "echo", .finish = "stop", .request_id = "req-1",
    };

    text(q, "body %llu %016llx\n", (unsigned long long) q->n_body, (unsigned long long) q->hash);
    if (q->n_body < sizeof(q->small)) {
        text(q, "%s\n", q->small);
    }

    put_head(k, slot, q->stream ? WIRE_BODY_UNKNOWN : q->big ? q->big : q->n_text);
    if (q->big) {
        put_big(k, slot);
    } else {
        put_body(k, slot);
    }
    put(k, slot, WIRE_REP_STATS, 0, &st, sizeof(st));
    end.reason = q->cancelled ? WIRE_END_CANCELLED : WIRE_END_OK;
    put(k, slot, WIRE_REP_END, 0, &end, sizeof(end));
}

static void beat(struct link *k)
{
    __atomic_fetch_add(&k->l.ring.own->heartbeat, 1, __ATOMIC_RELAXED);
}

/* All that has come. Replies are made when nothing more is there. */
static int drain(struct link *k)
{
    static uint32_t  ended[WIRE_SLOT_MAX];
    static int       n_ended, depth;
    struct wire_rec  r;
    int              rc;

    depth++;
    do {
        while ((rc = wire_ring_recv(&k->l.ring, &r, rx)) == 1) {
            if (r.type == WIRE_REQ_HEAD) {
                on_head(&k->req[r.slot], &r);
            } else if (r.type == WIRE_REQ_BODY) {
                on_body(&k->req[r.slot], r.len);
            } else if (r.type == WIRE_REQ_END) {
                ended[n_ended++] = r.slot;
            } else {
                k->req[r.slot].cancelled = 1;
            }
            if (wire_ring_release(&k->l.ring)) {
                (void) wire_bell(k->sock, WIRE_BYTE_WAKE);
            }
        }
        beat(k);
        while (depth == 1 && n_ended > 0) {
            on_end(k, ended[--n_ended]);
        }
    } while (rc >= 0 && wire_ring_arm(&k->l.ring) == 1);
    depth--;

    return rc;
}

static void link_event(struct link *k)
{
    int rc;

    if (k->up) {
        rc = wire_bell_drain(k->sock, NULL);
        if (rc == 0) {
            rc = drain(k);
        }
    } else {
        rc = wire_link_accept(&k->l, k->sock, epoch, NULL);
        if (rc == 0) {
            k->up = 1;
            k->req = calloc(k->l.sizes.n_slot, sizeof(*k->req));
            __atomic_store_n(&k->l.ring.own->ready, 1, __ATOMIC_RELAXED);
            rc = drain(k);
        }
    }

    if (rc < 0 && rc != E_AGAIN) {
        for (uint32_t i = 0; k->req != NULL && i < k->l.sizes.n_slot; i++) {
            free(k->req[i].text);
        }
        free(k->req);
        close(k->sock);
        wire_link_close(&k->l);
        *k = (struct link) { .sock = -1 };
    }
}

static int listen_at(const char *path)
{
    int                 fd;
    struct sockaddr_un  sa = { .sun_family = AF_UNIX };

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    unlink(path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1 || bind(fd, (struct sockaddr *) &sa, sizeof(sa)) != 0 || chmod(path, 0666) != 0
        || listen(fd, 64) != 0 || getrandom(&epoch, sizeof(epoch), 0) != sizeof(epoch))
    {
        perror(path);
        exit(1);
    }

    return fd;
}

int main(int argc, char **argv)
{
    int            listener, fd;
    struct pollfd  p[LINK_MAX + 1];

    if (argc != 2) {
        fprintf(stderr, "usage: echo_engine SOCKET\n");
        return 2;
    }

    listener = listen_at(argv[1]);
    for (int i = 0; i < LINK_MAX; i++) {
        links[i].sock = -1;
    }

    for ( ;; ) {
        for (int i = 0; i < LINK_MAX; i++) {
            p[i] = (struct pollfd) { .fd = links[i].sock, .events = POLLIN };
        }
        p[LINK_MAX] = (struct pollfd) { .fd = listener, .events = POLLIN };
        (void) poll(p, LINK_MAX + 1, WIRE_HEARTBEAT_MS);

        for (int i = 0; i < LINK_MAX; i++) {
            if (links[i].up) {
                beat(&links[i]);
            }
            if (links[i].sock != -1 && p[i].revents != 0) {
                link_event(&links[i]);
            } else if (links[i].sock == -1
                       && (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) != -1)
            {
                links[i].sock = fd;
                link_event(&links[i]);
            }
        }
    }
}
