/* fuzz/tok.c - any text encodes and comes back; any ids decode into valid UTF-8 and go through the
 * channel; any bytes are survived as a tokenizer.json. */
#include "channel.h"

#include "../tok_make.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static struct tok        *tok;
static struct channel_ids channel_ids;

static void text(const char *p, size_t n, bool special)
{
    struct ids        ids = { 0 };
    struct tok_stream s = { 0 };
    struct buf        b = { 0 }, want = { 0 };

    if (tok_encode(tok, p, n, special, &ids, NULL) < 0)
        abort();
    for (size_t i = 0; i < ids.n; i++) {
        if (!special && tok_is_special(tok, ids.p[i]))
            abort();
        tok_stream_put(tok, &s, ids.p[i], &b);
    }
    tok_stream_end(&s, &b);

    /* The one loss: a U+2581 of the text comes back as a space. */
    for (size_t i = 0; i < n; i++) {
        bool mark = n - i >= 3 && memcmp(p + i, M, 3) == 0;

        buf_put(&want, mark ? " " : p + i, 1);
        i += mark ? 2 : 0;
    }
    if (utf8_valid(p, n) && (b.n != want.n || (n > 0 && memcmp(b.p, want.p, b.n) != 0)))
        abort();
    buf_free(&b);
    buf_free(&want);
    ids_free(&ids);
}

static void ids(const uint8_t *p, size_t n)
{
    struct channel c;
    struct said    said = { 0 };
    int32_t        prompt[] = { tok_id(tok, "<|channel>") };

    channel_open(&c, tok, &channel_ids, NULL, prompt, n & 1);
    for (size_t i = 0; i + 1 < n; i += 2)
        channel_put(&c, (p[i] | p[i + 1] << 8) % (tok_n_vocab(tok) + 2), &said);
    channel_end(&c, true, &said);
    if (!utf8_valid(said.content.p, said.content.n)
        || !utf8_valid(said.reasoning.p, said.reasoning.n))
        abort();
    channel_close(&c);
    said_free(&said);
}

/* The small file with a few bytes changed: p is a list of (place, byte). */
static void file(const uint8_t *p, size_t n)
{
    struct buf  b = { 0 };
    struct err  e = { 0 };
    struct tok *t;

    made_json(&b, n & 1);
    for (size_t i = 0; i + 2 < n; i += 3)
        b.p[((size_t) p[i] << 8 | p[i + 1]) % b.n] = (char) p[i + 2];
    if (made_open(&t, (struct slice) { b.p, b.n }, &e) == 0) {
        struct ids out = { 0 };

        tok_encode(t, (const char *) p, n, true, &out, NULL);
        ids_free(&out);
    }
    tok_close(t);
    buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    if (tok == NULL) {
        tok = made_tok();
        channel_ids_find(tok, &channel_ids);
    }
    if (n == 0)
        return 0;
    switch (p[0] & 7) {
    case 0: case 1: case 2: text((const char *) p + 1, n - 1, p[0] & 1); break;
    case 3: file(p + 1, n - 1); break;
    default: ids(p + 1, n - 1); break;
    }
    return 0;
}
