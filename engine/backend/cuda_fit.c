#include "cuda_fit.h"
#include "cuda.h"

#include <stdio.h>
#include <string.h>

#define MIB(n)       ((double) (n) / (1024.0 * 1024.0))
#define DRIVER_NAME  "580"                 /* the first with CUDA 13 */
#define VOCAB_MAX    (1 << 19)             /* so many weights of the sampler, 2^44 at most, fit 64
                                              bits */

int cuda_usable(const struct cuda_found *f, struct err *e)
{
    if (f->driver == 0)
        return err_set(e, E_INVALID, "--backend cuda: no GPU driver here: install NVIDIA's ("
                       DRIVER_NAME " or newer) or use --backend cpu");
    if (f->driver < CUDA_DRIVER_NEED)
        return err_set(e, E_GPU, "--backend cuda: the GPU driver is too old, it knows CUDA %d.%d:"
                       " install " DRIVER_NAME " or newer, or use --backend cpu", f->driver / 1000,
                       f->driver % 1000 / 10);
    if (f->failure != NULL)
        return err_set(e, E_GPU, "--backend cuda: %.100s; --backend cpu works without a GPU",
                       f->failure);
    if (f->n_gpu == 0)
        return err_set(e, E_INVALID, "--backend cuda: no GPU here: use --backend cpu");
    if (f->major < 8)
        return err_set(e, E_INVALID, "--backend cuda: %.60s has compute capability %d.%d, 8.0 is"
                       " needed: use --backend cpu", f->name, f->major, f->minor);
    return 0;
}

/* Kernels fetch 16 bytes: 4 numbers of a row, 8 of a head's in a page. */
int cuda_shape(const struct backend_limits *lim, struct err *e)
{
    for (int i = 0; i < 2; i++) {
        if (lim->head_dim[i] % 16 != 0 || lim->head_dim[i] > 512)
            return err_set(e, E_INVALID, "--backend cuda: head_dim %d is not a multiple of 16 up to"
                           " 512", lim->head_dim[i]);
        if (lim->n_head / lim->n_kv[i] > 16)
            return err_set(e, E_INVALID, "--backend cuda: %d heads of queries on %d of keys: more"
                           " than 16 to one", lim->n_head, lim->n_kv[i]);
    }
    if (lim->hidden > JOIN_DIM_MAX)
        return err_set(e, E_INVALID, "--backend cuda: hidden_size %d, at most %d", lim->hidden,
                       JOIN_DIM_MAX);
    if (lim->hidden % 4 != 0 || lim->ffn % 4 != 0 || lim->ple % 4 != 0)
        return err_set(e, E_INVALID, "--backend cuda: hidden_size %d, intermediate_size %d and"
                       " hidden_size_per_layer_input %d must be multiples of 4", lim->hidden,
                       lim->ffn, lim->ple);
    if (lim->moe.n_expert > MOE_EXPERT_MAX)
        return err_set(e, E_INVALID, "--backend cuda: %d experts, at most %d", lim->moe.n_expert,
                       MOE_EXPERT_MAX);
    if (lim->vocab > VOCAB_MAX)
        return err_set(e, E_INVALID, "--backend cuda: vocab_size %d, at most %d", lim->vocab,
                       VOCAB_MAX);
    return 0;
}

static void note_add(char *to, size_t size, const char *what)
{
    size_t n = strlen(to);

    snprintf(to + n, size - n, "%s%s", n > 0 ? "; " : "", what);
}

const char *cuda_note(char *to, size_t size, const struct backend_limits *lim, bool base,
                      const char *lt)
{
    int32_t expert = lim->moe.n_expert > 0 ? lim->moe.ffn : 0;

    to[0] = '\0';
    if (base)
        note_add(to, size, "this GPU's own kernels are not in this build (GPU_ARCH): those for"
                 " every GPU are used, which are slower");
    if (lim->hidden % 8 != 0 || lim->ffn % 8 != 0 || lim->ple % 8 != 0 || expert % 8 != 0)
        note_add(to, size, "this model has matrices whose rows are not whole 16 bytes: their"
                 " products are slow");
    if (lt != NULL)
        note_add(to, size, lt);
    return to[0] != '\0' ? to : NULL;
}

int cuda_fit(const struct cuda_need *n, struct err *e)
{
    uint64_t fixed = n->weights + n->scratch + n->reserve, need = fixed + n->kv;
    uint64_t room = n->n_free > fixed ? (n->n_free - fixed) >> 20 : 0;         /* MiB for KV */
    bool held = n->n_total - n->n_free > n->n_total / 20;

    if (need <= n->n_free)
        return 0;
    if (fixed > n->n_total)
        return err_set(e, E_GPU, "--backend cuda: the GPU is too small: weights and work space need"
                       " %.0f MiB, it has %.0f: take a larger GPU, a smaller model or --backend"
                       " cpu", MIB(fixed), MIB(n->n_total));
    if (held && room == 0)
        return err_set(e, E_GPU, "--backend cuda: %.0f MiB are needed, %.0f of %.0f MiB are free:"
                       " end what holds the others (nvidia-smi shows it)", MIB(need),
                       MIB(n->n_free), MIB(n->n_total));
    if (held)
        return err_set(e, E_GPU, "--backend cuda: %.0f MiB are needed, %.0f of %.0f MiB are free:"
                       " end what holds the others (nvidia-smi shows it) or set"
                       " --kv-cache-memory-bytes to %llum", MIB(need), MIB(n->n_free),
                       MIB(n->n_total), (unsigned long long) room);
    if (room == 0)
        return err_set(e, E_GPU, "--backend cuda: %.0f MiB are needed, the GPU has %.0f: lower"
                       " --max-num-batched-tokens or take a smaller model", MIB(need),
                       MIB(n->n_free));
    return err_set(e, E_GPU, "--backend cuda: %.0f MiB are needed, the GPU has %.0f: lower"
                   " --kv-cache-memory-bytes to %llum", MIB(need), MIB(n->n_free),
                   (unsigned long long) room);
}
