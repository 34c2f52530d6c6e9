/* chat_value.c - JSON values as Gemma writes them: bare keys, strings in Q, sorted objects. */
#include "chat_priv.h"

#include "lower.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS_MAX 17                   /* a double needs no more */

struct key { struct slice left; uint32_t more; };

/* One more than the next code point of a key in lower case, or 0 at its end. */
static uint32_t next_lower(struct key *k)
{
    struct slice        *s = &k->left;
    const unsigned char *p = (const unsigned char *) s->p;
    int                  len = utf8_len(s->p, s->n);
    uint32_t             c = s->n > 0 ? p[0] : 0, more = k->more;

    k->more = 0;
    if (more != 0 || s->n == 0)
        return more != 0 ? more + 1 : 0;
    if (len > 1) {
        c &= 0x7Fu >> len;
        for (int i = 1; i < len; i++)
            c = c << 6 | (p[i] & 0x3Fu);
    }
    s->p += len;
    s->n -= (size_t) len;
    k->more = c == 0x130 ? 0x307 : 0;   /* a capital I with a dot is an i and the dot */
    return lower(c) + 1;
}

int chat_key_cmp(struct slice a, struct slice b)
{
    struct key ka = { .left = a }, kb = { .left = b };
    uint32_t   x, y;

    do {
        x = next_lower(&ka);
        y = next_lower(&kb);
    } while (x == y && x != 0);
    return x < y ? -1 : x > y;
}

/* A merge sort from the bottom up, because it is stable: v[n] with room for n more behind it. */
static void sort(const struct json **v, size_t n)
{
    const struct json **from = v, **to = v + n, **was;

    for (size_t run = 1; run < n; run *= 2) {
        for (size_t at = 0; at < n; at += 2 * run) {
            size_t a = at, a_end = at + run < n ? at + run : n;
            size_t b = a_end, b_end = a_end + run < n ? a_end + run : n;

            for (size_t k = at; k < b_end; k++)
                to[k] = a < a_end
                        && (b == b_end || chat_key_cmp(from[a]->key, from[b]->key) <= 0)
                        ? from[a++] : from[b++];
        }
        was = from;
        from = to;
        to = was;
    }
    if (from != v)
        memcpy(v, from, n * sizeof(*v));
}

int chat_sort(struct render *r, const struct json *o)
{
    struct chat_kids *k = &r->kids;
    size_t            base = k->n, want = base + 2 * (size_t) o->n;

    if (o->n == 0)
        return 0;
    if (want > k->cap) {
        size_t              cap = want < 2 * k->cap ? 2 * k->cap : want + 64;
        const struct json **v = realloc(k->v, cap * sizeof(*v));

        if (v == NULL)
            return err_set(r->e, E_FULL, "out of memory");
        k->v = v;
        k->cap = cap;
    }
    for (const struct json *j = o->child; j != NULL; j = j->next)
        k->v[k->n++] = j;
    sort(k->v + base, o->n);
    return 0;
}

/* digits[n] += 1 in the last place. Does it still have n digits? */
static bool increment(char *digits, int n)
{
    while (n > 0 && digits[n - 1] == '9')
        digits[--n] = '0';
    if (n > 0)
        digits[n - 1]++;
    return n > 0;
}

static bool reads_back(const char *digits, int n, int exp10, double d)
{
    char text[40];

    snprintf(text, sizeof(text), "%c.%.*se%d", digits[0], n - 1, digits + 1, exp10);
    return strtod(text, NULL) == d;
}

/* The fewest digits that read back as d > 0, and its power of ten. At a power of two the nearest
 * decimal may lie in the narrow half of the interval while its upper neighbour is inside. */
static int shortest(double d, char digits[DIGITS_MAX + 1], int *exp10)
{
    char text[40];

    for (int n = 1; ; n++) {
        snprintf(text, sizeof(text), "%.*e", n - 1, d);
        digits[0] = text[0];
        memcpy(digits + 1, text + 2, (size_t) (n - 1));
        *exp10 = atoi(strchr(text, 'e') + 1);
        if (n == DIGITS_MAX || reads_back(digits, n, *exp10, d)
            || (increment(digits, n) && reads_back(digits, n, *exp10, d)))
            return n;
    }
}

