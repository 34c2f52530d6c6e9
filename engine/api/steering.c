#include "steering.h"

#include <stdlib.h>
#include <string.h>

#include "sampling_in.h"

struct lists {                         /* of one request, in its block */
    int32_t  *bias_id, *word, n_bias, n_word;
    float    *bias;
    uint32_t *allow, *seen;            /* seen: of the first prompt, the others behind it */
};

static int foreign_id(const char *param, int64_t id, const struct api *a, struct api_err *e)
{
    return api_err_400(e, "invalid_value", param, "'%s': %lld is outside the vocabulary of %d.",
                       param, (long long) id, a->mc->vocab);
}

static void set_bit(uint32_t *mask, int32_t id)
{
    mask[id / 32] |= 1u << id % 32;
}

static int fill_bias(struct lists *l, const struct api *a, const struct json *o, struct api_err *e)
{
    double x;

    for (const struct json *m = o != NULL ? o->child : NULL; m != NULL; m = m->next) {
        int64_t id = sampling_bias_id(m->key);

        if (id < 0 || id >= a->mc->vocab || json_double(m, &x) != 0)
            return foreign_id("logit_bias", id, a, e);
        l->bias_id[l->n_bias] = (int32_t) id;
        l->bias[l->n_bias++] = (float) x;
    }
    return 0;
}

static int fill_allowed(struct lists *l, const struct api *a, const struct json *list,
                        struct api_err *e)
{
    int64_t id;

    for (const struct json *m = list != NULL ? list->child : NULL; m != NULL; m = m->next) {
        if (json_int(m, &id) != 0 || id < 0 || id >= a->mc->vocab)
            return foreign_id("allowed_token_ids", id, a, e);
        set_bit(l->allow, (int32_t) id);
    }
    return 0;
}

static int put_word(struct lists *l, const struct ids *ids, struct api_err *e)
{
    if (ids->n == 0)
        return 0;
    if (ids->n >= (size_t) (STEER_WORD_MAX - l->n_word))
        return api_err_400(e, "invalid_value", "bad_words", "'bad_words' may have at most %d "
                           "tokens, counting one more for each word.", STEER_WORD_MAX);
    l->word[l->n_word++] = (int32_t) ids->n;
    memcpy(l->word + l->n_word, ids->p, ids->n * sizeof(int32_t));
    l->n_word += (int32_t) ids->n;
    return 0;
}

/* The ids of a word at the start of a text and, where a space before it makes another first id of
 * it, behind a space. */
static int put_both(struct lists *l, const struct tok *t, struct slice word, struct ids *ids,
                    struct api_err *e)
{
    char    text[1 + API_BAD_WORD_BYTES_MAX] = " ";
    int32_t first = -1;
    size_t  n = 0;
    struct err err;

    while (word.n > 0 && word.p[0] == ' ') {
        word.p++;
        word.n--;
    }
    memcpy(text + 1, word.p, word.n);
    for (int space = 0; space < 2; space++) {
        ids->n = 0;
        if (tok_encode(t, text + 1 - space, word.n + (size_t) space, true, ids, &err) != 0)
            return err.code == E_INVALID
                   ? api_err_400(e, "invalid_value", "bad_words", "%s", err.msg) : E_FULL;
        if (space && (ids->n != n || ids->n == 0 || ids->p[0] == first))
            break;
        if (put_word(l, ids, e) != 0)
            return E_INVALID;
        n = ids->n;
        first = n > 0 ? ids->p[0] : -1;
    }
    return 0;
}

static int fill_words(struct lists *l, const struct api *a, const struct json *list,
                      struct api_err *e)
{
    struct ids ids = { 0 };
    int        rc = 0;

    if (list == NULL || list->n == 0)
        return 0;
    if (a->tok == NULL)
        return api_err_400(e, "unsupported_parameter", "bad_words", "The model directory has no "
                           "tokenizer.json: 'bad_words' cannot be read.");
    for (const struct json *m = list->child; m != NULL && rc == 0; m = m->next)
        rc = put_both(l, a->tok, m->text, &ids, e);
    ids_free(&ids);
    return rc;
}

