/* chat.c - the official template of 2026-07-09, rendered without Jinja.
 *
 * Whatever the template prints is printed here too, its oddities included; the golden cases are its
 * own output. Tool declarations, calls, results and media are refused until they are built. */
#include "chat.h"

#include <string.h>

#define THOUGHT_OPEN  "<|channel>thought\n"
#define CHANNEL_OPEN  "<|channel>"
#define CHANNEL_CLOSE "<channel|>"

struct render {
    const struct chat_opts *opts;
    struct buf             *out;
    char                   *param;      /* [64] or NULL */
    struct err             *e;
};

/* Name the field, then refuse: return refuse(r, err_set(...), "messages[%u].role", i). */
__attribute__((format(printf, 3, 4)))
static int refuse(struct render *r, int rc, const char *fmt, ...)
{
    va_list ap;

    if (r->param != NULL) {
        va_start(ap, fmt);
        vsnprintf(r->param, 64, fmt, ap);
        va_end(ap);
    }
    return rc;
}

static const struct json *get_set(const struct json *o, const char *key)
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

static void put(struct render *r, struct slice s)
{
    buf_put(r->out, s.p, s.n);
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
    put(r, trim((struct slice) { kept.p, kept.n }));
    r->out->full |= kept.full;
    buf_free(&kept);
}

/* One part of a content list: its text, in *text. */
static int part_text(struct render *r, const struct json *p, uint32_t i, uint32_t k,
                     struct slice *text)
{
    const struct json *type = json_get(p, "type"), *t = json_get(p, "text");
    size_t             n = 0;

    if (p->type != JSON_OBJECT)
        return refuse(r, err_set(r->e, E_INVALID, "messages[%u].content[%u] must be an object, "
                                 "not %s", i, k, json_type_name(p->type)),
                      "messages[%u].content[%u]", i, k);
    if (type == NULL || type->type != JSON_STRING)
        return refuse(r, err_set(r->e, E_INVALID, "messages[%u].content[%u].type must be a string",
                                 i, k), "messages[%u].content[%u].type", i, k);
    while (n < type->text.n && n < 40 && type->text.p[n] > ' ' && type->text.p[n] < 127)
        n++;                            /* what is quoted must stay valid when it is cut */
    if (!slice_is(type->text, "text"))
        return refuse(r, err_set(r->e, E_INVALID, "messages[%u].content[%u]: parts of type "
                                 "\"%.*s\" are not supported, only \"text\"", i, k,
                                 (int) n, type->text.p),
                      "messages[%u].content[%u].type", i, k);
    if (t == NULL || t->type != JSON_STRING)
        return refuse(r, err_set(r->e, E_INVALID, "messages[%u].content[%u].text must be a string",
                                 i, k), "messages[%u].content[%u].text", i, k);
    *text = t->text;
    return 0;
}

/* How a text is printed depends on whose it is. */
enum style { STYLE_TRIM, STYLE_MODEL, STYLE_SYSTEM_PART };

static void put_text(struct render *r, struct slice s, enum style style)
{
    if (style == STYLE_MODEL)
        put_without_thoughts(r, s);
    else
        put(r, trim(s));
    if (style == STYLE_SYSTEM_PART)
        buf_str(r->out, " ");
}

static int put_content(struct render *r, const struct json *m, uint32_t i, enum style whole,
                       enum style part)
{
    const struct json *c = get_set(m, "content");
    uint32_t           k = 0;

    if (c == NULL)
        return 0;
    if (c->type == JSON_STRING) {
        put_text(r, c->text, whole);
        return 0;
    }
    if (c->type != JSON_ARRAY)
        return refuse(r, err_set(r->e, E_INVALID, "messages[%u].content must be a string or an "
                                 "array, not %s", i, json_type_name(c->type)),
                      "messages[%u].content", i);

