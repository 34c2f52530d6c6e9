/* attn_prefill.cu - attention where a sequence has many tokens, on Hopper's matrix units, of a
 * cache that has K and V whole. See attn_prefill.cuh; attn_shared.cu is for the others.
 *
 * Heads of 256: 128 rows, 64 for each consumer. Heads of 512: 64 rows; both compute all scores,
 * each has half of the columns of V, since the sums of 64 x 512 fill the registers of both.
 *
 * Scores of the next 64 keys are computed while those of the last ones are multiplied by V; the
 * softmax runs beside the products.
 *
 * Bound by the matrix units; heads of 512 also by the L2, which sends 2 KB for each key and 64
 * rows. */
#include "attn_prefill.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* K of tile 0, then of each next tile before V of the one before it: as they are used. */
template <int dim>
__device__ static void produce(struct smem *sm, const struct attn *a, const struct tile *b)
{
    const int chunks = shape<dim>::chunks;
    int k0 = b->first / KEYS * KEYS, n = (b->pos + b->n_tok - k0 + KEYS - 1) / KEYS;
    int64_t mine = b->h_kv * dim * 2 + threadIdx.x % 16 * 16;
    const char *k = (const char *) a->kv.k + mine, *v = (const char *) a->kv.v + mine;
    struct place l = find_keys(a, b, k0);
    struct ring r = { 0, 0 };
    uint32_t at[OWN_KEYS], last[OWN_KEYS];

    for (int tile = 0; tile <= n; tile++) {
        #pragma unroll
        for (int i = 0; i < OWN_KEYS; i++)
            last[i] = at[i];
        if (tile < n) {
            share_keys(at, &l, a);
            k0 += KEYS;
            l = find_keys(a, b, k0);
            #pragma unroll
            for (int c = 0; c < chunks; c++)
                load_chunk<KEYS>(sm, &r, k + c * 256, at);
        }
        if (tile > 0) {
            #pragma unroll
            for (int c = 0; c < chunks; c++)
                load_chunk<shape<dim>::v_keys>(sm, &r, v, last + c * (OWN_KEYS / chunks));
        }
    }
    copy_commit();
    copy_wait<0>();
}

__device__ static inline void release_next(struct smem *sm, struct ring *done)
{
    release(sm, done->i);
    ring_next(done);
}

/* s = q k^T, queued; all chunks but the last are released. q: of this warpgroup's rows. */
template <int dim>
__device__ static inline void scores(float *s, struct smem *sm, uint32_t q, struct ring *use,
                                     struct ring *done)
{
    #pragma unroll
    for (int c = 0; c < shape<dim>::chunks; c++) {
        uint32_t k;

        wait_full(sm, use->i, use->parity);
        k = wgmma_operand(sm->ring[use->i], 0);
        wgmma_begin();
        #pragma unroll
        for (int i = 0; i < 8; i++)
            wgmma_64x64(s, q + (c * 2 + i / 4) * (shape<dim>::rows * 8) + i % 4 * 2,
                        k + i / 4 * (KEYS * 8) + i % 4 * 2, c + i > 0);
        wgmma_commit();
        ring_next(use);
        if (c > 0) {
            wgmma_wait<1>();
            release_next(sm, done);
        }
    }
}

/* o += p v, queued chunk by chunk. col: bytes to this warpgroup's columns of a chunk. */
template <int dim>
__device__ static inline void values(float *o, struct smem *sm, const uint32_t *p, int col,
                                     struct ring *use)
{
    const int v_keys = shape<dim>::v_keys;

    #pragma unroll
    for (int c = 0; c < shape<dim>::chunks; c++) {
        uint32_t v;

        wait_full(sm, use->i, use->parity);
        wgmma_begin();
        v = wgmma_operand(sm->ring[use->i] + col, v_keys * 128);
        #pragma unroll
        for (int i = 0; i < v_keys / 16; i++)
            wgmma_64x256(o, p + (c * (v_keys / 16) + i) * 4, v + i * 128);
        wgmma_commit();
        ring_next(use);
    }
}

