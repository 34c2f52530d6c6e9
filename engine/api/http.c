/* http.c - the route table, and the routes that need no generation. */
#include "docs.h"
#include "guide.h"
#include "openai_out.h"
#include "work.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

typedef void route_fn(struct stream *st);

enum access { OPEN, KEY, ADMIN };    /* where there is a file of keys: none, any, an operator's */

struct route {
    uint16_t      method;
    const char   *path;              /* what ends in '/' is a prefix: something has to follow */
    enum access   access;
    bool          need_model;        /* 503 until the model is loaded */
    route_fn     *run;               /* answers at once; NULL: work reads the body first */
    work_fn      *work;
    enum ask_kind kind;              /* of its body, and so of the words of its errors */
    const char   *help;              /* for docs */
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
    struct header extra[5] = { { NULL, NULL } };
    int           status, n = 0, wait = e->retry_ms > 0 ? e->retry_ms : API_RETRY_MS;

    if (more.name != NULL)
        extra[n++] = more;
    if (e->status == 503 || e->status == 429) {
        snprintf(s, sizeof(s), "%d", (wait + 999) / 1000);
        snprintf(ms, sizeof(ms), "%d", wait);
        extra[n++] = (struct header) { "retry-after", s };
        extra[n++] = (struct header) { "retry-after-ms", ms };
    }
    if (e->final)
        extra[n++] = (struct header) { "x-should-retry", "false" };

    status = dialect_of(st->route != NULL ? st->route->kind : 0)->error(&body, e, st->request_id);
    reply(st, status, "application/json", &body, extra);
}

void http_error(struct stream *st, const struct api_err *e)
{
    error_with(st, e, (struct header) { NULL, NULL });
}

void http_aborted(const struct stream *st, struct api_err *e)
{
    api_err_set(e, 500, "server_error", "request_aborted", NULL,
                "The operator ended this request (%s).", st->request_id);
    e->final = true;
}

void http_busy(struct stream *st)
{
    atomic_fetch_add(&api_of(st)->n_busy, 1);
    stream_end(st, WIRE_END_BUSY);
}

void http_finish(struct stream *st, struct work *w)
{
    struct api_err *e = &w->e;
    const char     *model = w->ask.model.p != NULL || w->rc == 0
                            ? gen_alias(w->api, w->ask.model) : NULL;
    int             rc = w->rc;

    if (model != NULL)
        snprintf(st->stats.model, sizeof(st->stats.model), "%.63s", model);
    if (w->ask.request_id.p != NULL)
        early_rename(st, w->ask.request_id);

    if (rc == 0 && (w->kind & ASK_GENERATE) != 0 && (rc = gen_start(st, w, e)) == 0)
        return;

    early_remove(st);
    if (st->aborted) {                   /* whatever came of it: who ended it was told so */
        http_aborted(st, e);
        http_error(st, e);
    } else if (rc == 0) {
        reply_json(st, 200, &w->out);
        w->out = (struct buf) { 0 };
    } else if (rc == E_FULL) {
        http_busy(st);
    } else {
        http_error(st, e);
    }
}

/* What the bodies ask for. Perhaps on the reader thread: streams and links are out of reach. */

static int read_prompts(struct work *w)
{
    struct slice m = w->ask.model;

    if (gen_alias(w->api, m) == NULL)
        return api_err_set(&w->e, 404, "invalid_request_error", "model_not_found", "model",
                           "The model '%.*s' does not exist.", (int) (m.n < 200 ? m.n : 200),
                           m.p);
    return prompt_read(w->api, w->kind, &w->ask, &w->prompts, &w->e);
}

static int work_generate(struct work *w)
{
    int rc = read_prompts(w);

    if (rc == 0)
        rc = guide_open(&w->guide, w->api, w->kind, &w->ask, &w->e);
    if (rc == 0 && w->guide != NULL && w->guide->kept != NULL)
        atomic_fetch_add(&w->api->n_guided[w->guide->must ? FORMAT_FREE : w->ask.format.kind], 1);
    return rc;
}

/* How long the prompt of a generation would be. */
static int work_count(struct work *w)
{
    if (read_prompts(w) != 0)
        return E_INVALID;
    buf_fmt(&w->out, "{%s\"input_tokens\":%zu}",
            w->kind == ASK_RESPONSES_COUNT ? "\"object\":\"response.input_tokens\"," : "",
            w->prompts.ids.n);
    return 0;
}