    for (const struct json *p = c->child; p != NULL; p = p->next, k++) {
        struct slice text = { 0 };
        int          rc = part_text(r, p, i, k, &text);

        if (rc < 0)
            return rc;
        put_text(r, text, part);
    }
    return 0;
}

/* The thought of a message: the first non-empty one of two names. */
static int thought_of(struct render *r, const struct json *m, uint32_t i, struct slice *out)
{
    static const char *const names[] = { "reasoning", "reasoning_content" };

    *out = (struct slice) { 0 };
    for (int k = 0; k < 2; k++) {
        const struct json *j = get_set(m, names[k]);

        if (j == NULL)
            continue;
        if (j->type != JSON_STRING)
            return refuse(r, err_set(r->e, E_INVALID, "messages[%u].%s must be a string, not %s",
                                     i, names[k], json_type_name(j->type)),
                          "messages[%u].%s", i, names[k]);
        if (out->n == 0)
            *out = j->text;
    }
    return 0;
}

static bool role_is(const struct json *m, const char *role)
{
    return m != NULL && slice_is(json_get(m, "role")->text, role);
}

/* Everything about a message that does not depend on its neighbours; after this every role is a
 * string. */
static int check_message(struct render *r, const struct json *m, uint32_t i)
{
    static const char *const unbuilt[] = { "tool_calls", "tool_responses", "function_call",
                                           "audio" };
    const struct json       *role = json_get(m, "role");

    if (m->type != JSON_OBJECT)
        return refuse(r, err_set(r->e, E_INVALID, "messages[%u] must be an object, not %s", i,
                                 json_type_name(m->type)), "messages[%u]", i);
    if (role == NULL || role->type != JSON_STRING || role->text.n == 0)
        return refuse(r, err_set(r->e, E_INVALID, "messages[%u].role must be a string that is not "
                                 "empty", i), "messages[%u].role", i);
    if (role_is(m, "tool") || role_is(m, "function"))
        return refuse(r, err_set(r->e, E_INVALID, "messages[%u].role: tool results are not "
                                 "supported yet", i), "messages[%u].role", i);

    for (size_t k = 0; k < sizeof(unbuilt) / sizeof(unbuilt[0]); k++) {
        const struct json *j = get_set(m, unbuilt[k]);

        if (j != NULL && !(j->type == JSON_ARRAY && j->n == 0))
            return refuse(r, err_set(r->e, E_INVALID, "messages[%u].%s is not supported yet", i,
                                     unbuilt[k]), "messages[%u].%s", i, unbuilt[k]);
    }
    return 0;
}

/* The system turn: the thinking switch and the first message, if that is a system's. */
static int put_system(struct render *r, const struct json *first, bool is_system)
{
    int rc = 0;

    if (!is_system && !r->opts->enable_thinking)
        return 0;
    buf_str(r->out, "<|turn>system\n");
    if (r->opts->enable_thinking)
        buf_str(r->out, "<|think|>\n");
    if (is_system)
        rc = put_content(r, first, 0, STYLE_TRIM, STYLE_SYSTEM_PART);
    buf_str(r->out, "<turn|>\n");
    return rc;
}

struct turn {
    const struct json *m, *prev;
    uint32_t           i;
    bool               after_last_user;
};

