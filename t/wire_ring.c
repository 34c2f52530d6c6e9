/* wire_ring.c - rings in plain memory: order, wrap-around, room, wake-ups, and a lying peer.
 *
 * The stress at the end runs both sides in threads over the same memory, so ThreadSanitizer sees
 * it too (clang; gcc's does not know fences):
 *     clang -fsanitize=thread -g -O1 -Iwire -It t/wire_ring.c wire/wire_*.c -pthread */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tap.h"
#include "wire_link.h"

#define N_SLOT  8
#define WINDOW  (8u << 10)
#define RING    (128u << 10)

struct pair {
    struct wire_seg  *wseg, *eseg;
    struct wire_ring  w, e;
    uint64_t          wbytes, ebytes;
};

static uint8_t buf[WIRE_REC_BYTES_MAX];

static struct wire_seg *seg_new(enum wire_role role, uint64_t *bytes, uint64_t epoch)
{
    struct wire_seg *s;

    *bytes = wire_seg_bytes(role, N_SLOT, RING);
    s = aligned_alloc(4096, *bytes);
    memset(s, 0, *bytes);
    wire_seg_write(s, role, N_SLOT, WINDOW, RING, epoch);

    return s;
}

static int pair_attach(struct pair *p, struct err *e)
{
    uint64_t epoch = 0;
    int      rc;

    rc = wire_ring_attach(&p->w, WIRE_WORKER, p->wseg, p->eseg, p->ebytes, &epoch, e);

    return rc != 0 ? rc : wire_ring_attach(&p->e, WIRE_ENGINE, p->eseg, p->wseg, p->wbytes,
                                           &epoch, e);
}

static void pair_open(struct pair *p)
{
    *p = (struct pair) { 0 };
    p->wseg = seg_new(WIRE_WORKER, &p->wbytes, 7);
    p->eseg = seg_new(WIRE_ENGINE, &p->ebytes, 9);

    if (pair_attach(p, NULL) != 0) {
        abort();
    }
}

static void pair_close(struct pair *p)
{
    free(p->wseg);
    free(p->eseg);
}

static struct wire_rec data_rec(uint32_t len, uint32_t slot, uint32_t seq)
{
    return (struct wire_rec) {
        .len = len, .type = WIRE_REP_DATA, .flags = WIRE_FLUSH, .slot = slot, .gen = 3, .seq = seq
    };
}

/* A byte that depends on the record and on the place in it. */
static uint8_t pattern(uint32_t seq, uint32_t i)
{
    return (uint8_t) (seq * 31 + i * 7 + (i >> 8));
}

static const uint8_t *fill(uint32_t seq, uint32_t len, uint8_t *out)
{
    for (uint32_t i = 0; i < len; i++) {
        out[i] = pattern(seq, i);
    }

    return out;
}

static int filled(uint32_t seq, uint32_t len, const uint8_t *in)
{
    for (uint32_t i = 0; i < len; i++) {
        if (in[i] != pattern(seq, i)) {
            return 0;
        }
    }

    return 1;
}

static uint32_t next_rand(uint64_t *s)
{
    *s = *s * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t) (*s >> 33);
}

static void test_order(void)
{
    struct pair      p;
    struct wire_rec  r, got;
    static uint8_t   out[WIRE_REC_BYTES_MAX];

    pair_open(&p);

    is_int(wire_ring_recv(&p.w, &got, buf), 0, "a new ring is empty");

    r = data_rec(5, 2, 0);
    is_int(wire_ring_send(&p.e, &r, fill(0, 5, out)), 0, "send");
    is_int(wire_ring_recv(&p.w, &got, buf), 0, "not visible before publish");
    is_int(wire_ring_publish(&p.e), 0, "nobody armed: no bell");
    is_int(wire_ring_recv(&p.w, &got, buf), 1, "visible now");
    ok(memcmp(&r, &got, sizeof(r)) == 0 && filled(0, 5, buf), "the same record came out");
    is_int(wire_ring_recv(&p.w, &got, buf), 0, "and no other");

    is_int(wire_ring_arm(&p.w), 0, "arm on an empty ring");
    r = data_rec(WIRE_REC_BYTES_MAX, 2, 1);
    wire_ring_send(&p.e, &r, fill(1, r.len, out));
    is_int(wire_ring_publish(&p.e), 1, "armed: ring the bell");
    is_int(wire_ring_publish(&p.e), 0, "once only");
    is_int(wire_ring_arm(&p.w), 1, "arm says that something came");
    is_int(wire_ring_recv(&p.w, &got, buf), 1, "the largest record");
    ok(filled(1, WIRE_REC_BYTES_MAX, buf), "is whole");

    pair_close(&p);
}

