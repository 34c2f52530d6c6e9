/* kernels_stream.c - what moves the stream of a step's tokens between the products: embedding,
 * angles, joins, norms, activations, the rows that the head wants; and the random weights. Bytes of
 * few tokens are as nothing: a launch takes longer. */
#include "kernels.h"

static char shape[32];

static struct row row_of(const char *name, int32_t n_tok, double bytes, double limit)
{
    snprintf(shape, sizeof(shape), "%d tokens", n_tok);
    return (struct row) { .name = name, .shape = shape, .bytes = bytes, .limit = limit };
}

static void launch_ids(const void *p)
{
    next_ids_cuda(p, stream);
}

static void launch_embed(const void *p)
{
    embed_cuda(p, stream);
}

static void launch_rope(const void *p)
{
    rope_table_cuda(p, stream);
}

static void launch_join(const void *p)
{
    join_cuda(p, stream);
}

static void launch_gather(const void *p)
{
    gather_cuda(p, stream);
}

static void launch_norm(const void *p)
{
    norm_cuda(p, stream);
}

static void launch_to_act(const void *p)
{
    to_act_cuda(p, stream);
}

static void launch_geglu(const void *p)
{
    geglu_cuda(p, stream);
}

static void launch_fill(const void *p)
{
    fill_cuda(p, stream);
}

/* In a chain all find in the L2 what the one before has left there, as in a step. */
static void run(struct row *r, launch_fn *launch, const void *arg, int32_t n_tok)
{
    launch(arg);
    check(cudaStreamSynchronize(stream));
    r->us = n_tok > CHAIN_TOK ? time_us(launch, arg) : chain_us(launch, arg, 0, 1);
}

static int32_t *below(int32_t n, int32_t end)
{
    int32_t *v = malloc((size_t) n * sizeof(*v));

    if (v == NULL)
        check(cudaErrorMemoryAllocation);
    for (int32_t i = 0; i < n; i++)
        v[i] = (int32_t) (next() % (uint32_t) end);
    return v;
}

static void bench_ids(int32_t n_tok)
{
    size_t n = (size_t) n_tok, bytes = n * sizeof(int32_t);
    int32_t *id = below(n_tok, VOCAB), *last = below(n_tok, VOCAB), *from = below(n_tok, 2 * n_tok);
    int32_t *got = calloc(n, sizeof(*got));
    struct next_ids host = { calloc(n, sizeof(*got)), id, from, last, n_tok }, d;
    struct row r = row_of("next ids", n_tok, 4.0 * (double) bytes, 0);

    if (got == NULL || host.y == NULL)
        check(cudaErrorMemoryAllocation);
    for (int32_t i = 0; i < n_tok; i++)
        from[i] = from[i] < n_tok ? from[i] : -1;
    d = (struct next_ids) { dev(bytes), dev_copy(id, bytes), dev_copy(from, bytes),
                            dev_copy(last, bytes), n_tok };
    run(&r, launch_ids, &d, n_tok);
    next_ids_ref(&host, 0, n_tok);
    check(cudaMemcpy(got, d.y, bytes, cudaMemcpyDeviceToHost));
    r.deviation = memcmp(got, host.y, bytes) == 0 ? 0 : INFINITY;
    report(&r);
    cudaFree(d.y);
    cudaFree((void *) (uintptr_t) d.id);
    cudaFree((void *) (uintptr_t) d.from);
    cudaFree((void *) (uintptr_t) d.last);
    free(host.y);
    free(got);
    free(from);
    free(last);
    free(id);
}

static void bench_embed(const struct weights *w, int32_t n_tok)
{
    size_t n = (size_t) n_tok * HIDDEN;
    int32_t *id = below(n_tok, (int32_t) w->host.rows);
    struct embed host = { numbers(n, 1), id, w->host, 53, n_tok }, d = host;
    struct row r = row_of("embed", n_tok, 6.0 * (double) n, 0);

    d.y = dev(n * sizeof(float));
    d.id = dev_copy(id, (size_t) n_tok * sizeof(*id));
    d.w = w->dev;
    run(&r, launch_embed, &d, n_tok);
    embed_ref(&host, 0, n_tok);
    r.deviation = deviation_floats(d.y, host.y, n);
    report(&r);
    cudaFree(d.y);
    cudaFree((void *) (uintptr_t) d.id);
    free(host.y);
    free(id);
}

