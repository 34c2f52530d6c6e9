#define _GNU_SOURCE
#include "work.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define EVENT_MAX  64
#define BEAT_NS    (WIRE_HEARTBEAT_MS * 1000000ull)
#define BACKLOG    512

uint64_t api_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t) t.tv_sec * 1000000000u + (uint64_t) t.tv_nsec;
}

struct serve *api_serve(struct api *a)
{
    return atomic_load_explicit(&a->serve, memory_order_acquire);
}

void api_wake(struct api *a, int port)
{
    struct port *p = &a->port[port];
    uint64_t     one = 1;

    if (!atomic_exchange(&p->woken, true))
        (void) !write(p->wake_fd, &one, sizeof(one));
}

static void wake_all(struct api *a)
{
    for (int i = 0; i < a->c.n_thread; i++)
        api_wake(a, i);
}

/* Links: port 0 accepts and gives each to the port with the fewest. */

static struct port *least_busy(struct api *a)
{
    struct port *best = &a->port[0];

    for (int i = 1; i < a->c.n_thread; i++)
        if (atomic_load(&a->port[i].n_link) < atomic_load(&best->n_link))
            best = &a->port[i];
    return best;
}

static void accept_all(struct api *a)
{
    int fd;

    while ((fd = accept4(a->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct port *p = least_busy(a);

        if (atomic_load(&p->n_link) >= API_LINK_MAX) {
            wire_link_refuse(fd, WIRE_HELLO_LIMIT, "too many links");
            close(fd);
            continue;
        }

        atomic_fetch_add(&p->n_link, 1);
        pthread_mutex_lock(&p->inbox_lock);
        p->inbox[p->n_inbox++] = fd;       /* never more than n_link */
        pthread_mutex_unlock(&p->inbox_lock);
        api_wake(a, p->index);
    }
}

static void take_inbox(struct port *p)
{
    int fd[API_LINK_MAX], n;

    pthread_mutex_lock(&p->inbox_lock);
    n = p->n_inbox;
    memcpy(fd, p->inbox, (size_t) n * sizeof(fd[0]));
    p->n_inbox = 0;
    pthread_mutex_unlock(&p->inbox_lock);

    for (int i = 0; i < n; i++)
        link_open(p, fd[i]);
}

/* The thread */

static void woken(struct port *p)
{
    uint64_t v;

    (void) !read(p->wake_fd, &v, sizeof(v));
    atomic_store(&p->woken, false);        /* before looking: a later wake writes again */
    take_inbox(p);
    work_take_done(p);
    for (struct link *l = p->links; l != NULL; l = l->next) {
        if (atomic_load(&p->api->draining))
            link_goaway(l);
        link_poll(l);
    }
}

/* Also the safety net: a bell that was lost costs one beat, not a hang. */
static void beat(struct port *p, uint64_t now)
{
    p->beat_ns = now + BEAT_NS;
    for (struct link *l = p->links; l != NULL; l = l->next) {
        link_beat(l);
        link_poll(l);
    }
}

static void *port_main(void *arg)
{
    struct port       *p = arg;
    struct api        *a = p->api;
    struct epoll_event ev[EVENT_MAX];
    uint64_t           now;
    int                n;

    while (!atomic_load(&a->stopping)) {
        now = api_now_ns();
        n = epoll_wait(p->epfd, ev, EVENT_MAX,
                       now >= p->beat_ns ? 0 : (int) ((p->beat_ns - now + 999999) / 1000000));

        for (int i = 0; i < n; i++) {
            if (ev[i].data.ptr == &p->wake_fd)
                woken(p);
            else if (ev[i].data.ptr == &a->listen_fd)
                accept_all(a);
            else
                link_event(ev[i].data.ptr);
        }

        early_end(p);
        gen_pump_all(p);

        now = api_now_ns();
        if (now >= p->beat_ns)
            beat(p, now);
        for (struct link *l = p->links; l != NULL; l = l->next)
            link_publish(l);
        link_reap(p, false);
    }

    return NULL;
}

/* Open and close */

static int set_owner(const struct api_conf *c, struct err *e)
{
    struct group *g;

    if (chmod(c->socket_path, (mode_t) c->socket_mode) != 0)
        return err_set(e, E_IO, "%s: chmod: %s", c->socket_path, strerror(errno));
    if (c->socket_group == NULL)
        return 0;

    g = getgrnam(c->socket_group);
    if (g == NULL)
        return err_set(e, E_INVALID, "%s: no such group: %s", c->socket_path, c->socket_group);
    if (chown(c->socket_path, (uid_t) -1, g->gr_gid) != 0)
        return err_set(e, E_IO, "%s: chown: %s", c->socket_path, strerror(errno));
    return 0;
}

/* A socket file that nobody listens on is left over from a crash; a living one is not ours. */
static int remove_stale(const struct sockaddr_un *sa, struct err *e)
{
    struct stat st;
    int         fd, why;

    if (lstat(sa->sun_path, &st) != 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return err_set(e, E_IO, "%s: exists and is not a socket", sa->sun_path);

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(e, E_IO, "socket: %s", strerror(errno));
    why = connect(fd, (const struct sockaddr *) sa, sizeof(*sa)) == 0 ? 0 : errno;
    close(fd);
    if (why == 0 || why == EAGAIN)             /* EAGAIN: its backlog is full */
        return err_set(e, E_IO, "%s: another process listens there", sa->sun_path);
    if (why != ECONNREFUSED)
        return err_set(e, E_IO, "%s: exists, and whether anybody listens there cannot be told: %s",
                       sa->sun_path, strerror(why));
    if (unlink(sa->sun_path) != 0)
        return err_set(e, E_IO, "%s: unlink: %s", sa->sun_path, strerror(errno));
    return 0;
}

static void listen_failed(const char *path, int why, struct err *e)
{
    const char *slash = strrchr(path, '/');

    if (why == ENOENT && slash != NULL)
        err_set(e, E_IO, "%s: the directory %.*s is missing", path, (int) (slash - path), path);
    else
        err_set(e, E_IO, "%s: %s", path, strerror(why));
}

static int listen_unix(struct api *a, struct err *e)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    mode_t             mask;
    int                fd, rc;

    if (strlen(a->c.socket_path) >= sizeof(sa.sun_path))
        return err_set(e, E_INVALID, "%s: longer than %zu bytes", a->c.socket_path,
                       sizeof(sa.sun_path) - 1);
    strcpy(sa.sun_path, a->c.socket_path);
    if ((rc = remove_stale(&sa, e)) != 0)
        return rc;

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(e, E_IO, "socket: %s", strerror(errno));

    mask = umask(0177);                    /* nobody else until the mode is set */
    rc = bind(fd, (struct sockaddr *) &sa, sizeof(sa));
    umask(mask);
    if (rc != 0 || listen(fd, BACKLOG) != 0) {
        listen_failed(sa.sun_path, errno, e);
        close(fd);
        return E_IO;
    }

    a->listen_fd = fd;
    return set_owner(&a->c, e);
}

static int port_open(struct api *a, int index, struct err *e)
{
    struct port       *p = &a->port[index];
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &p->wake_fd };

    p->epfd = epoll_create1(EPOLL_CLOEXEC);
    p->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (p->epfd < 0 || p->wake_fd < 0 || epoll_ctl(p->epfd, EPOLL_CTL_ADD, p->wake_fd, &ev) != 0)
        return err_set(e, E_IO, "epoll: %s", strerror(errno));

    ev.data.ptr = &a->listen_fd;
    if (index == 0 && epoll_ctl(p->epfd, EPOLL_CTL_ADD, a->listen_fd, &ev) != 0)
        return err_set(e, E_IO, "epoll: %s", strerror(errno));
    return 0;
}

/* Names the build and the model's shape, so that a seed means the same where this is the same. */
static void make_fingerprint(struct api *a, const struct model_conf *mc)
{
    int32_t  v[] = { mc->n_layer, mc->hidden, mc->vocab, mc->n_expert, mc->ffn };
    uint32_t h = 2166136261u;

    for (const char *s = a->c.version; *s != '\0'; s++)
        h = (h ^ (uint8_t) *s) * 16777619u;
    for (const char *s = mc->name; *s != '\0'; s++)
        h = (h ^ (uint8_t) *s) * 16777619u;
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
        h = (h ^ (uint32_t) v[i]) * 16777619u;
    snprintf(a->fingerprint, sizeof(a->fingerprint), "fp_%08x", h);
}

int api_open(struct api **out, const struct api_conf *c, struct api_load *load, struct err *e)
{
    struct api *a;
    int         rc;

    if (c->n_thread < 1 || c->n_thread > SERVE_PORT_MAX || c->n_model_name < 1)
        return err_set(e, E_INVALID, "api: 1 to %d threads and a model name are needed",
                       SERVE_PORT_MAX);

    a = calloc(1, sizeof(*a));
    if (a == NULL)
        return err_set(e, E_FULL, "api: out of memory");
    a->c = *c;
    a->load = load;
    a->listen_fd = -1;
    a->created = (int64_t) time(NULL);
    for (int i = 0; i < c->n_thread; i++) {
        a->port[i].api = a;
        a->port[i].index = i;
        a->port[i].epfd = a->port[i].wake_fd = -1;
        pthread_mutex_init(&a->port[i].inbox_lock, NULL);
        pthread_mutex_init(&a->port[i].gens_lock, NULL);
    }

    rc = getrandom(&a->key, sizeof(a->key), 0) == sizeof(a->key)
         ? 0 : err_set(e, E_IO, "getrandom: %s", strerror(errno));
    if (rc == 0 && (a->grammars = grammars_open(&a->key, API_GRAMMAR_CACHE_MAX)) == NULL)
        rc = err_set(e, E_FULL, "api: out of memory");
    if (rc == 0 && c->key_file != NULL)
        rc = keyring_open(&a->keys, c->key_file, &a->key, e);
    if (rc == 0)
        rc = listen_unix(a, e);
    for (int i = 0; rc == 0 && i < c->n_thread; i++)
        rc = port_open(a, i, e);
    for (int i = 0; rc == 0 && i < c->n_thread; i++) {
        if (reader_open(&a->port[i]) != 0
            || pthread_create(&a->port[i].thread, NULL, port_main, &a->port[i]) != 0)
            rc = err_set(e, E_IO, "api: cannot start a thread");
        else
            a->port[i].started = true;
    }

    if (rc != 0) {
        api_close(a);
        return rc;
    }
    *out = a;
    return 0;
}

void api_ready(struct api *a, struct serve *s, const struct model_conf *mc, const struct tok *tok,
               const struct vocab *vocab, enum chat_variant variant)
{
    a->mc = mc;
    a->tok = tok;
    a->vocab = vocab;
    a->variant = variant;
    if (tok != NULL)
        channel_ids_find(tok, &a->ids);
    a->tok_bytes_max = 1;
    for (int32_t i = 0; tok != NULL && i < tok_n_vocab(tok); i++)
        if (tok_entry(tok, i).n > a->tok_bytes_max)
            a->tok_bytes_max = tok_entry(tok, i).n;
    make_fingerprint(a, mc);
    atomic_store_explicit(&a->serve, s, memory_order_release);
}

bool api_drain(struct api *a)
{
    bool first = !atomic_exchange(&a->draining, true);

    wake_all(a);
    return first;
}

int api_reload_keys(struct api *a, int *n_key, int *n_admin, struct err *e)
{
    int rc;

    if (a->keys == NULL)
        return err_set(e, E_INVALID, "there is no --api-key-file to read again");
    rc = keyring_reload(a->keys, e);
    *n_key = keyring_n(a->keys, KEY_USER);
    *n_admin = keyring_n(a->keys, KEY_ADMIN);
    return rc;
}

int32_t api_n_active(struct api *a)
{
    return atomic_load(&a->n_stream);
}

void api_close(struct api *a)
{
    atomic_store(&a->stopping, true);
    wake_all(a);

    for (int i = 0; i < a->c.n_thread; i++) {
        struct port *p = &a->port[i];

        if (p->started)
            pthread_join(p->thread, NULL);
        take_inbox(p);
        gen_drop_all(p);
        link_reap(p, true);
        reader_close(p);
        if (p->epfd >= 0)
            close(p->epfd);
        if (p->wake_fd >= 0)
            close(p->wake_fd);
        pthread_mutex_destroy(&p->inbox_lock);
        pthread_mutex_destroy(&p->gens_lock);
    }

    if (a->listen_fd >= 0) {
        close(a->listen_fd);
        unlink(a->c.socket_path);
    }
    keyring_close(a->keys);
    grammars_close(a->grammars);
    free(a);
}
