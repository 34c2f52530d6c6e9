/* wire_link.c - the handshake over a socketpair, and peers that lie in it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"
#include "wire_link.h"

#define SEALS  (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

static const struct wire_sizes sizes = { 16, 8192, 128 << 10, 256 << 10 };

static int  sv[2];              /* worker, engine */

static void sock_open(void)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv) != 0) {
        abort();
    }
}

static void sock_close(void)
{
    close(sv[0]);
    close(sv[1]);
}

static int n_fd(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++) {
        n += fcntl(fd, F_GETFD) != -1;
    }

    return n;
}

static void put_hello(int sock, const void *h, size_t n, const int *fds, int n_fds)
{
    char           cbuf[CMSG_SPACE(16 * sizeof(int))] = { 0 };
    struct iovec   iov = { (void *) (uintptr_t) h, n };
    struct msghdr  msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (n_fds > 0) {
        struct cmsghdr *c = (struct cmsghdr *) cbuf;

        msg.msg_control = cbuf;
        msg.msg_controllen = CMSG_SPACE((size_t) n_fds * sizeof(int));
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t) n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, (size_t) n_fds * sizeof(int));
    }

    if (sendmsg(sock, &msg, 0) != (ssize_t) n) {
        abort();
    }
}

static struct wire_hello hello(uint64_t epoch)
{
    return (struct wire_hello) {
        .magic = WIRE_MAGIC, .major = WIRE_MAJOR, .minor = WIRE_MINOR, .n_slot = sizes.n_slot,
        .window = sizes.window, .e2w_ring_bytes = sizes.e2w_ring_bytes, .epoch = epoch,
    };
}

/* A memfd with a right segment of a role; `more` bytes longer than that. */
static int memfd_seg(enum wire_role role, int seals, int more, int holes)
{
    int       fd;
    void     *p;
    uint64_t  bytes, ring;

    ring = role == WIRE_WORKER ? sizes.w2e_ring_bytes : sizes.e2w_ring_bytes;
    bytes = wire_seg_bytes(role, sizes.n_slot, ring);
    fd = memfd_create("t", MFD_ALLOW_SEALING);

    if (fd == -1 || ftruncate(fd, (off_t) bytes + more) != 0
        || (!holes && fallocate(fd, 0, 0, (off_t) bytes + more) != 0))
    {
        abort();
    }

    p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        abort();
    }

    wire_seg_write(p, role, sizes.n_slot, sizes.window, ring, 5);
    munmap(p, bytes);

    if (seals != 0 && fcntl(fd, F_ADD_SEALS, seals) == -1) {
        abort();
    }

    return fd;
}

