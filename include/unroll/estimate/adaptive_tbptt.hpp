#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"

namespace unroll {

struct adaptive_tbptt_options {
  double tolerance = 0.1;  ///< of the relative bias, above 0
  index_t shortest = 1;    ///< steps that a loss goes back, at least
  index_t longest = 64;    ///< W, at most, from 3 on; where the tolerance is not certified, so many
  double fitted = 0.5;     ///< share of the W lags, the longest ones, that the decay is fitted to; in (0, 1]
  index_t every = 100;     ///< steps between two estimates of the bias, each of W vjps
  index_t mean_of = 10;    ///< an estimate is the mean over about so many of the last ones
};

/// Truncated backpropagation through time that chooses how far: every loss goes back through the last K + 1
/// steps, lags 0 to K,
///
///   g = sum_t  sum_{t - K <= s <= t}  q_t J_{t:s} F_s
///
/// and K is the least whose relative bias is certified to be at most the tolerance. Every so many steps one
/// loss goes back through W steps and shows what it owes to theta at lag k, c_k. With psi_k the mean of |c_k|
/// and the assumption psi_k <= C beta^(k - tau) from lag tau on, where beta is fitted to log max_{j >= k}
/// psi_j and C is the least that holds for all k < W,
///
///   E(K) = sum_{K < k < tau} psi_k + C / (1 - beta),    C beta^(K + 1 - tau) / (1 - beta) from tau on
///   delta(K) = E(K) / (low(K) - E(K)),    low(K) = |mean sum_k c_k| - sum_{K < k < W} psi_k
///
/// with low(K) <= |mean of g|.
/// A beta of 1 or more, or low(K) <= E(K) for every K, means that nothing is certified: then K + 1 = W.
/// Biased by at most delta as far as the assumption and the means hold. Variance 0. Time per step: one step,
/// K + 1 vjps and W / every more. Memory: 2 W - 1 states and tapes, 2 params. Needs: vjp. Aicher, Foti & Fox
/// 2019. See docs/math/adaptive_tbptt.md.
template <class F>
class adaptive_tbptt final {
  static_assert(require_vjp<F>());

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = false;
  static constexpr bool random = false;
  static constexpr std::array references{"aicher2019adaptive"};

  explicit adaptive_tbptt(  // options: tolerance, shortest, longest, fitted, every, mean_of
      F system, adaptive_tbptt_options options = {})
      : system_(std::move(system)),
        guard_("adaptive_tbptt", system_),
        options_(checked(options)),
        tau_(std::min(index_t((1 - options_.fitted) * double(options_.longest)), options_.longest - 2)),
        memory_(system_, 2 * options_.longest - 1, options_.longest),
        loss_weight_(options_.longest),
        psi_(options_.longest),
        owed_(system_.size().params),
        mean_(system_.size().params),
        delta_(system_.size().state) {
    reset({});
  }

  void reset(key, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    memory_.reset(system_, s0);
    psi_.zero();
    mean_.zero();
    estimates_ = 0;
    steps_ = options_.longest;
    bias_[0] = -1;
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    const auto full = [this] { return memory_.pending() == 1; };
    report r = run_groups(system_, theta, xs, memory_, full, [&](report& spent) {
      send_back(theta, g, spent);
      if (memory_.end() % options_.every == 0 && memory_.size() == options_.longest) {
        measure(theta, spent);
        choose();
      }
      memory_.keep_last(options_.longest - 1, 1);
    });
    r.bytes = bytes();
    return r;
  }

  /// Nothing is ever in flight.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    report r;
    r.bytes = bytes();
    return guard_.close(r);
  }