template <int dim>
__device__ static void consume(struct smem *sm, const struct attn_layer *l, const struct tile *b,
                               int group)
{
    const struct attn *a = &l->attn;
    const int chunks = shape<dim>::chunks;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, half = warp / 4;
    int row = warp % 4 * 16 + lane / 4 + (dim == 256 ? half * 64 : 0);
    int end = b->pos + b->n_tok, k0 = b->first / KEYS * KEYS;
    uint32_t q = wgmma_operand(sm->q + (dim == 256 ? half * 64 * 128 : 0), 0);
    int col = dim == 512 ? half * 4 * shape<dim>::v_keys * 128 : 0;
    struct ring use = { 0, 0 }, done = { 0, 0 };
    struct rows st = rows_new(a, b, row, group);
    float o[128], s[32];
    uint32_t p[16];

    load_q<dim>(sm, l, b, group);
    #pragma unroll
    for (int i = 0; i < 128; i++)
        o[i] = 0;
    scores<dim>(s, sm, q, &use, &done);
    wgmma_wait<0>();
    keep<32>(s);
    release_next(sm, &done);
    mask(s, &st, k0);
    softmax(s, &st, 0);
    softmax(s, &st, 1);
    pack(p, s);
    for (k0 += KEYS; k0 < end; k0 += KEYS) {
        scores<dim>(s, sm, q, &use, &done);
        values<dim>(o, sm, p, col, &use);
        wgmma_wait<chunks>();              /* the scores are there */
        keep<32>(s);
        release_next(sm, &done);
        if (k0 + KEYS > b->pos + 1 || (a->window > 0 && k0 < end - a->window))
            mask(s, &st, k0);
        softmax(s, &st, 0);
        wgmma_wait<chunks / 2>();
        for (int c = 0; c < chunks / 2; c++)
            release_next(sm, &done);
        softmax(s, &st, 1);
        wgmma_wait<0>();
        keep<128>(o);
        keep<32>(s);
        for (int c = 0; c < chunks / 2; c++)
            release_next(sm, &done);
        shrink(o, &st);
        pack(p, s);
    }
    values<dim>(o, sm, p, col, &use);
    wgmma_wait<0>();
    keep<128>(o);

    write_rows<dim>(o, &st, a, b, row, group);
}

#endif

template <int dim>
static __global__ void __launch_bounds__(THREADS, 1) prefill_kernel(struct attn_layer l)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) char mem[];
    struct smem *sm = (struct smem *) mem;
    const struct attn *a = &l.attn;
    int group = a->n_head / a->kv.n_kv;
    struct tile b;

    if (!block_begins(&b, a, shape<dim>::rows / group, CONSUMERS / 32, sm))
        return;
    if (__shfl_sync(WARP_ALL, threadIdx.x / CONSUMERS, 0) > 0) {
        regs_give<56>();
        produce<dim>(sm, a, &b);
    } else {
        regs_take<224>();
        consume<dim>(sm, &l, &b, group);
    }
#endif
}

template <int dim> static bool launch(const struct attn_layer *l, gpu_stream s)
{
    static int ready;
    const struct attn *a = &l->attn;
    int span = shape<dim>::rows / (a->n_head / a->kv.n_kv);

    if (!prefill_ready(&ready, (const void *) prefill_kernel<dim>))
        return false;
    if (l->store.k != NULL)
        kv_store_cuda(&l->store, s);
    prefill_kernel<dim><<<prefill_grid(a, span), THREADS, sizeof(struct smem), s>>>(*l);
    return true;
}

int attn_prefill_cuda(const struct attn_layer *a, gpu_stream s)
{
    const struct kv_layer *kv = &a->attn.kv;

    if (a->attn.map.n_tok <= ATTN_SPLIT_TOK || a->rope.n_rot % 4 != 0)
        return 0;
    if (kv->k_dim < kv->head_dim)
        return attn_shared(a, s);
    if (kv->head_dim == 256)
        return launch<256>(a, s);
    return kv->head_dim == 512 && launch<512>(a, s);
}