/* Random sizes through the ring many times over. */
static void test_wrap(void)
{
    struct pair      p;
    struct wire_rec  r, got;
    uint64_t         seed = 42, total = 0;
    uint32_t         sent = 0, seen = 0, bad = 0, short_end = 0;
    static uint8_t   out[WIRE_REC_BYTES_MAX];

    pair_open(&p);

    while (seen < 60000) {
        uint32_t kind = next_rand(&seed) & 7;
        uint32_t len = 1 + next_rand(&seed) % (kind == 0 ? WIRE_REC_BYTES_MAX : 300);

        r = data_rec(len, sent % N_SLOT, sent);
        if (wire_ring_send(&p.e, &r, fill(sent, len, out)) == 0) {
            uint64_t left = RING - (p.e.tx_tail & (RING - 1));

            short_end += left < sizeof(struct wire_rec);
            sent++;
            total += WIRE_REC_SIZE(len);
            wire_ring_publish(&p.e);

            if (kind > 2) {
                continue;
            }
        }

        while (wire_ring_recv(&p.w, &got, buf) == 1) {
            bad += got.seq != seen || !filled(seen, got.len, buf);
            seen++;
        }

        wire_ring_release(&p.w);
    }

    is_int(bad, 0, "%u records in order and whole", seen);
    ok(total / RING > 100, "the ring went round %d times", (int) (total / RING));
    ok(short_end > 0, "ends too short for a PAD were met %u times", short_end);

    pair_close(&p);
}

static void test_full(void)
{
    int              rc;
    struct pair      p;
    struct wire_rec  r = data_rec(1000, 0, 0), got;
    uint32_t         n = 0;

    pair_open(&p);
    memset(buf, 'x', sizeof(buf));

    while ((rc = wire_ring_send(&p.e, &r, buf)) == 0) {
        n++;
    }

    is_int(rc, E_FULL, "full");
    is_int(n, RING / 1024, "after exactly its size in records");
    is_int(wire_ring_room(&p.e, 0), 0, "no room for the smallest either");
    is_int(wire_ring_want_space(&p.e, 1000), 0, "ask for room");
    wire_ring_publish(&p.e);
    is_int(wire_ring_recv(&p.w, &got, buf), 1, "take one");
    is_int(wire_ring_release(&p.w), 1, "the producer waits: ring");
    is_int(wire_ring_release(&p.w), 0, "once only");
    is_int(wire_ring_want_space(&p.e, 1000), 1, "there is room");
    is_int(wire_ring_send(&p.e, &r, buf), 0, "for one");
    is_int(wire_ring_send(&p.e, &r, buf), E_FULL, "only");

    /* the smallest ring takes the largest record from any position */
    for (uint32_t pos = 0; pos < RING; pos += 8) {
        p.e.tx_tail = p.e.tx_head = RING + pos;
        p.wseg->head = p.e.tx_head;
        if (wire_ring_room(&p.e, WIRE_REC_BYTES_MAX) != 1) {
            ok(0, "no room in an empty ring at %u", pos);
            break;
        }
    }

    pair_close(&p);
}

/* An engine that keeps to its credits never finds the ring full, whatever the worker leaves
 * unread: the proof of wire_sizes_check, tried. */