  index_t steps() const { return steps_; }          ///< K + 1, through which a loss goes back now
  bool certified() const { return bias_[0] >= 0; }  ///< whether they keep the tolerance
  /// delta(K), the relative bias that is certified; negative where none is.
  double relative_bias() const { return bias_[0]; }
  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return memory_.last_state(system_, theta); }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v,
                 "tolerance " + number_text(options_.tolerance) + ", from " +
                     std::to_string(options_.shortest) + " to " + std::to_string(options_.longest) +
                     ", fitted " + number_text(options_.fitted) + ", every " +
                     std::to_string(options_.every) + ", mean of " + std::to_string(options_.mean_of),
                 system_);
    memory_.visit(v, {.kept = options_.longest - 1, .room = 1});
    visit_integer(v, "estimates", estimates_);
    visit_integer(v, "steps", steps_, options_.shortest, options_.longest);
    v("relative bias", view<double>(bias_));
    v("psi", view<double>(psi_));
    v("mean", view<double>(mean_));
  }
  index_t held() const { return memory_.held(); }
  void hold(std::span<const input> xs) { memory_.hold(xs); }
  const F& system() const { return system_; }

 private:
  static adaptive_tbptt_options checked(adaptive_tbptt_options o) {
    const char* who = "adaptive_tbptt";
    if (!(o.tolerance > 0)) fail(who, "tolerance", "is " + number_text(o.tolerance) + ", must be above 0");
    if (!(o.fitted > 0 && o.fitted <= 1))
      fail(who, "fitted", "is " + number_text(o.fitted) + ", must be in (0, 1]");
    check_at_least(who, "shortest", o.shortest, 1);
    check_at_least(who, "longest", o.longest, std::max(o.shortest, index_t(3)));
    check_at_least(who, "every", o.every, 1);
    check_at_least(who, "mean_of", o.mean_of, 1);
    return o;
  }
  std::size_t bytes() const {
    return memory_.bytes() + loss_weight_.bytes() + psi_.bytes() + owed_.bytes() + mean_.bytes() +
           delta_.bytes();
  }

  // The newest loss, through the last K + 1 steps that are remembered.
  void send_back(params<const scalar> theta, dparams<scalar> g, report& r) {
    const index_t reach = std::min(steps_, memory_.size());
    loss_weight_.zero();
    loss_weight_[reach - 1] = 1;
    delta_.zero();
    memory_.backward(system_, theta, memory_.size() - reach, reach, {loss_weight_.data(), nullptr}, delta_, g,
                     r);
  }

  // The newest loss once more, step by step through W steps: psi and the mean of what it owes.
  void measure(params<const scalar> theta, report& r) {
    estimates_ = std::min(estimates_ + 1, options_.mean_of);
    const double now = 1 / double(estimates_);
    delta_.zero();
    for (double& m : mean_) m *= 1 - now;
    for (index_t k = 0; k < options_.longest; ++k) {
      owed_.zero();
      loss_weight_[0] = scalar(k == 0);
      memory_.backward(system_, theta, options_.longest - 1 - k, 1, {loss_weight_.data(), nullptr}, delta_,
                       owed_, r);
      double squares = 0;
      for (index_t p = 0; p < owed_.size(); ++p) {
        squares += double(owed_[p]) * double(owed_[p]);
        mean_[p] += now * double(owed_[p]);
      }
      psi_[k] += now * (std::sqrt(squares) - psi_[k]);
    }
  }

  // The least K whose delta is within the tolerance.
  void choose() {
    steps_ = options_.longest;
    bias_[0] = -1;
    const auto [first, beta] = fitted_decay();
    if (!(beta < 1)) return;
    double squares = 0, left_out = 0, error = first / (1 - beta) * std::pow(beta, options_.longest - tau_);
    for (const double m : mean_) squares += m * m;
    const double whole = std::sqrt(squares);
    // from the largest K down: E(K) and what the measured lags behind K add up to
    for (index_t k = options_.longest - 1; k >= options_.shortest - 1; --k) {
      const double certain = whole - left_out - error;
      if (!(certain > 0) || !(error <= options_.tolerance * certain)) return;
      steps_ = k + 1;
      bias_[0] = error / certain;
      left_out += psi_[k];
      error = k >= tau_ ? first / (1 - beta) * std::pow(beta, k - tau_) : error + psi_[k];
    }
  }

  struct decay {
    double first = 0, beta = 0;
  };
  // beta: exp of the slope of the log of the largest psi still to come, over the lags from tau on, by least
  // squares; first: C, which raises the line until none is above it. 0 where nothing reaches these lags, and
  // no number where there are not two to compare.
  decay fitted_decay() const {
    if (std::all_of(psi_.begin() + tau_, psi_.end(), [](double psi) { return psi == 0; })) return {};
    double n = 0, lags = 0, logs = 0, products = 0, squares = 0;
    each_lag([&](double lag, double log) {
      n += 1, lags += lag, logs += log, products += lag * log, squares += lag * lag;
    });
    const double slope = (n * products - lags * logs) / (n * squares - lags * lags);
    double highest = -std::numeric_limits<double>::infinity();
    each_lag([&](double lag, double log) { highest = std::max(highest, log - slope * lag); });
    return {std::exp(highest), std::exp(slope)};
  }
  // visit(k - tau, log of the largest psi from k on) for the lags k from tau on behind which anything is owed
  template <class Visit>
  void each_lag(Visit&& visit) const {
    double largest = 0;
    for (index_t k = options_.longest - 1; k >= tau_; --k) {
      largest = std::max(largest, psi_[k]);
      if (largest > 0) visit(double(k - tau_), std::log(largest));
    }
  }

  F system_;
  sequence_guard<F> guard_;
  adaptive_tbptt_options options_;
  index_t tau_;
  window_buffer<F> memory_;
  buffer<scalar> loss_weight_;
  buffer<double> psi_;
  gradient<scalar> owed_;
  buffer<double> mean_;
  index_t estimates_ = 0, steps_ = 0;
  std::array<double, 1> bias_{-1};
  block<scalar, state_cotangent_space> delta_;
};

}  // namespace unroll
