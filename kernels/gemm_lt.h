/* gemm_lt.h - y = x W^T of many rows through cuBLASLt, by a table of what was measured.
 *
 * gemm_table.inc names, for a model's matrices and up to so many rows, the library's algorithm that
 * is fastest, or our own tiles where they are; its GPU has gemm_hopper.cu, so up to GEMM_HOPPER_TOK
 * rows only what is too large for that is in it, the head. `bench/kernels --tune` makes it; nothing
 * is measured when the engine starts. It counts for the GPU and the version of the library that it
 * was made with. Elsewhere, for what it lacks, and for an algorithm that the library refuses, the
 * library's own favourite is taken. Bound by the reading of w up to about 180 rows, then by the
 * matrix units: 60 % of their speed accepted at 8,192.
 *
 * Same inputs, same bytes: where a sum is split, its parts are added in an order, never in place.
 * Plain C, no CUDA types. */
#ifndef KERNELS_GEMM_LT_H
#define KERNELS_GEMM_LT_H

#include "cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gemm_lt;                   /* one per stream; its work space is GEMM_LT_WORK bytes */
#define GEMM_LT_WORK (32u << 20)

struct gemm_lt *gemm_lt_open(void);                      /* NULL: failed */
void gemm_lt_close(struct gemm_lt *lt);

/* 1: launched. 0: our own tiles are faster, or the library has no way to do it; nothing was
 * launched. Negative: the library failed, and gemm_lt_words() says how. */
int  gemm_lt_cuda(struct gemm_lt *lt, const struct gemm *g, gpu_stream s);
const char *gemm_lt_words(int rc);

/* The table is looked through. NULL: all of it counts here. Otherwise what is to be said; lt's. */
const char *gemm_lt_note(struct gemm_lt *lt);

/* How a product is made. The numbers are the library's (CUBLASLT_ALGO_CONFIG_*). */
struct gemm_way {
    int32_t own;                  /* 1: gemm_tile_cuda, and the rest is 0 */
    int32_t id, tile, stages, split_k, reduction, swizzle, custom, inner, cluster;
};

struct gemm_entry { int64_t rows; int32_t cols, n_row; struct gemm_way way; };

/* For the tuner: what the library proposes, its favourite first; returns how many, at most max. */
int  gemm_lt_ways(struct gemm_lt *lt, const struct gemm *g, struct gemm_way *way, int max);
/* From now on products of g's shape go this way. 0: the library refuses it. */
int  gemm_lt_force(struct gemm_lt *lt, const struct gemm *g, const struct gemm_way *way);
size_t gemm_lt_version(const struct gemm_lt *lt);

#ifdef __cplusplus
}
#endif

#endif
