/* category.h - the general categories of Unicode 14, as ranges of code points. */
#ifndef GRAMMAR_CATEGORY_H
#define GRAMMAR_CATEGORY_H

#include "charset.h"

/* Add the characters of a category ("Lu") or of a group of them ("L") to s. False: there is none
 * of this name; Cn, Co and Cs, which no text should have, and so C are none here. */
bool category_add(struct charset *s, struct slice name);

#endif
