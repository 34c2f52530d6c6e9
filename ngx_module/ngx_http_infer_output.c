
/*
 * Reply records to the client.
 *
 * While earlier buffers of a stream are still busy, new bytes are appended
 * to its pending buffer and the output filter is left alone: one stalled
 * client then holds at most its window.  Credits go back for what has left.
 *
 * The head waits for the first bytes that are to go: as long as nothing has
 * been passed on, an engine that fails costs a 502 or another try.
 */


#include "ngx_http_infer.h"


static void ngx_http_infer_reply_head(ngx_http_infer_ctx_t *ctx,
    const struct wire_rec *rec, const u_char *payload);
static void ngx_http_infer_reply_data(ngx_http_infer_ctx_t *ctx,
    const struct wire_rec *rec, const u_char *payload);
static void ngx_http_infer_reply_stats(ngx_http_infer_ctx_t *ctx,
    const u_char *payload);
static void ngx_http_infer_reply_end(ngx_http_infer_ctx_t *ctx,
    const u_char *payload);
static void ngx_http_infer_set_dirty(ngx_http_infer_ctx_t *ctx);
static void ngx_http_infer_complete(ngx_http_infer_ctx_t *ctx);
static void ngx_http_infer_break(ngx_http_infer_ctx_t *ctx);
static ngx_int_t ngx_http_infer_begin(ngx_http_infer_ctx_t *ctx);
static ngx_int_t ngx_http_infer_send_header(ngx_http_infer_ctx_t *ctx);
static ngx_int_t ngx_http_infer_copy_header(ngx_http_request_t *r,
    struct wire_str *name, struct wire_str *value);
static ngx_int_t ngx_http_infer_content_type(ngx_http_request_t *r,
    struct wire_str *value);
static ngx_uint_t ngx_http_infer_has_header(ngx_http_request_t *r,
    const char *name, size_t len);
static ngx_int_t ngx_http_infer_append(ngx_http_infer_ctx_t *ctx,
    const u_char *p, size_t n);
static ngx_int_t ngx_http_infer_output(ngx_http_infer_ctx_t *ctx);
static ngx_int_t ngx_http_infer_pass_out(ngx_http_infer_ctx_t *ctx);
static void ngx_http_infer_gone(ngx_http_infer_ctx_t *ctx);
static size_t ngx_http_infer_held(ngx_http_infer_ctx_t *ctx);
static void ngx_http_infer_write_handler(ngx_http_request_t *r);


#define ngx_http_infer_tag  ((ngx_buf_tag_t) &ngx_http_infer_module)


/* What an engine may say; a trailing dash allows a family. */

static ngx_str_t  ngx_http_infer_reply_headers[] = {
    ngx_string("access-control-"),
    ngx_string("allow"),
    ngx_string("cache-control"),
    ngx_string("openai-"),
    ngx_string("request-id"),
    ngx_string("retry-after"),
    ngx_string("retry-after-ms"),
    ngx_string("server-timing"),
    ngx_string("vary"),
    ngx_string("www-authenticate"),
    ngx_string("x-accel-buffering"),
    ngx_string("x-ratelimit-"),
    ngx_string("x-request-id"),
    ngx_string("x-should-retry"),
    ngx_null_string
};


void
ngx_http_infer_reply(ngx_http_infer_ctx_t *ctx, const struct wire_rec *rec,
    const u_char *payload)
{
    ngx_http_infer_loc_conf_t  *ilcf;

    if (rec->type != WIRE_REP_END) {
        ilcf = ngx_http_get_module_loc_conf(ctx->request,
                                            ngx_http_infer_module);
        ngx_add_timer(&ctx->timer,
                      ctx->headed || rec->type == WIRE_REP_HEAD
                      ? ilcf->read_timeout : ilcf->first_byte_timeout);
        ctx->heard = ctx->link->n_records;
    }

    switch (rec->type) {

    case WIRE_REP_HEAD:
        ngx_http_infer_reply_head(ctx, rec, payload);
        break;

    case WIRE_REP_DATA:
        ngx_http_infer_reply_data(ctx, rec, payload);
        break;

    case WIRE_REP_STATS:
        ngx_http_infer_reply_stats(ctx, payload);
        break;

    case WIRE_REP_END:
        ngx_http_infer_reply_end(ctx, payload);
        break;

    default:
        /* REP_ALIVE, or an optional record of a later minor version */

        ngx_http_infer_set_dirty(ctx);
        break;
    }
}


