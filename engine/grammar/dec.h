/* dec.h - decimals of 20 places on both sides of the point, and ranges of them, exactly. */
#ifndef GRAMMAR_DEC_H
#define GRAMMAR_DEC_H

#include "buf.h"

#define DEC_INT    20
#define DEC_FRAC   20
#define DEC_DIGITS (DEC_INT + DEC_FRAC)

struct dec {
    bool    given, neg, huge;           /* huge: 10^20 or more, the digits are lost */
    bool    more;                       /* digits behind the last place */
    bool    open;                       /* as a bound: it is not in the range itself */
    uint8_t digit[DEC_DIGITS];          /* 0 .. 9 */
};

void dec_read(struct slice text, struct dec *d);    /* text: of a JSON number; open is false */
int  dec_cmp(const struct dec *a, const struct dec *b);           /* as strcmp */
int  dec_cmp_size(const struct dec *a, const struct dec *b);      /* without their signs */
bool dec_is_zero(const struct dec *d);
bool dec_is_whole(const struct dec *d);
/* Bounds that are not given hold for all. */
bool dec_within(const struct dec *d, const struct dec *lo, const struct dec *hi);

#endif
