#include "cuda_fit.h"

#define MIB(n)       ((double) (n) / (1024.0 * 1024.0))
#define DRIVER_NAME  "580"                 /* the first with CUDA 13 */

int cuda_usable(const struct cuda_found *f, struct err *e)
{
    if (f->driver == 0)
        return err_set(e, E_GPU, "--backend cuda: no GPU driver here: install NVIDIA's ("
                       DRIVER_NAME " or newer) or use --backend cpu");
    if (f->driver < CUDA_DRIVER_NEED)
        return err_set(e, E_GPU, "--backend cuda: the GPU driver is too old, it knows CUDA %d.%d:"
                       " install " DRIVER_NAME " or newer, or use --backend cpu", f->driver / 1000,
                       f->driver % 1000 / 10);
    if (f->failure != NULL)
        return err_set(e, E_GPU, "--backend cuda: %.100s; --backend cpu works without a GPU",
                       f->failure);
    if (f->n_gpu == 0)
        return err_set(e, E_GPU, "--backend cuda: no GPU here: use --backend cpu");
    if (f->major < 8)
        return err_set(e, E_GPU, "--backend cuda: %.60s has compute capability %d.%d, 8.0 is"
                       " needed: use --backend cpu", f->name, f->major, f->minor);
    return 0;
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
