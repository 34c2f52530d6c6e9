/* t/choice.c - one answer, with a scripted core: how it ends, when it ends early, what tool_choice
 * lets come. */
#define _GNU_SOURCE
#include "choice.h"
#include "port.h"
#include "tap.h"
#include "tok_make.h"

#define PLAIN "<bos><|turn>user\na<turn|>\n<|turn>model\n"
#define OPEN  PLAIN "<|channel>thought\n"
#define Q     "<|\"|>"
#define CALL  "<|tool_call>"
#define DONE  "<tool_call|>"
#define PAGE  16

static struct api         api;
static struct tok        *tok;
static struct channel_ids ids;
static struct json_doc   *doc;
static struct err         err;
static uint64_t           seed = 7;

static const char body[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],%s\"tools\":["
    "{\"type\":\"function\",\"function\":{\"name\":\"f\"}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"thou\"}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"thought\"}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"get-weather_2\"}}]}";

static uint32_t rnd(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t) (seed >> 33) % n;
}

/* What a request with these fields demands. */
static struct guide *open_guide(const char *fields)
{
    const struct json_limits lim = { 1 << 16, 64, 1 << 12 };
    static struct ask  ask;
    struct api_err     e = { 0 };
    struct buf         text = { 0 };
    const struct json *root;
    struct guide      *g = NULL;

    buf_fmt(&text, body, fields);
    if (json_parse(&doc, &root, text.p, text.n, &lim, &err) != 0
        || ask_read(&ask, ASK_CHAT, root, &e) != 0
        || guide_open(&g, &api, ASK_CHAT, &ask, &e) != 0)
        printf("# %s %s\n", err.msg, e.msg);
    buf_free(&text);
    json_free(doc);                     /* what a guide needs of it is its own */
    return g;
}

static void fill(struct choice *c, const struct guide *g, const char *prompt, int32_t max_new)
{
    struct ids p = { 0 };

    *c = (struct choice) { .tok = tok, .chat = true, .keep_reasoning = true, .guide = g };
    made_ids(tok, prompt, strlen(prompt), false, &p);
    if (req_alloc(&c->req, (int32_t) p.n, max_new, PAGE) == 0)
        memcpy(c->req.tok, p.p, p.n * sizeof(*p.p));
    ids_free(&p);
    c->submitted = true;
    c->n_eos = c->req.n_stop_id = 1;
    c->req.stop_id[0] = ids.turn_end;
}

struct script {
    const char *fields, *prompt, *raw, *stop, *want;
    enum req_finish fin;                /* FIN_NONE: the core goes on */
};

