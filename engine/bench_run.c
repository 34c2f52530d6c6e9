#include "bench_run.h"
#include "engine.h"
#include "json.h"
#include "sse.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define ANSWER_MAX   65536                 /* bytes of an answer that is no stream */
#define REQUEST_S    21600L                /* that one may take: vLLM's limit */
#define CONNECT_S    10L
#define PROGRESS_S   5
#define ITL_MAX      (1 << 24)             /* events of one request */

static const struct json_limits event_limits = { SSE_EVENT_MAX, 32, 100000 };

struct run;

struct slot {                              /* a connection's worth of state, used again and again */
    struct run       *run;
    CURL             *h;
    struct sse        sse;
    struct buf        body, answer;        /* sent; received, if it is no stream */
    struct err        e;
    const struct bench_item *item;
    struct bench_req *req;
    double            sent_s, last_s;      /* last event with a choice */
    int32_t           itl_cap;
    bool              first, ended;        /* the first event has come; [DONE] has */
};

struct run {
    struct bench_run  *r;
    const struct curl_lib *c;
    CURLM             *multi;
    struct curl_slist *headers;
    struct slot       *slot;               /* [n_slot] */
    struct slot      **idle;               /* [n_idle] of them */
    int32_t            n_slot, n_idle, n_open;         /* n_open: have a handle */
    int32_t            n_sent, n_done;
};

static double now_s(void)
{
    return (double) engine_now_ns() / 1e9;
}

static int add_itl(struct slot *s, double v)
{
    struct bench_req *r = s->req;

    if (r->n_itl == s->itl_cap) {
        int32_t cap = s->itl_cap > 0 ? 2 * s->itl_cap : s->item->output_len + 8;
        double *p = cap > ITL_MAX ? NULL : realloc(r->itl, (size_t) cap * sizeof(*p));

        if (p == NULL)
            return err_set(&s->e, E_FULL, "more events than fit");
        r->itl = p;
        s->itl_cap = cap;
    }
    r->itl[r->n_itl++] = v;
    return 0;
}

static int on_choice(struct slot *s)
{
    double now = now_s(), gap = now - s->last_s;

    s->last_s = now;
    s->req->output_tok++;                  /* until the usage says it better */
    if (s->first)
        return add_itl(s, gap);
    s->first = true;
    s->req->ttft = now - s->sent_s;
    return 0;
}

static void on_usage(struct slot *s, const struct json *usage)
{
    int64_t v;

    if (json_get(usage, "completion_tokens") != NULL
        && json_int(json_get(usage, "completion_tokens"), &v) == 0)
        s->req->output_tok = v;
    if (json_get(usage, "prompt_tokens") != NULL
        && json_int(json_get(usage, "prompt_tokens"), &v) == 0)
        s->req->prompt_tok = v;
}

/* What an error says of itself: of OpenAI's shape, or nothing. */
static struct slice error_words(const struct json *root)
{
    const struct json *m = json_get(json_get(root, "error"), "message");

    return m != NULL && m->type == JSON_STRING ? m->text : (struct slice) { "", 0 };
}

static int on_event(void *arg, struct slice data)
{
    struct slot *s = arg;
    const struct json *root, *choices;
    struct json_doc *doc;
    struct err e;
    int rc = 0;

    if (slice_is(data, "[DONE]")) {
        s->ended = true;
        return 0;
    }
    if (json_parse(&doc, &root, data.p, data.n, &event_limits, &e) != 0)
        return err_set(&s->e, E_INVALID, "an event is not JSON: %.100s", e.msg);

    choices = json_get(root, "choices");
    if (json_get(root, "error") != NULL)
        rc = err_set(&s->e, E_INVALID, "in the stream: %.*s", (int) error_words(root).n,
                     error_words(root).p);
    else if (choices != NULL && choices->type == JSON_ARRAY && choices->n > 0)
        rc = on_choice(s);
    else if (json_get(root, "usage") != NULL)
        on_usage(s, json_get(root, "usage"));
    json_free(doc);
    return rc;
}

