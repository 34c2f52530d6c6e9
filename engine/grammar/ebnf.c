/* ebnf.c - GBNF to rules of a grammar, in one pass with a stack of parentheses. A rule gets its
 * number where it is named first, so it may be used before it is written. */
#include "ebnf.h"

#include "notation.h"

#include <stdlib.h>
#include <string.h>

struct level {
    gram        alt, seq, item;         /* alternatives before; this one, up to item; its last */
    bool        any;                    /* there is an alt */
    enum { NO_ITEM, ITEM, COUNTED } what;
    const char *at;
};

struct name { struct slice s; const char *at; int32_t rule; bool defined; };

struct ebnf {
    struct grammar_make *m;
    struct notation      n;
    struct buf           text;          /* of a literal */
    struct slice         who;           /* the rule that the failure is about */
    struct name         *name;          /* [n_name], sorted; room for GRAMMAR_RULE_MAX */
    uint32_t             n_name;
    int                  depth;
    struct level         level[EBNF_DEPTH_MAX + 1];      /* 0: the rule */
};

static const char lark[] = "Lark's syntax; rules are written as in GBNF: name ::= ...";

static int fail(struct ebnf *e, int code, const char *at, const char *why)
{
    return notation_fail(&e->n, code, at, why);
}

static int fail_rule(struct ebnf *e, const char *at, const char *why, struct slice who)
{
    e->who = who;
    return fail(e, E_INVALID, at, why);
}

/* What stands between things, or in front of a rule. */

static void skip_blank(struct notation *n)
{
    while (n->p < n->end) {
        if (*n->p == '#')
            while (n->p < n->end && *n->p != '\n')
                n->p++;
        else if (*n->p == ' ' || (*n->p >= '\t' && *n->p <= '\r'))
            n->p++;
        else
            break;
    }
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'
           || c == '-';
}

static struct slice take_name(struct notation *n)
{
    struct slice s = { n->p, 0 };

    while (n->p < n->end && is_name(*n->p))
        n->p++;
    s.n = (size_t) (n->p - s.p);
    return s;
}

/* A name and ::= stand here, not passed. */
static bool is_head(const struct ebnf *e)
{
    struct notation n = e->n;

    if (take_name(&n).n == 0)
        return false;
    skip_blank(&n);
    return notation_take(&n, "::=");
}

/* Names of rules */

static int compare(struct slice a, struct slice b)
{
    int by = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

    return by != 0 ? by : (a.n > b.n) - (a.n < b.n);
}

