#pragma once

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "unroll/core/linalg.hpp"
#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/run_groups.hpp"
#include "unroll/estimate/parts/side_by_side.hpp"

namespace unroll {

template <gradient_estimator... E>
class mean_of;

/// The mean of independent copies of an estimator: the same expectation, 1 / copies of the variance (where
/// there is one) for copies times the work.
///
///   g += 1 / copies sum_i g_i,   copy i with the stream fold(key, i)
///
/// antithetic: copies 2i and 2i + 1 share the stream fold(key, i), the second one mirrored: part of their
/// noise cancels, the rest is not averaged at all (docs/math/mean_of.md says when it pays). Every copy is
/// still distributed as one alone, so the bias is that of the prototype.
/// The loss is that of the first copy; steps, vjps, jvps and bytes are sums over the copies. Every input
/// passes through all copies before the next one. When a step is not finite in only some of the copies
/// (possible where the trajectory itself is random), g has no trace of it and only reset() can follow.
template <gradient_estimator E>
class mean_of<E> final {
 public:
  using system_type = typename E::system_type;
  using scalar = typename E::scalar;
  using input = typename E::input;
  static constexpr estimand estimated_gradient = E::estimated_gradient;
  static constexpr bool unbiased = E::unbiased;
  static constexpr bool random = E::random;
  static constexpr auto references = E::references;

  mean_of(E prototype, index_t copies, bool antithetic = false)
      : antithetic_(antithetic), sum_(prototype.system().size().params) {
    check_at_least("mean_of", "copies", copies, 1);
    if (antithetic && copies % 2 != 0) fail("mean_of", "copies", "must be even for antithetic pairs");
    if constexpr (!has_mirror)
      if (antithetic) fail("mean_of", "antithetic", "the estimator draws nothing that could be mirrored");
    copies_.assign(std::size_t(copies), prototype);
    reset({});
  }

  void reset(key k, state<const scalar> s0 = {}) {
    for (std::size_t i = 0; i < copies_.size(); ++i) {
      if constexpr (has_mirror) copies_[i].mirror(mirrored_ != (antithetic_ && i % 2 == 1));
      copies_[i].reset(fold(k, antithetic_ ? i / 2 : i), s0);
    }
    reports_.failed = {};
  }

  void mirror(bool on) requires requires(E e) { e.mirror(on); }
  { mirrored_ = on; }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    check_size("mean_of::advance", "theta", theta.size(), sum_.size());
    check_size("mean_of::advance", "g", g.size(), sum_.size());
    report r;
    for (std::size_t i = 0; i < xs.size() && r.code == status::ok; ++i)
      r += each(g, [&](E& e) { return e.advance(theta, xs.subspan(i, 1), sum_); });
    r.bytes = bytes();
    return r;
  }

  report finish(params<const scalar> theta, dparams<scalar> g) {
    check_size("mean_of::finish", "theta", theta.size(), sum_.size());
    check_size("mean_of::finish", "g", g.size(), sum_.size());
    report r = each(g, [&](E& e) { return e.finish(theta, sum_); });
    r.bytes = bytes();
    return r;
  }

  /// That of the first copy.
  state<const scalar> last_state(params<const scalar> theta) requires has_last_state<E> {
    return copies_.front().last_state(theta);
  }
  template <class V>
  void visit(V&& v) {
    visit_identity(v,
                   "mean_of, copies " + std::to_string(copies_.size()) + (antithetic_ ? ", antithetic" : ""),
                   system());
    visit_flag(v, "mirrored", mirrored_);
    visit_part(v, "failed", reports_.failed);
    for (std::size_t i = 0; i < copies_.size(); ++i) visit_part(v, "copy " + std::to_string(i), copies_[i]);
  }
  index_t held() const {
    index_t most = 0;
    for (const E& e : copies_) most = std::max(most, held_inputs(e));
    return most;
  }
  void hold(std::span<const input> xs) {
    check_size("hold", "xs", index_t(xs.size()), held());
    for (E& e : copies_) hold_inputs(e, xs.last(std::size_t(held_inputs(e))));
  }
  const system_type& system() const { return copies_.front().system(); }
  perturbation smoothing() const { return smoothing_of(copies_.front()); }
  /// The copies, to look into.
  std::span<const E> copies() const& { return copies_; }
  void copies() && = delete;

 private:
  static constexpr bool has_mirror = requires(E & e) { e.mirror(true); };

  // The same call to every copy; g receives the mean only when all of them succeed.
  template <class Call>
  report each(dparams<scalar> g, Call&& call) {
    report r = reports_.begin();
    if (r.code != status::ok) return r;
    sum_.zero();
    for (E& e : copies_) {
      reports_.enter(call(e), &e == &copies_.front(), r);
      if (r.code != status::ok) return r;
    }
    linalg::axpy(1 / scalar(copies_.size()), sum_.data(), g.data(), sum_.size());
    return r;
  }
  std::size_t bytes() const { return reports_.bytes + sum_.bytes(); }

