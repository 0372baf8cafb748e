#include "unroll/estimate/uoro.hpp"

#include "tests/mutants/uoro_mutants.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/delayed_golden.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;

static_assert(gradient_estimator<uoro<golden::rnn<double>>>);
static_assert(gradient_estimator<uoro<golden::rnn<float>>>);

template <class F>
testing::enumeration exact(const F& f, std::span<const typename F::input> xs, uoro_options o = {}) {
  testing::enumerator all;
  return testing::enumerate(all, uoro(f, o, testing::enumerating_chooser(all)), golden::theta(), xs);
}

template <class C>
gradient<double> draw(C chooser) {
  const auto theta = golden::theta();
  gradient<double> g(8);
  uoro est(golden::delayed_rnn{}, {.epsilon = 0}, chooser);
  est.advance(theta, golden::delayed_inputs(), g);
  est.finish(theta, g);
  return g;
}

/// s' = x s + theta, loss 1/2 s'^2: an x of 0 forgets what was.
struct forgetful {
  using scalar = double;
  using input = double;
  dims size() const { return {1, 1, 0, 0, 1}; }
  void step(double x, const edge<double>& e) const {
    e.next[0] = x * e.s[0] + e.theta[0];
    *e.loss = e.next[0] * e.next[0] / 2;
  }
  void vjp(double x, const const_edge<double>& e, dstate<const double> dnext, double dloss, dstate<double> ds,
           dparams<double> dtheta) const {
    const double d = (dnext.empty() ? 0 : dnext[0]) + dloss * e.next[0];
    if (!ds.empty()) ds[0] += x * d;
    if (!dtheta.empty()) dtheta[0] += d;
  }
  void jvp(double x, const const_edge<double>& e, params_tangent<const double> dtheta,
           state_tangent<const double> ds, state_tangent<double> dnext, double* dloss) const {
    dnext[0] = (ds.empty() ? 0 : x * ds[0]) + (dtheta.empty() ? 0 : dtheta[0]);
    if (dloss) *dloss = e.next[0] * dnext[0];
  }
};

/// Two lanes that claim to be one: their s~ and theta~ are shared.
struct joint_rnn : golden::lanes_rnn {
  dims size() const {
    dims d = lanes_rnn::size();
    d.lanes = 1;
    return d;
  }
};

// The exact gradient of the lanes, one after the other.
std::vector<double> lanes_gradient(index_t count, const std::vector<golden::rnn<>::input>& xs) {
  std::vector<double> g(8);
  for (index_t l = 0; l < count; ++l) {
    auto own = xs;
    for (auto& x : own) x = golden::lanes_rnn::of(x, l);
    const auto one = testing::backward_gradient(golden::rnn<>{}, golden::theta(), own);
    for (std::size_t p = 0; p < 8; ++p) g[p] += one[p];
  }
  return g;
}

}  // namespace

TEST_CASE("uoro in the paper's timing has the golden mean and covariance") {
  const auto xs = golden::delayed_inputs();
  const auto balanced = exact(golden::delayed_rnn{}, xs, {.epsilon = 0});
  CHECK(golden::relative_error(balanced.mean, golden::gradient) < 1e-11);
  CHECK(std::abs(balanced.covariance_trace - golden::trace_uoro) < 1e-9);
  const auto plain = exact(golden::delayed_rnn{}, xs, {.balance = false});
  CHECK(golden::relative_error(plain.mean, golden::gradient) < 1e-11);
  CHECK(std::abs(plain.covariance_trace - golden::trace_uoro_unbalanced) < 1e-9);
}

TEST_CASE("uoro with fixed signs is the golden draw, and negating every sign changes no bit") {
  const auto g = draw(golden::scripted_signs{1}), flipped = draw(golden::scripted_signs{-1});
  CHECK(golden::relative_error(g, golden::uoro_draw) < 1e-13);
  for (index_t p = 0; p < 8; ++p) CHECK(g[p] == flipped[p]);
}

TEST_CASE(
    "uoro is unbiased for every epsilon and every block, and on three steps larger blocks have less "
    "variance") {
  const auto xs = golden::inputs();
  double before = golden::trace_uoro;
  for (const index_t block : {1, 2, 3}) {
    for (const double epsilon : {0.0, 1e-7, 0.5}) {
      const auto r = exact(golden::rnn<>{}, xs, {.block = block, .epsilon = epsilon});
      CHECK(golden::relative_error(r.mean, golden::gradient) < 1e-11);
      if (epsilon == 0) {
        CHECK(r.covariance_trace < before);
        before = r.covariance_trace;
      }
    }
  }
  CHECK(before < 1e-20);  // one block is backpropagation
}

TEST_CASE("the variance of uoro may rise with the block") {
  const auto xs = golden::long_inputs(7);
  const auto trace = [&](index_t block) {
    return exact(golden::rnn<>{}, xs, {.block = block, .epsilon = 0}).covariance_trace;
  };
  CHECK(trace(2) == Approx(1.516).epsilon(1e-3));
  CHECK(trace(3) == Approx(1.653).epsilon(1e-3));
  CHECK(trace(5) == Approx(.078).epsilon(1e-2));
  CHECK(trace(6) == Approx(.888).epsilon(1e-3));
}

TEST_CASE("uoro adds epsilon = 1e-7 to its scales unless told otherwise") {
  const auto xs = golden::inputs();
  const double given = exact(golden::rnn<>{}, xs, {.epsilon = 1e-7}).covariance_trace;
  CHECK(exact(golden::rnn<>{}, xs).covariance_trace == given);
  CHECK(exact(golden::rnn<>{}, xs, {.epsilon = 0}).covariance_trace != given);
}

