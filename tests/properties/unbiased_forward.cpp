#include "tests/properties/unbiased.hpp"
#include "unroll/estimate/forward_gradient.hpp"
#include "unroll/estimate/kf_rtrl.hpp"
#include "unroll/estimate/mean_of.hpp"
#include "unroll/estimate/nobacktrack.hpp"
#include "unroll/estimate/ok_rtrl.hpp"
#include "unroll/estimate/preuoro.hpp"
#include "unroll/estimate/random_path.hpp"
#include "unroll/estimate/uoro.hpp"

using support::examine_bias;
using support::tiny_tasks;
using unroll::index_t;

TEST_CASE("uoro is unbiased on every cell, by enumeration of all its signs") {
  for (const auto& task : tiny_tasks(4, 10))
    examine_bias(task, [](const auto& f, const auto& c) { return unroll::uoro(f, {}, c); });
}

TEST_CASE("uoro is unbiased on a stack, by enumeration of all its signs") {
  const auto task = support::make_task<double>("stack", 3, 1, 1, 1, 52);
  examine_bias(task, [](const auto& f, const auto& c) { return unroll::uoro(f, {}, c); });
}

TEST_CASE("what needs Jacobians or factors is unbiased on a stack, by enumeration of all that it draws") {
  const auto gru = support::make_task<double>("stack", 4, 2, 1, 1, 53),
             elman = support::make_task<double>("elman_2", 4, 1, 1, 1, 54);
  examine_bias(gru, [](const auto& f, const auto& c) { return unroll::kf_rtrl(f, {}, c); });
  examine_bias(elman, [](const auto& f, const auto& c) { return unroll::ok_rtrl(f, {.terms = 1}, c); });
  examine_bias(elman, [](const auto& f, const auto& c) { return unroll::preuoro(f, {}, c); });
  examine_bias(elman, [](const auto& f, const auto& c) { return unroll::random_path(f, {.p = .5}, c); });
}

TEST_CASE("uoro without balancing is unbiased too") {
  for (const auto& task : tiny_tasks(3, 8)) {
    examine_bias(task, [](const auto& f, const auto& c) { return unroll::uoro(f, {.balance = false}, c); });
    examine_bias(task, [](const auto& f, const auto& c) { return unroll::uoro(f, {.epsilon = 0}, c); });
  }
}

TEST_CASE("uoro in blocks is unbiased, also when the last block is not full") {
  for (const auto& task : tiny_tasks(4, 12))
    for (const index_t block : {2, 3}) {
      if (index_t(task.xs.size()) < block) continue;
      examine_bias(task, [&](const auto& f, const auto& c) { return unroll::uoro(f, {.block = block}, c); });
    }
}

TEST_CASE("kf_rtrl is unbiased on every cell, by enumeration of all its signs") {
  for (const auto& task : support::any_tasks<double>(5, 3, 2, 2, 41))
    examine_bias(task, [](const auto& f, const auto& c) { return unroll::kf_rtrl(f, {}, c); });
}

TEST_CASE("ok_rtrl is unbiased on every cell, by enumeration of all its signs") {
  for (const auto& task : support::any_tasks<double>(4, 2, 1, 1, 44))
    examine_bias(task, [](const auto& f, const auto& c) { return unroll::ok_rtrl(f, {.terms = 1}, c); });
}

TEST_CASE("preuoro is unbiased on every cell, by enumeration of all its signs") {
  const auto preuoro = [](const auto& f, const auto& c) { return unroll::preuoro(f, {}, c); };
  for (const auto& task : support::any_tasks<double>(2, 1, 1, 1, 43)) examine_bias(task, preuoro);
  for (const auto& task : support::more_tasks<double>(3, 1, 1, 1, 48)) examine_bias(task, preuoro);
}

TEST_CASE("forward_gradient is unbiased on every cell, by enumeration of all its directions") {
  const auto two = [](const auto& f, const auto& c) {
    return unroll::forward_gradient(f, {.directions = 2}, c);
  };
  for (const auto& task : support::any_tasks<double>(3, 1, 2, 0, 51))
    if (task.cell.size().params < 10) examine_bias(task, two);
}

TEST_CASE("random_path is unbiased on every cell, by enumeration of all its paths") {
  const auto half = [](const auto& f, const auto& c) { return unroll::random_path(f, {.p = .5}, c); };
  for (const auto& task : support::any_tasks<double>(3, 1, 1, 1, 61)) examine_bias(task, half);
  for (const auto& task : support::more_tasks<double>(3, 1, 1, 1, 66)) examine_bias(task, half);
}

TEST_CASE("nobacktrack is unbiased on every cell, by enumeration of all its signs") {
  for (const auto& task : tiny_tasks(4, 10))
    examine_bias(task, [](const auto& f, const auto& c) { return unroll::nobacktrack(f, {}, c); });
}

TEST_CASE("a mean of two estimators is unbiased and halves the variance") {
  for (const auto& task : tiny_tasks(3, 4)) {
    const auto make = [](const auto& f, const auto& c) { return unroll::uoro(f, {}, c); };
    const double one = examine_bias(task, make);
    const double two =
        examine_bias(task, [&](const auto& f, const auto& c) { return unroll::mean_of(make(f, c), 2); });
    CHECK(std::abs(two - one / 2) <= 1e-10 * (1 + one));
  }
}

TEST_CASE("antithetic pairs are unbiased") {
  for (const auto& task : tiny_tasks(4, 6))
    examine_bias(
        task, [](const auto& f, const auto& c) { return unroll::mean_of(unroll::uoro(f, {}, c), 2, true); });
}
