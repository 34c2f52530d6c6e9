/* pump.h - parts of files on their way into a memory that the host cannot read into.
 *
 * Several threads, each with two buffers: while one is on its way, the next part of a file is read
 * into the other. They use pread, never a map, so a file that shrinks is an error and no SIGBUS. */
#ifndef BACKEND_PUMP_H
#define BACKEND_PUMP_H

#include <stdint.h>
#include "err.h"

#define PUMP_BYTES       (8u << 20)      /* of a buffer, and of a part */
#define PUMP_THREAD_MAX  16
#define PUMP_JOB_MAX     8192

struct be_file {                           /* a part of a file that is open and mapped */
    const char *name;                      /* for messages */
    int         fd;
    uint64_t    off;
    const void *p;                         /* its bytes in the map */
};

/* bytes from from->off on, now. E_IO: the words name the file and where it ended. */
int  pump_read(const struct be_file *from, void *to, uint64_t bytes, struct err *e);

/* How buffer k, of 2 * n_thread, gets on. Called by any thread, for one k by one at a time. */
struct pump_hooks {
    void  *arg;
    char  *buffer;                         /* [2 * n_thread, PUMP_BYTES], the caller's */
    int  (*send)(void *arg, int k, void *to, const void *p, size_t n, struct err *e);   /* begin */
    int  (*wait)(void *arg, int k, struct err *e);     /* until all sent from buffer k is there */
};

struct pump;

int  pump_open(struct pump **out, int n_thread, const struct pump_hooks *h, struct err *e);
/* bytes of the file to `to`, some time. from->name stays until the end. E_FULL: too many. */
int  pump_add(struct pump *r, const struct be_file *from, uint64_t bytes, void *to);
/* *left: bytes that are not there yet, after at most ms of waiting. The first failure is told
 * again at every call. */
int  pump_left(struct pump *r, int ms, uint64_t *left, struct err *e);
void pump_close(struct pump *r);       /* NULL is fine; what is left is not read */

#endif
