
/*
 * Errors that no engine can answer, in the form that clients of the API
 * understand: OpenAI's {"error":{"message","type","param","code"}}, and
 * Anthropic's {"type":"error","error":{"type","message"},"request_id"} under
 * its addresses.
 */


#include "ngx_http_infer.h"


typedef struct {
    ngx_uint_t   status;        /* 4: any other 4xx; 0: the rest */
    const char  *type;
    const char  *anthropic;     /* its type */
    const char  *code;
    const char  *message;
} ngx_http_infer_message_t;


static ngx_uint_t ngx_http_infer_status(ngx_http_request_t *r,
    ngx_uint_t status);
static ngx_str_t ngx_http_infer_written(ngx_http_request_t *r);
static ngx_str_t ngx_http_infer_asked(ngx_http_request_t *r);
static ngx_uint_t ngx_http_infer_is(ngx_str_t *uri, ngx_str_t *path);
static ngx_int_t ngx_http_infer_retry_headers(ngx_http_request_t *r);
static ngx_int_t ngx_http_infer_openai_error(ngx_http_request_t *r,
    const char *type, const char *code, const char *message,
    ngx_str_t *json);
static ngx_int_t ngx_http_infer_anthropic_error(ngx_http_request_t *r,
    const char *type, const char *message, ngx_str_t *json);


/* What nginx itself refuses: code and message for infer_error. */

static ngx_http_infer_message_t  ngx_http_infer_messages[] = {
    { 400, "invalid_request_error", "invalid_request_error",
      "bad_request", "the request is malformed" },
    { 401, "authentication_error", "authentication_error",
      "unauthorized", "authentication is required" },
    { 403, "permission_error", "permission_error",
      "forbidden", "access is denied" },
    { 404, "invalid_request_error", "not_found_error",
      "not_found", "there is nothing under this address" },
    { 405, "invalid_request_error", "invalid_request_error",
      "method_not_allowed", "this method is not allowed here" },
    { 408, "timeout", "timeout_error",
      "request_timeout", "the request did not arrive in time" },
    { 413, "invalid_request_error", "request_too_large",
      "request_too_large", "the request body is too large" },
    { 414, "invalid_request_error", "invalid_request_error",
      "uri_too_long", "the request URI is too long" },
    { 429, "rate_limit_error", "rate_limit_error",
      "rate_limit_exceeded", "too many requests" },
    { 494, "invalid_request_error", "invalid_request_error",
      "headers_too_large", "the request headers are too large" },
    { 497, "invalid_request_error", "invalid_request_error",
      "https_required", "plain HTTP was sent to a port for HTTPS" },
    { 500, "server_error", "api_error",
      "internal_error", "internal error" },
    { 501, "server_error", "api_error",
      "not_supported", "the server does not support what this request asks for,"
      " such as its transfer coding" },
    { 502, "server_error", "api_error",
      "engine_lost", "the engine failed before it answered" },
    { 503, "service_unavailable_error", "overloaded_error",
      "engine_unavailable", "the service cannot take this request now" },
    { 504, "timeout", "timeout_error",
      "engine_timeout", "the engine did not answer in time" },
    { 505, "server_error", "api_error",
      "http_version_not_supported", "this version of HTTP is not spoken here" },
    { 4, "invalid_request_error", "invalid_request_error",
      "error", "the request failed" },
    { 0, "server_error", "api_error",
      "error", "the request failed" }
};


static ngx_http_infer_message_t *
ngx_http_infer_find_message(ngx_uint_t status)
{
    ngx_http_infer_message_t  *m;

    for (m = ngx_http_infer_messages; m->status; m++) {
        if (m->status == status || m->status == status / 100) {
            break;
        }
    }

    return m;
}


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
    m = ngx_http_infer_find_message(status);

    if (r->err_status) {
        r->err_status = ngx_http_infer_status(r, status);
    }

    return ngx_http_infer_send_error(r, status, m->code, m->message);
}


/*
 * The address as the client wrote it.  nginx forgets to say where it is if the
 * line is wrong behind it, but the line then is still in the buffer; pointers
 * that the parser had not set may have been moved there, and lead elsewhere.
 */

static ngx_str_t
ngx_http_infer_written(ngx_http_request_t *r)
{
    ngx_buf_t  *b;
    ngx_str_t   uri;

    uri = r->unparsed_uri;
    b = r->header_in;

    if (uri.len == 0 && b
        && r->uri_start >= b->start
        && r->uri_start < r->uri_end
        && r->uri_end < b->last)
    {
        uri.data = r->uri_start;
        uri.len = r->uri_end - r->uri_start;
    }

    return uri;
}


/*
 * That address, read as nginx does before it chooses a location.  Empty if
 * nginx could not read it, or there is no memory.
 */

static ngx_str_t
ngx_http_infer_asked(ngx_http_request_t *r)
{
    ngx_str_t                  written;
    ngx_http_request_t         asked;
    ngx_http_core_srv_conf_t  *cscf;

    written = ngx_http_infer_written(r);

    /* all that the parser looks at */

    ngx_memzero(&asked, sizeof(ngx_http_request_t));
    asked.connection = r->connection;
    asked.uri_start = written.data;
    asked.uri_end = written.data + written.len;

    if (written.len) {
        asked.uri.data = ngx_pnalloc(r->pool, written.len + 1);
    }

    cscf = ngx_http_get_module_srv_conf(r, ngx_http_core_module);

    if (asked.uri.data == NULL
        || ngx_http_parse_complex_uri(&asked, cscf->merge_slashes) != NGX_OK)
    {
        ngx_str_null(&asked.uri);
    }

    return asked.uri;
}


