/* kernels_sample.c - draws from rows of the model's vocabulary. deviation: the part of the rows
 * whose id is not the twin's. */
#include "kernels.h"

struct sample_case {
    struct sample_row *row;                /* [n_row] of the device */
    int32_t            n_row, *bad;
    void              *scratch;
};

static void launch_sample(const void *p)
{
    const struct sample_case *c = p;

    sample_cap_cuda(c->row, c->n_row, VOCAB, c->scratch, stream);
    sample_draw_cuda(c->row, c->n_row, VOCAB, c->bad, c->scratch, stream);
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

/* How many of the rows have another id than the twin's. */
static double sample_deviation(struct sample_row *row, float *logits, int32_t n_row,
                               const int32_t *tok)
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
        r.lp_id = r.lp != NULL ? lp_id : NULL;
        r.lp = r.lp != NULL ? lp : NULL;
        n += sample_ref(&r, scratch) != NULL || id != tok[i];
    }
    free(scratch);
    return (double) n / n_row;
}

/* like: temperature, top_k, top_p, n_top; logprobs if there are any. */
static void bench_sample(const char *name, const struct sample_row *like, int32_t n_row)
{
    size_t n = (size_t) n_row * VOCAB;
    float *logits = sample_logits(n), *on_dev = dev_copy(logits, n * sizeof(float));
    int32_t tok[SAMPLE_ROW_MAX], *tok_dev = dev(sizeof(tok));
    int32_t *lp_id = dev(SAMPLE_ROW_MAX * (1 + SAMPLE_TOP_MAX) * sizeof(int32_t));
    float *lp = dev(SAMPLE_ROW_MAX * (1 + SAMPLE_TOP_MAX) * sizeof(float));
    struct sample_row row[SAMPLE_ROW_MAX];
    struct sample_case c = { .n_row = n_row };
    char shape[32];
    struct row r = { .name = name, .shape = shape, .limit = 1.0 / 32 };

    for (int32_t i = 0; i < n_row; i++) {
        row[i] = *like;
        row[i].logits = on_dev + (size_t) i * VOCAB;
        row[i].tok = tok_dev + i;
        row[i].lp_id = like->n_top > 0 ? lp_id + i * (1 + SAMPLE_TOP_MAX) : NULL;
        row[i].lp = like->n_top > 0 ? lp + i * (1 + SAMPLE_TOP_MAX) : NULL;
        row[i].vocab = VOCAB;
        row[i].softcap = 1e4f;             /* so high that it may be done again and again */
        row[i].target = row[i].none = -1;
        row[i].seed = (uint64_t) next() << 32 | next();
    }
    c.row = dev_copy(row, sizeof(row));
    c.bad = dev(sizeof(tok));
    c.scratch = dev(sample_cuda_scratch(n_row, VOCAB));

    launch_sample(&c);
    check(cudaStreamSynchronize(stream));
    check(cudaMemcpy(tok, tok_dev, sizeof(tok), cudaMemcpyDeviceToHost));
    r.deviation = sample_deviation(row, logits, n_row, tok);
    r.us = time_us(launch_sample, &c);
    r.bytes = 2.0 * (double) n * sizeof(float);
    snprintf(shape, sizeof(shape), "%d rows", n_row);
    report(&r);
    free(logits);
    cudaFree(on_dev);
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
    static const struct { const char *name; struct sample_row row; } like[] = {
        { "sample greedy", { .top_p = 1 } },
        { "sample top_k 64 top_p 0.95", { .temperature = 1, .top_k = 64, .top_p = 0.95f } },
        { "sample top_p 0.95", { .temperature = 1, .top_p = 0.95f } },
        { "sample", { .temperature = 1, .top_p = 1 } },
        { "sample greedy 20 logprobs", { .top_p = 1, .n_top = SAMPLE_TOP_MAX } },
    };

    for (int n = 0; n < 2; n++)
        for (size_t i = 0; i < sizeof(like) / sizeof(like[0]); i++)
            if (wanted(n_row[n]))
                bench_sample(like[i].name, &like[i].row, n_row[n]);
}
