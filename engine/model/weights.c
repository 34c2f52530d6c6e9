/* weights.c - the checkpoint's names meet our fields here and nowhere else. */
#include "weights.h"

#include <stdlib.h>
#include <string.h>

enum dim { D_END, D_ONE, D_HIDDEN, D_VOCAB, D_HEAD, D_Q, D_KV, D_FFN, D_EXPERT, D_EXPERT_FFN,
           D_EXPERT_FFN_2, D_PLE, D_PLE_ALL };
enum need { ALWAYS, OWN_KV, OWN_V, MOE, PLE, UNTIED };
enum part { P_EMBED, P_PLE_EMBED, P_ATTN, P_MLP, P_EXPERTS, P_ROUTER, P_NORMS, P_HEAD };

struct row {
    const char *name;
    const char *alias;             /* another spelling that exporters use, or NULL */
    size_t      off;               /* of a struct mat, or of a const float * when is_vec */
    bool        is_vec;
    enum need   need;
    enum part   part;
    enum dim    shape[4];
};

#define MAT(f)  offsetof(struct layer_w, f), false
#define VEC(f)  offsetof(struct layer_w, f), true

static const struct row layer_rows[] = {           /* after "layers.N." */
    { "input_layernorm.weight", NULL, VEC(attn_norm), ALWAYS, P_NORMS, { D_HIDDEN } },
    { "self_attn.q_proj.weight", NULL, MAT(wq), ALWAYS, P_ATTN, { D_Q, D_HIDDEN } },
    { "self_attn.k_proj.weight", NULL, MAT(wk), OWN_KV, P_ATTN, { D_KV, D_HIDDEN } },
    { "self_attn.v_proj.weight", NULL, MAT(wv), OWN_V, P_ATTN, { D_KV, D_HIDDEN } },
    { "self_attn.o_proj.weight", NULL, MAT(wo), ALWAYS, P_ATTN, { D_HIDDEN, D_Q } },
    { "self_attn.q_norm.weight", NULL, VEC(q_norm), ALWAYS, P_ATTN, { D_HEAD } },
    { "self_attn.k_norm.weight", NULL, VEC(k_norm), OWN_KV, P_ATTN, { D_HEAD } },
    { "post_attention_layernorm.weight", NULL, VEC(post_attn_norm), ALWAYS, P_NORMS, { D_HIDDEN } },
    { "pre_feedforward_layernorm.weight", NULL, VEC(ffn_norm), ALWAYS, P_NORMS, { D_HIDDEN } },
    { "mlp.gate_proj.weight", NULL, MAT(gate), ALWAYS, P_MLP, { D_FFN, D_HIDDEN } },
    { "mlp.up_proj.weight", NULL, MAT(up), ALWAYS, P_MLP, { D_FFN, D_HIDDEN } },
    { "mlp.down_proj.weight", NULL, MAT(down), ALWAYS, P_MLP, { D_HIDDEN, D_FFN } },
    { "post_feedforward_layernorm.weight", NULL, VEC(post_ffn_norm), ALWAYS, P_NORMS,
      { D_HIDDEN } },
    { "layer_scalar", NULL, VEC(scalar), ALWAYS, P_NORMS, { D_ONE } },

    { "post_feedforward_layernorm_1.weight", NULL, VEC(post_ffn_norm_1), MOE, P_NORMS,
      { D_HIDDEN } },
    { "pre_feedforward_layernorm_2.weight", NULL, VEC(ffn_norm_2), MOE, P_NORMS, { D_HIDDEN } },
    { "post_feedforward_layernorm_2.weight", NULL, VEC(post_ffn_norm_2), MOE, P_NORMS,
      { D_HIDDEN } },
    { "router.proj.weight", "moe.router.proj.weight", MAT(router), MOE, P_ROUTER,
      { D_EXPERT, D_HIDDEN } },
    { "router.scale", "moe.router.scale", VEC(router_scale), MOE, P_ROUTER, { D_HIDDEN } },
    { "router.per_expert_scale", "moe.per_expert_scale", VEC(expert_scale), MOE, P_ROUTER,
      { D_EXPERT } },
    { "experts.gate_up_proj", "moe.experts.gate_up_proj", MAT(expert_gate_up), MOE, P_EXPERTS,
      { D_EXPERT, D_EXPERT_FFN_2, D_HIDDEN } },
    { "experts.down_proj", "moe.experts.down_proj", MAT(expert_down), MOE, P_EXPERTS,
      { D_EXPERT, D_HIDDEN, D_EXPERT_FFN } },

    { "per_layer_input_gate.weight", NULL, MAT(ple_gate), PLE, P_MLP, { D_PLE, D_HIDDEN } },
    { "per_layer_projection.weight", NULL, MAT(ple_proj), PLE, P_MLP, { D_HIDDEN, D_PLE } },
    { "post_per_layer_input_norm.weight", NULL, VEC(post_ple_norm), PLE, P_NORMS, { D_HIDDEN } },
};

