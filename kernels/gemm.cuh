/* gemm.cuh - the two matrix products that gemm.cu and moe.cu share, each the work of one block of
 * 256 threads. Weights are bf16 [rows, cols], cols a multiple of 8; a row of x is a token. */
#ifndef KERNELS_GEMM_CUH
#define KERNELS_GEMM_CUH

#include "dev.cuh"

#define GEMM_THREADS 256
#define SKINNY_OUT   16                    /* outputs of a block */
#define SKINNY_TOK   8                     /* tokens of a block */
#define SKINNY_DEPTH 4                     /* pieces of 32 columns in flight in each warp */

struct skinny_smem { float part[GEMM_THREADS / 32][SKINNY_TOK][SKINNY_OUT + 1]; };

/* 8 floats as two rows of b: what bf16 holds of them, and what it leaves. */
__device__ static inline void split_x(float4 u, float4 v, uint32_t *hi, uint32_t *lo)
{
    const float x[8] = { u.x, u.y, u.z, u.w, v.x, v.y, v.z, v.w };

    for (int i = 0; i < 4; i++) {
        hi[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
        lo[i] = pack_bf16(x[2 * i] - __uint_as_float(hi[i] << 16),
                          x[2 * i + 1] - __uint_as_float(hi[i] & 0xffff0000u));
    }
}

/* SKINNY_OUT outputs of up to SKINNY_TOK tokens: weights are the M side of the matrix unit. Lanes
 * with the same g = lane / 4 read row g and row g + 8 of w, and row g of x, 32 columns at a time;
 * the columns keep their lanes, so nothing passes through shared memory. The warps share the
 * columns. x: this lane's row, NULL if there is none. n_out: rows of w that are there.
 *
 * Thread i < 128 returns output i % 16 of token i / 16; the order of the sum is fixed. */
__device__ static inline float gemm_skinny(struct skinny_smem *sm, const bf16 *w, int n_out,
                                           int cols, const float *x)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int n_warp = GEMM_THREADS / 32;
    const bf16 *w0 = w + (int64_t) (g < n_out ? g : 0) * cols + 8 * t;
    const bf16 *w1 = w + (int64_t) (g + 8 < n_out ? g + 8 : 0) * cols + 8 * t;
    const uint4 none = make_uint4(0, 0, 0, 0);
    const float4 zero = make_float4(0, 0, 0, 0);
    int n_piece = (cols + 31) / 32;
    float c[4] = {0, 0, 0, 0}, sum = 0;

    for (int first = warp; first < n_piece; first += n_warp * SKINNY_DEPTH) {
        uint4 a[SKINNY_DEPTH], b[SKINNY_DEPTH];

        #pragma unroll
        for (int d = 0; d < SKINNY_DEPTH; d++) {
            int k = (first + d * n_warp) * 32;
            bool in = k + 8 * t < cols;

            a[d] = in ? load_stream(w0 + k) : none;
            b[d] = in ? load_stream(w1 + k) : none;
        }
        #pragma unroll
        for (int d = 0; d < SKINNY_DEPTH; d++) {
            int k = (first + d * n_warp) * 32 + 8 * t;
            bool in = k < cols && x != NULL;
            float4 u = in ? *(const float4 *) (x + k) : zero;
            float4 v = in ? *(const float4 *) (x + k + 4) : zero;
            uint32_t hi[4], lo[4];

            split_x(u, v, hi, lo);
            mma_16x8x16(c, a[d].x, b[d].x, a[d].y, b[d].y, hi[0], hi[1]);
            mma_16x8x16(c, a[d].z, b[d].z, a[d].w, b[d].w, hi[2], hi[3]);
            mma_16x8x16(c, a[d].x, b[d].x, a[d].y, b[d].y, lo[0], lo[1]);
            mma_16x8x16(c, a[d].z, b[d].z, a[d].w, b[d].w, lo[2], lo[3]);
        }
    }

    sm->part[warp][2 * t][g] = c[0];
    sm->part[warp][2 * t + 1][g] = c[1];
    sm->part[warp][2 * t][g + 8] = c[2];
    sm->part[warp][2 * t + 1][g + 8] = c[3];
    __syncthreads();
    if (threadIdx.x < SKINNY_TOK * SKINNY_OUT)
        for (int i = 0; i < n_warp; i++)
            sum += sm->part[i][threadIdx.x / SKINNY_OUT][threadIdx.x % SKINNY_OUT];
    return sum;
}

