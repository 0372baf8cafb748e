#include "tests/properties/unbiased.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/mean_of.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/estimate/telescope.hpp"

using support::examine_bias;
using support::tiny_tasks;
using unroll::index_t;

TEST_CASE("artbp with a fixed cut probability is unbiased on every cell, by enumeration of all its cuts") {
  for (const auto& task : tiny_tasks(4, 1000))
    for (const double mean : {1.1, 2.0, 5.0})
      examine_bias(task, [&](const auto& f, const auto& c) {
        return unroll::artbp(f, unroll::fixed_truncation(mean), {.slots = 2, .block = 2}, c);
      });
}

TEST_CASE("artbp with a polynomial law is unbiased on every cell, also on longer sequences") {
  for (const index_t steps : {4, 9})
    for (const auto& task : support::any_tasks<double>(steps, 2, 2, 1, 77))
      for (const double alpha : {2.5, 4.0})
        examine_bias(task, [&](const auto& f, const auto& c) {
          return unroll::artbp(f, unroll::polynomial_truncation(3, alpha), {.slots = 3, .block = 4}, c);
        });
}

TEST_CASE("telescope is unbiased on every cell, by enumeration of all its levels") {
  for (const auto& task : support::any_tasks<double>(9, 2, 2, 1, 87))
    for (const auto kind : {unroll::telescope_kind::roulette, unroll::telescope_kind::single_sample})
      examine_bias(task, [&](const auto& f, const auto& c) {
        return unroll::telescope(f, {.ladder = {{1, 2}, {2, 4}, {4, 4}}, .kind = kind, .max_steps = 9}, c);
      });
}

TEST_CASE("a mean of two artbp is unbiased and halves the variance") {
  for (const auto& task : tiny_tasks(4, 12)) {
    const auto make = [](const auto& f, const auto& c) {
      return unroll::artbp(f, unroll::fixed_truncation(3), {}, c);
    };
    const double one = examine_bias(task, make);
    const double two =
        examine_bias(task, [&](const auto& f, const auto& c) { return unroll::mean_of(make(f, c), 2); });
    CHECK(std::abs(two - one / 2) <= 1e-10 * (1 + one));
  }
}

namespace {

// Pays twice the probability where it should pay the cut probability itself: a wrong law, seen from outside.
struct dishonest {
  mutable int asked = 0;
  double cut(index_t) const { return asked++ % 2 == 0 ? 0.25 : 0.5; }
};

}  // namespace

TEST_CASE("a truncation that pays for another probability than it cuts with is biased") {
  unroll::testing::enumerator all;
  const auto task = support::any_tasks<double>(4, 2, 1, 1, 5)[0];
  const auto exact = unroll::testing::backward_gradient(task.cell, task.theta, task.xs);
  unroll::artbp wrong(task.cell, dishonest{}, {}, unroll::testing::enumerating_chooser(all));
  const auto r = unroll::testing::enumerate(all, wrong, task.theta, task.xs);
  CHECK(unroll::testing::relative_error(r.mean, exact) > 1e-4);
}
