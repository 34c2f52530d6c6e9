/* fuzz/chat.c - a request object of any shape: rendered into valid UTF-8, or refused in words; and
 * the control tokens outside a client's words are the template's. */
#include "chat.h"

#include <stdlib.h>
#include <string.h>

static const struct json_limits lim = { .bytes = 1 << 16, .depth = 40, .nodes = 5000 };

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* In order, apart, and all that is left begins and ends as the template does. */
static void check_spans(const struct spans *s, const struct buf *out)
{
    size_t at = 5;                      /* <bos> */

    if (s->full)
        abort();
    for (size_t i = 0; i < s->n; i++) {
        if (s->v[i].begin < at || s->v[i].end <= s->v[i].begin || s->v[i].begin > out->n)
            abort();
        at = s->v[i].end + 1;           /* neighbours are one */
    }
}

/* The first byte sets the options, the rest is the JSON of messages (or of an object that holds
 * messages and tools). */
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct chat_opts   o;
    struct json_doc   *d;
    const struct json *j;
    struct buf         out = { .max = 1 << 20 };
    struct spans       plain = { 0 };
    struct err         e = { 0 };
    char               param[64];
    int                rc;

    if (n == 0 || json_parse(&d, &j, (const char *) p + 1, n - 1, &lim, &e) < 0)
        return 0;
    o = (struct chat_opts) { p[0] & 1 ? CHAT_SMALL : CHAT_LARGE, p[0] & 2, p[0] & 4, p[0] & 8,
                             p[0] & 16, p[0] & 32, p[0] & 64 ? &plain : NULL };
    rc = j->type == JSON_OBJECT
         ? chat_render(json_get(j, "messages"), json_get(j, "tools"), &o, &out, param, &e)
         : chat_render(j, NULL, &o, &out, param, &e);
    if (rc == 0 && (out.n < 5 || memcmp(out.p, "<bos>", 5) != 0 || !utf8_valid(out.p, out.n)))
        abort();
    if (rc == 0)
        check_spans(&plain, &out);
    if (rc < 0 && (out.n != 0 || e.msg[0] == '\0' || param[0] == '\0'
                   || !utf8_valid(e.msg, strlen(e.msg))))
        abort();
    json_free(d);
    spans_free(&plain);
    buf_free(&out);
    return 0;
}
