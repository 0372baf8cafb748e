#pragma once

#include <atomic>
#include <cstdlib>
#include <string>
#include <string_view>

#include "unroll/core/error.hpp"

// Which vector instructions the kernels use. They are compiled for each set that the architecture knows,
// whatever the flags of the file, and one set is chosen when the program runs: the best that the processor
// and its operating system have, or a lesser one by choose() or by the environment variable
// UNROLL_INSTRUCTIONS, read before the first use. One program has the same bits on every machine on a given
// set, but products of bfloat16 weights on avx512_bf16: AMD's processors take dot pairs, others widen
// (bf16_products.hpp); all widen on avx512. Between sets the order of summation and fused multiply-adds
// differ, and so do the last bits. A lesser set than a file is compiled for has no bits of its own: the
// compiler may use the better instructions there. The code of baseline is that of the flags of a file, where
// several files have it, of the one that the linker takes.
namespace unroll::simd {

/// Each has all that stands before it. `baseline` is what every processor of the architecture has: SSE2 on
/// x86-64, NEON on aarch64.
enum class instruction_set : int { baseline = 1, avx2, avx512, avx512_bf16 };

/// As UNROLL_INSTRUCTIONS names it.
inline constexpr std::string_view name_of(instruction_set s) {
  return s == instruction_set::avx512_bf16 ? "avx512_bf16"
         : s == instruction_set::avx512    ? "avx512"
         : s == instruction_set::avx2      ? "avx2"
         : s == instruction_set::baseline  ? "baseline"
                                           : "no set that there is";
}

// Kernels are compiled for several sets: x86-64, g++ and clang. Other compilers and nvcc take the plain path.
// A program all of whose files define UNROLL_ONE_INSTRUCTION_SET has `baseline` alone, which compiles faster.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__CUDACC__) && !defined(UNROLL_ONE_INSTRUCTION_SET)
#define UNROLL_CHOOSES_INSTRUCTIONS 1
#endif

// Kernels of float and double in one file of a program, for programs of many files that compile slowly: all
// files define UNROLL_KERNELS_ELSEWHERE, and one UNROLL_KERNELS_HERE besides. Both change neither bits nor
// speed.
#if defined(UNROLL_KERNELS_HERE)
#define UNROLL_INSTANCE template
#elif defined(UNROLL_KERNELS_ELSEWHERE)
#define UNROLL_INSTANCE extern template
#endif

/// The best set of this machine. avx2 means AVX2 and FMA; avx512 its parts F, BW, DQ and VL besides.
inline instruction_set best_instructions() {
#if defined(UNROLL_CHOOSES_INSTRUCTIONS)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
      return __builtin_cpu_supports("avx512bf16") ? instruction_set::avx512_bf16 : instruction_set::avx512;
    return instruction_set::avx2;
  }
#endif
  return instruction_set::baseline;
}

namespace detail {

inline constinit std::atomic<int> instructions_in_use{0};  // 0: not yet chosen

/// `s` becomes the set in use, in the name of whoever asked for it.
inline instruction_set choose_for(std::string_view who, std::string_view what, instruction_set s) {
  const instruction_set best = best_instructions();
  if (s < instruction_set::baseline || s > best)
    fail(who, what,
         "asks for " + std::string(name_of(s)) + ", this machine has " + std::string(name_of(best)));
  instructions_in_use.store(int(s), std::memory_order_relaxed);
  return s;
}

#if defined(__GNUC__)
__attribute__((noinline, cold))
#endif
inline instruction_set
choose_first() {
  instruction_set s = best_instructions();
  if (const char* const asked = std::getenv("UNROLL_INSTRUCTIONS"); asked && *asked) {
    for (s = instruction_set::avx512_bf16; s >= instruction_set::baseline; s = instruction_set(int(s) - 1))
      if (name_of(s) == asked) return choose_for("UNROLL_INSTRUCTIONS", "the environment variable", s);
    fail("UNROLL_INSTRUCTIONS", "the environment variable",
         "is \"" + std::string(asked) + "\", must be baseline, avx2, avx512 or avx512_bf16");
  }
  return choose_for("UNROLL_INSTRUCTIONS", "the environment variable", s);
}

}  // namespace detail

/// The set in use. Throws unroll::error, when asked for the first time, if UNROLL_INSTRUCTIONS names no set
/// or one that this machine lacks.
inline instruction_set instructions() {
  const int s = detail::instructions_in_use.load(std::memory_order_relaxed);
  return s ? instruction_set(s) : detail::choose_first();
}

/// Makes s the set in use, of the whole program; not while other threads compute. Throws unroll::error if
/// this machine lacks it.
inline void choose(instruction_set s) { detail::choose_for("simd::choose", "s", s); }

}  // namespace unroll::simd
