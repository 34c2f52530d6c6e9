/* fuzz/grammar.c - bytes as a program that writes a grammar: what compiles has all that grammar.h
 * promises, is the same when it is compiled again, and takes a text or not; what does not is
 * refused in words. */
#include "../grammar_run.h"

#include <time.h>

struct input { const uint8_t *p; size_t n; };

static uint32_t byte(struct input *in)
{
    return in->n > 0 ? (in->n--, *in->p++) : 0;
}

static uint32_t number(struct input *in, int bytes)
{
    uint32_t x = 0;

    while (bytes-- > 0)
        x = x << 8 | byte(in);
    return x;
}

static gram some_chars(struct grammar_make *m, struct input *in)
{
    struct code_range r[8];
    size_t            n = byte(in) % 9;

    for (size_t i = 0; i < n; i++) {
        r[i].lo = number(in, 3);
        r[i].hi = byte(in) & 1 ? number(in, 3) : r[i].lo + byte(in);
    }
    return grammar_chars(m, r, n);
}

static gram some_bytes(struct grammar_make *m, struct input *in)
{
    size_t n = byte(in) % 8;
    gram   a = grammar_bytes(m, (const char *) in->p, n < in->n ? n : in->n);

    while (n-- > 0)
        byte(in);
    return a;
}

/* A piece; its children are some of the last 16 before it. */
static gram some_piece(struct grammar_make *m, struct input *in, gram last, int n_rule)
{
    gram    a = last - (gram) (byte(in) % 16), b = last - (gram) (byte(in) % 16);
    int64_t min;

    a = a < 0 ? 0 : a;
    b = b < 0 ? 0 : b;
    switch (byte(in) % 9) {
    case 0:  return grammar_empty(m);
    case 1:  return some_bytes(m, in);
    case 2:  return some_chars(m, in);
    case 3:  return grammar_token(m, (int32_t) byte(in));
    case 4:  return n_rule > 0 ? grammar_call(m, (int32_t) byte(in) % n_rule) : grammar_empty(m);
    case 5:
        min = byte(in) % 4;
        return grammar_repeat(m, a, min, byte(in) & 1 ? -1 : min + byte(in) % 8);
    case 6:
        min = number(in, 2) % 1024;
        return grammar_repeat(m, a, min, min + (int64_t) byte(in));
    case 7:  return grammar_alt(m, a, b);
    default: return grammar_seq(m, a, b);
    }
}

static gram write_grammar(struct grammar_make *m, struct input *in)
{
    int  n_rule = (int) byte(in) % 8, n_piece = (int) byte(in) % 128;
    gram last = grammar_empty(m);

    for (int r = 0; r < n_rule; r++)
        grammar_rule(m);
    for (int i = 0; i < n_piece && last >= 0; i++)
        last = some_piece(m, in, last, n_rule);
    for (int r = 0; r < n_rule && last >= 0; r++)
        grammar_define(m, r, (gram) (byte(in) % (uint32_t) (last + 1)));
    return last;
}

static void examine(const struct grammar *g, struct input *in)
{
    int sym[12], n = 0;

    if (run_broken(g) != NULL)
        abort();
    while (g->n_state < 256 && in->n > 0 && n < 12)
        sym[n++] = (int) byte(in);
    run_takes(g, sym, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct input         in = { p, n };
    struct grammar_make *m;
    struct grammar      *g, *again;
    struct err           e = { 0 };
    struct timespec      t;
    gram                 root;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    m = grammar_make((uint64_t) t.tv_sec * 1000000000u + (uint64_t) t.tv_nsec + 500000000u);
    if (m == NULL)
        return 0;
    root = write_grammar(m, &in);
    if (grammar_compile(&g, m, root, &e) < 0) {
        if (g != NULL || e.msg[0] == '\0' || (e.code != E_INVALID && e.code != E_FULL))
            abort();
    } else {
        examine(g, &in);
        if (grammar_compile(&again, m, root, &e) == 0) {
            if (again->bytes != g->bytes || again->n_alike != g->n_alike
                || memcmp(again->state, g->state, g->n_state * sizeof(*g->state)) != 0)
                abort();
            grammar_free(again);
        } else if (e.code != E_FULL) {
            abort();
        }
    }
    grammar_free(g);
    grammar_make_free(m);
    return 0;
}
