#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "unroll/system/concepts.hpp"

namespace unroll {

/// Gives any system a vjp and a jvp by central differences: for tests and for black boxes.
/// Cost: a vjp is 2 (params + state) steps of F, a jvp is 2. The relative error is about eps^(2/3) (4e-11 in
/// double, 2e-5 in float) where F is smooth: a step h leaves an error h^2 / 6 F''' and a rounding error
/// eps F / h, which balance at h = eps^(1/3).
template <class F>
class finite_difference final {
 public:
  using scalar = typename F::scalar;
  using input = typename F::input;
  using T = scalar;

  explicit finite_difference(F system) : f_(std::move(system)) {}

  const F& system() const { return f_; }

  /// The workspace holds the moved point (theta, s), its two results and a tape.
  dims size() const {
    dims d = f_.size();
    d.workspace += d.params + 3 * d.state + d.tape;
    return d;
  }

  void step(const input& x, const edge<T>& e) const {
    const dims d = f_.size();
    f_.step(x, {e.theta, e.s, e.next, e.tape, e.loss, e.workspace.part(0, d.workspace), e.t});
  }

  void vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
           dparams<T> dtheta) const {
    const point at(f_, e);
    const auto slope = [&](T& v) {
      const T centre = v, h = step_size(std::abs(centre));
      const T above = centre + h, below = centre - h;
      T up = 0, down = 0;
      v = above;
      evaluate(x, e, at, at.up, up);
      v = below;
      evaluate(x, e, at, at.down, down);
      v = centre;
      T sum = dloss * (up - down);
      for (index_t i = 0; i < dnext.size(); ++i) sum += dnext[i] * (at.up[i] - at.down[i]);
      return sum / (above - below);
    };
    for (index_t i = 0; i < ds.size(); ++i) ds[i] += slope(at.s[i]);
    for (index_t i = 0; i < dtheta.size(); ++i) dtheta[i] += slope(at.theta[i]);
  }

  void jvp(const input& x, const const_edge<T>& e, params_tangent<const T> dtheta, state_tangent<const T> ds,
           state_tangent<T> dnext, T* dloss) const {
    const point at(f_, e);
    T size = 0, length = 0;
    for (index_t i = 0; i < dtheta.size(); ++i) {
      size = std::max(size, std::abs(e.theta[i]));
      length = std::max(length, std::abs(dtheta[i]));
    }
    for (index_t i = 0; i < ds.size(); ++i) {
      size = std::max(size, std::abs(e.s[i]));
      length = std::max(length, std::abs(ds[i]));
    }
    if (length == 0) {
      std::fill(dnext.begin(), dnext.end(), T(0));
      if (dloss) *dloss = 0;
      return;
    }
    const T h = step_size(size) / length;
    const auto move = [&](T signed_h) {
      for (index_t i = 0; i < dtheta.size(); ++i) at.theta[i] = e.theta[i] + signed_h * dtheta[i];
      for (index_t i = 0; i < ds.size(); ++i) at.s[i] = e.s[i] + signed_h * ds[i];
    };
    T up = 0, down = 0;
    move(h);
    evaluate(x, e, at, at.up, up);
    move(-h);
    evaluate(x, e, at, at.down, down);
    for (index_t i = 0; i < dnext.size(); ++i) dnext[i] = (at.up[i] - at.down[i]) / (2 * h);
    if (dloss) *dloss = (up - down) / (2 * h);
  }

  void start(state<T> s) const { start_state(f_, s); }
  bool finite(const input& x) const { return finite_input(f_, x); }
  index_t scored(const input& x) const { return index_t(scored_losses(f_, x)); }

 private:
  // The moved point starts as a copy of (theta, s).
  struct point {
    view<T> workspace, theta, s, up, down, tape;
    point(const F& f, const const_edge<T>& e) {
      const dims d = f.size();
      index_t offset = 0;
      const auto take = [&](index_t n) { return e.workspace.part(std::exchange(offset, offset + n), n); };
      workspace = take(d.workspace);
      theta = take(d.params);
      s = take(d.state);
      up = take(d.state);
      down = take(d.state);
      tape = take(d.tape);
      std::copy(e.theta.begin(), e.theta.end(), theta.begin());
      std::copy(e.s.begin(), e.s.end(), s.begin());
    }
  };

  static T step_size(T magnitude) {
    return std::cbrt(std::numeric_limits<T>::epsilon()) * std::max(T(1), magnitude);
  }

  void evaluate(const input& x, const const_edge<T>& e, const point& at, view<T> next, T& loss) const {
    f_.step(x, {{at.theta.data(), at.theta.size()},
                {at.s.data(), at.s.size()},
                {next.data(), next.size()},
                {at.tape.data(), at.tape.size()},
                &loss,
                at.workspace,
                e.t});
  }

  F f_;
};

}  // namespace unroll