static void test_good(void)
{
    int               goaway = 0, before = n_fd();
    uint8_t           buf[WIRE_REC_BYTES_MAX];
    struct err        e = { 0 };
    struct wire_rec   r = { .len = 3, .type = WIRE_REQ_BODY, .slot = 15, .gen = 1 }, got;
    struct wire_link  w = { 0 }, g = { 0 };

    sock_open();
    is_int(wire_link_accept(&g, sv[1], 5, &e), E_AGAIN, "engine: nothing yet");
    is_int(wire_link_hello(&w, sv[0], &sizes, 4, &e), 0, "worker: HELLO %s", e.msg);
    is_int(wire_link_welcome(&w, sv[0], &e), E_AGAIN, "worker: no answer yet");
    is_int(wire_link_accept(&g, sv[1], 5, &e), 0, "engine: accept %s", e.msg);
    wire_bell(sv[1], WIRE_BYTE_WAKE);
    is_int(wire_link_welcome(&w, sv[0], &e), 0, "worker: attached %s", e.msg);
    ok(w.peer_epoch == 5 && g.peer_epoch == 4, "epochs");
    ok(g.sizes.n_slot == 16 && g.sizes.window == 8192 && g.sizes.w2e_ring_bytes == 128 << 10
       && g.sizes.e2w_ring_bytes == 256 << 10, "sizes");
    is_int(n_fd() - before, 2, "no descriptor is left but the sockets");

    wire_ring_send(&w.ring, &r, "abc");
    wire_ring_publish(&w.ring);
    ok(wire_ring_recv(&g.ring, &got, buf) == 1 && memcmp(buf, "abc", 3) == 0, "worker -> engine");
    r.type = WIRE_REP_DATA;
    wire_ring_send(&g.ring, &r, "xyz");
    wire_ring_publish(&g.ring);
    ok(wire_ring_recv(&w.ring, &got, buf) == 1 && memcmp(buf, "xyz", 3) == 0, "engine -> worker");
    wire_ring_ack(&w.ring, 15, 77);
    is_int(wire_ring_acked(&g.ring, 15), 77, "ack of the last slot");

    ok(mprotect((void *) (uintptr_t) w.ring.peer, 4096, PROT_READ | PROT_WRITE) == -1
       && mprotect((void *) (uintptr_t) g.ring.peer, 4096, PROT_READ | PROT_WRITE) == -1,
       "the peer's segment cannot be made writable");

    is_int(wire_bell_drain(sv[0], &goaway), 0, "drain");
    is_int(goaway, 0, "only a WAKE");
    wire_bell(sv[1], WIRE_BYTE_GOAWAY);
    is_int(wire_bell_drain(sv[1], NULL), 0, "nothing to drain");
    is_int(wire_bell_drain(sv[0], &goaway), 0, "drain");
    is_int(goaway, 1, "GOAWAY");
    wire_bell(sv[0], WIRE_BYTE_GOAWAY);
    is_int(wire_bell_drain(sv[1], NULL), E_INVALID, "GOAWAY from a worker");

    for (int i = 0; i < 3000; i++) {
        if (wire_bell(sv[0], WIRE_BYTE_WAKE) != 0) {
            ok(0, "a full socket is not success");
        }
    }

    wire_link_close(&w);
    close(sv[0]);
    is_int(wire_bell_drain(sv[1], NULL), E_GONE, "EOF behind all the bells");
    is_int(wire_bell(sv[1], WIRE_BYTE_WAKE), E_GONE, "bell to the dead");
    ok(wire_ring_recv(&g.ring, &got, buf) == 0, "the dead peer's memory stays readable");
    wire_link_close(&g);
    wire_link_close(&g);
    close(sv[1]);
    is_int(n_fd(), before, "all closed");
}

/* The engine's answer to a HELLO with n_fds descriptors (closed here). */
static void refuse_worker(const char *what, struct wire_hello h, size_t n, int *fds, int n_fds,
                          uint32_t status)
{
    int                before = n_fd() - n_fds;
    struct err         e = { 0 };
    struct wire_hello  a = { .status = ~0u };
    struct wire_link   g = { 0 };

    sock_open();
    put_hello(sv[0], &h, n, fds, n_fds);

    for (int i = 0; i < n_fds; i++) {
        close(fds[i]);
    }

    is_int(wire_link_accept(&g, sv[1], 9, &e), E_INVALID, "engine refuses %s: %s", what, e.msg);
    ok(recv(sv[0], &a, sizeof(a), 0) == sizeof(a) && a.status == status
       && strncmp(a.msg, e.msg, sizeof(a.msg) - 1) == 0, "and says why");
    ok(g.ring.own == NULL && g.ring.peer == NULL, "nothing stays mapped");
    sock_close();
    is_int(n_fd(), before, "no descriptor leaks");
}

