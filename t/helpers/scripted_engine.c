/* scripted_engine.c - the engine's side of the wire, playing scripts that a real engine cannot.
 *
 *     scripted_engine SOCKET [options]          (--help lists them)
 *
 * Any number of workers, one thread, one epoll. Every request gets the same play: --tokens SSE
 * events, one each --interval-ms, every event with the CLOCK_MONOTONIC time at which it was made
 * ("t", ns), then [DONE], STATS, END. Credits are honoured: what has no credit is merged in a
 * bounded buffer, and when that is full the stream makes no more tokens. Unless told otherwise. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "wire_link.h"

#define MS              1000000ull              /* ns */
#define PENDING_BYTES   (64u << 10)             /* of one stream, waiting for credit */
#define DRAIN_BUDGET    4096                    /* records of one link in a row */
#define EVENT_BYTES_MAX 16384

static struct {
    uint32_t tokens, interval_ms, first_delay_ms, alive_ms, bytes;
    uint32_t garbage, stale, bad_seq, busy, bad_version, burst, ignore_credit, verbose;
    uint32_t one_by_one, alive_n;
    uint32_t hang_at, die_at, goaway_after, status;
} opt = { .tokens = 16, .interval_ms = 20, .bytes = 90 };

enum state { FREE, BODY, RUN, TAIL };           /* TAIL: all is made, some is not sent */

struct stream {
    struct link *link;
    uint32_t     slot, gen, rx_seq, tx_seq, n_rec, made, n_alive;
    enum state   state;
    uint64_t     body_left, sent, due, begin;   /* ns: next action, begin of the reply */
    uint32_t     at;                            /* in active[] */
    uint32_t     n, headed;                     /* bytes of pending; REP_HEAD is sent */
    char        *pending;
};

struct link {
    struct link      *next;
    int               sock, up, dead, again;
    struct wire_link  l;
    struct stream    *stream;                   /* l.sizes.n_slot of them */
};

static struct link    *links;
static struct stream **active;
static uint32_t        n_active, cap_active, n_open, n_req;
static uint64_t        epoch, n_sent, beat_due;
static int             ep;

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000 * MS + (uint64_t) ts.tv_nsec;
}

__attribute__((format(printf, 1, 2)))
static void say(const char *fmt, ...)
{
    va_list ap;

    if (opt.verbose) {
        va_start(ap, fmt);
        vfprintf(stderr, fmt, ap);
        va_end(ap);
        fputc('\n', stderr);
    }
}

__attribute__((noreturn))
static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *must(void *p)
{
    if (p == NULL) {
        die("memory");
    }

    return p;
}

static void bell(struct link *k, char byte)
{
    if (wire_bell(k->sock, byte) != 0) {
        k->dead = 1;
    }
}

/* At once, and not with the next heartbeat: who is chosen next does not depend on when that is. */
static void say_running(void)
{
    for (struct link *k = links; k != NULL; k = k->next) {
        if (k->up) {
            __atomic_store_n(&k->l.ring.own->running, n_active, __ATOMIC_RELAXED);
        }
    }
}

static void activate(struct stream *s, uint64_t due)
{
    if (n_active == cap_active) {
        cap_active = cap_active ? 2 * cap_active : 1024;
        active = must(realloc(active, cap_active * sizeof(*active)));
    }

    s->at = n_active;
    s->due = due;
    active[n_active++] = s;
    say_running();
}

static void stream_free(struct stream *s)
{
    if (s->state == RUN || s->state == TAIL) {
        active[s->at] = active[--n_active];
        active[s->at]->at = s->at;
        say_running();
    }

    n_open -= s->state != FREE;
    free(s->pending);
    s->pending = NULL;
    s->n = 0;
    s->state = FREE;
}

/* What the scripts do to a record that has just been put into the ring. */
static void play_record(struct link *k, const struct wire_rec *r)
{
    struct wire_rec bad = *r;

    if (opt.garbage && r->type == WIRE_REP_DATA && r->seq >= 2) {
        bad.type = 99;
        memcpy(k->l.ring.tx + ((k->l.ring.tx_tail - WIRE_REC_SIZE(r->len))
                               & (k->l.ring.tx_bytes - 1)), &bad, sizeof(bad));
        say("garbage in slot %u", r->slot);
    }
}

