/* attn_prefill.cuh - what the kernels for attention of many tokens share: shared memory, a block's
 * tile, its queries, the way of K and V into the ring, the softmax of a consumer's rows.
 *
 * A block has the rows of one tile: `span` tokens of a sequence with all query heads of one kv
 * head. Two warpgroups of consumers compute; a third, the producer, fetches K and V through the
 * page table, in chunks of 16 KB, into a ring. The consumers norm and turn the queries of their
 * tile before that.
 *
 * Tiles begin at multiples of span, keys at multiples of 64, so what a row sums in which order
 * depends on its position alone. */
#ifndef KERNELS_ATTN_PREFILL_CUH
#define KERNELS_ATTN_PREFILL_CUH

#include "cuda.h"
#include "head.cuh"
#include "wgmma.cuh"

#define KEYS       64                      /* of a tile */
#define CHUNK      16384                   /* bytes: 64 keys x 128 dims of K, or some rows of V */
#define RING       10                      /* chunks */
#define CONSUMERS  256                     /* threads */
#define PRODUCERS  128
#define THREADS    (CONSUMERS + PRODUCERS)
#define LOG2_E     1.4426950408889634f
#define LAZY       8.0f                    /* sums shrink when a maximum grew by more */

template <int dim> struct shape {
    static const int rows = 32768 / dim;   /* q takes 64 KB */
    static const int chunks = dim / 128;   /* of a tile of K, and of V */
    static const int v_keys = 8192 / dim;  /* of a chunk of V */
};

struct smem {
    char     q[65536];                     /* blocks of 64 columns, wgmma.cuh */
    char     ring[RING][CHUNK];
    uint64_t full[RING], empty[RING];
    uint64_t given[2], summed;             /* these and sum: attn_shared.cu */
    float2   sum[CONSUMERS];
    int32_t  share[THREADS / 32], begin;
};

/* false: not for this shape, nothing was launched. attn_shared.cu. */
bool attn_shared(const struct attn_layer *l, gpu_stream s);

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* n_tok tokens of seq, from token t0 and position pos on; the first visible key of all of them. */
struct tile { int t0, n_tok, seq, pos, first, h_kv; };

/* A place in the ring, and the parity of the times it came by. */
struct ring { int i; uint32_t parity; };

__device__ static inline void ring_next(struct ring *r)
{
    if (++r->i == RING) {
        r->i = 0;
        r->parity ^= 1;
    }
}

__device__ static inline bool begins(const struct kv_map *m, int t, int span)
{
    int pos = m->pos[t], seq = m->seq[t], before = m->seq[t > 0 ? t - 1 : 0];

    return (t == 0) | (pos % span == 0) | (seq != before);
}

/* Tile k from the end, since the later ones see more keys; false: there are not so many. */
__device__ static bool find_tile(struct tile *b, const struct attn *a, int k, int span,
                                 struct smem *sm)
{
    const struct kv_map *m = &a->map;
    int each = (m->n_tok + THREADS - 1) / THREADS, lo = threadIdx.x * each, n = 0, upto, all = 0;
    int hi = lo + each < m->n_tok ? lo + each : m->n_tok, lane = threadIdx.x % 32, t;

    #pragma unroll 4
    for (t = lo; t < hi; t++)
        n += begins(m, t, span);
    upto = n;
    for (int o = 1; o < 32; o *= 2) {
        int less = __shfl_up_sync(WARP_ALL, upto, o);

        upto += lane >= o ? less : 0;
    }
    if (lane == 31)
        sm->share[threadIdx.x / 32] = upto;
    __syncthreads();
    for (int w = 0; w < THREADS / 32; w++) {
        upto += w < (int) threadIdx.x / 32 ? sm->share[w] : 0;
        all += sm->share[w];
    }
    if (k >= all)
        return false;

    k = all - 1 - k - (upto - n);          /* of this thread's own */
    for (t = lo; t < hi && k >= 0 && k < n; t++)
        if (begins(m, t, span) && k-- == 0)
            sm->begin = t;
    __syncthreads();
    b->t0 = sm->begin;
    b->seq = m->seq[b->t0];
    b->pos = m->pos[b->t0];
    t = b->t0 + threadIdx.x;
    b->n_tok = __syncthreads_count((int) threadIdx.x < span - b->pos % span && t < m->n_tok
                                   && m->seq[t] == b->seq);
    b->first = a->window > 0 && b->pos >= a->window ? b->pos - a->window + 1 : 0;
    return true;
}

/* The block's tile; the ring's barriers are ready. users: arrivals that release chunk threadIdx.x.
 * false: the block has no tile. */
__device__ static bool block_begins(struct tile *b, const struct attn *a, int span, int users,
                                    struct smem *sm)
{
    if (threadIdx.x < RING) {
        barrier_init(&sm->full[threadIdx.x], PRODUCERS);
        barrier_init(&sm->empty[threadIdx.x], users);
    }
    b->h_kv = blockIdx.x;
    return find_tile(b, a, blockIdx.y, span, sm);
}

