/* wire_ring.c - the rings: what is written, what is believed.
 *
 * Each side writes its own segment only. Of the peer's segment every word is loaded once per
 * decision, by an atomic load so that the compiler cannot fetch it twice, and then checked. */
#include <assert.h>
#include <string.h>

#include "wire_ring.h"

#define PAGE  4096u

#define load_relaxed(p)      __atomic_load_n((p), __ATOMIC_RELAXED)
#define load_acquire(p)      __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define store_relaxed(p, v)  __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define store_release(p, v)  __atomic_store_n((p), (v), __ATOMIC_RELEASE)

/* Between "I published" and "does the peer sleep?", and between "I sleep" and "did the peer
 * publish?". Without it both stores may be delayed past both loads, and both sides sleep. */
#define fence()              __atomic_thread_fence(__ATOMIC_SEQ_CST)

static uint64_t seg_ring_off(enum wire_role role, uint32_t n_slot)
{
    uint64_t end = WIRE_ACKS_OFF;

    if (role == WIRE_WORKER) {
        end += (uint64_t) n_slot * sizeof(uint64_t);
    }

    return (end + PAGE - 1) & ~(uint64_t) (PAGE - 1);
}

uint64_t wire_seg_bytes(enum wire_role role, uint32_t n_slot, uint64_t ring_bytes)
{
    return seg_ring_off(role, n_slot) + ring_bytes;
}

void wire_seg_write(struct wire_seg *mem, enum wire_role role, uint32_t n_slot, uint32_t window,
                    uint64_t ring_bytes, uint64_t epoch)
{
    mem->magic = WIRE_MAGIC;
    mem->major = WIRE_MAJOR;
    mem->minor = WIRE_MINOR;
    mem->seg_bytes = wire_seg_bytes(role, n_slot, ring_bytes);
    mem->ring_off = seg_ring_off(role, n_slot);
    mem->ring_bytes = ring_bytes;
    mem->n_slot = n_slot;
    mem->window = window;
    mem->epoch = epoch;
}

/* The fixed part of the peer's page 0, each word loaded once. */
union seg_fixed {
    struct {
        uint64_t magic;
        uint32_t major, minor;
        uint64_t seg_bytes, ring_off, ring_bytes;
        uint32_t n_slot, window;
        uint64_t epoch;
    } f;
    uint64_t word[7];
};

_Static_assert(sizeof(((union seg_fixed *) 0)->f) == offsetof(struct wire_seg, pad0),
               "the copy covers the fixed part");

static int check_fixed(const union seg_fixed *s, enum wire_role peer_role, uint64_t peer_bytes,
                       struct err *e)
{
    if (s->f.magic != WIRE_MAGIC) {
        return err_set(e, E_INVALID, "segment: wrong magic");
    }

    if (s->f.major != WIRE_MAJOR) {
        return err_set(e, E_INVALID, "segment: version %u, want %u", s->f.major, WIRE_MAJOR);
    }

    if (s->f.n_slot == 0 || s->f.n_slot > WIRE_SLOT_MAX
        || s->f.window < WIRE_WINDOW_MIN || s->f.window > WIRE_WINDOW_MAX)
    {
        return err_set(e, E_INVALID, "segment: slots or window out of bounds");
    }

    if (s->f.ring_bytes < WIRE_RING_MIN || s->f.ring_bytes > WIRE_RING_MAX
        || (s->f.ring_bytes & (s->f.ring_bytes - 1)) != 0)
    {
        return err_set(e, E_INVALID, "segment: ring size out of bounds");
    }

    if (s->f.seg_bytes != peer_bytes
        || s->f.ring_off != seg_ring_off(peer_role, s->f.n_slot)
        || s->f.seg_bytes != s->f.ring_off + s->f.ring_bytes)
    {
        return err_set(e, E_INVALID, "segment: its parts do not add up to its %llu bytes",
                       (unsigned long long) peer_bytes);
    }

    return 0;
}

int wire_ring_attach(struct wire_ring *w, enum wire_role role, struct wire_seg *own,
                     const struct wire_seg *peer, uint64_t peer_bytes, uint64_t *epoch,
                     struct err *e)
{
    int              rc;
    union seg_fixed  s;

    if (peer_bytes < WIRE_ACKS_OFF) {
        return err_set(e, E_INVALID, "segment: shorter than its first page");
    }

