/* t/regex.c - regular expressions: what they match and what not, in both spellings, found in part
 * or as a whole; each refusal with its words and its place; limits. */
#include "grammar_text.h"
#include "regex.h"
#include "tap.h"

#define TEXT_MAX 12

enum how { WHOLE, PART, JSON, JSON_PART };

static struct err err;

static struct grammar *compile(const char *p, size_t n, enum how how)
{
    struct grammar_make *m = grammar_make(0);
    struct grammar      *g;

    err = (struct err) { 0 };
    grammar_compile(&g, m, regex_gram(m, p, n, how >= JSON ? REGEX_JSON : REGEX_PLAIN, how & PART),
                    &err);
    grammar_make_free(m);
    return g;
}

struct row { const char *p; enum how how; const char *yes[TEXT_MAX], *no[TEXT_MAX]; };

static const struct row rows[] = {
    { "", WHOLE, { "" }, { "a", "\n" } },
    { "abc", WHOLE, { "abc" }, { "", "ab", "abcd", "xabc" } },
    { "a|bc|", WHOLE, { "a", "bc", "" }, { "abc", "b" } },
    { "(|a)(b|)", WHOLE, { "", "a", "b", "ab" }, { "ba", "aa" } },
    { "a*", WHOLE, { "", "a", "aaaa" }, { "b", "ab" } },
    { "a+b?", WHOLE, { "a", "ab", "aab" }, { "", "b", "abb" } },
    { "(?:a*)*b", WHOLE, { "b", "aab" }, { "", "aa" } },
    { "(a|b)*?c+?d??", WHOLE, { "c", "abccd" }, { "ab", "cdd" } },
    { "a{2}", WHOLE, { "aa" }, { "a", "aaa" } },
    { "a{2,}", WHOLE, { "aa", "aaaaa" }, { "a" } },
    { "(ab){1,2}?", WHOLE, { "ab", "abab" }, { "", "ababab", "aba" } },
    { "a{0}b{0,0}c{1}d{0,1}", WHOLE, { "c", "cd" }, { "ac", "bc", "cc" } },
    { "a{0,3}", WHOLE, { "", "a", "aaa" }, { "aaaa" } },
    { "a{", WHOLE, { "a{" }, { "a", "aa" } },
    { "a{x}{}", WHOLE, { "a{x}{}" }, { "a" } },
    { "{a}|a{1|}", WHOLE, { "{a}", "a{1", "}" }, { "a" } },
    { "{\"a\": [0-9]+}", WHOLE, { "{\"a\": 17}" }, { "{\"a\": }" } },
    { "]]", WHOLE, { "]]" }, { "]" } },
    { ".", WHOLE, { "a", "\t", "\r", "\xc3\xa9", "\xf0\x9f\x98\x80", "\xe2\x80\xa8" },
      { "", "\n", "ab", "\xc3", "\xed\xa0\x80" } },
    { "\xc3\xa9+", WHOLE, { "\xc3\xa9\xc3\xa9" }, { "e", "\xc3\xa9\xa9" } },
    { "[a-c\xc3\xa9]", WHOLE, { "a", "c", "\xc3\xa9" }, { "d", "-", "\xc3\xa8" } },
    { "[^a-c]", WHOLE, { "d", "\n", "\xc3\xa9" }, { "a", "c", "" } },
    { "[-a]", WHOLE, { "-", "a" }, { "b" } },
    { "[a-]", WHOLE, { "-", "a" }, { "b" } },
    { "[^-a]", WHOLE, { "b", "^" }, { "-", "a" } },
    { "[a^]", WHOLE, { "a", "^" }, { "b" } },
    { "[a-c-e]", WHOLE, { "b", "-", "e" }, { "d" } },
    { "[--/]", WHOLE, { "-", ".", "/" }, { "," } },
    { "[\\]\\-\\\\]", WHOLE, { "]", "-", "\\" }, { "[" } },
    { "[[.(*+?|${}]", WHOLE, { "[", ".", "(", "*", "$", "}" }, { "a", "]" } },
    { "[\\d_]", WHOLE, { "0", "9", "_" }, { "a", "-", "\xd9\xa0" } },
    { "[\\w-]", WHOLE, { "a", "Z", "0", "_", "-" }, { ".", "\xc3\xa9" } },
    { "[^\\W\\d]", WHOLE, { "a", "Z", "_" }, { "0", "-", "\xc3\xa9" } },
    { "[\\b]", WHOLE, { "\b" }, { "b" } },
    { "[\\x41-\\u0043\\u{44}]", WHOLE, { "A", "B", "C", "D" }, { "E", "-" } },
    { "\\d\\D", WHOLE, { "0a", "9\xd9\xa0" }, { "00", "a0" } },
    { "\\w\\W", WHOLE, { "_-", "a\xc3\xa9" }, { "aa", "--" } },
    { "\\s\\S", WHOLE, { " a", "\v\xc2\xa0", "\r0" }, { "  ", "aa", "\xc2\xa0" "a" } },
    { "\\t\\n\\r\\f\\v", WHOLE, { "\t\n\r\f\v" }, { "tnrfv" } },
    { "\\x41\\u00e9\\u{1F600}\\uD83D\\uDE00\\U0001F600", WHOLE,
      { "A\xc3\xa9\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80" }, { "A" } },
    { "\\.\\*\\/\\-\\_\\ \\\"\\\xc3\xa9", WHOLE, { ".*/-_ \"\xc3\xa9" }, { "" } },
    { "(?<year>\\d{4})-(?P<m_1>\\d\\d)", WHOLE, { "2024-05" }, { "2024-5", "202-005" } },
    { "\\p{Lu}\\p{Ll}*", WHOLE, { "A", "\xc3\x89t\xc3\xa9" }, { "a", "AB", "1" } },
    { "\\p{L}\\P{L}[\\p{Nd}\\p{P}][^\\p{Z}]", WHOLE, { "\xe4\xb8\xad" "1\xd9\xa0x", "a-!-" },
      { "11!x", "ab!x", "a-ax", "a-! " } },
    { "\\p{N}\\p{S}\\p{M}", WHOLE, { "\xc2\xbd+\xcc\x81" }, { "a+\xcc\x81" } },
    { "^a$|^b", WHOLE, { "a", "b" }, { "ab", "" } },

    { "", PART, { "", "a", "\n\xc3\xa9" }, { "\xc3" } },
    { "ab", PART, { "ab", "xxabyy", "aab", "\nab\n" }, { "", "a", "a b" } },
    { "^ab", PART, { "ab", "abc" }, { "xab", "\nab" } },
    { "ab$", PART, { "ab", "xab" }, { "abx", "ab\n" } },
    { "^ab$", PART, { "ab" }, { "xab", "abx", "ab\n" } },
    { "^a|b$", PART, { "a", "ax", "b", "xb", "\nb" }, { "xa", "bx", "" } },
    { "^(a|b)$", PART, { "a", "b" }, { "ab", "xa" } },
    { "(^|,)x(,|$)", PART, { "x", "x,", "a,x", ",x,", "x,x" }, { "ax", "xa", "" } },
    { "^$", PART, { "" }, { "a", "\n" } },
    { "$^", PART, { "" }, { "a" } },
    { "^^a$$", PART, { "a" }, { "aa" } },
    { "a^b|c", PART, { "c", "xcx" }, { "ab", "a^b", "a" } },
    { "a$b|c", PART, { "c" }, { "ab", "a$b" } },
    { "(a|^)b", PART, { "b", "xab", "bx" }, { "xb" } },
    { "a?^b", PART, { "b", "bx" }, { "ab", "xb" } },
    { "a($|b)?c?", PART, { "a", "xabc", "acx" }, { "b" } },
    { "(^a)?b", PART, { "b", "ab", "xb" }, { "a" } },
    { "(^a$){1}", PART, { "a" }, { "aa" } },
    { "(a^b)*c", PART, { "c", "xcx" }, { "ab" } },
    { "(^x){0}a", PART, { "a", "ba" }, { "x" } },

    { "a\"b", JSON, { "a\\\"b" }, { "a\"b", "a\\u0022b" } },
    { "\\\\/", JSON, { "\\\\/" }, { "\\/", "\\\\\\/", "\\u005c/" } },
    { "\\n\\x01\\t", JSON, { "\\n\\u0001\\t" },
      { "\n\1\t", "\\u000a\\u0001\\t", "\\n\\u0001\\u0009" } },
    { ".", JSON, { "a", "\\\"", "\\\\", "\\r", "\\u001f", "\\u000b", "/", "\x7f", "\xc3\xa9" },
      { "\\n", "\\", "\"", "\\/", "\\u0041", "\\u001F", "\\u000d", "\n", "\1" } },
    { "\\s", JSON, { " ", "\\t", "\\n", "\\u000b", "\\f", "\\r" }, { "\t", "\\b", "\\u000c" } },
    { "[\\x10-\\x1f]", JSON, { "\\u0010", "\\u0019", "\\u001f" }, { "\\u0020", "\\u000f", " " } },
    { "[^a]+", JSON, { "b\\\"", "\\\\\\\\", "\xf0\x9f\x98\x80" }, { "a", "\\", "\\a", "\"" } },
    { "[\"]", JSON, { "\\\"" }, { "\"", "\\\\", "\\n", "\\u0022" } },
    { "^a\"$", JSON_PART, { "a\\\"" }, { "a\"", "xa\\\"" } },
    { "b", JSON_PART, { "b", "\\\"b", "b\\u0000", "\\bb" }, { "\\b", "\"b", "b\n", "" } },
};

