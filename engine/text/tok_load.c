/* tok_load.c - tokenizer.json -> struct tok. The file is input: everything is checked. */
#include "tok_priv.h"

#include "file.h"
#include "json.h"

#include <stdlib.h>

#define FILE_BYTES_MAX  ((size_t) 512 << 20)
#define VOCAB_MAX       (1 << 24)
#define ADDED_MAX       4096

static const struct json_limits limits = {
    .bytes = FILE_BYTES_MAX, .depth = 16, .nodes = 16u << 20
};

struct load {
    struct tok        *t;
    const struct json *vocab, *added, *merges;
    struct err        *e;
};

static bool is_str(const struct json *o, const char *key, const char *want)
{
    const struct json *j = json_get(o, key);

    return j != NULL && j->type == JSON_STRING && slice_is(j->text, want);
}

/* Absent, null, false or "": the option is off. */
static bool is_off(const struct json *o, const char *key)
{
    const struct json *j = json_get(o, key);

    return j == NULL || j->type == JSON_NULL || j->type == JSON_FALSE
           || (j->type == JSON_STRING && j->text.n == 0);
}

static bool is_true(const struct json *o, const char *key)
{
    const struct json *j = json_get(o, key);

    return j != NULL && j->type == JSON_TRUE;
}

static bool is_replace(const struct json *o, const char *from, const char *to)
{
    return is_str(o, "type", "Replace") && is_str(json_get(o, "pattern"), "String", from)
           && is_str(o, "content", to);
}

/* A split at spaces does nothing: the normalizer has left none. */
static bool is_no_pre_tokenizer(const struct json *root)
{
    const struct json *p = json_get(root, "pre_tokenizer");

    return is_off(root, "pre_tokenizer")
           || (is_str(p, "type", "Split") && is_str(json_get(p, "pattern"), "String", " ")
               && is_off(p, "invert"));
}

static bool is_gemma_decoder(const struct json *d)
{
    const struct json *a = json_get(d, "decoders");

    if (!is_str(d, "type", "Sequence") || a == NULL || a->type != JSON_ARRAY || a->n != 3)
        return false;
    a = a->child;
    return is_replace(a, SPACE_MARK, " ") && is_str(a->next, "type", "ByteFallback")
           && is_str(a->next->next, "type", "Fuse");
}

/* The post_processor is not asked: the prompt's text says where <bos> goes. */
static int check_kind(struct load *l, const struct json *root)
{
    const struct json *m = json_get(root, "model");

    if (!is_str(m, "type", "BPE"))
        return err_set(l->e, E_INVALID, "model.type must be BPE");
    if (!is_true(m, "byte_fallback"))
        return err_set(l->e, E_INVALID, "model.byte_fallback must be true");
    if (!is_off(m, "dropout") || !is_off(m, "continuing_subword_prefix")
        || !is_off(m, "end_of_word_suffix") || !is_off(m, "ignore_merges"))
        return err_set(l->e, E_INVALID, "model: dropout, continuing_subword_prefix, "
                       "end_of_word_suffix and ignore_merges are not supported");
    if (!is_replace(json_get(root, "normalizer"), " ", SPACE_MARK))
        return err_set(l->e, E_INVALID, "normalizer must be Replace of space by U+2581");
    if (!is_no_pre_tokenizer(root))
        return err_set(l->e, E_INVALID, "pre_tokenizer must be absent or a Split on \" \"");
    if (!is_gemma_decoder(json_get(root, "decoder")))
        return err_set(l->e, E_INVALID,
                       "decoder must be Replace of U+2581 by space, ByteFallback, Fuse");

    l->vocab = json_get(m, "vocab");
    l->merges = json_get(m, "merges");
    l->added = json_get(root, "added_tokens");
    if (l->vocab == NULL || l->vocab->type != JSON_OBJECT || l->vocab->n == 0)
        return err_set(l->e, E_INVALID, "model.vocab must be an object with entries");
    if (l->merges == NULL || l->merges->type != JSON_ARRAY)
        return err_set(l->e, E_INVALID, "model.merges must be an array");
    if (l->added != NULL && (l->added->type != JSON_ARRAY || l->added->n > ADDED_MAX))
        return err_set(l->e, E_INVALID, "added_tokens must be an array of at most %d", ADDED_MAX);
    return 0;
}

