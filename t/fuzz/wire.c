/* wire.c - the wire decoders on hostile bytes.
 *
 * First byte: what to decode. 0, 1: a HEAD. Else the input is the peer's memory: a script of
 * patches to its segment with receives and sends in between, so words change between any two
 * reads of ours. What comes out must keep the promises of wire_ring.h. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire_ring.h"

#define N_SLOT  4
#define RING    WIRE_RING_MIN

#define CHECK(cond) do { if (!(cond)) abort(); } while (0)

static uint8_t buf[WIRE_REC_BYTES_MAX];

static void heads(const uint8_t *p, size_t n, int reply)
{
    int                   rc;
    uint32_t              n_pair = 0, out_n = 0;
    uint8_t              *exact = malloc(n + 1), out[WIRE_HEAD_BYTES_MAX];
    struct wire_str       uri, name, value;
    struct wire_req_head  q;
    struct wire_rep_head  a;
    struct wire_hdr_iter  it;

    memcpy(exact, p, n);
    rc = reply ? wire_rep_head_read(exact, (uint32_t) n, &a, &it)
               : wire_req_head_read(exact, (uint32_t) n, &q, &uri, &it);

    if (rc == 0) {
        while ((rc = wire_hdr_next(&it, &name, &value)) == 1) {
            CHECK((const uint8_t *) value.p + value.n <= exact + n);
            CHECK(wire_hdr_put(out, sizeof(out), &out_n, name, value) == 0);
            n_pair++;
        }

        CHECK(rc == 0 && n_pair <= WIRE_HDR_N_MAX);
        CHECK(memcmp(out, exact + n - out_n, out_n) == 0);      /* put is the inverse of next */
    }

    free(exact);
}

/* One step of the script: 8 bytes { op, slot, len:2, value:4 }. */
static int step(struct wire_ring *w, uint8_t *peer, uint64_t peer_bytes, const uint8_t *p)
{
    int              rc;
    uint16_t         len;
    uint32_t         value;
    uint64_t         where[] = { offsetof(struct wire_seg, tail), offsetof(struct wire_seg, head),
                                 offsetof(struct wire_seg, armed),
                                 offsetof(struct wire_seg, need_space) };
    struct wire_rec  r = { 0 };

    memcpy(&len, p + 2, 2);
    memcpy(&value, p + 4, 4);

    switch (p[0] % 6) {
    case 0:                                     /* a word of the ring, counted from its end too */
        memcpy(peer + peer_bytes - RING + (len * 4 + (p[1] & 1) * (RING - 4096)) % RING, &value, 4);
        return 0;
    case 1:
        memcpy(peer + where[p[1] % 4], &value, 4);
        return 0;
    case 2:
        memcpy(peer + len % WIRE_ACKS_OFF, &value, 4);
        return 0;
    case 3:
        r = (struct wire_rec) {
            .len = len % (WIRE_REC_BYTES_MAX + 1), .type = w->peer_acks ? WIRE_REP_DATA
            : WIRE_REQ_BODY, .slot = p[1] % N_SLOT
        };
        rc = wire_ring_send(w, &r, buf);
        (void) wire_ring_publish(w);
        (void) wire_ring_want_space(w, r.len);
        return rc == E_INVALID;
    case 4:
        rc = wire_ring_recv(w, &r, buf);
        if (rc == 1) {
            CHECK(r.slot < N_SLOT && r.len <= WIRE_REC_BYTES_MAX && r.type != WIRE_PAD);
            CHECK((r.type & WIRE_OPTIONAL)
                  || (r.type >= w->rx_type_min && r.type <= w->rx_type_max));
        }
        CHECK(w->rx_tail - w->rx_head <= w->rx_bytes);
        return rc < 0;
    default:
        (void) wire_ring_release(w);
        return wire_ring_arm(w) < 0;
    }
}

static void ring(const uint8_t *p, size_t n, enum wire_role role)
{
    static uint8_t  *mem[2];
    enum wire_role   other = role == WIRE_WORKER ? WIRE_ENGINE : WIRE_WORKER;
    uint64_t         own_bytes = wire_seg_bytes(role, N_SLOT, RING);
    uint64_t         peer_bytes = wire_seg_bytes(other, N_SLOT, RING);
    struct wire_ring w;

    mem[0] = aligned_alloc(4096, own_bytes);
    mem[1] = aligned_alloc(4096, peer_bytes);
    memset(mem[0], 0, own_bytes);
    memset(mem[1], 0, peer_bytes);

    wire_seg_write((struct wire_seg *) mem[0], role, N_SLOT, WIRE_WINDOW_MIN, RING, 1);
    wire_seg_write((struct wire_seg *) mem[1], other, N_SLOT, WIRE_WINDOW_MIN, RING, 2);

    if (n > 0 && p[0] & 1) {                    /* also attach to a patched header */
        memcpy(mem[1], p, n < 56 ? n : 56);
    }

    if (wire_ring_attach(&w, role, (struct wire_seg *) mem[0], (struct wire_seg *) mem[1],
                         peer_bytes, NULL, NULL) == 0)
    {
        for ( ; n >= 8; p += 8, n -= 8) {
            if (step(&w, mem[1], peer_bytes, p)) {
                break;
            }
        }
    }

    free(mem[0]);
    free(mem[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    if (n == 0) {
        return 0;
    }

    switch (p[0] & 3) {
    case 0:
    case 1:
        heads(p + 1, n - 1, p[0] & 1);
        break;
    default:
        ring(p + 1, n - 1, p[0] & 1 ? WIRE_WORKER : WIRE_ENGINE);
    }

    return 0;
}