static void test_rows(void)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *r = &rows[i];
        struct grammar   *g = compile(r->p, strlen(r->p), r->how);

        if (!ok(g != NULL, "%s %s", text_shown(r->p), err.msg))
            continue;
        for (int k = 0; k < TEXT_MAX && r->yes[k] != NULL; k++)
            ok(text_matches(g, r->yes[k], strlen(r->yes[k])), "%s: %s", text_shown(r->p),
               text_shown(r->yes[k]));
        for (int k = 0; k < TEXT_MAX && r->no[k] != NULL; k++)
            ok(!text_matches(g, r->no[k], strlen(r->no[k])), "%s: not %s", text_shown(r->p),
               text_shown(r->no[k]));
        grammar_free(g);
    }
}

/* A NUL is a character like any other. */
static void test_nul(void)
{
    struct grammar *g = compile("a\0[^b]\\0", 8, WHOLE);

    ok(g != NULL && text_matches(g, "a\0\0\0", 4) && !text_matches(g, "a\0b\0", 4)
       && !text_matches(g, "a", 1), "NUL in pattern and text");
    grammar_free(g);
    g = compile("a\0", 2, JSON);
    ok(g != NULL && text_matches(g, "a\\u0000", 7) && !text_matches(g, "a\0", 2), "NUL as JSON");
    grammar_free(g);
}

