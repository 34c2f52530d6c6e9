#define _GNU_SOURCE
#include "stop.h"

#include <string.h>

/* The match in hold that ends first, of those that end there the longest; -1: none. What begins
 * first is no rule: of "abcX" and "c" it would depend on whether the X had come with the c. */
static int find_first(const struct stop *s, size_t *at)
{
    size_t end = 0;
    int    found = -1;

    for (int i = 0; i < s->n_str; i++) {
        const char *hit = memmem(s->hold.p, s->hold.n, s->str[i].p, s->str[i].n);
        size_t      pos = hit != NULL ? (size_t) (hit - s->hold.p) : 0;

        if (hit == NULL)
            continue;
        if (found < 0 || pos + s->str[i].n < end || (pos + s->str[i].n == end && pos < *at)) {
            found = i;
            *at = pos;
            end = pos + s->str[i].n;
        }
    }

    return found;
}

/* Length of the longest tail of hold that begins a stop string. */
static size_t tail_held(const struct stop *s)
{
    size_t best = 0;

    for (int i = 0; i < s->n_str; i++) {
        size_t k = s->str[i].n - 1;

        for (k = k < s->hold.n ? k : s->hold.n; k > best; k--)
            if (memcmp(s->hold.p + s->hold.n - k, s->str[i].p, k) == 0)
                best = k;
    }

    return best;
}

int stop_put(struct stop *s, const char *p, size_t n, struct buf *out)
{
    size_t at = 0, keep;
    int    i;

    if (s->n_str == 0 || n == 0) {
        buf_put(out, p, n);
        return -1;
    }

    buf_put(&s->hold, p, n);

    i = find_first(s, &at);
    if (i >= 0) {
        buf_put(out, s->hold.p, at + (s->include ? s->str[i].n : 0));
        s->hold.n = 0;
        return i;
    }

    keep = tail_held(s);
    buf_put(out, s->hold.p, s->hold.n - keep);
    buf_cut(&s->hold, s->hold.n - keep);
    return -1;
}

void stop_end(struct stop *s, struct buf *out)
{
    buf_put(out, s->hold.p, s->hold.n);
    s->hold.n = 0;
}

void stop_free(struct stop *s)
{
    buf_free(&s->hold);
}
