/* buf.h - a growable byte buffer with a ceiling, and a borrowed slice.
 *
 * A buf owns its bytes until buf_free. Growing past max is remembered (full) and everything
 * appended later is dropped, so a writer checks once, at its end. */
#ifndef ENGINE_BUF_H
#define ENGINE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slice { const char *p; size_t n; };           /* borrowed bytes, never freed, no NUL */

#define SLICE(lit)  ((struct slice) { "" lit, sizeof(lit) - 1 })

struct buf {
    char  *p;
    size_t n, cap;
    size_t max;                                      /* 0: no ceiling but memory */
    bool   full;                                     /* something did not fit */
};

void buf_put(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, const char *s);
void buf_char(struct buf *b, uint32_t c);            /* a code point, as UTF-8 */
__attribute__((format(printf, 2, 3)))
void buf_fmt(struct buf *b, const char *fmt, ...);
void buf_json_str(struct buf *b, const char *p, size_t n);  /* quoted, escaped; p: UTF-8 */
void buf_json_text(struct buf *b, const char *p, size_t n); /* the same without the quotes */
void buf_cut(struct buf *b, size_t n);               /* drop the first n bytes */
void buf_free(struct buf *b);

/* Stretches of a buffer, in order; the owner frees them. */
struct span { size_t begin, end; };
struct spans {
    struct span *v;
    size_t       n, cap;
    bool         full;                               /* out of memory: some are missing */
};

void spans_put(struct spans *s, size_t begin, size_t end);  /* begin: not before the last's end */
void spans_free(struct spans *s);

bool slice_is(struct slice a, const char *lit);

/* Length of the valid UTF-8 sequence at p (n bytes follow): 1..4; 0: cut short; -1: invalid
 * (overlong forms, surrogates, > U+10FFFF). */
int  utf8_len(const char *p, size_t n);
bool utf8_valid(const char *p, size_t n);

#endif
