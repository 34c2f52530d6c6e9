#include "grammar_priv.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct grammar_make *grammar_make(uint64_t deadline_ns)
{
    struct grammar_make *m = calloc(1, sizeof(*m));

    if (m != NULL)
        m->deadline_ns = deadline_ns;
    return m;
}

void grammar_make_free(struct grammar_make *m)
{
    if (m == NULL)
        return;
    free(m->pieces.p);
    free(m->lit.p);
    free(m->rules.p);
    free(m->sets.p);
    free(m->nodes.p);
    free(m->edges.p);
    free(m);
}

gram grammar_fail(struct grammar_make *m, int code, const char *fmt, ...)
{
    va_list ap;

    if (m->err.code != 0)
        return -1;
    m->err.code = code;
    va_start(ap, fmt);
    vsnprintf(m->err.msg, sizeof(m->err.msg), fmt, ap);
    va_end(ap);
    return -1;
}

void *grammar_alloc(struct grammar_make *m, uint64_t n, size_t size)
{
    void *p = calloc(n > 0 ? n : 1, size);

    if (p == NULL)
        grammar_fail(m, E_FULL, "out of memory");
    return p;
}

void *grammar_grow(struct grammar_make *m, void *p, uint32_t *cap, uint64_t need, uint64_t max,
                   size_t size, const char *what)
{
    uint64_t want = *cap == 0 ? 64 : *cap;

    if (need > max) {
        grammar_fail(m, E_FULL, "the grammar is too large: more than %llu %s",
                     (unsigned long long) max, what);
        return NULL;
    }
    while (want < need)
        want *= 2;
    if (want > max)
        want = max;
    p = realloc(p, want * size);
    if (p == NULL) {
        grammar_fail(m, E_FULL, "out of memory");
        return NULL;
    }
    *cap = (uint32_t) want;
    return p;
}

int grammar_work(struct grammar_make *m, uint32_t n)
{
    struct timespec t;

    m->work += n;
    if (m->work < 1000 || m->deadline_ns == 0)
        return 0;
    m->work = 0;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    if ((uint64_t) t.tv_sec * 1000000000u + (uint64_t) t.tv_nsec <= m->deadline_ns)
        return 0;
    grammar_fail(m, E_FULL, "the grammar takes too long to compile");
    return E_FULL;
}

/* A piece, unless the writer has failed, one of its children is none, or an NFA of it would have
 * too many states. */
static gram piece(struct grammar_make *m, struct piece p, uint64_t size)
{
    bool two = p.type == PIECE_SEQ || p.type == PIECE_ALT;
    bool one = two || p.type == PIECE_REPEAT;

    if (m->err.code != 0)
        return -1;
    if ((one && (p.a < 0 || (uint32_t) p.a >= m->pieces.n))
        || (two && (p.b < 0 || (uint32_t) p.b >= m->pieces.n)))
        return grammar_fail(m, E_INVALID, "no such piece");
    if (size > GRAMMAR_NFA_MAX)
        return grammar_fail(m, E_FULL, "the grammar is too large: more than %u steps",
                            GRAMMAR_NFA_MAX);
    if (grammar_work(m, 1) < 0
        || vec_room(m, &m->pieces, 1, GRAMMAR_NODE_MAX, "pieces") < 0)
        return -1;
    p.size = (uint32_t) size;
    m->pieces.p[m->pieces.n] = p;
    return (gram) m->pieces.n++;
}

/* NFA states of a child; 0 where piece() will say no. */
static uint64_t size_of(const struct grammar_make *m, gram a)
{
    return a >= 0 && (uint32_t) a < m->pieces.n ? m->pieces.p[a].size : 0;
}

gram grammar_empty(struct grammar_make *m)
{
    return piece(m, (struct piece) { .type = PIECE_EMPTY }, 0);
}

/* Bytes kept for a literal or a name; where they begin, or -1. */
static int32_t keep(struct grammar_make *m, const char *p, size_t n)
{
    int32_t at = (int32_t) m->lit.n;

    if (m->err.code != 0)
        return -1;
    if (vec_room(m, &m->lit, n, GRAMMAR_LIT_MAX, "bytes of literals") < 0
        || grammar_work(m, (uint32_t) n / 64) < 0)
        return -1;
    memcpy(m->lit.p + at, p, n);
    m->lit.n += (uint32_t) n;
    return at;
}

gram grammar_bytes(struct grammar_make *m, const char *p, size_t n)
{
    int32_t at;

    if (n == 0)
        return grammar_empty(m);
    at = keep(m, p, n);
    return at < 0 ? -1 : piece(m, (struct piece) { PIECE_BYTES, at, (int32_t) n, 0, 0 }, n - 1);
}

gram grammar_text(struct grammar_make *m, const char *s)
{
    return grammar_bytes(m, s, strlen(s));
}

gram grammar_chars(struct grammar_make *m, const struct code_range *r, size_t n)
{
    int set = m->err.code != 0 ? -1 : grammar_char_set(m, r, n);

    if (set < 0)
        return -1;
    return piece(m, (struct piece) { .type = PIECE_CHARS, .a = set }, m->sets.p[set].n_node - 1);
}

