#pragma once

#include <cstdint>

#include "unroll/core/report.hpp"
#include "unroll/exec/of.hpp"
#include "unroll/exec/visit_block.hpp"

namespace unroll {

struct adam_options {
  double rate = 1e-3;     ///< learning rate
  double beta1 = 0.9;     ///< decay of the mean
  double beta2 = 0.999;   ///< decay of the mean square
  double epsilon = 1e-8;  ///< added to the root of the mean square
  double decay = 0;       ///< decoupled weight decay: theta -= rate decay theta, apart from the moments
};

/// Adam (Kingma & Ba 2015, algorithm 1), with decay > 0 AdamW (Loshchilov & Hutter 2019, algorithm 2).
///
///   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
///   theta -= rate (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) + decay theta)
///
/// A gradient that is not finite, or whose square is not (float: beyond 1.8e19), gives status::non_finite and
/// changes neither theta nor the moments: an infinite v would stop its parameter for good.
///
/// X: an executor, or what exec::of makes one of; theta, g and the moments are its parameters, at its place.
template <class X>
class adam final {
  using E = exec::of<X>;
  using T = typename E::numbers::parameter;

 public:
  explicit adam(index_t size, adam_options options = {}, E e = E{})
      : options_(options),
        executor_(std::move(e)),
        m_(executor_.template allocate<T>(size)),
        v_(executor_.template allocate<T>(size)),
        finite_(executor_.template allocate<T>(1)) {}

  [[nodiscard]] status step(params<T> theta, dparams<const T> g, double scale = 1) {
    check_size("adam::step", "theta", theta.size(), m_.size());
    check_size("adam::step", "g", g.size(), m_.size());
    executor_.all_finite(g.data(), g.size(), 2, finite_.data());
    const adam_options& o = options_;
    executor_.adamw({o.rate * scale, o.beta1, o.beta2, o.epsilon, o.decay, steps_ + 1},
                    {theta.data(), g.data(), m_.size(), finite_.data()}, m_.data(), v_.data());
    if (exec::value(executor_, finite_.data()) == 0) return status::non_finite;
    ++steps_;
    return status::ok;
  }

  template <class Visitor>
  void visit(Visitor&& v) {
    visit_block(v, "m", executor_, m_, m_.size());
    visit_block(v, "v", executor_, v_, v_.size());
    v("steps", view<std::int64_t>(&steps_, 1));
  }
  const adam_options& options() const { return options_; }

 private:
  adam_options options_;
  E executor_;
  typename E::template block<T> m_, v_, finite_;
  std::int64_t steps_ = 0;
};

}  // namespace unroll
