#include "keys.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "limits.h"

#define LINE_MAX_BYTES  (API_KEY_BYTES_MAX + API_KEY_NAME_MAX + 16)
#define FILE_MAX_BYTES  ((size_t) API_KEY_MAX * LINE_MAX_BYTES)

struct entry { struct hash128 key, tenant; enum key_role role; };

struct table { int n; struct entry entry[API_KEY_MAX]; };

struct keyring {
    const char            *path;
    const struct hash_key *secret;
    pthread_rwlock_t       lock;    /* of table; a writer only swaps the pointer */
    struct table          *table;
};

enum hashed { HASHED_KEY, HASHED_NAME };     /* a name that looks like a key is still a name */

static struct hash128 hash(const struct keyring *k, enum hashed what, struct slice s)
{
    uint64_t word = what;

    return hash_bytes(k->secret, &word, 1, s.p, s.n);
}

static bool same(struct hash128 x, struct hash128 y)
{
    return ((x.a ^ y.a) | (x.b ^ y.b)) == 0;
}

/* The next word of a line; n 0: none. */
static struct slice word(struct slice *line)
{
    struct slice w;

    while (line->n > 0 && (*line->p == ' ' || *line->p == '\t' || *line->p == '\r'))
        line->p++, line->n--;
    for (w = (struct slice) { line->p, 0 }; w.n < line->n; w.n++)
        if (w.p[w.n] == ' ' || w.p[w.n] == '\t' || w.p[w.n] == '\r')
            break;
    line->p += w.n;
    line->n -= w.n;
    return w;
}

static bool printable(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x21 || s.p[i] > 0x7e)
            return false;
    return true;
}

static int read_line(const struct keyring *k, struct table *t, struct slice line, struct err *e)
{
    struct slice key = word(&line), name = word(&line), role = word(&line);
    struct entry new = { .role = role.n > 0 ? KEY_ADMIN : KEY_USER };

    if (key.n == 0 || key.p[0] == '#')
        return 0;
    if (key.n < API_KEY_BYTES_MIN || key.n > API_KEY_BYTES_MAX || !printable(key))
        return err_set(e, E_INVALID, "a key has %d to %d printable bytes", API_KEY_BYTES_MIN,
                       API_KEY_BYTES_MAX);
    if (name.n > API_KEY_NAME_MAX || !printable(name))
        return err_set(e, E_INVALID, "a name has at most %d printable bytes", API_KEY_NAME_MAX);
    if ((role.n > 0 && !slice_is(role, "admin")) || word(&line).n > 0)
        return err_set(e, E_INVALID, "behind key and name only \"admin\" can stand");
    if (t->n == API_KEY_MAX)
        return err_set(e, E_INVALID, "there may be %d keys at most", API_KEY_MAX);

    new.key = hash(k, HASHED_KEY, key);
    new.tenant = name.n > 0 ? hash(k, HASHED_NAME, name) : new.key;
    for (int i = 0; i < t->n; i++)
        if (same(t->entry[i].key, new.key))
            return err_set(e, E_INVALID, "this key stands in an earlier line already");
    t->entry[t->n++] = new;
    return 0;
}

static int read_lines(const struct keyring *k, struct table *t, struct slice text, struct err *e)
{
    struct err why;

    for (int n = 1; text.n > 0; n++) {
        const char  *end = memchr(text.p, '\n', text.n);
        struct slice line = { text.p, end != NULL ? (size_t) (end - text.p) : text.n };

        if (read_line(k, t, line, &why) != 0)
            return err_set(e, E_INVALID, "%s:%d: %s", k->path, n, why.msg);
        text.p += line.n + (end != NULL);
        text.n -= line.n + (end != NULL);
    }
    return t->n > 0 ? 0 : err_set(e, E_INVALID, "%s: no key in it", k->path);
}

/* The text is wiped: keys live in the file only. */
static int read_file(const struct keyring *k, struct table *t, struct err *e)
{
    struct stat is;
    int    fd = open(k->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), rc;   /* a pipe must not wait */
    FILE  *f = fd < 0 ? NULL : fdopen(fd, "r");
    char  *text = malloc(FILE_MAX_BYTES + 1);
    size_t n = 0;

    if (f == NULL) {
        rc = err_set(e, E_IO, "%s: %s", k->path, strerror(errno));
        if (fd >= 0)
            close(fd);
    } else if (fstat(fd, &is) != 0 || !S_ISREG(is.st_mode)) {
        rc = err_set(e, E_INVALID, "%s: not a regular file", k->path);
    } else if (text == NULL) {
        rc = err_set(e, E_FULL, "%s: out of memory", k->path);
    } else {
        setvbuf(f, NULL, _IONBF, 0);
        n = fread(text, 1, FILE_MAX_BYTES + 1, f);
        if (ferror(f))
            rc = err_set(e, E_IO, "%s: cannot be read", k->path);
        else if (n > FILE_MAX_BYTES)
            rc = err_set(e, E_INVALID, "%s: longer than %zu bytes", k->path, FILE_MAX_BYTES);
        else
            rc = read_lines(k, t, (struct slice) { text, n }, e);
    }

    if (text != NULL)
        explicit_bzero(text, n);
    free(text);
    if (f != NULL)
        fclose(f);
    return rc;
}

int keyring_reload(struct keyring *k, struct err *e)
{
    struct table *t = calloc(1, sizeof(*t)), *old;
    int           rc;

    if (t == NULL)
        return err_set(e, E_FULL, "%s: out of memory", k->path);
    rc = read_file(k, t, e);
    if (rc != 0) {
        free(t);
        return rc;
    }

    pthread_rwlock_wrlock(&k->lock);
    old = k->table;
    k->table = t;
    pthread_rwlock_unlock(&k->lock);
    free(old);
    return 0;
}

int keyring_open(struct keyring **out, const char *path, const struct hash_key *secret,
                 struct err *e)
{
    struct keyring *k = calloc(1, sizeof(*k));
    int             rc;

    if (k == NULL)
        return err_set(e, E_FULL, "%s: out of memory", path);
    k->path = path;
    k->secret = secret;
    pthread_rwlock_init(&k->lock, NULL);

    rc = keyring_reload(k, e);
    if (rc != 0) {
        keyring_close(k);
        return rc;
    }
    *out = k;
    return 0;
}

void keyring_close(struct keyring *k)
{
    if (k == NULL)
        return;
    pthread_rwlock_destroy(&k->lock);
    free(k->table);
    free(k);
}

enum key_role keyring_find(struct keyring *k, struct slice key, struct hash128 *tenant)
{
    struct hash128 h = hash(k, HASHED_KEY, key);
    enum key_role  role = KEY_NONE;

    pthread_rwlock_rdlock(&k->lock);
    for (int i = 0; i < k->table->n; i++) {
        if (same(k->table->entry[i].key, h)) {
            role = k->table->entry[i].role;
            *tenant = k->table->entry[i].tenant;
        }
    }
    pthread_rwlock_unlock(&k->lock);
    return role;
}

int keyring_n(struct keyring *k, enum key_role role)
{
    int n = 0;

    pthread_rwlock_rdlock(&k->lock);
    for (int i = 0; i < k->table->n; i++)
        n += k->table->entry[i].role == role;
    pthread_rwlock_unlock(&k->lock);
    return n;
}
