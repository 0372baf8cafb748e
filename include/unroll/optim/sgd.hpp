#pragma once

#include "unroll/core/report.hpp"
#include "unroll/exec/of.hpp"

namespace unroll {

struct sgd_options {
  double rate = 1e-2;  ///< learning rate
};

/// theta -= rate g. All optimisers of this folder share step(theta, g, scale), where `scale` multiplies the
/// rate (a value of a schedule, see schedule.hpp), and visit(v), which shows their state to a checkpoint.
///
/// A gradient that is not finite gives status::non_finite and changes neither theta nor the optimiser, so
/// that the run can go on from where it was: the losses of a sequence may be finite and their gradient not.
/// The status is the one number that a step waits for.
///
/// X: an executor, or what exec::of makes one of; theta and g are its parameters, at its place.
template <class X>
class sgd final {
  using E = exec::of<X>;
  using T = typename E::numbers::parameter;

 public:
  explicit sgd(index_t size, sgd_options options = {}, E e = E{})
      : options_(options), executor_(std::move(e)), size_(size), finite_(executor_.template allocate<T>(1)) {}

  [[nodiscard]] status step(params<T> theta, dparams<const T> g, double scale = 1) {
    check_size("sgd::step", "theta", theta.size(), size_);
    check_size("sgd::step", "g", g.size(), size_);
    executor_.all_finite(g.data(), g.size(), 1, finite_.data());
    executor_.sgd(options_.rate * scale, {theta.data(), g.data(), size_, finite_.data()});
    return exec::value(executor_, finite_.data()) == 0 ? status::non_finite : status::ok;
  }

  template <class Visitor>
  void visit(Visitor&&) {}
  const sgd_options& options() const { return options_; }

 private:
  sgd_options options_;
  E executor_;
  index_t size_;
  typename E::template block<T> finite_;
};

}  // namespace unroll
