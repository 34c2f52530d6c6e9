#include "notation.h"

#include "category.h"

#include <string.h>

int notation_fail(struct notation *n, int code, const char *at, const char *why)
{
    n->code = code;
    n->at = at;
    n->why = why;
    return -1;
}

uint32_t notation_char(struct notation *n)
{
    int      len = utf8_len(n->p, (size_t) (n->end - n->p));
    uint32_t c = (unsigned char) *n->p++;

    if (len > 1)
        c &= 0x7Fu >> len;
    for (; len > 1; len--)
        c = c << 6 | ((unsigned char) *n->p++ & 0x3F);
    return c;
}

bool notation_take(struct notation *n, const char *s)
{
    size_t len = strlen(s);

    if ((size_t) (n->end - n->p) < len || memcmp(n->p, s, len) != 0)
        return false;
    n->p += len;
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Escapes */

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Up to most hexadecimal digits: how many there were. */
static int hex(struct notation *n, int most, uint32_t *c)
{
    int k = 0;

    for (*c = 0; k < most && n->p < n->end && hex_digit(*n->p) >= 0; k++)
        *c = *c << 4 | (uint32_t) hex_digit(*n->p++);
    return k;
}

static bool is_half(uint32_t c, uint32_t first)
{
    return c >= first && c < first + 0x400;
}

/* \x \u \U, the letter just passed. */
static int code_point(struct notation *n, char letter, const char *at, uint32_t *c)
{
    int      digits = letter == 'x' ? 2 : letter == 'u' ? 4 : 8;
    uint32_t low;

    if (letter == 'u' && notation_take(n, "{")) {
        if (hex(n, 6, c) == 0 || !notation_take(n, "}"))
            return notation_fail(n, E_INVALID, at, "\\u{ takes 1 to 6 hexadecimal digits and a }");
    } else if (hex(n, digits, c) != digits) {
        return notation_fail(n, E_INVALID, at, letter == 'x' ? "\\x takes 2 hexadecimal digits"
                             : letter == 'u' ? "\\u takes 4 hexadecimal digits"
                             : "\\U takes 8 hexadecimal digits");
    }
    if (is_half(*c, 0xD800) && letter == 'u' && notation_take(n, "\\u")
        && hex(n, 4, &low) == 4 && is_half(low, 0xDC00))
        *c = 0x10000 + ((*c - 0xD800) << 10) + (low - 0xDC00);
    if (*c > CODE_MAX || (*c >= 0xD800 && *c < 0xE000))
        return notation_fail(n, E_INVALID, at, "there is no such character");
    return 1;
}

/* \p{..} or \P{..}, the letter just passed. */
static int category(struct notation *n, const char *at)
{
    struct slice name;
    const char  *end = NULL;

    if (notation_take(n, "{"))
        end = memchr(n->p, '}', (size_t) (n->end - n->p));
    if (end == NULL)
        return notation_fail(n, E_INVALID, at, "\\p takes a general category, as in \\p{Lu}");
    name = (struct slice) { n->p, (size_t) (end - n->p) };
    n->p = end + 1;
    if (!category_add(&n->set, name))
        return notation_fail(n, E_INVALID, at, "no general category that is known here");
    return 0;
}

static int full(struct notation *n, const char *at)
{
    return notation_fail(n, E_FULL, at, "sets have too many ranges, from here on");
}

static int class(struct notation *n, char letter, const char *at)
{
    size_t from = n->set.n;

    switch (letter | 0x20) {
    case 'p':
        if (category(n, at) < 0)
            return -1;
        break;
    case 'w':
        charset_add(&n->set, 'A', 'Z');
        charset_add(&n->set, '_', '_');
        charset_add(&n->set, 'a', 'z');
        /* fall through */
    case 'd':
        charset_add(&n->set, '0', '9');
        break;
    default:
        charset_add(&n->set, '\t', '\r');
        charset_add(&n->set, ' ', ' ');
    }
    if ((letter & 0x20) == 0)
        charset_invert(&n->set, from);
    return n->set.full ? full(n, at) : 0;
}

int notation_escape(struct notation *n, uint32_t *c)
{
    static const char letters[] = "tnvfr", classes[] = "dDwWsSpP";
    const char       *at = n->p - 1;
    char              letter;

    if (n->p == n->end)
        return notation_fail(n, E_INVALID, at, "nothing follows the backslash");
    letter = *n->p;
    if (!is_letter(letter) && !is_digit(letter)) {
        *c = notation_char(n);
        return 1;
    }
    n->p++;
    if (letter == '0' && (n->p == n->end || !is_digit(*n->p))) {
        *c = 0;
        return 1;
    }
    if (letter == 'x' || letter == 'u' || letter == 'U')
        return code_point(n, letter, at, c);
    if (strchr(classes, letter) != NULL)
        return class(n, letter, at);
    if (strchr(letters, letter) == NULL)
        return notation_fail(n, E_INVALID, at, "an escape that is not known here");
    *c = (uint32_t) (unsigned char) "\t\n\v\f\r"[strchr(letters, letter) - letters];
    return 1;
}

/* Sets */

/* One character or class of a set. As notation_escape. */
static int element(struct notation *n, const char *open, uint32_t *c)
{
    if (n->p == n->end)
        return notation_fail(n, E_INVALID, open, "a set that has no end");
    if (notation_take(n, "\\b")) {
        *c = '\b';
        return 1;
    }
    if (notation_take(n, "\\"))
        return notation_escape(n, c);
    if (n->p[0] == '[' && n->end - n->p > 1 && n->p[1] == ':')
        return notation_fail(n, E_INVALID, n->p, "classes like [:alpha:] are not known here;"
                             " of a bracket and a colon write \\[:");
    *c = notation_char(n);
    return 1;
}

static int range(struct notation *n, const char *open)
{
    const char *at = n->p;
    uint32_t    lo, hi;
    int         is_lo = element(n, open, &lo), is_hi;

    if (is_lo < 0)
        return -1;
    if (n->end - n->p < 2 || n->p[0] != '-' || n->p[1] == ']') {
        if (is_lo)
            charset_add(&n->set, lo, lo);
        return 0;
    }
    n->p++;
    is_hi = element(n, open, &hi);
    if (is_hi < 0)
        return -1;
    if (!is_lo || !is_hi)
        return notation_fail(n, E_INVALID, at, "a class cannot be an end of a range; write \\- for"
                             " the character");
    if (lo > hi)
        return notation_fail(n, E_INVALID, at, "a range that ends before it begins");
    charset_add(&n->set, lo, hi);
    return 0;
}

int notation_set(struct notation *n)
{
    const char *open = n->p - 1;
    bool        not = notation_take(n, "^");

    charset_clear(&n->set);
    if (n->p < n->end && *n->p == ']')
        return notation_fail(n, E_INVALID, open, "an empty set; of a bracket write \\]");
    while (!notation_take(n, "]"))
        if (range(n, open) < 0)
            return -1;
    if (not)
        charset_invert(&n->set, 0);
    charset_tidy(&n->set);
    return n->set.full ? full(n, open) : 0;
}

/* Counts */

static void skip_blanks(struct notation *n, bool blanks)
{
    while (blanks && n->p < n->end && strchr(" \t\r\n", *n->p) != NULL && *n->p != '\0')
        n->p++;
}

/* False: no digit stands here. What is too large stays so. */
static bool number(struct notation *n, bool blanks, int64_t *v)
{
    bool any = false;

    skip_blanks(n, blanks);
    for (*v = 0; n->p < n->end && is_digit(*n->p); n->p++, any = true)
        if (*v <= NOTATION_COUNT_MAX)
            *v = 10 * *v + (*n->p - '0');
    skip_blanks(n, blanks);
    return any;
}

int notation_count(struct notation *n, bool blanks, int64_t *min, int64_t *max)
{
    const char *open = n->p;
    bool        least = number(n, blanks, min), comma = notation_take(n, ",");

    *max = *min;
    if (comma && !number(n, blanks, max))
        *max = -1;
    if ((!least && !comma) || !notation_take(n, "}")) {
        n->p = open;
        return 0;
    }
    if (!least)
        return notation_fail(n, E_INVALID, open - 1, "{,n} is read in two ways; write {0,n}");
    if (*min > NOTATION_COUNT_MAX || *max > NOTATION_COUNT_MAX)
        return notation_fail(n, E_FULL, open - 1, "a count above 65535");
    if (*max >= 0 && *max < *min)
        return notation_fail(n, E_INVALID, open - 1, "a count whose end is below its beginning");
    return 1;
}
