/* regex.c - regular expressions to pieces of a grammar, in one pass with a stack of groups.
 *
 * Anchors: what a part of the expression matches is kept apart by what it asks of its place: that
 * nothing of the text comes before it, nothing behind it, both or neither. So "x^" keeps nothing at
 * all, "(^|,)x" both of its readings, and the answer is exact without a look at the text. */
#include "regex.h"

#include "notation.h"

#define NOTHING (-2)                    /* no text matches: no piece */

enum { BEGIN = 1, END = 2, PLACES = 4 };

struct part {
    gram g[PLACES];                     /* by what it asks */
    bool null[PLACES];                  /* the empty text is of it */
};

struct group {
    struct part alt;                    /* the alternatives before this one */
    struct part seq;                    /* this one, up to item */
    struct part item;                   /* its last part, which a count may follow */
    enum { NO_ITEM, ANCHOR, ITEM, COUNTED } what;
    const char *at;
};

struct regex {
    struct grammar_make *m;
    enum regex_as        as;
    gram                 empty;
    struct notation      n;
    struct buf           text;          /* of a literal */
    int                  depth;
    struct group         group[REGEX_DEPTH_MAX + 1];     /* 0: the whole */
};

static int fail(struct regex *r, int code, const char *at, const char *why)
{
    return notation_fail(&r->n, code, at, why);
}

static gram alt(struct regex *r, gram a, gram b)
{
    return a == NOTHING ? b : b == NOTHING ? a : grammar_alt(r->m, a, b);
}

static gram seq(struct regex *r, gram a, gram b)
{
    return a == r->empty ? b : b == r->empty ? a : grammar_seq(r->m, a, b);
}

/* How characters are written */

static bool is_escaped(const struct regex *r, uint32_t c)
{
    return r->as == REGEX_JSON && (c < 0x20 || c == '"' || c == '\\');
}

static gram literal(struct regex *r, uint32_t c)
{
    struct buf *b = &r->text;
    char        byte = (char) c;

    b->n = 0;
    if (is_escaped(r, c))
        buf_json_text(b, &byte, 1);
    else
        buf_char(b, c);
    return b->full ? grammar_fail(r->m, E_FULL, "out of memory") : grammar_bytes(r->m, b->p, b->n);
}

/* Those of the controls, '"' and '\\' that are in set, as JSON escapes them: a backslash, then one
 * character or u00 and two digits. */
static gram escaped(struct regex *r, const bool *set)
{
    static const char *const lead[] = { "\\", "\\u000", "\\u001" };
    static const char        name['\\' + 1] = { ['"'] = '"', ['\\'] = '\\', ['\b'] = 'b',
                                                ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r',
                                                ['\t'] = 't' };
    struct code_range        last[3][sizeof(name)];
    size_t                   n[3] = { 0 };
    gram                     g = NOTHING;

    for (size_t c = 0; c < sizeof(name); c++) {
        int      i = name[c] != '\0' ? 0 : c < 0x10 ? 1 : 2;
        uint32_t to = (uint32_t) (i == 0 ? name[c] : "0123456789abcdef"[c & 15]);

        if (set[c])
            last[i][n[i]++] = (struct code_range) { to, to };
    }
    for (int i = 0; i < 3; i++)
        if (n[i] > 0)
            g = alt(r, g, grammar_seq(r->m, grammar_text(r->m, lead[i]),
                                      grammar_chars(r->m, last[i], n[i])));
    return g;
}

/* One character of the notation's set, which is tidy, and spent. */
static gram chars(struct regex *r)
{
    struct charset *s = &r->n.set;
    bool            set['\\' + 1] = { false }, any = false;

    for (size_t i = 0; i < s->n; i++)
        for (uint32_t c = s->r[i].lo; c <= s->r[i].hi && c < sizeof(set); c++)
            if (is_escaped(r, c))
                any = set[c] = true;
    if (any) {
        charset_invert(s, 0);
        charset_add(s, 0, 0x1F);
        charset_add(s, '"', '"');
        charset_add(s, '\\', '\\');
        charset_invert(s, 0);
    }
    return alt(r, s->n > 0 ? grammar_chars(r->m, s->r, s->n) : NOTHING,
               any ? escaped(r, set) : NOTHING);
}

static gram any_but(struct regex *r, const char *s)
{
    charset_clear(&r->n.set);
    for (; *s != '\0'; s++)
        charset_add(&r->n.set, (unsigned char) *s, (unsigned char) *s);
    charset_invert(&r->n.set, 0);
    return chars(r);
}

/* Parts */

static const struct part none = { .g = { NOTHING, NOTHING, NOTHING, NOTHING } };

static struct part part(int i, gram g, bool null)
{
    struct part p = none;

    p.g[i] = g;
    p.null[i] = null;
    return p;
}

