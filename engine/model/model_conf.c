/* model_conf.c - config.json and generation_config.json to struct model_conf, with bounds. */
#include "model.h"
#include "file.h"
#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <limits.h>

#define CONF_BYTES_MAX   (4u << 20)
#define CONF_NODES_MAX   100000u

#define CONF_VOCAB_MAX   (1 << 21)
#define CONF_HIDDEN_MAX  (1 << 16)
#define CONF_FFN_MAX     (1 << 18)
#define CONF_HEAD_MAX    1024
#define CONF_DIM_MAX     1024             /* of a head */
#define CONF_EXPERT_MAX  4096
#define CONF_POS_MAX     (1 << 24)

/* One JSON object being read: its file and where it is, for the words of a refusal. */
struct obj { const struct json *j; const char *file, *path; struct err *e; };

static int bad(const struct obj *o, const char *key, const char *what)
{
    return err_set(o->e, E_INVALID, "%s: %s%s: %s", o->file, o->path, key, what);
}

/* A member, or NULL when it is absent or null. */
static const struct json *get(const struct obj *o, const char *key)
{
    const struct json *j = json_get(o->j, key);

    return j != NULL && j->type == JSON_NULL ? NULL : j;
}

static int get_int(const struct obj *o, const char *key, int64_t min, int64_t max, int64_t def,
                   int32_t *out)
{
    const struct json *j = get(o, key);
    char what[96];
    int64_t v;

    if (j == NULL) {
        if (def < 0)
            return bad(o, key, "missing");
        *out = (int32_t) def;
        return 0;
    }
    if (json_int(j, &v) < 0 || v < min || v > max) {
        snprintf(what, sizeof(what), "not a whole number in %lld..%lld", (long long) min,
                 (long long) max);
        return bad(o, key, what);
    }
    *out = (int32_t) v;
    return 0;
}

static int get_float(const struct obj *o, const char *key, double min, double max, double def,
                     float *out)
{
    const struct json *j = get(o, key);
    char what[96];
    double v = def;

    if (j != NULL && (json_double(j, &v) < 0 || !(v >= min && v <= max))) {
        snprintf(what, sizeof(what), "not a number in %g..%g", min, max);
        return bad(o, key, what);
    }
    *out = (float) v;
    return 0;
}

static int get_bool(const struct obj *o, const char *key, bool def, bool *out)
{
    const struct json *j = get(o, key);

    if (j != NULL && j->type != JSON_TRUE && j->type != JSON_FALSE)
        return bad(o, key, "not true or false");
    *out = j != NULL ? j->type == JSON_TRUE : def;
    return 0;
}

/* The member must be absent, null or this string. */
static int must_be(const struct obj *o, const char *key, const char *want)
{
    const struct json *j = get(o, key);
    char what[96];

    if (j == NULL || (j->type == JSON_STRING && slice_is(j->text, want)))
        return 0;
    snprintf(what, sizeof(what), "only \"%s\" is supported", want);
    return bad(o, key, what);
}

/* An id or a list of ids below vocab. Absent: n stays. */
static int get_ids(const struct obj *o, const char *key, int32_t vocab, int32_t *id, int32_t max,
                   int32_t *n)
{
    const struct json *j = get(o, key), *c;
    int64_t v;

    if (j == NULL)
        return 0;
    *n = 0;
    for (c = j->type == JSON_ARRAY ? j->child : j; c != NULL;
         c = j->type == JSON_ARRAY ? c->next : NULL) {
        if (json_int(c, &v) < 0 || v < 0 || v >= vocab)
            return bad(o, key, "not an id, or a list of ids, below vocab_size");
        if (*n == max)
            return bad(o, key, "too many ids");
        id[(*n)++] = (int32_t) v;
    }
    return 0;
}

