/* fuzz/link.c - a worker, honest at first: its records through routes, generation and back.
 *
 * The whole api on one thread, and its reader of long bodies, over a model that answers with a
 * hash. The input is a script of the worker's deeds. What comes back must keep the order and the
 * credit of wire.h and be valid UTF-8; and when the worker has gone nothing of it may be left: no
 * stream, no request, no page. */
#include "../tok_make.h"
#include "log.h"
#include "work.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define N_SLOT  4
#define CHECK(cond) do { if (!(cond)) abort(); } while (0)

struct model { struct model_conf c; const int32_t *sampled; };

struct slot {                    /* what the worker knows of one of its own */
    uint32_t gen, tx_seq, rx_seq;
    uint64_t received, acked, body, body_want;
    int      status;             /* 0: no head yet */
    bool     open, ended;
};

static struct model     model;
static struct api       api;
static struct api_load  load;
static struct wire_link w;
static struct slot      slots[N_SLOT];
static int              worker_fd;
static bool             honest;  /* the worker has not broken the protocol yet */

const struct model_conf *model_config(const struct model *m)
{
    return &m->c;
}

void model_launch(struct model *m, struct batch *b, struct step_out *o)
{
    for (int32_t t = 0; t < b->n_tok; t++)
        if (b->from != NULL && b->from[t] >= 0)
            b->tok[t] = m->sampled[b->from[t]];
    for (int32_t i = 0; i < b->n_out; i++) {
        uint32_t h = ((uint32_t) b->tok[b->out_row[i]] + 7u) * 2654435761u
                     + (uint32_t) b->pos[b->out_row[i]] * 40503u;

        o->tok[i] = h % 23 == 0 ? m->c.eos[0] : (int32_t) (h >> 8) % m->c.vocab;
    }
    m->sampled = o->tok;
}

int model_wait(struct model *m, struct err *e)
{
    (void) m;
    (void) e;
    return 0;
}

static uint64_t now(void *arg) { (void) arg; return 1; }
static void wake(void *arg, int port) { (void) arg; (void) port; }
static void nothing(void *arg) { (void) arg; }

static void open_all(void)
{
    struct serve_conf c = {
        .seq_max = 4, .step_tok_max = 64, .model_len_max = 200, .queue_max = 4, .n_port = 1,
        .overlap = true, .cache = true,
        .kv = { 8, 120, 120 }, .now_ns = now, .wake = wake, .sleep = nothing, .kick = nothing,
    };
    struct tok   *tok = made_tok();
    struct vocab *vocab;
    struct serve *s;
    struct port  *p = &api.port[0];

    log_set_level(LOG_ERROR);
    model.c = (struct model_conf) {
        .vocab = tok_n_vocab(tok), .window = 16, .eos = { tok_id(tok, "<turn|>") }, .n_eos = 1,
        .top_p = 1, .name = "fuzz",
    };
    CHECK(serve_open(&s, &model, &c, NULL) == 0);

    api.c = (struct api_conf) {
        .n_thread = 1, .model_name = { "fuzz" }, .n_model_name = 1, .model_len_max = 200,
        .page_tok = 8, .request_max = 8, .epoch = 2, .version = "0",
    };
    api.load = &load;
    p->api = &api;
    p->epfd = epoll_create1(0);
    p->wake_fd = eventfd(0, EFD_NONBLOCK);
    CHECK(reader_open(p) == 0);
    CHECK(vocab_open(&vocab, tok, model.c.vocab, NULL) == 0);
    api.grammars = grammars_open(&api.key, API_GRAMMAR_CACHE_MAX);
    CHECK(api.grammars != NULL);
    api_ready(&api, s, &model.c, tok, vocab, CHAT_LARGE);
}

static void attach(void)
{
    static const struct wire_sizes sizes = {
        N_SLOT, WIRE_WINDOW_MIN, WIRE_RING_MIN, WIRE_RING_MIN
    };
    int sv[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv) == 0);
    worker_fd = sv[0];
    CHECK(wire_link_hello(&w, worker_fd, &sizes, 1, NULL) == 0);
    atomic_fetch_add(&api.port[0].n_link, 1);
    link_open(&api.port[0], sv[1]);
    link_event(api.port[0].links);
    CHECK(wire_link_welcome(&w, worker_fd, NULL) == 0);
    memset(slots, 0, sizeof(slots));
    honest = true;
}