TEST_CASE("uoro drops a product of which one side is zero, instead of keeping the other as noise") {
  for (const double epsilon : {0.0, 1e-7}) {
    // step 1 forgets step 0; with one entry of state, one draw alone is exact
    const std::vector<double> theta{.7}, xs{1, 0, 1};
    testing::enumerator all;
    const uoro est(forgetful{}, {.epsilon = epsilon}, testing::enumerating_chooser(all));
    const auto r = testing::enumerate(all, est, params<const double>(theta), std::span(xs));
    CHECK(r.mean[0] == Approx(.7 + .7 + 2 * 1.4));
    CHECK(r.covariance_trace < 1e-20);
  }
}

TEST_CASE("uoro keeps the lanes apart: the covariances add, with and without the lane hook") {
  const auto xs = golden::inputs();  // three: the scales of the first draw alone cancel
  const std::span<const golden::rnn<>::input> both(xs);
  const auto expected = lanes_gradient(2, xs);
  double sum = 0;
  for (index_t l = 0; l < 2; ++l) {
    auto own = xs;
    for (auto& x : own) x = golden::lanes_rnn::of(x, l);
    sum += exact(golden::rnn<>{}, own).covariance_trace;
  }
  REQUIRE(sum > 1e-3);
  for (const index_t block : {1, 2}) {
    const auto a = exact(golden::lanes_rnn{}, both, {.block = block});
    const auto b = exact(golden::hooked_lanes_rnn{}, both, {.block = block});
    CHECK(golden::relative_error(a.mean, expected) < 1e-11);
    CHECK(golden::relative_error(b.mean, expected) < 1e-11);
    CHECK(std::abs(a.covariance_trace - b.covariance_trace) < 1e-12);
    if (block == 1) CHECK(std::abs(a.covariance_trace - sum) < 1e-12);
  }
}

TEST_CASE("one pair shared by all lanes would be unbiased too, with a larger covariance") {
  auto xs = golden::inputs();
  xs.resize(2);
  const auto apart = exact(golden::lanes_rnn{}, xs), shared = exact(joint_rnn{}, xs);
  CHECK(golden::relative_error(shared.mean, apart.mean) < 1e-11);
  CHECK(shared.covariance_trace > 1.5 * apart.covariance_trace);
}

TEST_CASE("uoro's report matches its cost formula") {
  const auto theta = golden::theta();
  const auto xs = golden::long_inputs(7);
  const auto spent = [&](auto f, index_t block) {
    uoro est(f, {.block = block});
    gradient<double> g(8);
    report r = est.advance(theta, xs, g);
    r += est.finish(theta, g);
    return r;
  };
  const auto check = [](const report& r, int steps, int vjps, int jvps, int lanes = 1) {
    CHECK(r.steps == steps);
    CHECK(r.vjps == vjps);
    CHECK(r.jvps == jvps);
    CHECK(r.losses == 7 * lanes);
  };
  check(spent(golden::rnn<>{}, 1), 7, 14, 7);
  check(spent(golden::rnn<>{}, 3), 7, 13, 6);  // two blocks 2 K, and one step more without a draw
  check(spent(golden::hooked_lanes_rnn{}, 3), 7, 17, 6, 2);  // 2 (K + 2 K - 1) + 1
  check(spent(golden::lanes_rnn{}, 3), 7, 19, 6, 2);         // 2 (K + 2 K) + 1
}

TEST_CASE("uoro keeps the promises of every estimator") {
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  for (const index_t block : {1, 4})
    CHECK(testing::estimator_conformance(uoro(golden::rnn<>{}, {.block = block}), golden::theta(), xs,
                                         &bad) == std::vector<std::string>{});
  const auto small = golden::long_inputs<float>(50);
  CHECK(testing::estimator_conformance(uoro(golden::rnn<float>{}), golden::theta<float>(), small) ==
        std::vector<std::string>{});
  CHECK_THROWS_AS(uoro(golden::rnn<>{}, {.block = 0}), error);
  CHECK_THROWS_AS(uoro(golden::rnn<>{}, {.epsilon = -1}), error);
}

TEST_CASE("every sabotaged uoro has its tabulated bias, and enumeration sees it") {
  using m = mutants::uoro_mutation;
  const std::pair<m, double> table[] = {
      {m::previous_pair, .3101},         {m::theta_not_divided_by_rho0, .2348},
      {m::b_not_divided_by_rho1, .0902}, {m::divides_by_rho_plus, .0126},
      {m::rho_of_current_sign, .0032},   {m::one_sign, 1.0196},
      {m::independent_signs, 1},         {m::no_jacobian, .5420},
      {m::variance_one_third, 2. / 3}};
  for (const auto& [mutation, bias] : table) {
    const double seen = golden::relative_error(mutants::enumerate_uoro(mutation).mean, golden::gradient);
    CHECK(std::abs(seen - bias) < 1e-4);
    CHECK_FALSE(seen < 1e-11);
  }
  for (const auto allowed : {m::none, m::rho_of_previous_sign})
    CHECK(golden::relative_error(mutants::enumerate_uoro(allowed).mean, golden::gradient) < 1e-11);
  CHECK(std::abs(mutants::enumerate_uoro(m::none).covariance_trace - golden::trace_uoro) < 1e-9);
}