static void test_credit(void)
{
    struct pair        p;
    struct err         e;
    struct wire_rec    r, got;
    uint64_t           seed = 5, sent[N_SLOT] = { 0 }, read[N_SLOT] = { 0 };
    uint32_t           full = 0, starved = 0, n = 0;
    uint32_t           window = 3 * WIRE_WINDOW_MIN;      /* 8 x 12 KB + a PAD <= 128 KB */
    struct wire_sizes  s = { N_SLOT, WINDOW, RING, RING };

    is_int(wire_sizes_check(&s, &e), 0, "8 windows of 8 KB in 128 KB");
    s.window = RING / N_SLOT;
    is_int(wire_sizes_check(&s, &e), E_INVALID, "windows that fill the ring leave no room to pad");
    s.window = WIRE_WINDOW_MIN;
    s.n_slot = RING / WIRE_WINDOW_MIN - 1;
    is_int(wire_sizes_check(&s, &e), 0, "windows and one PAD fill the ring exactly");
    s.n_slot++;
    is_int(wire_sizes_check(&s, &e), E_INVALID, "one slot more does not fit");

    pair_open(&p);

    while (n < 200000) {
        uint32_t slot = next_rand(&seed) % N_SLOT;
        uint32_t len = 1 + next_rand(&seed) % (next_rand(&seed) % 4 ? 400 : window - 24 - 8);

        if (sent[slot] - wire_ring_acked(&p.e, slot) + WIRE_REC_SIZE(len) <= window) {
            r = data_rec(len, slot, 0);
            full += wire_ring_send(&p.e, &r, buf) != 0;
            sent[slot] += WIRE_REC_SIZE(len);
            n++;
            continue;
        }

        starved++;
        wire_ring_publish(&p.e);

        for (uint32_t k = next_rand(&seed) % 40; k > 0; k--) {
            if (wire_ring_recv(&p.w, &got, buf) != 1) {
                break;
            }

            read[got.slot] += WIRE_REC_SIZE(got.len);
            if (next_rand(&seed) % 8) {
                wire_ring_ack(&p.w, got.slot, read[got.slot]);
            }
        }

        if (wire_ring_recv(&p.w, &got, buf) == 0) {      /* all read, some acks held back */
            for (uint32_t i = 0; i < N_SLOT; i++) {
                wire_ring_ack(&p.w, i, read[i]);
            }
        } else {
            read[got.slot] += WIRE_REC_SIZE(got.len);
            wire_ring_ack(&p.w, got.slot, read[got.slot]);
        }
    }

    is_int(full, 0, "never full within credits (%u records, %u times out of credit)", n, starved);
    pair_close(&p);
}

/* Attach to a peer segment with one field wrong. */
static void test_attach(void)
{
    struct pair p;
    struct err  e = { 0 };

    pair_open(&p);
    is_int(pair_attach(&p, &e), 0, "attach");

#define WRONG(field, value, what) do {                                                     \
        __typeof__(p.eseg->field) saved = p.eseg->field;                                   \
        p.eseg->field = (value);                                                           \
        is_int(pair_attach(&p, &e), E_INVALID, "%s: %s", what, e.msg);                     \
        p.eseg->field = saved;                                                             \
    } while (0)

    WRONG(magic, 1, "magic");
    WRONG(major, WIRE_MAJOR + 1, "newer");
    WRONG(major, WIRE_MAJOR - 1, "older");
    WRONG(seg_bytes, p.ebytes + 4096, "longer than it is");
    WRONG(seg_bytes, p.ebytes - 4096, "shorter than it is");
    WRONG(ring_off, 0, "ring over the header");
    WRONG(ring_off, 4096 + 8, "ring beyond the end");
    WRONG(ring_off, UINT64_MAX - RING + 1 + 4096, "an offset that wraps");
    WRONG(ring_bytes, RING - 8, "not a power of two");
    WRONG(ring_bytes, 2 * RING, "twice the ring");
    WRONG(ring_bytes, 0, "no ring");
    WRONG(ring_bytes, 1ull << 63, "a huge ring");
    WRONG(n_slot, 0, "no slots");
    WRONG(n_slot, N_SLOT + 1, "other slots");
    WRONG(n_slot, WIRE_SLOT_MAX + 1, "too many slots");
    WRONG(window, WINDOW * 2, "other window");
    WRONG(window, 0, "no window");

    p.ebytes = 100;
    is_int(pair_attach(&p, &e), E_INVALID, "less than a page: %s", e.msg);
    p.ebytes = wire_seg_bytes(WIRE_ENGINE, N_SLOT, RING);
    is_int(pair_attach(&p, &e), 0, "attach, all put back");

    is_int(wire_ring_attach(&p.e, WIRE_ENGINE, p.eseg, p.eseg, p.ebytes, NULL, &e), E_INVALID,
           "an engine's segment is no worker's: %s", e.msg);

    pair_close(&p);
}

