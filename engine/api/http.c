/* http.c - the route table, and the routes that need no generation. */
#include "openai_out.h"
#include "port.h"

#include <inttypes.h>
#include <string.h>

typedef void route_fn(struct stream *st);

struct route {
    uint16_t    method;
    const char *path;
    bool        prefix;              /* path ends in '/', anything may follow */
    bool        need_model;          /* 503 until the model is loaded */
    route_fn   *run;
};

static struct api *api_of(const struct stream *st)
{
    return st->link->port->api;
}

/* body is moved into the reply. */
static void reply(struct stream *st, int status, const char *ctype, struct buf *body,
                  const struct header *extra)
{
    buf_free(&st->out);
    st->out = *body;
    stream_head(st, status, ctype, st->out.n, extra);
    stream_end(st, WIRE_END_OK);
}

static void reply_json(struct stream *st, int status, struct buf *body)
{
    reply(st, status, "application/json", body, NULL);
}

static void error_with(struct stream *st, const struct api_err *e, struct header more)
{
    struct buf    body = { 0 };
    char          s[16], ms[16];
    struct header extra[4] = { { NULL, NULL } };
    int           n = 0;

    if (more.name != NULL)
        extra[n++] = more;
    if (e->status == 503 || e->status == 429) {
        snprintf(s, sizeof(s), "%d", API_RETRY_AFTER_S);
        snprintf(ms, sizeof(ms), "%d", API_RETRY_AFTER_S * 1000);
        extra[n++] = (struct header) { "retry-after", s };
        extra[n++] = (struct header) { "retry-after-ms", ms };
    }

    out_error(&body, e);
    reply(st, e->status, "application/json", &body, extra);
}

void http_error(struct stream *st, const struct api_err *e)
{
    error_with(st, e, (struct header) { NULL, NULL });
}

/* The body as an ask; false: the client has been answered. The document is the caller's to free. */
static bool read_ask(struct stream *st, enum ask_kind kind, struct json_doc **doc,
                     struct ask *a)
{
    static const struct json_limits lim = {
        .bytes = API_BODY_BYTES_MAX, .depth = API_JSON_DEPTH_MAX, .nodes = API_JSON_NODES_MAX,
    };
    const struct json *root;
    struct api_err     e;
    struct err         err;

    *doc = NULL;
    if (!st->json_body) {
        api_err_set(&e, 415, "invalid_request_error", NULL, NULL,
                    "The content type must be application/json.");
        goto fail;
    }
    if (json_parse(doc, &root, st->body.p, st->body.n, &lim, &err) != 0) {
        api_err_400(&e, "invalid_json", NULL, "The request body is not valid JSON: %s", err.msg);
        goto fail;
    }
    if (ask_read(a, kind, root, &e) != 0)
        goto fail;

    if (a->n_unknown > 0)
        atomic_fetch_add(&api_of(st)->n_unknown_field, a->n_unknown);
    if (a->request_id.p != NULL) {
        memcpy(st->request_id, a->request_id.p, a->request_id.n);
        st->request_id[a->request_id.n] = '\0';
    }
    return true;

fail:
    json_free(*doc);
    *doc = NULL;
    http_error(st, &e);
    return false;
}

static void generate(struct stream *st, enum ask_kind kind)
{
    struct json_doc *doc;
    struct api_err   e;
    struct ask       a;
    int              rc;

    if (!read_ask(st, kind, &doc, &a))
        return;

    rc = gen_start(st, kind, &a, &e);
    json_free(doc);
    if (rc != 0)
        http_error(st, &e);
    else
        stream_drop_body(st);
}

static void on_chat(struct stream *st)
{
    generate(st, ASK_CHAT);
}

static void on_completions(struct stream *st)
{
    generate(st, ASK_TEXT);
}

/* Token ids, and for people the rendered text. */
static void on_tokenize(struct stream *st)
{
    struct api       *a = api_of(st);
    struct json_doc  *doc;
    struct prompt_set ps;
    struct api_err    e;
    struct ask        ask;
    struct buf        b = { 0 };

    if (!read_ask(st, ASK_TOKENIZE, &doc, &ask))
        return;

    if (prompt_read(a, ASK_TOKENIZE, &ask, &ps, &e) != 0) {
        prompt_free(&ps);
        json_free(doc);
        http_error(st, &e);
        return;
    }

    buf_fmt(&b, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":", ps.ids.n, a->c.model_len_max);
    out_ids(&b, (struct out_ids) { ps.ids.p, ps.ids.n });
    buf_str(&b, ",\"token_strs\":");
    for (size_t i = 0; ask.return_token_strs && a->tok != NULL && i < ps.ids.n; i++) {
        struct slice s = tok_entry(a->tok, ps.ids.p[i]);

        buf_str(&b, i == 0 ? "[" : ",");
        buf_json_str(&b, s.p, s.n);
    }
    buf_str(&b, !ask.return_token_strs || a->tok == NULL ? "null}"
                : ps.ids.n == 0 ? "[]}" : "]}");

    prompt_free(&ps);
    json_free(doc);
    reply_json(st, 200, &b);
}

