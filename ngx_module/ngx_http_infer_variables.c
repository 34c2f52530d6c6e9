
/*
 * $infer_*: the model's numbers come in the engine's STATS record, the times
 * are the worker's own clock.  Seconds; empty if unknown.
 */


#include "ngx_http_infer.h"


#define NGX_HTTP_INFER_VAR_ENGINE      0
#define NGX_HTTP_INFER_VAR_STATUS      1
#define NGX_HTTP_INFER_VAR_MODEL       2
#define NGX_HTTP_INFER_VAR_PROMPT      3
#define NGX_HTTP_INFER_VAR_CACHED      4
#define NGX_HTTP_INFER_VAR_COMPLETION  5
#define NGX_HTTP_INFER_VAR_REASONING   6
#define NGX_HTTP_INFER_VAR_QUEUE       7
#define NGX_HTTP_INFER_VAR_TTFT        8
#define NGX_HTTP_INFER_VAR_TPOT        9
#define NGX_HTTP_INFER_VAR_FINISH      10
#define NGX_HTTP_INFER_VAR_REQUEST_ID  11


static ngx_int_t ngx_http_infer_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static u_char *ngx_http_infer_number(ngx_http_infer_ctx_t *ctx, u_char *p,
    uintptr_t which);
static u_char *ngx_http_infer_time(ngx_http_infer_ctx_t *ctx, u_char *p,
    uintptr_t which);


static ngx_http_variable_t  ngx_http_infer_vars[] = {

    { ngx_string("infer_engine"), NULL, ngx_http_infer_variable,
      NGX_HTTP_INFER_VAR_ENGINE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("infer_status"), NULL, ngx_http_infer_variable,
      NGX_HTTP_INFER_VAR_STATUS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("infer_model"), NULL, ngx_http_infer_variable,
      NGX_HTTP_INFER_VAR_MODEL, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("infer_prompt_tokens"), NULL, ngx_http_infer_variable,
      NGX_HTTP_INFER_VAR_PROMPT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("infer_cached_tokens"), NULL, ngx_http_infer_variable,
      NGX_HTTP_INFER_VAR_CACHED, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("infer_completion_tokens"), NULL, ngx_http_infer_variable,
      NGX_HTTP_INFER_VAR_COMPLETION, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("infer_reasoning_tokens"), NULL, ngx_http_infer_variable,
      NGX_HTTP_INFER_VAR_REASONING, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("infer_queue_time"), NULL, ngx_http_infer_variable,
      NGX_HTTP_INFER_VAR_QUEUE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("infer_ttft"), NULL, ngx_http_infer_variable,
      NGX_HTTP_INFER_VAR_TTFT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("infer_tpot"), NULL, ngx_http_infer_variable,
      NGX_HTTP_INFER_VAR_TPOT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("infer_finish_reason"), NULL, ngx_http_infer_variable,
      NGX_HTTP_INFER_VAR_FINISH, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("infer_request_id"), NULL, ngx_http_infer_variable,
      NGX_HTTP_INFER_VAR_REQUEST_ID, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_http_infer_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_infer_vars; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_infer_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    u_char                *p;
    ngx_http_infer_ctx_t  *ctx;

    ctx = ngx_http_infer_get_ctx(r);

    v->valid = 1;
    v->no_cacheable = 1;
    v->not_found = 1;

    if (ctx == NULL) {
        return NGX_OK;
    }

    switch (data) {

    case NGX_HTTP_INFER_VAR_ENGINE:
        v->data = ctx->engines.data;
        v->len = ctx->engines.len;
        break;

    case NGX_HTTP_INFER_VAR_MODEL:
        v->data = (u_char *) ctx->stats.model;
        v->len = ngx_strlen(v->data);
        break;

    case NGX_HTTP_INFER_VAR_REQUEST_ID:
        v->data = (u_char *) ctx->stats.request_id;
        v->len = ngx_strlen(v->data);
        break;

    case NGX_HTTP_INFER_VAR_FINISH:
        v->data = (u_char *) (ctx->finish ? ctx->finish : ctx->stats.finish);
        v->len = ngx_strlen(v->data);
        break;

    default:
        p = ngx_pnalloc(r->pool, NGX_TIME_T_LEN + NGX_INT64_LEN + 8);
        if (p == NULL) {
            return NGX_ERROR;
        }

        v->data = p;
        v->len = ngx_http_infer_number(ctx, p, data) - p;
        break;
    }

    v->not_found = (v->len == 0);

    return NGX_OK;
}


static u_char *
ngx_http_infer_number(ngx_http_infer_ctx_t *ctx, u_char *p, uintptr_t which)
{
    struct wire_stats  *st = &ctx->stats;

    switch (which) {

    case NGX_HTTP_INFER_VAR_STATUS:
        return ctx->status ? ngx_sprintf(p, "%03ui", ctx->status) : p;

    case NGX_HTTP_INFER_VAR_PROMPT:
        return ctx->got_stats ? ngx_sprintf(p, "%uD", st->prompt_tok) : p;

    case NGX_HTTP_INFER_VAR_CACHED:
        return ctx->got_stats ? ngx_sprintf(p, "%uD", st->cached_tok) : p;

    case NGX_HTTP_INFER_VAR_COMPLETION:
        return ctx->got_stats ? ngx_sprintf(p, "%uD", st->completion_tok) : p;

    case NGX_HTTP_INFER_VAR_REASONING:
        return ctx->got_stats ? ngx_sprintf(p, "%uD", st->reasoning_tok) : p;

    default:
        return ngx_http_infer_time(ctx, p, which);
    }
}


static u_char *
ngx_http_infer_time(ngx_http_infer_ctx_t *ctx, u_char *p, uintptr_t which)
{
    uint64_t     us;
    ngx_msec_t   ms;

    switch (which) {

    case NGX_HTTP_INFER_VAR_QUEUE:

        /* ours, before it was sent, and the engine's, before it ran */

        if (!ctx->was_submitted) {
            return p;
        }

        ms = ctx->submitted - ctx->start;

        if (ctx->got_stats) {
            ms += (ngx_msec_t) (ctx->stats.queue_ns / 1000000);
        }

        return ngx_sprintf(p, "%T.%03M", (time_t) (ms / 1000), ms % 1000);

    case NGX_HTTP_INFER_VAR_TTFT:

        if (!ctx->got_first) {
            return p;
        }

        ms = ctx->first - ctx->start;

        return ngx_sprintf(p, "%T.%03M", (time_t) (ms / 1000), ms % 1000);

    default: /* NGX_HTTP_INFER_VAR_TPOT */

        if (!ctx->stream || !ctx->got_stats || ctx->stats.completion_tok < 2)
        {
            return p;
        }

        us = (uint64_t) (ctx->last - ctx->first) * 1000
             / (ctx->stats.completion_tok - 1);

        return ngx_sprintf(p, "%uL.%06uL", us / 1000000, us % 1000000);
    }
}
