/* t/json.c - the tree, the numbers, and everything that is refused, with its byte. */
#include "json.h"
#include "tap.h"

#include <stdlib.h>
#include <time.h>

static const struct json_limits lim = { .bytes = 1 << 20, .depth = 8, .nodes = 1000 };

static void round_trip(void)
{
    static const char *const rows[][2] = {
        { "null", NULL }, { " true ", "true" }, { "[]", NULL }, { "{}", NULL }, { "\"\"", NULL },
        { "-0", NULL }, { "1.0", NULL }, { "9223372036854775808", NULL }, { "1E+3", NULL },
        { "123456789012345678901234567890.5e-7", NULL },
        { "{\"b\":1,\"a\":[1,2.50,{\"x\":null}],\"c\":{\"d\":{}},\"\":\"q\"}", NULL },
        { "[[[[]]],[],{}]", NULL },
        { "\"\\u0041\\u00e9\\ud83d\\ude00\\/\"", "\"A\xc3\xa9\xf0\x9f\x98\x80/\"" },
        { "\"a\\u0000b\"", "\"a\\u0000b\"" }, { "\"\\\\ud800\"", NULL },
        { "[ 1 , 2 ]\n", "[1,2]" }, { "7", NULL }, { "7 ", "7" }, { "\"a\" \t\r\n", "\"a\"" },
        { "{\"a\":1,\"A\":2,\"aa\":3}", NULL },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct json_doc   *d;
        const struct json *j;
        struct err         e = { 0 };
        struct buf         b = { 0 };

        if (!ok(json_parse(&d, &j, rows[i][0], strlen(rows[i][0]), &lim, &e) == 0, "parse %s",
                rows[i][0])) {
            printf("# %s\n", e.msg);
            continue;
        }
        json_write(j, &b);
        buf_put(&b, "", 1);
        is_str(b.p, rows[i][1] != NULL ? rows[i][1] : rows[i][0], "write %s", rows[i][0]);
        buf_free(&b);
        json_free(d);
    }
}

