/* fuzz/toolcall.c - any token ids with tools in force: the same however often what was said is
 * taken, text valid, arguments JSON unless they were cut.
 *
 * An input is a byte of flags, then tokens: 0x80 .. 0x97 are the control tokens in the order of
 * tok_make.h, what follows 0x98 is a byte as it stands, everything else an ASCII character. */
#include "channel.h"
#include "json.h"

#include "../tok_make.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static struct tok        *tok;
static struct channel_ids ids;
static struct toolset    *tools;

static const char declared[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"typed\",\"parameters\":{"
    "\"$defs\":{\"N\":{\"properties\":{\"i\":{\"type\":\"integer\"},"
    "\"n\":{\"$ref\":\"#/$defs/N\"}}}},"
    "\"properties\":{\"s\":{\"type\":\"string\"},\"i\":{\"type\":\"integer\"},"
    "\"n\":{\"$ref\":\"#/$defs/N\"},\"o\":{\"type\":\"object\"},"
    "\"a\":{\"items\":{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"boolean\"}]}}}}}}]";

static const struct json_limits lim = { 1 << 20, 64, 1 << 20 };

static void setup(void)
{
    struct json_doc   *doc = NULL;
    const struct json *root = NULL;

    tok = made_tok();
    channel_ids_find(tok, &ids);
    if (json_parse(&doc, &root, declared, strlen(declared), &lim, NULL) != 0
        || toolset_open(&tools, root, NULL) != 0)
        abort();
    json_free(doc);
}

static int32_t token(const uint8_t **p, const uint8_t *end)
{
    char    name[8];
    uint8_t c = *(*p)++;

    if (c >= 0x80 && c < 0x98)
        return c - 0x80;
    if (c == 0x98 && *p < end)
        c = *(*p)++;
    snprintf(name, sizeof(name), "<0x%02X>", c);
    return tok_id(tok, name);
}

static void run(const uint8_t *p, size_t n, bool cut, bool drain, struct said *all)
{
    static const char open[] = "<|channel>";
    const uint8_t    *end = p + n;
    const int32_t     prompt = tok_id(tok, open);
    struct said       said = { 0 };
    struct said_part  part;
    struct slice      bytes;
    struct channel    c;

    channel_open(&c, tok, &ids, tools, &prompt, n & 1);
    for (bool last = false; !last;) {
        last = p == end;
        if (last)
            channel_end(&c, cut, &said);
        else
            channel_put(&c, token(&p, end), &said);
        for (; (drain || last) && said_front(&said, SIZE_MAX, &part, &bytes);
             said_take(&said, bytes.n))
            said_put(all, part.kind, bytes.p, bytes.n);
    }
    channel_close(&c);
    said_free(&said);
}

static void same(const struct buf *a, const struct buf *b)
{
    if (a->n != b->n || (a->n > 0 && memcmp(a->p, b->p, a->n) != 0) || !utf8_valid(a->p, a->n))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct said      streamed = { 0 }, whole = { 0 };
    struct said_walk w = { 0 };
    struct said_call call;
    bool             cut;

    if (tok == NULL)
        setup();
    if (n == 0)
        return 0;
    cut = p[0] & 1;
    run(p + 1, n - 1, cut, true, &streamed);
    run(p + 1, n - 1, cut, false, &whole);
    same(&streamed.reasoning, &whole.reasoning);
    same(&streamed.content, &whole.content);
    same(&streamed.calls, &whole.calls);

    while (said_next_call(&whole, &w, &call)) {
        struct json_doc   *doc = NULL;
        const struct json *root;

        if ((!cut || call.index + 1 < whole.n_call)
            && json_parse(&doc, &root, call.args.p, call.args.n, &lim, NULL) != 0)
            abort();
        json_free(doc);
    }
    said_free(&streamed);
    said_free(&whole);
    return 0;
}
