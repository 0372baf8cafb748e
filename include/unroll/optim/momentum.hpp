#pragma once

#include "unroll/core/report.hpp"
#include "unroll/exec/of.hpp"
#include "unroll/exec/visit_block.hpp"

namespace unroll {

struct momentum_options {
  double rate = 1e-2;  ///< learning rate
  double momentum = 0.9;
  bool nesterov = false;  ///< the gradient is taken ahead of the step
};

/// v = momentum v + g, theta -= rate v (Polyak 1964), or theta -= rate (g + momentum v) (Nesterov 1983, in
/// the form of Sutskever et al. 2013). A gradient that is not finite: as sgd.
template <class X>
class momentum final {
  using E = exec::of<X>;
  using T = typename E::numbers::parameter;

 public:
  explicit momentum(index_t size, momentum_options options = {}, E e = E{})
      : options_(options),
        executor_(std::move(e)),
        velocity_(executor_.template allocate<T>(size)),
        finite_(executor_.template allocate<T>(1)) {}

  [[nodiscard]] status step(params<T> theta, dparams<const T> g, double scale = 1) {
    check_size("momentum::step", "theta", theta.size(), velocity_.size());
    check_size("momentum::step", "g", g.size(), velocity_.size());
    executor_.all_finite(g.data(), g.size(), 1, finite_.data());
    executor_.momentum({options_.rate * scale, options_.momentum, options_.nesterov},
                       {theta.data(), g.data(), velocity_.size(), finite_.data()}, velocity_.data());
    return exec::value(executor_, finite_.data()) == 0 ? status::non_finite : status::ok;
  }

  template <class Visitor>
  void visit(Visitor&& v) {
    visit_block(v, "velocity", executor_, velocity_, velocity_.size());
  }
  const momentum_options& options() const { return options_; }

 private:
  momentum_options options_;
  E executor_;
  typename E::template block<T> velocity_, finite_;
};

}  // namespace unroll