static void play_count(void)
{
    n_sent++;

    if (opt.die_at != 0 && n_sent == opt.die_at) {
        say("dying");
        _exit(1);
    }

    while (opt.hang_at != 0 && n_sent >= opt.hang_at) {
        pause();
    }
}

/* One record of a stream, visible at once. 0, or E_FULL; another error marks the link dead. */
static int put(struct stream *s, uint16_t type, const void *p, uint32_t len)
{
    int              rc;
    struct link     *k = s->link;
    struct wire_rec  r = {
        .len = len, .type = type, .flags = type == WIRE_REP_DATA ? WIRE_FLUSH : 0,
        .slot = s->slot, .gen = s->gen, .seq = s->tx_seq,
    };

    if (opt.bad_seq && s->n_rec == 3) {
        r.seq = ++s->tx_seq;
    }

    rc = wire_ring_send(&k->l.ring, &r, p);
    if (rc != 0) {
        k->dead |= rc != E_FULL;
        return rc;
    }

    s->tx_seq++;
    s->n_rec++;
    s->sent += WIRE_REC_SIZE(len);
    play_record(k, &r);

    if (wire_ring_publish(&k->l.ring)) {
        bell(k, WIRE_BYTE_WAKE);
    }

    play_count();

    return 0;
}

/* Bytes of records that may go now, apart from the reserve. */
static uint64_t credit(struct stream *s, uint64_t reserve)
{
    uint64_t acked, in_flight;

    if (opt.ignore_credit) {
        return UINT32_MAX;
    }

    acked = wire_ring_acked(&s->link->l.ring, s->slot);
    in_flight = s->sent - acked;

    if (acked > s->sent || in_flight > s->link->l.sizes.window) {
        say("worker acknowledged more than was sent");
        s->link->dead = 1;
        return 0;
    }

    in_flight += reserve;

    return in_flight < s->link->l.sizes.window ? s->link->l.sizes.window - in_flight : 0;
}

static void finish(struct stream *s, uint32_t reason)
{
    struct wire_end end = { .reason = reason };

    if (put(s, WIRE_REP_END, &end, sizeof(end)) == 0) {
        say("slot %u gen %u: end %u", s->slot, s->gen, reason);
        stream_free(s);
    }
}

static void send_head(struct stream *s, uint16_t status, uint64_t body_bytes, const char *type)
{
    uint8_t               b[512];
    uint32_t              n = sizeof(struct wire_rep_head);
    struct wire_rep_head  h = {
        .body_bytes = body_bytes, .status = status, .n_hdr = 1,
        .flags = body_bytes == WIRE_BODY_UNKNOWN ? WIRE_REP_STREAM : 0,
    };

    memcpy(b, &h, sizeof(h));
    if (wire_hdr_put(b, sizeof(b), &n, (struct wire_str) { "content-type", 12 },
                     (struct wire_str) { type, strlen(type) }) != 0)
    {
        abort();
    }

    put(s, WIRE_REP_HEAD, b, n);
}

static void send_status(struct stream *s)
{
    char  b[256];
    int   n;

    n = snprintf(b, sizeof(b), "{\"error\":{\"message\":\"scripted\",\"code\":%u}}\n", opt.status);
    send_head(s, (uint16_t) opt.status, (uint64_t) n, "application/json");
    put(s, WIRE_REP_DATA, b, (uint32_t) n);
    finish(s, WIRE_END_OK);
}

/* A record of the slot's generation before this one; costs no credit of this one. */
static void send_stale(struct stream *s)
{
    struct link     *k = s->link;
    struct wire_rec  r = {
        .len = 5, .type = WIRE_REP_DATA, .slot = s->slot, .gen = s->gen - 1, .seq = 7
    };

    k->dead |= wire_ring_send(&k->l.ring, &r, "STALE") == E_INVALID;
    if (wire_ring_publish(&k->l.ring)) {
        bell(k, WIRE_BYTE_WAKE);
    }
}

