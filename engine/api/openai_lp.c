#include "openai_lp.h"

#include <inttypes.h>

/* A control token as the tokenizer's file spells it. */
static struct slice text_of(const struct out_lp *l, int32_t id)
{
    return tok_is_special(l->tok, id) ? tok_entry(l->tok, id) : tok_text(l->tok, id);
}

/* Each token has a name of its own: a piece of a character is told by its bytes. */
static void put_token(struct buf *b, const struct out_lp *l, int32_t id)
{
    struct slice s;

    if (l->as_ids || l->tok == NULL) {
        buf_fmt(b, "\"token_id:%" PRId32 "\"", id);
        return;
    }
    s = text_of(l, id);
    if (utf8_valid(s.p, s.n)) {
        buf_json_str(b, s.p, s.n);
        return;
    }
    buf_str(b, "\"bytes:");
    for (size_t i = 0; i < s.n; i++)
        buf_fmt(b, "\\\\x%02x", (unsigned char) s.p[i]);
    buf_str(b, "\"");
}

static void put_bytes(struct buf *b, const struct out_lp *l, int32_t id)
{
    struct slice s = { 0 };

    if (l->tok == NULL) {
        buf_str(b, "null");
        return;
    }
    s = text_of(l, id);
    buf_str(b, "[");
    for (size_t i = 0; i < s.n; i++)
        buf_fmt(b, "%s%d", i > 0 ? "," : "", (unsigned char) s.p[i]);
    buf_str(b, "]");
}

static void put_number(struct buf *b, float p)
{
    buf_fmt(b, "%.9g", (double) p);
}

static size_t row_of(const struct out_lp *l, size_t i)
{
    return i * (size_t) (1 + l->n_top);
}

/* --- chat --- */

/* {"token":..,"logprob":..,"bytes":..  and no end. */
static void put_entry(struct buf *b, const struct out_lp *l, int32_t id, float p)
{
    buf_str(b, "{\"token\":");
    put_token(b, l, id);
    buf_str(b, ",\"logprob\":");
    put_number(b, p);
    buf_str(b, ",\"bytes\":");
    put_bytes(b, l, id);
}

void lp_put_chat(struct buf *b, const struct out_choice *c, bool whole)
{
    const struct out_lp *l = &c->lp;

    if (!l->wanted || (l->n == 0 && !whole)) {
        buf_str(b, "null");
        return;
    }
    buf_str(b, "{\"content\":[");
    for (size_t i = 0; i < l->n; i++) {
        size_t row = row_of(l, i);

        buf_str(b, i > 0 ? "," : "");
        put_entry(b, l, l->ids[i], l->p[row]);
        buf_str(b, ",\"top_logprobs\":[");
        for (int32_t k = 1; k <= l->n_top; k++) {
            buf_str(b, k > 1 ? "," : "");
            put_entry(b, l, l->id[row + (size_t) k], l->p[row + (size_t) k]);
            buf_str(b, "}");
        }
        buf_str(b, "]}");
    }
    buf_str(b, "],\"refusal\":null}");
}

/* --- completions: four lists --- */

static int64_t width(const struct out_lp *l, int32_t id)
{
    struct slice s = { 0 };
    int64_t      n = 0;

    if (l->tok == NULL || (tok_is_special(l->tok, id) && !l->specials))
        return 0;
    s = text_of(l, id);
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char) s.p[i] & 0xC0) != 0x80;
    return n;
}

/* Row i of l; -1 is the first token of an echoed prompt, which has nothing before it and so no
 * logprob. at: its place in the text. */
typedef void put_item(struct buf *b, const struct out_lp *l, int64_t i, int64_t at);

static void item_token(struct buf *b, const struct out_lp *l, int64_t i, int64_t at)
{
    (void) at;
    put_token(b, l, l->ids[i]);
}