#define TILE_TOK   64
#define TILE_OUT   128
#define TILE_K     32
#define TILE_PAD   (TILE_K + 8)            /* rows 80 bytes apart: ldmatrix meets no bank twice */
#define TILE_STAGE 3

struct tile_smem {
    bf16    x[TILE_STAGE][TILE_TOK][TILE_PAD];
    bf16    w[TILE_STAGE][TILE_OUT][TILE_PAD];
};

/* TILE_TOK tokens x TILE_OUT outputs of one weight matrix. */
struct tile {
    const bf16 *w;                         /* its first row */
    int         n_out, n_tok, cols;        /* rows of w and of x that are there */
};

/* One stage of the pipe: x_row(i) is row i of x, for i < n_tok. */
template <typename rows>
__device__ static inline void tile_load(struct tile_smem *sm, int stage, const struct tile *t,
                                        const rows &x_row, int k0)
{
    int i = threadIdx.x / 4, k = k0 + threadIdx.x % 4 * 8;
    bool in = k < t->cols;

    copy_async(&sm->x[stage][i][threadIdx.x % 4 * 8], x_row(i < t->n_tok ? i : 0) + (in ? k : 0),
               in && i < t->n_tok);
    for (int o = i; o < TILE_OUT; o += GEMM_THREADS / 4)
        copy_async(&sm->w[stage][o][threadIdx.x % 4 * 8],
                   t->w + (int64_t) (o < t->n_out ? o : 0) * t->cols + (in ? k : 0),
                   in && o < t->n_out);
}

/* The eight warps stand 2 x 4; each computes 32 tokens x 32 outputs. */
__device__ static inline void tile_mma(const struct tile_smem *sm, int stage, float c[2][4][4],
                                       int tok, int out, int lane)
{
    for (int k = 0; k < TILE_K; k += 16) {
        uint32_t a[2][4], b[2][4];

        for (int m = 0; m < 2; m++)
            ldmatrix_x4(a[m], &sm->x[stage][tok + m * 16 + lane % 16][k + lane / 16 * 8]);
        for (int n = 0; n < 2; n++)
            ldmatrix_x4(b[n], &sm->w[stage][out + n * 16 + lane % 8 + lane / 16 * 8]
                                    [k + lane / 8 % 2 * 8]);
        #pragma unroll
        for (int m = 0; m < 2; m++)
            #pragma unroll
            for (int n = 0; n < 4; n++)
                mma_16x8x16(c[m][n], a[m][0], a[m][1], a[m][2], a[m][3], b[n / 2][n % 2 * 2],
                            b[n / 2][n % 2 * 2 + 1]);
    }
}

/* put(i, o, v) takes output o of token i. */
template <typename rows, typename sink>
__device__ static inline void gemm_tile(struct tile_smem *sm, const struct tile *t,
                                        const rows &x_row, const sink &put)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int tok = warp / 4 * 32, out = warp % 4 * 32, n_k = (t->cols + TILE_K - 1) / TILE_K;
    float c[2][4][4] = {};

    for (int i = 0; i < TILE_STAGE - 1; i++) {
        if (i < n_k)
            tile_load(sm, i, t, x_row, i * TILE_K);
        copy_commit();
    }
    for (int i = 0; i < n_k; i++) {
        int next = i + TILE_STAGE - 1;

        copy_wait<TILE_STAGE - 2>();
        __syncthreads();                   /* stage i is here, stage i - 1 is free */
        if (next < n_k)
            tile_load(sm, next % TILE_STAGE, t, x_row, next * TILE_K);
        copy_commit();
        tile_mma(sm, i % TILE_STAGE, c, tok, out, lane);
    }

    #pragma unroll
    for (int m = 0; m < 2; m++) {
        #pragma unroll
        for (int n = 0; n < 4; n++) {
            #pragma unroll
            for (int i = 0; i < 4; i++) {
                int row = tok + m * 16 + i / 2 * 8 + lane / 4;
                int col = out + n * 8 + lane % 4 * 2 + i % 2;

                if (row < t->n_tok && col < t->n_out)
                    put(row, col, c[m][n][i]);
            }
        }
    }
}

#endif
