#pragma once

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "unroll/testing/system_conformance.hpp"

namespace support {

using strings = std::vector<std::string>;

template <class Cell>
strings examine(const Cell& cell, std::uint64_t seed, feed kind = feed::dense) {
  const random_task<Cell> task(cell, 6, unroll::key{seed}, kind);
  return unroll::testing::system_conformance(cell, task.theta, task.xs, {.steps = 6});
}

// Squared error and cross entropy, with and without readout, one lane and several, vectors and tokens.
template <class Cell, class Options>
void examine_all() {
  std::uint64_t seed = 0;
  for (const unroll::index_t lanes : {1, 3, 5})
    for (const unroll::index_t out : {0, 2})
      for (const auto loss : {unroll::loss_kind::squared_error, unroll::loss_kind::cross_entropy})
        for (const feed kind : {feed::dense, feed::tokens}) {
          Options o;
          o.in = 2;
          o.hidden = 3;
          o.out = out;
          o.loss = loss;
          o.lanes = lanes;
          INFO("lanes " << lanes << ", out " << out << ", cross entropy "
                        << (loss == unroll::loss_kind::cross_entropy) << ", tokens "
                        << (kind == feed::tokens));
          CHECK(examine(Cell(o), ++seed, kind) == strings{});
        }
}

}  // namespace support
