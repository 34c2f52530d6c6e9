#include "dec.h"

#include <string.h>

void dec_read(struct slice t, struct dec *d)
{
    const char *p = t.p, *end = t.p + t.n, *e = p;
    int64_t     exponent = 0, place;
    bool        less;

    *d = (struct dec) { .given = true, .neg = p < end && *p == '-' };
    while (e < end && *e != 'e' && *e != 'E')
        e++;
    less = e + 1 < end && e[1] == '-';
    for (const char *x = e; x < end && exponent < 1000000000; x++)
        if (*x >= '0' && *x <= '9')
            exponent = exponent * 10 + *x - '0';

    place = less ? -exponent : exponent;
    for (const char *x = p + d->neg; x < e && *x != '.'; x++)
        place++;
    for (p += d->neg; p < e; p++) {
        if (*p == '.')
            continue;
        place--;
        if (*p == '0')
            continue;
        if (place >= DEC_INT)
            d->huge = true;
        else if (place < -DEC_FRAC)
            d->more = true;
        else
            d->digit[DEC_INT - 1 - place] = (uint8_t) (*p - '0');
    }
}

bool dec_is_zero(const struct dec *d)
{
    static const uint8_t none[DEC_DIGITS];

    return !d->huge && !d->more && memcmp(d->digit, none, DEC_DIGITS) == 0;
}

int dec_cmp_size(const struct dec *a, const struct dec *b)
{
    int cmp = a->huge || b->huge ? a->huge - b->huge : memcmp(a->digit, b->digit, DEC_DIGITS);

    return cmp != 0 ? cmp : a->more - b->more;
}

int dec_cmp(const struct dec *a, const struct dec *b)
{
    bool a_neg = a->neg && !dec_is_zero(a), b_neg = b->neg && !dec_is_zero(b);

    if (a_neg != b_neg)
        return a_neg ? -1 : 1;
    return a_neg ? dec_cmp_size(b, a) : dec_cmp_size(a, b);
}

bool dec_is_whole(const struct dec *d)
{
    static const uint8_t none[DEC_FRAC];

    return !d->more && memcmp(d->digit + DEC_INT, none, DEC_FRAC) == 0;
}

bool dec_within(const struct dec *d, const struct dec *lo, const struct dec *hi)
{
    int low = lo->given ? dec_cmp(d, lo) : 1, high = hi->given ? dec_cmp(d, hi) : -1;

    return (low > 0 || (low == 0 && !lo->open)) && (high < 0 || (high == 0 && !hi->open));
}
