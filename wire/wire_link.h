/* wire_link.h - sealed segments and the handshake over the control socket.
 *
 * Everything is non-blocking; the caller owns the socket and its events. A link owns its two
 * mappings and both memfds are closed after mapping. wire_link_close unmaps, never the socket. */
#ifndef WIRE_LINK_H
#define WIRE_LINK_H

#include "wire_ring.h"

struct wire_sizes {
    uint32_t n_slot, window;
    uint32_t w2e_ring_bytes, e2w_ring_bytes;   /* powers of two */
};

struct wire_link {
    struct wire_ring ring;          /* valid after the handshake */
    uint64_t own_bytes, peer_bytes; /* of the mappings */
    uint64_t peer_epoch;
    struct wire_sizes sizes;
};

/* Check the bounds, and that the reply ring cannot overflow: n_slot * window + one PAD must be
 * <= e2w_ring_bytes. */
int  wire_sizes_check(const struct wire_sizes *s, struct err *e);

/* A link that wire_link_close may be called on starts as all zeroes. On failure of any call below
 * everything is unmapped again.
 *
 * Worker: create the w2e segment and send HELLO with its fd (sock is connected, non-blocking). */
int  wire_link_hello(struct wire_link *l, int sock, const struct wire_sizes *s, uint64_t epoch,
                     struct err *e);
/* Worker, on readable: 0 attached; E_AGAIN; E_INVALID refused or nonsense; E_GONE; E_IO. */
int  wire_link_welcome(struct wire_link *l, int sock, struct err *e);
/* Engine, on readable of an accepted socket: the HELLO is checked, the segment mapped, ours created
 * and sent. Same codes. On a refusal the reason has been sent to the worker. */
int  wire_link_accept(struct wire_link *l, int sock, uint64_t epoch, struct err *e);
/* Engine: turn a worker away (WIRE_HELLO_LIMIT: too many links) before wire_link_accept. */
void wire_link_refuse(int sock, uint32_t status, const char *msg);
void wire_link_close(struct wire_link *l);

/* One byte, MSG_DONTWAIT|MSG_NOSIGNAL; a full socket is success (bells enough are queued).
 * E_GONE when the peer is dead. */
int  wire_bell(int sock, char byte);
/* Swallow all queued bytes: 0; E_GONE on EOF; E_INVALID: a byte that means nothing. *goaway (may be
 * NULL: then it means nothing either) is set if a GOAWAY was among them. */
int  wire_bell_drain(int sock, int *goaway);

#endif
