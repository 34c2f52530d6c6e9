/* t/channel.c - token ids to content and reasoning, and the same whatever cuts the steps make. */
#include "channel.h"
#include "tap.h"
#include "tok_make.h"

static struct tok        *tok;
static struct channel_ids ids;

struct row {
    const char *prompt, *raw, *reasoning, *content;
    bool        ended;
};

#define PLAIN  "<bos><|turn>user\na<turn|>\n<|turn>model\n"
#define OPEN   PLAIN "<|channel>thought\n"

static const struct row rows[] = {
    { PLAIN, "Hello!<turn|>", "", "Hello!", true },
    { PLAIN, "<|channel>thought\nI think.\n<channel|>Hello!<turn|>", "I think.", "Hello!", true },
    { PLAIN, "<|channel>thought\n<channel|>Hello!<turn|>", "", "Hello!", true },
    { PLAIN, "<|channel>thought<channel|>Hello!<turn|>", "", "Hello!", true },
    { OPEN, "plan it\n<channel|>Done.<turn|>", "plan it", "Done.", true },
    { OPEN, "<|channel>thought\nplan<channel|>Done.<turn|>", "plan", "Done.", true },
    { OPEN, "direct answer<turn|>", "direct answer", "", true },
    { PLAIN, "<|channel>thought\nnever closed", "never closed", "", false },
    { PLAIN, "Hi<|channel>thought\n<channel|><channel|><turn|>", "", "Hi", true },
    { PLAIN, "<|channel><|channel>thought\nx<channel|>Hi<turn|>", "x", "Hi", true },
    { PLAIN, "<|turn>model\nHi<turn|>", "", "Hi", true },
    { PLAIN, "<|channel>thoughtful idea<channel|>Hi<turn|>", "thoughtful idea", "Hi", true },
    /* beyond the table */
    { PLAIN "<|channel>thought\n<channel|>", "Hi<turn|>", "", "Hi", true },
    { PLAIN "<|channel>thought\n<channel|>", " \n Hi <turn|>", "", " \n Hi ", true },
    { "", "Hi<eos>more", "", "Hi", true },
    { PLAIN, "Hi<|tool_response>more", "", "Hi", true },
    { PLAIN, "Hi<|turn>user\nmore", "", "Hi", true },
    { PLAIN, "<|turn>mode<turn|>", "", "mode", true },
    { PLAIN, "<|turn>mod", "", "mod", false },
    { PLAIN, "<|turn>modern<turn|>", "", "modern", true },
    { PLAIN, "<|turn><|turn>model\nHi", "", "Hi", false },
    { PLAIN, "<|turn>model\n<|channel>thought\nx<channel|>Hi<turn|>", "x", "Hi", true },
    { PLAIN, "<|channel>thought\nx \n <channel|>\n\n Hi \n<turn|>", "x", "Hi \n", true },
    { PLAIN, "<|channel>thought\nx \n y\n\n", "x \n y", "", false },
    { PLAIN, "<|channel>thought\n \n <channel|>Hi", "", "Hi", false },
    { PLAIN, "<|channel>thou<channel|>Hi", "thou", "Hi", false },
    { PLAIN, "<|channel>thou", "thou", "", false },
    { PLAIN, "<|channel>thought", "", "", false },
    { PLAIN, "<pad><bos><unk><mask><|tool><tool|><tool_response|><|\"|><|think|><|image|>Hi",
      "", "Hi", false },
    { PLAIN, "<|channel><pad>thought\nx<pad>y<channel|>Hi", "xy", "Hi", false },
    { PLAIN, "a <|tool_call>call:f{a:<|\"|>b<|\"|>}<tool_call|> c<turn|>", "", "a call:f{a:b} c",
      true },
    { PLAIN, "<|channel>thought\nr <|tool_call>call:f{}<tool_call|><|tool_response>", "r",
      "call:f{}", true },
    { PLAIN, "one<|channel>thought\nx<channel|>two<|channel>thought\ny<channel|>three", "xy",
      "onetwothree", false },
    { PLAIN, "\xf0\x9f\xa6\x99!", "", "\xf0\x9f\xa6\x99!", false },
    { OPEN, "thought\n\xf0\x9f\xa6\x99 \xf0\x9f\xa6\x99 <channel|>\xf0\x9f\xa6\x99<turn|>",
      "\xf0\x9f\xa6\x99 \xf0\x9f\xa6\x99", "\xf0\x9f\xa6\x99", true },
    { PLAIN, "", "", "", false },
};