static void bench_rope(int32_t n_rot, int32_t n_tok)
{
    size_t n = (size_t) n_tok * 2 * (size_t) n_rot;
    int32_t *pos = below(n_tok, 131072);
    float *freq = numbers((size_t) n_rot, 1);
    struct rope_table host = { numbers(n, 1), pos, freq, n_tok, n_rot }, d = host;
    struct row r = row_of(n_rot == 64 ? "rope table global" : "rope table sliding", n_tok,
                          4.0 * (double) n, 1e-6);

    d.cs = dev(n * sizeof(float));
    d.pos = dev_copy(pos, (size_t) n_tok * sizeof(*pos));
    d.inv_freq = dev_floats(freq, (size_t) n_rot);
    run(&r, launch_rope, &d, n_tok);
    rope_table_ref(&host, 0, n_tok);
    r.deviation = deviation_floats(d.cs, host.cs, n);
    report(&r);
    cudaFree(d.cs);
    cudaFree((void *) (uintptr_t) d.pos);
    cudaFree((void *) (uintptr_t) d.inv_freq);
    free(host.cs);
    free(freq);
    free(pos);
}

/* Behind attention (one branch, three outputs) or behind the MLP (two branches, one output). */
static void bench_join(bool mlp, int32_t n_tok)
{
    size_t n = (size_t) n_tok * HIDDEN;
    float *w = numbers(HIDDEN, 1), *dw = dev_floats(w, HIDDEN), *x = numbers(n, 4);
    float *t[2] = { numbers(n, 4), numbers(n, 1) };
    struct join host = { .y = numbers(n, 1), .x = x, .t = { t[0], mlp ? t[1] : NULL },
                         .tw = { w, w }, .w = w, .scale = 0.5f, .eps = 1e-6f, .n_row = n_tok,
                         .dim = HIDDEN }, d = host;
    struct row r = row_of(mlp ? "join mlp" : "join attention", n_tok, 18.0 * (double) n, 4e-3);

    for (int i = 0; i < (mlp ? 1 : 3); i++) {
        host.out[i] = (struct join_out) { numbers(n, 1), w, 1 };
        d.out[i] = (struct join_out) { dev(n * 2), dw, 1 };
    }
    d.y = dev(n * sizeof(float));
    d.x = dev_floats(x, n);
    for (int i = 0; i < (mlp ? 2 : 1); i++)
        d.t[i] = dev_floats(t[i], n);
    d.w = d.tw[0] = d.tw[1] = dw;

    run(&r, launch_join, &d, n_tok);
    join_ref(&host, 0, n_tok);
    r.deviation = deviation_floats(d.y, host.y, n);
    for (int i = 0; i < (mlp ? 1 : 3); i++) {
        r.deviation = fmax(r.deviation, deviation_halves(d.out[i].y, host.out[i].y, n));
        cudaFree(d.out[i].y);
        free(host.out[i].y);
    }
    report(&r);
    cudaFree(d.y);
    cudaFree((void *) (uintptr_t) d.x);
    cudaFree(d.t[0]);
    cudaFree(d.t[1]);
    cudaFree(dw);
    free(host.y);
    free(x);
    free(t[0]);
    free(t[1]);
    free(w);
}

static void bench_gather(int32_t n_tok)
{
    size_t n = (size_t) n_tok * HIDDEN;
    int32_t *idx = below(n_tok, n_tok);
    float *x = numbers(n, 1);
    struct gather host = { numbers(n, 1), x, idx, n_tok, HIDDEN }, d = host;
    struct row r = row_of("gather", n_tok, 8.0 * (double) n, 0);

    d.y = dev(n * sizeof(float));
    d.x = dev_floats(x, n);
    d.idx = dev_copy(idx, (size_t) n_tok * sizeof(*idx));
    run(&r, launch_gather, &d, n_tok);
    gather_ref(&host, 0, n_tok);
    r.deviation = deviation_floats(d.y, host.y, n);
    report(&r);
    cudaFree(d.y);
    cudaFree((void *) (uintptr_t) d.x);
    cudaFree((void *) (uintptr_t) d.idx);
    free(host.y);
    free(x);
    free(idx);
}