/* One record from the engine, spoilt by `spoil`, must be refused by the worker. */
static void refuse(const char *what, struct wire_rec good, struct wire_rec spoilt)
{
    struct pair      p;
    struct wire_rec  got;

    pair_open(&p);
    wire_ring_send(&p.e, &good, buf);
    memcpy(p.e.tx, &spoilt, sizeof(spoilt));
    wire_ring_publish(&p.e);
    is_int(wire_ring_recv(&p.w, &got, buf), E_INVALID, "refused: %s", what);
    is_int(wire_ring_recv(&p.w, &got, buf), E_INVALID, "still refused: %s", what);
    pair_close(&p);
}

static void test_hostile_records(void)
{
    struct wire_rec good = data_rec(64, 1, 0), r;

#define SPOIL(what, ...) do { r = good; __VA_ARGS__; refuse(what, good, r); } while (0)

    SPOIL("length beyond the tail", r.len = 72);
    SPOIL("length over the cap", r.len = WIRE_REC_BYTES_MAX + 1);
    SPOIL("length near 2^32", r.len = UINT32_MAX);
    SPOIL("length 0 of a DATA", r.len = 0);
    SPOIL("slot", r.slot = N_SLOT);
    SPOIL("slot near 2^32", r.slot = UINT32_MAX);
    SPOIL("type 0", r.type = 0);
    SPOIL("unknown type", r.type = 21);
    SPOIL("the other side's type", r.type = WIRE_REQ_BODY);
    SPOIL("flags", r.flags = 2);
    SPOIL("reserved", r.rsv = 1);
    SPOIL("STATS of another size", r.type = WIRE_REP_STATS);
    SPOIL("END of another size", r.type = WIRE_REP_END);
    SPOIL("a PAD in the middle", r = (struct wire_rec) { .len = 64, .type = WIRE_PAD });
}

static void test_hostile_indices(void)
{
    static const uint64_t tails[] = {
        RING + 8, 7, 1, UINT64_MAX, 1ull << 63, (uint64_t) RING * 2, 0 - 8ull
    };
    struct pair      p;
    struct wire_rec  r = data_rec(64, 1, 0), got;

    for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
        pair_open(&p);
        p.eseg->tail = tails[i];
        is_int(wire_ring_recv(&p.w, &got, buf), E_INVALID, "tail %llx",
               (unsigned long long) tails[i]);
        is_int(wire_ring_arm(&p.w), E_INVALID, "no sleep on it");
        pair_close(&p);
    }

    pair_open(&p);                      /* whole in the ring, but too long for the caller */
    memcpy(p.e.tx, &(struct wire_rec) { .len = WIRE_REC_BYTES_MAX + 1, .type = WIRE_REP_DATA },
           sizeof(r));
    p.eseg->tail = RING / 2;
    is_int(wire_ring_recv(&p.w, &got, buf), E_INVALID, "larger than the buffer");
    pair_close(&p);

    pair_open(&p);
    p.eseg->tail = 16;
    is_int(wire_ring_recv(&p.w, &got, buf), E_INVALID, "a tail inside a record header");
    pair_close(&p);

    pair_open(&p);
    wire_ring_send(&p.e, &r, buf);
    wire_ring_publish(&p.e);
    wire_ring_recv(&p.w, &got, buf);
    p.eseg->tail = 8;
    is_int(wire_ring_recv(&p.w, &got, buf), E_INVALID, "a tail that moves back");
    pair_close(&p);

    pair_open(&p);
    while (wire_ring_send(&p.e, &r, buf) == 0) { }
    p.wseg->head = p.e.tx_tail + 8;
    is_int(wire_ring_send(&p.e, &r, buf), E_INVALID, "a head beyond the tail");
    ok(wire_ring_room(&p.e, 8) != 0 && wire_ring_want_space(&p.e, 8) != 0, "nobody waits for it");
    p.wseg->head = 128;
    is_int(wire_ring_send(&p.e, &r, buf), 0, "room");
    p.wseg->head = 64;
    while (wire_ring_send(&p.e, &r, buf) == 0) { }
    is_int(wire_ring_send(&p.e, &r, buf), E_INVALID, "a head that moves back");
    pair_close(&p);

    pair_open(&p);
    r.type = WIRE_OPTIONAL | 99;
    wire_ring_send(&p.e, &r, buf);
    wire_ring_publish(&p.e);
    ok(wire_ring_recv(&p.w, &got, buf) == 1 && got.type == (WIRE_OPTIONAL | 99),
       "an optional type from the future comes up");
    pair_close(&p);
}

static struct wire_str str(const char *s)
{
    return (struct wire_str) { s, strlen(s) };
}

