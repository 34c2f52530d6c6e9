/* safetensors.c - header checks: sizes, dtypes, shape products, holes, overlap, duplicates. */
#include "safetensors.h"
#include "json.h"
#include "pump.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ST_TENSOR_MAX  1000000
#define ST_NODE_MAX    16000000u

struct st_map { void *p; size_t n; char *file; int fd; };

struct st {
    struct st_map     map[ST_SHARD_MAX];
    int               n_map;
    struct st_tensor *t;
    int32_t           n, cap;
};

static const struct { const char *name; int bytes; } dtypes[] = {
    { "BF16", 2 }, { "F16", 2 }, { "F32", 4 }, { "F64", 8 }, { "I8", 1 }, { "U8", 1 },
    { "I16", 2 }, { "U16", 2 }, { "I32", 4 }, { "U32", 4 }, { "I64", 8 }, { "U64", 8 },
    { "BOOL", 1 }, { "F8_E4M3", 1 }, { "F8_E5M2", 1 },
};

static int dtype_bytes(struct slice s)
{
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (slice_is(s, dtypes[i].name))
            return dtypes[i].bytes;
    return 0;
}

static char *copy_str(struct slice s)
{
    char *p = malloc(s.n + 1);

    if (p != NULL) {
        memcpy(p, s.p, s.n);
        p[s.n] = '\0';
    }
    return p;
}

/* A name we can print, compare and keep as a C string. */
static bool plain(struct slice s, size_t max)
{
    if (s.n == 0 || s.n > max)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 33 || s.p[i] > 126)
            return false;
    return true;
}

static int read_shape(struct st_tensor *t, const struct json *j, uint64_t *count, const char *file,
                      struct err *e)
{
    int64_t v;

    if (j == NULL || j->type != JSON_ARRAY || j->n > ST_DIM_MAX)
        return err_set(e, E_INVALID, "%s: %s: shape is not a list of at most %d sizes", file,
                       t->name, ST_DIM_MAX);

    *count = 1;
    for (const struct json *c = j->child; c != NULL; c = c->next) {
        if (json_int(c, &v) < 0 || v < 0 || __builtin_mul_overflow(*count, (uint64_t) v, count))
            return err_set(e, E_INVALID, "%s: %s: shape: bad size", file, t->name);
        t->shape[t->n_dim++] = v;
    }
    return 0;
}

static int read_offsets(const struct json *j, int64_t off[2])
{
    if (j == NULL || j->type != JSON_ARRAY || j->n != 2)
        return E_INVALID;
    if (json_int(j->child, &off[0]) < 0 || json_int(j->child->next, &off[1]) < 0)
        return E_INVALID;
    return off[0] < 0 || off[1] < off[0] ? E_INVALID : 0;
}

static struct st_tensor *add(struct st *st)
{
    if (st->n == ST_TENSOR_MAX)
        return NULL;
    if (st->n == st->cap) {
        int32_t cap = st->cap > 0 ? 2 * st->cap : 1024;
        struct st_tensor *t = realloc(st->t, (size_t) cap * sizeof(*t));

        if (t == NULL)
            return NULL;
        st->t = t;
        st->cap = cap;
    }
    st->t[st->n] = (struct st_tensor) {0};
    return &st->t[st->n];
}

/* A file's data, behind its header. */
struct shard {
    const char *file, *data;               /* mapped */
    uint64_t    bytes, off;                /* of the data; where it begins */
    int         fd;
};

/* One entry of a header: "name": {dtype, shape, data_offsets}. */
static int read_tensor(struct st *st, const struct json *j, const struct shard *s,
                       struct err *e)
{
    const char *file = s->file;
    const struct json *d = json_get(j, "dtype");
    struct st_tensor *t;
    uint64_t count = 0;
    int64_t off[2];
    int bytes, rc;

    if (!plain(j->key, ST_NAME_MAX))
        return err_set(e, E_INVALID, "%s: a tensor name is empty, long or not printable", file);
    if ((t = add(st)) == NULL || (t->name = copy_str(j->key)) == NULL)
        return err_set(e, E_FULL, "%s: too many tensors", file);
    st->n++;
    t->file = file;

