#pragma once

#include <cmath>
#include <numeric>
#include <vector>

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/estimate/tbptt.hpp"

namespace unroll {

/// What a randomized telescope adds up of the level N that it has drawn.
enum class telescope_kind {
  roulette,      ///< Russian roulette: every difference up to N, each over the probability to come so far
  single_sample  ///< the difference at N alone, over the probability of N
};

struct telescope_options {
  std::vector<tbptt_options> ladder = {};  ///< k1 and k2 of each truncation; last comes the whole sequence
  /// q of each level, one more than ladder has; none: 1/2, 1/4, .. and the last once more.
  std::vector<double> probabilities = {};
  telescope_kind kind = telescope_kind::roulette;  ///< what is added up
  index_t max_steps = 1024;  ///< longest sequence; its states and tapes are allocated at construction
};

/// A randomized telescope over a ladder of truncations: the sum of differences between ever longer ones, of
/// which a random part is computed. With G_1 .. G_{m-1} the gradients of tbptt with the windows of the
/// ladder, G_m the exact one, D_n = G_n - G_{n-1}, G_0 = 0, and one N a sequence, n with probability q_n,
///
///   g = sum_{n <= N} D_n / P(N >= n)      Russian roulette
///   g = D_N / q_N                         single sample
///
/// Unbiased at fixed theta, since sum_n D_n = G_m, for every ladder, increasing or not, and all q_n > 0. A
/// level without probability is refused: what it alone sees would be lost. The covariance traces are
///
///   sum_n |D_n|^2 (1 / P(N >= n) - 1) + 2 sum_{m < n} D_m . D_n (1 / P(N >= m) - 1)      and
///   sum_n |D_n|^2 / q_n - |g|^2,
///
/// of which the first is the smaller one where the first levels are most of the gradient. What a step owes to
/// its own loss has the weight 1 under Russian roulette, and a random one in a single sample.
///
/// The gradient comes with finish(); theta must not change between reset and finish. Per step: one step, and
/// k2 / k1 vjps for each truncation used, one for the whole sequence. Memory: max_steps states and tapes.
/// Needs: vjp. Beatson & Adams 2019. See docs/math/telescope.md.
template <class F, class C = philox_chooser>
class telescope final {
  static_assert(require_vjp<F>() && chooser<C>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"beatson2019telescopes"};

  explicit telescope(  // options: ladder, probabilities, kind, max_steps
      F system, telescope_options options, C chooser = C{})
      : system_(std::move(system)),
        guard_("telescope", system_),
        options_(checked(std::move(options))),
        chooser_(std::move(chooser)),
        block_(longest_pass()),
        memory_(system_, options_.max_steps, block_),
        weight_(index_t(levels())),
        loss_weight_(block_),
        delta_(system_.size().state) {
    reset({});
  }

  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    chooser_.reset(k);
    memory_.reset(system_, s0);
    draw();
  }
  void mirror(bool on) { chooser_.mirror(on); }

