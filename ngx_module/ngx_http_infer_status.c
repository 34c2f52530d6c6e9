
/*
 * The counters, which all workers share, and infer_status: the module's side
 * of each engine as JSON.  Links and requests are those of the worker that
 * answers; the counters begin anew with each reload.
 */


#include "ngx_http_infer.h"


static ngx_int_t ngx_http_infer_init_zone(ngx_shm_zone_t *zone, void *data);
static u_char *ngx_http_infer_status_engine(u_char *p, u_char *last,
    ngx_http_infer_engine_t *engine);


static ngx_str_t  ngx_http_infer_zone_name = ngx_string("infer_counters");


ngx_int_t
ngx_http_infer_status_zone(ngx_conf_t *cf)
{
    size_t                        size;
    ngx_uint_t                    i, n;
    ngx_http_infer_pool_t       **pools;
    ngx_http_infer_main_conf_t   *imcf;

    imcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_infer_module);
    pools = imcf->pools.elts;
    n = 0;

    for (i = 0; i < imcf->pools.nelts; i++) {
        n += pools[i]->engines.nelts;
    }

    /* the slab allocator wants some pages for itself */

    size = ngx_align(n * sizeof(ngx_http_infer_stat_t), ngx_pagesize)
           + 10 * ngx_pagesize;

    imcf->zone = ngx_shared_memory_add(cf, &ngx_http_infer_zone_name, size,
                                       &ngx_http_infer_module);
    if (imcf->zone == NULL) {
        return NGX_ERROR;
    }

    imcf->zone->init = ngx_http_infer_init_zone;
    imcf->zone->data = imcf;
    imcf->zone->noreuse = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_http_infer_init_zone(ngx_shm_zone_t *zone, void *data)
{
    ngx_uint_t                    i, k;
    ngx_slab_pool_t              *slab;
    ngx_http_infer_pool_t       **pools;
    ngx_http_infer_engine_t      *engine;
    ngx_http_infer_main_conf_t   *imcf;

    imcf = zone->data;
    slab = (ngx_slab_pool_t *) zone->shm.addr;
    pools = imcf->pools.elts;

    for (i = 0; i < imcf->pools.nelts; i++) {
        engine = pools[i]->engines.elts;

        for (k = 0; k < pools[i]->engines.nelts; k++) {
            engine[k].stat = ngx_slab_calloc(slab,
                                             sizeof(ngx_http_infer_stat_t));
            if (engine[k].stat == NULL) {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_infer_status_handler(ngx_http_request_t *r)
{
    size_t                        size;
    u_char                       *p, *last;
    ngx_int_t                     rc;
    ngx_str_t                     json;
    ngx_uint_t                    i, k;
    ngx_http_infer_pool_t       **pools;
    ngx_http_infer_engine_t      *engine;
    ngx_http_infer_main_conf_t   *imcf;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    imcf = ngx_http_get_module_main_conf(r, ngx_http_infer_module);
    pools = imcf->pools.elts;
    size = 64;

    for (i = 0; i < imcf->pools.nelts; i++) {
        size += 128 + pools[i]->name.len * 6;
        engine = pools[i]->engines.elts;

        for (k = 0; k < pools[i]->engines.nelts; k++) {
            size += 512 + engine[k].name.len * 6 + 20 * NGX_INT64_LEN;
        }
    }

    p = ngx_pnalloc(r->pool, size);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    json.data = p;
    last = p + size;

    p = ngx_slprintf(p, last, "{\"worker\":%P,\"pools\":[", ngx_pid);

    for (i = 0; i < imcf->pools.nelts; i++) {
        p = ngx_slprintf(p, last, "%s{\"name\":\"", i ? "," : "");
        p = (u_char *) ngx_escape_json(p, pools[i]->name.data,
                                       pools[i]->name.len);
        p = ngx_slprintf(p, last, "\",\"waiting\":%ui,\"engines\":[",
                         pools[i]->n_waiting);

        engine = pools[i]->engines.elts;

        for (k = 0; k < pools[i]->engines.nelts; k++) {
            if (k) {
                *p++ = ',';
            }

            p = ngx_http_infer_status_engine(p, last, &engine[k]);
        }

        p = ngx_slprintf(p, last, "]}");
    }

    p = ngx_slprintf(p, last, "]}\n");
    json.len = p - json.data;

    return ngx_http_infer_send_json(r, NGX_HTTP_OK, &json);
}


static u_char *
ngx_http_infer_status_engine(u_char *p, u_char *last,
    ngx_http_infer_engine_t *engine)
{
    const char             *state;
    ngx_uint_t              n_slot, n_free;
    ngx_http_infer_link_t  *link;
    ngx_http_infer_stat_t  *st;

    link = engine->link;
    st = engine->stat;

    state = engine->down ? "down"
            : link == NULL ? "unreachable"
            : !link->ready ? "connecting"
            : ngx_http_infer_link_leaving(link) ? "leaving" : "attached";

    n_slot = link && link->ready ? link->wire.ring.n_slot : 0;
    n_free = n_slot ? link->n_free : 0;

    *p++ = '{';
    p = ngx_slprintf(p, last, "\"engine\":\"");
    p = (u_char *) ngx_escape_json(p, engine->name.data, engine->name.len);
    p = ngx_slprintf(p, last,
                     "\",\"state\":\"%s\",\"active\":%ui,\"slots\":%ui,"
                     "\"slots_free\":%ui,\"fails\":%ui,",
                     state, engine->n_active, n_slot, n_free, engine->fails);
    p = ngx_slprintf(p, last,
                     "\"requests\":%uA,\"replies\":%uA,\"cancelled\":%uA,"
                     "\"busy\":%uA,\"lost\":%uA,\"timeouts\":%uA,",
                     st->requests, st->replies, st->cancelled, st->busy,
                     st->lost, st->timeouts);
    p = ngx_slprintf(p, last,
                     "\"connects\":%uA,\"connect_errors\":%uA,"
                     "\"bytes_in\":%uA,\"bytes_out\":%uA,\"stale\":%uA,"
                     "\"faults\":%uA,\"rescues\":%uA}",
                     st->connects, st->connect_errors, st->bytes_in,
                     st->bytes_out, st->stale, st->faults, st->rescues);

    return p;
}
