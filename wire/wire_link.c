/* wire_link.c - segments as sealed memfds, and the handshake that swaps them.
 *
 * The seals are what makes reading the peer's memory safe: it cannot be shortened under us
 * (SIGBUS), and each side can write its own segment only. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "wire_link.h"

#define SEALS  (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)
#define FD_MAX 4              /* received at once; only one is ever right */

static int pow2_within(uint32_t v)
{
    return v >= WIRE_RING_MIN && v <= WIRE_RING_MAX && (v & (v - 1)) == 0;
}

int wire_sizes_check(const struct wire_sizes *s, struct err *e)
{
    uint64_t pad;

    if (s->n_slot == 0 || s->n_slot > WIRE_SLOT_MAX) {
        return err_set(e, E_INVALID, "slots: %u is not in 1..%u", s->n_slot, WIRE_SLOT_MAX);
    }

    if (s->window < WIRE_WINDOW_MIN || s->window > WIRE_WINDOW_MAX) {
        return err_set(e, E_INVALID, "window: %u is not in %u..%u bytes", s->window,
                       WIRE_WINDOW_MIN, WIRE_WINDOW_MAX);
    }

    if (!pow2_within(s->w2e_ring_bytes) || !pow2_within(s->e2w_ring_bytes)) {
        return err_set(e, E_INVALID, "rings: %u and %u must be powers of two in %u..%u bytes",
                       s->w2e_ring_bytes, s->e2w_ring_bytes, WIRE_RING_MIN, WIRE_RING_MAX);
    }

    /* no record is larger than its window, and a PAD is smaller than the record that needs it */
    pad = WIRE_REC_SIZE(WIRE_REC_BYTES_MAX);
    if (pad > s->window) {
        pad = s->window;
    }

    if ((uint64_t) s->n_slot * s->window + pad > s->e2w_ring_bytes) {
        return err_set(e, E_INVALID, "%u slots with windows of %u bytes need a reply ring of more"
                       " than %u", s->n_slot, s->window, s->e2w_ring_bytes);
    }

    return 0;
}

void wire_link_close(struct wire_link *l)
{
    if (l->ring.own != NULL) {
        munmap(l->ring.own, l->own_bytes);
    }

    if (l->ring.peer != NULL) {
        munmap((void *) (uintptr_t) l->ring.peer, l->peer_bytes);
    }

    *l = (struct wire_link) { 0 };
}

/* Create our sealed segment, mapped at l->ring.own; *fd is to be passed on and closed. */
static int seg_create(struct wire_link *l, enum wire_role role, uint64_t epoch, int *fd,
                      struct err *e)
{
    int       saved;
    void     *p;
    uint64_t  bytes;
    uint32_t  ring_bytes;

    ring_bytes = role == WIRE_WORKER ? l->sizes.w2e_ring_bytes : l->sizes.e2w_ring_bytes;
    bytes = wire_seg_bytes(role, l->sizes.n_slot, ring_bytes);

    *fd = memfd_create("wire", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd == -1) {
        return err_set(e, E_IO, "memfd_create: %s", strerror(errno));
    }

    /* fallocate: a lack of memory is said here, not by SIGBUS later */
    if (ftruncate(*fd, (off_t) bytes) == -1 || fallocate(*fd, 0, 0, (off_t) bytes) == -1) {
        goto failed;
    }

    p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, *fd, 0);
    if (p == MAP_FAILED) {
        goto failed;
    }

    l->ring.own = p;
    l->own_bytes = bytes;
    wire_seg_write(p, role, l->sizes.n_slot, l->sizes.window, ring_bytes, epoch);

    if (fcntl(*fd, F_ADD_SEALS, SEALS) == -1) {
        goto failed;
    }

    return 0;

failed:

    saved = errno;
    close(*fd);

    return err_set(e, E_IO, "segment of %llu bytes: %s", (unsigned long long) bytes,
                   strerror(saved));
}

