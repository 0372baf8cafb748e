#pragma once

#include "unroll/estimate/parts/synthetic_learner.hpp"

namespace unroll {

struct dni_options {
  index_t window = 16;  ///< K, steps of a window
  double rate = 0.1;    ///< at which S learns, at least 0, and up to 2 for units in [-1, 1]; 0: S stays
  bool affine = true;   ///< whether S has a constant
};

/// Synthetic gradients, of decoupled neural interfaces: backpropagation inside windows of K steps, into whose
/// end comes a learned guess S(s) of what all later losses owe to the state there. Of a window of the steps b
/// + 1 .. e,
///
///   delta_e = q_e + S(s_e),    delta_t = q_t + delta_{t+1} J_{t+1},    g += sum_t delta_t F_t
///
/// and S, affine (estimate/parts/synthesiser.hpp), learns by least squares what has arrived in front of it,
///
///   S(s_b) -> sum_{b < t <= e} q_t J_{t:b} + S(s_e) J_{e:b}
///
/// which is bootstrapped: its target is another guess, held still. With S = 0 it is chunked_tbptt, with the
/// true cotangent bptt. Behind a last, shorter window nothing follows; a whole one has S(s_e) though nothing
/// may follow. S is zero at reset and learns on through episodes (with_resets).
///
/// Biased, by sum_e (S(s_e) - c_e) sum_{b < t <= e} J_{e:t} F_t where c_e is what later losses owe to s_e: no
/// function of the state is that in general, since it depends on the inputs to come. Variance 0. Memory: K
/// states and tapes, n^2 numbers for n = state / lanes. Time per step: one step, one vjp, 3 n^2 / K
/// multiply-adds a lane. Needs: vjp. Jaderberg et al. 2017. See docs/math/dni.md.
template <class F>
class dni final : public synthetic_learner<F> {
  using learner = synthetic_learner<F>;
  using learner::delta_, learner::guard_, learner::memory_, learner::synthesiser_, learner::system_;

 public:
  using typename learner::input;
  using typename learner::scalar;
  static constexpr std::array references{"jaderberg2017decoupled", "czarnecki2017understanding"};

  explicit dni(F system, dni_options options = {})  // options: window, rate, affine
      : learner("dni", std::move(system), checked(options).window, options.rate, options.affine),
        options_(options) {
    reset({});
  }

  void reset(key, state<const scalar> s0 = {}) { learner::start_sequence(s0); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    const auto full = [this] { return memory_.pending() == options_.window; };
    report r = run_groups(system_, theta, xs, memory_, full, [&](report& now) { walk_back(theta, g, now); });
    r.bytes = learner::bytes();
    return r;
  }

  /// Walks back through the last, shorter window, behind which nothing follows.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    const index_t rest = memory_.pending();
    report r = run_rest(system_, theta, memory_);
    r.bytes = learner::bytes();
    if (r.code != status::ok) return r;
    delta_.zero();
    if (rest > 0) memory_.backward(system_, theta, 0, rest, {}, delta_, g, r);
    memory_.keep_last(0, options_.window);
    return guard_.close(r);
  }

  template <class V>
  void visit(V&& v) {
    guard_.visit(v,
                 "window " + std::to_string(options_.window) + ", rate " + number_text(options_.rate) +
                     (options_.affine ? "" : ", linear"),
                 system_);
    memory_.visit(v, {.pending = options_.window - 1, .room = options_.window});
    synthesiser_.visit(v);
  }
  index_t held() const { return memory_.held(); }
  void hold(std::span<const input> xs) { memory_.hold(xs); }

 private:
  static dni_options checked(dni_options o) {
    check_at_least("dni", "window", o.window, 1);
    check_rate("dni", o.rate);
    return o;
  }
  // A window from its end, where S stands for what follows, to its front, where S learns what has arrived.
  void walk_back(params<const scalar> theta, dparams<scalar> g, report& r) {
    const index_t steps = options_.window;
    synthesiser_.predict(memory_.edge(system_, theta, steps - 1).next, 1, delta_);
    memory_.backward(system_, theta, 0, steps, {}, delta_, g, r);
    if (options_.rate > 0) synthesiser_.learn(memory_.edge(system_, theta, 0).s, delta_);
    memory_.keep_last(0, steps);
  }

  dni_options options_;
};

}  // namespace unroll