static int check_added(struct load *l, const struct json *a, int64_t *id, struct slice *text)
{
    const struct json *c = json_get(a, "content");

    if (c == NULL || c->type != JSON_STRING || c->text.n == 0
        || json_int(json_get(a, "id"), id) < 0 || *id < 0 || *id >= VOCAB_MAX)
        return err_set(l->e, E_INVALID, "added_tokens: an id and a content are needed");
    if (!is_true(a, "special") || !is_off(a, "lstrip") || !is_off(a, "rstrip")
        || !is_off(a, "single_word") || !is_off(a, "normalized"))
        return err_set(l->e, E_INVALID, "added token %lld: special must be true; lstrip, rstrip, "
                       "single_word and normalized are not supported", (long long) *id);
    *text = c->text;
    return 0;
}

/* Sizes first, so that everything else is one allocation each. */
static int measure(struct load *l, size_t *n_bytes)
{
    int64_t      id, max = -1;
    struct slice s;

    for (const struct json *j = l->vocab->child; j != NULL; j = j->next) {
        if (json_int(j, &id) < 0 || id < 0 || id >= VOCAB_MAX)
            return err_set(l->e, E_INVALID, "model.vocab: an id is not a number below %d",
                           VOCAB_MAX);
        max = id > max ? id : max;
        *n_bytes += j->key.n;
    }
    for (const struct json *j = l->added ? l->added->child : NULL; j != NULL; j = j->next) {
        int rc = check_added(l, j, &id, &s);

        if (rc < 0)
            return rc;
        max = id > max ? id : max;
        *n_bytes += s.n;
        l->t->n_special++;
    }
    l->t->n_vocab = (int32_t) max + 1;
    return 0;
}

static uint32_t pow2_above(uint32_t n)
{
    uint32_t p = 16;

    while (p < n)
        p *= 2;
    return p;
}

static int reserve(struct load *l, size_t n_bytes)
{
    struct tok *t = l->t;
    size_t      n = (size_t) t->n_vocab;

    t->by_text_mask = pow2_above((uint32_t) n * 2) - 1;
    t->merge_mask = pow2_above(l->merges->n * 2) - 1;

    t->entry = calloc(n, sizeof(*t->entry));
    t->text = calloc(n, sizeof(*t->text));
    t->kind = calloc(n, 1);
    t->blob = malloc(n_bytes * 2 + 256);        /* each entry twice, and the 256 raw bytes */
    t->by_text = malloc((t->by_text_mask + 1) * sizeof(*t->by_text));
    t->merge = malloc((t->merge_mask + (size_t) 1) * sizeof(*t->merge));
    t->merged = calloc(l->merges->n + (size_t) 1, sizeof(*t->merged));
    t->special = calloc((size_t) t->n_special + 1, sizeof(*t->special));
    if (t->entry == NULL || t->text == NULL || t->kind == NULL || t->blob == NULL
        || t->by_text == NULL || t->merge == NULL || t->merged == NULL || t->special == NULL)
        return err_set(l->e, E_FULL, "out of memory");

    memset(t->by_text, -1, (t->by_text_mask + 1) * sizeof(*t->by_text));
    memset(t->merge, -1, (t->merge_mask + (size_t) 1) * sizeof(*t->merge));
    memset(t->byte_id, -1, sizeof(t->byte_id));
    memset(t->bmp_id, -1, sizeof(t->bmp_id));
    return 0;
}

static uint64_t text_hash(struct slice s)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char) s.p[i]) * 0x100000001b3u;
    return tok_mix(h);
}

int32_t tok_find(const struct tok *t, struct slice s)
{
    for (uint64_t i = text_hash(s); ; i++) {
        int32_t id = t->by_text[i & t->by_text_mask];

        if (id < 0)
            return -1;
        if (t->entry[id].n == s.n && memcmp(t->entry[id].p, s.p, s.n) == 0)
            return id;
    }
}

int32_t tok_find_char(const struct tok *t, const char *p, int len)
{
    const unsigned char *u = (const unsigned char *) p;

    switch (len) {
    case 1: return t->bmp_id[u[0]];
    case 2: return t->bmp_id[(u[0] & 0x1F) << 6 | (u[1] & 0x3F)];
    case 3: return t->bmp_id[(u[0] & 0x0F) << 12 | (u[1] & 0x3F) << 6 | (u[2] & 0x3F)];
    default: return tok_find(t, (struct slice) { p, (size_t) len });
    }
}

