#include "pump.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct job { struct be_file from; uint64_t bytes; char *to; };

struct pump {
    struct pump_hooks h;
    pthread_mutex_t     lock;
    pthread_cond_t      work, news;        /* for the threads; for who asks what is left */
    struct job          job[PUMP_JOB_MAX];
    int                 n_job, now;        /* now: the job that parts are taken from, */
    uint64_t            at;                /* from here on */
    uint64_t            left;
    bool                stop;
    struct err          e;                 /* the first failure */
    pthread_t           thread[PUMP_THREAD_MAX];
    int                 n_thread, n_started;
};

/* A part is nobody else's once it was taken. Blocks; false: there is none any more. */
static bool take(struct pump *r, struct job *part, bool block)
{
    while (r->now == r->n_job && !r->stop && block)
        pthread_cond_wait(&r->work, &r->lock);
    if (r->now == r->n_job || r->stop)
        return false;

    *part = r->job[r->now];
    part->from.off += r->at;
    part->to += r->at;
    part->bytes -= r->at;
    if (part->bytes > PUMP_BYTES)
        part->bytes = PUMP_BYTES;
    r->at += part->bytes;
    if (r->at == r->job[r->now].bytes) {
        r->now++;
        r->at = 0;
    }
    return true;
}

int pump_read(const struct be_file *from, void *to, uint64_t bytes, struct err *e)
{
    for (uint64_t at = 0; at < bytes; ) {
        uint64_t off = from->off + at;
        ssize_t n = pread(from->fd, (char *) to + at, bytes - at, (off_t) off);

        if (n > 0)
            at += (uint64_t) n;
        else if (n == 0)
            return err_set(e, E_IO, "%s: ends at byte %llu: it shrank while it was read",
                           from->name, (unsigned long long) off);
        else if (errno != EINTR)
            return err_set(e, E_IO, "%s: at byte %llu: %s", from->name, (unsigned long long) off,
                           strerror(errno));
    }
    return 0;
}

/* Buffer k is free again: what it carried has arrived. */
static int arrive(struct pump *r, int k, uint64_t *sent, struct err *e)
{
    int rc = *sent > 0 ? r->h.wait(r->h.arg, k, e) : 0;

    if (rc == 0 && *sent > 0) {
        pthread_mutex_lock(&r->lock);
        r->left -= *sent;
        pthread_cond_broadcast(&r->news);
        pthread_mutex_unlock(&r->lock);
    }
    *sent = 0;
    return rc;
}

/* Parts until there are none for now. first: the buffers of this thread. */
static int carry(struct pump *r, int first, struct err *e)
{
    uint64_t sent[2] = { 0, 0 };
    struct job part;
    int rc = 0, k;

    for (int i = 0; rc == 0; i = !i) {
        char *buffer;
        bool got;

        pthread_mutex_lock(&r->lock);
        got = take(r, &part, sent[0] == 0 && sent[1] == 0);
        pthread_mutex_unlock(&r->lock);
        if (!got)
            break;
        k = first + i;
        buffer = r->h.buffer + (size_t) k * PUMP_BYTES;
        if ((rc = arrive(r, k, &sent[i], e)) == 0
            && (rc = pump_read(&part.from, buffer, part.bytes, e)) == 0
            && (rc = r->h.send(r->h.arg, k, part.to, buffer, part.bytes, e)) == 0)
            sent[i] = part.bytes;
    }
    for (int i = 0; i < 2; i++) {
        int end = arrive(r, first + i, &sent[i], e);

        rc = rc != 0 ? rc : end;
    }
    return rc;
}

struct start { struct pump *r; int first; };

static void *run(void *arg)
{
    struct start s = *(struct start *) arg;
    struct pump *r = s.r;
    struct err e;
    bool stop = false;
    int rc;

    free(arg);
    while (!stop) {
        rc = carry(r, s.first, &e);
        pthread_mutex_lock(&r->lock);
        if (rc != 0) {
            if (r->e.code == 0)
                r->e = e;
            r->stop = true;
            pthread_cond_broadcast(&r->work);
            pthread_cond_broadcast(&r->news);
        }
        stop = r->stop;
        pthread_mutex_unlock(&r->lock);
    }
    return NULL;
}

int pump_open(struct pump **out, int n_thread, const struct pump_hooks *h, struct err *e)
{
    struct pump *r = calloc(1, sizeof(*r));
    pthread_condattr_t clock;

    if (r == NULL)
        return err_set(e, E_IO, "out of memory");
    r->h = *h;
    r->n_thread = n_thread < PUMP_THREAD_MAX ? n_thread : PUMP_THREAD_MAX;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->work, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&r->news, &clock);
    pthread_condattr_destroy(&clock);

    for (int i = 0; i < r->n_thread; i++) {
        struct start *s = malloc(sizeof(*s));

        if (s != NULL)
            *s = (struct start) { r, 2 * i };
        if (s == NULL || pthread_create(&r->thread[i], NULL, run, s) != 0) {
            free(s);
            pump_close(r);
            return err_set(e, E_IO, "no thread to read files with");
        }
        r->n_started++;
    }
    *out = r;
    return 0;
}

int pump_add(struct pump *r, const struct be_file *from, uint64_t bytes, void *to)
{
    int rc = 0;

    if (bytes == 0)
        return 0;
    pthread_mutex_lock(&r->lock);
    if (r->n_job == PUMP_JOB_MAX) {
        rc = E_FULL;
    } else {
        r->job[r->n_job++] = (struct job) { *from, bytes, to };
        r->left += bytes;
        pthread_cond_broadcast(&r->work);
    }
    pthread_mutex_unlock(&r->lock);
    return rc;
}

int pump_left(struct pump *r, int ms, uint64_t *left, struct err *e)
{
    struct timespec until;
    int rc = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long) ms % 1000 * 1000000;
    until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;

    pthread_mutex_lock(&r->lock);
    while (r->left > 0 && r->e.code == 0 && rc == 0)
        rc = pthread_cond_timedwait(&r->news, &r->lock, &until);
    *left = r->left;
    rc = r->e.code == 0 ? 0 : err_set(e, r->e.code, "%s", r->e.msg);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

void pump_close(struct pump *r)
{
    if (r == NULL)
        return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_broadcast(&r->work);
    pthread_mutex_unlock(&r->lock);
    for (int i = 0; i < r->n_started; i++)
        pthread_join(r->thread[i], NULL);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->work);
    pthread_cond_destroy(&r->news);
    free(r);
}
