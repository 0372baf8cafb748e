#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/system/explain.hpp"
#include "unroll/system/window.hpp"

namespace unroll {

/// One term of the gradient g = sum_l c_l by lag: c_l is the derivative of all losses by the uses of theta
/// `lag` steps before each.
struct lag_entry {
  index_t lag = 0;        ///< steps between a use of theta and the loss that it moves
  double norm = 0;        ///< ||c_l||
  double projection = 0;  ///< c_l . g / ||g||^2, signed; sums to 1 over all lags
  double cumulative = 0;  ///< sum of the projections of the lags 0 .. l: what truncation after l keeps of g
  double phi = 0;         ///< mean ||dloss_t / ds_{t-l-1}||: the cotangent that truncation after l drops
};

/// How much of the gradient comes from each lag.
struct lag_profile {
  double gradient_norm = 0;     ///< ||g||
  std::vector<lag_entry> lags;  ///< from 0 on

  /// The shortest window from which on truncation keeps the signed sum of the projections within `share` of
  /// all of it: 1 is the newest step alone. At most the number of lags.
  index_t window(double share) const {
    index_t k = index_t(lags.size());
    while (k > 0 && std::abs(1 - lags[std::size_t(k - 1)].cumulative) <= share) --k;
    return std::min(k + 1, index_t(lags.size()));
  }
};

/// Splits the gradient of a sequence by lag,
///
///   g = sum_l c_l,   c_l = sum_t q_t J_{t:t-l} F_{t-l},   l = 0 .. max_lag,
///
/// and adds phi_k = E ||dloss_t / ds_{t-k}||, k = l + 1, the mean over steps and lanes from which Aicher,
/// Foti and Fox (2019, arXiv:1905.07473) choose a truncation. Norms alone hide that lags may work against
/// each other; the cumulative signed projection shows it: below zero, truncated gradients ascend. c_0
/// includes the parameters that the loss reads directly. Where a step is not finite the numbers are not
/// finite either.
///
/// All steps are swept once a lag, a vjp a step: T (max_lag + 1) vjps; memory T states and tapes, T
/// cotangents and two gradients. Throws unroll::error on wrong sizes and max_lag < 0. Needs vjp.
template <class F>
lag_profile profile_lags(const F& f, std::type_identity_t<params<const typename F::scalar>> theta,
                         std::type_identity_t<std::span<const typename F::input>> xs, index_t max_lag) {
  static_assert(require_vjp<F>());
  using T = typename F::scalar;
  const dims d = f.size();
  const index_t n = d.state, steps = index_t(xs.size()), per_lane = n / d.lanes;
  check_size("profile_lags", "theta", theta.size(), d.params);
  check_at_least("profile_lags", "max_lag", max_lag, 0);

  buffer<T> states((steps + 1) * n), tape(steps * d.tape), loss(steps), workspace(window_workspace(f, 1));
  start_state(f, {states.data(), n});
  const auto edge_at = [&](index_t t) {
    return edge<T>{theta,
                   {states.data() + t * n, n},
                   {states.data() + (t + 1) * n, n},
                   {tape.data() + t * d.tape, d.tape},
                   loss.data() + t,
                   {workspace.data(), d.workspace},
                   t};
  };
  for (index_t t = 0; t < steps; ++t) f.step(xs[std::size_t(t)], edge_at(t));

  // after the sweep of lag l, cotangent t is dloss_{t+l} / ds_t, s_t being the state in front of step t
  buffer<T> cotangents(steps * n), next(n);
  gradient<T> part(d.params);
  block<double> g(d.params);
  const auto sweep = [&](index_t lag) {
    part.zero();
    double sizes = 0;
    for (index_t t = 0; t + lag < steps; ++t) {  // ascending: cotangent t + 1 is still of the lag before
      dstate<T> ds(next.data(), n);
      next.zero();
      const dstate<const T> incoming =
          lag == 0 ? dstate<const T>() : dstate<const T>(cotangents.data() + (t + 1) * n, n);
      f.vjp(xs[std::size_t(t)], edge_at(t), incoming, T(lag == 0 ? 1 : 0), ds, part);
      std::copy(next.begin(), next.end(), cotangents.data() + t * n);
      for (index_t l = 0; l < d.lanes; ++l)
        sizes += double(linalg::norm(next.data() + l * per_lane, per_lane));
    }
    return sizes;
  };

  lag_profile profile;
  // g first, by one ordinary backward pass, so that each c_l can be projected as it comes
  buffer<T> delta(n);
  for (index_t t = steps - 1; t >= 0; --t) {
    next.zero();
    f.vjp(xs[std::size_t(t)], edge_at(t), dstate<const T>(delta.data(), n), T(1), dstate<T>(next.data(), n),
          part);
    std::swap(delta, next);
  }
  std::copy(part.begin(), part.end(), g.begin());
  const double square = linalg::dot(g.data(), g.data(), d.params);
  profile.gradient_norm = std::sqrt(square);
  double cumulative = 0;
  for (index_t lag = 0; lag <= max_lag && lag < steps; ++lag) {
    lag_entry e;
    e.lag = lag;
    e.phi = sweep(lag) / double((steps - lag) * d.lanes);
    double dot = 0, own = 0;
    for (index_t j = 0; j < d.params; ++j) {
      dot += double(part[j]) * g[j];
      own += double(part[j]) * double(part[j]);
    }
    e.norm = std::sqrt(own);
    e.projection = dot / square;
    e.cumulative = cumulative += e.projection;
    profile.lags.push_back(e);
  }
  return profile;
}

}  // namespace unroll