static void
ngx_http_infer_reply_head(ngx_http_infer_ctx_t *ctx,
    const struct wire_rec *rec, const u_char *payload)
{
    ngx_http_request_t         *r;
    struct wire_hdr_iter        it;
    struct wire_rep_head        head;
    ngx_http_infer_engine_t    *engine;
    ngx_http_core_loc_conf_t   *clcf;
    ngx_http_infer_loc_conf_t  *ilcf;

    r = ctx->request;
    ilcf = ngx_http_get_module_loc_conf(r, ngx_http_infer_module);
    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (ctx->headed || wire_rep_head_read(payload, rec->len, &head, &it)) {
        ngx_http_infer_link_fault(ctx, "reply head");
        return;
    }

    ctx->status = head.status;

    engine = head.status == NGX_HTTP_SERVICE_UNAVAILABLE
             ? ngx_http_infer_next(ctx, NGX_HTTP_INFER_NEXT_503) : NULL;

    if (engine) {
        ngx_http_infer_link_detach(ctx);
        ngx_http_infer_submit(ctx, engine);
        return;
    }

    if (head.status >= NGX_HTTP_SPECIAL_RESPONSE
        && ilcf->intercept_errors && clcf->error_pages)
    {
        ctx->finish = "error";
        ngx_http_infer_finalize(ctx, head.status);
        return;
    }

    ctx->reply_head = ngx_pnalloc(r->pool, rec->len);
    if (ctx->reply_head == NULL) {
        ngx_http_infer_finalize(ctx, NGX_ERROR);
        return;
    }

    ngx_memcpy(ctx->reply_head, payload, rec->len);
    ctx->reply_head_len = rec->len;
    ctx->headed = 1;
    ctx->stream = (head.flags & WIRE_REP_STREAM) != 0;
    ctx->named = (head.flags & WIRE_REP_NAMED) != 0;
    ctx->reply_left = head.body_bytes;

    ngx_http_infer_set_dirty(ctx);
}


/* NGX_DONE: the request has ended. */