    for (size_t i = 0; i < sizeof(s.word) / sizeof(s.word[0]); i++) {
        s.word[i] = load_relaxed((const uint64_t *) peer + i);
    }

    rc = check_fixed(&s, role == WIRE_WORKER ? WIRE_ENGINE : WIRE_WORKER, peer_bytes, e);
    if (rc != 0) {
        return rc;
    }

    if (s.f.n_slot != own->n_slot || s.f.window != own->window) {
        return err_set(e, E_INVALID, "segment: slots or window differ between the two sides");
    }

    *w = (struct wire_ring) {
        .own = own,
        .peer = peer,
        .tx = (uint8_t *) own + own->ring_off,
        .rx = (const uint8_t *) peer + s.f.ring_off,
        .tx_bytes = own->ring_bytes,
        .rx_bytes = s.f.ring_bytes,
        .n_slot = s.f.n_slot,
        .window = s.f.window,
        .rx_type_min = role == WIRE_WORKER ? WIRE_REP_HEAD : WIRE_REQ_HEAD,
        .rx_type_max = role == WIRE_WORKER ? WIRE_REP_END : WIRE_REQ_CANCEL,
        .peer_minor = s.f.minor,
        .peer_acks = role == WIRE_ENGINE,
    };

    if (epoch != NULL) {
        *epoch = s.f.epoch;
    }

    return 0;
}

/* Bytes to leave unused at the end of a ring before a record of `size`: a record never wraps. */
static uint64_t pad_bytes(uint64_t pos, uint64_t ring_bytes, uint64_t size)
{
    uint64_t left = ring_bytes - (pos & (ring_bytes - 1));

    return size > left ? left : 0;
}

int wire_ring_room(struct wire_ring *w, uint32_t len)
{
    uint64_t head, need;

    need = WIRE_REC_SIZE(len);
    need += pad_bytes(w->tx_tail, w->tx_bytes, need);

    if (need <= w->tx_bytes - (w->tx_tail - w->tx_head)) {
        return 1;
    }

    head = load_acquire(&w->peer->head);
    if (head - w->tx_head > w->tx_tail - w->tx_head) {
        return E_INVALID;
    }

    w->tx_head = head;

    return need <= w->tx_bytes - (w->tx_tail - head);
}

int wire_ring_send(struct wire_ring *w, const struct wire_rec *rec, const void *payload)
{
    int              rc;
    uint8_t         *p;
    uint64_t         size, pad;
    struct wire_rec  r;

    assert(rec->len <= WIRE_REC_BYTES_MAX && rec->slot < w->n_slot);

    rc = wire_ring_room(w, rec->len);
    if (rc != 1) {
        return rc == 0 ? E_FULL : rc;
    }

    size = WIRE_REC_SIZE(rec->len);
    pad = pad_bytes(w->tx_tail, w->tx_bytes, size);

    if (pad >= sizeof(r)) {
        r = (struct wire_rec) { .len = (uint32_t) (pad - sizeof(r)), .type = WIRE_PAD };
        memcpy(w->tx + (w->tx_tail & (w->tx_bytes - 1)), &r, sizeof(r));
    }

    w->tx_tail += pad;

    r = *rec;
    r.rsv = 0;
    p = w->tx + (w->tx_tail & (w->tx_bytes - 1));
    memcpy(p, &r, sizeof(r));

    if (r.len != 0) {
        memcpy(p + sizeof(r), payload, r.len);
    }

    w->tx_tail += size;

    return 0;
}

int wire_ring_publish(struct wire_ring *w)
{
    uint32_t armed;

    store_release(&w->own->tail, w->tx_tail);
    fence();
    armed = load_relaxed(&w->peer->armed);

    if (armed == w->last_rung) {
        return 0;
    }

    w->last_rung = armed;

    return 1;
}

/* May the peer say this, and is it as long as it must be? */
static int rec_ok(const struct wire_ring *w, const struct wire_rec *r)
{
    if (r->slot >= w->n_slot || r->rsv != 0) {
        return 0;
    }

    if (r->type & WIRE_OPTIONAL) {
        return 1;
    }

    if (r->type < w->rx_type_min || r->type > w->rx_type_max
        || (r->flags & ~WIRE_FLUSH) != 0)
    {
        return 0;
    }

    switch (r->type) {
    case WIRE_REQ_HEAD:
    case WIRE_REP_HEAD:
        return r->len <= WIRE_HEAD_BYTES_MAX;
    case WIRE_REQ_BODY:
    case WIRE_REP_DATA:
        return r->len != 0;
    case WIRE_REP_STATS:
        return r->len == sizeof(struct wire_stats);
    case WIRE_REP_END:
        return r->len == sizeof(struct wire_end);
    default:                                     /* REQ_END, REQ_CANCEL */
        return r->len == 0;
    }
}

