#pragma once

#include "unroll/diagnose/smoothed_gradient.hpp"
#include "unroll/estimate/rematerialise.hpp"

namespace unroll {

/// The gradient of the loss of the sequence xs at frozen theta, by plain back-propagation in the scalar of
/// the system. Memory: all states and tapes of the sequence. Throws unroll::error when it is not finite.
template <class F>
block<double> exact_gradient(const F& system, std::type_identity_t<params<const typename F::scalar>> theta,
                             std::type_identity_t<std::span<const typename F::input>> xs) {
  smoothed_gradient<F> path(system, {.max_steps = index_t(xs.size())});
  gradient<typename F::scalar> g(system.size().params);
  const report r = path(key{}, theta, xs, g);
  if (r.code != status::ok) fail("exact_gradient", "xs", "step " + std::to_string(r.at) + " is not finite");
  block<double> result(g.size());
  std::copy(g.begin(), g.end(), result.begin());
  return result;
}
/// The same for a memory model, by rematerialisation. Memory: two memories a segment and one graph.
template <memory_model M>
block<double> exact_gradient(const M& model, std::type_identity_t<params<const typename M::scalar>> theta,
                             std::type_identity_t<std::span<const typename M::input>> xs) {
  rematerialise exact(model, {.segments = std::max<index_t>(1, index_t(xs.size()))});
  gradient<typename M::scalar> g(model.size().params);
  report r = exact.advance(theta, xs, g);
  r += exact.finish(theta, g);
  if (r.code != status::ok)
    fail("exact_gradient", "xs", "segment " + std::to_string(r.at) + " is not finite");
  if (!linalg::all_finite(g.data(), g.size()))
    fail("exact_gradient", "xs", "has finite losses, but their gradient is not");
  block<double> result(g.size());
  std::copy(g.begin(), g.end(), result.begin());
  return result;
}

}  // namespace unroll
