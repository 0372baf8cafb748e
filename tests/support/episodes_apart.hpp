#pragma once

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/system/with_resets.hpp"

// That an estimator which draws nothing forgets a lane that begins anew: its gradient of episodes one behind
// the other is the sum of those that it has of each apart. The task: two lanes, more than eleven steps.
namespace support {

template <class Task, class Make>
void episodes_apart(const Task& t, Make&& make) {
  using namespace unroll;
  using input = resettable<typename Task::example>;
  const auto add = [&](auto estimator, const auto& xs, gradient<double>& g) {
    estimator.reset({});
    estimator.advance(t.theta, xs, g);
    estimator.finish(t.theta, g);
  };
  gradient<double> apart(t.cell.size().params);
  const auto one = t.cell.with_lanes(1);
  for (const index_t lane : {0, 1}) {
    std::vector<typename Task::example> episode;
    for (std::size_t k = 0; k < t.xs.size(); ++k) {
      if (k == 11 || (k == 7 && lane == 0)) add(make(one), std::exchange(episode, {}), apart);
      episode.push_back(t.cell.lanes_from(t.xs[k], lane));
    }
    add(make(one), episode, apart);
  }
  const std::uint8_t first[] = {1, 0}, both[] = {1, 1};
  std::vector<input> xs;
  for (std::size_t k = 0; k < t.xs.size(); ++k)
    xs.push_back({t.xs[k], k == 7 ? first : k == 11 ? both : nullptr});
  const auto is_that = [&](const auto& f) {
    gradient<double> g(apart.size());
    add(make(f), xs, g);
    CHECK(golden::relative_error(g, apart) < 1e-13);
  };
  call_counts calls;
  is_that(with_resets(t.cell));
  is_that(any_system<double, input>(with_resets(t.cell)));
  is_that(counted(with_resets(t.cell), calls));
}

}  // namespace support