static ngx_int_t
ngx_http_infer_begin(ngx_http_infer_ctx_t *ctx)
{
    ngx_int_t  rc;

    if (ctx->header) {
        return NGX_OK;
    }

    rc = ngx_http_infer_send_header(ctx);

    if (rc == NGX_ERROR || rc > NGX_OK) {
        ngx_http_infer_finalize(ctx, rc);
        return NGX_DONE;
    }

    if (ctx->request->header_only) {

        /* HEAD is a GET to the engine: its body is read and dropped */

        ngx_http_infer_gone(ctx);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_infer_send_header(ngx_http_infer_ctx_t *ctx)
{
    ngx_connection_t          *c;
    ngx_http_request_t        *r;
    struct wire_str            name, value;
    struct wire_hdr_iter       it;
    struct wire_rep_head       head;
    ngx_http_core_loc_conf_t  *clcf;

    static u_char              no_cache[] = "no-cache";
    static u_char              no[] = "no";

    r = ctx->request;
    c = r->connection;
    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (wire_rep_head_read(ctx->reply_head, ctx->reply_head_len, &head, &it)) {
        return NGX_ERROR;
    }

    r->headers_out.status = head.status;
    r->disable_not_modified = 1;        /* If-Match and the like: for files */

    if (head.body_bytes != WIRE_BODY_UNKNOWN) {
        r->headers_out.content_length_n = head.body_bytes;
    }

    while (wire_hdr_next(&it, &name, &value) == 1) {
        if (ngx_http_infer_copy_header(r, &name, &value) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (ctx->stream) {
        if (!ngx_http_infer_has_header(r, "cache-control", 13)
            && ngx_http_infer_add_header(r, "Cache-Control", 13, no_cache,
                                         sizeof(no_cache) - 1)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        /* for an nginx in front of this one */

        if (!ngx_http_infer_has_header(r, "x-accel-buffering", 17)
            && ngx_http_infer_add_header(r, "X-Accel-Buffering", 17, no,
                                         sizeof(no) - 1)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ctx->stream && clcf->tcp_nodelay && ngx_tcp_nodelay(c) != NGX_OK) {
        return NGX_ERROR;
    }

    ctx->header = 1;
    r->write_event_handler = ngx_http_infer_write_handler;
    c->log->action = "streaming from engine";

    return ngx_http_send_header(r);
}


static ngx_int_t
ngx_http_infer_copy_header(ngx_http_request_t *r, struct wire_str *name,
    struct wire_str *value)
{
    u_char     *p;
    ngx_str_t  *a;

    if (name->n == 12 && ngx_memcmp(name->p, "content-type", 12) == 0) {
        return ngx_http_infer_content_type(r, value);
    }

    for (a = ngx_http_infer_reply_headers; a->len; a++) {

        if (name->n < a->len || ngx_memcmp(name->p, a->data, a->len) != 0) {
            continue;
        }

        if (name->n == a->len || a->data[a->len - 1] == '-') {
            break;
        }
    }

    if (a->len == 0) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, name->n + value->n);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, name->p, name->n);
    ngx_memcpy(p + name->n, value->p, value->n);

    return ngx_http_infer_add_header(r, (char *) p, name->n, p + name->n,
                                     value->n);
}


/* The charset apart, so that gzip_types and charset see the bare type. */

static ngx_int_t
ngx_http_infer_content_type(ngx_http_request_t *r, struct wire_str *value)
{
    u_char  *p, *end;
    size_t   n;

    p = ngx_pnalloc(r->pool, value->n);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, value->p, value->n);
    end = ngx_strlchr(p, p + value->n, ';');
    n = end ? (size_t) (end - p) : value->n;

    r->headers_out.content_type.data = p;
    r->headers_out.content_type.len = value->n;
    r->headers_out.content_type_len = n;
    r->headers_out.content_type_lowcase = NULL;

    if (value->n - n > 10
        && ngx_strncasecmp(p + n, (u_char *) "; charset=", 10) == 0)
    {
        r->headers_out.content_type.len = n;
        r->headers_out.charset.data = p + n + 10;
        r->headers_out.charset.len = value->n - n - 10;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_infer_has_header(ngx_http_request_t *r, const char *name,
    size_t len)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    for (part = &r->headers_out.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].key.len == len
                && ngx_strncasecmp(h[i].key.data, (u_char *) name, len) == 0)
            {
                return 1;
            }
        }
    }

    return 0;
}


static void
ngx_http_infer_reply_data(ngx_http_infer_ctx_t *ctx,
    const struct wire_rec *rec, const u_char *payload)
{
    if (!ctx->headed || rec->len > ctx->reply_left) {
        ngx_http_infer_link_fault(ctx, "reply data");
        return;
    }

    if (ctx->reply_left != WIRE_BODY_UNKNOWN) {
        ctx->reply_left -= rec->len;
    }

    ctx->link->bytes_in += rec->len;
    ctx->last = ngx_current_msec;

    if (!ctx->got_first) {
        ctx->got_first = 1;
        ctx->first = ctx->last;
    }

    if (!ctx->gone
        && ngx_http_infer_append(ctx, payload, rec->len) != NGX_OK)
    {
        ngx_http_infer_finalize(ctx, NGX_ERROR);
        return;
    }

    /* half a window unsent: let it go, or the engine runs dry */

    if ((rec->flags & WIRE_FLUSH)
        || ngx_http_infer_link_unacked(ctx)
           >= ctx->link->wire.ring.window / 2)
    {
        ctx->flush = 1;
    }

    if (ctx->flush) {
        ngx_http_infer_set_dirty(ctx);
    }
}


static void
ngx_http_infer_reply_stats(ngx_http_infer_ctx_t *ctx, const u_char *payload)
{
    ngx_memcpy(&ctx->stats, payload, sizeof(struct wire_stats));
    ctx->stats.model[sizeof(ctx->stats.model) - 1] = '\0';
    ctx->stats.finish[sizeof(ctx->stats.finish) - 1] = '\0';
    ctx->stats.request_id[sizeof(ctx->stats.request_id) - 1] = '\0';
    ctx->got_stats = ctx->stats.finish[0] != '\0';

    ngx_http_infer_set_dirty(ctx);
}


/* At the end of this round: output goes out, credit back. */

static void
ngx_http_infer_set_dirty(ngx_http_infer_ctx_t *ctx)
{
    if (!ctx->dirty) {
        ngx_queue_insert_tail(&ctx->link->dirty, &ctx->dirty_queue);
        ctx->dirty = 1;
    }
}


/* The slot is free already. */

static void
ngx_http_infer_reply_end(ngx_http_infer_ctx_t *ctx, const u_char *payload)
{
    struct wire_end  end;

    ngx_memcpy(&end, payload, sizeof(struct wire_end));

    if (end.reason == WIRE_END_BUSY && !ctx->headed) {
        ngx_http_infer_count(ctx->engine, busy, 1);
        ngx_http_infer_failed(ctx, NGX_HTTP_INFER_NEXT_BUSY);
        return;
    }

    if (end.reason == WIRE_END_OK && ctx->headed
        && (ctx->reply_left == 0 || ctx->reply_left == WIRE_BODY_UNKNOWN))
    {
        ngx_http_infer_complete(ctx);
        return;
    }

    if (end.reason == WIRE_END_ERROR
        && (ctx->header || (ctx->stream && ctx->out)))
    {

        /* the engine has said what it could */

        ctx->finish = "error";
        ngx_http_infer_break(ctx);
        return;
    }

    if (end.reason == WIRE_END_CANCELLED || end.reason == WIRE_END_ERROR) {
        ngx_http_infer_failed(ctx, NGX_HTTP_INFER_NEXT_ERROR);
        return;
    }

    ngx_http_infer_link_fault(ctx, "reply end");
}


void
ngx_http_infer_forget(ngx_http_infer_ctx_t *ctx)
{
    *ctx->last_out = ctx->free_bufs;
    ctx->free_bufs = ctx->out;
    ctx->out = NULL;
    ctx->last_out = &ctx->out;

    ctx->headed = 0;
    ctx->stream = 0;
    ctx->flush = 0;
    ctx->got_first = 0;
    ctx->got_stats = 0;
}


static void
ngx_http_infer_complete(ngx_http_infer_ctx_t *ctx)
{
    ngx_int_t            rc;
    ngx_chain_t         *cl;
    ngx_http_request_t  *r;

    r = ctx->request;

    if (ngx_http_infer_begin(ctx) != NGX_OK) {
        return;
    }

    if (ctx->gone) {
        ngx_http_infer_finalize(ctx, r->header_only ? NGX_OK : NGX_ERROR);
        return;
    }

    if (ctx->out == NULL) {
        rc = ngx_http_send_special(r, NGX_HTTP_LAST);
        ngx_http_infer_finalize(ctx, rc);
        return;
    }

    /* the end on the buffer of the last event: one write, one frame */

    for (cl = ctx->out; cl->next; cl = cl->next) { /* void */ }

    cl->buf->last_buf = 1;
    cl->buf->last_in_chain = 1;

    rc = ngx_http_output_filter(r, ctx->out);

    ngx_http_infer_finalize(ctx, rc);
}


void
ngx_http_infer_cut(ngx_http_infer_ctx_t *ctx, const char *code,
    const char *message)
{
    u_char     *p, text[512];
    ngx_int_t   rc;

    if (!ctx->stream || ctx->gone) {
        ngx_http_infer_finalize(ctx, NGX_ERROR);
        return;
    }

    if (ngx_http_infer_anthropic(ctx->request)) {
        p = ngx_snprintf(text, sizeof(text),
                         "event: error\ndata: {\"type\":\"error\","
                         "\"error\":{\"type\":\"api_error\","
                         "\"message\":\"%s\"}}\n\n",
                         message);

    } else {
        p = ngx_snprintf(text, sizeof(text),
                         "%sdata: {%s\"error\":{\"message\":\"%s\","
                         "\"type\":\"server_error\",\"param\":null,"
                         "\"code\":\"%s\"}}\n\n%s",
                         ctx->named ? "event: error\n" : "",
                         ctx->named ? "\"type\":\"error\"," : "",
                         message, code,
                         ctx->named ? "" : "data: [DONE]\n\n");
    }

    rc = ngx_http_infer_append(ctx, text, p - text);

    if (rc != NGX_OK) {
        ngx_http_infer_finalize(ctx, NGX_ERROR);
        return;
    }

    ngx_http_infer_break(ctx);
}


/*
 * The last words are in out.  HTTP/1 closes without the last chunk, so no
 * one takes the text for whole.  HTTP/2 and later end a stream in order:
 * after a reset a client may throw away what it has not read yet, which is
 * just the error event.
 */

static void
ngx_http_infer_break(ngx_http_infer_ctx_t *ctx)
{
    if (ctx->stream && !ctx->gone
        && ctx->request->http_version >= NGX_HTTP_VERSION_20)
    {
        ngx_http_infer_complete(ctx);
        return;
    }

    if (ngx_http_infer_begin(ctx) != NGX_OK) {
        return;
    }

    if (!ctx->gone) {
        (void) ngx_http_infer_output(ctx);
    }

    ngx_http_infer_finalize(ctx, NGX_ERROR);
}


static ngx_int_t
ngx_http_infer_append(ngx_http_infer_ctx_t *ctx, const u_char *p, size_t n)
{
    size_t        part;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    cl = NULL;

    if (ctx->out) {
        for (cl = ctx->out; cl->next; cl = cl->next) { /* void */ }
    }

    while (n) {

        if (cl == NULL || cl->buf->last == cl->buf->end) {

            cl = ngx_chain_get_free_buf(ctx->request->pool, &ctx->free_bufs);
            if (cl == NULL) {
                return NGX_ERROR;
            }

            b = cl->buf;

            if (b->start == NULL) {
                b->start = ngx_palloc(ctx->request->pool,
                                      NGX_HTTP_INFER_BUF);
                if (b->start == NULL) {
                    return NGX_ERROR;
                }

                b->end = b->start + NGX_HTTP_INFER_BUF;
                b->tag = ngx_http_infer_tag;
                b->temporary = 1;
            }

            b->pos = b->start;
            b->last = b->start;
            b->flush = 0;
            b->last_buf = 0;
            b->last_in_chain = 0;

            *ctx->last_out = cl;
            ctx->last_out = &cl->next;
        }

        b = cl->buf;
        part = ngx_min(n, (size_t) (b->end - b->last));
        b->last = ngx_cpymem(b->last, p, part);
        p += part;
        n -= part;
    }

    return NGX_OK;
}


void
ngx_http_infer_flush(ngx_http_infer_ctx_t *ctx)
{
    ngx_msec_t                  passed;
    ngx_http_infer_loc_conf_t  *ilcf;

    if (ctx->busy) {
        return;
    }

    if (ctx->out == NULL) {
        ngx_http_infer_link_ack(ctx, 0);
        return;
    }

    if (!ctx->flush) {
        return;
    }

    ilcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_infer_module);

    if (ilcf->flush_interval
        && ngx_http_infer_link_unacked(ctx)
           < ctx->link->wire.ring.window / 2)
    {
        passed = ngx_current_msec - ctx->flushed;

        if (passed < ilcf->flush_interval) {
            if (!ctx->flush_timer.timer_set) {
                ngx_add_timer(&ctx->flush_timer,
                              ilcf->flush_interval - passed);
            }

            return;
        }
    }

    if (ngx_http_infer_begin(ctx) == NGX_OK && !ctx->gone
        && ngx_http_infer_output(ctx) != NGX_OK)
    {
        ngx_http_infer_finalize(ctx, NGX_ERROR);
    }
}


