#pragma once

#include "tests/properties/any_cells.hpp"
#include "tests/support/catch.hpp"
#include "unroll/testing/estimator_conformance.hpp"

namespace support {

// Takes away targets, or labels of single lanes, and returns how many losses are left.
template <class T>
std::int64_t mask(any_task<T>& task, std::vector<std::int32_t>& labels) {
  const auto lanes = std::size_t(task.cell.size().lanes);
  std::int64_t losses = 0;
  labels.resize(task.xs.size() * lanes);
  for (std::size_t t = 0; t < task.xs.size(); ++t) {
    auto& x = task.xs[t];
    if (t % 5 == 1) x.target = nullptr, x.label = nullptr;
    if (x.target) losses += std::int64_t(lanes);
    if (!x.label) continue;
    for (std::size_t l = 0; l < lanes; ++l) {
      labels[t * lanes + l] = (t + l) % 4 == 0 ? -1 : x.label[l];
      losses += labels[t * lanes + l] >= 0;
    }
    x.label = labels.data() + t * lanes;
  }
  return losses;
}

// The estimator that `make` gives for a cell, on every cell, or on those alone whose name begins with `only`,
// with one lane and with three, on sequences in which some losses are missing.
template <class T, class Make>
void examine(Make&& make, const char* only = "") {
  for (const unroll::index_t lanes : {1, 3}) {
    auto tasks = any_tasks<T>(53, 3, lanes, 2, 11);
    tasks.push_back(make_task<T>("gru", 53, 3, lanes, 2, 15, unroll::loss_kind::cross_entropy));
    for (auto& task : tasks) {
      if (task.name.find(only) != 0) continue;
      INFO(task.name);
      std::vector<std::int32_t> labels;
      const std::int64_t losses = mask(task, labels);
      auto estimator = make(task.cell);
      CHECK(unroll::testing::estimator_conformance(estimator, task.theta, task.xs, &task.bad) ==
            std::vector<std::string>{});
      unroll::gradient<T> g(task.cell.size().params);
      estimator.reset(unroll::key{3});
      unroll::report r = estimator.advance(task.theta, task.xs, g);
      r += estimator.finish(task.theta, g);
      CHECK(r.losses == losses);
    }
  }
}

}  // namespace support