static void test_bad_workers(void)
{
    int                fds[8];
    struct wire_hello  h = hello(5), x;

#define REFUSE(what, status, ...) do {                                                     \
        x = h; fds[0] = memfd_seg(WIRE_WORKER, SEALS, 0, 0); __VA_ARGS__;                  \
        refuse_worker(what, x, sizeof(x), fds, 1, status);                                 \
    } while (0)

    REFUSE("a newer version", WIRE_HELLO_VERSION, x.major++);
    REFUSE("an older version", WIRE_HELLO_VERSION, x.major--);
    REFUSE("a wrong magic", WIRE_HELLO_VERSION, x.magic = 1);
    REFUSE("no slots", WIRE_HELLO_LIMIT, x.n_slot = 0);
    REFUSE("too many slots", WIRE_HELLO_LIMIT, x.n_slot = WIRE_SLOT_MAX + 1);
    REFUSE("slots that overflow the ring", WIRE_HELLO_LIMIT, x.n_slot = 33);
    REFUSE("a small window", WIRE_HELLO_LIMIT, x.window = WIRE_WINDOW_MIN - 1);
    REFUSE("a large window", WIRE_HELLO_LIMIT, x.window = WIRE_WINDOW_MAX + 1);
    REFUSE("a ring of no power of two", WIRE_HELLO_LIMIT, x.e2w_ring_bytes += 4096);
    REFUSE("a huge ring", WIRE_HELLO_LIMIT, x.e2w_ring_bytes = 1u << 31);
    REFUSE("other slots than the segment's", WIRE_HELLO_LIMIT, x.n_slot = 8);
    REFUSE("another epoch than the segment's", WIRE_HELLO_LIMIT, x.epoch = 6);

#define REFUSE_FD(what, fd) REFUSE(what, WIRE_HELLO_LIMIT, close(fds[0]); fds[0] = (fd))

    REFUSE_FD("no seals", memfd_seg(WIRE_WORKER, 0, 0, 0));
    REFUSE_FD("no SHRINK seal", memfd_seg(WIRE_WORKER, SEALS & ~F_SEAL_SHRINK, 0, 0));
    REFUSE_FD("no GROW seal", memfd_seg(WIRE_WORKER, SEALS & ~F_SEAL_GROW, 0, 0));
    REFUSE_FD("no FUTURE_WRITE seal", memfd_seg(WIRE_WORKER, SEALS & ~F_SEAL_FUTURE_WRITE, 0, 0));
    REFUSE_FD("no SEAL seal", memfd_seg(WIRE_WORKER, SEALS & ~F_SEAL_SEAL, 0, 0));
    REFUSE_FD("a truncated segment", memfd_seg(WIRE_WORKER, SEALS, -4096, 0));
    REFUSE_FD("a longer segment", memfd_seg(WIRE_WORKER, SEALS, 4096, 0));
    REFUSE_FD("a segment with holes", memfd_seg(WIRE_WORKER, SEALS, 0, 1));
    REFUSE_FD("the engine's kind of segment", memfd_seg(WIRE_ENGINE, SEALS, 0, 0));
    REFUSE_FD("a device", open("/dev/zero", O_RDWR));
    REFUSE_FD("a regular file", open("Makefile", O_RDONLY));

    refuse_worker("no descriptor", h, sizeof(h), fds, 0, WIRE_HELLO_LIMIT);
    fds[0] = memfd_seg(WIRE_WORKER, SEALS, 0, 0);
    fds[1] = memfd_seg(WIRE_WORKER, SEALS, 0, 0);
    refuse_worker("two descriptors", h, sizeof(h), fds, 2, WIRE_HELLO_VERSION);

    for (int i = 0; i < 8; i++) {
        fds[i] = memfd_seg(WIRE_WORKER, SEALS, 0, 0);
    }
    refuse_worker("eight descriptors", h, sizeof(h), fds, 8, WIRE_HELLO_VERSION);

    fds[0] = memfd_seg(WIRE_WORKER, SEALS, 0, 0);
    refuse_worker("half a HELLO", h, 64, fds, 1, WIRE_HELLO_VERSION);
}

