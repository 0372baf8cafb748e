#pragma once

#include "unroll/system/concepts.hpp"

namespace unroll {

// The first line of every estimator: a wrong system stops here, with the signature to write as the message.

/// Fails to compile, with the signature to write, unless F has size and step.
template <class F>
constexpr bool require_recurrent() {
  static_assert(
      requires { typename F::scalar; } && requires { typename F::input; },
      "a system needs member types `scalar` (float or double) and `input` (copyable)");
  static_assert(std::copyable<F>, "a system must be copyable: every estimator owns a copy");
  static_assert(
      requires(const F& f) {
        { f.size() } -> std::same_as<dims>;
      },
      "a system needs: unroll::dims size() const");
  static_assert(
      requires(const F& f, const typename F::input& x, const edge<typename F::scalar>& e) { f.step(x, e); },
      "a system needs: void step(const input& x, const unroll::edge<scalar>& e) const");
  return recurrent<F>;
}

/// The same as require_recurrent, with vjp.
template <class F>
constexpr bool require_vjp() {
  constexpr bool base = require_recurrent<F>();
  static_assert(has_vjp<F>,
                "this estimator needs: void vjp(const input& x, const unroll::const_edge<scalar>& e, "
                "unroll::dstate<const scalar> dnext, scalar dloss, unroll::dstate<scalar> ds, "
                "unroll::dparams<scalar> dtheta) const   (it ADDS to ds and dtheta)");
  return base && has_vjp<F>;
}

/// The same as require_recurrent, with the masks of the Jacobians.
template <class F>
constexpr bool require_masks() {
  constexpr bool base = require_recurrent<F>();
  static_assert(
      has_masks<F>,
      "this estimator needs: void jacobian_mask(unroll::view<std::uint8_t> J) const and void "
      "immediate_mask(unroll::view<std::uint8_t> F, unroll::index_t p0, unroll::index_t p1) const   "
      "(1 where ds'/ds, ds'/dtheta can differ from zero, else 0)");
  return base && has_masks<F>;
}

/// The same as require_recurrent, with the factors of the Jacobian by theta.
template <class F>
constexpr bool require_factors() {
  constexpr bool base = require_recurrent<F>();
  static_assert(has_factors<F>,
                "this estimator needs: std::vector<unroll::weight_matrix> weight_matrices() const and void "
                "factors(const input& x, const unroll::const_edge<scalar>& e, unroll::view<scalar> a, "
                "unroll::view<scalar> d) const   (where ds'/dW is d times a')");
  return base && has_factors<F>;
}

/// The same as require_recurrent, with the Jacobians of every unit by itself.
template <class F>
constexpr bool require_diag_jacobian() {
  constexpr bool base = require_recurrent<F>();
  static_assert(
      has_diag_jacobian<F>,
      "this estimator needs: unroll::index_t units() const, bool units_apart() const, "
      "std::vector<unroll::weight_matrix> weight_matrices() const, void diag_jacobian(const input& x, const "
      "unroll::const_edge<scalar>& e, unroll::view<scalar> J) const and void diag_factors(const input& x, "
      "const unroll::const_edge<scalar>& e, unroll::view<scalar> a, unroll::view<scalar> d) const   (of "
      "every "
      "unit what it does to itself)");
  return base && has_diag_jacobian<F>;
}

/// The same as require_recurrent, with the Jacobians of every unit of every layer by itself.
template <class F>
constexpr bool require_unit_layers() {
  constexpr bool base = require_recurrent<F>();
  static_assert(
      has_unit_layers<F>,
      "this estimator needs: std::vector<unroll::unit_layer> unit_layers() const, "
      "std::vector<unroll::weight_matrix> weight_matrices() const, void layer_diag_jacobian(index_t k, "
      "const input& x, const unroll::const_edge<scalar>& e, unroll::view<scalar> J) const and void "
      "layer_diag_factors(index_t k, const input& x, const unroll::const_edge<scalar>& e, "
      "unroll::view<scalar> a, unroll::view<scalar> d) const   (of every unit of a layer what it does "
      "to itself)");
  return base && has_unit_layers<F>;
}

/// The same as require_recurrent, with jvp.
template <class F>
constexpr bool require_jvp() {
  constexpr bool base = require_recurrent<F>();
  static_assert(has_jvp<F>,
                "this estimator needs: void jvp(const input& x, const unroll::const_edge<scalar>& e, "
                "unroll::params_tangent<const scalar> dtheta, unroll::state_tangent<const scalar> ds, "
                "unroll::state_tangent<scalar> dnext, scalar* dloss) const   (it WRITES dnext and *dloss)");
  return base && has_jvp<F>;
}

}  // namespace unroll
