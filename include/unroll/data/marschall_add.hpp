#pragma once

#include <algorithm>

#include "unroll/data/sequences.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::data {

struct marschall_add_options {
  index_t steps = 1000;
  index_t first = 6;    ///< t1
  index_t second = 10;  ///< t2
  index_t lanes = 1;
};

/// The Add task of Marschall, Cho & Savin (2020): x_t is a fair coin, and the label of step t is 1 with
/// probability 1/2 + x_{t-t1} / 2 - x_{t-t2} / 4. Tokens 0 and 1, two labels; no loss in the first
/// max(t1, t2) steps. The cross entropy a step shows how far memory reaches: 0.6616 nats knowing neither
/// earlier input, 0.5192 knowing x_{t-t1}, 0.4544 knowing both.
template <class T = double>
sequences<T> marschall_add(const marschall_add_options& o, key k) {
  check_at_least("marschall_add", "first", o.first, 0);
  check_at_least("marschall_add", "second", o.second, 0);
  sequences<T> s({.steps = o.steps, .lanes = o.lanes, .token = true, .label = true});
  for (index_t t = 0; t < o.steps; ++t) {
    const bool known = t >= std::max(o.first, o.second);
    for (index_t l = 0; l < o.lanes; ++l) {
      const auto lane = std::uint32_t(l);
      s.token(t, l) = std::int32_t(draw_index(k, t, 2, lane));
      if (!known) continue;
      const double p = 0.5 + 0.5 * s.token(t - o.first, l) - 0.25 * s.token(t - o.second, l);
      s.label(t, l) = draw_uniform(k, t, lane) < p ? 1 : 0;
    }
    if (!known) s.without_loss(t);
  }
  return s;
}

}  // namespace unroll::data
