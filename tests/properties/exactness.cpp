#include "tests/properties/any_cells.hpp"
#include "tests/support/catch.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/checkpointed_bptt.hpp"
#include "unroll/estimate/diagonal_rtrl.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/testing/oracle.hpp"

// Every exact algorithm gives the same gradient on every cell. Their roundings differ by some hundred
// additions of a relative 1e-16 each; differences of the loss are good to some 1e-12.
namespace {

namespace testing = unroll::testing;
using unroll::index_t;

template <class E, class Task>
std::vector<double> gradient_of(E estimator, const Task& task) {
  std::vector<double> g(task.theta.size());
  estimator.reset({});
  const auto moved = estimator.advance(task.theta, task.xs, g);
  const auto rest = estimator.finish(task.theta, g);
  REQUIRE(moved.code == unroll::status::ok);
  REQUIRE(rest.code == unroll::status::ok);
  return g;
}

constexpr index_t steps = 20;

std::vector<support::any_task<double>> tasks() {
  std::vector<support::any_task<double>> all;
  for (const index_t lanes : {1, 2, 5})
    for (const index_t out : {0, 3}) {
      const std::uint64_t seed = 100 + std::uint64_t(10 * lanes + out);
      for (auto& task : support::any_tasks<double>(steps, 3, lanes, out, seed))
        all.push_back(std::move(task));
      for (auto& task : support::more_tasks<double>(steps, 3, lanes, out, seed + 5))
        all.push_back(std::move(task));
      all.push_back(support::make_task<double>("stack", steps, 3, lanes, out, seed + 9));
    }
  return all;
}

}  // namespace

TEST_CASE("bptt, checkpointed bptt, rtrl and long tbptt are the same gradient on every cell") {
  for (const auto& task : tasks()) {
    INFO(task.name);
    const auto g = gradient_of(unroll::bptt(task.cell, {.max_steps = steps, .block = 7}), task);
    const auto close = [&](const std::vector<double>& other) {
      CHECK(testing::relative_error(other, g) < 1e-12);
    };
    for (const index_t slots : {1, 3, 30})
      for (const index_t length : {index_t(0), steps})
        close(gradient_of(unroll::checkpointed_bptt(task.cell, {.slots = slots, .steps = length, .block = 2}),
                          task));
    close(gradient_of(unroll::rtrl(task.cell), task));
    if (unroll::supports(task.cell, unroll::hook::diag_jacobian) && task.cell.units_apart())
      close(gradient_of(unroll::diagonal_rtrl(task.cell), task));
    close(gradient_of(unroll::tbptt(task.cell, {.k1 = 1, .k2 = steps}), task));
    close(gradient_of(unroll::tbptt(task.cell, {.k1 = 7, .k2 = steps + 7}), task));
    close(gradient_of(unroll::tbptt(task.cell, {.k1 = steps, .k2 = steps}), task));
    close(testing::backward_gradient(task.cell, task.theta, task.xs));
    close(testing::forward_gradient(task.cell, task.theta, task.xs));
  }
}

TEST_CASE("the exact gradient agrees with differences of the loss on every cell") {
  for (const auto& task : tasks()) {
    INFO(task.name);
    const auto g = gradient_of(unroll::bptt(task.cell, {.max_steps = steps}), task);
    CHECK(testing::relative_error(testing::difference_gradient(task.cell, task.theta, task.xs), g) < 3e-11);
  }
}

TEST_CASE("a tbptt that is one step too short is not exact") {
  for (const auto& task : support::any_tasks<double>(6, 3, 1, 2, 7)) {
    INFO(task.name);
    const auto g = gradient_of(unroll::bptt(task.cell, {.max_steps = 6}), task);
    CHECK(testing::relative_error(gradient_of(unroll::tbptt(task.cell, {.k1 = 1, .k2 = 5}), task), g) > 1e-9);
  }
}