static int put_entry(struct load *l, int32_t id, struct slice s, size_t *used)
{
    struct tok    *t = l->t;
    char          *p = t->blob + *used;
    uint64_t       i;

    if (t->kind[id] != TOK_HOLE)
        return err_set(l->e, E_INVALID, "two entries have the id %d", id);

    if (s.n > 0)
        memcpy(p, s.p, s.n);
    *used += s.n;
    t->entry[id] = (struct slice) { p, s.n };
    t->kind[id] = TOK_PLAIN;
    for (i = text_hash(s); t->by_text[i & t->by_text_mask] >= 0; i++) { }
    t->by_text[i & t->by_text_mask] = id;

    if (s.n > 0 && s.n <= 3 && utf8_len(p, s.n) == (int) s.n) {
        const unsigned char *u = (const unsigned char *) p;

        t->bmp_id[s.n == 1 ? u[0] : s.n == 2 ? (u[0] & 0x1F) << 6 | (u[1] & 0x3F)
                  : (u[0] & 0x0F) << 12 | (u[1] & 0x3F) << 6 | (u[2] & 0x3F)] = id;
    }
    return 0;
}

/* What decoding prints: the entry with each mark turned back into a space. */
static void put_text(struct tok *t, int32_t id, size_t *used)
{
    struct slice s = t->entry[id];
    char        *p = t->blob + *used;
    size_t       n = 0;

    for (size_t i = 0; i < s.n; ) {
        bool mark = s.n - i >= 3 && memcmp(s.p + i, SPACE_MARK, 3) == 0;

        p[n++] = mark ? ' ' : s.p[i];
        i += mark ? 3 : 1;
    }
    if (n == s.n) {
        t->text[id] = s;
    } else {
        t->text[id] = (struct slice) { p, n };
        *used += n;
    }
}

static int put_bytes(struct load *l, size_t *used)
{
    struct tok *t = l->t;

    for (int b = 0; b < 256; b++) {
        char    name[8];
        int32_t id;

        snprintf(name, sizeof(name), "<0x%02X>", b);
        id = tok_id(t, name);
        if (id < 0)
            return err_set(l->e, E_INVALID, "the vocabulary lacks the byte token %s", name);
        t->byte_id[b] = id;
        t->kind[id] = TOK_BYTE;
        t->blob[*used] = (char) b;
        t->text[id] = (struct slice) { t->blob + *used, 1 };
        *used += 1;
    }
    return 0;
}

static int put_specials(struct load *l, size_t *used)
{
    struct tok  *t = l->t;
    int64_t      id = 0;
    struct slice s = { 0 };
    int          rc, n = 0;

    for (const struct json *j = l->added ? l->added->child : NULL; j != NULL; j = j->next) {
        int32_t have, at;

        rc = check_added(l, j, &id, &s);
        if (rc < 0)
            return rc;
        have = tok_find(t, s);
        if (have < 0) {
            rc = put_entry(l, (int32_t) id, s, used);
            if (rc < 0)
                return rc;
        } else if (have != id || t->kind[id] == TOK_SPECIAL) {
            return err_set(l->e, E_INVALID, "added token %lld: its text is entry %d too",
                           (long long) id, have);
        }
        t->kind[id] = TOK_SPECIAL;
        t->special_first[(unsigned char) s.p[0]] = true;

        for (at = n++; at > 0 && t->entry[t->special[at - 1]].n < s.n; at--)
            t->special[at] = t->special[at - 1];
        t->special[at] = (int32_t) id;
    }
    return 0;
}

static bool split_merge(const struct json *j, struct slice *a, struct slice *b)
{
    const char *sp;

    if (j->type == JSON_ARRAY && j->n == 2 && j->child->type == JSON_STRING
        && j->child->next->type == JSON_STRING) {
        *a = j->child->text;
        *b = j->child->next->text;
        return true;
    }
    if (j->type != JSON_STRING || j->text.n < 3)
        return false;
    sp = memchr(j->text.p + 1, ' ', j->text.n - 1);
    if (sp == NULL)
        return false;
    *a = (struct slice) { j->text.p, (size_t) (sp - j->text.p) };
    *b = (struct slice) { sp + 1, j->text.n - a->n - 1 };
    return true;
}

/* Note that the last character of a and the first of b can share a token. One that is no entry
 * is never a symbol, so the merge cannot happen. */