void
ngx_http_infer_flush_handler(ngx_event_t *ev)
{
    ngx_connection_t      *c;
    ngx_http_infer_ctx_t  *ctx;

    ctx = ev->data;
    c = ctx->request->connection;

    ngx_http_set_log_request(c->log, ctx->request);

    if (ctx->busy == NULL && !ctx->gone
        && ngx_http_infer_output(ctx) != NGX_OK)
    {
        ngx_http_infer_finalize(ctx, NGX_ERROR);
    }

    ngx_http_run_posted_requests(c);
}


/* Push on what is busy, then pass out, and see what left. */

static ngx_int_t
ngx_http_infer_output(ngx_http_infer_ctx_t *ctx)
{
    ngx_event_t                *wev;
    ngx_connection_t           *c;
    ngx_http_core_loc_conf_t   *clcf;
    ngx_http_infer_loc_conf_t  *ilcf;

    c = ctx->request->connection;
    wev = c->write;

    do {
        if (ngx_http_infer_pass_out(ctx) == NGX_ERROR
            || c->error || wev->error)
        {
            ilcf = ngx_http_get_module_loc_conf(ctx->request,
                                                ngx_http_infer_module);

            if (!ilcf->ignore_client_abort) {
                return NGX_ERROR;
            }

            ngx_http_infer_gone(ctx);
            return NGX_OK;
        }

    } while (ctx->busy == NULL && ctx->out);

    ngx_http_infer_link_ack(ctx, ngx_http_infer_held(ctx));

    if (ctx->busy || c->buffered) {
        clcf = ngx_http_get_module_loc_conf(ctx->request,
                                            ngx_http_core_module);

        if (!wev->delayed) {
            ngx_add_timer(wev, clcf->send_timeout);
        }

        return ngx_handle_write_event(wev, clcf->send_lowat);
    }

    if (wev->timer_set && !wev->delayed) {
        ngx_del_timer(wev);
    }

    return NGX_OK;
}


