#pragma once

#include "unroll/core/linalg.hpp"
#include "unroll/core/report.hpp"

namespace unroll {

struct sgd_options {
  double rate = 1e-2;
};

/// theta -= rate g. All optimisers of this folder share step(theta, g, scale), where `scale` multiplies the
/// rate (a value of a schedule, see schedule.hpp), and visit(v), which shows their state to a checkpoint.
///
/// A gradient that is not finite gives status::non_finite and changes neither theta nor the optimiser, so
/// that the run can go on from where it was: the losses of a sequence may be finite and their gradient not.
template <class T>
class sgd final {
 public:
  explicit sgd(index_t size, sgd_options options = {}) : options_(options), size_(size) {}

  [[nodiscard]] status step(params<T> theta, dparams<const T> g, double scale = 1) {
    check_size("sgd::step", "theta", theta.size(), size_);
    check_size("sgd::step", "g", g.size(), size_);
    if (!linalg::all_finite(g.data(), g.size())) return status::non_finite;
    const T rate = T(options_.rate * scale);
    for (index_t j = 0; j < size_; ++j) theta[j] -= rate * g[j];
    return status::ok;
  }

  template <class Visitor>
  void visit(Visitor&&) {}
  const sgd_options& options() const { return options_; }

 private:
  sgd_options options_;
  index_t size_;
};

}  // namespace unroll
