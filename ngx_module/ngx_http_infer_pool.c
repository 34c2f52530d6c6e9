
/*
 * A pool of engines: the infer_pool block, choice, health and the queue.
 */


#include "ngx_http_infer.h"


static char *ngx_http_infer_pool_line(ngx_conf_t *cf, ngx_command_t *dummy,
    void *conf);
static char *ngx_http_infer_pool_engine(ngx_conf_t *cf,
    ngx_http_infer_pool_t *pool);
static char *ngx_http_infer_engine_param(ngx_conf_t *cf,
    ngx_http_infer_engine_t *engine, ngx_str_t *param);
static char *ngx_http_infer_pool_queue(ngx_conf_t *cf,
    ngx_http_infer_pool_t *pool);
static ngx_uint_t ngx_http_infer_engine_usable(
    ngx_http_infer_engine_t *engine, ngx_http_infer_ctx_t *ctx,
    ngx_uint_t need);
static ngx_uint_t ngx_http_infer_asks(ngx_http_infer_ctx_t *ctx);
static ngx_uint_t ngx_http_infer_attached(ngx_http_infer_pool_t *pool,
    ngx_uint_t or_leaving);
static ngx_uint_t ngx_http_infer_engine_load(
    ngx_http_infer_engine_t *engine);
static void ngx_http_infer_pool_wake_handler(ngx_event_t *ev);


char *
ngx_http_infer_pool_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                     *rv;
    ngx_str_t                *value;
    ngx_conf_t                save;
    ngx_uint_t                i;
    ngx_http_infer_pool_t    *pool;
    ngx_http_infer_engine_t  *engine;

    value = cf->args->elts;

    pool = ngx_http_infer_pool_add(cf, &value[1]);
    if (pool == NULL) {
        return NGX_CONF_ERROR;
    }

    if (pool->defined) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate infer_pool \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    pool->defined = 1;

    save = *cf;
    cf->handler = ngx_http_infer_pool_line;
    cf->handler_conf = (void *) pool;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    engine = pool->engines.elts;

    for (i = 0; i < pool->engines.nelts; i++) {
        if (!engine[i].backup) {
            return NGX_CONF_OK;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "no engines%s in infer_pool \"%V\"",
                       i ? " but backup ones" : "", &pool->name);
    return NGX_CONF_ERROR;
}


static char *
ngx_http_infer_pool_line(ngx_conf_t *cf, ngx_command_t *dummy, void *conf)
{
    ngx_str_t              *value;
    ngx_http_infer_pool_t  *pool = conf;

    value = cf->args->elts;

    if (ngx_strcmp(value[0].data, "engine") == 0) {
        return ngx_http_infer_pool_engine(cf, pool);
    }

    if (ngx_strcmp(value[0].data, "queue") == 0) {
        return ngx_http_infer_pool_queue(cf, pool);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "unknown directive \"%V\" in infer_pool", &value[0]);
    return NGX_CONF_ERROR;
}


