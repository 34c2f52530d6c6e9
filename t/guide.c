/* t/guide.c - a core that draws any id that a guide lets come: what comes of it is what was asked
 * for, whatever was drawn; and what cannot be enforced is refused under its name. */
#include "choice.h"
#include "port.h"
#include "tap.h"
#include "tok_make.h"

#define PLAIN  "<bos><|turn>user\na<turn|>\n<|turn>model\n"
#define OPEN   PLAIN "<|channel>thought\n"
#define ROUNDS 200
#define LEN    6000

static const struct hash_key key = { 1, 2 };
static struct model_conf mc;
static struct api        api;
static struct ask        ask;
static struct err        err;
static uint64_t          seed = 11;
static struct slice      why;            /* the text that was wrong */

#define SCHEMA "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}," \
               "\"s\":{\"type\":\"string\"}},\"required\":[\"n\",\"s\"]," \
               "\"additionalProperties\":false}"
#define DOC    "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\"," \
               "\"schema\":" SCHEMA "}}"
#define TOOL(name, more) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\"" more "}}"
#define STRICT "\"tools\":[" TOOL("sum", ",\"parameters\":" SCHEMA ",\"strict\":true") "," \
               TOOL("free", "") "," TOOL("none", ",\"strict\":true") "]"
#define LOOSE  "\"tools\":[" TOOL("free", ",\"parameters\":" SCHEMA) "]"

static uint32_t rnd(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t) (seed >> 33) % n;
}

/* fields are those of a chat, or with "prompt" among them of a completion. */
static struct guide *open_guide(enum ask_kind kind, const char *fields, struct api_err *e)
{
    const struct json_limits lim = { 1 << 20, 64, 1 << 16 };
    struct json_doc   *doc = NULL;
    struct buf         text = { 0 };
    const struct json *root;
    struct guide      *g = NULL;

    *e = (struct api_err) { 0 };
    buf_fmt(&text, "{%s%s}", kind == ASK_TEXT ? "\"prompt\":\"a\"," :
            "\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],", fields);
    if (json_parse(&doc, &root, text.p, text.n, &lim, &err) != 0)
        printf("# %s\n", err.msg);
    else if (ask_read(&ask, kind == ASK_TEXT ? ASK_TEXT : ASK_CHAT, root, e) == 0)
        guide_open(&g, &api, kind, &ask, e);
    if (e->code != NULL)
        printf("# %s: %s\n", e->param, e->msg);
    buf_free(&text);
    json_free(doc);
    return g;
}

/* What is right */

static bool is_object(struct slice s)
{
    const struct json_limits lim = { LEN * 16, 64, 1 << 16 };
    struct json_doc   *doc = NULL;
    const struct json *root = NULL, *n = NULL, *text = NULL;
    bool               right;

    if (json_parse(&doc, &root, s.p, s.n, &lim, NULL) == 0) {
        n = json_get(root, "n");
        text = json_get(root, "s");
    }
    right = n != NULL && n->type == JSON_NUMBER && n->is_int && text != NULL
            && text->type == JSON_STRING && root->n == 2;
    json_free(doc);
    return right;
}

static bool is_doc(const struct choice *c)
{
    why = (struct slice) { c->said.content.p, c->said.content.n };
    return c->said.n_call == 0 && is_object(why) && strcmp(c->finish, "stop") == 0;
}

static bool are_calls(const struct choice *c)
{
    const struct json_limits lim = { LEN * 16, 70, 1 << 16 };
    struct said_walk   w = { 0 };
    struct said_call   call;
    struct json_doc   *doc;
    const struct json *root;
    bool               right = c->said.n_call > 0 && c->said.content.n == 0;

    while (right && said_next_call(&c->said, &w, &call)) {
        why = call.args;
        if (slice_is(call.name, "sum")) {
            right = is_object(call.args);
        } else if (slice_is(call.name, "none")) {
            right = slice_is(call.args, "{}");
        } else {
            doc = NULL;
            right = slice_is(call.name, "free")
                    && json_parse(&doc, &root, call.args.p, call.args.n, &lim, NULL) == 0
                    && root->type == JSON_OBJECT;
            json_free(doc);
        }
    }
    return right && c->ch.n_bad_call == 0 && strcmp(c->finish, "tool_calls") == 0;
}

static bool one_sum(const struct choice *c)
{
    return are_calls(c) && c->said.n_call == 1 && is_object(why);
}

static bool either(const struct choice *c)
{
    return c->said.n_call > 0 ? are_calls(c) : is_doc(c);
}

