/* port.h - the insides of api/: one port is one thread with its links, streams and generations.
 *
 * Everything here belongs to the thread of its port, except what is atomic. Nothing blocks. */
#ifndef API_PORT_H
#define API_PORT_H

#include <pthread.h>
#include <stdatomic.h>

#include "api.h"
#include "channel.h"
#include "grammars.h"
#include "keys.h"
#include "openai_in.h"
#include "wire_link.h"

struct gen;
struct link;
struct route;                       /* http.c */
struct work;                        /* work.h */

enum stream_state { STREAM_BODY, STREAM_WORK, STREAM_DRAIN };

struct stream {                     /* one slot of a link, from REQ_HEAD to REP_END */
    struct link *link;
    uint32_t     slot, gen_no;      /* of the worker, echoed */
    uint32_t     rx_seq, tx_seq;    /* the next ones */
    enum stream_state state;        /* DRAIN: out is complete, END follows */
    uint16_t     method;            /* WIRE_METHOD_* */
    const struct route *route;      /* NULL: not known yet, or none */
    const char  *id_header;         /* one more name of x-request-id, or NULL */
    bool         json_body;         /* the content type allows JSON (or is absent) */
    bool         coded_body;        /* it has a content encoding */
    char         uri[API_URI_BYTES_MAX + 1];
    const char  *args;              /* of the URI: behind its '?', or "" */
    char         request_id[API_REQUEST_ID_MAX + 1];
    struct hash128 key;             /* the tenant, if has_key: nginx's word, else by the API key */
    bool         has_key, gave_key;
    enum key_role role;             /* of the API key */
    struct buf   body;
    uint64_t     body_bytes;        /* announced, and counted in the port's body_held */
    struct buf   out;               /* reply bytes; [out_pos, n) has not been sent */
    size_t       out_pos;
    uint64_t     sent;              /* bytes of records, for the credit */
    uint64_t     sent_ns, alive_steps;   /* of the last record; the core's, at the last ALIVE */
    bool         head_sent, sse, named_events;
    struct wire_stats stats;        /* with finish empty unless it generated; id: at the end */
    uint32_t     end_reason;        /* WIRE_END_* */
    struct work *work;              /* NULL unless WORK: the reader thread has the body */
    struct gen  *gen;               /* NULL unless WORK */
    struct stream *early_next, **early_link;    /* in port.early, or NULL */
    bool         aborted;           /* by an admin, while it was there */
    uint64_t     start_ns;
};

struct link {                       /* one nginx worker */
    struct link *next;
    struct port *port;
    int          fd;
    bool         attached, dead, goaway;
    struct wire_link wire;
    struct stream  **stream;        /* [n_slot], NULL: free */
    uint32_t     n_stream, n_unpublished;
    uint64_t     open_ns;
};

struct reader {                     /* work.c: reads the long bodies of one port */
    pthread_t       thread;
    bool            started;
    pthread_mutex_t lock;           /* of what follows; held for a list operation only */
    pthread_cond_t  more;
    struct work    *waiting, **waiting_end, *done;    /* waiting: the oldest first */
    bool            overtaken;      /* the oldest of waiting, by the last one taken */
    bool            stop;
};

struct port {
    struct api  *api;
    int          index;
    pthread_t    thread;
    bool         started;
    int          epfd, wake_fd;
    atomic_bool  woken;             /* a wake is under way: no second write */
    atomic_int   n_link;            /* with those in the inbox */
    struct link *links;
    struct gen  *gens;              /* changed under gens_lock, so that others may walk it */
    struct stream *early;           /* likewise: who generates nothing yet */
    pthread_mutex_t gens_lock;
    struct reader reader;
    uint64_t     body_held;         /* bytes of bodies announced, being received or read */
    uint64_t     beat_ns;           /* next heartbeat */
    pthread_mutex_t inbox_lock;     /* taken only when a link is opened */
    int          inbox[API_LINK_MAX], n_inbox;
    uint8_t      rec_buf[WIRE_REC_BYTES_MAX];
};

