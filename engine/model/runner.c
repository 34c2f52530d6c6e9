#include "runner.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct flight { struct batch *b; struct step_out *o; struct err e; };

struct runner {
    struct runner_hooks h;                     /* idle NULL: nothing to do */
    pthread_t       thread;
    pthread_mutex_t lock;
    pthread_cond_t  changed;
    struct flight   flight[MODEL_FLIGHT_MAX];
    uint32_t        n_push, n_launch, n_pop;   /* free-running */
    struct err      failed;                    /* the first step popped that failed */
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
    /* A capture must not meet a step; behind a failure there is none. */
    if (r->h.idle != NULL && r->n_pop == r->n_push && r->failed.code == 0)
        return pthread_cond_timedwait(&r->changed, &r->lock, &until) != ETIMEDOUT;
    pthread_cond_wait(&r->changed, &r->lock);
    return true;
}

static void be_idle(struct runner *r)
{
    bool more;

    pthread_mutex_unlock(&r->lock);
    more = r->h.idle(r->h.arg);
    pthread_mutex_lock(&r->lock);
    if (!more)
        r->h.idle = NULL;
}

static void *run(void *arg)
{
    struct runner *r = arg;
    struct err e = {0};                        /* of the first step that failed, as known here */

    pthread_mutex_lock(&r->lock);
    for (;;) {
        struct flight *f = &r->flight[r->n_launch % MODEL_FLIGHT_MAX];

        while (r->n_launch == r->n_push && !r->stop)
            if (!wait_for_news(r))
                be_idle(r);
        if (r->n_launch == r->n_push)
            break;

        if (e.code == 0)
            e = r->failed;
        pthread_mutex_unlock(&r->lock);
        if (e.code == 0)
            r->h.launch(r->h.arg, f->b, f->o, &e);
        f->e = e;
        pthread_mutex_lock(&r->lock);
        r->n_launch++;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

int runner_open(struct runner **out, const struct runner_hooks *h, struct err *e)
{
    struct runner *r = calloc(1, sizeof(*r));
    pthread_condattr_t clock;
    int rc;

    if (r == NULL)
        return err_set(e, E_IO, "out of memory");
    r->h = *h;
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
    struct err why;

    pthread_mutex_lock(&r->lock);
    assert(r->n_pop != r->n_push);
    while (r->n_launch == r->n_pop)
        pthread_cond_wait(&r->changed, &r->lock);
    why = r->failed.code != 0 ? r->failed : r->flight[r->n_pop % MODEL_FLIGHT_MAX].e;
    pthread_mutex_unlock(&r->lock);

    if (why.code == 0)
        r->h.wait(r->h.arg, &why);

    pthread_mutex_lock(&r->lock);
    r->failed = why;
    if (++r->n_pop == r->n_push)
        pthread_cond_broadcast(&r->changed);           /* idle time begins */
    pthread_mutex_unlock(&r->lock);
    return why.code == 0 ? 0 : err_set(e, why.code, "%s", why.msg);
}