static void item_logprob(struct buf *b, const struct out_lp *l, int64_t i, int64_t at)
{
    (void) at;
    if (i < 0)
        buf_str(b, "null");
    else
        put_number(b, l->p[row_of(l, (size_t) i)]);
}

/* The token itself too, if it is not among the best. */
static void item_top(struct buf *b, const struct out_lp *l, int64_t i, int64_t at)
{
    size_t row = row_of(l, (size_t) (i < 0 ? 0 : i));
    bool   among = false;

    (void) at;
    if (i < 0) {
        buf_str(b, "null");
        return;
    }
    buf_str(b, "{");
    for (size_t k = 1; k <= (size_t) l->n_top; k++) {
        among = among || l->id[row + k] == l->ids[i];
        buf_str(b, k > 1 ? "," : "");
        put_token(b, l, l->id[row + k]);
        buf_str(b, ":");
        put_number(b, l->p[row + k]);
    }
    if (!among) {
        buf_str(b, l->n_top > 0 ? "," : "");
        put_token(b, l, l->ids[i]);
        buf_str(b, ":");
        put_number(b, l->p[row]);
    }
    buf_str(b, "}");
}

static void item_offset(struct buf *b, const struct out_lp *l, int64_t i, int64_t at)
{
    (void) l, (void) i;
    buf_fmt(b, "%" PRId64, at);
}

/* Both parts of a choice; b NULL: only to know where the text goes on. */
static int64_t put_items(struct buf *b, const struct out_choice *c, put_item *put)
{
    const struct out_lp *part[] = { &c->echo_lp, &c->lp };
    const char          *sep = "";
    int64_t              at = c->lp_at;

    for (int k = 0; k < 2; k++) {
        for (int64_t i = k == 0 ? -1 : 0; part[k]->wanted && i < (int64_t) part[k]->n; i++) {
            if (b != NULL) {
                buf_str(b, sep);
                put(b, part[k], i, at);
            }
            sep = ",";
            at += width(part[k], part[k]->ids[i]);
        }
    }
    return at;
}

int64_t out_lp_end(const struct out_choice *c)
{
    return put_items(NULL, c, NULL);
}

void lp_put_text(struct buf *b, const struct out_choice *c, bool whole)
{
    static const struct { const char *name; put_item *put; } lists[] = {
        { "{\"tokens\":[", item_token }, { "],\"token_logprobs\":[", item_logprob },
        { "],\"top_logprobs\":[", item_top }, { "],\"text_offset\":[", item_offset },
    };

    if (!c->lp.wanted || (c->lp.n == 0 && !c->echo_lp.wanted && !whole)) {
        buf_str(b, "null");
        return;
    }
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        buf_str(b, lists[i].name);
        put_items(b, c, lists[i].put);
    }
    buf_str(b, "]}");
}

/* --- vLLM's prompt_logprobs --- */

static void put_ranked(struct buf *b, const struct out_lp *l, int32_t id, float p, int32_t rank)
{
    buf_fmt(b, "\"%" PRId32 "\":{\"logprob\":", id);
    put_number(b, p);
    buf_fmt(b, ",\"rank\":%" PRId32 ",\"decoded_token\":", rank);
    put_token(b, l, id);
    buf_str(b, "}");
}

void lp_put_prompt(struct buf *b, const struct out_choice *c)
{
    const struct out_lp *l = &c->prompt_lp;

    buf_str(b, "[null");
    for (size_t i = 0; i < l->n; i++) {
        size_t row = row_of(l, i);

        buf_str(b, ",{");
        put_ranked(b, l, l->ids[i], l->p[row], l->id[row]);
        for (int32_t k = 1; k <= l->n_top; k++) {
            if (l->id[row + (size_t) k] == l->ids[i])
                continue;
            buf_str(b, ",");
            put_ranked(b, l, l->id[row + (size_t) k], l->p[row + (size_t) k], k);
        }
        buf_str(b, "}");
    }
    buf_str(b, "]");
}
