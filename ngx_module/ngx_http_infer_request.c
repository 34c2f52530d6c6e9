
/*
 * What the engine gets to see of a request: method, URI, a few headers and
 * the body.
 */


#include "ngx_http_infer.h"


static uint16_t ngx_http_infer_method(ngx_http_request_t *r);
static ngx_int_t ngx_http_infer_uri(ngx_http_request_t *r, ngx_str_t *uri);
static ngx_int_t ngx_http_infer_put(ngx_http_infer_ctx_t *ctx, size_t cap,
    const char *name, size_t name_len, ngx_str_t *value);
static ngx_int_t ngx_http_infer_put_all(ngx_http_infer_ctx_t *ctx,
    size_t cap);
static ngx_uint_t ngx_http_infer_passed(ngx_http_infer_loc_conf_t *ilcf,
    ngx_table_elt_t *h);


/* What the API needs.  Cookies and addresses are none of its business. */

static ngx_str_t  ngx_http_infer_pass_default[] = {
    ngx_string("content-type"),
    ngx_string("content-encoding"),
    ngx_string("accept"),
    ngx_string("authorization"),
    ngx_string("x-api-key"),
    ngx_string("x-request-id"),
    ngx_string("x-stainless-read-timeout"),
    ngx_null_string
};


static u_char  ngx_http_infer_head_buf[WIRE_HEAD_BYTES_MAX];


static uint16_t
ngx_http_infer_method(ngx_http_request_t *r)
{
    switch (r->method) {
    case NGX_HTTP_GET:
    case NGX_HTTP_HEAD:     /* nginx leaves the body out */
        return WIRE_METHOD_GET;
    case NGX_HTTP_POST:
        return WIRE_METHOD_POST;
    default:
        return WIRE_METHOD_OTHER;
    }
}


/* NGX_OK, NGX_ERROR, or the status to refuse with. */

