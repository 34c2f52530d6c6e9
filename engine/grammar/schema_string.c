/* schema_string.c - strings and keys, as JSON or as the arguments of a call write them. */
#include "schema_priv.h"

#include "regex.h"

#include <stdlib.h>
#include <string.h>

/* Characters of all strings of bounded lengths that are counted without blocks: states, but their
 * masks are found sooner. */
#define FLAT_MAX 1024

static gram quote(struct schema *s)
{
    return s->as == SCHEMA_CALL ? grammar_token(s->m, s->quote) : grammar_text(s->m, "\"");
}

gram schema_quoted(struct schema *s, gram inside)
{
    gram q = quote(s);

    return schema_seq(s, q, schema_seq(s, inside, q));
}

static gram chars(struct schema *s, uint32_t lo, uint32_t hi)
{
    return grammar_chars(s->m, &(struct code_range) { lo, hi }, 1);
}

/* Four hex digits that are no half of a pair, or both halves. */
static gram escaped_unit(struct schema *s)
{
    static const struct code_range hex[] = { { '0', '9' }, { 'a', 'f' }, { 'A', 'F' } };
    static const struct code_range not_d[] = { { '0', '9' }, { 'a', 'c' }, { 'A', 'C' },
                                               { 'e', 'f' }, { 'E', 'F' } };
    static const struct code_range d[] = { { 'd', 'd' }, { 'D', 'D' } };
    static const struct code_range high[] = { { '8', '9' }, { 'a', 'b' }, { 'A', 'B' } };
    static const struct code_range low[] = { { 'c', 'f' }, { 'C', 'F' } };
    struct grammar_make *m = s->m;
    gram any = grammar_chars(m, hex, 3), two = grammar_repeat(m, any, 2, 2);
    gram d_any = grammar_chars(m, d, 2), below = chars(s, '0', '7');
    gram pair = schema_seq(s, schema_seq(s, grammar_chars(m, high, 3), two),
                           schema_seq(s, grammar_text(m, "\\u"),
                                      schema_seq(s, d_any, grammar_chars(m, low, 2))));

    pair = schema_alt(s, schema_seq(s, below, two), schema_seq(s, pair, two));
    return schema_alt(s, schema_seq(s, schema_seq(s, grammar_chars(m, not_d, 5), any), two),
                      schema_seq(s, d_any, pair));
}

/* One character inside a string, in all its spellings. */
static gram character(struct schema *s)
{
    static const struct code_range plain[] = { { ' ', '!' }, { '#', '[' }, { ']', 0x10FFFF } };
    static const struct code_range named[] = {
        { '"', '"' }, { '\\', '\\' }, { '/', '/' }, { 'b', 'b' }, { 'f', 'f' }, { 'n', 'n' },
        { 'r', 'r' }, { 't', 't' },
    };
    gram escape;

    if (s->character != NOTHING)
        return s->character;
    if (s->as == SCHEMA_CALL) {
        s->character = chars(s, 0, 0x10FFFF);
        return s->character;
    }
    escape = schema_alt(s, grammar_chars(s->m, named, 8),
                        schema_seq(s, grammar_text(s->m, "u"), escaped_unit(s)));
    s->character = schema_alt(s, grammar_chars(s->m, plain, 3),
                              schema_seq(s, grammar_text(s->m, "\\"), escape));
    return s->character;
}

gram schema_any_string(struct schema *s)
{
    return schema_quoted(s, grammar_repeat(s->m, character(s), 0, -1));
}

/* Strings of the same lengths are one rule. */
static gram sized(struct schema *s, int64_t min, int64_t max)
{
    struct sized *p;
    gram          g, q;

    for (uint32_t i = 0; i < s->n_sized; i++)
        if (s->sized[i].min == min && s->sized[i].max == max)
            return s->sized[i].g;
    p = schema_grow(s, s->sized, &s->cap_sized, (uint64_t) s->n_sized + 1, sizeof(*p));
    if (p == NULL)
        return -1;
    s->sized = p;
    q = quote(s);
    if (max != NO_MAX && s->n_flat + max <= FLAT_MAX) {
        s->n_flat += max;
        g = schema_seq(s, grammar_repeat(s->m, character(s), min, max), q);
    } else {
        g = schema_times_end(s, character(s), min, max, q, &s->chars, &s->fewer_chars);
    }
    g = schema_rule(s, schema_seq(s, q, g));
    s->sized[s->n_sized++] = (struct sized) { min, max, g };
    return g;
}

/* Formats: narrower than their definitions where those have no end. */

#define HEX     "[0-9A-Fa-f]"
#define YEAR    "[1-9][0-9]{3}"
#define LEAP    "(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)"
#define DATE    "(?:" YEAR "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])" \
                "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))" \
                "|" LEAP "-02-29)"
#define HOUR    "(?:[01][0-9]|2[0-3])"
#define TIME    HOUR ":[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-]" HOUR ":[0-5][0-9])"
#define N       "[0-9]{1,9}"
#define D_TIME  "T(?:" N "H(?:" N "M(?:" N "S)?)?|" N "M(?:" N "S)?|" N "S)"
#define D_DATE  "(?:" N "Y(?:" N "M(?:" N "D)?)?|" N "M(?:" N "D)?|" N "D)"
#define LABEL   "[A-Za-z0-9](?:[A-Za-z0-9-]{0,28}[A-Za-z0-9])?"
#define ATOM    "[A-Za-z0-9_%+-]{1,20}"
#define OCTET   "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define GROUP   HEX "{1,4}"
#define URI_CH  "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%" HEX "{2})"
#define URI_ANY "(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%" HEX "{2})"

