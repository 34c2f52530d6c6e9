/* matcher_priv.h - what vocab.c, walk.c, mask.c and matcher.c share.
 *
 * A reading of a text is a stack: the state of the rule that is being read, and frames, each the
 * state where a rule goes on that called another. A top is a reading between two tokens. */
#ifndef GRAMMAR_MATCHER_PRIV_H
#define GRAMMAR_MATCHER_PRIV_H

#include "matcher.h"

#define VOCAB_BYTES_MAX 512              /* of a token; longer ones never come under a grammar */
#define NONE UINT32_MAX

/* Texts in order of their bytes, so that a walk through them shares what they begin with. */
struct rest { uint32_t at; int32_t id; uint32_t next; uint16_t n, lcp; };
struct rests { struct rest *p; uint32_t n; };
/* at: in the vocabulary's bytes; lcp: bytes in common with the one before; next: the first one
 * behind that has no more than lcp in common with its predecessor. */

struct vocab {
    struct rests all;                    /* of the ids with bytes */
    uint8_t     *bytes;
    uint32_t    *place;                  /* [n] in all; NONE: no text */
    uint32_t    *special;                /* [(n + 31) / 32] bits */
    uint32_t     n_first[256];           /* by the first byte */
    int32_t      n;
};

/* Fill in lcp and next of texts that are sorted. */
void rests_link(struct rests *r, const uint8_t *bytes);
/* Sort by bytes, then link. False: out of memory. */
bool rests_sort(struct rests *r, const uint8_t *bytes);

/* The first one behind i that does not begin with the same p + 1 bytes, p >= lcp of i. */
static inline uint32_t rests_skip(const struct rests *r, uint32_t i, uint32_t p)
{
    for (i++; i < r->n && r->p[i].lcp > p; i = r->p[i].next) { }
    return i;
}

static inline bool vocab_is_special(const struct vocab *v, int32_t id)
{
    return v->special[id / 32] >> (id % 32) & 1;
}

/* What is known of a grammar's states and rules at once. */
enum { FACT_ENDS = 1, FACT_CALLS = 2, FACT_LEAF = 4 };
/* ENDS: its rule may end here, perhaps with empty calls; CALLS: has some; LEAF: only ends. */
#define FACT_NEVER (MATCHER_DEPTH_MAX + 1)
#define FACT_TOKEN 256
struct facts {
    uint8_t  *state;                     /* [n_state] */
    uint16_t *rise;                      /* [n_state] frames that the rule's end takes at least */
    uint64_t (*first)[5];                /* [n_rule] bytes that it can begin with, FACT_TOKEN */
};

bool facts_open(struct facts *f, const struct grammar *g);      /* false: out of memory */
void facts_close(struct facts *f);

struct facts_room { uint32_t *mark, *pend, stamp; };
bool facts_room_open(struct facts_room *r, const struct grammar *g);    /* close it also if false */
void facts_room_close(struct facts_room *r);
/* Add what a state can begin with to first. */
void facts_first(const struct facts *f, const struct grammar *g, uint32_t state,
                 struct facts_room *r, uint64_t *first);

/* The readings of a text while its bytes come, level p after p bytes. All readings of a part stand
 * on its bottom; one that ends the bottom's rule makes a part that goes on below. Parts do not
 * know of each other, so what comes of one depends on its start and the bytes alone, also where
 * there are too many readings and some are dropped. */
#define WALK_ITEM_MAX  (1u << 15)
#define WALK_PART_MAX  (1u << 12)
#define WALK_FRAME_MAX (1u << 15)
#define WALK_TODO_MAX  (1u << 10)         /* rules entered and left between two bytes */
#define WALK_HASH      (1u << 12)
#define WALK_ROWS      64

struct item  { uint32_t state, frame; };
struct frame { uint32_t state, below, depth, same; };    /* same: next of its hash */
struct part  { uint32_t bottom, of, item, n; };          /* of: the frame that it began with */
struct seen  { uint32_t stamp, pend; };
struct level {
    uint32_t part, n_part, n_item, n_frame;
    uint32_t step;                       /* edges taken in the bottom's rule, or fewer */
    uint32_t n_cross;                    /* levels 1 .. this one where frame 0 was reached */
    bool     cross;
};

/* A level of one reading in the middle of a rule without calls, as nearly all are: only its state
 * is noted, all else is as at level base. Of other levels base is their own. */
struct lone { uint32_t state, base; };

