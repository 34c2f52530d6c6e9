/* kernels.c - the GPU's launchers at the shapes of Gemma 4 26B-A4B: each is compared with its twin,
 * then timed, of up to CHAIN_TOK tokens in a chain, of more, and draws, alone with a cold L2.
 *
 * usage: build/bench/kernels [--once] [NAME [TOKENS]]
 *        build/bench/kernels --tune [TOKENS]
 * Prints CSV. bytes: read once and written once; floor_pct: of the larger of bytes over 4.39 TB/s
 * and operations over 790 TFLOP/s, an H200's measured speeds. deviation: the largest from the
 * twin, relative to the twin's largest number. The exit code is 1 if one is over its limit, 2 if
 * there is no such row. TOKENS: only rows of so many.
 * --once: everything is launched once and not timed, for a profiler. --tune prints
 * kernels/gemm_table.inc instead (kernels_tune.c). */
#include "kernels.h"

#include <stdarg.h>

#define READ_SPEED 4.39e12
#define MATH_SPEED 790e12
#define FLUSH      (256u << 20)            /* bytes written between rounds: more than any L2 */
#define CHAIN      16                      /* launches of a chain, at least */

struct backend *twin;
struct hopper   hopper, base;
cudaStream_t    stream;
size_t          smem_max;

static void    *flush;
static uint64_t rng = 0x9e3779b97f4a7c15ull;
static int      n_bad, n_wanted;
static int32_t  only;                      /* TOKENS, 0: all */
static bool     once;

void check(cudaError_t rc)
{
    if (rc != cudaSuccess) {
        fprintf(stderr, "kernels: %s\n", cudaGetErrorString(rc));
        exit(1);
    }
}

void fail(const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "kernels: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\n");
    n_bad++;
}

bool wanted(int32_t n_tok)
{
    bool yes = only == 0 || only == n_tok;

    n_wanted += yes;
    return yes;
}

uint32_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t) (rng >> 32);
}

float uniform(void)
{
    return (float) next() * 0x1p-31f - 1;
}

float *numbers(size_t n, float scale)
{
    const size_t period = 15485863;
    float *v = malloc(n * sizeof(float));

    if (v == NULL)
        check(cudaErrorMemoryAllocation);
    for (size_t i = 0; i < n && i < period; i++)
        v[i] = scale * ((float) (next() % 511) / 256 - 1);
    for (size_t i = period; i < n; i += period)
        memcpy(v + i, v, (n - i < period ? n - i : period) * sizeof(float));
    return v;
}

void *dev(size_t bytes)
{
    void *p;

    check(cudaMalloc(&p, bytes));
    check(cudaMemset(p, 0xff, bytes));
    return p;
}

void *dev_copy(const void *p, size_t bytes)
{
    void *d = dev(bytes);

    check(cudaMemcpy(d, p, bytes, cudaMemcpyDefault));
    return d;
}

void *dev_floats(const float *v, size_t n)
{
    return dev_copy(v, n * sizeof(float));
}

void *dev_halves(const float *v, size_t n)
{
    uint16_t *h = malloc(n * 2);
    void *d;

    if (h == NULL)
        check(cudaErrorMemoryAllocation);
    for (size_t i = 0; i < n; i++)
        memcpy(&h[i], (const char *) &v[i] + 2, 2);
    d = dev_copy(h, n * 2);
    free(h);
    return d;
}

struct weights weights_new(int64_t rows, int32_t cols, uint64_t seed)
{
    size_t bytes = (size_t) rows * (size_t) cols * 2;
    struct weights w = { { be_alloc(twin, bytes), MAT_BF16, rows, cols },
                         { dev(bytes), MAT_BF16, rows, cols } };
    struct err e;

    if (w.host.p == NULL)
        check(cudaErrorMemoryAllocation);
    op_fill(twin, &(struct fill) { (void *) (uintptr_t) w.host.p, rows * cols, seed });
    be_sync(twin, &e);
    fill_cuda(&(struct fill) { (void *) (uintptr_t) w.dev.p, rows * cols, seed }, stream);
    return w;
}

