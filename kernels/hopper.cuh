/* hopper.cuh - the instructions of compute capability 9.0a: barriers in shared memory, the copy
 * engine, the matrix products of a warpgroup (four warps), registers that change hands.
 *
 * For code between #ifdef __CUDA_ARCH_FEAT_SM90_ALL, but for what is the host's. Tiles in
 * shared memory have rows of 128 bytes (64 bf16), begin at a multiple of 1,024 and are swizzled:
 * piece i of 16 bytes of row r lies at place i ^ r % 8. */
#ifndef KERNELS_HOPPER_CUH
#define KERNELS_HOPPER_CUH

#include "cuda.h"
#include "dev.cuh"

#include <../include/cuda.h>               /* the driver's: ours has the same name */

__device__ static inline uint32_t smem_at(const void *p)
{
    return (uint32_t) __cvta_generic_to_shared(p);
}

/* --- barriers: n arrivals, and the bytes that were expected, end a phase --- */

__device__ static inline void barrier_init(uint64_t *b, int n)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(smem_at(b)), "r"(n) : "memory");
}

/* After the inits of a block, before its __syncthreads(). */
__device__ static inline void barrier_init_done()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* For what this thread has done, and other threads before a barrier with it: where one lane arrives
 * for a warp, what others have read or written must be behind a __syncwarp(). What the matrix units
 * read for the warp is behind wgmma_wait(). */
__device__ static inline void barrier_arrive(uint64_t *b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(smem_at(b)) : "memory");
}

__device__ static inline void barrier_arrive_expect(uint64_t *b, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :: "r"(smem_at(b)), "r"(bytes) : "memory");
}

/* Arrives for this thread when all that it has copied so far (copy_async) is there. */
__device__ static inline void barrier_arrive_copies(uint64_t *b)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];"
                 :: "r"(smem_at(b)) : "memory");
}

/* The same for the barrier that lies where b does, in that block of the cluster. It tells of what
 * was read, not of what was written: a release to the cluster would wait for all stores. */
__device__ static inline void barrier_arrive_at(uint64_t *b, int rank)
{
    asm volatile("{\n"
                 ".reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
                 "}" :: "r"(smem_at(b)), "r"(rank) : "memory");
}

/* Until the phase of this parity is over. */
__device__ static inline void barrier_wait(uint64_t *b, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" :: "r"(smem_at(b)), "r"(parity) : "memory");
}

/* n threads, id 1 .. 15: 0 is __syncthreads(). */
__device__ static inline void group_sync(int id, int n)
{
    asm volatile("bar.sync %0, %1;" :: "r"(id), "r"(n) : "memory");
}

/* --- clusters: blocks that reach each other's shared memory --- */

/* All threads of all blocks of the cluster that have not ended; what they wrote is seen. */
__device__ static inline void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

/* Where p, of this block's shared memory, lies in that of another. */
template <typename type> __device__ static inline const type *of_block(const type *p, int rank)
{
    const type *there;

    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(p), "r"(rank));
    return there;
}

/* v to where p lies in that block of the cluster, whose barrier b learns of these 4 bytes. An
 * illegal instruction where the kernel was not launched in clusters. */
__device__ static inline void send(int *p, int v, uint64_t *b, int rank)
{
    asm volatile("{\n"
                 ".reg .b32 there, done;\n"
                 "mapa.shared::cluster.u32 there, %0, %3;\n"
                 "mapa.shared::cluster.u32 done, %2, %3;\n"
                 "st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [there], %1, [done];\n"
                 "}" :: "r"(smem_at(p)), "r"(v), "r"(smem_at(b)), "r"(rank) : "memory");
}

/* Waits as barrier_wait() does; what other blocks have sent is seen. */
__device__ static inline void barrier_wait_sent(uint64_t *b, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" :: "r"(smem_at(b)), "r"(parity) : "memory");
}

/* --- the copy engine --- */

/* The box of map whose first element is (row, col) to shared memory; adds its bytes to b. Past the
 * matrix there are zeros. Streamed once: first out of the L2. */
__device__ static inline void box_copy(void *to, const CUtensorMap *map, uint64_t *b, int row,
                                       int col)
{
    uint64_t policy;

    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;"
                 :: "r"(smem_at(to)), "l"(map), "r"(col), "r"(row), "r"(smem_at(b)), "l"(policy)
                 : "memory");
}

/* To both blocks of a pair, where to and b lie. */
__device__ static inline void box_copy_pair(void *to, const CUtensorMap *map, uint64_t *b, int row,
                                            int col)
{
    uint64_t policy;

    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".multicast::cluster.L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5, %6;"
                 :: "r"(smem_at(to)), "l"(map), "r"(col), "r"(row), "r"(smem_at(b)),
                    "h"((uint16_t) 3), "l"(policy) : "memory");
}

