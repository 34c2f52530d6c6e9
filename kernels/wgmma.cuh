/* wgmma.cuh - the products of attention on Hopper: q k', and p v with p in registers. The rules and
 * the tiles of hopper.cuh. */
#ifndef KERNELS_WGMMA_CUH
#define KERNELS_WGMMA_CUH

#include "hopper.cuh"

#define F8(d, i)  "+f"((d)[i]), "+f"((d)[i + 1]), "+f"((d)[i + 2]), "+f"((d)[i + 3]), \
                  "+f"((d)[i + 4]), "+f"((d)[i + 5]), "+f"((d)[i + 6]), "+f"((d)[i + 7])
#define F32(d, i) F8(d, i), F8(d, i + 8), F8(d, i + 16), F8(d, i + 24)

/* Lower half of a swizzled operand's description, in units of 16 bytes: where it begins and, where
 * the product goes over columns (a transposed operand), the bytes between two blocks of them. Of
 * the upper half, the same for all: groups of 8 rows lie 1,024 bytes apart; swizzle of 128. */
#define WGMMA_HIGH  "0x40000040"

__device__ static inline uint32_t wgmma_operand(const void *p, uint32_t block)
{
    return smem_at(p) >> 4 | block >> 4 << 16;
}

/* c[64 x 64] = a[64 x 16] b[64 x 16]^T, or += if add. Thread i of the 128 holds what warp i / 32
 * would hold of 16 rows of mma_16x8x16, 8 columns after 8. */
__device__ static inline void wgmma_64x64(float *c, uint32_t a, uint32_t b, int add)
{
    asm volatile("{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.b32 p, %34, 0;\n"
                 "mov.b64 a, {%32, " WGMMA_HIGH "};\nmov.b64 b, {%33, " WGMMA_HIGH "};\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "
                 "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
                 "}, a, b, p, 1, 1, 0, 0;\n}"
                 : F32(c, 0) : "r"(a), "r"(b), "r"(add));
}

/* c[64 x 256] += a[64 x 16] b[16 x 256]; a as of mma_16x8x16. */
__device__ static inline void wgmma_64x256(float *c, const uint32_t *a, uint32_t b)
{
    asm volatile("{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, 1, 0;\n"
                 "mov.b64 b, {%132, " WGMMA_HIGH "};\n"
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "
                 "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, "
                 "%47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
                 "%62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, "
                 "%77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, "
                 "%92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, "
                 "%106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, "
                 "%118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
                 "}, {%128, %129, %130, %131}, b, p, 1, 1, 1;\n}"
                 : F32(c, 0), F32(c, 32), F32(c, 64), F32(c, 96)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b));
}

/* The compiler moves no use of c over this. */
template <int n> __device__ static inline void keep(float *c)
{
    #pragma unroll
    for (int i = 0; i < n; i++)
        asm volatile("" : "+f"(c[i]) :: "memory");
}

/* 2^x to 2 units in the last place; what is below 2^-126 is 0. */
__device__ static inline float exp2_fast(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