static void on_detokenize(struct stream *st)
{
    struct api       *a = api_of(st);
    struct tok_stream ts = { 0 };
    struct json_doc  *doc;
    struct api_err    e;
    struct ask        ask;
    struct buf        text = { 0 }, b = { 0 };
    int64_t           id;

    if (!read_ask(st, ASK_DETOKENIZE, &doc, &ask))
        return;

    if (a->tok == NULL) {
        api_err_400(&e, "unsupported_parameter", "tokens",
                    "The model directory has no tokenizer.json.");
        goto fail;
    }
    for (const struct json *v = ask.tokens->child; v != NULL; v = v->next) {
        if (json_int(v, &id) != 0 || id < 0 || id >= tok_n_vocab(a->tok)) {
            api_err_400(&e, "invalid_value", "tokens", "'tokens': ids are integers from 0 to %d.",
                        tok_n_vocab(a->tok) - 1);
            goto fail;
        }
        tok_stream_put(a->tok, &ts, (int32_t) id, &text);
    }
    tok_stream_end(&ts, &text);

    /* vLLM's clients read prompt, llama.cpp's read content. */
    buf_str(&b, "{\"prompt\":");
    buf_json_str(&b, text.n > 0 ? text.p : "", text.n);
    buf_str(&b, ",\"content\":");
    buf_json_str(&b, text.n > 0 ? text.p : "", text.n);
    buf_str(&b, "}");

    buf_free(&text);
    json_free(doc);
    reply_json(st, 200, &b);
    return;

fail:
    buf_free(&text);
    json_free(doc);
    http_error(st, &e);
}

static void on_apply_template(struct stream *st)
{
    struct api       *a = api_of(st);
    struct prompt_set ps = { 0 };
    struct json_doc  *doc;
    struct api_err    e;
    struct ask        ask;
    struct buf        text = { 0 }, b = { 0 };

    if (!read_ask(st, ASK_TEMPLATE, &doc, &ask))
        return;

    if (prompt_chat_text(a, &ask, &text, &e) != 0
        || (a->tok != NULL && prompt_read(a, ASK_TEMPLATE, &ask, &ps, &e) != 0)) {
        buf_free(&text);
        prompt_free(&ps);
        json_free(doc);
        http_error(st, &e);
        return;
    }

    buf_str(&b, "{\"prompt\":");
    buf_json_str(&b, text.p, text.n);
    if (a->tok != NULL) {
        buf_fmt(&b, ",\"count\":%zu,\"tokens\":", ps.ids.n);
        out_ids(&b, (struct out_ids) { ps.ids.p, ps.ids.n });
    }
    buf_str(&b, "}");

    buf_free(&text);
    prompt_free(&ps);
    json_free(doc);
    reply_json(st, 200, &b);
}

static void put_model(struct buf *b, const struct api *a, int32_t i)
{
    buf_str(b, "{\"id\":");
    buf_json_str(b, a->c.model_name[i], strlen(a->c.model_name[i]));
    buf_fmt(b, ",\"object\":\"model\",\"created\":%" PRId64 ",\"owned_by\":\"inferd\",\"root\":",
            a->created);
    buf_json_str(b, a->mc->name, strlen(a->mc->name));
    buf_fmt(b, ",\"parent\":null,\"max_model_len\":%d}", a->c.model_len_max);
}

static void on_models(struct stream *st)
{
    struct api *a = api_of(st);
    struct buf  b = { 0 };

    buf_str(&b, "{\"object\":\"list\",\"data\":[");
    for (int32_t i = 0; i < a->c.n_model_name; i++) {
        buf_str(&b, i > 0 ? "," : "");
        put_model(&b, a, i);
    }
    buf_str(&b, "]}");
    reply_json(st, 200, &b);
}

static void on_model(struct stream *st)
{
    struct api    *a = api_of(st);
    const char    *name = st->uri + strlen("/v1/models/");
    struct buf     b = { 0 };
    struct api_err e;

    for (int32_t i = 0; i < a->c.n_model_name; i++) {
        if (strcmp(name, a->c.model_name[i]) == 0) {
            put_model(&b, a, i);
            reply_json(st, 200, &b);
            return;
        }
    }

    api_err_set(&e, 404, "invalid_request_error", "model_not_found", "model",
                "The model '%s' does not exist.", name);
    http_error(st, &e);
}

static void on_health(struct stream *st)
{
    struct buf b = { 0 };
    bool       failed = atomic_load(&api_of(st)->load->state) == 3;

    buf_fmt(&b, "{\"status\":\"%s\"}", failed ? "failed" : "ok");
    reply_json(st, failed ? 503 : 200, &b);
}