static char *
ngx_http_infer_pool_engine(ngx_conf_t *cf, ngx_http_infer_pool_t *pool)
{
    char                     *rv;
    ngx_str_t                *value, path;
    ngx_uint_t                i;
    ngx_http_infer_engine_t  *engine, *other;

    value = cf->args->elts;

    if (cf->args->nelts < 2) {
        return "invalid number of arguments in \"engine\" directive";
    }

    if (pool->engines.nelts == NGX_HTTP_INFER_ENGINES_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "more than %d engines in infer_pool \"%V\"",
                           NGX_HTTP_INFER_ENGINES_MAX, &pool->name);
        return NGX_CONF_ERROR;
    }

    path = value[1];

    if (path.len < sizeof("unix:/x") - 1
        || ngx_strncmp(path.data, "unix:/", 6) != 0
        || path.len - 5 >= sizeof(engine->addr.sun_path))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid engine \"%V\": it is unix: and an "
                           "absolute path of at most %uz bytes", &path,
                           sizeof(engine->addr.sun_path) - 1);
        return NGX_CONF_ERROR;
    }

    other = pool->engines.elts;

    for (i = 0; i < pool->engines.nelts; i++) {
        if (other[i].name.len == path.len
            && ngx_strncmp(other[i].name.data, path.data, path.len) == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate engine \"%V\"", &path);
            return NGX_CONF_ERROR;
        }
    }

    engine = ngx_array_push(&pool->engines);
    if (engine == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(engine, sizeof(ngx_http_infer_engine_t));
    engine->name = path;
    engine->index = pool->engines.nelts - 1;
    engine->weight = 1;
    engine->max_fails = 1;
    engine->fail_timeout = 10;
    engine->addr.sun_family = AF_UNIX;
    ngx_memcpy(engine->addr.sun_path, path.data + 5, path.len - 5);

    for (i = 2; i < cf->args->nelts; i++) {
        rv = ngx_http_infer_engine_param(cf, engine, &value[i]);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_engine_param(ngx_conf_t *cf, ngx_http_infer_engine_t *engine,
    ngx_str_t *param)
{
    u_char     *p;
    ngx_int_t   n;
    ngx_str_t   s;

    p = (u_char *) ngx_strchr(param->data, '=');

    if (p == NULL) {

        if (ngx_strcmp(param->data, "backup") == 0) {
            engine->backup = 1;
            return NGX_CONF_OK;
        }

        if (ngx_strcmp(param->data, "down") == 0) {
            engine->down = 1;
            return NGX_CONF_OK;
        }

        goto invalid;
    }

    s.data = p + 1;
    s.len = param->data + param->len - s.data;

    if (ngx_strncmp(param->data, "fail_timeout=", 13) == 0) {
        engine->fail_timeout = ngx_parse_time(&s, 1);

        if (engine->fail_timeout == (time_t) NGX_ERROR) {
            goto invalid;
        }

        return NGX_CONF_OK;
    }

    n = ngx_atoi(s.data, s.len);

    if (n == NGX_ERROR || n > NGX_HTTP_INFER_PARAM_MAX) {
        goto invalid;
    }

    if (ngx_strncmp(param->data, "weight=", 7) == 0 && n > 0) {
        engine->weight = n;
        return NGX_CONF_OK;
    }

    if (ngx_strncmp(param->data, "max_fails=", 10) == 0) {
        engine->max_fails = n;
        return NGX_CONF_OK;
    }

    if (ngx_strncmp(param->data, "max_conns=", 10) == 0) {
        engine->max_conns = n;
        return NGX_CONF_OK;
    }

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\"", param);
    return NGX_CONF_ERROR;
}


static char *
ngx_http_infer_pool_queue(ngx_conf_t *cf, ngx_http_infer_pool_t *pool)
{
    ngx_int_t   n;
    ngx_str_t  *value, s;

    value = cf->args->elts;

    if (pool->queue) {
        return "\"queue\" directive is duplicate";
    }

    if (cf->args->nelts < 2 || cf->args->nelts > 3) {
        return "invalid number of arguments in \"queue\" directive";
    }

    n = ngx_atoi(value[1].data, value[1].len);

    if (n == NGX_ERROR || n == 0 || n > NGX_HTTP_INFER_QUEUE_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid queue length \"%V\": it is 1 to %d",
                           &value[1], NGX_HTTP_INFER_QUEUE_MAX);
        return NGX_CONF_ERROR;
    }

    pool->queue = 1;
    pool->queue_max = n;

    if (cf->args->nelts == 2) {
        return NGX_CONF_OK;
    }

    s = value[2];

    if (s.len > 8 && ngx_strncmp(s.data, "timeout=", 8) == 0) {
        s.data += 8;
        s.len -= 8;
        n = ngx_parse_time(&s, 0);

        if (n != NGX_ERROR && n > 0) {
            pool->queue_timeout = n;
            return NGX_CONF_OK;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\"", &value[2]);
    return NGX_CONF_ERROR;
}


/* A pool may be used before it is defined; postconfiguration checks. */

ngx_http_infer_pool_t *
ngx_http_infer_pool_add(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_http_infer_pool_t       *pool, **p;
    ngx_http_infer_main_conf_t  *imcf;

    imcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_infer_module);

    pool = ngx_http_infer_pool_find(imcf, name);
    if (pool) {
        return pool;
    }

    pool = ngx_pcalloc(cf->pool, sizeof(ngx_http_infer_pool_t));
    p = ngx_array_push(&imcf->pools);

    if (pool == NULL || p == NULL
        || ngx_array_init(&pool->engines, cf->pool, 4,
                          sizeof(ngx_http_infer_engine_t))
           != NGX_OK)
    {
        return NULL;
    }

    *p = pool;
    pool->name = *name;
    pool->file = cf->conf_file->file.name.data;
    pool->line = cf->conf_file->line;
    pool->queue_timeout = 60000;

    return pool;
}


