#pragma once

#include <utility>

#include "unroll/system/concepts.hpp"

namespace unroll {

/// Calls a counted system has received. A window pass of k steps counts k.
struct call_counts {
  std::int64_t steps = 0;
  std::int64_t vjps = 0;        ///< lane_vjp included
  std::int64_t jvps = 0;        ///< Jacobian-vector products
  std::int64_t jacobians = 0;   ///< dense Jacobians ds'/ds
  std::int64_t immediates = 0;  ///< calls of immediate(), one per range of columns
  std::int64_t row_norms = 0;

  friend constexpr bool operator==(const call_counts&, const call_counts&) = default;
};

/// A system that counts what it is asked for. The counts live with the caller and are shared by all copies,
/// so the copy that an estimator owns reports to the caller:
///
///     call_counts calls;
///     bptt estimator(counted(cell, calls));
///
/// It has exactly the optional members that F has, but those that deal out lanes. `calls` must outlive every
/// copy, and all copies must stay in one thread.
template <class F>
class counted final {
 public:
  using scalar = typename F::scalar;
  using input = typename F::input;
  using T = scalar;

  counted(F system, call_counts& calls) : f_(std::move(system)), calls_(&calls) {}

  const F& system() const { return f_; }
  dims size() const { return f_.size(); }

  void step(const input& x, const edge<T>& e) const {
    ++calls_->steps;
    f_.step(x, e);
  }
  void vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
           dparams<T> dtheta) const requires has_vjp<F> {
    ++calls_->vjps;
    f_.vjp(x, e, dnext, dloss, ds, dtheta);
  }
  void jvp(const input& x, const const_edge<T>& e, params_tangent<const T> dtheta, state_tangent<const T> ds,
           state_tangent<T> dnext, T* dloss) const requires has_jvp<F> {
    ++calls_->jvps;
    f_.jvp(x, e, dtheta, ds, dnext, dloss);
  }

  index_t window_workspace(index_t steps) const requires has_window<F> { return f_.window_workspace(steps); }
  void forward(std::span<const input> xs, const window<T>& w) const requires has_window<F> {
    calls_->steps += w.steps;
    f_.forward(xs, w);
  }
  void backward(std::span<const input> xs, const window<T>& w, const injection<T>& in, dstate<T> ds,
                dparams<T> dtheta) const requires has_window<F> {
    calls_->vjps += w.steps;
    f_.backward(xs, w, in, ds, dtheta);
  }

  void jacobian(const input& x, const const_edge<T>& e, view<T> j) const requires has_jacobian<F> {
    ++calls_->jacobians;
    f_.jacobian(x, e, j);
  }
  void immediate(const input& x, const const_edge<T>& e, view<T> m, index_t p0,
                 index_t p1) const requires has_jacobian<F> {
    ++calls_->immediates;
    f_.immediate(x, e, m, p0, p1);
  }
  void row_norms(const input& x, const const_edge<T>& e, view<T> out) const requires has_row_norms<F> {
    ++calls_->row_norms;
    f_.row_norms(x, e, out);
  }
  void jacobian_mask(view<std::uint8_t> j) const requires has_masks<F> { f_.jacobian_mask(j); }
  void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const requires has_masks<F> {
    f_.immediate_mask(mask, p0, p1);
  }
  std::vector<weight_matrix> weight_matrices() const
      requires(has_factors<F> || has_diag_jacobian<F> || has_unit_layers<F>) {
    return f_.weight_matrices();
  }
  void factors(const input& x, const const_edge<T>& e, view<T> a, view<T> d) const requires has_factors<F> {
    f_.factors(x, e, a, d);
  }
  void factored_vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
                    dparams<T> dtheta, view<T> dz) const requires has_factored_vjp<F> {
    ++calls_->vjps;
    if constexpr (has_factored_vjp<F>) f_.factored_vjp(x, e, dnext, dloss, ds, dtheta, dz);
  }
  index_t units() const requires has_diag_jacobian<F> { return f_.units(); }
  bool units_apart() const requires has_diag_jacobian<F> { return f_.units_apart(); }
  index_t complex_matrices() const requires(requires(const F& f) { f.complex_matrices(); }) {
    if constexpr (requires(const F& f) { f.complex_matrices(); }) return f_.complex_matrices();
    return 0;
  }
  void diag_jacobian(const input& x, const const_edge<T>& e, view<T> j) const requires has_diag_jacobian<F> {
    f_.diag_jacobian(x, e, j);
  }
  void diag_factors(const input& x, const const_edge<T>& e, view<T> a,
                    view<T> d) const requires has_diag_jacobian<F> {
    f_.diag_factors(x, e, a, d);
  }
  // if constexpr: clang 14 compiles members of an explicit instantiation whatever they require
  std::vector<unit_layer> unit_layers() const requires has_unit_layers<F> {
    if constexpr (has_unit_layers<F>)
      return f_.unit_layers();
    else
      return {};
  }
  void layer_diag_jacobian(index_t k, const input& x, const const_edge<T>& e,
                           view<T> j) const requires has_unit_layers<F> {
    if constexpr (has_unit_layers<F>) f_.layer_diag_jacobian(k, x, e, j);
  }
  void layer_diag_factors(index_t k, const input& x, const const_edge<T>& e, view<T> a,
                          view<T> d) const requires has_unit_layers<F> {
    if constexpr (has_unit_layers<F>) f_.layer_diag_factors(k, x, e, a, d);
  }
  void lane_vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext,
                view<T> dtheta) const requires has_lane_vjp<F> {
    ++calls_->vjps;
    f_.lane_vjp(x, e, dnext, dtheta);
  }

  void start(state<T> s) const { start_state(f_, s); }
  bool finite(const input& x) const { return finite_input(f_, x); }
  index_t scored(const input& x) const { return index_t(scored_losses(f_, x)); }
  bool begins(const input& x, index_t lane) const { return lane_begins(f_, x, lane); }
  bool supports(hook h) const { return unroll::supports(f_, h); }
  void output(params<const T> theta, state<const T> s, view<T> y) const requires requires(const F& f) {
    f.output(theta, s, y);
  }
  { f_.output(theta, s, y); }

 private:
  F f_;
  call_counts* calls_;
};

}  // namespace unroll
