/* cmd_chat.c - a terminal conversation straight on the engine, for people without nginx at hand. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "channel.h"
#include "cmd.h"
#include "engine.h"

struct talk {
    struct engine      en;
    const struct conf *c;
    struct channel_ids ids;
    struct buf         history;     /* the JSON messages so far, without the brackets */
    int                wake_fd;
    bool               tty;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    (void) sig;
    interrupted = 1;
}

static void wake(void *arg, int port)
{
    struct talk *t = arg;
    uint64_t one = 1;

    (void) port;
    (void) !write(t->wake_fd, &one, sizeof(one));
}

static void add_message(struct talk *t, const char *role, const char *text, size_t n)
{
    buf_fmt(&t->history, "%s{\"role\":\"%s\",\"content\":", t->history.n > 0 ? "," : "", role);
    buf_json_str(&t->history, text, n);
    buf_str(&t->history, "}");
}

/* history -> prompt ids */
static int make_prompt(struct talk *t, struct ids *out, struct err *e)
{
    const struct json_limits lim = { 64u << 20, 8, 1u << 20 };
    struct spans plain = { 0 };
    struct chat_opts opts = {
        .variant = t->en.variant,
        .enable_thinking = t->c->thinking,
        .add_generation_prompt = true,
        .plain = &plain,
    };
    struct buf text = { 0 }, list = { 0 };
    const struct json *messages;
    struct json_doc *doc = NULL;
    char param[64];
    int rc;

    buf_str(&list, "[");
    buf_put(&list, t->history.p, t->history.n);
    buf_str(&list, "]");

    rc = json_parse(&doc, &messages, list.p, list.n, &lim, e);
    if (rc == 0) {
        opts.enable_thinking |= chat_asks_to_think(messages);
        rc = chat_render(messages, NULL, &opts, &text, param, e);
    }
    if (rc == 0)
        rc = tok_encode_around(t->en.tok, text.p, text.n, &plain, out, e);

    json_free(doc);
    spans_free(&plain);
    buf_free(&list);
    buf_free(&text);
    return rc;
}

static void show(struct talk *t, struct said *said, struct buf *answer)
{
    struct said_part part;
    struct slice     bytes;

    for (; said_front(said, SIZE_MAX, &part, &bytes); said_take(said, bytes.n)) {
        bool dim = part.kind == SAID_REASONING && t->tty;

        printf(dim ? "\033[2m%.*s\033[0m" : "%.*s", (int) bytes.n, bytes.p);
        if (part.kind == SAID_CONTENT)
            buf_put(answer, bytes.p, bytes.n);
    }
    fflush(stdout);
}

/* Print tokens as they come until the core is done with the request. */
static void follow(struct talk *t, struct req *r, struct channel *ch, struct buf *answer)
{
    struct said said = { 0 };
    int seen = 0, n, fin;
    uint64_t count;

    do {
        (void) !read(t->wake_fd, &count, sizeof(count));
        if (interrupted)
            serve_cancel(t->en.serve, r);
        fin = atomic_load_explicit(&r->finish, memory_order_acquire);
        n = atomic_load_explicit(&r->n_pub, memory_order_acquire);
        for (; seen < n; seen++)
            channel_put(ch, r->tok[r->n_prompt + seen], &said);
        show(t, &said, answer);
    } while (fin == FIN_NONE);

    channel_end(ch, fin == FIN_LENGTH, &said);
    show(t, &said, answer);
    printf(fin == FIN_CORRUPT ? "\nThe model's numbers are not finite.\n" : "\n");
    if (t->tty) {
        double s = (double) (r->done_ns - r->first_ns) / 1e9;
        printf("\033[2m%d tokens%s", n, fin == FIN_LENGTH ? ", cut at the limit" : "");
        if (n > 1 && s > 0)
            printf(", %.0f tok/s", (n - 1) / s);
        printf("\033[0m\n");
    }
    said_free(&said);
}

