/* cuda.h - the kernels of the twins on a GPU: the same argument structs, pointers of the device.
 *
 * Launchers are asynchronous on the stream and return nothing: a failed launch is found by
 * cudaGetLastError. Matrices, acts (norm.h) and KV pages are bf16; they and arrays of fp32 begin at
 * a multiple of 16 bytes, as all of be_alloc() does. Plain C, no CUDA types.
 *
 * Per cents are of an H200's 4.39 TB/s or 790 TFLOP/s, whichever binds, at the shapes of the
 * 26B-A4B: what we accept of bench/kernels. SPEED.md says where that misses the bars, and why. */
#ifndef KERNELS_CUDA_H
#define KERNELS_CUDA_H

#include "attn.h"
#include "gemm.h"
#include "moe.h"
#include "norm.h"
#include "pages.h"
#include "sample.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CUstream_st *gpu_stream;

#define GEMM_SPLIT_MAX 4
/* What the GPU in use has of compute capability 9.0; n_sm 0: nothing, the base path is taken. */
struct hopper {
    int32_t n_sm;
    void   *encode;                        /* makes the copy engine's maps of matrices */
    int32_t room[GEMM_SPLIT_MAX + 1];      /* [i]: clusters of i blocks at once, one block an SM */
};
void hopper_open(struct hopper *h);

/* dim, cols and head_dim are multiples of 4, head_dim at most 512. Bound by latency for few rows,
 * for many by reading and writing them: 70 %; norm_rope 60, kv_store and kv_copy of global layers
 * 45, fill 25, which makes its numbers; ids and angles are too few bytes. */
void next_ids_cuda(const struct next_ids *a, gpu_stream s);
void embed_cuda(const struct embed *a, gpu_stream s);
void norm_cuda(const struct norm *a, gpu_stream s);
void join_cuda(const struct join *a, gpu_stream s);       /* dim at most JOIN_DIM_MAX */
#define JOIN_DIM_MAX 8192
void to_act_cuda(const struct to_act *a, gpu_stream s);
void gather_cuda(const struct gather *a, gpu_stream s);
void geglu_cuda(const struct geglu *a, gpu_stream s);
void rope_table_cuda(const struct rope_table *a, gpu_stream s);
void norm_rope_cuda(const struct norm_rope *a, gpu_stream s);
void kv_store_cuda(const struct kv_store *a, gpu_stream s);
void kv_copy_cuda(const struct kv_copy *a, gpu_stream s);
void fill_cuda(const struct fill *a, gpu_stream s);

/* All products of up to 8 rows in one launch, and their activation: bound by the reading of w, at
 * one row 60 %, from 40 MB of it 70 %, at 8 rows 50 %. 0: not for this shape, nothing was
 * launched. */
int  gemm_skinny_cuda(const struct linear *l, size_t smem_max, gpu_stream s);

/* The same of up to GEMM_HOPPER_TOK rows, on Hopper, for matrices of up to some 16,000 rows
 * together: bound by the reading of w, at 64 rows 60 % for 46 MB of it, 40 % for 12. An output is
 * summed in one order whatever the number of rows. */
#define GEMM_HOPPER_TOK 128
int  gemm_hopper_cuda(const struct linear *l, const struct hopper *h, gpu_stream s);

/* Any number of rows; cols a multiple of 8. Bound by the matrix units as other GPUs than Hopper
 * have them: a quarter of Hopper's own speed. */
void gemm_tile_cuda(const struct gemm *g, gpu_stream s);

/* Rows that are not whole 16 bytes, which no published shape has: a warp an output; bound by
 * latency, no fraction. */
void gemm_plain_cuda(const struct gemm *g, gpu_stream s);

/* head_dim a multiple of 16, at most 512; at most 16 query heads a kv head. ctx is at least the
 * largest position of the step + 1. Bound by the reading of K and V for few tokens, by the matrix
 * units for many: of Hopper's 6 %, of heads of 512 12 %. part: attn_cuda_scratch() bytes. */
