/* tok.c - how fast the tokenizer loads, encodes and decodes.
 *
 * usage: build/bench/tok DIR [FILE...]
 * Prints CSV. Without FILE: prose-like text made of the vocabulary's own words, the same as one
 * segment without a newline, and one character repeated: the case with the most merges. */
#include "tok.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TEXT_BYTES (1u << 20)

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

/* Best of five, as MB (10^6 bytes) a second. */
static void report(const struct tok *t, const char *name, struct slice text)
{
    double     best_enc = 1e9, best_dec = 1e9;
    size_t     n_ids = 0;
    struct ids ids = { 0 };
    struct buf back = { 0 };

    for (int round = 0; round < 5; round++) {
        struct tok_stream s = { 0 };
        double            t0 = now_s(), t1, t2;

        ids.n = back.n = 0;
        if (tok_encode(t, text.p, text.n, true, &ids, NULL) < 0)
            exit(1);
        t1 = now_s();
        for (size_t i = 0; i < ids.n; i++)
            tok_stream_put(t, &s, ids.p[i], &back);
        tok_stream_end(&s, &back);
        t2 = now_s();
        n_ids = ids.n;
        best_enc = t1 - t0 < best_enc ? t1 - t0 : best_enc;
        best_dec = t2 - t1 < best_dec ? t2 - t1 : best_dec;
    }
    printf("%s,%zu,%zu,%.2f,%.2f\n", name, text.n, n_ids, (double) text.n / best_enc * 1e-6,
           (double) text.n / best_dec * 1e-6);
    ids_free(&ids);
    buf_free(&back);
}

/* Words from the first tenth of the ids, where the common ones are. */
static void prose(const struct tok *t, bool lines, struct buf *b)
{
    uint32_t seed = 1;

    for (size_t k = 0; b->n < TEXT_BYTES; k++) {
        struct slice s;

        seed = seed * 1664525 + 1013904223;
        s = tok_text(t, (int32_t) ((seed >> 8) % (uint32_t) (tok_n_vocab(t) / 10 + 1)));
        if (utf8_valid(s.p, s.n) && memchr(s.p, '\n', s.n) == NULL)
            buf_put(b, s.p, s.n);
        buf_str(b, lines && k % 60 == 59 ? "\n" : " ");
    }
}

static void bench_file(const struct tok *t, const char *path)
{
    struct buf b = { 0 };
    char       part[65536];
    FILE      *f = fopen(path, "rb");

    if (f == NULL) {
        fprintf(stderr, "%s: cannot be opened\n", path);
        exit(1);
    }
    for (size_t n; (n = fread(part, 1, sizeof(part), f)) > 0; )
        buf_put(&b, part, n);
    fclose(f);
    report(t, path, (struct slice) { b.p, b.n });
    buf_free(&b);
}

int main(int argc, char **argv)
{
    struct tok *t;
    struct err  e;
    double      t0 = now_s();

    if (argc < 2 || tok_open(&t, argv[1], &e) < 0) {
        fprintf(stderr, "%s\n", argc < 2 ? "usage: tok DIR [FILE...]" : e.msg);
        return 1;
    }
    printf("# load %.3f s, %d entries\n", now_s() - t0, tok_n_vocab(t));
    printf("text,bytes,ids,encode_mb_s,decode_mb_s\n");
    for (int i = 2; i < argc; i++)
        bench_file(t, argv[i]);

    if (argc == 2) {
        struct buf b = { 0 };

        prose(t, true, &b);
        report(t, "words_in_lines", (struct slice) { b.p, b.n });
        b.n = 0;
        prose(t, false, &b);
        report(t, "words_one_segment", (struct slice) { b.p, b.n });
        memset(b.p, 'a', b.n);
        report(t, "one_character", (struct slice) { b.p, b.n });
        buf_free(&b);
    }
    tok_close(t);
    return 0;
}
