/* ebnf.h - grammars as text: the EBNF of llama.cpp and xgrammar (GBNF), root ::= ...
 *
 * A rule is NAME ::= ALTERNATIVES, up to the next rule or the end, over as many lines as it takes;
 * names are of letters, digits, _ and -, and # begins a comment. In it: "literals" and [sets] with
 * the escapes and classes of notation.h, . (any character, \n too), names of rules, ( ), |, and
 * ? * + {m} {m,} {m,n} behind one of these. An alternative may be empty. The text of the rule
 * "root" is the language.
 *
 * Refused in words, with the line: Lark's syntax, unknown or repeated rules, token references,
 * look-ahead, a count of a count. */
#ifndef GRAMMAR_EBNF_H
#define GRAMMAR_EBNF_H

#include "grammar.h"

#define EBNF_BYTES_MAX (256u << 10)
#define EBNF_DEPTH_MAX 128               /* parentheses inside each other */

gram ebnf_gram(struct grammar_make *m, const char *p, size_t n);    /* -1: failed, as m says */

#endif
