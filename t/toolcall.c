/* t/toolcall.c - tool calls out of token ids: the table of known outputs, how values get their
 * types, random calls that come back unchanged, and broken ones that stay valid JSON or content. */
#define _GNU_SOURCE
#include "channel.h"
#include "chat.h"
#include "json.h"
#include "tap.h"
#include "tok_make.h"

#define N_RANDOM  100000
#define PLAIN "<bos><|turn>user\na<turn|>\n<|turn>model\n"
#define OPEN  PLAIN "<|channel>thought\n"
#define Q     "<|\"|>"
#define CALL  "<|tool_call>"
#define DONE  "<tool_call|>"
#define END   "<|tool_response>"

static struct tok        *tok;
static struct channel_ids ids;
static struct toolset    *tools;
static struct err         err;

/* Everything said, as text: r:reasoning c:content, calls as name and arguments, then how it ended:
 * calls that are complete. Whole answers have no order but that of calls. */
struct row { const char *prompt, *raw, *want; bool cut; };

static const struct row rows[] = {
    /* the table of gemma4-chat.md */
    { PLAIN, "Hello!<turn|>", "c:Hello!|0", 0 },
    { PLAIN, "<|channel>thought\nI think.\n<channel|>Hello!<turn|>", "r:I think.|c:Hello!|0", 0 },
    { PLAIN, "<|channel>thought\n<channel|>Hello!<turn|>", "c:Hello!|0", 0 },
    { PLAIN, "<|channel>thought<channel|>Hello!<turn|>", "c:Hello!|0", 0 },
    { OPEN, "plan it\n<channel|>Done.<turn|>", "r:plan it|c:Done.|0", 0 },
    { OPEN, "<|channel>thought\nplan<channel|>Done.<turn|>", "r:plan|c:Done.|0", 0 },
    { OPEN, "direct answer<turn|>", "r:direct answer|0", 0 },
    { PLAIN, "<|channel>thought\nnever closed", "r:never closed|0", 1 },
    { PLAIN, "Hi<|channel>thought\n<channel|><channel|><turn|>", "c:Hi|0", 0 },
    { PLAIN, "<|channel><|channel>thought\nx<channel|>Hi<turn|>", "r:x|c:Hi|0", 0 },
    { PLAIN, "<|turn>model\nHi<turn|>", "c:Hi|0", 0 },
    { PLAIN, "<|channel>thoughtful idea<channel|>Hi<turn|>", "r:thoughtful idea|c:Hi|0", 0 },
    { PLAIN, CALL "call:get_weather{city:" Q "Paris, France" Q ",unit:" Q "celsius" Q "}" DONE END,
      "get_weather{\"city\": \"Paris, France\", \"unit\": \"celsius\"}|1", 0 },
    { PLAIN, "<|channel>thought\nr<channel|>Let me see. " CALL "call:f{a:1}" DONE CALL "call:f{a:2}"
      DONE END, "r:r|c:Let me see.|f{\"a\": 1}|f{\"a\": 2}|2", 0 },
    { PLAIN, CALL "call:f{i:-7,d:3.10,e:1.5e10,b:true,n:null,o:{k:" Q "v{}" Q ",z:{}},l:[" Q "x]" Q
      ",[1,2],{}],s:" Q Q "}" DONE END, "f{\"i\": -7, \"d\": 3.10, \"e\": 1.5e10, \"b\": true, "
      "\"n\": null, \"o\": {\"k\": \"v{}\", \"z\": {}}, \"l\": [\"x]\", [1, 2], {}], "
      "\"s\": \"\"}|1", 0 },
    { PLAIN, CALL "call:ping{}" DONE END, "ping{}|1", 0 },
    { PLAIN, CALL "call:ping" DONE END, "ping{}|1", 0 },
    { PLAIN, CALL "call:f{" Q "key" Q ":1, b : " Q "line1\nl\"2\"\\" Q " ,}" DONE END,
      "f{\"key\": 1, \"b\": \"line1\\nl\\\"2\\\"\\\\\"}|1", 0 },
    { PLAIN, CALL ":f{a:1}" DONE END, "f{\"a\": 1}|1", 0 },
    { PLAIN, CALL "f{a:1}" DONE END, "f{\"a\": 1}|1", 0 },
    { PLAIN, CALL "call:f(a:1)" DONE END, "f{\"a\": 1}|1", 0 },
    { PLAIN, "<|channel>thought\nr<channel|>call:f{a:" Q "x" Q "}<turn|>", "r:r|f{\"a\": \"x\"}|1",
      0 },
    { PLAIN, "Please call:f{a} yourself<turn|>", "c:Please call:f{a} yourself|0", 0 },
    { PLAIN, "<|channel>thought\nr " CALL "call:f{a:1}" DONE END, "r:r|f{\"a\": 1}|1", 0 },
    { PLAIN, CALL "call:f{a:" Q "unfinished str<turn|>", "f{\"a\": \"unfinished str\"}|1", 0 },
    { PLAIN, CALL "call:f{a:" Q "unfinished str", "f{\"a\": \"unfinished str|0", 1 },
    { PLAIN, CALL "call:f{a:1}" CALL "call:f{a:2}" DONE END, "f{\"a\": 1}|f{\"a\": 2}|2", 0 },
    { PLAIN, CALL "call:f{a:1}" DONE "\n\nI called it.<turn|>", "c:I called it.|f{\"a\": 1}|1", 0 },
    { PLAIN, CALL "call:f{q:New York,n:007,t:True}" DONE END,
      "f{\"q\": \"New York\", \"n\": \"007\", \"t\": \"True\"}|1", 0 },

    /* beyond the table: heads */
    { PLAIN, CALL " call:f {a:1}" DONE, "f{\"a\": 1}|1", 1 },
    { PLAIN, CALL "call:other{a:1}" DONE, "other{\"a\": 1}|1", 1 },
    { PLAIN, CALL "call:other" DONE "x", "c:call:otherx|0", 1 },
    { PLAIN, CALL "call:f<turn|>", "c:call:f|0", 0 },
    { PLAIN, CALL "call:f", "0", 1 },
    { PLAIN, CALL, "0", 1 },
    { PLAIN, "Hi " CALL "call:get_", "c:Hi|0", 1 },
    { PLAIN, CALL "call:ping{}" DONE CALL "call:get_", "ping{}|1", 1 },
    { PLAIN, CALL "call:get_<turn|>", "c:call:get_|0", 1 },
    { PLAIN, CALL "call:{a:" Q "b" Q "}" DONE " c", "c:call:{a:b} c|0", 1 },
    { PLAIN, CALL "no call here {a}" DONE, "c:no call here {a}|0", 1 },
    { PLAIN, CALL DONE CALL, "0", 1 },
    { PLAIN, CALL "call:f" CALL "call:ping{", "f{}|ping{|1", 1 },
    { PLAIN, CALL "call:f{a:1}<|channel>thought\nhm<channel|>x", "r:hm|c:x|f{\"a\": 1}|1", 1 },
    { PLAIN, CALL "call:f{a:1<channel|>2}" DONE, "f{\"a\": 12}|1", 1 },

    /* bare calls */
    { PLAIN, " \n call:f{a:1}<turn|>", "f{\"a\": 1}|1", 0 },
    { PLAIN, "call:other{a:1}<turn|>", "c:call:other{a:1}|0", 0 },
    { PLAIN, "call:f<turn|>", "c:call:f|0", 0 },
    { PLAIN, "call", "c:call|0", 1 },
    { PLAIN, "call:f(a:1)<turn|>", "c:call:f(a:1)|0", 0 },
    { PLAIN, "call:f{a:1}call:f{a:2}" DONE "call:f{a:3}" DONE, "f{\"a\": 1}|f{\"a\": 3}|2", 1 },
    { OPEN, "call:f{a:1}<channel|>x<turn|>", "r:call:f{a:1}|c:x|0", 0 },
    { PLAIN, "call:f<|channel>thought\nx<channel|>{a:1}", "r:x|c:call:f{a:1}|0", 1 },

    /* white space */
    { PLAIN, " \n Hi \n <turn|>", "c: \n Hi \n |0", 0 },
    { PLAIN, " \n" CALL "call:ping{}" DONE "\n \n<turn|>", "ping{}|1", 0 },
    { PLAIN, "Hi \n" CALL "call:ping{}" DONE "\n Ho \n" CALL "call:ping{}" DONE " <turn|>",
      "c:HiHo|ping{}|ping{}|2", 0 },
    { PLAIN, CALL "call:ping{}" DONE "Done. \n<turn|>", "c:Done.|ping{}|1", 0 },
    { PLAIN, "one \n<|channel>thought\nx \n<channel|> two <turn|>", "r:x|c:one \ntwo |0", 0 },

    /* arguments */
    { PLAIN, CALL "call:f{l:[1,2}" DONE, "f{\"l\": [1, 2]}|1", 1 },
    { PLAIN, CALL "call:f{q:a[1]}" DONE, "f{\"q\": \"a[1]\"}|1", 1 },
    { PLAIN, CALL "call:f{q:a],r:[{x:1]}" DONE, "f{\"q\": \"a]\", \"r\": [{\"x\": 1}]}|1", 1 },
    { PLAIN, CALL "call:f{a:,b:}" DONE, "f{\"a\": \"\", \"b\": \"\"}|1", 1 },
    { PLAIN, CALL "call:f{a:[,1,,2,]}" DONE, "f{\"a\": [1, 2]}|1", 1 },
    { PLAIN, CALL "call:f{a,b:1,c}" DONE, "f{\"b\": 1}|1", 1 },
    { PLAIN, CALL "call:f{a:1,b:2,a:3,c:{a:4,a:5},b:{b:[1]},d:6}" DONE,
      "f{\"a\": 1, \"b\": 2, \"c\": {\"a\": 4}, \"d\": 6}|1", 1 },
    { PLAIN, CALL "call:f{a:1,a:" Q "x", "f{\"a\": 1|0", 1 },
    { PLAIN, CALL "call:f{a:1,a:[{b:" Q "x<turn|>", "f{\"a\": 1}|1", 0 },
    { PLAIN, CALL "call:f{" Q " k: " Q ":1," Q "," Q ":2,:3}" DONE,
      "f{\" k: \": 1, \",\": 2, \"\": 3}|1", 1 },
    { PLAIN, CALL "call:f{a:1} and more {b:2} " Q "x" Q DONE "y", "c:y|f{\"a\": 1}|1", 1 },
    { PLAIN, CALL "call:f{a:`x" Q "y`,b:'z'}" DONE, "f{\"a\": \"`xy`\", \"b\": \"'z'\"}|1", 1 },
    { PLAIN, CALL "call:f{a:" Q "\xf0\x9f\xa6\x99\x01" Q "}" DONE,
      "f{\"a\": \"\xf0\x9f\xa6\x99\\u0001\"}|1", 1 },
    { PLAIN, CALL "call:f{a:tru", "f{\"a\": \"tru|0", 1 },
    { PLAIN, CALL "call:f{a:12 ", "f{\"a\": 12|0", 1 },
    { PLAIN, CALL "call:f{a:9007199254740993,b:-0,c:1E+2,d:-,e:1.,f:.5,g:+1}" DONE,
      "f{\"a\": 9007199254740993, \"b\": -0, \"c\": 1E+2, \"d\": \"-\", \"e\": \"1.\", "
      "\"f\": \".5\", \"g\": \"+1\"}|1", 1 },
    { PLAIN, CALL "call:f(a:g(1),b:[(2)])" DONE, "f{\"a\": \"g(1\"}|1", 1 },
};