/* Map the peer's segment read-only at l->ring.peer. Only a sealed, fully backed memfd of ordinary
 * pages will do: anything else could fault, shrink or block while we read it. */
static int seg_map(struct wire_link *l, int fd, struct err *e)
{
    int            seals;
    void          *p;
    struct stat    st;
    struct statfs  fs;

    seals = fcntl(fd, F_GET_SEALS);
    if (seals == -1 || (seals & SEALS) != SEALS) {
        return err_set(e, E_INVALID, "segment: not a sealed memfd");
    }

    if (fstatfs(fd, &fs) == -1 || fs.f_type != TMPFS_MAGIC || fstat(fd, &st) == -1) {
        return err_set(e, E_INVALID, "segment: not ordinary memory");
    }

    if (st.st_size < WIRE_ACKS_OFF
        || (uint64_t) st.st_size > wire_seg_bytes(WIRE_WORKER, WIRE_SLOT_MAX, WIRE_RING_MAX)
        || (uint64_t) st.st_blocks * 512 < (uint64_t) st.st_size)
    {
        return err_set(e, E_INVALID, "segment: %lld bytes is out of bounds, or it has holes",
                       (long long) st.st_size);
    }

    p = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED) {
        return err_set(e, E_IO, "segment: mmap: %s", strerror(errno));
    }

    l->ring.peer = p;
    l->peer_bytes = (uint64_t) st.st_size;

    return 0;
}

/* Both mappings are there: start the ring. */
static int attach(struct wire_link *l, enum wire_role role, uint64_t hello_epoch, struct err *e)
{
    int               rc;
    struct wire_ring  r;

    rc = wire_ring_attach(&r, role, l->ring.own, l->ring.peer, l->peer_bytes, &l->peer_epoch, e);
    if (rc != 0) {
        return rc;
    }

    if (l->peer_epoch != hello_epoch) {
        return err_set(e, E_INVALID, "segment: its epoch is not the one of the HELLO");
    }

    l->ring = r;

    return 0;
}

/* fd -1: none. A fresh socket always has room for one HELLO. */
static int hello_send(int sock, const struct wire_hello *h, int fd, struct err *e)
{
    ssize_t         n;
    struct iovec    iov = { (void *) (uintptr_t) h, sizeof(*h) };
    struct msghdr   msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    struct cmsghdr *c;

    union {
        struct cmsghdr  align;
        char            buf[CMSG_SPACE(sizeof(int))];
    } u;

    if (fd != -1) {
        memset(&u, 0, sizeof(u));
        msg.msg_control = u.buf;
        msg.msg_controllen = sizeof(u.buf);
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }

    do {
        n = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n == -1 && errno == EINTR);

    if (n == (ssize_t) sizeof(*h)) {
        return 0;
    }

    if (n == -1 && (errno == EPIPE || errno == ECONNRESET)) {
        return err_set(e, E_GONE, "the peer closed the socket");
    }

    return err_set(e, E_IO, "sending HELLO: %s", n == -1 ? strerror(errno) : "cut short");
}

/* All descriptors that came; at most FD_MAX are installed by the kernel. */
static int fds_of(struct msghdr *msg, int *fds)
{
    int              n = 0, k;
    struct cmsghdr  *c;

    for (c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            k = (int) ((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds + n, CMSG_DATA(c), (size_t) k * sizeof(int));
            n += k;
        }
    }

    return n;
}

