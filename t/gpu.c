/* gpu.c - every op of the GPU (gpu_*.c) against its twin: fresh random inputs, outputs poisoned
 * with NaN before, shapes on both sides of every edge. Tolerances are relative to the largest
 * number of the reference and follow from what is rounded to bf16 where. Without a GPU of
 * 8.0 or newer there is nothing to do, one that cannot be used is a failure.
 *
 * usage: t/gpu [quick] [K/N] [SEED]
 * quick: what a sanitizer has the time for, which looks at each access to shared memory. Every
 * kernel of ours runs with each set of its template's arguments and with the edges of its shapes;
 * what is left out are large shapes and more of the same: of contexts of one token alone three in
 * four, of numbers of columns two in five, contexts around 1,024 where that is no window's edge.
 * K/N: part K, 1 .. N, of the tests, which N processes share. */
#include "gpu.h"
#include "backend_cuda.h"

#include <sys/random.h>

struct backend *be[2];
struct hopper hopper;
bool quick;

static int32_t part = 1, parts = 1, n_test;

bool mine(bool large)
{
    return !(quick && large) && n_test++ % parts == part - 1;
}

/* In this order: it says which part has which. */
static void test_all(void)
{
    test_stream();
    test_pages();
    test_products();
    test_experts();
    test_attention();
    test_samples();
}

static bool read_args(int argc, char **argv)
{
    char *end = "", more;

    for (int i = 1; i < argc && *end == '\0'; i++)
        if (strcmp(argv[i], "quick") == 0)
            quick = true;
        else if (strchr(argv[i], '/') != NULL)
            end = sscanf(argv[i], "%d/%d%c", &part, &parts, &more) == 2 ? "" : argv[i];
        else
            rng = strtoull(argv[i], &end, 0);
    return *end == '\0' && part >= 1 && part <= parts && rng != 0;
}

int main(int argc, char **argv)
{
    struct backend_limits lim = {
        .n_thread = 8, .vocab = VOCAB, .attn_scratch = attn_scratch(16, 1, 16384),
        .moe = { .n_expert = 300, .top_k = 8, .hidden = 2816, .ffn = 704 },
        .steer_words = 32 * (VOCAB / 16 + 2048),
        .step_tok_max = MOE_CUDA_TOK + TOK,
        .seq_max = SEQ, .page_max = PAGES, .hidden = 8192, .n_head = 16,
        .n_kv = { 8, 2 }, .head_dim = { 256, 512 },
        .apart = true };
    struct err e = { 0 };
    uint64_t n_free, n_total;

    if (getrandom(&rng, sizeof(rng), 0) != sizeof(rng))
        return 1;
    rng |= 1;
    if (!read_args(argc, argv)) {
        fprintf(stderr, "usage: %s [quick] [K/N] [SEED]\n", argv[0]);
        return 2;
    }
    if (parts > 1)
        lim.n_thread = 1;                  /* the parts share the cores */
    if (be_memory_cuda(&n_free, &n_total, &e) == E_INVALID) {
        printf("1..0 # skipped: no GPU: %s\n", e.msg);
        return 0;
    }
    if (be_open_cuda(&be[1], &lim, &e) < 0 || be_open_cpu(&be[0], &lim, &e) < 0) {
        ok(0, "%s", e.msg);
        return done_testing();
    }
#ifdef HAVE_CUDA
    hopper_open(&hopper);
#endif
    printf("# part %d/%d, seed %llu (arguments repeat it)\n", part, parts,
           (unsigned long long) rng);
    printf("# %s\n", be[1]->note != NULL ? be[1]->note : "all kernels, as measured");
    test_all();
    be_close(be[0]);
    be_close(be[1]);
    return done_testing();
}