/* The place itself and these are SCHEMA_ALT_MAX. */
#define THREE  "{\"type\":\"integer\"},{\"type\":\"integer\"},{\"type\":\"integer\"}"
#define ELEVEN THREE "," THREE "," THREE ",{\"type\":\"null\"},{\"type\":\"integer\"}"

static const char declared[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"ping\",\"parameters\":null}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{\"type\":"
    "\"object\",\"properties\":{\"city\":{\"type\":\"string\"}}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"typed\",\"parameters\":{"
    "\"$defs\":{\"Node\":{\"properties\":{\"v\":{\"type\":\"integer\"},"
    "\"next\":{\"$ref\":\"#/$defs/Node\"}}},\"Loop\":{\"$ref\":\"#/$defs/Loop\"}},"
    "\"properties\":{"
    "\"s\":{\"type\":\"string\"},\"i\":{\"type\":\"integer\"},\"n\":{\"type\":\"NUMBER\"},"
    "\"b\":{\"type\":\"boolean\"},\"z\":{\"type\":\"null\"},\"o\":{\"type\":\"object\"},"
    "\"a\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},"
    "\"si\":{\"type\":[\"string\",\"integer\"]},\"in\":{\"type\":\"integer\",\"nullable\":true},"
    "\"any\":{\"anyOf\":[{\"type\":\"boolean\"},{\"oneOf\":[{\"type\":\"null\"}]}]},"
    "\"e\":{\"enum\":[1,2]},\"c\":{\"const\":\"5\"},\"node\":{\"$ref\":\"#/$defs/Node\"},"
    "\"loop\":{\"$ref\":\"#/$defs/Loop\"},\"nowhere\":{\"$ref\":\"#/$defs/None\"},"
    "\"almost\":{\"anyOf\":[" ELEVEN "]},\"wide\":{\"anyOf\":[{}," ELEVEN "]},"
    "\"t\":{\"prefixItems\":[{\"type\":\"string\"},{\"type\":\"null\"}]},"
    "\"m\":{\"additionalProperties\":{\"type\":\"string\"}}}}}}]";

struct typed { const char *args, *want; };

static const struct typed typed[] = {
    { "s:5", "\"s\": \"5\"" }, { "s:true", "\"s\": \"true\"" }, { "s:null", "\"s\": \"null\"" },
    { "s:" Q "5" Q, "\"s\": \"5\"" }, { "s:01234", "\"s\": \"01234\"" },
    { "i:5", "\"i\": 5" }, { "i:" Q "5" Q, "\"i\": 5" }, { "i:" Q "5.5" Q, "\"i\": \"5.5\"" },
    { "i:007", "\"i\": 7" }, { "i:+3", "\"i\": 3" }, { "i:5.", "\"i\": 5" },
    { "i:5.5", "\"i\": 5.5" },
    { "i:five", "\"i\": \"five\"" }, { "i:-00", "\"i\": -0" }, { "i:true", "\"i\": true" },
    { "n:.5", "\"n\": 0.5" }, { "n:-.5e3", "\"n\": -0.5e3" }, { "n:5", "\"n\": 5" },
    { "n:" Q " 1.50 " Q, "\"n\": 1.50" }, { "n:1e", "\"n\": \"1e\"" },
    { "n:1e+", "\"n\": \"1e+\"" },
    { "n:.", "\"n\": \".\"" }, { "n:NaN", "\"n\": \"NaN\"" }, { "n:0x10", "\"n\": \"0x10\"" },
    { "b:True", "\"b\": true" }, { "b:" Q "FALSE" Q, "\"b\": false" },
    { "b:yes", "\"b\": \"yes\"" },
    { "z:None", "\"z\": null" }, { "z:nil", "\"z\": null" }, { "z:" Q "null" Q, "\"z\": null" },
    { "in:None", "\"in\": null" }, { "in:" Q "4" Q, "\"in\": 4" },
    { "o:" Q "{\"x\": [1, 2]}" Q, "\"o\": {\"x\": [1, 2]}" }, { "o:" Q "[1]" Q, "\"o\": \"[1]\"" },
    { "o:" Q "{\"x\":1,\"x\":2}" Q, "\"o\": \"{\\\"x\\\":1,\\\"x\\\":2}\"" },
    { "a:" Q "[1]" Q, "\"a\": [1]" }, { "a:[1,true,x]", "\"a\": [\"1\", \"true\", \"x\"]" },
    { "si:5", "\"si\": 5" }, { "si:5.5", "\"si\": \"5.5\"" }, { "si:" Q "5" Q, "\"si\": \"5\"" },
    { "any:True", "\"any\": true" }, { "any:None", "\"any\": null" }, { "any:x", "\"any\": \"x\"" },
    { "e:" Q "1" Q, "\"e\": 1" }, { "c:5", "\"c\": \"5\"" },
    { "node:{v:" Q "1" Q ",next:{next:{v:007}}}",
      "\"node\": {\"v\": 1, \"next\": {\"next\": {\"v\": 7}}}" },
    { "loop:True", "\"loop\": \"True\"" }, { "nowhere:1", "\"nowhere\": 1" },
    { "t:[1,None]", "\"t\": [\"1\", null]" }, { "m:{x:1,y:{z:1}}", "\"m\": {\"x\": \"1\", "
      "\"y\": {\"z\": 1}}" },
    { "wide:" Q "5" Q, "\"wide\": \"5\"" }, { "almost:" Q "5" Q, "\"almost\": 5" },
    { "unknown:1", "\"unknown\": 1" }, { "city:007", "\"city\": \"007\"" },
};

/* What a stream or a whole answer tells, as text. */
static void tell(struct said *all, int n_call, struct buf *out)
{
    struct said_walk w = { 0 };
    struct said_call call;

    if (all->reasoning.n > 0)
        buf_fmt(out, "r:%.*s|", (int) all->reasoning.n, all->reasoning.p);
    if (all->content.n > 0)
        buf_fmt(out, "c:%.*s|", (int) all->content.n, all->content.p);
    while (said_next_call(all, &w, &call)) {
        buf_put(out, call.name.p, call.name.n);
        buf_put(out, call.args.p, call.args.n);
        buf_put(out, "|", 1);
    }
    buf_fmt(out, "%d", n_call);
    buf_put(out, "", 1);
}

/* drain: give what was said away after every token, as a stream does. */
static void run(const char *prompt, const char *raw, size_t n, bool cut, bool fine, bool drain,
                struct buf *out)
{
    struct ids       before = { 0 }, after = { 0 };
    struct said      said = { 0 }, all = { 0 };
    struct said_part part;
    struct slice     bytes;
    struct channel   c;

    made_ids(tok, prompt, strlen(prompt), fine, &before);
    made_ids(tok, raw, n, fine, &after);
    channel_open(&c, tok, &ids, tools, before.p, before.n);
    for (size_t i = 0; i <= after.n; i++) {
        if (i < after.n)
            channel_put(&c, after.p[i], &said);
        else
            channel_end(&c, cut, &said);
        if (!drain && i < after.n)
            continue;
        for (; said_front(&said, SIZE_MAX, &part, &bytes); said_take(&said, bytes.n))
            said_put(&all, part.kind, bytes.p, bytes.n);
    }
    out->n = 0;
    tell(&all, c.n_call, out);

    channel_close(&c);
    said_free(&said);
    said_free(&all);
    ids_free(&before);
    ids_free(&after);
}

static void table(void)
{
    struct buf out = { 0 };

    for (size_t i = 0; i < MADE(rows); i++)
        for (int how = 0; how < 4; how++) {
            run(rows[i].prompt, rows[i].raw, strlen(rows[i].raw), rows[i].cut, how & 1, how & 2,
                &out);
            is_str(out.p, rows[i].want, "row %zu, %s tokens, %s", i, how & 1 ? "byte" : "text",
                   how & 2 ? "streamed" : "whole");
        }
    buf_free(&out);
}

static void types(void)
{
    struct buf out = { 0 }, raw = { 0 }, want = { 0 };

    for (size_t i = 0; i < MADE(typed); i++) {
        raw.n = want.n = 0;
        buf_fmt(&raw, CALL "call:%s{%s}" DONE,
                strncmp(typed[i].args, "city", 4) == 0 ? "get_weather" : "typed", typed[i].args);
        run(PLAIN, raw.p, raw.n, true, true, true, &out);
        buf_fmt(&want, "{%s}|1", typed[i].want);
        buf_put(&want, "", 1);
        is_str(out.p + strcspn(out.p, "{"), want.p, "typed %s", typed[i].args);
    }
    buf_free(&out);
    buf_free(&raw);
    buf_free(&want);
}

/* Random calls. A splitmix64, so that the seed is all there is to know. */
static uint64_t seed = 5;

static uint32_t rnd(uint32_t n)
{
    uint64_t z = seed += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t) ((z ^ z >> 31) >> 33) % n;
}

