#include "unroll/optim/clip.hpp"

#include <array>
#include <limits>
#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/testing/enumerate.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using list = std::vector<double>;

namespace {

// The mean of clip(estimate) over all cuts that artbp draws on the golden sequence. bounds: of the estimates
// before, largest number and norm.
template <class Clip>
list mean_of_clipped(const Clip& clip, std::array<double, 2>* bounds = nullptr) {
  testing::enumerator all;
  artbp e(golden::rnn<double>{}, fixed_truncation(2), {}, testing::enumerating_chooser(all));
  const auto xs = golden::inputs();
  const auto theta = golden::theta();
  gradient<double> g(index_t(theta.size()));
  const auto run = [&](view<double> out) {
    g.zero();
    e.reset(key{});
    REQUIRE(e.advance(theta, xs, g).code == status::ok);
    REQUIRE(e.finish(theta, g).code == status::ok);
    if (bounds) {
      for (const double v : g) (*bounds)[0] = std::max((*bounds)[0], std::abs(v));
      (*bounds)[1] = std::max((*bounds)[1], clip_norm(g, std::numeric_limits<double>::infinity()));
    }
    clip(g);
    std::copy(g.begin(), g.end(), out.begin());
  };
  const auto r = testing::enumerate_outcomes(all, g.size(), run);
  CHECK(r.outcomes > 2);
  return r.mean;
}

}  // namespace

TEST_CASE("clipping by value cuts every number by itself and leaves what is not finite to the optimiser") {
  constexpr double inf = std::numeric_limits<double>::infinity();
  list g{3, -0.5, -4, 1, std::nan(""), -inf, 0};
  CHECK(clip_value(dparams<double>(g), 1) == 2);
  CHECK((g[0] == 1 && g[1] == -0.5 && g[2] == -1 && g[3] == 1 && std::isnan(g[4]) && g[5] == -inf));
  gradient<float> one(1);
  one[0] = -1e30f;
  CHECK(clip_value(one, 0.25) == 1);
  CHECK(one[0] == -0.25f);
  for (const double most : {0.0, -1.0, std::nan("")})
    CHECK_THROWS_WITH(clip_value(dparams<double>(g), most),
                      ContainsSubstring("clip_value: most: is " + number_text(most)));
}

TEST_CASE("clipping by lane scales each gradient down and adds them up") {
  list lanes{3, 4, 0.3, -0.4, 0, -10}, g{1, 1};
  CHECK(clip_lanes(view<double>(lanes), 1, dparams<double>(g)) == 2);
  CHECK(g[0] == Approx(1 + 0.6 + 0.3));
  CHECK(g[1] == Approx(1 + 0.8 - 0.4 - 1));
  CHECK(lanes[2] == 0.3);
  CHECK_THROWS_WITH(clip_lanes(view<double>(lanes), 1, dparams<double>(lanes).part(0, 4)),
                    ContainsSubstring("lanes: have 6 numbers, which is no multiple of the 4 of g"));
  CHECK_THROWS_AS(clip_lanes(view<double>(lanes), 1, dparams<double>()), error);
}

TEST_CASE("clipping an unbiased estimate by value biases it, as far as the outcomes that it cuts reach") {
  std::array<double, 2> bounds{};
  const list exact = mean_of_clipped([](gradient<double>&) {}, &bounds);
  CHECK(golden::relative_error(exact, golden::gradient) < 1e-14);
  CHECK(golden::relative_error(mean_of_clipped([&](auto& g) { clip_value(g, bounds[0]); }), exact) < 1e-14);

  const double most = bounds[0] / 3;
  const list mean = mean_of_clipped([&](auto& g) { clip_value(g, most); });
  const list cut_off = mean_of_clipped([&](auto& g) {
    for (double& v : g) v = std::copysign(std::max(0.0, std::abs(v) - most), v);
  });
  for (std::size_t i = 0; i < exact.size(); ++i)
    CHECK(mean[i] - exact[i] == Approx(-cut_off[i]).margin(1e-14));
  CHECK(golden::relative_error(mean, golden::gradient) > 0.05);
  // by value, even the exact gradient gets another direction
  gradient<double> g(index_t(exact.size()));
  std::copy(exact.begin(), exact.end(), g.begin());
  REQUIRE(clip_value(g, most / 3) > 0);
  double dot = 0, left = 0, right = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    dot += g[index_t(i)] * exact[i];
    left += g[index_t(i)] * g[index_t(i)];
    right += exact[i] * exact[i];
  }
  CHECK(dot / std::sqrt(left * right) < 0.999);
}

TEST_CASE("clipping an unbiased estimate by its norm biases it too, and not where no outcome is longer") {
  std::array<double, 2> bounds{};
  const list exact = mean_of_clipped([](gradient<double>&) {}, &bounds);
  CHECK(golden::relative_error(mean_of_clipped([&](auto& g) { clip_norm(g, bounds[1]); }), exact) < 1e-14);
  list mean = mean_of_clipped([&](auto& g) { clip_norm(g, bounds[1] / 3); });
  CHECK(golden::relative_error(mean, golden::gradient) > 0.05);
  // the mean of clipped estimates has another direction than the gradient: no step size mends it
  double dot = 0, square = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) dot += mean[i] * exact[i], square += exact[i] * exact[i];
  for (std::size_t i = 0; i < exact.size(); ++i) mean[i] *= square / dot;
  CHECK(golden::relative_error(mean, golden::gradient) > 0.001);
}
