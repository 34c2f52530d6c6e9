/* runner.c - steps are launched in order, the next one while the one before runs; pops come in the
 * order of pushes; behind a failure all fails, whoever found it; there is no idle work beside a
 * step or behind a failure. */
#include "tap.h"
#include "runner.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

/* A device: what is launched runs until `done` says so. Steps are known by their n_tok. */
struct device {
    sem_t      launched, done, idled;
    int32_t    order[64], n_launch, n_wait;
    int32_t    bad_launch, bad_wait;           /* of this step; 0: none */
    atomic_int n_idle;
};

static int launch(void *arg, struct batch *b, struct step_out *o, struct err *e)
{
    struct device *d = arg;

    (void) o;
    if (b->n_tok == d->bad_launch)
        return err_set(e, E_INVALID, "launch of %d", (int) b->n_tok);
    d->order[d->n_launch++] = b->n_tok;
    sem_post(&d->launched);
    return 0;
}

static int wait_for(void *arg, struct err *e)
{
    struct device *d = arg;
    int32_t now = d->order[d->n_wait++];

    sem_wait(&d->done);
    return now == d->bad_wait ? err_set(e, E_GPU, "wait for %d", (int) now) : 0;
}

static bool idle(void *arg)
{
    struct device *d = arg;

    d->n_idle++;
    sem_post(&d->idled);
    return true;
}

static struct batch    batch[64];
static struct step_out out;

static struct runner *start(struct device *d, runner_idle *be_idle)
{
    struct runner *r = NULL;
    struct err e;

    sem_init(&d->launched, 0, 0);
    sem_init(&d->done, 0, 0);
    sem_init(&d->idled, 0, 0);
    for (int32_t i = 0; i < 64; i++)
        batch[i].n_tok = i;
    ok(runner_open(&r, &(struct runner_hooks) { launch, wait_for, be_idle, d }, &e) == 0, "opened");
    return r;
}

static void push(struct runner *r, int32_t i)
{
    runner_push(r, &batch[i], &out);
}

static void test_order(void)
{
    struct device d = {0};
    struct runner *r = start(&d, NULL);
    struct err e = {0};
    int right = 1;

    push(r, 1);
    push(r, 2);
    sem_wait(&d.launched);
    sem_wait(&d.launched);
    is_int(d.n_wait, 0, "the second step is launched while the first one runs");
    for (int32_t i = 3; i < 64; i++) {
        sem_post(&d.done);
        right &= runner_pop(r, &e) == 0 && d.n_wait == i - 2;
        push(r, i);
        sem_wait(&d.launched);
    }
    for (int32_t i = 0; i < 2; i++) {
        sem_post(&d.done);
        right &= runner_pop(r, &e) == 0;
    }
    for (int32_t i = 0; i < 63; i++)
        right &= d.order[i] == i + 1;
    ok(right && d.n_wait == 63, "63 steps, two at a time: each launched and waited for in order");
    runner_close(r);
}

static void test_bad_launch(void)
{
    struct device d = { .bad_launch = 2 };
    struct runner *r = start(&d, NULL);
    struct err e = {0};

    push(r, 1);
    push(r, 2);
    sem_post(&d.done);
    is_int(runner_pop(r, &e), 0, "the step before one that cannot be launched is done");
    push(r, 3);
    is_int(runner_pop(r, &e), E_INVALID, "that is refused,");
    is_str(e.msg, "launch of 2", "in its words,");
    is_int(runner_pop(r, &e), E_INVALID, "the one behind it too,");
    is_str(e.msg, "launch of 2", "in the same words");
    push(r, 4);
    is_int(runner_pop(r, &e), E_INVALID, "and all that come,");
    is_int(d.n_launch, 1, "without a launch");
    is_int(d.n_wait, 1, "or a wait");
    runner_close(r);
}

static void test_bad_wait(void)
{
    struct device d = { .bad_wait = 1 };
    struct runner *r = start(&d, NULL);
    struct err e = {0};

    push(r, 1);
    push(r, 2);
    sem_wait(&d.launched);
    sem_wait(&d.launched);
    sem_post(&d.done);
    is_int(runner_pop(r, &e), E_GPU, "a step fails on the device");
    push(r, 3);
    is_int(runner_pop(r, &e), E_GPU, "the one launched behind it is lost");
    is_str(e.msg, "wait for 1", "in the same words");
    is_int(runner_pop(r, &e), E_GPU, "and the next,");
    is_int(d.n_launch, 2, "without a launch");
    is_int(d.n_wait, 1, "or a wait");
    runner_close(r);
}

static void test_idle(void)
{
    struct device d = {0};
    struct runner *r = start(&d, idle);
    struct timespec some = { .tv_nsec = 6 * RUNNER_IDLE_MS * 1000000 };
    struct err e = {0};
    int n;

    sem_wait(&d.idled);
    push(r, 1);
    sem_wait(&d.launched);
    n = d.n_idle;
    nanosleep(&some, NULL);
    is_int(d.n_idle, n, "no idle work while a step runs");
    sem_post(&d.done);
    runner_pop(r, &e);
    nanosleep(&some, NULL);
    ok(d.n_idle > n, "but after it");
    push(r, 2);
    runner_close(r);
    is_int(d.n_launch, 2, "the close comes after what was pushed");
}

static void test_idle_end(void)
{
    struct device d = { .bad_wait = 1 };
    struct runner *r = start(&d, idle);
    struct timespec some = { .tv_nsec = 6 * RUNNER_IDLE_MS * 1000000 };
    struct err e = {0};
    int n;

    push(r, 1);
    sem_wait(&d.launched);
    n = d.n_idle;
    sem_post(&d.done);
    is_int(runner_pop(r, &e), E_GPU, "a step fails");
    nanosleep(&some, NULL);
    is_int(d.n_idle, n, "no idle work behind a failure");
    runner_close(r);
}

int main(void)
{
    alarm(60);                             /* what does not come ends the test */
    test_order();
    test_bad_launch();
    test_bad_wait();
    test_idle();
    test_idle_end();
    return done_testing();
}
