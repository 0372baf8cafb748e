#pragma once

#include <algorithm>

#include "unroll/core/left_product.hpp"
#include "unroll/estimate/parts/synthetic_learner.hpp"

namespace unroll {

struct bp_lambda_options {
  double lambda = 0.9;  ///< how far errors of S reach back to the states that it was asked at, in [0, 1]
  double discount = 1;  ///< gamma, the discount of a loss for each step further back, in [0, 1]
  double rate = 0.1;    ///< at which S learns, at least 0; 0: S stays as it is
  bool affine = true;   ///< whether S has a constant
};

/// Synthetic gradients without a backward pass, accumulate BP(lambda): every step sends back its own loss and
/// a learned guess S of what later losses owe to the state behind it,
///
///   g += (q_t + gamma S(s_t)) F_t
///
/// and S, affine (estimate/parts/synthesiser.hpp), learns from the difference d between two guesses one step
/// apart. The trace e is the sum of dS/dphi at all earlier states, each multiplied by the Jacobians since:
///
///   d_{t-1} = (q_t + gamma S(s_t)) J_t - S(s_{t-1})
///   e_{t-1} = gamma lambda J_{t-1} e_{t-2} + dS(s_{t-1})/dphi,      phi += rate d_{t-1} e_{t-1}
///
/// For an affine S the trace is a matrix n x n for each feature j of the state, E_j <- gamma lambda J E_j +
/// s^_j 1, and column j of phi learns d E_j. With phi held still the sum of what a sequence teaches is that
/// of the lambda-returns,
///
///   R_t = (q_{t+1} + gamma ((1 - lambda) S(s_{t+1}) + lambda R_{t+1})) J_{t+1},    S(s_t) -> R_t
///
/// lambda = 0 with gamma = 1 is dni of a window of one step, lambda = 1 has no guess in its targets but the
/// last one. S is zero at reset; a lane that begins anew (with_resets) has no traces, for its J is zero.
///
/// Biased, by sum_t (gamma S(s_t) - c_t) F_t where c_t is what later losses owe to s_t. Variance 0. Per step
/// and lane, n = state / lanes: n^3 (n + 1) multiply-adds (3 n^2 where lambda gamma = 0), one step, one vjp.
/// Memory, to leading order: lanes n^3 scalars, as much as rtrl has for params = n^2. Needs: vjp, jacobian.
/// Pemberton & Costa 2024. See docs/math/bp_lambda.md.
template <class F>
class bp_lambda final : public synthetic_learner<F> {
  static_assert(has_jacobian<F>, "this estimator needs jacobian() and immediate(), see has_jacobian");
  using learner = synthetic_learner<F>;
  using learner::delta_, learner::guard_, learner::memory_, learner::synthesiser_, learner::system_;

 public:
  using typename learner::input;
  using typename learner::scalar;
  static constexpr std::array references{"pemberton2024bplambda", "jaderberg2017decoupled"};

  explicit bp_lambda(F system, bp_lambda_options options = {})  // options: lambda, discount, rate, affine
      : learner("bp_lambda", std::move(system), 1, checked(system, options).rate, options.affine),
        options_(options),
        n_(system_.size().state / system_.size().lanes),
        trace_(traced() ? system_.size().state * n_ * synthesiser_.features() : 0),
        jacobian_(traced() ? system_.size().state * n_ : 0),
        before_(traced() ? n_ * n_ : 0) {
    reset({});
  }

  void reset(key, state<const scalar> s0 = {}) {
    learner::start_sequence(s0);
    trace_.zero();
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    const auto full = [this] { return memory_.pending() == 1; };
    report r = run_groups(system_, theta, xs, memory_, full, [&](report& spent) {
      const const_edge<scalar> e = memory_.edge(system_, theta, 0);
      synthesiser_.predict(e.next, scalar(options_.discount), delta_);
      memory_.backward(system_, theta, 0, 1, {}, delta_, g, spent);
      if (traced())
        learn(e);
      else if (options_.rate > 0)
        synthesiser_.learn(e.s, delta_);
      memory_.keep_last(0, 1);
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

  template <class V>
  void visit(V&& v) {
    guard_.visit(v,
                 "lambda " + number_text(options_.lambda) + ", discount " + number_text(options_.discount) +
                     ", rate " + number_text(options_.rate) + (options_.affine ? "" : ", linear"),
                 system_);
    memory_.visit(v, {.room = 1});
    synthesiser_.visit(v);
    v("trace", view<scalar>(trace_));
  }

 private:
  static bp_lambda_options checked(const F& f, bp_lambda_options o) {
    if (!(o.lambda >= 0 && o.lambda <= 1))
      fail("bp_lambda", "lambda", "is " + number_text(o.lambda) + ", must be in [0, 1]");
    if (!(o.discount >= 0 && o.discount <= 1))
      fail("bp_lambda", "discount", "is " + number_text(o.discount) + ", must be in [0, 1]");
    check_rate("bp_lambda", o.rate);
    if (!supports(f, hook::jacobian)) fail("bp_lambda", "system", "has no jacobian");
    return o;
  }
  bool traced() const { return options_.rate > 0 && decay() > 0; }
  scalar decay() const { return scalar(options_.discount * options_.lambda); }
  std::size_t bytes() const {
    return learner::bytes() + trace_.bytes() + jacobian_.bytes() + before_.bytes();
  }

  // E_j += s^_j 1 of the state in front of the step, phi_j += d E_j, then E_j <- gamma lambda J E_j. delta_:
  // what has come back to that state.
  void learn(const const_edge<scalar>& e) {
    const dstate<const scalar> d = synthesiser_.error(e.s, delta_);
    system_.jacobian(memory_.x(0), e, jacobian_);
    for (scalar& entry : jacobian_) entry *= decay();
    scalar* E = trace_.data();
    for (index_t first = 0; first < d.size(); first += n_)
      for (index_t j = 0; j < synthesiser_.features(); ++j, E += n_ * n_) {
        for (index_t i = 0; i < n_; ++i) E[i * (n_ + 1)] += j < n_ ? e.s[first + j] : scalar(1);
        use_and_move(d.data() + first, {E, n_, n_}, jacobian_.data() + first * n_,
                     synthesiser_.numbers().data() + j * n_);
      }
    if (synthesiser_.begin_again_unless_finite()) trace_.zero();
  }
  // phi += d E, E <- J E
  void use_and_move(const scalar* d, matrix<scalar> E, const scalar* J, scalar* phi) {
    if (linalg::left_product(J, d, E, phi)) return;
    linalg::gemv<scalar>(op::transpose, E, d, true, phi);
    std::copy_n(E.data, n_ * n_, before_.data());
    linalg::gemm<scalar>(op::none, {J, n_, n_}, op::none, {before_.data(), n_, n_}, false, E);
  }

  bp_lambda_options options_;
  index_t n_;
  buffer<scalar> trace_, jacobian_, before_;
};

}  // namespace unroll