/* Q is the byte 0xFF in what follows: no text has it. */
static const char *const pieces[] = {
    "a", "b", "key", " ", "  ", "\n", "\t", "\"", "\\", "{", "}", "[", "]", ",", ":", "'", "`",
    "call:", "<|tool_call>", "\x01", "\x7f", "\xc3\xa9", "\xe2\x80\xa8", "\xf0\x9f\xa6\x99", "0",
    "7", "-", ".", "true", "null", "(", ")", "/", "\b", "\r",
};

static void random_text(struct buf *b, uint32_t n_max)
{
    for (uint32_t n = rnd(n_max + 1); n > 0; n--)
        buf_str(b, pieces[rnd(MADE(pieces))]);
}

static void random_string(struct buf *call, struct buf *json)
{
    struct buf s = { 0 };

    random_text(&s, 6);
    buf_put(call, "\xff", 1);
    buf_put(call, s.p, s.n);
    buf_put(call, "\xff", 1);
    buf_json_str(json, s.p, s.n);
    buf_free(&s);
}

static void blank(struct buf *call)
{
    if (rnd(6) == 0)
        buf_str(call, rnd(2) ? " " : "\n  ");
}

static uint32_t n_word = 10;

static void random_scalar(struct buf *call, struct buf *json)
{
    static const char *const word[] = {     /* the template respells those behind the sixth */
        "true", "false", "null", "0", "-7", "9007199254740993", "3.10", "1.5e10", "-0.0", "2E-3",
    };
    const char *s = word[rnd(n_word)];

    if (rnd(2) == 0) {
        random_string(call, json);
        return;
    }
    buf_str(call, s);
    buf_str(json, s);
}

