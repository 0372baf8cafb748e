#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/checkpointed_run.hpp"
#include "unroll/sample/truncation.hpp"

namespace unroll {

struct artbp_options {
  index_t slots = 16;      ///< states kept in a run, with the one in front of its first step
  index_t block = 64;      ///< steps that are run, recorded and walked backwards together
  index_t reserve = 4096;  ///< inputs to make room for at construction; a longer run makes the list grow
};

namespace detail {
/// Stands where no law was given, for a message of one sentence.
struct no_law {
  double cut(index_t) const { return 0; }
};
}  // namespace detail

/// Anticipated reweighted truncated backpropagation: truncated at random points, unbiased all the same.
/// After the k-th step of a run, with probability c = law.cut(k), the run is cut: it is walked backwards and
/// a new one begins from the same state. Within a run, with c_t the probability that there was after step t,
///
///   delta_t = q_t                                     at the end of the run
///   delta_t = q_t + delta_{t+1} J_{t+1} / (1 - c_t)   elsewhere,          g = sum_t delta_t F_t
///
/// The factor is paid wherever a cut was possible and did not happen; what a step owes to its own loss is
/// never multiplied. A cut at t is drawn by chooser.coin(t, c) and shared by all lanes, so that a run stays
/// one window: the mean is not touched, the errors of the lanes are correlated, so that they add up or
/// cancel.
///
/// Assumes c < 1 (checked) and frozen theta; theta should change at the ends of sequences only, as a run
/// replays its steps with the newest theta.
///
/// Unbiased. Variance: a term of lag l has the weight prod 1 / (1 - c); finite for every sequence, and
/// bounded a loss as sequences grow where the system contracts faster (see the laws). Memory: slots states,
/// the states and tapes of one block, and the inputs of the longest run, the one list that may grow past its
/// reserve. Time per step: one vjp, and about 1 + P(N, slots) / N steps in a run of N blocks (one where N =
/// 1). Needs: vjp.
///
/// Tallec & Ollivier 2017; docs/math/artbp.md.
template <class F, truncation_law Law, class C = philox_chooser>
class artbp final {
  static_assert(require_vjp<F>() && unroll::chooser<C>);
  static_assert(
      !std::same_as<Law, detail::no_law>,
      "artbp(system, law) needs a law, the probability of a cut after each step: fixed_truncation(mean) "
      "or polynomial_truncation(mean, alpha) of sample/truncation.hpp, or your own with cut(k) in [0, 1)");

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"tallec2017artbp", "beatson2019telescopes", "griewank2000revolve",
                                         "wang2009minimal"};

  artbp(F system, Law law, artbp_options options = {}, C chooser = C{})  // options: slots, block, reserve
      : system_(std::move(system)),
        guard_("artbp", system_),
        law_(std::move(law)),
        chooser_(std::move(chooser)),
        run_(system_, checked(options).slots, options.block, 0, options.reserve) {
    run_.reset(system_, {});
  }

  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    chooser_.reset(k);
    run_.reset(system_, s0);
  }
  void mirror(bool on) { chooser_.mirror(on); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    bool cut = false;
    const auto full = [&] {
      cut = chooser_.coin(run_.end() - 1, cut_probability(run_.size()));
      return cut || run_.full();
    };
    report r = run_groups(system_, theta, xs, run_, full, [&](report& now) {
      if (!cut) return;
      walk_back(theta, g, now);
      run_.next();
    });
    r.bytes = run_.bytes();
    return r;
  }

  /// The run that the end of the sequence cuts short.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    report r = run_rest(system_, theta, run_);
    r.bytes = run_.bytes();
    if (r.code != status::ok) return r;
    walk_back(theta, g, r);
    return guard_.close(r);
  }

  C& chooser() { return chooser_; }
  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return run_.last_state(system_, theta); }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v,
                 run_.text() + ", cuts " + number_text(law_.cut(1)) + ", " + number_text(law_.cut(2)) +
                     " ... " + number_text(law_.cut(1000)),
                 system_);
    visit_part(v, "chooser", chooser_);
    run_.visit(v, guard_.finished());
  }
  index_t held() const { return run_.held(); }
  void hold(std::span<const input> xs) { run_.hold(xs); }
  const F& system() const { return system_; }

 private:
  static artbp_options checked(artbp_options o) {
    check_at_least("artbp", "slots", o.slots, 1);
    check_at_least("artbp", "block", o.block, 1);
    check_at_least("artbp", "reserve", o.reserve, 0);
    return o;
  }

  double cut_probability(index_t k) const {
    const double c = law_.cut(k);
    if (!(c >= 0 && c < 1)) fail("artbp", "law.cut", "gives " + std::to_string(c) + ", must lie in [0, 1)");
    return c;
  }

  void walk_back(params<const scalar> theta, dparams<scalar> g, report& r) {
    const auto carry = [this](index_t k) { return 1 / (1 - law_.cut(k)); };
    run_.backward(system_, theta, carry, g, r);
  }

  F system_;
  sequence_guard<F> guard_;
  Law law_;
  C chooser_;
  checkpointed_run<F> run_;
};

/// Refused: artbp needs a law.
template <class F>
artbp(F) -> artbp<F, detail::no_law>;

}  // namespace unroll
