
/*
 * Directives, configuration and the start of a worker.
 */


#include "ngx_http_infer.h"


static ngx_int_t ngx_http_infer_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_infer_postconfiguration(ngx_conf_t *cf);
static void *ngx_http_infer_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_infer_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_infer_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_infer_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_infer_pass(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_infer_simple_handler(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static char *ngx_http_infer_set_handler(ngx_conf_t *cf,
    ngx_http_infer_loc_conf_t *ilcf, ngx_http_handler_pt handler);
static char *ngx_http_infer_next_engine(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_infer_set_header(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_infer_pass_header(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_infer_set_key(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_infer_header_value(ngx_conf_t *cf,
    ngx_str_t *value);
static ngx_int_t ngx_http_infer_header_name(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *from);
static char *ngx_http_infer_positive_msec(ngx_conf_t *cf, void *post,
    void *data);
static char *ngx_http_infer_check_flush(ngx_conf_t *cf, void *post,
    void *data);
static char *ngx_http_infer_check_shm(ngx_conf_t *cf, void *post,
    void *data);
static char *ngx_http_infer_check_buffer(ngx_conf_t *cf, void *post,
    void *data);
static ngx_int_t ngx_http_infer_init_process(ngx_cycle_t *cycle);


static ngx_conf_post_t  ngx_http_infer_positive_post = {
    ngx_http_infer_positive_msec
};


static ngx_conf_post_t  ngx_http_infer_flush_post = {
    ngx_http_infer_check_flush
};


static ngx_conf_post_t  ngx_http_infer_shm_post = {
    ngx_http_infer_check_shm
};


static ngx_conf_post_t  ngx_http_infer_buffer_post = {
    ngx_http_infer_check_buffer
};


static ngx_conf_bitmask_t  ngx_http_infer_next_engine_masks[] = {
    { ngx_string("error"), NGX_HTTP_INFER_NEXT_ERROR },
    { ngx_string("timeout"), NGX_HTTP_INFER_NEXT_TIMEOUT },
    { ngx_string("http_503"), NGX_HTTP_INFER_NEXT_503 },
    { ngx_string("off"), NGX_HTTP_INFER_NEXT_OFF },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_http_infer_commands[] = {

    { ngx_string("infer_pool"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_infer_pool_block,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("infer_shm_size"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_infer_main_conf_t, shm_size),
      &ngx_http_infer_shm_post },

    { ngx_string("infer_buffer_size"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_infer_main_conf_t, buffer_size),
      &ngx_http_infer_buffer_post },

    { ngx_string("infer_pass"),
      NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF|NGX_HTTP_LMT_CONF|NGX_CONF_TAKE1,
      ngx_http_infer_pass,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("infer_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_infer_simple_handler,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      ngx_http_infer_status_handler },

    { ngx_string("infer_error"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_infer_simple_handler,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      ngx_http_infer_error_handler },

    { ngx_string("infer_connect_timeout"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, connect_timeout),
      &ngx_http_infer_positive_post },

    { ngx_string("infer_first_byte_timeout"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, first_byte_timeout),
      &ngx_http_infer_positive_post },

    { ngx_string("infer_read_timeout"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, read_timeout),
      &ngx_http_infer_positive_post },

    { ngx_string("infer_flush_interval"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, flush_interval),
      &ngx_http_infer_flush_post },

    { ngx_string("infer_ignore_client_abort"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, ignore_client_abort),
      NULL },

    { ngx_string("infer_intercept_errors"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, intercept_errors),
      NULL },

    { ngx_string("infer_next_engine"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_infer_next_engine,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, next_engine),
      &ngx_http_infer_next_engine_masks },

    { ngx_string("infer_next_engine_tries"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, next_engine_tries),
      NULL },

    { ngx_string("infer_set_header"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE2,
      ngx_http_infer_set_header,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("infer_pass_header"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_infer_pass_header,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("infer_set_key"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_infer_set_key,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, key),
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_infer_module_ctx = {
    ngx_http_infer_preconfiguration,       /* preconfiguration */
    ngx_http_infer_postconfiguration,      /* postconfiguration */

    ngx_http_infer_create_main_conf,       /* create main configuration */
    ngx_http_infer_init_main_conf,         /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_infer_create_loc_conf,        /* create location configuration */
    ngx_http_infer_merge_loc_conf          /* merge location configuration */
};


ngx_module_t  ngx_http_infer_module = {
    NGX_MODULE_V1,
    &ngx_http_infer_module_ctx,            /* module context */
    ngx_http_infer_commands,               /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_infer_init_process,           /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_infer_preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_infer_add_variables(cf);
}


static ngx_int_t
ngx_http_infer_postconfiguration(ngx_conf_t *cf)
{
    ngx_uint_t                    i;
    ngx_http_infer_pool_t       **pools;
    ngx_http_infer_main_conf_t   *imcf;

    static ngx_str_t              request_id = ngx_string("request_id");

    imcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_infer_module);
    pools = imcf->pools.elts;

    imcf->request_id = ngx_http_get_variable_index(cf, &request_id);
    if (imcf->request_id == NGX_ERROR) {
        return NGX_ERROR;
    }

    for (i = 0; i < imcf->pools.nelts; i++) {
        if (!pools[i]->defined) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "infer pool \"%V\" not found in %s:%ui",
                          &pools[i]->name, pools[i]->file, pools[i]->line);
            return NGX_ERROR;
        }
    }

    return ngx_http_infer_status_zone(cf);
}


static void *
ngx_http_infer_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_infer_main_conf_t  *imcf;

    imcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_infer_main_conf_t));
    if (imcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&imcf->pools, cf->pool, 4,
                       sizeof(ngx_http_infer_pool_t *))
        != NGX_OK)
    {
        return NULL;
    }

    imcf->shm_size = NGX_CONF_UNSET_SIZE;
    imcf->buffer_size = NGX_CONF_UNSET_SIZE;

    return imcf;
}


/* As many slots as windows fit, beside the PAD of a record that wraps. */

static char *
ngx_http_infer_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_infer_main_conf_t  *imcf = conf;

    size_t      pad;
    struct err  e;

    ngx_conf_init_size_value(imcf->shm_size, 4 * 1024 * 1024);
    ngx_conf_init_size_value(imcf->buffer_size, 12 * 1024);

    imcf->buffer_size = ngx_align(imcf->buffer_size, 8);
    pad = ngx_min(WIRE_REC_SIZE(WIRE_REC_BYTES_MAX), imcf->buffer_size);

    if (imcf->shm_size < imcf->buffer_size + pad) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"infer_shm_size\" of %uz bytes is too small for "
                      "\"infer_buffer_size\" of %uz", imcf->shm_size,
                      imcf->buffer_size);
        return NGX_CONF_ERROR;
    }

    imcf->sizes.window = imcf->buffer_size;
    imcf->sizes.n_slot = ngx_min((imcf->shm_size - pad) / imcf->buffer_size,
                                 WIRE_SLOT_MAX);
    imcf->sizes.e2w_ring_bytes = imcf->shm_size;
    imcf->sizes.w2e_ring_bytes = imcf->shm_size / 4;

    if (wire_sizes_check(&imcf->sizes, &e) != 0) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "infer_shm_size: %s", e.msg);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static void *
ngx_http_infer_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_infer_loc_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_infer_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->handler = NULL;
     *     conf->file = NULL;
     *     conf->line = 0;
     *     conf->pool = NULL;
     *     conf->pool_value = NULL;
     *     conf->next_engine = 0;
     */

    conf->connect_timeout = NGX_CONF_UNSET_MSEC;
    conf->first_byte_timeout = NGX_CONF_UNSET_MSEC;
    conf->read_timeout = NGX_CONF_UNSET_MSEC;
    conf->flush_interval = NGX_CONF_UNSET_MSEC;
    conf->ignore_client_abort = NGX_CONF_UNSET;
    conf->intercept_errors = NGX_CONF_UNSET;
    conf->next_engine_tries = NGX_CONF_UNSET_UINT;
    conf->set_headers = NGX_CONF_UNSET_PTR;
    conf->pass_headers = NGX_CONF_UNSET_PTR;
    conf->key = NGX_CONF_UNSET_PTR;

    return conf;
}


static char *
ngx_http_infer_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_infer_loc_conf_t  *prev = parent;
    ngx_http_infer_loc_conf_t  *conf = child;

    ngx_http_core_loc_conf_t   *clcf;

    ngx_conf_merge_msec_value(conf->connect_timeout,
                              prev->connect_timeout, 5000);
    ngx_conf_merge_msec_value(conf->first_byte_timeout,
                              prev->first_byte_timeout, 60000);
    ngx_conf_merge_msec_value(conf->read_timeout,
                              prev->read_timeout, 60000);
    ngx_conf_merge_msec_value(conf->flush_interval,
                              prev->flush_interval, 0);
    ngx_conf_merge_value(conf->ignore_client_abort,
                              prev->ignore_client_abort, 0);
    ngx_conf_merge_value(conf->intercept_errors,
                              prev->intercept_errors, 0);
    ngx_conf_merge_bitmask_value(conf->next_engine, prev->next_engine,
                              (NGX_CONF_BITMASK_SET
                               |NGX_HTTP_INFER_NEXT_ERROR));
    ngx_conf_merge_uint_value(conf->next_engine_tries,
                              prev->next_engine_tries, 0);
    ngx_conf_merge_ptr_value(conf->set_headers, prev->set_headers, NULL);
    ngx_conf_merge_ptr_value(conf->pass_headers, prev->pass_headers, NULL);
    ngx_conf_merge_ptr_value(conf->key, prev->key, NULL);

    if (conf->set_headers
        && conf->set_headers->nelts + 8 > WIRE_HDR_N_MAX)
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "more than %d \"infer_set_header\"",
                      WIRE_HDR_N_MAX - 8);
        return NGX_CONF_ERROR;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (conf->handler && conf->handler != clcf->handler) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "the location has a second handler beside the one in "
                      "%s:%ui", conf->file, conf->line);
        return NGX_CONF_ERROR;
    }

    /* "if" blocks and limit_except go to the same pool */

    if (clcf->noname && conf->pool == NULL && conf->pool_value == NULL) {
        conf->pool = prev->pool;
        conf->pool_value = prev->pool_value;
    }

    if (clcf->lmt_excpt && clcf->handler == NULL
        && (conf->pool || conf->pool_value))
    {
        clcf->handler = ngx_http_infer_handler;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_pass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_infer_loc_conf_t *ilcf = conf;

    char                              *rv;
    ngx_str_t                         *value;
    ngx_http_core_loc_conf_t          *clcf;
    ngx_http_compile_complex_value_t   ccv;

    rv = ngx_http_infer_set_handler(cf, ilcf, ngx_http_infer_handler);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    value = cf->args->elts;
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->name.len && clcf->name.data[clcf->name.len - 1] == '/') {
        clcf->auto_redirect = 1;
    }

    if (ngx_http_script_variables_count(&value[1])) {

        ilcf->pool_value = ngx_palloc(cf->pool,
                                      sizeof(ngx_http_complex_value_t));
        if (ilcf->pool_value == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));
        ccv.cf = cf;
        ccv.value = &value[1];
        ccv.complex_value = ilcf->pool_value;

        if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    if (value[1].len == 0) {
        return "has an empty pool name";
    }

    ilcf->pool = ngx_http_infer_pool_add(cf, &value[1]);

    return ilcf->pool ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_http_infer_simple_handler(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    return ngx_http_infer_set_handler(cf, conf,
                                      (ngx_http_handler_pt) cmd->post);
}


/* nginx lets the last handler of a location win in silence.  One that comes
 * after ours is found when the configuration is merged. */

static char *
ngx_http_infer_set_handler(ngx_conf_t *cf, ngx_http_infer_loc_conf_t *ilcf,
    ngx_http_handler_pt handler)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler) {
        return clcf->handler == handler ? "is duplicate"
                                        : "is a second handler of the "
                                          "location";
    }

    clcf->handler = handler;
    ilcf->handler = handler;
    ilcf->file = cf->conf_file->file.name.data;
    ilcf->line = cf->conf_file->line;

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_next_engine(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_infer_loc_conf_t *ilcf = conf;

    char  *rv;

    rv = ngx_conf_set_bitmask_slot(cf, cmd, conf);

    if (rv == NGX_CONF_OK
        && (ilcf->next_engine & NGX_HTTP_INFER_NEXT_OFF)
        && ilcf->next_engine != NGX_HTTP_INFER_NEXT_OFF)
    {
        return "has \"off\" beside other values";
    }

    return rv;
}


