/* cuda_fit.h - is there a GPU that can be used, and does a model fit: what was found against what
 * is needed, and the words where it does not. No CUDA in here, so any machine can test it. */
#ifndef BACKEND_CUDA_FIT_H
#define BACKEND_CUDA_FIT_H

#include <stdbool.h>
#include <stdint.h>
#include "backend.h"

#define CUDA_DRIVER_NEED  13000            /* as the runtime counts: 1000 * major + 10 * minor */

struct cuda_found {
    int         driver;                    /* the newest CUDA that it knows, 0: no driver */
    int         n_gpu;
    const char *failure;                   /* why the runtime cannot say, NULL: it can */
    const char *name;                      /* of the first GPU */
    int         major, minor;              /* its compute capability */
};

/* One line that says what is missing and what to do. E_INVALID: there is no GPU, or none of 8.0 or
 * newer; E_GPU: there is one, and it fails. */
int cuda_usable(const struct cuda_found *f, struct err *e);

/* Can the kernels do these widths? E_INVALID: one line with the field. */
int cuda_shape(const struct backend_limits *lim, struct err *e);

/* What is to be said at the start, in one line, NULL: nothing. base: a Hopper does without its own
 * kernels; lt: gemm_lt_note(). to is for what was to be said. */
const char *cuda_note(char *to, size_t size, const struct backend_limits *lim, bool base,
                      const char *lt);

struct cuda_need {                         /* bytes */
    uint64_t weights, kv, scratch;         /* of the model; together what is allocated */
    uint64_t reserve;                      /* for the driver and its libraries */
    uint64_t n_free, n_total;              /* of the GPU, now */
};

int cuda_fit(const struct cuda_need *n, struct err *e);

#endif
