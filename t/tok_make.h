/* tok_make.h - a small tokenizer of Gemma's kind for the C tests: its control tokens, the bytes,
 * ASCII and a few merges. */
#ifndef T_TOK_MAKE_H
#define T_TOK_MAKE_H

#include "buf.h"
#include "tok.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const made_specials[] = {
    "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool>", "<tool|>", "<|tool_call>",
    "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|\"|>", "<|think|>", "<|channel>",
    "<channel|>", "<|turn>", "<turn|>", "<|image>", "<image|>", "<|image|>", "<|audio>",
    "<audio|>", "<|audio|>", "<|video|>",
};

/* Left and right of each merge, in rank order; M is U+2581. */
#define M "\xe2\x96\x81"
static const char *const made_merges[][2] = {
    { "\n", "\n" }, { "\n\n", "\n\n" }, { "\n\n", "\n" }, { M, M }, { M M, M M }, { M M, M },
    { "b", "c" }, { "a", "b" }, { "a", "a" }, { "aa", "aa" }, { "a", "bc" },
    { "t", "h" }, { "o", "u" }, { "th", "ou" }, { "g", "h" }, { "gh", "t" }, { "thou", "ght" },
    { "H", "e" }, { "l", "l" }, { "He", "ll" }, { "Hell", "o" }, { M, "t" }, { M "t", "h" },
    { M "th", "e" }, { "m", "o" }, { "d", "e" }, { "mo", "de" }, { "mode", "l" },
    { "<", "|" }, { "<|", "t" }, { "<|t", "u" }, { "<|tu", "r" }, { "<|tur", "n" },
    { "<|turn", ">" }, { "\xc3\xa9", "\xc3\xa9" },
};

#define MADE(a)  (sizeof(a) / sizeof((a)[0]))

static void made_entry(struct buf *b, const char *text, int *id)
{
    buf_str(b, *id == 0 ? "" : ",");
    buf_json_str(b, text, strlen(text));
    buf_fmt(b, ":%d", (*id)++);
}

/* The text of tokenizer.json. */
static void made_json(struct buf *b, bool string_merges)
{
    int id = 0;

    buf_str(b, "{\"added_tokens\":[");
    for (size_t i = 0; i < MADE(made_specials); i++) {
        buf_fmt(b, "%s{\"id\":%zu,\"content\":", i ? "," : "", i);
        buf_json_str(b, made_specials[i], strlen(made_specials[i]));
        buf_str(b, ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                "\"normalized\":false,\"special\":true}");
    }
    buf_str(b, "],\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
            "\"content\":\"" M "\"},\"pre_tokenizer\":null,\"post_processor\":null,"
            "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
            "\"pattern\":{\"String\":\"" M "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
            "{\"type\":\"Fuse\"}]},\"model\":{\"type\":\"BPE\",\"dropout\":null,"
            "\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,\"vocab\":{");

    for (size_t i = 0; i < MADE(made_specials); i++)
        made_entry(b, made_specials[i], &id);
    for (int i = 0; i < 256; i++) {
        char name[8];

        snprintf(name, sizeof(name), "<0x%02X>", i);
        made_entry(b, name, &id);
    }
    made_entry(b, M, &id);
    made_entry(b, "\n", &id);
    made_entry(b, "\xc3\xa9", &id);
    made_entry(b, "\xf0\x9f\x98\x80", &id);
    for (char c = '!'; c < 127; c++)
        made_entry(b, (char[]) { c, 0 }, &id);
    for (size_t i = 0; i < MADE(made_merges); i++) {
        char text[64];

        snprintf(text, sizeof(text), "%s%s", made_merges[i][0], made_merges[i][1]);
        if (strcmp(text, "<|turn>") != 0)
            made_entry(b, text, &id);
    }

    buf_str(b, "},\"merges\":[");
    for (size_t i = 0; i < MADE(made_merges); i++) {
        char text[64];

        buf_str(b, i ? "," : "");
        if (string_merges) {
            snprintf(text, sizeof(text), "%s %s", made_merges[i][0], made_merges[i][1]);
            buf_json_str(b, text, strlen(text));
        } else {
            buf_str(b, "[");
            buf_json_str(b, made_merges[i][0], strlen(made_merges[i][0]));
            buf_str(b, ",");
            buf_json_str(b, made_merges[i][1], strlen(made_merges[i][1]));
            buf_str(b, "]");
        }
    }
    buf_str(b, "]}}");
}

/* tok_open on a directory that holds just this text. */
static int made_open(struct tok **t, struct slice json, struct err *e)
{
    char  dir[] = "/tmp/inferd-tok-XXXXXX", path[64];
    FILE *f;
    int   rc;

    *t = NULL;
    if (mkdtemp(dir) == NULL)
        return err_set(e, E_IO, "mkdtemp");
    snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
    f = fopen(path, "w");
    if (f == NULL || fwrite(json.p, 1, json.n, f) != json.n || fclose(f) != 0)
        return err_set(e, E_IO, "%s", path);
    rc = tok_open(t, dir, e);
    unlink(path);
    rmdir(dir);
    return rc;
}

__attribute__((unused))
static struct tok *made_tok(void)
{
    struct buf  b = { 0 };
    struct err  e = { 0 };
    struct tok *t;

    made_json(&b, false);
    if (made_open(&t, (struct slice) { b.p, b.n }, &e) < 0)
        printf("# %s\n", e.msg);
    buf_free(&b);
    return t;
}

/* Markers become their id. Coarse: text as the tokenizer does it; fine: byte tokens only, the
 * hardest way to cut it. */
__attribute__((unused))
static void made_ids(const struct tok *t, const char *s, size_t n, bool fine, struct ids *out)
{
    struct ids all = { 0 };

    tok_encode(t, s, n, true, &all, NULL);
    for (size_t i = 0; i < all.n; i++) {
        struct slice text = tok_text(t, all.p[i]);

        if (!fine || tok_is_special(t, all.p[i])) {
            ids_put(out, all.p[i]);
            continue;
        }
        for (size_t k = 0; k < text.n; k++) {
            char name[8];

            snprintf(name, sizeof(name), "<0x%02X>", (unsigned char) text.p[k]);
            ids_put(out, tok_id(t, name));
        }
    }
    ids_free(&all);
}

#endif
