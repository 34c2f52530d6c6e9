
/*
 * The life of a request:
 *
 *     handler -> body is read -> submit -> [waiting in the pool's queue]
 *             -> sent over a link -> reply records (_output.c) -> finalize
 *
 * From submit to finalize a request owns one timer that is not cancelable:
 * it is what keeps a worker alive that is being replaced by a reload.
 */


#include "ngx_http_infer.h"


static ngx_int_t ngx_http_infer_create_ctx(ngx_http_request_t *r,
    ngx_http_infer_pool_t *pool);
static ngx_http_infer_pool_t *ngx_http_infer_find_pool(
    ngx_http_request_t *r);
static void ngx_http_infer_body_handler(ngx_http_request_t *r);
static void ngx_http_infer_detach(ngx_http_infer_ctx_t *ctx);
static void ngx_http_infer_cleanup(void *data);
static void ngx_http_infer_pool_cleanup(void *data);
static void ngx_http_infer_timer_handler(ngx_event_t *ev);
static ngx_int_t ngx_http_infer_note_engine(ngx_http_infer_ctx_t *ctx);


ngx_int_t
ngx_http_infer_handler(ngx_http_request_t *r)
{
    ngx_int_t               rc;
    ngx_http_infer_pool_t  *pool;

    if (r != r->main) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "infer_pass does not serve subrequests");
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    pool = ngx_http_infer_find_pool(r);
    if (pool == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_infer_create_ctx(r, pool) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->request_body_in_single_buf = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_infer_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    return NGX_DONE;
}


static ngx_http_infer_pool_t *
ngx_http_infer_find_pool(ngx_http_request_t *r)
{
    ngx_str_t                    name;
    ngx_http_infer_pool_t       *pool;
    ngx_http_infer_loc_conf_t   *ilcf;
    ngx_http_infer_main_conf_t  *imcf;

    ilcf = ngx_http_get_module_loc_conf(r, ngx_http_infer_module);

    if (ilcf->pool_value == NULL) {
        return ilcf->pool;
    }

    imcf = ngx_http_get_module_main_conf(r, ngx_http_infer_module);

    if (ngx_http_complex_value(r, ilcf->pool_value, &name) != NGX_OK) {
        return NULL;
    }

    pool = ngx_http_infer_pool_find(imcf, &name);

    if (pool == NULL) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "infer pool \"%V\" not found", &name);
    }

    return pool;
}


static ngx_int_t
ngx_http_infer_create_ctx(ngx_http_request_t *r, ngx_http_infer_pool_t *pool)
{
    ngx_http_cleanup_t    *cln;
    ngx_pool_cleanup_t    *pcln;
    ngx_http_infer_ctx_t  *ctx;

    ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_infer_ctx_t));
    pcln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_infer_ctx_t *));
    cln = ngx_http_cleanup_add(r, 0);

    if (ctx == NULL || pcln == NULL || cln == NULL) {
        return NGX_ERROR;
    }

    ctx->request = r;
    ctx->pool = pool;
    ctx->last_out = &ctx->out;
    ctx->start = ngx_current_msec;

    ctx->timer.handler = ngx_http_infer_timer_handler;
    ctx->timer.data = ctx;
    ctx->timer.log = r->connection->log;

    ctx->flush_timer.handler = ngx_http_infer_flush_handler;
    ctx->flush_timer.data = ctx;
    ctx->flush_timer.log = r->connection->log;

    /* at once when the request is terminated; the pool may live longer */

    cln->handler = ngx_http_infer_cleanup;
    cln->data = ctx;

    /* a redirect clears r->ctx, this is how the log phase finds it */

    pcln->handler = ngx_http_infer_pool_cleanup;
    *(ngx_http_infer_ctx_t **) pcln->data = ctx;

    ngx_http_set_ctx(r, ctx, ngx_http_infer_module);

    return NGX_OK;
}


ngx_http_infer_ctx_t *
ngx_http_infer_get_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t    *cln;
    ngx_http_infer_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_infer_module);

    for (cln = r->pool->cleanup; ctx == NULL && cln; cln = cln->next) {
        if (cln->handler == ngx_http_infer_pool_cleanup) {
            ctx = *(ngx_http_infer_ctx_t **) cln->data;
        }
    }

    return ctx;
}


static void
ngx_http_infer_pool_cleanup(void *data)
{
    /* a mark for ngx_http_infer_get_ctx(): the ctx is pool memory */
}