struct error { const char *p; int at; const char *why; };

static const struct error errors[] = {
    { "ab(", 3, "a ( that is not closed" },
    { "(a(b)", 1, "a ( that is not closed" },
    { "\xc3\xa9" "a)b", 3, "a ) that closes nothing" },
    { "*a", 1, "nothing to repeat" },
    { "a|+", 3, "nothing to repeat" },
    { "(?:?)", 4, "nothing to repeat" },
    { "{2}", 1, "nothing to repeat" },
    { "^*", 2, "nothing to repeat" },
    { "a$+", 3, "nothing to repeat" },
    { "a**", 3, "a count of a count" },
    { "a{2}{3}", 5, "a count of a count" },
    { "a+?*", 4, "a count of a count" },
    { "a???", 4, "a count of a count" },
    { "a*+", 2, "possessive" },
    { "a{2}+", 2, "possessive" },
    { "(^a)*", 5, "^ or $ under a count" },
    { "x(a|b$){2}", 8, "^ or $ under a count" },
    { "a{3,2}", 2, "a count whose end is below its beginning" },
    { "a{65536}", 2, "a count above 65535" },
    { "a{0,99999999999999999999}", 2, "a count above 65535" },
    { "a{,3}", 2, "write {0,n}" },
    { "a{,}", 2, "write {0,n}" },
    { "[a", 1, "a set that has no end" },
    { "x[^", 2, "a set that has no end" },
    { "[a-", 1, "a set that has no end" },
    { "[]", 1, "an empty set" },
    { "a[^]b]", 2, "an empty set" },
    { "[b-a]", 2, "a range that ends before it begins" },
    { "[a-\\d]", 2, "a class cannot be an end of a range" },
    { "[x\\w-z]", 3, "a class cannot be an end of a range" },
    { "[a[:alpha:]]", 3, "[:alpha:]" },
    { "ab\\", 3, "nothing follows the backslash" },
    { "[\\", 2, "nothing follows the backslash" },
    { "(a)\\1", 4, "back references" },
    { "\\k<a>", 1, "back references" },
    { "(?P=a)", 1, "back references" },
    { "[\\1]", 2, "an escape that is not known" },
    { "\\01", 1, "an escape that is not known" },
    { "\\bfoo", 1, "\\b is not supported" },
    { "\\Bfoo", 1, "\\B is not supported" },
    { "\\Afoo", 1, "write ^" },
    { "foo\\Z", 4, "write $" },
    { "foo\\z", 4, "write $" },
    { "\\q", 1, "an escape that is not known" },
    { "\\cA", 1, "an escape that is not known" },
    { "\\x4", 1, "\\x takes 2" },
    { "\\u12", 1, "\\u takes 4" },
    { "\\U0001F60", 1, "\\U takes 8" },
    { "\\u{}", 1, "\\u{ takes 1 to 6" },
    { "\\u{1234567}", 1, "\\u{ takes 1 to 6" },
    { "\\u{110000}", 1, "no such character" },
    { "a\\uD83D", 2, "no such character" },
    { "\\uDE00", 1, "no such character" },
    { "\\uD83D\\u0041", 1, "no such character" },
    { "\\pL", 1, "\\p takes a general category" },
    { "\\p{L", 1, "\\p takes a general category" },
    { "\\p{}", 1, "no general category" },
    { "\\p{Xx}", 1, "no general category" },
    { "\\p{C}", 1, "no general category" },
    { "[\\p{Greek}]", 2, "no general category" },
    { "a(?=b)", 2, "look-ahead" },
    { "a(?!b)", 2, "look-ahead" },
    { "(?<=b)", 1, "look-behind" },
    { "(?<!b)", 1, "look-behind" },
    { "(?i)a", 1, "flags" },
    { "(?i:a)", 1, "flags" },
    { "(?", 1, "flags" },
    { "(?>a)", 1, "atomic" },
    { "(?#a)", 1, "comments" },
    { "(a)(?(1)b)", 4, "conditions" },
    { "(?<>a)", 1, "a group's name" },
    { "(?<1a>a)", 1, "a group's name" },
    { "(?P<a", 1, "a group's name" },
    { "a\xff", 1, "not UTF-8" },
};

