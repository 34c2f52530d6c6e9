/* chat.c - the official template of 2026-07-09, rendered without Jinja.
 *
 * Whatever the template prints is printed here too, its oddities included; the golden cases are its
 * own output. */
#include "chat_priv.h"

#include <stdlib.h>
#include <string.h>

#define THOUGHT_OPEN  "<|channel>thought\n"
#define CHANNEL_OPEN  "<|channel>"
#define CHANNEL_CLOSE "<channel|>"
#define TURN_CLOSE    "<turn|>\n"
#define THINK         "<|think|>"

const char *chat_at(struct render *r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(r->at, sizeof(r->at), fmt, ap);
    va_end(ap);
    return r->at;
}

int chat_bad(struct render *r, const char *at, const char *fmt, ...)
{
    char    words[160];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(words, sizeof(words), fmt, ap);
    va_end(ap);
    if (r->param != NULL)
        snprintf(r->param, 64, "%s", at);
    return err_set(r->e, E_INVALID, "%s%s", at, words);
}

const struct json *chat_get(const struct json *o, const char *key)
{
    const struct json *j = json_get(o, key);

    return j == NULL || j->type == JSON_NULL ? NULL : j;
}

/* What Python's str.strip() takes away: White_Space and U+001C..U+001F. */
static bool is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0
           || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029
           || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* The first character of s if it takes at most three bytes (no longer one is a space), else 0. */