/* The consumers norm and turn the queries; row r is head r % group of token r / group. */
template <int dim>
__device__ static void load_q(struct smem *sm, const struct attn_layer *a, const struct tile *b,
                              int group)
{
    const int rows = shape<dim>::rows, many = 4, warps = CONSUMERS / 32;
    const struct norm_rope *rope = &a->rope;
    int lane = threadIdx.x % 32;
    struct head<dim> w;

    head_load(&w, rope->w);
    for (int r0 = threadIdx.x / 32; r0 < rows; r0 += many * warps) {
        struct head<dim> x[many] = {};     /* all on their way before the first is used */
        struct turn<dim> turn[many] = {};

        #pragma unroll
        for (int k = 0; k < many; k++) {
            int r = r0 + k * warps, t = b->t0 + r / group;

            if (r / group < b->n_tok) {
                head_load(&x[k], rope->q + ((int64_t) t * rope->n_head + b->h_kv * group
                                            + r % group) * dim);
                turn_load(&turn[k], rope->cs + (int64_t) t * 2 * rope->n_rot, rope->n_rot);
            }
        }
        #pragma unroll
        for (int k = 0; k < many; k++) {
            int r = r0 + k * warps;

            head_norm(&x[k], &w, rope->eps);
            head_turn(&x[k], &turn[k]);
            #pragma unroll
            for (int j = 0; j < dim / 128; j++) {
                int piece = lane + 32 * j, u = piece / 2;

                *(uint2 *) (sm->q + u / 8 * (rows * 128) + r * 128 + ((u ^ r) & 7) * 16
                            + piece % 2 * 8) = piece_bf16(x[k].v[j]);
            }
        }
    }
    fence_async();
    group_sync(1, CONSUMERS);
}

/* The producer. Thread i of 128 brings unit i % 16 and every 16th after it, 16 bytes each, of keys
 * i / 16, 8 further, and so on: of a tile always the same 8 keys, which are `at` units of 16 bytes
 * into the pages. Beyond those that some row sees it repeats the nearest one: a masked score is 0,
 * and so must be what it multiplies, which a NaN in an unused slot would not be. */
#define OWN_KEYS (KEYS * 16 / PRODUCERS)

struct place { int page[2], rest[2]; };    /* of keys k0 + lane and k0 + 32 + lane */

__device__ static inline struct place find_keys(const struct attn *a, const struct tile *b, int k0)
{
    const int32_t *table = a->map.page + (int64_t) b->seq * a->map.page_max;
    struct place l;

    for (int i = 0; i < 2; i++) {
        int key = k0 + i * 32 + threadIdx.x % 32, tok = a->kv.page_tok;

        key = min(max(key, b->first), b->pos + b->n_tok - 1);
        l.page[i] = table[key / tok];
        l.rest[i] = key % tok;
    }
    return l;
}

__device__ static inline void share_keys(uint32_t *at, const struct place *l, const struct attn *a)
{
    uint32_t width = a->kv.n_kv * a->kv.head_dim / 8;

    for (int i = 0; i < 2; i++) {
        uint32_t mine = (uint32_t) (l->page[i] * a->kv.page_tok + l->rest[i]) * width;

        for (int k = 0; k < OWN_KEYS / 2; k++)
            at[i * OWN_KEYS / 2 + k] = __shfl_sync(WARP_ALL, mine, k * 8 + threadIdx.x / 16 % 8);
    }
}

/* keys of the tile at `at`, 8 * n units of each. from: this thread's first unit of key 0; unit:
 * bytes of K that lie where 16 bytes of V do. */
template <int keys>
__device__ static inline void load_chunk(struct smem *sm, struct ring *r, const char *from,
                                         const uint32_t *at, int unit = 16)
{
    int i = threadIdx.x % PRODUCERS, u = i % 16, row = i / 16;
    char *to = sm->ring[r->i] + u / 8 * (keys * 128) + row * 128 + (u ^ row) % 8 * 16;

    barrier_wait(&sm->empty[r->i], r->parity ^ 1);
    #pragma unroll
    for (int k = 0; k < keys / 8; k++)
        #pragma unroll
        for (int n = 0; n < KEYS / keys; n++)
            copy_async(to + k * 1024 + n * (2 * keys * 128),
                       from + (uint64_t) at[k] * unit + n * 256, true);
    barrier_arrive_copies(&sm->full[r->i]);
    ring_next(r);
}

/* The consumer's side. Row i of two is that of lane / 4 + 8 * i in this warp's 16. */
struct rows {
    float max[2], sum[2], shrink[2];       /* sum: of this thread's columns */
    int   lo[2], hi[2];                    /* keys that it sees */
};