static void test_errors(void)
{
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        const struct error *r = &errors[i];
        struct grammar     *g = compile(r->p, strlen(r->p), PART);
        char                place[64];

        snprintf(place, sizeof(place), "regular expression, character %d: ", r->at);
        ok(g == NULL && strncmp(err.msg, place, strlen(place)) == 0
           && strstr(err.msg, r->why) != NULL, "%s: %s", text_shown(r->p), err.msg);
        grammar_free(g);
    }
}

/* What no text matches is said by whoever compiles, not here: it may be one of several ways. */
static void test_nothing(void)
{
    static const char *const nothing[] = { "a^b", "a$b", "[^\\s\\S]", "a[^\\d\\D]+", "(x^)y" };

    for (size_t i = 0; i < sizeof(nothing) / sizeof(nothing[0]); i++) {
        struct grammar *g = compile(nothing[i], strlen(nothing[i]), PART);

        ok(g == NULL && err.code == E_INVALID && strstr(err.msg, "character") == NULL,
           "%s: %s", text_shown(nothing[i]), err.msg);
        grammar_free(g);
    }
}

static void test_limits(void)
{
    struct buf      b = text_many("", "(a", ")?", 4 * REGEX_DEPTH_MAX);
    struct grammar *g = compile(b.p, b.n, WHOLE);

    ok(g != NULL && text_matches(g, "aaa", 3) && !text_matches(g, "ab", 2), "groups as deep as may "
       "be %s", err.msg);
    grammar_free(g);
    buf_free(&b);
    b = text_many("", "(a", ")?", 4 * (REGEX_DEPTH_MAX + 1));
    g = compile(b.p, b.n, WHOLE);
    ok(g == NULL && err.code == E_FULL && strstr(err.msg, "character 257: more than 128 groups"),
       "one deeper: %s", err.msg);
    buf_free(&b);

    b = text_many("", "a", "", REGEX_BYTES_MAX);
    g = compile(b.p, b.n - 1, WHOLE);
    ok(g != NULL && text_matches(g, b.p, b.n - 1) && !text_matches(g, b.p, b.n - 2),
       "65,535 letters %s", err.msg);
    grammar_free(g);
    buf_str(&b, "a");
    g = compile(b.p, b.n, WHOLE);
    ok(g == NULL && err.code == E_FULL && strstr(err.msg, "65536 bytes") != NULL,
       "a byte too many: %s", err.msg);
    buf_free(&b);
}