    bytes = d != NULL && d->type == JSON_STRING ? dtype_bytes(d->text) : 0;
    if (bytes == 0)
        return err_set(e, E_INVALID, "%s: %s: dtype: unknown", file, t->name);
    memcpy(t->dtype, d->text.p, d->text.n);

    if ((rc = read_shape(t, json_get(j, "shape"), &count, file, e)) < 0)
        return rc;
    if (read_offsets(json_get(j, "data_offsets"), off) < 0)
        return err_set(e, E_INVALID, "%s: %s: data_offsets: not two rising offsets", file, t->name);
    if ((uint64_t) off[1] > s->bytes)
        return err_set(e, E_INVALID, "%s: %s: data ends at %lld, the file has %llu: truncated?",
                       file, t->name, (long long) off[1], (unsigned long long) s->bytes);
    if (__builtin_mul_overflow(count, (uint64_t) bytes, &t->bytes)
        || t->bytes != (uint64_t) (off[1] - off[0]))
        return err_set(e, E_INVALID, "%s: %s: shape and data_offsets differ", file, t->name);

    t->p = s->data + off[0];
    t->fd = s->fd;
    t->off = s->off + (uint64_t) off[0];
    if (t->bytes > 0 && (uintptr_t) t->p % (uintptr_t) bytes != 0)
        return err_set(e, E_INVALID, "%s: %s: data is not aligned to its dtype", file, t->name);
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct st_tensor *x = a, *y = b;

    if (x->p != y->p)
        return (uintptr_t) x->p < (uintptr_t) y->p ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The tensors of one file cover its data once, without holes. */
static int check_cover(struct st *st, int32_t first, const char *data, uint64_t data_bytes,
                       const char *file, struct err *e)
{
    const char *at = data;

    if (st->n > first)
        qsort(st->t + first, (size_t) (st->n - first), sizeof(*st->t), by_place);
    for (int32_t i = first; i < st->n; i++) {
        const struct st_tensor *t = &st->t[i];

        if ((const char *) t->p != at)
            return err_set(e, E_INVALID, "%s: %s: data %s", file, t->name,
                           (const char *) t->p < at ? "overlaps another tensor"
                                                    : "begins after a hole");
        at += t->bytes;
    }
    if (at != data + data_bytes)
        return err_set(e, E_INVALID, "%s: %llu bytes after the last tensor", file,
                       (unsigned long long) (data + data_bytes - at));
    return 0;
}

/* The size of the header, from the first 8 bytes of a file of n. */
static int header_bytes(const char *p, size_t n, const char *file, uint64_t *head, struct err *e)
{
    *head = 0;
    for (int i = 7; n >= 8 && i >= 0; i--)
        *head = *head << 8 | (uint8_t) p[i];
    if (n < 8 || *head > n - 8 || *head > ST_HEADER_MAX)
        return err_set(e, E_INVALID, "%s: header: %llu bytes in a file of %zu: truncated?", file,
                       (unsigned long long) *head, n);
    return 0;
}

static int read_header(struct st *st, const char *p, size_t n, const struct shard *s,
                       struct err *e)
{
    struct json_limits lim = { ST_HEADER_MAX, 8, ST_NODE_MAX };
    const struct json *root;
    struct json_doc *doc;
    int32_t first = st->n;
    struct err je = {0};
    int rc = 0;

    if (json_parse(&doc, &root, p, n, &lim, &je) < 0)
        return err_set(e, E_INVALID, "%s: header: %s", s->file, je.msg);
    if (root->type != JSON_OBJECT)
        rc = err_set(e, E_INVALID, "%s: header: not an object", s->file);
    for (const struct json *j = rc == 0 ? root->child : NULL; j != NULL && rc == 0; j = j->next)
        if (!slice_is(j->key, "__metadata__"))
            rc = read_tensor(st, j, s, e);
    json_free(doc);

    return rc < 0 ? rc : check_cover(st, first, s->data, s->bytes, s->file, e);
}

int st_read(const struct st_tensor *t, void *to, struct err *e)
{
    if (t->fd != -1)
        return pump_read(&(struct be_file) { t->file, t->fd, t->off, NULL }, to, t->bytes, e);
    if (t->bytes > 0)
        memcpy(to, t->p, t->bytes);
    return 0;
}

/* A file of n bytes, open and mapped at p. */
static int read_file(struct st *st, const char *p, size_t n, int fd, const char *file,
                     struct err *e)
{
    struct shard s = { .file = file, .fd = fd };
    char first[8], *head;
    uint64_t bytes;
    int rc = pump_read(&(struct be_file) { file, fd, 0, p }, first, n < 8 ? n : 8, e);