  bool antithetic_, mirrored_ = false;
  std::vector<E> copies_;
  gradient<scalar> sum_;
  joint_reports reports_;
};

/// A weighted mean of different estimators of the same gradient, with independent streams:
///
///   g += sum_i w_i g_i,   sum_i w_i = 1,   estimator i with the stream fold(key, i)
///
/// Unbiased where all of them are; the covariance is sum_i w_i^2 V_i, which weights of 1 / V_i make smallest.
/// They may have any sign: w and 1 - w with w above 1 extrapolate from two biased ones. Weights are equal
/// where none are given. Loss and last_state are those of the first; steps, vjps, jvps and bytes are sums.
/// Where a loss is smoothed, by the same perturbation for all: others are refused. Every input passes through
/// all before the next one. When a step is not finite for only some of them, g has no trace of it and only
/// reset() can follow.
template <gradient_estimator First, gradient_estimator Second, gradient_estimator... More>
class mean_of<First, Second, More...> final {
  static_assert(Second::estimated_gradient == First::estimated_gradient &&
                    ((More::estimated_gradient == First::estimated_gradient) && ...),
                "a mean of estimators of different gradients estimates none of them");

 public:
  using system_type = typename First::system_type;
  using scalar = typename First::scalar;
  using input = typename First::input;
  static constexpr std::size_t count = 2 + sizeof...(More);  ///< estimators
  static constexpr estimand estimated_gradient = First::estimated_gradient;
  static constexpr bool unbiased = First::unbiased && Second::unbiased && (More::unbiased && ...);
  static constexpr bool random = First::random || Second::random || (More::random || ...);
  static constexpr auto references = First::references;

  explicit mean_of(First first, Second second, More... more)
      : mean_of(equal_weights(), std::move(first), std::move(second), std::move(more)...) {}
  /// weights: one for each estimator, which sum to 1.
  mean_of(const std::array<double, count>& weights, First first, Second second, More... more)
      : weights_(checked(weights)),
        smoothing_(shared_smoothing(first, second, more...)),
        parts_("mean_of", std::move(first), std::move(second), std::move(more)...) {
    reset({});
  }

  void reset(key k, state<const scalar> s0 = {}) {
    std::array<bool, count> runs;
    runs.fill(true);
    parts_.reset(k, s0, weights_, runs);
  }
  /// Those that can be mirrored; the mean of the two is unbiased all the same.
  void mirror(bool on) { parts_.mirror(on); }
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return parts_.advance(theta, xs, g);
  }
  report finish(params<const scalar> theta, dparams<scalar> g) { return parts_.finish(theta, g); }

  /// That of the first estimator.
  state<const scalar> last_state(params<const scalar> theta) requires has_last_state<First> {
    return parts_.first().last_state(theta);
  }
  template <class V>
  void visit(V&& v) {
    std::string text = "mean_of";
    for (const double w : weights_) text += ", weight " + number_text(w);
    visit_identity(v, text, system());
    parts_.visit(v);
  }
  index_t held() const { return parts_.held(); }
  void hold(std::span<const input> xs) { parts_.hold(xs); }
  const system_type& system() const { return parts_.system(); }
  perturbation smoothing() const { return smoothing_; }

 private:
  static std::array<double, count> equal_weights() {
    std::array<double, count> w;
    w.fill(1 / double(count));
    return w;
  }
  static const std::array<double, count>& checked(const std::array<double, count>& weights) {
    double sum = 0;
    for (const double w : weights) sum += w;
    if (!(std::abs(sum - 1) <= 1e-9))
      fail("mean_of", "weights", "sum to " + number_text(sum) + ", must sum to 1");
    return weights;
  }
  // The one that all have. Throws where they differ: theirs are gradients of different losses.
  static perturbation shared_smoothing(const First& first, const auto&... others) {
    const perturbation p = smoothing_of(first);
    const auto check = [&p](const perturbation& other) {
      if (other.sigma != p.sigma)
        fail("mean_of", "sigma",
             "is " + number_text(other.sigma) + ", that of the first is " + number_text(p.sigma));
      if (other.window != p.window)
        fail("mean_of", "steps that share a perturbation",
             "are " + std::to_string(other.window) + ", those of the first are " + std::to_string(p.window));
    };
    (check(smoothing_of(others)), ...);
    return p;
  }

  std::array<double, count> weights_;
  perturbation smoothing_;
  side_by_side<First, Second, More...> parts_;
};

/// From copies, and from different estimators without and with weights.
template <gradient_estimator E>
mean_of(E, index_t, bool = false) -> mean_of<E>;
/// The same.
template <gradient_estimator First, gradient_estimator Second, gradient_estimator... More>
mean_of(First, Second, More...) -> mean_of<First, Second, More...>;
/// The same.
template <std::size_t N, gradient_estimator First, gradient_estimator... More>
mean_of(std::array<double, N>, First, More...) -> mean_of<First, More...>;

}  // namespace unroll