static void put_ids(struct buf *b, const struct ids *ids)
{
    out_ids(b, (struct out_ids) { ids->p, ids->n });
}

static void put_text(struct buf *b, const char *key, const struct buf *text)
{
    buf_str(b, key);
    buf_json_str(b, text->n > 0 ? text->p : "", text->n);
}

/* Token ids, and for people the rendered text. */
static int work_tokenize(struct work *w)
{
    const struct tok *tok = w->api->tok;
    const struct ids *ids = &w->prompts.ids;
    bool              strs = w->ask.return_token_strs && tok != NULL;

    if (prompt_read(w->api, w->kind, &w->ask, &w->prompts, &w->e) != 0)
        return E_INVALID;

    buf_fmt(&w->out, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":", ids->n,
            w->api->c.model_len_max);
    put_ids(&w->out, ids);
    buf_str(&w->out, strs ? ",\"token_strs\":[" : ",\"token_strs\":null}");
    for (size_t i = 0; strs && i < ids->n; i++) {
        struct slice s = tok_entry(tok, ids->p[i]);

        buf_str(&w->out, i == 0 ? "" : ",");
        buf_json_str(&w->out, s.p, s.n);
    }
    buf_str(&w->out, strs ? "]}" : "");
    return 0;
}

static int work_detokenize(struct work *w)
{
    const struct tok *tok = w->api->tok;
    struct tok_stream ts = { 0 };
    struct buf        text = { 0 };
    int64_t           id;

    if (tok == NULL)
        return api_err_400(&w->e, "unsupported_parameter", "tokens",
                           "The model directory has no tokenizer.json.");

    for (const struct json *v = w->ask.tokens->child; v != NULL; v = v->next) {
        if (json_int(v, &id) != 0 || id < 0 || id >= tok_n_vocab(tok)) {
            buf_free(&text);
            return api_err_400(&w->e, "invalid_value", "tokens", "'tokens': ids are integers from "
                               "0 to %d.", tok_n_vocab(tok) - 1);
        }
        tok_stream_put(tok, &ts, (int32_t) id, &text);
    }
    tok_stream_end(&ts, &text);

    /* vLLM's clients read prompt, llama.cpp's read content. */
    put_text(&w->out, "{\"prompt\":", &text);
    put_text(&w->out, ",\"content\":", &text);
    buf_str(&w->out, "}");
    buf_free(&text);
    return 0;
}

static int work_apply_template(struct work *w)
{
    const struct api *a = w->api;
    struct buf        text = { 0 };
    struct spans      plain = { 0 };
    int               rc = prompt_chat_text(a, &w->ask, &text, &plain, &w->e);

    if (rc == 0 && a->tok != NULL)
        rc = prompt_read(a, w->kind, &w->ask, &w->prompts, &w->e);
    if (rc == 0) {
        put_text(&w->out, "{\"prompt\":", &text);
        if (a->tok != NULL) {
            buf_fmt(&w->out, ",\"count\":%zu,\"tokens\":", w->prompts.ids.n);
            put_ids(&w->out, &w->prompts.ids);
        }
        buf_str(&w->out, "}");
    }
    spans_free(&plain);
    buf_free(&text);
    return rc;
}

/* Routes without a body. */

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

/* %XX as clients write what is special in a path; a NUL, or what is no such thing, stays. */
static void percent_decode(char *to, const char *from)
{
    unsigned byte;

    while (*from != '\0') {
        bool coded = *from == '%' && isxdigit((unsigned char) from[1])
                     && isxdigit((unsigned char) from[2])
                     && sscanf(from + 1, "%2x", &byte) == 1 && byte != 0;

        *to++ = coded ? (char) byte : *from;
        from += coded ? 3 : 1;
    }
    *to = '\0';
}

static void on_model(struct stream *st)
{
    struct api    *a = api_of(st);
    char           name[API_URI_BYTES_MAX + 1];
    struct buf     b = { 0 };
    struct api_err e;

    percent_decode(name, st->uri + strlen("/v1/models/"));

    for (int32_t i = 0; i < a->c.n_model_name; i++) {
        if (strcmp(name, a->c.model_name[i]) == 0) {
            put_model(&b, a, i);
            reply_json(st, 200, &b);
            return;
        }
    }

    api_err_set(&e, 404, "invalid_request_error", "model_not_found", "model",
                "The model '%s' does not exist.", st->uri + strlen("/v1/models/"));
    http_error(st, &e);
}

