#pragma once

#include <cmath>
#include <cstdint>

#include "unroll/core/block.hpp"
#include "unroll/core/report.hpp"
#include "unroll/core/simd.hpp"

namespace unroll {

struct adam_options {
  double rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double decay = 0;  ///< decoupled weight decay: theta -= rate decay theta, apart from the moments
};

/// Adam (Kingma & Ba 2015, algorithm 1), with decay > 0 AdamW (Loshchilov & Hutter 2019, algorithm 2).
///
///   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
///   theta -= rate (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) + decay theta)
///
/// A gradient that is not finite, or whose square is not (float: beyond 1.8e19), gives status::non_finite and
/// changes neither theta nor the moments: an infinite v would stop its parameter for good.
template <class T>
class adam final {
 public:
  explicit adam(index_t size, adam_options options = {}) : options_(options), m_(size), v_(size) {}

  [[nodiscard]] status step(params<T> theta, dparams<const T> g, double scale = 1) {
    check_size("adam::step", "theta", theta.size(), m_.size());
    check_size("adam::step", "g", g.size(), m_.size());
    if (simd::sum<T>([](const auto& u) UNROLL_INLINE { return u * u * T(0); }, g.size(), g.data()) != 0)
      return status::non_finite;
    ++steps_;
    const adam_options& o = options_;
    const double t = double(steps_), rate = o.rate * scale;
    const T b1 = T(o.beta1), b2 = T(o.beta2), a1 = T(1 - o.beta1), a2 = T(1 - o.beta2);
    const T first = T(rate / (1 - std::pow(o.beta1, t))), second = T(1 / std::sqrt(1 - std::pow(o.beta2, t)));
    const T epsilon = T(o.epsilon), shrink = T(rate * o.decay);
    for (index_t j = 0; j < m_.size(); ++j) {
      m_[j] = b1 * m_[j] + a1 * g[j];
      v_[j] = b2 * v_[j] + a2 * g[j] * g[j];
      theta[j] -= first * m_[j] / (std::sqrt(v_[j]) * second + epsilon) + shrink * theta[j];
    }
    return status::ok;
  }

  template <class Visitor>
  void visit(Visitor&& v) {
    v("m", view<T>(m_));
    v("v", view<T>(v_));
    v("steps", view<std::int64_t>(&steps_, 1));
  }
  const adam_options& options() const { return options_; }

 private:
  adam_options options_;
  buffer<T> m_, v_;
  std::int64_t steps_ = 0;
};

}  // namespace unroll
