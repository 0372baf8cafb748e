#pragma once

#include <algorithm>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "unroll/ad/dual.hpp"
#include "unroll/ad/tape.hpp"
#include "unroll/core/block.hpp"
#include "unroll/system/concepts.hpp"

namespace unroll::ad {

/// One step as a function over any number type N, of which derive() makes a system:
///
///     using scalar = float or double;  using input = anything copyable
///     dims size() const                          params, state and lanes; tape and workspace are ignored
///     template <class N> N operator()(std::span<const N> theta, std::span<const N> s, const input& x,
///                                     std::span<N> next) const
///
/// It writes every element of `next` and returns the loss, summed over the lanes. N is scalar, dual<scalar>
/// or var<scalar>. Optional, as for any system: start(s), finite(x), scored(x),
/// output(theta, s, y).
template <class F>
concept step_function = std::copyable<F> &&
    requires(const F& f, std::span<const typename F::scalar> v, const typename F::input& x,
             std::span<typename F::scalar> next) {
  { f.size() } -> std::same_as<dims>;
  { f(v, v, x, next) } -> std::convertible_to<typename F::scalar>;
};

namespace detail {
/// finite(x) of the function, behind the check_lanes() that belongs to the inputs, if there is one
/// (cells/example.hpp).
template <class F>
bool finite_step(const F& f, const typename F::input& x, index_t lanes) {
  constexpr const char* has = "size() of the function has lanes ";
  if constexpr (requires { check_lanes("derive", x, lanes, has); }) check_lanes("derive", x, lanes, has);
  return finite_input(f, x);
}
}  // namespace detail

/// The system that derive() returns. step() runs the function on plain numbers, jvp() on dual numbers, vjp()
/// records it on a tape and sweeps back; nothing is stored between them, so a vjp costs a recorded step
/// (about 20 bytes and a few ns per operation) and a sweep. The tape and the number buffers live in the
/// object and are overwritten by const calls: use one copy per thread. Estimators own a copy of their system
/// anyway.
template <class F>
class derived {
 public:
  using scalar = typename F::scalar;
  using input = typename F::input;

  explicit derived(F f) : f_(std::move(f)), size_(f_.size()) {
    static_assert(
        step_function<F>,
        "derive needs a copyable function object with `scalar`, `input`, `unroll::dims size() const` "
        "and template <class N> N operator()(std::span<const N> theta, std::span<const N> s, "
        "const input& x, std::span<N> next) const");
    size_.tape = 0;
    size_.workspace = 0;
    const auto n = std::size_t(size_.params + size_.state), m = std::size_t(size_.state);
    dual_in_.resize(n);
    dual_next_.resize(m);
    var_in_.resize(n);
    var_next_.resize(m);
  }

  const F& function() const { return f_; }
  dims size() const { return size_; }
  /// Memory of the tape and the buffers.
  std::size_t bytes() const {
    return tape_.bytes() + (dual_in_.size() + dual_next_.size()) * sizeof(dual<scalar>) +
           (var_in_.size() + var_next_.size()) * sizeof(var<scalar>);
  }
  void start(state<scalar> s) const requires requires(const F& f, state<typename F::scalar> v) { f.start(v); }
  { f_.start(s); }
  /// Throws unroll::error where `x` says that its arrays have other lanes than the function.
  bool finite(const input& x) const { return detail::finite_step(f_, x, size_.lanes); }
  index_t scored(const input& x) const { return index_t(scored_losses(f_, x)); }
  void output(params<const scalar> theta, state<const scalar> s, view<scalar> y) const requires
      requires(const F& f) {
    f.output(theta, s, y);
  }
  { f_.output(theta, s, y); }

  /// Records one step on zero parameters so that vjp() finds a tape that is large enough
  /// and never allocates. Without it the first vjp() sizes the tape.
  void warm_up(const input& x) {
    const parameters<scalar> theta(size_.params);
    block<scalar, state_space> s(size_.state);
    block<scalar, state_cotangent_space> ds(size_.state);
    gradient<scalar> dtheta(size_.params);
    start_state(*this, state<scalar>(s));
    const_edge<scalar> e;
    e.theta = theta;
    e.s = state<scalar>(s);
    vjp(x, e, {}, scalar(1), ds, dtheta);
  }