static void also(struct regex *r, struct part *p, int i, gram g, bool null)
{
    p->g[i] = alt(r, p->g[i], g);
    p->null[i] |= null;
}

static void join(struct regex *r, struct part *p, const struct part *q)
{
    for (int i = 0; i < PLACES; i++)
        also(r, p, i, q->g[i], q->null[i]);
}

/* p, then q. What asks for nothing before it leaves p the empty text alone, and so does p to q
 * where it asks for nothing behind it. */
static void append(struct regex *r, struct part *p, const struct part *q)
{
    struct part all = none;

    for (int k = 0; k < PLACES * PLACES; k++) {
        int  i = k / PLACES, j = k % PLACES;
        gram a = p->g[i], b = q->g[j];

        if (a == NOTHING || b == NOTHING || (j & BEGIN && !p->null[i]) || (i & END && !q->null[j]))
            continue;
        also(r, &all, i | j, seq(r, j & BEGIN ? r->empty : a, i & END ? r->empty : b),
             p->null[i] && q->null[j]);
    }
    *p = all;
}

static bool is_anchored(const struct part *p)
{
    return p->g[BEGIN] != NOTHING || p->g[END] != NOTHING || p->g[BEGIN | END] != NOTHING;
}

/* Groups */

static struct group *top(struct regex *r)
{
    return &r->group[r->depth];
}

static void open_level(struct regex *r, const char *at)
{
    *top(r) = (struct group) { .alt = none, .seq = part(0, r->empty, true), .at = at };
}

static void end_item(struct regex *r)
{
    if (top(r)->what != NO_ITEM)
        append(r, &top(r)->seq, &top(r)->item);
    top(r)->what = NO_ITEM;
}

static void put(struct regex *r, struct part item, int what)
{
    end_item(r);
    top(r)->item = item;
    top(r)->what = what;
}

static void end_alternative(struct regex *r)
{
    end_item(r);
    join(r, &top(r)->alt, &top(r)->seq);
    top(r)->seq = part(0, r->empty, true);
}

static int push(struct regex *r, const char *at)
{
    if (r->depth == REGEX_DEPTH_MAX)
        return fail(r, E_FULL, at, "more than 128 groups inside each other");
    r->depth++;
    open_level(r, at);
    return 0;
}

static int group_name(struct regex *r, const char *at)
{
    const char *p = r->n.p;
    bool        good = true;

    for (; p < r->n.end && *p != '>'; p++)
        good = good && ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '_'
                        || (*p >= '0' && *p <= '9' && p > r->n.p));
    if (p == r->n.end || p == r->n.p || !good)
        return fail(r, E_INVALID, at, "a group's name is of letters, digits and _, then >");
    r->n.p = p + 1;
    return push(r, at);
}

/* Behind the parenthesis. */
static int open_group(struct regex *r, const char *at)
{
    static const struct { const char *mark, *why; } refused[] = {
        { "=", "look-ahead is not supported" },
        { "!", "look-ahead is not supported" },
        { "<=", "look-behind is not supported" },
        { "<!", "look-behind is not supported" },
        { "P=", "back references are not supported" },
        { ">", "atomic groups are not supported" },
        { "(", "conditions are not supported" },
        { "#", "comments are not supported" },
        { "", "flags are not supported" },
    };
    size_t i = 0;

    if (!notation_take(&r->n, "?") || notation_take(&r->n, ":"))
        return push(r, at);
    while (!notation_take(&r->n, refused[i].mark))
        i++;
    if (refused[i].mark[0] == '\0' && (notation_take(&r->n, "<") || notation_take(&r->n, "P<")))
        return group_name(r, at);
    return fail(r, E_INVALID, at, refused[i].why);
}

static int close_group(struct regex *r, const char *at)
{
    struct part whole;

    if (r->depth == 0)
        return fail(r, E_INVALID, at, "a ) that closes nothing");
    end_alternative(r);
    whole = top(r)->alt;
    r->depth--;
    put(r, whole, ITEM);
    return 0;
}

/* Counts */

static int repeat(struct regex *r, const char *at, int64_t min, int64_t max)
{
    struct group *g = top(r);
    struct part  *p = &g->item;

    if (g->what == COUNTED)
        return fail(r, E_INVALID, at, "a count of a count");
    if (g->what != ITEM)
        return fail(r, E_INVALID, at, "nothing to repeat");
    if (notation_take(&r->n, "+"))
        return fail(r, E_INVALID, at, "possessive counts are not supported");
    notation_take(&r->n, "?");          /* lazy */

    g->what = COUNTED;
    if (min == 1 && max == 1)
        return 0;
    if (max == 0 || (min == 0 && p->g[0] == NOTHING && !is_anchored(p))) {
        *p = part(0, r->empty, true);
    } else if (min == 0 && max == 1) {
        also(r, p, 0, r->empty, true);
    } else if (is_anchored(p)) {
        return fail(r, E_INVALID, at, "^ or $ under a count is not supported");
    } else if (p->g[0] != NOTHING) {
        *p = part(0, grammar_repeat(r->m, p->g[0], min, max), p->null[0] || min == 0);
    }
    return 0;
}

