// Write an estimator, then have it proven: the forward gradient of Silver et al. 2022 and Baydin et al. 2022.
// One random direction v in parameter space, one jvp a step, g^ = (dL . v) v.
#include <cstdio>
#include <unroll/testing/conformance.hpp>
#include <unroll/testing/count_allocations.hpp>  // in one file of a program: the conformance check counts with it
#include <unroll/testing/enumerate.hpp>
#include <unroll/unroll.hpp>

using namespace unroll;

/// u_t = J_t u_{t-1} + F_t v, g^ = sum_t (q_t u_t + dl_t/dtheta . v) v, with v drawn once a sequence.
/// Unbiased since E[v v'] = I. tr Cov = (P - 1) ||g||^2 for signs. Memory: 2 states, P. Needs jvp.
template <class F, class C = philox_chooser>
class random_direction final {
  static_assert(require_jvp<F>());

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"silver2022dodge", "baydin2022forward"};

  explicit random_direction(F f, C choose = C{})
      : f_(std::move(f)),
        guard_("random_direction", f_),
        choose_(choose),
        v_(f_.size().params),
        s_(f_.size().state),
        next_(f_.size().state),
        u_(f_.size().state),
        unext_(f_.size().state),
        tape_(f_.size().tape),
        workspace_(f_.size().workspace) {
    reset(key{});
  }
  const F& system() const { return f_; }
  state<const scalar> last_state(params<const scalar>) const { return s_; }

  /// All that later calls depend on: with it a stream is saved and resumed (io/checkpoint.hpp).
  template <class V>
  void visit(V&& v) {
    guard_.visit(v, "", f_);
    visit_part(v, "chooser", choose_);
    v("v", params_tangent<scalar>(v_));
    v("s", state<scalar>(s_));
    v("u", state_tangent<scalar>(u_));
    visit_integer(v, "t", t_);
  }

  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    choose_.reset(k);
    choose_.signs(0, params_tangent<scalar>(v_));
    u_.zero();
    t_ = 0;
    start_state(f_, s_, s0);
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    report r;
    r.bytes = v_.bytes() + s_.bytes() + next_.bytes() + u_.bytes() + unext_.bytes() + tape_.bytes() +
              workspace_.bytes();
    const bool usable = linalg::all_finite(theta.data(), theta.size());
    for (const input& x : xs) {
      scalar loss = 0, slope = 0;
      const edge<scalar> e{theta, s_, next_, tape_, &loss, workspace_, t_};
      if (usable && finite_input(f_, x)) {
        f_.step(x, e);
        f_.jvp(x, e, v_, u_, unext_, &slope);
        ++r.steps, ++r.jvps;
      }
      if (!usable || !finite_input(f_, x) || !std::isfinite(loss) || !std::isfinite(slope)) {
        r.code = status::non_finite;
        r.at = t_;
        return r;
      }
      linalg::axpy(slope, v_.data(), g.data(), g.size());
      std::swap(s_, next_);
      std::swap(u_, unext_);
      r.loss += double(loss);
      r.losses += scored_losses(f_, x);
      ++r.consumed, ++t_;
    }
    return r;
  }

  /// Nothing is ever in flight.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    return guard_.close({});
  }

 private:
  F f_;
  sequence_guard<F> guard_;  // refuses calls out of order and arguments of wrong sizes, by name
  C choose_;
  block<scalar, param_tangent_space> v_;
  block<scalar, state_space> s_, next_;
  block<scalar, state_tangent_space> u_, unext_;
  block<scalar, tape_space> tape_;
  block<scalar> workspace_;
  std::int64_t t_ = 0;
};

int main() {
  const cells::elman<double> cell({.in = 1, .hidden = 2, .out = 0});  // 8 parameters: 256 directions
  parameters<double> theta(cell.size().params);
  cell.init(theta, key{1});
  const double x[] = {1, -0.5, 0.25}, y[] = {0.5, -0.5, 0, 0.2, -0.3, 0.1};
  const cells::example<double> xs[] = {
      {.x = x, .target = y}, {.x = x + 1, .target = y + 2}, {.x = x + 2, .target = y + 4}};

  gradient<double> exact(theta.size());
  bptt oracle(cell);
  oracle.reset(key{});
  oracle.advance(theta, xs, exact);
  oracle.finish(theta, exact);

  // The proof: the expectation over every outcome is the gradient, and the covariance is what the theory
  // says.
  testing::enumerator all;
  const auto e =
      testing::enumerate(all, random_direction(cell, testing::enumerating_chooser(all)), theta, xs);
  double bias = 0, norm = 0;
  for (index_t i = 0; i < exact.size(); ++i) {
    bias += (e.mean[std::size_t(i)] - exact[i]) * (e.mean[std::size_t(i)] - exact[i]);
    norm += exact[i] * exact[i];
  }
  std::printf("%lld outcomes: |E g^ - g| / |g| = %.1e, tr Cov / |g|^2 = %.12f, theory %td\n",
              static_cast<long long>(e.outcomes), std::sqrt(bias / norm), e.covariance_trace / norm,
              theta.size() - 1);

  // The rules every estimator keeps: chunks, replay, sizes, failures.
  const auto failures = testing::estimator_conformance(random_direction(cell), theta, xs);
  for (const auto& f : failures) std::printf("not conforming: %s\n", f.c_str());
  if (failures.empty())
    std::printf("conforms: chunks, replay, sizes, non-finite steps, no allocation, resuming\n");
  return failures.empty() && bias <= 1e-22 * norm ? 0 : 1;
}
