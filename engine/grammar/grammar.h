/* grammar.h - a context-free language over bytes and special tokens, compiled to automata.
 *
 * What an answer may be is built here from literals, character sets, sequences, alternatives,
 * repetitions and rules that may call each other; schema.c, regex.c and ebnf.c are its writers,
 * matcher.h runs what comes out. Every rule becomes one minimal DFA whose edges are ranges of
 * bytes, special tokens, and calls of rules; equal states of two rules are one. A rule that is not
 * recursive is copied into its callers if one place alone calls it, or if it is tiny. Left
 * recursion is refused, right and middle recursion are fine. All sizes have limits, nothing
 * recurses on input. Writing and compiling take at most 160 MiB, what comes out at most 32 MiB. */
#ifndef GRAMMAR_GRAMMAR_H
#define GRAMMAR_GRAMMAR_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GRAMMAR_NODE_MAX  (1u << 18)     /* pieces of one grammar while it is written */
#define GRAMMAR_RULE_MAX  4096
#define GRAMMAR_STATE_MAX (1u << 16)     /* of all its automata; before they are minimal 4 x */
#define GRAMMAR_LOOK      64             /* bytes: states alike for so many share their masks */

struct grammar_make;                     /* a grammar being written */
typedef int32_t gram;                    /* a piece of it; may be used in several places */

/* NULL: out of memory. Any later failure is kept: pieces are -1 from then on, and
 * grammar_compile says what it was. deadline_ns: of CLOCK_THREAD_CPUTIME_ID, 0: none. */
struct grammar_make *grammar_make(uint64_t deadline_ns);
void grammar_make_free(struct grammar_make *m);          /* NULL is fine */
/* The first failure: E_INVALID, E_FULL, in words; for writers, too. Always -1. */
gram grammar_fail(struct grammar_make *m, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

struct code_range { uint32_t lo, hi; };  /* code points, both ends in it */

gram grammar_empty(struct grammar_make *m);
gram grammar_bytes(struct grammar_make *m, const char *p, size_t n);
gram grammar_text(struct grammar_make *m, const char *s);
/* One character of these, as UTF-8; any order, may overlap; surrogates are no characters. n 0:
 * nothing matches. */
gram grammar_chars(struct grammar_make *m, const struct code_range *r, size_t n);
gram grammar_token(struct grammar_make *m, int32_t id);  /* of a special token */
gram grammar_seq(struct grammar_make *m, gram a, gram b);
gram grammar_alt(struct grammar_make *m, gram a, gram b);
gram grammar_repeat(struct grammar_make *m, gram a, int64_t min, int64_t max);   /* max -1: none */
/* Rules: each must be defined once before the end. */
int32_t grammar_rule(struct grammar_make *m);
void    grammar_define(struct grammar_make *m, int32_t rule, gram body);
gram    grammar_call(struct grammar_make *m, int32_t rule);
/* What failures call it, instead of its number: ASCII; copied. */
void    grammar_name(struct grammar_make *m, int32_t rule, const char *p, size_t n);

struct grammar_edge  { uint32_t lo, hi, to; };   /* bytes */
struct grammar_token { int32_t id; uint32_t to; };
struct grammar_call  { uint32_t rule, to; };     /* rule's text, then on at to */

struct grammar_state {
    uint32_t edge, token, call;          /* where its own begin; the next state's: where they end */
    uint32_t alike;                      /* states of one number allow the same next GRAMMAR_LOOK
                                            bytes, tokens and calls among them, and ends after each
                                            of them; a call counts as one */
    bool     accept;                     /* the rule may end here; never where a rule begins, but
                                            for the root: a call is of one byte or token at least */
};

struct grammar {                         /* read-only but for masks */
    struct grammar_state *state;         /* [n_state + 1]; from each an end can be reached */
    struct grammar_edge  *edge;          /* of a state: ascending, disjoint */
    struct grammar_token *token;         /* of a state: ascending */
    struct grammar_call  *call;          /* of a state: ascending by rule */
    uint32_t             *rule;          /* [n_rule] its first state; 0 is the root */
    uint32_t              n_state, n_rule, n_alike;
    struct mask_cache    *masks;         /* matcher.c's: NULL, or made by grammar_warm */
    void                (*masks_free)(struct mask_cache *);    /* set with masks */
    size_t                bytes;         /* of all this but masks */
};

/* The language of root. E_INVALID: left recursion, a rule without a body, no text matches, or what
 * grammar_fail said; E_FULL: a limit, the deadline or memory. */
int  grammar_compile(struct grammar **out, struct grammar_make *m, gram root, struct err *e);
void grammar_free(struct grammar *g);                    /* NULL is fine; masks too */

#endif
