/* t/said.c - what waits comes out in its order, in pieces of whole characters, and as a whole. */
#include "said.h"
#include "tap.h"

#include <stdlib.h>

static void put(struct said *s, enum said_kind kind, const char *text)
{
    said_put(s, kind, text, strlen(text));
}

static void fill(struct said *s)
{
    put(s, SAID_REASONING, "hm");
    put(s, SAID_CONTENT, "a\xc3\xa9");
    put(s, SAID_CONTENT, "\xf0\x9f\x98\x80");
    put(s, SAID_CALL, "first");
    put(s, SAID_ARGS, "{\"a\": ");
    put(s, SAID_ARGS, "1}");
    put(s, SAID_CALL, "second");
    put(s, SAID_CONTENT, "after");
    put(s, SAID_CALL, "third");
    put(s, SAID_ARGS, "{}");
}

/* Everything that waits, "kind:bytes" each, taken in pieces of at most max bytes. */
static void drain(struct said *s, size_t max, struct buf *out)
{
    struct said_part part;
    struct slice     bytes;
    struct said_call call;

    for (; said_front(s, max, &part, &bytes); said_take(s, bytes.n)) {
        if (part.kind >= SAID_CALL) {
            said_front_call(s, part, bytes, &call);
            buf_fmt(out, "%d", call.index);
        }
        buf_fmt(out, "%c:%.*s|", "rcna"[part.kind], (int) bytes.n, bytes.p);
    }
    buf_put(out, "", 1);
}

static void order(void)
{
    struct said s = { 0 };
    struct buf  out = { 0 };

    fill(&s);
    is_int(said_bytes(&s), 2 + 7 + 5 + 8 + 6 + 5 + 5 + 2, "bytes that wait");
    drain(&s, SIZE_MAX, &out);
    is_str(out.p, "r:hm|c:a\xc3\xa9\xf0\x9f\x98\x80|0n:first|0a:{\"a\": 1}|1n:second|c:after|"
           "2n:third|2a:{}|", "in order, parts of a kind as one");
    is_int(said_bytes(&s), 0, "all taken");

    out.n = 0;
    put(&s, SAID_ARGS, "more");
    put(&s, SAID_CALL, "fourth");
    drain(&s, 4, &out);
    is_str(out.p, "2a:more|3n:fourth|", "numbers go on");

    out.n = 0;
    put(&s, SAID_CONTENT, "a\xc3\xa9\xf0\x9f\x98\x80");
    drain(&s, 4, &out);
    is_str(out.p, "c:a\xc3\xa9|c:\xf0\x9f\x98\x80|", "no character is cut");

    put(&s, SAID_CALL, "fifth");
    said_clear(&s);
    out.n = 0;
    put(&s, SAID_ARGS, "x");
    drain(&s, 4, &out);
    is_str(out.p, "4a:x|", "cleared is as taken");
    said_free(&s);
    buf_free(&out);
}

static void whole(void)
{
    struct said      s = { .id_key = { 1, 2 } }, other = { .id_key = { 1, 3 } };
    struct said_walk w = { 0 };
    struct said_call call, again;
    struct said_part part = { SAID_CALL, 5 };
    char             ids[3][SAID_ID_BYTES];
    struct buf       out = { 0 };
    static const char set[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

    fill(&s);
    while (said_next_call(&s, &w, &call)) {
        buf_fmt(&out, "%d %.*s %.*s|", call.index, (int) call.name.n, call.name.p,
                (int) call.args.n, call.args.n > 0 ? call.args.p : "");
        snprintf(ids[call.index], sizeof(ids[0]), "%s", call.id);
    }
    buf_put(&out, "", 1);
    is_str(out.p, "0 first {\"a\": 1}|1 second |2 third {}|", "calls of a whole answer");
    ok(strncmp(ids[0], "call_", 5) == 0 && strlen(ids[0]) == 29
       && strspn(ids[0] + 5, set) == 24,
       "an id is call_ and 24 letters or digits: %s", ids[0]);
    w = (struct said_walk) { 0 };
    s.cut = true;
    for (int i = 0; said_next_call(&s, &w, &call); i++)
        ok(call.cut == (i == 2), "call %d %s cut", i, call.cut ? "is" : "is not");
    ok(strcmp(ids[0], ids[1]) != 0 && strcmp(ids[1], ids[2]) != 0, "each has its own");
    said_front_call(&s, part, SLICE("first"), &again);
    is_str(again.id, ids[0], "streams have the same");
    said_front_call(&other, part, SLICE("first"), &again);
    ok(strcmp(again.id, ids[0]) != 0, "another answer has others");
    said_free(&s);
    buf_free(&out);
}

int main(void)
{
    order();
    whole();
    return done_testing();
}
