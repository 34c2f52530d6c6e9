/* attn_shared.cu - attention where a sequence has many tokens, on Hopper's matrix units, of a cache
 * that has V whole and K's turned dims alone (pages.h): heads of 512 of which 128 dims turn, no
 * window. See attn_prefill.cuh.
 *
 * A block has 64 rows. The consumers take turns with the tiles of 64 keys. A tile's owner computes
 * its scores and the softmax and leaves the probabilities to the other, in the place of K, which is
 * free then; both multiply them by V, each by half of its columns. So while one computes scores the
 * other is at its softmax or at products with V.
 *
 * A tile is five chunks, 80 KB, and two tiles fill the ring; columns of V serve the scores and the
 * product. So that a place in the ring is soon free again, its last user gives a chunk back, and
 * between the scores of what comes first and last of a tile the other's is multiplied.
 *
 * Bound by the matrix units, which need 4,096 cycles for two tiles, and by shared memory, where
 * reading q, K, V and probabilities and writing all but q takes 4,600. */
#include "attn_prefill.cuh"

#define DIM        512
#define K_DIM      128
#define BLOCK      (KEYS * 8)              /* 64 rows of 64 columns, in units of 16 bytes */

/* Chunks of a tile, in the order in which they come: those of V begin at OWN and at OTHER. */
enum { OWN = 0, TURNED = 2, OTHER = 3, CHUNKS = 5 };

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* What the owner of a tile leaves. Thread i of both consumers has the same rows and columns. */
struct given { uint4 p[4][128]; float2 max[128]; };

static_assert(sizeof(struct given) <= CHUNK && RING == 2 * CHUNKS, "two tiles fill the ring");
static_assert(KEYS == shape<DIM>::rows, "blocks of q are as large as those of K and V");

__device__ static void produce(struct smem *sm, const struct attn *a, const struct tile *b)
{
    int n = (b->pos + b->n_tok + KEYS - 1) / KEYS, mine = threadIdx.x % 16 * 16;
    const char *k = (const char *) a->kv.k + b->h_kv * K_DIM * 2 + mine;
    const char *v = (const char *) a->kv.v + b->h_kv * DIM * 2 + mine;
    struct place l = find_keys(a, b, 0);
    struct ring r = { 0, 0 };
    uint32_t at[OWN_KEYS];

    for (int t = 0; t < n; t++) {
        int own = t % 2 * DIM, other = DIM - own;              /* bytes: half of the columns */

        share_keys(at, &l, a);
        l = find_keys(a, b, (t + 1) * KEYS);
        load_chunk<KEYS>(sm, &r, v + own, at);
        load_chunk<KEYS>(sm, &r, v + own + 256, at);
        load_chunk<KEYS>(sm, &r, k, at, 16 * K_DIM / DIM);
        load_chunk<KEYS>(sm, &r, v + other, at);
        load_chunk<KEYS>(sm, &r, v + other + 256, at);
    }
    copy_commit();
    copy_wait<0>();
}

/* s += q k^T of some chunks of this consumer's own tile, queued one by one. A chunk has two blocks
 * of 64 dims; the first of each half of V is left out, since these dims turn: K has them. */
template <int from, int to>
__device__ static inline void scores(float *s, struct smem *sm, uint32_t q, int half,
                                     uint32_t parity)
{
    #pragma unroll
    for (int c = from; c < to; c++) {
        const int next = c == TURNED ? 4 : 1;                  /* block of q */
        int at = half * CHUNKS + c, v_half = c < OTHER ? half : 1 - half;
        int block = c == TURNED ? 0 : v_half * 4 + (c == OWN || c == OTHER ? 0 : 2);
        uint32_t k;

        wait_full(sm, at, parity);
        k = wgmma_operand(sm->ring[at], 0);
        wgmma_begin();
        #pragma unroll
        for (int i = c == OWN || c == OTHER ? 4 : 0; i < 8; i++)
            wgmma_64x64(s, q + (block + i / 4 * next) * BLOCK + i % 4 * 2,
                        k + i / 4 * BLOCK + i % 4 * 2, c > 0 || i > 4);
        wgmma_commit();
    }
}

/* o += p v, queued; v: two chunks. */
__device__ static inline void values(float *o, const uint32_t *p, const char *chunks)
{
    uint32_t v = wgmma_operand(chunks, BLOCK * 16);

    wgmma_begin();
    #pragma unroll
    for (int i = 0; i < KEYS / 16; i++)
        wgmma_64x256(o, p + i * 4, v + i * 128);
    wgmma_commit();
}

/* p <- exp(s - max), with which the rows' sums grow. */
__device__ static inline void weigh(uint32_t *p, float *s, struct rows *st, int k0, int pos)
{
    if (k0 + KEYS > pos + 1)
        mask(s, st, k0);
    softmax(s, st, 0);
    softmax(s, st, 1);
    pack(p, s);
}

/* The owner's. All its warps are done with K before one writes there. */
__device__ static inline void give(struct smem *sm, const uint32_t *p, const struct rows *st,
                                   int half)
{
    struct given *g = (struct given *) sm->ring[half * CHUNKS + TURNED];
    int i = threadIdx.x % 128;

    group_sync(2 + half, 128);
    #pragma unroll
    for (int k = 0; k < 4; k++)
        g->p[k][i] = make_uint4(p[k * 4], p[k * 4 + 1], p[k * 4 + 2], p[k * 4 + 3]);
    g->max[i] = make_float2(st->max[0], st->max[1]);
    barrier_arrive(&sm->given[half]);
}

/* The other's; its sums follow the owner's maximum. Each thread gives back what it read itself, not
 * lane 0 for its warp: racecheck knows no other order between a read and an mbarrier's arrival. */