static const struct script scripts[] = {
    { "", PLAIN, "Hello", NULL, "Hello||stop 1", FIN_STOP },
    { "", PLAIN, "Hello", NULL, "Hello||length 1", FIN_LENGTH },
    { "", PLAIN, CALL "call:f{a:1}" DONE, NULL, "|f{\"a\": 1}|tool_calls", FIN_STOP },
    { "", PLAIN, CALL "call:f{a:1}" DONE, NULL, "|f{\"a\": 1}|length", FIN_LENGTH },
    { "", PLAIN, CALL "call:f{a:1", NULL, "|f{\"a\": 1}|tool_calls", FIN_STOP },
    { "", PLAIN, CALL "call:f{a:1", NULL, "|f{\"a\": 1~|length", FIN_LENGTH },
    { "", PLAIN, CALL "call:f", NULL, "call:f||stop", FIN_STOP },
    { "", PLAIN, "Hi" CALL "call:f{a:" Q "END" Q "}" DONE, "END",
      "Hi|f{\"a\": \"END\"}|tool_calls", FIN_STOP },
    { "", PLAIN, "<|channel>thought\nEND<channel|>HiENDHo", "END", "Hi||stop", FIN_NONE },
    { "", PLAIN, "HiE" CALL "call:f{}" DONE "ND", "END", "HiEND|f{}|tool_calls", FIN_STOP },
    { "", PLAIN, CALL "call:f{}" DONE "HiEND", "END", "Hi|f{}|tool_calls", FIN_NONE },
    { "", PLAIN, "Hi<|turn>user\nmore and more", NULL, "Hi||stop 3", FIN_NONE },
    { "", PLAIN, CALL "call:f{a:1<|turn>user\nmore", NULL, "|f{\"a\": 1}|tool_calls", FIN_NONE },
    { "\"parallel_tool_calls\":false,", PLAIN, CALL "call:f{}" DONE CALL "call:thou{}" DONE, NULL,
      "|f{}|tool_calls 9", FIN_NONE },
    { "\"parallel_tool_calls\":false,", PLAIN, CALL "call:f{}" CALL "call:thou{}" DONE, NULL,
      "|f{}|tool_calls 9", FIN_NONE },
    { "\"parallel_tool_calls\":false,", PLAIN, "Hi", NULL, "Hi||stop", FIN_STOP },
    { "\"parallel_tool_calls\":true,", PLAIN, CALL "call:f{}" DONE CALL "call:thou{}" DONE, NULL,
      "|f{}thou{}|tool_calls", FIN_STOP },
    { "\"tool_choice\":\"none\",", PLAIN, CALL "call:f{a:" Q "b" Q "}" DONE, NULL,
      "call:f{a:b}||stop", FIN_STOP },
    { "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}},", PLAIN,
      CALL "call:f{}" DONE CALL "call:thou{}" DONE, NULL, "|f{}|tool_calls", FIN_NONE },
};

/* "content|calls|finish n_tok"; the tokens come step at a time, and as many are given away. */
static void play(const struct script *s, int32_t step, struct buf *out)
{
    struct guide    *guide = open_guide(s->fields);
    struct ids       raw = { 0 };
    struct said      all = { 0 };
    struct said_part part;
    struct slice     bytes;
    struct choice    c;

    made_ids(tok, s->raw, strlen(s->raw), false, &raw);
    fill(&c, guide, s->prompt, (int32_t) raw.n + 10);
    if (s->stop != NULL)
        c.stop.str[c.stop.n_str++] = (struct slice) { s->stop, strlen(s->stop) };
    choice_open(&c, &ids);
    memcpy(c.req.tok + c.req.n_prompt, raw.p, raw.n * sizeof(*raw.p));

    for (int32_t n = 0; c.finish == NULL && n < (int32_t) raw.n + step; n += step) {
        bool last = n + step >= (int32_t) raw.n;

        if (last)
            atomic_store(&c.req.finish, s->fin);
        atomic_store(&c.req.n_pub, last ? (int32_t) raw.n : n + step);
        choice_step(&c, 0);
        for (; said_front(&c.said, 3, &part, &bytes); said_take(&c.said, bytes.n))
            said_put(&all, part.kind, bytes.p, bytes.n);
    }
    out->n = 0;
    buf_put(out, all.content.p, all.content.n);
    buf_put(out, "|", 1);
    buf_put(out, all.calls.p, all.calls.n);
    buf_str(out, c.said.cut ? "~" : "");
    if (s->fin == FIN_NONE)
        c.req.stop_at = ids.turn_end;   /* the core went on to an end of its own: too late */
    buf_fmt(out, "|%s %d", c.finish != NULL ? c.finish : "runs", choice_n_tok(&c));
    choice_close(&c);
    guide_close(guide);
    ids_free(&raw);
    said_free(&all);
}

static void ends(void)
{
    struct buf out = { 0 };

    for (size_t i = 0; i < MADE(scripts); i++) {
        for (int32_t step = 1; step <= 64; step *= 8) {
            const char *want = scripts[i].want;

            play(&scripts[i], step, &out);
            if (strrchr(want, ' ') < strrchr(want, '|'))
                out.n = (size_t) ((char *) memrchr(out.p, ' ', out.n) - out.p);
            buf_put(&out, "", 1);
            is_str(out.p, want, "script %zu, %d tokens a step", i, step);
        }
    }
    buf_free(&out);
}