#undef MAT
#undef VEC
#define MAT(f)  offsetof(struct weights, f), false
#define VEC(f)  offsetof(struct weights, f), true

static const struct row top_rows[] = {             /* after the prefix */
    { "embed_tokens.weight", NULL, MAT(embed), ALWAYS, P_EMBED, { D_VOCAB, D_HIDDEN } },
    { "norm.weight", NULL, VEC(norm), ALWAYS, P_NORMS, { D_HIDDEN } },
    { "embed_tokens_per_layer.weight", NULL, MAT(ple_embed), PLE, P_PLE_EMBED,
      { D_VOCAB, D_PLE_ALL } },
    { "per_layer_model_projection.weight", NULL, MAT(ple_model_proj), PLE, P_MLP,
      { D_PLE_ALL, D_HIDDEN } },
    { "per_layer_projection_norm.weight", NULL, VEC(ple_norm), PLE, P_NORMS, { D_PLE } },
};

/* Outside the prefix; without it the head is the embedding. */
static const struct row head_row =
    { "lm_head.weight", "language_model.lm_head.weight", MAT(head), UNTIED, P_HEAD,
      { D_VOCAB, D_HIDDEN } };

#undef MAT
#undef VEC

#define N(a)  (sizeof(a) / sizeof((a)[0]))

static const char *prefixes[] = { "model.language_model.", "language_model.model.", "model." };

static const char *ignored[] = {                   /* the towers that we do not run */
    "model.vision_tower.", "model.embed_vision.", "model.audio_tower.", "model.embed_audio.",
    "model.vision_embedder.", "model.audio_embedder.",
    "vision_tower.", "embed_vision.", "audio_tower.", "embed_audio.",
};

static int64_t dim_of(const struct model_conf *c, int32_t il, enum dim d)
{
    bool full = il >= 0 && c->is_full[il];
    int32_t head = full ? c->head_full : c->head_sliding;
    bool wide = c->double_wide && il >= c->n_layer - c->n_kv_shared;

    switch (d) {
    case D_END:          break;
    case D_ONE:          return 1;
    case D_HIDDEN:       return c->hidden;
    case D_VOCAB:        return c->vocab;
    case D_HEAD:         return head;
    case D_Q:            return (int64_t) c->n_head * head;
    case D_KV:           return (int64_t) (full ? c->n_kv_full : c->n_kv_sliding) * head;
    case D_FFN:          return wide ? 2 * (int64_t) c->ffn : c->ffn;
    case D_EXPERT:       return c->n_expert;
    case D_EXPERT_FFN:   return c->expert_ffn;
    case D_EXPERT_FFN_2: return 2 * (int64_t) c->expert_ffn;
    case D_PLE:          return c->ple;
    case D_PLE_ALL:      return (int64_t) c->n_layer * c->ple;
    }
    return 0;
}

static int rank(const struct row *r)
{
    int n = 0;

    while (n < 4 && r->shape[n] != D_END)
        n++;
    return n;
}

static bool needed(const struct model_conf *c, int32_t il, enum need need)
{
    bool own = model_kv_layer(c, il) == il;

    switch (need) {
    case ALWAYS: return true;
    case OWN_KV: return own;
    case OWN_V:  return own && !(c->k_eq_v && c->is_full[il]);
    case MOE:    return c->moe;
    case PLE:    return c->ple > 0;
    case UNTIED: return !c->tied;
    }
    return false;
}

