#pragma once

#include <cmath>

#include "unroll/data/sequences.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::data {

struct copy_options {
  index_t blanks = 100;  ///< T, the time to remember
  index_t symbols = 8;   ///< size of the alphabet
  index_t length = 10;   ///< symbols to remember
  index_t lanes = 1;
};

/// The copy task (Hochreiter & Schmidhuber 1997, in the form of Arjovsky, Shah & Bengio 2016): `length`
/// symbols, T - 1 blanks, a signal, `length` blanks; the answer is T + length blanks, then the symbols.
/// T + 2 length steps. Tokens: symbols 0 .. symbols - 1, then the blank, then the signal (in = symbols + 2);
/// labels: symbols, then the blank (out = symbols + 1).
template <class T = double>
sequences<T> copy(const copy_options& o, key k) {
  check_at_least("copy", "blanks", o.blanks, 1);
  check_at_least("copy", "symbols", o.symbols, 1);
  check_at_least("copy", "length", o.length, 1);
  const index_t steps = o.blanks + 2 * o.length;
  sequences<T> s({.steps = steps, .lanes = o.lanes, .token = true, .label = true});
  const auto blank = std::int32_t(o.symbols), signal = std::int32_t(o.symbols + 1);
  for (index_t l = 0; l < o.lanes; ++l) {
    for (index_t t = 0; t < steps; ++t) s.token(t, l) = s.label(t, l) = blank;
    s.token(o.length + o.blanks - 1, l) = signal;
    for (index_t i = 0; i < o.length; ++i)
      s.token(i, l) = s.label(o.blanks + o.length + i, l) =
          std::int32_t(draw_index(k, i, o.symbols, std::uint32_t(l)));
  }
  return s;
}

/// Mean cross entropy, nats a step, of the best answer without memory: length ln(symbols) / (T + 2 length);
/// 10 ln 8 / (T + 20) by default.
inline double copy_floor(const copy_options& o) {
  return double(o.length) * std::log(double(o.symbols)) / double(o.blanks + 2 * o.length);
}

}  // namespace unroll::data
