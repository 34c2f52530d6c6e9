/* safetensors.c - broken checkpoints: each gives one line that names the file and the tensor. The
 * good ones are t/golden's, edited here. */
#define _GNU_SOURCE                        /* memmem */
#include "tap.h"
#include "model.h"
#include "safetensors.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "r");
    char *p = calloc(1, 2 << 20);

    *n = f != NULL && p != NULL ? fread(p, 1, 2 << 20, f) : 0;
    if (f != NULL)
        fclose(f);
    return p;
}

static void put_file(const char *name, const void *p, size_t n)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    if (f != NULL) {
        fwrite(p, 1, n, f);
        fclose(f);
    }
}

static void remove_file(const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    unlink(path);
}

static const char *moe_files[] = { "config.json", "model-00001-of-00002.safetensors",
                                   "model-00002-of-00002.safetensors",
                                   "model.safetensors.index.json" };

static void copy_moe(void)
{
    for (int i = 0; i < 4; i++) {
        char path[128], *p;
        size_t n;

        snprintf(path, sizeof(path), "t/golden/moe/%s", moe_files[i]);
        p = slurp(path, &n);
        put_file(moe_files[i], p, n);
        free(p);
    }
}

/* Replace text by text of the same length in a file of dir. */
static void edit(const char *file, const char *was, const char *is)
{
    char path[128], *p, *at;
    size_t n;

    snprintf(path, sizeof(path), "%s/%s", dir, file);
    p = slurp(path, &n);
    at = memmem(p, n, was, strlen(was));
    if (!ok(at != NULL && strlen(was) == strlen(is), "to edit: %s", was)) {
        free(p);
        return;
    }
    memcpy(at, is, strlen(is));
    put_file(file, p, n);
    free(p);
}

static void opens_badly(const char *file, const char *says, const char *what)
{
    struct model_limits lim = { .kv = { 4, 8, 8 }, .step_tok_max = 8, .seq_max = 1, .page_max = 8,
                                .n_thread = 1 };
    struct model_conf c;
    struct model *m = NULL;
    struct err e = {0};

    ok(model_conf_load(&c, dir, &e) == 0 && model_open(&m, dir, &c, &lim, NULL, NULL, &e) < 0,
       "refused: %s", what);
    ok(strstr(e.msg, file) != NULL && strstr(e.msg, says) != NULL && strchr(e.msg, '\n') == NULL,
       "%s", e.msg);
    model_close(m);
    copy_moe();
}

/* Opened whole, shorter when read: words, where a map would have ended the process. */
static void shrinking(void)
{
    const char *name = "model.language_model.norm.weight";
    char path[128], data[96 * 2];
    struct st_tensor *t;
    struct err e = {0};
    struct st *st;

    copy_moe();
    is_int(st_open(&st, dir, &e), 0, "open: %s", e.msg);
    t = st_find(st, name);
    snprintf(path, sizeof(path), "%s/%s", dir, t->file);
    ok(t->bytes == sizeof(data) && st_read(t, data, &e) == 0
       && memcmp(data, t->p, sizeof(data)) == 0, "st_read brings what the map has");
    is_int(truncate(path, (off_t) (t->off + t->bytes)), 0, "cut behind it");
    is_int(st_read(t, data, &e), 0, "it is still there");
    is_int(truncate(path, (off_t) (t->off + t->bytes - 1)), 0, "a byte less");
    ok(st_read(t, data, &e) == E_IO && strstr(e.msg, t->file) != NULL
       && strstr(e.msg, "shrank") != NULL, "%s", e.msg);
    st_close(st);
    copy_moe();
}