static uint64_t row_elems(const struct model_conf *c, int32_t il, const struct row *r)
{
    uint64_t n = 1;

    for (int i = 0; i < rank(r); i++)
        n *= (uint64_t) dim_of(c, il, r->shape[i]);
    return n;
}

/* Floats from one vector to the next: each begins at a multiple of 16 bytes, as the ops want it. */
static size_t vec_step(size_t n)
{
    return (n + 3) / 4 * 4;
}

/* Floats that all vectors take together. */
static size_t vec_elems(const struct model_conf *c)
{
    size_t n = 0;

    for (size_t i = 0; i < N(top_rows); i++)
        if (top_rows[i].is_vec && needed(c, 0, top_rows[i].need))
            n += vec_step(row_elems(c, 0, &top_rows[i]));
    for (int32_t il = 0; il < c->n_layer; il++)
        for (size_t i = 0; i < N(layer_rows); i++)
            if (layer_rows[i].is_vec && needed(c, il, layer_rows[i].need))
                n += vec_step(row_elems(c, il, &layer_rows[i]));
    return n;
}

static void size_add(struct model_size *s, const struct model_conf *c, int32_t il,
                     const struct row *r)
{
    uint64_t *part[] = {
        [P_EMBED] = &s->embed,     [P_PLE_EMBED] = &s->ple_embed, [P_ATTN] = &s->attn,
        [P_MLP] = &s->mlp,         [P_EXPERTS] = &s->experts,     [P_ROUTER] = &s->router,
        [P_NORMS] = &s->norms,     [P_HEAD] = &s->head,
    };

    if (needed(c, il, r->need)) {
        *part[r->part] += row_elems(c, il, r);
        s->total += row_elems(c, il, r);
        s->vec += r->is_vec ? row_elems(c, il, r) : 0;
    }
}

void model_size(const struct model_conf *c, struct model_size *s)
{
    memset(s, 0, sizeof(*s));
    for (size_t i = 0; i < N(top_rows); i++)
        size_add(s, c, 0, &top_rows[i]);
    for (int32_t il = 0; il < c->n_layer; il++)
        for (size_t i = 0; i < N(layer_rows); i++)
            size_add(s, c, il, &layer_rows[i]);
    size_add(s, c, 0, &head_row);
    s->vec_f32 = vec_elems(c);
}

static int to_type(const struct st_tensor *t, enum mat_type *type)
{
    if (strcmp(t->dtype, "BF16") == 0)
        *type = MAT_BF16;
    else if (strcmp(t->dtype, "F16") == 0)
        *type = MAT_F16;
    else if (strcmp(t->dtype, "F32") == 0)
        *type = MAT_F32;
    else
        return E_INVALID;
    return 0;
}

static int check_tensor(const struct st_tensor *t, const struct model_conf *c, int32_t il,
                        const struct row *r, enum mat_type *type, struct err *e)
{
    char want[128] = "", got[256] = "";
    size_t nw = 0, ng = 0;
    bool same = t->n_dim == rank(r);

    if (to_type(t, type) < 0)
        return err_set(e, E_INVALID, "%s: %s: dtype %s: only BF16, F16 and F32 are supported",
                       t->file, t->name, t->dtype);

    for (int i = 0; i < rank(r); i++)
        nw += (size_t) snprintf(want + nw, sizeof(want) - nw, "%s%lld", i > 0 ? ", " : "",
                                (long long) dim_of(c, il, r->shape[i]));
    for (int i = 0; i < t->n_dim; i++) {
        ng += (size_t) snprintf(got + ng, sizeof(got) - ng, "%s%lld", i > 0 ? ", " : "",
                                (long long) t->shape[i]);
        same = same && t->shape[i] == dim_of(c, il, r->shape[i]);
    }
    if (!same)
        return err_set(e, E_INVALID, "%s: %s: shape [%s], config.json says [%s]", t->file, t->name,
                       got, want);
    return 0;
}

