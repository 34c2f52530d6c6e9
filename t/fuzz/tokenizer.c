/* fuzz/tokenizer.c - any bytes as tokenizer.json: refused in one line, or what it makes can encode
 * and decode. */
#include "../tok_make.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static const char text[] = "Hello  the thought\n\n\n\xc3\xa9\xf0\x9f\x98\x80<|turn>aaaabc";
    struct tok_stream s = { 0 };
    struct ids        ids = { 0 };
    struct buf        b = { 0 };
    struct err        e = { 0 };
    struct tok       *t;

    if (made_open(&t, (struct slice) { (const char *) p, n }, &e) != 0) {
        if (e.msg[0] == '\0' || strchr(e.msg, '\n') != NULL)
            abort();
        return 0;
    }

    if (tok_encode(t, text, sizeof(text) - 1, true, &ids, NULL) == 0) {
        for (size_t i = 0; i < ids.n; i++)
            if (ids.p[i] < 0 || ids.p[i] >= tok_n_vocab(t))
                abort();
        for (int32_t id = -1; id <= tok_n_vocab(t) && id < 1000; id++)
            tok_stream_put(t, &s, id, &b);
        tok_stream_end(&s, &b);
        if (!utf8_valid(b.p, b.n))
            abort();
    }
    tok_close(t);
    ids_free(&ids);
    buf_free(&b);
    return 0;
}
