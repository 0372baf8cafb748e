#include "unroll/diagnose/smoothed_gradient.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/data/delay.hpp"
#include "unroll/diagnose/moments.hpp"

using namespace unroll;

namespace {

// s' = .6 s + .5 theta s^2 + theta, loss s'^2: the three targets of a gradient differ widely here.
struct quadratic {
  using scalar = double;
  using input = int;
  dims size() const { return {1, 1, 0, 0, 1}; }
  void start(state<double> s) const { s[0] = 0.5; }
  void step(int, const edge<double>& e) const {
    const double s = e.s[0], th = e.theta[0];
    e.next[0] = 0.6 * s + 0.5 * th * s * s + th;
    *e.loss = e.next[0] * e.next[0];
  }
  void vjp(int, const const_edge<double>& e, dstate<const double> dnext, double dloss, dstate<double> ds,
           dparams<double> dtheta) const {
    const double s = e.s[0], d = 2 * dloss * e.next[0] + (dnext.empty() ? 0 : dnext[0]);
    if (!ds.empty()) ds[0] += d * (0.6 + e.theta[0] * s);
    if (!dtheta.empty()) dtheta[0] += d * (0.5 * s * s + 1);
  }
};

const std::vector<int> xs(3);
const std::vector<double> theta{0.3};

// Distance of the mean of many draws from `expected`, in standard errors.
double z(const smoothed_gradient_options& o, double expected) {
  smoothed_gradient<quadratic> path({}, o);
  moments m(1);
  for (std::uint64_t i = 0; i < 100000; ++i) {
    gradient<double> g(1);
    path(fold(key{3}, i), theta, xs, g);
    m.add(dparams<double>(g));
  }
  return std::abs(m.mean()[0] - expected) / std::sqrt(m.variance(0) / double(m.count()));
}

}  // namespace

TEST_CASE("without noise a draw is the gradient at frozen theta") {
  smoothed_gradient<quadratic> path({}, {.max_steps = 3});
  gradient<double> g(1);
  const report r = path(key{1}, theta, xs, g);
  CHECK(g[0] == Approx(9.519767).epsilon(1e-6));
  CHECK(r.steps == 3);
  CHECK(r.vjps == 3);
  CHECK(r.losses == 3);
  path(key{2}, theta, xs, g);
  CHECK(g[0] == Approx(2 * 9.519767).epsilon(1e-6));  // added
}

TEST_CASE(
    "the mean of the draws is the gradient of the smoothed loss, one noise a sequence or one a window") {
  // the expected values are Gauss-Hermite sums over the noise
  CHECK(z({.max_steps = 3, .sigma = 0.4}, 72.389549) < 4);
  CHECK(z({.max_steps = 3, .sigma = 0.4, .window = 1}, 15.306396) < 4);
  CHECK(z({.max_steps = 3, .sigma = 0.4, .window = 1}, 9.519767) > 10);  // the targets can be told apart
}

TEST_CASE("windows change nothing at sigma zero, on the golden network") {
  const auto p = golden::theta<double>();
  const auto ys = golden::inputs<double>();
  for (index_t window : {0, 1, 2, 3, 5}) {
    smoothed_gradient<golden::rnn<double>> path({}, {.max_steps = 4, .window = window});
    gradient<double> g(8);
    const report r = path(key{1}, p, ys, g);
    CHECK(golden::relative_error(g, golden::gradient) < 1e-13);
    CHECK(r.loss == Approx(golden::loss).epsilon(1e-14));
  }
}

TEST_CASE("steps without a target are not counted among the losses") {
  const cells::elman<double> cell({.in = 1, .hidden = 2, .out = 1, .lanes = 3});
  const auto with = data::delay<double>({.steps = 4, .lag = 1, .lanes = 3}, key{1});
  std::vector<cells::example<double>> some(with.inputs().begin(), with.inputs().end());
  some[2].target = nullptr;
  smoothed_gradient<cells::elman<double>> path(cell, {.max_steps = 4, .sigma = 0.1});
  parameters<double> p(cell.size().params);
  gradient<double> g(cell.size().params);
  CHECK(path(key{1}, p, with.inputs(), g).losses == 9);
  CHECK(path(key{1}, p, some, g).losses == 6);
}

TEST_CASE("what is not finite leaves no trace, and wrong arguments are refused") {
  auto ys = golden::inputs<double>();
  const auto p = golden::theta<double>();
  ys[1].x = std::nan("");
  smoothed_gradient<golden::rnn<double>> path({}, {.max_steps = 3});
  gradient<double> g(8);
  const report r = path(key{1}, p, ys, g);
  CHECK(r.code == status::non_finite);
  CHECK(r.at == 1);
  for (double v : g) CHECK(v == 0);
  CHECK_THROWS_AS(path(key{1}, p, golden::long_inputs<double>(4), g), unroll::error);
  CHECK_THROWS_AS(smoothed_gradient<quadratic>({}, {.sigma = -1}), unroll::error);
  CHECK_THROWS_AS(smoothed_gradient<quadratic>({}, {.window = -1}), unroll::error);
  gradient<double> none(8);
  CHECK(path(key{1}, p, {}, none).losses == 0);
}
