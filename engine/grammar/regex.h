/* regex.h - regular expressions as pieces of a grammar; never run by backtracking.
 *
 * What Python and ECMAScript read alike, over code points: literals, . (all but \n), the escapes,
 * classes and sets of notation.h, ( ) (?: ) (?<name> ) (?P<name> ), |, ? * + {m} {m,} {m,n} and
 * their lazy forms, which match the same texts. ^ is the beginning of the text and $ its end (not
 * before a last \n, either), and they may stand anywhere but under a count other than ?. A } or ]
 * that closes nothing, and a { that begins no count, are themselves.
 *
 * Refused in words with the place: back references, look-around, \b \B, flags, conditions, atomic
 * groups, possessive counts, a count of a count. */
#ifndef GRAMMAR_REGEX_H
#define GRAMMAR_REGEX_H

#include "grammar.h"

#define REGEX_BYTES_MAX  (64u << 10)
#define REGEX_DEPTH_MAX  128            /* groups inside each other */

/* How a character of the text is written: as itself; or as inside a JSON string, in the one
 * spelling of buf_json_text: \" \\ \b \f \n \r \t, other controls \u00xx, all else as itself. */
enum regex_as { REGEX_PLAIN, REGEX_JSON };

/* search false: the whole text matches. True (JSON Schema's pattern): some part of it does. -1:
 * failed, as m says. */
gram regex_gram(struct grammar_make *m, const char *p, size_t n, enum regex_as as, bool search);

#endif