struct walk {
    const struct grammar *g;
    struct facts facts;
    struct level level[VOCAB_BYTES_MAX + 1];
    struct lone  lone[VOCAB_BYTES_MAX + 1];
    struct item  item[WALK_ITEM_MAX];
    struct part  part[WALK_PART_MAX];
    struct frame frame[WALK_FRAME_MAX];  /* 0: the bottom of all, whatever that is */
    uint32_t     hash[WALK_HASH];
    uint32_t     map[WALK_FRAME_MAX];    /* matcher.c's: where frames go that are kept */
    uint32_t     n_item, n_part, n_frame;
    uint32_t     n_kept;                 /* frames that a new start leaves */
    uint32_t     n_clear;                /* times that all of it was made empty */
    struct item  pend[WALK_TODO_MAX];
    uint32_t     n_pend, stamp;
    struct seen  seen[2 * WALK_TODO_MAX];        /* where pend has what, if of this stamp */
    uint32_t     depth_max;
    uint64_t     work;                   /* readings looked at, ever */
    uint32_t     rise, width;            /* most frames and readings of a part so far */
    uint32_t     extra;                  /* edges taken in the bottom's rule without a byte */
    bool         refused;                /* something, for its depth */
    struct { uint32_t state, to[256]; } row[WALK_ROWS];
};

/* All that is taken can be finished without going deeper than depth_max. */
struct walk *walk_open(const struct grammar *g);         /* NULL: out of memory */
void walk_close(struct walk *w);                         /* NULL is fine */
void walk_clear(struct walk *w, uint32_t depth_max);     /* frame 0 is left */
/* The frame {state, below}, new or not; NONE: too deep, or no room. */
uint32_t walk_push(struct walk *w, uint32_t state, uint32_t below);
void walk_keep(struct walk *w);          /* the frames that are there */
/* Level 0: one reading. */
void walk_start(struct walk *w, uint32_t state, uint32_t frame);
/* Level 0: what goes on when the rule above frame has ended. */
void walk_start_below(struct walk *w, uint32_t frame);
/* From level p to p + 1 by a byte, or 256 + the id of a special token. False: no reading left. */
bool walk_step(struct walk *w, uint32_t p, uint32_t sym);
/* On from level p by bytes p .. n of s while that is simple: how far it came. */
uint32_t walk_run(struct walk *w, uint32_t p, const uint8_t *s, uint32_t n);
/* Level p in full. */
const struct level *walk_at(struct walk *w, uint32_t p);
/* Call put for each special token that can come at level 0. */
void walk_tokens(struct walk *w, void (*put)(void *arg, int32_t id), void *arg);

/* Texts of a list that are not decided above the bottom: the rest of each from where the bottom's
 * rule may have ended, and those that are too long to tell. */
struct open {
    struct rest *below, *whole;
    uint32_t     n_below, n_whole, cap_below, cap_whole;
    bool         failed;                 /* out of memory */
};
/* Set the bits of all texts that some reading from level 0 takes. o: NULL, or collects. */
void walk_list(struct walk *w, const struct rests *r, const uint8_t *bytes, uint32_t *mask,
               struct open *o);

/* What can come at a state whatever is below it. */
struct mask {
    struct mask *other;                  /* of the same alike */
    uint32_t     alike, state;           /* state NONE: of all that are alike */
    uint32_t     room, rise;
    bool         refused;                /* good for this room only; else for rise and more */
    uint64_t     used;
    size_t       bytes;
    uint32_t     n_in;
    int32_t     *in;                     /* [n_in] ids, or NULL: as bits */
    uint32_t    *bits;
    struct rests below, whole;
};

struct mask_cache {
    struct walk        *walk;
    const struct vocab *vocab;           /* of the masks that are here */
    struct mask       **of;              /* [n_alike] */
    uint32_t           *bits;            /* one mask being made */
    uint64_t            now;
    _Atomic size_t      bytes;
    size_t              bytes_max;
    uint64_t            work_max;        /* of grammar_warm */
    uint32_t            n_alike;
};

/* g's, made if it has none; v changes: the masks go. NULL: out of memory. */
struct mask_cache *mask_cache(struct grammar *g, const struct vocab *v);
void mask_cache_free(struct mask_cache *c);              /* NULL is fine */
/* NULL: out of memory. Uses the walk. Valid until the next call. */
const struct mask *mask_get(struct mask_cache *c, uint32_t state, uint32_t room);

#endif
