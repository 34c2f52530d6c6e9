/* engine.h - a model directory opened as a running engine: what serve, score and chat share.
 *
 * Ties the rooms together: config, plan, tokenizer, weights, the core and the thread that it runs
 * in, with the clock and the wake-ups that the core does not have itself. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <pthread.h>
#include "chat.h"
#include "conf.h"
#include "matcher.h"
#include "plan.h"
#include "serve.h"
#include "tok.h"

struct engine {
    struct model_conf mc;
    struct plan       plan;
    struct model     *model;
    struct tok       *tok;                  /* NULL: the directory has no tokenizer.json */
    struct vocab     *vocab;                /* its tokens for grammars; NULL too, or not wanted */
    enum chat_variant variant;
    struct serve     *serve;
    int               kick_fd;              /* eventfd that ends the core's sleep */
    void            (*wake)(void *arg, int port);   /* set before engine_load; may be NULL */
    void             *wake_arg;
    pthread_t         thread;
    bool              started;
    struct err        failed;               /* why the core gave up; code 0: it did not */
    /* The engine is of no use any more. In the core's thread or the model's; may be NULL. */
    void            (*on_fail)(const struct err *e);
};

/* config.json alone; whatever it returns, engine_close ends it. */
int  engine_config(struct engine *en, const struct conf *c, struct err *e);
/* That, the plan and the tokenizer: quick, no weights. */
int  engine_open(struct engine *en, const struct conf *c, struct err *e);
/* The weights and the core, once en->plan is made. progress may be NULL. */
int  engine_load(struct engine *en, const struct conf *c, int32_t n_port, int32_t queue_max,
                 model_progress *progress, void *arg, struct err *e);
int  engine_start(struct engine *en, struct err *e);  /* the core's thread */
void engine_close(struct engine *en);                 /* stops the thread first */

uint64_t engine_now_ns(void);                         /* CLOCK_MONOTONIC */

#endif