static int fill_request(struct talk *t, struct req *r, const struct ids *prompt, struct err *e)
{
    const struct model_conf *mc = &t->en.mc;
    int32_t room = t->en.plan.model_len - (int32_t) prompt->n;

    if (room < 1)
        return err_set(e, E_INVALID, "the conversation fills the %d tokens of the context",
                       t->en.plan.model_len);
    if (req_alloc(r, (int32_t) prompt->n, t->c->max_tokens < room ? t->c->max_tokens : room,
                  t->en.plan.kv.page_tok) != 0)
        return err_set(e, E_IO, "out of memory");
    memcpy(r->tok, prompt->p, prompt->n * sizeof(int32_t));

    r->sample = (struct sample) {
        .temperature = t->c->temperature >= 0 ? (float) t->c->temperature : mc->temperature,
        .top_p = mc->top_p, .top_k = mc->top_k_default,
    };
    if (getrandom(&r->sample.seed, sizeof(r->sample.seed), 0) < 0)
        return err_set(e, E_IO, "getrandom: %s", strerror(errno));
    memcpy(r->stop_id, mc->eos, (size_t) mc->n_eos * sizeof(int32_t));
    r->n_stop_id = mc->n_eos;
    return 0;
}

/* One turn: the user's line in, the model's answer out and into the history. */
static int turn(struct talk *t, const char *line, size_t n, struct err *e)
{
    struct req r = { 0 };
    struct channel ch;
    struct ids prompt = { 0 };
    struct buf answer = { 0 };
    size_t before = t->history.n;
    int rc;

    add_message(t, "user", line, n);
    rc = make_prompt(t, &prompt, e);
    if (rc == 0)
        rc = fill_request(t, &r, &prompt, e);
    if (rc == 0)
        rc = serve_submit(t->en.serve, &r, e);
    if (rc == 0) {
        interrupted = 0;
        channel_open(&ch, t->en.tok, &t->ids, NULL, prompt.p, prompt.n);
        follow(t, &r, &ch, &answer);
        channel_close(&ch);
        add_message(t, "assistant", answer.p, answer.n);
    } else {
        t->history.n = before;
    }

    req_free(&r);
    ids_free(&prompt);
    buf_free(&answer);
    return rc;
}

static int converse(struct talk *t, struct err *e)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;

    if (t->c->system != NULL)
        add_message(t, "system", t->c->system, strlen(t->c->system));

    for (;;) {
        if (t->tty)
            printf("\033[1m> \033[0m");
        fflush(stdout);
        n = getline(&line, &cap, stdin);
        if (n == -1 && errno == EINTR && interrupted) {
            clearerr(stdin);
            interrupted = 0;
            printf("\n(end with Ctrl-D)\n");
            continue;
        }
        if (n <= 0)
            break;
        if (line[n - 1] == '\n')
            n--;
        if (n == 0)
            continue;
        if (!utf8_valid(line, (size_t) n)) {
            printf("(that was not UTF-8)\n");
            continue;
        }
        if (turn(t, line, (size_t) n, e) != 0)
            printf("(%s)\n", e->msg);
        if (t->en.failed.code != 0)
            break;
    }

    free(line);
    return t->en.failed.code;
}

int cmd_chat(const struct conf *c)
{
    struct talk t = { .c = c, .wake_fd = -1, .tty = isatty(STDOUT_FILENO) && isatty(STDIN_FILENO) };
    struct sigaction sa = { .sa_handler = on_interrupt };
    struct err e;
    int rc;

    rc = engine_open(&t.en, c, &e);
    if (rc == 0 && t.en.tok == NULL)
        rc = err_set(&e, E_INVALID, "%s/tokenizer.json: missing, and chat needs it", c->pos[0]);
    if (rc == 0 && (t.wake_fd = eventfd(0, EFD_CLOEXEC)) == -1)
        rc = err_set(&e, E_IO, "eventfd: %s", strerror(errno));
    t.en.wake = wake;
    t.en.wake_arg = &t;
    if (rc == 0)
        rc = engine_load(&t.en, c, 1, 1, NULL, NULL, &e);
    if (rc == 0)
        rc = engine_start(&t.en, &e);
    if (rc == 0) {
        sigaction(SIGINT, &sa, NULL);       /* no SA_RESTART: it ends a read */
        channel_ids_find(t.en.tok, &t.ids);
        if (t.tty)
            printf("%s. Ctrl-C stops an answer, Ctrl-D ends.\n", t.en.mc.name);
        rc = converse(&t, &e);
        if (rc != 0)
            e = t.en.failed;
    }

    engine_close(&t.en);
    if (t.wake_fd != -1)
        close(t.wake_fd);
    buf_free(&t.history);
    return rc != 0 ? cmd_fail(&e) : 0;
}
