#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for n more bytes; false (and full) when the ceiling or the memory does not allow it. */
static bool buf_room(struct buf *b, size_t n)
{
    size_t need, cap;
    char  *p;

    if (b->full)
        return false;
    if (n <= b->cap - b->n && (b->max == 0 || n <= b->max - b->n))
        return true;

    if (__builtin_add_overflow(b->n, n, &need) || (b->max != 0 && need > b->max)) {
        b->full = true;
        return false;
    }

    cap = b->cap < 64 ? 64 : b->cap;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;

    p = realloc(b->p, cap);
    if (p == NULL) {
        b->full = true;
        return false;
    }
    b->p = p;
    b->cap = cap;
    return true;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
    if (n == 0 || !buf_room(b, n))
        return;
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void buf_str(struct buf *b, const char *s)
{
    buf_put(b, s, strlen(s));
}

void buf_fmt(struct buf *b, const char *fmt, ...)
{
    va_list ap, again;
    int     n;
    char    few[128];

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(few, sizeof(few), fmt, ap);
    va_end(ap);

    if (n < 0) {
        b->full = true;
    } else if ((size_t) n < sizeof(few)) {
        buf_put(b, few, (size_t) n);
    } else {
        char *p = malloc((size_t) n + 1);

        if (p == NULL) {
            b->full = true;
        } else {
            vsnprintf(p, (size_t) n + 1, fmt, again);
            buf_put(b, p, (size_t) n);
            free(p);
        }
    }
    va_end(again);
}

void buf_char(struct buf *b, uint32_t c)
{
    static const unsigned char lead[] = { 0, 0, 0xC0, 0xE0, 0xF0 };
    size_t                     n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    unsigned char              p[4];

    for (size_t i = n; i-- > 1; c >>= 6)
        p[i] = (unsigned char) (0x80 | (c & 0x3F));
    p[0] = (unsigned char) (lead[n] | c);
    buf_put(b, p, n);
}

void buf_json_text(struct buf *b, const char *p, size_t n)
{
    static const char plain[] = "\"\\\b\f\n\r\t";
    size_t            done = 0;

    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char) p[i];
        const char   *at;

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;

        buf_put(b, p + done, i - done);
        done = i + 1;
        at = c != 0 ? strchr(plain, c) : NULL;
        if (at != NULL)
            buf_put(b, (char[]) { '\\', "\"\\bfnrt"[at - plain] }, 2);
        else
            buf_fmt(b, "\\u%04x", c);
    }
    buf_put(b, p + done, n - done);
}

void buf_json_str(struct buf *b, const char *p, size_t n)
{
    buf_put(b, "\"", 1);
    buf_json_text(b, p, n);
    buf_put(b, "\"", 1);
}

void buf_cut(struct buf *b, size_t n)
{
    if (n > b->n)
        n = b->n;
    if (n == 0)
        return;
    memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}

void buf_free(struct buf *b)
{
    free(b->p);
    *b = (struct buf) { .max = b->max };
}

void spans_put(struct spans *s, size_t begin, size_t end)
{
    if (begin == end)
        return;
    if (s->n > 0 && s->v[s->n - 1].end == begin) {
        s->v[s->n - 1].end = end;
        return;
    }
    if (s->n == s->cap) {
        size_t       cap = s->cap == 0 ? 64 : 2 * s->cap;
        struct span *v = realloc(s->v, cap * sizeof(*v));

        if (v == NULL) {
            s->full = true;
            return;
        }
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n++] = (struct span) { begin, end };
}

void spans_free(struct spans *s)
{
    free(s->v);
    *s = (struct spans) { 0 };
}

bool slice_is(struct slice a, const char *lit)
{
    size_t n = strlen(lit);

    return a.n == n && (n == 0 || memcmp(a.p, lit, n) == 0);
}

int utf8_len(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *) s;
    unsigned char        lo = 0x80, hi = 0xBF;
    int                  len;

    if (n == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4)
        return -1;
    len = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;

    /* The second byte alone tells overlong forms, surrogates and > U+10FFFF apart. */
    switch (p[0]) {
    case 0xE0: lo = 0xA0; break;
    case 0xED: hi = 0x9F; break;
    case 0xF0: lo = 0x90; break;
    case 0xF4: hi = 0x8F; break;
    }

    for (int i = 1; i < len; i++) {
        if ((size_t) i >= n)
            return 0;
        if (p[i] < lo || p[i] > hi)
            return -1;
        lo = 0x80;
        hi = 0xBF;
    }
    return len;
}

bool utf8_valid(const char *p, size_t n)
{
    while (n > 0) {
        uint64_t w;
        int      len;

        if (n >= 8) {
            memcpy(&w, p, 8);
            if ((w & 0x8080808080808080u) == 0) {
                p += 8;
                n -= 8;
                continue;
            }
        }
        len = utf8_len(p, n);
        if (len <= 0)
            return false;
        p += len;
        n -= (size_t) len;
    }
    return true;
}
