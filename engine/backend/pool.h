/* pool.h - threads that share the items of one loop, with a barrier at its end.
 *
 * The caller works too. Idle threads spin for some microseconds, because the next op of a step
 * comes soon, and then sleep: a server without requests burns nothing. */
#ifndef BACKEND_POOL_H
#define BACKEND_POOL_H

#include <stdint.h>
#include "err.h"

struct pool;

/* Items lo .. hi-1, by thread 0 .. n_thread-1. */
typedef void pool_fn(void *arg, int64_t lo, int64_t hi, int thread);

int  pool_open(struct pool **out, int n_thread, struct err *e);
void pool_close(struct pool *p);                       /* NULL is fine */

/* Run fn over 0 .. n-1 in pieces of grain items; returns when all are done. One caller. */
void pool_run(struct pool *p, pool_fn *fn, void *arg, int64_t n, int64_t grain);

#endif
