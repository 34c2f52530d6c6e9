/* t/tok.c - the tokenizer on a small made-up file: merges against a naive twin, bytes, control
 * tokens, streaming, and what is refused. t/tok_reference.py compares with the real library. */
#include "tap.h"
#include "tok_make.h"

#include <time.h>

static struct tok *tok;

/* The ids as entries, with '|' between. */
static const char *show(const struct ids *ids)
{
    static char text[4096];
    size_t      n = 0;

    text[0] = '\0';
    for (size_t i = 0; i < ids->n; i++) {
        struct slice s = tok_entry(tok, ids->p[i]);

        n += (size_t) snprintf(text + n, sizeof(text) - n, "%s%.*s", i ? "|" : "", (int) s.n, s.p);
    }
    return text;
}

static void encode(void)
{
    static const struct { const char *text; bool special; const char *want; } rows[] = {
        { "", true, "" },
        { "Hello thought", true, "Hello|" M "|thought" },
        { "abc", true, "abc" }, { "aaa", true, "aa|a" }, { "aaaaa", true, "aaaa|a" },
        { "aab", true, "a|ab" },
        { "\n", true, "\n" }, { "\n\n\n", true, "\n\n\n" }, { "\n\n\n\n\n", true, "\n\n\n\n|\n" },
        { "      ", true, M M M M "|" M M }, { " " M, true, M M },
        { "\t", true, "<0x09>" }, { "\xc3\xa8", true, "<0xC3>|<0xA8>" },
        { "\xc3\xa9\xc3\xa9", true, "\xc3\xa9\xc3\xa9" },
        { "\xf0\x9f\x98\x80\xf0\x9f\xa6\x99", true,
          "\xf0\x9f\x98\x80|<0xF0>|<0x9F>|<0xA6>|<0x99>" },
        { "<bos><|turn>model\n", true, "<bos>|<|turn>|model|\n" },
        { "a<|turn>a", true, "a|<|turn>|a" },
        { "<|turn>", false, "<|turn|>" }, { "<eos>", false, "<|e|o|s|>" },
        { "<|image|><|image>", true, "<|image|>|<|image>" },
        { "<<|turn><|tur", true, "<|<|turn>|<|tur" },
        { "<0x41>", true, "<|0|x|4|1|>" },
    };

    for (size_t i = 0; i < MADE(rows); i++) {
        struct ids ids = { 0 };

        is_int(tok_encode(tok, rows[i].text, strlen(rows[i].text), rows[i].special, &ids, NULL), 0,
               "encode row %zu", i);
        is_str(show(&ids), rows[i].want, "ids of row %zu", i);
        ids_free(&ids);
    }
}

/* Special tokens are seen beside the stretches only: ~ marks the begin and the end of each. */
static void around(void)
{
    static const struct { const char *text, *want; } rows[] = {
        { "a<|turn>a", "a|<|turn>|a" }, { "a~<|turn>~a", "a|<|turn|>|a" },
        { "<|turn>~<|turn>~<|turn>", "<|turn>|<|turn|>|<|turn>" },
        { "~<|tu~rn>", "<|turn|>" }, { "<|tu~rn>~", "<|turn|>" }, { "<~|~turn>", "<|turn|>" },
        { "~<|turn>", "<|turn|>" }, { "~~<|turn>", "<|turn>" }, { "<|turn>~~", "<|turn>" },
        { "~a~~a~~b~", "a|ab" }, { "a~a~b", "a|ab" }, { "<bos>~<bos>~", "<bos>|<|b|o|s|>" },
    };

    for (size_t i = 0; i < MADE(rows); i++) {
        struct buf   text = { 0 };
        struct spans plain = { 0 };
        struct ids   ids = { 0 };
        size_t       begin = 0;
        bool         inside = false;

        for (const char *p = rows[i].text; *p != '\0'; p++) {
            if (*p != '~') {
                buf_put(&text, p, 1);
                continue;
            }
            if (inside)
                spans_put(&plain, begin, text.n);
            begin = text.n;
            inside = !inside;
        }
        if (inside)                     /* one that ends beyond the text */
            spans_put(&plain, begin, text.n + 9);
        is_int(tok_encode_around(tok, text.p, text.n, &plain, &ids, NULL), 0, "around row %zu", i);
        is_str(show(&ids), rows[i].want, "ids of %s", rows[i].text);
        ids_free(&ids);
        spans_free(&plain);
        buf_free(&text);
    }
}

