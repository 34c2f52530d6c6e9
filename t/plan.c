/* plan.c - the memory budget: what it says is what the model then allocates; a GPU that is too
 * small or in use, and which flag to change to what: that value then fits, one more does not. */
#include "tap.h"
#include "plan.h"

#include <stdlib.h>

#define MIB  (1ull << 20)

static struct err e;
static struct model_conf mc;
static struct conf c;
static struct plan p;
static uint64_t fixed;                     /* bytes of the 26B without its KV cache */

static int conf(int n, ...)
{
    char *arg[12];
    __builtin_va_list ap;

    __builtin_va_start(ap, n);
    for (int i = 0; i < n; i++)
        arg[i] = __builtin_va_arg(ap, char *);
    __builtin_va_end(ap);
    return conf_parse(&c, CONF_BENCH, n, arg, &e);
}

static int fit(uint64_t n_free, uint64_t n_total)
{
    struct plan_memory gpu = { n_free * MIB, n_total * MIB };

    e.msg[0] = '\0';
    return plan_fit(&p, &mc, &c, &gpu, &e);
}

static void says(int rc, const char *a, const char *b)
{
    ok(rc == E_INVALID && strstr(e.msg, a) != NULL && strstr(e.msg, b) != NULL
       && strlen(e.msg) < 239, "%s", e.msg);
}

/* The number after these words of the message. */
static unsigned long long number(const char *after)
{
    const char *at = strstr(e.msg, after);

    return at != NULL ? strtoull(at + strlen(after), NULL, 10) : 0;
}

static void allocated(const char *dir, bool dummy)
{
    struct model_limits lim = { .backend = MODEL_CPU, .step_tok_max = 300, .seq_max = 3,
                                .page_max = 40, .n_thread = 3, .dummy = dummy };
    struct model_memory m = {0};
    struct model *model;

    conf(1, dir);
    c.max_model_len = 600;
    if (model_conf_load(&mc, dir, &e) != 0 || fit(0, 0) != 0) {
        ok(0, "%s: %s", dir, e.msg);
        return;
    }
    lim.kv = p.kv;
    if (model_open(&model, dir, &mc, &lim, NULL, NULL, &e) != 0) {
        ok(0, "%s: %s", dir, e.msg);
        return;
    }
    model_memory(model, &m);
    ok(m.used <= m.planned && m.planned - m.used <= MODEL_MEMORY_SLACK && m.used > p.kv_bytes,
       "%s%s: %llu bytes planned, %llu allocated", dir, dummy ? ", random" : "",
       (unsigned long long) m.planned, (unsigned long long) m.used);
    model_close(model);
}

/* As it said: that fits, a hundredth less does not. */
static void raise_share(uint64_t gpu)
{
    const char *at = strstr(e.msg, "utilization to ");

    c.gpu_memory_utilization = at != NULL ? strtod(at + 15, NULL) : 0;
    is_int(fit(gpu, gpu), 0, "with %.2f it fits: %s", c.gpu_memory_utilization, e.msg);
    c.gpu_memory_utilization -= 0.01;
    ok(fit(gpu, gpu) != 0, "with %.2f it does not", c.gpu_memory_utilization);
    c.gpu_memory_utilization = 0.9;
}

/* MiB of a GPU of whose nine tenths so many MiB are left beside weights and scratch, which a build
 * without nvcc knows less of. */
static uint64_t with_left(int64_t mib)
{
    return (uint64_t) ((int64_t) (fixed / MIB) + mib) * 10 / 9;
}

/* The scratch has something for each page. */
static uint64_t all_but_kv(void)
{
    return p.weight_bytes + p.scratch_bytes + p.graph_bytes + p.reserve_bytes;
}

