#include "sse.h"

#include <string.h>

void sse_open(struct sse *s)
{
    *s = (struct sse) { .line.max = SSE_EVENT_MAX, .data.max = SSE_EVENT_MAX };
}

void sse_close(struct sse *s)
{
    buf_free(&s->line);
    buf_free(&s->data);
}

bool sse_idle(const struct sse *s)
{
    return s->line.n == 0 && !s->has_data;
}

/* s->line is complete. */
static int end_line(struct sse *s, sse_event *fn, void *arg)
{
    const char *p = s->line.p, *colon;
    size_t n = s->line.n, name;
    int rc = 0;

    if (n == 0) {
        if (s->has_data)
            rc = fn(arg, (struct slice) { s->data.p != NULL ? s->data.p : "", s->data.n });
        s->data.n = 0;
        s->has_data = false;
        return rc;
    }

    colon = memchr(p, ':', n);
    name = colon != NULL ? (size_t) (colon - p) : n;
    if (name == 4 && memcmp(p, "data", 4) == 0) {
        name += colon != NULL;
        name += name < n && p[name] == ' ';
        if (s->has_data)
            buf_put(&s->data, "\n", 1);
        buf_put(&s->data, p + name, n - name);
        s->has_data = true;
    }
    s->line.n = 0;
    return s->data.full ? E_FULL : 0;
}

int sse_feed(struct sse *s, const char *p, size_t n, sse_event *fn, void *arg)
{
    size_t from = 0;
    int rc;

    for (size_t i = 0; i < n; i++) {
        bool skip = p[i] == '\n' && s->cr;

        s->cr = p[i] == '\r';
        if (p[i] != '\n' && p[i] != '\r')
            continue;
        if (!skip) {
            buf_put(&s->line, p + from, i - from);
            if (s->line.full)
                return E_FULL;
            if ((rc = end_line(s, fn, arg)) != 0)
                return rc;
        }
        from = i + 1;
    }
    buf_put(&s->line, p + from, n - from);
    return s->line.full ? E_FULL : 0;
}