struct loading {
    struct weights          *w;
    struct backend          *be;
    const struct model_conf *c;
    const char              *prefix;
    float                   *vec;          /* next free float */
    model_progress          *progress;
    void                    *arg;
    uint64_t                 done, total;
    struct err              *e;
};

static int no_room(struct loading *l)
{
    return err_set(l->e, E_IO, "no memory for the weights after %.0f of %.0f MB: lower"
                   " --kv-cache-memory-bytes", (double) l->done / 1e6, (double) l->total / 1e6);
}

/* left: of what is done, still on its way. */
static void report(struct loading *l, uint64_t left)
{
    if (l->progress != NULL)
        l->progress(l->arg, l->done - left, l->total);
}

/* A vector as floats, whatever it is in the file. */
static int read_vec(struct loading *l, const struct st_tensor *t, const struct mat *m)
{
    struct mat raw = *m;
    void *p = malloc(t->bytes + 1);
    int rc = p != NULL ? st_read(t, p, l->e) : err_set(l->e, E_IO, "out of memory");

    if (rc == 0) {
        raw.p = p;
        quant_row_ref(l->vec, &raw, 0, 1);
    }
    free(p);
    return rc;
}

static int bind(struct loading *l, int32_t il, const struct row *r, void *base,
                struct st_tensor *t)
{
    struct mat m = { t->p, MAT_BF16, 1, 1 };
    int rc = check_tensor(t, l->c, il < 0 ? 0 : il, r, &m.type, l->e);

    if (rc < 0)
        return rc;
    m.cols = (int32_t) t->shape[t->n_dim - 1];
    for (int i = 0; i + 1 < t->n_dim; i++)
        m.rows *= t->shape[i];

    if (r->is_vec) {
        if ((rc = read_vec(l, t, &m)) < 0)
            return rc;
        *(const float **) (void *) ((char *) base + r->off) = l->vec;
        l->vec += vec_step((size_t) m.cols);
    } else {
        if (l->be->device && m.type != MAT_BF16)
            return err_set(l->e, E_INVALID, "%s: %s: dtype %s: --backend cuda takes BF16 only",
                           t->file, t->name, t->dtype);
        m.p = l->be->ops->weight(l->be, &(struct be_file) { t->file, t->fd, t->off, t->p },
                                 t->bytes);
        if (m.p == NULL)
            return no_room(l);
        *(struct mat *) (void *) ((char *) base + r->off) = m;
    }

    t->used = true;
    l->done += t->bytes;
    if (!l->be->device)
        report(l, 0);
    return 0;
}

static struct st_tensor *find(struct loading *l, int32_t il, const char *name)
{
    char full[ST_NAME_MAX + 1];

    if (name == NULL)
        return NULL;
    if (il < 0)
        snprintf(full, sizeof(full), "%s%s", l->prefix, name);
    else
        snprintf(full, sizeof(full), "%slayers.%d.%s", l->prefix, (int) il, name);
    return st_find(l->w->st, full);
}

static bool same_bytes(const struct st_tensor *a, const struct st_tensor *b, struct err *e)
{
    void *p = malloc(a->bytes + 1), *q = malloc(b->bytes + 1);
    bool same = p != NULL && q != NULL && a->bytes == b->bytes && st_read(a, p, e) == 0
                && st_read(b, q, e) == 0 && memcmp(p, q, a->bytes) == 0;

    free(p);
    free(q);
    return same;
}

/* A tensor that the layer computes from another: it may be there, and is then checked or unused. */
static int skip(struct loading *l, int32_t il, const struct row *r, struct st_tensor *t)
{
    struct st_tensor *k;

    l->done += t->bytes;
    if (r->need == OWN_KV || (r->need == OWN_V && model_kv_layer(l->c, il) != il)) {
        t->used = true;                    /* a KV-shared layer reads its donor's */
        return 0;
    }
    if (r->need != OWN_V)
        return 0;                          /* check_used() refuses it */

    k = find(l, il, "self_attn.k_proj.weight");
    if (k == NULL || !same_bytes(k, t, l->e))
        return err_set(l->e, E_INVALID, "%s: %s: attention_k_eq_v, but it differs from k_proj",
                       t->file, t->name);
    t->used = true;
    return 0;
}

