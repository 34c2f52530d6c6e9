#include "guide.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dialect.h"
#include "language.h"
#include "work.h"

static int no_memory(struct api_err *e)
{
    return api_err_set(e, 500, "server_error", "internal_error", NULL, "Out of memory.");
}

/* What is demanded */

static bool is_demanded(const struct ask *ask)
{
    return ask_tools(ask) != NULL && ask->tool_choice >= TOOL_CHOICE_REQUIRED;
}

static bool is_strict(const struct ask *ask)
{
    bool named = ask->tool_choice == TOOL_CHOICE_NAMED, strict = false;

    for (uint32_t i = 0; ask_tools(ask) != NULL && i < ask->tools.n; i++) {
        const struct tool *t = &ask->tools.tool[i];

        strict |= t->strict && (!named || tools_find(&ask->tools, ask->tool_name) == t);
    }
    return strict;
}

/* A call that is demanded goes before a format. */
static bool has_format(const struct ask *ask)
{
    return ask->format.kind != FORMAT_FREE && !is_demanded(ask);
}

bool guide_is_work(const struct ask *ask)
{
    return has_format(ask) || is_demanded(ask) || is_strict(ask);
}

static void demand(struct language *l, struct guide *g, const struct ask *ask)
{
    *l = (struct language) { .many = !g->one };
    if (has_format(ask))
        l->format = &ask->format;
    if (ask_tools(ask) != NULL)
        l->tools = &ask->tools;
    if (ask->tool_choice == TOOL_CHOICE_NAMED)
        l->only = ask->tool_name;
    g->must = is_demanded(ask);
    g->from_start = g->must || l->format != NULL;
    g->lets_go = l->heads = g->must && !is_strict(ask);
    if (l->heads)
        l->many = false;
}

/* Errors */

static void blame(const struct ask *ask, enum ask_kind kind, int32_t tool, char path[64])
{
    const struct dialect *d = dialect_of(kind);

    if (tool >= 0)
        snprintf(path, 64, "tools[%d].%s", tool, d->schema_field);
    else if (has_format(ask))
        snprintf(path, 64, "%s", d->format_field != NULL ? d->format_field : ask->format.field);
    else
        snprintf(path, 64, "tools");
}

static int refuse(const struct ask *ask, enum ask_kind kind, int32_t tool, const struct err *err,
                  struct api_err *e)
{
    char path[64];

    blame(ask, kind, tool, path);
    return api_err_400(e, "invalid_value", path, "'%s' %s: %s.", path,
                       err->code == E_FULL ? "is too large" : "cannot be enforced", err->msg);
}

static int no_tokens(const struct ask *ask, enum ask_kind kind, struct api_err *e)
{
    char path[64];

    blame(ask, kind, -1, path);
    return api_err_400(e, "unsupported_parameter", path, "'%s': the model's tokenizer has not what "
                       "is needed to hold an answer to it.", path);
}

/* Open and close */

/* Of this thread's own time: it is the work that counts, not how busy the machine is. */
static uint64_t in_ms(uint64_t ms)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t) t.tv_sec * 1000000000u + (uint64_t) t.tv_nsec + ms * 1000000u;
}

static int compile(struct guide *g, const struct language *l, const struct buf *name,
                   const struct ask *ask, enum ask_kind kind, struct api_err *e)
{
    const struct api *a = g->api;
    struct slice      source = { name->p, name->n };
    uint64_t          start = api_now_ns();
    struct grammar   *made;
    struct matcher   *begin = NULL;
    struct err        err;
    int32_t           tool;
    int               rc;

    rc = language_compile(&made, l, &a->ids, in_ms(API_GRAMMAR_MS), &tool, &err);
    /* What is not found in time is found when an answer comes to it. */
    if (rc == 0)
        rc = grammar_warm(made, a->vocab, in_ms(API_GRAMMAR_WARM_MS), &err);
    if (rc == 0 && (begin = matcher_open(made, a->vocab)) == NULL)
        rc = err_set(&err, E_FULL, "out of memory");
    grammars_count(a->grammars, rc == 0, api_now_ns() - start);
    if (rc != 0) {
        grammar_free(made);
        return refuse(ask, kind, tool, &err, e);
    }
    g->kept = grammars_put(a->grammars, source, made, begin);
    return g->kept != NULL ? 0 : no_memory(e);
}

static int find_or_compile(struct guide *g, const struct ask *ask, enum ask_kind kind,
                           struct api_err *e)
{
    const struct api         *a = g->api;
    const struct channel_ids *s = &a->ids;
    struct language           l;
    struct buf                name = { 0 };
    int                       rc = 0;

    demand(&l, g, ask);
    if (a->vocab == NULL
        || (l.tools != NULL && (s->tool_call < 0 || s->tool_call_end < 0 || s->quote < 0)))
        return no_tokens(ask, kind, e);
    language_name(&l, &name);
    if (name.full)
        rc = no_memory(e);
    else
        g->kept = grammars_find(a->grammars, (struct slice) { name.p, name.n });
    if (rc == 0 && g->kept == NULL)
        rc = compile(g, &l, &name, ask, kind, e);
    buf_free(&name);
    return rc;
}

