#pragma once

#include "tests/properties/any_cells.hpp"
#include "tests/support/catch.hpp"
#include "unroll/testing/enumerate.hpp"
#include "unroll/testing/oracle.hpp"

namespace support {

/// Visits every outcome of make(cell, chooser) and compares the mean with the exact gradient, to rounding:
/// 1e-11 of what the numbers in the sum are large. Returns the relative variance tr Cov / |g|^2.
template <class Make>
double examine_bias(const any_task<double>& task, Make&& make) {
  namespace testing = unroll::testing;
  unroll::testing::enumerator all;
  const auto r = testing::enumerate(all, make(task.cell, unroll::testing::enumerating_chooser(all)),
                                    task.theta, task.xs);
  const auto exact = testing::backward_gradient(task.cell, task.theta, task.xs);
  double norm = 0, bias = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    norm += exact[i] * exact[i];
    bias += (r.mean[i] - exact[i]) * (r.mean[i] - exact[i]);
  }
  INFO(task.name << ", " << task.xs.size() << " steps, " << r.outcomes << " outcomes, relative bias "
                 << std::sqrt(bias / norm));
  CHECK(r.outcomes > 1);
  CHECK(std::abs(r.probability - 1) < 1e-12);
  CHECK(std::sqrt(bias) <= 1e-11 * (std::sqrt(norm) + std::sqrt(std::max(0.0, r.covariance_trace))));
  return r.covariance_trace / norm;
}

/// Tasks of at most `bits` state entries x steps: random cells, 1 to `longest` steps, 1 or 2 lanes.
inline std::vector<any_task<double>> tiny_tasks(unroll::index_t longest, unroll::index_t bits) {
  std::vector<any_task<double>> all;
  std::uint64_t seed = 1000;
  for (unroll::index_t steps = 2; steps <= longest; ++steps)
    for (const unroll::index_t hidden : {1, 2})
      for (const unroll::index_t lanes : {1, 2})
        for (const unroll::index_t out : {0, 1})
          for (auto& task : any_tasks<double>(steps, hidden, lanes, out, seed += 10))
            if (task.cell.size().state * steps <= bits) all.push_back(std::move(task));
  return all;
}

}  // namespace support
