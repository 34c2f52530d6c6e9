/* schema_key.c - the keys of objects: declared ones, and any but these.
 *
 * In JSON another key is written in one way only, so that a declared one cannot come in a second
 * spelling. In a call keys are bare, as the template writes them; what could not be read back
 * bare is put between quote tokens. */
#include "schema_priv.h"

#include <stdlib.h>
#include <string.h>

/* Of keys that are not declared: the first ones are ASCII. A blank may stand inside a bare key. */
static const struct code_range json_chars[] = {
    { ' ', '!' }, { '#', '[' }, { ']', 0x7F }, { 0x80, 0x10FFFF },
};
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

/* c is written with a backslash: where its letter is, or NULL. */
static const char *escape_of(const struct schema *s, uint32_t c)
{
    return s->as != SCHEMA_CALL && c != 0 && c < 0x80 ? strchr(escaped, (int) c) : NULL;
}

/* c may stand in a key that is not declared. */
static bool may_stand(const struct schema *s, uint32_t c)
{
    bool                     call = s->as == SCHEMA_CALL;
    const struct code_range *r = call ? bare_chars : json_chars;

    if ((call && c == ' ') || escape_of(s, c) != NULL)
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

/* One character of these, but none that the node's children are. */
static gram but_children(struct schema *s, const struct node *tree, uint32_t child,
                         const struct code_range *chars, size_t n_chars)
{
    struct code_range *r;
    size_t             n_all = n_chars, n = 0;
    gram               g;

    for (uint32_t i = child; i != 0; i = tree[i].next)
        n_all++;
    r = malloc(n_all * sizeof(*r));
    if (r == NULL)
        return grammar_fail(s->m, E_FULL, "out of memory");
    memcpy(r, chars, n_chars * sizeof(*r));
    n_all = n_chars;

    for (uint32_t i = child; i != 0; i = tree[i].next)      /* from the greatest down */
        for (size_t j = 0; j < n_chars; j++)
            if (tree[i].c >= r[j].lo && tree[i].c <= r[j].hi) {
                r[n_all++] = (struct code_range) { tree[i].c + 1, r[j].hi };
                r[j].hi = tree[i].c - 1;
                break;
            }
    for (size_t j = 0; j < n_all; j++)
        if (r[j].lo <= r[j].hi)
            r[n++] = r[j];
    g = n > 0 ? grammar_chars(s->m, r, n) : NOTHING;
    free(r);
    return g;
}

/* The same of characters with a backslash. */
static gram escape_but_children(struct schema *s, const struct node *tree, uint32_t child)
{
    struct code_range letter[N_RANGE(letters)];
    bool              gone[sizeof(escaped)] = { false };
    size_t            n = 0;

    for (uint32_t i = child; i != 0; i = tree[i].next)
        if (escape_of(s, tree[i].c) != NULL)
            gone[escape_of(s, tree[i].c) - escaped] = true;
    for (size_t i = 0; i + 1 < sizeof(escaped) && s->as != SCHEMA_CALL; i++)
        if (!gone[i])
            letter[n++] = (struct code_range) { (uint32_t) letters[i], (uint32_t) letters[i] };
    return n == 0 ? NOTHING : schema_seq(s, grammar_text(s->m, "\\"),
                                         grammar_chars(s->m, letter, n));
}

/* One character that is no child of this node. */
static gram another(struct schema *s, const struct node *tree, uint32_t child)
{
    bool call = s->as == SCHEMA_CALL;
    gram g = but_children(s, tree, child, call ? bare_chars : json_chars,
                          call ? N_RANGE(bare_chars) : N_RANGE(json_chars));

    return schema_alt(s, g, escape_but_children(s, tree, child));
}

static gram blanks(struct schema *s, int64_t min)
{
    return grammar_repeat(s->m, grammar_text(s->m, " "), min, -1);
}

/* What may follow one character of a key that is no declared one any more, and its end. */
gram schema_key_rest(struct schema *s)
{
    gram any = another(s, NULL, 0);

    if (s->as == SCHEMA_CALL)
        return grammar_repeat(s->m, schema_seq(s, blanks(s, 0), any), 0, -1);
    return schema_seq(s, grammar_repeat(s->m, any, 0, -1), grammar_text(s->m, "\""));
}

/* A character that hardly any key has, and the rest. */
gram schema_key_rare(struct schema *s)
{
    const struct code_range *rare = s->as == SCHEMA_CALL ? bare_chars + N_RANGE(bare_chars) - 1
                                                         : json_chars + N_RANGE(json_chars) - 1;
    gram g = schema_alt(s, grammar_chars(s->m, rare, 1), escape_but_children(s, NULL, 0));

    return schema_seq(s, g, schema_shared(s, SHARED_KEY_REST));
}

/* One more character that leads away from all declared keys, and the rest. */
static gram away(struct schema *s, const struct node *tree, uint32_t child)
{
    bool call = s->as == SCHEMA_CALL, rare = false;
    gram rest = schema_shared(s, SHARED_KEY_REST), g;

    for (uint32_t i = child; i != 0; i = tree[i].next)
        rare |= tree[i].c >= 0x80 || escape_of(s, tree[i].c) != NULL;
    if (rare)
        return schema_seq(s, another(s, tree, child), rest);
    g = but_children(s, tree, child, call ? bare_chars : json_chars,
                     (call ? N_RANGE(bare_chars) : N_RANGE(json_chars)) - 1);
    return schema_alt(s, schema_seq(s, g, rest), schema_shared(s, SHARED_KEY_RARE));
}

/* A key that went through the tree to this node, from here on. */
static gram from_node(struct schema *s, const struct node *tree, const gram *piece, uint32_t i)
{
    const struct node *v = &tree[i];
    bool               call = s->as == SCHEMA_CALL, blank = false;
    gram               g = away(s, tree, v->child);

    if (!v->key && !call)
        g = schema_alt(s, g, grammar_text(s->m, "\""));
    if (!v->key && call && i != 0 && v->c != ' ')
        g = schema_alt(s, g, grammar_empty(s->m));
    for (uint32_t k = v->child; k != 0; k = tree[k].next) {
        struct buf text = { 0 };

        blank |= tree[k].c == ' ';
        if (call)
            buf_put(&text, tree[k].text.p, tree[k].text.n);
        else
            buf_json_text(&text, tree[k].text.p, tree[k].text.n);
        g = schema_alt(s, g, schema_seq(s, text.full ? -1 : grammar_bytes(s->m, text.p, text.n),
                                        piece[k]));
        buf_free(&text);
    }
    if (call && i != 0 && !blank)
        g = schema_alt(s, g, schema_seq(s, blanks(s, 1), away(s, NULL, 0)));
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
