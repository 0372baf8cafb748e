#pragma once

#include <algorithm>
#include <span>

#include "unroll/core/linalg.hpp"

namespace unroll::kernels {

struct attention_shape {
  index_t heads = 0;     ///< query heads
  index_t kv_heads = 0;  ///< query head j reads key-value head j / (heads / kv_heads)
  index_t head = 0;      ///< numbers in a head
};

/// Which of the keys of its own sequence query i sees: the first visible(i), and itself. Causal by default;
/// with `ordinals` tokens followed by memory tokens, memory token j sees the first (j + 1) ratio ordinals and
/// itself, no other memory token.
struct attention_mask {
  index_t ordinals = -1;  ///< -1: all tokens are ordinals, the mask is causal
  index_t ratio = 0;

  bool memory_token(index_t i) const { return ordinals >= 0 && i >= ordinals; }
  index_t visible(index_t i) const {
    return memory_token(i) ? std::min(ordinals, (i - ordinals + 1) * ratio) : i + 1;
  }
};

/// Keys and values, kv_heads * head x n each.
template <class T>
struct key_block {
  matrix<const T> k, v;
};
/// Their adjoints, which are added to; null data: not wanted.
template <class T>
struct key_block_adjoint {
  matrix<T> dk, dv;
};

}  // namespace unroll::kernels
