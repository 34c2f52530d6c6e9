/* fuzz/regex.c - any bytes as a regular expression, within 50 ms: no crash, failures in words; a
 * text that matches as a whole matches in part, and as JSON writes it in both. */
#include "regex.h"

#include "../grammar_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static struct grammar *compile(const uint8_t *p, size_t n, enum regex_as as, bool search)
{
    struct grammar_make *m = grammar_make(text_now_ns() + 50000000);
    struct grammar      *g;
    struct err           e = { 0 };

    if (grammar_compile(&g, m, regex_gram(m, (const char *) p, n, as, search), &e) < 0
        && ((e.code != E_INVALID && e.code != E_FULL) || e.msg[0] == '\0'
            || !utf8_valid(e.msg, strlen(e.msg))))
        abort();
    grammar_make_free(m);
    return g;
}

/* Some text of g, as the bytes of p say; at most 200 bytes, or false. */
static bool walk(const struct grammar *g, const uint8_t *p, size_t n, struct buf *text)
{
    uint32_t at = g->rule[0];

    for (size_t i = 0; text->n < 200; i++) {
        const struct grammar_state *s = &g->state[at];
        uint32_t                    edges = s[1].edge - s[0].edge, pick = n > 0 ? p[i % n] : 0;
        const struct grammar_edge  *edge = &g->edge[s->edge + (edges > 0 ? pick % edges : 0)];

        if (s->accept && (edges == 0 || pick % 4 == 0))
            return true;
        buf_put(text, &(char) { (char) (edge->lo + pick % (edge->hi - edge->lo + 1)) }, 1);
        at = edge->to;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct grammar *whole = compile(p, n, REGEX_PLAIN, false);
    struct grammar *part = compile(p, n, REGEX_PLAIN, true);
    struct grammar *json = compile(p, n, REGEX_JSON, false);
    struct grammar *json_part = compile(p, n, REGEX_JSON, true);
    struct buf      text = { 0 }, as_json = { 0 };

    if (whole != NULL && walk(whole, p, n, &text)) {
        if (text.n > 0)
            buf_json_text(&as_json, text.p, text.n);
        if (!utf8_valid(text.p, text.n) || !text_matches(whole, text.p, text.n)
            || (part != NULL && !text_matches(part, text.p, text.n))
            || (json != NULL && !text_matches(json, as_json.p, as_json.n))
            || (json_part != NULL && !text_matches(json_part, as_json.p, as_json.n)))
            abort();
    }
    buf_free(&text);
    buf_free(&as_json);
    grammar_free(whole);
    grammar_free(part);
    grammar_free(json);
    grammar_free(json_part);
    return 0;
}
