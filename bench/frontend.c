/* frontend.c - what nginx, the module and the wire add to a token: a load client for the scripted
 * engine (t/helpers/scripted_engine.c), whose events carry the time at which they were made.
 *
 *     frontend --port 8080 --streams 1000 --tokens 100 --pid "$(pgrep -f 'nginx: worker')"
 *
 * Opens the streams over HTTP/1.1 (chunked), one request each, and prints: added latency (now - t
 * at the read of the client, so its own queueing counts too), of all events and of the first of
 * each stream, how even the streams were, and CPU and memory of the workers named by --pid. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTING_MAX  64            /* at once: fewer than any listen queue */
#define PID_MAX         64

enum part { STATUS, HEADER, SIZE, SIZE_REST, DATA, DATA_CR, DATA_LF, TRAILER };

struct conn {
    int       fd, started, done;
    enum part part;
    uint32_t  match, line, status, chunk;    /* match: bytes of MARK seen; chunk: bytes left */
    uint32_t  tokens, closed_early;
    int       in_time;
    uint64_t  t, sum_ns, sent_ns, first_byte_ns;
};

static const char MARK[] = "\"t\":";

static struct {
    const char *host, *path, *label, *csv;
    uint32_t    port, streams, tokens, timeout_s;
    int         pid[PID_MAX], n_pid;
} opt = {
    .host = "127.0.0.1", .path = "/v1/chat/completions", .label = "", .port = 8080,
    .streams = 100, .tokens = 100, .timeout_s = 60,
};

static uint32_t *lat_us, *first_us;           /* of every event; of each stream's first */
static size_t    n_lat, cap_lat, n_first;

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}

__attribute__((noreturn))
static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void event_seen(struct conn *c, uint64_t now)
{
    uint64_t ns = now > c->t ? now - c->t : 0;

    if (n_lat == cap_lat) {
        cap_lat = cap_lat ? 2 * cap_lat : 1 << 16;
        lat_us = realloc(lat_us, cap_lat * sizeof(*lat_us));
        if (lat_us == NULL) {
            die("memory");
        }
    }

    lat_us[n_lat++] = (uint32_t) (ns / 1000);
    if (c->tokens++ == 0) {
        first_us[n_first++] = (uint32_t) (ns / 1000);
    }

    c->sum_ns += ns;
}

/* One byte of the body: MARK, then the digits of a time. */
static void body_byte(struct conn *c, char b, uint64_t now)
{
    if (c->in_time) {
        if (b >= '0' && b <= '9') {
            c->t = c->t * 10 + (uint64_t) (b - '0');
            return;
        }

        c->in_time = 0;
        event_seen(c, now);
    }

    c->match = b == MARK[c->match] ? c->match + 1 : b == MARK[0];

    if (c->match == sizeof(MARK) - 1) {
        c->match = 0;
        c->in_time = 1;
        c->t = 0;
    }
}

static uint32_t hex(char b)
{
    return (uint32_t) (b <= '9' ? b - '0' : (b | 32) - 'a' + 10) & 15;
}

/* The rest of the status line or of one header line: its length tells the end of the header. */
static void header_byte(struct conn *c, char b)
{
    if (c->part == STATUS && c->line >= 9 && c->line < 12) {
        c->status = c->status * 10 + (uint32_t) (b - '0');
    }

    if (b != '\n') {
        c->line += b != '\r';
        return;
    }

    if (c->line == 0) {
        c->part = c->part == TRAILER ? STATUS : SIZE;
        c->done = c->part == STATUS;

    } else if (c->part == STATUS) {
        c->part = HEADER;
    }

    c->line = 0;
}

