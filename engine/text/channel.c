#include "channel.h"

#include <string.h>

/* The state is a set. Labels are taken in this order, each as the first text after its marker. */
enum {
    IN_REASONING = 1,
    WANT_MODEL   = 2,       /* "model\n" after a repeated <|turn> */
    WANT_THOUGHT = 4,       /* "thought\n" after <|channel> */
    SKIP_SPACE   = 8,       /* white space directly after a thought or a call is not content */
    IN_CALL      = 16,
    MAY_CALL     = 32,      /* a call may begin here though its marker is missing */
};

static const char model_label[] = "model\n", thought_label[] = "thought\n";

void channel_ids_find(const struct tok *t, struct channel_ids *ids)
{
    const struct { int32_t *id; const char *text; } rows[] = {
        { &ids->pad, "<pad>" }, { &ids->eos, "<eos>" }, { &ids->bos, "<bos>" },
        { &ids->unk, "<unk>" }, { &ids->mask, "<mask>" },
        { &ids->tool, "<|tool>" }, { &ids->tool_end, "<tool|>" },
        { &ids->tool_call, "<|tool_call>" }, { &ids->tool_call_end, "<tool_call|>" },
        { &ids->tool_response, "<|tool_response>" },
        { &ids->tool_response_end, "<tool_response|>" },
        { &ids->quote, "<|\"|>" }, { &ids->think, "<|think|>" },
        { &ids->channel, "<|channel>" }, { &ids->channel_end, "<channel|>" },
        { &ids->turn, "<|turn>" }, { &ids->turn_end, "<turn|>" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int32_t id = tok_id(t, rows[i].text);

        *rows[i].id = tok_is_special(t, id) ? id : -1;
    }
}

void channel_open(struct channel *c, const struct tok *t, const struct channel_ids *ids,
                  const struct toolset *tools, const int32_t *prompt, size_t n_prompt)
{
    *c = (struct channel) {
        .tok = t, .ids = ids, .tools = tools, .ts = { .skip_special = true }, .state = MAY_CALL,
    };

    for (size_t i = n_prompt; i > 0; i--) {
        int32_t id = prompt[i - 1];

        if (id < 0)
            continue;
        if (id == ids->channel)
            c->state = IN_REASONING | WANT_THOUGHT;
        if (id == ids->channel || id == ids->channel_end || id == ids->tool_call
            || id == ids->tool_response || id == ids->turn)
            break;
    }
}

bool channel_thinks(const struct channel *c)
{
    return (c->state & IN_REASONING) != 0;
}

static bool is_space(char ch)
{
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}

/* All but the white space at the end, which waits in ws. True: that was something. */
static bool put_solid(struct channel *c, enum said_kind kind, const char *p, size_t n,
                      struct said *out)
{
    size_t solid = n;

    if (n == 0)
        return false;
    while (solid > 0 && is_space(p[solid - 1]))
        solid--;
    if (solid > 0) {
        said_put(out, kind, c->ws.p, c->ws.n);
        c->ws.n = 0;
        said_put(out, kind, p, solid);
    }
    buf_put(&c->ws, p + solid, n - solid);
    out->content.full |= c->ws.full;
    return solid > 0;
}

/* Text whose place is known. */
static void emit(struct channel *c, const char *p, size_t n, struct said *out)
{
    c->seen_any |= n > 0;
    if ((c->state & IN_REASONING) != 0) {
        put_solid(c, SAID_REASONING, p, n, out);
        return;
    }

    while ((c->state & SKIP_SPACE) != 0 && !c->exact && n > 0 && is_space(*p)) {
        p++;
        n--;
    }
    if (n > 0)
        c->state &= ~SKIP_SPACE;
    if (c->tools == NULL)
        said_put(out, SAID_CONTENT, p, n);
    else if (put_solid(c, SAID_CONTENT, p, n, out))
        c->state &= ~MAY_CALL;
}

/* Take as much of a label as there is. True: it is decided, and *p, *n is what follows. */
static bool take_label(struct channel *c, int want, const char *label, const char **p, size_t *n,
                       struct said *out)
{
    size_t len = strlen(label);

    while (*n > 0 && c->n_hold < len && **p == label[c->n_hold]) {
        c->n_hold++;
        ++*p;
        --*n;
    }
    if (c->n_hold < len && *n == 0)
        return false;

    c->state &= ~want;
    if (c->n_hold < len)
        emit(c, label, c->n_hold, out);
    c->n_hold = 0;
    return true;
}

/* Calls */

static void begin_call(struct channel *c)
{
    c->state = IN_CALL;
    c->ws.n = 0;
    c->seen_any = true;
    toolcall_begin(&c->call, c->tools);
}

/* It was none: what came of it is content. */
static void give_up_call(struct channel *c, struct said *out)
{
    c->state = 0;
    c->n_bad_call++;
    emit(c, c->call.text.p, c->call.text.n, out);
}

static void end_call(struct channel *c, enum toolcall_end how, struct said *out)
{
    bool open = toolcall_is_open(&c->call);

    if ((c->state & IN_CALL) == 0)
        return;
    if (!toolcall_end(&c->call, how, out)) {
        if (how == TOOLCALL_CUT)
            c->state = 0;           /* it might have become a call: nobody said these words */
        else
            give_up_call(c, out);
        return;
    }
    c->n_call += how != TOOLCALL_CUT;
    c->n_bad_call += how != TOOLCALL_CUT && open;
    out->cut = how == TOOLCALL_CUT;
    c->state = SKIP_SPACE | MAY_CALL;
}

static void put_call_text(struct channel *c, const char *p, size_t n, struct said *out)
{
    if (!toolcall_text(&c->call, p, n, out))
        give_up_call(c, out);
}

/* "call:" and the beginning of a declared name, or all of it and a '{'. */
static bool may_be_head(const struct channel *c, bool *whole)
{
    struct slice name;

    *whole = false;
    if (c->bare.n <= 5)
        return c->bare.n > 0 && memcmp(c->bare.p, "call:", c->bare.n) == 0;
    name = (struct slice) { c->bare.p + 5, c->bare.n - 5 };
    if (name.p[name.n - 1] != '{')
        return toolset_begins(c->tools, name);
    name.n--;
    *whole = toolset_find(c->tools, name) >= 0;
    return *whole;
}

/* Where a call may begin without its marker: hold text while it can be the head of a call. */
static void put_bare(struct channel *c, const char *p, size_t n, struct said *out)
{
    bool possible = true, whole = false;

    while (n > 0 && c->bare.n == 0 && is_space(*p)) {
        emit(c, p++, 1, out);
        n--;
    }
    while (n > 0 && possible && !whole) {
        buf_put(&c->bare, p++, 1);
        n--;
        possible = may_be_head(c, &whole);
    }
    if (whole) {
        begin_call(c);
        put_call_text(c, c->bare.p, c->bare.n, out);
        put_call_text(c, p, n, out);
        c->bare.n = 0;
    } else if (!possible) {
        emit(c, c->bare.p, c->bare.n, out);
        emit(c, p, n, out);
        c->bare.n = 0;
    }
}

static void put_text(struct channel *c, const char *p, size_t n, struct said *out)
{
    if (n == 0)
        return;
    if ((c->state & IN_CALL) != 0) {
        put_call_text(c, p, n, out);
        return;
    }
    if ((c->state & WANT_MODEL) != 0
        && !take_label(c, WANT_MODEL, model_label, &p, &n, out))
        return;
    if ((c->state & WANT_THOUGHT) != 0
        && !take_label(c, WANT_THOUGHT, thought_label, &p, &n, out))
        return;
    if (c->tools != NULL && !c->marked && (c->state & (IN_REASONING | MAY_CALL)) == MAY_CALL)
        put_bare(c, p, n, out);
    else
        emit(c, p, n, out);
}

/* A marker ends the wait for a label. "thought" without its newline is still the label: the budget
 * closed the channel. Anything shorter was text. */
static void release_label(struct channel *c, struct said *out)
{
    const char *label = (c->state & WANT_MODEL) != 0 ? model_label : thought_label;
    uint32_t    n = c->n_hold;

    c->n_hold = 0;
    c->state &= ~(WANT_MODEL | WANT_THOUGHT);
    if (n > 0 && !(label == thought_label && n == sizeof(thought_label) - 2))
        emit(c, label, n, out);
}

static void flush(struct channel *c, struct said *out)
{
    c->text.n = 0;
    tok_stream_end(&c->ts, &c->text);
    put_text(c, c->text.p, c->text.n, out);
}

/* A marker or the end decides about what is held; white space waits on. */
static void release(struct channel *c, struct said *out)
{
    release_label(c, out);
    emit(c, c->bare.p, c->bare.n, out);
    c->bare.n = 0;
}

static void enter_reasoning(struct channel *c, struct said *out)
{
    if ((c->state & IN_REASONING) == 0) {
        said_put(out, SAID_CONTENT, c->ws.p, c->ws.n);
        c->ws.n = 0;
    }
    c->state = IN_REASONING | WANT_THOUGHT;
    c->seen_any = true;
}

static void leave_reasoning(struct channel *c)
{
    if ((c->state & IN_REASONING) != 0) {
        c->state = SKIP_SPACE;
        c->ws.n = 0;
    }
    c->state |= MAY_CALL;
}

static bool is_marker(const struct channel_ids *s, int32_t id)
{
    return id == s->turn_end || id == s->tool_response || id == s->eos || id == s->turn
           || id == s->channel || id == s->channel_end || id == s->tool_call
           || id == s->tool_call_end || id == s->quote;
}

static void put_special(struct channel *c, int32_t id, struct said *out)
{
    const struct channel_ids *s = c->ids;

    if (!is_marker(s, id))
        return;                     /* every other control token is dropped */
    release(c, out);
    if (id == s->turn_end || id == s->tool_response || id == s->eos) {
        c->ended = !c->go_on;
        end_call(c, TOOLCALL_STOPPED, out);
    } else if (id == s->turn) {
        if (c->seen_any)
            c->ended = !c->go_on;
        else
            c->state |= WANT_MODEL;
    } else if (id == s->channel) {
        end_call(c, TOOLCALL_CLOSED, out);
        enter_reasoning(c, out);
    } else if (id == s->channel_end && (c->state & IN_CALL) == 0) {
        leave_reasoning(c);
    } else if (id == s->tool_call) {
        end_call(c, TOOLCALL_CLOSED, out);
        leave_reasoning(c);
        if (c->tools != NULL)
            begin_call(c);
    } else if (id == s->tool_call_end) {
        end_call(c, TOOLCALL_CLOSED, out);
        c->state |= (c->state & IN_REASONING) == 0 ? MAY_CALL : 0;
    } else if (id == s->quote && (c->state & IN_CALL) != 0) {
        toolcall_quote(&c->call, out);
    }
}

void channel_put(struct channel *c, int32_t id, struct said *out)
{
    if (c->ended)
        return;
    if (tok_is_special(c->tok, id)) {
        flush(c, out);
        put_special(c, id, out);
        return;
    }

    c->n_reasoning_tok += (c->state & IN_REASONING) != 0;
    c->text.n = 0;
    tok_stream_put(c->tok, &c->ts, id, &c->text);
    out->content.full |= c->text.full;
    put_text(c, c->text.p, c->text.n, out);
}

void channel_end(struct channel *c, bool cut, struct said *out)
{
    flush(c, out);
    release(c, out);
    end_call(c, cut && !c->ended ? TOOLCALL_CUT : TOOLCALL_STOPPED, out);
    leave_reasoning(c);
    if (c->n_call == 0)
        said_put(out, SAID_CONTENT, c->ws.p, c->ws.n);
    c->ws.n = 0;
}

void channel_close(struct channel *c)
{
    toolcall_free(&c->call);
    buf_free(&c->bare);
    buf_free(&c->ws);
    buf_free(&c->text);
}
