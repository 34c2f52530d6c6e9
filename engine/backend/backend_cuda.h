/* backend_cuda.h - the backend of one NVIDIA GPU; in a build without nvcc, words that say so. */
#ifndef BACKEND_BACKEND_CUDA_H
#define BACKEND_BACKEND_CUDA_H

#include "backend.h"

#ifdef HAVE_CUDA
#define BE_HAS_CUDA true
int    be_open_cuda(struct backend **out, const struct backend_limits *lim, struct err *e);
size_t be_scratch_cuda(const struct backend_limits *lim);
/* What the driver takes for the steps that are kept. */
size_t be_graphs_cuda(const struct backend_limits *lim);
/* Of the first GPU, in bytes. E_INVALID: there is none that this build can use, so that a test has
 * nothing to do; E_GPU: there is one, and it fails. */
int    be_memory_cuda(uint64_t *free_bytes, uint64_t *total_bytes, struct err *e);
#else
#define BE_HAS_CUDA false
static inline int be_no_cuda(struct err *e)
{
    return err_set(e, E_INVALID, "--backend: this build has the cpu backend only: it was made"
                   " without nvcc");
}

static inline int be_open_cuda(struct backend **out, const struct backend_limits *lim,
                               struct err *e)
{
    (void) out;
    (void) lim;
    return be_no_cuda(e);
}

static inline size_t be_scratch_cuda(const struct backend_limits *lim)
{
    (void) lim;
    return 0;
}

static inline size_t be_graphs_cuda(const struct backend_limits *lim)
{
    (void) lim;
    return 0;
}

static inline int be_memory_cuda(uint64_t *free_bytes, uint64_t *total_bytes, struct err *e)
{
    (void) free_bytes;
    (void) total_bytes;
    return be_no_cuda(e);
}
#endif

#endif