static void on_ready(struct stream *st)
{
    struct api *a = api_of(st);
    double      done = (double) atomic_load(&a->load->done_bytes);
    double      total = (double) atomic_load(&a->load->total_bytes);
    double      spent = (double) (api_now_ns() - atomic_load(&a->load->start_ns)) / 1e9;
    bool        ready = api_serve(a) != NULL;
    double      part = ready ? 1 : total > 0 ? done / total : 0;
    const char *state = atomic_load(&a->load->state) == 3 ? "failed"
                        : atomic_load(&a->draining) ? "draining" : ready ? "ready" : "loading";
    struct buf  b = { 0 };

    buf_fmt(&b, "{\"state\":\"%s\",\"progress\":%.4f,\"eta_s\":", state, part);
    if (part > 0)
        buf_fmt(&b, "%.1f}", spent * (1 - part) / part);
    else
        buf_str(&b, "null}");
    reply_json(st, strcmp(state, "ready") == 0 ? 200 : 503, &b);
}

static void on_version(struct stream *st)
{
    struct buf b = { 0 };

    buf_str(&b, "{\"version\":");
    buf_json_str(&b, api_of(st)->c.version, strlen(api_of(st)->c.version));
    buf_str(&b, "}");
    reply_json(st, 200, &b);
}

static void on_metrics(struct stream *st)
{
    struct api   *a = api_of(st);
    struct serve *s = api_serve(a);
    struct buf    b = { 0 };

    if (s != NULL)
        metrics_write(serve_metrics(s), a->c.model_name[0], &b);

    buf_str(&b, "# HELP inferd_replies_total Replies by the class of their status.\n"
                "# TYPE inferd_replies_total counter\n");
    for (int i = 2; i < 6; i++)
        buf_fmt(&b, "inferd_replies_total{status=\"%dxx\"} %" PRIu64 "\n", i,
                atomic_load(&a->n_reply[i]));
    buf_fmt(&b, "# HELP inferd_unknown_fields_total Request fields that no table knows.\n"
                "# TYPE inferd_unknown_fields_total counter\n"
                "inferd_unknown_fields_total %" PRIu64 "\n", atomic_load(&a->n_unknown_field));
    buf_fmt(&b, "# HELP inferd_streams HTTP requests not yet answered in full.\n"
                "# TYPE inferd_streams gauge\ninferd_streams %d\n", atomic_load(&a->n_stream));
    reply(st, 200, "text/plain; version=0.0.4; charset=utf-8", &b, NULL);
}

static const struct route routes[] = {
    { WIRE_METHOD_POST, "/v1/chat/completions", false, true,  on_chat },
    { WIRE_METHOD_POST, "/v1/completions",      false, true,  on_completions },
    { WIRE_METHOD_GET,  "/v1/models",           false, true,  on_models },
    { WIRE_METHOD_GET,  "/v1/models/",          true,  true,  on_model },
    { WIRE_METHOD_POST, "/tokenize",            false, true,  on_tokenize },
    { WIRE_METHOD_POST, "/detokenize",          false, true,  on_detokenize },
    { WIRE_METHOD_POST, "/apply-template",      false, true,  on_apply_template },
    { WIRE_METHOD_GET,  "/health",              false, false, on_health },
    { WIRE_METHOD_GET,  "/ready",               false, false, on_ready },
    { WIRE_METHOD_GET,  "/metrics",             false, false, on_metrics },
    { WIRE_METHOD_GET,  "/version",             false, false, on_version },
    { 0 }
};

static bool matches(const struct route *r, const char *path)
{
    size_t n = strlen(r->path);

    return r->prefix ? strncmp(path, r->path, n) == 0 && path[n] != '\0'
                     : strcmp(path, r->path) == 0;
}

void http_handle(struct stream *st)
{
    static const char *const method_name[] = { "", "GET", "POST", "DELETE", "OPTIONS" };
    struct api         *a = api_of(st);
    const struct route *r, *same_path = NULL;
    struct api_err      e;

    st->uri[strcspn(st->uri, "?")] = '\0';

    for (r = routes; r->path != NULL; r++) {
        if (!matches(r, st->uri))
            continue;
        same_path = r;
        if (r->method == st->method)
            break;
    }

    if (same_path == NULL) {
        api_err_set(&e, 404, "invalid_request_error", "unknown_url", NULL, "Unknown URL: %s %s",
                    method_name[st->method], st->uri);
        http_error(st, &e);
        return;
    }
    if (r->path == NULL) {
        api_err_set(&e, 405, "invalid_request_error", "method_not_allowed", NULL,
                    "%s is not allowed here, only %s.", method_name[st->method],
                    method_name[same_path->method]);
        error_with(st, &e, (struct header) { "allow", method_name[same_path->method] });
        return;
    }
    if (r->need_model && (api_serve(a) == NULL || atomic_load(&a->draining))) {
        bool loading = api_serve(a) == NULL;

        api_err_set(&e, 503, "service_unavailable_error", loading ? "model_loading" : "draining",
                    NULL, loading ? "The model is being loaded." : "The server is shutting down.");
        http_error(st, &e);
        return;
    }

    r->run(st);
}
