/* gpu.h - what the parts of t/gpu share: gpu_data.c has the numbers of both sides, each other
 * gpu_*.c the tests of one family of ops, which bench/kernels_*.c of the same name times.
 *
 * Side 0 is the twins, side 1 the GPU. Buffers of a side are its backend's, which frees all at the
 * end; what is on the host is the caller's. No memory ends the program. */
#ifndef T_GPU_H
#define T_GPU_H

#include "backend.h"
#include "cuda.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>

enum { TOK = 2048, SEQ = 300, PAGE_TOK = 16, PAGES = 1024, VOCAB = 262144, QUICK_VOCAB = 20000 };
enum { QUICK_WEIGHTS = 2300000 };          /* that one product reads, at most */

extern struct backend *be[2];
extern struct hopper   hopper;             /* what the GPU has of one; n_sm 0: nothing */
extern bool            quick;
extern const int32_t   row_counts[10];     /* on both sides of the edges of a product's ways */

/* This process has the next test. large: which quick leaves out. */
bool mine(bool large);

/* Random: rng, never 0, is what the next come from. */
extern uint64_t rng;
uint64_t next(void);
int32_t  below(int32_t n);                 /* 0 .. n - 1 */
float    uniform(void);                    /* -1 .. 1 */

/* n numbers on both sides: fp32, or an act, which the GPU has as bf16. Random ones are within scale
 * and the same on both sides; coarse: bf16 can hold them, so that many are equal. */
struct two { float *p[2]; size_t n; };
struct two two_new(size_t n);              /* room for an output, of acts too */
struct two two_random(size_t n, float scale);
struct two two_coarse(size_t n, float scale);
struct two act_random(size_t n, float scale);
void       two_set(const struct two *t, const float *v);         /* [n] */
void       two_poison(const struct two *t);                      /* all bits: NaN, as bf16 too */

/* rows x cols of random weights of side i; the same seed, the same weights. */
struct mat mat_random(int i, int64_t rows, int32_t cols, uint64_t seed);

/* All ops so far are done, on both sides, or that is a failure. */
void done(void);

/* n numbers of the GPU, after done(): fp32, and bf16 made fp32. The caller frees them. */
float *get_floats(const void *p, size_t n);
float *get_halves(const void *p, size_t n);

/* The largest difference of n numbers, relative to the largest of ref; NaN and infinity, of either,
 * are infinitely far, and so is all of a ref of zeros. */
double error_of(const float *got, const float *ref, size_t n);

/* A test: the first n of the output of an op that both sides were asked for; of an act. */
void compare(const struct two *t, size_t n, double limit, const char *what);
void compare_act(const struct two *t, size_t n, double limit, const char *what);

/* As sprintf(); until the next call. */
const char *say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* n_page pages of one layer, of the same random numbers on both sides. compare: a test each of K
 * and V; poison that is still there on both sides is right. */
void kv_new(struct kv_layer kv[2], int32_t n_page, int32_t n_kv, int32_t dim, int32_t k_dim);
void kv_compare(const struct kv_layer kv[2], int32_t n_page, const char *what);

/* The tests of each family, one gpu_*.c each. */
void test_stream(void);
void test_pages(void);
void test_products(void);
void test_experts(void);
void test_attention(void);
void test_samples(void);

#endif