static void test_heads(void)
{
    uint8_t               b[WIRE_HEAD_BYTES_MAX];
    uint32_t              n;
    struct wire_str       uri, name, value;
    struct wire_req_head  q = { .body_bytes = 12, .uri_bytes = 4, .method = WIRE_METHOD_POST,
                                .n_hdr = 2 }, qq;
    struct wire_rep_head  a = { .body_bytes = WIRE_BODY_UNKNOWN, .status = 200, .n_hdr = 1 }, aa;
    struct wire_hdr_iter  it;

    memcpy(b, &q, n = sizeof(q));
    memcpy(b + n, "/v1?", 4);
    n += 4;
    is_int(wire_hdr_put(b, sizeof(b), &n, str(":peer"), str("127.0.0.1")), 0, "put :peer");
    is_int(wire_hdr_put(b, sizeof(b), &n, str("accept"), str("")), 0, "put an empty value");
    is_int(wire_req_head_read(b, n, &qq, &uri, &it), 0, "read");
    ok(uri.n == 4 && memcmp(uri.p, "/v1?", 4) == 0 && memcmp(&q, &qq, sizeof(q)) == 0, "as put");
    ok(wire_hdr_next(&it, &name, &value) == 1 && name.n == 5 && value.n == 9, "first pair");
    ok(wire_hdr_next(&it, &name, &value) == 1 && name.n == 6 && value.n == 0, "second pair");
    is_int(wire_hdr_next(&it, &name, &value), 0, "end");

    for (uint32_t cut = 0; cut < n; cut++) {
        uint8_t *exact = malloc(cut + 1);              /* the sanitizer guards its end */

        memcpy(exact, b, cut);
        if (wire_req_head_read(exact, cut, &qq, &uri, &it) != E_INVALID) {
            ok(0, "cut at %u was accepted", cut);
        }
        free(exact);
    }

    b[n] = 0;
    is_int(wire_req_head_read(b, n + 1, &qq, &uri, &it), E_INVALID, "trailing byte");

    is_int(wire_hdr_put(b, n + 4 + 2, &n, str("a"), str("bc")), E_FULL, "put past the end");
    is_int(wire_hdr_put(b, sizeof(b), &n, str("A"), str("b")), E_INVALID, "upper case");
    is_int(wire_hdr_put(b, sizeof(b), &n, str(""), str("b")), E_INVALID, "no name");
    is_int(wire_hdr_put(b, sizeof(b), &n, str("a b"), str("b")), E_INVALID, "space in a name");
    is_int(wire_hdr_put(b, sizeof(b), &n, str("a"), str("b\r\nc: d")), E_INVALID, "injection");
    is_int(wire_hdr_put(b, sizeof(b), &n, str("a"), (struct wire_str) { "\0", 1 }), E_INVALID,
           "NUL in a value");

    memcpy(b, &a, n = sizeof(a));
    wire_hdr_put(b, sizeof(b), &n, str("content-type"), str("text/event-stream"));
    is_int(wire_rep_head_read(b, n, &aa, &it), 0, "reply head");
    b[sizeof(a) + 4] = 'k';
    is_int(wire_rep_head_read(b, n, &aa, &it), E_INVALID, "reply without content-type");
    b[sizeof(a) + 4] = 'c';

    a.status = 199;
    memcpy(b, &a, sizeof(a));
    is_int(wire_rep_head_read(b, n, &aa, &it), E_INVALID, "status 199");
    a.status = 200;
    a.body_bytes = WIRE_BODY_BYTES_MAX + 1;
    memcpy(b, &a, sizeof(a));
    is_int(wire_rep_head_read(b, n, &aa, &it), E_INVALID, "a body over the cap");
    a.body_bytes = 1;
    a.n_hdr = 2;
    memcpy(b, &a, sizeof(a));
    is_int(wire_rep_head_read(b, n, &aa, &it), E_INVALID, "more pairs than there are");

    memcpy(b, &a, n = sizeof(a));
    wire_hdr_put(b, sizeof(b), &n, str("content-type"), str("text/plain"));
    wire_hdr_put(b, sizeof(b), &n, str(":key"), str("x"));
    is_int(wire_rep_head_read(b, n, &aa, &it), E_INVALID, "no colon names in a reply");
}

