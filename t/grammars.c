/* t/grammars.c - grammars that are kept: found by what they were made of, bounded in bytes, alive
 * as long as somebody holds one. */
#include "grammars.h"
#include "tap.h"

#include <pthread.h>
#include <stdlib.h>

#define THREAD_N   4
#define ROUND_N    3000
#define SOURCE_N   24

static const struct hash_key key = { 3, 4 };
static struct grammars *cache;

static struct slice source_of(int i, char *room, size_t size)
{
    return (struct slice) { room, (size_t) snprintf(room, size, "source %d", i) };
}

/* A grammar of i + 1 different texts. */
static struct grammar *make(int i)
{
    struct grammar_make *m = grammar_make(0);
    struct grammar      *g = NULL;
    gram                 all = grammar_text(m, "a");
    char                 text[16];

    for (int k = 0; k < i; k++) {
        snprintf(text, sizeof(text), "%d", k);
        all = grammar_alt(m, all, grammar_text(m, text));
    }
    if (grammar_compile(&g, m, all, NULL) != 0)
        abort();
    grammar_make_free(m);
    return g;
}

static struct kept *take(int i)
{
    char         room[32];
    struct slice s = source_of(i, room, sizeof(room));
    struct kept *k = grammars_find(cache, s);

    return k != NULL ? k : grammars_put(cache, s, make(i), NULL);
}

static void basics(void)
{
    struct grammars_stats s;
    struct kept          *a, *b, *c;
    char                  room[32];
    size_t                bytes;

    cache = grammars_open(&key, 1 << 20);
    ok(grammars_find(cache, source_of(1, room, sizeof(room))) == NULL, "nothing is there");
    a = take(1);
    bytes = a->bytes;
    ok(take(1) == a, "the same source, the same grammar");
    ok(grammars_find(cache, (struct slice) { room, 7 }) == NULL, "a part of it is another source");
    b = grammars_put(cache, source_of(1, room, sizeof(room)), make(1), NULL);
    ok(b == a, "who comes second gets the first one's");
    c = take(2);
    ok(c != a && c->grammar != a->grammar, "another source, another grammar");
    grammars_stats(cache, &s);
    is_int(s.hits, 1, "hits");
    is_int(s.misses, 4, "misses");
    is_int(s.n, 2, "two are kept");
    is_int(s.bytes, bytes + c->bytes, "and their bytes are known");
    ok(bytes > a->grammar->bytes, "more than the grammar's own");
    grammars_count(cache, true, 1000);
    grammars_count(cache, false, 500);
    grammars_stats(cache, &s);
    ok(s.made == 1 && s.refused == 1 && s.made_ns == 1500, "what was compiled is counted");
    for (int i = 0; i < 3; i++)
        grammars_drop(cache, a);
    grammars_drop(cache, c);
    grammars_drop(cache, NULL);
    ok(take(1) == a, "it stays when nobody holds it");
    grammars_drop(cache, a);
    grammars_close(cache);
    grammars_close(NULL);
}

static void bounded(void)
{
    struct grammars_stats s;
    struct kept          *first, *held, *k;
    char                  room[32];

    cache = grammars_open(&key, 0);
    first = take(0);
    grammars_stats(cache, &s);
    ok(s.n == 0 && s.bytes == 0 && first->grammar->n_state > 0, "what is too large is not kept");
    k = take(0);
    ok(k != first, "and made again");
    grammars_drop(cache, k);
    grammars_drop(cache, first);
    grammars_close(cache);

    cache = grammars_open(&key, 3 * 1024);
    held = take(0);
    for (int i = 1; i < 100; i++) {
        grammars_drop(cache, take(i % 7));
        grammars_stats(cache, &s);
        if (s.bytes > 3 * 1024)
            break;
    }
    ok(s.bytes <= 3 * 1024 && s.n >= 1, "never more bytes than may be: %llu of %llu grammars",
       (unsigned long long) s.bytes, (unsigned long long) s.n);

    grammars_drop(cache, take(0));       /* the newest now, one more becomes it */
    grammars_drop(cache, take(50));
    for (int i = 51; i < 90; i++)
        grammars_drop(cache, take(i));
    ok(grammars_find(cache, source_of(0, room, sizeof(room))) == NULL, "the oldest goes");
    is_int(held->grammar->rule[0] < held->grammar->n_state, 1, "who holds it does not notice");
    grammars_drop(cache, held);
    grammars_close(cache);
}

static void *worker(void *arg)
{
    uint64_t     seed = (uint64_t) (size_t) arg * 7919 + 1;
    struct kept *have[8] = { NULL };
    size_t       bad = 0;

    for (int i = 0; i < ROUND_N; i++) {
        int at, source;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        at = (int) (seed >> 40) % 8;
        source = (int) (seed >> 50) % SOURCE_N;
        grammars_drop(cache, have[at]);
        have[at] = take(source);
        bad += have[at] == NULL || have[at]->grammar->n_state == 0;
    }
    for (int i = 0; i < 8; i++)
        grammars_drop(cache, have[i]);
    return (void *) bad;
}

static void shared(void)
{
    pthread_t             t[THREAD_N];
    struct grammars_stats s;
    size_t                bad = 0;
    void                 *n;

    cache = grammars_open(&key, 16 * 1024);
    for (size_t i = 0; i < THREAD_N; i++)
        pthread_create(&t[i], NULL, worker, (void *) i);
    for (size_t i = 0; i < THREAD_N; i++) {
        pthread_join(t[i], &n);
        bad += (size_t) n;
    }
    grammars_stats(cache, &s);
    is_int(bad, 0, "%d threads find what they look for", THREAD_N);
    is_int(s.hits + s.misses, THREAD_N * ROUND_N, "each time it was there, or not");
    ok(s.bytes <= 16 * 1024, "within bounds");
    grammars_close(cache);
}

int main(void)
{
    basics();
    bounded();
    shared();
    return done_testing();
}