int guide_open(struct guide **out, const struct api *a, enum ask_kind kind, const struct ask *ask,
               struct api_err *e)
{
    struct guide *g;
    int           rc = 0;

    *out = NULL;
    if (ask_tools(ask) == NULL && !has_format(ask))
        return 0;
    g = calloc(1, sizeof(*g));
    if (g == NULL)
        return no_memory(e);
    *g = (struct guide) {
        .api = a, .one = ask->tool_choice == TOOL_CHOICE_NAMED || !ask->parallel_calls,
        .may_think = ask->messages != NULL && a->ids.channel >= 0 && prompt_thinks(a, ask),
    };
    if (ask_tools(ask) != NULL && toolset_open(&g->set, ask_tools(ask), NULL) != 0)
        rc = no_memory(e);
    if (rc == 0 && guide_is_work(ask))
        rc = find_or_compile(g, ask, kind, e);
    if (rc != 0)
        guide_close(g);
    else
        *out = g;
    return rc;
}

void guide_close(struct guide *g)
{
    if (g == NULL)
        return;
    toolset_close(g->set);
    grammars_drop(g->api->grammars, g->kept);
    free(g);
}

/* Of one choice: the core's thread, but for open and close. */

enum {
    FIRST,                           /* nothing came: a thought, or the language */
    THINKS,
    TALKS,                           /* anything, until a call begins */
    HELD,                            /* the language */
    LOST,                            /* something else than that came: all that is left is to end */
    LOOSE,                           /* nothing is demanded any more */
};

int guide_walk_open(struct guide_walk *w, const struct guide *guide, bool inside)
{
    *w = (struct guide_walk) { .guide = guide };
    if (guide == NULL || guide->kept == NULL)
        return 0;
    w->matcher = matcher_clone(guide->kept->start);
    w->state = !guide->from_start ? TALKS : inside ? THINKS : FIRST;
    return w->matcher != NULL ? 0 : E_FULL;
}

void guide_walk_close(struct guide_walk *w)
{
    if (w->matcher != NULL)
        matcher_close(w->matcher);
    w->matcher = NULL;
}

bool guide_walk_whole(const struct guide_walk *w)
{
    return w->matcher == NULL || w->state == TALKS || w->state == LOOSE
           || ((w->state == FIRST || w->state == HELD) && matcher_done(w->matcher));
}

static void take(struct guide_walk *w, int32_t id)
{
    const struct guide       *g = w->guide;
    const struct channel_ids *s = &g->api->ids;

    if (w->state == FIRST)
        w->state = g->may_think && id == s->channel ? THINKS : HELD;
    if ((w->state == THINKS && g->must && id == s->tool_call)
        || (w->state == TALKS && id == s->tool_call))
        w->state = HELD;
    if (w->state == HELD && !matcher_take(w->matcher, id))
        w->state = LOST;
    else if (w->state == HELD && g->lets_go && matcher_done(w->matcher))
        w->state = LOOSE;
    else if (w->state == THINKS && id == s->channel_end)
        w->state = HELD;
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

static void allow_stops(const struct api *a, uint32_t *mask)
{
    for (int32_t i = 0; i < a->mc->n_eos; i++)
        allow(mask, a->mc->eos[i]);
}

/* A thought ends with its marker, or, where a call has to follow, with the call's. */
static void allow_thought(const struct guide *g, uint32_t *mask)
{
    const struct channel_ids *s = &g->api->ids;
    int32_t                   vocab = g->api->mc->vocab;

    memset(mask, 0xFF, (size_t) (vocab / 32) * sizeof(*mask));
    for (int32_t id = vocab / 32 * 32; id < vocab; id++)
        allow(mask, id);
    for (int32_t i = 0; i < g->api->mc->n_eos; i++)
        forbid(mask, g->api->mc->eos[i]);
    forbid(mask, s->eos);
    forbid(mask, s->turn);
    forbid(mask, s->turn_end);
    forbid(mask, s->tool_response);
    if (!g->must)
        forbid(mask, s->tool_call);
}

int32_t guide_next(void *arg, const int32_t *gen, int32_t n_gen, uint32_t *mask)
{
    struct guide_walk  *w = arg;
    const struct guide *g = w->guide;

    for (; w->n_seen < n_gen; w->n_seen++)
        take(w, gen[w->n_seen]);

    switch (w->state) {
    case TALKS:
        return GUIDE_ANY;
    case LOOSE:
        return GUIDE_OFF;
    case LOST:
        allow_stops(g->api, mask);
        return GUIDE_MASK;
    case THINKS:
        allow_thought(g, mask);
        return GUIDE_MASK;
    case FIRST:
        if (g->may_think)
            allow(mask, g->api->ids.channel);
        break;
    }
    matcher_mask(w->matcher, mask);
    if (matcher_done(w->matcher) || matcher_over(w->matcher))
        allow_stops(g->api, mask);
    return GUIDE_MASK;
}
