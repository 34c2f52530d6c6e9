/* kernels_tune.c - makes kernels/gemm_table.inc: for each matrix of Gemma 4 26B-A4B and each number
 * of rows all that cuBLASLt proposes and our own tiles are timed, and the fastest is printed. What
 * the library likes best stays where nothing is faster by more than NOISE. */
#include "kernels.h"

#define WAYS  32
#define NOISE 0.98

struct tune_case { struct gemm g; struct gemm_lt *lt; };

static void launch_lt(const void *p)
{
    const struct tune_case *c = p;

    if (gemm_lt_cuda(c->lt, &c->g, stream) <= 0)
        check(cudaErrorLaunchFailure);
}

static void launch_tile(const void *p)
{
    gemm_tile_cuda(&((const struct tune_case *) p)->g, stream);
}

/* The first and the last row against the twin, and twice the same bytes. */
static double way_deviation(const struct tune_case *c, const float *in, const struct weights *w,
                            launch_fn *launch)
{
    size_t rows = (size_t) w->host.rows, n = rows * (size_t) c->g.n_row;
    float *want = numbers(rows, 1), *first = malloc(2 * n * sizeof(float)), *second = first + n;
    double d = 0;
    struct err e;

    if (first == NULL)
        check(cudaErrorMemoryAllocation);
    launch(c);
    check(cudaMemcpyAsync(first, c->g.y, n * sizeof(float), cudaMemcpyDeviceToHost, stream));
    launch(c);
    check(cudaMemcpyAsync(second, c->g.y, n * sizeof(float), cudaMemcpyDeviceToHost, stream));
    check(cudaStreamSynchronize(stream));
    for (int64_t k = 0; k < 2; k++) {
        int64_t row = k * (c->g.n_row - 1);

        op_linear(twin, &(struct linear) {
            .g = { { want, in + row * w->host.cols, w->host, 1 } }, .n = 1 });
        be_sync(twin, &e);
        d = fmax(d, deviation_floats(c->g.y + row * w->host.rows, want, rows));
    }
    d = memcmp(first, second, n * sizeof(float)) == 0 ? d : INFINITY;
    free(want);
    free(first);
    return d;
}

static void print_entry(const struct gemm_entry *e, double us, double favourite, double tiles)
{
    const struct gemm_way *w = &e->way;

    printf("    { %lld, %d, %d, { %d, %d, %d, %d, %d, %d, %d, 0x%x, %d, %d } }, /* %.1f us, %.1f,"
           " %.1f */\n", (long long) e->rows, e->cols, e->n_row, w->own, w->id, w->tile,
           w->stages, w->split_k, w->reduction, w->swizzle, (unsigned) w->custom, w->inner,
           w->cluster, us, favourite, tiles);
    fflush(stdout);
}

static void tune(struct gemm_lt *lt, const struct weights *w, const float *in, int32_t n_row)
{
    size_t cols = (size_t) w->host.cols;
    struct tune_case c = { { dev((size_t) n_row * (size_t) w->host.rows * sizeof(float)),
                             dev_halves(in, (size_t) n_row * cols), w->dev, n_row }, lt };
    struct gemm_way way[WAYS], own = { .own = 1 };
    struct gemm_entry best = { w->host.rows, w->host.cols, n_row, own };
    int n = gemm_lt_ways(lt, &c.g, way, WAYS);
    double tiles = time_us(launch_tile, &c), us = INFINITY, favourite = NAN, d;

    for (int i = 0; i < n; i++) {
        double t;

        if (!gemm_lt_force(lt, &c.g, &way[i]))
            continue;
        t = time_us(launch_lt, &c);
        favourite = i == 0 ? t : favourite;
        if (t < us * NOISE) {
            us = t;
            best.way = way[i];
        }
    }
    if (tiles < us * NOISE) {
        us = tiles;
        best.way = own;
    }
    d = way_deviation(&c, in, w, gemm_lt_force(lt, &c.g, &best.way) ? launch_lt : launch_tile);
    if (!(d <= 1e-4))
        fail("tune %lld x %d, %d rows: deviation %.2g", (long long) w->host.rows, w->host.cols,
             n_row, d);
    print_entry(&best, us, favourite, tiles);
    cudaFree(c.g.y);
    cudaFree((void *) (uintptr_t) c.g.x);
}

void tune_all(void)
{
    static const int64_t shape[][2] = {
        { 4096, HIDDEN }, { 2048, HIDDEN }, { 8192, HIDDEN }, { 1024, HIDDEN }, { HIDDEN, 4096 },
        { HIDDEN, 8192 }, { DENSE, HIDDEN }, { EXPERTS, HIDDEN }, { HIDDEN, DENSE },
        { VOCAB, HIDDEN } };
    static const int32_t n_row[] = { 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024,
                                     1536, 2048, 3072, 4096, 6144, 8192 };
    struct gemm_lt *lt = gemm_lt_open();
    struct cudaDeviceProp gpu;

    check(cudaGetDeviceProperties(&gpu, 0));
    if (lt == NULL)
        check(cudaErrorSharedObjectInitFailed);
    printf("/* gemm_table.inc - how products of many rows are made; gemm_lt.h says how it is used."
           "\n * Made by `build/bench/kernels --tune`: cold L2, medians of %d. rows, cols, up to"
           " n_row, struct\n * gemm_way; behind it its time, that of the library's favourite, that"
           " of our tiles. */\n#define GEMM_TABLE_GPU \"%s\"\n#define GEMM_TABLE_LT  %zu\n\n"
           "static const struct gemm_entry gemm_table[] = {\n", ROUNDS, gpu.name,
           gemm_lt_version(lt));
    for (size_t s = 0; s < sizeof(shape) / sizeof(shape[0]); s++) {
        int32_t most = shape[s][0] == VOCAB ? SAMPLE_ROW_MAX : TOK_MAX;
        float *in = numbers((size_t) most * (size_t) shape[s][1], 1);
        struct weights w = weights_new(shape[s][0], (int32_t) shape[s][1], 7);

        for (size_t i = 0; i < sizeof(n_row) / sizeof(n_row[0]); i++)
            if (n_row[i] <= most && (n_row[i] > GEMM_HOPPER_TOK || shape[s][0] == VOCAB)
                && wanted(n_row[i]))
                tune(lt, &w, in, n_row[i]);
        free(in);
    }
    printf("};\n");
    gemm_lt_close(lt);
}
