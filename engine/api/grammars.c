#include "grammars.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define N_BUCKET 1024

struct grammars {
    pthread_mutex_t lock;              /* of all below; never held while a grammar is made */
    struct hash_key key;
    size_t          bytes_max;
    struct kept    *bucket[N_BUCKET];
    struct kept    *oldest, *newest;
    struct grammars_stats stats;
};

struct grammars *grammars_open(const struct hash_key *key, size_t bytes_max)
{
    struct grammars *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    pthread_mutex_init(&c->lock, NULL);
    c->key = *key;
    c->bytes_max = bytes_max;
    return c;
}

static void kept_free(struct kept *k)
{
    if (k->start != NULL)
        matcher_close(k->start);
    grammar_free(k->grammar);
    free(k);
}

static size_t weight(const struct kept *k)
{
    return sizeof(*k) + k->n_source + k->grammar->bytes + grammar_mask_bytes(k->grammar);
}

/* From here on under the lock. */

static struct kept **place_of(struct grammars *c, struct hash128 h)
{
    return &c->bucket[h.a % N_BUCKET];
}

static void link_newest(struct grammars *c, struct kept *k)
{
    k->older = c->newest;
    k->newer = NULL;
    *(c->newest != NULL ? &c->newest->newer : &c->oldest) = k;
    c->newest = k;
}

static void unlink_age(struct grammars *c, struct kept *k)
{
    *(k->older != NULL ? &k->older->newer : &c->oldest) = k->newer;
    *(k->newer != NULL ? &k->newer->older : &c->newest) = k->older;
}

/* Hashes may be alike: the bytes decide. */
static struct kept *find(struct grammars *c, struct hash128 h, struct slice source)
{
    struct kept *k = *place_of(c, h);

    while (k != NULL && (k->hash.a != h.a || k->hash.b != h.b || k->n_source != source.n
                         || memcmp(k->source, source.p, source.n) != 0))
        k = k->next;
    if (k != NULL) {
        k->n_hold++;
        unlink_age(c, k);
        link_newest(c, k);
    }
    return k;
}

static void list(struct grammars *c, struct kept *k)
{
    struct kept **place = place_of(c, k->hash);

    k->next = *place;
    *place = k;
    link_newest(c, k);
    k->listed = true;
    k->n_hold++;
    c->stats.bytes += k->bytes;
    c->stats.n++;
}

/* True: nobody holds it any more, and the caller frees it. */
static bool unlist(struct grammars *c, struct kept *k)
{
    struct kept **at = place_of(c, k->hash);

    while (*at != k)
        at = &(*at)->next;
    *at = k->next;
    unlink_age(c, k);
    k->listed = false;
    c->stats.bytes -= k->bytes;
    c->stats.n--;
    return --k->n_hold == 0;
}

/* The oldest ones that are too much; those to be freed, by their next. */
static struct kept *evict(struct grammars *c)
{
    struct kept *gone = NULL, *k;

    while (c->stats.bytes > c->bytes_max) {
        k = c->oldest;
        if (unlist(c, k)) {
            k->next = gone;
            gone = k;
        }
    }
    return gone;
}

/* To here. */

static void free_all(struct kept *k)
{
    for (struct kept *next; k != NULL; k = next) {
        next = k->next;
        kept_free(k);
    }
}

void grammars_close(struct grammars *c)
{
    if (c == NULL)
        return;
    c->bytes_max = 0;
    free_all(evict(c));
    pthread_mutex_destroy(&c->lock);
    free(c);
}

struct kept *grammars_find(struct grammars *c, struct slice source)
{
    struct hash128 h = hash_bytes(&c->key, NULL, 0, source.p, source.n);
    struct kept   *k;

    pthread_mutex_lock(&c->lock);
    k = find(c, h, source);
    *(k != NULL ? &c->stats.hits : &c->stats.misses) += 1;
    pthread_mutex_unlock(&c->lock);
    return k;
}

struct kept *grammars_put(struct grammars *c, struct slice source, struct grammar *g,
                          struct matcher *start)
{
    struct kept *mine = malloc(sizeof(*mine) + source.n), *k, *gone;

    if (mine == NULL) {
        if (start != NULL)
            matcher_close(start);
        grammar_free(g);
        return NULL;
    }
    *mine = (struct kept) {
        .grammar = g, .start = start, .n_source = source.n,
        .hash = hash_bytes(&c->key, NULL, 0, source.p, source.n),
    };
    memcpy(mine->source, source.p, source.n);
    mine->bytes = weight(mine);

    pthread_mutex_lock(&c->lock);
    k = find(c, mine->hash, source);
    if (k == NULL) {
        k = mine;
        k->n_hold = 1;
        list(c, k);
        mine = NULL;
    }
    gone = evict(c);
    pthread_mutex_unlock(&c->lock);

    free_all(gone);
    if (mine != NULL)
        kept_free(mine);
    return k;
}

void grammars_drop(struct grammars *c, struct kept *k)
{
    struct kept *gone;
    size_t       bytes;
    bool         last;

    if (k == NULL)
        return;
    bytes = weight(k);
    pthread_mutex_lock(&c->lock);
    assert(k->n_hold > 0);
    if (k->listed)
        c->stats.bytes += bytes - k->bytes;
    k->bytes = bytes;
    last = --k->n_hold == 0;
    gone = evict(c);
    pthread_mutex_unlock(&c->lock);
    free_all(gone);
    if (last)
        kept_free(k);
}

void grammars_count(struct grammars *c, bool made, uint64_t ns)
{
    pthread_mutex_lock(&c->lock);
    *(made ? &c->stats.made : &c->stats.refused) += 1;
    c->stats.made_ns += ns;
    pthread_mutex_unlock(&c->lock);
}

void grammars_stats(struct grammars *c, struct grammars_stats *s)
{
    pthread_mutex_lock(&c->lock);
    *s = c->stats;
    pthread_mutex_unlock(&c->lock);
}
