#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/core/report.hpp"
#include "unroll/system/explain.hpp"

namespace unroll::training {

namespace detail {

// Runs the system over xs from the state s, which becomes the one behind the last step; after(t, s) is called
// behind each. Memory: a state and a tape.
template <class F, class After>
report run_forward(const char* name, const F& system, params<const typename F::scalar> theta,
                   std::span<const typename F::input> xs, state<typename F::scalar> s, const After& after) {
  static_assert(require_recurrent<F>());
  using T = typename F::scalar;
  const dims d = system.size();
  check_size(name, "theta", theta.size(), d.params);
  check_size(name, "s", s.size(), d.state);
  block<T, state_space> next(d.state);
  block<T, tape_space> tape(d.tape);
  buffer<T> workspace(d.workspace);
  report r;
  r.bytes = next.bytes() + tape.bytes() + workspace.bytes();
  for (const auto& x : xs) {
    T loss = 0;
    const bool usable = finite_input(system, x);
    if (usable) {
      system.step(x, {theta, s, next, tape, &loss, workspace, r.consumed});
      ++r.steps;
    }
    if (!usable || !std::isfinite(loss) || !linalg::all_finite(next.data(), next.size())) {
      r.code = status::non_finite;
      r.at = r.consumed;
      break;
    }
    std::copy(next.begin(), next.end(), s.begin());
    r.loss += double(loss);
    r.losses += scored_losses(system, x);
    after(r.consumed++, state<const T>(s));
  }
  return r;
}

// WRITES the outputs of each step of run_forward to y.
template <class F>
auto output_writer(const F& system, params<const typename F::scalar> theta, index_t steps,
                   view<typename F::scalar> y) {
  static_assert(
      requires(state<const typename F::scalar> s) { system.output(theta, s, y); },
      "predict needs a system with void output(params<const scalar> theta, state<const scalar> s, "
      "view<scalar> y) const, which writes y of the state s, lane after lane");
  if (steps == 0 ? !y.empty() : y.empty() || y.size() % steps != 0)
    fail("predict", "y",
         "has size " + std::to_string(y.size()) + ", which is no multiple of the " + std::to_string(steps) +
             " steps");
  const index_t n = steps == 0 ? 0 : y.size() / steps;
  return
      [&system, theta, n, y](std::int64_t t, auto s) { system.output(theta, s, y.part(index_t(t) * n, n)); };
}

}  // namespace detail

/// The losses of a recurrent system over the sequence xs at theta: one forward pass. It begins at the state
/// `s`, which becomes the one behind the last input, so that a long stream may come in parts (edge.t counts
/// from 0 in each). The report has what that of a gradient would have; where an input, a state or a loss is
/// not finite, the sequence ends in front of it. Throws unroll::error where theta or s has another size,
/// where the system has its start in theta (learned_start), and what the system throws on an invalid input.
template <class F>
report evaluate(const F& system, std::type_identity_t<params<const typename F::scalar>> theta,
                std::type_identity_t<std::span<const typename F::input>> xs,
                std::type_identity_t<state<typename F::scalar>> s) {
  check_given_state(system, s);
  return detail::run_forward("evaluate", system, theta, xs, s, [](std::int64_t, auto) {});
}
/// The same from the system's own start.
template <class F>
report evaluate(const F& system, std::type_identity_t<params<const typename F::scalar>> theta,
                std::type_identity_t<std::span<const typename F::input>> xs) {
  block<typename F::scalar, state_space> s(system.size().state);
  start_state(system, s);
  return detail::run_forward("evaluate", system, theta, xs, s, [](std::int64_t, auto) {});
}
/// Its mean, over losses. NaN where nothing is scored, or not everything is finite.
template <class F>
double mean_loss(const F& system, std::type_identity_t<params<const typename F::scalar>> theta,
                 std::type_identity_t<std::span<const typename F::input>> xs) {
  const report r = evaluate(system, theta, xs);
  return r.code == status::ok ? r.loss / double(r.losses) : std::numeric_limits<double>::quiet_NaN();
}

/// The outputs of a recurrent system (its member output) over xs: WRITES y, the same number of them for every
/// step, step after step and within a step lane after lane. Otherwise as evaluate, which see: inputs need no
/// target, and outputs behind one that is not finite are not written. Throws unroll::error unless y is a
/// whole number of outputs for every step, and as the system does where that is not its own.
template <class F>
report predict(const F& system, std::type_identity_t<params<const typename F::scalar>> theta,
               std::type_identity_t<std::span<const typename F::input>> xs,
               std::type_identity_t<state<typename F::scalar>> s,
               std::type_identity_t<view<typename F::scalar>> y) {
  check_given_state(system, s);
  return detail::run_forward("predict", system, theta, xs, s,
                             detail::output_writer(system, theta, index_t(xs.size()), y));
}
/// The same from the system's own start.
template <class F>
report predict(const F& system, std::type_identity_t<params<const typename F::scalar>> theta,
               std::type_identity_t<std::span<const typename F::input>> xs,
               std::type_identity_t<view<typename F::scalar>> y) {
  block<typename F::scalar, state_space> s(system.size().state);
  start_state(system, s);
  return detail::run_forward("predict", system, theta, xs, s,
                             detail::output_writer(system, theta, index_t(xs.size()), y));
}

}  // namespace unroll::training
