
/*
 * ngx_http_infer: requests go to inferd over shared memory, replies stream
 * back through nginx's event loop.
 *
 *     _module.c     directives, configuration, process start
 *     _handler.c    the life of a request
 *     _request.c    what the engine gets to see: method, URI, headers, body
 *     _output.c     reply records to the client, credits
 *     _error.c      JSON for errors that no engine can answer
 *     _pool.c       choice of an engine, health, the queue
 *     _link.c       one worker, one engine: handshake, rings, doorbells
 *     _status.c     counters and the infer_status page
 *     _variables.c  $infer_*
 *
 * Who may do what: links are closed only by their own event handlers, never
 * by a request.  A request ends only in ngx_http_infer_finalize(); a caller
 * that runs in an event of ours (not in one of the request's connection)
 * calls ngx_http_run_posted_requests() afterwards.  Shared memory never
 * holds a pointer: replies carry a slot and its generation.
 *
 * Everything here is per worker; only the counters are shared.
 */

#ifndef _NGX_HTTP_INFER_H_INCLUDED_
#define _NGX_HTTP_INFER_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>

#include "wire_link.h"


/* all that depends on the version of nginx */

#if (nginx_version >= 1023000)
#define ngx_http_infer_elt_init(h)  (h)->next = NULL
#else
#define ngx_http_infer_elt_init(h)
#endif


#define NGX_HTTP_INFER_ENGINES_MAX      64      /* of one pool: a bit each */
#define NGX_HTTP_INFER_PARAM_MAX        65535   /* weight, max_conns, ... */
#define NGX_HTTP_INFER_QUEUE_MAX        65535
#define NGX_HTTP_INFER_FLUSH_MAX        1000    /* ms, infer_flush_interval */
#define NGX_HTTP_INFER_BUF              4096
#define NGX_HTTP_INFER_BUDGET           4096    /* records per wake-up */
#define NGX_HTTP_INFER_RETRY_MIN        100     /* ms between connects */
#define NGX_HTTP_INFER_RETRY_MAX        5000
#define NGX_HTTP_INFER_CHECK            500     /* ms, ring and heartbeat */
#define NGX_HTTP_INFER_HANG             3000    /* ms without a heartbeat */
#define NGX_HTTP_INFER_FAULTS_MAX       8       /* bad streams of a link */

#define NGX_HTTP_INFER_OVERLOADED       529     /* Anthropic's 503 */

/* infer_next_engine */

#define NGX_HTTP_INFER_NEXT_ERROR       0x0002
#define NGX_HTTP_INFER_NEXT_TIMEOUT     0x0004
#define NGX_HTTP_INFER_NEXT_503         0x0008
#define NGX_HTTP_INFER_NEXT_BUSY        0x0010  /* not an option: always */
#define NGX_HTTP_INFER_NEXT_OFF         0x0100


typedef struct ngx_http_infer_pool_s    ngx_http_infer_pool_t;
typedef struct ngx_http_infer_engine_s  ngx_http_infer_engine_t;
typedef struct ngx_http_infer_link_s    ngx_http_infer_link_t;
typedef struct ngx_http_infer_ctx_s     ngx_http_infer_ctx_t;


/* Shared by all workers since the last reload, one per engine. */

typedef struct {
    ngx_atomic_t                requests;
    ngx_atomic_t                replies;        /* ended by the engine */
    ngx_atomic_t                cancelled;
    ngx_atomic_t                busy;           /* refused by the engine */
    ngx_atomic_t                lost;           /* engine died or hung */
    ngx_atomic_t                timeouts;
    ngx_atomic_t                connects;
    ngx_atomic_t                connect_errors;
    ngx_atomic_t                bytes_in;       /* reply bodies */
    ngx_atomic_t                bytes_out;      /* request bodies */
    ngx_atomic_t                stale;          /* records of old slots */
    ngx_atomic_t                faults;         /* protocol errors */
    ngx_atomic_t                rescues;        /* lost wake-ups: stays 0 */
} ngx_http_infer_stat_t;


struct ngx_http_infer_engine_s {
    ngx_str_t                   name;           /* as written */
    struct sockaddr_un          addr;
    ngx_http_infer_pool_t      *pool;
    ngx_uint_t                  index;          /* in the pool */