/* A double as Python's repr writes it: "1.0", "1e-07", "1e+16", "-0.0". */
static void put_double(struct buf *out, double d)
{
    char digits[DIGITS_MAX + 1] = "0";
    int  exp10 = 0, n = d == 0 ? 1 : shortest(fabs(d), digits, &exp10);

    if (signbit(d))
        buf_str(out, "-");
    if (exp10 < -4 || exp10 >= 16) {
        buf_put(out, digits, 1);
        if (n > 1)
            buf_fmt(out, ".%.*s", n - 1, digits + 1);
        buf_fmt(out, "e%c%02d", exp10 < 0 ? '-' : '+', abs(exp10));
        return;
    }

    if (exp10 < 0)
        buf_fmt(out, "0.%.*s", -exp10 - 1, "0000");
    for (int i = 0; i < n || (exp10 >= 0 && i <= exp10 + 1); i++) {
        if (exp10 >= 0 && i == exp10 + 1)
            buf_str(out, ".");
        buf_put(out, i < n ? digits + i : "0", 1);
    }
}

static int put_number(struct render *r, const struct json *x, const char *at)
{
    double d;

    if (x->is_int) {
        chat_put(r, slice_is(x->text, "-0") ? SLICE("0") : x->text);
        return 0;
    }
    if (json_double(x, &d) != 0)
        return chat_bad(r, at, " holds a number that is out of range");
    put_double(r->out, d);
    return 0;
}

static int put_scalar(struct render *r, const struct json *x, const char *at)
{
    switch (x->type) {
    case JSON_NULL:   buf_str(r->out, "null"); break;
    case JSON_FALSE:  buf_str(r->out, "false"); break;
    case JSON_TRUE:   buf_str(r->out, "true"); break;
    case JSON_STRING:
        buf_str(r->out, Q);
        chat_put(r, x->text);
        buf_str(r->out, Q);
        break;
    case JSON_NUMBER: return put_number(r, x, at);
    case JSON_ARRAY:
    case JSON_OBJECT: break;
    }
    return 0;
}

/* An ARRAY or OBJECT whose members are being printed. */
struct level { const struct json *node, *next; size_t base; uint32_t n_done; };

/* The next member, announced by a comma and its key; NULL: there is none, and it is closed. */
static const struct json *advance(struct render *r, struct level *l, bool quote)
{
    bool               object = l->node->type == JSON_OBJECT;
    const struct json *x;

    if (l->n_done == l->node->n) {
        buf_str(r->out, object ? "}" : "]");
        if (object)
            r->kids.n = l->base;
        return NULL;
    }

    x = object ? r->kids.v[l->base + l->n_done] : l->next;
    if (l->n_done++ > 0)
        buf_str(r->out, ",");
    if (object) {
        buf_str(r->out, quote ? Q : "");
        chat_put(r, x->key);
        buf_str(r->out, quote ? Q ":" : ":");
    } else {
        l->next = x->next;
    }
    return x;
}

int chat_value(struct render *r, const struct json *x, bool quote, const char *at)
{
    struct level level[CHAT_DEPTH_MAX];
    int          n = 0, rc;

    do {
        if (x->type != JSON_OBJECT && x->type != JSON_ARRAY) {
            rc = put_scalar(r, x, at);
            if (rc < 0)
                return rc;
        } else {
            if (n == CHAT_DEPTH_MAX)
                return chat_bad(r, at, " is nested deeper than %d levels", CHAT_DEPTH_MAX);
            level[n++] = (struct level) { .node = x, .next = x->child, .base = r->kids.n };
            buf_str(r->out, x->type == JSON_OBJECT ? "{" : "[");
            if (x->type == JSON_OBJECT && chat_sort(r, x) < 0)
                return E_FULL;
        }
        for (x = NULL; n > 0 && (x = advance(r, &level[n - 1], quote)) == NULL; n--) { }
    } while (x != NULL);

    return 0;
}
