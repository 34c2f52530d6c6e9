/* notation.h - what regex.c and ebnf.c read alike: characters, escapes, sets and counts.
 *
 * A character may be written \t \n \v \f \r \0 \xHH \uHHHH (two for a surrogate pair) \u{H..}
 * \UHHHHHHHH, in a set \b; a backslash before anything but a letter or a digit makes it itself.
 * Classes, of ASCII: \d is [0-9], \w [0-9A-Za-z_], \s [\t\n\v\f\r ], \D \W \S all else; \p{Lu} and
 * \P{Lu} a general category of category.h. Where Python's and ECMAScript's regular expressions
 * differ, nothing is guessed: [] [^] {,n} and [: are refused.
 */
#ifndef GRAMMAR_NOTATION_H
#define GRAMMAR_NOTATION_H

#include "charset.h"

#define NOTATION_COUNT_MAX 65535

struct notation {
    const char    *p, *end;              /* what is left; valid UTF-8 */
    struct charset set;                  /* of the last set or class; the caller closes it */
    int            code;                 /* of the last -1: E_INVALID or E_FULL, */
    const char    *at, *why;             /* where and what; static words */
};

/* Remember a failure. Always -1. */
int      notation_fail(struct notation *n, int code, const char *at, const char *why);
uint32_t notation_char(struct notation *n);              /* the next, plain; there must be one */
bool     notation_take(struct notation *n, const char *s);     /* s stands here: pass it */

/* What a backslash, just passed, begins. 1: the character *c; 0: a class, added to set; -1. */
int notation_escape(struct notation *n, uint32_t *c);
/* The set that a bracket, just passed, opens, up to its end, tidy. 0 or -1. */
int notation_set(struct notation *n);
/* {m} {m,} {m,n}, the brace just passed. 1; 0: no count, and nothing was passed; -1. max -1:
 * without end. */
int notation_count(struct notation *n, bool blanks, int64_t *min, int64_t *max);

#endif