static void
ngx_http_infer_body_handler(ngx_http_request_t *r)
{
    ngx_int_t                   rc;
    ngx_connection_t           *c;
    ngx_http_infer_ctx_t       *ctx;
    ngx_http_infer_loc_conf_t  *ilcf;

    ctx = ngx_http_get_module_ctx(r, ngx_http_infer_module);
    ilcf = ngx_http_get_module_loc_conf(r, ngx_http_infer_module);
    c = r->connection;

    rc = ngx_http_infer_build_head(ctx);

    if (rc != NGX_OK) {
        ngx_http_infer_reject(ctx, rc == NGX_ERROR
                                   ? NGX_HTTP_INTERNAL_SERVER_ERROR
                                   : (ngx_uint_t) rc,
                              "bad_request",
                              "the request head or body is too large or has "
                              "control characters");
        return;
    }

    if (!ilcf->ignore_client_abort && !r->post_action) {
        r->read_event_handler = ngx_http_test_reading;

        /* a FIN that came with the request will not be reported again */

        if (c->read->ready) {
            ngx_post_event(c->read, &ngx_posted_events);

        } else if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
            ngx_http_infer_finalize(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR);
            return;
        }
    }

    c->log->action = "waiting for engine";
    ctx->start = ngx_current_msec;

    ngx_http_infer_submit(ctx, ngx_http_infer_pool_pick(ctx));
}


void
ngx_http_infer_submit(ngx_http_infer_ctx_t *ctx,
    ngx_http_infer_engine_t *engine)
{
    ngx_http_infer_loc_conf_t  *ilcf;

    if (engine == NULL) {

        if (ngx_http_infer_pool_wait(ctx) != NGX_OK) {
            ngx_http_infer_reject(ctx, NGX_HTTP_SERVICE_UNAVAILABLE,
                                  "engine_unavailable",
                                  "no engine can take this request now");
        }

        return;
    }

    ilcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_infer_module);

    ctx->engine = engine;
    ctx->tried |= (uint64_t) 1 << engine->index;
    ctx->tries++;
    ctx->submitted = ngx_current_msec;
    ctx->was_submitted = 1;

    if (ngx_http_infer_note_engine(ctx) != NGX_OK) {
        ngx_http_infer_finalize(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, ctx->request->connection->log, 0,
                   "infer submit to \"%V\", body %uL",
                   &engine->name, ctx->body_bytes);

    ngx_add_timer(&ctx->timer, ilcf->first_byte_timeout);

    ngx_http_infer_link_submit(engine->link, ctx);
}


/* $infer_engine names all that were tried, as $upstream_addr does. */

static ngx_int_t
ngx_http_infer_note_engine(ngx_http_infer_ctx_t *ctx)
{
    u_char     *p;
    ngx_str_t  *name;

    name = &ctx->engine->name;

    if (ctx->engines.len == 0) {
        ctx->engines = *name;
        return NGX_OK;
    }

    p = ngx_pnalloc(ctx->request->pool, ctx->engines.len + 2 + name->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ctx->engines.len = ngx_sprintf(p, "%V, %V", &ctx->engines, name) - p;
    ctx->engines.data = p;

    return NGX_OK;
}


/* BUSY: nothing was done, so another one may always try. */

ngx_http_infer_engine_t *
ngx_http_infer_next(ngx_http_infer_ctx_t *ctx, ngx_uint_t why)
{
    ngx_http_infer_loc_conf_t  *ilcf;

    ilcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_infer_module);

    if (ctx->header
        || !((ilcf->next_engine | NGX_HTTP_INFER_NEXT_BUSY) & why)
        || (ilcf->next_engine_tries
            && ctx->tries >= ilcf->next_engine_tries))
    {
        return NULL;
    }

    return ngx_http_infer_pool_pick(ctx);
}