/* The 26B on GPUs of many sizes. */
static void gpu(void)
{
    const char *dir = "bench/configs/gemma-4-26B-A4B-it";
    unsigned long long n;
    uint64_t size;
    char flag[64];

    is_int(model_conf_load(&mc, dir, &e), 0, "the 26B");
    conf(3, dir, "--backend=cuda", "--max-model-len=32768");
    is_int(fit(143000, 143771), 0, "fits an H200: %s", e.msg);
    fixed = all_but_kv();
    ok(fixed + p.kv_bytes <= p.memory_bytes && p.memory_bytes == (uint64_t) (143771 * MIB * 0.9),
       "in its nine tenths");
    ok(p.kv_bytes > p.memory_bytes - fixed - p.full_page_bytes - p.sliding_page_bytes
       || p.kv_bytes > c.max_num_seqs * 1000 * MIB, "and fills them, but for a page");
    is_int(fit(100000, 143771), 0, "so it does when another process has a part");
    ok(p.memory_bytes == 100000 * MIB && all_but_kv() + p.kv_bytes <= p.memory_bytes,
       "of what is free");

    says(fit(23000, 24000), "the GPU has 24000 MiB", "take a larger one");
    says(fit(40000, 143771), "40000 of the GPU's 143771 MiB are free", "nvidia-smi");
    size = with_left(-800);
    says(fit(size, size), " may be used", "--gpu-memory-utilization to 0.");
    raise_share(size);
    size = with_left(900);
    says(fit(size, size), "one request of 32768 tokens", "--gpu-memory-utilization to 0.");
    raise_share(size);

    conf(2, dir, "--backend=cuda");
    size = with_left(2700);
    says(fit(size, size), "one request of 262144 tokens", "lower --max-model-len to ");
    ok(strstr(e.msg, "--kv-cache") == NULL, "more memory for it would not help");
    n = number("max-model-len to ");
    snprintf(flag, sizeof(flag), "--max-model-len=%llu", n);
    conf(3, dir, "--backend=cuda", flag);
    is_int(fit(size, size), 0, "with that it fits: %s", e.msg);
    snprintf(flag, sizeof(flag), "--max-model-len=%llu", n + n / 20);
    conf(3, dir, "--backend=cuda", flag);
    says(fit(size, size), "--max-model-len to", "");
    ok(number("max-model-len to ") >= n, "a twentieth more does not");

    conf(3, dir, "--backend=cuda", "--kv-cache-memory-bytes=1g");
    says(fit(143000, 143771), "raise --kv-cache-memory-bytes to ", "or lower --max-model-len to ");
    n = number("memory-bytes to ");
    snprintf(flag, sizeof(flag), "--kv-cache-memory-bytes=%llu", n);
    conf(3, dir, "--backend=cuda", flag);
    is_int(fit(143000, 143771), 0, "with that it fits: %s", e.msg);
    snprintf(flag, sizeof(flag), "--kv-cache-memory-bytes=%llu", n - 1);
    conf(3, dir, "--backend=cuda", flag);
    says(fit(143000, 143771), "one request of 262144 tokens", "raise");
}

/* A step of many tokens that is too much, and a smaller one that is not. */
static void step_tokens(void)
{
    const char *dir = "bench/configs/gemma-4-26B-A4B-it";
    unsigned long long n;
    uint64_t size;
    char flag[64];

    conf(4, dir, "--backend=cuda", "--max-model-len=32768", "--max-num-batched-tokens=65536");
    is_int(fit(143000, 143771), 0, "steps of 65536 fit an H200: %s", e.msg);
    size = (all_but_kv() / MIB - 500) * 10 / 9;
    says(fit(size, size), "weights and scratch need", "lower --max-num-batched-tokens to ");
    n = number("batched-tokens to ");
    snprintf(flag, sizeof(flag), "--max-num-batched-tokens=%llu", n);
    conf(4, dir, "--backend=cuda", "--max-model-len=32768", flag);
    is_int(fit(size, size), 0, "with %llu it fits: %s", n, e.msg);
    snprintf(flag, sizeof(flag), "--max-num-batched-tokens=%llu", n * 2);
    conf(4, dir, "--backend=cuda", "--max-model-len=32768", flag);
    ok(fit(size, size) != 0, "with twice that it does not");
}

