/* kernels_sample.c - draws from rows of the model's vocabulary. deviation: the part of the rows
 * whose id is not the twin's. */
#include "kernels.h"

/* A row that is bent has as many biases, and as many generated ids behind it. */
enum { BIASES = 300, PAST = 400, MASK = VOCAB / 32,
       STEER = sizeof(struct steer_head) / sizeof(int32_t) + 2 * BIASES + 2 * MASK + PAST };

struct sample_case {
    struct sample_row *row;                /* [n_row] of the device */
    int32_t            n_row, *bad;
    void              *scratch;
    float             *logits, *fresh;     /* [n_row, VOCAB] of the rows, and as they were */
};

static void launch_sample(const void *p)
{
    const struct sample_case *c = p;

    sample_cap_cuda(c->row, c->n_row, VOCAB, c->scratch, stream);
    sample_draw_cuda(c->row, c->n_row, VOCAB, c->bad, c->scratch, stream);
}

static void refresh(const void *p)
{
    const struct sample_case *c = p;

    check(cudaMemcpyAsync(c->logits, c->fresh, (size_t) c->n_row * VOCAB * sizeof(float),
                          cudaMemcpyDeviceToDevice, stream));
}

/* Logits about as a model's: most in a bell, a few above it. */
static float *sample_logits(size_t n)
{
    float *v = malloc(n * sizeof(float));

    if (v == NULL)
        check(cudaErrorMemoryAllocation);
    for (size_t i = 0; i < n; i++) {
        v[i] = 2.5f * (uniform() + uniform() + uniform() + uniform());
        if (next() % 8192 == 0)
            v[i] += 6;
    }
    return v;
}

/* [n_row, STEER]: penalties, biases all over the row, a mask that allows half of the ids, a prompt
 * of as many ids as it has words, generated ids of which each came about twice. */
static int32_t *sample_steer(int32_t n_row)
{
    const struct steer_head head = { .presence = 1.5f, .frequency = 0.25f, .repetition = 1.3f,
                                     .force = -1, .n_bias = BIASES, .has_allow = 1, .has_seen = 1,
                                     .n_gen = PAST };
    int32_t *all = malloc((size_t) n_row * STEER * sizeof(*all)), *w = all;

    if (w == NULL)
        check(cudaErrorMemoryAllocation);
    for (int32_t r = 0; r < n_row; r++) {
        int32_t first = (int32_t) (next() % VOCAB);

        memcpy(w, &head, sizeof(head));
        w += sizeof(head) / sizeof(*w);
        for (int32_t i = 0; i < BIASES; i++)
            *w++ = (first + i * (VOCAB / BIASES)) % VOCAB;
        for (int32_t i = 0; i < BIASES; i++, w++)
            memcpy(w, &(float) { (float) (i % 9) - 4 }, sizeof(float));
        for (int32_t i = 0; i < MASK; i++)
            *w++ = (int32_t) next();
        for (int32_t i = 0; i < MASK; i++)
            *w++ = (int32_t) (1u << next() % 32);
        for (int32_t i = 0; i < PAST; i++)
            *w++ = (int32_t) (next() % (PAST / 2)) * (VOCAB / (PAST / 2));
    }
    return all;
}

/* How many of the rows have another id than the twin's. steer: [n_row, STEER] of the host, NULL:
 * nothing bends them. */
static double sample_deviation(struct sample_row *row, float *logits, const int32_t *steer,
                               int32_t n_row, const int32_t *tok)
{
    int32_t *scratch = malloc(SAMPLE_SCRATCH * VOCAB * sizeof(int32_t)), id, n = 0;
    int32_t lp_id[1 + SAMPLE_TOP_MAX];
    float lp[1 + SAMPLE_TOP_MAX];

    if (scratch == NULL)
        check(cudaErrorMemoryAllocation);
    for (int32_t i = 0; i < n_row; i++) {
        struct sample_row r = row[i];

        r.logits = logits + (size_t) i * VOCAB;
        r.tok = &id;
        r.steer = steer != NULL ? steer + (size_t) i * STEER : NULL;
        r.lp_id = r.lp != NULL ? lp_id : NULL;
        r.lp = r.lp != NULL ? lp : NULL;
        n += sample_ref(&r, scratch) != NULL || id != tok[i];
    }
    free(scratch);
    return (double) n / n_row;
}

