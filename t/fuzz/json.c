/* fuzz/json.c - any bytes: no crash, and what was accepted survives a round trip. */
#include "json.h"

#include <stdlib.h>
#include <string.h>

static const struct json_limits lim = { .bytes = 1 << 16, .depth = 40, .nodes = 5000 };

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct json_doc   *d, *again;
    const struct json *j, *k;
    struct buf         a = { 0 }, b = { 0 };
    struct err         e = { 0 };
    int64_t            i;
    double             f;

    if (json_parse(&d, &j, (const char *) p, n, &lim, &e) < 0) {
        if (d != NULL || e.msg[0] == '\0' || strchr(e.msg, '\n') != NULL)
            abort();
        return 0;
    }
    json_int(j->child != NULL ? j->child : j, &i);
    json_double(j->child != NULL ? j->child : j, &f);
    json_write(j, &a);
    if (!utf8_valid(a.p, a.n))
        abort();

    /* Escapes may grow sixfold, so only the byte limit may say no the second time. */
    if (a.n <= lim.bytes) {
        if (json_parse(&again, &k, a.p, a.n, &lim, &e) < 0)
            abort();
        json_write(k, &b);
        if (a.n != b.n || memcmp(a.p, b.p, a.n) != 0)
            abort();
        json_free(again);
    }
    json_free(d);
    buf_free(&a);
    buf_free(&b);
    return 0;
}
