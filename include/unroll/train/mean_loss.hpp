#pragma once

#include <limits>
#include <span>
#include <utility>

#include "unroll/core/block.hpp"
#include "unroll/system/explain.hpp"

namespace unroll::training {

/// Mean loss of a recurrent system over the losses of the sequence xs, at theta and from the system's own
/// start: one forward pass, two states and one tape. NaN where nothing is scored, or an input is not finite.
/// Throws unroll::error where theta has another size, and what the system throws on an invalid input.
template <class F>
double mean_loss(const F& system, std::type_identity_t<params<const typename F::scalar>> theta,
                 std::type_identity_t<std::span<const typename F::input>> xs) {
  static_assert(require_recurrent<F>());
  using T = typename F::scalar;
  const dims d = system.size();
  check_size("mean_loss", "theta", theta.size(), d.params);
  block<T, state_space> s(d.state), next(d.state);
  block<T, tape_space> tape(d.tape);
  buffer<T> workspace(d.workspace);
  start_state(system, s);
  double sum = 0;
  std::int64_t losses = 0, t = 0;
  for (const auto& x : xs) {
    if (!finite_input(system, x)) return std::numeric_limits<double>::quiet_NaN();
    T loss = 0;
    system.step(x, {theta, s, next, tape, &loss, workspace, t++});
    sum += double(loss);
    losses += scored_losses(system, x);
    std::swap(s, next);
  }
  return sum / double(losses);
}

}  // namespace unroll::training