static void refused(void)
{
    static const struct { const char *p; size_t n; const char *words; } rows[] = {
        { "", 0, "at byte 0" }, { "  ", 0, "premature EOF at byte 2" }, { "[1", 0, "at byte 2" },
        { "{\"a\":1,}", 0, "at byte" }, { "[1,]", 0, "at byte" }, { "01", 0, "at byte" },
        { "1 2", 0, "at byte" }, { "{} x", 0, "at byte" }, { "nul", 0, "at byte" },
        { "{}\"", 0, "at byte 3" }, { "{} \"}", 0, "at byte" }, { "[]tru", 0, "at byte" },
        { "{}-", 0, "at byte" }, { "\"a\" n", 0, "at byte" }, { "1 \"", 0, "at byte" },
        { "null\"", 0, "at byte" }, { "{}\"\\", 0, "at byte" }, { "[] 1", 0, "at byte" },
        { "'a'", 0, "at byte" }, { "// c\n1", 0, "at byte" }, { "\"a\nb\"", 0, "at byte" },
        { "NaN", 0, "at byte" }, { "\xef\xbb\xbf{}", 0, "at byte" }, { "[1]\0", 4, "at byte" },
        { "\"\\x41\"", 0, "at byte" }, { "\"\\u12g4\"", 0, "at byte" }, { "1.", 0, "at byte" },
        { "-", 0, "at byte" }, { "\"\\", 0, "at byte" }, { "\"\\u00", 0, "at byte" },
        { "\"ab\xff\"", 0, "invalid UTF-8 at byte 3" },
        { "\"ab\xed\xa0\x80\"", 0, "invalid UTF-8 at byte 3" },
        { "\"ab\xc0\x80\"", 0, "invalid UTF-8 at byte 3" },
        { "\"ab\xe2\x96\"", 0, "invalid UTF-8 at byte 3" },
        { "\"x\\ud800\"", 0, "unpaired surrogate escape at byte 2" },
        { "\"x\\uDC00\"", 0, "unpaired surrogate escape at byte 2" },
        { "\"\\ud800\\ud800\"", 0, "unpaired surrogate escape at byte 1" },
        { "\"\\ud83d\\\\ude00\"", 0, "unpaired surrogate escape at byte 1" },
        { "{\"\\ud800\":1}", 0, "unpaired surrogate escape at byte 2" },
        { "\"\\ud83d\\ude0", 0, "unpaired surrogate escape at byte 1" },
        { "{\"a\":1,\"b\":2,\"a\":3}", 0, "duplicate key \"a\" at byte" },
        { "{\"a\":1,\"\\u0061\":3}", 0, "duplicate key \"a\" at byte" },
        { "{\"\":1,\"\":3}", 0, "duplicate key at byte" },
        { "[{\"1\":0,\"2\":0,\"3\":0,\"4\":0,\"5\":0,\"6\":0,\"7\":0,\"8\":0,\"9\":0,\"7\":0}]", 0,
          "duplicate key \"7\" at byte" },
        { "[[[[[[[[[]]]]]]]]]", 0, "nested too deeply at byte" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct json_doc   *d;
        const struct json *j;
        struct err         e = { 0 };
        size_t             n = rows[i].n != 0 ? rows[i].n : strlen(rows[i].p);
        char              *exact = malloc(n + (n == 0));

        memcpy(exact, rows[i].p, n);    /* no NUL behind it: ASan sees a read past the end */
        if (!ok(json_parse(&d, &j, exact, n, &lim, &e) == E_INVALID && d == NULL && j == NULL
                && strstr(e.msg, rows[i].words) != NULL && strchr(e.msg, '\n') == NULL,
                "refuse row %zu: %s", i, e.msg))
            printf("# want '%s'\n", rows[i].words);
        json_free(d);
        free(exact);
    }
}

static void limits(void)
{
    struct json_limits l = { .bytes = 10, .depth = 2, .nodes = 4 };
    struct json_doc   *d;
    const struct json *j;
    struct err         e = { 0 };

    is_int(json_parse(&d, &j, "[1,2,3]", 7, &l, &e), 0, "as many values as allowed");
    json_free(d);
    is_int(json_parse(&d, &j, "[1,2,3,4]", 9, &l, &e), E_INVALID, "one value too many");
    ok(strstr(e.msg, "too many values at byte") != NULL, "says so: %s", e.msg);
    is_int(json_parse(&d, &j, "[[]]", 4, &l, &e), 0, "as deep as allowed");
    json_free(d);
    is_int(json_parse(&d, &j, "[[[]]]", 6, &l, &e), E_INVALID, "one level too deep");
    is_int(json_parse(&d, &j, "[1]       ", 10, &l, &e), 0, "as many bytes as allowed");
    json_free(d);
    is_int(json_parse(&d, &j, "[1]        ", 11, &l, &e), E_INVALID, "one byte too many");
    ok(strstr(e.msg, "11 bytes") != NULL, "says so: %s", e.msg);
    is_int(json_parse(&d, &j, "[", 1, &l, NULL), E_INVALID, "err may be NULL");
}

static void numbers(void)
{
    static const struct { const char *p; int rc; long long v; } rows[] = {
        { "0", 0, 0 }, { "-0", 0, 0 }, { "-0.0", 0, 0 }, { "0e999999999999999999999", 0, 0 },
        { "1.0", 0, 1 }, { "1e3", 0, 1000 }, { "-12.50e1", 0, -125 }, { "10.0", 0, 10 },
        { "1000e-3", 0, 1 }, { "0.001e3", 0, 1 }, { "100000000000000000000e-19", 0, 10 },
        { "9223372036854775807", 0, 9223372036854775807LL },
        { "-9223372036854775808", 0, -9223372036854775807LL - 1 },
        { "9223372036854775808", E_INVALID, 0 }, { "-9223372036854775809", E_INVALID, 0 },
        { "9.223372036854775807e18", 0, 9223372036854775807LL },
        { "1e19", E_INVALID, 0 }, { "1e99999999999999999999", E_INVALID, 0 },
        { "1e-99999999999999999999", E_INVALID, 0 }, { "1.5", E_INVALID, 0 },
        { "0.1", E_INVALID, 0 }, { "99999999999999999999", E_INVALID, 0 },
        { "\"1\"", E_INVALID, 0 }, { "null", E_INVALID, 0 },
    };
    struct json_doc   *d;
    const struct json *j;
    int64_t            v;
    double             f;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int rc;

        v = 0;
        is_int(json_parse(&d, &j, rows[i].p, strlen(rows[i].p), &lim, NULL), 0, "%s", rows[i].p);
        rc = json_int(j, &v);
        ok(rc == rows[i].rc && (rc < 0 || v == rows[i].v), "json_int %s", rows[i].p);
        json_free(d);
    }

    json_parse(&d, &j, "[1.5e-3,1e999,1]", 16, &lim, NULL);
    ok(json_double(j->child, &f) == 0 && f == 1.5e-3, "json_double");
    is_int(json_double(j->child->next, &f), E_INVALID, "json_double refuses 1e999");
    ok(!j->child->is_int && !j->child->next->is_int && j->child->next->next->is_int, "is_int");
    is_int(json_double(j, &f), E_INVALID, "json_double of an array");
    is_int(json_double(NULL, &f), E_INVALID, "json_double of nothing");
    json_free(d);
}

