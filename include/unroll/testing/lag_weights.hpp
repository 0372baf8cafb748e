#pragma once

#include <algorithm>

#include "unroll/testing/enumerate.hpp"

namespace unroll::testing {

/// A system whose gradient says which pairs of steps an estimator has connected, and with what weight.
/// Step s adds its own parameters theta[., s] (column s of a steps x steps matrix) to the state, and the loss
/// of step t reads entry t of the state, so dL/dtheta[t, s] is the weight of the path from the use of theta
/// in step s to the loss of step t: 1 for s <= t in the true gradient. The input is the number of the step.
template <class Scalar = double>
class tagging_system final {
 public:
  using scalar = Scalar;
  using input = index_t;
  using T = Scalar;

  explicit tagging_system(index_t steps) : n_(steps) { check_at_least("tagging_system", "steps", steps, 1); }

  dims size() const { return {.params = n_ * n_, .state = n_, .tape = 0, .workspace = 0, .lanes = 1}; }
  bool finite(index_t s) const {
    if (s < 0 || s >= n_) fail("tagging_system", "input", "is " + std::to_string(s) + ", not a step");
    return true;
  }

  void step(index_t s, const edge<T>& e) const {
    for (index_t i = 0; i < n_; ++i) e.next[i] = e.s[i] + e.theta[i + s * n_];
    *e.loss = e.next[s];
  }
  void vjp(index_t s, const const_edge<T>&, dstate<const T> dnext, T dloss, dstate<T> ds,
           dparams<T> dtheta) const {
    const auto add = [&](index_t i, T d) {
      if (!ds.empty()) ds[i] += d;
      if (!dtheta.empty()) dtheta[i + s * n_] += d;
    };
    for (index_t i = 0; i < dnext.size(); ++i) add(i, dnext[i]);
    add(s, dloss);
  }
  void jvp(index_t s, const const_edge<T>&, params_tangent<const T> dtheta, state_tangent<const T> ds,
           state_tangent<T> dnext, T* dloss) const {
    for (index_t i = 0; i < n_; ++i)
      dnext[i] = (ds.empty() ? T(0) : ds[i]) + (dtheta.empty() ? T(0) : dtheta[i + s * n_]);
    if (dloss) *dloss = dnext[s];
  }

 private:
  index_t n_;
};

/// W[t, s]: the weight an estimator gives to the path from theta in step s to the loss of step t, counted
/// from 0. Exact estimators: 1 for s <= t. Unbiased ones: the same on average. Truncation shows as a pattern.
struct lag_table {
  index_t steps = 0;
  std::vector<double> weights;  ///< steps x steps, column-major
  double operator()(index_t t, index_t s) const { return weights[std::size_t(t + s * steps)]; }
};

/// The table of one pass; `make_estimator` is called with a tagging_system<double>:
///
///     auto w = testing::lag_weights([](auto f) { return chunked_tbptt(f, {.window = 4}); }, 10);
template <class Make>
lag_table lag_weights(Make&& make_estimator, index_t steps, key k = {}) {
  auto estimator = make_estimator(tagging_system<double>(steps));
  parameters<double> theta(steps * steps);
  gradient<double> g(steps * steps);
  std::vector<index_t> xs;
  for (index_t s = 0; s < steps; ++s) xs.push_back(s);
  estimator.reset(k);
  estimator.advance(theta, xs, g);
  estimator.finish(theta, g);
  return {steps, {g.begin(), g.end()}};
}

/// The expected table of a random estimator, by enumeration; `make_estimator` is called with the system and
/// an enumerating_chooser.
template <class Make>
lag_table expected_lag_weights(enumerator& all, Make&& make_estimator, index_t steps) {
  parameters<double> theta(steps * steps);
  std::vector<index_t> xs;
  for (index_t s = 0; s < steps; ++s) xs.push_back(s);
  auto estimator = make_estimator(tagging_system<double>(steps), enumerating_chooser(all));
  return {steps, enumerate(all, estimator, theta, xs).mean};
}

}  // namespace unroll::testing