/* Behind a brace. */
static int brace(struct regex *r, const char *at)
{
    int64_t min, max;
    int     is = notation_count(&r->n, false, &min, &max);

    if (is == 0)
        put(r, part(0, literal(r, '{'), false), ITEM);
    return is > 0 ? repeat(r, at, min, max) : is;
}

/* The whole */

/* Behind the backslash. */
static int escape(struct regex *r, const char *at)
{
    static const struct { char lo, hi; const char *why; } refused[] = {
        { '1', '9', "back references are not supported" },
        { 'k', 'k', "back references are not supported" },
        { 'b', 'b', "\\b is not supported" },
        { 'B', 'B', "\\B is not supported" },
        { 'A', 'A', "\\A is not supported; write ^" },
        { 'Z', 'Z', "\\Z is not supported; write $" },
        { 'z', 'z', "\\z is not supported; write $" },
    };
    uint32_t c;
    int      is;

    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        if (r->n.p < r->n.end && *r->n.p >= refused[i].lo && *r->n.p <= refused[i].hi)
            return fail(r, E_INVALID, at, refused[i].why);
    charset_clear(&r->n.set);
    is = notation_escape(&r->n, &c);
    if (is < 0)
        return -1;
    charset_tidy(&r->n.set);
    put(r, part(0, is > 0 ? literal(r, c) : chars(r), false), ITEM);
    return 0;
}

static int step(struct regex *r)
{
    const char *at = r->n.p;
    uint32_t    c = notation_char(&r->n);

    switch (c) {
    case '(':
        return open_group(r, at);
    case ')':
        return close_group(r, at);
    case '|':
        end_alternative(r);
        return 0;
    case '?':
        return repeat(r, at, 0, 1);
    case '*':
        return repeat(r, at, 0, -1);
    case '+':
        return repeat(r, at, 1, -1);
    case '{':
        return brace(r, at);
    case '^':
    case '$':
        put(r, part(c == '^' ? BEGIN : END, r->empty, true), ANCHOR);
        return 0;
    case '\\':
        return escape(r, at);
    case '[':
        if (notation_set(&r->n) < 0)
            return -1;
        put(r, part(0, chars(r), false), ITEM);
        return 0;
    case '.':
        put(r, part(0, any_but(r, "\n"), false), ITEM);
        return 0;
    default:
        put(r, part(0, literal(r, c), false), ITEM);
        return 0;
    }
}

static int parse(struct regex *r)
{
    const char *from = r->n.p;
    size_t      n = (size_t) (r->n.end - from);

    if (n > REGEX_BYTES_MAX)
        return fail(r, E_FULL, from, "more than 65536 bytes");
    if (!utf8_valid(from, n))
        return fail(r, E_INVALID, from, "not UTF-8");
    while (r->n.p < r->n.end)
        if (step(r) < 0)
            return -1;
    if (r->depth > 0)
        return fail(r, E_INVALID, top(r)->at, "a ( that is not closed");
    end_alternative(r);
    return r->n.set.full ? fail(r, E_FULL, from, "sets have too many ranges") : 0;
}

/* The texts that match as a whole, or where some part does; all do if the empty text is such a part
 * at one end at least, and saying so saves a detour. */
static gram found(struct regex *r, const struct part *p, bool search)
{
    gram any = search ? grammar_repeat(r->m, any_but(r, ""), 0, -1) : r->empty, g = NOTHING;

    if (search && (p->null[0] || p->null[BEGIN] || p->null[END]))
        return any;
    for (int i = 0; i < PLACES; i++)
        if (p->g[i] != NOTHING)
            g = alt(r, g, seq(r, i & BEGIN ? r->empty : any,
                              seq(r, p->g[i], i & END ? r->empty : any)));
    return g == NOTHING ? grammar_chars(r->m, NULL, 0) : g;
}

static size_t count_chars(const char *p, const char *end)
{
    size_t n = 0;

    for (; p < end; p++)
        n += ((unsigned char) *p & 0xC0) != 0x80;
    return n;
}

gram regex_gram(struct grammar_make *m, const char *p, size_t n, enum regex_as as, bool search)
{
    struct regex r = { .m = m, .as = as, .empty = grammar_empty(m), .n = { .p = p, .end = p + n } };
    gram         g;

    open_level(&r, p);
    if (parse(&r) == 0)
        g = found(&r, &r.group[0].alt, search);
    else
        g = grammar_fail(m, r.n.code, "regular expression, character %zu: %s",
                         count_chars(p, r.n.at) + 1, r.n.why);
    charset_close(&r.n.set);
    buf_free(&r.text);
    return g;
}
