/* stop.h - stop strings over text that arrives in pieces.
 *
 * Text that might be the beginning of a stop string is held back; everything else is released at
 * once. A stop string is bytes, so it matches across tokens and inside what a token brought. */
#ifndef API_STOP_H
#define API_STOP_H

#include "buf.h"
#include "limits.h"

struct stop {
    struct slice str[API_STOP_MAX];     /* borrowed, none empty */
    int32_t      n_str;
    bool         include;               /* the stop string itself is released too */
    struct buf   hold;                  /* owned */
};

/* Feed n bytes; what is safe goes to out. -1, or the index of the string that was complete first:
 * nothing after it is ever released. */
int  stop_put(struct stop *s, const char *p, size_t n, struct buf *out);
/* No more text: release what was held. */
void stop_end(struct stop *s, struct buf *out);
void stop_free(struct stop *s);

#endif
