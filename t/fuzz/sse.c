/* fuzz/sse.c - any bytes, cut anywhere: the events do not depend on the cut. */
#include "sse.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static int note(void *arg, struct slice d)
{
    buf_put(arg, d.p, d.n);
    buf_put(arg, "|", 1);
    return 0;
}

/* piece: bytes at a time. */
static void feed(struct buf *out, const uint8_t *p, size_t n, size_t piece, bool *idle)
{
    struct sse s;

    sse_open(&s);
    for (size_t at = 0; at < n; at += piece)
        if (sse_feed(&s, (const char *) p + at, n - at < piece ? n - at : piece, note, out) != 0)
            abort();
    *idle = sse_idle(&s);
    sse_close(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct buf a = { 0 }, b = { 0 };
    bool idle_a, idle_b;

    if (n < 2)
        return 0;
    feed(&a, p + 1, n - 1, n, &idle_a);
    feed(&b, p + 1, n - 1, 1u + p[0] % 16, &idle_b);
    if (idle_a != idle_b || a.n != b.n || (a.n > 0 && memcmp(a.p, b.p, a.n) != 0))
        abort();
    buf_free(&a);
    buf_free(&b);
    return 0;
}
