/* grammar_random.c - thousands of small random grammars, each also kept as a table of nodes. What
 * a node matches is filled in until nothing changes, which needs no automaton and minds no kind of
 * recursion; grammar_compile must agree on every text tried, and on what it refuses. */
#include "grammar_plain.h"
#include "tap.h"

enum { NODE_MAX = 24, RULE_MAX = 4, TEXT_MAX = 8 };
enum kind { EMPTY, BYTES, CHARS, TOKEN, SEQ, ALT, REPEAT, CALL };

struct node {
    enum kind kind;
    gram      gram;
    int       a, b, min, max;
    int       sym[3], n_sym;             /* BYTES */
};

struct table {
    struct node node[NODE_MAX];
    int         n_node, n_rule, body[RULE_MAX];
    bool        nullable[NODE_MAX], full[NODE_MAX];    /* full: some text matches */
    unsigned    left[NODE_MAX];          /* rules that it may begin with, a bit each */
};

static uint64_t seed;

static int draw(int n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (int) (seed % (uint64_t) n);
}

static void make_leaf(struct table *t, struct grammar_make *m, struct node *x)
{
    char              p[3];
    struct code_range r;

    switch (draw(t->n_rule > 0 ? 10 : 6)) {
    case 0:
        x->kind = EMPTY;
        x->gram = grammar_empty(m);
        break;
    case 1:
        x->kind = TOKEN;
        x->a = draw(2);
        x->gram = grammar_token(m, x->a);
        break;
    case 2:
        x->kind = CHARS;
        r.lo = x->min = 'a' + draw(3);
        r.hi = x->max = x->min + draw(3) - (draw(8) == 0 ? 3 : 0);
        x->gram = grammar_chars(m, &r, 1);
        break;
    case 3: case 4: case 5:
        x->kind = BYTES;
        x->n_sym = 1 + draw(2);
        for (int i = 0; i < x->n_sym; i++)
            p[i] = (char) (x->sym[i] = 'a' + draw(3));
        x->gram = grammar_bytes(m, p, (size_t) x->n_sym);
        break;
    default:
        x->kind = CALL;
        x->a = draw(t->n_rule);
        x->gram = grammar_call(m, x->a);
    }
}

static void make_node(struct table *t, struct grammar_make *m)
{
    struct node *x = &t->node[t->n_node];

    *x = (struct node) { 0 };
    if (t->n_node < 3 || draw(3) == 0) {
        make_leaf(t, m, x);
    } else {
        x->kind = (enum kind[]) { SEQ, SEQ, ALT, ALT, REPEAT }[draw(5)];
        x->a = t->n_node - 1 - draw(t->n_node < 6 ? t->n_node : 6);
        x->b = draw(t->n_node);
        x->min = draw(3);
        x->max = draw(2) ? -1 : x->min + draw(3);
        x->gram = x->kind == SEQ ? grammar_seq(m, t->node[x->a].gram, t->node[x->b].gram)
                  : x->kind == ALT ? grammar_alt(m, t->node[x->a].gram, t->node[x->b].gram)
                  : grammar_repeat(m, t->node[x->a].gram, x->min, x->max);
    }
    t->n_node++;
}

/* nullable, full and left of every node, from those of others, until they stay. */
static void examine(struct table *t)
{
    for (bool more = true; more; ) {
        more = false;
        for (int i = 0; i < t->n_node; i++) {
            const struct node *x = &t->node[i];
            int      body = x->kind == CALL ? t->body[x->a] : 0;
            bool     nil, full;
            unsigned left = 0;

            switch (x->kind) {
            case SEQ:
                nil = t->nullable[x->a] && t->nullable[x->b];
                full = t->full[x->a] && t->full[x->b];
                left = t->left[x->a] | (t->nullable[x->a] ? t->left[x->b] : 0);
                break;
            case ALT:
                nil = t->nullable[x->a] || t->nullable[x->b];
                full = t->full[x->a] || t->full[x->b];
                left = t->left[x->a] | t->left[x->b];
                break;
            case REPEAT:
                nil = x->min == 0 || t->nullable[x->a];
                full = x->min == 0 || t->full[x->a];
                left = x->max == 0 ? 0 : t->left[x->a];
                break;
            case CALL:
                nil = t->nullable[body];
                full = t->full[body];
                left = 1u << x->a | t->left[body];
                break;
            default:
                nil = x->kind == EMPTY;
                full = x->kind != CHARS || x->min <= x->max;
            }
            more |= nil != t->nullable[i] || full != t->full[i] || left != t->left[i];
            t->nullable[i] = nil;
            t->full[i] = full;
            t->left[i] = left;
        }
    }
}

