/* work.c - request bodies into asks, prompts and whole answers; no link is touched here.
 *
 * A short body is read where it arrives. A long one goes to the port's reader thread, because the
 * port's own thread writes the streams: they must not wait until 4 MiB of text are tokenised, nor
 * until a grammar is compiled. */
#include "guide.h"
#include "translate.h"
#include "work.h"

#include <stdlib.h>

static void work_free(struct work *w)
{
    guide_close(w->guide);
    json_free(w->doc);
    prompt_free(&w->prompts);
    buf_free(&w->body);
    buf_free(&w->echo);
    buf_free(&w->out);
    free(w);
}

/* Fields that no table knows: counted, and under --strict the first of them is an error. */
static int count_unknown(struct work *w, uint32_t n, struct slice first)
{
    char name[64];

    atomic_fetch_add(&w->api->n_unknown_field, n);
    if (!w->api->c.strict || n == 0)
        return 0;
    snprintf(name, sizeof(name), "%.*s", (int) (first.n < 60 ? first.n : 60),
             first.p != NULL ? first.p : "");
    return api_err_400(&w->e, "unknown_parameter", name, "Unknown parameter: '%s'.", name);
}

/* The body says again what it says in the words of a chat; of that, not of the client's JSON, the
 * ask borrows. A translation adds a level, and at most a node for each. */
static int translate(struct work *w, const struct json **root)
{
    static const struct json_limits lim = {
        .bytes = 2 * API_BODY_BYTES_MAX, .depth = API_JSON_DEPTH_MAX + 2,
        .nodes = 2 * API_JSON_NODES_MAX,
    };
    struct buf text = { 0 };
    struct tr  t = { .root = *root, .out = &text, .echo = &w->echo, .e = &w->e };
    struct err err;
    int        rc = tr_body(&t, w->kind);

    if (rc == 0)
        rc = count_unknown(w, t.n_unknown, t.unknown);
    json_free(w->doc);
    w->doc = NULL;
    if (rc == 0 && json_parse(&w->doc, root, text.p, text.n, &lim, &err) != 0)
        rc = api_err_set(&w->e, 500, "server_error", "internal_error", NULL,
                         "The translated request is not valid %s", err.msg);
    buf_free(&text);
    return rc;
}

static int read_ask(struct work *w)
{
    static const struct json_limits lim = {
        .bytes = API_BODY_BYTES_MAX, .depth = API_JSON_DEPTH_MAX, .nodes = API_JSON_NODES_MAX,
    };
    bool               chat = (w->kind & ASK_TRANSLATED) != 0;
    const struct json *root;
    struct err         err;

    /* its words begin with "JSON: " */
    if (json_parse(&w->doc, &root, w->body.p, w->body.n, &lim, &err) != 0)
        return api_err_400(&w->e, "invalid_json", NULL, "The request body is not valid %s",
                           err.msg);
    if (chat && translate(w, &root) != 0)
        return E_INVALID;
    if (ask_read(&w->ask, chat ? ASK_CHAT : w->kind, root, &w->e) != 0
        || count_unknown(w, w->ask.n_unknown, w->ask.unknown) != 0) {
        w->ask = (struct ask) { 0 };       /* nothing of it counts */
        return E_INVALID;
    }
    return 0;
}

static void work_read(struct work *w)
{
    w->rc = read_ask(w);
    w->is_read = true;
}

static void work_run(struct work *w)
{
    if (!w->is_read)
        work_read(w);
    if (w->rc == 0)
        w->rc = w->fn(w);
}

static void push(struct reader *r, struct work *w)
{
    pthread_mutex_lock(&r->lock);
    w->next = NULL;
    *r->waiting_end = w;
    r->waiting_end = &w->next;
    pthread_cond_signal(&r->more);
    pthread_mutex_unlock(&r->lock);
}

/* First what is to be freed, before another one takes memory. Then the smallest, so that a chat
 * does not wait for the books of others; but when one has overtaken the oldest, that one is next,
 * so that a book waits for at most one other more for each that came before it. */
static struct work **choose(struct reader *r)
{
    struct work **best = &r->waiting;

    for (struct work **at = &r->waiting; *at != NULL; at = &(*at)->next) {
        if (atomic_load(&(*at)->left))
            return at;
        if ((*at)->body.n < (*best)->body.n)
            best = at;
    }
    if (r->overtaken)
        best = &r->waiting;
    r->overtaken = best != &r->waiting;
    return best;
}

/* The next one, or NULL at the end. */
static struct work *pop(struct reader *r)
{
    struct work *w = NULL, **at;

    pthread_mutex_lock(&r->lock);
    while (r->waiting == NULL && !r->stop)
        pthread_cond_wait(&r->more, &r->lock);
    if (!r->stop) {
        at = choose(r);
        w = *at;
        *at = w->next;
        if (*at == NULL)
            r->waiting_end = at;
    }
    pthread_mutex_unlock(&r->lock);
    return w;
}

/* What nobody waits for any more is freed here too: a large document takes its time. */
static void *reader_main(void *arg)
{
    struct port   *p = arg;
    struct reader *r = &p->reader;
    struct work   *w;

    while ((w = pop(r)) != NULL) {
        if (atomic_load(&w->left)) {
            work_free(w);
            continue;
        }
        work_run(w);
        pthread_mutex_lock(&r->lock);
        w->next = r->done;
        r->done = w;
        pthread_mutex_unlock(&r->lock);
        api_wake(p->api, p->index);
    }
    return NULL;
}

void work_start(struct stream *st, enum ask_kind kind, work_fn *fn)
{
    struct port *p = st->link->port;
    struct work *w = calloc(1, sizeof(*w));

    if (w == NULL) {
        http_busy(st);
        return;
    }
    w->api = p->api;
    w->kind = kind;
    w->fn = fn;
    w->body = st->body;                    /* and its share of body_held */
    st->body = (struct buf) { 0 };
    st->body_bytes = 0;

    if (w->body.n <= API_INLINE_BYTES)
        work_read(w);
    if (!w->is_read || (w->rc == 0 && guide_is_work(&w->ask))) {
        w->st = st;
        st->work = w;
        push(&p->reader, w);
        return;
    }

    p->body_held -= w->body.n;
    work_run(w);
    http_finish(st, w);
    work_free(w);
}

void work_take_done(struct port *p)
{
    struct work *w, *next;

    pthread_mutex_lock(&p->reader.lock);
    w = p->reader.done;
    p->reader.done = NULL;
    pthread_mutex_unlock(&p->reader.lock);

    for (; w != NULL; w = next) {
        next = w->next;
        if (!atomic_exchange(&w->left, true)) {
            p->body_held -= w->body.n;
            w->st->work = NULL;
            http_finish(w->st, w);
        }
        push(&p->reader, w);               /* to be freed */
    }
}

void work_abandon(struct work *w)
{
    w->st->link->port->body_held -= w->body.n;
    atomic_store(&w->left, true);
}

int reader_open(struct port *p)
{
    struct reader *r = &p->reader;

    r->waiting_end = &r->waiting;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->more, NULL);
    r->started = pthread_create(&r->thread, NULL, reader_main, p) == 0;
    return r->started ? 0 : E_IO;
}

static void free_list(struct work *w)
{
    for (struct work *next; w != NULL; w = next) {
        next = w->next;
        work_free(w);
    }
}

void reader_close(struct port *p)
{
    struct reader *r = &p->reader;

    if (!r->started)
        return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_signal(&r->more);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);

    free_list(r->waiting);
    free_list(r->done);
    pthread_cond_destroy(&r->more);
    pthread_mutex_destroy(&r->lock);
}
