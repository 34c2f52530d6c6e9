/* fuzz/safetensors.c - any bytes as a file: no crash, and an accepted tensor lies inside it. */
#include "safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct err e = {0};
    struct st *st;
    uint8_t *copy = malloc(n + 1);         /* aligned as a map is */

    memcpy(copy, p, n);
    if (st_open_mem(&st, copy, n, "fuzz", &e) < 0) {
        if (e.msg[0] == '\0' || strchr(e.msg, '\n') != NULL)
            abort();
        free(copy);
        return 0;
    }
    for (int32_t i = 0; i < st_count(st); i++) {
        const struct st_tensor *t = st_at(st, i);
        const uint8_t *at = t->p;

        if (at < copy || t->bytes > n || at + t->bytes > copy + n || st_find(st, t->name) != t)
            abort();
    }
    st_close(st);
    free(copy);
    return 0;
}