struct api {
    struct api_conf  c;
    struct api_load *load;
    int              listen_fd;
    int64_t          created;       /* seconds since 1970 */
    char             fingerprint[16];
    struct hash_key  key;           /* of the hashes of authenticated keys */
    struct keyring  *keys;          /* NULL: whoever nginx lets through */
    struct grammars *grammars;

    /* set by api_ready, serve last */
    _Atomic(struct serve *)  serve;
    const struct model_conf *mc;
    const struct tok        *tok;   /* may be NULL */
    size_t                   tok_bytes_max;   /* of the longest entry */
    enum chat_variant        variant;
    struct channel_ids       ids;
    const struct vocab      *vocab; /* of tok, or NULL */

    atomic_bool      draining, stopping;
    atomic_int       n_req;         /* requests in the core or on their way */
    atomic_int       n_stream;      /* not yet answered in full */
    _Atomic uint64_t n_unknown_field, n_reply[6];   /* replies by the first digit of the status */
    _Atomic uint64_t n_busy;        /* requests given back to nginx */
    _Atomic uint64_t n_guided[FORMAT_N];    /* requests; FORMAT_FREE: held to calls alone */
    _Atomic uint64_t n_bad_call;
    struct histogram n_choice, new_tok;     /* of a prompt; of its longest answer */
    struct port      port[SERVE_PORT_MAX];
};

uint64_t api_now_ns(void);
/* NULL until the model is loaded. */
struct serve *api_serve(struct api *a);

/* link.c: a worker's link and the records on it */
void link_open(struct port *p, int fd);       /* takes the socket */
void link_event(struct link *l);              /* the socket is readable */
void link_poll(struct link *l);               /* look at the ring without a bell */
void link_publish(struct link *l);            /* make replies visible */
void link_beat(struct link *l);
void link_goaway(struct link *l);
void link_reap(struct port *p, bool all);     /* free the dead ones, or all */

/* Status line and headers; ctype is required, header pairs end with a NULL name. body_bytes may be
 * WIRE_BODY_UNKNOWN: then it is an SSE stream. */
struct header { const char *name, *value; };
void stream_head(struct stream *st, int status, const char *ctype, uint64_t body_bytes,
                 const struct header *extra);
/* Send of out what the credit allows. True when all of it has gone. */
bool stream_flush(struct stream *st);
/* out is complete: what is left of it goes first, then STATS and END. st may be gone afterwards. */
void stream_end(struct stream *st, uint32_t reason);
/* Bytes that one DATA record of this stream may carry. */
size_t stream_record_max(const struct stream *st);

/* http.c: a complete head, a complete request, and errors for whoever has them */
/* Finds the route, from which errors have their shape; the beginning of a URI will do. */
void http_route(struct stream *st);
/* False: it is refused, and st may be gone. */
bool http_admit(struct stream *st);
void http_handle(struct stream *st);
void http_error(struct stream *st, const struct api_err *e);
/* Nothing was done and nothing written: nginx may try another engine, or say 503 itself. */
void http_busy(struct stream *st);
/* The body has been read: answer, or start to generate. */
void http_finish(struct stream *st, struct work *w);

/* What an admin's word did to it. */
void http_aborted(const struct stream *st, struct api_err *e);

/* early.c: requests whose body is being received or read */
void early_add(struct stream *st);
bool early_leave(struct stream *st);          /* under gens_lock; true: it was aborted meanwhile */
void early_remove(struct stream *st);         /* likewise, with the lock; it may have left before */
void early_rename(struct stream *st, struct slice id);
int  early_abort(struct port *p, const char *request_id);     /* under gens_lock: how many */
void early_end(struct port *p);               /* answer those that were */

/* gen.c: generations */
/* A name that we serve the model under, the first one for none; NULL: not ours. */
const char *gen_alias(const struct api *a, struct slice model);
/* Start one; 0, E_INVALID and e, or E_FULL (no room at present), with nothing written. */
int  gen_start(struct stream *st, struct work *w, struct api_err *e);
/* The client is gone: cancel, fill the stream's stats and forget it. */
void gen_abandon(struct gen *g);
/* End what runs or waits under this id; how many did. Any thread. */
int  gen_abort(struct api *a, const char *request_id);
void gen_pump_all(struct port *p);
void gen_drop_all(struct port *p);            /* at close: the core does not run any more */

#endif
