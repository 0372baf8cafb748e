#pragma once

#include <vector>

#include "tests/support/catch.hpp"
#include "unroll/core/instruction_set.hpp"

// Kernels are compiled for several instruction sets; a test of them runs once with each that this machine
// has.
namespace support {

inline std::vector<int> instruction_sets() {
  using unroll::simd::instruction_set;
  std::vector<int> sets;
  // avx512_bf16 has kernels of its own for products of bfloat16 numbers only
  const int best = std::min(int(unroll::simd::best_instructions()), int(instruction_set::avx512));
  for (int s = int(instruction_set::baseline); s <= best; ++s) sets.push_back(s);
  return sets;
}

/// Uses one set while it lives.
class with_instructions {
 public:
  explicit with_instructions(unroll::simd::instruction_set s) { unroll::simd::choose(s); }
  with_instructions(const with_instructions&) = delete;
  with_instructions& operator=(const with_instructions&) = delete;
  ~with_instructions() { unroll::simd::choose(before_); }

 private:
  unroll::simd::instruction_set before_ = unroll::simd::instructions();
};

}  // namespace support

/// Runs the rest of a test case once with each set.
#define FOR_EACH_INSTRUCTION_SET()                                                      \
  const auto instruction_set_of_test =                                                  \
      unroll::simd::instruction_set(GENERATE(from_range(support::instruction_sets()))); \
  const support::with_instructions instructions_of_test(instruction_set_of_test);       \
  INFO("instruction set " << unroll::simd::name_of(instruction_set_of_test))