ngx_int_t
ngx_http_infer_build_head(ngx_http_infer_ctx_t *ctx)
{
    ngx_int_t              rc;
    ngx_str_t              uri;
    ngx_uint_t             i;
    ngx_chain_t           *cl;
    ngx_http_request_t    *r;
    struct wire_req_head   head;

    r = ctx->request;

    ctx->body_bytes = 0;

    /* no body structure: it was discarded before an error_page came here */

    for (cl = r->request_body ? r->request_body->bufs : NULL;
         cl;
         cl = cl->next)
    {
        ctx->body_bytes += ngx_buf_size(cl->buf);
    }

    if (ctx->body_bytes > WIRE_BODY_BYTES_MAX) {
        return NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
    }

    if (ngx_http_infer_uri(r, &uri) != NGX_OK) {
        return NGX_ERROR;
    }

    if (uri.len > WIRE_HEAD_BYTES_MAX - sizeof(struct wire_req_head)) {
        return NGX_HTTP_REQUEST_URI_TOO_LARGE;
    }

    /* a rewrite can bring them in; the engine would drop the whole link */

    for (i = 0; i < uri.len; i++) {
        if (uri.data[i] <= 0x20 || uri.data[i] == 0x7f) {
            return NGX_HTTP_BAD_REQUEST;
        }
    }

    ctx->head = ngx_http_infer_head_buf;

    ngx_memzero(&head, sizeof(struct wire_req_head));
    head.body_bytes = ctx->body_bytes;
    head.uri_bytes = uri.len;
    head.method = ngx_http_infer_method(r);
    ngx_memcpy(ctx->head, &head, sizeof(struct wire_req_head));
    ngx_memcpy(ctx->head + sizeof(struct wire_req_head), uri.data, uri.len);
    ctx->head_len = sizeof(struct wire_req_head) + uri.len;

    rc = ngx_http_infer_put_all(ctx, WIRE_HEAD_BYTES_MAX);

    ctx->head = ngx_pnalloc(r->pool, ctx->head_len);
    if (ctx->head == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(ctx->head, ngx_http_infer_head_buf, ctx->head_len);

    if (rc == NGX_BUSY) {
        return NGX_HTTP_REQUEST_HEADER_TOO_LARGE;
    }

    if (rc == NGX_DECLINED) {
        return NGX_HTTP_BAD_REQUEST;
    }

    return rc;
}


/*
 * What nginx chose the location by: "//v1/messages" is "/v1/messages" for
 * both, so nothing that a location keeps out reaches the engine in another
 * spelling.
 */

static ngx_int_t
ngx_http_infer_uri(ngx_http_request_t *r, ngx_str_t *uri)
{
    u_char     *p;
    uintptr_t   escape;

    escape = 2 * ngx_escape_uri(NULL, r->uri.data, r->uri.len,
                                NGX_ESCAPE_URI);

    uri->data = ngx_pnalloc(r->pool,
                            r->uri.len + escape + 1 + r->args.len);
    if (uri->data == NULL) {
        return NGX_ERROR;
    }

    p = (u_char *) ngx_escape_uri(uri->data, r->uri.data, r->uri.len,
                                  NGX_ESCAPE_URI);
    if (escape == 0) {
        p = ngx_cpymem(uri->data, r->uri.data, r->uri.len);
    }

    if (r->args.len) {
        *p++ = '?';
        p = ngx_cpymem(p, r->args.data, r->args.len);
    }

    uri->len = p - uri->data;

    return NGX_OK;
}


/* NGX_BUSY: too much.  NGX_DECLINED: a value with control characters. */

static ngx_int_t
ngx_http_infer_put(ngx_http_infer_ctx_t *ctx, size_t cap, const char *name,
    size_t name_len, ngx_str_t *value)
{
    int                   rc;
    struct wire_str       n, v;
    struct wire_req_head  head;

    ngx_memcpy(&head, ctx->head, sizeof(struct wire_req_head));

    if (head.n_hdr == WIRE_HDR_N_MAX) {
        return NGX_BUSY;
    }

    n.p = name;
    n.n = name_len;
    v.p = (const char *) value->data;
    v.n = value->len;

    rc = wire_hdr_put(ctx->head, cap, &ctx->head_len, n, v);

    if (rc == 0) {
        head.n_hdr++;
        ngx_memcpy(ctx->head, &head, sizeof(struct wire_req_head));
        return NGX_OK;
    }

    return rc == E_FULL ? NGX_BUSY : NGX_DECLINED;
}


static ngx_int_t
ngx_http_infer_put_all(ngx_http_infer_ctx_t *ctx, size_t cap)
{
    ngx_int_t                   rc;
    ngx_str_t                   value;
    ngx_uint_t                  i;
    ngx_list_part_t            *part;
    ngx_table_elt_t            *h;
    ngx_http_request_t         *r;
    ngx_http_infer_header_t    *set;
    ngx_http_infer_loc_conf_t  *ilcf;

    r = ctx->request;
    ilcf = ngx_http_get_module_loc_conf(r, ngx_http_infer_module);

    rc = ngx_http_infer_put(ctx, cap, ":peer", 5, &r->connection->addr_text);

    if (rc == NGX_OK && ilcf->key) {
        if (ngx_http_complex_value(r, ilcf->key, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (value.len) {
            rc = ngx_http_infer_put(ctx, cap, ":key", 4, &value);
        }
    }

    set = ilcf->set_headers ? ilcf->set_headers->elts : NULL;

    for (i = 0; rc == NGX_OK && set && i < ilcf->set_headers->nelts; i++) {
        if (ngx_http_complex_value(r, &set[i].value, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (value.len) {
            rc = ngx_http_infer_put(ctx, cap, (char *) set[i].name.data,
                                    set[i].name.len, &value);
        }
    }

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; rc == NGX_OK; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (ngx_http_infer_passed(ilcf, &h[i])) {
            rc = ngx_http_infer_put(ctx, cap, (char *) h[i].lowcase_key,
                                    h[i].key.len, &h[i].value);
        }
    }

    return rc;
}


static ngx_uint_t
ngx_http_infer_passed(ngx_http_infer_loc_conf_t *ilcf, ngx_table_elt_t *h)
{
    ngx_str_t                *name;
    ngx_uint_t                i;
    ngx_http_infer_header_t  *set;

    if (ilcf->set_headers) {
        set = ilcf->set_headers->elts;

        for (i = 0; i < ilcf->set_headers->nelts; i++) {
            if (set[i].name.len == h->key.len
                && ngx_strncmp(set[i].name.data, h->lowcase_key, h->key.len)
                   == 0)
            {
                return 0;
            }
        }
    }

    for (name = ngx_http_infer_pass_default; name->len; name++) {
        if (name->len == h->key.len
            && ngx_strncmp(name->data, h->lowcase_key, h->key.len) == 0)
        {
            return 1;
        }
    }

    if (ilcf->pass_headers) {
        name = ilcf->pass_headers->elts;

        for (i = 0; i < ilcf->pass_headers->nelts; i++) {
            if (name[i].len == h->key.len
                && ngx_strncmp(name[i].data, h->lowcase_key, h->key.len)
                   == 0)
            {
                return 1;
            }
        }
    }

    return 0;
}


void
ngx_http_infer_rewind_body(ngx_http_infer_ctx_t *ctx)
{
    ngx_http_request_t  *r = ctx->request;

    ctx->body = r->request_body ? r->request_body->bufs : NULL;
    ctx->body_pos = 0;
    ctx->body_left = ctx->body_bytes;
}


/* n <= body_left.  A buffer is in memory or in the temporary file; that one
 * is read from the page cache, 32k at a time. */

ngx_int_t
ngx_http_infer_read_body(ngx_http_infer_ctx_t *ctx, u_char *p, size_t n)
{
    size_t      part;
    ssize_t     got;
    ngx_buf_t  *b;

    ctx->body_left -= n;

    while (n) {

        if (ctx->body == NULL) {
            return NGX_ERROR;
        }

        b = ctx->body->buf;
        part = (size_t) ngx_min((off_t) n, ngx_buf_size(b) - ctx->body_pos);

        if (part == 0) {
            ctx->body = ctx->body->next;
            ctx->body_pos = 0;
            continue;
        }

        if (ngx_buf_in_memory(b)) {
            ngx_memcpy(p, b->pos + ctx->body_pos, part);

        } else {
            got = ngx_read_file(b->file, p, part,
                                b->file_pos + ctx->body_pos);

            if (got != (ssize_t) part) {
                return NGX_ERROR;
            }
        }

        ctx->body_pos += part;
        p += part;
        n -= part;
    }

    return NGX_OK;
}
