/* err.h - the return codes of both processes, and the words that travel with them.
 *
 * 0 is success, negative is one of these, everywhere. nginx code converts at one place. */
#ifndef WIRE_ERR_H
#define WIRE_ERR_H

#include <stdarg.h>
#include <stdio.h>

enum {
    E_AGAIN   = -1,   /* nothing yet: come back on the next event */
    E_FULL    = -2,   /* a fixed limit is reached: shed, preempt or queue */
    E_INVALID = -3,   /* the peer's, the client's or the file's fault: err.msg says what */
    E_IO      = -4,   /* the operating system said no */
    E_GPU     = -5,   /* sticky: the step is lost, the process restarts */
    E_GONE    = -6,   /* the peer closed or died */
};

struct err { int code; char msg[240]; };   /* on the caller's stack */

/* Fill e (may be NULL) and return code, so that a failure is one line:
 *     return err_set(e, E_INVALID, "%s: tensor missing: %s", path, name); */
__attribute__((format(printf, 3, 4)))
static inline int err_set(struct err *e, int code, const char *fmt, ...)
{
    va_list ap;

    if (e != NULL) {
        e->code = code;
        va_start(ap, fmt);
        vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
        va_end(ap);
    }

    return code;
}

#endif
