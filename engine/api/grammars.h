/* grammars.h - compiled grammars that requests share, found by what they were made of.
 *
 * One cache for all api threads, bounded in bytes: the one that was asked for longest ago goes
 * first. A grammar lives as long as somebody holds it, in the cache or not. It must be warm before
 * it is put here: from then on its masks belong to the core's thread (matcher.h). */
#ifndef API_GRAMMARS_H
#define API_GRAMMARS_H

#include "hash.h"
#include "matcher.h"

struct grammars;

struct kept {                          /* a shared grammar; its holders read the first two */
    struct grammar *grammar;
    struct matcher *start;             /* where each answer begins: to be cloned; may be NULL */
    struct kept    *next;              /* of the same bucket */
    struct kept    *older, *newer;     /* by when it was asked for */
    struct hash128  hash;
    int             n_hold;
    bool            listed;            /* in the cache: that is one hold */
    size_t          bytes;             /* of all of it, masks too, when somebody last let it go */
    size_t          n_source;
    char            source[];
};

struct grammars_stats {
    uint64_t hits, misses, bytes, n;
    uint64_t made, refused, made_ns;   /* compiled ones, those that failed; the time of both */
};

/* bytes_max: of those that are listed. NULL: out of memory. */
struct grammars *grammars_open(const struct hash_key *key, size_t bytes_max);
void grammars_close(struct grammars *c);         /* NULL is fine; nobody holds one any more */

/* The one made of source, held, or NULL. */
struct kept *grammars_find(struct grammars *c, struct slice source);
/* The same for one that was just made, and its start. They are c's from here on, and go at once if
 * another thread was quicker. NULL: out of memory. */
struct kept *grammars_put(struct grammars *c, struct slice source, struct grammar *g,
                          struct matcher *start);
void grammars_drop(struct grammars *c, struct kept *k);
/* One was compiled, or could not be. */
void grammars_count(struct grammars *c, bool made, uint64_t ns);
void grammars_stats(struct grammars *c, struct grammars_stats *s);

#endif
