#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/particles.hpp"

namespace unroll {

struct pes_options {
  double sigma = 0.1;  ///< standard deviation of the perturbation of one window; above the rounding of theta
  index_t pairs = 1;   ///< antithetic pairs
  index_t window = 1;  ///< steps with the same perturbation
};

/// Persistent evolution strategies: the perturbation is drawn anew in every window, and each loss is credited
/// to all perturbations so far.
///
///   xi_j <- xi_j + z_j^w,   g += 1 / (2 sigma N) sum_j xi_j (L_w^+ - L_w^-)   after window w
///
/// where copy j runs at theta +- sigma z_j^w. Unbiased for the gradient of E L(theta + sigma z^1, ...,
/// theta + sigma z^W), one z a window, where that exists around theta; it may be nearer to the gradient
/// itself than the estimand of es, or farther. |xi| grows like the square root of the number of windows. Per
/// step 2 N steps of F; memory 4 N states and 2 N + 2 times params. Lanes share the perturbation. The
/// reported loss is the mean over the 2 N copies. Vicol, Metz & Sohl-Dickstein 2021. See docs/math/pes.md.
template <class F, class C = philox_chooser>
class pes final {
  static_assert(require_recurrent<F>() && chooser<C>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::independently_smoothed;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"vicol2021pes"};

  explicit pes(F system, pes_options options = {}, C chooser = C{})
      : system_(std::move(system)),
        guard_("pes", system_),
        options_(options),
        chooser_(std::move(chooser)),
        particles_(system_, guard_.estimator(), options.pairs, options.sigma),
        xi_(options.pairs * system_.size().params) {
    check_at_least("pes", "window", options_.window, 1);
    reset({});
  }

  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    chooser_.reset(k);
    particles_.reset(system_, s0);
    xi_.zero();
    drawn_ = 0;
  }
  void mirror(bool on) { chooser_.mirror(on); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    report r = particles_.advance(
        system_, theta, xs, options_.window, [this](std::int64_t w) { perturb(w); },
        [&](std::int64_t) { particles_.emit(xi_, g); });
    r.bytes = bytes();
    return r;
  }

  /// The last, incomplete window.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    particles_.emit(xi_, g);
    return guard_.close({.bytes = bytes()});
  }

  /// The state behind the last input consumed, of the first copy, which runs at theta + sigma z; valid until
  /// the next call.
  state<const scalar> last_state(params<const scalar>) const { return particles_.last_state(); }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v,
                 "sigma " + number_text(options_.sigma) + ", pairs " + std::to_string(options_.pairs) +
                     ", window " + std::to_string(options_.window),
                 system_);
    visit_part(v, "chooser", chooser_);
    visit_part(v, "particles", particles_);
    v("xi", view<scalar>(xi_));
    visit_integer(v, "drawn", drawn_);
  }
  const F& system() const { return system_; }
  const pes_options& options() const { return options_; }
  perturbation smoothing() const { return {options_.sigma, options_.window}; }
  C& chooser() { return chooser_; }

 private:
  // Draws z of window w and adds it to xi, once, however often the window's first input had to be offered.
  void perturb(std::int64_t w) {
    if (w < drawn_) return;
    drawn_ = w + 1;
    chooser_.normals(w, particles_.noise());
    linalg::axpy(scalar(1), particles_.noise().data(), xi_.data(), xi_.size());
  }
  std::size_t bytes() const { return particles_.bytes() + xi_.bytes(); }

  F system_;
  sequence_guard<F> guard_;
  pes_options options_;
  C chooser_;
  particles<F> particles_;
  buffer<scalar> xi_;       // sum of the z so far, params x pairs
  std::int64_t drawn_ = 0;  // windows whose z has been drawn
};

}  // namespace unroll