/* 1: there is something up to rx_tail; 0: empty; E_INVALID. */
static int look(struct wire_ring *w)
{
    uint64_t tail;

    if (w->rx_head != w->rx_tail) {
        return 1;
    }

    tail = load_acquire(&w->peer->tail);
    if (tail - w->rx_head > w->rx_bytes || (tail & 7) != 0) {
        return E_INVALID;
    }

    w->rx_tail = tail;

    return tail != w->rx_head;
}

int wire_ring_recv(struct wire_ring *w, struct wire_rec *rec, uint8_t *buf)
{
    int              rc;
    uint64_t         off, left, size, word[3];
    struct wire_rec  r;

    for ( ;; ) {
        rc = look(w);
        if (rc != 1) {
            return rc;
        }

        off = w->rx_head & (w->rx_bytes - 1);
        left = w->rx_bytes - off;
        if (left > w->rx_tail - w->rx_head) {
            left = w->rx_tail - w->rx_head;

        } else if (left < sizeof(r)) {
            w->rx_head += left;                  /* too short an end for a PAD */
            continue;
        }

        if (left < sizeof(r)) {
            return E_INVALID;
        }

        for (size_t i = 0; i < 3; i++) {
            word[i] = load_relaxed((const uint64_t *) (w->rx + off) + i);
        }

        memcpy(&r, word, sizeof(r));
        size = WIRE_REC_SIZE(r.len);

        if (r.len > WIRE_REC_BYTES_MAX || size > left) {
            return E_INVALID;
        }

        if (r.type != WIRE_PAD) {
            break;
        }

        if (off + size != w->rx_bytes || (r.slot | r.gen | r.seq | r.flags | r.rsv) != 0) {
            return E_INVALID;
        }

        w->rx_head += size;
    }

    if (!rec_ok(w, &r)) {
        return E_INVALID;
    }

    memcpy(buf, w->rx + off + sizeof(r), r.len);
    w->rx_head += size;
    *rec = r;

    return 1;
}

int wire_ring_release(struct wire_ring *w)
{
    uint32_t need;

    store_release(&w->own->head, w->rx_head);
    fence();
    need = load_relaxed(&w->peer->need_space);

    if (need == w->last_space) {
        return 0;
    }

    w->last_space = need;

    return 1;
}

int wire_ring_arm(struct wire_ring *w)
{
    store_relaxed(&w->own->armed, w->own->armed + 1);
    fence();

    return look(w);
}

int wire_ring_want_space(struct wire_ring *w, uint32_t len)
{
    store_relaxed(&w->own->need_space, w->own->need_space + 1);
    fence();

    return wire_ring_room(w, len);
}

void wire_ring_ack(struct wire_ring *w, uint32_t slot, uint64_t bytes)
{
    uint64_t *acks = (uint64_t *) ((uint8_t *) w->own + WIRE_ACKS_OFF);

    assert(slot < w->n_slot && !w->peer_acks);

    store_release(&w->own->head, w->rx_head);
    store_release(&acks[slot], bytes);
}

uint64_t wire_ring_acked(const struct wire_ring *w, uint32_t slot)
{
    const uint64_t *acks = (const uint64_t *) ((const uint8_t *) w->peer + WIRE_ACKS_OFF);

    assert(slot < w->n_slot && w->peer_acks);

    return load_acquire(&acks[slot]);
}

/* HEAD payloads */

/* RFC 9110 token characters, lower case only; a leading colon marks the module's own words. */
static int name_ok(struct wire_str s, int colon)
{
    size_t i = 0;

    if (colon && s.n > 1 && s.p[0] == ':') {
        i = 1;
    }

    if (s.n == 0) {
        return 0;
    }

    for ( ; i < s.n; i++) {
        char c = s.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')
              || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL)))
        {
            return 0;
        }
    }

    return 1;
}

static int value_ok(struct wire_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char) s.p[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return 0;
        }
    }

    return 1;
}

static int uri_ok(struct wire_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char) s.p[i];

        if (c <= 0x20 || c == 0x7f) {
            return 0;
        }
    }

    return s.n != 0 && s.p[0] == '/';
}