/* Check a row; drain: give the text away after every token, as a stream does. */
static bool run(const struct row *r, bool fine, bool drain)
{
    struct ids     prompt = { 0 }, raw = { 0 };
    struct said    said = { 0 };
    struct buf     sent[2] = { { 0 }, { 0 } };
    struct channel c;
    bool           good = true;

    made_ids(tok, r->prompt, strlen(r->prompt), fine, &prompt);
    made_ids(tok, r->raw, strlen(r->raw), fine, &raw);
    channel_open(&c, tok, &ids, NULL, prompt.p, prompt.n);
    for (size_t i = 0; i <= raw.n; i++) {
        if (i < raw.n)
            channel_put(&c, raw.p[i], &said);
        else
            channel_end(&c, true, &said);
        if (drain || i == raw.n) {
            good &= utf8_valid(said.content.p, said.content.n)
                    && utf8_valid(said.reasoning.p, said.reasoning.n);
            buf_put(&sent[0], said.content.p, said.content.n);
            buf_put(&sent[1], said.reasoning.p, said.reasoning.n);
            said_clear(&said);
        }
    }
    good &= slice_is((struct slice) { sent[0].p, sent[0].n }, r->content)
            && slice_is((struct slice) { sent[1].p, sent[1].n }, r->reasoning)
            && c.ended == r->ended;
    if (!good)
        printf("# content '%.*s' reasoning '%.*s' ended %d\n", (int) sent[0].n, sent[0].p,
               (int) sent[1].n, sent[1].p, c.ended);

    channel_close(&c);
    ids_free(&prompt);
    ids_free(&raw);
    said_free(&said);
    buf_free(&sent[0]);
    buf_free(&sent[1]);
    return good;
}

static void counts(void)
{
    struct ids     raw = { 0 };
    static const char text[] = "<|channel>thought\nHello Hello<channel|>Hello";
    struct said    said = { 0 };
    struct channel c;

    made_ids(tok, text, strlen(text), false, &raw);
    channel_open(&c, tok, &ids, NULL, NULL, 0);
    for (size_t i = 0; i < raw.n; i++)
        channel_put(&c, raw.p[i], &said);
    channel_end(&c, true, &said);
    is_int(c.n_reasoning_tok, 5,
           "text tokens in the channel: two of the label, Hello, space, Hello");
    channel_close(&c);
    ids_free(&raw);
    said_free(&said);
}

/* What a guide asks of a channel, and which calls it counts as malformed. */
static void with_tools(void)
{
    static const struct {
        const char *raw, *content;
        bool        marked, exact, cut;
        int         n_call, n_bad;
    } told[] = {
        { "call:f{a:1}<turn|>", "", false, false, false, 1, 0 },
        { "call:f{a:1}<turn|>", "call:f{a:1}", true, false, false, 0, 0 },
        { "<|tool_call>call:f{a:1}<tool_call|><turn|>", "", true, true, false, 1, 0 },
        { "<|channel>thought\nx<channel|> \nHi<turn|>", "Hi", true, false, false, 0, 0 },
        { "<|channel>thought\nx<channel|> \nHi<turn|>", " \nHi", true, true, false, 0, 0 },
        { "<|tool_call>call:f{a:[1<turn|>", "", false, false, false, 1, 1 },
        { "<|tool_call>call:f{a:[1<tool_call|><turn|>", "", false, false, false, 1, 1 },
        { "<|tool_call>call:f{a:[1", "", false, false, true, 0, 0 },
        { "<|tool_call>call:f<turn|>", "call:f", false, false, false, 0, 1 },
        { "<|tool_call>call:f<tool_call|><turn|>", "", false, false, false, 1, 0 },
    };
    static const char json[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";
    const struct json_limits lim = { 1 << 10, 8, 64 };
    struct toolset    *set = NULL;
    struct json_doc   *doc = NULL;
    const struct json *root;

    if (!ok(json_parse(&doc, &root, json, strlen(json), &lim, NULL) == 0
            && toolset_open(&set, root, NULL) == 0, "tools"))
        return;
    json_free(doc);
    for (size_t i = 0; i < MADE(told); i++) {
        struct ids     raw = { 0 };
        struct said    said = { 0 };
        struct channel c;

        made_ids(tok, told[i].raw, strlen(told[i].raw), false, &raw);
        channel_open(&c, tok, &ids, set, NULL, 0);
        c.marked = told[i].marked;
        c.exact = told[i].exact;
        for (size_t k = 0; k < raw.n; k++)
            channel_put(&c, raw.p[k], &said);
        channel_end(&c, told[i].cut, &said);
        buf_put(&said.content, "", 1);
        is_str(said.content.p, told[i].content, "content of %s", told[i].raw);
        is_int(c.n_call, told[i].n_call, "its calls");
        is_int(c.n_bad_call, told[i].n_bad, "malformed ones");
        channel_close(&c);
        ids_free(&raw);
        said_free(&said);
    }
    toolset_close(set);
}

int main(void)
{
    tok = made_tok();
    if (!ok(tok != NULL, "open"))
        return done_testing();
    channel_ids_find(tok, &ids);
    ok(ids.turn == tok_id(tok, "<|turn>") && ids.quote == tok_id(tok, "<|\"|>") && ids.turn > 0,
       "ids are found by text");

    for (size_t i = 0; i < MADE(rows); i++)
        for (int how = 0; how < 4; how++)
            ok(run(&rows[i], how & 1, how & 2), "row %zu, %s tokens, %s", i,
               how & 1 ? "byte" : "text", how & 2 ? "streamed" : "whole");
    counts();
    with_tools();
    tok_close(tok);
    return done_testing();
}