static void on_health(struct stream *st)
{
    struct buf b = { 0 };

    buf_str(&b, "{\"status\":\"ok\"}");     /* an engine that has failed ends */
    reply_json(st, 200, &b);
}

static void on_ready(struct stream *st)
{
    struct api   *a = api_of(st);
    struct serve *s = api_serve(a);
    uint64_t      now = api_now_ns();
    uint64_t      step = s != NULL ? atomic_load(&serve_metrics(s)->step_ns) : 0;
    double        done = (double) atomic_load(&a->load->done_bytes);
    double        total = (double) atomic_load(&a->load->total_bytes);
    double        spent = (double) (now - atomic_load(&a->load->start_ns)) / 1e9;
    double        part = s != NULL ? 1 : total > 0 ? done / total : 0;
    const char   *state = atomic_load(&a->draining) ? "draining" : s == NULL ? "loading"
                          : metrics_stalled(serve_metrics(s), now) ? "stalled" : "ready";
    struct buf    b = { 0 };

    buf_fmt(&b, "{\"state\":\"%s\",\"progress\":%.4f,\"eta_s\":", state, part);
    if (part > 0)
        buf_fmt(&b, "%.1f", spent * (1 - part) / part);
    else
        buf_str(&b, "null");
    buf_str(&b, ",\"last_step_ms_ago\":");
    if (step > 0)
        buf_fmt(&b, "%" PRIu64 "}", now > step ? (now - step) / 1000000 : 0);
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

/* What a client may want to know of the engine behind the model. */
static void on_server_info(struct stream *st)
{
    struct api              *a = api_of(st);
    const struct model_conf *mc = a->mc;
    struct buf               b = { 0 };

    buf_str(&b, "{\"version\":");
    buf_json_str(&b, a->c.version, strlen(a->c.version));
    buf_fmt(&b, ",\"system_fingerprint\":\"%s\",\"started\":%" PRId64 ",\"model\":",
            a->fingerprint, a->created);
    buf_json_str(&b, mc->name, strlen(mc->name));
    buf_str(&b, ",\"served_model_names\":[");
    for (int32_t i = 0; i < a->c.n_model_name; i++) {
        buf_str(&b, i > 0 ? "," : "");
        buf_json_str(&b, a->c.model_name[i], strlen(a->c.model_name[i]));
    }
    buf_fmt(&b, "],\"max_model_len\":%d,\"max_num_seqs\":%d,\"max_queue\":%d,"
            "\"block_size\":%d,\"layers\":%d,\"hidden_size\":%d,\"vocab_size\":%d,\"experts\":%d,"
            "\"tokenizer\":%s}", a->c.model_len_max, a->c.run_max,
            a->c.request_max - a->c.run_max, a->c.page_tok, mc->n_layer, mc->hidden, mc->vocab,
            mc->n_expert, a->tok != NULL ? "true" : "false");
    reply_json(st, 200, &b);
}

static void put_counter(struct buf *b, const char *name, const char *type, const char *help,
                        uint64_t n)
{
    buf_fmt(b, "# HELP inferd_%s %s\n# TYPE inferd_%s %s\ninferd_%s %" PRIu64 "\n", name, help,
            name, type, name, n);
}

static void put_grammars(struct buf *b, struct api *a)
{
    static const char *const kind[FORMAT_N] = {
        "tools", "json_object", "json_schema", "regex", "choice", "grammar",
    };
    struct grammars_stats s;

    grammars_stats(a->grammars, &s);
    buf_str(b, "# HELP inferd_guided_requests_total Requests whose answers are held to something,"
               " by its kind.\n# TYPE inferd_guided_requests_total counter\n");
    for (int i = 0; i < FORMAT_N; i++)
        buf_fmt(b, "inferd_guided_requests_total{kind=\"%s\"} %" PRIu64 "\n", kind[i],
                atomic_load(&a->n_guided[i]));
    buf_fmt(b, "# HELP inferd_grammar_compile_seconds Time to compile a grammar and to find its "
               "tokens.\n# TYPE inferd_grammar_compile_seconds summary\n"
               "inferd_grammar_compile_seconds_sum %.6f\n"
               "inferd_grammar_compile_seconds_count %" PRIu64 "\n", (double) s.made_ns / 1e9,
            s.made + s.refused);
    put_counter(b, "grammars_refused_total", "counter", "Of these, such as could not be enforced.",
                s.refused);
    put_counter(b, "grammar_cache_hits_total", "counter", "Grammars that were there.", s.hits);
    put_counter(b, "grammar_cache_misses_total", "counter", "And that were not.", s.misses);
    put_counter(b, "grammar_cache_bytes", "gauge", "Bytes of the grammars that are kept.",
                s.bytes);
    put_counter(b, "grammar_cache_entries", "gauge", "How many they are.", s.n);
    put_counter(b, "tool_calls_malformed_total", "counter", "Tool calls that came out mended, or as"
                " text.", atomic_load(&a->n_bad_call));
}

static void on_metrics(struct stream *st)
{
    struct api   *a = api_of(st);
    struct serve *s = api_serve(a);
    struct buf    b = { 0 };

    if (s != NULL) {
        metrics_write(serve_metrics(s), a->c.model_name[0], &b);
        metrics_histogram("request_params_n", "Answers asked for of one prompt.", &a->n_choice,
                          HIST_N, a->c.model_name[0], &b);
        metrics_histogram("request_max_num_generation_tokens", "Generated tokens of the longest of"
                          " a prompt's answers.", &a->new_tok, HIST_TOKENS, a->c.model_name[0],
                          &b);
    }

    buf_str(&b, "# HELP inferd_replies_total Replies by the class of their status.\n"
                "# TYPE inferd_replies_total counter\n");
    for (int i = 2; i < 6; i++)
        buf_fmt(&b, "inferd_replies_total{status=\"%dxx\"} %" PRIu64 "\n", i,
                atomic_load(&a->n_reply[i]));
    buf_fmt(&b, "# HELP inferd_unknown_fields_total Request fields that no table knows.\n"
                "# TYPE inferd_unknown_fields_total counter\n"
                "inferd_unknown_fields_total %" PRIu64 "\n", atomic_load(&a->n_unknown_field));
    buf_fmt(&b, "# HELP inferd_busy_total Requests given back to nginx: full, or draining.\n"
                "# TYPE inferd_busy_total counter\ninferd_busy_total %" PRIu64 "\n",
            atomic_load(&a->n_busy));
    buf_fmt(&b, "# HELP inferd_streams HTTP requests not yet answered in full.\n"
                "# TYPE inferd_streams gauge\ninferd_streams %d\n", atomic_load(&a->n_stream));
    put_grammars(&b, a);
    reply(st, 200, "text/plain; version=0.0.4; charset=utf-8", &b, NULL);
}

/* For load balancers: what a choice between engines needs, and no more. */
static void on_load(struct stream *st)
{
    static const struct metrics nothing;
    struct api           *a = api_of(st);
    struct serve         *s = api_serve(a);
    const struct metrics *m = s != NULL ? serve_metrics(s) : &nothing;
    bool                  draining = atomic_load(&a->draining);
    bool                  ready = s != NULL && !draining;
    struct buf            b = { 0 };

    buf_fmt(&b, "{\"ready\":%s,\"draining\":%s,\"running\":%" PRIu64 ",\"waiting\":%" PRIu64
            ",\"kv_usage\":%.4f,\"queue_tokens\":%" PRIu64 ",\"estimated_wait_ms\":%" PRIu64 "}",
            ready ? "true" : "false", draining ? "true" : "false", atomic_load(&m->running),
            atomic_load(&m->waiting), metrics_kv_usage(m), atomic_load(&m->waiting_tok),
            atomic_load(&m->wait_ns) / 1000000);
    reply_json(st, 200, &b);
}

/* Routes of the operator: without a file of keys, nginx has to keep others out of /admin/. */

static void refuse_loading(struct stream *st)
{
    struct api_err e;

    api_err_set(&e, 503, "service_unavailable_error", "model_loading", NULL,
                "The model is being loaded.");
    http_error(st, &e);
}

static void on_reset(struct stream *st)
{
    struct serve *s = api_serve(api_of(st));
    struct buf    b = { 0 };

    if (s == NULL) {
        refuse_loading(st);
        return;
    }
    serve_reset_cache(s);              /* done before anything that comes from now on starts */
    buf_str(&b, "{\"status\":\"ok\"}");
    reply_json(st, 200, &b);
}

static void on_drain(struct stream *st)
{
    struct api *a = api_of(st);
    struct buf  b = { 0 };

    if (api_drain(a) && a->c.on_drain != NULL)
        a->c.on_drain();
    buf_fmt(&b, "{\"status\":\"draining\",\"unfinished\":%d}", atomic_load(&a->n_stream) - 1);
    reply_json(st, 200, &b);
}

static int hex(char c)
{
    const char *digits = "0123456789abcdef", *d = c != '\0' ? strchr(digits, c | 0x20) : NULL;

    return d != NULL ? (int) (d - digits) : -1;
}

/* The value of one argument of a query, decoded. False: it is not there, or longer than out. */
static bool get_arg(const char *args, const char *name, char *out, size_t size)
{
    size_t n = strlen(name), k = 0;

    while (strncmp(args, name, n) != 0 || args[n] != '=') {
        args += strcspn(args, "&");
        if (*args++ == '\0')
            return false;
    }
    for (args += n + 1; *args != '\0' && *args != '&'; args++) {
        bool coded = args[0] == '%' && hex(args[1]) >= 0 && hex(args[2]) >= 0;

        if (k + 1 >= size)
            return false;
        out[k++] = coded ? (char) (hex(args[1]) * 16 + hex(args[2])) : *args;
        args += coded ? 2 : 0;
    }
    out[k] = '\0';
    return true;
}

static void on_abort(struct stream *st)
{
    char           id[API_REQUEST_ID_MAX + 16];
    struct buf     b = { 0 };
    struct api_err e;
    int            n;

    if (!get_arg(st->args, "request_id", id, sizeof(id))) {
        api_err_400(&e, "missing_required_parameter", "request_id", "Name the request: "
                    "?request_id=ID, of at most %zu bytes.", sizeof(id) - 1);
        http_error(st, &e);
        return;
    }

    n = gen_abort(api_of(st), id);
    if (n == 0) {
        api_err_set(&e, 404, "invalid_request_error", "request_not_found", "request_id",
                    "No request with this id is here.");
        http_error(st, &e);
        return;
    }
    buf_fmt(&b, "{\"aborted\":%d}", n);
    reply_json(st, 200, &b);
}

static const struct route routes[] = {
    { WIRE_METHOD_POST, "/v1/chat/completions", KEY, true, NULL, work_generate, ASK_CHAT,
      "an answer to a conversation" },
    { WIRE_METHOD_POST, "/v1/completions", KEY, true, NULL, work_generate, ASK_TEXT,
      "the continuation of a text, or of token ids" },
    { WIRE_METHOD_POST, "/v1/responses", KEY, true, NULL, work_generate, ASK_RESPONSES,
      "OpenAI's newer API, without what would have to be stored" },
    { WIRE_METHOD_POST, "/v1/responses/input_tokens", KEY, true, NULL, work_count,
      ASK_RESPONSES_COUNT, "tokens of such a request's prompt" },
    { WIRE_METHOD_POST, "/v1/messages", KEY, true, NULL, work_generate, ASK_MESSAGES,
      "Anthropic's API" },
    { WIRE_METHOD_POST, "/v1/messages/count_tokens", KEY, true, NULL, work_count, ASK_COUNT,
      "tokens of such a request's prompt" },
    { WIRE_METHOD_POST, "/tokenize", KEY, true, NULL, work_tokenize, ASK_TOKENIZE,
      "token ids of a text, or of a conversation" },
    { WIRE_METHOD_POST, "/detokenize", KEY, true, NULL, work_detokenize, ASK_DETOKENIZE,
      "the text of token ids" },
    { WIRE_METHOD_POST, "/apply-template", KEY, true, NULL, work_apply_template, ASK_TEMPLATE,
      "the prompt that a conversation becomes" },
    { WIRE_METHOD_GET, "/v1/models", KEY, true, on_models, NULL, 0, "the served names" },
    { WIRE_METHOD_GET, "/v1/models/", KEY, true, on_model, NULL, 0, "one of them" },
    { WIRE_METHOD_GET, "/health", OPEN, false, on_health, NULL, 0, "the process lives" },
    { WIRE_METHOD_GET, "/ready", OPEN, false, on_ready, NULL, 0,
      "200: it serves; 503: loading and how far, draining, or stalled" },
    { WIRE_METHOD_GET, "/metrics", KEY, false, on_metrics, NULL, 0, "Prometheus text" },
    { WIRE_METHOD_GET, "/version", KEY, false, on_version, NULL, 0, "of the server" },
    { WIRE_METHOD_GET, "/server_info", KEY, true, on_server_info, NULL, 0,
      "the model, and the limits of this server" },
    { WIRE_METHOD_GET, "/load", KEY, false, on_load, NULL, 0, "for load balancers" },
    { WIRE_METHOD_POST, "/admin/reset_prefix_cache", ADMIN, false, on_reset, NULL, 0,
      "forget cached prefixes" },
    { WIRE_METHOD_POST, "/admin/drain", ADMIN, false, on_drain, NULL, 0, "finish, then end" },
    { WIRE_METHOD_POST, "/admin/abort", ADMIN, false, on_abort, NULL, 0,
      "end the requests of `?request_id=ID`" },
    { 0 }
};

static bool matches(const struct route *r, const char *path)
{
    size_t n = strlen(r->path);

    return r->path[n - 1] == '/' ? strncmp(path, r->path, n) == 0 && path[n] != '\0'
                                 : strcmp(path, r->path) == 0;
}

static void cut_args(struct stream *st)
{
    size_t n = strcspn(st->uri, "?");

    st->args = st->uri[n] == '?' ? st->uri + n + 1 : "";
    st->uri[n] = '\0';
}

/* The route of method and path; else one of the path, else NULL. */
static const struct route *find_route(const struct stream *st)
{
    const struct route *same_path = NULL;

    for (const struct route *r = routes; r->path != NULL; r++) {
        if (!matches(r, st->uri))
            continue;
        if (r->method == st->method)
            return r;
        same_path = r;
    }
    return same_path;
}

static void refuse_key(struct stream *st)
{
    struct api_err e;

    api_err_set(&e, 401, "authentication_error", "invalid_api_key", NULL, "%s", st->gave_key
                ? "This API key is not valid."
                : "An API key is needed, as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.");
    error_with(st, &e, (struct header) { "www-authenticate", "Bearer" });
}

static void refuse_role(struct stream *st)
{
    struct api_err e;

    api_err_set(&e, 403, "permission_error", "admin_key_required", NULL, "%s is for the operator: "
                "this API key has not the role admin.", st->uri);
    http_error(st, &e);
}

static void refuse_url(struct stream *st)
{
    struct api_err e;

    api_err_set(&e, 404, "invalid_request_error", "unknown_url", NULL, "Unknown URL: %s",
                st->uri);
    http_error(st, &e);
}

static void refuse_method(struct stream *st)
{
    const char    *allow = st->route->method == WIRE_METHOD_GET ? "GET, HEAD" : "POST";
    struct api_err e;

    api_err_set(&e, 405, "invalid_request_error", "method_not_allowed", NULL,
                "This method is not allowed here, only %s.", allow);
    error_with(st, &e, (struct header) { "allow", allow });
}

void docs_routes(struct buf *b)
{
    static const char *const key[] = { "none", "any", "`admin`" };

    for (const struct route *r = routes; r->path != NULL; r++)
        buf_fmt(b, "| `%s %s%s` | %s | %s |\n",
                r->method == WIRE_METHOD_GET ? "GET" : "POST", r->path,
                r->path[strlen(r->path) - 1] == '/' ? "{id}" : "", key[r->access], r->help);
}

void http_route(struct stream *st)
{
    cut_args(st);
    st->route = find_route(st);
    if (st->route != NULL)
        st->id_header = dialect_of(st->route->kind)->id_header;
}

bool http_admit(struct stream *st)
{
    bool locked = api_of(st)->keys != NULL, admitted = false;

    if (locked && st->role == KEY_NONE && (st->route == NULL || st->route->access != OPEN))
        refuse_key(st);
    else if (st->route == NULL)
        refuse_url(st);
    else if (locked && st->role != KEY_ADMIN && st->route->access == ADMIN)
        refuse_role(st);
    else if (st->route->method != st->method)
        refuse_method(st);
    else
        admitted = true;

    if (admitted && st->route->run == NULL)     /* else it is answered once it is complete, */
        early_add(st);                          /* and there is nothing to abort */
    return admitted;
}

void http_handle(struct stream *st)
{
    struct api         *a = api_of(st);
    const struct route *r = st->route;
    struct api_err      e;

    if (r->work != NULL && atomic_load(&a->draining)) {     /* what needs no body is answered */
        http_busy(st);
        return;
    }
    if (r->need_model && api_serve(a) == NULL) {
        refuse_loading(st);
        return;
    }
    if (r->run != NULL) {
        r->run(st);
        return;
    }
    if (!st->json_body || st->coded_body) {
        api_err_set(&e, 415, "invalid_request_error", "unsupported_media_type", NULL,
                    st->coded_body
                    ? "A request body with a content encoding is not supported."
                    : "The content type must be application/json.");
        http_error(st, &e);
        return;
    }
    work_start(st, r->kind, r->work);
}