/* What the worker says of an engine's answer. */
static void refuse_engine(const char *what, struct wire_hello h, int fd, const char *word)
{
    int               before = n_fd() - (fd != -1);
    struct err        e = { 0 };
    struct wire_link  w = { 0 };

    sock_open();
    if (wire_link_hello(&w, sv[0], &sizes, 5, &e) != 0) {
        abort();
    }

    put_hello(sv[1], &h, sizeof(h), &fd, fd != -1);
    is_int(wire_link_welcome(&w, sv[0], &e), E_INVALID, "worker refuses %s: %s", what, e.msg);
    ok(strstr(e.msg, word) != NULL, "and says '%s'", word);
    ok(w.ring.own == NULL && w.ring.peer == NULL, "nothing stays mapped");

    if (fd != -1) {
        close(fd);
    }

    sock_close();
    is_int(n_fd(), before, "no descriptor leaks");
}

static void test_bad_engines(void)
{
    struct wire_hello h = hello(5), x;

#define MEMFD  memfd_seg(WIRE_ENGINE, SEALS, 0, 0)
    x = h; x.major++;
    refuse_engine("a newer version", x, MEMFD, "version");
    x = h; x.major--;
    refuse_engine("an older version", x, MEMFD, "version");
    x = h; x.magic ^= 1;
    refuse_engine("a wrong magic", x, MEMFD, "magic");
    x = h; x.n_slot--;
    refuse_engine("fewer slots", x, MEMFD, "sizes");
    x = h; x.window *= 2;
    refuse_engine("another window", x, MEMFD, "sizes");
    x = h; x.e2w_ring_bytes *= 2;
    refuse_engine("another ring", x, MEMFD, "sizes");
    x = h; x.epoch++;
    refuse_engine("another epoch", x, MEMFD, "epoch");
    x = h; x.status = WIRE_HELLO_LIMIT; memset(x.msg, 'x', sizeof(x.msg)); x.msg[1] = '\n';
    refuse_engine("to be refused", x, -1, "engine: x?xx");
    refuse_engine("no descriptor", h, -1, "no segment");
    refuse_engine("no seals", h, memfd_seg(WIRE_ENGINE, 0, 0, 0), "sealed");
    refuse_engine("a truncated segment", h, memfd_seg(WIRE_ENGINE, SEALS, -4096, 0), "add up");
    refuse_engine("its own kind of segment", h, memfd_seg(WIRE_WORKER, SEALS, 0, 0), "add up");
}

static void test_gone(void)
{
    struct err         e = { 0 };
    struct wire_link   w = { 0 }, g = { 0 };
    struct wire_sizes  s = sizes;

    sock_open();
    close(sv[0]);
    is_int(wire_link_accept(&g, sv[1], 5, &e), E_GONE, "engine: the worker left");
    close(sv[1]);

    sock_open();
    wire_link_hello(&w, sv[0], &sizes, 4, &e);
    is_int(wire_link_accept(&g, sv[1], 5, &e), 0, "accepted");
    wire_link_close(&g);
    close(sv[1]);
    is_int(wire_link_welcome(&w, sv[0], &e), 0, "an answer outlives its engine");
    is_int(wire_bell_drain(sv[0], NULL), E_GONE, "and then there is the EOF");
    wire_link_close(&w);
    close(sv[0]);

    sock_open();
    wire_link_hello(&w, sv[0], &sizes, 4, &e);
    wire_link_refuse(sv[1], WIRE_HELLO_LIMIT, "too many links");
    close(sv[1]);
    is_int(wire_link_welcome(&w, sv[0], &e), E_INVALID, "turned away");
    is_str(e.msg, "refused by the engine: too many links", "in words");
    close(sv[0]);

    sock_open();
    s.window = 0;
    is_int(wire_link_hello(&w, sv[0], &s, 4, &e), E_INVALID, "worker: %s", e.msg);
    sock_close();
}

int main(void)
{
    test_good();
    test_bad_workers();
    test_bad_engines();
    test_gone();

    return done_testing();
}
