/* schema_key.c - the keys of objects: declared ones, and any but these.
 *
 * In JSON another key is written in one way only, so that a declared one cannot come in a second
 * spelling. In a call keys are bare, as the template writes them; what could not be read back
 * bare is put between quote tokens. */
#include "schema_priv.h"

#include <stdlib.h>
#include <string.h>

/* Of keys that are not declared. A blank may stand inside a bare key. */
static const struct code_range json_chars[] = { { ' ', '!' }, { '#', '[' }, { ']', 0x10FFFF } };
static const struct code_range bare_chars[] = {
    { '!', '\'' }, { '*', '+' }, { '-', '9' }, { ';', 'Z' }, { '\\', '\\' }, { '^', 'z' },
    { '|', '|' }, { '~', '~' }, { 0xA1, 0x10FFFF },
};
static const char escaped[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";

#define N_RANGE(a) (sizeof(a) / sizeof((a)[0]))

static uint32_t decode(const char *p, int len)
{
    const unsigned char *u = (const unsigned char *) p;
    uint32_t             c = len > 1 ? u[0] & (0x7Fu >> len) : u[0];

    for (int i = 1; i < len; i++)
        c = c << 6 | (u[i] & 0x3Fu);
    return c;
}

/* c may stand in a key that is not declared. */
static bool may_stand(const struct schema *s, uint32_t c)
{
    bool                     call = s->as == SCHEMA_CALL;
    const struct code_range *r = call ? bare_chars : json_chars;

    if (call ? c == ' ' : c != 0 && c < 0x80 && strchr(escaped, (int) c) != NULL)
        return true;
    for (size_t i = 0; i < (call ? N_RANGE(bare_chars) : N_RANGE(json_chars)); i++)
        if (c >= r[i].lo && c <= r[i].hi)
            return true;
    return false;
}

static bool is_other(const struct schema *s, struct slice key)
{
    int len;

    if (s->as == SCHEMA_CALL && (key.n == 0 || key.p[0] == ' ' || key.p[key.n - 1] == ' '))
        return false;
    for (size_t i = 0; i < key.n; i += (size_t) len) {
        len = utf8_len(key.p + i, key.n - i);
        if (!may_stand(s, decode(key.p + i, len)))
            return false;
    }
    return true;
}

gram schema_key_text(struct schema *s, struct slice key)
{
    struct buf text = { 0 };
    gram       g;

    if (s->as == SCHEMA_CALL && !is_other(s, key))
        return schema_quoted(s, grammar_bytes(s->m, key.p, key.n));
    if (s->as == SCHEMA_CALL)
        return grammar_bytes(s->m, key.p, key.n);
    buf_json_str(&text, key.p, key.n);
    g = text.full ? grammar_fail(s->m, E_FULL, "out of memory")
                  : grammar_bytes(s->m, text.p, text.n);
    buf_free(&text);
    return g;
}

/* Declared keys as a tree of characters; a node comes behind its parent, and its first child is the
 * greatest: keys are added in their order. */
struct node { struct slice text; uint32_t c, child, next; bool key; };

static int cmp(const void *a, const void *b)
{
    const struct slice *x = a, *y = b;
    int                 c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);

    return c != 0 ? c : (x->n > y->n) - (x->n < y->n);
}

static uint32_t grow_tree(const struct schema *s, struct node *tree, const struct slice *key,
                          uint32_t n)
{
    uint32_t n_node = 1;

    tree[0] = (struct node) { .c = 0 };
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = 0;
        int      len;

        for (size_t k = 0; k < key[i].n && is_other(s, key[i]); k += (size_t) len) {
            uint32_t c, child = tree[at].child;

            len = utf8_len(key[i].p + k, key[i].n - k);
            c = decode(key[i].p + k, len);
            if (child == 0 || tree[child].c != c) {
                tree[n_node] = (struct node) {
                    .text = { key[i].p + k, (size_t) len }, .c = c, .next = child,
                };
                child = tree[at].child = n_node++;
            }
            at = child;
        }
        tree[at].key |= at != 0 || key[i].n == 0;
    }
    return n_node;
}

