#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "unroll/kernels/body.hpp"

// Products of four warps by wgmma, sm_90a only: 64 rows of a, held by rows in shared memory or as fragments,
// times N columns of b in shared memory, summed in float. In shared memory a matrix lies in panels of 64
// columns: rows of 128 bytes, one behind the other, whose pieces of 16 bytes stand at p ^ (row % 8), aligned
// to 1024 bytes ("128-byte swizzle" of the PTX manual, matrix descriptor).
namespace unroll::cuda {

#define UNROLL_WGMMA_8(x, i) x(i), x(i + 1), x(i + 2), x(i + 3), x(i + 4), x(i + 5), x(i + 6), x(i + 7)
#define UNROLL_WGMMA_32(x, i) \
  UNROLL_WGMMA_8(x, i), UNROLL_WGMMA_8(x, i + 8), UNROLL_WGMMA_8(x, i + 16), UNROLL_WGMMA_8(x, i + 24)
#define UNROLL_WGMMA_SUM(i) "+f"(d[i])
#define UNROLL_WGMMA_D64                                                                             \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, " \
  "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define UNROLL_WGMMA_D128                                                                                \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "     \
  "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, " \
  "%41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, " \
  "%61, %62, %63}"

// The instruction for `n` columns: `sum` names its registers, which ... are, and the others the operands.
#define UNROLL_WGMMA_ROWS(n, sum, of_a, of_b, of_add, ...)                                        \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " of_add                                     \
               ", 0;\n"                                                                           \
               "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 " sum ", " of_a ", " of_b \
               ", add, 1, 1, 0, 0;\n}"                                                            \
               : __VA_ARGS__                                                                      \
               : "l"(a), "l"(b), "r"(add))
#define UNROLL_WGMMA_FRAGMENTS(n, sum, operands, ...)                                                   \
  asm volatile(                                                                                         \
      "{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\n"                                                    \
      "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 " sum ", " operands ", add, 1, 1, 1;\n}" \
      : __VA_ARGS__                                                                                     \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

/// Products of a warp group whose operands lie in shared memory.
struct wgmma {
  /// Makes what this thread wrote to shared memory, copies that arrived included, visible to wgmma.
  __device__ static void publish() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
  }
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  /// The matrix at p, whose next panel is `panel` bytes on. A step of 16 along the sum is 32 bytes on inside
  /// of a panel where rows lie along it, 2048 where columns do.
  __device__ static std::uint64_t describe(const bf16* p, int panel) {
    const std::uint32_t address = std::uint32_t(__cvta_generic_to_shared(p));
    return std::uint64_t(1024 >> 4 | 1u << 30) << 32 |
           std::uint64_t((address & 0x3ffff) >> 4 | std::uint32_t(panel >> 4) << 16);
  }
  /// Between other uses of the registers of a sum and wgmma's, and back.
  template <int N>
  __device__ static void begin(float* d) {
    hold<N>(d);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  }
  __device__ static void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
  /// All but the newest Left groups are done.
  template <int Left, int N>
  __device__ static void end(float* d) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
    hold<N>(d);
  }
  /// d = a b' over the numbers of Steps * 16 columns: N rows of b.
  template <int Steps, int N>
  __device__ static void multiply_rows(float* d, std::uint64_t a, int a_panel, std::uint64_t b, int b_panel) {
#pragma unroll
    for (int i = 0; i < Steps; ++i)
      rows<N>(d, a + std::uint64_t((i / 4 * a_panel + i % 4 * 32) >> 4),
              b + std::uint64_t((i / 4 * b_panel + i % 4 * 32) >> 4), i > 0);
  }
  /// d += a b over Steps * 16 rows of b, which has N columns.
  template <int Steps, int N>
  __device__ static void multiply_fragments(float* d, const kernels::word* a, std::uint64_t b) {
#pragma unroll
    for (int i = 0; i < Steps; ++i) fragments<N>(d, a + 4 * i, b + std::uint64_t(i * 2048 >> 4));
  }

 private:
  template <int N>
  __device__ static void hold(float* d) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
  }
  /// d = a b' + (add ? d : 0) over 16 numbers of the rows of a and of b, of which there are N.
  template <int N>
  __device__ static void rows(float* d, std::uint64_t a, std::uint64_t b, int add) {
    static_assert(N == 64 || N == 128);
    if constexpr (N == 64)
      UNROLL_WGMMA_ROWS("64", UNROLL_WGMMA_D64, "%32", "%33", "%34", UNROLL_WGMMA_32(UNROLL_WGMMA_SUM, 0));
    else
      UNROLL_WGMMA_ROWS("128", UNROLL_WGMMA_D128, "%64", "%65", "%66", UNROLL_WGMMA_32(UNROLL_WGMMA_SUM, 0),
                        UNROLL_WGMMA_32(UNROLL_WGMMA_SUM, 32));
  }
  /// d += a b over 16 rows of b, which has N columns: a of fragments.
  template <int N>
  __device__ static void fragments(float* d, const kernels::word* a, std::uint64_t b) {
    static_assert(N == 64 || N == 128);
    if constexpr (N == 64)
      UNROLL_WGMMA_FRAGMENTS("64", UNROLL_WGMMA_D64, "{%32, %33, %34, %35}, %36",
                             UNROLL_WGMMA_32(UNROLL_WGMMA_SUM, 0));
    else
      UNROLL_WGMMA_FRAGMENTS("128", UNROLL_WGMMA_D128, "{%64, %65, %66, %67}, %68",
                             UNROLL_WGMMA_32(UNROLL_WGMMA_SUM, 0), UNROLL_WGMMA_32(UNROLL_WGMMA_SUM, 32));
  }
#endif
};

}  // namespace unroll::cuda
