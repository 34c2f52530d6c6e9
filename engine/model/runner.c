#include "runner.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct flight { struct batch *b; struct step_out *o; struct err e; };

struct runner {
    runner_fn      *fn;
    runner_idle    *idle;                      /* NULL: nothing to do */
    void           *arg;
    pthread_t       thread;
    pthread_mutex_t lock;
    pthread_cond_t  changed;
    struct flight   flight[MODEL_FLIGHT_MAX];
    uint32_t        n_push, n_done, n_pop;     /* free-running */
    bool            stop;
};

/* With the lock held, as at the return. false: RUNNER_IDLE_MS went by without news. */
static bool wait_for_news(struct runner *r)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += RUNNER_IDLE_MS * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    if (r->idle != NULL)
        return pthread_cond_timedwait(&r->changed, &r->lock, &until) != ETIMEDOUT;
    pthread_cond_wait(&r->changed, &r->lock);
    return true;
}

static void be_idle(struct runner *r)
{
    bool more;

    pthread_mutex_unlock(&r->lock);
    more = r->idle(r->arg);
    pthread_mutex_lock(&r->lock);
    if (!more)
        r->idle = NULL;
}

static void *run(void *arg)
{
    struct runner *r = arg;

    pthread_mutex_lock(&r->lock);
    for (;;) {
        struct flight *f = &r->flight[r->n_done % MODEL_FLIGHT_MAX];

        while (r->n_done == r->n_push && !r->stop)
            if (!wait_for_news(r))
                be_idle(r);
        if (r->n_done == r->n_push)
            break;

        pthread_mutex_unlock(&r->lock);
        f->e.code = 0;
        r->fn(r->arg, f->b, f->o, &f->e);
        pthread_mutex_lock(&r->lock);
        r->n_done++;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

int runner_open(struct runner **out, runner_fn *fn, runner_idle *idle, void *arg, struct err *e)
{
    struct runner *r = calloc(1, sizeof(*r));
    pthread_condattr_t clock;
    int rc;

    if (r == NULL)
        return err_set(e, E_IO, "out of memory");
    r->fn = fn;
    r->idle = idle;
    r->arg = arg;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &clock);
    pthread_condattr_destroy(&clock);

    rc = pthread_create(&r->thread, NULL, run, r);
    if (rc != 0) {
        free(r);
        return err_set(e, E_IO, "pthread_create: %s", strerror(rc));
    }
    *out = r;
    return 0;
}

void runner_close(struct runner *r)
{
    if (r == NULL)
        return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
    free(r);
}

void runner_push(struct runner *r, struct batch *b, struct step_out *o)
{
    pthread_mutex_lock(&r->lock);
    assert(r->n_push - r->n_pop < MODEL_FLIGHT_MAX);
    r->flight[r->n_push++ % MODEL_FLIGHT_MAX] = (struct flight) { .b = b, .o = o };
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

int runner_pop(struct runner *r, struct err *e)
{
    struct flight *f = &r->flight[r->n_pop % MODEL_FLIGHT_MAX];

    pthread_mutex_lock(&r->lock);
    assert(r->n_pop != r->n_push);
    while (r->n_done == r->n_pop)
        pthread_cond_wait(&r->changed, &r->lock);
    r->n_pop++;
    pthread_mutex_unlock(&r->lock);
    return f->e.code == 0 ? 0 : err_set(e, f->e.code, "%s", f->e.msg);
}
