/* words_make.h - a tokenizer whose entries the test chooses: a few control tokens, the bytes, and
 * then these. */
#ifndef T_WORDS_MAKE_H
#define T_WORDS_MAKE_H

#include "tok_make.h"

#define WORDS_SPECIAL 4                  /* <pad> <eos> <bos> <unk> */

/* Each ends in a NUL and has no other; entries as the file spells them, so M is a space. */
static struct tok *words_tok(const char *const *word, size_t n, struct err *e)
{
    struct buf  b = { 0 };
    struct tok *t = NULL;
    int         id = 0;

    buf_str(&b, "{\"added_tokens\":[");
    for (int i = 0; i < WORDS_SPECIAL; i++) {
        buf_fmt(&b, "%s{\"id\":%d,\"content\":", i ? "," : "", i);
        buf_json_str(&b, made_specials[i], strlen(made_specials[i]));
        buf_str(&b, ",\"special\":true}");
    }
    buf_str(&b, "],\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
            "\"content\":\"" M "\"},\"decoder\":{\"type\":\"Sequence\",\"decoders\":["
            "{\"type\":\"Replace\",\"pattern\":{\"String\":\"" M "\"},\"content\":\" \"},"
            "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]},\"model\":{\"type\":\"BPE\","
            "\"byte_fallback\":true,\"merges\":[],\"vocab\":{");
    for (int i = 0; i < WORDS_SPECIAL; i++)
        made_entry(&b, made_specials[i], &id);
    for (int i = 0; i < 256; i++) {
        char name[8];

        snprintf(name, sizeof(name), "<0x%02X>", i);
        made_entry(&b, name, &id);
    }
    for (size_t i = 0; i < n; i++)
        made_entry(&b, word[i], &id);
    buf_str(&b, "}}}");
    if (!b.full)
        made_open(&t, (struct slice) { b.p, b.n }, e);
    buf_free(&b);
    return t;
}

#endif