/* An object (or array) of random things, without recursion: a stack of what is open. */
static void random_args(struct buf *call, struct buf *json)
{
    char open[5] = "";
    int  n[5] = { 0 }, depth = 1;

    open[0] = '{';
    buf_str(call, "{");
    buf_str(json, "{");
    while (depth > 0) {
        int *count = &n[depth - 1];

        if (*count >= 4 || rnd(3) == 0) {
            blank(call);
            depth--;
            buf_str(call, open[depth] == '{' ? "}" : "]");
            buf_str(json, open[depth] == '{' ? "}" : "]");
            continue;
        }
        buf_str(call, *count > 0 ? "," : "");
        buf_str(json, *count > 0 ? ", " : "");
        blank(call);
        if (open[depth - 1] == '{') {
            const char *quote = rnd(4) == 0 ? "\xff" : "";

            buf_fmt(call, "%sk%d%s", quote, *count, quote);
            blank(call);
            buf_str(call, ":");
            buf_fmt(json, "\"k%d\": ", *count);
        }
        ++*count;
        blank(call);
        if (depth < 5 && rnd(4) == 0) {
            open[depth] = rnd(2) ? '{' : '[';
            buf_put(call, &open[depth], 1);
            buf_put(json, &open[depth], 1);
            n[depth++] = 0;
        } else {
            random_scalar(call, json);
        }
    }
}