    ngx_uint_t                  weight;
    ngx_uint_t                  max_fails;
    time_t                      fail_timeout;
    ngx_uint_t                  max_conns;
    unsigned                    backup:1;
    unsigned                    down:1;

    uint32_t                    trouble;        /* why there is no link, as
                                                   logged last: errno, or crc32
                                                   of words; 0: it is not */
    ngx_http_infer_link_t      *link;
    ngx_event_t                 reconnect;
    ngx_msec_t                  attempted;      /* last connect */
    ngx_msec_t                  backoff;
    ngx_uint_t                  fails;
    time_t                      failed;
    ngx_uint_t                  n_active;
    ngx_uint_t                  picked;         /* order of the last choice */

    ngx_http_infer_stat_t      *stat;
};


struct ngx_http_infer_pool_s {
    ngx_str_t                   name;
    u_char                     *file;           /* first mentioned here */
    ngx_uint_t                  line;
    ngx_array_t                 engines;        /* ngx_http_infer_engine_t */
    ngx_uint_t                  queue_max;
    ngx_msec_t                  queue_timeout;
    unsigned                    defined:1;
    unsigned                    queue:1;

    ngx_queue_t                 waiting;        /* ngx_http_infer_ctx_t */
    ngx_uint_t                  n_waiting;
    ngx_uint_t                  n_picked;
    ngx_event_t                 wake;
};


typedef struct {
    ngx_queue_t                 queue;          /* link->cancels, if doomed */
    ngx_http_infer_ctx_t       *ctx;            /* NULL: the client is gone */
    uint64_t                    received;       /* whole records */
    uint32_t                    gen;
    uint32_t                    tx_seq;
    uint32_t                    rx_seq;
    unsigned                    busy:1;
    unsigned                    doomed:1;       /* CANCEL is still to be sent */
} ngx_http_infer_slot_t;


struct ngx_http_infer_link_s {
    ngx_http_infer_engine_t    *engine;
    ngx_pool_t                 *pool;
    ngx_connection_t           *connection;
    struct wire_link            wire;

    ngx_http_infer_slot_t      *slots;
    uint32_t                   *free;           /* stack of slot numbers */
    ngx_uint_t                  n_free;

    ngx_queue_t                 queue;          /* all links of the worker */
    ngx_queue_t                 sending;        /* ctx: request not all sent */
    ngx_queue_t                 cancels;        /* slots */
    ngx_queue_t                 dirty;          /* ctx: output to flush */

    ngx_event_t                 timer;
    uint64_t                    heartbeat;
    ngx_msec_t                  beaten;
    ngx_uint_t                  n_faults;
    ngx_uint_t                  n_records;      /* that came */
    ngx_uint_t                  bytes_in;       /* not counted yet */

    uint64_t                    stuck_head;
    unsigned                    stuck:1;
    unsigned                    ready:1;        /* the handshake is done */
    unsigned                    goaway:1;       /* it has said so */
    unsigned                    broken:1;
};


struct ngx_http_infer_ctx_s {
    ngx_http_request_t         *request;
    ngx_http_infer_pool_t      *pool;
    ngx_http_infer_engine_t    *engine;
    ngx_http_infer_link_t      *link;
    uint32_t                    slot;
    uint64_t                    tried;          /* bit per engine */
    ngx_uint_t                  tries;

    ngx_queue_t                 queue;          /* waiting, sending or lost */
    ngx_queue_t                 dirty_queue;
    ngx_event_t                 timer;          /* never cancelable */
    ngx_event_t                 flush_timer;

    u_char                     *head;           /* REQ_HEAD payload */
    uint32_t                    head_len;
    uint64_t                    body_bytes;
    uint64_t                    body_left;
    ngx_chain_t                *body;           /* cursor */
    off_t                       body_pos;       /* in the buffer of body */

    u_char                     *reply_head;     /* REP_HEAD payload */
    uint32_t                    reply_head_len;
    ngx_chain_t                *free_bufs;
    ngx_chain_t                *busy;
    ngx_chain_t                *out;
    ngx_chain_t               **last_out;
    uint64_t                    acked;
    uint64_t                    reply_left;     /* of Content-Length */
    ngx_msec_t                  flushed;

