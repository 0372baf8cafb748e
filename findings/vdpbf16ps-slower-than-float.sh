#!/usr/bin/env bash
# Intel Xeon (family 6, model 207, Emerald Rapids; AMX hidden by the hypervisor): the bfloat16 product of AVX512-BF16 does
# fewer multiply-adds a second than the float one of AVX-512.
#
# Why it matters here: a bit of CPUID says that vdpbf16ps is there, not that it pays. Each one does 32 multiply-adds, twice
# those of a float instruction of 16, so programs take it where they find it. Here it is issued at a quarter of the
# rate: floats do twice the products, and round nothing. llama.cpp (llama-cpp-python 0.3.36, built on this machine)
# takes it, and reads a prompt of 512 tokens with 42 million bfloat16 weights in 0.49 s, with the same weights as float in
# 0.36 s.
#
# Seen: 1.3 thousand million vdpbf16ps a second (42 thousand million products), 5.3 thousand million vfmadd231ps (85).
# Version: that processor, microcode as the hypervisor shows it; g++ 12.2 only assembles the two instructions.
#
# usage: vdpbf16ps-slower-than-float.sh     needs g++; skips other processors; exits non-zero where bfloat16 is faster
set -euo pipefail
grep -qw avx512_bf16 /proc/cpuinfo || { echo "skipped: no AVX512-BF16"; exit 0; }
awk -F': ' '/^vendor_id/ { v = $2 } /^cpu family/ { f = $2 } /^model\t/ { m = $2 } END { exit v f m != "GenuineIntel6207" }' /proc/cpuinfo ||
  { echo "skipped: not family 6, model 207 of Intel"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/rate.cpp" <<'END'
#include <cstdio>
#include <ctime>
typedef float sums __attribute__((vector_size(64)));
#define RATE(name, instruction)                                                             \
  __attribute__((target("avx512f,avx512bf16"))) double name() {                             \
    double best = 1e9;                                                                      \
    for (int sample = 0; sample < 9; ++sample) {                                            \
      sums s[24] = {}, a{}, b{};                                                            \
      const std::clock_t start = std::clock();                                              \
      for (int i = 0; i < 1000000; ++i) {                                                   \
        _Pragma("GCC unroll 24") for (int k = 0; k < 24; ++k)                               \
            __asm__ volatile(instruction " %2, %1, %0" : "+v"(s[k]) : "v"(a), "v"(b));      \
      }                                                                                     \
      const double seconds = double(std::clock() - start) / CLOCKS_PER_SEC;                 \
      if (seconds < best) best = seconds;                                                   \
    }                                                                                       \
    return 24e6 / best;                                                                     \
  }
RATE(pairs, "vdpbf16ps")
RATE(floats, "vfmadd231ps")
int main() {
  const double p = pairs(), f = floats();
  std::printf("vdpbf16ps %.2fe9 a second, %.1fe9 products; vfmadd231ps %.2fe9, %.1fe9 products\n", p / 1e9,
              32 * p / 1e9, f / 1e9, 16 * f / 1e9);
  return 32 * p < 16 * f ? 0 : 1;
}
END
g++ -O2 "$work/rate.cpp" -o "$work/rate"
"$work/rate"