/* A core that draws any id that may come. What comes of it is the call that is demanded. */
static void draw(const char *fields, const char *prompt, bool may_think, const char *only)
{
    static const char think[] = "\"chat_template_kwargs\":{\"enable_thinking\":true},";
    char             all[256];
    struct guide    *guide;
    int32_t          vocab = tok_n_vocab(tok), n_mask = (vocab + 31) / 32;
    uint32_t        *mask = malloc((size_t) n_mask * sizeof(*mask));
    bool             seen[4] = { false }, thought = false;
    int              bad = 0;

    snprintf(all, sizeof(all), "%s%s", may_think ? think : "", fields);
    guide = open_guide(all);
    for (int round = 0; round < 400 && bad == 0; round++) {
        struct choice    c;
        struct said_walk w = { 0 };
        struct said_call call;
        int32_t          n = 0, id, next = GUIDE_ANY;

        fill(&c, guide, prompt, 4096);
        choice_open(&c, &ids);
        while (n < 4096 && c.req.guide != NULL) {
            memset(mask, 0, (size_t) n_mask * sizeof(*mask));
            next = c.req.guide(c.req.guide_arg, c.req.tok + c.req.n_prompt, n, mask);
            if (next == GUIDE_OFF)
                break;
            for (id = next; next == GUIDE_MASK;) {
                id = rnd(8) == 0 ? ids.channel_end : (int32_t) rnd((uint32_t) vocab);
                if ((mask[id / 32] >> id % 32 & 1) != 0)
                    break;
            }
            thought |= id == ids.channel;
            c.req.tok[c.req.n_prompt + n++] = id;
        }
        atomic_store(&c.req.n_pub, n);
        atomic_store(&c.req.finish, FIN_STOP);
        choice_step(&c, 0);
        if (next != GUIDE_OFF || !said_next_call(&c.said, &w, &call) || c.said.n_call != 1
            || toolset_find(guide->set, call.name) < 0 || strcmp(c.finish, "tool_calls") != 0
            || c.said.content.n > 0 || (only != NULL && !slice_is(call.name, only)))
            bad = printf("# round %d: %d tokens, %s\n", round, n, c.finish);
        else
            seen[toolset_find(guide->set, call.name)] = true;
        choice_close(&c);
    }
    ok(bad == 0, "%s ends in a call, thinking %d", fields, may_think);
    if (only == NULL)
        ok(seen[0] && seen[1] && seen[2] && seen[3], "of each of the tools");
    if (strcmp(prompt, PLAIN) == 0)
        ok(thought == may_think, "after a thought where one may come");
    guide_close(guide);
    free(mask);
}

int main(void)
{
    static const char named[] =
        "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"thou\"}},";
    static const char required[] = "\"tool_choice\":\"required\",";
    static const struct hash_key key = { 1, 2 };
    static struct model_conf     mc = { .n_eos = 1 };
    struct vocab     *vocab = NULL;
    struct guide     *g;

    tok = made_tok();
    if (!ok(tok != NULL && vocab_open(&vocab, tok, tok_n_vocab(tok), &err) == 0, "open"))
        return done_testing();
    channel_ids_find(tok, &ids);
    mc.vocab = tok_n_vocab(tok);
    mc.eos[0] = ids.turn_end;
    api.mc = &mc;
    api.tok = tok;
    api.vocab = vocab;
    api.ids = ids;
    api.grammars = grammars_open(&key, API_GRAMMAR_CACHE_MAX);

    ends();
    draw(required, PLAIN, false, NULL);
    draw(required, PLAIN, true, NULL);
    draw(required, OPEN, false, NULL);
    draw(named, PLAIN, false, "thou");
    draw(named, PLAIN, true, "thou");
    g = open_guide("");
    ok(g != NULL && !g->must && !g->one && g->kept == NULL, "auto demands nothing");
    guide_close(g);
    ok(open_guide("\"tool_choice\":\"none\",") == NULL, "none: no tools are in force");

    grammars_close(api.grammars);
    vocab_close(vocab);
    tok_close(tok);
    return done_testing();
}
