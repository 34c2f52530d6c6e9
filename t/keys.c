/* keys.c - the file of API keys: its lines, its limits, a reload, and what is found. */
#include "keys.h"
#include "limits.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct hash_key secret = { 1, 2 };
static char path[] = "build/t/keys.XXXXXX";

static void put_file(const char *text, size_t n)
{
    FILE *f = fopen(path, "w");

    if (f == NULL || fwrite(text, 1, n, f) != n || fclose(f) != 0)
        exit(1);
}

/* What a file of this text says; k is NULL if it was refused. */
static struct keyring *open_n(const char *text, size_t n, struct err *e)
{
    struct keyring *k = NULL;

    put_file(text, n);
    e->msg[0] = '\0';
    return keyring_open(&k, path, &secret, e) == 0 ? k : NULL;
}

static bool refused(const char *text, const char *words)
{
    struct err      e;
    struct keyring *k = open_n(text, strlen(text), &e);
    bool            yes = k == NULL && strstr(e.msg, words) != NULL;

    if (!yes)
        printf("# %s\n", e.msg);
    keyring_close(k);
    return yes;
}

static enum key_role find(struct keyring *k, const char *key, struct hash128 *t)
{
    return keyring_find(k, (struct slice) { key, strlen(key) }, t);
}

static void lines(void)
{
    static const char text[] =
        "# the keys\n\n  sk-alice-1  alice\nsk-alice-2\talice\r\nsk-alone-1\n"
        "sk-operator  ops  admin\nsk-alice-1x sk-alone-1";
    struct hash128  a1, a2, alone, x, none = { 7, 7 };
    struct err      e;
    struct keyring *k = open_n(text, strlen(text), &e);

    if (!ok(k != NULL, "a file with comments, blanks, tabs and no last newline"))
        return;
    is_int(keyring_n(k, KEY_USER), 4, "the keys of clients");
    is_int(keyring_n(k, KEY_ADMIN), 1, "and of operators");
    is_int(find(k, "sk-alice-1", &a1), KEY_USER, "a key");
    is_int(find(k, "sk-alice-2", &a2), KEY_USER, "another of the same name");
    is_int(find(k, "sk-alone-1", &alone), KEY_USER, "one without a name");
    is_int(find(k, "sk-alice-1x", &x), KEY_USER, "one whose name looks like a key");
    is_int(find(k, "sk-operator", &x), KEY_ADMIN, "an operator's");
    ok(memcmp(&a1, &a2, sizeof(a1)) == 0, "keys of one name are one tenant");
    ok(memcmp(&a1, &alone, sizeof(a1)) != 0, "a key without a name is another");
    find(k, "sk-alice-1x", &x);
    ok(memcmp(&x, &alone, sizeof(x)) != 0, "and no name can be a key's tenant");
    is_int(find(k, "sk-alice", &none), KEY_NONE, "a part of a key is none");
    is_int(find(k, "alice", &none), KEY_NONE, "nor is a name");
    is_int(find(k, "", &none), KEY_NONE, "nor nothing");
    is_int(find(k, "sk-alice-1 ", &none), KEY_NONE, "nor a key with a blank");
    is_int(find(k, "#", &none), KEY_NONE, "nor a comment");
    is_int(none.a, 7, "which leave the tenant alone");
    keyring_close(k);
}

static void reload(void)
{
    struct hash128  t;
    struct err      e;
    struct keyring *k = open_n("first-key\n", 10, &e);

    put_file("second-key", 10);
    is_int(keyring_reload(k, &e), 0, "a reload");
    is_int(find(k, "second-key", &t), KEY_USER, "brings new keys");
    is_int(find(k, "first-key", &t), KEY_NONE, "and drops the others");
    put_file("third-key\nshort", 15);
    is_int(keyring_reload(k, &e), E_INVALID, "a reload of a wrong file fails");
    is_int(find(k, "second-key", &t), KEY_USER, "and changes nothing");
    unlink(path);
    is_int(keyring_reload(k, &e), E_IO, "so does one without a file");
    is_int(find(k, "second-key", &t), KEY_USER, "which changes nothing either");
    keyring_close(k);
}

static void limits(void)
{
    static char     big[(API_KEY_MAX + 2) * 400];
    struct hash128  t;
    struct keyring *k;
    struct err      e;
    size_t          n = 0;

    ok(refused("", "no key in it"), "an empty file");
    ok(refused("# nothing\n \n", "no key in it"), "a file of comments");
    ok(refused("good-key-1\n1234567\n", ":2: a key has 8"), "a short key, by its line");
    ok(refused("good-key-1 a b\n", "only \"admin\""), "an unknown role");
    ok(refused("good-key-1 a admin x\n", "only \"admin\""), "a fourth word");
    ok(refused("good-key-1 a\ngood-key-1 b\n", ":2: this key stands"), "a key twice");
    ok(refused("k\xc3\xa4sekuchen-1\n", "printable"), "a key that no header can carry");
    is_int(open_n("good-key\0x\n", 11, &e) == NULL, 1, "a NUL");
    ok(strstr(e.msg, "good-key") == NULL, "which the words do not quote");

    memset(big, 'k', 300);
    k = open_n(big, API_KEY_BYTES_MAX, &e);
    big[API_KEY_BYTES_MAX] = '\0';
    ok(k != NULL && find(k, big, &t) == KEY_USER, "the longest key");
    keyring_close(k);
    big[API_KEY_BYTES_MAX] = 'k';
    is_int(open_n(big, API_KEY_BYTES_MAX + 1, &e) == NULL, 1, "one byte more");

    for (int i = 0; i < API_KEY_MAX; i++)
        n += (size_t) sprintf(big + n, "key-number-%d\n", i);
    k = open_n(big, n, &e);
    ok(k != NULL && keyring_n(k, KEY_USER) == API_KEY_MAX, "as many keys as may be");
    keyring_close(k);
    n += (size_t) sprintf(big + n, "key-number-%d\n", API_KEY_MAX);
    is_int(open_n(big, n, &e) == NULL, 1, "one more");
    memset(big, '#', sizeof(big));
    is_int(open_n(big, sizeof(big), &e) == NULL, 1, "a file that is too long");
    ok(strstr(e.msg, "longer than") != NULL, "in words");
}

/* A pipe that nobody writes to must not be waited for. */
static void no_file(void)
{
    struct keyring *k = NULL;
    struct err      e;

    unlink(path);
    ok(keyring_open(&k, path, &secret, &e) != 0, "no file: %s", e.msg);
    is_int(mkfifo(path, 0600), 0, "a pipe,");
    alarm(120);
    ok(keyring_open(&k, path, &secret, &e) != 0 && strstr(e.msg, "not a regular file") != NULL,
       "in words: %s", e.msg);
    alarm(0);
}

int main(void)
{
    int fd = mkstemp(path);

    if (fd < 0)
        return 1;
    close(fd);
    lines();
    reload();
    limits();
    no_file();
    unlink(path);
    return done_testing();
}
