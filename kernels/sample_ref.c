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

static float logprob(const float *x, int32_t n, int32_t target)
{
    float max = x[argmax(x, n)];
    double sum = 0;

    for (int32_t i = 0; i < n; i++)
        sum += (double) expf(x[i] - max);
    return (float) ((double) (x[target] - max) - log(sum));
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

const char *sample_ref(const struct sample_row *r, int32_t *scratch)
{
    float *x = r->logits, max;
    int32_t best, n = 0, *id = scratch, *kept = scratch + r->vocab;

    if (!finite_row(x, r->vocab))
        return "a logit is not a finite number";

    for (int32_t i = 0; r->softcap > 0 && i < r->vocab; i++)
        x[i] = r->softcap * tanhf(x[i] / r->softcap);
    if (r->logits_out != NULL)
        memcpy(r->logits_out, x, (size_t) r->vocab * sizeof(float));
    if (r->logprob != NULL)
        *r->logprob = logprob(x, r->vocab, r->target);

    for (int32_t b = 0; b < 2; b++)
        for (int32_t i = 0; i < r->n_ban[b]; i++)
            x[r->ban[b][i]] = -INFINITY;

    best = argmax(x, r->vocab);
    max = x[best];
    if (isinf(max))
        return "every id is suppressed";
    if (r->temperature == 0) {
        *r->tok = best;
        return NULL;
    }

    for (int32_t i = 0; i < r->vocab; i++)
        if (!isinf(x[i]))
            id[n++] = i;

    if (r->top_k > 0 || r->top_p < 1) {
        n = cut(r, max, id, n, kept);
        id = kept;
    }
    *r->tok = draw(r, id, n, max);
    return NULL;
}