static void get(void)
{
    struct json_doc   *d;
    const struct json *j;

    json_parse(&d, &j, "{\"a\":1,\"b\":{\"c\":\"x\\u0000y\"}}", 28, &lim, NULL);
    ok(j->n == 2 && slice_is(json_get(j, "a")->text, "1"), "json_get finds");
    ok(json_get(json_get(j, "b"), "c")->text.n == 3, "a string may hold NUL");
    ok(json_get(j, "z") == NULL && json_get(NULL, "a") == NULL
       && json_get(json_get(j, "a"), "a") == NULL, "json_get of what is not there");
    json_free(d);
    is_str(json_type_name(JSON_ARRAY), "an array", "type names");
}

/* Hostile sizes must stay near-linear: an object of 200,000 keys, 100,000 levels. */
static void hostile(void)
{
    struct json_limits l = { .bytes = 1 << 26, .depth = 200000, .nodes = 1000000 };
    struct json_doc   *d;
    const struct json *j;
    struct buf         b = { 0 }, w = { 0 };
    clock_t            t0 = clock();

    buf_str(&b, "{");
    for (int i = 0; i < 200000; i++)
        buf_fmt(&b, "%s\"key%06d\":%d", i ? "," : "", i, i);
    buf_str(&b, "}");
    is_int(json_parse(&d, &j, b.p, b.n, &l, NULL), 0, "an object of 200,000 keys");
    ok(j != NULL && j->n == 200000, "all there");
    json_free(d);

    b.n = 0;
    for (int i = 0; i < 100000; i++)
        buf_str(&b, "[");
    for (int i = 0; i < 100000; i++)
        buf_str(&b, "]");
    is_int(json_parse(&d, &j, b.p, b.n, &l, NULL), 0, "100,000 levels, where the limit allows it");
    json_write(j, &w);
    ok(w.n == b.n && memcmp(w.p, b.p, b.n) == 0, "and written back");
    json_free(d);
    ok(clock() - t0 < 10 * CLOCKS_PER_SEC, "in bounded time");
    buf_free(&b);
    buf_free(&w);
}

int main(void)
{
    round_trip();
    refused();
    limits();
    numbers();
    get();
    hostile();
    return done_testing();
}