/* *fd: the one descriptor that came, or -1. More than one, or a cut list, is refused. */
static int hello_recv(int sock, struct wire_hello *h, int *fd, struct err *e)
{
    int            fds[FD_MAX], n_fd;
    ssize_t        n;
    struct iovec   iov = { h, sizeof(*h) };
    struct msghdr  msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    union {
        struct cmsghdr  align;
        char            buf[CMSG_SPACE(FD_MAX * sizeof(int))];
    } u;

    *fd = -1;
    msg.msg_control = u.buf;
    msg.msg_controllen = sizeof(u.buf);

    do {
        n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n == -1 && errno == EINTR);

    if (n == -1) {
        if (errno == EAGAIN) {
            return E_AGAIN;
        }

        return err_set(e, errno == ECONNRESET ? E_GONE : E_IO, "HELLO: %s", strerror(errno));
    }

    n_fd = fds_of(&msg, fds);

    if (n == (ssize_t) sizeof(*h) && n_fd <= 1 && !(msg.msg_flags & MSG_CTRUNC)) {
        h->msg[sizeof(h->msg) - 1] = '\0';
        *fd = n_fd == 1 ? fds[0] : -1;
        return 0;
    }

    while (n_fd > 0) {
        close(fds[--n_fd]);
    }

    if (n == 0) {
        return err_set(e, E_GONE, "the peer closed the socket");
    }

    return err_set(e, E_INVALID, "HELLO: %zd bytes with too many or too few descriptors", n);
}

int wire_link_hello(struct wire_link *l, int sock, const struct wire_sizes *s, uint64_t epoch,
                    struct err *e)
{
    int                fd, rc;
    struct wire_hello  h;

    *l = (struct wire_link) { .sizes = *s };

    rc = wire_sizes_check(s, e);
    if (rc != 0) {
        return rc;
    }

    rc = seg_create(l, WIRE_WORKER, epoch, &fd, e);
    if (rc == 0) {
        h = (struct wire_hello) {
            .magic = WIRE_MAGIC, .major = WIRE_MAJOR, .minor = WIRE_MINOR,
            .n_slot = s->n_slot, .window = s->window, .e2w_ring_bytes = s->e2w_ring_bytes,
            .epoch = epoch,
        };
        rc = hello_send(sock, &h, fd, e);
        close(fd);
    }

    if (rc != 0) {
        wire_link_close(l);
    }

    return rc;
}

/* What the engine answered, apart from its segment. */
static int welcome_check(const struct wire_link *l, struct wire_hello *h, int fd, struct err *e)
{
    if (h->magic != WIRE_MAGIC) {
        return err_set(e, E_INVALID, "HELLO: wrong magic: not an engine");
    }

    if (h->status != WIRE_HELLO_OK) {
        for (char *p = h->msg; *p != '\0'; p++) {
            if (*p < ' ' || *p > '~') {
                *p = '?';
            }
        }

        return err_set(e, E_INVALID, "refused by the engine: %s", h->msg);
    }

    if (h->major != WIRE_MAJOR) {
        return err_set(e, E_INVALID, "the engine speaks wire version %u, this is %u", h->major,
                       WIRE_MAJOR);
    }

    if (h->n_slot != l->sizes.n_slot || h->window != l->sizes.window
        || h->e2w_ring_bytes != l->sizes.e2w_ring_bytes)
    {
        return err_set(e, E_INVALID, "HELLO: the engine echoed other sizes");
    }

    if (fd == -1) {
        return err_set(e, E_INVALID, "HELLO: no segment came with it");
    }

    return 0;
}

int wire_link_welcome(struct wire_link *l, int sock, struct err *e)
{
    int                fd, rc;
    struct wire_hello  h;

    rc = hello_recv(sock, &h, &fd, e);
    if (rc == E_AGAIN) {
        return rc;
    }

    if (rc == 0) {
        rc = welcome_check(l, &h, fd, e);
    }

    if (rc == 0) {
        rc = seg_map(l, fd, e);
    }

    if (rc == 0) {
        rc = attach(l, WIRE_WORKER, h.epoch, e);
    }

    if (rc == 0 && l->ring.rx_bytes != l->sizes.e2w_ring_bytes) {
        rc = err_set(e, E_INVALID, "segment: the reply ring is not of the agreed size");
    }

    if (fd != -1) {
        close(fd);
    }

    if (rc != 0) {
        wire_link_close(l);
    }

    return rc;
}

