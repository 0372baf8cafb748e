#pragma once

#include "unroll/core/block.hpp"
#include "unroll/core/report.hpp"
#include "unroll/rng/chooser.hpp"
#include "unroll/system/explain.hpp"

namespace unroll {

/// Which gradient an estimator estimates. The three agree where the loss is at most quadratic in the theta of
/// all steps together, and in general nowhere else.
enum class estimand {
  frozen_theta,           ///< theta constant over the whole sequence
  jointly_smoothed,       ///< gradient of E L(theta + eps, ..., theta + eps), one eps a sequence
  independently_smoothed  ///< gradient of E L(theta + eps_1, ..., theta + eps_W), an eps for each window
};

/// The normal perturbation of theta whose gradient an estimator of a smoothed gradient estimates.
struct perturbation {
  double sigma = 0;    ///< standard deviation, of each parameter
  index_t window = 0;  ///< steps that share one; 0: the whole sequence
};

/// A gradient estimator over a system F. All of them share four calls:
///   reset(key, s0 = {})       a new sequence (from s0, or the system's own start) and a new stream
///   advance(theta, xs, g)     consume the inputs, ADD to g what has become known, return a report
///   finish(theta, g)          add what was still in flight at the end of the sequence
///   system()                  the system
/// and declare what they estimate; a wrapper forwards all of it:
///   estimated_gradient        which gradient
///   smoothing()               where that is smoothed: the perturbation
///   unbiased                  for that gradient, at fixed theta, in exact arithmetic and with draws of
///                             exactly the probabilities asked for
///   random                    whether it draws; if so, mirror(on) makes it draw the antithetic twin of its
///                             stream from the next reset on (optional)
///   references                keys in docs/references.bib
/// Where an input is only a view of data, the data must live until finish.
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
  { E::estimated_gradient } -> std::convertible_to<estimand>;
  { E::unbiased } -> std::convertible_to<bool>;
  { E::random } -> std::convertible_to<bool>;
  requires E::estimated_gradient == estimand::frozen_theta || requires {
    { c.smoothing() } -> std::same_as<perturbation>;
  };
  E::references;
};

/// The optional members of an estimator:
///   state<const T> last_state(theta)   of a recurrent one: the state behind the last input consumed. Inputs
///                                      that wait for their window are run for it, at theta, and uncounted;
///                                      valid until the next call. Evolution strategies show their first copy
///   void visit(v)                      what save and resume need (core/visit.hpp, io/checkpoint.hpp)
///   index_t held() const               how many of the newest inputs it still holds
///   void hold(xs)                      after a resume: gives the last held() inputs back
template <class E>
concept has_last_state = requires(E e, params<const typename E::scalar> theta) {
  { e.last_state(theta) } -> std::same_as<state<const typename E::scalar>>;
};

/// Resuming a stream: the inputs an estimator holds are views of the caller's data, so the caller keeps their
/// place in the data and brings them back,
///
///     c.load("run", estimator);
///     hold_inputs(estimator, xs.first(position).last(held_inputs(estimator)));
///
/// and the calls that follow give the bits of a stream that was never cut.
template <class E>
index_t held_inputs(const E& e) {
  if constexpr (requires { e.held(); })
    return e.held();
  else
    return 0;
}
/// Gives the last held_inputs(e) inputs back; throws unroll::error where it is another number, where the
/// system refuses one (another number of lanes, no such token) and where one is not finite.
template <class E>
void hold_inputs(E& e, std::span<const typename E::input> xs) {
  for (std::size_t i = 0; i < xs.size(); ++i)
    if (!finite_input(e.system(), xs[i]))
      fail("hold_inputs", "xs", "input " + std::to_string(i) + " is not finite");
  if constexpr (requires { e.hold(xs); })
    e.hold(xs);
  else
    check_size("hold_inputs", "xs", index_t(xs.size()), 0);
}

/// The output of the system (cells: `output`) at the newest state: WRITES y, lane after lane.
template <has_last_state E>
void last_output(E& e, params<const typename E::scalar> theta, view<typename E::scalar> y) {
  e.system().output(theta, e.last_state(theta), y);
}

/// The perturbation of an estimator of a smoothed gradient; none of any other.
template <class E>
perturbation smoothing_of(const E& e) {
  if constexpr (E::estimated_gradient == estimand::frozen_theta)
    return {};
  else
    return e.smoothing();
}

}  // namespace unroll