/* One round of the api's thread and of the core. */
static void turn(void)
{
    struct port *p = &api.port[0];

    work_take_done(p);
    if (p->links != NULL)
        link_poll(p->links);
    gen_pump_all(p);
    if (p->links != NULL)
        link_publish(p->links);
    serve_once(api_serve(&api), NULL);
}

/* Nothing has been said for long: a beat, with signs of life. */
static void later(void)
{
    struct link *l = api.port[0].links;

    for (uint32_t i = 0; i < N_SLOT; i++)
        if (l->stream[i] != NULL)
            l->stream[i]->sent_ns = 0;
    link_beat(l);
    link_publish(l);
}

/* A record of the reply, as an nginx worker would check it. */
static void on_reply(const struct wire_rec *r, const uint8_t *buf)
{
    struct slot         *s = &slots[r->slot];
    struct wire_rep_head h;
    struct wire_hdr_iter it;

    if (r->gen != s->gen || !s->open)
        return;
    CHECK(r->seq == s->rx_seq++);
    s->received += WIRE_REC_SIZE(r->len);
    CHECK(s->received - s->acked <= w.ring.window || !honest);

    switch (r->type) {
    case WIRE_REP_HEAD:
        CHECK(s->status == 0 && wire_rep_head_read(buf, r->len, &h, &it) == 0);
        s->status = h.status;
        s->body_want = h.body_bytes;
        break;
    case WIRE_REP_DATA:
        CHECK(s->status != 0);
        s->body += r->len;
        break;
    case WIRE_REP_STATS:
        CHECK(s->status != 0);
        break;
    case WIRE_REP_END:
        CHECK(buf[0] != WIRE_END_OK || (s->status != 0
              && (s->body_want == WIRE_BODY_UNKNOWN || s->body == s->body_want)));
        s->open = false;
        s->ended = true;
        break;
    default:
        CHECK(r->type == WIRE_REP_ALIVE && r->len == 0);
    }
}

static void receive(void)
{
    static uint8_t  buf[WIRE_REC_BYTES_MAX], text[1 << 16];
    static uint32_t n;
    struct wire_rec r;
    int             rc;

    while ((rc = wire_ring_recv(&w.ring, &r, buf)) == 1) {
        if (r.type == WIRE_REP_HEAD)
            n = 0;
        if (r.type == WIRE_REP_DATA && slots[r.slot].status >= 400 && n + r.len < sizeof(text)) {
            memcpy(text + n, buf, r.len);       /* errors come in one piece after their head */
            n += r.len;
            CHECK(utf8_valid((const char *) text, n));
        }
        on_reply(&r, buf);
    }
    CHECK(rc == 0);
    (void) wire_ring_release(&w.ring);
}

static void put(uint16_t type, uint32_t slot, uint32_t gen, uint32_t seq, const void *p, uint32_t n)
{
    struct wire_rec r = { .len = n, .type = type, .slot = slot, .gen = gen, .seq = seq };

    (void) wire_ring_send(&w.ring, &r, p);
    (void) wire_ring_publish(&w.ring);
}

/* A whole request as it should be; a long one goes to the reader. */
static void request(uint32_t slot, unsigned what, const uint8_t *text, uint32_t n)
{
    static uint8_t body[API_INLINE_BYTES + 4096];
    static const char *const uri[] = {
        "/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/apply-template",
        "/v1/models", "/v1/models/fuzz", "/health", "/ready", "/metrics", "/version?x",
        "/v1/chat/completions/", "/\xff\xfe", "/v1/models/\xc3",
    };
    const char          *u = uri[what % (sizeof(uri) / sizeof(uri[0]))];
    struct slot         *s = &slots[slot];
    uint32_t             n_body = what & 128 && n > 0 ? n + API_INLINE_BYTES : n;
    struct wire_req_head h = {
        .body_bytes = n_body, .uri_bytes = (uint32_t) strlen(u), .n_hdr = 0,
        .method = what & 64 ? (uint16_t) (1 + (what >> 4) % 3) : what % 14 < 5 ? 2 : 1,
    };
    uint8_t              buf[256];

    if (s->open)
        return;
    *s = (struct slot) { .gen = s->gen + 1, .open = true };
    wire_ring_ack(&w.ring, slot, 0);
    memcpy(buf, &h, sizeof(h));
    memcpy(buf + sizeof(h), u, h.uri_bytes);
    put(WIRE_REQ_HEAD, slot, s->gen, s->tx_seq++, buf, (uint32_t) sizeof(h) + h.uri_bytes);
    memset(body, ' ', sizeof(body));
    if (n > 0) {
        memcpy(body, text, n);
        put(WIRE_REQ_BODY, slot, s->gen, s->tx_seq++, body, n_body);
    }
    put(WIRE_REQ_END, slot, s->gen, s->tx_seq++, NULL, 0);
}

