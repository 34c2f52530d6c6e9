/* wire.h - what nginx workers and the engine agree on, byte for byte.
 *
 * Fixed-width integers, native byte order (both ends are one machine), no pointers, no enums, no
 * bit-fields in shared structs. Any change of a layout bumps WIRE_MAJOR; both sides refuse another.
 *
 * A link is one control socket (unix stream) and two sealed memfds, "segments": the worker creates
 * and writes w2e, the engine creates and writes e2w; each side can map the other's read-only only.
 *
 *   segment:  struct wire_seg (page 0) | uint64 acks[n_slot] | ring (page aligned, power of two)
 *
 * Worker -> engine: REQ_HEAD, REQ_BODY*, REQ_END, or REQ_CANCEL at any point after REQ_HEAD.
 * Engine -> worker: REP_HEAD, REP_DATA*, REP_STATS?, REP_END. REP_END frees the slot. REP_ALIVE may
 * stand anywhere before REP_END. */
#ifndef WIRE_WIRE_H
#define WIRE_WIRE_H

#include <stdint.h>

#define WIRE_MAGIC           0x31524645464e49ull    /* "INFERF1" */
#define WIRE_MAJOR           3                      /* exact match */
#define WIRE_MINOR           0                      /* the smaller of both counts */

#define WIRE_LINE            64                     /* one cache line */
#define WIRE_SLOT_MAX        16384
#define WIRE_RING_MIN        (128u << 10)           /* an empty ring takes any record + its PAD */
#define WIRE_RING_MAX        (64u << 20)            /* the engine pays for each worker's */
#define WIRE_WINDOW_MIN      (4u << 10)             /* credit of one stream, bytes */
#define WIRE_WINDOW_MAX      (1u << 20)
#define WIRE_REC_BYTES_MAX   (32u << 10)            /* payload of one record */
#define WIRE_HEAD_BYTES_MAX  (16u << 10)            /* payload of REQ_HEAD / REP_HEAD */
#define WIRE_HDR_N_MAX       32                     /* header pairs in a HEAD */
#define WIRE_BODY_BYTES_MAX  (1ull << 30)
#define WIRE_RESERVE         2048                   /* of a window, kept for STATS and END */
#define WIRE_HEARTBEAT_MS    100                    /* the engine bumps wire_seg.heartbeat */

/* record types; bit 15: the receiver may skip it if it does not know it */
#define WIRE_REQ_HEAD        1      /* struct wire_req_head, strings */
#define WIRE_REQ_BODY        2      /* bytes of the body, in order */
#define WIRE_REQ_END         3      /* no payload; the body is complete */
#define WIRE_REQ_CANCEL      4      /* no payload; the engine answers REP_END(CANCELLED) */
#define WIRE_REP_HEAD        17     /* struct wire_rep_head, strings */
#define WIRE_REP_DATA        18     /* bytes for the client; flag WIRE_FLUSH: push them out now */
#define WIRE_REP_STATS       19     /* struct wire_stats */
#define WIRE_REP_END         20     /* struct wire_end; the slot is free afterwards */
#define WIRE_PAD             31     /* fills the end of the ring, all else is 0; where less than a
                                     * struct wire_rec is left, the end is skipped without one */
#define WIRE_OPTIONAL        0x8000
#define WIRE_REP_ALIVE       (21 | WIRE_OPTIONAL)   /* no payload; being worked on, or in turn */

#define WIRE_FLUSH           1      /* wire_rec.flags */

struct wire_rec {                 /* aligned to 8; the payload follows, padded to 8 */
    uint32_t len;                 /* payload bytes */
    uint16_t type, flags;
    uint32_t slot, gen;           /* slot < n_slot of the link; gen from the worker, echoed */
    uint32_t seq;                 /* per stream and direction, 0, 1, 2 ... */
    uint32_t rsv;
};

#define WIRE_REC_SIZE(len)  (sizeof(struct wire_rec) + (((uint64_t) (len) + 7) & ~7ull))

struct wire_req_head {
    uint64_t body_bytes;          /* sum of the REQ_BODY payloads to come */
    uint32_t uri_bytes;           /* request URI with arguments, no NUL */
    uint16_t method;              /* WIRE_METHOD_* */
    uint16_t n_hdr;
    /* uri, then n_hdr times { uint16 name_bytes, uint16 value_bytes, name (lower case), value }.
     * Two names are the module's own word and never copied from the client: ":peer" the client
     * address, ":key" the authenticated key (infer_set_key). */
};

#define WIRE_METHOD_GET      1
#define WIRE_METHOD_POST     2
#define WIRE_METHOD_OTHER    3    /* PUT, DELETE ...: the engine says what it has instead */

