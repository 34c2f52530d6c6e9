/* tok.c - encode and decode with a loaded tokenizer. */
#include "tok_priv.h"

#include <stdlib.h>

#define REPLACEMENT "\xef\xbf\xbd"      /* U+FFFD */

/* One symbol of the piece being merged: a doubly linked list over an array. */
struct sym { int32_t id, prev, next; };

/* A merge that was possible when it was pushed; stale once either symbol has changed. */
struct cand { uint64_t key; int32_t left, right; };     /* key: rank, then position */

struct work {
    const struct tok *t;
    struct ids       *out;
    struct sym       *sym;
    struct cand      *heap;
    int32_t           n_sym, sym_cap, n_heap, heap_cap;
};

int ids_put(struct ids *a, int32_t id)
{
    if (a->n == a->cap) {
        size_t   cap = a->cap == 0 ? 64 : a->cap * 2;
        int32_t *p = realloc(a->p, cap * sizeof(*p));

        if (p == NULL)
            return E_FULL;
        a->p = p;
        a->cap = cap;
    }
    a->p[a->n++] = id;
    return 0;
}

void ids_free(struct ids *a)
{
    free(a->p);
    *a = (struct ids) { 0 };
}

int32_t tok_n_vocab(const struct tok *t)
{
    return t->n_vocab;
}

int32_t tok_id(const struct tok *t, const char *text)
{
    return tok_find(t, (struct slice) { text, strlen(text) });
}

bool tok_is_special(const struct tok *t, int32_t id)
{
    return id >= 0 && id < t->n_vocab && t->kind[id] == TOK_SPECIAL;
}

struct slice tok_text(const struct tok *t, int32_t id)
{
    return id >= 0 && id < t->n_vocab ? t->text[id] : (struct slice) { "", 0 };
}

struct slice tok_entry(const struct tok *t, int32_t id)
{
    return id >= 0 && id < t->n_vocab ? t->entry[id] : (struct slice) { "", 0 };
}

static void heap_push(struct work *w, struct cand c)
{
    int32_t i = w->n_heap++;

    while (i > 0 && w->heap[(i - 1) / 2].key > c.key) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = c;
}

static struct cand heap_pop(struct work *w)
{
    struct cand top = w->heap[0], last = w->heap[--w->n_heap];
    int32_t     i = 0, kid;

    while ((kid = 2 * i + 1) < w->n_heap) {
        if (kid + 1 < w->n_heap && w->heap[kid + 1].key < w->heap[kid].key)
            kid++;
        if (w->heap[kid].key >= last.key)
            break;
        w->heap[i] = w->heap[kid];
        i = kid;
    }
    w->heap[i] = last;
    return top;
}

/* If the symbol at i and its right neighbour can merge, queue that. */
static void offer(struct work *w, int32_t i)
{
    int32_t                 left = w->sym[i].id, right = w->sym[w->sym[i].next].id;
    const struct tok_merge *m = tok_merge_slot(w->t, tok_pair(left, right));

    if (m->rank >= 0)
        heap_push(w, (struct cand) { tok_pair(m->rank, i), left, right });
}

static void merge_all(struct work *w)
{
    struct sym *sym = w->sym;

    w->n_heap = 0;
    for (int32_t i = 0; i + 1 < w->n_sym; i++)
        offer(w, i);

    while (w->n_heap > 0) {
        struct cand c = heap_pop(w);
        int32_t     i = (int32_t) (uint32_t) c.key, gone = sym[i].next;

        /* A symbol only ever grows or dies (id -1), so equal ids mean that nothing happened. */
        if (sym[i].id != c.left || gone < 0 || sym[gone].id != c.right)
            continue;

        sym[i].id = w->t->merged[c.key >> 32];
        sym[i].next = sym[gone].next;
        sym[gone].id = -1;
        if (sym[i].next >= 0) {
            sym[sym[i].next].prev = i;
            offer(w, i);
        }
        if (sym[i].prev >= 0)
            offer(w, sym[i].prev);
    }
}

/* Merge what was collected and emit it. */
static int piece_end(struct work *w)
{
    int rc = 0;

    if (w->n_sym == 0)
        return 0;
    /* Each merge takes one candidate and adds at most two: 2n is enough. */
    if (w->heap_cap < 2 * w->n_sym) {
        struct cand *p = realloc(w->heap, (size_t) w->sym_cap * 2 * sizeof(*p));

        if (p == NULL)
            return E_FULL;
        w->heap = p;
        w->heap_cap = w->sym_cap * 2;
    }
    w->sym[w->n_sym - 1].next = -1;
    if (w->n_sym > 1)
        merge_all(w);
    for (int32_t i = 0; i >= 0 && rc == 0; i = w->sym[i].next)
        rc = ids_put(w->out, w->sym[i].id);
    w->n_sym = 0;
    return rc;
}

