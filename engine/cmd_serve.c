/* cmd_serve.c - the serving process: listen, load, run, drain, stop. */
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api.h"
#include "cmd.h"
#include "engine.h"
#include "log.h"

struct server {
    struct engine   en;
    struct api     *api;
    struct api_load load;
    const struct conf *c;
    char            socket_path[108];
    uint64_t        shown_ns;
};

/* A line every 2 s, or a bar on a terminal. /ready reads the same numbers. */
static void show_progress(void *arg, uint64_t done, uint64_t total)
{
    struct server *s = arg;
    uint64_t now = engine_now_ns(), start = atomic_load(&s->load.start_ns);
    double part = total == 0 ? 1 : (double) done / (double) total;
    double spent = (double) (now - start) / 1e9;
    double rate = spent > 0 ? (double) done / spent / 1e6 : 0;
    double eta = part > 0 ? spent * (1 - part) / part : 0;
    bool tty = isatty(STDERR_FILENO);

    atomic_store(&s->load.done_bytes, done);
    atomic_store(&s->load.total_bytes, total);

    if (now - s->shown_ns < (tty ? 100000000u : 2000000000u) && done != total)
        return;
    s->shown_ns = now;

    if (tty) {
        int n = (int) (part * 40);
        fprintf(stderr, "\rloading [%.*s%*s] %3.0f %% %6.0f MB/s, %.0f s left ", n,
                "########################################", 40 - n, "", part * 100, rate, eta);
        if (done == total)
            fputc('\n', stderr);
        return;
    }
    log_info("loading %.0f %% of %.1f MB, %.0f MB/s, %.0f s left", part * 100,
             (double) total / 1e6, rate, eta);
}

static void wake_api(void *arg, int port)
{
    struct server *s = arg;

    api_wake(s->api, port);
}

/* A step is lost, or the device, and so is the process: the pool in nginx takes over. */
static void engine_failed(const struct err *e)
{
    log_error("the engine stopped: %s", e->msg);
    kill(getpid(), SIGABRT);
}

/* As if somebody had sent SIGTERM. */
static void drain_wanted(void)
{
    kill(getpid(), SIGTERM);
}

static int socket_path(struct server *s, struct err *e)
{
    const struct conf *c = s->c;
    const char *name = c->n_served_name > 0 ? c->served_name[0] : s->en.mc.name;
    int n;

    if (c->uds != NULL)
        n = snprintf(s->socket_path, sizeof(s->socket_path), "%s", c->uds);
    else
        n = snprintf(s->socket_path, sizeof(s->socket_path), "/run/inferd/%s.sock", name);
    if (n >= (int) sizeof(s->socket_path))
        return err_set(e, E_INVALID, "--uds: the path is longer than %zu bytes",
                       sizeof(s->socket_path) - 1);
    if (strncmp(s->socket_path, "/run/inferd/", strlen("/run/inferd/")) == 0
        && mkdir("/run/inferd", 0755) != 0 && errno != EEXIST)
        return err_set(e, E_IO, "/run/inferd: %s; choose another place with --uds",
                       strerror(errno));
    return 0;
}

static int listen_api(struct server *s, struct err *e)
{
    const struct conf *c = s->c;
    struct api_conf ac = {
        .socket_path = s->socket_path,
        .socket_mode = c->uds_mode,
        .socket_group = c->uds_group,
        .n_thread = c->api_threads,
        .model_len_max = s->en.plan.model_len,
        .page_tok = s->en.plan.kv.page_tok,
        .run_max = c->max_num_seqs,
        .request_max = c->max_queue + c->max_num_seqs,
        .tenant_max = c->max_requests_per_key,
        .strict = c->strict,
        .parse_messages = c->message_tokens == MESSAGE_TOKENS_PARSE,
        .ping_s = c->ping_interval_s,
        .key_file = c->api_key_file,
        .on_drain = drain_wanted,
        .version = INFERD_VERSION,
    };

    if (getrandom(&ac.epoch, sizeof(ac.epoch), 0) != sizeof(ac.epoch))
        return err_set(e, E_IO, "getrandom: %s", strerror(errno));
    for (int32_t i = 0; i < c->n_served_name; i++)
        ac.model_name[ac.n_model_name++] = c->served_name[i];
    if (ac.n_model_name == 0)
        ac.model_name[ac.n_model_name++] = s->en.mc.name;

    atomic_store(&s->load.start_ns, engine_now_ns());
    return api_open(&s->api, &ac, &s->load, e);
}

