#pragma once

#include "unroll/core/config.hpp"

namespace unroll::kernels {

/// Cosines and sines of the rotary positions 0 .. positions - 1, positions x head_dim numbers: at data + p
/// head_dim stand the head_dim / 2 cosines of position p, then its sines, all times the attention factor. A
/// view; the numbers live at an executor's place.
template <class T>
struct rotary_table {
  const T* data = nullptr;
  index_t head_dim = 0;     ///< numbers in a head
  index_t positions = 0;    ///< that the table has
  bool neighbours = false;  ///< pair i are the elements 2i and 2i + 1, else i and i + head_dim / 2
};

/// Which way positions turn: `forward`, or `back`, the transpose, which is the vjp and, where the attention
/// factor is 1, the inverse.
enum class turn { forward, back };

}  // namespace unroll::kernels