static void ack(uint32_t slot, uint64_t bytes)
{
    slots[slot].acked = bytes;
    wire_ring_ack(&w.ring, slot, bytes);
    link_poll(api.port[0].links);
}

/* A word of the worker's own segment: indices, counters, acks, or a place in the ring. */
static void poke(unsigned where, const uint8_t *p)
{
    static const size_t at[] = {
        offsetof(struct wire_seg, tail), offsetof(struct wire_seg, head),
        offsetof(struct wire_seg, armed), offsetof(struct wire_seg, need_space),
        offsetof(struct wire_seg, magic), WIRE_ACKS_OFF, WIRE_ACKS_OFF + 8 * (N_SLOT - 1),
    };
    size_t ring = (size_t) (w.ring.tx - (uint8_t *) w.ring.own), i = where % 16;

    honest = false;
    memcpy((uint8_t *) w.ring.own
           + (i < 7 ? at[i] : ring + (w.ring.tx_tail + 65536 - 4 * (where >> 3)) % 65536), p, 4);
}

/* One deed; returns how many bytes of the script it took. */
static size_t deed(const uint8_t *p, size_t n)
{
    uint32_t slot = p[0] >> 3 & 3, len;
    struct slot *s = &slots[slot];

    switch (p[0] & 7) {
    case 0: case 1:
        if (n < 4)
            return n;
        len = (uint32_t) (p[2] | p[3] << 8) % 2048;
        len = len < n - 4 ? len : (uint32_t) n - 4;
        request(slot, p[1], p + 4, len);
        return 4 + len;
    case 2:
        if (p[0] & 32)
            later();
        turn();
        return 1;
    case 3:
        receive();
        return 1;
    case 4:
        receive();
        ack(slot, s->received);
        return 1;
    case 5:
        if (s->open)
            put(WIRE_REQ_CANCEL, slot, s->gen, s->tx_seq++, NULL, 0);
        return 1;
    case 6:
        if (n < 6)
            return n;
        poke(p[1], p + 2);
        return 6;
    default:                     /* any record */
        if (n < 5)
            return n;
        honest = false;
        len = p[4] < n - 5 ? p[4] : (uint32_t) n - 5;
        put(p[1] & 32 ? p[1] | WIRE_OPTIONAL : p[1] & 7, slot, s->gen + p[2] % 3,
            s->tx_seq + p[3] % 3, p + 5, len);
        s->tx_seq++;
        return 5 + len;
    }
}

static bool any_open(void)
{
    bool any = false;

    for (uint32_t k = 0; k < N_SLOT; k++)
        any = any || slots[k].open;
    return any;
}

static void detach(void)
{
    const struct metrics *m = serve_metrics(api_serve(&api));
    struct port          *p = &api.port[0];

    wire_link_close(&w);
    close(worker_fd);
    if (p->links != NULL)
        link_event(p->links);
    link_reap(p, false);
    CHECK(p->links == NULL && atomic_load(&p->n_link) == 0);

    for (int i = 0; i < 2; i++) {
        while (serve_once(api_serve(&api), NULL))
            ;
        gen_pump_all(p);
    }
    CHECK(p->gens == NULL && p->body_held == 0);
    CHECK(atomic_load(&api.n_stream) == 0 && atomic_load(&api.n_req) == 0);
    CHECK(m->pages_full_used == 0 && m->pages_sliding_used == 0 && m->running + m->waiting == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    if (api.load == NULL)
        open_all();
    attach();
    for (size_t took; n > 0 && api.port[0].links != NULL; p += took, n -= took) {
        took = deed(p, n);
        link_poll(api.port[0].links);
        CHECK(!honest || !api.port[0].links->dead);
        if (api.port[0].links->dead)
            break;
    }

    for (int i = 0; honest && any_open(); i++) {
        CHECK(i < 20000);                    /* to an honest worker all its answers come */
        if (i > 500)
            usleep(50);                      /* the reader has its own pace */
        turn();
        receive();
        for (uint32_t k = 0; k < N_SLOT; k++)
            ack(k, slots[k].received);
    }
    detach();
    return 0;
}