/* Feed text in pieces of at most step characters; 0xFF is the quote token. False: no call. */
static bool feed(struct toolcall *t, const char *p, size_t n, size_t step, struct said *out)
{
    while (n > 0) {
        size_t k = 0, chars = 0;

        if ((unsigned char) *p == 0xFF) {
            toolcall_quote(t, out);
            p++;
            n--;
            continue;
        }
        while (k < n && (unsigned char) p[k] != 0xFF && chars++ < step)
            k += (size_t) utf8_len(p + k, n - k);
        if (!toolcall_text(t, p, k, out))
            return false;
        p += k;
        n -= k;
    }
    return true;
}

static bool is_json(const struct buf *b)
{
    const struct json_limits lim = { 1 << 20, 64, 1 << 20 };
    struct json_doc   *doc = NULL;
    const struct json *root = NULL;
    bool               good;

    good = json_parse(&doc, &root, b->p, b->n, &lim, &err) == 0 && root->type == JSON_OBJECT;
    json_free(doc);
    return good;
}

static bool same(const struct said *s, struct slice name, const struct buf *json)
{
    struct said_walk w = { 0 };
    struct said_call call;

    return said_next_call(s, &w, &call) && call.args.n == json->n
           && memcmp(call.args.p, json->p, json->n) == 0 && call.name.n == name.n;
}