static int piece_put(struct work *w, int32_t id)
{
    if (w->n_sym > 0 && !tok_meets(w->t, w->sym[w->n_sym - 1].id, id)) {
        int rc = piece_end(w);

        if (rc < 0)
            return rc;
    }
    if (w->n_sym == w->sym_cap) {
        int32_t     cap = w->sym_cap == 0 ? 256 : w->sym_cap * 2;
        struct sym *p = realloc(w->sym, (size_t) cap * sizeof(*p));

        if (p == NULL)
            return E_FULL;
        w->sym = p;
        w->sym_cap = cap;
    }
    w->sym[w->n_sym] = (struct sym) { id, w->n_sym - 1, w->n_sym + 1 };
    w->n_sym++;
    return 0;
}

static int encode_plain(struct work *w, const char *s, size_t n)
{
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; ) {
        const char *p = s + i;
        int         len = utf8_len(p, n - i);
        int32_t     id = -1;

        if (len < 1) {
            rc = piece_put(w, w->t->byte_id[(unsigned char) *p]);
            i++;
            continue;
        }
        i += (size_t) len;
        if (*p == ' ') {
            p = SPACE_MARK;
            len = 3;
        }
        id = tok_find_char(w->t, p, len);
        if (id >= 0) {
            rc = piece_put(w, id);
            continue;
        }
        for (int k = 0; k < len && rc == 0; k++)
            rc = piece_put(w, w->t->byte_id[(unsigned char) p[k]]);
    }
    return rc < 0 ? rc : piece_end(w);
}

/* The longest special token that begins at s, or -1. */
static int32_t special_at(const struct tok *t, const char *s, size_t n)
{
    for (int32_t i = 0; i < t->n_special; i++) {
        struct slice x = t->entry[t->special[i]];

        if (x.n <= n && memcmp(x.p, s, x.n) == 0)
            return t->special[i];
    }
    return -1;
}

/* plain NULL: no special token is looked for. */
static int encode(const struct tok *t, const char *s, size_t n, const struct spans *plain,
                  struct ids *out, struct err *e)
{
    struct work w = { .t = t, .out = out };
    size_t      begin = 0, was = out->n, k = 0;
    int         rc = 0;

    if (n > INT32_MAX / 16)
        return err_set(e, E_INVALID, "a text of %zu bytes is too long to tokenise", n);

    for (size_t i = 0; plain != NULL && i < n && rc == 0; ) {
        size_t  end = k < plain->n && plain->v[k].begin < n ? plain->v[k].begin : n;
        int32_t id = -1;

        if (i >= end) {
            i = plain->v[k++].end;
            continue;
        }
        if (t->special_first[(unsigned char) s[i]])
            id = special_at(t, s + i, end - i);
        if (id < 0) {
            i++;
            continue;
        }
        rc = encode_plain(&w, s + begin, i - begin);
        if (rc == 0)
            rc = ids_put(out, id);
        i += t->entry[id].n;
        begin = i;
    }
    if (rc == 0)
        rc = encode_plain(&w, s + begin, n - begin);

    free(w.sym);
    free(w.heap);
    if (rc < 0) {
        out->n = was;
        return err_set(e, rc, "tokeniser: out of memory");
    }
    return 0;
}

int tok_encode(const struct tok *t, const char *s, size_t n, bool parse_special, struct ids *out,
               struct err *e)
{
    static const struct spans nothing;

    return encode(t, s, n, parse_special ? &nothing : NULL, out, e);
}

int tok_encode_around(const struct tok *t, const char *s, size_t n, const struct spans *plain,
                      struct ids *out, struct err *e)
{
    return encode(t, s, n, plain, out, e);
}

void tok_stream_put(const struct tok *t, struct tok_stream *s, int32_t id, struct buf *out)
{
    if (id < 0 || id >= t->n_vocab)
        return;
    if (t->kind[id] != TOK_BYTE) {
        tok_stream_end(s, out);
        if (t->kind[id] != TOK_SPECIAL || !s->skip_special)
            buf_put(out, t->text[id].p, t->text[id].n);
        return;
    }

    s->pend[s->n_pend++] = (uint8_t) t->text[id].p[0];
    while (s->n_pend > 0) {
        int len = utf8_len((char *) s->pend, s->n_pend);

        if (len == 0)
            break;                                      /* at most three bytes stay */
        if (len > 0)
            buf_put(out, s->pend, (size_t) len);
        else
            buf_str(out, REPLACEMENT);
        len = len > 0 ? len : 1;
        s->n_pend = (uint8_t) (s->n_pend - len);
        memmove(s->pend, s->pend + len, s->n_pend);
    }
}

void tok_stream_end(struct tok_stream *s, struct buf *out)
{
    for (; s->n_pend > 0; s->n_pend--)
        buf_str(out, REPLACEMENT);
}