/* While something is busy out goes on gathering, in full buffers: a client
 * that takes a byte at a time gets no buffer for each token. */

static ngx_int_t
ngx_http_infer_pass_out(ngx_http_infer_ctx_t *ctx)
{
    ngx_int_t     rc;
    ngx_chain_t  *cl, *out;

    out = NULL;

    if (ctx->busy == NULL && ctx->out) {
        out = ctx->out;

        for (cl = out; cl->next; cl = cl->next) { /* void */ }

        cl->buf->flush = 1;

        ctx->out = NULL;
        ctx->last_out = &ctx->out;
        ctx->flush = 0;
        ctx->flushed = ngx_current_msec;
    }

    rc = ngx_http_output_filter(ctx->request, out);

    ngx_chain_update_chains(ctx->request->pool, &ctx->free_bufs, &ctx->busy,
                            &out, ngx_http_infer_tag);

    return rc;
}


/* The engine is to finish all the same: what comes is dropped. */

static void
ngx_http_infer_gone(ngx_http_infer_ctx_t *ctx)
{
    ngx_event_t  *wev;

    ctx->gone = 1;
    ctx->out = NULL;
    ctx->busy = NULL;
    ctx->last_out = &ctx->out;
    ngx_http_infer_link_ack(ctx, 0);

    /* the delay of limit_rate is the connection's, not ours to end */

    wev = ctx->request->connection->write;

    if (wev->timer_set && !wev->delayed) {
        ngx_del_timer(wev);
    }
}