static ngx_uint_t
ngx_http_infer_is(ngx_str_t *uri, ngx_str_t *path)
{
    return uri->len == path->len
           && ngx_strncmp(uri->data, path->data, path->len) == 0;
}


/*
 * Under the two addresses where the engine speaks Anthropic's words, as the
 * client wrote them or as a rewrite made them: error_page changes the
 * latter, but a client goes on to expect what it asked for.
 */

ngx_uint_t
ngx_http_infer_anthropic(ngx_http_request_t *r)
{
    ngx_str_t    asked;
    ngx_uint_t   i;

    static ngx_str_t  paths[] = {
        ngx_string("/v1/messages"),
        ngx_string("/v1/messages/count_tokens"),
        ngx_null_string
    };

    asked = ngx_http_infer_asked(r);

    for (i = 0; paths[i].len; i++) {
        if (ngx_http_infer_is(&asked, &paths[i])
            || ngx_http_infer_is(&r->uri, &paths[i]))
        {
            return 1;
        }
    }

    return 0;
}


/* What the client is told: 494 and 497 are nginx's own numbers, and 529 is
 * Anthropic's for 503. */

static ngx_uint_t
ngx_http_infer_status(ngx_http_request_t *r, ngx_uint_t status)
{
    if (status == NGX_HTTP_REQUEST_HEADER_TOO_LARGE
        || status == NGX_HTTP_TO_HTTPS)
    {
        return NGX_HTTP_BAD_REQUEST;
    }

    if (status == NGX_HTTP_SERVICE_UNAVAILABLE
        && ngx_http_infer_anthropic(r))
    {
        return NGX_HTTP_INFER_OVERLOADED;
    }

    return status;
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
    ngx_str_t                   json;
    ngx_int_t                   rc;
    ngx_http_core_loc_conf_t   *clcf;
    ngx_http_infer_message_t   *m;
    ngx_http_infer_loc_conf_t  *ilcf;

    ilcf = ngx_http_get_module_loc_conf(r, ngx_http_infer_module);
    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (ilcf->intercept_errors && clcf->error_pages && !r->error_page) {
        return status;
    }

    if (status == NGX_HTTP_TOO_MANY_REQUESTS
        || status == NGX_HTTP_SERVICE_UNAVAILABLE)
    {
        if (ngx_http_infer_retry_headers(r) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    m = ngx_http_infer_find_message(status);

    if (ngx_http_infer_anthropic(r)) {
        rc = ngx_http_infer_anthropic_error(r, m->anthropic, message, &json);
    } else {
        rc = ngx_http_infer_openai_error(r, m->type, code, message, &json);
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_infer_send_json(r, ngx_http_infer_status(r, status),
                                    &json);
}


static ngx_int_t
ngx_http_infer_retry_headers(ngx_http_request_t *r)
{
    static u_char  s[] = "1";
    static u_char  ms[] = "1000";

    if (ngx_http_infer_add_header(r, "Retry-After", 11, s, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_infer_add_header(r, "Retry-After-Ms", 14, ms, 4);
}


/* Types, codes and messages are our own words: nothing to escape. */

static ngx_int_t
ngx_http_infer_openai_error(ngx_http_request_t *r, const char *type,
    const char *code, const char *message, ngx_str_t *json)
{
    json->data = ngx_pnalloc(r->pool, 128 + ngx_strlen(code)
                                      + ngx_strlen(message));
    if (json->data == NULL) {
        return NGX_ERROR;
    }

    json->len = ngx_sprintf(json->data,
                            "{\"error\":{\"message\":\"%s\","
                            "\"type\":\"%s\",\"param\":null,"
                            "\"code\":\"%s\"}}" CRLF,
                            message, type, code)
                - json->data;

    return NGX_OK;
}


/* The id is $request_id: the log can tell it too. */

static ngx_int_t
ngx_http_infer_anthropic_error(ngx_http_request_t *r, const char *type,
    const char *message, ngx_str_t *json)
{
    ngx_http_variable_value_t   *id;
    ngx_http_infer_main_conf_t  *imcf;

    imcf = ngx_http_get_module_main_conf(r, ngx_http_infer_module);
    id = ngx_http_get_indexed_variable(r, imcf->request_id);

    if (id == NULL || id->not_found
        || ngx_http_infer_add_header(r, "Request-Id", 10, id->data, id->len)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    json->data = ngx_pnalloc(r->pool, 128 + ngx_strlen(message) + id->len);
    if (json->data == NULL) {
        return NGX_ERROR;
    }

    json->len = ngx_sprintf(json->data,
                            "{\"type\":\"error\",\"error\":{"
                            "\"type\":\"%s\",\"message\":\"%s\"},"
                            "\"request_id\":\"%v\"}" CRLF,
                            type, message, id)
                - json->data;

    return NGX_OK;
}
