#pragma once

#include "unroll/data/sequences.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::data {

struct delay_options {
  index_t steps = 1000;
  index_t lag = 2;  ///< steps from an input to its target
  index_t lanes = 1;
};

/// x_t = -1 or +1 at random, target_t = x_{t - lag}; no loss in the first `lag` steps. in = out = 1. Whoever
/// remembers less than `lag` steps predicts 0 at best: a loss of 1/2 a step and lane.
template <class T = double>
sequences<T> delay(const delay_options& o, key k) {
  check_at_least("delay", "lag", o.lag, 0);
  sequences<T> s({.steps = o.steps, .lanes = o.lanes, .in = 1, .out = 1});
  for (index_t t = 0; t < o.steps; ++t) {
    draw_signs(k, t, view<T>(&s.x(t, 0), o.lanes));
    for (index_t l = 0; l < o.lanes && t >= o.lag; ++l) s.target(t, l) = s.x(t - o.lag, l);
    if (t < o.lag) s.without_loss(t);
  }
  return s;
}

}  // namespace unroll::data