/* Rescan for the best pair until none is left: quadratic, and plainly the definition. */
static size_t naive_merge(int32_t *id, size_t n)
{
    for (;;) {
        size_t best = MADE(made_merges), at = 0;

        for (size_t i = 0; i + 1 < n; i++)
            for (size_t r = 0; r < best; r++)
                if (slice_is(tok_entry(tok, id[i]), made_merges[r][0])
                    && slice_is(tok_entry(tok, id[i + 1]), made_merges[r][1])
                    && strcmp(made_merges[r][1], ">") != 0) {
                    best = r;
                    at = i;
                }
        if (best == MADE(made_merges))
            return n;

        char text[64];

        snprintf(text, sizeof(text), "%s%s", made_merges[best][0], made_merges[best][1]);
        id[at] = tok_id(tok, text);
        memmove(id + at + 1, id + at + 2, (n - at - 2) * sizeof(*id));
        n--;
    }
}

static void random_merges(void)
{
    static const char *const chars[] = { "a", "b", "c", "t", "h", "o", "u", "g", " ", "\n", "l",
                                         "e", "H", "m", "d", "<", "|", "r", "n", ">" };
    uint32_t seed = 1;
    int      bad = 0;

    for (int round = 0; round < 3000; round++) {
        char       text[200] = "";
        int32_t    want[64];
        size_t     n = 0, n_char = 1 + round % 40, span;
        struct ids ids = { 0 };

        seed = seed * 1664525 + 1013904223;
        span = 2 + (seed >> 16) % (MADE(chars) - 1);
        for (size_t i = 0; i < n_char; i++) {
            const char *c;

            seed = seed * 1664525 + 1013904223;
            c = chars[(seed >> 16) % span];
            strcat(text, c);
            want[n++] = tok_id(tok, *c == ' ' ? M : c);
        }
        n = naive_merge(want, n);
        tok_encode(tok, text, strlen(text), false, &ids, NULL);
        bad += ids.n != n || memcmp(ids.p, want, n * sizeof(*want)) != 0;
        ids_free(&ids);
    }
    is_int(bad, 0, "3000 random texts merge as the definition says");
}

