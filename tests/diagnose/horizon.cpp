#include "unroll/diagnose/horizon.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/cells/influence_balancing.hpp"
#include "unroll/diagnose/measure.hpp"

using namespace unroll;

namespace {

// s' = rho s + theta, loss 1/2 (s' - 1)^2, `lanes` times: phi_k = rho^k mean |s_t - 1| in closed form.
struct decay {
  using scalar = double;
  using input = int;
  dims size() const { return {1, lanes, 0, 0, lanes}; }
  void step(int, const edge<double>& e) const {
    *e.loss = 0;
    for (index_t i = 0; i < lanes; ++i) {
      e.next[i] = rho * e.s[i] + e.theta[0];
      *e.loss += (e.next[i] - 1) * (e.next[i] - 1) / 2;
    }
  }
  void vjp(int, const const_edge<double>& e, dstate<const double> dnext, double dloss, dstate<double> ds,
           dparams<double> dtheta) const {
    for (index_t i = 0; i < lanes; ++i) {
      const double d = dloss * (e.next[i] - 1) + (dnext.empty() ? 0 : dnext[i]);
      if (!ds.empty()) ds[i] += rho * d;
      if (!dtheta.empty()) dtheta[0] += d;
    }
  }
  double rho = 0.8;
  index_t lanes = 1;
};

}  // namespace

TEST_CASE("the lags of the golden network add up to its truncated gradients") {
  const golden::rnn<double> rnn;
  const auto theta = golden::theta<double>();
  const auto xs = golden::inputs<double>();
  const auto p = profile_lags(rnn, theta, xs, 10);
  REQUIRE(p.lags.size() == 3);
  CHECK(p.gradient_norm * p.gradient_norm == Approx(golden::gradient_squared_norm).epsilon(1e-13));
  const auto projection = [](const golden::vec8& v) {
    double dot = 0;
    for (std::size_t j = 0; j < 8; ++j) dot += v[j] * golden::gradient[j];
    return dot / golden::gradient_squared_norm;
  };
  CHECK(p.lags[0].cumulative == Approx(projection(golden::lag_below_1)).epsilon(1e-9));
  CHECK(p.lags[1].cumulative == Approx(projection(golden::lag_below_2)).epsilon(1e-9));
  CHECK(p.lags[2].cumulative == Approx(1).epsilon(1e-13));
  double norm0 = 0;
  for (double v : golden::lag_below_1) norm0 += v * v;
  CHECK(p.lags[0].norm == Approx(std::sqrt(norm0)).epsilon(1e-9));
}

TEST_CASE("influence balancing changes sign between its short and its long lags") {
  const cells::influence_balancing<double> cell;
  parameters<double> theta(1);
  theta[0] = 0.5;
  std::vector<cells::influence_balancing<double>::input> xs(600);
  const auto p = profile_lags(cell, theta, xs, 599);
  CHECK(p.lags.back().cumulative == Approx(1).epsilon(1e-9));
  CHECK(p.lags[0].projection < 0);   // against the gradient
  CHECK(p.lags[25].projection > 0);  // with it
  CHECK(p.lags[30].cumulative < 0);  // a truncation there ascends
  CHECK(p.lags[60].cumulative > 0);
  for (const auto& e : p.lags)  // theta is one number
    CHECK(e.norm == Approx(std::abs(e.projection) * p.gradient_norm));
}

TEST_CASE("phi decays with the memory of the system, lanes apart") {
  for (index_t lanes : {1, 3}) {
    const decay f{0.8, lanes};
    parameters<double> theta(1);
    theta[0] = 0.5;
    const std::vector<int> xs(40);
    const auto p = profile_lags(f, theta, xs, 20);
    double s = 0, all = 0, late = 0;
    for (index_t t = 0; t < 40; ++t) {
      s = 0.8 * s + 0.5;
      all += std::abs(s - 1);
      if (t >= 5) late += std::abs(s - 1);
    }
    CHECK(p.lags[0].phi == Approx(0.8 * all / 40).epsilon(1e-12));
    CHECK(p.lags[5].phi == Approx(std::pow(0.8, 6) * late / 35).epsilon(1e-12));
  }
}

TEST_CASE("a profile can be cut short, be empty, and refuses wrong sizes") {
  const golden::rnn<double> rnn;
  const auto theta = golden::theta<double>();
  const auto xs = golden::long_inputs<double>(20);
  CHECK(profile_lags(rnn, theta, xs, 4).lags.size() == 5);
  CHECK(profile_lags(rnn, theta, {}, 4).lags.empty());
  CHECK_THROWS_AS(profile_lags(rnn, theta, xs, -1), unroll::error);
  CHECK_THROWS_AS(profile_lags(rnn, params<const double>(theta.data(), 3), xs, 1), unroll::error);
}

TEST_CASE("a profile says from which window on the gradient stays within a share") {
  lag_profile p;
  p.lags.resize(4);
  const double cumulative[] = {0.7, 1.2, 0.95, 1};
  for (std::size_t i = 0; i < 4; ++i) p.lags[i].cumulative = cumulative[i];
  CHECK(p.window(0.5) == 1);
  CHECK(p.window(0.25) == 2);
  CHECK(p.window(0.1) == 3);
  CHECK(p.window(0.01) == 4);
  p.lags.back().cumulative = 0.5;  // nowhere within the share
  CHECK(p.window(0.1) == 4);
  CHECK(lag_profile{}.window(0.1) == 0);
}
