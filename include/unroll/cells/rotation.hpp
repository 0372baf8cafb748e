#pragma once

#include <cmath>
#include <string>

#include "unroll/cells/example.hpp"
#include "unroll/core/elementary.hpp"
#include "unroll/core/unfused.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::cells {

struct rotation_options {
  index_t in = 1;       ///< size of x, or number of tokens; 0: no input
  index_t hidden = 16;  ///< units; the state has twice as many numbers
  index_t out = 1;      ///< size of y; 0: y = the first hidden numbers of s'
  loss_kind loss = loss_kind::squared_error;
  index_t lanes = 1;               ///< independent sequences side by side
  double r_min = 0, r_max = 1;     ///< |lambda| that init() draws, uniformly on the ring between
  double max_phase = 6.283185307;  ///< the largest arg lambda that it draws
};

/// A unit that turns and shrinks two numbers, for diagonal_cell:
///
///   (s_1', s_2') = phi( r R s + gamma z ),   R = (cos t, -sin t; sin t, cos t)
///   r = exp(-e^nu),  t = e^phi,  gamma = sqrt(1 - r^2)
///
/// with phi the identity for `lru`, or tanh for `rtu`. 1 - r^2 is 2 tau / (1 + tau) with tau = tanh(e^nu), as
/// good as expm1 where r is close to 1.
template <class T, bool squashed>
struct rotation_equations {
  using scalar = T;
  using options_type = rotation_options;                         ///< sizes and loss
  static constexpr const char* name = squashed ? "rtu" : "lru";  ///< of the cell, for messages
  static constexpr index_t states = 2, gates = 2;                ///< numbers of s and of z of a unit
  static constexpr bool is_complex = !squashed;                  ///< tanh of both parts is not analytic
  static constexpr const char* own[] = {"nu", "phi"};            ///< parameters of a unit of its own
  rotation_options options;

  /// Throws unroll::error on a ring or a phase that cannot be drawn from.
  void check() const {
    if (!(options.r_min >= 0 && options.r_min < options.r_max && options.r_max <= 1))
      fail(name, "r_min, r_max",
           "are " + std::to_string(options.r_min) + ", " + std::to_string(options.r_max) +
               ", must be in [0, 1] and rise");
    if (!(options.max_phase > 0 && options.max_phase < 1e9))
      fail(name, "max_phase", "is " + std::to_string(options.max_phase) + ", must be in (0, 1e9)");
  }
  /// lambda uniform on the ring: |lambda|^2 in [r_min^2, r_max^2], arg lambda in [0, max_phase].
  void init_own(T* to, key k) const {
    const double low = options.r_min * options.r_min, high = options.r_max * options.r_max;
    for (index_t u = 0; u < options.hidden; ++u) {
      const double a = draw_uniform(k, 1, std::uint32_t(u)) + 0x1p-54;  // neither 0 nor 1
      const double b = draw_uniform(k, 2, std::uint32_t(u)) + 0x1p-54;
      to[u] = T(std::log(-0.5 * std::log(low + a * (high - low))));
      to[options.hidden + u] = T(std::log(b * options.max_phase));
    }
  }

  /// A step of one unit with its derivatives, as diagonal_cell asks for it.
  template <class V>
  UNROLL_INLINE void unit(const V* s, const V* v, V* next, V* J, V* D) const {
    const V e_nu = simd::clamp(simd::exp(v[2]), T(0), most), t = simd::clamp(simd::exp(v[3]), T(0), most);
    const V r = simd::exp(-e_nu), tau = simd::tanh(e_nu), zero{};
    const V gamma = simd::sqrt(T(2) * tau / (T(1) + tau));
    V re, im;
    cos_sin(t, re, im);
    re = r * re, im = r * im;
    // dgamma/dnu = e^nu r^2 / gamma, 0 where gamma is
    const V gamma_nu = simd::where_greater(gamma, zero, e_nu * r * r / gamma, zero);
    const V h0 = re * s[0] - im * s[1], h1 = im * s[0] + re * s[1];
    next[0] = h0 + gamma * v[0];
    next[1] = h1 + gamma * v[1];
    J[0] = re, J[1] = im, J[2] = -im, J[3] = re;                             // by s
    D[0] = gamma, D[1] = zero, D[2] = zero, D[3] = gamma;                    // by z
    D[4] = gamma_nu * v[0] - e_nu * h0, D[5] = gamma_nu * v[1] - e_nu * h1;  // by nu
    D[6] = -t * h1, D[7] = t * h0;                                           // by phi
    if constexpr (squashed)
      for (index_t a = 0; a < 2; ++a) {
        next[a] = simd::tanh(next[a]);
        const V slope = T(1) - next[a] * next[a];
        for (index_t k = a; k < 4; k += 2) J[k] = J[k] * slope;
        for (index_t k = a; k < 8; k += 2) D[k] = D[k] * slope;
      }
  }

 private:
  static constexpr T most = T(1e30);  // of e^nu and e^phi, so that e^nu r and the angle stay finite

  // The cosine and the sine of t, at most `largest_angle`, by half as many numbers in double where they are
  // floats.
  template <int N>
  UNROLL_INLINE static void cos_sin(const simd::vec<T, N>& t, simd::vec<T, N>& cosine,
                                    simd::vec<T, N>& sine) {
    constexpr int W = sizeof(T) < sizeof(double) && N > 1 ? N / 2 : N;
    T angle[std::size_t(N)], c[std::size_t(N)], s[std::size_t(N)];
    simd::store(simd::clamp(t, T(0), largest_angle), angle);
    UNROLL_FULLY
    for (int i = 0; i < N; i += W) {
      double x[std::size_t(W)];
      for (int k = 0; k < W; ++k) x[k] = double(angle[i + k]);
      simd::vec<double, W> cw, sw;
      simd::cos_sin(simd::unfused<W>(simd::load<W>(static_cast<const double*>(x))), cw, sw);
      simd::store(simd::rounded_to<T>(cw), c + i);
      simd::store(simd::rounded_to<T>(sw), s + i);
    }
    cosine = simd::load<N>(static_cast<const T*>(c));
    sine = simd::load<N>(static_cast<const T*>(s));
  }
  static constexpr T largest_angle = T(1e9);
};

}  // namespace unroll::cells