static void put_meet(struct tok *t, struct slice a, struct slice b)
{
    size_t   last = a.n - 1;
    int32_t  l, r;
    uint64_t bit;

    while (last > 0 && (a.p[last] & 0xC0) == 0x80)
        last--;
    l = tok_find_char(t, a.p + last, (int) (a.n - last));
    r = tok_find_char(t, b.p, utf8_len(b.p, b.n));
    if (l < 0 || r < 0)
        return;
    bit = tok_mix(tok_pair(l, r)) & ((1u << MEET_BITS) - 1);
    t->meet[bit >> 6] |= (uint64_t) 1 << (bit & 63);
}

static int put_merges(struct load *l)
{
    struct tok *t = l->t;
    struct buf  both = { 0 };
    int         rc = 0;

    for (const struct json *j = l->merges->child; j != NULL && rc == 0; j = j->next) {
        int32_t      rank = t->n_merges++, left, right;
        struct slice a, b;
        uint64_t     pair;

        if (!split_merge(j, &a, &b) || a.n == 0 || b.n == 0) {
            rc = err_set(l->e, E_INVALID, "merge %d is not a pair of texts", rank);
            break;
        }
        both.n = 0;
        buf_put(&both, a.p, a.n);
        buf_put(&both, b.p, b.n);
        left = tok_find(t, a);
        right = tok_find(t, b);
        if (both.full) {
            rc = err_set(l->e, E_FULL, "out of memory");
            break;
        }
        t->merged[rank] = tok_find(t, (struct slice) { both.p, both.n });
        if (left < 0 || right < 0 || t->merged[rank] < 0) {
            rc = err_set(l->e, E_INVALID, "merge %d: a part or the product is no entry", rank);
        } else if (t->kind[left] == TOK_BYTE || t->kind[right] == TOK_BYTE) {
            rc = err_set(l->e, E_INVALID, "merge %d: a byte token cannot merge", rank);
        } else if (t->kind[t->merged[rank]] != TOK_SPECIAL) {
            /* Text never merges into a control token: only parse_special makes those. */
            pair = tok_pair(left, right);
            *tok_merge_slot(t, pair) = (struct tok_merge) { pair, rank, t->merged[rank] };
            put_meet(t, a, b);
        }
    }
    buf_free(&both);
    return rc;
}

static int build(struct load *l, const struct json *root)
{
    size_t  n_bytes = 0, used = 0;
    int64_t id = 0;
    int     rc;

    if ((rc = check_kind(l, root)) < 0 || (rc = measure(l, &n_bytes)) < 0
        || (rc = reserve(l, n_bytes)) < 0)
        return rc;

    for (const struct json *j = l->vocab->child; j != NULL; j = j->next) {
        json_int(j, &id);
        rc = put_entry(l, (int32_t) id, j->key, &used);
        if (rc < 0)
            return rc;
    }
    rc = put_specials(l, &used);
    if (rc < 0)
        return rc;
    for (int32_t i = 0; i < l->t->n_vocab; i++)
        put_text(l->t, i, &used);
    rc = put_bytes(l, &used);
    return rc < 0 ? rc : put_merges(l);
}

int tok_open(struct tok **out, const char *dir, struct err *e)
{
    struct err         why = { 0 };
    struct load        l = { .e = &why };
    struct json_doc   *doc = NULL;
    const struct json *root;
    struct buf         path = { 0 };
    char              *text = NULL;
    size_t             n = 0;
    int                rc;

    *out = NULL;
    buf_fmt(&path, "%s/tokenizer.json", dir);
    buf_put(&path, "", 1);
    if (path.full) {
        rc = err_set(e, E_FULL, "tokenizer: out of memory");
        goto done;
    }
    rc = file_read(path.p, FILE_BYTES_MAX, &text, &n, e);
    if (rc < 0)
        goto done;

    rc = json_parse(&doc, &root, text, n, &limits, &why);
    if (rc == 0) {
        free(text);                     /* the tree has its own copy; both are large */
        text = NULL;
        l.t = calloc(1, sizeof(*l.t));
        rc = l.t == NULL ? err_set(&why, E_FULL, "out of memory") : build(&l, root);
    }
    if (rc < 0) {
        err_set(e, rc, "%s: %s", path.p, why.msg);
        tok_close(l.t);
    } else {
        *out = l.t;
    }

done:
    json_free(doc);
    free(text);
    buf_free(&path);
    return rc;
}

void tok_close(struct tok *t)
{
    if (t == NULL)
        return;
    free(t->entry);
    free(t->text);
    free(t->kind);
    free(t->blob);
    free(t->by_text);
    free(t->merge);
    free(t->merged);
    free(t->special);
    free(t);
}
