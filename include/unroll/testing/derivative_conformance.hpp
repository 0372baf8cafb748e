#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "unroll/testing/system_trial.hpp"

namespace unroll::testing::detail {

// Calls check(dtheta, ds, dnext, dloss, loss) for a direction in theta and s together, in theta and in s
// alone; loss: near there.
template <class F, class Check>
void check_differences(system_trial<F>& t, const typename F::input& x,
                       const std::vector<typename F::scalar>& s, Check&& check) {
  using T = typename F::scalar;
  using vec = typename system_trial<F>::vec;
  using place = typename system_trial<F>::place;
  for (int kind = 0; kind < 3; ++kind) {
    vec dtheta = t.random(t.p()), ds = t.random(t.n());
    if (kind == 1) ds.assign(t.n(), T(0));
    if (kind == 2) dtheta.assign(t.p(), T(0));
    const double size = std::sqrt(dot(dtheta, dtheta) + dot(ds, ds));
    if (size == 0) continue;
    for (T& v : dtheta) v = T(double(v) / size);
    for (T& v : ds) v = T(double(v) / size);
    const double h = std::cbrt(t.eps) * std::max({1.0, largest(t.theta), largest(s)});
    const auto moved = [&](double step) {
      vec theta(t.theta), at(s);
      for (std::size_t i = 0; i < t.p(); ++i) theta[i] = T(double(theta[i]) + step * double(dtheta[i]));
      for (std::size_t i = 0; i < t.n(); ++i) at[i] = T(double(at[i]) + step * double(ds[i]));
      return t.make(x, theta, at);
    };
    const place up = moved(h), down = moved(-h);
    vec dnext = up.next.values();
    for (std::size_t i = 0; i < t.n(); ++i)
      dnext[i] = T((double(dnext[i]) - double(down.next.data()[i])) / (2 * h));
    const double loss = double(*up.loss.data());
    check(dtheta, ds, dnext, (loss - double(*down.loss.data())) / (2 * h), loss);
  }
}

// vjp: what the concepts of a system ask of it, and central differences.
template <class F>
void check_vjp(system_trial<F>& t, const typename F::input& x, const std::vector<typename F::scalar>& s) {
  using T = typename F::scalar;
  using vec = typename system_trial<F>::vec;
  using place = typename system_trial<F>::place;
  using cotangents = typename system_trial<F>::cotangents;
  place e = t.make(x, t.theta, s);
  const vec u = t.random(t.n());
  const T dloss = T(0.7);
  const cotangents r = t.vjp(x, e, u, dloss), again = t.vjp(x, e, u, dloss, T(3));
  t.expect(e.intact(), "vjp: writes outside its workspace");
  t.expect(same_bits(r.ds, again.ds) && same_bits(r.dtheta, again.dtheta),
           "vjp: the same input gives other bits the second time, or reads old workspace");

  cotangents base{t.random(t.n()), t.random(t.p())};
  const cotangents sum = t.vjp(x, e, u, dloss, base);
  for (std::size_t i = 0; i < t.n(); ++i) base.ds[i] += r.ds[i];
  for (std::size_t i = 0; i < t.p(); ++i) base.dtheta[i] += r.dtheta[i];
  t.expect(t.close(sum.ds, base.ds), "vjp: does not add to ds");
  t.expect(t.close(sum.dtheta, base.dtheta), "vjp: does not add to dtheta");

  const cotangents only_s = t.vjp(x, e, u, dloss, {vec(t.n()), {}});
  const cotangents only_theta = t.vjp(x, e, u, dloss, {{}, vec(t.p())});
  t.expect(t.close(only_s.ds, r.ds), "vjp: ds changes when dtheta is empty");
  t.expect(t.close(only_theta.dtheta, r.dtheta), "vjp: dtheta changes when ds is empty");
  const cotangents zero = t.vjp(x, e, vec(t.n()), dloss), empty = t.vjp(x, e, {}, dloss);
  t.expect(t.close(empty.ds, zero.ds) && t.close(empty.dtheta, zero.dtheta),
           "vjp: an empty dnext is not the same as zero");
  const cotangents loss_less = t.vjp(x, e, {}, T(0));
  t.expect(largest(loss_less.ds) == 0 && largest(loss_less.dtheta) == 0,
           "vjp: is not zero for dnext empty and dloss 0");

  place moved = t.make(x, t.theta, s, T(3));
  (void)t.make(x, t.theta, moved.next.values());  // another step in between must leave no trace
  const cotangents later = t.vjp(x, moved, u, dloss);
  t.expect(same_bits(later.ds, r.ds) && same_bits(later.dtheta, r.dtheta),
           "vjp: reads more than its edge: the result changes after another step");

  const index_t lane = t.d.state / t.d.lanes;
  for (index_t l = 0; t.d.lanes > 1 && l < t.d.lanes; ++l) {
    const vec ds = t.vjp(x, e, t.of_lane(u, l), T(0)).ds;
    vec others(ds);
    std::fill_n(others.begin() + l * lane, lane, T(0));
    t.expect(largest(others) == 0, "vjp: the state of lane " + std::to_string(l) + " depends on other lanes");
  }
  check_differences(t, x, s, [&](const vec& dtheta, const vec& ds, const vec& dnext, double d_loss, double) {
    const double mine = dot(r.ds, ds) + dot(r.dtheta, dtheta);
    const double theirs = dot(u, dnext) + double(dloss) * d_loss;
    t.expect(
        std::abs(mine - theirs) <= t.smooth(length(u) * (1 + length(dnext)) + std::abs(d_loss)),
        "vjp: along a direction " + std::to_string(mine) + ", central differences " + std::to_string(theirs));
  });
}

// jvp: the same.
template <class F>
void check_jvp(system_trial<F>& t, const typename F::input& x, const std::vector<typename F::scalar>& s) {
  using T = typename F::scalar;
  using vec = typename system_trial<F>::vec;
  using place = typename system_trial<F>::place;
  using tangents = typename system_trial<F>::tangents;
  place e = t.make(x, t.theta, s);
  const vec dtheta = t.random(t.p()), ds = t.random(t.n());
  const tangents r = t.jvp(x, e, dtheta, ds), again = t.jvp(x, e, dtheta, ds, T(3));
  t.expect(e.intact(), "jvp: writes outside its workspace");
  t.expect(same_bits(r.dnext, again.dnext) && same_bits(vec{r.dloss}, vec{again.dloss}),
           "jvp: must write its results, whatever was there or in workspace before");
  const tangents no_s = t.jvp(x, e, dtheta, {}), zero_s = t.jvp(x, e, dtheta, vec(t.n()));
  const tangents no_theta = t.jvp(x, e, {}, ds), zero_theta = t.jvp(x, e, vec(t.p()), ds);
  t.expect(t.close(no_s.dnext, zero_s.dnext) && t.close({no_s.dloss}, {zero_s.dloss}),
           "jvp: an empty ds is not the same as zero");
  t.expect(t.close(no_theta.dnext, zero_theta.dnext) && t.close({no_theta.dloss}, {zero_theta.dloss}),
           "jvp: an empty dtheta is not the same as zero");
  if constexpr (has_jvp<F>) {
    vec dnext(t.n(), t.poison);
    t.f.jvp(x, const_edge<T>(e.at()), params_tangent<const T>(dtheta), state_tangent<const T>(ds),
            state_tangent<T>(dnext), nullptr);
    t.expect(t.close(dnext, r.dnext), "jvp: dnext changes when dloss is null");
  }
  check_differences(t, x, s, [&](const vec& v, const vec& w, const vec& dnext, double d_loss, double loss) {
    const tangents mine = t.jvp(x, e, v, w);
    double worst = std::abs(double(mine.dloss) - d_loss), scale = std::abs(d_loss) + std::abs(loss);
    for (std::size_t i = 0; i < t.n(); ++i)
      worst = std::max(worst, std::abs(double(mine.dnext[i]) - double(dnext[i])));
    t.expect(worst <= t.smooth(1 + scale + largest(dnext) + largest(s)),
             "jvp: differs from central differences by " + std::to_string(worst));
  });
}

// u . (J v) = (J' u) . v.
template <class F>
void check_adjoint(system_trial<F>& t, const typename F::input& x, const std::vector<typename F::scalar>& s) {
  using T = typename F::scalar;
  using vec = typename system_trial<F>::vec;
  using place = typename system_trial<F>::place;
  using cotangents = typename system_trial<F>::cotangents;
  using tangents = typename system_trial<F>::tangents;
  place e = t.make(x, t.theta, s);
  for (int trial = 0; trial < 3; ++trial) {
    const vec u = t.random(t.n()), dtheta = t.random(t.p()), ds = t.random(t.n());
    const T dloss = T(trial) - T(0.5);
    const cotangents back = t.vjp(x, e, u, dloss);
    const tangents forth = t.jvp(x, e, dtheta, ds);
    const double left = dot(back.ds, ds) + dot(back.dtheta, dtheta);
    const double right = dot(u, forth.dnext) + double(dloss) * double(forth.dloss);
    const double scale = length(back.ds) * length(ds) + length(back.dtheta) * length(dtheta) +
                         length(u) * length(forth.dnext) + std::abs(double(dloss) * double(forth.dloss));
    t.expect(std::abs(left - right) <= t.o.rounding * t.eps * scale,
             "vjp and jvp are not adjoint: " + std::to_string(left) + " and " + std::to_string(right));
  }
}

}  // namespace unroll::testing::detail