static size_t on_bytes(char *p, size_t size, size_t n, void *arg)
{
    struct slot *s = arg;
    long status = 0;
    int rc;

    n *= size;
    s->run->c->easy_getinfo(s->h, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        buf_put(&s->answer, p, n);
        return n;
    }
    rc = sse_feed(&s->sse, p, n, on_event, s);
    if (rc != 0 && s->e.code == 0)
        err_set(&s->e, rc, "an event of more than %u bytes", SSE_EVENT_MAX);
    return rc == 0 ? n : CURL_WRITEFUNC_ERROR;
}

static int open_slot(struct run *u, struct slot *s, struct err *e)
{
    const struct curl_lib *c = u->c;
    CURL *h = c->easy_init();

    if (h == NULL)
        return err_set(e, E_IO, "bench serve: libcurl has no room for a handle");
    s->h = h;
    s->run = u;
    s->answer.max = ANSWER_MAX;
    c->easy_setopt(h, CURLOPT_URL, u->r->url);
    c->easy_setopt(h, CURLOPT_HTTPHEADER, u->headers);
    c->easy_setopt(h, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
    c->easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    c->easy_setopt(h, CURLOPT_POST, 1L);
    c->easy_setopt(h, CURLOPT_CONNECTTIMEOUT, CONNECT_S);
    c->easy_setopt(h, CURLOPT_TIMEOUT, REQUEST_S);
    c->easy_setopt(h, CURLOPT_WRITEFUNCTION, on_bytes);
    c->easy_setopt(h, CURLOPT_WRITEDATA, s);
    c->easy_setopt(h, CURLOPT_PRIVATE, s);
    return 0;
}

static int send_next(struct run *u, struct err *e)
{
    struct slot *s = u->n_idle > 0 ? u->idle[--u->n_idle] : &u->slot[u->n_open++];
    int32_t i = u->n_sent++;
    CURLMcode rc;

    if (s->h == NULL && open_slot(u, s, e) != 0)
        return e->code;
    s->item = &u->r->item[i];
    s->req = &u->r->req[i];
    s->e.code = 0;
    s->first = s->ended = false;
    s->itl_cap = 0;
    s->answer.n = s->body.n = 0;
    s->answer.full = false;
    sse_close(&s->sse);
    sse_open(&s->sse);
    bench_body(&s->body, s->item, u->r->shape);
    if (s->body.full)
        return err_set(e, E_IO, "out of memory");
    s->req->prompt_tok = s->item->input_len + u->r->shape->prefix_len;

    u->c->easy_setopt(s->h, CURLOPT_POSTFIELDS, s->body.p);
    u->c->easy_setopt(s->h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) s->body.n);
    s->sent_s = s->last_s = now_s();
    rc = u->c->multi_add_handle(u->multi, s->h);
    return rc == CURLM_OK ? 0 : err_set(e, E_IO, "libcurl: %s", u->c->multi_strerror(rc));
}

static void count_fail(struct bench_run *r, const char *msg)
{
    int32_t i;

    for (i = 0; i < r->n_fail && strcmp(r->fail[i].msg, msg) != 0; i++)
        ;
    if (i == BENCH_FAIL_MAX || (i == r->n_fail && i == BENCH_FAIL_MAX - 1)) {
        i = BENCH_FAIL_MAX - 1;
        msg = "others";
    }
    if (i == r->n_fail)
        snprintf(r->fail[r->n_fail++].msg, sizeof(r->fail[0].msg), "%s", msg);
    r->fail[i].n++;
}

/* The words of an answer that is no stream, if it has any. */
static void say_status(struct slot *s, long status, char *msg, size_t size)
{
    const struct json *root;
    struct slice words = { "", 0 };
    struct json_doc *doc = NULL;
    struct err e;

    if (s->answer.n > 0
        && json_parse(&doc, &root, s->answer.p, s->answer.n, &event_limits, &e) == 0)
        words = error_words(root);
    snprintf(msg, size, "HTTP %ld%s%.*s", status, words.n > 0 ? ": " : "", (int) words.n, words.p);
    json_free(doc);
}