static void decode(void)
{
    static const struct { const char *entries[8]; bool skip; const char *want; } rows[] = {
        { { M "the", M, "Hello" }, false, " the Hello" },
        { { "<|turn>", "a" }, false, "<|turn>a" }, { { "<|turn>", "a" }, true, "a" },
        { { "<0xE2>", "<0x82>", "<0xAC>", "a" }, false, "\xe2\x82\xac" "a" },
        { { "<0xE2>", "a" }, false, "\xef\xbf\xbd" "a" },
        { { "<0xE2>", "<0x82>" }, false, "\xef\xbf\xbd\xef\xbf\xbd" },
        { { "<0xE2>", "<0x41>" }, false, "\xef\xbf\xbd" "A" },
        { { "<0xF0>", "<0x9F>", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>" }, false,
          "\xef\xbf\xbd\xef\xbf\xbd\xf0\x9f\x98\x80" },
        { { "<0xED>", "<0xA0>", "<0x80>" }, false, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
        { { "<0xE2>", "<|turn>", "<0x82>" }, true, "\xef\xbf\xbd\xef\xbf\xbd" },
        { { "<0xFF>", "<0x0A>" }, false, "\xef\xbf\xbd\n" },
    };

    for (size_t i = 0; i < MADE(rows); i++) {
        struct tok_stream s = { .skip_special = rows[i].skip };
        struct buf        b = { 0 };
        bool              whole = true;

        for (int k = 0; k < 8 && rows[i].entries[k] != NULL; k++) {
            tok_stream_put(tok, &s, tok_id(tok, rows[i].entries[k]), &b);
            whole &= utf8_valid(b.p, b.n);
        }
        tok_stream_end(&s, &b);
        buf_put(&b, "", 1);
        ok(whole, "never half a character, row %zu", i);
        is_str(b.p, rows[i].want, "decode row %zu", i);
        buf_free(&b);
    }

    struct tok_stream s = { 0 };
    struct buf        b = { 0 };

    tok_stream_put(tok, &s, -1, &b);
    tok_stream_put(tok, &s, tok_n_vocab(tok), &b);
    ok(b.n == 0 && tok_text(tok, -5).n == 0 && tok_entry(tok, 1 << 30).n == 0
       && !tok_is_special(tok, -1), "ids outside the vocabulary have no text");
    ok(tok_id(tok, "nope") == -1 && tok_is_special(tok, tok_id(tok, "<|turn>"))
       && !tok_is_special(tok, tok_id(tok, "Hello")), "tok_id and tok_is_special");
}

/* The file with one place changed is refused, in these words. */
static void refused(void)
{
    static const char *const rows[][3] = {
        { "\"BPE\"", "\"Unigram\"", "model.type must be BPE" },
        { "\"byte_fallback\":true", "\"byte_fallback\":false", "byte_fallback must be true" },
        { "\"dropout\":null", "\"dropout\":0.1", "dropout" },
        { "\"dropout\":null", "\"ignore_merges\":true", "ignore_merges" },
        { "\"dropout\":null", "\"end_of_word_suffix\":\"</w>\"", "end_of_word_suffix" },
        { "\"normalizer\":{\"type\":\"Replace\"", "\"normalizer\":{\"type\":\"NFC\"",
          "normalizer must be" },
        { "\"pre_tokenizer\":null", "\"pre_tokenizer\":{\"type\":\"ByteLevel\"}", "pre_tokenizer" },
        { "{\"type\":\"Fuse\"}", "{\"type\":\"Strip\"}", "decoder must be" },
        { "\"special\":true", "\"special\":false", "special must be true" },
        { "\"lstrip\":false", "\"lstrip\":true", "lstrip" },
        { "\"<0x41>\":", "\"<0x4z>\":", "lacks the byte token <0x41>" },
        { "\"Hello\":", "\"Hullo\":", "merge 20: a part or the product is no entry" },
        { "[\"b\",\"c\"]", "[\"bc\"]", "merge 6 is not a pair" },
        { "[\"b\",\"c\"]", "[\"\",\"bc\"]", "merge 6 is not a pair" },
        { "[\"b\",\"c\"]", "\"bc\"", "merge 6 is not a pair" },
        { "\"<eos>\":1,", "\"<eos>\":2,", "two entries have the id 2" },
        { "\"<eos>\":1,", "\"<eos>\":-1,", "an id is not a number" },
        { "\"<eos>\":1,", "\"<eos>\":1e30,", "an id is not a number" },
        { "{\"id\":1,", "{\"id\":500,", "its text is entry 1 too" },
        { "{\"id\":1,", "{", "an id and a content" },
        { "\"merges\":[", "\"merges\":[7,", "merge 0 is not a pair" },
        { "\"vocab\":{", "\"vocabulary\":{", "model.vocab" },
        { "\"<eos>\":1,", "\"<eos>\":1", "JSON: " },
    };
    struct buf  b = { 0 };
    struct tok *t;

    made_json(&b, false);
    buf_put(&b, "", 1);
    for (size_t i = 0; i < MADE(rows); i++) {
        char      *at = strstr(b.p, rows[i][0]);
        struct buf c = { 0 };
        struct err e = { 0 };

        if (!ok(at != NULL, "row %zu applies", i))
            continue;
        buf_put(&c, b.p, (size_t) (at - b.p));
        buf_str(&c, rows[i][1]);
        buf_str(&c, at + strlen(rows[i][0]));
        ok(made_open(&t, (struct slice) { c.p, c.n }, &e) == E_INVALID && t == NULL
           && strstr(e.msg, rows[i][2]) != NULL, "refuse: %s", e.msg);
        tok_close(t);
        buf_free(&c);
    }
    buf_free(&b);

    struct err e = { 0 };

    is_int(tok_open(&t, "t/no-such-directory", &e), E_IO, "no file");
    ok(strstr(e.msg, "no such file") != NULL, "says so: %s", e.msg);
}

static void both_merge_forms(void)
{
    static const char text[] = "Hello the thought\n\n\n of abc aaaaa";
    struct buf        b = { 0 };
    struct tok       *t;
    struct ids        x = { 0 }, y = { 0 };

    made_json(&b, true);
    is_int(made_open(&t, (struct slice) { b.p, b.n }, NULL), 0, "merges as strings");
    tok_encode(t, text, sizeof(text) - 1, true, &x, NULL);
    tok_encode(tok, text, sizeof(text) - 1, true, &y, NULL);
    ok(x.n == y.n && memcmp(x.p, y.p, x.n * sizeof(*x.p)) == 0, "same ids from both forms");
    ids_free(&x);
    ids_free(&y);
    tok_close(t);
    buf_free(&b);
}

/* One segment that no rule cuts, a megabyte long: must not be quadratic. */
static void giant(void)
{
    static const char *const unit[] = { "a", " ", "\n", "<", "<|turn", "the thought " };
    clock_t                  t0 = clock();

    for (size_t i = 0; i < MADE(unit); i++) {
        struct buf b = { 0 }, back = { 0 };
        struct ids ids = { 0 };

        while (b.n < 1 << 20)
            buf_str(&b, unit[i]);
        is_int(tok_encode(tok, b.p, b.n, true, &ids, NULL), 0, "1 MB of unit %zu", i);
        for (size_t k = 0; k < ids.n; k++)
            buf_put(&back, tok_text(tok, ids.p[k]).p, tok_text(tok, ids.p[k]).n);
        ok(back.n == b.n && memcmp(back.p, b.p, b.n) == 0, "and back");
        buf_free(&b);
        buf_free(&back);
        ids_free(&ids);
    }
    ok(clock() - t0 < 40 * CLOCKS_PER_SEC, "in linear time");
}

int main(void)
{
    tok = made_tok();
    if (!ok(tok != NULL, "open"))
        return done_testing();
    encode();
    around();
    random_merges();
    decode();
    refused();
    both_merge_forms();
    giant();
    tok_close(tok);
    return done_testing();
}