/* The block: a steer for each prompt, then the lists. */
static int take_block(struct steering *s, struct lists *l, const struct ask *ask, int32_t n_prompt,
                      size_t mask)
{
    size_t n_bias = ask->logit_bias != NULL ? ask->logit_bias->n : 0;
    size_t n_word = ask->bad_words != NULL ? STEER_WORD_MAX : 0;
    size_t n_allow = ask->allowed_ids != NULL ? mask : 0;
    size_t n_seen = ask->repetition != 1 ? mask * (size_t) n_prompt : 0;
    size_t head = (size_t) n_prompt * sizeof(struct steer);
    char  *p = calloc(1, head + (2 * n_bias + n_word + n_allow + n_seen) * sizeof(int32_t));

    if (p == NULL)
        return E_FULL;
    s->block = p;
    s->of = (struct steer *) p;
    l->bias_id = (int32_t *) (p + head);
    l->bias = (float *) (l->bias_id + n_bias);
    l->word = l->bias_id + 2 * n_bias;
    l->allow = n_allow > 0 ? (uint32_t *) (l->word + n_word) : NULL;
    l->seen = n_seen > 0 ? (uint32_t *) (l->word + n_word) + n_allow : NULL;
    return 0;
}

static void set_all(struct steering *s, const struct lists *l, const struct ask *ask,
                    const struct prompt_set *ps, size_t mask)
{
    for (int32_t i = 0; i < ps->n; i++) {
        uint32_t *seen = l->seen != NULL ? l->seen + mask * (size_t) i : NULL;

        for (size_t k = i > 0 ? ps->end[i - 1] : 0; seen != NULL && k < ps->end[i]; k++)
            set_bit(seen, ps->ids.p[k]);
        s->of[i] = (struct steer) {
            .presence = (float) ask->presence, .frequency = (float) ask->frequency,
            .repetition = (float) ask->repetition, .force = -1,
            .bias_id = l->bias_id, .bias = l->bias, .n_bias = l->n_bias,
            .word = l->word, .n_word = l->n_word, .allow = l->allow, .seen = seen };
    }
}

/* The budget counts what is behind "<|channel>thought\n". */
static int set_think(struct steering *s, const struct api *a, const struct ask *ask,
                     const struct prompt_set *ps)
{
    int64_t    budget = ask->thinking_budget >= 0 ? ask->thinking_budget : ask->effort_budget;
    struct ids name = { 0 };
    size_t     i = ps->ids.n;
    struct err err;

    s->think.budget = -1;
    if (budget < 0 || a->tok == NULL || a->ids.channel < 0 || a->ids.channel_end < 0)
        return 0;
    if (tok_encode(a->tok, "thought\n", 8, false, &name, &err) != 0)
        return E_FULL;

    while (i > 0 && ps->ids.p[i - 1] != a->ids.channel && ps->ids.p[i - 1] != a->ids.channel_end)
        i--;
    s->close = a->ids.channel_end;
    s->think = (struct req_think) {
        .open = a->ids.channel, .n_free = (int32_t) name.n, .budget = (int32_t) budget,
        .close = &s->close, .n_close = 1,
        .inside = i > 0 && ps->ids.p[i - 1] == a->ids.channel };
    ids_free(&name);
    return 0;
}

int steering_open(struct steering *s, const struct api *a, const struct ask *ask,
                  const struct prompt_set *ps, struct api_err *e)
{
    struct lists l = { 0 };
    size_t       mask = (size_t) steer_mask_words(a->mc->vocab);
    int          rc;

    if (set_think(s, a, ask, ps) != 0)
        return E_FULL;
    if (ask->presence == 0 && ask->frequency == 0 && ask->repetition == 1
        && (ask->logit_bias == NULL || ask->logit_bias->n == 0) && ask->allowed_ids == NULL
        && (ask->bad_words == NULL || ask->bad_words->n == 0))
        return 0;

    if ((rc = take_block(s, &l, ask, ps->n, mask)) != 0
        || (rc = fill_bias(&l, a, ask->logit_bias, e)) != 0
        || (rc = fill_allowed(&l, a, ask->allowed_ids, e)) != 0
        || (rc = fill_words(&l, a, ask->bad_words, e)) != 0)
        return rc;
    set_all(s, &l, ask, ps, mask);
    return 0;
}

void steering_close(struct steering *s)
{
    free(s->block);
}