double deviation_floats(const float *dev_got, const float *want, size_t n)
{
    float *got = malloc(n * sizeof(float));
    double d = 0, max = 0;

    if (got == NULL)
        check(cudaErrorMemoryAllocation);
    check(cudaMemcpy(got, dev_got, n * sizeof(float), cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < n; i++) {
        d = isfinite(got[i]) ? fmax(d, fabs((double) got[i] - (double) want[i])) : INFINITY;
        max = fmax(max, fabs((double) want[i]));
    }
    free(got);
    return max > 0 ? d / max : INFINITY;
}

double deviation_halves(const void *dev_got, const float *want, size_t n)
{
    uint16_t *got = malloc(n * 2);
    double d = 0, max = 0;

    if (got == NULL)
        check(cudaErrorMemoryAllocation);
    check(cudaMemcpy(got, dev_got, n * 2, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < n; i++) {
        float v = ((union { uint32_t u; float f; }) { (uint32_t) got[i] << 16 }).f;

        d = isfinite(v) ? fmax(d, fabs((double) v - (double) want[i])) : INFINITY;
        max = fmax(max, fabs((double) want[i]));
    }
    free(got);
    return max > 0 ? d / max : INFINITY;
}

static int by_size(const void *a, const void *b)
{
    return (*(const float *) a > *(const float *) b) - (*(const float *) a < *(const float *) b);
}

static double median_us(float ms[ROUNDS])
{
    qsort(ms, ROUNDS, sizeof(ms[0]), by_size);
    return (double) ms[ROUNDS / 2] * 1e3;
}

static float ms_between(cudaEvent_t from, cudaEvent_t to)
{
    float ms;

    check(cudaEventSynchronize(to));
    check(cudaGetLastError());
    check(cudaEventElapsedTime(&ms, from, to));
    return ms;
}

double time_us(launch_fn *launch, const void *arg)
{
    return time_after_us(NULL, launch, arg);
}

double time_after_us(launch_fn *before, launch_fn *launch, const void *arg)
{
    cudaEvent_t from, to;
    float ms[ROUNDS];

    if (once)
        return NAN;
    check(cudaEventCreate(&from));
    check(cudaEventCreate(&to));
    for (int i = 0; i < ROUNDS; i++) {
        if (before != NULL)
            before(arg);
        check(cudaMemsetAsync(flush, i, FLUSH, stream));
        check(cudaEventRecord(from, stream));
        launch(arg);
        check(cudaEventRecord(to, stream));
        ms[i] = ms_between(from, to);
    }
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    return median_us(ms);
}

int chain_copies(double bytes)
{
    return bytes > FLUSH ? 1 : bytes < FLUSH / 64 ? 64 : (int) (FLUSH / bytes) + 1;
}

double chain_us(launch_fn *launch, const void *arg, size_t size, int n)
{
    int n_launch = (CHAIN + n - 1) / n * n;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t from, to;
    float ms[ROUNDS];

    if (once)
        return NAN;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < n_launch; i++)
        launch((const char *) arg + (size_t) (i % n) * size);
    check(cudaStreamEndCapture(stream, &graph));
    check(cudaGraphInstantiate(&exec, graph, 0));
    check(cudaGraphLaunch(exec, stream));
    check(cudaEventCreate(&from));
    check(cudaEventCreate(&to));
    for (int i = 0; i < ROUNDS; i++) {
        check(cudaEventRecord(from, stream));
        check(cudaGraphLaunch(exec, stream));
        check(cudaEventRecord(to, stream));
        ms[i] = ms_between(from, to);
    }
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    return median_us(ms) / n_launch;
}

void report(const struct row *r)
{
    double floor = fmax(r->bytes / READ_SPEED, r->flops / MATH_SPEED) * 1e6;

    printf("%s,%s,%.1f,%.0f,%.1f,%.1f,%.2g\n", r->name, r->shape, r->us, r->bytes / r->us / 1e3,
           r->flops / r->us / 1e6, 100 * floor / r->us, r->deviation);
    fflush(stdout);
    if (!(r->deviation <= r->limit))
        fail("%s %s: deviation %.2g, allowed %.2g", r->name, r->shape, r->deviation, r->limit);
}

static const struct { const char *name; void (*run)(void); } table[] = {
    { "stream", bench_stream }, { "pages", bench_pages }, { "linear", bench_linear },
    { "attention", bench_attention }, { "moe", bench_experts }, { "sample", bench_samples },
};

static void start(void)
{
    struct backend_limits lim = { .n_thread = 16, .vocab = 8, .step_tok_max = TOK_MAX,
                                  .attn_scratch = 64, .seq_max = 1, .page_max = 1,
                                  .hidden = HIDDEN, .n_head = 1, .n_kv = { 1, 1 },
                                  .head_dim = { 16, 16 },
                                  .moe = { .n_expert = EXPERTS, .top_k = TOP_K,
                                           .hidden = HIDDEN, .ffn = FFN } };
    struct err e;
    int smem = 0, major = 0;

    check(cudaStreamCreate(&stream));
    if (be_open_cpu(&twin, &lim, &e) < 0) {
        fprintf(stderr, "kernels: %s\n", e.msg);
        exit(1);
    }
    flush = dev(FLUSH);
    hopper_open(&hopper);
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    if (major == 9 && hopper.n_sm == 0)
        fprintf(stderr, "kernels: this GPU's own kernels are not in this build (GPU_ARCH) or cannot"
                " be loaded: there are only rows of those for every GPU\n");
    check(cudaDeviceGetAttribute(&smem, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    smem_max = (size_t) smem;
}

enum { N_TABLE = sizeof(table) / sizeof(table[0]) };

static void usage(void)
{
    fprintf(stderr, "usage: kernels [--once] [NAME [TOKENS]]\n       kernels --tune [TOKENS]\n"
            "NAME:");
    for (int i = 0; i < N_TABLE; i++)
        fprintf(stderr, " %s", table[i].name);
    fprintf(stderr, "\n");
    exit(2);
}

static bool is_name(const char *s)
{
    for (int i = 0; i < N_TABLE; i++)
        if (strcmp(s, table[i].name) == 0)
            return true;
    return false;
}

static int32_t tokens_of(const char *s)
{
    char *end;
    long n = strtol(s, &end, 10);

    if (end == s || *end != '\0' || n < 1 || n > INT32_MAX)
        usage();
    return (int32_t) n;
}

int main(int argc, char **argv)
{
    bool tune = argc > 1 && strcmp(argv[1], "--tune") == 0;
    const char *name = NULL;
    int at = 1;

    once = argc > 1 && strcmp(argv[1], "--once") == 0;
    at += tune || once;
    if (!tune && at < argc)
        name = argv[at++];
    if (at < argc)
        only = tokens_of(argv[at++]);
    if (at < argc || (name != NULL && !is_name(name)))
        usage();

    start();
    if (tune)
        tune_all();
    else
        printf("kernel,shape,us,GB_s,TFLOP_s,floor_pct,deviation\n");
    for (int i = 0; i < N_TABLE && !tune; i++)
        if (name == NULL || strcmp(name, table[i].name) == 0)
            table[i].run();
    be_close(twin);
    if (n_wanted == 0) {
        fprintf(stderr, "kernels: nothing has rows of %d tokens\n", only);
        return 2;
    }
    return n_bad > 0;
}