/* Bytes that the client has not taken yet. */

static size_t
ngx_http_infer_held(ngx_http_infer_ctx_t *ctx)
{
    size_t        n;
    ngx_chain_t  *cl;

    n = 0;

    for (cl = ctx->busy; cl; cl = cl->next) {
        n += ngx_buf_size(cl->buf);
    }

    for (cl = ctx->out; cl; cl = cl->next) {
        n += ngx_buf_size(cl->buf);
    }

    return n;
}


/* Run by the connection: core looks after posted requests. */

static void
ngx_http_infer_write_handler(ngx_http_request_t *r)
{
    ngx_event_t           *wev;
    ngx_connection_t      *c;
    ngx_http_infer_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_infer_module);
    c = r->connection;
    wev = c->write;

    if (ctx->gone) {
        return;
    }

    if (wev->timedout) {
        ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT,
                      "client timed out");
        c->timedout = 1;
        ctx->finish = "client_timeout";
        ngx_http_infer_finalize(ctx, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }

    if (wev->delayed) {
        return;
    }

    /* nothing busy and nothing to flush: bytes wait for their event's end */

    if (ctx->busy == NULL && !c->buffered && !(ctx->out && ctx->flush)) {
        return;
    }

    if (ngx_http_infer_output(ctx) != NGX_OK) {
        ngx_http_infer_finalize(ctx, NGX_ERROR);
    }
}