static void unchanged(void)
{
    static struct toolcall t;
    struct buf  call = { 0 }, json = { 0 };
    struct said said = { 0 };
    int         bad = 0;

    for (int i = 0; i < N_RANDOM && bad < 5; i++) {
        call.n = json.n = 0;
        buf_str(&call, "call:f");
        random_args(&call, &json);
        for (size_t how = 0; how < (i % 50 == 0 ? call.n : 2); how++) {
            bool good = true;

            toolcall_begin(&t, tools);
            if (how < 2) {              /* at once, or every character alone */
                good = feed(&t, call.p, call.n, how == 0 ? SIZE_MAX : 1, &said);
            } else if (((unsigned char) call.p[how] & 0xC0) != 0x80) {        /* cut once */
                good = feed(&t, call.p, how, SIZE_MAX, &said)
                       && feed(&t, call.p + how, call.n - how, SIZE_MAX, &said);
            } else {
                continue;
            }
            good = good && toolcall_end(&t, TOOLCALL_CLOSED, &said)
                   && same(&said, SLICE("f"), &json);
            if (!good && bad++ < 5)
                printf("# call %d: %.*s\n# args  %.*s\n# want  %.*s\n", i, (int) call.n, call.p,
                       (int) said.calls.n, said.calls.p, (int) json.n, json.p);
            said_clear(&said);
            said.n_call = 0;
        }
    }
    is_int(bad, 0, "%d random calls come back unchanged, however cut", N_RANDOM);
    toolcall_free(&t);
    said_free(&said);
    buf_free(&call);
    buf_free(&json);
}

