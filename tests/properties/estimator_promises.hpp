#pragma once

#include "tests/properties/any_cells.hpp"
#include "tests/support/catch.hpp"
#include "unroll/testing/estimator_conformance.hpp"

namespace support {

// The estimator that `make` gives for a cell, on every cell, with one lane and with three.
template <class T, class Make>
void examine(Make&& make) {
  for (const unroll::index_t lanes : {1, 3})
    for (const auto& task : any_tasks<T>(53, 3, lanes, 2, 11)) {
      INFO(task.name);
      CHECK(unroll::testing::estimator_conformance(make(task.cell), task.theta, task.xs, &task.bad) ==
            std::vector<std::string>{});
    }
}

}  // namespace support
