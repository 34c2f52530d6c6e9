/* ebnf.h - grammars as text: the EBNF of llama.cpp and xgrammar (GBNF), root ::= ...
 *
 * Literals with escapes, [..] sets, . , ( ), |, ? * + {m} {m,} {m,n}, rule names, # comments. The
 * text of the rule "root" is the language. Refused in words, with the line: Lark's syntax, unknown
 * or repeated rules, token references. */
#ifndef TEXT_EBNF_H
#define TEXT_EBNF_H

#include "grammar.h"

#define EBNF_BYTES_MAX (256u << 10)
#define EBNF_DEPTH_MAX 128

gram ebnf_gram(struct grammar_make *m, const char *p, size_t n);    /* -1: failed, as m says */

#endif
