/* gemm.cuh - the two matrix products of gemm.cu that the experts use too (skinny: moe_skinny.cu,
 * tiles: moe.cu), each the work of one block of 256 threads. Weights are bf16 [rows, cols], cols a
 * multiple of 8; a row of x is a token. */
#ifndef KERNELS_GEMM_CUH
#define KERNELS_GEMM_CUH

#include "dev.cuh"

#define GEMM_THREADS 256
#define GEMM_WARPS   (GEMM_THREADS / 32)
#define SKINNY_OUT   16                    /* outputs of a tile */
#define SKINNY_TOK   8                     /* tokens of a group */
#define SKINNY_DEPTH 11                    /* pieces of 32 columns in flight in a warp, at most */

/* Skinny products: weights are the M side of the matrix unit, tokens the N side. Lanes with the
 * same g = lane / 4 read rows g and g + 8 of a tile of w, 32 columns at a time; the columns keep
 * their lanes, so weights go from memory to the matrix unit through registers alone. x lies in
 * shared memory. Rows, and the order of the sums, do not depend on the other tokens. */

/* Bytes from row to row of x: readers of a piece meet no bank twice. */
__host__ __device__ static inline int skinny_stride(int cols)
{
    return (cols * 2 + 127) / 128 * 128 + 64;
}

/* Rows of x to shared memory, with zeros up to the end of the last piece. The caller waits. */
template <typename rows>
__device__ static inline void skinny_load_x(char *xs, const rows &x_row, int n_tok, int cols)
{
    int chunks = (cols + 31) / 32 * 4, stride = skinny_stride(cols);

    for (int i = threadIdx.x; i < n_tok * chunks; i += blockDim.x) {
        int r = i / chunks, k = i % chunks * 8;

        copy_async(xs + r * stride + k * 2, x_row(r) + (k < cols ? k : 0), k < cols);
    }
    copy_commit();
}

template <int depth> struct skinny_regs { uint4 a[depth], b[depth]; };

/* Pieces first, first + step, ... of a tile for one warp; rows w0 and w1 of this lane. */
template <int depth>
__device__ static inline void skinny_load(struct skinny_regs<depth> *r, const bf16 *w0,
                                          const bf16 *w1, int first, int step, int cols)
{
    #pragma unroll
    for (int d = 0; d < depth; d++) {
        int k = (first + d * step) * 32 + threadIdx.x % 4 * 8;

        r->a[d] = k < cols ? load_stream(w0 + k) : make_uint4(0, 0, 0, 0);
        r->b[d] = k < cols ? load_stream(w1 + k) : make_uint4(0, 0, 0, 0);
    }
}

/* c += the pieces in r; each is replaced by the one at next0, next1 once it is used. */
template <int depth, int groups>
__device__ static inline void skinny_mma(float c[groups][4], struct skinny_regs<depth> *r,
                                         const char *xs, int n_tok, int first, int step, int cols,
                                         const bf16 *next0, const bf16 *next1, int next_first)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, stride = skinny_stride(cols);

    #pragma unroll
    for (int d = 0; d < depth; d++) {
        int piece = first + d * step, k = (next_first + d * step) * 32 + 8 * t;
        bool in = piece * 32 < cols;

        #pragma unroll
        for (int n = 0; n < groups; n++) {
            uint4 x = make_uint4(0, 0, 0, 0);

            if (n > 0 && n * SKINNY_TOK >= n_tok)
                break;
            if (in && n * SKINNY_TOK + g < n_tok)
                x = *(const uint4 *) (xs + (n * SKINNY_TOK + g) * stride + piece * 64 + t * 16);
            mma_16x8x16(c[n], r->a[d].x, r->b[d].x, r->a[d].y, r->b[d].y, x.x, x.y);
            mma_16x8x16(c[n], r->a[d].z, r->b[d].z, r->a[d].w, r->b[d].w, x.z, x.w);
        }
        if (next0 != NULL) {
            r->a[d] = k < cols ? load_stream(next0 + k) : make_uint4(0, 0, 0, 0);
            r->b[d] = k < cols ? load_stream(next1 + k) : make_uint4(0, 0, 0, 0);
        }
    }
}

/* What the warps of a block have of a tile; two, so that one barrier a tile is enough. */
template <int groups> struct skinny_part {
    float v[2][GEMM_WARPS][groups * SKINNY_TOK][SKINNY_OUT + 1];
};

template <int groups>
__device__ static inline float skinny_sum(const struct skinny_part<groups> *p, int tile, int tok,
                                          int out)
{
    float sum = 0;

    for (int i = 0; i < GEMM_WARPS; i++)
        sum += p->v[tile % 2][i][tok][out];
    return sum;
}

/* n_tile tiles whose columns the warps share; row(tile, half) is this lane's row g or g + 8. r has
 * the first pieces already. put(tile) is called when skinny_sum() has the tile. */
template <int depth, int groups, typename rows, typename sink>
__device__ static inline void skinny_tiles(struct skinny_part<groups> *part,
                                           struct skinny_regs<depth> *r, const char *xs,
                                           int n_tok, int cols, int n_tile, const rows &row,
                                           const sink &put)
{
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    int each = ((cols + 31) / 32 + GEMM_WARPS - 1) / GEMM_WARPS;
    int rounds = (each + depth - 1) / depth;

    for (int tile = 0; tile < n_tile; tile++) {
        float c[groups][4] = {};

        for (int i = 0; i < rounds; i++) {
            bool turn = i + 1 == rounds;   /* what comes next is of the next tile */
            const bf16 *next0 = NULL, *next1 = NULL;

            if (!turn || tile + 1 < n_tile) {
                next0 = row(tile + turn, 0);
                next1 = row(tile + turn, 1);
            }
            skinny_mma<depth, groups>(c, r, xs, n_tok, i * depth * GEMM_WARPS + warp, GEMM_WARPS,
                                      cols, next0, next1,
                                      turn ? warp : (i + 1) * depth * GEMM_WARPS + warp);
        }
        for (int n = 0; n < groups; n++) {
            float (*v)[SKINNY_OUT + 1] = &part->v[tile % 2][warp][n * SKINNY_TOK + 2 * t];

            v[0][g] = c[n][0];
            v[1][g] = c[n][1];
            v[0][g + 8] = c[n][2];
            v[1][g + 8] = c[n][3];
        }
        __syncthreads();
        put(tile);
    }
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