static uint32_t char_at(struct slice s, int len)
{
    const unsigned char *p = (const unsigned char *) s.p;

    switch (len) {
    case 1:  return p[0];
    case 2:  return (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    case 3:  return (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    default: return 0;
    }
}

static struct slice trim_end(struct slice s)
{
    while (s.n > 0) {
        size_t at = s.n - 1;
        int    len;

        while (at > 0 && (s.p[at] & 0xC0) == 0x80)
            at--;
        len = utf8_len(s.p + at, s.n - at);
        if (len < 1 || !is_space(char_at((struct slice) { s.p + at, s.n - at }, len)))
            break;
        s.n = at;
    }
    return s;
}

static struct slice trim(struct slice s)
{
    for (int len; (len = utf8_len(s.p, s.n)) > 0 && is_space(char_at(s, len)); ) {
        s.p += len;
        s.n -= (size_t) len;
    }
    return trim_end(s);
}

void chat_put(struct render *r, struct slice s)
{
    size_t begin = r->out->n;

    buf_put(r->out, s.p, s.n);
    if (r->opts->plain != NULL)
        spans_put(r->opts->plain, begin, r->out->n);
}

static struct slice before(struct slice s, const char *mark)
{
    size_t len = strlen(mark);

    for (const char *p = s.p, *end = s.p + s.n;
         (size_t) (end - p) >= len && (p = memchr(p, mark[0], (size_t) (end - p))) != NULL; p++)
        if ((size_t) (end - p) >= len && memcmp(p, mark, len) == 0)
            return (struct slice) { s.p, (size_t) (p - s.p) };
    return s;
}

/* The text of an assistant without its thoughts: what stands outside <|channel>..<channel|>, and
 * nothing after a channel that never closes. Joined, then trimmed. */
static void put_without_thoughts(struct render *r, struct slice s)
{
    struct buf kept = { 0 };

    for (;;) {
        struct slice piece = before(s, CHANNEL_CLOSE), text = before(piece, CHANNEL_OPEN);

        buf_put(&kept, text.p, text.n);
        if (piece.n == s.n)
            break;
        s.p += piece.n + sizeof(CHANNEL_CLOSE) - 1;
        s.n -= piece.n + sizeof(CHANNEL_CLOSE) - 1;
    }
    chat_put(r, trim((struct slice) { kept.p, kept.n }));
    r->out->full |= kept.full;
    buf_free(&kept);
}

static bool begins_with_think(struct slice s)
{
    size_t len = sizeof(THINK) - 1;

    s = trim(s);
    return s.n >= len && memcmp(s.p, THINK, len) == 0;
}

/* How a text is printed depends on whose it is. */
enum style { STYLE_TRIM, STYLE_MODEL, STYLE_SYSTEM, STYLE_SYSTEM_PART };

static void put_text(struct render *r, struct slice s, enum style style)
{
    if (style >= STYLE_SYSTEM && r->opts->plain != NULL && begins_with_think(s)) {
        s = trim(s);
        s.p += sizeof(THINK) - 1;
        s.n -= sizeof(THINK) - 1;
    }
    if (style == STYLE_MODEL)
        put_without_thoughts(r, s);
    else
        chat_put(r, trim(s));
    if (style == STYLE_SYSTEM_PART)
        buf_str(r->out, " ");
}

/* One part of a content list: a text, a placeholder, or nothing that the template knows. In the
 * system turn every part is a text. */
static int put_part(struct render *r, const struct json *p, uint32_t i, uint32_t k,
                    enum style style)
{
    const struct json *type = json_get(p, "type"), *text = chat_get(p, "text");
    const char        *media;

    if (p->type != JSON_OBJECT)
        return chat_bad(r, chat_at(r, "messages[%u].content[%u]", i, k),
                        " must be an object, not %s", json_type_name(p->type));
    if (type == NULL || type->type != JSON_STRING)
        return chat_bad(r, chat_at(r, "messages[%u].content[%u].type", i, k), " must be a string");
    if (slice_is(type->text, "text") && (text == NULL || text->type != JSON_STRING))
        return chat_bad(r, chat_at(r, "messages[%u].content[%u].text", i, k), " must be a string");

    media = chat_media(type->text);
    if (style == STYLE_SYSTEM_PART)
        put_text(r, text != NULL && text->type == JSON_STRING ? text->text : SLICE(""), style);
    else if (media != NULL)
        buf_str(r->out, media);
    else if (slice_is(type->text, "text"))
        put_text(r, text->text, style);
    return 0;
}

static int put_content(struct render *r, const struct json *m, uint32_t i, enum style whole,
                       enum style part)
{
    const struct json *c = chat_get(m, "content");
    uint32_t           k = 0;
    int                rc = 0;

    if (c == NULL)
        return 0;
    if (c->type == JSON_STRING) {
        put_text(r, c->text, whole);
        return 0;
    }
    if (c->type != JSON_ARRAY)
        return chat_bad(r, chat_at(r, "messages[%u].content", i),
                        " must be a string or an array, not %s", json_type_name(c->type));

    for (const struct json *p = c->child; p != NULL && rc == 0; p = p->next, k++)
        rc = put_part(r, p, i, k, part);
    return rc;
}

/* The thought of a message: the first non-empty one of two names. */
static int thought_of(struct render *r, const struct json *m, uint32_t i, struct slice *out)
{
    static const char *const names[] = { "reasoning", "reasoning_content" };

    *out = (struct slice) { 0 };
    for (int k = 0; k < 2; k++) {
        const struct json *j = chat_get(m, names[k]);

        if (j == NULL)
            continue;
        if (j->type != JSON_STRING)
            return chat_bad(r, chat_at(r, "messages[%u].%s", i, names[k]),
                            " must be a string, not %s", json_type_name(j->type));
        if (out->n == 0)
            *out = j->text;
    }
    return 0;
}

static bool role_is(const struct json *m, const char *role)
{
    return m != NULL && slice_is(json_get(m, "role")->text, role);
}

static bool is_system(const struct json *m)
{
    return role_is(m, "system") || role_is(m, "developer");
}

static bool text_asks_to_think(const struct json *text)
{
    return text != NULL && text->type == JSON_STRING && begins_with_think(text->text);
}

bool chat_asks_to_think(const struct json *messages)
{
    bool               list = messages != NULL && messages->type == JSON_ARRAY;
    const struct json *m = list ? messages->child : NULL;
    const struct json *role = json_get(m, "role"), *c = json_get(m, "content");
    bool               asks = text_asks_to_think(c);

    if (role == NULL || role->type != JSON_STRING || !is_system(m))
        return false;
    if (c != NULL && c->type == JSON_ARRAY)
        for (const struct json *p = c->child; p != NULL && !asks; p = p->next)
            asks = text_asks_to_think(json_get(p, "text"));
    return asks;
}

/* The system turn: the thinking switch, the first message if that is a system's, the tools. */
static int put_system(struct render *r, const struct json *first, bool sys,
                      const struct json *tools)
{
    int rc = 0;

    if (!sys && !r->opts->enable_thinking && tools == NULL)
        return 0;
    buf_str(r->out, "<|turn>system\n");
    if (r->opts->enable_thinking)
        buf_str(r->out, THINK "\n");
    if (sys)
        rc = put_content(r, first, 0, STYLE_SYSTEM, STYLE_SYSTEM_PART);
    if (rc == 0 && tools != NULL)
        rc = chat_tools(r, tools);
    buf_str(r->out, TURN_CLOSE);
    return rc;
}

/* A message as a turn. Tool messages belong to the call before them, and are no neighbours. */
struct turn {
    const struct json *m, *prev, *next;
    uint32_t           i;
    bool               after_last_user;
    bool               called, answered, closed;    /* how the last one ended */
};

static const struct json *skip_tools(const struct json *m, uint32_t *i)
{
    for (; role_is(m, "tool"); m = m->next)
        (*i)++;
    return m;
}

/* The thought, the calls and their results: what stands before the text. */
static int put_calls(struct render *r, struct turn *t, const struct json *calls)
{
    struct slice thought;
    int          rc = thought_of(r, t->m, t->i, &thought);

    if (rc < 0)
        return rc;
    if (thought.n > 0 && (t->after_last_user || (r->opts->preserve_thinking && calls != NULL))) {
        buf_str(r->out, THOUGHT_OPEN);
        chat_put(r, thought);
        buf_str(r->out, "\n" CHANNEL_CLOSE);
    }
    if (calls != NULL)
        rc = chat_calls(r, t->m, t->i);
    return rc < 0 ? rc : chat_results(r, t->m, t->i, &t->answered);
}

static int put_turn(struct render *r, struct turn *t)
{
    const struct json *calls = chat_list(t->m, "tool_calls");
    struct slice       role = json_get(t->m, "role")->text, text;
    bool               model = slice_is(role, "assistant") || slice_is(role, "model");
    enum style         style = model ? STYLE_MODEL : STYLE_TRIM;
    size_t             begin;
    int                rc;

    if (!(model && role_is(t->prev, "assistant"))) {
        buf_str(r->out, "<|turn>");
        chat_put(r, model ? SLICE("model") : role);
        buf_str(r->out, "\n");
    }
    t->called = calls != NULL;
    rc = put_calls(r, t, calls);
    begin = r->out->n;
    if (rc == 0)
        rc = put_content(r, t->m, t->i, style, style);
    if (rc < 0)
        return rc;

    /* Neighbouring messages of the assistant share a turn; a continued one stays open. */
    text = trim((struct slice) { r->out->p + begin, r->out->n - begin });
    t->closed = false;
    if (t->m->next == NULL && r->opts->continue_final_message) {
        if (text.n == 0)
            return chat_bad(r, chat_at(r, "messages[%u].content", t->i),
                            ": there is no text to continue (continue_final_message)");
        r->out->n = trim_end((struct slice) { r->out->p, r->out->n }).n;
    } else if (calls != NULL && !t->answered) {
        buf_str(r->out, "<|tool_response>");
    } else if (!(model && role_is(t->next, "assistant"))
               && !(t->answered && text.n == 0 && t->next == NULL)) {
        buf_str(r->out, TURN_CLOSE);
        t->closed = true;
    }
    return 0;
}

/* Everything about a message that does not depend on its neighbours; after this every role is a
 * string. */
static int check_message(struct render *r, const struct json *m, uint32_t i)
{
    static const char *const lists[] = { "tool_calls", "tool_responses" };
    const struct json       *role = json_get(m, "role"), *j;

    if (m->type != JSON_OBJECT)
        return chat_bad(r, chat_at(r, "messages[%u]", i), " must be an object, not %s",
                        json_type_name(m->type));
    if (role == NULL || role->type != JSON_STRING || role->text.n == 0)
        return chat_bad(r, chat_at(r, "messages[%u].role", i),
                        " must be a string that is not empty");
    for (int k = 0; k < 2; k++)
        if ((j = chat_get(m, lists[k])) != NULL && j->type != JSON_ARRAY)
            return chat_bad(r, chat_at(r, "messages[%u].%s", i, lists[k]),
                            " must be an array, not %s", json_type_name(j->type));
    return 0;
}

static int check_all(struct render *r, const struct json *messages, const struct json *tools)
{
    uint32_t i = 0;
    int      rc;

    if (r->opts->continue_final_message && r->opts->add_generation_prompt)
        return chat_bad(r, "continue_final_message",
                        " and add_generation_prompt exclude each other");
    if (tools != NULL && tools->type != JSON_NULL && tools->type != JSON_ARRAY)
        return chat_bad(r, "tools", " must be an array, not %s", json_type_name(tools->type));
    if (messages == NULL || messages->type != JSON_ARRAY || messages->n == 0)
        return chat_bad(r, "messages", " must be an array that is not empty");

    for (const struct json *m = messages->child; m != NULL; m = m->next, i++) {
        rc = check_message(r, m, i);
        if (rc < 0)
            return rc;
        if (m->next == NULL && r->opts->continue_final_message && !role_is(m, "assistant"))
            return chat_bad(r, chat_at(r, "messages[%u].role", i), ": continue_final_message needs "
                            "an assistant's message at the end");
    }
    return 0;
}

static void put_generation_prompt(struct render *r, const struct turn *last)
{
    if (!(last->called || last->answered) || (last->closed && r->opts->mend)) {
        buf_str(r->out, "<|turn>model\n");
        if (r->opts->variant == CHAT_LARGE && !r->opts->enable_thinking)
            buf_str(r->out, THOUGHT_OPEN CHANNEL_CLOSE);
    } else if (last->answered && r->opts->enable_thinking) {
        buf_str(r->out, THOUGHT_OPEN);
    }
}

static int put_all(struct render *r, const struct json *messages, const struct json *tools)
{
    const struct json *m = messages->child, *last_user = NULL;
    bool               sys = is_system(m);
    struct turn        t = { .i = sys };
    uint32_t           next_i;
    int                rc;

    buf_str(r->out, "<bos>");
    rc = put_system(r, m, sys, tools);
    if (rc < 0)
        return rc;
    m = sys ? m->next : m;
    for (t.m = m; t.m != NULL; t.m = t.m->next)
        if (role_is(t.m, "user"))
            last_user = t.m;

    t.after_last_user = last_user == NULL;
    for (t.m = skip_tools(m, &t.i); t.m != NULL; t.m = t.next, t.i = next_i) {
        next_i = t.i + 1;
        t.next = skip_tools(t.m->next, &next_i);
        rc = put_turn(r, &t);
        if (rc < 0)
            return rc;
        t.after_last_user |= t.m == last_user;
        t.prev = t.m;
    }

    if (r->opts->add_generation_prompt)
        put_generation_prompt(r, &t);
    return 0;
}

int chat_render(const struct json *messages, const struct json *tools,
                const struct chat_opts *opts, struct buf *out, char param[64], struct err *e)
{
    struct render r = { .opts = opts, .out = out, .param = param, .e = e };
    size_t        was = out->n;
    int           rc;

    if (param != NULL)
        param[0] = '\0';
    rc = check_all(&r, messages, tools);
    if (rc == 0)
        rc = put_all(&r, messages, tools != NULL && tools->n > 0 ? tools : NULL);
    free(r.kids.v);

    if (rc == 0 && (out->full || (opts->plain != NULL && opts->plain->full)))
        rc = err_set(e, E_FULL, "the prompt is too long");
    if (rc == E_FULL && param != NULL)
        snprintf(param, 64, "messages");
    if (rc < 0)
        out->n = was;
    return rc;
}