  void step(const input& x, const edge<scalar>& e) const {
    *e.loss = f_(std::span<const scalar>(e.theta.begin(), e.theta.end()),
                 std::span<const scalar>(e.s.begin(), e.s.end()), x,
                 std::span<scalar>(e.next.begin(), e.next.end()));
  }

  void vjp(const input& x, const const_edge<scalar>& e, dstate<const scalar> dnext, scalar dloss,
           dstate<scalar> ds, dparams<scalar> dtheta) const {
    tape_.clear();
    const std::size_t p = std::size_t(size_.params);
    for (index_t i = 0; i < size_.params; ++i)
      var_in_[std::size_t(i)] = dtheta.empty() ? var<scalar>(e.theta[i]) : tape_.variable(e.theta[i]);
    for (index_t i = 0; i < size_.state; ++i)
      var_in_[p + std::size_t(i)] = ds.empty() ? var<scalar>(e.s[i]) : tape_.variable(e.s[i]);
    const var<scalar> loss = run<var<scalar>>(x, var_in_, var_next_);
    tape_.zero_adjoints();
    tape_.seed(loss, dloss);
    for (index_t i = 0; i < dnext.size(); ++i) tape_.seed(var_next_[std::size_t(i)], dnext[i]);
    tape_.propagate();
    for (index_t i = 0; i < dtheta.size(); ++i) dtheta[i] += tape_.adjoint(var_in_[std::size_t(i)]);
    for (index_t i = 0; i < ds.size(); ++i) ds[i] += tape_.adjoint(var_in_[p + std::size_t(i)]);
  }

  void jvp(const input& x, const const_edge<scalar>& e, params_tangent<const scalar> dtheta,
           state_tangent<const scalar> ds, state_tangent<scalar> dnext, scalar* dloss) const {
    const std::size_t p = std::size_t(size_.params);
    for (index_t i = 0; i < size_.params; ++i)
      dual_in_[std::size_t(i)] = {e.theta[i], dtheta.empty() ? scalar(0) : dtheta[i]};
    for (index_t i = 0; i < size_.state; ++i)
      dual_in_[p + std::size_t(i)] = {e.s[i], ds.empty() ? scalar(0) : ds[i]};
    const dual<scalar> loss = run<dual<scalar>>(x, dual_in_, dual_next_);
    for (index_t i = 0; i < size_.state; ++i) dnext[i] = dual_next_[std::size_t(i)].tangent();
    if (dloss) *dloss = loss.tangent();
  }

 private:
  template <class N>
  N run(const input& x, const std::vector<N>& in, std::vector<N>& next) const {
    const std::span<const N> all(in);
    std::fill(next.begin(), next.end(), N(0));
    return f_(all.first(std::size_t(size_.params)), all.subspan(std::size_t(size_.params)), x,
              std::span<N>(next));
  }

  F f_;
  dims size_;
  mutable tape<scalar> tape_;
  mutable std::vector<dual<scalar>> dual_in_, dual_next_;  // theta then s; s'
  mutable std::vector<var<scalar>> var_in_, var_next_;
};

/// A system with vjp and jvp from one function over any number type.
template <class F>
derived<F> derive(F f) {
  return derived<F>(std::move(f));
}

namespace detail {
/// Whether x is a null pointer, or an example (cells/example.hpp) of nothing else.
template <class X>
bool shows_nothing(const X& x) {
  if constexpr (std::is_pointer_v<X>)
    return x == nullptr;
  else if constexpr (requires { !x.x, !x.token, !x.target, !x.label; })
    return !x.x && !x.token && !x.target && !x.label;
  else
    return false;
}
}  // namespace detail

/// The same with the tape sized for inputs like `x`, so that nothing allocates after construction. The
/// function runs on x: throws unroll::error where x is a null pointer or an example of null pointers.
template <class F>
derived<F> derive(F f, const typename F::input& x) {
  if (detail::shows_nothing(x))
    fail("derive", "x",
         "is null; the function runs on it once, so it must point to data as large as a real input");
  derived<F> system(std::move(f));
  system.warm_up(x);
  return system;
}

}  // namespace unroll::ad
