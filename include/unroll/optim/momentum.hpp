#pragma once

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/core/report.hpp"

namespace unroll {

struct momentum_options {
  double rate = 1e-2;
  double momentum = 0.9;
  bool nesterov = false;
};

/// v = momentum v + g, theta -= rate v (Polyak 1964), or theta -= rate (g + momentum v) (Nesterov 1983, in
/// the form of Sutskever et al. 2013). A gradient that is not finite: as sgd.
template <class T>
class momentum final {
 public:
  explicit momentum(index_t size, momentum_options options = {}) : options_(options), velocity_(size) {}

  [[nodiscard]] status step(params<T> theta, dparams<const T> g, double scale = 1) {
    check_size("momentum::step", "theta", theta.size(), velocity_.size());
    check_size("momentum::step", "g", g.size(), velocity_.size());
    if (!linalg::all_finite(g.data(), g.size())) return status::non_finite;
    const T rate = T(options_.rate * scale), mu = T(options_.momentum);
    for (index_t j = 0; j < velocity_.size(); ++j) {
      velocity_[j] = mu * velocity_[j] + g[j];
      theta[j] -= rate * (options_.nesterov ? g[j] + mu * velocity_[j] : velocity_[j]);
    }
    return status::ok;
  }

  template <class Visitor>
  void visit(Visitor&& v) {
    v("velocity", view<T>(velocity_));
  }
  const momentum_options& options() const { return options_; }

 private:
  momentum_options options_;
  buffer<T> velocity_;
};

}  // namespace unroll
