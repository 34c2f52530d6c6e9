#include "calls.h"

#include <stdlib.h>
#include <string.h>

static int no_memory(struct api_err *e)
{
    return api_err_set(e, 500, "server_error", "internal_error", NULL, "Out of memory.");
}

static int put_head(struct calls *c, const struct tok *tok, struct slice name)
{
    struct buf text = { 0 };
    size_t     at = c->head.n;
    int        rc = ids_put(&c->head, 0);

    buf_fmt(&text, "call:%.*s{", (int) name.n, name.p);
    if (rc == 0)
        rc = text.full ? E_FULL : tok_encode(tok, text.p, text.n, false, &c->head, NULL);
    if (rc == 0)
        c->head.p[at] = (int32_t) (c->head.n - at - 1);
    buf_free(&text);
    return rc;
}

int calls_open(struct calls **out, const struct ask *ask, const struct tok *tok,
               const struct channel_ids *ids, int32_t vocab, bool may_think, struct api_err *e)
{
    bool          named = ask->tool_choice == TOOL_CHOICE_NAMED;
    struct calls *c;

    *out = NULL;
    if (ask_tools(ask) == NULL)
        return 0;
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return no_memory(e);
    *c = (struct calls) {
        .ids = ids, .must = named || ask->tool_choice == TOOL_CHOICE_REQUIRED,
        .one = named || !ask->parallel_calls, .may_think = may_think, .vocab = vocab,
    };
    *out = c;

    if (toolset_open(&c->set, ask_tools(ask), NULL) != 0)
        return no_memory(e);
    for (uint32_t i = 0; c->must && i < ask->tools.n; i++) {
        struct slice name = ask->tools.tool[i].name;

        if (named && (name.n != ask->tool_name.n || memcmp(name.p, ask->tool_name.p, name.n) != 0))
            continue;
        if (put_head(c, tok, name) != 0)
            return no_memory(e);
    }
    return 0;
}

void calls_close(struct calls *c)
{
    if (c == NULL)
        return;
    toolset_close(c->set);
    ids_free(&c->head);
    free(c);
}

void call_guide_open(struct call_guide *g, const struct calls *calls, bool inside)
{
    *g = (struct call_guide) { .calls = calls, .inside = inside, .at = -1 };
}

static void allow(uint32_t *mask, int32_t id)
{
    mask[id / 32] |= 1u << (id % 32);
}

static void forbid(uint32_t *mask, int32_t id)
{
    if (id >= 0)
        mask[id / 32] &= ~(1u << (id % 32));
}

static void note(struct call_guide *g, int32_t id)
{
    const struct channel_ids *s = g->calls->ids;

    if (g->at >= 0)
        return;
    if (id == s->channel || id == s->channel_end)
        g->inside = id == s->channel;
    else if (id == s->tool_call)
        g->at = g->n_seen + 1;
}

/* Before the call nothing may end the turn. A thought ends with its marker, or with the call's. */
static int32_t before(const struct call_guide *g, int32_t n_gen, uint32_t *mask)
{
    const struct calls       *c = g->calls;
    const struct channel_ids *s = c->ids;

    if (g->inside) {
        memset(mask, 0xFF, (size_t) (c->vocab / 32) * sizeof(*mask));
        for (int32_t id = c->vocab / 32 * 32; id < c->vocab; id++)
            allow(mask, id);
        forbid(mask, s->eos);
        forbid(mask, s->turn);
        forbid(mask, s->turn_end);
        forbid(mask, s->tool_response);
        return GUIDE_MASK;
    }
    if (n_gen > 0 || !c->may_think)
        return s->tool_call;
    allow(mask, s->tool_call);
    allow(mask, s->channel);
    return GUIDE_MASK;
}

int32_t call_guide(void *arg, const int32_t *gen, int32_t n_gen, uint32_t *mask)
{
    struct call_guide  *g = arg;
    const struct calls *c = g->calls;
    int32_t             next = GUIDE_OFF, n;

    for (; g->n_seen < n_gen; g->n_seen++)
        note(g, gen[g->n_seen]);
    if (g->at < 0)
        return before(g, n_gen, mask);

    /* The heads that go on from what has come; one that is complete ends the guidance. */
    n = n_gen - g->at;
    for (size_t i = 0; i < c->head.n; i += 1 + (size_t) c->head.p[i]) {
        const int32_t *head = c->head.p + i + 1;

        if (c->head.p[i] < n || memcmp(head, gen + g->at, (size_t) n * sizeof(*head)) != 0)
            continue;
        if (c->head.p[i] == n)
            return GUIDE_OFF;
        allow(mask, head[n]);
        next = next == GUIDE_OFF || next == head[n] ? head[n] : GUIDE_MASK;
    }
    return next;
}