    ngx_uint_t                  heard;          /* link->n_records then */
    ngx_msec_t                  start;
    ngx_msec_t                  submitted;
    ngx_msec_t                  first;          /* first byte of the reply */
    ngx_msec_t                  last;
    ngx_uint_t                  status;         /* the engine's */
    struct wire_stats           stats;
    ngx_str_t                   engines;        /* names tried */
    const char                 *finish;         /* our own word, or NULL */

    unsigned                    queued:1;       /* in queue */
    unsigned                    waiting:1;      /* queue is pool->waiting */
    unsigned                    dirty:1;
    unsigned                    head_sent:1;
    unsigned                    end_sent:1;
    unsigned                    headed:1;       /* reply_head has come */
    unsigned                    header:1;       /* passed to the client */
    unsigned                    stream:1;
    unsigned                    named:1;        /* its events have names */
    unsigned                    flush:1;
    unsigned                    got_first:1;
    unsigned                    got_stats:1;
    unsigned                    was_submitted:1;
    unsigned                    broken:1;       /* body cannot be read */
    unsigned                    gone:1;         /* nobody reads: drop it */
};


typedef struct {
    ngx_array_t                 pools;          /* ngx_http_infer_pool_t * */
    size_t                      shm_size;
    size_t                      buffer_size;
    struct wire_sizes           sizes;
    ngx_int_t                   request_id;     /* index of $request_id */
    ngx_shm_zone_t             *zone;
} ngx_http_infer_main_conf_t;


typedef struct {
    ngx_str_t                   name;           /* lower case */
    ngx_http_complex_value_t    value;
} ngx_http_infer_header_t;


typedef struct {
    ngx_http_handler_pt         handler;        /* set here, by which line */
    u_char                     *file;
    ngx_uint_t                  line;
    ngx_http_infer_pool_t      *pool;
    ngx_http_complex_value_t   *pool_value;     /* infer_pass $var */
    ngx_msec_t                  connect_timeout;
    ngx_msec_t                  first_byte_timeout;
    ngx_msec_t                  read_timeout;
    ngx_msec_t                  flush_interval;
    ngx_flag_t                  ignore_client_abort;
    ngx_flag_t                  intercept_errors;
    ngx_uint_t                  next_engine;
    ngx_uint_t                  next_engine_tries;
    ngx_array_t                *set_headers;    /* ngx_http_infer_header_t */
    ngx_array_t                *pass_headers;   /* ngx_str_t, lower case */
    ngx_http_complex_value_t   *key;
} ngx_http_infer_loc_conf_t;


/* _handler.c */

ngx_int_t ngx_http_infer_handler(ngx_http_request_t *r);
/* Send the request to what pool_pick() found.  NULL: it waits for an engine,
 * or ends. */
void ngx_http_infer_submit(ngx_http_infer_ctx_t *ctx,
    ngx_http_infer_engine_t *engine);
/* The engine that may try next, or NULL.  why: NGX_HTTP_INFER_NEXT_*. */
ngx_http_infer_engine_t *ngx_http_infer_next(ngx_http_infer_ctx_t *ctx,
    ngx_uint_t why);
/* The engine did not do its part: the next engine, or an error in the form
 * that is still possible. */
void ngx_http_infer_failed(ngx_http_infer_ctx_t *ctx, ngx_uint_t why);
/* End with an error of ours; before the header only. */
void ngx_http_infer_reject(ngx_http_infer_ctx_t *ctx, ngx_uint_t status,
    const char *code, const char *message);
/* The only way out: nobody touches ctx or its request afterwards. */
void ngx_http_infer_finalize(ngx_http_infer_ctx_t *ctx, ngx_int_t rc);
/* The ctx of the last infer_pass of a request, even after a redirect. */
ngx_http_infer_ctx_t *ngx_http_infer_get_ctx(ngx_http_request_t *r);

/* _request.c */

ngx_int_t ngx_http_infer_build_head(ngx_http_infer_ctx_t *ctx);
/* Copy the next n bytes of the body; the cursor moves. */
ngx_int_t ngx_http_infer_read_body(ngx_http_infer_ctx_t *ctx, u_char *p,
    size_t n);
