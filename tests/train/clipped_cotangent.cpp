#include "unroll/train/clipped_cotangent.hpp"

#include <limits>

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/lane_parallel.hpp"
#include "unroll/testing/enumerate.hpp"

using namespace unroll;
using training::clipped_cotangent;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

// s' = 2 s + theta x and loss = s', in two lanes; x is the number of the first lane, the second has 1.
struct doubling {
  using scalar = double;
  using input = double;
  dims size() const { return {.params = 1, .state = 2, .tape = 0, .workspace = 0, .lanes = 2}; }
  void step(const input& x, const edge<double>& e) const {
    e.next[0] = 2 * e.s[0] + e.theta[0] * x;
    e.next[1] = 2 * e.s[1] + e.theta[0];
    *e.loss = e.next[0] + e.next[1] / 8;
  }
  void vjp(const input& x, const const_edge<double>&, dstate<const double> dnext, double dloss,
           dstate<double> ds, dparams<double> dtheta) const {
    const double first = (dnext.empty() ? 0 : dnext[0]) + dloss,
                 second = (dnext.empty() ? 0 : dnext[1]) + dloss / 8;
    if (!ds.empty()) ds[0] += 2 * first, ds[1] += 2 * second;
    if (!dtheta.empty()) dtheta[0] += first * x + second;
  }
};

template <class E, class Theta, class Inputs>
std::vector<double> gradient_of(E e, const Theta& theta, const Inputs& xs) {
  gradient<double> g(index_t(theta.size()));
  REQUIRE(e.advance(theta, xs, g).code == status::ok);
  REQUIRE(e.finish(theta, g).code == status::ok);
  return {g.begin(), g.end()};
}

}  // namespace

TEST_CASE("the cotangent of a state is clipped lane by lane, and that of the step's own loss is not") {
  const std::vector<double> theta{0.5}, xs{1, 10, 100, 1000};
  const auto g = [&](double most) {
    return gradient_of(bptt(clipped_cotangent(doubling{}, most), {.max_steps = 4}), theta, xs)[0];
  };
  // delta of the first lane: 1, 3, 7, 15 from the last step back; of the second an eighth of it
  CHECK(g(inf) == Approx(1000 * 1 + 100 * 3 + 10 * 7 + 1 * 15 + (1 + 3 + 7 + 15) / 8.0));
  // carried to it: 0, 2, 6, 14, with the norm 4 at most 0, 2, 4, 4, since 2 (1 + 4) = 10; of the second lane
  // 0, .25, .75, 1.75 as they are
  CHECK(g(4) == Approx(1000 * 1 + 100 * 3 + 10 * 5 + 1 * 5 + (1 + 3 + 7 + 15) / 8.0));
  CHECK(g(0.5) ==
        Approx(1000 + 150 + 15 + 1.5 + (1 + 3) / 8.0 + 2 * (0.125 + 0.5)));  // the second lane too, twice
  for (const double most : {0.0, -1.0, std::nan("")})
    CHECK_THROWS_WITH(clipped_cotangent(doubling{}, most), Catch::Matchers::ContainsSubstring("most: is"));
}

TEST_CASE("a cotangent that is never clipped leaves the bits of single steps, and lanes can be dealt out") {
  support::random_task<cells::elman<double>> task(cells::elman<double>({.hidden = 3, .lanes = 4}), 9, key{3});
  const clipped_cotangent far(task.cell, inf), near(task.cell, 0.05);
  const auto exact = gradient_of(bptt(task.cell, {.max_steps = 9}), task.theta, task.xs);
  const auto same = gradient_of(bptt(far, {.max_steps = 9}), task.theta, task.xs);
  CHECK(golden::relative_error(same, exact) < 1e-13);
  const auto clipped = gradient_of(bptt(near, {.max_steps = 9}), task.theta, task.xs);
  CHECK(golden::relative_error(clipped, exact) > 0.01);
  const auto dealt = gradient_of(lane_parallel(near, {.groups = 4, .threads = 1},
                                               [](const auto& f) { return bptt(f, {.max_steps = 9}); }),
                                 task.theta, task.xs);
  CHECK(golden::relative_error(dealt, clipped) < 1e-13);
}

TEST_CASE("artbp is unbiased for no gradient once the cotangent is clipped") {
  const auto xs = golden::inputs();
  const auto theta = golden::theta();
  const auto mean_of = [&](double most) {
    testing::enumerator all;
    const artbp e(clipped_cotangent(golden::rnn<double>{}, most), fixed_truncation(2), {},
                  testing::enumerating_chooser(all));
    return testing::enumerate(all, e, theta, xs).mean;
  };
  const auto bptt_with = [&](double most) {
    return gradient_of(bptt(clipped_cotangent(golden::rnn<double>{}, most), {.max_steps = 3}), theta, xs);
  };
  CHECK(golden::relative_error(mean_of(inf), golden::gradient) < 1e-13);
  CHECK(golden::relative_error(bptt_with(inf), golden::gradient) < 1e-13);
  const double most = 0.1;
  CHECK(golden::relative_error(bptt_with(most), golden::gradient) > 0.01);
  CHECK(golden::relative_error(mean_of(most), golden::gradient) > 0.01);
  CHECK(golden::relative_error(mean_of(most), bptt_with(most)) > 0.01);
}
