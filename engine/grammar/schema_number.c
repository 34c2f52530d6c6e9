/* schema_number.c - numbers between bounds, as automata over their digits.
 *
 * A range is cut into its negative and its other half, each into numbers of 1 .. 20 digits before
 * the point. For one such length the digits are written from the last to the first: after any of
 * them a number is still tied to the first digits of the lower bound, of the upper one, of both, or
 * of none of them any more. */
#include "schema_priv.h"

#include <string.h>

/* A bounded number with a fraction has so many digits: a double keeps any two of them apart. */
#define DOUBLE_DIGITS 15

/* Sizes from lo to hi of numbers of n digits before the point and at most n_frac behind it. */
enum tied { FREE, LOW, HIGH, BOTH, TIED_N };
struct stretch {
    struct schema    *s;
    const struct dec *lo, *hi;
    int               n, n_frac;
    bool              may[TIED_N];      /* which there are */
    gram              after[TIED_N];    /* what may follow the digits at hand */
};

static gram digits(struct schema *s, int lo, int hi)
{
    struct code_range r = { (uint32_t) ('0' + lo), (uint32_t) ('0' + hi) };

    return lo > hi ? NOTHING : grammar_chars(s->m, &r, 1);
}

/* The digit at this place, from least on, and what follows it. */
static void put_digit(struct stretch *p, int at, int least)
{
    int  low = p->lo->digit[at], high = p->hi->digit[at];
    int  from[TIED_N] = { least, low, 0, low }, to[TIED_N] = { 9, 9, high, high };
    gram next[TIED_N] = { NOTHING, NOTHING, NOTHING, NOTHING };

    for (int t = 0; t < TIED_N; t++) {
        if (!p->may[t])
            continue;
        bool at_low = t == LOW || t == BOTH, at_high = t == HIGH || t == BOTH;
        int  first = from[t] > least ? from[t] : least, last = to[t];
        gram g = NOTHING;

        if (t == BOTH && low == high) {
            next[t] = schema_seq(p->s, digits(p->s, first, last), p->after[BOTH]);
            continue;
        }
        if (at_low && low >= least)
            g = schema_seq(p->s, digits(p->s, low, low), p->after[LOW]);
        if (at_high && high >= least)
            g = schema_alt(p->s, g, schema_seq(p->s, digits(p->s, high, high), p->after[HIGH]));
        if (at_low && first == low)
            first++;
        if (at_high)
            last--;
        next[t] = schema_alt(p->s, g, schema_seq(p->s, digits(p->s, first, last), p->after[FREE]));
    }
    memcpy(p->after, next, sizeof(next));
}

/* No digit of d is left from this place on. */
static bool ends(const struct dec *d, int at)
{
    while (at < DEC_DIGITS && d->digit[at] == 0)
        at++;
    return at == DEC_DIGITS;
}

/* A number that ends before this place is in the range; go: what it may go on with instead. */
static void may_end(struct stretch *p, int at, const gram go[TIED_N])
{
    bool low = ends(p->lo, at) && !p->lo->open, high = !ends(p->hi, at) || !p->hi->open;
    bool ok[TIED_N] = { true, low, high, low && high };

    for (int t = 0; t < TIED_N; t++)
        p->after[t] = ok[t] ? schema_opt(p->s, go[t]) : go[t];
}

/* Any of n digits. */
static gram free_length(struct schema *s, int n, int n_frac)
{
    gram digit = digits(s, 0, 9), g;

    g = schema_seq(s, digits(s, n > 1, 9), grammar_repeat(s->m, digit, n - 1, n - 1));
    return n_frac == 0 ? g : schema_seq(s, g, schema_opt(s, schema_seq(s, grammar_text(s->m, "."),
                                              grammar_repeat(s->m, digit, 1, n_frac))));
}

static gram of_length(struct stretch *p, bool low, bool high)
{
    gram go[TIED_N] = { NOTHING, NOTHING, NOTHING, NOTHING };

    if (!low && !high)
        return free_length(p->s, p->n, p->n_frac);
    memcpy(p->may, (bool[]) { true, low, high, low && high }, sizeof(p->may));
    for (int i = DEC_INT + p->n_frac; i >= DEC_INT; i--) {
        may_end(p, i, go);
        if (i > DEC_INT) {
            put_digit(p, i - 1, 0);
            memcpy(go, p->after, sizeof(go));
        }
        if (i == DEC_INT + 1)
            for (int t = 0; t < TIED_N; t++)
                go[t] = schema_seq(p->s, grammar_text(p->s->m, "."), go[t]);
    }
    for (int i = DEC_INT - 1; i >= DEC_INT - p->n; i--)
        put_digit(p, i, i == DEC_INT - p->n && p->n > 1);
    return p->after[low && high ? BOTH : low ? LOW : high ? HIGH : FREE];
}