static char *
ngx_http_infer_set_header(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_infer_loc_conf_t *ilcf = conf;

    ngx_str_t                         *value;
    ngx_http_infer_header_t           *h;
    ngx_http_compile_complex_value_t   ccv;

    value = cf->args->elts;

    if (ilcf->set_headers == NGX_CONF_UNSET_PTR) {
        ilcf->set_headers = ngx_array_create(cf->pool, 4,
                                             sizeof(ngx_http_infer_header_t));
        if (ilcf->set_headers == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    h = ngx_array_push(ilcf->set_headers);
    if (h == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_infer_header_name(cf, &h->name, &value[1]) != NGX_OK
        || ngx_http_infer_header_value(cf, &value[2]) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));
    ccv.cf = cf;
    ccv.value = &value[2];
    ccv.complex_value = &h->value;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_pass_header(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_infer_loc_conf_t *ilcf = conf;

    ngx_str_t  *value, *name;

    value = cf->args->elts;

    if (ilcf->pass_headers == NGX_CONF_UNSET_PTR) {
        ilcf->pass_headers = ngx_array_create(cf->pool, 4,
                                              sizeof(ngx_str_t));
        if (ilcf->pass_headers == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    name = ngx_array_push(ilcf->pass_headers);
    if (name == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_infer_header_name(cf, name, &value[1]) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_infer_header_name(ngx_conf_t *cf, ngx_str_t *name, ngx_str_t *from)
{
    u_char      c;
    ngx_uint_t  i;

    name->len = from->len;
    name->data = ngx_pnalloc(cf->pool, from->len + 1);
    if (name->data == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < from->len; i++) {
        c = ngx_tolower(from->data[i]);

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')
              || c == '-' || c == '_'))
        {
            break;
        }

        name->data[i] = c;
    }

    if (i == from->len && i > 0) {
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid header name \"%V\"",
                       from);
    return NGX_ERROR;
}


static char *
ngx_http_infer_set_key(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_http_infer_header_value(cf, &value[1]) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return ngx_http_set_complex_value_slot(cf, cmd, conf);
}


/* What variables bring is checked with each request. */

static ngx_int_t
ngx_http_infer_header_value(ngx_conf_t *cf, ngx_str_t *value)
{
    u_char      c;
    ngx_uint_t  i;

    for (i = 0; i < value->len; i++) {
        c = value->data[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "control character in header value");
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static char *
ngx_http_infer_positive_msec(ngx_conf_t *cf, void *post, void *data)
{
    ngx_msec_t *msec = data;

    return *msec ? NGX_CONF_OK : "must not be 0";
}


static char *
ngx_http_infer_check_flush(ngx_conf_t *cf, void *post, void *data)
{
    ngx_msec_t *msec = data;

    if (*msec > NGX_HTTP_INFER_FLUSH_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"infer_flush_interval\" must be at most %dms",
                           NGX_HTTP_INFER_FLUSH_MAX);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* The request ring is a quarter of it, and not below the wire's minimum. */

static char *
ngx_http_infer_check_shm(ngx_conf_t *cf, void *post, void *data)
{
    size_t *size = data;

    if (*size < 4 * WIRE_RING_MIN || *size > WIRE_RING_MAX
        || (*size & (*size - 1)))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"infer_shm_size\" must be a power of two "
                           "between %dk and %dm", 4 * WIRE_RING_MIN / 1024,
                           WIRE_RING_MAX / 1024 / 1024);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_check_buffer(ngx_conf_t *cf, void *post, void *data)
{
    size_t *size = data;

    if (*size < WIRE_WINDOW_MIN || *size > WIRE_WINDOW_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"infer_buffer_size\" must be between %dk and "
                           "%dk", WIRE_WINDOW_MIN / 1024,
                           WIRE_WINDOW_MAX / 1024);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* Here and not in init_module: each worker has its own links, and this runs
 * as the worker's user. */

static ngx_int_t
ngx_http_infer_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_pool_cleanup_t           *cln;
    ngx_http_infer_pool_t       **pools;
    ngx_http_infer_main_conf_t   *imcf;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    imcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_infer_module);

    if (imcf == NULL || imcf->pools.nelts == 0) {
        return NGX_OK;
    }

    ngx_http_infer_links_init();

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_infer_links_exit;
    cln->data = cycle;

    pools = imcf->pools.elts;

    for (i = 0; i < imcf->pools.nelts; i++) {
        ngx_http_infer_pool_start(pools[i]);
    }

    return NGX_OK;
}