static void finish(struct run *u, struct slot *s, CURLcode rc)
{
    char msg[sizeof(u->r->fail[0].msg)] = "";
    long status = 0;

    u->c->easy_getinfo(s->h, CURLINFO_RESPONSE_CODE, &status);
    if (s->e.code != 0)
        snprintf(msg, sizeof(msg), "%.*s", (int) sizeof(msg) - 1, s->e.msg);
    else if (rc != CURLE_OK)
        snprintf(msg, sizeof(msg), "%s", u->c->easy_strerror(rc));
    else if (status != 200)
        say_status(s, status, msg, sizeof(msg));
    else if (!s->first)
        snprintf(msg, sizeof(msg), "an answer without a token");
    else if (!s->ended || !sse_idle(&s->sse))
        snprintf(msg, sizeof(msg), "the stream ended without [DONE]");

    s->req->done = msg[0] == '\0';
    s->req->latency = s->last_s - s->sent_s;
    if (!s->req->done)
        count_fail(u->r, msg);
    else if (u->r->shape->ignore_eos && s->req->output_tok < s->item->output_len)
        u->r->n_short++;
    u->n_done++;
}

static void reap(struct run *u)
{
    CURLMsg *m;
    int left;

    while ((m = u->c->multi_info_read(u->multi, &left)) != NULL) {
        struct slot *s = NULL;

        if (m->msg != CURLMSG_DONE)
            continue;
        u->c->easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **) (void *) &s);
        finish(u, s, m->data.result);
        u->c->multi_remove_handle(u->multi, s->h);
        u->idle[u->n_idle++] = s;
    }
}

/* Milliseconds until there is something to send, if nothing comes in. */
static int patience(const struct run *u, double elapsed)
{
    double s = PROGRESS_S;

    if (u->n_sent < u->r->n && u->n_sent - u->n_done < u->n_slot
        && u->r->item[u->n_sent].due_s - elapsed < s)
        s = u->r->item[u->n_sent].due_s - elapsed;
    return s > 0 ? (int) (s * 1e3) + 1 : 0;
}

static int loop(struct run *u, struct err *e)
{
    double start = now_s(), shown = start;
    CURLMcode mc = CURLM_OK;
    int running, rc = 0;

    while (rc == 0 && mc == CURLM_OK && u->n_done < u->r->n) {
        double now = now_s();

        while (rc == 0 && u->n_sent < u->r->n && u->n_sent - u->n_done < u->n_slot
               && u->r->item[u->n_sent].due_s <= now - start)
            rc = send_next(u, e);
        mc = u->c->multi_perform(u->multi, &running);
        reap(u);
        if (mc == CURLM_OK && u->n_done < u->r->n)
            mc = u->c->multi_poll(u->multi, NULL, 0, patience(u, now_s() - start), NULL);
        if (!u->r->quiet && now - shown >= PROGRESS_S) {
            shown = now;
            fprintf(stderr, "%.0f s: %d of %d requests done, %d under way\n", now - start,
                    u->n_done, u->r->n, u->n_sent - u->n_done);
        }
    }
    u->r->duration_s = now_s() - start;
    if (mc != CURLM_OK)
        return err_set(e, E_IO, "libcurl: %s", u->c->multi_strerror(mc));
    return rc;
}

/* A connection each, as far as the system lets us. */
static void want_files(void)
{
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &l);
    }
}

static struct curl_slist *headers(const struct curl_lib *c, const char *more)
{
    struct curl_slist *l = c->slist_append(NULL, "Content-Type: application/json");

    l = c->slist_append(l, "Expect:");     /* no round trip before a long prompt */
    return more != NULL ? c->slist_append(l, more) : l;
}

