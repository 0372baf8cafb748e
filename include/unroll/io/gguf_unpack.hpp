#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstring>

#include "unroll/core/bf16.hpp"
#include "unroll/core/simd.hpp"
#include "unroll/io/gguf_blocks.hpp"

namespace unroll::gguf_blocks {

namespace detail {

/// Blocks of a kind as numbers of type T, a few at a time: on the stack the compiler knows that nothing
/// overlaps, and its vectors are as wide as the set has them.
template <class Kind, class T>
struct unpack_kernel {
  template <class Isa>
  UNROLL_INLINE static bool run(const unsigned char* from, index_t blocks, T* to) {
    constexpr index_t most = Kind::values < 64 ? 64 / Kind::values : 1;
    std::uint32_t beyond = 0;
    for (; blocks >= most; blocks -= most, from += most * Kind::bytes, to += most * Kind::values)
      beyond |= some<Isa, most>(from, to);
    for (; blocks > 0; --blocks, from += Kind::bytes, to += Kind::values) beyond |= some<Isa, 1>(from, to);
    return beyond >> 31 == 0;
  }

 private:
  /// Unpacks n blocks; the highest bit of what is returned: one has the exponent of infinity and nan.
  template <class Isa, index_t n>
  UNROLL_INLINE static std::uint32_t some(const unsigned char* from, T* to) {
    constexpr auto values = std::size_t(n * Kind::values);
    alignas(64) float x[values];
    for (index_t k = 0; k < n; ++k) Kind::template unpack<Isa>(from + k * Kind::bytes, x + k * Kind::values);
    alignas(64) T out[values];
    std::uint32_t beyond = 0;
    for (std::size_t i = 0; i < values; ++i) {
      out[i] = T(x[i]);
      beyond |= (std::bit_cast<std::uint32_t>(float(out[i])) & 0x7fffffffu) + 0x00800000u;
    }
    std::memcpy(to, out, sizeof out);
    return beyond;
  }
};

}  // namespace detail

/// The numbers of so many blocks, from[blocks * Kind::bytes] to to[blocks * Kind::values]: float, double, or
/// bf16 by rounding to nearest. Returns whether all are finite. The values are those of Kind::unpack whatever
/// the instruction set.
template <class Kind, class T>
bool unpack(const unsigned char* from, index_t blocks, T* to) {
  static_assert(std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, unroll::bf16>,
                "tensors become float, double or bf16");
  return simd::dispatch<detail::unpack_kernel<Kind, T>>(from, blocks, to);
}

}  // namespace unroll::gguf_blocks
