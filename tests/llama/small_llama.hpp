#pragma once

#include <vector>

#include "unroll/llama/lora.hpp"

namespace tests {

using unroll::index_t;
namespace llama = unroll::llama;

/// Two layers, grouped queries, every width different.
inline llama::config small_llama() {
  return {.hidden = 10,
          .intermediate_size = 14,
          .layers = 2,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 6,
          .vocabulary = 23,
          .context = 32,
          .norm_epsilon = 1e-3};
}

template <class T>
std::vector<T> normals(index_t n, std::int64_t stream, double scale) {
  std::vector<T> x(std::size_t(n), T(0));
  unroll::draw_normals(unroll::key{7}, stream, unroll::view<T>(x));
  for (T& v : x) v *= T(scale);
  return x;
}

/// Weights far from linear behaviour: gains around 1, matrices normal with standard deviation 0.35.
template <class T>
std::vector<T> lively_weights(const llama::weight_map& map) {
  auto w = normals<T>(map.size(), 1, 0.35);
  for (const unroll::layout_block& b : map.names().blocks())
    if (b.cols == 1)
      for (index_t i = 0; i < b.size(); ++i) w[std::size_t(b.offset + i)] += T(1);
  return w;
}

}  // namespace tests