int bench_run(struct bench_run *r, struct err *e)
{
    struct run u = { .r = r, .c = r->curl };
    int rc;

    want_files();
    u.n_slot = r->max_concurrency > 0 && r->max_concurrency < r->n ? r->max_concurrency : r->n;
    u.slot = calloc((size_t) u.n_slot, sizeof(*u.slot));
    u.idle = calloc((size_t) u.n_slot, sizeof(struct slot *));
    u.multi = u.c->multi_init();
    u.headers = headers(u.c, r->header);
    if (u.slot == NULL || u.idle == NULL || u.multi == NULL || u.headers == NULL)
        rc = err_set(e, E_IO, "out of memory");
    else
        rc = loop(&u, e);

    for (int32_t i = 0; u.slot != NULL && i < u.n_open; i++) {
        struct slot *s = &u.slot[i];

        if (s->h != NULL) {
            u.c->multi_remove_handle(u.multi, s->h);
            u.c->easy_cleanup(s->h);
        }
        sse_close(&s->sse);
        buf_free(&s->body);
        buf_free(&s->answer);
    }
    if (u.multi != NULL)
        u.c->multi_cleanup(u.multi);
    u.c->slist_free_all(u.headers);
    free(u.slot);
    free(u.idle);
    return rc;
}

void bench_free(struct bench_run *r)
{
    for (int32_t i = 0; r->req != NULL && i < r->n; i++) {
        free(r->req[i].itl);
        r->req[i].itl = NULL;
    }
}

static size_t keep(char *p, size_t size, size_t n, void *arg)
{
    buf_put(arg, p, size * n);
    return size * n;
}

static int first_model(const struct buf *answer, struct buf *name)
{
    const struct json *root, *data, *id;
    struct json_doc *doc;
    struct err e;
    int rc = E_INVALID;

    if (answer->n == 0
        || json_parse(&doc, &root, answer->p, answer->n, &event_limits, &e) != 0)
        return rc;
    data = json_get(root, "data");
    id = data != NULL && data->type == JSON_ARRAY ? json_get(data->child, "id") : NULL;
    if (id != NULL && id->type == JSON_STRING) {
        buf_put(name, id->text.p, id->text.n);
        buf_put(name, "", 1);
        rc = 0;
    }
    json_free(doc);
    return rc;
}

int bench_model(const struct curl_lib *c, const char *url, const char *header, struct buf *name,
                struct err *e)
{
    const char *end = strstr(url, "/chat/completions");
    struct buf at = {0}, answer = { .max = ANSWER_MAX };
    struct curl_slist *l = headers(c, header);
    CURL *h = c->easy_init();
    int rc = E_IO, curl = CURLE_OUT_OF_MEMORY;

    end = end != NULL ? end : strstr(url, "/completions");
    buf_put(&at, url, (size_t) (end - url));
    buf_put(&at, "/models", sizeof("/models"));
    if (h != NULL && l != NULL) {
        c->easy_setopt(h, CURLOPT_URL, at.p);
        c->easy_setopt(h, CURLOPT_HTTPHEADER, l);
        c->easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
        c->easy_setopt(h, CURLOPT_TIMEOUT, CONNECT_S);
        c->easy_setopt(h, CURLOPT_FAILONERROR, 1L);
        c->easy_setopt(h, CURLOPT_WRITEFUNCTION, keep);
        c->easy_setopt(h, CURLOPT_WRITEDATA, &answer);
        curl = (int) c->easy_perform(h);
    }
    if (curl != CURLE_OK)
        err_set(e, E_IO, "%s: %s", at.p, c->easy_strerror((CURLcode) curl));
    else if ((rc = first_model(&answer, name)) != 0)
        err_set(e, rc, "%s: names no model: say which with --model", at.p);
    if (h != NULL)
        c->easy_cleanup(h);
    c->slist_free_all(l);
    buf_free(&at);
    buf_free(&answer);
    return rc;
}