static int load_row(struct loading *l, int32_t il, const struct row *r, void *base)
{
    struct st_tensor *t = find(l, il, r->name);

    if (t == NULL)
        t = find(l, il, r->alias);
    if (!needed(l->c, il < 0 ? 0 : il, r->need))
        return t != NULL ? skip(l, il, r, t) : 0;
    if (t == NULL && il < 0)
        return err_set(l->e, E_INVALID, "safetensors: tensor missing: %s%s", l->prefix, r->name);
    if (t == NULL)
        return err_set(l->e, E_INVALID, "safetensors: tensor missing: %slayers.%d.%s", l->prefix,
                       (int) il, r->name);
    return bind(l, il, r, base, t);
}

static int load_head(struct loading *l)
{
    struct st_tensor *t = st_find(l->w->st, head_row.name);

    if (t == NULL)
        t = st_find(l->w->st, head_row.alias);
    if (t != NULL)
        return bind(l, -1, &head_row, l->w, t);
    if (!l->c->tied)
        return err_set(l->e, E_INVALID, "safetensors: tensor missing: %s", head_row.name);
    l->w->head = l->w->embed;
    return 0;
}

static bool is_ignored(const struct st_tensor *t)
{
    for (size_t k = 0; k < N(ignored); k++)
        if (strncmp(t->name, ignored[k], strlen(ignored[k])) == 0)
            return true;
    return false;
}

static int check_used(struct loading *l)
{
    for (int32_t i = 0; i < st_count(l->w->st); i++) {
        struct st_tensor *t = st_at(l->w->st, i);

        if (!t->used && !is_ignored(t))
            return err_set(l->e, E_INVALID, "%s: %s: no parameter has this name", t->file,
                           t->name);
    }
    return 0;
}

static int load_all(struct loading *l)
{
    int rc;

    for (size_t i = 0; i < N(top_rows); i++)
        if ((rc = load_row(l, -1, &top_rows[i], l->w)) < 0)
            return rc;
    for (int32_t il = 0; il < l->c->n_layer; il++)
        for (size_t i = 0; i < N(layer_rows); i++)
            if ((rc = load_row(l, il, &layer_rows[i], &l->w->layer[il])) < 0)
                return rc;
    if ((rc = load_head(l)) < 0)
        return rc;
    return check_used(l);
}

static const char *find_prefix(struct st *st)
{
    char name[ST_NAME_MAX + 1];

    for (size_t i = 0; i < N(prefixes); i++) {
        snprintf(name, sizeof(name), "%sembed_tokens.weight", prefixes[i]);
        if (st_find(st, name) != NULL)
            return prefixes[i];
    }
    return NULL;
}

/* Random matrices, each with a seed of its own; vectors of ones. */
static int make_row(struct loading *l, int32_t il, const struct row *r, void *base)
{
    int64_t cols = dim_of(l->c, il, r->shape[rank(r) - 1]);
    struct fill f = { .n = (int64_t) row_elems(l->c, il, r), .seed = l->done };
    struct mat m = { NULL, MAT_BF16, 0, (int32_t) cols };

    if (!needed(l->c, il, r->need))
        return 0;
    m.rows = f.n / cols;
    if (r->is_vec) {
        for (int64_t i = 0; i < cols; i++)
            l->vec[i] = 1;
        *(const float **) (void *) ((char *) base + r->off) = l->vec;
        l->vec += vec_step((size_t) cols);
    } else {
        if ((f.y = be_alloc(l->be, (size_t) f.n * 2)) == NULL)
            return no_room(l);
        op_fill(l->be, &f);
        m.p = f.y;
        *(struct mat *) (void *) ((char *) base + r->off) = m;
    }
    l->done += (uint64_t) f.n * 2;
    report(l, 0);
    return 0;
}

