/* grammar_priv.h - the steps from pieces to automata; only grammar_*.c see it.
 *
 * grammar_make.c   pieces, each a few numbers in an array: children have lower numbers
 * grammar_utf8.c   a set of characters as a small automaton over bytes, shared by all its uses
 * grammar_calls.c  which rule calls which, which are recursive, which are copied into their callers
 * grammar_nfa.c    every rule left as an NFA of Thompson's kind; left recursion
 * grammar_dfa.c    subsets of NFA states as states
 * grammar_class.c  states that agree for some steps, or for ever
 * grammar_min.c    dead states go, equal ones become one, of all rules together; alike
 *
 * No step recurses: what waits stands on a vec. Failures are kept in m (grammar_fail). */
#ifndef GRAMMAR_GRAMMAR_PRIV_H
#define GRAMMAR_GRAMMAR_PRIV_H

#include "grammar.h"

#include <stdbool.h>
#include <stddef.h>

#define GRAMMAR_NFA_MAX    (1u << 19)    /* states of all NFAs */
#define GRAMMAR_RAW_MAX    (4 * GRAMMAR_STATE_MAX)
#define GRAMMAR_EDGE_MAX   (1u << 20)    /* of each kind in all automata, before they are minimal */
#define GRAMMAR_SUBSET_MAX (1u << 22)    /* NFA states in all subsets of one rule */
#define GRAMMAR_LIT_MAX    (1u << 20)    /* bytes of all literals and names */
#define GRAMMAR_SET_MAX    (1u << 14)    /* different sets of characters */
#define GRAMMAR_RANGE_MAX  (1u << 14)    /* ranges of one of them */
#define GRAMMAR_TRIE_MAX   (1u << 18)    /* nodes of all of them; 4 x the edges */
#define GRAMMAR_NONE       UINT32_MAX

/* A growing array; grammar_grow says no in words. Evaluates to 0 or E_FULL. */
#define VEC(type) struct { type *p; uint32_t n, cap; }
#define vec_room(m, v, more, max, what) __extension__ ({                                          \
        uint64_t vec_n = (uint64_t) (v)->n + (more);                                              \
        void *vec_p = vec_n <= (v)->cap && (v)->p != NULL ? (v)->p                                \
                      : grammar_grow(m, (v)->p, &(v)->cap, vec_n, max, sizeof(*(v)->p), what);    \
        if (vec_p != NULL)                                                                        \
            (v)->p = vec_p;                                                                       \
        vec_p != NULL ? 0 : E_FULL; })

enum piece_type { PIECE_EMPTY, PIECE_BYTES, PIECE_CHARS, PIECE_TOKEN, PIECE_CALL, PIECE_SEQ,
                  PIECE_ALT, PIECE_REPEAT };

struct piece {
    uint8_t  type;
    int32_t  a, b;                       /* children; BYTES: where, how many; CHARS: the set;
                                            TOKEN: id; CALL: rule; REPEAT: child, min */
    int32_t  max;                        /* of REPEAT; -1: none */
    uint32_t size;                       /* NFA states between its ends, calls not counted */
};

/* Node 0 .. n_node - 1 of a set, the last is where a character begins. The edges of node i end
 * where those of i + 1 begin. */
#define TRIE_END 0xffffu
struct trie_edge { uint8_t lo, hi; uint16_t to; };       /* a node of the set, or TRIE_END */
struct char_set  { uint32_t node, n_node, edge, n_edge, hash, next; };

struct make_rule { gram body; uint32_t name, n_name; };  /* body -1: none yet */

struct grammar_make {
    struct err err;                      /* code 0: fine so far */
    uint64_t   deadline_ns;
    uint32_t   work;                     /* since the clock was read */
    VEC(struct piece)     pieces;
    VEC(char)             lit;
    VEC(struct make_rule) rules;
    VEC(struct char_set)  sets;
    VEC(uint32_t)         nodes;         /* of sets: where a node's edges begin */
    VEC(struct trie_edge) edges;
    uint32_t   bucket[256];              /* sets by hash: 1 + the newest, 0: none */
};