ngx_http_infer_pool_t *
ngx_http_infer_pool_find(ngx_http_infer_main_conf_t *imcf, ngx_str_t *name)
{
    ngx_uint_t               i;
    ngx_http_infer_pool_t  **pools;

    pools = imcf->pools.elts;

    for (i = 0; i < imcf->pools.nelts; i++) {
        if (pools[i]->name.len == name->len
            && ngx_strncmp(pools[i]->name.data, name->data, name->len) == 0)
        {
            return pools[i];
        }
    }

    return NULL;
}


void
ngx_http_infer_pool_start(ngx_http_infer_pool_t *pool)
{
    ngx_uint_t                i;
    ngx_http_infer_engine_t  *engine;

    ngx_queue_init(&pool->waiting);

    pool->wake.handler = ngx_http_infer_pool_wake_handler;
    pool->wake.data = pool;
    pool->wake.log = ngx_cycle->log;

    engine = pool->engines.elts;

    for (i = 0; i < pool->engines.nelts; i++) {
        engine[i].pool = pool;

        if (!engine[i].down) {
            ngx_http_infer_link_connect(&engine[i],
                                        NGX_HTTP_INFER_RETRY_MAX);
        }
    }
}


/* The engine with the fewest requests for its weight, by its own count over
 * all workers; a backup only if there is nothing else; a failed one only if
 * all have failed.  One that leaves finishes what it has, and is there for
 * its operator as long as no other one answers instead. */

ngx_http_infer_engine_t *
ngx_http_infer_pool_pick(ngx_http_infer_ctx_t *ctx)
{
    ngx_uint_t                 i, pass, load, best_load;
    ngx_http_infer_pool_t     *pool;
    ngx_http_infer_engine_t   *engine, *best;
    ngx_http_infer_loc_conf_t *ilcf;

    pool = ctx->pool;
    engine = pool->engines.elts;
    best = NULL;
    best_load = 0;

    ilcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_infer_module);

    for (i = 0; i < pool->engines.nelts; i++) {
        if (engine[i].link == NULL && !engine[i].down
            && ngx_current_msec - engine[i].attempted
               > NGX_HTTP_INFER_RETRY_MIN)
        {
            ngx_http_infer_link_connect(&engine[i], ilcf->connect_timeout);
        }
    }

    for (pass = 0; pass < 6 && best == NULL; pass++) {

        /* even: no backups; 2, 3: failed ones too; 4, 5: leaving ones too */

        for (i = 0; i < pool->engines.nelts; i++) {

            if (engine[i].backup != (pass & 1)
                || !ngx_http_infer_engine_usable(&engine[i], ctx, pass / 2))
            {
                continue;
            }

            load = ngx_http_infer_engine_load(&engine[i]);

            if (best == NULL
                || load * best->weight < best_load * engine[i].weight
                || (load * best->weight == best_load * engine[i].weight
                    && engine[i].picked < best->picked))
            {
                best = &engine[i];
                best_load = load;
            }
        }
    }

    if (best) {
        best->picked = ++pool->n_picked;
    }

    return best;
}


static ngx_uint_t
ngx_http_infer_engine_usable(ngx_http_infer_engine_t *engine,
    ngx_http_infer_ctx_t *ctx, ngx_uint_t need)
{
    ngx_http_infer_link_t  *link = engine->link;

    if (engine->down
        || (ctx->tried & ((uint64_t) 1 << engine->index))
        || link == NULL || !link->ready || link->n_free == 0
        || (engine->max_conns && engine->n_active >= engine->max_conns))
    {
        return 0;
    }

    if (ngx_http_infer_link_leaving(link)) {
        return need == 2 && !ngx_http_infer_asks(ctx);
    }

    return need
           || engine->max_fails == 0
           || engine->fails < engine->max_fails
           || ngx_time() - engine->failed > engine->fail_timeout;
}


/* Hints of the peer: they choose, nothing else depends on them. */

static ngx_uint_t
ngx_http_infer_engine_load(ngx_http_infer_engine_t *engine)
{
    uint32_t                running, waiting;
    const struct wire_seg  *peer;

    peer = engine->link->wire.ring.peer;
    running = __atomic_load_n(&peer->running, __ATOMIC_RELAXED);
    waiting = __atomic_load_n(&peer->waiting, __ATOMIC_RELAXED);

    /* a loading engine answers too, but with less */

    if (!__atomic_load_n(&peer->ready, __ATOMIC_RELAXED)) {
        return 1 << 20;
    }

    return ngx_min(ngx_max(engine->n_active,
                           (ngx_uint_t) running + waiting),
                   1 << 19)
           + 1;
}


