/* regex.h - regular expressions as pieces of a grammar; never run by backtracking.
 *
 * Over code points: literals, . [..] [^..] \d \w \s \D \W \S \t \n \r \f \v \xHH \uHHHH \u{H..}
 * \p{..} of the general categories that limits allow, ( ) (?: ) (?<name> ), |, ? * + {m} {m,}
 * {m,n} and their lazy forms, which match the same texts. Refused in words with the place: back
 * references, look-around, \b \B, flags. */
#ifndef TEXT_REGEX_H
#define TEXT_REGEX_H

#include "grammar.h"

#define REGEX_BYTES_MAX  (64u << 10)
#define REGEX_DEPTH_MAX  128
#define REGEX_REPEAT_MAX 65535

/* How a character of the text is written: as itself, or as in a JSON string (\" \\ \n \u0001). */
enum regex_as { REGEX_PLAIN, REGEX_JSON };

/* search false: the whole text matches, ^ and $ at its ends change nothing. True (JSON Schema's
 * pattern): some part of the text matches, ^ and $ mean its ends. -1: failed, as m says. */
gram regex_gram(struct grammar_make *m, const char *p, size_t n, enum regex_as as, bool search);

#endif