struct wire_rep_head {
    uint64_t body_bytes;          /* Content-Length, or WIRE_BODY_UNKNOWN for a stream */
    uint16_t status;              /* 200 .. 599 */
    uint16_t n_hdr;               /* pairs as above; "content-type" is required */
    uint32_t flags;               /* WIRE_REP_* */
};

#define WIRE_BODY_UNKNOWN    (~0ull)
#define WIRE_REP_STREAM      1    /* an SSE stream */
#define WIRE_REP_NAMED       2    /* whose events have names, so an error's too */

struct wire_stats {               /* for the $infer_ variables */
    uint32_t prompt_tok, cached_tok, completion_tok, reasoning_tok;
    uint64_t queue_ns;            /* submitted -> first scheduled; 0: never was */
    char     model[64];           /* NUL padded, printable ASCII */
    char     finish[16];          /* "stop", "length", ...; "": no generation, no numbers */
    char     request_id[136];     /* of up to 128 characters */
};

struct wire_end {
    uint32_t reason;              /* WIRE_END_* */
    uint32_t rsv;
};

#define WIRE_END_OK          0    /* the reply is complete */
#define WIRE_END_CANCELLED   1    /* after REQ_CANCEL */
#define WIRE_END_ERROR       2    /* cut short; the engine has sent what words it had */
#define WIRE_END_BUSY        3    /* nothing was done: try another engine (only before REP_HEAD) */

/* Page 0 of a segment. The fixed part is written before the fd is passed and never again. */
struct wire_seg {
    uint64_t magic;
    uint32_t major, minor;
    uint64_t seg_bytes;           /* of the whole memfd */
    uint64_t ring_off, ring_bytes;
    uint32_t n_slot, window;      /* equal in both segments; window: credit bytes of one stream */
    uint64_t epoch;               /* random, one per process life */
    uint8_t  pad0[8];

    _Alignas(WIRE_LINE) uint64_t tail;       /* bytes produced into my ring, free-running */
    _Alignas(WIRE_LINE) uint64_t head;       /* bytes consumed from the peer's ring */
    _Alignas(WIRE_LINE) uint32_t armed;      /* +1 each time I go to sleep on the peer's ring */
    _Alignas(WIRE_LINE) uint32_t need_space; /* +1 each time I wait for room in my ring */
    _Alignas(WIRE_LINE) uint64_t heartbeat;  /* engine only: +1 every WIRE_HEARTBEAT_MS */
    uint32_t running, waiting;               /* engine only: hints for the pool's choice */
    uint32_t ready, draining;                /* engine only: 0 or 1; for draining see GOAWAY */
    _Alignas(WIRE_LINE) uint8_t end_of_fixed[64];
    /* worker only: uint64_t acks[n_slot], at WIRE_ACKS_OFF: bytes (of records) of the slot's
     * current generation that have left the worker or were dropped. Credits: the engine sends a
     * record only while sent - acks + WIRE_REC_SIZE(len) <= window. */
};

#define WIRE_ACKS_OFF  4096

_Static_assert(sizeof(struct wire_rec) == 24, "the layout is the protocol");
_Static_assert(sizeof(struct wire_req_head) == 16, "the layout is the protocol");
_Static_assert(sizeof(struct wire_rep_head) == 16, "the layout is the protocol");
_Static_assert(sizeof(struct wire_stats) == 240, "the layout is the protocol");
_Static_assert(sizeof(struct wire_seg) == 64 * 7, "the layout is the protocol");

/* Control socket: struct wire_hello each way first (the worker speaks first, its w2e fd attached;
 * the engine answers with its e2w fd, or with status != 0 and no fd, then closes). After that,
 * single bytes. */
struct wire_hello {
    uint64_t magic;
    uint32_t major, minor;
    uint32_t status;              /* WIRE_HELLO_*; 0 from the worker */
    uint32_t n_slot, window;      /* wanted by the worker, echoed by the engine */
    uint32_t e2w_ring_bytes;      /* wanted by the worker, power of two */
    uint64_t epoch;
    char     msg[88];             /* why it was refused, NUL padded */
};
_Static_assert(sizeof(struct wire_hello) == 128, "the layout is the protocol");

#define WIRE_HELLO_OK        0
#define WIRE_HELLO_VERSION   1
#define WIRE_HELLO_LIMIT     2    /* too many links, or sizes out of bounds */

#define WIRE_BYTE_WAKE       'W'  /* look at the ring, or room appeared in yours */
#define WIRE_BYTE_GOAWAY     'G'  /* engine: draining is set. What runs here goes on, and what is no
                                   * generation is still answered, until the socket closes */

#endif