/* What the template makes of a call in the history is read back as that call. */
static void rendered(void)
{
    static struct toolcall t;
    const struct json_limits lim = { 1 << 20, 64, 1 << 20 };
    const struct chat_opts   opts = { 0 };
    struct buf  ignored = { 0 }, json = { 0 }, body = { 0 }, text = { 0 };
    struct said said = { 0 };
    int         bad = 0;

    n_word = 6;
    for (int i = 0; i < N_RANDOM / 5 && bad < 5; i++) {
        struct json_doc   *doc = NULL;
        const struct json *root;
        char              *p, *end, *q;
        bool               good;

        ignored.n = json.n = body.n = text.n = 0;
        random_args(&ignored, &json);
        buf_str(&body, "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
                "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":");
        buf_json_str(&body, json.p, json.n);
        buf_str(&body, "}}]}]");
        good = json_parse(&doc, &root, body.p, body.n, &lim, &err) == 0
               && chat_render(root, NULL, &opts, &text, NULL, &err) == 0;
        json_free(doc);
        buf_put(&text, "", 1);
        p = strstr(text.p, CALL) + strlen(CALL);
        end = (char *) memmem(p, (size_t) (text.p + text.n - p), DONE END, strlen(DONE END));
        for (q = p; good && (q = strstr(q, Q)) != NULL && q < end; end -= strlen(Q) - 1) {
            *q = '\xff';
            memmove(q + 1, q + strlen(Q), strlen(q + strlen(Q)) + 1);
        }
        toolcall_begin(&t, tools);
        good = good && feed(&t, p, (size_t) (end - p), 3, &said)
               && toolcall_end(&t, TOOLCALL_CLOSED, &said) && same(&said, SLICE("f"), &json);
        if (!good && bad++ < 5)
            printf("# prompt %s\n# args %.*s\n# want %.*s %s\n", text.p, (int) said.calls.n,
                   said.calls.p, (int) json.n, json.p, err.msg);
        said_clear(&said);
        said.n_call = 0;
    }
    is_int(bad, 0, "%d calls that the template prints are read as they were", N_RANDOM / 5);
    n_word = 10;
    toolcall_free(&t);
    said_free(&said);
    buf_free(&ignored);
    buf_free(&json);
    buf_free(&body);
    buf_free(&text);
}

/* Drop, double or insert a few things. */
static void damage(struct buf *b)
{
    struct buf s = { 0 };

    for (uint32_t n = 1 + rnd(4); n > 0; n--) {
        size_t at = rnd((uint32_t) b->n + 1), cut = rnd(3) == 0 ? rnd(8) : 0;

        while (at < b->n && ((unsigned char) b->p[at] & 0xC0) == 0x80)
            at++;
        cut = cut > b->n - at ? b->n - at : cut;
        while (at + cut < b->n && ((unsigned char) b->p[at + cut] & 0xC0) == 0x80)
            cut++;
        s.n = 0;
        buf_put(&s, b->p, at);
        if (rnd(2))
            random_text(&s, 3);
        else if (rnd(2))
            buf_put(&s, "\xff", 1);
        buf_put(&s, b->p + at + cut, b->n - at - cut);
        b->n = 0;
        buf_put(b, s.p, s.n);
    }
    buf_free(&s);
}

static void malformed(void)
{
    static const char *const heads[] = { "call:f", "call:typed", "", "call:", ":f", "x", " f " };
    static struct toolcall t;
    struct buf  call = { 0 }, json = { 0 }, first = { 0 }, args = { 0 };
    struct said said = { 0 };
    int         bad = 0, n_call = 0;

    for (int i = 0; i < N_RANDOM && bad < 5; i++) {
        call.n = json.n = first.n = 0;
        buf_str(&call, heads[rnd(MADE(heads))]);
        random_args(&call, &json);
        damage(&call);
        for (int how = 0; how < 2; how++) {
            bool is_call, good;

            toolcall_begin(&t, tools);
            is_call = feed(&t, call.p, call.n, how == 0 ? SIZE_MAX : 1, &said)
                      && toolcall_end(&t, TOOLCALL_STOPPED, &said);
            args = (struct buf) { .p = said.calls.p, .n = said.calls.n };
            if (is_call && said.n_part == 2) {
                args.p += said.part[0].n;
                args.n = said.part[1].n;
            }
            good = is_call ? said.n_part == 2 && is_json(&args) : said.n_part == 0;
            if (how == 0)
                buf_put(&first, args.p, args.n);
            else if (args.n != first.n || (args.n > 0 && memcmp(args.p, first.p, args.n) != 0))
                good = false;
            n_call += is_call;
            if (!good && bad++ < 5)
                printf("# call %d: %.*s\n# args  %.*s: %s\n", i, (int) call.n, call.p,
                       (int) args.n, args.p, err.msg);
            said_clear(&said);
            said.n_call = 0;
        }
    }
    is_int(bad, 0, "%d malformed ones are valid JSON or content", N_RANDOM);
    ok(n_call > N_RANDOM && n_call < 2 * N_RANDOM, "of both there are many: %d calls", n_call / 2);
    toolcall_free(&t);
    said_free(&said);
    buf_free(&call);
    buf_free(&json);
    buf_free(&first);
}

/* Wherever the model stops, the call is closed. */
static void any_stop(void)
{
    static const char raw[] = "Hm. " CALL "call:typed{i:" Q "12" Q ",s:" Q "a,b}" Q ",a:[x ,"
                              Q "y\n" Q "],o:{k:{" Q "q" Q ":[1,{}]}},b:True}" DONE;
    struct buf out = { 0 }, args = { 0 };
    int        bad = 0;

    for (size_t n = (size_t) (strchr(raw, '{') - raw) + 1; n < strlen(raw); n++) {
        run(PLAIN, raw, n, false, true, true, &out);
        args.p = strchr(out.p, '{');
        args.n = out.n - 3 - (size_t) (args.p - out.p);        /* without "|1" */
        if ((!is_json(&args) || strncmp(out.p, "c:Hm.|typed{", 12) != 0) && bad++ < 5)
            printf("# %zu: %s: %s\n", n, out.p, err.msg);
    }
    is_int(bad, 0, "a call that stops at any character is closed");
    buf_free(&out);
}

static void limits(void)
{
    static struct toolcall t;
    struct buf  raw = { 0 }, args = { 0 };
    struct said said = { 0 };
    char        name[80] = "";

    memset(name, 'n', 65);
    for (int n = 64; n <= 65; n++) {
        raw.n = 0;
        buf_fmt(&raw, "call:%.*s{}", n, name);
        toolcall_begin(&t, tools);
        is_int(feed(&t, raw.p, raw.n, 1, &said), n == 64, "a name of %d bytes", n);
        said_clear(&said);
    }

    raw.n = 0;
    buf_str(&raw, "call:f{a:");
    for (int i = 0; i < 1000; i++)
        buf_str(&raw, i % 2 ? "{k:" : "[");
    toolcall_begin(&t, tools);
    ok(feed(&t, raw.p, raw.n, 7, &said) && toolcall_end(&t, TOOLCALL_STOPPED, &said)
       && t.depth == 0, "a thousand brackets");
    args = (struct buf) { .p = said.calls.p + 1, .n = said.calls.n - 1 };
    ok(is_json(&args), "are valid JSON of bounded depth");
    said_clear(&said);

    for (int how = 0; how < 4; how++) {
        static const char *const start[] = {
            "call:f{a:", "call:typed{i:\xff", "call:f{", "call:f{\xff",
        };

        raw.n = 0;
        buf_str(&raw, start[how]);
        while (raw.n < TOOLCALL_HOLD_MAX + 100)
            buf_str(&raw, "1\xc3\xa9");
        buf_str(&raw, how == 1 ? "\xff,a:1}" : how == 0 ? ",b:1}" : how == 3 ? "\xff:1}" : ":1}");
        toolcall_begin(&t, tools);
        ok(feed(&t, raw.p, raw.n, 5, &said) && toolcall_end(&t, TOOLCALL_CLOSED, &said)
           && t.text.n <= TOOLCALL_HOLD_MAX + 4, "what is collected is bounded, %d", how);
        args = (struct buf) { .p = said.calls.p + said.part[0].n, .n = said.part[1].n };
        ok(is_json(&args) && utf8_valid(args.p, args.n) && args.n > TOOLCALL_HOLD_MAX - 10,
           "and valid: %s", err.msg);
        said_clear(&said);
    }
    toolcall_free(&t);
    said_free(&said);
    buf_free(&raw);
}

int main(void)
{
    const struct json_limits lim = { 1 << 16, 64, 1 << 12 };
    struct json_doc   *doc = NULL;
    const struct json *root = NULL;

    tok = made_tok();
    if (!ok(tok != NULL && json_parse(&doc, &root, declared, strlen(declared), &lim, &err) == 0
            && toolset_open(&tools, root, &err) == 0, "open: %s", err.msg))
        return done_testing();
    json_free(doc);                     /* the set has its own copy */
    channel_ids_find(tok, &ids);

    table();
    types();
    unchanged();
    rendered();
    malformed();
    any_stop();
    limits();

    toolset_close(tools);
    tok_close(tok);
    return done_testing();
}