int wire_hdr_next(struct wire_hdr_iter *it, struct wire_str *name, struct wire_str *value)
{
    uint16_t n[2];

    if (it->left == 0) {
        return it->p == it->end ? 0 : E_INVALID;
    }

    if ((size_t) (it->end - it->p) < sizeof(n)) {
        return E_INVALID;
    }

    memcpy(n, it->p, sizeof(n));

    if ((size_t) (it->end - it->p) - sizeof(n) < (size_t) n[0] + n[1]) {
        return E_INVALID;
    }

    *name = (struct wire_str) { (const char *) it->p + sizeof(n), n[0] };
    *value = (struct wire_str) { name->p + n[0], n[1] };

    if (!name_ok(*name, it->colon) || !value_ok(*value)) {
        return E_INVALID;
    }

    it->p += sizeof(n) + n[0] + n[1];
    it->left--;

    return 1;
}

/* Walk all pairs of a copy of the iterator. *has_type: there is a content-type. */
static int walk(struct wire_hdr_iter it, int *has_type)
{
    static const char  type[] = "content-type";

    int              rc;
    struct wire_str  name, value;

    *has_type = 0;

    while ((rc = wire_hdr_next(&it, &name, &value)) == 1) {
        if (name.n == sizeof(type) - 1 && memcmp(name.p, type, name.n) == 0 && value.n != 0) {
            *has_type = 1;
        }
    }

    return rc;
}

int wire_req_head_read(const uint8_t *buf, uint32_t len, struct wire_req_head *h,
                       struct wire_str *uri, struct wire_hdr_iter *it)
{
    int  has_type;

    if (len < sizeof(*h) || len > WIRE_HEAD_BYTES_MAX) {
        return E_INVALID;
    }

    memcpy(h, buf, sizeof(*h));

    if (h->uri_bytes > len - sizeof(*h) || h->n_hdr > WIRE_HDR_N_MAX
        || h->body_bytes > WIRE_BODY_BYTES_MAX
        || h->method < WIRE_METHOD_GET || h->method > WIRE_METHOD_OTHER)
    {
        return E_INVALID;
    }

    *uri = (struct wire_str) { (const char *) buf + sizeof(*h), h->uri_bytes };
    if (!uri_ok(*uri)) {
        return E_INVALID;
    }

    *it = (struct wire_hdr_iter) {
        .p = buf + sizeof(*h) + h->uri_bytes, .end = buf + len, .left = h->n_hdr, .colon = 1
    };

    return walk(*it, &has_type);
}

int wire_rep_head_read(const uint8_t *buf, uint32_t len, struct wire_rep_head *h,
                       struct wire_hdr_iter *it)
{
    int  rc, has_type;

    if (len < sizeof(*h) || len > WIRE_HEAD_BYTES_MAX) {
        return E_INVALID;
    }

    memcpy(h, buf, sizeof(*h));

    if (h->status < 200 || h->status > 599 || h->n_hdr > WIRE_HDR_N_MAX
        || (h->flags & ~(WIRE_REP_STREAM | WIRE_REP_NAMED)) != 0
        || (h->body_bytes > WIRE_BODY_BYTES_MAX && h->body_bytes != WIRE_BODY_UNKNOWN))
    {
        return E_INVALID;
    }

    *it = (struct wire_hdr_iter) {
        .p = buf + sizeof(*h), .end = buf + len, .left = h->n_hdr, .colon = 0
    };

    rc = walk(*it, &has_type);

    return rc == 0 && !has_type ? E_INVALID : rc;
}

int wire_hdr_put(uint8_t *buf, uint32_t cap, uint32_t *n, struct wire_str name,
                 struct wire_str value)
{
    uint8_t  *p;
    uint16_t  size[2];

    if (!name_ok(name, 1) || !value_ok(value)) {
        return E_INVALID;
    }

    if (name.n > UINT16_MAX || value.n > UINT16_MAX || *n > cap
        || cap - *n < sizeof(size) + name.n + value.n)
    {
        return E_FULL;
    }

    size[0] = (uint16_t) name.n;
    size[1] = (uint16_t) value.n;

    p = buf + *n;
    memcpy(p, size, sizeof(size));
    memcpy(p + sizeof(size), name.p, name.n);

    if (value.n != 0) {
        memcpy(p + sizeof(size) + name.n, value.p, value.n);
    }

    *n += (uint32_t) (sizeof(size) + name.n + value.n);

    return 0;
}