/* What would take for ever, or all memory, is refused for its size, or in time: 50 ms are given,
 * and a busy machine has a hundred times as long to notice. */
static void test_bombs(void)
{
    static const struct { const char *begin, *middle, *end; size_t n; } bombs[] = {
        { "(a|b)*a", "(a|b)", "", 500 },
        { "(?:(?:(?:a{1000}){1000}){1000}){1000}", "", " ", 60 },
        { "", "(?:", "){2}", 800 },
        { "", "(?:a?", "){9}", 800 },
        { "", "(?:a*", ")*", 600 },
        { "", "(^|a)($|b)", "", REGEX_BYTES_MAX },
        { "", "(?:(^|a)", "|$)", 900 },
        { "", "\\p{L}", "", REGEX_BYTES_MAX },
        { "[", "\\p{L}\\W", "", REGEX_BYTES_MAX - 1 },
        { "[", "\\u{10000}-\\u{10001}", "", REGEX_BYTES_MAX - 1 },
        { "", "[^a]", "", REGEX_BYTES_MAX },
        { "", "a|", "", REGEX_BYTES_MAX },
        { "", "ab?", "", REGEX_BYTES_MAX },
        { "", ".*", "", REGEX_BYTES_MAX },
        { "", "\\\\", "", REGEX_BYTES_MAX },
    };

    for (size_t i = 0; i < sizeof(bombs) / sizeof(bombs[0]); i++) {
        struct buf b = text_many(bombs[i].begin, bombs[i].middle, bombs[i].end, bombs[i].n);

        if (b.p[0] == '[')
            buf_str(&b, "]");
        for (enum how how = WHOLE; how <= JSON_PART; how++) {
            uint64_t             from = text_now_ns();
            struct grammar_make *m = grammar_make(from + 50000000);
            struct grammar      *g;

            err = (struct err) { 0 };
            grammar_compile(&g, m, regex_gram(m, b.p, b.n, how >= JSON ? REGEX_JSON : REGEX_PLAIN,
                                              how & PART), &err);
            ok((g != NULL || err.code == E_FULL) && text_now_ns() - from < 5000000000,
               "%s%s%s ... %s", bombs[i].begin, bombs[i].middle, bombs[i].end, err.msg);
            grammar_make_free(m);
            grammar_free(g);
        }
        buf_free(&b);
    }
}

/* Cut at each byte: a language or words. */
static void test_cut(void)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool good = true;

        for (size_t n = 0; n < strlen(rows[i].p); n++) {
            char           *cut = malloc(n > 0 ? n : 1);
            struct grammar *g;

            memcpy(cut, rows[i].p, n);
            g = compile(cut, n, rows[i].how);
            good = good && (g != NULL) == (err.msg[0] == '\0');
            grammar_free(g);
            free(cut);
        }
        ok(good, "%s: cut anywhere", text_shown(rows[i].p));
    }
}

int main(void)
{
    test_rows();
    test_nul();
    test_errors();
    test_nothing();
    test_limits();
    test_bombs();
    test_cut();
    return done_testing();
}