static void reply_flags(void)
{
    struct wire_rep_head a = { .body_bytes = WIRE_BODY_UNKNOWN, .status = 200, .n_hdr = 1 }, aa;
    struct wire_hdr_iter it;
    uint8_t              b[128];
    uint32_t             n = sizeof(a);

    wire_hdr_put(b, sizeof(b), &n, str("content-type"), str("text/event-stream"));
    a.flags = WIRE_REP_STREAM | WIRE_REP_NAMED;
    memcpy(b, &a, sizeof(a));
    is_int(wire_rep_head_read(b, n, &aa, &it), 0, "a stream of named events");
    a.flags = WIRE_REP_NAMED << 1;
    memcpy(b, &a, sizeof(a));
    is_int(wire_rep_head_read(b, n, &aa, &it), E_INVALID, "a flag that means nothing");
}

/* Two threads and two bells. A poll that times out while there is something to do is a lost
 * wake-up: the only thing that these rings must never do. */
#define STRESS_N  200000
#define LOST_MS   60000

struct side { struct wire_ring *r; int sock; uint32_t lost, bad, slept, seen; };

static void nap(struct side *s)
{
    struct pollfd pfd = { .fd = s->sock, .events = POLLIN };

    s->slept++;
    s->lost += poll(&pfd, 1, LOST_MS) == 0;
    s->bad += wire_bell_drain(s->sock, NULL) != 0;
}

static void *produce(void *arg)
{
    struct side     *s = arg;
    uint64_t         seed = 11;
    static uint8_t   out[WIRE_REC_BYTES_MAX];

    for (uint32_t i = 0; i < STRESS_N && s->lost == 0; i++) {
        uint32_t         len = 1 + next_rand(&seed) % (i % 64 == 0 ? 30000 : 200);
        struct wire_rec  rec = data_rec(len, i % N_SLOT, i);

        fill(i, len, out);

        while (wire_ring_send(s->r, &rec, out) == E_FULL) {
            if (wire_ring_publish(s->r)) {
                wire_bell(s->sock, WIRE_BYTE_WAKE);
            }
            if (!wire_ring_want_space(s->r, len)) {
                nap(s);
            }
        }

        if (i % 3 == 0 && wire_ring_publish(s->r)) {
            wire_bell(s->sock, WIRE_BYTE_WAKE);
        }
    }

    if (wire_ring_publish(s->r)) {
        wire_bell(s->sock, WIRE_BYTE_WAKE);
    }

    return NULL;
}

static void *consume(void *arg)
{
    struct side     *s = arg;
    struct wire_rec  got;
    static uint8_t   in[WIRE_REC_BYTES_MAX];

    while (s->seen < STRESS_N && s->lost == 0 && s->bad == 0) {
        int rc;

        while ((rc = wire_ring_recv(s->r, &got, in)) == 1) {
            s->bad += got.seq != s->seen || !filled(got.seq, got.len, in);
            s->seen++;
        }

        s->bad += rc < 0;

        if (wire_ring_release(s->r)) {
            wire_bell(s->sock, WIRE_BYTE_WAKE);
        }

        if (s->seen < STRESS_N && !wire_ring_arm(s->r)) {
            nap(s);
        }
    }

    return NULL;
}

#define PING_N  30000

/* Answer each record with one: every step is a sleep and a bell on both sides. */
static void *pong(void *arg)
{
    struct side     *s = arg;
    struct wire_rec  got, rec = { .type = WIRE_REQ_CANCEL };
    uint8_t         *in = malloc(WIRE_REC_BYTES_MAX);

    while (s->seen < PING_N && s->lost == 0) {
        if (wire_ring_recv(s->r, &got, in) != 1) {
            if (!wire_ring_arm(s->r)) {
                nap(s);
            }
            continue;
        }

        s->seen++;
        rec.type = s->r->peer_acks ? WIRE_REP_DATA : WIRE_REQ_BODY;
        rec.len = 8;
        wire_ring_release(s->r);
        s->bad += wire_ring_send(s->r, &rec, "12345678") != 0;
        if (wire_ring_publish(s->r)) {
            wire_bell(s->sock, WIRE_BYTE_WAKE);
        }
    }

    free(in);

    return NULL;
}