/* One character of a key, but none that the node's children are; blank: a blank is one of them. */
static gram another(struct schema *s, const struct node *tree, const struct node *of, bool *blank)
{
    bool               call = s->as == SCHEMA_CALL;
    size_t             n_class = call ? N_RANGE(bare_chars) : N_RANGE(json_chars), n_child = 0;
    size_t             n_all = n_class, n = 0, k = 0;
    struct code_range *r, letter[N_RANGE(letters)];
    uint8_t            gone[sizeof(escaped)] = { 0 };
    gram               g;

    for (uint32_t i = of->child; i != 0; i = tree[i].next)
        n_child++;
    r = malloc((n_class + n_child) * sizeof(*r));
    if (r == NULL)
        return grammar_fail(s->m, E_FULL, "out of memory");
    memcpy(r, call ? bare_chars : json_chars, n_class * sizeof(*r));

    *blank = false;
    for (uint32_t i = of->child; i != 0; i = tree[i].next) {     /* from the greatest down */
        uint32_t    c = tree[i].c;
        const char *at = !call && c != 0 && c < 0x80 ? strchr(escaped, (int) c) : NULL;

        *blank |= c == ' ';
        if (at != NULL)
            gone[at - escaped] = 1;
        for (size_t j = 0; j < n_class; j++)
            if (c >= r[j].lo && c <= r[j].hi) {
                r[n_all++] = (struct code_range) { c + 1, r[j].hi };
                r[j].hi = c - 1;
                break;
            }
    }
    for (size_t j = 0; j < n_all; j++)
        if (r[j].lo <= r[j].hi)
            r[n++] = r[j];
    g = n > 0 ? grammar_chars(s->m, r, n) : NOTHING;
    free(r);

    for (size_t i = 0; i + 1 < sizeof(escaped) && !call; i++)
        if (!gone[i])
            letter[k++] = (struct code_range) { (uint32_t) letters[i], (uint32_t) letters[i] };
    return k == 0 ? g : schema_alt(s, g, schema_seq(s, grammar_text(s->m, "\\"),
                                                    grammar_chars(s->m, letter, k)));
}

/* What may follow one character of a key that is no declared one any more, and its end. */
gram schema_key_rest(struct schema *s)
{
    const struct node none = { .c = 0 };
    bool              blank;
    gram              any = another(s, &none, &none, &blank);

    if (s->as == SCHEMA_CALL)
        return grammar_repeat(s->m, schema_seq(s, grammar_repeat(s->m, grammar_text(s->m, " "), 0,
                                                                 -1), any), 0, -1);
    return schema_seq(s, grammar_repeat(s->m, any, 0, -1), grammar_text(s->m, "\""));
}

/* A key that went through the tree to this node, from here on. */
static gram from_node(struct schema *s, const struct node *tree, const gram *piece, uint32_t i)
{
    const struct node *v = &tree[i];
    bool               call = s->as == SCHEMA_CALL, blank;
    gram               rest = schema_shared(s, SHARED_KEY_REST);
    gram               one = another(s, tree, v, &blank), g = schema_seq(s, one, rest), any;

    if (!v->key && !call)
        g = schema_alt(s, g, grammar_text(s->m, "\""));
    if (!v->key && call && i != 0 && v->c != ' ')
        g = schema_alt(s, g, grammar_empty(s->m));
    if (call && i != 0 && !blank) {
        any = another(s, &(struct node) { .c = 0 }, &(struct node) { .c = 0 }, &blank);
        any = schema_seq(s, grammar_repeat(s->m, grammar_text(s->m, " "), 1, -1), any);
        g = schema_alt(s, g, schema_seq(s, any, rest));
    }
    for (uint32_t k = v->child; k != 0; k = tree[k].next) {
        struct buf text = { 0 };

        if (call)
            buf_put(&text, tree[k].text.p, tree[k].text.n);
        else
            buf_json_text(&text, tree[k].text.p, tree[k].text.n);
        g = schema_alt(s, g, schema_seq(s, text.full ? -1 : grammar_bytes(s->m, text.p, text.n),
                                        piece[k]));
        buf_free(&text);
    }
    return g;
}

gram schema_other_key(struct schema *s, const struct slice *key, uint32_t n)
{
    struct slice *sorted = malloc((n + 1) * sizeof(*sorted));
    size_t        bytes = 1;
    struct node  *tree;
    gram         *piece, g = -1;

    for (uint32_t i = 0; i < n; i++)
        bytes += key[i].n;
    tree = malloc(bytes * sizeof(*tree));
    piece = malloc(bytes * sizeof(*piece));
    if (sorted == NULL || tree == NULL || piece == NULL) {
        grammar_fail(s->m, E_FULL, "out of memory");
    } else {
        for (uint32_t i = 0; i < n; i++)
            sorted[i] = key[i];
        qsort(sorted, n, sizeof(*sorted), cmp);
        for (uint32_t i = grow_tree(s, tree, sorted, n); i-- > 0;)
            piece[i] = from_node(s, tree, piece, i);
        g = s->as == SCHEMA_CALL ? piece[0]
                                 : schema_seq(s, grammar_text(s->m, "\""), piece[0]);
    }
    free(sorted);
    free(tree);
    free(piece);
    return g;
}