void ngx_http_infer_rewind_body(ngx_http_infer_ctx_t *ctx);

/* _output.c: records of a reply.  They may finalize ctx. */

void ngx_http_infer_reply(ngx_http_infer_ctx_t *ctx,
    const struct wire_rec *rec, const u_char *payload);
/* Pass what is pending to the client, unless it is still busy. */
void ngx_http_infer_flush(ngx_http_infer_ctx_t *ctx);
void ngx_http_infer_flush_handler(ngx_event_t *ev);
/* What came of a reply, and has not been passed on, was never there. */
void ngx_http_infer_forget(ngx_http_infer_ctx_t *ctx);
/* The reply has begun and cannot be completed: say so and cut. */
void ngx_http_infer_cut(ngx_http_infer_ctx_t *ctx, const char *code,
    const char *message);

/* _error.c */

ngx_int_t ngx_http_infer_error_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_infer_send_json(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *json);
ngx_int_t ngx_http_infer_send_error(ngx_http_request_t *r,
    ngx_uint_t status, const char *code, const char *message);
/* Does the client expect Anthropic's words? */
ngx_uint_t ngx_http_infer_anthropic(ngx_http_request_t *r);
ngx_int_t ngx_http_infer_add_header(ngx_http_request_t *r, const char *name,
    size_t name_len, u_char *value, size_t value_len);

/* _pool.c */

char *ngx_http_infer_pool_block(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
ngx_http_infer_pool_t *ngx_http_infer_pool_add(ngx_conf_t *cf,
    ngx_str_t *name);
ngx_http_infer_pool_t *ngx_http_infer_pool_find(
    ngx_http_infer_main_conf_t *imcf, ngx_str_t *name);
void ngx_http_infer_pool_start(ngx_http_infer_pool_t *pool);
/* An engine with a free slot for ctx, or NULL; starts connects and counts as
 * the engine's turn, so what it returns is to be used. */
ngx_http_infer_engine_t *ngx_http_infer_pool_pick(ngx_http_infer_ctx_t *ctx);
/* Wait for one: NGX_OK, or NGX_BUSY if there is no hope or no room. */
ngx_int_t ngx_http_infer_pool_wait(ngx_http_infer_ctx_t *ctx);
/* A slot became free or a link ready. */
void ngx_http_infer_pool_wake(ngx_http_infer_pool_t *pool);
void ngx_http_infer_engine_fail(ngx_http_infer_engine_t *engine);

/* _link.c */

void ngx_http_infer_link_connect(ngx_http_infer_engine_t *engine,
    ngx_msec_t timeout);
/* A ready link, whose engine finishes what it has and takes nothing new. */
ngx_uint_t ngx_http_infer_link_leaving(ngx_http_infer_link_t *link);
/* Take a slot and begin to send; the link is ready and has a free slot. */
void ngx_http_infer_link_submit(ngx_http_infer_link_t *link,
    ngx_http_infer_ctx_t *ctx);
/* Give the slot back; cancels if the engine may still be at work. */
void ngx_http_infer_link_detach(ngx_http_infer_ctx_t *ctx);
/* All bytes that came for ctx have left, but for those held. */
void ngx_http_infer_link_ack(ngx_http_infer_ctx_t *ctx, size_t held);
/* The engine broke the protocol on this stream; ends ctx. */
void ngx_http_infer_link_fault(ngx_http_infer_ctx_t *ctx, const char *what);
uint64_t ngx_http_infer_link_unacked(ngx_http_infer_ctx_t *ctx);
void ngx_http_infer_links_init(void);
void ngx_http_infer_links_exit(void *data);

/* _status.c */

ngx_int_t ngx_http_infer_status_zone(ngx_conf_t *cf);
ngx_int_t ngx_http_infer_status_handler(ngx_http_request_t *r);

/* _variables.c */

ngx_int_t ngx_http_infer_add_variables(ngx_conf_t *cf);


extern ngx_module_t  ngx_http_infer_module;


#define ngx_http_infer_count(engine, field, n)                                \
    (void) ngx_atomic_fetch_add(&(engine)->stat->field, n)


#endif /* _NGX_HTTP_INFER_H_INCLUDED_ */