    if (rc < 0 || (rc = header_bytes(first, n, file, &bytes, e)) < 0)
        return rc;
    if ((head = malloc(bytes + 1)) == NULL)
        return err_set(e, E_IO, "out of memory");
    s.off = 8 + bytes;
    s.data = p + s.off;
    s.bytes = n - s.off;
    rc = pump_read(&(struct be_file) { file, fd, 8, p }, head, bytes, e);
    if (rc == 0)
        rc = read_header(st, head, bytes, &s, e);
    free(head);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct st_tensor *) a)->name, ((const struct st_tensor *) b)->name);
}

static int sort_names(struct st *st, struct err *e)
{
    if (st->n > 0)
        qsort(st->t, (size_t) st->n, sizeof(*st->t), by_name);
    for (int32_t i = 1; i < st->n; i++)
        if (strcmp(st->t[i - 1].name, st->t[i].name) == 0)
            return err_set(e, E_INVALID, "%s: %s: the tensor is also in %s", st->t[i].file,
                           st->t[i].name, st->t[i - 1].file);
    return 0;
}

/* dir/file, a regular one of *n bytes; a missing one is named. */
static int open_file(const char *dir, const char *file, int *fd, size_t *n, struct err *e)
{
    char path[4096];
    struct stat sb;

    if (snprintf(path, sizeof(path), "%s/%s", dir, file) >= (int) sizeof(path))
        return err_set(e, E_INVALID, "%s: the path is too long", file);
    *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);       /* a pipe must not wait */
    if (*fd < 0)
        return err_set(e, E_IO, "%s: %s", path, strerror(errno));
    if (fstat(*fd, &sb) < 0 || !S_ISREG(sb.st_mode)) {
        close(*fd);
        return err_set(e, E_IO, "%s: not a regular file", path);
    }
    *n = (size_t) sb.st_size;
    return 0;
}

static int open_shard(struct st *st, const char *dir, struct slice file, struct err *e)
{
    struct st_map *m = &st->map[st->n_map];
    int rc;

    if ((m->file = copy_str(file)) == NULL)
        return err_set(e, E_IO, "out of memory");
    rc = open_file(dir, m->file, &m->fd, &m->n, e);
    if (rc < 0) {
        free(m->file);
        return rc;
    }
    st->n_map++;                           /* st_close has it from here on */
    if (m->n > 0)
        m->p = mmap(NULL, m->n, PROT_READ, MAP_PRIVATE, m->fd, 0);
    if (m->p == MAP_FAILED) {
        m->p = NULL;
        return err_set(e, E_IO, "%s/%s: mmap: %s", dir, m->file, strerror(errno));
    }
    return read_file(st, m->p, m->n, m->fd, m->file, e);
}

static bool has_map(const struct st *st, struct slice file)
{
    for (int i = 0; i < st->n_map; i++)
        if (slice_is(file, st->map[i].file))
            return true;
    return false;
}

#define INDEX "model.safetensors.index.json"