/* Make one event, if the buffer takes it. */
static void make_token(struct stream *s)
{
    char  b[EVENT_BYTES_MAX + 256];
    int   n;

    n = snprintf(b, sizeof(b), "data: {\"i\":%u,\"t\":%llu,\"text\":\"", s->made,
                 (unsigned long long) now_ns());

    while ((uint32_t) n + 4 < opt.bytes) {
        b[n++] = 'x';
    }

    n += snprintf(b + n, sizeof(b) - (size_t) n, "\"}\n\n");

    if (s->n + (uint32_t) n > PENDING_BYTES - 64) {
        return;
    }

    memcpy(s->pending + s->n, b, (size_t) n);
    s->n += (uint32_t) n;
    s->made++;

    if (s->made == opt.tokens) {
        s->n += (uint32_t) sprintf(s->pending + s->n, "data: [DONE]\n\n");
        s->state = TAIL;
    }
}

static void send_pending(struct stream *s)
{
    uint32_t  len, done = 0;
    uint64_t  c;

    while (done < s->n) {
        c = credit(s, WIRE_RESERVE);
        len = s->n - done < WIRE_REC_BYTES_MAX ? s->n - done : WIRE_REC_BYTES_MAX;

        if (c < WIRE_REC_SIZE(len)) {
            if (c < 512) {
                break;                          /* crumbs cost more than they bring */
            }
            len = (uint32_t) (c - sizeof(struct wire_rec)) & ~7u;
        }

        if (put(s, WIRE_REP_DATA, s->pending + done, len) != 0) {
            break;
        }

        done += len;
    }

    memmove(s->pending, s->pending + done, s->n - done);
    s->n -= done;
}

static void send_tail(struct stream *s)
{
    struct wire_stats st = {
        .prompt_tok = 7, .completion_tok = s->made, .queue_ns = 1000, .model = "scripted",
        .finish = "stop", .request_id = "scripted-1",
    };

    if (credit(s, 0) >= WIRE_REC_SIZE(sizeof(st)) + WIRE_REC_SIZE(sizeof(struct wire_end))
        && put(s, WIRE_REP_STATS, &st, sizeof(st)) == 0)
    {
        finish(s, WIRE_END_OK);
    }
}

/* When the next token is due: all streams together, or each at its own millisecond. */
static uint64_t next_due(const struct stream *s, uint64_t after)
{
    uint64_t step = opt.interval_ms * MS;

    if (step == 0) {
        return after;
    }

    if (opt.burst) {
        return (after / step + 1) * step;
    }

    return (after / MS + 1) * MS + (s->made == 0 ? s->slot % opt.interval_ms * MS : 0);
}

static int only_alive(const struct stream *s, uint64_t now)
{
    return now < s->begin || s->n_alive < opt.alive_n;
}

/* The next sign of life before the reply, or its begin. */
static uint64_t alive_due(const struct stream *s, uint64_t now)
{
    uint64_t next = now + opt.alive_ms * MS;

    return opt.alive_ms != 0 && only_alive(s, next) ? next : s->begin;
}

/* The worker, which flushes before it releases, has passed on all that it was sent. */
static int all_read(const struct wire_ring *w)
{
    return __atomic_load_n(&w->peer->head, __ATOMIC_ACQUIRE) == w->tx_tail;
}

static void stream_due(struct stream *s, uint64_t now)
{
    if (opt.one_by_one && !all_read(&s->link->l.ring)) {
        s->due = now + MS;
        return;
    }

    if (only_alive(s, now)) {
        if (credit(s, WIRE_RESERVE) >= WIRE_REC_SIZE(0)) {
            say("slot %u gen %u: alive", s->slot, s->gen);
            s->n_alive++;
            put(s, WIRE_REP_ALIVE, NULL, 0);
        }
        s->due = alive_due(s, now);
        return;
    }

    if (!s->headed) {
        s->headed = 1;
        if (opt.status != 0) {
            send_status(s);
            return;
        }

        if (opt.stale) {
            send_stale(s);
        }

        send_head(s, 200, WIRE_BODY_UNKNOWN, "text/event-stream");
    }

    if (s->state == RUN) {
        make_token(s);
    }

    send_pending(s);

    if (s->state == TAIL && s->n == 0) {
        send_tail(s);

    } else if (s->state == RUN) {
        s->due = opt.burst ? next_due(s, now) : s->due + opt.interval_ms * MS;
        if (s->due < now) {
            s->due = s->n == 0 ? now : now + MS;     /* out of credit: not in a hurry */
        }
    }

    if (s->state == TAIL) {
        s->due = now + 2 * MS;                  /* acks come without a bell: look again */
    }
}

