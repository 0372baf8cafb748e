#pragma once

#include "unroll/data/sequences.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::data {

struct adding_options {
  index_t steps = 100;  ///< length of one sequence
  index_t lanes = 1;
};

/// The adding problem (Hochreiter & Schmidhuber 1997, in the fixed-length form of Le, Jaitly & Hinton 2015):
/// x_t = (u_t, mark_t) with u uniform on [0, 1) and two marks, one in each half; the target is the sum of the
/// two marked numbers, at the last step only. in = 2, out = 1. Always answering 1 has a mean squared error of
/// 1/6 = 0.1667, that is a loss of 1/12 a lane (the loss of a cell is half the squared error).
template <class T = double>
sequences<T> adding(const adding_options& o, key k) {
  check_at_least("adding", "steps", o.steps, 2);
  sequences<T> s({.steps = o.steps, .lanes = o.lanes, .in = 2, .out = 1});
  const index_t half = o.steps / 2;
  for (index_t l = 0; l < o.lanes; ++l) {
    const auto lane = std::uint32_t(l);
    for (index_t t = 0; t < o.steps; ++t) s.x(t, l, 0) = T(draw_uniform(k, t, lane));
    const index_t first = draw_index(k, 0, half, lane),
                  second = half + draw_index(k, 1, o.steps - half, lane);
    s.x(first, l, 1) = s.x(second, l, 1) = 1;
    s.target(o.steps - 1, l) = s.x(first, l, 0) + s.x(second, l, 0);
  }
  for (index_t t = 0; t + 1 < o.steps; ++t) s.without_loss(t);
  return s;
}

}  // namespace unroll::data