static int read_dims(struct model_conf *c, const struct obj *o)
{
    struct { const char *key; int32_t *out; int64_t max, def; } rows[] = {
        { "vocab_size",              &c->vocab,        CONF_VOCAB_MAX,  -1 },
        { "hidden_size",             &c->hidden,       CONF_HIDDEN_MAX, -1 },
        { "num_hidden_layers",       &c->n_layer,      MODEL_LAYER_MAX, -1 },
        { "intermediate_size",       &c->ffn,          CONF_FFN_MAX,    -1 },
        { "num_attention_heads",     &c->n_head,       CONF_HEAD_MAX,   -1 },
        { "num_key_value_heads",     &c->n_kv_sliding, CONF_HEAD_MAX,   -1 },
        { "head_dim",                &c->head_sliding, CONF_DIM_MAX,    256 },
        { "sliding_window",          &c->window,       CONF_POS_MAX,    512 },
        { "max_position_embeddings", &c->max_pos,      CONF_POS_MAX,    131072 },
    };
    float eps;
    int rc;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if ((rc = get_int(o, rows[i].key, 1, rows[i].max, rows[i].def, rows[i].out)) < 0)
            return rc;

    if ((rc = get_int(o, "hidden_size_per_layer_input", 0, CONF_DIM_MAX, 256, &c->ple)) < 0
        || (rc = get_int(o, "num_kv_shared_layers", 0, c->n_layer - 1, 0, &c->n_kv_shared)) < 0
        || (rc = get_bool(o, "use_double_wide_mlp", false, &c->double_wide)) < 0
        || (rc = get_bool(o, "attention_k_eq_v", false, &c->k_eq_v)) < 0
        || (rc = get_float(o, "rms_norm_eps", 1e-12, 1, 1e-6, &eps)) < 0
        || (rc = get_float(o, "final_logit_softcapping", 1e-3, 1e6, 0, &c->softcap)) < 0
        || (rc = get_int(o, "bos_token_id", 0, c->vocab - 1, 2, &c->bos)) < 0
        || (rc = get_int(o, "pad_token_id", 0, c->vocab - 1, 0, &c->pad)) < 0)
        return rc;
    c->rms_eps = eps;
    return 0;
}

static int read_moe(struct model_conf *c, const struct obj *o)
{
    int rc = get_bool(o, "enable_moe_block", false, &c->moe);

    if (rc < 0 || !c->moe)
        return rc;
    if ((rc = get_int(o, "num_experts", 1, CONF_EXPERT_MAX, -1, &c->n_expert)) < 0
        || (rc = get_int(o, "top_k_experts", 1, c->n_expert, -1, &c->top_k)) < 0)
        return rc;
    return get_int(o, "moe_intermediate_size", 1, CONF_FFN_MAX, -1, &c->expert_ffn);
}

/* Variants that would change the computation: each is refused here by its name. */
static int read_refused(const struct model_conf *c, const struct obj *o)
{
    int32_t ple_vocab;
    bool bias = false;
    int rc;

    if ((rc = must_be(o, "hidden_activation", "gelu_pytorch_tanh")) < 0
        || (rc = must_be(o, "use_bidirectional_attention", "vision")) < 0
        || (rc = get_bool(o, "attention_bias", false, &bias)) < 0)
        return rc;
    if (bias)
        return bad(o, "attention_bias", "only false is supported");
    if (get(o, "quantization_config") != NULL)
        return bad(o, "quantization_config", "quantised weights are not supported");
    if (c->ple == 0)
        return 0;
    if ((rc = get_int(o, "vocab_size_per_layer_input", 1, CONF_VOCAB_MAX, c->vocab,
                      &ple_vocab)) < 0)
        return rc;
    return ple_vocab == c->vocab ? 0
           : bad(o, "vocab_size_per_layer_input", "only the value of vocab_size is supported");
}

static int read_layer_types(struct model_conf *c, const struct obj *o)
{
    const struct json *j = get(o, "layer_types"), *t;
    int32_t il = 0;

    for (il = 0; j == NULL && il < c->n_layer; il++)
        c->is_full[il] = (il + 1) % 6 == 0;

    if (j != NULL && (j->type != JSON_ARRAY || j->n != (uint32_t) c->n_layer))
        return bad(o, "layer_types", "not a list of num_hidden_layers names");
    for (t = j != NULL ? j->child : NULL, il = 0; t != NULL; t = t->next, il++) {
        c->is_full[il] = t->type == JSON_STRING && slice_is(t->text, "full_attention");
        if (!c->is_full[il]
            && (t->type != JSON_STRING || !slice_is(t->text, "sliding_attention")))
            return bad(o, "layer_types", "neither sliding_attention nor full_attention");
    }
    c->is_full[c->n_layer - 1] = true;

    for (il = c->n_layer - c->n_kv_shared; il < c->n_layer; il++)
        if (model_kv_layer(c, il) < 0)
            return bad(o, "num_kv_shared_layers", "a shared layer has no donor of its type");
    return 0;
}