/* Once all that runs is finished, the process ends. */
static void leave(void)
{
    for (struct link *k = links; k != NULL; k = k->next) {
        if (k->up) {
            __atomic_store_n(&k->l.ring.own->draining, 1, __ATOMIC_RELAXED);
            bell(k, WIRE_BYTE_GOAWAY);
        }
    }
}

static int leaving(void)
{
    return opt.goaway_after != 0 && n_req >= opt.goaway_after;
}

static void on_head(struct link *k, struct stream *s, const struct wire_rec *r, const uint8_t *b)
{
    struct wire_str       uri;
    struct wire_req_head  h;
    struct wire_hdr_iter  it;

    if (s->state != FREE || r->seq != 0 || wire_req_head_read(b, r->len, &h, &uri, &it) != 0) {
        k->dead = 1;
        return;
    }

    *s = (struct stream) {
        .link = k, .slot = r->slot, .gen = r->gen, .state = BODY, .body_left = h.body_bytes,
        .rx_seq = 1,
    };
    s->pending = must(malloc(PENDING_BYTES));
    say("slot %u gen %u: %.*s", s->slot, s->gen, (int) uri.n, uri.p);

    n_open++;
    if (++n_req == opt.goaway_after) {
        leave();
    }
}

static void on_rec(struct link *k, const struct wire_rec *r, const uint8_t *b)
{
    uint64_t        start;
    struct stream  *s = &k->stream[r->slot];

    if (r->type == WIRE_REQ_HEAD) {
        on_head(k, s, r, b);
        return;
    }

    if (s->state == FREE && r->type == WIRE_REQ_CANCEL) {
        return;                                 /* it crossed our END */
    }

    if (s->state == FREE || s->gen != r->gen || s->rx_seq++ != r->seq) {
        k->dead = 1;
        return;
    }

    if (r->type == WIRE_REQ_CANCEL) {
        finish(s, WIRE_END_CANCELLED);

    } else if (s->state != BODY || (r->type == WIRE_REQ_BODY && r->len > s->body_left)) {
        k->dead = 1;

    } else if (r->type == WIRE_REQ_BODY) {
        s->body_left -= r->len;

    } else if (r->type == WIRE_REQ_END) {
        if (s->body_left != 0) {
            k->dead = 1;

        } else if (opt.busy) {
            finish(s, WIRE_END_BUSY);

        } else {
            start = now_ns() + opt.first_delay_ms * MS;
            s->begin = opt.status || opt.interval_ms == 0 ? start : next_due(s, start);
            s->state = RUN;
            activate(s, alive_due(s, now_ns()));
        }
    }
}

static void link_drain(struct link *k)
{
    int              rc = 0, n;
    struct wire_rec  r;
    static uint8_t   b[WIRE_REC_BYTES_MAX];

    for (n = 0; n < DRAIN_BUDGET && !k->dead; n++) {
        rc = wire_ring_recv(&k->l.ring, &r, b);
        if (rc != 1) {
            break;
        }

        on_rec(k, &r, b);
    }

    k->dead |= rc < 0;

    if (wire_ring_release(&k->l.ring)) {
        bell(k, WIRE_BYTE_WAKE);
    }

    k->again = n == DRAIN_BUDGET || wire_ring_arm(&k->l.ring) != 0;
}