/* Text may come first; but a call is a call. */
static bool talk_or_calls(const struct choice *c)
{
    struct choice silent = *c;

    silent.said.content.n = 0;
    return c->said.n_call == 0 || are_calls(&silent);
}

static bool yes_or_no(const struct choice *c)
{
    why = (struct slice) { c->said.content.p, c->said.content.n };
    return slice_is(why, "yes") || slice_is(why, "no") || slice_is(why, " yes, no ");
}

static bool letters(const struct choice *c)
{
    why = (struct slice) { c->said.content.p, c->said.content.n };
    for (size_t i = 0; i < why.n; i++)
        if (why.p[i] != (i < 2 ? "ab"[i] : 'c'))
            return false;
    return why.n >= 3;
}

/* No text at all is whole too. */
static bool or_nothing(const struct choice *c)
{
    why = (struct slice) { c->said.content.p, c->said.content.n };
    return (why.n == 0 || slice_is(why, "ab")) && strcmp(c->finish, "stop") == 0;
}

/* Drawing */

static int32_t draw(const uint32_t *mask)
{
    const struct channel_ids *s = &api.ids;
    const int32_t often[] = {
        s->turn_end, s->channel, s->channel_end, s->tool_call, s->tool_call_end, s->quote,
        tok_id(api.tok, "\""), tok_id(api.tok, "}"), tok_id(api.tok, "]"), tok_id(api.tok, ":"),
    };
    uint32_t n = (uint32_t) mc.vocab;

    for (int i = 0; i < 100000; i++) {
        int32_t id = rnd(3) == 0 ? often[rnd(10)] : (int32_t) rnd(n);

        if ((mask[id / 32] >> id % 32 & 1) != 0)
            return id;
    }
    return -1;
}

static bool is_stop(int32_t id)
{
    for (int32_t i = 0; i < mc.n_eos; i++)
        if (mc.eos[i] == id)
            return true;
    return false;
}

static void fill(struct choice *c, const struct guide *g, bool chat, const char *prompt)
{
    struct ids p = { 0 };

    *c = (struct choice) { .tok = api.tok, .chat = chat, .keep_reasoning = true, .guide = g };
    made_ids(api.tok, prompt, strlen(prompt), false, &p);
    if (req_alloc(&c->req, (int32_t) p.n, LEN, 16) == 0)
        memcpy(c->req.tok, p.p, p.n * sizeof(*p.p));
    ids_free(&p);
    c->submitted = true;
    for (int32_t i = 0; i < mc.n_eos; i++)
        c->req.stop_id[c->req.n_stop_id++] = mc.eos[i];
    c->n_eos = c->req.n_stop_id;
    if (choice_open(c, &api.ids) != 0)
        printf("# out of memory\n");
}

/* One answer; -1: an id could not be drawn. The number of ids, LEN: it did not end. */
static int32_t answer(struct choice *c, uint32_t *mask, bool *thought)
{
    size_t  bytes = (size_t) steer_mask_words(mc.vocab) * sizeof(*mask);
    int32_t n = 0, id = -1, next;

    while (n < LEN) {
        memset(mask, 0, bytes);
        next = c->req.guide(c->req.guide_arg, c->req.tok + c->req.n_prompt, n, mask);
        if (next == GUIDE_OFF)
            break;
        if (next == GUIDE_ANY)
            memset(mask, 0xff, (size_t) mc.vocab / 8);
        id = next >= 0 ? next : draw(mask);
        if (id < 0)
            return -1;
        if (is_stop(id))
            break;
        *thought |= id == api.ids.channel;
        c->req.tok[c->req.n_prompt + n++] = id;
    }
    c->req.stop_at = n < LEN ? id : -1;
    atomic_store(&c->req.n_pub, n);
    atomic_store(&c->req.finish, n < LEN ? FIN_STOP : FIN_LENGTH);
    choice_step(c, 0);
    return n;
}

struct row {
    enum ask_kind kind;
    const char   *fields, *prompt;
    bool        (*right)(const struct choice *c);
    enum { NEVER, SOME, MAY } thinks;    /* the answers */
};

#define THINK "\"chat_template_kwargs\":{\"enable_thinking\":true},"
#define ONE   "\"parallel_tool_calls\":false,"
#define NAMED "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"sum\"}},"

