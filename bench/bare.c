/* bare.c - the floor under bench/frontend: the same events over HTTP/1.1, from a process that
 * does nothing but epoll and one write for each. What nginx, the module and the wire add is the
 * distance.
 *
 *     bare --port 8098 --tokens 100 --interval-ms 50 [--burst]
 *
 * Ends when the last of its streams has ended. */
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
#include <sys/uio.h>
#include <netinet/tcp.h>
#include <time.h>
#include <unistd.h>

#define MS          1000000ull                /* ns */
#define CONN_MAX    4096
#define EVENT       90                        /* bytes, as the scripted engine's */

struct conn {
    int       fd;
    uint32_t  made;
    uint64_t  due;                            /* ns; 0: no request yet */
};

static struct conn conns[CONN_MAX];
static uint32_t    n_conn, n_over, tokens = 16, interval_ms = 20, burst;

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000 * MS + (uint64_t) ts.tv_nsec;
}

__attribute__((noreturn))
static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t first_due(uint32_t i, uint64_t now)
{
    uint64_t step = interval_ms * MS;

    return burst ? (now / step + 1) * step : (now / MS + 1 + i % interval_ms) * MS;
}

static void start(struct conn *c, int ep)
{
    char               b[4096];
    static const char  head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                "Transfer-Encoding: chunked\r\n\r\n";

    if (recv(c->fd, b, sizeof(b), 0) <= 0) {
        die("request");
    }

    if (send(c->fd, head, sizeof(head) - 1, MSG_NOSIGNAL) < 0) {
        die("head");
    }

    c->due = first_due((uint32_t) (c - conns), now_ns());
    epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL);
}

/* One event as one chunk: size, data, end, as the chunked filter hands them to writev. In a burst
 * all events of a step are as old as the step. */
static void emit(struct conn *c, uint64_t now)
{
    int           n;
    char          b[EVENT + 64], size[16];
    struct iovec  v[3];

    n = sprintf(b, "data: {\"i\":%u,\"t\":%llu,\"text\":\"", c->made,
                (unsigned long long) (burst ? now : now_ns()));
    while (n + 4 < EVENT) {
        b[n++] = 'x';
    }
    n += sprintf(b + n, "\"}\n\n");

    v[0] = (struct iovec) { size, (size_t) sprintf(size, "%x\r\n", n) };
    v[1] = (struct iovec) { b, (size_t) n };
    v[2] = (struct iovec) { "\r\n0\r\n\r\n", c->made + 1 == tokens ? 7 : 2 };

    if (writev(c->fd, v, 3) < 0) {
        die("write");
    }

    c->due += interval_ms * MS;
    if (++c->made == tokens) {
        close(c->fd);
        c->due = 0;
        n_over++;
    }
}

/* ns until the next event of any stream. */
static struct timespec emit_due(void)
{
    uint64_t now = now_ns(), next = now + 1000 * MS;

    for (uint32_t i = 0; i < n_conn; i++) {
        if (conns[i].due != 0 && conns[i].due <= now) {
            emit(&conns[i], now);
        }
        if (conns[i].due != 0 && conns[i].due < next) {
            next = conns[i].due;
        }
    }

    now = now_ns();
    next = next > now ? next - now : 0;

    return (struct timespec) { (time_t) (next / (1000 * MS)), (long) (next % (1000 * MS)) };
}

static int listen_at(uint16_t port)
{
    int                 one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in  sa = { .sin_family = AF_INET, .sin_port = htons(port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

    if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0
        || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0
        || bind(fd, (struct sockaddr *) &sa, sizeof(sa)) != 0 || listen(fd, 511) != 0)
    {
        die("listen");
    }

    return fd;
}

static uint16_t parse_args(int argc, char **argv)
{
    int                         c;
    uint16_t                    port = 8098;
    static const struct option  lo[] = {
        { "port", 1, NULL, 'p' }, { "tokens", 1, NULL, 't' }, { "interval-ms", 1, NULL, 'i' },
        { "burst", 0, NULL, 'b' }, { NULL, 0, NULL, 0 }
    };

    while ((c = getopt_long(argc, argv, "", lo, NULL)) != -1) {
        switch (c) {
        case 'p': port = (uint16_t) atoi(optarg); break;
        case 't': tokens = (uint32_t) atoi(optarg); break;
        case 'i': interval_ms = (uint32_t) atoi(optarg); break;
        case 'b': burst = 1; break;
        default:
            fprintf(stderr, "usage: bare [--port N] [--tokens N] [--interval-ms N] [--burst]\n");
            exit(2);
        }
    }

    return port;
}

int main(int argc, char **argv)
{
    int                 ep, fd, n, listener = listen_at(parse_args(argc, argv));
    struct timespec     ts;
    struct epoll_event  ev[256], add = { .events = EPOLLIN, .data.ptr = NULL };

    ep = epoll_create1(EPOLL_CLOEXEC);
    if (ep == -1 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &add) != 0) {
        die("epoll");
    }

    do {
        ts = emit_due();
        n = epoll_pwait2(ep, ev, 256, &ts, NULL);

        for (int i = 0; i < n; i++) {
            if (ev[i].data.ptr != NULL) {
                start(ev[i].data.ptr, ep);
                continue;
            }

            fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            if (fd == -1 || n_conn == CONN_MAX) {
                die("accept");
            }

            conns[n_conn].fd = fd;
            add.data.ptr = &conns[n_conn++];
            epoll_ctl(ep, EPOLL_CTL_ADD, fd, &add);
        }
    } while (n_conn == 0 || n_over < n_conn);

    return 0;
}