static void link_handshake(struct link *k)
{
    int                rc;
    struct err         e = { 0 };
    struct wire_hello  h = {
        .magic = WIRE_MAGIC, .major = WIRE_MAJOR + 1, .status = WIRE_HELLO_VERSION,
        .msg = "scripted: this engine speaks another version",
    };

    if (opt.bad_version) {
        (void) send(k->sock, &h, sizeof(h), MSG_DONTWAIT | MSG_NOSIGNAL);
        k->dead = 1;
        return;
    }

    rc = wire_link_accept(&k->l, k->sock, epoch, &e);
    if (rc == E_AGAIN) {
        return;
    }

    if (rc != 0) {
        say("handshake: %s", e.msg);
        k->dead = 1;
        return;
    }

    k->stream = must(calloc(k->l.sizes.n_slot, sizeof(*k->stream)));
    __atomic_store_n(&k->l.ring.own->ready, !leaving(), __ATOMIC_RELAXED);
    __atomic_store_n(&k->l.ring.own->draining, leaving(), __ATOMIC_RELAXED);
    k->up = 1;
    say("link up: %u slots", k->l.sizes.n_slot);
    link_drain(k);
}

static void link_event(struct link *k)
{
    int rc;

    if (!k->up) {
        link_handshake(k);
        return;
    }

    rc = wire_bell_drain(k->sock, NULL);
    if (rc != 0) {
        say("worker gone");
        k->dead = 1;
        return;
    }

    link_drain(k);
}

static void link_new(int listener)
{
    int                 fd;
    struct link        *k;
    struct epoll_event  ev = { .events = EPOLLIN };

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) != -1) {
        k = must(calloc(1, sizeof(*k)));
        k->sock = fd;
        k->next = links;
        links = k;
        ev.data.ptr = k;
        if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0) {
            die("epoll_ctl");
        }
    }
}

static void links_sweep(void)
{
    struct link *k, **at = &links;

    while ((k = *at) != NULL) {
        if (!k->dead) {
            at = &k->next;
            continue;
        }

        say("link down");
        for (uint32_t i = 0; k->stream != NULL && i < k->l.sizes.n_slot; i++) {
            stream_free(&k->stream[i]);
        }

        *at = k->next;
        close(k->sock);
        wire_link_close(&k->l);
        free(k->stream);
        free(k);
    }
}

/* Tokens that are due, heartbeats; the time until the next of either. */
static struct timespec tick(void)
{
    uint64_t now = now_ns(), next;

    if (now >= beat_due) {
        beat_due = now + WIRE_HEARTBEAT_MS * MS;
        for (struct link *k = links; k != NULL; k = k->next) {
            if (k->up) {
                __atomic_fetch_add(&k->l.ring.own->heartbeat, 1, __ATOMIC_RELAXED);
            }
        }
    }

    next = beat_due;

    for (uint32_t i = n_active; i > 0; i--) {   /* downwards: a freed one is replaced by the last */
        struct stream *s = active[i - 1];

        if (s->due <= now && !s->link->dead) {
            stream_due(s, now);
        }
    }

    for (uint32_t i = 0; i < n_active; i++) {
        next = active[i]->due < next ? active[i]->due : next;
    }

    for (struct link *k = links; k != NULL; k = k->next) {
        if (k->again || k->dead) {
            next = 0;
        }
    }

    now = now_ns();
    next = next > now ? next - now : 0;

    return (struct timespec) { (time_t) (next / (1000 * MS)), (long) (next % (1000 * MS)) };
}