static int put_turn(struct render *r, const struct turn *t)
{
    struct slice thought, role = json_get(t->m, "role")->text;
    bool         model = slice_is(role, "assistant") || slice_is(role, "model");
    size_t       begin;
    int          rc = thought_of(r, t->m, t->i, &thought);

    if (rc < 0)
        return rc;
    if (!(model && role_is(t->prev, "assistant"))) {
        buf_str(r->out, "<|turn>");
        put(r, model ? SLICE("model") : role);
        buf_str(r->out, "\n");
    }
    if (thought.n > 0 && t->after_last_user) {
        buf_str(r->out, THOUGHT_OPEN);
        put(r, thought);
        buf_str(r->out, "\n" CHANNEL_CLOSE);
    }

    begin = r->out->n;
    rc = put_content(r, t->m, t->i, model ? STYLE_MODEL : STYLE_TRIM,
                     model ? STYLE_MODEL : STYLE_TRIM);
    if (rc < 0)
        return rc;

    /* Neighbouring messages of the assistant share a turn; a continued one stays open. */
    if (t->m->next == NULL && r->opts->continue_final_message) {
        if (r->out->n == begin)
            return refuse(r, err_set(r->e, E_INVALID, "continue_final_message: the final message "
                                     "has no text to continue"), "messages[%u].content", t->i);
        r->out->n = trim_end((struct slice) { r->out->p, r->out->n }).n;
    } else if (!(model && role_is(t->m->next, "assistant"))) {
        buf_str(r->out, "<turn|>\n");
    }
    return 0;
}

static int check_all(struct render *r, const struct json *messages, const struct json *tools)
{
    uint32_t i = 0;
    int      rc;

    if (r->opts->continue_final_message && r->opts->add_generation_prompt)
        return refuse(r, err_set(r->e, E_INVALID, "continue_final_message and "
                                 "add_generation_prompt exclude each other"),
                      "continue_final_message");
    if (tools != NULL && tools->type != JSON_NULL && tools->type != JSON_ARRAY)
        return refuse(r, err_set(r->e, E_INVALID, "tools must be an array, not %s",
                                 json_type_name(tools->type)), "tools");
    if (tools != NULL && tools->n > 0)
        return refuse(r, err_set(r->e, E_INVALID, "tools are not supported yet"), "tools");
    if (messages == NULL || messages->type != JSON_ARRAY || messages->n == 0)
        return refuse(r, err_set(r->e, E_INVALID, "messages must be an array that is not empty"),
                      "messages");

    for (const struct json *m = messages->child; m != NULL; m = m->next, i++) {
        rc = check_message(r, m, i);
        if (rc < 0)
            return rc;
        if (m->next == NULL && r->opts->continue_final_message && !role_is(m, "assistant"))
            return refuse(r, err_set(r->e, E_INVALID, "continue_final_message needs an assistant's "
                                     "message at the end"), "messages[%u].role", i);
    }
    return 0;
}

static int put_all(struct render *r, const struct json *messages)
{
    const struct json *m = messages->child, *last_user = NULL;
    bool               sys = role_is(m, "system") || role_is(m, "developer");
    struct turn        t = { .after_last_user = true };
    int                rc;

    buf_str(r->out, "<bos>");
    rc = put_system(r, m, sys);
    if (rc < 0)
        return rc;
    t.i = sys;
    m = sys ? m->next : m;

    for (t.m = m; t.m != NULL; t.m = t.m->next)
        if (role_is(t.m, "user"))
            last_user = t.m;

    t.after_last_user = last_user == NULL;
    for (t.m = m; t.m != NULL; t.prev = t.m, t.m = t.m->next, t.i++) {
        rc = put_turn(r, &t);
        if (rc < 0)
            return rc;
        t.after_last_user |= t.m == last_user;
    }

    if (r->opts->add_generation_prompt) {
        buf_str(r->out, "<|turn>model\n");
        if (r->opts->variant == CHAT_LARGE && !r->opts->enable_thinking)
            buf_str(r->out, THOUGHT_OPEN CHANNEL_CLOSE);
    }
    return 0;
}

int chat_render(const struct json *messages, const struct json *tools,
                const struct chat_opts *opts, struct buf *out, char param[64], struct err *e)
{
    struct render r = { opts, out, param, e };
    size_t        was = out->n;
    int           rc;

    if (param != NULL)
        param[0] = '\0';
    rc = check_all(&r, messages, tools);
    if (rc == 0)
        rc = put_all(&r, messages);
    if (rc == 0 && out->full)
        rc = refuse(&r, err_set(e, E_FULL, "the prompt is too long"), "messages");
    if (rc < 0)
        out->n = was;
    return rc;
}