/* As models with inputs of each layer have it: there is no other norm that a join does not make. */
static void bench_norm(int32_t n_tok)
{
    size_t n = (size_t) n_tok * HIDDEN;
    float *w = numbers(HIDDEN, 1), *x = numbers(n, 4), *add = numbers(n, 1);
    struct norm host = { .y = numbers(n, 1), .x = x, .w = w, .add = add, .eps = 1e-6f,
                         .scale = 0.7f, .in_scale = 0.02f, .n_row = n_tok, .dim = HIDDEN };
    struct norm d = host;
    struct row r = row_of("norm", n_tok, 12.0 * (double) n, 1e-5);

    d.y = dev(n * sizeof(float));
    d.x = dev_floats(x, n);
    d.w = dev_floats(w, HIDDEN);
    d.add = dev_floats(add, n);
    run(&r, launch_norm, &d, n_tok);
    norm_ref(&host, 0, n_tok);
    r.deviation = deviation_floats(d.y, host.y, n);
    report(&r);
    cudaFree(d.y);
    cudaFree((void *) (uintptr_t) d.x);
    cudaFree((void *) (uintptr_t) d.w);
    cudaFree((void *) (uintptr_t) d.add);
    free(host.y);
    free(add);
    free(x);
    free(w);
}

static void bench_to_act(int32_t n_tok)
{
    size_t n = (size_t) n_tok * HIDDEN;
    float *x = numbers(n, 1);
    struct to_act host = { numbers(n, 1), x, (int64_t) n }, d = host;
    struct row r = row_of("to act", n_tok, 6.0 * (double) n, 0);

    d.y = dev(n * 2);
    d.x = dev_floats(x, n);
    run(&r, launch_to_act, &d, n_tok);
    to_act_ref(&host, 0, host.n);
    r.deviation = deviation_halves(d.y, host.y, n);
    report(&r);
    cudaFree(d.y);
    cudaFree((void *) (uintptr_t) d.x);
    free(host.y);
    free(x);
}

static void bench_geglu(int32_t n_tok)
{
    size_t n = (size_t) n_tok * DENSE;
    float *gate = numbers(n, 4), *up = numbers(n, 1);
    struct geglu host = { numbers(n, 1), gate, up, n_tok, DENSE, DENSE }, d = host;
    struct row r = row_of("geglu", n_tok, 10.0 * (double) n, 4e-3);

    d.y = dev(n * 2);
    d.gate = dev_floats(gate, n);
    d.up = dev_floats(up, n);
    run(&r, launch_geglu, &d, n_tok);
    geglu_ref(&host, 0, n_tok);
    r.deviation = deviation_halves(d.y, host.y, n);
    report(&r);
    cudaFree(d.y);
    cudaFree((void *) (uintptr_t) d.gate);
    cudaFree((void *) (uintptr_t) d.up);
    free(host.y);
    free(gate);
    free(up);
}

/* Not of a step: a matrix of as many rows, when weights are made up. */
static void bench_fill(int32_t n_tok)
{
    size_t n = (size_t) n_tok * HIDDEN;
    uint16_t *want = malloc(n * 2), *got = malloc(n * 2);
    struct fill d = { dev(n * 2), (int64_t) n, 7 };
    struct row r = row_of("fill", n_tok, 2.0 * (double) n, 0);

    if (want == NULL || got == NULL)
        check(cudaErrorMemoryAllocation);
    run(&r, launch_fill, &d, n_tok);
    fill_ref(&(struct fill) { want, (int64_t) n, 7 }, 0, (int64_t) n);
    check(cudaMemcpy(got, d.y, n * 2, cudaMemcpyDeviceToHost));
    r.deviation = memcmp(got, want, n * 2) == 0 ? 0 : INFINITY;
    report(&r);
    cudaFree(d.y);
    free(got);
    free(want);
}

void bench_stream(void)
{
    static const int32_t n_tok[] = { 1, 64, 8192 };
    struct weights embed = weights_new(VOCAB / 8, HIDDEN, 4);

    for (size_t i = 0; i < sizeof(n_tok) / sizeof(n_tok[0]); i++) {
        if (!wanted(n_tok[i]))
            continue;
        bench_ids(n_tok[i]);
        bench_embed(&embed, n_tok[i]);
        bench_rope(128, n_tok[i]);
        bench_rope(64, n_tok[i]);
        bench_join(false, n_tok[i]);
        bench_join(true, n_tok[i]);
        bench_norm(n_tok[i]);
        bench_to_act(n_tok[i]);
        bench_geglu(n_tok[i]);
        bench_fill(n_tok[i]);
        if (n_tok[i] <= SAMPLE_ROW_MAX)
            bench_gather(n_tok[i]);
    }
}