/* What plan says of --memory-bytes is what such a GPU gets. */
static void told_memory(void)
{
    const char *dir = "bench/configs/gemma-4-26B-A4B-it";
    uint64_t kv;

    conf(4, dir, "--backend=cuda", "--max-model-len=32768", "--gpu-memory-utilization=0.5");
    is_int(fit(143771, 143771), 0, "half of an H200: %s", e.msg);
    kv = p.kv_bytes;
    c.memory_bytes = 143771 * MIB;
    ok(plan_make(&p, &mc, &c, &e) == 0 && p.kv_bytes == kv, "and of --memory-bytes 143771m");
}

/* A cache of a given size may take what is free, whatever the share is. */
static void own_cache(void)
{
    const char *dir = "bench/configs/gemma-4-26B-A4B-it";

    conf(4, dir, "--backend=cuda", "--max-model-len=32768", "--gpu-memory-utilization=0.5");
    c.kv_cache_memory_bytes = 40000 * MIB;
    is_int(fit(143000, 143771), 0, "40,000 MiB of cache beside half of an H200: %s", e.msg);
    ok(p.memory_bytes == 143000 * MIB && p.kv_bytes <= 40000 * MIB, "of what is free");
    says(fit(80000, 143771), "does not fit: of 80000", "lower --kv-cache-memory-bytes to ");
}

static int cpu_fit(uint64_t mib, int32_t len, uint64_t kv)
{
    conf(1, "models/demo");
    c.memory_bytes = mib * MIB;
    c.max_model_len = len;
    c.kv_cache_memory_bytes = kv;
    return fit(0, 0);
}

/* The demo's model, 10.5 MiB of weights, on small machines. */
static void cpu(void)
{
    uint64_t n, len;

    is_int(model_conf_load(&mc, "models/demo", &e), 0, "the demo's model");
    says(cpu_fit(20, 0, 0), "one request of 4096 tokens", "more memory or lower --max-model-len");
    len = number("max-model-len to ");
    is_int(cpu_fit(20, (int32_t) len, 0), 0, "with that it fits: %s", e.msg);
    ok(cpu_fit(20, (int32_t) len + 16, 0) != 0, "a page more does not");
    says(cpu_fit(30, 0, 0), "one request of 4096 tokens", "raise --kv-cache-memory-bytes to ");
    n = number("memory-bytes to ");
    is_int(cpu_fit(30, 0, n), 0, "with that it fits: %s", e.msg);
    ok(cpu_fit(30, 0, n - 1) != 0, "a byte less does not");
    says(cpu_fit(30, 0, 20 * MIB), "does not fit", "lower --kv-cache-memory-bytes to ");
    n = number("memory-bytes to ");
    is_int(cpu_fit(30, 0, n * MIB), 0, "with that it fits: %s", e.msg);
    ok(cpu_fit(30, 0, (n + 1) * MIB) != 0, "a MiB more does not");
    says(cpu_fit(20, 0, 20 * MIB), "does not fit", "m and --max-model-len to ");
    n = number("memory-bytes to ");
    len = number("max-model-len to ");
    is_int(cpu_fit(20, (int32_t) len, n * MIB), 0, "with both it fits: %s", e.msg);
    ok(cpu_fit(20, (int32_t) len + 16, n * MIB) != 0, "a page more does not");
    says(cpu_fit(9, 0, 0), "--memory-bytes is 9 MiB", "no flag helps");
    says(cpu_fit(9, 0, 4 * MIB), "--memory-bytes is 9 MiB", "no flag helps");
}

int main(void)
{
    allocated("models/demo", false);
    allocated("t/golden/moe", false);
    allocated("t/golden/dense", false);
    allocated("t/golden/ple", false);
    allocated("models/demo", true);
    gpu();
    step_tokens();
    told_memory();
    own_cache();
    cpu();
    return done_testing();
}
