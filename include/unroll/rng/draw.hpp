#pragma once

#include <array>

#include "unroll/core/view.hpp"
#include "unroll/rng/box_muller.hpp"
#include "unroll/rng/key.hpp"
#include "unroll/rng/philox_lanes.hpp"

namespace unroll {

// Draws are pure functions of (key, step, index): nothing is stored, so a replay, another chunk size or
// another number of threads sees the same numbers. `kind` keeps the kinds of draw of one step apart.
/// What a draw is named by, beside key, step and index.
enum class draw_kind : std::uint32_t { sign = 1, uniform = 2, index = 3, normal = 4 };

/// 128 bits for (key, kind, step, block), block < 2^56.
UNROLL_HD constexpr std::array<std::uint32_t, 4> draw_bits(key k, draw_kind kind, std::int64_t step,
                                                           std::uint64_t block) {
  const auto s = static_cast<std::uint64_t>(step);
  const auto kind_and_high = std::uint32_t(kind) | std::uint32_t(block >> 32) << 8;
  return philox({std::uint32_t(block), kind_and_high, std::uint32_t(s), std::uint32_t(s >> 32)},
                {std::uint32_t(k.seed), std::uint32_t(k.seed >> 32)});
}

/// Uniform on [0, 1), with 53 random bits.
UNROLL_HD constexpr double draw_uniform(key k, std::int64_t step, std::uint32_t index = 0) {
  const auto r = draw_bits(k, draw_kind::uniform, step, index);
  return double((std::uint64_t(r[0]) | std::uint64_t(r[1]) << 32) >> 11) * 0x1.0p-53;
}

/// out[i] = draw_uniform(k, step + i), in vectors.
template <class Space>
void draw_uniforms(key k, std::int64_t step, view<double, Space> out) {
  philox_lanes::fill_uniforms(k.seed, std::uint32_t(draw_kind::uniform), step, out.data(), out.size());
}

/// Uniform on {0, ..., n-1}, n at most 2^32; the bias of the multiply-shift is below n / 2^64.
UNROLL_HD constexpr index_t draw_index(key k, std::int64_t step, index_t n, std::uint32_t index = 0) {
  UNROLL_ASSERT(n > 0 && n <= index_t{1} << 32);
  const auto r = draw_bits(k, draw_kind::index, step, index);
  const std::uint64_t high = std::uint64_t(r[1]) * std::uint64_t(n);
  const std::uint64_t low = std::uint64_t(r[0]) * std::uint64_t(n);
  return index_t((high + (low >> 32)) >> 32);
}

/// out[i] = -1 or +1 for all of `out`, one bit each, 128 per Philox call.
template <class T, class Space>
UNROLL_HD constexpr void draw_signs(key k, std::int64_t step, view<T, Space> out) {
  for (index_t i = 0; i < out.size(); i += 128) {
    const auto r = draw_bits(k, draw_kind::sign, step, std::uint64_t(i / 128));
    const index_t n = out.size() - i < 128 ? out.size() - i : 128;
    for (index_t first = 0; first < n; first += 32) {  // a word at a time, which vectors can do
      const std::uint32_t word = r[std::size_t(first / 32)];
      const index_t left = n - first < 32 ? n - first : 32;
      for (std::uint32_t j = 0; j < std::uint32_t(left); ++j)
        out[i + first + index_t(j)] = T(1) - T(2) * T((word >> j) & 1u);
    }
  }
}

/// Normals of (key, step), one for each index of `out`: by Box-Muller, those of 2 pair and 2 pair + 1 from
/// the bits of block `pair`. They have the same bits everywhere (rng/box_muller.hpp).
template <class T, class Space>
void draw_normals(key k, std::int64_t step, view<T, Space> out) {
  box_muller::fill(k.seed, std::uint32_t(draw_kind::normal), step, 0, out.data(), out.size());
}
/// One of them.
template <class T = double>
T draw_normal(key k, std::int64_t step, std::uint64_t index = 0) {
  T two[2];
  box_muller::fill(k.seed, std::uint32_t(draw_kind::normal), step, index / 2, two, 2);
  return two[index % 2];
}

}  // namespace unroll
