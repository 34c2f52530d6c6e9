/* runner.h - a thread that launches steps, so that the core plans the next one meanwhile, and on a
 * device that works on its own has it launched before the one that runs is done. */
#ifndef MODEL_RUNNER_H
#define MODEL_RUNNER_H

#include "model.h"

/* One step, from its first op to its last: done, or on its way. In the runner's thread. */
typedef int runner_launch(void *arg, struct batch *b, struct step_out *o, struct err *e);
/* Until the oldest step on its way is done. In the thread that pops, beside the launch of the next
 * one. */
typedef int runner_wait(void *arg, struct err *e);
/* A little work while there is no step and none failed, in the runner's thread. false: there is no
 * more, do not ask again. */
typedef bool runner_idle(void *arg);

#define RUNNER_IDLE_MS 5         /* without a step, before that */

struct runner;                   /* opaque */

struct runner_hooks { runner_launch *launch; runner_wait *wait; runner_idle *idle; void *arg; };

int  runner_open(struct runner **out, const struct runner_hooks *h, struct err *e);     /* copied */
void runner_close(struct runner *r);     /* NULL is fine; after the steps under way */

/* At most MODEL_FLIGHT_MAX steps between a push and its pop, which one thread does. pop waits for
 * the oldest. A step behind one that failed fails with the same words and is not launched, unless
 * it was before anybody knew. */
void runner_push(struct runner *r, struct batch *b, struct step_out *o);
int  runner_pop(struct runner *r, struct err *e);

#endif
