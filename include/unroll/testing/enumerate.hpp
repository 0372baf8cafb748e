#pragma once

#include <vector>

#include "unroll/estimate/concept.hpp"
#include "unroll/testing/enumerator.hpp"

namespace unroll::testing {

/// What visiting every outcome of a random computation gives: exact moments, up to rounding.
struct enumeration {
  std::vector<double> mean;
  double covariance_trace = 0;     ///< tr Cov
  std::vector<double> covariance;  ///< n x n, column-major; empty unless asked for
  std::int64_t outcomes = 0;       ///< visited
  double probability = 0;          ///< of all outcomes together: 1 up to rounding
};

/// Mean and covariance of `run`, a callable that writes n numbers: `void run(view<double> out)`. It is called
/// once per outcome and takes every random decision from an enumerating_chooser on `all`.
/// Throws unroll::error when there are more than `limit` outcomes.
template <class Run>
enumeration enumerate_outcomes(enumerator& all, index_t n, Run&& run, bool full_covariance = false,
                               std::int64_t limit = 1 << 22) {
  const auto size = std::size_t(n);
  enumeration r;
  std::vector<double> out(size), origin, first(size), second(full_covariance ? size * size : 0);
  double squares = 0;
  do {
    if (r.outcomes == limit)
      fail("enumerate", "limit", "there are more than " + std::to_string(limit) + " outcomes");
    run(view<double>(out));
    // moments about the first outcome: the covariance of a constant is 0, not the rest of a cancellation
    if (r.outcomes == 0) origin = out;
    const double p = all.probability();
    r.probability += p;
    ++r.outcomes;
    for (std::size_t i = 0; i < size; ++i) {
      const double d = out[i] - origin[i];
      first[i] += p * d;
      squares += p * d * d;
      if (full_covariance)
        for (std::size_t j = 0; j < size; ++j) second[j + i * size] += p * d * (out[j] - origin[j]);
    }
  } while (all.next());

  r.mean.resize(size);
  r.covariance_trace = squares;
  for (std::size_t i = 0; i < size; ++i) {
    r.mean[i] = origin[i] + first[i];
    r.covariance_trace -= first[i] * first[i];
    if (full_covariance)
      for (std::size_t j = 0; j < size; ++j) second[j + i * size] -= first[i] * first[j];
  }
  r.covariance = std::move(second);
  return r;
}

/// Exact mean and covariance of the gradient that one pass of `estimator` over `xs` returns. The estimator
/// must draw from `enumerating_chooser(all)`:
///
///     enumerator all;
///     uoro estimator(cell, {}, enumerating_chooser(all));
///     auto r = testing::enumerate(all, estimator, theta, xs);
template <gradient_estimator E>
enumeration enumerate(enumerator& all, E estimator,
                      std::type_identity_t<params<const typename E::scalar>> theta,
                      std::type_identity_t<std::span<const typename E::input>> xs,
                      std::type_identity_t<state<const typename E::scalar>> s0 = {},
                      bool full_covariance = false) {
  using T = typename E::scalar;
  gradient<T> g(theta.size());
  const auto run = [&](view<double> out) {
    g.zero();
    estimator.reset(key{}, s0);
    if (estimator.advance(theta, xs, g).code != status::ok || estimator.finish(theta, g).code != status::ok)
      fail("enumerate", "estimator", "an outcome is not finite");
    for (index_t i = 0; i < g.size(); ++i) out[i] = double(g[i]);
  };
  return enumerate_outcomes(all, theta.size(), run, full_covariance);
}

}  // namespace unroll::testing
