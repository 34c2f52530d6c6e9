
/*
 * Errors that no engine can answer, in the form that clients of the API
 * understand: {"error":{"message","type","param","code"}}.
 */


#include "ngx_http_infer.h"


typedef struct {
    ngx_uint_t   status;
    const char  *code;
    const char  *message;
} ngx_http_infer_message_t;


/* What nginx itself refuses, for infer_error. */

static ngx_http_infer_message_t  ngx_http_infer_messages[] = {
    { 400, "bad_request", "the request is malformed" },
    { 401, "unauthorized", "authentication is required" },
    { 403, "forbidden", "access is denied" },
    { 404, "not_found", "there is nothing under this address" },
    { 405, "method_not_allowed", "this method is not supported" },
    { 408, "request_timeout", "the request did not arrive in time" },
    { 413, "request_too_large", "the request body is too large" },
    { 414, "uri_too_long", "the request URI is too long" },
    { 429, "rate_limit_exceeded", "too many requests" },
    { 494, "headers_too_large", "the request headers are too large" },
    { 500, "internal_error", "internal error" },
    { 502, "engine_lost", "the engine failed before it answered" },
    { 503, "engine_unavailable", "the service cannot take this request now" },
    { 504, "engine_timeout", "the engine did not answer in time" },
    { 0, "error", "the request failed" }
};


/* infer_error: the content handler of a location named in error_page. */

ngx_int_t
ngx_http_infer_error_handler(ngx_http_request_t *r)
{
    ngx_int_t                  rc;
    ngx_uint_t                 status;
    ngx_http_infer_message_t  *m;

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    status = r->err_status ? r->err_status : NGX_HTTP_NOT_FOUND;

    for (m = ngx_http_infer_messages; m->status; m++) {
        if (m->status == status) {
            break;
        }
    }

    if (status == NGX_HTTP_REQUEST_HEADER_TOO_LARGE) {
        status = NGX_HTTP_BAD_REQUEST;
        r->err_status = status;
    }

    return ngx_http_infer_send_error(r, status, m->code, m->message);
}


ngx_int_t
ngx_http_infer_add_header(ngx_http_request_t *r, const char *name,
    size_t name_len, u_char *value, size_t value_len)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    ngx_http_infer_elt_init(h);
    h->key.data = (u_char *) name;
    h->key.len = name_len;
    h->value.data = value;
    h->value.len = value_len;

    return NGX_OK;
}


/* A finished body of our own; what it returns finalizes the request. */

ngx_int_t
ngx_http_infer_send_json(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *json)
{
    ngx_int_t     rc;
    ngx_buf_t    *b;
    ngx_chain_t   out;

    r->headers_out.status = status;
    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.content_length_n = json->len;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    b->pos = json->data;
    b->last = json->data + json->len;
    b->memory = 1;
    b->last_buf = (r == r->main);
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


/* With infer_intercept_errors it is the administrator's error_page that
 * answers. */

ngx_int_t
ngx_http_infer_send_error(ngx_http_request_t *r, ngx_uint_t status,
    const char *code, const char *message)
{
    u_char                     *p;
    ngx_str_t                   json;
    const char                 *type;
    ngx_http_core_loc_conf_t   *clcf;
    ngx_http_infer_loc_conf_t  *ilcf;

    static u_char               retry_after[] = "1";
    static u_char               retry_after_ms[] = "1000";

    ilcf = ngx_http_get_module_loc_conf(r, ngx_http_infer_module);
    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (ilcf->intercept_errors && clcf->error_pages && !r->error_page) {
        return status;
    }

    if (status == NGX_HTTP_REQUEST_HEADER_TOO_LARGE) {
        status = NGX_HTTP_BAD_REQUEST;      /* 494 is nginx's own number */
    }

    if (status == NGX_HTTP_TOO_MANY_REQUESTS
        || status == NGX_HTTP_SERVICE_UNAVAILABLE)
    {
        if (ngx_http_infer_add_header(r, "Retry-After", 11, retry_after, 1)
            != NGX_OK
            || ngx_http_infer_add_header(r, "Retry-After-Ms", 14,
                                         retry_after_ms, 4)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    type = status == NGX_HTTP_TOO_MANY_REQUESTS ? "rate_limit_error"
           : status < NGX_HTTP_INTERNAL_SERVER_ERROR ? "invalid_request_error"
           : status == NGX_HTTP_SERVICE_UNAVAILABLE
             ? "service_unavailable_error"
           : status == NGX_HTTP_GATEWAY_TIME_OUT ? "timeout"
           : "server_error";

    p = ngx_pnalloc(r->pool, 128 + ngx_strlen(code) + ngx_strlen(message));
    if (p == NULL) {
        return NGX_ERROR;
    }

    /* code and message are our own words: nothing to escape */

    json.data = p;
    json.len = ngx_sprintf(p, "{\"error\":{\"message\":\"%s\",\"type\":\"%s\","
                           "\"param\":null,\"code\":\"%s\"}}" CRLF,
                           message, type, code)
               - p;

    return ngx_http_infer_send_json(r, status, &json);
}
