/* cuda_fit.c - each way in which a GPU can be missing, unfit or too small, or a model be of another
 * shape: one line with what to do; and both sides of every edge. */
#include "tap.h"
#include "cuda_fit.h"

#include <stdlib.h>

static struct err e;

static void says_code(int rc, int code, const char *a, const char *b)
{
    ok(rc == code && e.code == code && strstr(e.msg, "--backend cuda: ") == e.msg
       && strstr(e.msg, a) != NULL && strstr(e.msg, b) != NULL && strchr(e.msg, '\n') == NULL
       && strlen(e.msg) < 239, "%s", e.msg);
}

static void says(int rc, const char *a, const char *b)
{
    says_code(rc, E_GPU, a, b);
}

/* Nothing is broken: the machine has none. */
static void says_none(int rc, const char *a)
{
    says_code(rc, E_INVALID, a, "--backend cpu");
}

static void usable(void)
{
    const struct cuda_found good = { 13000, 1, NULL, "NVIDIA A100", 8, 0 };
    struct cuda_found f = good;

    is_int(cuda_usable(&f, &e), 0, "the least that will do");
    f.driver = 0;
    says_none(cuda_usable(&f, &e), "no GPU driver");
    f.driver = 12090;
    says(cuda_usable(&f, &e), "too old, it knows CUDA 12.9", "580");
    f.failure = "CUDA driver version is insufficient";
    says(cuda_usable(&f, &e), "too old", "--backend cpu");
    f = good;
    f.failure = "system not yet initialized";
    says(cuda_usable(&f, &e), "system not yet initialized", "--backend cpu");
    f = good;
    f.n_gpu = 0;
    says_none(cuda_usable(&f, &e), "no GPU here");
    f = good;
    f.major = 7;
    f.minor = 5;
    f.name = "a GPU with a very very very very very very very very very very long name";
    says_none(cuda_usable(&f, &e), "compute capability 7.5, 8.0 is needed");
    f.major = 12;
    f.minor = 0;
    is_int(cuda_usable(&f, &e), 0, "newer ones");
}

#define M  (1ull << 20)

static void fit(void)
{
    struct cuda_need n = { 1000 * M, 500 * M, 200 * M, 100 * M, 1800 * M, 1850 * M };
    char *end;

    is_int(cuda_fit(&n, &e), 0, "it fits to the byte");
    n.n_free--;
    says(cuda_fit(&n, &e), "1800 MiB are needed, the GPU has 1800",
         "--kv-cache-memory-bytes to 499m");
    n.kv = strtoull(strstr(e.msg, "bytes to ") + 9, &end, 10) * M;
    is_int(cuda_fit(&n, &e), 0, "what it says, fits");

    n.kv = 500 * M;
    n.n_total = 80000 * M;
    says(cuda_fit(&n, &e), "of 80000 MiB are free", "nvidia-smi");
    ok(strstr(e.msg, "to 499m") != NULL, "or with less");
    n.n_free = 1300 * M;
    says(cuda_fit(&n, &e), "end what holds the others", "1300 of 80000 MiB");
    ok(strstr(e.msg, "--kv") == NULL, "no flag helps");
    n.n_free = 0;
    says(cuda_fit(&n, &e), "end what holds the others", "0 of 80000 MiB");

    n.n_free = n.n_total = 1299 * M;
    says(cuda_fit(&n, &e), "too small: weights and work space need 1300 MiB, it has 1299",
         "--backend cpu");
    n.n_total = 1310 * M;
    says(cuda_fit(&n, &e), "1800 MiB are needed, the GPU has 1299", "--max-num-batched-tokens");
}

static void refuses(struct backend_limits lim, const char *what)
{
    int rc = cuda_shape(&lim, &e);

    ok(rc == E_INVALID && strstr(e.msg, "--backend cuda: ") == e.msg && strstr(e.msg, what) != NULL
       && strchr(e.msg, '\n') == NULL && strlen(e.msg) < 239, "%s", e.msg);
}

static void shape(void)
{
    const struct backend_limits most = {
        .n_head = 16, .n_kv = { 1, 8 }, .head_dim = { 16, 512 }, .hidden = 8192, .ffn = 4,
        .moe.n_expert = 1024, .vocab = 1 << 19 };
    struct backend_limits lim = most;

    is_int(cuda_shape(&lim, &e), 0, "the largest, and the least");
    lim.head_dim[0] = 24;
    refuses(lim, "head_dim 24");
    lim.head_dim[0] = 16;
    lim.head_dim[1] = 528;
    refuses(lim, "head_dim 528");
    lim = most;
    lim.n_head = 17;
    refuses(lim, "17 heads of queries on 1");
    lim = most;
    lim.hidden = 8196;
    refuses(lim, "hidden_size 8196, at most 8192");
    lim.hidden = 4094;
    refuses(lim, "hidden_size 4094");
    lim = most;
    lim.ffn = 2110;
    refuses(lim, "intermediate_size 2110");
    lim = most;
    lim.ple = 2;
    refuses(lim, "hidden_size_per_layer_input 2");
    lim = most;
    lim.moe.n_expert++;
    refuses(lim, "1025 experts");
    lim = most;
    lim.vocab++;
    refuses(lim, "vocab_size 524289");
}

static const char *note(struct backend_limits lim, bool base, const char *lt)
{
    static char line[800];
    const char *s = cuda_note(line, sizeof(line), &lim, base, lt);

    return s != NULL ? s : "nothing";
}

/* Everything that slows a model down is said, in one line. */
static void notes(void)
{
    const struct backend_limits whole = { .hidden = 2816, .ffn = 2112, .ple = 256,
                                          .moe = { .n_expert = 128, .ffn = 704 } };
    struct backend_limits lim = whole;
    const char *s;

    is_str(note(whole, false, NULL), "nothing", "all is well: not a word");
    is_str(note(whole, false, "of the library"), "of the library", "the library's words alone");
    ok(strstr(note(whole, true, NULL), "own kernels") != NULL, "a Hopper without its own kernels");

    lim.hidden = 2820;
    ok(strstr(note(lim, false, NULL), "whole 16 bytes") != NULL, "the stream's width");
    lim = whole;
    lim.ffn = 100;
    ok(strstr(note(lim, false, NULL), "whole 16 bytes") != NULL, "a dense layer's");
    lim = whole;
    lim.ple = 252;
    ok(strstr(note(lim, false, NULL), "whole 16 bytes") != NULL, "the per-layer inputs'");
    lim = whole;
    lim.moe.ffn = 700;
    s = note(lim, true, "of the library");
    ok(strstr(s, "own kernels") != NULL && strstr(s, "slower; this model") != NULL
       && strstr(s, "slow; of the library") != NULL && strchr(s, '\n') == NULL,
       "the experts', and all three: %s", s);
    lim.moe.n_expert = 0;
    is_str(note(lim, false, NULL), "nothing", "without experts their width is nobody's");
}

int main(void)
{
    usable();
    shape();
    fit();
    notes();
    return done_testing();
}