static const struct row rows[] = {
    { ASK_CHAT, DOC, PLAIN, is_doc, NEVER },
    { ASK_CHAT, THINK DOC, PLAIN, is_doc, SOME },
    { ASK_CHAT, THINK DOC, OPEN, is_doc, MAY },
    { ASK_TEXT, DOC, "a", is_doc, NEVER },
    { ASK_CHAT, DOC "," LOOSE, PLAIN, either, NEVER },
    { ASK_CHAT, THINK DOC "," STRICT, PLAIN, either, SOME },
    { ASK_CHAT, "\"tool_choice\":\"none\"," DOC "," STRICT, PLAIN, is_doc, NEVER },
    { ASK_CHAT, "\"tool_choice\":\"required\"," DOC "," STRICT, PLAIN, are_calls, NEVER },
    { ASK_CHAT, THINK "\"tool_choice\":\"required\"," STRICT, PLAIN, are_calls, SOME },
    { ASK_CHAT, THINK "\"tool_choice\":\"required\"," STRICT, OPEN, are_calls, MAY },
    { ASK_CHAT, NAMED DOC "," STRICT, PLAIN, one_sum, NEVER },
    { ASK_CHAT, ONE "\"tool_choice\":\"required\"," STRICT, PLAIN, are_calls, NEVER },
    { ASK_CHAT, STRICT, PLAIN, talk_or_calls, MAY },
    { ASK_CHAT, ONE STRICT, PLAIN, talk_or_calls, MAY },
    { ASK_CHAT, "\"guided_choice\":[\"yes\",\"no\",\" yes, no \"]", PLAIN, yes_or_no, NEVER },
    { ASK_CHAT, THINK "\"guided_choice\":[\"yes\",\"no\",\" yes, no \"]", PLAIN, yes_or_no, SOME },
    { ASK_CHAT, "\"regex\":\"abc+\"", PLAIN, letters, NEVER },
    { ASK_TEXT, "\"regex\":\"abc+\"", "a", letters, NEVER },
    { ASK_CHAT, "\"regex\":\"(ab)?\"", PLAIN, or_nothing, NEVER },
    { ASK_CHAT, THINK "\"regex\":\"(ab)?\"", PLAIN, or_nothing, SOME },
    { ASK_CHAT, THINK "\"regex\":\"(ab)?\"", OPEN, or_nothing, MAY },
    { ASK_TEXT, "\"regex\":\"a{0}\"", "a", or_nothing, NEVER },
    { ASK_TEXT, "\"ebnf\":\"root ::= \\\"ab\\\" [c]+\"", "a", letters, NEVER },
};

static void play(const struct row *r, uint32_t *mask)
{
    struct api_err e;
    struct guide  *g = open_guide(r->kind, r->fields, &e);
    bool           thought = false;
    int            wrong = 0, ended = 0;

    if (!ok(g != NULL && g->kept != NULL, "%.60s: a guide", r->fields))
        return;
    for (int i = 0; i < ROUNDS && wrong == 0; i++) {
        struct choice c;
        int32_t       n;

        fill(&c, g, r->kind != ASK_TEXT, r->prompt);
        n = answer(&c, mask, &thought);
        if (n >= 0 && n < LEN) {
            ended++;
            wrong = !r->right(&c);
        } else {
            wrong = n < 0;
        }
        if (wrong)
            printf("# round %d: %d ids, finish %s, %d calls: %.*s\n", i, n, c.finish,
                   (int) c.said.n_call, (int) (why.n < 2000 ? why.n : 2000), why.p);
        choice_close(&c);
    }
    ok(wrong == 0 && ended > ROUNDS / 2, "%.90s: %d answers", r->fields, ended);
    ok(r->thinks == MAY || thought == (r->thinks == SOME), "thoughts come where they may");
    guide_close(g);
}

/* Behind a whole answer there is nothing but its end, by any of the model's stop ids. */
static void ends(uint32_t *mask)
{
    static const char what[] = "\"guided_choice\":[\"ab\"]";
    size_t         n_mask = (size_t) steer_mask_words(mc.vocab), n = 0;
    struct api_err e;
    struct guide  *g = open_guide(ASK_CHAT, what, &e);
    struct choice  c;
    int32_t        gen[] = { tok_id(api.tok, "ab"), tok_id(api.tok, "c") };

    for (int lost = 0; lost < 2; lost++) {
        fill(&c, g, true, PLAIN);
        memset(mask, 0, n_mask * sizeof(*mask));
        is_int(c.req.guide(c.req.guide_arg, gen + lost, 1, mask), GUIDE_MASK, "a mask");
        n = 0;
        for (size_t i = 0; i < n_mask; i++)
            n += (size_t) __builtin_popcount(mask[i]);
        is_int(n, mc.n_eos, "of no more than the stop ids");
        for (int32_t i = 0; i < mc.n_eos; i++)
            ok((mask[mc.eos[i] / 32] >> mc.eos[i] % 32 & 1) != 0, "and of all of them");
        choice_close(&c);
    }
    guide_close(g);
}