void
ngx_http_infer_failed(ngx_http_infer_ctx_t *ctx, ngx_uint_t why)
{
    ngx_http_infer_engine_t  *engine;

    ngx_http_infer_link_detach(ctx);

    if (!ctx->header) {
        ngx_http_infer_forget(ctx);
    }

    engine = ngx_http_infer_next(ctx, why);

    if (engine) {
        ngx_http_infer_submit(ctx, engine);
        return;
    }

    if (why == NGX_HTTP_INFER_NEXT_BUSY) {
        ngx_http_infer_reject(ctx, NGX_HTTP_SERVICE_UNAVAILABLE,
                              "server_is_overloaded",
                              "the engine is at its limit");

    } else if (why == NGX_HTTP_INFER_NEXT_TIMEOUT) {
        ctx->finish = "timeout";

        if (ctx->header) {
            ngx_http_infer_cut(ctx, "engine_timeout",
                               "the engine did not go on in time");

        } else {
            ngx_http_infer_reject(ctx, NGX_HTTP_GATEWAY_TIME_OUT,
                                  "engine_timeout",
                                  "the engine did not answer in time");
        }

    } else {
        ctx->finish = "engine_lost";

        if (ctx->header) {
            ngx_http_infer_cut(ctx, "engine_lost",
                               "the engine failed during this reply");

        } else {
            ngx_http_infer_reject(ctx, NGX_HTTP_BAD_GATEWAY, "engine_lost",
                                  "the engine failed before it answered");
        }
    }
}


void
ngx_http_infer_reject(ngx_http_infer_ctx_t *ctx, ngx_uint_t status,
    const char *code, const char *message)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = ctx->request;

    /* error_page may run the phases again on the same request */

    ngx_http_infer_detach(ctx);

    if (ctx->finish == NULL) {
        ctx->finish = "error";
    }

    rc = ngx_http_infer_send_error(r, status, code, message);

    ngx_http_finalize_request(r, rc);
}


void
ngx_http_infer_finalize(ngx_http_infer_ctx_t *ctx, ngx_int_t rc)
{
    ngx_http_request_t  *r;

    r = ctx->request;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "infer finalize: %i", rc);

    if (rc == NGX_ERROR) {

        /* that the client has gone is often learnt by writing to it */

        ngx_http_infer_cleanup(ctx);

    } else {
        ngx_http_infer_detach(ctx);
    }

    ngx_http_finalize_request(r, rc);
}


/* Nothing of ours points at the request afterwards.  Idempotent. */

static void
ngx_http_infer_detach(ngx_http_infer_ctx_t *ctx)
{
    if (ctx->waiting) {
        ctx->pool->n_waiting--;
        ctx->waiting = 0;
    }

    ngx_http_infer_link_detach(ctx);

    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    if (ctx->flush_timer.timer_set) {
        ngx_del_timer(&ctx->flush_timer);
    }

    ctx->request->read_event_handler = ngx_http_block_reading;
}


static void
ngx_http_infer_cleanup(void *data)
{
    ngx_http_infer_ctx_t  *ctx = data;

    if (ctx->finish == NULL && (ctx->link || ctx->waiting)) {
        ctx->finish = "cancelled";
    }

    ngx_http_infer_detach(ctx);
}


static void
ngx_http_infer_timer_handler(ngx_event_t *ev)
{
    ngx_connection_t           *c;
    ngx_http_infer_ctx_t       *ctx;
    ngx_http_infer_loc_conf_t  *ilcf;

    ctx = ev->data;
    c = ctx->request->connection;

    ngx_http_set_log_request(c->log, ctx->request);

    if (ctx->broken) {
        ngx_http_infer_reject(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR,
                              "internal_error",
                              "the request body could not be read");

    } else if (ctx->waiting) {
        ngx_log_error(NGX_LOG_ERR, c->log, 0,
                      "infer: no engine of pool \"%V\" became free in time",
                      &ctx->pool->name);
        ctx->finish = "timeout";
        ngx_http_infer_reject(ctx, NGX_HTTP_SERVICE_UNAVAILABLE,
                              "engine_unavailable",
                              "no engine became free in time");

    } else if (ctx->busy) {

        /* the client is slow, so the engine has no credit: send_timeout is
         * what ends this */

        ilcf = ngx_http_get_module_loc_conf(ctx->request,
                                            ngx_http_infer_module);
        ngx_add_timer(ev, ilcf->read_timeout);

    } else {
        ngx_log_error(NGX_LOG_ERR, c->log, NGX_ETIMEDOUT,
                      "infer: engine \"%V\" timed out", &ctx->engine->name);
        ngx_http_infer_count(ctx->engine, timeouts, 1);

        /* one that goes on answering others has not failed */

        if (ctx->link->n_records == ctx->heard) {
            ngx_http_infer_engine_fail(ctx->engine);
        }

        ngx_http_infer_failed(ctx, NGX_HTTP_INFER_NEXT_TIMEOUT);
    }

    ngx_http_run_posted_requests(c);
}