__device__ static inline void take(struct smem *sm, uint32_t *p, struct rows *st, int owner,
                                   uint32_t parity)
{
    const struct given *g = (const struct given *) sm->ring[owner * CHUNKS + TURNED];
    int i = threadIdx.x % 128;
    float2 max;

    barrier_wait(&sm->given[owner], parity);
    #pragma unroll
    for (int k = 0; k < 4; k++)
        *(uint4 *) (p + k * 4) = g->p[k][i];
    max = g->max[i];
    barrier_arrive(&sm->empty[owner * CHUNKS + TURNED]);
    for (int h = 0; h < 2; h++) {
        float now = h == 0 ? max.x : max.y;

        st->shrink[h] = exp2_fast((st->max[h] - now) * LOG2_E);
        st->sum[h] *= st->shrink[h];
        st->max[h] = now;
    }
}

/* Queues what the other's tile adds to o. */
__device__ static inline void other_tile(float *o, struct smem *sm, uint32_t *p, struct rows *st,
                                         int half, uint32_t parity)
{
    int at = (1 - half) * CHUNKS + OTHER;

    wait_full(sm, at, parity);
    wait_full(sm, at + 1, parity);
    take(sm, p, st, 1 - half, parity);
    shrink(o, st);
    values(o, p, sm->ring[at]);
}

/* v: the first of two chunks. */
__device__ static inline void release_values(struct smem *sm, int v)
{
    release(sm, v);
    release(sm, v + 1);
}

__device__ static inline void own_tile(float *o, struct smem *sm, const uint32_t *p, int half)
{
    int at = half * CHUNKS + OWN;

    values(o, p, sm->ring[at]);
    wgmma_wait<0>();
    keep<128>(o);
    release_values(sm, at);
}

__device__ static void consume(struct smem *sm, const struct attn_layer *l, const struct tile *b,
                               int group)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, half = warp / 4, t = half;
    int row = warp % 4 * 16 + lane / 4, n = (b->pos + b->n_tok + KEYS - 1) / KEYS;
    uint32_t q = wgmma_operand(sm->q, 0), p[16], own[16];
    struct rows st = rows_new(&l->attn, b, row, group);
    float o[128], s[32];
    float2 sum;

    load_q<DIM>(sm, l, b, group);
    #pragma unroll
    for (int i = 0; i < 128; i++)
        o[i] = 0;
    if (half == 0) {                       /* there is nothing of the other's before tile 0 */
        scores<OWN, CHUNKS>(s, sm, q, 0, 0);
        wgmma_wait<0>();
        keep<32>(s);
        weigh(own, s, &st, 0, b->pos);
        give(sm, own, &st, 0);
        own_tile(o, sm, own, 0);
        t = 2;
    }
    for (; t < n; t += 2) {
        scores<OWN, OTHER>(s, sm, q, half, t / 2 % 2);
        other_tile(o, sm, p, &st, half, (t - 1) / 2 % 2);
        scores<OTHER, CHUNKS>(s, sm, q, half, t / 2 % 2);
        wgmma_wait<CHUNKS - OTHER>();      /* the other's tile is multiplied */
        release_values(sm, (1 - half) * CHUNKS + OTHER);
        wgmma_wait<0>();
        keep<128>(o);
        keep<32>(s);
        weigh(own, s, &st, t * KEYS, b->pos);
        give(sm, own, &st, half);
        shrink(o, &st);
        own_tile(o, sm, own, half);
    }
    if (t == n) {
        other_tile(o, sm, p, &st, half, (t - 1) / 2 % 2);
        wgmma_wait<0>();
        keep<128>(o);
    }

    sm->sum[threadIdx.x] = make_float2(st.sum[0], st.sum[1]);
    barrier_arrive(&sm->summed);
    barrier_wait(&sm->summed, 0);
    sum = sm->sum[threadIdx.x ^ 128];
    st.sum[0] += sum.x;
    st.sum[1] += sum.y;
    write_rows<DIM>(o, &st, &l->attn, b, row, group);
}

#endif

static __global__ void __launch_bounds__(THREADS, 1) shared_kernel(struct attn_layer l)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) char mem[];
    struct smem *sm = (struct smem *) mem;
    const struct attn *a = &l.attn;
    int group = a->n_head / a->kv.n_kv, users = threadIdx.x % CHUNKS == TURNED ? 128 : 4;
    struct tile b;

    if (threadIdx.x < 2)
        barrier_init(&sm->given[threadIdx.x], CONSUMERS / 2);
    if (threadIdx.x == 0)
        barrier_init(&sm->summed, CONSUMERS);
    if (!block_begins(&b, a, shape<DIM>::rows / group, users, sm))
        return;
    if (__shfl_sync(WARP_ALL, threadIdx.x / CONSUMERS, 0) > 0) {
        regs_give<56>();
        produce(sm, a, &b);
    } else {
        regs_take<224>();
        consume(sm, &l, &b, group);
    }
#endif
}

bool attn_shared(const struct attn_layer *l, gpu_stream s)
{
    static int ready;
    const struct attn *a = &l->attn;

    if (a->kv.head_dim != DIM || a->kv.k_dim != K_DIM || a->window > 0
        || !prefill_ready(&ready, (const void *) shared_kernel))
        return false;
    if (l->store.k != NULL)
        kv_store_cuda(&l->store, s);
    shared_kernel<<<prefill_grid(a, shape<DIM>::rows / (a->n_head / a->kv.n_kv)), THREADS,
                    sizeof(struct smem), s>>>(*l);
    return true;
}
