/* sample_ref.c - the definition of sampling. Sums are doubles in a fixed order. */
#include "sample.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

double sample_uniform(uint64_t seed, uint64_t pos)
{
    uint64_t x = mix(mix(seed + 0x9e3779b97f4a7c15ull) + (pos + 1) * 0x9e3779b97f4a7c15ull);

    return (double) (x >> 11) * 0x1p-53;
}

static bool finite_row(const float *x, int32_t n)
{
    uint32_t bad = 0, u;

    for (int32_t i = 0; i < n; i++) {
        memcpy(&u, &x[i], sizeof(u));
        bad |= (u & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

static int32_t argmax(const float *x, int32_t n)
{
    int32_t best = 0;

    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* A heap of ids, largest logit first, lowest id on ties. */
struct heap { const float *x; int32_t *id; int32_t n; };

static bool before(const struct heap *h, int32_t a, int32_t b)
{
    return h->x[a] > h->x[b] || (h->x[a] == h->x[b] && a < b);
}

static void sift(struct heap *h, int32_t i)
{
    int32_t top = h->id[i], c;

    while ((c = 2 * i + 1) < h->n) {
        if (c + 1 < h->n && before(h, h->id[c + 1], h->id[c]))
            c++;
        if (!before(h, h->id[c], top))
            break;
        h->id[i] = h->id[c];
        i = c;
    }
    h->id[i] = top;
}

static int32_t pop(struct heap *h)
{
    int32_t id = h->id[0];

    h->id[0] = h->id[--h->n];
    if (h->n > 0)
        sift(h, 0);
    return id;
}

/* Weight of an id, relative to the largest. */
static double weight(const struct sample_row *r, int32_t id, float max)
{
    return exp((double) (r->logits[id] - max) / (double) r->temperature);
}

/* The candidates in kept order, sorted; returns how many. n ids are in scratch. */
static int32_t cut(const struct sample_row *r, float max, int32_t *id, int32_t n, int32_t *kept)
{
    struct heap h = { r->logits, id, n };
    int32_t n_max = r->top_k > 0 && r->top_k < n ? r->top_k : n, n_kept = 0;
    double all = 0, sum = 0;

    for (int32_t i = n / 2 - 1; i >= 0; i--)
        sift(&h, i);

    if (n_max < n) {                                   /* top_p counts within the top_k */
        while (n_kept < n_max) {
            kept[n_kept] = pop(&h);
            all += weight(r, kept[n_kept++], max);
        }
        n_kept = 0;
        while (n_kept < n_max && (n_kept == 0 || sum < (double) r->top_p * all))
            sum += weight(r, kept[n_kept++], max);
        return n_kept;
    }

    for (int32_t i = 0; i < n; i++)
        all += weight(r, id[i], max);
    while (n_kept < n && (n_kept == 0 || sum < (double) r->top_p * all)) {
        kept[n_kept] = pop(&h);
        sum += weight(r, kept[n_kept++], max);
    }
    return n_kept;
}

static int32_t draw(const struct sample_row *r, const int32_t *id, int32_t n, float max)
{
    double sum = 0, floor = (double) r->min_p, at, u;
    int32_t last = id[0];

    for (int32_t i = 0; i < n; i++) {
        double w = weight(r, id[i], max);

        sum += w >= floor ? w : 0;
    }

    u = sample_uniform(r->seed, (uint64_t) r->pos) * sum;
    at = 0;
    for (int32_t i = 0; i < n; i++) {
        double w = weight(r, id[i], max);

        if (w < floor || w == 0)
            continue;
        last = id[i];
        at += w;
        if (u < at)
            break;
    }
    return last;
}

/* --- logprobs --- */

/* logprob of id: x[id] - max - log_sum. */
struct lse { float max; double log_sum; };

static struct lse lse_of(const float *x, int32_t n)
{
    struct lse k = { x[argmax(x, n)], 0 };

    for (int32_t i = 0; i < n; i++)
        k.log_sum += (double) expf(x[i] - k.max);
    k.log_sum = log(k.log_sum);
    return k;
}

static float logprob(const struct lse *k, float x)
{
    return (float) ((double) (x - k->max) - k->log_sum);
}

static void put_target(const struct sample_row *r, const struct lse *k, const float *x, int32_t id)
{
    int32_t rank = 1;

    for (int32_t i = 0; i < r->vocab; i++)
        rank += x[i] > x[id];
    r->lp_id[0] = rank;
    r->lp[0] = logprob(k, x[id]);
}

static void put_top(const struct sample_row *r, const struct lse *k, int32_t *id)
{
    struct heap h = { r->logits, id, r->vocab };

    if (r->n_top == 0)
        return;
    for (int32_t i = 0; i < r->vocab; i++)
        id[i] = i;
    for (int32_t i = r->vocab / 2 - 1; i >= 0; i--)
        sift(&h, i);
    for (int32_t i = 1; i <= r->n_top; i++) {
        r->lp_id[i] = pop(&h);
        r->lp[i] = logprob(k, r->logits[r->lp_id[i]]);
    }
}

/* --- what bends a row --- */

static void add_bias(const struct steer_lists *s, float *x)
{
    for (int32_t i = 0; i < s->h->n_bias; i++)
        x[s->bias_id[i]] = steer_finite(x[s->bias_id[i]] + s->bias[i]);
}

static void penalise(const struct steer_lists *s, const int32_t *tail, float *x, int32_t vocab,
                     int32_t *count)
{
    int32_t n = steer_n_past(s), id;

    for (int32_t i = 0; s->h->has_seen && i < vocab; i++)
        if (sample_in(s->seen, i))
            x[i] = steer_repeat(s, x[i]);

    for (int32_t i = 0; i < n; i++)
        count[steer_past(s, tail, i)] = 0;
    for (int32_t i = 0; i < n; i++)
        count[steer_past(s, tail, i)]++;
    for (int32_t i = 0; i < n; i++) {
        id = steer_past(s, tail, i);
        if (count[id] > 0)
            x[id] = steer_penalty(s, id, x[id], count[id]);
        count[id] = 0;
    }
}

static void forbid(const struct steer_lists *s, const int32_t *tail, float *x, int32_t vocab)
{
    for (int32_t i = 0; s->h->has_allow && i < vocab; i++)
        if (!sample_in(s->allow, i))
            x[i] = -INFINITY;
    for (int32_t i = 0; i < s->h->n_stop; i++)
        x[s->stop[i]] = -INFINITY;
    for (int32_t i = 0; i < s->h->n_word; i += 1 + s->word[i]) {
        const int32_t *id = s->word + i + 1;
        int32_t n = s->word[i];

        if (steer_at_word(s, tail, id, n))
            x[id[n - 1]] = -INFINITY;
    }
}

/* The ids that may be drawn have finite logits after this, the others none. */
static void bend(const struct sample_row *r, int32_t *count)
{
    if (r->steer != NULL) {
        struct steer_lists s = steer_of(r->steer, r->vocab);

        add_bias(&s, r->logits);
        penalise(&s, r->tail, r->logits, r->vocab, count);
        forbid(&s, r->tail, r->logits, r->vocab);
    }
    for (int32_t b = 0; b < 2; b++)
        for (int32_t i = 0; i < r->n_ban[b]; i++)
            r->logits[r->ban[b][i]] = -INFINITY;
}

static int32_t choose(const struct sample_row *r, int32_t *scratch)
{
    int32_t best, n = 0, *id = scratch, *kept = scratch + r->vocab;
    float max;

    if (r->steer != NULL && ((const struct steer_head *) r->steer)->force >= 0)
        return ((const struct steer_head *) r->steer)->force;

    bend(r, scratch);
    best = argmax(r->logits, r->vocab);
    max = r->logits[best];
    if (isinf(max))
        return r->none;
    if (r->temperature == 0)
        return best;

    for (int32_t i = 0; i < r->vocab; i++)
        if (!isinf(r->logits[i]))
            id[n++] = i;
    if (r->top_k > 0 || r->top_p < 1) {
        n = cut(r, max, id, n, kept);
        id = kept;
    }
    return draw(r, id, n, max);
}

const char *sample_ref(const struct sample_row *r, int32_t *scratch)
{
    float *x = r->logits, *raw = (float *) (scratch + 2 * (size_t) r->vocab);
    struct lse k;

    if (!finite_row(x, r->vocab))
        return "a logit is not a finite number";

    for (int32_t i = 0; r->softcap > 0 && i < r->vocab; i++)
        x[i] = r->softcap * tanhf(x[i] / r->softcap);
    if (r->logits_out != NULL)
        memcpy(r->logits_out, x, (size_t) r->vocab * sizeof(float));
    if (r->lp != NULL) {
        k = lse_of(x, r->vocab);
        put_top(r, &k, scratch);
        memcpy(raw, x, (size_t) r->vocab * sizeof(float));
    }

    *r->tok = choose(r, scratch);
    if (*r->tok < 0)
        return "every id is suppressed";
    if (r->lp != NULL)
        put_target(r, &k, raw, r->target >= 0 ? r->target : *r->tok);
    return NULL;
}