/* Full layers' head_dim and KV heads as published: global_head_dim, num_global_key_value_heads. */
static int read_global(struct model_conf *c, const struct obj *o)
{
    int32_t n_kv;
    int rc;

    if ((rc = get_int(o, "global_head_dim", 1, CONF_DIM_MAX, 512, &c->head_full)) < 0
        || (rc = get_int(o, "num_global_key_value_heads", 1, CONF_HEAD_MAX, c->n_kv_sliding,
                         &n_kv)) < 0)
        return rc;
    c->n_kv_full = c->k_eq_v ? n_kv : c->n_kv_sliding;
    return 0;
}

static bool key_layer(struct slice key, int32_t *il)
{
    int32_t v = 0;

    if (key.n == 0 || key.n > 4)
        return false;
    for (size_t i = 0; i < key.n; i++) {
        if (key.p[i] < '0' || key.p[i] > '9')
            return false;
        v = v * 10 + (key.p[i] - '0');
    }
    *il = v;
    return true;
}

/* The same as written back by newer transformers: per_layer_config {"5": {head_dim,
 * num_key_value_heads}}. All layers of a type must agree. */
static int read_per_layer(struct model_conf *c, const struct obj *o, const struct json *map)
{
    int32_t dim[MODEL_LAYER_MAX], n_kv[MODEL_LAYER_MAX], il = -1, *d, *n;
    bool seen[2] = {false};
    int rc;

    if (map->type != JSON_OBJECT)
        return bad(o, "per_layer_config", "not an object");
    for (il = 0; il < c->n_layer; il++) {
        dim[il] = c->head_sliding;
        n_kv[il] = c->n_kv_sliding;
    }

    for (const struct json *j = map->child; j != NULL; j = j->next) {
        struct obj l = { j, o->file, "per_layer_config.", o->e };

        if (!key_layer(j->key, &il) || il >= c->n_layer || j->type != JSON_OBJECT)
            return bad(o, "per_layer_config", "not an object of layer numbers");
        for (const struct json *m = j->child; m != NULL; m = m->next)
            if (!slice_is(m->key, "head_dim") && !slice_is(m->key, "num_key_value_heads"))
                return bad(o, "per_layer_config", "only head_dim and num_key_value_heads differ");
        if ((rc = get_int(&l, "head_dim", 1, CONF_DIM_MAX, dim[il], &dim[il])) < 0
            || (rc = get_int(&l, "num_key_value_heads", 1, CONF_HEAD_MAX, n_kv[il],
                             &n_kv[il])) < 0)
            return rc;
    }

    for (il = 0; il < c->n_layer; il++) {
        d = c->is_full[il] ? &c->head_full : &c->head_sliding;
        n = c->is_full[il] ? &c->n_kv_full : &c->n_kv_sliding;
        if (seen[c->is_full[il]] && (*d != dim[il] || *n != n_kv[il]))
            return bad(o, "per_layer_config", "layers of one type differ");
        seen[c->is_full[il]] = true;
        *d = dim[il];
        *n = n_kv[il];
    }
    return 0;
}

static int check_heads(const struct model_conf *c, const struct obj *o)
{
    if (c->n_head % c->n_kv_sliding != 0)
        return bad(o, "num_key_value_heads", "does not divide num_attention_heads");
    if (c->n_head % c->n_kv_full != 0)
        return bad(o, "num_global_key_value_heads", "does not divide num_attention_heads");
    if (c->head_sliding % 2 != 0)
        return bad(o, "head_dim", "odd");
    if (c->head_full % 2 != 0)
        return bad(o, "global_head_dim", "odd");
    return 0;
}

