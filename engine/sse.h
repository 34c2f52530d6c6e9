/* sse.h - server-sent events out of a stream of bytes that may be cut anywhere.
 *
 * Only the data of an event is kept: its "data" lines, joined by a newline. Comments, which servers
 * send as pings, and the other fields are skipped. */
#ifndef ENGINE_SSE_H
#define ENGINE_SSE_H

#include "buf.h"
#include "err.h"

#define SSE_EVENT_MAX  (1u << 20)          /* bytes of one event, and of one line */

struct sse {
    struct buf line, data;
    bool       has_data;                   /* a "data" line, though it may be empty */
    bool       cr;                         /* the last byte ended a line: a \n belongs to it */
};

/* The data of one event, borrowed. Not 0: sse_feed stops and returns it. */
typedef int sse_event(void *arg, struct slice data);

void sse_open(struct sse *s);
/* fn for every event that ends in these n bytes. E_FULL: an event is larger than SSE_EVENT_MAX. */
int  sse_feed(struct sse *s, const char *p, size_t n, sse_event *fn, void *arg);
/* Between two events: nothing of the next one has come. */
bool sse_idle(const struct sse *s);
void sse_close(struct sse *s);

#endif