static void parse(struct conn *c, const char *p, size_t n, uint64_t now)
{
    for (size_t i = 0; i < n && !c->done; i++) {
        switch (c->part) {
        case STATUS:
        case HEADER:
        case TRAILER:
            header_byte(c, p[i]);
            break;
        case SIZE:
        case SIZE_REST:
            if (p[i] == '\n') {
                c->part = c->chunk ? DATA : TRAILER;
            } else if (p[i] == '\r' || p[i] == ';' || c->part == SIZE_REST) {
                c->part = SIZE_REST;
            } else {
                c->chunk = c->chunk << 4 | hex(p[i]);
            }
            break;
        case DATA:
            body_byte(c, p[i], now);
            if (--c->chunk == 0) {
                c->part = DATA_CR;
            }
            break;
        case DATA_CR:
            c->part = DATA_LF;
            break;
        case DATA_LF:
            c->part = SIZE;
        }
    }
}

static void conn_open(struct conn *c, int ep)
{
    struct epoll_event  ev = { .events = EPOLLOUT, .data.ptr = c };
    struct sockaddr_in  sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t) opt.port) };

    if (inet_pton(AF_INET, opt.host, &sa.sin_addr) != 1) {
        fprintf(stderr, "--host wants an IPv4 address\n");
        exit(2);
    }

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd == -1
        || (connect(c->fd, (struct sockaddr *) &sa, sizeof(sa)) != 0 && errno != EINPROGRESS)
        || epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev) != 0)
    {
        die("connect");
    }
}

/* Connected: send the request. */
static void conn_start(struct conn *c, int ep)
{
    int                 n, err = 0;
    char                req[1024];
    socklen_t           len = sizeof(err);
    struct epoll_event  ev = { .events = EPOLLIN, .data.ptr = c };
    static const char   body[] = "{\"model\":\"scripted\",\"stream\":true,"
                                 "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";

    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
    if (err != 0) {
        errno = err;
        die("connect");
    }

    n = snprintf(req, sizeof(req), "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json"
                 "\r\nContent-Length: %zu\r\n\r\n%s", opt.path, opt.host, sizeof(body) - 1, body);
    if (n >= (int) sizeof(req) || send(c->fd, req, (size_t) n, MSG_NOSIGNAL) != n) {
        die("send");
    }

    c->started = 1;
    c->sent_ns = now_ns();
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
}

/* Nonzero: the stream is over. */
static int conn_read(struct conn *c)
{
    static char  buf[64 << 10];
    ssize_t      n = recv(c->fd, buf, sizeof(buf), 0);
    uint64_t     now = now_ns();

    if (n == -1 && errno == EAGAIN) {
        return 0;
    }

    if (n > 0) {
        if (c->first_byte_ns == 0) {
            c->first_byte_ns = now - c->sent_ns;
        }
        parse(c, buf, (size_t) n, now);
    }

    c->closed_early = n <= 0 && !c->done;

    if (n <= 0 || c->done || (c->part > HEADER && c->status != 200)) {
        close(c->fd);
        c->fd = -1;
        return 1;
    }

    return 0;
}

/* The first numbers of a file of /proc. */
static void proc_read(int pid, const char *name, uint64_t *a, uint64_t *b)
{
    char                path[64];
    FILE               *f;
    unsigned long long  x, y;

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    f = fopen(path, "r");
    if (f == NULL || fscanf(f, "%llu %llu", &x, &y) != 2) {
        die(path);
    }

    fclose(f);
    *a = x;
    *b = y;
}

/* CPU seconds and resident MB of the workers. */
static void workers(double *cpu_s, double *rss_mb)
{
    uint64_t ns, pages, ignored;

    *cpu_s = *rss_mb = 0;

    for (int i = 0; i < opt.n_pid; i++) {
        proc_read(opt.pid[i], "schedstat", &ns, &ignored);
        proc_read(opt.pid[i], "statm", &ignored, &pages);
        *cpu_s += (double) ns / 1e9;
        *rss_mb += (double) pages * (double) sysconf(_SC_PAGESIZE) / 1e6;
    }
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

    return (x > y) - (x < y);
}

