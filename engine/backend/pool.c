/* pool.c - a loop is open or closed; a thread that comes in time takes part, one that comes late
 * finds it closed, so nobody ever waits for a sleeper to wake up. */
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define POOL_THREAD_MAX  256
#define POOL_SPIN        4000          /* pauses before sleeping: a few dozen microseconds */

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t  go;
    pthread_t       thread[POOL_THREAD_MAX];
    int             n_thread, n_started;

    /* the loop: written by the caller while it is closed and no thread is inside */
    pool_fn        *fn;
    void           *arg;
    int64_t         n, grain;

    atomic_uint     gen;               /* +1 for each loop */
    atomic_bool     open;              /* inside first, then open; open first, then inside: */
    atomic_int      inside;            /* either the thread sees it closed or the caller waits */
    atomic_int      asleep;            /* likewise with gen */
    atomic_bool     stop;
    _Alignas(64) atomic_llong next;    /* first item that nobody has taken */
};

struct worker { struct pool *p; int id; };

static inline void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

static void work(struct pool *p, int id)
{
    int64_t lo, hi;

    while ((lo = atomic_fetch_add(&p->next, p->grain)) < p->n) {
        hi = lo + p->grain < p->n ? lo + p->grain : p->n;
        p->fn(p->arg, lo, hi, id);
    }
}

static void wait_gen(struct pool *p, unsigned seen)
{
    for (int i = 0; i < POOL_SPIN; i++) {
        if (atomic_load(&p->gen) != seen)
            return;
        pause_cpu();
    }

    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->asleep, 1);
    while (atomic_load(&p->gen) == seen)
        pthread_cond_wait(&p->go, &p->lock);
    atomic_fetch_sub(&p->asleep, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *arg)
{
    struct worker w = *(struct worker *) arg;
    unsigned seen = 0;

    free(arg);
    for (;;) {
        wait_gen(w.p, seen);
        seen = atomic_load(&w.p->gen);
        if (atomic_load(&w.p->stop))
            return NULL;

        atomic_fetch_add(&w.p->inside, 1);
        if (atomic_load(&w.p->open))
            work(w.p, w.id);
        atomic_fetch_sub(&w.p->inside, 1);
    }
}

static void wake(struct pool *p)
{
    atomic_fetch_add(&p->gen, 1);
    if (atomic_load(&p->asleep) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->go);
        pthread_mutex_unlock(&p->lock);
    }
}

void pool_run(struct pool *p, pool_fn *fn, void *arg, int64_t n, int64_t grain)
{
    if (n <= grain || p->n_started == 0) {             /* not worth a barrier */
        if (n > 0)
            fn(arg, 0, n, 0);
        return;
    }

    p->fn = fn;
    p->arg = arg;
    p->n = n;
    p->grain = grain;
    atomic_store(&p->next, 0);
    atomic_store(&p->open, true);
    wake(p);
    work(p, 0);

    atomic_store(&p->open, false);
    for (int i = 0; atomic_load(&p->inside) > 0; i++) {
        if (i < POOL_SPIN)
            pause_cpu();
        else
            sched_yield();                             /* a thread lost its core in mid-piece */
    }
}

int pool_open(struct pool **out, int n_thread, struct err *e)
{
    struct pool *p;

    if (n_thread < 1 || n_thread > POOL_THREAD_MAX)
        return err_set(e, E_INVALID, "threads: %d is not in 1..%d", n_thread, POOL_THREAD_MAX);
    p = aligned_alloc(64, (sizeof(*p) + 63) / 64 * 64);
    if (p == NULL)
        return err_set(e, E_IO, "out of memory");
    memset(p, 0, sizeof(*p));
    p->n_thread = n_thread;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->go, NULL);

    for (int i = 1; i < n_thread; i++) {
        struct worker *w = malloc(sizeof(*w));

        if (w != NULL)
            *w = (struct worker) { p, i };
        if (w == NULL || pthread_create(&p->thread[i], NULL, worker_main, w) != 0) {
            free(w);
            pool_close(p);
            return err_set(e, E_IO, "cannot start thread %d of %d", i, n_thread);
        }
        p->n_started++;
    }

    *out = p;
    return 0;
}

void pool_close(struct pool *p)
{
    if (p == NULL)
        return;

    atomic_store(&p->stop, true);
    wake(p);
    for (int i = 1; i <= p->n_started; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->go);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
