#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "unroll/system/concepts.hpp"

namespace unroll::cells {

struct influence_balancing_options {
  index_t n = 23;         ///< size of the state
  index_t positive = 10;  ///< p: entries of v that are +1; the others are -1
  double start = 1;       ///< every entry of s_0
};

/// The input of a system that takes none.
struct nothing {};

/// s' = A s + theta v with A = (I + shift) / 2, i.e. (A s)_i = (s_i + s_{i+1}) / 2, one parameter theta, and
/// loss 1/2 (s'_1 - 1)^2 (Tallec & Ollivier 2017, arXiv:1705.08209). An earlier theta moves the loss through
/// the lag coefficients c_k = e_1' A^k v: short lags push theta up, long lags, which weigh more, push it
/// down. Truncation below about 40 steps therefore has the wrong sign. In the limit the coefficients sum to
/// 2 (2p - n), so the optimum is theta = 1 / (2 (2p - n)): -1/6 by default.
/// Nothing comes in: the input may be of any type and is not looked at.
template <class T, class Input = nothing>
class influence_balancing {
 public:
  using scalar = T;
  using input = Input;

  explicit influence_balancing(const influence_balancing_options& options = {}) : o_(options) {
    check_at_least("influence_balancing", "n", o_.n, 1);
    check_at_least("influence_balancing", "positive", o_.positive, 0);
    check_at_least("influence_balancing", "n", o_.n, o_.positive);
  }

  const influence_balancing_options& options() const { return o_; }
  dims size() const { return {1, o_.n, 0, 0, 1}; }
  void start(state<T> s) const { std::fill(s.begin(), s.end(), T(o_.start)); }

  /// out[k] = c_k, how a theta k steps before the loss moves s'_1, for each k < out.size().
  void lag_coefficients(view<T> out) const {
    std::vector<T> u(static_cast<std::size_t>(o_.n));
    for (index_t i = 0; i < o_.n; ++i) u[std::size_t(i)] = v(i);
    for (T& c : out) {
      c = u[0];
      apply(u.data(), u.data());
    }
  }

  /// s_1 in the limit of many steps at a constant theta: 2 (2p - n) theta.
  T steady_state(T theta) const { return T(2 * (2 * o_.positive - o_.n)) * theta; }

  void step(const input&, const edge<T>& e) const {
    apply(e.s.data(), e.next.data());
    for (index_t i = 0; i < o_.n; ++i) e.next[i] += e.theta[0] * v(i);
    const T r = e.next[0] - 1;
    *e.loss = r * r / 2;
  }

  void vjp(const input&, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
           dparams<T> dtheta) const {
    for (index_t i = 0; i < o_.n; ++i) {
      const T d = (dnext.empty() ? T(0) : dnext[i]) + (i == 0 ? dloss * (e.next[0] - 1) : T(0));
      if (!dtheta.empty()) dtheta[0] += d * v(i);
      if (ds.empty()) continue;
      ds[i] += d / 2;
      if (i + 1 < o_.n) ds[i + 1] += d / 2;
    }
  }

  void jvp(const input&, const const_edge<T>& e, params_tangent<const T> dtheta, state_tangent<const T> ds,
           state_tangent<T> dnext, T* dloss) const {
    if (ds.empty())
      std::fill(dnext.begin(), dnext.end(), T(0));
    else
      apply(ds.data(), dnext.data());
    if (!dtheta.empty())
      for (index_t i = 0; i < o_.n; ++i) dnext[i] += dtheta[0] * v(i);
    if (dloss) *dloss = (e.next[0] - 1) * dnext[0];
  }

  void jacobian(const input&, const const_edge<T>&, view<T> J) const {
    std::fill(J.begin(), J.end(), T(0));
    for (index_t i = 0; i < o_.n; ++i) {
      J[i * o_.n + i] = T(0.5);
      if (i + 1 < o_.n) J[(i + 1) * o_.n + i] = T(0.5);
    }
  }
  void immediate(const input&, const const_edge<T>&, view<T> M, index_t p0, index_t p1) const {
    if (p0 > 0 || p1 < 1) return;
    for (index_t i = 0; i < o_.n; ++i) M[i] += v(i);
  }
  void row_norms(const input&, const const_edge<T>&, view<T> out) const {
    std::fill(out.begin(), out.end(), T(1));
  }
  void jacobian_mask(view<std::uint8_t> j) const {
    for (index_t k = 0; k < o_.n * o_.n; ++k) j[k] = 0;
    for (index_t i = 0; i < o_.n; ++i) j[i * o_.n + i] = j[i * o_.n + std::max(i - 1, index_t(0))] = 1;
  }
  void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const {
    for (index_t k = 0; k < o_.n * (p1 - p0); ++k) mask[k] = 1;
  }
  void lane_vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, view<T> dtheta) const {
    vjp(x, e, dnext, T(0), {}, dparams<T>(dtheta.data(), dtheta.size()));
  }

 private:
  T v(index_t i) const { return i < o_.positive ? T(1) : T(-1); }
  // to = A from, vectors of the state; may be in place, since entry i needs only i and i + 1.
  void apply(const T* from, T* to) const {
    for (index_t i = 0; i + 1 < o_.n; ++i) to[i] = (from[i] + from[i + 1]) / 2;
    to[o_.n - 1] = from[o_.n - 1] / 2;
  }

  influence_balancing_options o_;
};

}  // namespace unroll::cells