static void refusals(void)
{
    static const struct { enum ask_kind kind; const char *fields, *want; } bad[] = {
        { ASK_CHAT, "\"guided_regex\":\"(\"", "invalid_value guided_regex" },
        { ASK_TEXT, "\"structured_outputs\":{\"regex\":\"a\\\\1\"}",
          "invalid_value structured_outputs.regex" },
        { ASK_CHAT, "\"grammar\":\"root ::= x\"", "invalid_value grammar" },
        { ASK_CHAT, "\"grammar\":\"root ::= root \\\"a\\\"\"", "invalid_value grammar" },
        { ASK_CHAT, "\"guided_json\":\"{\"", "invalid_value guided_json" },
        { ASK_CHAT, "\"guided_json\":{\"not\":{}}", "invalid_value guided_json" },
        { ASK_CHAT, "\"guided_json\":{\"$ref\":\"http://a/b\"}", "invalid_value guided_json" },
        { ASK_CHAT, "\"guided_json\":\"false\"", "invalid_value guided_json" },
        { ASK_RESPONSES, "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":"
          "\"a\",\"schema\":{\"not\":{}}}}", "invalid_value text.format.schema" },
        { ASK_MESSAGES, "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":"
          "\"a\",\"schema\":{\"not\":{}}}}", "invalid_value output_config.format.schema" },
        { ASK_CHAT, "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":"
          "\"a\",\"schema\":{\"not\":{}}}}", "invalid_value response_format.json_schema.schema" },
#define TWO "\"tools\":[" TOOL("a", "") "," \
            TOOL("b", ",\"strict\":true,\"parameters\":{\"type\":\"string\"}") "]"
        { ASK_CHAT, TWO, "invalid_value tools[1].function.parameters" },
        { ASK_RESPONSES, TWO, "invalid_value tools[1].parameters" },
        { ASK_MESSAGES, DOC "," TWO, "invalid_value tools[1].input_schema" },
        { ASK_CHAT, "\"tools\":[" TOOL("b", ",\"strict\":true,\"parameters\":{\"type\":\"object\","
          "\"not\":{}}") "]", "invalid_value tools[0].function.parameters" },
    };
    const struct vocab *vocab = api.vocab;
    struct api_err      e;
    char                got[200];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct guide *g = open_guide(bad[i].kind, bad[i].fields, &e);

        snprintf(got, sizeof(got), "%s %s", e.code, e.param);
        is_str(got, bad[i].want, "%s", bad[i].fields);
        guide_close(g);
    }

    api.vocab = NULL;
    ok(open_guide(ASK_TEXT, "\"regex\":\"a\"", &e) == NULL && e.status == 400
       && strcmp(e.code, "unsupported_parameter") == 0, "no tokenizer, no grammar");
    api.vocab = vocab;
}

/* The same request again compiles nothing; another one does. */
static void kept(void)
{
    struct grammars_stats before, after;
    struct api_err        e;
    struct guide         *a, *b, *c;

    a = open_guide(ASK_CHAT, "\"regex\":\"x{2,9}\"", &e);
    grammars_stats(api.grammars, &before);
    b = open_guide(ASK_TEXT, "\"guided_regex\":\"x{2,9}\"", &e);
    c = open_guide(ASK_TEXT, "\"guided_regex\":\"x{2,8}\"", &e);
    grammars_stats(api.grammars, &after);
    ok(a->kept == b->kept && c->kept != a->kept, "kept by what is asked for, whatever its name");
    is_int(after.made, before.made + 1, "one of them was compiled");
    guide_close(a);
    guide_close(b);
    guide_close(c);
    guide_close(NULL);
}

int main(void)
{
    struct tok   *tok = made_tok();
    struct vocab *vocab = NULL;
    uint32_t     *mask;

    if (!ok(tok != NULL && vocab_open(&vocab, tok, tok_n_vocab(tok), &err) == 0, "open"))
        return done_testing();
    channel_ids_find(tok, &api.ids);
    mc = (struct model_conf) {
        .vocab = tok_n_vocab(tok), .n_eos = 3,
        .eos = { api.ids.eos, api.ids.turn_end, api.ids.tool_response },
    };
    mask = calloc((size_t) steer_mask_words(mc.vocab), sizeof(*mask));
    api.mc = &mc;
    api.tok = tok;
    api.vocab = vocab;
    api.grammars = grammars_open(&key, API_GRAMMAR_CACHE_MAX);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        play(&rows[i], mask);
    ends(mask);
    refusals();
    kept();

    free(mask);
    grammars_close(api.grammars);
    vocab_close(vocab);
    tok_close(tok);
    return done_testing();
}
