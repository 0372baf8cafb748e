#include "unroll/estimate/rtrl.hpp"

#include "tests/support/bare_system.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/delayed_golden.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/testing/conformance.hpp"

namespace {

using namespace unroll;

static_assert(gradient_estimator<rtrl<golden::rnn<double>>>);
static_assert(gradient_estimator<rtrl<golden::rnn<float>>>);

template <class F>
void equals_bptt(const F& f) {
  const index_t lanes = f.size().lanes, T = 12;
  parameters<double> theta(f.size().params);
  f.init(theta, key{5});
  std::vector<double> data(std::size_t(T * lanes * 4));
  draw_normals(key{6}, 0, view<double>(data));
  std::vector<cells::example<double>> xs;
  for (index_t t = 0; t < T; ++t) xs.push_back({data.data() + t * lanes * 4, data.data() + t * lanes * 4});
  const auto expected = testing::backward_gradient(f, theta, xs);
  const auto check = [&](auto est, std::int64_t vjps) {
    gradient<double> g(theta.size());
    const report r = est.advance(theta, xs, g);
    CHECK(r.steps == T);
    CHECK(r.vjps == T * vjps);
    CHECK(golden::relative_error(g, expected) < 1e-12);
  };
  const index_t n = f.size().state;
  for (const index_t columns : {1, 7, 128}) {
    check(rtrl(f, {.columns = columns}), has_jacobian<F> ? 1 : 1 + (lanes == 1 ? n : 2 * n / lanes));
    check(rtrl(support::bare<F>{f}, {.columns = columns}), 1 + n);
  }
}

}  // namespace

TEST_CASE("rtrl has the golden gradient") {
  const auto theta = golden::theta();
  gradient<double> g(8);
  rtrl est(golden::rnn<>{});
  const report r = est.advance(theta, golden::inputs(), g);
  CHECK(golden::relative_error(g, golden::gradient) < 1e-13);
  CHECK(std::abs(r.loss - golden::loss) < 1e-13);
}

TEST_CASE("rtrl is backpropagation through time on every cell, with and without hooks, and over lanes") {
  for (const index_t lanes : {1, 3}) {
    equals_bptt(cells::elman<double>({.in = 2, .hidden = 4, .out = 2, .lanes = lanes}));
    equals_bptt(cells::gru<double>({.in = 2, .hidden = 3, .out = 2, .lanes = lanes}));
    equals_bptt(cells::lstm<double>({.in = 2, .hidden = 3, .out = 2, .lanes = lanes}));
  }
}

TEST_CASE("rtrl reads lanes apart through the lane hook") {
  const auto xs = golden::long_inputs(9);
  const auto theta = golden::theta();
  gradient<double> plain(8), hooked(8);
  const report a = rtrl(golden::lanes_rnn{3, {}}).advance(theta, xs, plain);
  golden::hooked_lanes_rnn f;
  f.count = 3;
  const report b = rtrl(f).advance(theta, xs, hooked);
  CHECK(golden::relative_error(plain, testing::backward_gradient(f, theta, xs)) < 1e-12);
  CHECK(golden::relative_error(plain, hooked) < 1e-14);
  CHECK(a.vjps == 9 * (1 + 6));
  CHECK(b.vjps == 9 * (1 + 4));
}

TEST_CASE("rtrl keeps the promises of every estimator") {
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  CHECK(testing::estimator_conformance(rtrl(golden::rnn<>{}), golden::theta(), xs, &bad) ==
        std::vector<std::string>{});
  const auto small = golden::long_inputs<float>(50);
  CHECK(testing::estimator_conformance(rtrl(golden::rnn<float>{}), golden::theta<float>(), small) ==
        std::vector<std::string>{});
  CHECK_THROWS_AS(rtrl(golden::rnn<>{}, {.columns = 0}), error);
}