/* Planned against allocated: on the CPU without the weights, which are mapped. Said when ready and
 * at the end; nothing is allocated in between, so what a GPU has less by then is not ours, or the
 * driver's. */
static void show_memory(const struct server *s, const char *when)
{
    const double mib = 1024.0 * 1024.0;
    struct model_memory m;

    model_memory(s->en.model, &m);
    log_info("memory %s: %.1f MiB planned, %.1f allocated, of it %.1f for the KV cache", when,
             (double) m.planned / mib, (double) m.used / mib,
             (double) s->en.plan.kv_bytes / mib);
    if (m.free_before != 0)
        log_info("the GPU had %.1f MiB free before, and has %.1f %s", (double) m.free_before / mib,
                 (double) m.free_now / mib, when);
}

static int bring_up(struct server *s, struct err *e)
{
    uint64_t t0 = engine_now_ns();
    int rc;

    if ((rc = engine_open(&s->en, s->c, e)) != 0 || (rc = socket_path(s, e)) != 0
        || (rc = listen_api(s, e)) != 0)
        return rc;

    s->en.wake = wake_api;
    s->en.wake_arg = s;
    s->en.on_fail = engine_failed;
    if (s->en.tok != NULL
        && (rc = vocab_open(&s->en.vocab, s->en.tok, s->en.mc.vocab, e)) != 0)
        return rc;
    rc = engine_load(&s->en, s->c, s->c->api_threads, s->c->max_queue, show_progress, s, e);
    if (rc != 0 || (rc = engine_start(&s->en, e)) != 0)
        return rc;

    api_ready(s->api, s->en.serve, &s->en.mc, s->en.tok, s->en.vocab, s->en.variant);
    log_info("%s is ready on %s after %.2f s: %d sessions of %d tokens fit, %.1f MiB of KV cache",
             s->en.mc.name, s->socket_path, (double) (engine_now_ns() - t0) / 1e9,
             s->en.plan.sessions, s->en.plan.session_len,
             (double) s->en.plan.kv_bytes / (1024.0 * 1024.0));
    show_memory(s, "when ready");
    if (model_note(s->en.model) != NULL)
        log_info("%s", model_note(s->en.model));
    return 0;
}

static void reload_keys(struct server *s)
{
    int n_key, n_admin;
    struct err e;

    if (s->c->api_key_file == NULL)
        log_info("SIGHUP: there is no --api-key-file to read again");
    else if (api_reload_keys(s->api, &n_key, &n_admin, &e) != 0)
        log_error("nothing was read again: %s", e.msg);
    else
        log_info("API keys read again: %d, and %d of operators", n_key, n_admin);
}

/* SIGHUP: the keys. SIGTERM or SIGINT: finish what runs, up to the limit; a second one ends it at
 * once. */
static void wait_and_drain(struct server *s, const sigset_t *set)
{
    struct timespec tick = { 0, 20000000 };
    uint64_t limit;
    int sig;

    do {
        sig = sigwaitinfo(set, NULL);
        if (sig == SIGHUP)
            reload_keys(s);
    } while (sig == SIGHUP || (sig == -1 && errno == EINTR));
    log_info("draining %d requests, at most %d s", api_n_active(s->api),
             s->c->drain_timeout_s);
    api_drain(s->api);

    limit = engine_now_ns() + (uint64_t) s->c->drain_timeout_s * 1000000000u;
    while (api_n_active(s->api) > 0) {
        sig = sigtimedwait(set, NULL, &tick);
        if (sig > 0 && sig != SIGHUP) {
            log_warn("a second signal: stopping with %d requests", api_n_active(s->api));
            return;
        }
        if (engine_now_ns() >= limit) {
            log_warn("the drain limit is over: stopping with %d requests", api_n_active(s->api));
            return;
        }
    }
}

int cmd_serve(const struct conf *c)
{
    struct server s = { .c = c, .en.kick_fd = -1 };
    struct err e;
    sigset_t set;
    int rc;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);

    rc = bring_up(&s, &e);
    if (rc == 0)
        wait_and_drain(&s, &set);

    /* The core first: it must not wake an api that is gone. */
    if (s.en.started) {
        serve_stop(s.en.serve);
        pthread_join(s.en.thread, NULL);
        s.en.started = false;
        show_memory(&s, "at the end");
    }
    if (s.api != NULL)
        api_close(s.api);
    engine_close(&s.en);
    return rc != 0 ? cmd_fail(&e) : 0;
}
