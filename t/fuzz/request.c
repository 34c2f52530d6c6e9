/* fuzz/request.c - any body for any route: an ask within its limits, or an error in valid JSON. */
#include "dialect.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* The first byte chooses the kind of body, the rest is the body. */
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static const struct json_limits lim = { .bytes = 1 << 16, .depth = 64, .nodes = 5000 };
    struct json_doc   *d = NULL, *d2 = NULL;
    const struct json *root;
    struct api_err     e;
    struct ask         a;
    struct err         err;
    struct buf         b = { 0 };

    if (n == 0 || json_parse(&d, &root, (const char *) p + 1, n - 1, &lim, &err) != 0)
        return 0;

    if (ask_read(&a, 1 << p[0] % 5, root, &e) != 0) {
        dialect_of(1 << p[0] % 5)->error(&b, &e, "r");
        if (e.status < 400 || json_parse(&d2, &root, b.p, b.n, &lim, &err) != 0)
            abort();
    } else if (a.n < 1 || a.n > API_N_MAX || a.n_stop > API_STOP_MAX
               || a.n_stop_id > API_STOP_ID_MAX || a.temperature > 2 || a.top_p > 1) {
        abort();
    }

    json_free(d);
    json_free(d2);
    buf_free(&b);
    return 0;
}