gram grammar_token(struct grammar_make *m, int32_t id)
{
    if (id < 0)
        return grammar_fail(m, E_INVALID, "no such token: %d", id);
    return piece(m, (struct piece) { .type = PIECE_TOKEN, .a = id }, 0);
}

gram grammar_seq(struct grammar_make *m, gram a, gram b)
{
    return piece(m, (struct piece) { .type = PIECE_SEQ, .a = a, .b = b },
                 size_of(m, a) + size_of(m, b) + 1);
}

gram grammar_alt(struct grammar_make *m, gram a, gram b)
{
    return piece(m, (struct piece) { .type = PIECE_ALT, .a = a, .b = b },
                 size_of(m, a) + size_of(m, b) + 2);
}

/* How the copies stand in a row, and how many states join them, is grammar_nfa.c's repeat(). */
gram grammar_repeat(struct grammar_make *m, gram a, int64_t min, int64_t max)
{
    uint64_t copies, size;

    if (min < 0 || (max < min && max != -1))
        return grammar_fail(m, E_INVALID, "repeated %lld to %lld times", (long long) min,
                            (long long) max);
    if (a >= 0 && (uint32_t) a < m->pieces.n && m->pieces.p[a].type == PIECE_EMPTY)
        min = max = 1;
    copies = (uint64_t) (max == -1 ? min + (min == 0) : max);
    if (copies > GRAMMAR_NFA_MAX)
        copies = (uint64_t) GRAMMAR_NFA_MAX + 1;
    size = copies * (size_of(m, a) + 2);
    return piece(m, (struct piece) { PIECE_REPEAT, a, (int32_t) (size > GRAMMAR_NFA_MAX ? 0 : min),
                                     (int32_t) (size > GRAMMAR_NFA_MAX ? 0 : max), 0 }, size);
}

int32_t grammar_rule(struct grammar_make *m)
{
    if (m->err.code != 0 || vec_room(m, &m->rules, 1, GRAMMAR_RULE_MAX, "rules") < 0)
        return -1;
    m->rules.p[m->rules.n] = (struct make_rule) { .body = -1 };
    return (int32_t) m->rules.n++;
}

static bool is_rule(struct grammar_make *m, int32_t rule)
{
    if (m->err.code == 0 && (rule < 0 || (uint32_t) rule >= m->rules.n))
        grammar_fail(m, E_INVALID, "no such rule: %d", rule);
    return m->err.code == 0;
}

void grammar_name(struct grammar_make *m, int32_t rule, const char *p, size_t n)
{
    int32_t at;

    if (!is_rule(m, rule) || (at = keep(m, p, n)) < 0)
        return;
    m->rules.p[rule].name = (uint32_t) at;
    m->rules.p[rule].n_name = (uint32_t) n;
}

void grammar_define(struct grammar_make *m, int32_t rule, gram body)
{
    if (!is_rule(m, rule))
        return;
    if (body < 0 || (uint32_t) body >= m->pieces.n)
        grammar_fail(m, E_INVALID, "no such piece");
    else if (m->rules.p[rule].body != -1)
        grammar_fail(m, E_INVALID, "rule %s has two bodies", grammar_rule_name(m, rule).s);
    else
        m->rules.p[rule].body = body;
}

gram grammar_call(struct grammar_make *m, int32_t rule)
{
    return is_rule(m, rule) ? piece(m, (struct piece) { .type = PIECE_CALL, .a = rule }, 0) : -1;
}

struct rule_name grammar_rule_name(const struct grammar_make *m, int32_t rule)
{
    const struct make_rule *r = &m->rules.p[rule];
    struct rule_name        name;

    if (r->n_name == 0)
        snprintf(name.s, sizeof(name.s), "%d", rule);
    else
        snprintf(name.s, sizeof(name.s), "%.*s", (int) r->n_name, m->lit.p + r->name);
    return name;
}

int grammar_compile(struct grammar **out, struct grammar_make *m, gram root, struct err *e)
{
    struct calls c = { 0 };
    struct nfa   n = { 0 };
    struct dfa   d = { 0 };

    *out = NULL;
    if (m->err.code == 0 && (root < 0 || (uint32_t) root >= m->pieces.n))
        grammar_fail(m, E_INVALID, "no such piece");
    if (m->err.code == 0 && grammar_calls(m, root, &c) == 0)
        grammar_nfa(m, &c, &n);
    grammar_calls_free(&c);
    if (m->err.code == 0)
        grammar_dfa(m, &n, &d);
    grammar_nfa_free(&n);
    if (m->err.code == 0)
        grammar_min(m, &d, out);
    grammar_dfa_free(&d);
    return m->err.code == 0 ? 0 : err_set(e, m->err.code, "%s", m->err.msg);
}

void grammar_free(struct grammar *g)
{
    if (g == NULL)
        return;
    if (g->masks != NULL && g->masks_free != NULL)
        g->masks_free(g->masks);
    free(g);
}
