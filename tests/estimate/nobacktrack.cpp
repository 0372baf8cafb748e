#include "unroll/estimate/nobacktrack.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/delayed_golden.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;

static_assert(gradient_estimator<nobacktrack<golden::rnn<double>>>);
static_assert(gradient_estimator<nobacktrack<golden::rnn<float>>>);

template <class F>
testing::enumeration exact(const F& f, std::span<const typename F::input> xs, double epsilon) {
  testing::enumerator all;
  return testing::enumerate(all, nobacktrack(f, {.epsilon = epsilon}, testing::enumerating_chooser(all)),
                            golden::theta(), xs);
}

}  // namespace

TEST_CASE("nobacktrack in the paper's timing has the golden mean, covariance and draw") {
  const auto xs = golden::delayed_inputs();
  const auto r = exact(golden::delayed_rnn{}, xs, 0);
  CHECK(golden::relative_error(r.mean, golden::gradient) < 1e-11);
  CHECK(std::abs(r.covariance_trace - golden::trace_nobacktrack) < 1e-9);

  const auto theta = golden::theta();
  gradient<double> g(8);
  nobacktrack est(golden::delayed_rnn{}, {.epsilon = 0}, golden::scripted_signs{});
  est.advance(theta, xs, g);
  CHECK(golden::relative_error(g, golden::nobacktrack_draw) < 1e-13);
}

TEST_CASE("nobacktrack is unbiased for every epsilon and over lanes") {
  auto xs = golden::inputs();
  for (const double epsilon : {0.0, 1e-7, 0.5})
    CHECK(golden::relative_error(exact(golden::rnn<>{}, xs, epsilon).mean, golden::gradient) < 1e-11);
  xs.resize(2);
  std::vector<double> expected(8);
  for (index_t l = 0; l < 2; ++l) {
    auto own = xs;
    for (auto& x : own) x = golden::lanes_rnn::of(x, l);
    const auto one = testing::backward_gradient(golden::rnn<>{}, golden::theta(), own);
    for (std::size_t p = 0; p < 8; ++p) expected[p] += one[p];
  }
  CHECK(golden::relative_error(exact(golden::lanes_rnn{}, xs, 1e-7).mean, expected) < 1e-11);
  CHECK(golden::relative_error(exact(golden::hooked_lanes_rnn{}, xs, 1e-7).mean, expected) < 1e-11);
}

TEST_CASE("nobacktrack's report matches its cost formula") {
  const auto spent = [](auto f, auto theta, auto xs) {
    nobacktrack est(f);
    gradient<double> g(theta.size());
    return est.advance(theta, xs, g);
  };
  const auto xs = golden::long_inputs(5);
  const report one = spent(golden::rnn<>{}, golden::theta(), xs);
  CHECK(one.steps == 5);
  CHECK(one.jvps == 5);
  CHECK(one.vjps == 5 * (2 + 2));  // without row norms one for each of the two units
  CHECK(spent(golden::lanes_rnn{}, golden::theta(), xs).vjps == 5 * (1 + 2 + 4));
  CHECK(spent(golden::hooked_lanes_rnn{}, golden::theta(), xs).vjps == 5 * (2 + 4));

  cells::elman<double> f({.in = 1, .hidden = 3, .out = 0});
  parameters<double> theta(f.size().params);
  f.init(theta, key{1});
  const double x = 0.5, y[3] = {1, 0, -1};
  CHECK(spent(f, theta, std::vector<cells::example<double>>(5, {&x, y})).vjps == 5 * 2);
}

TEST_CASE("nobacktrack keeps the promises of every estimator") {
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  CHECK(testing::estimator_conformance(nobacktrack(golden::rnn<>{}), golden::theta(), xs, &bad) ==
        std::vector<std::string>{});
  const auto small = golden::long_inputs<float>(50);
  CHECK(testing::estimator_conformance(nobacktrack(golden::rnn<float>{}), golden::theta<float>(), small) ==
        std::vector<std::string>{});
  CHECK_THROWS_AS(nobacktrack(golden::rnn<>{}, {.epsilon = -1}), error);
}
