/* wire_client - one request over the wire, as an nginx worker would send it.
 *
 *   wire_client SOCKET METHOD URI [BODY | -] [-H name:value]... [--abort-after N] [--slow MS]
 *               [--window BYTES] [--no-end]
 *
 * Prints "status N", the headers, an empty line, the body as it comes, and on stderr the END's
 * reason and the numbers of DATA and ALIVE records. --abort-after N: cancel after N DATA records.
 * --slow MS: acknowledge a record only MS later. --window BYTES: the credit of the stream.
 * --no-end: the end of the body never comes. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "wire_link.h"

struct client {
    int              fd;
    struct wire_link link;
    uint32_t         seq, window;
    uint64_t         received;
    long             abort_after, slow_ms, n_data, n_alive;
    int              cancelled, no_end, gone;
    const char      *hdr[16];
    int              n_hdr;
};

static void die(const char *what)
{
    fprintf(stderr, "wire_client: %s\n", what);
    exit(2);
}

static void bell(struct client *c, int must)
{
    if (must && wire_bell(c->fd, WIRE_BYTE_WAKE) != 0)
        die("the engine is gone");
}

/* An engine that has gone may have said its last word before: who reads looks once more. */
static void wait_readable(struct client *c)
{
    struct pollfd p = { c->fd, POLLIN, 0 };
    int           goaway;

    if (c->gone)
        die("the engine closed the link");
    poll(&p, 1, 100);
    c->gone = wire_bell_drain(c->fd, &goaway) != 0;
}

static void attach(struct client *c, const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct wire_sizes  sizes = {
        .n_slot = 4, .window = c->window, .w2e_ring_bytes = 1 << 20, .e2w_ring_bytes = 1 << 23,
    };
    struct pollfd p;
    struct err    e;
    int           rc;

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *) &sa, sizeof(sa)) != 0)
        die(strerror(errno));
    if (wire_link_hello(&c->link, c->fd, &sizes, 1, &e) != 0)
        die(e.msg);

    while ((rc = wire_link_welcome(&c->link, c->fd, &e)) == E_AGAIN) {
        p = (struct pollfd) { c->fd, POLLIN, 0 };
        poll(&p, 1, 1000);
    }
    if (rc != 0)
        die(e.msg);
}

static void send_rec(struct client *c, uint16_t type, const void *p, uint32_t n)
{
    struct wire_rec rec = { .len = n, .type = type, .gen = 7, .seq = c->seq++ };

    while (wire_ring_send(&c->link.ring, &rec, p) == E_FULL) {
        bell(c, wire_ring_publish(&c->link.ring));
        if (!wire_ring_want_space(&c->link.ring, n))
            wait_readable(c);
    }
    bell(c, wire_ring_publish(&c->link.ring));
}

static void send_request(struct client *c, uint16_t method, const char *uri, const char *body,
                         size_t n)
{
    uint8_t              buf[WIRE_HEAD_BYTES_MAX];
    struct wire_req_head h = {
        .body_bytes = n, .uri_bytes = (uint32_t) strlen(uri), .method = method,
        .n_hdr = (uint16_t) c->n_hdr,
    };
    uint32_t len = sizeof(h) + h.uri_bytes;

    memcpy(buf, &h, sizeof(h));
    memcpy(buf + sizeof(h), uri, h.uri_bytes);
    for (int i = 0; i < c->n_hdr; i++) {
        const char *colon = strchr(c->hdr[i] + 1, ':');    /* ":key" is a name */

        if (colon == NULL
            || wire_hdr_put(buf, sizeof(buf), &len,
                            (struct wire_str) { c->hdr[i], (size_t) (colon - c->hdr[i]) },
                            (struct wire_str) { colon + 1, strlen(colon + 1) }) != 0)
            die("bad header");
    }

    wire_ring_ack(&c->link.ring, 0, 0);
    send_rec(c, WIRE_REQ_HEAD, buf, len);
    for (size_t at = 0; at < n;) {
        uint32_t part = n - at < WIRE_REC_BYTES_MAX ? (uint32_t) (n - at) : WIRE_REC_BYTES_MAX;

        send_rec(c, WIRE_REQ_BODY, body + at, part);
        at += part;
    }
    if (!c->no_end)
        send_rec(c, WIRE_REQ_END, NULL, 0);
}

