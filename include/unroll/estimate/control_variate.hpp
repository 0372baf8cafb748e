#pragma once

#include "unroll/estimate/parts/side_by_side.hpp"

namespace unroll {

struct control_variate_options {
  double p = 0.1;      ///< probability that a sequence is corrected, in (0, 1]
  double share = 1.0;  ///< c, of the biased estimate that is taken; any finite number
};

/// A biased estimator with an unbiased correction: B for every sequence, and with probability p, by a coin b
/// a sequence, the unbiased U beside it.
///
///   g = c B + (b / p) (U - c B)
///
/// c B is the control variate of (b / p) U, whose mean it has where b / p = 1. Unbiased for the estimand of
/// U, whatever B is; what B gains is variance: with U and B independent and V the traces of their
/// covariances,
///
///   tr Cov = (1 / p - 1) |E U - c E B|^2 + V(U) / p + c^2 (1 / p - 1) V(B),
///
/// where a U in every sequence has V(U). Two exact estimates a bias apart have (1 / p - 1) |bias|^2. U is not
/// run where the coin fails: cost of B + p of U. Every input passes through both before the next one. The
/// reported loss is that of B; memory is that of both and 2 params. When a step is not finite for only one of
/// them, g has no trace of it and only reset() can follow. Beatson & Adams 2019 (a telescope of two levels).
/// See docs/math/control_variate.md.
template <gradient_estimator B, gradient_estimator U, class C = philox_chooser>
class control_variate final {
  static_assert(U::unbiased, "the second estimator corrects the first one and must be unbiased");
  static_assert(chooser<C>);

 public:
  using system_type = typename B::system_type;
  using scalar = typename B::scalar;
  using input = typename B::input;
  static constexpr estimand estimated_gradient = U::estimated_gradient;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"beatson2019telescopes"};

  control_variate(  // options: p, share
      B biased, U correction, control_variate_options options = {}, C chooser = C{})
      : options_(checked(options)),
        smoothing_(smoothing_of(correction)),
        chooser_(std::move(chooser)),
        both_("control_variate", std::move(biased), std::move(correction)) {
    reset({});
  }

  void reset(key k, state<const scalar> s0 = {}) {
    chooser_.reset(fold(k, 2));
    const bool b = chooser_.coin(0, options_.p);
    const double w = b ? 1 / options_.p : 0;
    both_.reset(k, s0, {options_.share * (1 - w), w}, {true, b});
  }
  void mirror(bool on) {
    chooser_.mirror(on);
    both_.mirror(on);
  }
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return both_.advance(theta, xs, g);
  }
  report finish(params<const scalar> theta, dparams<scalar> g) { return both_.finish(theta, g); }

  /// That of the biased estimator.
  state<const scalar> last_state(params<const scalar> theta) requires has_last_state<B> {
    return both_.first().last_state(theta);
  }
  template <class V>
  void visit(V&& v) {
    visit_identity(v,
                   "control_variate, p " + number_text(options_.p) + ", share " + number_text(options_.share),
                   system());
    visit_part(v, "chooser", chooser_);
    both_.visit(v);
  }
  index_t held() const { return both_.held(); }
  void hold(std::span<const input> xs) { both_.hold(xs); }
  const system_type& system() const { return both_.system(); }
  perturbation smoothing() const { return smoothing_; }
  const control_variate_options& options() const { return options_; }
  C& chooser() { return chooser_; }

 private:
  static control_variate_options checked(control_variate_options o) {
    if (!(o.p > 0 && o.p <= 1))
      fail("control_variate", "p", "is " + number_text(o.p) + ", must lie in (0, 1]");
    if (!std::isfinite(o.share))
      fail("control_variate", "share", "is " + number_text(o.share) + ", must be finite");
    return o;
  }

  control_variate_options options_;
  perturbation smoothing_;
  C chooser_;
  side_by_side<B, U> both_;
};

}  // namespace unroll