static void run_two(void *(*a)(void *), void *(*b)(void *), const char *what, int serve)
{
    int              fd[2];
    pthread_t        ta, tb;
    struct pair      p;
    struct wire_rec  rec = { .type = WIRE_REP_DATA, .len = 8 };
    struct side      x = { 0 }, y = { 0 };

    pair_open(&p);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) != 0) {
        abort();
    }

    x = (struct side) { .r = &p.e, .sock = fd[0] };
    y = (struct side) { .r = &p.w, .sock = fd[1] };

    if (serve) {
        wire_ring_send(&p.e, &rec, "12345678");
        wire_ring_publish(&p.e);
    }

    pthread_create(&ta, NULL, a, &x);
    pthread_create(&tb, NULL, b, &y);
    pthread_join(ta, NULL);
    pthread_join(tb, NULL);

    is_int(x.lost + y.lost, 0, "%s: no lost wake-up (%u + %u sleeps)", what, x.slept, y.slept);
    is_int(x.bad + y.bad, 0, "%s: nothing wrong came out", what);
    ok(x.slept + y.slept > 10, "%s: there were sleeps to lose", what);
    is_int(y.seen, serve ? PING_N : STRESS_N, "%s: all came", what);

    close(fd[0]);
    close(fd[1]);
    pair_close(&p);
}

/* The two halves of a wake-up at the same instant, many times: the producer must see the arming or
 * the consumer the record (both is fine, neither is a hang). Fails without the fences. Two threads
 * on one busy processor hardly ever meet: after DEKKER_S seconds they have tried enough. */
#define DEKKER_N  300000
#define DEKKER_S  10

struct dekker { struct pair *p; uint32_t gate[2], n; int over; uint8_t *rang, *saw; };

static void meet(struct dekker *d, int me, uint32_t round)
{
    __atomic_store_n(&d->gate[me], round, __ATOMIC_RELEASE);

    for (uint32_t spins = 0; __atomic_load_n(&d->gate[!me], __ATOMIC_ACQUIRE) < round; spins++) {
        if (spins > 2000) {
            sched_yield();
        }
    }
}

static void *dekker_producer(void *arg)
{
    struct dekker   *d = arg;
    struct wire_rec  rec = data_rec(8, 0, 0);
    time_t           end = time(NULL) + DEKKER_S;

    for (uint32_t i = 0; ; i++) {
        d->n = i;
        d->over = i == DEKKER_N || time(NULL) > end;
        meet(d, 0, 2 * i + 1);
        if (d->over) {
            break;
        }
        wire_ring_send(&d->p->e, &rec, "12345678");
        d->rang[i] = wire_ring_publish(&d->p->e) != 0;
        meet(d, 0, 2 * i + 2);
    }

    return NULL;
}

static void *dekker_consumer(void *arg)
{
    struct dekker   *d = arg;
    struct wire_rec  got;
    uint8_t          in[WIRE_REC_BYTES_MAX];

    for (uint32_t i = 0; ; i++) {
        meet(d, 1, 2 * i + 1);
        if (d->over) {
            break;
        }
        d->saw[i] = wire_ring_arm(&d->p->w) != 0;
        meet(d, 1, 2 * i + 2);

        while (wire_ring_recv(&d->p->w, &got, in) == 1) { }
        wire_ring_release(&d->p->w);
    }

    return NULL;
}

static void test_dekker(void)
{
    uint32_t       neither = 0, both = 0;
    pthread_t      ta, tb;
    struct pair    p;
    struct dekker  d = { .p = &p, .rang = calloc(1, DEKKER_N), .saw = calloc(1, DEKKER_N) };

    pair_open(&p);
    pthread_create(&ta, NULL, dekker_producer, &d);
    pthread_create(&tb, NULL, dekker_consumer, &d);
    pthread_join(ta, NULL);
    pthread_join(tb, NULL);

    for (uint32_t i = 0; i < d.n; i++) {
        neither += !d.rang[i] && !d.saw[i];
        both += d.rang[i] && d.saw[i];
    }

    is_int(neither, 0, "%u meetings, none asleep on both sides (%u woke twice)", d.n, both);
    ok(d.n > 0, "they met");

    free(d.rang);
    free(d.saw);
    pair_close(&p);
}

int main(void)
{
    test_order();
    test_wrap();
    test_full();
    test_credit();
    test_attach();
    test_hostile_records();
    test_hostile_indices();
    test_heads();
    reply_flags();
    test_dekker();
    run_two(produce, consume, "stream", 0);
    run_two(pong, pong, "ping-pong", 1);

    return done_testing();
}
