/* lower.h - one code point in lower case, by Unicode 14's simple mappings.
 *
 * Only the order of keys hangs on it: the template sorts objects without regard to case. A sigma at
 * the end of a word is not told apart. */
#ifndef TEXT_LOWER_H
#define TEXT_LOWER_H

#include <stdint.h>

uint32_t lower(uint32_t c);             /* c itself if it has no lower case */

#endif