/* row: of i = 0. */
__device__ static inline struct rows rows_new(const struct attn *a, const struct tile *b, int row,
                                              int group)
{
    struct rows st;

    for (int i = 0; i < 2; i++) {
        int pos = b->pos + (row + i * 8) / group;

        st.max[i] = -INFINITY;
        st.sum[i] = 0;
        st.hi[i] = pos;
        st.lo[i] = a->window > 0 ? pos - a->window + 1 : 0;
    }
    return st;
}

__device__ static inline void wait_full(struct smem *sm, int chunk, uint32_t parity)
{
    barrier_wait(&sm->full[chunk], parity);
    fence_async();
}

__device__ static inline void release(struct smem *sm, int chunk)
{
    if (threadIdx.x % 32 == 0)
        barrier_arrive(&sm->empty[chunk]);
}

/* Scores of the keys from k0 that a row does not see. */
__device__ static inline void mask(float *s, const struct rows *st, int k0)
{
    #pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        int key = k0 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2, h = i / 2 % 2;

        if (key < st->lo[h] || key > st->hi[h])
            s[i] = -INFINITY;
    }
}

/* s <- exp(s - max) of row h. */
__device__ static inline void softmax(float *s, struct rows *st, int h)
{
    float max = -INFINITY, sum = 0, top;

    #pragma unroll
    for (int i = h * 2; i < KEYS / 2; i += 4)
        max = fmaxf(max, fmaxf(s[i], s[i + 1]));
    max = fmaxf(max, __shfl_xor_sync(WARP_ALL, max, 1));
    max = fmaxf(max, __shfl_xor_sync(WARP_ALL, max, 2));

    st->shrink[h] = 1;
    if (max > st->max[h] + LAZY / LOG2_E) {
        st->shrink[h] = exp2_fast((st->max[h] - max) * LOG2_E);
        st->max[h] = max;
    }
    top = st->max[h] == -INFINITY ? 0 : st->max[h] * LOG2_E;
    #pragma unroll
    for (int i = h * 2; i < KEYS / 2; i += 4) {
        s[i] = exp2_fast(s[i] * LOG2_E - top);
        s[i + 1] = exp2_fast(s[i + 1] * LOG2_E - top);
        sum += s[i] + s[i + 1];
    }
    st->sum[h] = st->sum[h] * st->shrink[h] + sum;
}

/* p: s as bf16, laid out as the left side of a product already. */
__device__ static inline void pack(uint32_t *p, const float *s)
{
    #pragma unroll
    for (int i = 0; i < KEYS / 4; i++)
        p[i] = pack_bf16(s[i * 2], s[i * 2 + 1]);
}

__device__ static inline void shrink(float *o, const struct rows *st)
{
    if (!__any_sync(WARP_ALL, st->shrink[0] != 1 || st->shrink[1] != 1))
        return;
    #pragma unroll
    for (int i = 0; i < 128; i++)
        o[i] *= st->shrink[i / 2 % 2];
}

/* row: of h = 0. */
template <int dim>
__device__ static inline void write_rows(const float *o, const struct rows *st,
                                         const struct attn *a, const struct tile *b, int row,
                                         int group)
{
    int lane = threadIdx.x % 32, half = threadIdx.x / 128;

    #pragma unroll
    for (int h = 0; h < 2; h++) {
        int r = row + h * 8, t = r / group;
        float inv = st->sum[h];
        bf16 *y = (bf16 *) a->y
                  + ((int64_t) (b->t0 + t) * a->n_head + b->h_kv * group + r % group) * dim
                  + (dim == 512 ? half * 256 : 0) + lane % 4 * 2;

        inv += __shfl_xor_sync(WARP_ALL, inv, 1);
        inv += __shfl_xor_sync(WARP_ALL, inv, 2);
        inv = 1 / inv;
        if (t >= b->n_tok)
            continue;
        #pragma unroll
        for (int i = 0; i < 32; i++)
            *(uint32_t *) (y + i * 8) = pack_bf16(o[i * 4 + h * 2] * inv,
                                                  o[i * 4 + h * 2 + 1] * inv);
    }
}

#endif

/* false: this device runs the other code of the file, which has no such kernel. One thread
 * launches; ready: of this kernel, 0 at first. */
static bool prefill_ready(int *ready, const void *kernel)
{
    struct cudaFuncAttributes attr;

    if (*ready == 0) {
        *ready = cudaFuncGetAttributes(&attr, kernel) == cudaSuccess && attr.ptxVersion == 90
                 ? 1 : -1;
        if (*ready > 0)
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int) sizeof(struct smem));
    }
    return *ready > 0;
}

static dim3 prefill_grid(const struct attn *a, int span)
{
    int tiles = a->map.n_tok / span + 2 * a->n_seq;

    return dim3((unsigned) a->kv.n_kv,
                (unsigned) (tiles < a->map.n_tok ? tiles : a->map.n_tok));
}

#endif