static const struct format {
    const char *name;
    int64_t     min, max;               /* characters */
    const char *regex;
} formats[] = {
    { "date", 10, 10, DATE },
    { "time", 9, 21, TIME },
    { "date-time", 20, 32, DATE "T" TIME },
    { "duration", 3, 62, "P(?:" D_DATE "(?:" D_TIME ")?|" D_TIME "|" N "W)" },
    { "email", 6, 242, ATOM "(?:\\." ATOM "){0,2}@(?:" LABEL "\\.){1,5}[A-Za-z]{2,24}" },
    { "hostname", 1, 247, LABEL "(?:\\." LABEL "){0,7}" },
    { "ipv4", 7, 15, OCTET "(?:\\." OCTET "){3}" },
    { "ipv6", 2, 39,
      "(?:" GROUP ":){7}" GROUP "|(?:" GROUP ":){1,7}:|(?:" GROUP ":){1,6}:" GROUP
      "|(?:" GROUP ":){1,5}(?::" GROUP "){1,2}|(?:" GROUP ":){1,4}(?::" GROUP "){1,3}"
      "|(?:" GROUP ":){1,3}(?::" GROUP "){1,4}|(?:" GROUP ":){1,2}(?::" GROUP "){1,5}"
      "|" GROUP ":(?::" GROUP "){1,6}|:(?::" GROUP "){1,7}|::" },
    { "uri", 3, 1200,
      "[A-Za-z][A-Za-z0-9+.-]{0,14}:(?://[A-Za-z0-9](?:[A-Za-z0-9.-]{0,100})(?::[0-9]{1,5})?"
      "(?:/(?:" URI_CH "|/){0,200})?|" URI_CH "(?:" URI_CH "|/){0,199})"
      "(?:\\?" URI_ANY "{0,100})?(?:#" URI_ANY "{0,50})?" },
    { "uuid", 36, 36, HEX "{8}(?:-" HEX "{4}){3}-" HEX "{12}" },
};
_Static_assert(sizeof(formats) / sizeof(formats[0]) == SCHEMA_FORMAT_N, "one rule for each");

static int find_format(const struct json *name)
{
    for (int i = 0; name != NULL && i < SCHEMA_FORMAT_N; i++)
        if (slice_is(name->text, formats[i].name))
            return i;
    return -1;
}

bool schema_is_format(const struct json *name)
{
    return find_format(name) >= 0;
}

static gram format(struct schema *s, const struct merged *m, int i)
{
    const struct format *f = &formats[i];

    if (m->min_length > f->min || (m->max_length != NO_MAX && m->max_length < f->max))
        return schema_bad(s, m->schema, "'format' beside lengths other than %lld to %lld cannot be "
                          "enforced", (long long) f->min, (long long) f->max);
    if (s->format[i] == NOTHING)
        s->format[i] = schema_rule(s, schema_quoted(s, regex_gram(s->m, f->regex, strlen(f->regex),
                                                                  REGEX_PLAIN, false)));
    return s->format[i];
}

/* A regular expression is read twice, so that what is wrong with it comes with the path to it. */
gram schema_pattern(struct schema *s, const struct json *at, struct slice p)
{
    enum regex_as        as = s->as == SCHEMA_CALL ? REGEX_PLAIN : REGEX_JSON;
    struct grammar_make *dry = grammar_make(0);
    struct grammar      *none;
    struct err           e;
    bool                 bad;

    if (dry == NULL)
        return grammar_fail(s->m, E_FULL, "out of memory");
    bad = regex_gram(dry, p.p, p.n, as, true) < 0;
    if (bad && grammar_compile(&none, dry, -1, &e) != 0)
        schema_bad(s, at, "'pattern': %s", e.msg);
    grammar_make_free(dry);
    return bad ? -1
               : schema_rule(s, schema_quoted(s, regex_gram(s->m, p.p, p.n, as, true)));
}

gram schema_string(struct schema *s, const struct merged *m)
{
    int i = find_format(m->format);

    if (m->max_length != NO_MAX && m->min_length > m->max_length) {
        s->why = "minLength is above maxLength";
        return NOTHING;
    }
    if (m->pattern != NULL && (m->min_length > 0 || m->max_length != NO_MAX))
        return schema_bad(s, m->schema, "'%s' beside 'pattern' cannot be enforced",
                          m->min_length > 0 ? "minLength" : "maxLength");
    if (m->pattern != NULL)
        return schema_pattern(s, m->schema, m->pattern->text);
    if (i >= 0)
        return format(s, m, i);
    if (m->min_length == 0 && m->max_length == NO_MAX)
        return schema_shared(s, SHARED_STRING);
    return sized(s, m->min_length, m->max_length);
}

size_t schema_length(struct slice text)
{
    size_t n = 0;

    for (size_t i = 0; i < text.n; i++)
        n += ((unsigned char) text.p[i] & 0xC0) != 0x80;
    return n;
}
