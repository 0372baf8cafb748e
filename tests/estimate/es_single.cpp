#include "unroll/estimate/es_single.hpp"

#include "tests/mutants/es_mutants.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using mutants::polynomial;

static_assert(gradient_estimator<es_single<polynomial>>);

// The published loop over particles that begin together: perturbations of theta drawn once, both states of a
// pair carried from window to window, and each window's difference times the perturbation over 2 sigma^2.
std::vector<double> published(std::size_t pairs, double sigma, std::size_t window, key k) {
  const golden::rnn<> f;
  const auto theta = golden::theta();
  const auto xs = golden::long_inputs(11);
  std::vector<double> z(8 * pairs), g(8);
  draw_normals(k, 0, view<double>(z));
  std::vector<std::array<double, 2>> states(2 * pairs, {.3, .3});
  for (std::size_t first = 0; first < xs.size(); first += window)
    for (std::size_t j = 0; j < pairs; ++j) {
      std::array<double, 2> losses{};
      for (const std::size_t side : {0u, 1u}) {
        std::array<double, 8> moved{};
        for (std::size_t p = 0; p < 8; ++p)
          moved[p] = theta[index_t(p)] + (side == 0 ? 1 : -1) * sigma * z[8 * j + p];
        auto& s = states[2 * j + side];
        for (std::size_t t = first; t < std::min(first + window, xs.size()); ++t) {
          std::array<double, 2> next{}, tape_{}, workspace{};
          double loss = 0;
          f.step(xs[t], {params<const double>(moved.data(), 8), state<const double>(s.data(), 2),
                         state<double>(next.data(), 2), tape<double>(tape_.data(), 2), &loss,
                         view<double>(workspace.data(), 2), 0});
          s = next;
          losses[side] += loss;
        }
      }
      for (std::size_t p = 0; p < 8; ++p)
        g[p] += sigma * z[8 * j + p] * (losses[0] - losses[1]) / (2 * sigma * sigma * double(pairs));
    }
  return g;
}

}  // namespace

TEST_CASE("es_single is the published loop, and nres bit for bit") {
  const auto theta = golden::theta();
  const auto xs = golden::long_inputs(11);
  for (const index_t window : {1, 4, 11}) {
    gradient<double> a(8), b(8);
    es_single one(golden::rnn<>{}, {.pairs = 3, .window = window});
    nres other(golden::rnn<>{}, {.pairs = 3, .window = window});
    one.reset(key{3});
    one.advance(theta, xs, a);
    one.finish(theta, a);
    other.reset(key{3});
    other.advance(theta, xs, b);
    other.finish(theta, b);
    for (index_t p = 0; p < 8; ++p) CHECK(a[p] == b[p]);
    CHECK(golden::relative_error(a, published(3, .1, std::size_t(window), key{3})) < 1e-9);
  }
}

TEST_CASE("es_single is unbiased for the jointly smoothed loss") {
  testing::enumerator all;
  const std::vector<double> theta{polynomial::theta};
  const std::vector<int> xs(3);
  const es_single est(polynomial{}, {.sigma = polynomial::sigma, .window = 2},
                      testing::enumerating_chooser(all));
  CHECK(std::abs(testing::enumerate(all, est, params<const double>(theta), xs).mean[0] - 72.389548658) <
        1e-8);
}

TEST_CASE("es_single keeps the promises of every estimator") {
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  CHECK(testing::estimator_conformance(es_single(golden::rnn<>{}, {.pairs = 2, .window = 3}), golden::theta(),
                                       xs, &bad) == std::vector<std::string>{});
  CHECK_THROWS_AS(es_single(golden::rnn<>{}, {.window = 0}), error);
}

TEST_CASE("es_single refuses a window by its own name") {
  CHECK_THROWS_WITH(es_single(golden::rnn<>{}, {.window = 0}),
                    Catch::Matchers::ContainsSubstring("es_single: window"));
}