  /// Runs the inputs forward; g is not touched. Throws when the sequence grows longer than max_steps.
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    if (const index_t steps = index_t(memory_.end()) + index_t(xs.size()); steps > options_.max_steps)
      fail("telescope::advance", "xs",
           "makes a sequence of " + std::to_string(steps) + " steps, max_steps is " +
               std::to_string(options_.max_steps));
    const auto full = [this] { return memory_.pending() == block_; };
    report r = run_groups(system_, theta, xs, memory_, full, [](report&) {});
    r.bytes = bytes();
    return r;
  }

  /// The backward passes of the levels in use.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    report r = run_rest(system_, theta, memory_);
    r.bytes = bytes();
    if (r.code != status::ok) return r;
    for (std::size_t n = 0; n < levels(); ++n)
      if (const scalar weight = weight_[index_t(n)]; weight != 0) {
        if (n < options_.ladder.size())
          truncated(theta, options_.ladder[n], weight, g, r);
        else
          whole(theta, weight, g, r);
      }
    return guard_.close(r);
  }

  /// How often each level, the whole sequence last, is in the estimate of this sequence: g = sum_n weight_n
  /// G_n.
  view<const scalar> weights() const& { return weight_; }
  void weights() && = delete;
  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return memory_.last_state(system_, theta); }
  template <class V>
  void visit(V&& v) {
    std::string text = options_.kind == telescope_kind::roulette ? "roulette" : "single sample";
    for (const tbptt_options& o : options_.ladder)
      text += ", " + std::to_string(o.k1) + ":" + std::to_string(o.k2);
    for (const double q : options_.probabilities) text += ", " + number_text(q);
    guard_.visit(v, text + ", block " + std::to_string(block_), system_);
    visit_part(v, "chooser", chooser_);
    memory_.visit(v, {.kept = options_.max_steps, .pending = block_ - 1});
    v("weights", view<scalar>(weight_));
  }
  index_t held() const { return memory_.held(); }
  void hold(std::span<const input> xs) { memory_.hold(xs); }
  const F& system() const { return system_; }
  const telescope_options& options() const { return options_; }
  C& chooser() { return chooser_; }

 private:
  std::size_t levels() const { return options_.probabilities.size(); }

  static telescope_options checked(telescope_options o) {
    for (const tbptt_options& level : o.ladder) {
      check_at_least("telescope", "ladder.k1", level.k1, 1);
      check_at_least("telescope", "ladder.k2", level.k2, level.k1);
    }
    check_at_least("telescope", "max_steps", o.max_steps, 1);
    const std::size_t m = o.ladder.size() + 1;
    if (o.probabilities.empty())
      for (std::size_t n = 1; n <= m; ++n) o.probabilities.push_back(std::ldexp(1, -int(std::min(n, m - 1))));
    check_size("telescope", "probabilities", index_t(o.probabilities.size()), index_t(m));
    double sum = 0;
    for (std::size_t n = 0; n < m; ++n) {
      const double q = o.probabilities[n];
      if (!(q > 0 && q <= 1))
        fail("telescope", "probabilities",
             "that of level " + std::to_string(n + 1) + " is " + number_text(q) +
                 ", must lie in (0, 1]: no level may be left out");
      sum += q;
    }
    if (!(std::abs(sum - 1) <= 1e-9))
      fail("telescope", "probabilities", "sum to " + number_text(sum) + ", must sum to 1");
    return o;
  }

  // Steps of the longest pass, forward or backward.
  index_t longest_pass() const {
    index_t longest = 128;
    for (const tbptt_options& level : options_.ladder) longest = std::max(longest, level.k2);
    return std::min(longest, options_.max_steps);
  }

  // N, level by level: the coin n stops at n with the probability q_n / P(N >= n); then the weights of the
  // G_n that the D_n up to N, or D_N alone, are made of.
  void draw() {
    const auto& q = options_.probabilities;
    weight_.zero();
    for (index_t n = 0;; ++n) {
      const double own = q[std::size_t(n)];
      const double reached = std::accumulate(q.begin() + n, q.end(), 0.0);  // P(N >= n)
      const bool last = n + 1 == weight_.size(),
                 stop = last || chooser_.coin(n, std::min(1.0, own / reached));
      if (options_.kind == telescope_kind::roulette || stop) {
        const double w = 1 / (options_.kind == telescope_kind::roulette ? reached : own);
        weight_[n] += scalar(w);
        if (n > 0) weight_[n - 1] -= scalar(w);
      }
      if (stop) return;
    }
  }

  // g += weight G of one truncation: at every multiple of k1, and at the end, the losses of the last k1 steps
  // go back through the last k2.
  void truncated(params<const scalar> theta, const tbptt_options& level, scalar weight, dparams<scalar> g,
                 report& r) {
    const index_t steps = memory_.size();
    for (index_t first = 0; first < steps; first += level.k1) {
      const index_t count = std::min(level.k1, steps - first), end = first + count;
      const index_t reach = std::min(end, level.k2 - level.k1 + count);
      std::fill_n(loss_weight_.begin(), reach - count, scalar(0));
      std::fill_n(loss_weight_.begin() + (reach - count), count, weight);
      delta_.zero();
      memory_.backward(system_, theta, end - reach, reach, {loss_weight_.data(), nullptr}, delta_, g, r);
    }
  }

  // g += weight times the exact gradient.
  void whole(params<const scalar> theta, scalar weight, dparams<scalar> g, report& r) {
    const index_t steps = memory_.size();
    std::fill(loss_weight_.begin(), loss_weight_.end(), weight);
    delta_.zero();
    for (index_t first = (steps - 1) / block_ * block_; first >= 0 && steps > 0; first -= block_)
      memory_.backward(system_, theta, first, std::min(block_, steps - first), {loss_weight_.data(), nullptr},
                       delta_, g, r);
  }
  std::size_t bytes() const {
    return memory_.bytes() + weight_.bytes() + loss_weight_.bytes() + delta_.bytes();
  }

  F system_;
  sequence_guard<F> guard_;
  telescope_options options_;
  C chooser_;
  index_t block_;
  window_buffer<F> memory_;
  buffer<scalar> weight_, loss_weight_;
  block<scalar, state_cotangent_space> delta_;
};

}  // namespace unroll
