/* pump.c - parts of files by several threads: every byte where it belongs, whatever the sizes; a
 * file that is short, shrinks or cannot be read ends it with words. */
#include "tap.h"
#include "pump.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define N_THREAD  4
#define N         (48ull << 20)            /* of the file */

static struct { void *to; const void *p; size_t n; } under_way[2 * N_THREAD];
static atomic_int n_send, fail_at, shrink_at = -1;
static struct err e;
static unsigned char *want, *got;
static char path[] = "build/pump-XXXXXX";
static int fd;

/* The copy happens when it is waited for, as late as a device may do it. */
static int send(void *arg, int k, void *to, const void *p, size_t n, struct err *err)
{
    int i = atomic_fetch_add(&n_send, 1);

    (void) arg;
    if (i == shrink_at && ftruncate(fd, 1000) != 0)
        return err_set(err, E_IO, "ftruncate");
    if (i == fail_at)
        return err_set(err, E_GPU, "the device is gone");
    under_way[k].to = to;
    under_way[k].p = p;
    under_way[k].n = n;
    return 0;
}

static int wait(void *arg, int k, struct err *err)
{
    (void) arg;
    (void) err;
    memcpy(under_way[k].to, under_way[k].p, under_way[k].n);
    memset((void *) under_way[k].p, 0xee, under_way[k].n);
    under_way[k].n = 0;
    return 0;
}

static struct pump *open_pump(void)
{
    static char *buffer;
    struct pump_hooks h = { .send = send, .wait = wait };
    struct pump *r = NULL;

    if (buffer == NULL)
        buffer = malloc(2 * N_THREAD * (size_t) PUMP_BYTES);
    h.buffer = buffer;
    n_send = 0;
    fail_at = -1;
    is_int(pump_open(&r, N_THREAD, &h, &e), 0, "open");
    return r;
}

/* Until nothing is left, or it failed. */
static int finish(struct pump *r)
{
    uint64_t left = 0, before = UINT64_MAX;
    int rc, rising = 0;

    while ((rc = pump_left(r, 1, &left, &e)) == 0 && left > 0) {
        rising += left > before;
        before = left;
    }
    if (rising)
        ok(0, "what is left rose");
    return rc;
}

static void whole(void)
{
    static const uint64_t size[] = { 1, 255, PUMP_BYTES - 1, PUMP_BYTES, PUMP_BYTES + 1, 0,
                                     2 * PUMP_BYTES + 7, 3 };
    struct pump *r = open_pump();
    uint64_t at = 0;

    for (int round = 0; round < 2; round++) {          /* the threads sleep in between */
        memset(got, 0, N);
        at = 0;
        for (size_t i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
            struct be_file f = { "f", fd, at, NULL };

            is_int(pump_add(r, &f, size[i], got + at), 0, "%llu bytes",
                   (unsigned long long) size[i]);
            at += size[i];
        }
        is_int(finish(r), 0, "all of them are there");
        ok(memcmp(got, want, at) == 0 && got[at] == 0, "each in its place, and no more");
    }
    for (int i = 0; i < PUMP_JOB_MAX - 14; i++)      /* the two rounds had seven with bytes */
        if (pump_add(r, &(struct be_file) { "f", fd, (uint64_t) i, NULL }, 1, got + i) != 0)
            ok(0, "job %d", i);
    is_int(pump_add(r, &(struct be_file) { "f", fd, 0, NULL }, 1, got), E_FULL, "one too many");
    is_int(finish(r), 0, "many small ones");
    is_int(memcmp(got, want, PUMP_JOB_MAX - 14), 0, "are all there");
    pump_close(r);
}

/* A job that must fail, after one that is fine. */
static void broken(int file, uint64_t off, const char *words)
{
    struct pump *r = open_pump();
    int rc;

    pump_add(r, &(struct be_file) { "good", fd, 0, NULL }, 1000, got);
    pump_add(r, &(struct be_file) { "model.safetensors", file, off, NULL }, 3 * PUMP_BYTES, got);
    rc = finish(r);
    ok(rc == E_IO && strstr(e.msg, words) && strstr(e.msg, "model.safetensors"), "%s", e.msg);
    is_int(finish(r), E_IO, "and again");
    pump_close(r);
}

/* Bytes that were sent and that nobody has waited for. */
static size_t not_waited(void)
{
    size_t n = 0;

    for (int k = 0; k < 2 * N_THREAD; k++)
        n += under_way[k].n;
    return n;
}

static void device(void)
{
    struct pump *r = open_pump();
    int n;

    fail_at = 2;
    pump_add(r, &(struct be_file) { "f", fd, 0, NULL }, N, got);
    is_int(finish(r), E_GPU, "a failing device: %s", e.msg);
    pump_close(r);

    r = open_pump();
    pump_add(r, &(struct be_file) { "f", fd, 0, NULL }, N, got);
    while (n_send == 0)
        usleep(100);
    pump_close(r);
    n = n_send;
    is_int((int64_t) not_waited(), 0, "closed on the way: what was sent has arrived");
    usleep(50000);
    is_int(n_send, n, "and nothing is sent any more");
    pump_close(NULL);
}

/* The file loses its end while it is read, over and over from the front. */
static void shrinking(void)
{
    struct pump *r = open_pump();

    shrink_at = 10;
    for (int i = 0; i < 5000; i++)
        pump_add(r, &(struct be_file) { "model.safetensors", fd, 0, NULL }, 4096, got + 4096 * i);
    is_int(finish(r), E_IO, "%s", e.msg);
    ok(strstr(e.msg, "ends at byte 1000: it shrank while it was read") != NULL, "says so");
    pump_close(r);
}

int main(void)
{
    uint64_t x = 1;
    int pipe_end[2];

    want = malloc(N);
    got = malloc(N);
    for (size_t i = 0; i < N / 8; i++)
        ((uint64_t *) (void *) want)[i] = x = x * 6364136223846793005u + 1442695040888963407u;
    fd = mkstemp(path);
    unlink(path);
    if (fd == -1 || write(fd, want, N) != (ssize_t) N || pipe(pipe_end) != 0)
        return ok(0, "a file of 48 MiB");

    whole();
    broken(fd, N - PUMP_BYTES - 1, "ends at byte");
    broken(fd, N, "ends at byte");
    broken(pipe_end[0], 0, "Illegal seek");
    broken(-1, 0, "Bad file descriptor");
    device();
    shrinking();
    return done_testing();
}
