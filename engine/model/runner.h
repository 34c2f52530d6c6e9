/* runner.h - a thread that takes the steps of a backend that blocks, so that the core can plan the
 * next one meanwhile. */
#ifndef MODEL_RUNNER_H
#define MODEL_RUNNER_H

#include "model.h"

/* One step, from its first op to its last. */
typedef int runner_fn(void *arg, struct batch *b, struct step_out *o, struct err *e);
/* A little work while there is no step. false: there is no more, do not ask again. */
typedef bool runner_idle(void *arg);

#define RUNNER_IDLE_MS 5         /* without a step, before that */

struct runner;                   /* opaque */

int  runner_open(struct runner **out, runner_fn *fn, runner_idle *idle, void *arg, struct err *e);
void runner_close(struct runner *r);     /* NULL is fine; after the steps under way */

/* At most MODEL_FLIGHT_MAX steps between a push and its pop. pop waits for the oldest. */
void runner_push(struct runner *r, struct batch *b, struct step_out *o);
int  runner_pop(struct runner *r, struct err *e);

#endif
