/* charset.h - a set of code points while a pattern is read.
 *
 * Owns its ranges until charset_close. What goes beyond CHARSET_ADD_MAX, or memory, is remembered
 * (full) and dropped, so that a writer checks once, at its end. */
#ifndef GRAMMAR_CHARSET_H
#define GRAMMAR_CHARSET_H

#include "buf.h"
#include "grammar.h"

#define CHARSET_ADD_MAX (1u << 17)       /* ranges added in its life, however often it is cleared */
#define CODE_MAX        0x10FFFF

struct charset {                         /* { 0 } is empty */
    struct code_range *r;                /* any order, may overlap, until charset_tidy */
    size_t             n, cap, added;
    bool               full;
};

void charset_clear(struct charset *s);
void charset_add(struct charset *s, uint32_t lo, uint32_t hi);
void charset_tidy(struct charset *s);                    /* ascending, disjoint */
/* What was added since n was from becomes all that it was not. */
void charset_invert(struct charset *s, size_t from);
void charset_close(struct charset *s);

#endif
