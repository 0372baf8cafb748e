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

// Whether no unit of a cell of rectified linear units begins or ceases to be 0 while a parameter moves by h.
bool away_from_kinks(const support::any_task<double>& task, double h) {
  std::vector<double> theta = task.theta;
  const auto active = [&] {
    std::vector<bool> positive;
    testing::edge_memory<support::any_cell<double>> at(task.cell);
    for (const auto& x : task.xs) {
      task.cell.step(x, at.at(theta));
      for (const double s : at.next) positive.push_back(s > 0);
      at.s = at.next;
    }
    return positive;
  };
  const std::vector<bool> here = active();
  for (double& v : theta) {
    const double centre = v;
    for (const double to : {centre - h, centre + h}) {
      v = to;
      if (active() != here) return false;
    }
    v = centre;
  }
  return true;
}

TEST_CASE(
    "on cells with kinks and norms the gradients are the same, and those of differences within a smooth "
    "piece") {
  constexpr double h = 1e-3;
  index_t kinks = 0;
  for (const char* cell : {"relu", "layer_norm_gru", "layer_norm_lstm"})
    for (const index_t lanes : {1, 2})
      for (std::uint64_t seed = 1; seed <= 4; ++seed) {
        const auto task = support::make_task<double>(cell, 8, 3, lanes, 2, seed);
        INFO(task.name);
        const auto g = gradient_of(unroll::bptt(task.cell, {.max_steps = 8}), task);
        CHECK(testing::relative_error(gradient_of(unroll::rtrl(task.cell), task), g) < 1e-12);
        CHECK(testing::relative_error(gradient_of(unroll::tbptt(task.cell, {.k1 = 1, .k2 = 8}), task), g) <
              1e-12);
        if (task.name.starts_with("relu") && !away_from_kinks(task, h)) {
          ++kinks;
          continue;
        }
        CHECK(testing::relative_error(testing::difference_gradient(task.cell, task.theta, task.xs, {}, h),
                                      g) < 3e-11);
      }
  CHECK(kinks < 4);  // of the 8 of relu
}

TEST_CASE("a tbptt that is one step too short is not exact") {
  auto tasks = support::any_tasks<double>(6, 3, 1, 2, 7);
  for (const char* cell : {"stack", "relu", "layer_norm_gru", "layer_norm_lstm"})
    tasks.push_back(support::make_task<double>(cell, 6, 3, 1, 2, 2));
  for (const auto& task : tasks) {
    INFO(task.name);
    const auto g = gradient_of(unroll::bptt(task.cell, {.max_steps = 6}), task);
    CHECK(testing::relative_error(gradient_of(unroll::tbptt(task.cell, {.k1 = 1, .k2 = 5}), task), g) > 1e-9);
  }
}