/* The same of what others read too. */
__device__ static inline void box_copy_shared(void *to, const CUtensorMap *map, uint64_t *b,
                                              int row, int col)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3}], [%4];"
                 :: "r"(smem_at(to)), "l"(map), "r"(col), "r"(row), "r"(smem_at(b)) : "memory");
}

__device__ static inline void map_prefetch(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" :: "l"(map) : "memory");
}

/* hopper_open()'s parts: may these kernels run, with all the shared memory that they need? */
bool moe_hopper_open(void);
bool gemm_hopper_open(struct hopper *h);   /* fills room */

template <typename... par> static inline bool allow_smem(void (*kernel)(par...), size_t bytes)
{
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int) bytes)
           == cudaSuccess;
}

/* For boxes of n rows x 128 bytes of a bf16 matrix at p, which is aligned to 16 bytes; cols is a
 * multiple of 8. No argument that the kernels' own checks let pass can make it fail. */
static inline void map_rows(CUtensorMap *map, const struct hopper *h, const void *p, int64_t rows,
                            int32_t cols, int n)
{
    cuuint64_t size[2] = { (cuuint64_t) cols, (cuuint64_t) rows }, stride = size[0] * 2;
    cuuint32_t box[2] = { 64, (cuuint32_t) n }, step[2] = { 1, 1 };

    ((decltype(&cuTensorMapEncodeTiled)) h->encode)(
        map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *) p, size, &stride, box, step,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        cols % 128 == 0 ? CU_TENSOR_MAP_L2_PROMOTION_L2_256B : CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

/* What ordinary stores and copies wrote is seen by the copy engine and the matrix units. */
__device__ static inline void fence_async()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* --- products --- */

/* A swizzled tile of 64 or more rows; add 2 for the next 16 columns. */
__device__ static inline uint64_t wgmma_tile(const void *p)
{
    return (uint64_t) (smem_at(p) >> 4 & 0x3fff) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

__device__ static inline void wgmma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ static inline void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* All but the newest n groups are done. */
template <int n> __device__ static inline void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(n) : "memory");
}

/* c[64 x n] += a[64 x 16] b[n x 16]'. With w = warp % 4, g = lane / 4, t = lane % 4 a
 * thread holds of column block j (8 wide) c[4j ..]: (16w + g, 2t) (16w + g, 2t + 1) and the same of
 * row 16w + g + 8. */
template <int n> __device__ static inline void wgmma(float *c, uint64_t a, uint64_t b);

#define ACC_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define ACC_1 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define ACC_2 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define ACC_3 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define ACC_4 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define C4(i)  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define C16(i) C4(i), C4(i + 4), C4(i + 8), C4(i + 12)

#define WGMMA(n, acc, a_at, b_at, ...)                                                      \
    template <> __device__ __forceinline__ void wgmma<n>(float *c, uint64_t a, uint64_t b)  \
    {                                                                                       \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 "            \
                     "{" acc "}, %" a_at ", %" b_at ", 1, 1, 1, 0, 0;"                      \
                     : __VA_ARGS__ : "l"(a), "l"(b));                                       \
    }

WGMMA(16, "%0, %1, %2, %3, %4, %5, %6, %7", "8", "9", C4(0), C4(4))
WGMMA(32, ACC_0, "16", "17", C16(0))
WGMMA(64, ACC_0 ", " ACC_1, "32", "33", C16(0), C16(16))
WGMMA(96, ACC_0 ", " ACC_1 ", " ACC_2, "48", "49", C16(0), C16(16), C16(32))
WGMMA(128, ACC_0 ", " ACC_1 ", " ACC_2 ", " ACC_3, "64", "65", C16(0), C16(16), C16(32), C16(48))
WGMMA(144, ACC_0 ", " ACC_1 ", " ACC_2 ", " ACC_3 ", %64, %65, %66, %67, %68, %69, %70, %71", "72",
      "73", C16(0), C16(16), C16(32), C16(48), C4(64), C4(68))
WGMMA(160, ACC_0 ", " ACC_1 ", " ACC_2 ", " ACC_3 ", " ACC_4, "80", "81", C16(0), C16(16),
      C16(32), C16(48), C16(64))

/* Four 8 x 8 matrices of 2-byte elements, transposed; lane l names row l % 8 of matrix l / 8. */
__device__ static inline void stmatrix_x4_trans(void *p, const uint32_t *r)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};"
                 :: "r"(smem_at(p)), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
}

/* --- registers of each thread of this warpgroup, from now on --- */

template <int n> __device__ static inline void regs_give()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(n));
}

template <int n> __device__ static inline void regs_take()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(n));
}

#endif
