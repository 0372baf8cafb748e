#pragma once

#include "unroll/data/sequences.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::data {

struct anbn_options {
  index_t steps = 1000;
  index_t longest = 32;  ///< n is uniform on 1 .. longest
  index_t lanes = 1;
};

/// An endless stream of a^n newline b^n newline, one character a step, each n drawn anew; the label is the
/// next character. Tokens and labels: a = 0, b = 1, newline = 2. A pair carries log2(longest) bits in
/// longest + 3 characters on average: the entropy is 5/35 = 0.142857 bits a character for longest = 32.
template <class T = double>
sequences<T> anbn(const anbn_options& o, key k) {
  check_at_least("anbn", "longest", o.longest, 1);
  sequences<T> s({.steps = o.steps, .lanes = o.lanes, .token = true, .label = true});
  for (index_t l = 0; l < o.lanes; ++l) {
    index_t t = 0;
    const auto put = [&](std::int32_t character) {
      if (t < o.steps) s.token(t, l) = character;
      if (t > 0 && t <= o.steps) s.label(t - 1, l) = character;
      ++t;
    };
    for (index_t pair = 0; t <= o.steps; ++pair) {
      const index_t n = 1 + draw_index(k, pair, o.longest, std::uint32_t(l));
      for (std::int32_t character : {0, 1}) {
        for (index_t i = 0; i < n; ++i) put(character);
        put(2);
      }
    }
  }
  return s;
}

}  // namespace unroll::data