/* like: temperature, top_k, top_p, n_top; logprobs if there are any. */
static void bench_sample(const char *name, const struct sample_row *like, bool steered,
                         int32_t n_row)
{
    size_t n = (size_t) n_row * VOCAB;
    size_t n_steer = steered ? (size_t) n_row * STEER : 0;
    float *logits = sample_logits(n);
    int32_t *steer = steered ? sample_steer(n_row) : NULL;
    int32_t *steer_dev = steered ? dev_copy(steer, n_steer * sizeof(*steer)) : NULL;
    int32_t tok[SAMPLE_ROW_MAX], *tok_dev = dev(sizeof(tok));
    int32_t *lp_id = dev(SAMPLE_ROW_MAX * (1 + SAMPLE_TOP_MAX) * sizeof(int32_t));
    float *lp = dev(SAMPLE_ROW_MAX * (1 + SAMPLE_TOP_MAX) * sizeof(float));
    struct sample_row row[SAMPLE_ROW_MAX];
    struct sample_case c = { .n_row = n_row, .logits = dev_copy(logits, n * sizeof(float)),
                             .fresh = dev_copy(logits, n * sizeof(float)) };
    char shape[32];
    struct row r = { .name = name, .shape = shape, .limit = 1.0 / 32 };

    for (int32_t i = 0; i < n_row; i++) {
        row[i] = *like;
        row[i].logits = c.logits + (size_t) i * VOCAB;
        row[i].steer = steered ? steer_dev + (size_t) i * STEER : NULL;
        row[i].tok = tok_dev + i;
        row[i].lp_id = like->n_top > 0 ? lp_id + i * (1 + SAMPLE_TOP_MAX) : NULL;
        row[i].lp = like->n_top > 0 ? lp + i * (1 + SAMPLE_TOP_MAX) : NULL;
        row[i].vocab = VOCAB;
        row[i].softcap = 30;
        row[i].target = row[i].none = -1;
        row[i].seed = (uint64_t) next() << 32 | next();
    }
    c.row = dev_copy(row, sizeof(row));
    c.bad = dev(sizeof(tok));
    c.scratch = dev(sample_cuda_scratch(n_row, VOCAB));

    launch_sample(&c);
    check(cudaStreamSynchronize(stream));
    check(cudaMemcpy(tok, tok_dev, sizeof(tok), cudaMemcpyDeviceToHost));
    r.deviation = sample_deviation(row, logits, steer, n_row, tok);
    r.us = time_after_us(refresh, launch_sample, &c);
    r.bytes = (2.0 * (double) n + (double) n_steer) * sizeof(float);
    snprintf(shape, sizeof(shape), "%d rows", n_row);
    report(&r);
    free(logits);
    free(steer);
    cudaFree(steer_dev);
    cudaFree(c.logits);
    cudaFree(c.fresh);
    cudaFree(tok_dev);
    cudaFree(lp_id);
    cudaFree(lp);
    cudaFree(c.row);
    cudaFree(c.bad);
    cudaFree(c.scratch);
}

void bench_samples(void)
{
    static const int32_t n_row[] = { 1, 64 };
    static const struct { const char *name; struct sample_row row; bool steered; } like[] = {
        { "sample greedy", { .top_p = 1 }, false },
        { "sample top_k 64 top_p 0.95", { .temperature = 1, .top_k = 64, .top_p = 0.95f }, false },
        { "sample top_p 0.95", { .temperature = 1, .top_p = 0.95f }, false },
        { "sample", { .temperature = 1, .top_p = 1 }, false },
        { "sample greedy 20 logprobs", { .top_p = 1, .n_top = SAMPLE_TOP_MAX }, false },
        { "sample steered", { .temperature = 1, .top_k = 64, .top_p = 0.95f }, true },
    };

    for (int n = 0; n < 2; n++)
        for (size_t i = 0; i < sizeof(like) / sizeof(like[0]); i++)
            if (wanted(n_row[n]))
                bench_sample(like[i].name, &like[i].row, like[i].steered, n_row[n]);
}