static int read_rope(struct model_conf *c, const struct obj *o)
{
    const struct json *all = get(o, "rope_parameters"), *type;
    struct obj s, f;
    int rc;

    c->rope_theta_sliding = 10000;
    c->rope_theta_full = 1e6f;
    c->rope_partial_full = 0.25f;
    c->rope_factor_full = 1;
    if (all == NULL)
        return 0;

    s = (struct obj) { json_get(all, "sliding_attention"), o->file,
                       "rope_parameters.sliding_attention.", o->e };
    f = (struct obj) { json_get(all, "full_attention"), o->file,
                       "rope_parameters.full_attention.", o->e };
    if (s.j == NULL || s.j->type != JSON_OBJECT)
        return bad(o, "rope_parameters.sliding_attention", "missing or not an object");
    if (f.j == NULL || f.j->type != JSON_OBJECT)
        return bad(o, "rope_parameters.full_attention", "missing or not an object");

    if ((rc = must_be(&s, "rope_type", "default")) < 0
        || (rc = get_float(&s, "rope_theta", 1, 1e12, 10000, &c->rope_theta_sliding)) < 0
        || (rc = get_float(&f, "rope_theta", 1, 1e12, 1e6, &c->rope_theta_full)) < 0)
        return rc;

    type = get(&f, "rope_type");
    if (type != NULL && type->type == JSON_STRING && slice_is(type->text, "default")) {
        c->rope_partial_full = 1;
        return 0;
    }
    if ((rc = must_be(&f, "rope_type", "proportional")) < 0
        || (rc = get_float(&f, "partial_rotary_factor", 0, 1, 1, &c->rope_partial_full)) < 0)
        return rc;
    return get_float(&f, "factor", 1e-3, 1e6, 1, &c->rope_factor_full);
}

/* A file of dir as a tree; *doc NULL if it is absent and that is allowed. */
static int load(const char *dir, const char *file, bool optional, struct json_doc **doc,
                const struct json **root, struct err *e)
{
    struct json_limits lim = { CONF_BYTES_MAX, 32, CONF_NODES_MAX };
    struct err je = {0};
    char path[PATH_MAX];
    char *p;
    size_t n;
    int rc;

    *doc = NULL;
    if (snprintf(path, sizeof(path), "%s/%s", dir, file) >= (int) sizeof(path))
        return err_set(e, E_INVALID, "%s: the path is too long", file);
    if ((rc = file_read(path, CONF_BYTES_MAX, &p, &n, e)) < 0)
        return rc == E_IO && optional ? 0 : rc;

    if (json_parse(doc, root, p, n, &lim, &je) < 0)
        rc = err_set(e, E_INVALID, "%s: %s", file, je.msg);
    else if ((*root)->type != JSON_OBJECT)
        rc = err_set(e, E_INVALID, "%s: not an object", file);
    free(p);
    if (rc < 0) {
        json_free(*doc);
        *doc = NULL;
    }
    return rc;
}

static bool type_is(const struct json *j, const char *a, const char *b)
{
    return j != NULL && j->type == JSON_STRING && (slice_is(j->text, a) || slice_is(j->text, b));
}

/* The 12B is "unified": other ways in for images and sound, the same text model. */
static int read_model_type(const struct obj *o, bool *multi)
{
    const struct json *j = get(o, "model_type");

    *multi = type_is(j, "gemma4", "gemma4_unified");
    if (*multi || type_is(j, "gemma4_text", "gemma4_unified_text"))
        return 0;
    return bad(o, "model_type", "none of gemma4, gemma4_text, gemma4_unified, gemma4_unified_text");
}

