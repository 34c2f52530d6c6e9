#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "log.h"

uint64_t engine_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}

static uint64_t hook_now(void *arg)
{
    (void) arg;
    return engine_now_ns();
}

static void hook_wake(void *arg, int port)
{
    struct engine *en = arg;

    if (en->wake != NULL)
        en->wake(en->wake_arg, port);
}

static void hook_sleep(void *arg)
{
    struct engine *en = arg;
    uint64_t n;

    while (read(en->kick_fd, &n, sizeof(n)) == -1 && errno == EINTR)
        ;
}

static void hook_kick(void *arg)
{
    struct engine *en = arg;
    uint64_t one = 1;

    (void) !write(en->kick_fd, &one, sizeof(one));
}

static void hook_lost(void *arg, const struct err *e)
{
    struct engine *en = arg;

    if (en->on_fail != NULL)
        en->on_fail(e);
}

static int open_tokenizer(struct engine *en, const char *dir, struct err *e)
{
    bool known, found;
    int rc;

    rc = tok_open(&en->tok, dir, e);
    if (rc == E_IO) {                       /* no such file: token ids only */
        log_warn("%s; prompts must be token ids", e->msg);
        en->tok = NULL;
        return 0;
    }
    if (rc != 0)
        return rc;

    if (tok_n_vocab(en->tok) > en->mc.vocab)
        return err_set(e, E_INVALID, "%s/tokenizer.json: %d entries, but vocab_size is %d", dir,
                       tok_n_vocab(en->tok), en->mc.vocab);

    rc = chat_variant_detect(dir, &en->variant, &known, &found, e);
    if (rc == 0 && !found)
        log_info("%s has no chat_template.jinja; using Gemma 4's (large)", dir);
    else if (rc == 0 && !known)
        log_info("chat_template.jinja is not one of the published files; using Gemma 4's (%s)",
                 en->variant == CHAT_LARGE ? "large" : "small");
    return rc;
}

int engine_config(struct engine *en, const struct conf *c, struct err *e)
{
    memset(en, 0, sizeof(*en));
    en->kick_fd = eventfd(0, EFD_CLOEXEC);
    if (en->kick_fd == -1)
        return err_set(e, E_IO, "eventfd: %s", strerror(errno));
    return model_conf_load(&en->mc, c->pos[0], e);
}

int engine_open(struct engine *en, const struct conf *c, struct err *e)
{
    int rc;

    if ((rc = engine_config(en, c, e)) != 0 || (rc = plan_make(&en->plan, &en->mc, c, e)) != 0)
        return rc;
    return open_tokenizer(en, c->pos[0], e);
}

static int32_t n_core(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    return n < 1 ? 1 : n > 256 ? 256 : (int32_t) n;
}

int engine_load(struct engine *en, const struct conf *c, int32_t n_port, int32_t queue_max,
                model_progress *progress, void *arg, struct err *e)
{
    struct model_limits lim = {
        .backend = c->backend == BACKEND_CUDA ? MODEL_CUDA : MODEL_CPU,
        .dummy = c->load_format == LOAD_DUMMY,
        .kv = en->plan.kv,
        .step_tok_max = c->max_num_batched_tokens,
        .seq_max = c->max_num_seqs,
        .page_max = en->plan.full_pages_each,
        .n_thread = c->threads != 0 ? c->threads : n_core(),
        .lost = hook_lost, .lost_arg = en,
    };
    struct serve_conf sc = {
        .seq_max = c->max_num_seqs,
        .step_tok_max = c->max_num_batched_tokens,
        .model_len_max = en->plan.model_len,
        .queue_max = queue_max,
        .queue_tok_max = c->max_queue_tokens,
        .tenant_max = c->max_requests_per_key,
        .wait_max_ns = (uint64_t) c->max_queue_wait_s * 1000000000u,
        .itl_target_ns = (uint64_t) c->itl_target_ms * 1000000u,
        .overlap = !c->no_overlap,
        .cache = !c->no_prefix_cache,
        .point_tok = c->reuse_point_tokens,
        .n_port = n_port,
        .kv = en->plan.kv,
        .now_ns = hook_now, .wake = hook_wake, .sleep = hook_sleep, .kick = hook_kick,
        .arg = en,
    };
    int rc;

    if (getrandom(&sc.key, sizeof(sc.key), 0) != sizeof(sc.key))
        return err_set(e, E_IO, "getrandom: %s", strerror(errno));
    rc = model_open(&en->model, c->pos[0], &en->mc, &lim, progress, arg, e);
    return rc != 0 ? rc : serve_open(&en->serve, en->model, &sc, e);
}

static void *core_main(void *arg)
{
    struct engine *en = arg;

    if (serve_run(en->serve, &en->failed) != 0 && en->on_fail != NULL)
        en->on_fail(&en->failed);
    return NULL;
}

int engine_start(struct engine *en, struct err *e)
{
    int rc = pthread_create(&en->thread, NULL, core_main, en);

    if (rc != 0)
        return err_set(e, E_IO, "pthread_create: %s", strerror(rc));
    en->started = true;
    return 0;
}

void engine_close(struct engine *en)
{
    if (en->started) {
        serve_stop(en->serve);
        pthread_join(en->thread, NULL);
    }
    if (en->serve != NULL)
        serve_close(en->serve);
    if (en->model != NULL)
        model_close(en->model);
    vocab_close(en->vocab);
    if (en->tok != NULL)
        tok_close(en->tok);
    if (en->kick_fd != -1)
        close(en->kick_fd);
    memset(en, 0, sizeof(*en));
    en->kick_fd = -1;
}