/* Digits before the point. */
static int length(const struct dec *d)
{
    int n = DEC_INT;

    while (n > 1 && d->digit[DEC_INT - n] == 0)
        n--;
    return n;
}

/* All sizes from lo to hi. */
static gram sizes(struct schema *s, struct dec lo, struct dec hi, bool whole)
{
    bool low = !dec_is_zero(&lo) || lo.open, high = hi.given && !hi.huge;
    gram g = NOTHING;

    if (lo.huge || (hi.given && dec_cmp_size(&lo, &hi) > 0))
        return NOTHING;
    if (!high) {
        hi = (struct dec) { .given = true };
        memset(hi.digit, 9, DEC_DIGITS);
    }
    /* What lies beyond the last digit that a number has: above lo cut short, up to hi cut short. */
    lo.open |= lo.more || (whole && !dec_is_whole(&lo));
    hi.open &= !hi.more && (!whole || dec_is_whole(&hi));
    if (whole) {
        memset(lo.digit + DEC_INT, 0, DEC_FRAC);
        memset(hi.digit + DEC_INT, 0, DEC_FRAC);
    }

    for (int n = length(&lo); n <= length(&hi); n++) {
        struct stretch p = {
            .s = s, .lo = &lo, .hi = &hi, .n = n,
            .n_frac = whole || n > DOUBLE_DIGITS ? 0 : DOUBLE_DIGITS - n,
        };

        g = schema_alt(s, g, of_length(&p, low && n == length(&lo), high && n == length(&hi)));
    }
    return g;
}

static gram between(struct schema *s, const struct merged *m, bool whole)
{
    const struct dec zero = { .given = true }, above = { .given = true, .open = true };
    struct dec       lo = m->lo, hi = m->hi;
    gram             g = NOTHING, minus = NOTHING;
    bool             lo_neg = !lo.given || (lo.neg && !dec_is_zero(&lo));
    bool             hi_zero = hi.given && dec_is_zero(&hi);
    bool             hi_neg = hi.given && (hi_zero ? hi.open : hi.neg);

    if (!hi_neg)
        g = sizes(s, lo_neg ? zero : lo, hi, whole);
    if (lo_neg)
        minus = sizes(s, hi_neg && !hi_zero ? hi : above, lo, whole);
    g = schema_alt(s, g, schema_seq(s, grammar_text(s->m, "-"), minus));
    if (g == NOTHING)
        s->why = "no number is within the bounds";
    return g;
}

static bool same(const struct dec *a, const struct dec *b)
{
    return a->given == b->given
           && (!a->given || (a->open == b->open && dec_cmp(a, b) == 0));
}

/* Numbers of the same bounds are one rule. */
static gram bounded(struct schema *s, const struct merged *m, bool whole)
{
    struct ranged *r;
    gram           g;

    for (uint32_t i = 0; i < s->n_ranged; i++)
        if (s->ranged[i].whole == whole && same(&s->ranged[i].lo, &m->lo)
            && same(&s->ranged[i].hi, &m->hi))
            return s->ranged[i].g;
    g = between(s, m, whole);
    r = g < 0 ? NULL : schema_grow(s, s->ranged, &s->cap_ranged, (uint64_t) s->n_ranged + 1,
                                   sizeof(*r));
    if (r == NULL)
        return g < 0 ? g : -1;
    g = schema_rule(s, g);
    s->ranged = r;
    s->ranged[s->n_ranged++] = (struct ranged) { m->lo, m->hi, whole, g };
    return g;
}

gram schema_number(struct schema *s, const struct merged *m)
{
    bool whole = (m->types & TYPE_NUMBER) == 0;

    if (m->lo.given || m->hi.given)
        return bounded(s, m, whole);
    return schema_shared(s, whole ? SHARED_INTEGER : SHARED_NUMBER);
}