/* Of sorted values, in ms. */
static double quantile(const uint32_t *v, size_t n, double q)
{
    return n == 0 ? 0 : v[(size_t) (q * (double) (n - 1))] / 1e3;
}

struct totals {
    uint32_t  ok, bad_status, cut, short_of;
    double    mean_min, mean_max, jain, ttfb_p50, ttfb_p99;
};

static struct totals sum_up(const struct conn *c)
{
    double         sum = 0, sum2 = 0, mean;
    uint32_t      *ttfb = calloc(opt.streams, sizeof(*ttfb));
    struct totals  t = { .mean_min = 1e9 };

    if (ttfb == NULL) {
        die("memory");
    }

    for (uint32_t i = 0; i < opt.streams; i++) {
        t.bad_status += c[i].status != 200;
        t.cut += c[i].closed_early != 0 || c[i].fd != -1;
        t.short_of += c[i].tokens != opt.tokens;
        t.ok += c[i].status == 200 && c[i].done && c[i].tokens == opt.tokens;

        mean = c[i].tokens ? (double) c[i].sum_ns / c[i].tokens / 1e6 : 0;
        t.mean_min = mean < t.mean_min ? mean : t.mean_min;
        t.mean_max = mean > t.mean_max ? mean : t.mean_max;
        sum += mean;
        sum2 += mean * mean;
        ttfb[i] = (uint32_t) (c[i].first_byte_ns / 1000);
    }

    /* Jain's index of the mean latencies: 1 when all wait alike, 1/n when one waits alone */
    t.jain = sum2 > 0 ? sum * sum / (opt.streams * sum2) : 1;

    qsort(ttfb, opt.streams, sizeof(*ttfb), by_value);
    t.ttfb_p50 = quantile(ttfb, opt.streams, 0.5);
    t.ttfb_p99 = quantile(ttfb, opt.streams, 0.99);
    free(ttfb);

    return t;
}

static void csv_row(const struct totals *t, double wall_s, double us, double rss0, double rss1)
{
    FILE *f = fopen(opt.csv, "a");

    if (f == NULL) {
        die(opt.csv);
    }

    fprintf(f, "%s,%u,%u,%d,%u,%.2f,%.0f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.4f,%.2f,%.1f,"
            "%.1f\n", opt.label, opt.streams, opt.tokens, opt.n_pid, t->ok, wall_s,
            (double) n_lat / wall_s,
            quantile(lat_us, n_lat, 0.5), quantile(lat_us, n_lat, 0.99),
            quantile(lat_us, n_lat, 1), quantile(first_us, n_first, 0.5),
            quantile(first_us, n_first, 0.99), t->ttfb_p50,
            t->ttfb_p99, t->jain, us, rss0, rss1);
    fclose(f);
}

static int report(const struct conn *c, double wall_s, double cpu_s, double rss0, double rss1)
{
    double         us = n_lat ? cpu_s * 1e6 / (double) n_lat : 0;
    struct totals  t = sum_up(c);

    qsort(lat_us, n_lat, sizeof(*lat_us), by_value);
    qsort(first_us, n_first, sizeof(*first_us), by_value);

    printf("streams          %u, complete %u (status not 200: %u, cut: %u, tokens missing: %u)"
           "\n", opt.streams, t.ok, t.bad_status, t.cut, t.short_of);
    printf("tokens           %zu in %.2f s, %.0f /s\n", n_lat, wall_s, (double) n_lat / wall_s);
    printf("added latency    p50 %.3f  p99 %.3f  max %.3f ms\n", quantile(lat_us, n_lat, 0.5),
           quantile(lat_us, n_lat, 0.99), quantile(lat_us, n_lat, 1));
    printf("  first event    p50 %.3f  p99 %.3f  max %.3f ms\n", quantile(first_us, n_first, 0.5),
           quantile(first_us, n_first, 0.99), quantile(first_us, n_first, 1));
    printf("request to byte  p50 %.3f  p99 %.3f ms (the engine's own delay included)\n",
           t.ttfb_p50, t.ttfb_p99);
    printf("stream means     %.3f .. %.3f ms, fairness %.4f\n", t.mean_min, t.mean_max, t.jain);

    if (opt.n_pid > 0) {
        printf("workers          %d: %.2f us of CPU per token, %.1f MB before, %.1f MB after\n",
               opt.n_pid, us, rss0, rss1);
    }

    if (opt.csv != NULL) {
        csv_row(&t, wall_s, us, rss0, rss1);
    }

    return t.ok != opt.streams;
}

