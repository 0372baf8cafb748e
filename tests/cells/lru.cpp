#include "unroll/cells/lru.hpp"

#include <complex>

#include "tests/cells/cell_checks.hpp"
#include "unroll/testing/oracle.hpp"

using namespace unroll;
using cells::lru;

namespace {

/// x = 1, 2, 3, one number each, against one target for all.
struct three_steps {
  std::vector<double> x{1, 2, 3}, target{1};
  std::vector<cells::example<double>> xs;
  three_steps() {
    for (const double& v : x) xs.push_back({.x = &v, .target = target.data()});
  }
};

}  // namespace

TEST_CASE(
    "the lru cell keeps the rules of a system, over lanes, with tokens, with and without readout, in "
    "windows") {
  cell_checks::conforms<lru, cells::lru_options>();
  std::uint64_t seed = 1;
  for (const index_t lanes : {1, 3})
    for (const index_t in : {0, 3})
      for (const index_t out : {0, 2})
        for (const auto kind : {cell_checks::inputs::dense, cell_checks::inputs::tokens}) {
          const cells::lru_options o{.in = in, .hidden = 5, .out = out, .lanes = lanes};
          const key k{seed++};
          const cell_checks::sequence<double> one(o, 1, in ? kind : cell_checks::inputs::dense, k),
              many(o, 11, in ? kind : cell_checks::inputs::mixed, k);
          cell_checks::derivatives(lru<double>(o), one.xs[0], k);
          cell_checks::dense_hooks(lru<double>(o), one.xs[0], k);
          cell_checks::lanes<lru<double>>(o, one.xs[0], k);
          cell_checks::windows(lru<double>(o), many.xs, k);
        }
  cell_checks::bad_inputs<lru<double>>(cells::lru_options{});
}

TEST_CASE("a step of the lru cell is that of its paper in complex numbers") {
  const index_t h = 37, in = 3;
  const lru<double> cell({.in = in, .hidden = h, .out = 0});
  cell_checks::edge_data<lru<double>> e(cell, key{4});
  const auto x = cell_checks::normals<double>(in, key{5}, 0), none = cell_checks::nans<double>(0);
  e.step({.x = x.data()});
  const layout l = cell.layout();
  const auto at = [&](const char* name, index_t r, index_t c = 0) {
    return e.theta[std::size_t(l.at(name).offset + c * l.at(name).rows + r)];
  };
  using namespace std::complex_literals;
  for (index_t u = 0; u < h; ++u) {
    const std::complex<double> lambda = std::exp(-std::exp(at("nu", u)) + 1i * std::exp(at("phi", u)));
    std::complex<double> z = at("b", u) + 1i * at("b", h + u);
    for (index_t j = 0; j < in; ++j) z += (at("w_x", u, j) + 1i * at("w_x", h + u, j)) * x[std::size_t(j)];
    const auto i = std::size_t(u), k = std::size_t(h + u);
    const auto next =
        lambda * (e.s[i] + 1i * e.s[k]) + std::sqrt(-std::expm1(-2 * std::exp(at("nu", u)))) * z;
    CHECK(std::abs(next - (e.next[i] + 1i * e.next[k])) < 1e-14);
  }
}

TEST_CASE("the lru cell has the golden gradient of a rotation of half a length") {
  const lru<double> cell({.in = 1, .hidden = 1, .out = 1});
  const std::vector<double> theta{.7, -.4, 0, 0, std::log(std::log(2.)), std::log(.3), 1, 1, 0};
  const three_steps data;
  cell_checks::edge_data<lru<double>> e(cell, key{1});
  e.theta = theta;
  e.s = {0, 0};
  double loss = 0;
  for (const auto& x : data.xs) {
    loss += e.value(x, {0, 0}, 1);
    e.s = e.next;
  }
  CHECK(std::abs(loss - .420785216248) < 1e-12);
  const auto g = testing::backward_gradient(cell, theta, data.xs);
  const double golden[] = {.849049486284, .528127623548, -.184137001909, .3 * .483541839454};  // dphi = t dt
  CHECK(std::abs(g[0] - golden[0]) < 1e-11);
  CHECK(std::abs(g[1] - golden[1]) < 1e-11);
  CHECK(std::abs(g[4] - golden[2]) < 1e-11);
  CHECK(std::abs(g[5] - golden[3]) < 1e-11);
}

