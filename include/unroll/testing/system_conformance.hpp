#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "unroll/testing/derivative_conformance.hpp"
#include "unroll/testing/hook_conformance.hpp"
#include "unroll/testing/system_trial.hpp"

namespace unroll::testing {

namespace detail {

// What must hold before anything is tried.
template <class F>
void check_sizes(system_trial<F>& t) {
  t.expect(t.d.params >= 0 && t.d.tape >= 0 && t.d.workspace >= 0, "size: a size is negative");
  t.expect(t.d.state > 0, "size: the state is empty");
  t.expect(t.d.lanes > 0 && t.d.state % std::max(t.d.lanes, index_t(1)) == 0,
           "size: the lanes do not divide the state");
  t.expect(index_t(t.theta.size()) == t.d.params,
           "theta: has size " + std::to_string(t.theta.size()) + ", not " + std::to_string(t.d.params));
  t.expect(!t.xs.empty(), "xs: no inputs to try");
}

// Equal bits whatever stood in the memory of a step, of a copy, and the second time.
template <class F>
void check_step(system_trial<F>& t, const typename F::input& x, const std::vector<typename F::scalar>& s) {
  using T = typename F::scalar;
  using place = typename system_trial<F>::place;
  place a = t.make(x, t.theta, s), b = t.make(x, t.theta, s, T(3)), c = t.make(F(t.f), x, t.theta, s, T(3));
  const auto same = [](const place& l, const place& r) {
    return same_bits(l.next.values(), r.next.values()) && same_bits(l.loss.values(), r.loss.values());
  };
  t.expect(same(a, b), "step: the result depends on what was in next, tape, loss or workspace before");
  t.expect(same(b, c), "step: a copy of the system gives other bits");
  t.expect(same(b, t.make(x, t.theta, s, T(3))), "step: the same input gives other bits the second time");
  t.expect(a.intact(), "step: writes outside its memory");
}

// theta = 0, s = 0.
template <class F>
void check_zero(system_trial<F>& t) {
  using T = typename F::scalar;
  using vec = typename system_trial<F>::vec;
  using place = typename system_trial<F>::place;
  using cotangents = typename system_trial<F>::cotangents;
  using tangents = typename system_trial<F>::tangents;
  t.step = 0;
  t.where = "at theta = 0, s = 0: ";
  const typename F::input& x = t.xs[0];
  place e = t.make(x, vec(t.p()), vec(t.n()));
  t.expect(finite(e.next.values()) && finite(e.loss.values()), "step: is not finite");
  if (supports(t.f, hook::vjp)) {
    const cotangents r = t.vjp(x, e, t.random(t.n()), T(1));
    t.expect(finite(r.ds) && finite(r.dtheta), "vjp: is not finite");
  }
  if (supports(t.f, hook::jvp)) {
    const tangents r = t.jvp(x, e, t.random(t.p()), t.random(t.n()));
    t.expect(finite(r.dnext) && std::isfinite(r.dloss), "jvp: is not finite");
  }
}

// Everything, along the sequence.
template <class F>
void check_all(system_trial<F>& t) {
  using T = typename F::scalar;
  using vec = typename system_trial<F>::vec;
  using X = typename F::input;
  check_sizes(t);
  if (!t.failures.empty()) return;
  vec s(t.n());
  start_state(t.f, state<T>(s));
  t.expect(finite(s), "start: writes a state that is not finite");
  for (t.step = 0; t.step < std::min(t.o.steps, index_t(t.xs.size())); ++t.step) {
    t.where = "step " + std::to_string(t.step) + ": ";
    const X& x = t.xs[std::size_t(t.step)];
    t.expect(finite_input(t.f, x), "finite: refuses an input of the sequence");
    check_step(t, x, s);
    t.expect(scored_losses(t.f, x) > 0 || t.make(x, t.theta, s).loss.values() == vec{0},
             "scored: counts no loss in a step that has one");
    if (supports(t.f, hook::vjp)) check_vjp(t, x, s);
    if (supports(t.f, hook::jvp)) check_jvp(t, x, s);
    if (supports(t.f, hook::vjp) && supports(t.f, hook::jvp)) check_adjoint(t, x, s);
    check_hooks(t, x, s);
    s = t.make(x, t.theta, s).next.values();
    if (!finite(s)) break;
  }
  t.where.clear();
  if (supports(t.f, hook::window)) check_window(t);
  if (t.o.finite_at_zero) check_zero(t);
}

}  // namespace detail

/// The rules that the concepts of a system cannot express, tried along the sequence `xs`: results do not
/// depend on old memory or on earlier calls; nothing is written outside its memory; vjp adds, jvp writes;
/// empty views mean zero; vjp and jvp are adjoint and agree with central differences of step; the lanes are
/// independent; windows, jacobian, immediate, row_norms, masks, factors and lane_vjp agree with step and vjp;
/// zero is safe. Returns what is wrong, each fault once, where it is found first; nothing for a conforming
/// system. Choose theta and xs so that F is smooth there.
template <recurrent F>
std::vector<std::string> system_conformance(const F& f,
                                            std::type_identity_t<params<const typename F::scalar>> theta,
                                            std::type_identity_t<std::span<const typename F::input>> xs,
                                            const system_conformance_options& options = {}) {
  detail::system_trial<F> trial{f, f.size(), {theta.begin(), theta.end()}, xs, options};
  detail::check_all(trial);
  return trial.failures;
}

}  // namespace unroll::testing
