/* vocab.c - the tokens of a vocabulary in order of their bytes. */
#include "matcher_priv.h"

#include <stdlib.h>
#include <string.h>

/* Eight bytes decide nearly every comparison. */
struct key { uint64_t head; const uint8_t *p; struct rest r; };

static uint64_t head_of(const uint8_t *p, size_t n)
{
    uint64_t h = 0;

    for (size_t i = 0; i < 8; i++)
        h = h << 8 | (i < n ? p[i] : 0);
    return h;
}

static int by_bytes(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    size_t            n = x->r.n < y->r.n ? x->r.n : y->r.n;
    int               d;

    if (x->head != y->head)
        return x->head < y->head ? -1 : 1;
    d = memcmp(x->p, y->p, n);
    if (d != 0)
        return d;
    if (x->r.n != y->r.n)
        return x->r.n < y->r.n ? -1 : 1;
    return (x->r.id > y->r.id) - (x->r.id < y->r.id);
}

void rests_link(struct rests *r, const uint8_t *bytes)
{
    for (uint32_t i = 0; i < r->n; i++) {
        const struct rest *a = i > 0 ? &r->p[i - 1] : NULL;
        struct rest       *b = &r->p[i];

        b->lcp = 0;
        while (a != NULL && b->lcp < a->n && b->lcp < b->n
               && bytes[a->at + b->lcp] == bytes[b->at + b->lcp])
            b->lcp++;
    }
    for (uint32_t i = r->n; i-- > 0; ) {
        uint32_t k = i + 1;

        while (k < r->n && r->p[k].lcp > r->p[i].lcp)
            k = r->p[k].next;
        r->p[i].next = k;
    }
}

bool rests_sort(struct rests *r, const uint8_t *bytes)
{
    struct key *key = malloc((r->n + (size_t) 1) * sizeof(*key));

    if (key == NULL)
        return false;
    for (uint32_t i = 0; i < r->n; i++) {
        const uint8_t *p = bytes + r->p[i].at;

        key[i] = (struct key) { head_of(p, r->p[i].n), p, r->p[i] };
    }
    qsort(key, r->n, sizeof(*key), by_bytes);
    for (uint32_t i = 0; i < r->n; i++)
        r->p[i] = key[i].r;
    free(key);
    rests_link(r, bytes);
    return true;
}

/* The bytes again, in the order of their use. False: out of memory. */
static bool put_in_order(struct vocab *v, size_t n_bytes)
{
    uint8_t *p = malloc(n_bytes + 1);
    size_t   at = 0;

    if (p == NULL)
        return false;
    for (uint32_t i = 0; i < v->all.n; i++) {
        struct rest *r = &v->all.p[i];

        memcpy(p + at, v->bytes + r->at, r->n);
        r->at = (uint32_t) at;
        v->n_first[p[at]]++;
        at += r->n;
        v->place[r->id] = i;
    }
    free(v->bytes);
    v->bytes = p;
    return true;
}

/* Ids with bytes, special ones apart. False: out of memory. */
static bool put_texts(struct vocab *v, const struct tok *tok, int32_t n_tok, size_t n_bytes)
{
    size_t at = 0;

    v->bytes = malloc(n_bytes + 1);
    if (v->bytes == NULL)
        return false;
    for (int32_t id = 0; id < n_tok; id++) {
        struct slice s = tok_text(tok, id);

        if (tok_is_special(tok, id)) {
            v->special[id / 32] |= 1u << (id % 32);
        } else if (s.n > 0 && s.n <= VOCAB_BYTES_MAX) {
            v->all.p[v->all.n++] = (struct rest) { (uint32_t) at, id, 0, (uint16_t) s.n, 0 };
            memcpy(v->bytes + at, s.p, s.n);
            at += s.n;
        }
    }
    return rests_sort(&v->all, v->bytes) && put_in_order(v, at);
}

int vocab_open(struct vocab **out, const struct tok *tok, int32_t n, struct err *e)
{
    int32_t       n_tok = tok_n_vocab(tok) < n ? tok_n_vocab(tok) : n;
    size_t        n_bytes = 0;
    struct vocab *v = calloc(1, sizeof(*v));

    *out = NULL;
    if (v == NULL)
        return err_set(e, E_FULL, "vocabulary: out of memory");
    for (int32_t id = 0; id < n_tok; id++) {
        size_t len = tok_text(tok, id).n;

        n_bytes += len <= VOCAB_BYTES_MAX ? len : 0;
    }
    v->n = n;
    v->place = malloc(((size_t) n + 1) * sizeof(*v->place));
    v->special = calloc((size_t) n / 32 + 1, sizeof(*v->special));
    v->all.p = malloc(((size_t) n_tok + 1) * sizeof(*v->all.p));
    if (v->place != NULL)
        memset(v->place, 0xff, ((size_t) n + 1) * sizeof(*v->place));
    if (n_bytes >= UINT32_MAX || v->place == NULL || v->special == NULL || v->all.p == NULL
        || !put_texts(v, tok, n_tok, n_bytes)) {
        vocab_close(v);
        return err_set(e, E_FULL, "vocabulary: out of memory");
    }
    *out = v;
    return 0;
}

void vocab_close(struct vocab *v)
{
    if (v == NULL)
        return;
    free(v->all.p);
    free(v->bytes);
    free(v->place);
    free(v->special);
    free(v);
}