TEST_CASE("the lru cell has the golden gradient of lambda = 1/2 in complex numbers") {
  // of B = 2 + 2i behind gamma, C = 2 + i: dlambda = 53 + 159i, dB = 85.75 + 42.875i, dgamma = 85.75 / gamma
  const lru<double> cell({.in = 1, .hidden = 1, .out = 1});
  const double gamma = std::sqrt(.75), e_nu = std::log(2.);
  const std::vector<double> theta{2 / gamma, 2 / gamma, 0, 0, std::log(e_nu), -1000, 2, -1, 0};
  const auto g = testing::backward_gradient(cell, theta, three_steps().xs);
  CHECK(g[0] == Approx(85.75 * gamma).epsilon(1e-13));
  CHECK(std::abs(g[1]) == Approx(42.875 * gamma).epsilon(1e-13));
  CHECK(g[4] == Approx(-e_nu * .5 * 53 + 85.75 / gamma * e_nu * .25 / gamma).epsilon(1e-13));
  CHECK(g[5] == 0);  // a turn by e^-1000
}

TEMPLATE_TEST_CASE("sqrt(1 - |lambda|^2) keeps its digits beside 1, and no nu or phi is too far", "", float,
                   double) {
  using T = TestType;
  const lru<T> cell({.in = 0, .hidden = 1, .out = 0});
  std::vector<T> s(2), next(2), tape(std::size_t(cell.size().tape)), work(std::size_t(cell.size().workspace));
  T loss = 0;
  const auto step = [&](T nu, T phi) {
    const std::vector<T> theta{1, 0, nu, phi};
    cell.step({}, edge<T>{theta, s, next, tape, &loss, view<T>(work)});
    std::vector<T> dtheta(4), one{1, 1};
    cell.vjp({}, edge<T>{theta, s, next, tape, &loss, view<T>(work)}, one, 0, {}, dtheta);
    for (const T v : dtheta) CHECK(std::isfinite(v));
    CHECK((std::isfinite(next[0]) && std::isfinite(next[1])));
    return double(next[0]);
  };
  for (const double nu : {-30., -12., -5., 0., 1.}) {
    const double nearest = double(T(nu));
    CHECK(step(T(nu), 0) == Approx(std::sqrt(-std::expm1(-2 * std::exp(nearest))))
                                .epsilon(16 * std::numeric_limits<T>::epsilon()));
  }
  s = {T(.5), T(-.25)};
  for (const double nu : {-1e30, -800., 0., 90., 800., 1e30})
    for (const double phi : {-1e30, -800., 0., 90., 800., 1e30}) step(T(nu), T(phi));
}

TEST_CASE("init of the lru cell draws lambda on the ring, and the parameters have names") {
  const lru<double> cell({.in = 2, .hidden = 400, .out = 1, .r_min = .5, .r_max = .9, .max_phase = 1});
  parameters<double> theta(cell.size().params);
  cell.init(theta, key{3});
  const layout l = cell.layout();
  CHECK(l.size() == cell.size().params);
  double squares = 0, phases = 0;
  for (index_t u = 0; u < 400; ++u) {
    const double r = std::exp(-std::exp(theta[l.at("nu").offset + u]));
    const double t = std::exp(theta[l.at("phi").offset + u]);
    CHECK((r > .5 - 1e-12 && r < .9 + 1e-12 && t > 0 && t < 1));
    squares += r * r / 400;
    phases += t / 400;
  }
  CHECK(std::abs(squares - (.25 + .81) / 2) < .03);  // five standard deviations of a uniform draw
  CHECK(std::abs(phases - .5) < .08);
  CHECK_THROWS_AS(lru<double>({.r_min = .9, .r_max = .5}), error);
  CHECK_THROWS_AS(lru<double>({.r_max = 1.5}), error);
  CHECK_THROWS_AS(lru<double>({.max_phase = 0}), error);
  CHECK_THROWS_AS(lru<double>({.hidden = 0}), error);
}