static int make_all(struct loading *l)
{
    int rc;

    for (size_t i = 0; i < N(top_rows); i++)
        if ((rc = make_row(l, 0, &top_rows[i], l->w)) < 0)
            return rc;
    for (int32_t il = 0; il < l->c->n_layer; il++)
        for (size_t i = 0; i < N(layer_rows); i++)
            if ((rc = make_row(l, il, &layer_rows[i], &l->w->layer[il])) < 0)
                return rc;
    if ((rc = make_row(l, 0, &head_row, l->w)) < 0)
        return rc;
    if (l->c->tied)
        l->w->head = l->w->embed;
    return 0;
}

static int read_all(struct loading *l, const char *dir)
{
    int rc = st_open(&l->w->st, dir, l->e);

    if (rc < 0)
        return rc;
    for (int32_t i = 0; i < st_count(l->w->st); i++)
        l->total += is_ignored(st_at(l->w->st, i)) ? 0 : st_at(l->w->st, i)->bytes;
    l->prefix = find_prefix(l->w->st);
    if (l->prefix == NULL)
        return err_set(l->e, E_INVALID, "safetensors: tensor missing: %sembed_tokens.weight",
                       prefixes[0]);
    return load_all(l);
}

/* Where the cache has V for K (pages.h), the queries carry the weight of the keys too. */
static void fold_k_norm(struct loading *l)
{
    const struct model_conf *c = l->c;
    int32_t n_rot = model_n_rot(c, true), half = c->head_full / 2;

    for (int32_t il = 0; il < c->n_layer; il++) {
        const float *k = l->w->layer[model_kv_layer(c, il)].k_norm;
        float *q = l->w->vec + (l->w->layer[il].q_norm - l->w->vec);

        if (!c->is_full[il] || model_k_dim(c, true) == c->head_full)
            continue;
        for (int32_t i = n_rot; i < half; i++) {
            q[i] *= k[i];
            q[half + i] *= k[half + i];
        }
    }
}

static void move_vec(struct loading *l, const struct row *r, void *base, const float *to)
{
    const float **p = (const float **) (void *) ((char *) base + r->off);

    if (r->is_vec && *p != NULL && r->shape[0] != D_ONE)
        *p = to + (*p - l->w->vec);
}

/* All vectors as one block in the device's memory; the scalars stay the host's. */
static int move_vecs(struct loading *l)
{
    size_t bytes = vec_elems(l->c) * sizeof(float);
    float *to = l->be->device ? be_alloc(l->be, bytes) : NULL;

    if (!l->be->device)
        return 0;
    if (to == NULL)
        return no_room(l);
    l->be->ops->put(l->be, to, l->w->vec, bytes);
    for (size_t i = 0; i < N(top_rows); i++)
        move_vec(l, &top_rows[i], l->w, to);
    for (int32_t il = 0; il < l->c->n_layer; il++)
        for (size_t i = 0; i < N(layer_rows); i++)
            move_vec(l, &layer_rows[i], &l->w->layer[il], to);
    return 0;
}

int weights_load(struct weights *w, struct backend *be, const char *dir,
                 const struct model_conf *c, model_progress *progress, void *arg, struct err *e)
{
    struct loading l = { .w = w, .be = be, .c = c, .progress = progress, .arg = arg, .e = e };
    struct model_size size;
    uint64_t left;
    int rc;

    memset(w, 0, sizeof(*w));
    model_size(c, &size);
    w->vec = l.vec = calloc(vec_elems(c), sizeof(float));
    if (w->vec == NULL) {
        rc = err_set(e, E_IO, "out of memory");
    } else if (dir != NULL) {
        rc = read_all(&l, dir);
    } else {
        l.total = 2 * size.total;
        rc = make_all(&l);
    }
    if (rc < 0 && be->err.code == 0)
        be->err = *e;                      /* so that loading() ends what is under way */
    while ((left = be->ops->loading(be)) > 0)
        report(&l, left);
    if (rc == 0)
        fold_k_norm(&l);
    if (rc == 0)
        rc = move_vecs(&l);
    if (rc == 0)
        rc = be_sync(be, e);               /* all has arrived, or says why not */
    if (rc == 0 && be->device && dir != NULL)
        report(&l, 0);

    if (rc < 0)
        weights_free(w);
    return rc;
}

void weights_free(struct weights *w)
{
    st_close(w->st);
    free(w->vec);
    memset(w, 0, sizeof(*w));
}