/* Rules that the root's pieces call, and theirs. */
static unsigned reached(const struct table *t, int root)
{
    bool     seen[NODE_MAX] = { 0 };
    unsigned rules = 0;

    seen[root] = true;
    for (bool more = true; more; ) {
        more = false;
        for (int i = 0; i < t->n_node; i++) {
            const struct node *x = &t->node[i];
            int to[2] = { -1, -1 };

            if (!seen[i])
                continue;
            if (x->kind == CALL) {
                rules |= 1u << x->a;
                to[0] = t->body[x->a];
            } else if (x->kind == SEQ || x->kind == ALT) {
                to[0] = x->a;
                to[1] = x->b;
            } else if (x->kind == REPEAT && x->max != 0) {
                to[0] = x->a;
            }
            for (int k = 0; k < 2; k++)
                if (to[k] >= 0 && !seen[to[k]])
                    more = seen[to[k]] = true;
        }
    }
    return rules;
}

/* ends[i][at]: where node i may end that begins at at, a bit each. */
typedef uint32_t ends[NODE_MAX][TEXT_MAX + 1];

static uint32_t after(const ends e, int node, uint32_t from)
{
    uint32_t to = 0;

    for (int at = 0; at <= TEXT_MAX; at++)
        if (from >> at & 1)
            to |= e[node][at];
    return to;
}

static uint32_t repeated(const ends e, const struct node *x, uint32_t from)
{
    uint32_t all;

    for (int i = 0; i < x->min; i++)
        from = after(e, x->a, from);
    all = from;
    for (int i = x->min; x->max == -1 ? i < x->min + TEXT_MAX + 1 : i < x->max; i++)
        all |= from = after(e, x->a, from);
    return all;
}

static bool node_takes(const struct table *t, int root, const int *sym, int n)
{
    ends e = { 0 };

    for (bool more = true; more; ) {
        more = false;
        for (int i = 0; i < t->n_node; i++)
            for (int at = 0; at <= n; at++) {
                const struct node *x = &t->node[i];
                uint32_t           to = 0, here = 1u << at;
                int                k = 0;

                switch (x->kind) {
                case EMPTY:  to = here; break;
                case BYTES:
                    while (k < x->n_sym && at + k < n && sym[at + k] == x->sym[k])
                        k++;
                    to = k == x->n_sym ? here << k : 0;
                    break;
                case CHARS:
                    to = at < n && sym[at] >= x->min && sym[at] <= x->max ? here << 1 : 0;
                    break;
                case TOKEN:  to = at < n && sym[at] == RUN_TOKEN + x->a ? here << 1 : 0; break;
                case SEQ:    to = after(e, x->b, e[x->a][at]); break;
                case ALT:    to = e[x->a][at] | e[x->b][at]; break;
                case REPEAT: to = repeated(e, x, here); break;
                case CALL:   to = e[t->body[x->a]][at]; break;
                }
                more |= to != e[i][at];
                e[i][at] = to;
            }
    }
    return e[root][0] >> n & 1;
}

static void random_text(int *sym, int *n)
{
    *n = draw(TEXT_MAX + 1);
    for (int i = 0; i < *n; i++)
        sym[i] = draw(10) == 0 ? RUN_TOKEN + draw(2) : 'a' + draw(draw(6) == 0 ? 5 : 3);
}

/* A text that g may take, by a walk through it, as far as there is room. */
static int walk(const struct grammar *g, int *sym)
{
    uint32_t back[TEXT_MAX], at = g->rule[0];
    int      n = 0, depth = 0;

    while (n < TEXT_MAX) {
        const struct grammar_state *s = &g->state[at];
        uint32_t n_edge = s[1].edge - s->edge, n_token = s[1].token - s->token;
        uint32_t n_call = s[1].call - s->call;
        uint32_t k = (uint32_t) draw((int) (n_edge + n_token + n_call + s->accept));

        if (k < n_edge) {
            const struct grammar_edge *e = &g->edge[s->edge + k];

            sym[n++] = (int) e->lo + draw((int) (e->hi - e->lo) + 1);
            at = e->to;
        } else if ((k -= n_edge) < n_token) {
            sym[n++] = RUN_TOKEN + g->token[s->token + k].id;
            at = g->token[s->token + k].to;
        } else if ((k -= n_token) < n_call && depth < TEXT_MAX) {
            back[depth++] = g->call[s->call + k].to;
            at = g->rule[g->call[s->call + k].rule];
        } else if (k == n_call && depth > 0) {
            at = back[--depth];
        } else {
            break;
        }
    }
    return n;
}

