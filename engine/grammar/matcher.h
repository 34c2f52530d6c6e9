/* matcher.h - where an answer stands in a grammar, and which tokens may come next.
 *
 * A set of stacks of automaton states is advanced byte by byte. The mask of next tokens goes by the
 * state on top: what can be said without looking below it is found once by a walk through all
 * tokens in order of their bytes and kept with the grammar; the few tokens that end the top rule
 * in their middle are tried each time. */
#ifndef GRAMMAR_MATCHER_H
#define GRAMMAR_MATCHER_H

#include "grammar.h"
#include "tok.h"

#define MATCHER_STACK_MAX 64             /* readings of the same text at once; more are dropped */
#define MATCHER_DEPTH_MAX 256            /* rules inside each other; what can only end deeper is
                                            not taken */
#define MASK_CACHE_BYTES  (8u << 20)     /* of one grammar; the oldest go */

/* Readings that the masks of an answer may look at: so many ahead, and more for each token that
 * came. Long strings of bounded length take half of it with a large vocabulary, where no mask was
 * found before; only grammars that read one text in very many ways take more. */
#define MATCHER_WORK_MAX   (8u << 20)
#define MATCHER_WORK_TOKEN (8u << 10)
#define MASKS_WORK_MAX     (32u << 20)   /* and those of all states that grammar_warm finds */

/* The tokens of a vocabulary, sorted by their bytes. Special ones have none. Read-only. */
struct vocab;
/* n: ids of the model, tok's or more. 0 or E_FULL. */
int  vocab_open(struct vocab **out, const struct tok *tok, int32_t n, struct err *e);
void vocab_close(struct vocab *v);                       /* NULL is fine */

/* Find the masks of states where that is slow before anybody waits for them; on a thread that may
 * take its time, before others see g. What the deadline (of CLOCK_THREAD_CPUTIME_ID; 0: none) and
 * 3/4 of the masks' room leave is found when it is met, some 5 ms each. 0; E_FULL: memory, or more
 * than MASKS_WORK_MAX; E_INVALID: no text of g is so flat that it could ever be taken. */
int  grammar_warm(struct grammar *g, const struct vocab *v, uint64_t deadline_ns, struct err *e);

/* What its masks take now, with what it takes to find them. Any thread. */
size_t grammar_mask_bytes(const struct grammar *g);

struct matcher;                          /* of one answer */
/* g and v are borrowed. All matchers of one g are used by one thread at a time: they fill its
 * masks. NULL: out of memory. */
struct matcher *matcher_open(struct grammar *g, const struct vocab *v);
/* Another one that stands where from does; it reads nothing else, so any thread may. NULL: out of
 * memory. */
struct matcher *matcher_clone(const struct matcher *from);
void matcher_close(struct matcher *m);                   /* NULL is fine */

/* to stands where from does; both of one g and v. */
void matcher_copy(struct matcher *to, const struct matcher *from);

/* Text or a special token came. False: the grammar does not go on like this; m stays as it was. */
bool matcher_take(struct matcher *m, int32_t id);
bool matcher_take_bytes(struct matcher *m, const char *p, size_t n);
/* Set the bits of all ids that matcher_take would take; others stay. No allocation but of cached
 * masks. */
void matcher_mask(struct matcher *m, uint32_t *mask);
bool matcher_done(const struct matcher *m);              /* what came is a whole text of g */
bool matcher_stuck(const struct matcher *m);             /* and nothing can follow */
/* Its masks took too much work: nothing is taken any more, what came may be no whole text. */
bool matcher_over(const struct matcher *m);

#endif
