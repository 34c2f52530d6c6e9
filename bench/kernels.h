/* kernels.h - what the parts of bench/kernels share: each kernels_*.c is one family of launchers at
 * the shapes of Gemma 4 26B-A4B. A failure of the device ends the program. */
#ifndef BENCH_KERNELS_H
#define BENCH_KERNELS_H

#include "backend.h"
#include "cuda.h"
#include "gemm_lt.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN = 2816, EXPERTS = 128, TOP_K = 8, FFN = 704, DENSE = 2112, HEADS = 16,
       VOCAB = 262144, TOK_MAX = 8192 };

extern struct backend *twin;
extern struct hopper   hopper, base;       /* base: has nothing */
extern cudaStream_t    stream;
extern size_t          smem_max;

void check(cudaError_t rc);
/* Says so, goes on; the exit code will be 1. */
void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Whether rows of so many tokens were asked for. Where none is wanted, the exit code will be 2. */
bool wanted(int32_t n_tok);

/* The same numbers in each run. */
uint32_t next(void);
float    uniform(void);                    /* -1 .. 1 */
/* n numbers that bf16 can hold, within scale, which is a power of 2; many begin again after a prime
 * number of them. The caller frees them. */
float   *numbers(size_t n, float scale);

/* Memory of the device, the caller frees it; dev's is NaN. */
void *dev(size_t bytes);
void *dev_copy(const void *p, size_t bytes);          /* of the host or the device */
void *dev_floats(const float *v, size_t n);
void *dev_halves(const float *v, size_t n);            /* as bf16: the upper halves */

/* rows x cols of random weights on the host and on the device, the same; never freed. */
struct weights { struct mat host, dev; };
struct weights weights_new(int64_t rows, int32_t cols, uint64_t seed);

/* The largest difference of n numbers of the device from want, relative to want's largest; NaN and
 * infinity are infinitely far. */
double deviation_floats(const float *got, const float *want, size_t n);
double deviation_halves(const void *got, const float *want, size_t n);         /* bf16 */

/* One row of the table. bytes: read once and written once. */
struct row { const char *name, *shape; double us, bytes, flops, deviation, limit; };
typedef void launch_fn(const void *arg);

/* Medians of ROUNDS: a launch alone, with a cold L2; the same of what spoils its input, which
 * `before`, not timed, puts back each time; and one in a chain, as a step of few tokens
 * has it: a graph of launches, one after the other, by turns with these n arguments of size bytes.
 * What all of them read should not fit the L2: chain_copies() says how many are enough. */
#define ROUNDS    15
#define CHAIN_TOK 64                       /* up to so many tokens rows are of a chain */
double time_us(launch_fn *launch, const void *arg);
double time_after_us(launch_fn *before, launch_fn *launch, const void *arg);
double chain_us(launch_fn *launch, const void *arg, size_t size, int n);
int    chain_copies(double bytes);
void   report(const struct row *r);

void bench_experts(void);
void bench_attention(void);
void bench_linear(void);
void bench_stream(void);
void bench_pages(void);
void bench_samples(void);
void tune_all(void);

#endif