static int listen_at(const char *path)
{
    int                 fd;
    struct sockaddr_un  sa = { .sun_family = AF_UNIX };

    if (strlen(path) >= sizeof(sa.sun_path)) {
        errno = ENAMETOOLONG;
        die(path);
    }

    strcpy(sa.sun_path, path);
    unlink(path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    /* workers of a test may run as another user */
    if (fd == -1 || bind(fd, (struct sockaddr *) &sa, sizeof(sa)) != 0 || chmod(path, 0666) != 0
        || listen(fd, 64) != 0)
    {
        die(path);
    }

    return fd;
}

static const struct { const char *name; uint32_t *v; int has_arg; const char *help; } options[] = {
    { "tokens", &opt.tokens, 1, "events of a stream (16)" },
    { "interval-ms", &opt.interval_ms, 1, "between two of them (20); 0: as fast as credits allow" },
    { "bytes", &opt.bytes, 1, "of an event (90)" },
    { "first-delay-ms", &opt.first_delay_ms, 1, "before the reply starts (0)" },
    { "alive-ms", &opt.alive_ms, 1, "between REP_ALIVE records until then (0: none)" },
    { "alive-n", &opt.alive_n, 1, "at least so many of them (0)" },
    { "status", &opt.status, 1, "answer with this and a JSON body instead" },
    { "busy", &opt.busy, 0, "answer END_BUSY instead" },
    { "garbage", &opt.garbage, 0, "a record of no known type" },
    { "stale", &opt.stale, 0, "data of an older generation before the reply" },
    { "bad-seq", &opt.bad_seq, 0, "skip a number in the 4th record of a stream" },
    { "one-by-one", &opt.one_by_one, 0, "an event only when those before have been passed on" },
    { "ignore-credit", &opt.ignore_credit, 0, "overrun the window" },
    { "hang-at", &opt.hang_at, 1, "stop for good after this many records, heartbeat too" },
    { "die-at", &opt.die_at, 1, "exit after this many records" },
    { "bad-version", &opt.bad_version, 0, "refuse every HELLO for its version" },
    { "goaway-after", &opt.goaway_after, 1, "leave after this many requests" },
    { "phase", NULL, 1, "spread: each stream at its own ms (default); burst: all at once" },
    { "verbose", &opt.verbose, 0, "say what happens (-v)" },
};

#define N_OPT  ((int) (sizeof(options) / sizeof(options[0])))

__attribute__((noreturn))
static void usage(int rc)
{
    fprintf(rc ? stderr : stdout, "usage: scripted_engine SOCKET [options]\n");
    for (int i = 0; i < N_OPT; i++) {
        fprintf(rc ? stderr : stdout, "  --%-15s %s  %s\n", options[i].name,
                options[i].has_arg ? "N" : " ", options[i].help);
    }

    exit(rc);
}

static const char *parse_args(int argc, char **argv)
{
    int            c;
    char          *end;
    struct option  lo[N_OPT + 2];

    memset(lo, 0, sizeof(lo));
    for (int i = 0; i < N_OPT; i++) {
        lo[i] = (struct option) { options[i].name, options[i].has_arg, NULL, 256 + i };
    }
    lo[N_OPT] = (struct option) { "help", 0, NULL, 'h' };

    while ((c = getopt_long(argc, argv, "vh", lo, NULL)) != -1) {
        if (c == 'v') {
            opt.verbose = 1;

        } else if (c < 256) {
            usage(c == 'h' ? 0 : 2);

        } else if (options[c - 256].v == NULL) {
            if (strcmp(optarg, "burst") != 0 && strcmp(optarg, "spread") != 0) {
                usage(2);
            }
            opt.burst = optarg[0] == 'b';

        } else if (!options[c - 256].has_arg) {
            *options[c - 256].v = 1;

        } else {
            *options[c - 256].v = (uint32_t) strtoul(optarg, &end, 10);
            if (*optarg == '\0' || *end != '\0') {
                usage(2);
            }
        }
    }

    if (optind + 1 != argc || opt.bytes > EVENT_BYTES_MAX || opt.tokens == 0
        || (opt.status != 0 && (opt.status < 200 || opt.status > 599)))
    {
        usage(2);
    }

    return argv[optind];
}

int main(int argc, char **argv)
{
    int                 listener, n;
    struct timespec     ts;
    struct epoll_event  ev[64];

    listener = listen_at(parse_args(argc, argv));
    ep = epoll_create1(EPOLL_CLOEXEC);
    ev[0] = (struct epoll_event) { .events = EPOLLIN };
    if (epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev[0]) != 0
        || getrandom(&epoch, sizeof(epoch), 0) != sizeof(epoch))
    {
        die("start");
    }

    for ( ;; ) {
        ts = tick();
        n = epoll_pwait2(ep, ev, 64, &ts, NULL);
        if (n == -1 && errno != EINTR) {
            die("epoll_pwait2");
        }

        for (int i = 0; i < n; i++) {
            if (ev[i].data.ptr == NULL) {
                link_new(listener);
            } else {
                link_event(ev[i].data.ptr);
            }
        }

        for (struct link *k = links; k != NULL; k = k->next) {
            if (k->again && k->up && !k->dead) {
                link_drain(k);
            }
        }

        links_sweep();
        if (leaving() && n_open == 0) {
            say("left");
            return 0;
        }
    }
}
