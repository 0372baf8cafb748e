#pragma once

#include "unroll/core/block.hpp"
#include "unroll/core/report.hpp"
#include "unroll/rng/chooser.hpp"
#include "unroll/system/explain.hpp"

namespace unroll {

/// Which gradient an estimator estimates. The three agree where the loss is at most quadratic in the theta of
/// all steps together, and in general nowhere else.
enum class target {
  frozen_theta,           ///< theta constant over the whole sequence
  jointly_smoothed,       ///< gradient of E L(theta + eps, ..., theta + eps), one eps a sequence
  independently_smoothed  ///< gradient of E L(theta + eps_1, ..., theta + eps_W), a fresh eps a window
};

/// A gradient estimator over a system F. All of them share four calls:
///   reset(key, s0 = {})       a new sequence (from s0, or the system's own start) and a new stream
///   advance(theta, xs, g)     consume the inputs, ADD to g what has become known, return a report
///   finish(theta, g)          add what was still in flight at the end of the sequence
///   system()                  the system
/// and declare `target_gradient`, `unbiased` (for that target, at fixed theta, in exact arithmetic and with
/// draws that have exactly the probabilities asked for) and `references` (keys in docs/references.bib). Where
/// an input is only a view of data, the data must live until finish.
///
/// How the inputs are cut into calls never changes the result. When a step is not finite, the report says
/// status::non_finite and which step; the estimator is then as if it had been given only the first
/// `consumed` inputs of that call, and g holds no trace of the others. A step is finite when its state and
/// its loss are: derivatives may still overflow, so that g is not finite although the report is ok.
template <class E>
concept gradient_estimator = std::copyable<E> &&
    requires(E e, const E& c, params<const typename E::scalar> theta, std::span<const typename E::input> xs,
             dparams<typename E::scalar> g, key k, state<const typename E::scalar> s0) {
  typename E::system_type;
  e.reset(k);
  e.reset(k, s0);
  { e.advance(theta, xs, g) } -> std::same_as<report>;
  { e.finish(theta, g) } -> std::same_as<report>;
  { c.system() } -> std::convertible_to<const typename E::system_type&>;
  { E::target_gradient } -> std::convertible_to<target>;
  { E::unbiased } -> std::convertible_to<bool>;
  E::references;
};

namespace detail {
template <class E>
consteval bool draws() {
  if constexpr (requires(E & e) { e.chooser(); })
    return true;
  else if constexpr (requires { typename E::member_estimator; })
    return draws<typename E::member_estimator>();
  else
    return false;
}
}  // namespace detail

/// Whether an estimator draws random numbers: it has a chooser, or it is made of estimators that have one.
template <class E>
inline constexpr bool draws_at_random = detail::draws<E>();

}  // namespace unroll