__attribute__((noreturn))
static void usage(void)
{
    fprintf(stderr, "usage: frontend [--host IPV4] [--port N] [--path URI] [--streams N]"
            " [--tokens N] [--timeout S]\n                [--pid WORKER,...] [--label TEXT]"
            " [--csv FILE]\n");
    exit(2);
}

static void parse_args(int argc, char **argv)
{
    int  c;
    static const struct option lo[] = {
        { "host", 1, NULL, 'h' }, { "port", 1, NULL, 'p' }, { "path", 1, NULL, 'u' },
        { "streams", 1, NULL, 'n' }, { "tokens", 1, NULL, 't' }, { "timeout", 1, NULL, 'T' },
        { "pid", 1, NULL, 'w' }, { "label", 1, NULL, 'l' }, { "csv", 1, NULL, 'c' },
        { NULL, 0, NULL, 0 }
    };

    while ((c = getopt_long(argc, argv, "", lo, NULL)) != -1) {
        switch (c) {
        case 'h': opt.host = optarg; break;
        case 'p': opt.port = (uint32_t) atoi(optarg); break;
        case 'u': opt.path = optarg; break;
        case 'n': opt.streams = (uint32_t) atoi(optarg); break;
        case 't': opt.tokens = (uint32_t) atoi(optarg); break;
        case 'T': opt.timeout_s = (uint32_t) atoi(optarg); break;
        case 'l': opt.label = optarg; break;
        case 'c': opt.csv = optarg; break;
        case 'w':
            for (char *p = strtok(optarg, ", \n"); p != NULL; p = strtok(NULL, ", \n")) {
                if (opt.n_pid < PID_MAX) {
                    opt.pid[opt.n_pid++] = atoi(p);
                }
            }
            break;
        default:
            usage();
        }
    }

    if (optind != argc || opt.streams == 0) {
        usage();
    }
}

int main(int argc, char **argv)
{
    int                 ep, n;
    double              cpu0, cpu1, rss0, rss1;
    uint32_t            opened = 0, connecting = 0, live = 0;
    uint64_t            start, end;
    struct conn        *conns, *c;
    struct epoll_event  ev[256];

    parse_args(argc, argv);
    conns = calloc(opt.streams, sizeof(*conns));
    first_us = calloc(opt.streams, sizeof(*first_us));
    ep = epoll_create1(EPOLL_CLOEXEC);
    if (conns == NULL || first_us == NULL || ep == -1) {
        die("start");
    }

    workers(&cpu0, &rss0);
    start = now_ns();
    end = start + opt.timeout_s * 1000000000ull;

    do {
        for ( ; opened < opt.streams && connecting < CONNECTING_MAX; connecting++, live++) {
            conn_open(&conns[opened++], ep);
        }

        n = epoll_wait(ep, ev, 256, 100);
        for (int i = 0; i < n; i++) {
            c = ev[i].data.ptr;
            if (!c->started) {
                conn_start(c, ep);
                connecting--;

            } else if (conn_read(c)) {
                live--;
            }
        }
    } while ((live > 0 || opened < opt.streams) && now_ns() < end);

    end = now_ns();
    workers(&cpu1, &rss1);

    return report(conns, (double) (end - start) / 1e9, cpu1 - cpu0, rss0, rss1);
}