static int read_config(struct model_conf *c, const struct json *root, struct err *e)
{
    struct obj top = { root, "config.json", "", e }, text = top;
    const struct json *per_layer;
    bool multi, tied = true;
    int rc;

    if ((rc = read_model_type(&top, &multi)) < 0)
        return rc;
    if (multi) {
        text.j = get(&top, "text_config");
        text.path = "text_config.";
        if (text.j == NULL || text.j->type != JSON_OBJECT)
            return bad(&top, "text_config", "missing or not an object");
        if (!type_is(get(&text, "model_type"), "gemma4_text", "gemma4_unified_text"))
            return bad(&text, "model_type", "neither gemma4_text nor gemma4_unified_text");
        c->has_vision = get(&top, "vision_config") != NULL;
        c->has_audio = get(&top, "audio_config") != NULL;
        if (get(&top, "quantization_config") != NULL)
            return bad(&top, "quantization_config", "quantised weights are not supported");
    }

    if ((rc = read_dims(c, &text)) < 0 || (rc = read_moe(c, &text)) < 0
        || (rc = read_layer_types(c, &text)) < 0)
        return rc;
    per_layer = get(&text, "per_layer_config");
    rc = per_layer != NULL ? read_per_layer(c, &text, per_layer) : read_global(c, &text);
    if (rc < 0 || (rc = check_heads(c, &text)) < 0 || (rc = read_rope(c, &text)) < 0
        || (rc = read_refused(c, &text)) < 0)
        return rc;

    if ((rc = get_bool(&text, "tie_word_embeddings", true, &tied)) < 0
        || (rc = get_bool(&top, "tie_word_embeddings", tied, &c->tied)) < 0)
        return rc;
    rc = get_ids(&text, "eos_token_id", c->vocab, c->eos, MODEL_EOS_MAX, &c->n_eos);
    return rc < 0 ? rc : get_ids(&top, "eos_token_id", c->vocab, c->eos, MODEL_EOS_MAX, &c->n_eos);
}

static int read_generation(struct model_conf *c, const struct json *root, struct err *e)
{
    struct obj o = { root, "generation_config.json", "", e };
    int rc;

    if ((rc = get_ids(&o, "eos_token_id", c->vocab, c->eos, MODEL_EOS_MAX, &c->n_eos)) < 0
        || (rc = get_ids(&o, "suppress_tokens", c->vocab, c->suppress, MODEL_SUPPRESS_MAX,
                         &c->n_suppress)) < 0
        || (rc = get_float(&o, "temperature", 0, 100, 1, &c->temperature)) < 0
        || (rc = get_float(&o, "top_p", 1e-6, 1, 1, &c->top_p)) < 0)
        return rc;
    return get_int(&o, "top_k", 0, CONF_VOCAB_MAX, 0, &c->top_k_default);
}

static void set_name(struct model_conf *c, const char *dir)
{
    char *real = realpath(dir, NULL);
    const char *s = real != NULL ? real : dir, *slash = strrchr(s, '/');

    snprintf(c->name, sizeof(c->name), "%s", slash != NULL && slash[1] != '\0' ? slash + 1 : s);
    free(real);
}

int model_conf_load(struct model_conf *c, const char *dir, struct err *e)
{
    const struct json *root;
    struct json_doc *doc;
    int rc;

    memset(c, 0, sizeof(*c));
    c->temperature = c->top_p = 1;
    c->eos[0] = c->n_eos = 1;
    set_name(c, dir);

    if ((rc = load(dir, "config.json", false, &doc, &root, e)) < 0)
        return rc;
    rc = read_config(c, root, e);
    json_free(doc);
    if (rc < 0)
        return rc;

    if ((rc = load(dir, "generation_config.json", true, &doc, &root, e)) < 0 || doc == NULL)
        return rc;
    rc = read_generation(c, root, e);
    json_free(doc);
    return rc;
}

int32_t model_kv_layer(const struct model_conf *c, int32_t il)
{
    int32_t n_own = c->n_layer - c->n_kv_shared, i;

    if (il < n_own)
        return il;
    for (i = n_own - 1; i >= 0 && c->is_full[i] != c->is_full[il]; i--)
        ;
    return i;
}

int32_t model_n_rot(const struct model_conf *c, bool full)
{
    return full ? (int32_t) (c->rope_partial_full * (float) c->head_full / 2)
                : c->head_sliding / 2;
}

/* n_rot a multiple of 8: then 16 bytes of bf16, which is what kernels fetch, are all K's or V's. A
 * quarter at most: what the smallest GPU has room for beside V. */
int32_t model_k_dim(const struct model_conf *c, bool full)
{
    int32_t dim = full ? c->head_full : c->head_sliding, turned = 2 * model_n_rot(c, full);

    return full && c->k_eq_v && turned > 0 && turned % 16 == 0 && turned <= dim / 4 ? turned : dim;
}