void wire_link_refuse(int sock, uint32_t status, const char *msg)
{
    struct wire_hello h = {
        .magic = WIRE_MAGIC, .major = WIRE_MAJOR, .minor = WIRE_MINOR, .status = status,
    };

    memcpy(h.msg, msg, strnlen(msg, sizeof(h.msg) - 1));
    (void) hello_send(sock, &h, -1, NULL);
}

/* The worker's wishes; *status is for the refusal. */
static int accept_check(struct wire_link *l, const struct wire_hello *h, int fd,
                        uint32_t *status, struct err *e)
{
    int rc;

    *status = WIRE_HELLO_VERSION;

    if (h->magic != WIRE_MAGIC) {
        return err_set(e, E_INVALID, "HELLO: wrong magic: not a worker");
    }

    if (h->major != WIRE_MAJOR) {
        return err_set(e, E_INVALID, "the worker speaks wire version %u, this engine %u", h->major,
                       WIRE_MAJOR);
    }

    *status = WIRE_HELLO_LIMIT;

    if (fd == -1 || h->status != WIRE_HELLO_OK) {
        return err_set(e, E_INVALID, "HELLO: no segment came with it");
    }

    l->sizes = (struct wire_sizes) {
        .n_slot = h->n_slot, .window = h->window, .w2e_ring_bytes = WIRE_RING_MIN,
        .e2w_ring_bytes = h->e2w_ring_bytes,
    };

    rc = wire_sizes_check(&l->sizes, e);

    return rc == 0 ? seg_map(l, fd, e) : rc;
}

int wire_link_accept(struct wire_link *l, int sock, uint64_t epoch, struct err *e)
{
    int                fd, own_fd = -1, rc;
    uint32_t           status = WIRE_HELLO_VERSION;
    struct err         why = { 0 };
    struct wire_hello  h;

    *l = (struct wire_link) { 0 };

    rc = hello_recv(sock, &h, &fd, &why);
    if (rc == E_AGAIN) {
        return rc;
    }

    if (rc == 0) {
        rc = accept_check(l, &h, fd, &status, &why);
    }

    if (rc == 0) {
        rc = seg_create(l, WIRE_ENGINE, epoch, &own_fd, &why);
    }

    if (rc == 0) {
        rc = attach(l, WIRE_ENGINE, h.epoch, &why);
        l->sizes.w2e_ring_bytes = (uint32_t) l->ring.rx_bytes;

        if (rc == 0) {
            h.minor = WIRE_MINOR;
            h.epoch = epoch;
            memset(h.msg, 0, sizeof(h.msg));
            rc = hello_send(sock, &h, own_fd, &why);
        }

        close(own_fd);
    }

    if (fd != -1) {
        close(fd);
    }

    if (rc != 0) {
        if (rc != E_GONE) {
            wire_link_refuse(sock, status, why.msg);
        }

        wire_link_close(l);
        return err_set(e, rc, "%s", why.msg);
    }

    return 0;
}

int wire_bell(int sock, char byte)
{
    ssize_t n;

    do {
        n = send(sock, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n == -1 && errno == EINTR);

    return n == 1 || errno == EAGAIN ? 0 : E_GONE;
}

int wire_bell_drain(int sock, int *goaway)
{
    char     buf[4096];
    ssize_t  n;

    /* More than a socket can hold has come since the caller's event, so a new event is due: a peer
     * that never stops sending does not keep us here. */
    for (int round = 0; round < 64; round++) {
        n = recv(sock, buf, sizeof(buf), MSG_DONTWAIT);

        if (n == -1 && errno == EINTR) {
            continue;
        }

        if (n == -1) {
            return errno == EAGAIN ? 0 : E_GONE;
        }

        if (n == 0) {
            return E_GONE;
        }

        for (ssize_t i = 0; i < n; i++) {
            if (buf[i] == WIRE_BYTE_GOAWAY && goaway != NULL) {
                *goaway = 1;

            } else if (buf[i] != WIRE_BYTE_WAKE) {
                return E_INVALID;
            }
        }
    }

    return 0;
}
