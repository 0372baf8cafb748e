#pragma once

#include "unroll/core/view.hpp"

namespace unroll {

struct sgd_options {
  double rate = 1e-2;
};

/// theta -= rate g. All optimisers of this folder share step(theta, g, scale), where `scale` multiplies the
/// rate (a value of a schedule, see schedule.hpp), and visit(v), which shows their state to a checkpoint.
template <class T>
class sgd final {
 public:
  explicit sgd(index_t size, sgd_options options = {}) : options_(options), size_(size) {}

  void step(params<T> theta, dparams<const T> g, double scale = 1) {
    check_size("sgd::step", "theta", theta.size(), size_);
    check_size("sgd::step", "g", g.size(), size_);
    const T rate = T(options_.rate * scale);
    for (index_t j = 0; j < size_; ++j) theta[j] -= rate * g[j];
  }

  template <class Visitor>
  void visit(Visitor&&) {}
  const sgd_options& options() const { return options_; }

 private:
  sgd_options options_;
  index_t size_;
};

}  // namespace unroll