static int open_shards(struct st *st, const char *dir, const struct json *root, struct err *e)
{
    const struct json *map = json_get(root, "weight_map");
    int rc;

    if (map == NULL || map->type != JSON_OBJECT || map->n == 0)
        return err_set(e, E_INVALID, INDEX ": weight_map: not an object with tensors");

    for (const struct json *j = map->child; j != NULL; j = j->next) {
        if (j->type != JSON_STRING || !plain(j->text, 255) || memchr(j->text.p, '/', j->text.n))
            return err_set(e, E_INVALID, INDEX ": weight_map: a value is not a file name");
        if (has_map(st, j->text))
            continue;
        if (st->n_map == ST_SHARD_MAX)
            return err_set(e, E_FULL, INDEX ": weight_map: more than %d files", ST_SHARD_MAX);
        if ((rc = open_shard(st, dir, j->text, e)) < 0)
            return rc;
    }

    if ((rc = sort_names(st, e)) < 0)
        return rc;
    for (const struct json *j = map->child; j != NULL; j = j->next) {
        struct st_tensor key = {0}, *t;

        if (!plain(j->key, ST_NAME_MAX) || (key.name = copy_str(j->key)) == NULL)
            return err_set(e, E_INVALID, INDEX ": weight_map: a bad tensor name");
        t = bsearch(&key, st->t, (size_t) st->n, sizeof(*st->t), by_name);
        if (t == NULL || !slice_is(j->text, t->file))
            rc = err_set(e, E_INVALID, INDEX ": weight_map: %s is not in %.*s", key.name,
                         (int) j->text.n, j->text.p);
        free((void *) key.name);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int open_index(struct st *st, const char *dir, struct err *e)
{
    struct json_limits lim = { ST_INDEX_MAX, 8, ST_NODE_MAX };
    const struct json *root;
    struct json_doc *doc;
    struct err je = {0};
    char *p = NULL;
    size_t n;
    int fd, rc = open_file(dir, INDEX, &fd, &n, e);

    if (rc < 0)
        return rc;
    if (n > ST_INDEX_MAX)
        rc = err_set(e, E_INVALID, INDEX ": %zu bytes, at most %u", n, ST_INDEX_MAX);
    else if ((p = malloc(n + 1)) == NULL)
        rc = err_set(e, E_IO, "out of memory");
    else
        rc = pump_read(&(struct be_file) { INDEX, fd, 0, NULL }, p, n, e);
    if (rc == 0 && json_parse(&doc, &root, p, n, &lim, &je) < 0) {
        rc = err_set(e, E_INVALID, INDEX ": %s", je.msg);
    } else if (rc == 0) {
        rc = open_shards(st, dir, root, e);
        json_free(doc);
    }
    free(p);
    close(fd);
    return rc;
}

static bool exists(const char *dir, const char *file)
{
    char path[4096];

    return snprintf(path, sizeof(path), "%s/%s", dir, file) < (int) sizeof(path)
           && access(path, F_OK) == 0;
}

int st_open(struct st **out, const char *dir, struct err *e)
{
    struct st *st = calloc(1, sizeof(*st));
    int rc;

    if (st == NULL)
        return err_set(e, E_IO, "out of memory");

    if (exists(dir, "model.safetensors") || !exists(dir, INDEX)) {
        rc = open_shard(st, dir, SLICE("model.safetensors"), e);
        if (rc == 0)
            rc = sort_names(st, e);
    } else {
        rc = open_index(st, dir, e);
    }

    if (rc < 0) {
        st_close(st);
        return rc;
    }
    *out = st;
    return 0;
}

int st_open_mem(struct st **out, const void *p, size_t n, const char *name, struct err *e)
{
    struct st *st = calloc(1, sizeof(*st));
    struct shard s = { .file = name, .fd = -1 };
    uint64_t bytes;
    int rc;

    if (st == NULL)
        return err_set(e, E_IO, "out of memory");
    if ((rc = header_bytes(p, n, name, &bytes, e)) == 0) {
        s.off = 8 + bytes;
        s.data = (const char *) p + s.off;
        s.bytes = n - s.off;
        rc = read_header(st, (const char *) p + 8, bytes, &s, e);
    }
    if (rc == 0)
        rc = sort_names(st, e);
    if (rc < 0) {
        st_close(st);
        return rc;
    }
    *out = st;
    return 0;
}

void st_close(struct st *st)
{
    if (st == NULL)
        return;
    for (int32_t i = 0; i < st->n; i++)
        free((void *) st->t[i].name);
    for (int i = 0; i < st->n_map; i++) {
        if (st->map[i].p != NULL)
            munmap(st->map[i].p, st->map[i].n);
        close(st->map[i].fd);
        free(st->map[i].file);
    }
    free(st->t);
    free(st);
}

int32_t st_count(const struct st *st)
{
    return st->n;
}

struct st_tensor *st_at(struct st *st, int32_t i)
{
    return &st->t[i];
}

struct st_tensor *st_find(struct st *st, const char *name)
{
    struct st_tensor key = { .name = name };

    if (st->n == 0)
        return NULL;
    return bsearch(&key, st->t, (size_t) st->n, sizeof(*st->t), by_name);
}
