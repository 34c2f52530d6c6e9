/* sse.c - events, whatever the stream is cut into: at each byte, at each pair of bytes; the largest
 * one and one byte more. */
#include "tap.h"
#include "sse.h"

#include <stdlib.h>

static char got[1000];
static int  stop_at, n_got;

static int note(void *arg, struct slice d)
{
    (void) arg;
    snprintf(got + strlen(got), sizeof(got) - strlen(got), "<%.*s>", (int) d.n, d.p);
    return ++n_got == stop_at ? E_INVALID : 0;
}

static int count(void *arg, struct slice d)
{
    *(size_t *) arg = d.n;
    return 0;
}

/* In pieces that end at a and b. */
static int feed(struct sse *s, const char *p, size_t n, size_t a, size_t b)
{
    int rc;

    got[0] = '\0';
    n_got = 0;
    sse_open(s);
    if ((rc = sse_feed(s, p, a, note, NULL)) == 0
        && (rc = sse_feed(s, p + a, b - a, note, NULL)) == 0)
        rc = sse_feed(s, p + b, n - b, note, NULL);
    return rc;
}

static void cut(const char *text, const char *want, bool idle)
{
    size_t n = strlen(text);
    int bad = 0;

    for (size_t a = 0; a <= n; a++)
        for (size_t b = a; b <= n; b++) {
            struct sse s;

            if (feed(&s, text, n, a, b) != 0 || strcmp(got, want) != 0 || sse_idle(&s) != idle)
                bad++;
            sse_close(&s);
        }
    is_int(bad, 0, "%zu bytes, %zu of events, in all pieces", n, strlen(want));
}

static void stopping(void)
{
    struct sse s;

    stop_at = 2;
    is_int(feed(&s, "data:a\n\ndata:b\n\ndata:c\n\n", 24, 24, 24), E_INVALID,
           "the reader stops it");
    is_str(got, "<a><b>", "there");
    stop_at = 0;
    sse_close(&s);
}

static void largest(void)
{
    size_t size = SSE_EVENT_MAX - 5, n = 0, n_line;
    char *p = malloc(size + 3);
    struct sse s;

    memset(p, 'x', size + 1);
    sse_open(&s);
    is_int(sse_feed(&s, "data:", 5, count, &n), 0, "a line");
    is_int(sse_feed(&s, p, size, count, &n), 0, "of the largest size");
    is_int(sse_feed(&s, "\n\n", 2, count, &n), 0, "ends");
    is_int(n, size, "all of it");
    is_int(sse_feed(&s, "data:", 5, count, &n), 0, "one byte more");
    is_int(sse_feed(&s, p, size + 1, count, &n), E_FULL, "is refused");
    sse_close(&s);

    sse_open(&s);
    for (n_line = 0; n_line <= SSE_EVENT_MAX / 1024; n_line++)
        if (sse_feed(&s, "data:", 5, count, &n) != 0 || sse_feed(&s, p, 1024, count, &n) != 0
            || sse_feed(&s, "\n", 1, count, &n) != 0)
            break;
    is_int(n_line, SSE_EVENT_MAX / 1024 - 1, "lines are added up, with what joins them");
    sse_close(&s);
    free(p);
}

int main(void)
{
    cut("data: {\"a\":1}\n\ndata: [DONE]\n\n", "<{\"a\":1}><[DONE]>", true);
    cut("data: a\r\n\r\ndata: b\r\rdata: c\n\n", "<a><b><c>", true);
    cut(": ping\n\n:\n\nevent: x\nid: 1\nretry\ndata: a\n\n", "<a>", true);
    cut("data:a\ndata: b\ndata:  c\n\n", "<a\nb\n c>", true);
    cut("data\n\ndata:\n\n\n\ndataa: 1\n\ndat: 2\n\n", "<><>", true);
    cut("data: a\n\ndata: b\n", "<a>", false);
    cut("data: a\n\ndata: b", "<a>", false);
    cut("", "", true);
    stopping();
    largest();
    return done_testing();
}