void *grammar_grow(struct grammar_make *m, void *p, uint32_t *cap, uint64_t need, uint64_t max,
                   size_t size, const char *what);
void *grammar_alloc(struct grammar_make *m, uint64_t n, size_t size);    /* zeroes; NULL: failed */
int   grammar_work(struct grammar_make *m, uint32_t n);  /* n units done; E_FULL: deadline passed */
struct rule_name { char s[64]; };
struct rule_name grammar_rule_name(const struct grammar_make *m, int32_t rule);  /* of the writer */
int   grammar_char_set(struct grammar_make *m, const struct code_range *r, size_t n);  /* or < 0 */

/* Rules as the compiler counts them: 0 is the root, rule r of the writer is r + 1. */
struct rule_call { uint32_t rule, times; };
struct rule_info {
    gram     body;
    uint32_t size;                       /* NFA states, with the rules copied into it */
    uint32_t call, n_call;               /* its calls; a rule may be there more than once */
    uint32_t calls;                      /* of it, in all rules that can be reached */
    bool     reached, recursive, copied; /* copied: into its callers; no automaton of its own */
};
struct calls {
    struct rule_info *rule;
    uint32_t          n_rule;
    VEC(struct rule_call) call;
};
int  grammar_calls(struct grammar_make *m, gram root, struct calls *c);
/* Find which of the reached rules are recursive; order [n_rule]: them, callees before callers. */
int  grammar_recursive(struct grammar_make *m, struct calls *c, uint32_t *order, uint32_t *n_order);
void grammar_calls_free(struct calls *c);

enum nfa_type { NFA_EPS, NFA_BYTE, NFA_NODE, NFA_TOKEN, NFA_CALL, NFA_END };
struct nfa_state {
    uint8_t  type, byte;
    uint16_t rule;                       /* whose state it is */
    uint32_t to;                         /* NODE: where the set ends */
    uint32_t arg;                        /* EPS: the other way, or NONE; NODE: the node; TOKEN: id;
                                            CALL: rule */
    uint32_t base;                       /* NODE: the state of the set's node 0 */
};
struct nfa {
    VEC(struct nfa_state) state;
    uint32_t *start;                     /* [n_rule] NONE: a rule not reached, or copied */
    uint8_t  *nullable;                  /* [n_rule] */
    uint32_t  n_rule;
};
int  grammar_nfa(struct grammar_make *m, const struct calls *c, struct nfa *out);
void grammar_nfa_free(struct nfa *n);

/* Automata before they are minimal. No rule but the root accepts the empty text: a call of one
 * that did has a way past it instead. */
struct dfa {
    VEC(struct grammar_state) state;     /* and one more behind the last when it is done */
    VEC(struct grammar_edge)  edge;
    VEC(struct grammar_token) token;
    VEC(struct grammar_call)  call;      /* ascending by rule */
    uint32_t *rule;                      /* [n_rule] first state, NONE: has none */
    uint32_t  n_rule;
};
int  grammar_dfa(struct grammar_make *m, const struct nfa *n, struct dfa *out);
void grammar_dfa_free(struct dfa *d);

/* d is cut down to what is live on the way. */
int  grammar_min(struct grammar_make *m, struct dfa *d, struct grammar **out);

/* The states of an automaton in classes: two are in one if they agree on what they accept and where
 * it leads, as far as rounds edges go; GRAMMAR_NONE: for ever. */
struct classes {
    const struct grammar_state *state;   /* the automaton, [n + 1]; set by the caller */
    const struct grammar_edge  *edge;
    const struct grammar_token *token;
    const struct grammar_call  *call;
    uint32_t  n;
    uint32_t *of, *first, *member;       /* found: [n] a state's class; [n_class] where in member
                                            it begins: any of its states */
    uint32_t  n_class;
    void     *memory;
};
int  grammar_classes(struct grammar_make *m, struct classes *c, uint32_t rounds);
void grammar_classes_free(struct classes *c);

#endif