void
ngx_http_infer_engine_fail(ngx_http_infer_engine_t *engine)
{
    time_t  now;

    now = ngx_time();

    if (now - engine->failed > engine->fail_timeout) {
        engine->fails = 0;
    }

    engine->fails++;
    engine->failed = now;
}


ngx_int_t
ngx_http_infer_pool_wait(ngx_http_infer_ctx_t *ctx)
{
    ngx_msec_t                  timeout;
    ngx_uint_t                  i, shaking;
    ngx_http_infer_pool_t      *pool;
    ngx_http_infer_engine_t    *engine;
    ngx_http_infer_loc_conf_t  *ilcf;

    pool = ctx->pool;
    engine = pool->engines.elts;
    shaking = 0;

    for (i = 0; i < pool->engines.nelts; i++) {
        if (engine[i].link && !engine[i].link->ready) {
            shaking = 1;
        }
    }

    /* a probe or an operator's word does not wait for an engine to come */

    if (pool->queue
        && (ngx_http_infer_asks(ctx) || ngx_http_infer_attached(pool, 1)))
    {
        if (pool->n_waiting >= pool->queue_max) {
            return NGX_BUSY;
        }

        timeout = pool->queue_timeout;

    } else if (shaking) {
        ilcf = ngx_http_get_module_loc_conf(ctx->request,
                                            ngx_http_infer_module);
        timeout = ilcf->connect_timeout;

    } else {
        return NGX_BUSY;
    }

    ngx_queue_insert_tail(&pool->waiting, &ctx->queue);
    ctx->queued = 1;
    ctx->waiting = 1;
    pool->n_waiting++;

    /* a second round in the queue does not begin the wait anew */

    if (!ctx->timer.timer_set) {
        ngx_add_timer(&ctx->timer, timeout);
    }

    return NGX_OK;
}


/* A body is what a client asks of the model, but for an operator's: that one
 * means nothing. */

static ngx_uint_t
ngx_http_infer_asks(ngx_http_infer_ctx_t *ctx)
{
    ngx_http_request_t  *r = ctx->request;

    static ngx_str_t     admin = ngx_string("/admin/");

    return r->method == NGX_HTTP_POST
           && ctx->body_bytes != 0
           && (r->uri.len < admin.len
               || ngx_strncmp(r->uri.data, admin.data, admin.len) != 0);
}


/* An engine is there, though it may be full. */

static ngx_uint_t
ngx_http_infer_attached(ngx_http_infer_pool_t *pool, ngx_uint_t or_leaving)
{
    ngx_uint_t                i;
    ngx_http_infer_engine_t  *engine;

    engine = pool->engines.elts;

    for (i = 0; i < pool->engines.nelts; i++) {
        if (engine[i].link && engine[i].link->ready
            && (or_leaving || !ngx_http_infer_link_leaving(engine[i].link)))
        {
            return 1;
        }
    }

    return 0;
}


void
ngx_http_infer_pool_wake(ngx_http_infer_pool_t *pool)
{
    if (!ngx_queue_empty(&pool->waiting)) {
        ngx_post_event(&pool->wake, &ngx_posted_events);
    }
}


static void
ngx_http_infer_pool_wake_handler(ngx_event_t *ev)
{
    ngx_uint_t                n;
    ngx_queue_t              *q;
    ngx_connection_t         *c;
    ngx_http_infer_ctx_t     *ctx;
    ngx_http_infer_pool_t    *pool;
    ngx_http_infer_engine_t  *engine;

    pool = ev->data;

    for (n = pool->n_waiting; n && !ngx_queue_empty(&pool->waiting); n--) {
        q = ngx_queue_head(&pool->waiting);
        ctx = ngx_queue_data(q, ngx_http_infer_ctx_t, queue);

        engine = ngx_http_infer_pool_pick(ctx);

        /* none of them has tried an engine yet: what the first one does not
         * find the others do not find either, but for one that leaves */

        if (engine == NULL && ngx_http_infer_attached(pool, 0)) {
            return;
        }

        /* with no engine left each decides anew whether to wait; those that
         * do keep their order */

        ngx_queue_remove(q);
        pool->n_waiting--;
        ctx->queued = 0;
        ctx->waiting = 0;

        c = ctx->request->connection;
        ngx_http_infer_submit(ctx, engine);
        ngx_http_run_posted_requests(c);
    }
}
