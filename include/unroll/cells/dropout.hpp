#pragma once

#include <cstdint>
#include <string>

#include "unroll/cells/example.hpp"
#include "unroll/cells/recurrent_step.hpp"
#include "unroll/rng/chooser.hpp"

namespace unroll::cells {

/// Dropout in a stack: a number is zero with the probability that is given and else divided by 1 -
/// probability, in what layers hand up, not in what they keep as their states (as nn.LSTM(dropout) of PyTorch
/// in training), and in x.
struct dropout_options {
  double probability = 0;  ///< of every h' that goes up to the next layer, in [0, 1); 0: none, to evaluate
  double input = 0;        ///< of every number of x, in [0, 1); of a token: that it is not seen; 0: none
};

/// Throws unroll::error unless the probabilities are below 1.
inline void check_dropout(const dropout_options& o) {
  const auto check = [](const char* name, double p) {
    if (!(p >= 0 && p < 1)) fail("stack", name, "is " + std::to_string(p) + ", must be in [0, 1)");
  };
  check("dropout.probability", o.probability);
  check("dropout.input", o.input);
}

/// The key that an example draws its masks from. Throws unroll::error where it has none: a sequence counts
/// its steps from 0, so that without a key of its own it would have the masks of every other one.
template <class T>
key dropout_key(const example<T>& x) {
  if (!x.draws)
    fail("stack", "x.draws", "is null, but dropout draws: set it to a key, another one for every sequence");
  return *x.draws;
}

/// WRITES to every number of `mask` 0 with that probability, else 1 / (1 - probability): a function of the
/// key and of `first`, the number of the first draw, alone.
template <class T>
void draw_mask(key k, std::int64_t first, double probability, const matrix<T>& mask) {
  const philox_chooser draw(k);
  const T kept = T(1 / (1 - probability));
  for (index_t l = 0; l < mask.cols; ++l)
    for (index_t i = 0; i < mask.rows; ++i, ++first)
      column(mask, l)[i] = draw.coin(first, probability) ? T(0) : kept;
}

/// to = m a, or to += m a where `add`, element by element; as many rows and columns.
template <class T>
void times_mask(const matrix<const T>& m, const matrix<const T>& a, bool add, const matrix<T>& to) {
  for (index_t l = 0; l < m.cols; ++l)
    for (index_t i = 0; i < m.rows; ++i) {
      const T v = column(m, l)[i] * column(a, l)[i];
      column(to, l)[i] = add ? column(to, l)[i] + v : v;
    }
}

}  // namespace unroll::cells
