/* tok_priv.h - what tok_load.c builds and tok.c reads. Read-only after tok_open. */
#ifndef TEXT_TOK_PRIV_H
#define TEXT_TOK_PRIV_H

#include "tok.h"

#include <string.h>

#define MEET_BITS  21               /* 256 KiB, small enough to stay in the L2 cache */
#define SPACE_MARK "\xe2\x96\x81"   /* U+2581, what a space becomes */

enum { TOK_HOLE, TOK_PLAIN, TOK_BYTE, TOK_SPECIAL };

/* An open-addressing table from a pair of ids to a merge. Rank is the place in the file's list. */
struct tok_merge { uint64_t pair; int32_t rank, id; };

struct tok {
    int32_t           n_vocab;
    struct slice     *entry;        /* [n_vocab], as the file spells it */
    struct slice     *text;         /* [n_vocab], decoded; shares bytes with entry where equal */
    uint8_t          *kind;         /* [n_vocab], enum above */
    char             *blob;         /* the bytes of both */

    int32_t          *by_text;      /* open addressing, ids, -1 empty */
    uint32_t          by_text_mask;
    int32_t           byte_id[256];
    int32_t           bmp_id[0x10000];  /* entry of one BMP character, or -1 */

    struct tok_merge *merge;        /* rank -1: empty slot */
    uint32_t          merge_mask;
    int32_t          *merged;       /* [n_merges]: the product of each rank */
    int32_t           n_merges;

    int32_t          *special;      /* [n_special], longest text first */
    int32_t           n_special;
    bool              special_first[256];   /* bytes that a special token can begin with */

    /* Bloom filter over (last symbol of a left side, first symbol of a right side) of all merges.
     * Two neighbours that are not in it never end up in one token, so the text is cut there. */
    uint64_t          meet[1 << (MEET_BITS - 6)];
};

static inline uint64_t tok_pair(int32_t a, int32_t b)
{
    return (uint64_t) (uint32_t) a << 32 | (uint32_t) b;
}

static inline uint64_t tok_mix(uint64_t x)
{
    x *= 0x9E3779B97F4A7C15u;
    return x ^ x >> 32;
}

/* The slot that holds the pair, or the empty one where it would go. */
static inline struct tok_merge *tok_merge_slot(const struct tok *t, uint64_t pair)
{
    uint64_t i = tok_mix(pair);

    while (t->merge[i & t->merge_mask].rank >= 0 && t->merge[i & t->merge_mask].pair != pair)
        i++;
    return &t->merge[i & t->merge_mask];
}

static inline bool tok_meets(const struct tok *t, int32_t a, int32_t b)
{
    uint64_t bit = tok_mix(tok_pair(a, b)) & ((1u << MEET_BITS) - 1);

    return t->meet[bit >> 6] >> (bit & 63) & 1;
}

/* The entry with exactly these bytes, or -1. */
int32_t tok_find(const struct tok *t, struct slice s);

/* The entry of the one character at p, len bytes of valid UTF-8, or -1. */
int32_t tok_find_char(const struct tok *t, const char *p, int len);

#endif
