#include "tests/mutants/es_mutants.hpp"
#include "tests/support/catch.hpp"
#include "unroll/estimate/es.hpp"
#include "unroll/estimate/gpes.hpp"
#include "unroll/estimate/nres.hpp"
#include "unroll/estimate/pes.hpp"

// Normal numbers have no list of outcomes. On polynomials a product of Gauss-Hermite rules stands for all of
// them: the means are exact there, up to rounding, and nothing is shown for other losses.

namespace {

using namespace unroll;
using polynomials::distance;

constexpr double sigma = 0.4, rounding = 1e-10;

template <class P, class Make>
std::vector<double> mean_of_all(int nodes, Make&& make) {
  testing::enumerator all(nodes);
  const auto r =
      testing::enumerate(all, make(polynomials::system<P>{}, testing::enumerating_chooser(all)),
                         params<const double>(P::values.data(), index_t(P::parameters)), polynomials::inputs);
  CHECK(std::abs(r.probability - 1) < 1e-12);
  return r.mean;
}

}  // namespace

TEMPLATE_TEST_CASE("evolution strategies of several parameters have the jointly smoothed gradient as mean",
                   "", polynomials::bilinear, polynomials::readout, polynomials::quadratic) {
  using P = TestType;
  const auto exact = polynomials::smoothed_gradient<P>(sigma, 3);
  for (const index_t pairs : {1, 2})
    CHECK(distance(mean_of_all<P>(P::nodes[2],
                                  [&](auto f, auto c) { return es(f, {.sigma = sigma, .pairs = pairs}, c); }),
                   exact) < rounding);
  for (const index_t window : {1, 2, 3})
    CHECK(distance(
              mean_of_all<P>(P::nodes[2],
                             [&](auto f, auto c) { return nres(f, {.sigma = sigma, .window = window}, c); }),
              exact) < rounding);
}

TEMPLATE_TEST_CASE("persistent evolution strategies have the independently smoothed gradient as mean", "",
                   polynomials::bilinear, polynomials::readout, polynomials::quadratic) {
  using P = TestType;
  for (const std::size_t window : {1u, 2u, 3u}) {
    const auto exact = polynomials::smoothed_gradient<P>(sigma, window);
    INFO("window " << window);
    CHECK(distance(mean_of_all<P>(P::nodes[window - 1],
                                  [&](auto f, auto c) {
                                    return pes(f, {.sigma = sigma, .window = index_t(window)}, c);
                                  }),
                   exact) < rounding);
    // the three targets are three
    if (window < 3) CHECK(distance(polynomials::smoothed_gradient<P>(sigma, 3), exact) > 1e-3);
    CHECK(distance(polynomials::smoothed_gradient<P>(0, 3), exact) > 1e-3);
  }
  // a perturbation for two windows of one step is one for windows of two
  CHECK(distance(mean_of_all<P>(
                     P::nodes[1],
                     [&](auto f, auto c) { return gpes(f, {.sigma = sigma, .window = 1, .reuse = 2}, c); }),
                 polynomials::smoothed_gradient<P>(sigma, 2)) < rounding);
  const auto two = polynomials::smoothed_gradient<polynomials::readout>(sigma, 2);
  CHECK(distance(mean_of_all<polynomials::readout>(
                     3, [&](auto f, auto c) { return pes(f, {.sigma = sigma, .pairs = 2, .window = 2}, c); }),
                 two) < rounding);
}

TEMPLATE_TEST_CASE("sabotaged persistent evolution strategies of several parameters have the wrong mean", "",
                   polynomials::bilinear, polynomials::readout, polynomials::quadratic) {
  using P = TestType;
  using enum mutants::pes_mutation;
  const auto exact = polynomials::smoothed_gradient<P>(sigma, 1);
  CHECK(distance(mutants::enumerate_pes<P>(none, sigma), exact) < rounding);
  for (const auto m : {missing_half, newest_noise_only, all_but_newest, one_number, crosses_parameters,
                       reuses_noise, forgets_state, swaps_the_pair_late}) {
    INFO("mutation " << int(m));
    CHECK(distance(mutants::enumerate_pes<P>(m, sigma), exact) > 1e-2);
  }
}

TEST_CASE("a harmonic loss and its smoothing have the same gradient, though it is cubic") {
  struct harmonic {  // a^3 - 3 a b^2
    using scalar = double;
    using input = double;
    dims size() const { return {2, 1, 0, 0, 1}; }
    void step(double, const edge<double>& e) const {
      const double a = e.theta[0], b = e.theta[1];
      *e.loss = a * (a * a - 3 * b * b);
      e.next[0] = e.s[0];
    }
  };
  const std::vector<double> theta{.7, -.4}, xs{0};
  for (const double width : {.1, .5, 3.}) {
    testing::enumerator all(3);
    const auto r = testing::enumerate(
        all, es(harmonic{}, {.sigma = width}, testing::enumerating_chooser(all)), theta, xs);
    CHECK(r.mean[0] == Approx(3 * (.7 * .7 - .4 * .4)).epsilon(1e-11));
    CHECK(r.mean[1] == Approx(6 * .7 * .4).epsilon(1e-11));
  }
}

TEST_CASE("pes may be farther from the gradient than es, where both windows pull at the same theta") {
  struct gap {  // s_1 = theta, then loss s_1 (s_1 - theta)^2: 0 for every theta
    using scalar = double;
    using input = bool;
    dims size() const { return {1, 1, 0, 0, 1}; }
    void step(bool second, const edge<double>& e) const {
      const double d = e.s[0] - e.theta[0];
      *e.loss = second ? e.s[0] * d * d : 0;
      e.next[0] = e.theta[0];
    }
  };
  const std::vector<double> theta{.3};
  const bool xs[] = {false, true};
  const double width = .5;
  testing::enumerator one(3), many(3);
  CHECK(std::abs(
            testing::enumerate(one, es(gap{}, {.sigma = width}, testing::enumerating_chooser(one)), theta, xs)
                .mean[0]) < 1e-14);
  CHECK(testing::enumerate(many, pes(gap{}, {.sigma = width}, testing::enumerating_chooser(many)), theta, xs)
            .mean[0] == Approx(2 * width * width).epsilon(1e-12));
}