static void test_checkpoints(void)
{
    const char *one = moe_files[1], *two = moe_files[2], *index = moe_files[3];
    char path[128];
    size_t n;
    char *p;

    copy_moe();
    snprintf(path, sizeof(path), "%s/%s", dir, two);
    if (truncate(path, 300000) == 0)
        opens_badly(two, "truncated", "a truncated file");
    if (truncate(path, 5) == 0)
        opens_badly(two, "truncated", "a file without a header");
    remove_file(two);
    opens_badly(two, "No such file", "a missing shard");

    edit(one, "input_layernorm.weight\":{\"dtype\":\"BF16\"",
         "input_layernorm.weight\":{\"dtype\":\"I16\" ");
    opens_badly(one, "dtype I16", "a dtype that is no float");
    edit(one, "input_layernorm.weight\":{\"dtype\":\"BF16\"",
         "input_layernorm.weight\":{\"dtype\":\"XF16\"");
    opens_badly(one, "dtype: unknown", "an unknown dtype");
    edit(one, "\"shape\":[8,96,24]", "\"shape\":[8,24,96]");
    opens_badly(one, "shape [8, 24, 96], config.json says [8, 96, 24]", "a wrong shape");
    edit(one, "\"shape\":[8,96,24]", "\"shape\":[9,64,24]");
    opens_badly(one, "shape and data_offsets differ", "a shape that is not its data");
    edit(one, "layer_scalar\":{\"dtype\":\"BF16\",\"shape\":[1]",
         "layer_scalar\":{\"dtype\":\"BF16\",\"shape\":[ ]");
    opens_badly(one, "layer_scalar: shape [], config.json says [1]", "a shape of no dimension");

    edit(one, "layers.0.input_layernorm.weight", "layers.0.input_layernorn.weight");
    edit(index, "layers.0.input_layernorm.weight", "layers.0.input_layernorn.weight");
    opens_badly("", "tensor missing: model.language_model.layers.0.input_layernorm.weight",
                "a missing tensor");
    edit(one, "model.embed_vision.", "model.embed_vosion.");
    edit(index, "model.embed_vision.", "model.embed_vosion.");
    opens_badly(one, "model.embed_vosion.embedding_projection.weight", "an extra tensor");
    edit(index, "layers.0.input_layernorm.weight", "layers.9.input_layernorm.weight");
    opens_badly("index.json", "layers.9.input_layernorm.weight is not in",
                "an index that is not its files");

    snprintf(path, sizeof(path), "%s/%s", dir, one);
    p = slurp(path, &n);
    put_file(one, p, n + 8);
    free(p);
    opens_badly(one, "8 bytes after the last tensor", "bytes at the end");

    edit("config.json", "\"num_experts\": 8", "\"num_experts\": 7");
    opens_badly("safetensors", "config.json says [7", "a config.json of another model");
}

/* Headers, written by hand. */
static void header(const char *json, size_t data, const char *says)
{
    char buf[1024] = {0};
    size_t n = strlen(json);
    struct st *st = NULL;
    struct err e = {0};
    int rc;

    memcpy(buf, &n, 8);
    memcpy(buf + 8, json, n);
    rc = st_open_mem(&st, buf, 8 + n + data, "x.safetensors", &e);
    if (says == NULL)
        is_int(rc, 0, "accepted %s", e.msg);
    else
        ok(rc == E_INVALID && strstr(e.msg, says) != NULL, "%s", e.msg);
    if (rc == 0)
        st_close(st);
}

static void test_headers(void)
{
    header("{\"a\":{\"dtype\":\"U8\",\"shape\":[2,2],\"data_offsets\":[0,4]}}", 4, NULL);
    header("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, NULL);
    header("{}", 0, NULL);
    header("[]", 0, "not an object");
    header("{\"a\":3}", 0, "dtype");
    header("{\"\":{}}", 0, "tensor name");
    header("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 3, "truncated");
    header("{\"a\":{\"dtype\":\"U8\",\"shape\":[-4],\"data_offsets\":[0,4]}}", 4, "shape");
    header("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,0]}}", 4, "data_offsets");
    header("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0]}}", 4, "data_offsets");
    header("{\"a\":{\"dtype\":\"F64\",\"shape\":[4294967296,4294967296],"
           "\"data_offsets\":[0,0]}}", 0, "shape");
    header("{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],"
           "\"data_offsets\":[0,0]}}", 0, "differ");
    header("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
           "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}", 6, "overlaps");
    header("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
           "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[4,6]}}", 6, "hole");
}

int main(void)
{
    snprintf(dir, sizeof(dir), "/tmp/t-safetensors-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return 1;
    shrinking();
    test_checkpoints();
    test_headers();
    for (int i = 0; i < 4; i++)
        remove_file(moe_files[i]);
    rmdir(dir);
    return done_testing();
}
