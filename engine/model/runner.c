#include "runner.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct flight { struct batch *b; struct step_out *o; struct err e; };

struct runner {
    runner_fn      *fn;
    void           *arg;
    pthread_t       thread;
    pthread_mutex_t lock;
    pthread_cond_t  changed;
    struct flight   flight[MODEL_FLIGHT_MAX];
    uint32_t        n_push, n_done, n_pop;     /* free-running */
    bool            stop;
};

static void *run(void *arg)
{
    struct runner *r = arg;

    pthread_mutex_lock(&r->lock);
    for (;;) {
        struct flight *f = &r->flight[r->n_done % MODEL_FLIGHT_MAX];

        while (r->n_done == r->n_push && !r->stop)
            pthread_cond_wait(&r->changed, &r->lock);
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

int runner_open(struct runner **out, runner_fn *fn, void *arg, struct err *e)
{
    struct runner *r = calloc(1, sizeof(*r));
    int rc;

    if (r == NULL)
        return err_set(e, E_IO, "out of memory");
    r->fn = fn;
    r->arg = arg;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);

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