/* Where it is or would be. */
static uint32_t place(const struct ebnf *e, struct slice s)
{
    uint32_t low = 0, high = e->n_name;

    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (compare(e->name[mid].s, s) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct name *find(struct ebnf *e, struct slice s)
{
    uint32_t i = place(e, s);

    return i < e->n_name && compare(e->name[i].s, s) == 0 ? &e->name[i] : NULL;
}

/* The name, new if need be. NULL: there are too many. */
static struct name *add(struct ebnf *e, struct slice s)
{
    struct name *name = find(e, s);
    uint32_t     i = place(e, s);

    if (name != NULL)
        return name;
    if (e->n_name == GRAMMAR_RULE_MAX) {
        fail(e, E_FULL, s.p, "more than 4096 rules");
        return NULL;
    }
    memmove(&e->name[i + 1], &e->name[i], (e->n_name++ - i) * sizeof(*e->name));
    e->name[i] = (struct name) { .s = s, .at = s.p, .rule = grammar_rule(e->m) };
    grammar_name(e->m, e->name[i].rule, s.p, s.n);
    return &e->name[i];
}

/* Alternatives */

static struct level *top(struct ebnf *e)
{
    return &e->level[e->depth];
}

static void open_level(struct ebnf *e, const char *at)
{
    *top(e) = (struct level) { .seq = grammar_empty(e->m), .at = at };
}

static void end_item(struct ebnf *e)
{
    if (top(e)->what != NO_ITEM)
        top(e)->seq = grammar_seq(e->m, top(e)->seq, top(e)->item);
    top(e)->what = NO_ITEM;
}

static int put(struct ebnf *e, gram item)
{
    end_item(e);
    top(e)->item = item;
    top(e)->what = ITEM;
    return 0;
}

static void end_alternative(struct ebnf *e)
{
    struct level *l = top(e);

    end_item(e);
    l->alt = l->any ? grammar_alt(e->m, l->alt, l->seq) : l->seq;
    l->any = true;
    l->seq = grammar_empty(e->m);
}

static int open_group(struct ebnf *e, const char *at)
{
    if (notation_take(&e->n, "=") || notation_take(&e->n, "!"))
        return fail(e, E_INVALID, at, "look-ahead is not supported");
    if (e->depth == EBNF_DEPTH_MAX)
        return fail(e, E_FULL, at, "more than 128 parentheses inside each other");
    e->depth++;
    open_level(e, at);
    return 0;
}

static int close_group(struct ebnf *e, const char *at)
{
    gram whole;

    if (e->depth == 0)
        return fail(e, E_INVALID, at, "a ) that closes nothing");
    end_alternative(e);
    whole = top(e)->alt;
    e->depth--;
    return put(e, whole);
}

static int repeat(struct ebnf *e, const char *at, int64_t min, int64_t max)
{
    struct level *l = top(e);

    if (l->what == COUNTED)
        return fail(e, E_INVALID, at, "a count of a count; put the first into parentheses");
    if (l->what == NO_ITEM)
        return fail(e, E_INVALID, at, "nothing to repeat");
    l->item = grammar_repeat(e->m, l->item, min, max);
    l->what = COUNTED;
    return 0;
}

static int brace(struct ebnf *e, const char *at)
{
    int64_t min, max;
    int     is = notation_count(&e->n, true, &min, &max);

    if (is == 0)
        return fail(e, E_INVALID, at, "a count is {m}, {m,} or {m,n}");
    return is > 0 ? repeat(e, at, min, max) : is;
}

/* Behind the quote. */
static int literal(struct ebnf *e, const char *at)
{
    e->text.n = 0;
    while (!notation_take(&e->n, "\"")) {
        uint32_t c;
        int      is = 1;

        if (e->n.p == e->n.end || *e->n.p == '\n')
            return fail(e, E_INVALID, at, "a literal that does not end on its line");
        if (notation_take(&e->n, "\\"))
            is = notation_escape(&e->n, &c);
        else
            c = notation_char(&e->n);
        if (is < 0)
            return -1;
        if (is == 0)
            return fail(e, E_INVALID, at, "a class in a literal; it may stand in [ ] alone");
        buf_char(&e->text, c);
    }
    if (e->text.full)
        return fail(e, E_FULL, at, "out of memory");
    return put(e, grammar_bytes(e->m, e->text.p, e->text.n));
}

static int call(struct ebnf *e)
{
    struct slice s = take_name(&e->n);
    struct name *name = add(e, s);

    return name != NULL ? put(e, grammar_call(e->m, name->rule)) : -1;
}

static int any(struct ebnf *e)
{
    return put(e, grammar_chars(e->m, &(struct code_range) { 0, CODE_MAX }, 1));
}

static int step(struct ebnf *e)
{
    const char *at = e->n.p;

    if (is_name(*at))
        return call(e);
    switch (*e->n.p++) {
    case '"':
        return literal(e, at);
    case '[':
        return notation_set(&e->n) < 0 ? -1 : put(e, grammar_chars(e->m, e->n.set.r, e->n.set.n));
    case '.':
        return any(e);
    case '(':
        return open_group(e, at);
    case ')':
        return close_group(e, at);
    case '|':
        end_alternative(e);
        return 0;
    case '?':
        return repeat(e, at, 0, 1);
    case '*':
        return repeat(e, at, 0, -1);
    case '+':
        return repeat(e, at, 1, -1);
    case '{':
        return brace(e, at);
    case '<':
        return fail(e, E_INVALID, at, "token references are not supported");
    case ':':
    case '%':
    case '/':
    case '~':
        return fail(e, E_INVALID, at, lark);
    default:
        return fail(e, E_INVALID, at, "neither a literal, a set, a rule's name nor one of"
                    " . ( ) | ? * + {");
    }
}

/* Rules */

/* The number of the rule whose head stands here, or -1. */
static int32_t head(struct ebnf *e)
{
    const char  *at = e->n.p;
    struct slice s = take_name(&e->n);
    struct name *name;

    skip_blank(&e->n);
    if (s.n == 0 || !notation_take(&e->n, "::=")) {
        const char *marks = s.n > 0 ? ":." : "%?!/";

        return fail(e, E_INVALID, at, e->n.p < e->n.end && memchr(marks, *e->n.p, strlen(marks))
                    ? lark : "a rule begins with its name and ::=");
    }
    name = add(e, s);
    if (name == NULL)
        return -1;
    if (name->defined)
        return fail_rule(e, at, "a second rule", s);
    name->defined = true;
    return name->rule;
}

static int rule(struct ebnf *e)
{
    int32_t number = head(e);

    if (number < 0)
        return -1;
    open_level(e, e->n.p);
    for (skip_blank(&e->n); e->n.p < e->n.end && !is_head(e); skip_blank(&e->n))
        if (step(e) < 0)
            return -1;
    if (e->depth > 0)
        return fail(e, E_INVALID, top(e)->at, "a ( that is not closed");
    end_alternative(e);
    grammar_define(e->m, number, top(e)->alt);
    return 0;
}

static int parse(struct ebnf *e)
{
    const char *from = e->n.p;
    size_t      n = (size_t) (e->n.end - from);

    if (n > EBNF_BYTES_MAX)
        return fail(e, E_FULL, from, "more than 262144 bytes");
    if (!utf8_valid(from, n))
        return fail(e, E_INVALID, from, "not UTF-8");
    if (e->name == NULL)
        return fail(e, E_FULL, from, "out of memory");
    for (skip_blank(&e->n); e->n.p < e->n.end; skip_blank(&e->n))
        if (rule(e) < 0)
            return -1;
    for (uint32_t i = 0; i < e->n_name; i++)
        if (!e->name[i].defined)
            return fail_rule(e, e->name[i].at, "there is no rule", e->name[i].s);
    if (find(e, SLICE("root")) == NULL)
        return fail_rule(e, from, "there is no rule", SLICE("root"));
    return 0;
}

static size_t line_of(const char *p, const char *at)
{
    size_t n = 1;

    for (; p < at; p++)
        n += *p == '\n';
    return n;
}

gram ebnf_gram(struct grammar_make *m, const char *p, size_t n)
{
    struct ebnf e = { .m = m, .n = { .p = p, .end = p + n } };
    gram        g;

    e.name = malloc(GRAMMAR_RULE_MAX * sizeof(*e.name));
    if (parse(&e) == 0)
        g = grammar_call(m, find(&e, SLICE("root"))->rule);
    else
        g = grammar_fail(m, e.n.code, "grammar, line %zu: %s%s%.*s", line_of(p, e.n.at), e.n.why,
                         e.who.n > 0 ? " " : "", (int) (e.who.n < 64 ? e.who.n : 64), e.who.p);
    charset_close(&e.n.set);
    buf_free(&e.text);
    free(e.name);
    return g;
}
