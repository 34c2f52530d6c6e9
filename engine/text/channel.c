#include "channel.h"

#include <string.h>

/* The state is a set. Labels are taken in this order, each as the first text after its marker. */
enum {
    IN_REASONING = 1,
    WANT_MODEL   = 2,       /* "model\n" after a repeated <|turn> */
    WANT_THOUGHT = 4,       /* "thought\n" after <|channel> */
    SKIP_SPACE   = 8,       /* white space directly after a thought is not content */
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
                  const int32_t *prompt, size_t n_prompt)
{
    *c = (struct channel) { .tok = t, .ids = ids, .ts = { .skip_special = true } };

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

static bool is_space(char ch)
{
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}

/* Text whose place is known. */
static void emit(struct channel *c, const char *p, size_t n, struct said *out)
{
    size_t solid = n;

    if ((c->state & IN_REASONING) != 0) {
        while (solid > 0 && is_space(p[solid - 1]))
            solid--;
        if (solid > 0) {
            said_put(out, SAID_REASONING, c->ws.p, c->ws.n);
            c->ws.n = 0;
            said_put(out, SAID_REASONING, p, solid);
        }
        buf_put(&c->ws, p + solid, n - solid);
        out->content.full |= c->ws.full;
    } else {
        while ((c->state & SKIP_SPACE) != 0 && n > 0 && is_space(*p)) {
            p++;
            n--;
        }
        if (n > 0)
            c->state &= ~SKIP_SPACE;
        said_put(out, SAID_CONTENT, p, n);
    }
    c->seen_any |= n > 0;
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

static void put_text(struct channel *c, const char *p, size_t n, struct said *out)
{
    if (n == 0)
        return;
    if ((c->state & WANT_MODEL) != 0
        && !take_label(c, WANT_MODEL, model_label, &p, &n, out))
        return;
    if ((c->state & WANT_THOUGHT) != 0
        && !take_label(c, WANT_THOUGHT, thought_label, &p, &n, out))
        return;
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

static void leave_reasoning(struct channel *c)
{
    if ((c->state & IN_REASONING) != 0)
        c->state = SKIP_SPACE;
    c->ws.n = 0;
}

static void put_special(struct channel *c, int32_t id, struct said *out)
{
    const struct channel_ids *s = c->ids;

    if (id == s->turn_end || id == s->tool_response || id == s->eos) {
        c->ended = !c->go_on;
    } else if (id == s->turn) {
        release_label(c, out);
        if (c->seen_any)
            c->ended = !c->go_on;
        else
            c->state |= WANT_MODEL;
    } else if (id == s->channel) {
        release_label(c, out);
        c->state = IN_REASONING | WANT_THOUGHT;
        c->seen_any = true;
    } else if (id == s->channel_end || id == s->tool_call) {
        release_label(c, out);
        leave_reasoning(c);
    }
    /* Every other control token is dropped. */
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

void channel_end(struct channel *c, struct said *out)
{
    flush(c, out);
    release_label(c, out);
    leave_reasoning(c);
}

void channel_close(struct channel *c)
{
    buf_free(&c->ws);
    buf_free(&c->text);
}