/* No two states may be equal, and those alike are those that agree for so long. */
static bool minimal(const struct grammar *g)
{
    int  sym[16], n = 0, *class = calloc(g->n_state, sizeof(int));
    bool good;

    for (int c = 'a' - 1; c <= 'g'; c++)
        sym[n++] = c;
    for (int i = 0; i < 2; i++)
        sym[n++] = RUN_TOKEN + i;
    for (uint32_t r = 1; r < g->n_rule; r++)
        sym[n++] = RUN_CALL + (int) r;
    good = run_classes(g, class, INT32_MAX, sym, n) == (int) g->n_state;
    good &= run_classes(g, class, GRAMMAR_LOOK + 1, sym, n) == (int) g->n_alike;
    for (uint32_t s = 0; s < g->n_state; s++)
        for (uint32_t t = 0; t < s; t++)
            good &= (class[s] == class[t]) == (g->state[s].alike == g->state[t].alike);
    free(class);
    return good;
}

struct count { int grammars, refused_left, refused_empty, texts, taken, bad; };

static void try_one(struct count *c)
{
    struct grammar_make *m = grammar_make(0);
    struct table         t = { .n_rule = draw(RULE_MAX + 1) };
    struct grammar      *g;
    struct err           e = { 0 };
    bool                 left = false;
    const char          *broken;
    int                  root, rc;

    for (int r = 0; r < t.n_rule; r++)
        grammar_rule(m);
    for (int n = 4 + draw(NODE_MAX - 4); t.n_node < n; )
        make_node(&t, m);
    for (int r = 0; r < t.n_rule; r++) {
        t.body[r] = draw(t.n_node);
        grammar_define(m, r, t.node[t.body[r]].gram);
    }
    root = t.n_node - 1;
    examine(&t);
    for (int r = 0; r < t.n_rule; r++)
        left |= (reached(&t, root) >> r & 1) && (t.left[t.body[r]] >> r & 1);

    rc = grammar_compile(&g, m, t.node[root].gram, &e);
    grammar_make_free(m);
    c->grammars++;
    if (left || !t.full[root]) {
        c->refused_left += left;
        c->refused_empty += !left;
        if (rc != E_INVALID || strstr(e.msg, left ? "left recursion" : "no text") == NULL)
            c->bad++;
        grammar_free(g);
        return;
    }
    broken = rc != 0 ? e.msg : run_broken(g);
    if (broken == NULL && !minimal(g))
        broken = "not minimal";
    if (broken != NULL) {
        printf("# %s\n", broken);
        c->bad++;
        grammar_free(g);
        return;
    }
    for (int i = 0; i < 16; i++) {
        int  sym[TEXT_MAX], n;
        bool want;

        if (i % 2 == 0)
            random_text(sym, &n);
        else if ((n = walk(g, sym)) > 0 && draw(3) == 0)
            sym[draw(n)] = draw(5) == 0 ? RUN_TOKEN + draw(2) : 'a' + draw(4);
        want = node_takes(&t, root, sym, n);
        c->texts++;
        c->taken += want;
        c->bad += run_takes(g, sym, n) != want;
    }
    grammar_free(g);
}

int main(int argc, char **argv)
{
    int          n = argc > 1 ? atoi(argv[1]) : 6000;
    struct count c = { 0 };

    for (int i = 0; i < n; i++) {
        seed = 0x9e3779b97f4a7c15u * (uint64_t) (i + 1);
        for (int k = 0; k < 4; k++)
            draw(2);
        int bad = c.bad;

        try_one(&c);
        if (c.bad > bad)
            printf("# grammar %d\n", i);
    }
    printf("# %d grammars, %d left recursive, %d empty; %d texts, %d taken\n", c.grammars,
           c.refused_left, c.refused_empty, c.texts, c.taken);
    is_int(c.bad, 0, "all agree");
    ok(c.refused_left > n / 100 && c.refused_empty > n / 100, "both kinds of refusal were tried");
    ok(c.taken > c.texts / 10 && c.taken < c.texts / 2, "and texts of both kinds");
    return done_testing();
}
