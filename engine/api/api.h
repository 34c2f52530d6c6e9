/* api.h - what clients see: wire links in, HTTP routes, JSON, SSE out.
 *
 * Owns n threads; each owns links, their requests and one port of the core. Everything that a
 * client can break is under here. */
#ifndef API_API_H
#define API_API_H

#include "chat.h"
#include "err.h"
#include "matcher.h"
#include "model.h"
#include "serve.h"
#include "tok.h"

#define API_MODEL_NAME_MAX 8

struct api_load {                    /* written by the loader, read by /ready; relaxed atomics */
    _Atomic uint64_t done_bytes, total_bytes, start_ns;
};

struct api_conf {
    const char *socket_path;         /* unix socket, created 0660 (mode), unlinked at close */
    int         socket_mode;
    const char *socket_group;        /* NULL: leave */
    int32_t     n_thread;
    const char *model_name[API_MODEL_NAME_MAX];   /* served names, the first is echoed by default */
    int32_t     n_model_name;
    int32_t     model_len_max;       /* --max-model-len */
    int32_t     page_tok;            /* of the KV cache */
    int32_t     run_max;             /* --max-num-seqs */
    int32_t     request_max;         /* these and --max-queue: alive in all threads */
    int32_t     ping_s;              /* silence of a stream before a ping; 0: none */
    int32_t     tenant_max;          /* of one key; 0: no limit of its own */
    bool        strict;              /* unknown fields are errors */
    bool        parse_messages;      /* for control tokens that clients wrote; else all is text */
    const char *key_file;            /* of API keys (keys.h); NULL: nginx alone decides */
    void      (*on_drain)(void);     /* an admin asks to drain, once. Any thread; may be NULL */
    uint64_t    epoch;
    const char *version;
};

struct api;

/* Listens at once, so that /health and /ready answer while the model loads; everything else is
 * 503 model_loading until api_ready. */
int  api_open(struct api **out, const struct api_conf *c, struct api_load *load, struct err *e);
/* tok may be NULL (no tokenizer.json: token-id prompts only), vocab then too. Borrowed until
 * api_close. */
void api_ready(struct api *a, struct serve *s, const struct model_conf *mc, const struct tok *tok,
               const struct vocab *vocab, enum chat_variant variant);
/* The core's wake hook lands here. Any thread. */
void api_wake(struct api *a, int port);
/* GOAWAY on each link, no new requests; returns at once. False: that was so already. */
bool api_drain(struct api *a);
int32_t api_n_active(struct api *a);         /* requests not yet answered in full */
/* Read the file of keys again; n_key and n_admin: how many it has. Any thread. A file that is wrong
 * changes nothing; E_INVALID without one. */
int  api_reload_keys(struct api *a, int *n_key, int *n_admin, struct err *e);
void api_close(struct api *a);

#endif
