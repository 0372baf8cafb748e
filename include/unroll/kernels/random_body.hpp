#pragma once

#include "unroll/kernels/body.hpp"
#include "unroll/kernels/device_math.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::kernels {

/// x_i = -1 or +1, the bits of draw_signs(key, step): n numbers, 128 a thread.
template <class P>
struct signs_body {
  key k;
  std::int64_t step;
  P* x;
  index_t n;

  static constexpr int threads = 64;
  UNROLL_HD index_t blocks() const { return ceil_div(n, index_t{128} * threads); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.phase([&](int t) {
      const index_t block = c.block() * threads + t;
      if (128 * block >= n) return;
      const auto bits = draw_bits(k, draw_kind::sign, step, std::uint64_t(block));
      for (index_t j = 0; j < 128 && 128 * block + j < n; ++j)
        x[128 * block + j] = P(1.f - 2.f * float((bits[std::size_t(j / 32)] >> (j % 32)) & 1u));
    });
  }
};

/// Standard normals, the bits of draw_normals(key, step): n numbers, two a thread.
template <class P>
struct normals_body {
  key k;
  std::int64_t step;
  P* x;
  index_t n;

  static constexpr int threads = 256;
  UNROLL_HD index_t blocks() const { return ceil_div(n, index_t{2} * threads); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.phase([&](int t) {
      const index_t pair = c.block() * threads + t;
      if (2 * pair >= n) return;
      const auto r = draw_bits(k, draw_kind::normal, step, std::uint64_t(pair));
      const double u = (double(r[0]) + 0.5) * 0x1.0p-32 + double(r[1] >> 11) * 0x1.0p-53;
      const double v = (double(r[2]) + 0.5) * 0x1.0p-32;
      const double radius = sqrt(-2.0 * math::log(u < 1.0 ? u : 1.0));
      x[2 * pair] = P(radius * math::turn_of(v, true));
      if (2 * pair + 1 < n) x[2 * pair + 1] = P(radius * math::turn_of(v, false));
    });
  }
};

}  // namespace unroll::kernels
