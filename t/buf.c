/* t/buf.c - growth, ceiling, escaping, cutting, and every boundary of UTF-8. */
#include "buf.h"
#include "tap.h"

#include <stdlib.h>

static void put_all(void)
{
    struct buf b = { 0 };
    char       long_words[600];

    buf_put(&b, "ab", 2);
    buf_str(&b, "c");
    buf_fmt(&b, "%d-%s", 42, "x");
    ok(b.n == 7 && memcmp(b.p, "abc42-x", 7) == 0, "put, str and fmt append");

    memset(long_words, 'q', sizeof(long_words) - 1);
    long_words[sizeof(long_words) - 1] = '\0';
    buf_fmt(&b, "[%s]", long_words);
    ok(b.n == 7 + 601 && b.p[7] == '[' && b.p[607] == ']', "fmt longer than its stack buffer");

    buf_cut(&b, 3);
    ok(b.n == 605 && memcmp(b.p, "42-x[", 5) == 0, "cut drops the front");
    buf_cut(&b, 10000);
    ok(b.n == 0 && !b.full, "cut of more than there is empties");
    buf_free(&b);
    ok(b.p == NULL && b.n == 0 && b.cap == 0, "free resets");
}

static void ceiling(void)
{
    struct buf b = { .max = 4 };

    buf_str(&b, "abcd");
    ok(!b.full && b.n == 4, "exactly the ceiling fits");
    buf_str(&b, "e");
    ok(b.full && b.n == 4, "one more does not");
    buf_cut(&b, 4);
    buf_str(&b, "x");
    ok(b.full && b.n == 0, "after full everything is dropped");
    buf_free(&b);

    b = (struct buf) { .max = 4 };
    buf_str(&b, "abc");
    buf_str(&b, "de");
    ok(b.full && b.n == 3, "no part of what does not fit is kept");
    buf_free(&b);

    b = (struct buf) { 0 };
    buf_str(&b, "x");
    buf_put(&b, "", SIZE_MAX);
    ok(b.full && b.n == 1, "a size that overflows is refused");
    buf_free(&b);
}

static void escaping(void)
{
    struct buf b = { 0 };

    buf_json_str(&b, "a\"b\\c/\b\f\n\r\t\0\x1f\x7f\xc3\xa9", 16);
    buf_put(&b, "", 1);
    is_str(b.p, "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\xc3\xa9\"", "JSON escapes");
    buf_free(&b);

    b = (struct buf) { 0 };
    buf_json_str(&b, NULL, 0);
    ok(b.n == 2 && memcmp(b.p, "\"\"", 2) == 0, "an empty string");
    buf_free(&b);
}

static void utf8(void)
{
    static const struct { const char *p; int n, len; } rows[] = {
        { "", 0, 0 }, { "\0", 1, 1 }, { "\x7f", 1, 1 }, { "\x80", 1, -1 }, { "\xbf", 1, -1 },
        { "\xc0\x80", 2, -1 }, { "\xc1\xbf", 2, -1 }, { "\xc2\x80", 2, 2 }, { "\xc2", 1, 0 },
        { "\xc2\x7f", 2, -1 }, { "\xdf\xbf", 2, 2 }, { "\xe0\x9f\xbf", 3, -1 },
        { "\xe0\xa0\x80", 3, 3 }, { "\xe0\xa0", 2, 0 }, { "\xe0\x9f", 2, -1 },
        { "\xed\x9f\xbf", 3, 3 }, { "\xed\xa0\x80", 3, -1 }, { "\xed\xa0", 2, -1 },
        { "\xee\x80\x80", 3, 3 }, { "\xef\xbf\xbf", 3, 3 }, { "\xf0\x8f\xbf\xbf", 4, -1 },
        { "\xf0\x90\x80\x80", 4, 4 }, { "\xf0\x90\x80", 3, 0 }, { "\xf4\x8f\xbf\xbf", 4, 4 },
        { "\xf4\x90\x80\x80", 4, -1 }, { "\xf5\x80\x80\x80", 4, -1 }, { "\xff", 1, -1 },
        { "\xe2\x96\xc1", 3, -1 }, { "\xf0\x90\x80\x41", 4, -1 },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        is_int(utf8_len(rows[i].p, (size_t) rows[i].n), rows[i].len, "utf8_len row %zu", i);

    ok(utf8_valid("0123456789\xe2\x96\x81" "0123456789", 23), "valid, past the 8-byte steps");
    ok(!utf8_valid("01234567\xed\xa0\x80", 11), "a surrogate after an 8-byte step");
    ok(!utf8_valid("01234567\xe2\x96", 10), "cut at the end");
    ok(utf8_valid("", 0), "the empty string");
}

static void chars(void)
{
    struct buf b = { 0 };

    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        if (c == 0xD800)
            c = 0xE000;
        b.n = 0;
        buf_char(&b, c);
        if (utf8_len(b.p, b.n) != (int) b.n)
            break;
    }
    ok(b.n == 4 && memcmp(b.p, "\xf4\x8f\xbf\xbf", 4) == 0, "every character is valid UTF-8");
    b.n = 0;
    for (int i = 0; i < 4; i++)
        buf_char(&b, ((uint32_t[]) { 'a', 0xE9, 0x2581, 0x1F600 })[i]);
    ok(b.n == 10 && memcmp(b.p, "a\xc3\xa9\xe2\x96\x81\xf0\x9f\x98\x80", 10) == 0,
       "of each length one");
    buf_free(&b);
}

int main(void)
{
    put_all();
    ceiling();
    escaping();
    utf8();
    chars();
    ok(slice_is(SLICE("abc"), "abc") && !slice_is(SLICE("abc"), "ab") && !slice_is(SLICE("a"), "")
       && slice_is((struct slice) { NULL, 0 }, ""), "slice_is compares whole slices");
    return done_testing();
}