#define ATTN_SPLIT_TOK 64                 /* up to so many tokens a context is split and merged */
size_t attn_cuda_scratch(int32_t n_head, int32_t head_dim);
void   attn_cuda(const struct attn *a, void *part, size_t smem_max, gpu_stream s);

/* All of a layer's attention for up to ATTN_DECODE_TOK tokens, each alone in its sequence: bound by
 * the reading of K and V, 65 % from 60 MB of them on, 90 % from 500; of less by latency. Heads of
 * attn_cuda; K whole or, of 512, 128 turned dims of it; where shared memory is enough: 99 KB are,
 * but for more than 8 query heads a kv head of 512 without whole K, which need 107. */
#define ATTN_DECODE_TOK 256
size_t attn_decode_scratch(int32_t n_tok, int32_t n_head, int32_t head_dim);
bool   attn_decode_fits(const struct attn_layer *a, size_t smem_max);
void   attn_decode_cuda(const struct attn_layer *a, void *scratch, gpu_stream s);
/* The same for other steps of more than ATTN_SPLIT_TOK tokens, on Hopper, heads of 256 and 512, K
 * whole or, of 512 and without a window, 128 turned dims of it: q stays raw; bound by the matrix
 * units, at 2,048 tokens behind 4,096 35 %, 60 % where K is not whole. 0: not for this device or
 * shape, nothing was launched. */
int    attn_prefill_cuda(const struct attn_layer *a, gpu_stream s);

/* Any number of tokens, experts up to MOE_EXPERT_MAX; scratch: moe_cuda_scratch(). Bound by the
 * reading of the weights up to about 128 tokens an expert, 70 % for one token, 80 % for 8 to 512,
 * then by the matrix units: 60 % at 8,192 tokens on Hopper, 17 % elsewhere. */
#define MOE_CUDA_TOK   8192               /* at most so many share a reading of the weights */
#define MOE_SKINNY_TOK 256                /* moe_skinny.cu takes at most so many, and of pairs of
                                             a token and an expert 4 an expert on Hopper, 16
                                             elsewhere */
#define MOE_EXPERT_MAX 1024               /* one thread each of a block groups their tokens */
size_t moe_cuda_scratch(const struct moe *a);            /* of up to a->n_tok tokens */
/* In this order; the first may run beside what else is not needed by the second: bound by latency,
 * 2 us for one token, 11 for 64, 32 for 8,192. */
void   moe_route_cuda(const struct moe *a, const struct hopper *h, void *scratch, size_t smem_max,
                      gpu_stream s);
void   moe_cuda(const struct moe *a, const struct hopper *h, void *scratch, size_t smem_max,
                gpu_stream s);

/* A row of sample_row whose pointers are the device's. bad: 0, or why there is no token. */
enum { SAMPLE_OK, SAMPLE_NOT_FINITE, SAMPLE_ALL_BANNED };
/* rows lie on the device, up to SAMPLE_ROW_MAX, all of one vocab; softcap in place first, then
 * logits may be copied, then the draw. Without top_k and top_p, or where the ids that they leave
 * (with the ties and close neighbours of the last) are at most 2048: one row is latency, 21 to 67
 * us; 64 are bound by one reading and one writing of the logits, 30 % greedy, 13 % drawn, 8 % where
 * words bend them or with 20 logprobs. Else 10 ms for one row, 24 for 64.
 * scratch: sample_cuda_scratch() bytes, the same for both. */
size_t sample_cuda_scratch(int32_t n_row, int32_t vocab);
void   sample_cap_cuda(const struct sample_row *rows, int32_t n_row, int32_t vocab, void *scratch,
                       gpu_stream s);
void   sample_draw_cuda(const struct sample_row *rows, int32_t n_row, int32_t vocab, int32_t *bad,
                        void *scratch, gpu_stream s);

#ifdef __cplusplus
}
#endif

#endif
