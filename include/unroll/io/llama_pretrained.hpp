#pragma once

#include "unroll/llama/weights.hpp"

namespace unroll::llama {

/// A Llama from files.
template <class T>
struct pretrained {
  config shape;
  parameters<T> weights;  ///< laid out by weight_map(shape)
};

struct load_options {
  bool allow_non_finite = false;  ///< otherwise a nan or infinite weight is refused by name and position
};

namespace detail {

// The numbers of a Llama, in a type that no shape overflows.
inline double weight_count(const config& c) {
  const double d = double(c.hidden), q = double(c.heads) * double(c.head_dim),
               kv = double(c.kv_heads) * double(c.head_dim);
  const double layer = 2 * d + 2 * d * q + 2 * d * kv + 3 * d * double(c.intermediate_size);
  return double(c.layers) * layer + d + (c.tied ? 1 : 2) * d * double(c.vocabulary);
}

}  // namespace detail

}  // namespace unroll::llama
