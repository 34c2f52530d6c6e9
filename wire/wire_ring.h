/* wire_ring.h - single-producer, single-consumer record rings over two one-writer segments.
 *
 * Pure memory: no socket, no allocation, no nginx. The peer's segment is hostile: every field is
 * read once per decision into private memory and checked. Never blocks.
 *
 * Wake-ups: wire_ring_publish() nonzero means: send one WIRE_BYTE_WAKE to the peer (never needed
 * again until the peer arms anew). Sleep: wire_ring_arm() after recv said 0; nonzero means that
 * records came meanwhile, go on draining. So both sides begin with a drain and an arm. */
#ifndef WIRE_RING_H
#define WIRE_RING_H

#include <stddef.h>
#include "err.h"
#include "wire.h"

struct wire_ring {                  /* private memory of one side; all fields are ours */
    struct wire_seg       *own;     /* mapped read-write */
    const struct wire_seg *peer;    /* mapped read-only, hostile */
    uint8_t               *tx;      /* own ring bytes */
    const uint8_t         *rx;      /* peer's ring bytes */
    uint64_t tx_bytes, rx_bytes;    /* powers of two, checked at attach */
    uint64_t tx_tail;               /* produced; published into own->tail by wire_ring_publish */
    uint64_t rx_head;               /* consumed; published into own->head */
    uint64_t rx_tail;               /* last checked copy of peer->tail */
    uint64_t tx_head;               /* last checked copy of peer->head */
    uint32_t last_rung;             /* peer->armed that we already answered */
    uint32_t last_space;            /* peer->need_space that we already answered */
    uint32_t n_slot, window;
    uint16_t rx_type_min, rx_type_max;   /* what the peer may say */
    uint32_t peer_minor;            /* its WIRE_MINOR */
    uint32_t peer_acks;             /* the peer's segment has acks: we are the engine */
};

/* A segment of side `role`; mem is zeroed, page aligned and wire_seg_bytes() long. */
enum wire_role { WIRE_WORKER, WIRE_ENGINE };
uint64_t wire_seg_bytes(enum wire_role role, uint32_t n_slot, uint64_t ring_bytes);
void     wire_seg_write(struct wire_seg *mem, enum wire_role role, uint32_t n_slot,
                        uint32_t window, uint64_t ring_bytes, uint64_t epoch);

/* Start a ring as side `role` between own (written by wire_seg_write) and the peer's segment of
 * peer_bytes (what fstat said). The peer's fixed part is read once, checked, and never again.
 * epoch (may be NULL) is the peer's. */
int  wire_ring_attach(struct wire_ring *w, enum wire_role role, struct wire_seg *own,
                      const struct wire_seg *peer, uint64_t peer_bytes, uint64_t *epoch,
                      struct err *e);

/* Append one record. E_FULL: no room now (producer: call wire_ring_want_space and wait for a WAKE).
 * E_INVALID: the peer's head makes no sense, drop the link. Not visible before wire_ring_publish.
 * rec->len <= WIRE_REC_BYTES_MAX (asserted); rec->rsv is sent as 0. */
int  wire_ring_send(struct wire_ring *w, const struct wire_rec *rec, const void *payload);

/* Room for one record with len payload bytes right now? 1, 0, or E_INVALID (nonzero: the send that
 * follows says so too). */
int  wire_ring_room(struct wire_ring *w, uint32_t len);

/* Make what was sent visible. Nonzero: ring the peer's doorbell. */
int  wire_ring_publish(struct wire_ring *w);

/* Take one record: 1 and *rec, payload copied to buf (WIRE_REC_BYTES_MAX bytes); 0: empty;
 * E_INVALID: the peer's memory makes no sense, drop the link. PADs are skipped within. Checked:
 * the type belongs to the peer's side, its length, flags, and slot < n_slot. Left to the caller:
 * gen, seq, and what is inside a HEAD. A type with WIRE_OPTIONAL set that nobody knows comes up
 * too: it counts for seq and credit, the caller ignores the rest. */
int  wire_ring_recv(struct wire_ring *w, struct wire_rec *rec, uint8_t *buf);

/* After a drain: publish what was consumed. Nonzero: the peer waits for room, ring its doorbell. */
int  wire_ring_release(struct wire_ring *w);

/* About to sleep on an empty ring: nonzero: not empty any more (stays armed, harmless). */
int  wire_ring_arm(struct wire_ring *w);

/* About to wait for room for len payload bytes in our own ring: nonzero: there is room already. */
int  wire_ring_want_space(struct wire_ring *w, uint32_t len);

/* Worker: publish acks[slot]. Engine: read acks[slot] of the worker: hostile, more than was sent
 * means drop the link. Monotonic per generation; the worker sets it to 0 before it sends REQ_HEAD
 * of a new generation. An ack publishes first what was consumed: credit is never ahead of room. */
void     wire_ring_ack(struct wire_ring *w, uint32_t slot, uint64_t bytes);
uint64_t wire_ring_acked(const struct wire_ring *w, uint32_t slot);

/* HEAD payloads, both directions. A reader that never trusts: wire_*_head_read checks the fixed
 * part and walks all pairs before it says 0, so a later walk cannot fail; else E_INVALID (control
 * characters or a NUL in a value, an empty or upper-case name, trailing bytes, a reply without
 * content-type ...). Iterate: wire_hdr_next returns 1 and the pair (borrowed), 0 at the end. */
struct wire_str { const char *p; size_t n; };
struct wire_hdr_iter { const uint8_t *p, *end; uint32_t left; int colon; };
int  wire_req_head_read(const uint8_t *buf, uint32_t len, struct wire_req_head *h,
                        struct wire_str *uri, struct wire_hdr_iter *it);
int  wire_rep_head_read(const uint8_t *buf, uint32_t len, struct wire_rep_head *h,
                        struct wire_hdr_iter *it);
int  wire_hdr_next(struct wire_hdr_iter *it, struct wire_str *name, struct wire_str *value);
/* Append a pair at *n of buf[cap]; E_FULL when it does not fit; E_INVALID when the peer would
 * refuse it (nothing was written: skip it, or refuse the client). */
int  wire_hdr_put(uint8_t *buf, uint32_t cap, uint32_t *n, struct wire_str name,
                  struct wire_str value);

#endif
