/* fuzz/config.c - any bytes as config.json (and, after a NUL, generation_config.json): no crash,
 * and an accepted configuration has sizes that the rest may rely on. */
#define _DEFAULT_SOURCE                    /* mkdtemp */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];

static void put_file(const char *name, const void *p, size_t n)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    if (f == NULL || fwrite(p, 1, n, f) != n)
        abort();
    fclose(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    const uint8_t *cut = n > 0 ? memchr(p, 0, n) : NULL;
    size_t n_conf = cut != NULL ? (size_t) (cut - p) : n;
    struct model_size size;
    struct model_conf c;
    struct err e = {0};

    if (dir[0] == '\0') {
        strcpy(dir, "/dev/shm/fuzz-config-XXXXXX");
        if (mkdtemp(dir) == NULL)
            abort();
    }
    put_file("config.json", p, n_conf);
    put_file("generation_config.json", cut != NULL ? cut + 1 : (const uint8_t *) "{}",
             cut != NULL ? n - n_conf - 1 : 2);

    if (model_conf_load(&c, dir, &e) < 0) {
        if (e.msg[0] == '\0' || strchr(e.msg, '\n') != NULL)
            abort();
        return 0;
    }
    model_size(&c, &size);
    if (c.n_head % c.n_kv_full != 0 || c.n_head % c.n_kv_sliding != 0 || c.n_eos > MODEL_EOS_MAX
        || c.n_suppress > MODEL_SUPPRESS_MAX || size.total < size.embed)
        abort();
    for (int32_t il = 0; il < c.n_layer; il++)
        if (model_kv_layer(&c, il) < 0 || model_kv_layer(&c, il) > il)
            abort();
    return 0;
}
