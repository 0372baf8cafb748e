#pragma once

#include <limits>
#include <string>

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/particles.hpp"

namespace unroll {

struct gpes_options {
  double sigma = 0.1;  ///< standard deviation of a perturbation; above the rounding of theta
  index_t pairs = 1;   ///< antithetic pairs
  index_t window = 1;  ///< steps between two contributions to the gradient
  index_t reuse = 2;   ///< windows, one after another, that share a perturbation
};

/// Generalised persistent evolution strategies: the perturbation is drawn anew after every `reuse` windows,
/// and each loss is credited to the sum of all perturbations so far.
///
///   xi_j <- xi_j + z_j                                                in front of every reuse-th window
///   g    += 1 / (2 sigma N) sum_j xi_j (L_w^+ - L_w^-)                after every window w
///
/// where copy j runs at theta +- sigma z_j of its newest z_j. Unbiased for the gradient of E L(theta + sigma
/// z^1, ..., theta + sigma z^M), one z for every reuse windows, where that exists around theta: with reuse 1
/// what pes estimates, with reuse as many as there are windows what es and nres do. |xi| grows like the
/// square root of the number of perturbations. Per step 2 N steps of F; memory 4 N states and 2 N + 1 times
/// params. Lanes share the perturbation. The reported loss is the mean over the 2 N copies. Li, Harrison,
/// Sohl-Dickstein, Smith & Metz 2023. See docs/math/gpes.md.
template <class F, class C = philox_chooser>
class gpes final {
  static_assert(require_recurrent<F>() && chooser<C>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::independently_smoothed;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"li2023nres", "vicol2021pes"};

  /// name: in messages and saved streams, a literal.
  explicit gpes(  // options: sigma, pairs, window, reuse
      F system, gpes_options options = {}, C chooser = C{}, std::string_view name = "gpes")
      : system_(std::move(system)),
        guard_(name, system_),
        options_(options),
        chooser_(std::move(chooser)),
        particles_(system_, guard_.estimator(), options.pairs, options.sigma),
        xi_(options.pairs * system_.size().params) {
    check_at_least(name, "window", options_.window, 1);
    check_at_least(name, "reuse", options_.reuse, 1);
    if (const index_t most = std::numeric_limits<index_t>::max() / options_.window; options_.reuse > most)
      fail(name, "reuse",
           "is " + std::to_string(options_.reuse) + ", must be at most " + std::to_string(most) +
               ": it counts windows of " + std::to_string(options_.window) + " steps");
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
    std::string text = "sigma " + number_text(options_.sigma) + ", pairs " + std::to_string(options_.pairs) +
                       ", window " + std::to_string(options_.window);
    if (options_.reuse != 1) text += ", reuse " + std::to_string(options_.reuse);
    guard_.visit(v, text, system_);
    visit_part(v, "chooser", chooser_);
    visit_part(v, "particles", particles_);
    v("xi", view<scalar>(xi_));
    visit_integer(v, "drawn", drawn_);
  }
  const F& system() const { return system_; }
  const gpes_options& options() const { return options_; }
  perturbation smoothing() const { return {options_.sigma, options_.window * options_.reuse}; }
  C& chooser() { return chooser_; }

 private:
  // In front of window w: draws z where it is due and adds it to xi, once, however often the window's first
  // input had to be offered.
  void perturb(std::int64_t w) {
    if (w / options_.reuse < drawn_) return;
    chooser_.normals(drawn_++, particles_.noise());
    linalg::axpy(scalar(1), particles_.noise().data(), xi_.data(), xi_.size());
  }
  std::size_t bytes() const { return particles_.bytes() + xi_.bytes(); }

  F system_;
  sequence_guard<F> guard_;
  gpes_options options_;
  C chooser_;
  particles<F> particles_;
  buffer<scalar> xi_;       // sum of the z so far, params x pairs
  std::int64_t drawn_ = 0;  // perturbations so far
};

}  // namespace unroll