static void print_head(const uint8_t *buf, uint32_t len)
{
    struct wire_rep_head h;
    struct wire_hdr_iter it;
    struct wire_str      name, value;

    if (wire_rep_head_read(buf, len, &h, &it) != 0)
        die("bad reply head");
    printf("status %u\n", h.status);
    while (wire_hdr_next(&it, &name, &value) == 1)
        printf("%.*s: %.*s\n", (int) name.n, name.p, (int) value.n, value.p);
    printf("\n");
}

/* One record; 1 when it was the last. */
static int on_rec(struct client *c, const struct wire_rec *rec, const uint8_t *buf)
{
    struct wire_end   end;
    struct wire_stats s;

    c->received += WIRE_REC_SIZE(rec->len);

    switch (rec->type) {
    case WIRE_REP_HEAD:
        print_head(buf, rec->len);
        break;
    case WIRE_REP_DATA:
        fwrite(buf, 1, rec->len, stdout);
        if (c->slow_ms > 0)
            usleep((useconds_t) c->slow_ms * 1000);
        if (++c->n_data == c->abort_after) {
            send_rec(c, WIRE_REQ_CANCEL, NULL, 0);
            c->cancelled = 1;
        }
        break;
    case WIRE_REP_STATS:
        memcpy(&s, buf, sizeof(s));
        fprintf(stderr, "stats prompt %u cached %u completion %u reasoning %u finish %s id %s"
                " model %s\n", s.prompt_tok, s.cached_tok, s.completion_tok, s.reasoning_tok,
                s.finish, s.request_id, s.model);
        break;
    case WIRE_REP_ALIVE:
        c->n_alive++;
        break;
    case WIRE_REP_END:
        memcpy(&end, buf, sizeof(end));
        fprintf(stderr, "end %u data %ld alive %ld\n", end.reason, c->n_data, c->n_alive);
        return 1;
    }
    return 0;
}

static void receive(struct client *c)
{
    static uint8_t  buf[WIRE_REC_BYTES_MAX];
    struct wire_rec rec;
    int             rc;

    for (;;) {
        while ((rc = wire_ring_recv(&c->link.ring, &rec, buf)) == 1) {
            if (on_rec(c, &rec, buf))
                return;
            wire_ring_ack(&c->link.ring, 0, c->received);
            bell(c, wire_ring_release(&c->link.ring));
        }
        if (rc != 0)
            die("garbage in the ring");
        fflush(stdout);
        if (!wire_ring_arm(&c->link.ring))
            wait_readable(c);
    }
}

static char *read_all(size_t *n)
{
    size_t cap = 1 << 16, got;
    char  *p = malloc(cap);

    *n = 0;
    while (p != NULL && (got = fread(p + *n, 1, cap - *n, stdin)) > 0) {
        *n += got;
        if (*n == cap)
            p = realloc(p, cap *= 2);
    }
    return p;
}

int main(int argc, char **argv)
{
    static const char *const method[] = { "", "GET", "POST", "OTHER" };
    struct client c = { .window = 12288 };
    const char   *pos[4] = { NULL, NULL, NULL, "" };
    size_t        n;
    char         *body;
    int           n_pos = 0;
    uint16_t      m = 0;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-H") == 0 && i + 1 < argc && c.n_hdr < 16)
            c.hdr[c.n_hdr++] = argv[++i];
        else if (strcmp(argv[i], "--no-end") == 0)
            c.no_end = 1;
        else if (strcmp(argv[i], "--abort-after") == 0 && i + 1 < argc)
            c.abort_after = atol(argv[++i]);
        else if (strcmp(argv[i], "--slow") == 0 && i + 1 < argc)
            c.slow_ms = atol(argv[++i]);
        else if (strcmp(argv[i], "--window") == 0 && i + 1 < argc)
            c.window = (uint32_t) atol(argv[++i]);
        else if (n_pos < 4)
            pos[n_pos++] = argv[i];
    }
    for (uint16_t k = 1; n_pos >= 3 && k < sizeof(method) / sizeof(*method); k++)
        if (strcmp(pos[1], method[k]) == 0)
            m = k;
    if (m == 0)
        die("SOCKET METHOD URI [BODY|-] [-H name:value] [--abort-after N] [--slow MS] "
            "[--window BYTES] [--no-end]");

    n = strlen(pos[3]);
    body = strcmp(pos[3], "-") == 0 ? read_all(&n) : NULL;

    attach(&c, pos[0]);
    send_request(&c, m, pos[2], body != NULL ? body : pos[3], n);
    receive(&c);

    free(body);
    wire_link_close(&c.link);
    close(c.fd);
    return 0;
}
