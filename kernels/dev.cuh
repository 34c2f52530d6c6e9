/* dev.cuh - what the .cu files share: reductions, packing, the matrix and copy instructions. */
#ifndef KERNELS_DEV_CUH
#define KERNELS_DEV_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

#define WARP_ALL 0xffffffffu

/* gelu(g) * up, with the tanh, as exact as bf16 wants it. Far from 0 the quotient is g or 0. */
__device__ static inline float gelu_mul(float g, float up)
{
    float e = __expf(g * (g * g * 0.044715f + 1.0f) * -1.5957691216f);

    return __fdividef(g, e + 1.0f) * up;
}

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

__device__ static inline float4 add4(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

__device__ static inline float warp_sum(float v)
{
    for (int o = 16; o > 0; o /= 2)
        v += __shfl_xor_sync(WARP_ALL, v, o);
    return v;
}

/* The sum over a block, in every thread. tmp: 32 floats of shared memory, free again afterwards. */
__device__ static inline float block_sum(float v, float *tmp)
{
    int n_warp = (blockDim.x + 31) / 32;
    float all;

    v = warp_sum(v);
    if (threadIdx.x % 32 == 0)
        tmp[threadIdx.x / 32] = v;
    __syncthreads();
    all = warp_sum((int) (threadIdx.x % 32) < n_warp ? tmp[threadIdx.x % 32] : 0.0f);
    __syncthreads();
    return all;
}

/* Programmatic launch: a kernel may be resident, with its first weights on their way, before those
 * ahead of it have ended. Each kernel says next_may_start() at its top and reads what others wrote,
 * or writes anything, after wait_for_others() only. Without the hardware both are nothing. */
__device__ static inline void next_may_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ static inline void wait_for_others()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Launch a kernel that does so, in clusters of so many blocks along x. */
template <typename... par, typename... arg>
static void launch_clusters(void (*kernel)(par...), dim3 grid, unsigned cluster, unsigned threads,
                            size_t smem, cudaStream_t s, const arg &... args)
{
    static int major;                      /* of the device: one thread launches */
    cudaLaunchAttribute attr[2] = {};
    cudaLaunchConfig_t c = {};

    if (major == 0)
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    attr[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attr[0].val.programmaticStreamSerializationAllowed = 1;
    attr[1].id = cudaLaunchAttributeClusterDimension;
    attr[1].val.clusterDim.x = cluster;
    attr[1].val.clusterDim.y = attr[1].val.clusterDim.z = 1;
    c.gridDim = grid;
    c.blockDim = dim3(threads);
    c.dynamicSmemBytes = smem;
    c.stream = s;
    c.attrs = attr;
    c.numAttrs = major < 9 ? 0 : cluster == 1 ? 1 : 2;
    cudaLaunchKernelEx(&c, kernel, args...);
}

template <typename... par, typename... arg>
static void launch_early(void (*kernel)(par...), dim3 grid, unsigned threads, size_t smem,
                         cudaStream_t s, const arg &... args)
{
    launch_clusters(kernel, grid, 1, threads, smem, s, args...);
}

/* lo in the low half: the element with the smaller index. */
__device__ static inline uint32_t pack_bf16(float lo, float hi)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);

    return *reinterpret_cast<uint32_t *>(&v);
}

/* c[16 x 8] += a[16 x 16] b[16 x 8]. With g = lane / 4 and t = lane % 4 a lane holds of a the pairs
 * (g, 2t) (g+8, 2t) (g, 2t+8) (g+8, 2t+8), of b (2t, g) (2t+8, g), of c (g, 2t) (g+8, 2t). */
__device__ static inline void mma_16x8x16(float *c, uint32_t a0, uint32_t a1, uint32_t a2,
                                          uint32_t a3, uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* Four 8 x 8 matrices of 2-byte elements; lane l names row l % 8 of matrix l / 8. */
__device__ static inline void ldmatrix_x4(uint32_t *r, const void *p)
{
    uint32_t at = (uint32_t) __cvta_generic_to_shared(p);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

__device__ static inline void ldmatrix_x2(uint32_t *r, const void *p)
{
    uint32_t at = (uint32_t) __cvta_generic_to_shared(p);

    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(at) : "memory");
}

__device__ static inline void ldmatrix_x4_trans(uint32_t *r, const void *p)
{
    uint32_t at = (uint32_t) __cvta_generic_to_shared(p);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

/* 16 bytes to shared memory; zeros if not ok (p is then not read). */
__device__ static inline void copy_async(void *to, const void *p, bool ok)
{
    uint32_t at = (uint32_t) __cvta_generic_to_shared(to);

    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(at), "l"(p), "r"(ok ? 16 : 0) : "memory");
}

__device__ static inline void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* All but the newest n groups of this thread have arrived. */
template <int n> __device__ static inline void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory");
}

/* Streamed once: past the L1, first out of the L2. */
__device__ static inline uint4 load_stream(const void *p)
{
    uint4 v;

    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

#endif
