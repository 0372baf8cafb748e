#pragma once

#include "unroll/io/half.hpp"
#include "unroll/io/hash.hpp"
#include "unroll/io/llama_checkpoint.hpp"

namespace unroll::llama {

/// What the weights are rounded to before they are hashed.
enum class precision { f32, bf16, f16 };

/// A hash of the values of all weights, as floats, after they were rounded to the nearest number of that
/// precision. It depends neither on the format of the file that they came from nor on the type that they were
/// loaded as, nor on rope_pairs or on whether a shared embedding is stored once. The hash of a model rounded
/// to bf16 is that, in f32, of its bf16 file. Costs one pass; allocates one matrix.
template <class T>
std::uint64_t weight_hash(const config& c, params<const T> weights, precision rounded = precision::f32) {
  const weight_map map(c);
  check_size("weight_hash", "weights", weights.size(), map.size());
  std::uint64_t h =
      fnv1a(std::to_string(c.heads) + " " + std::to_string(c.kv_heads) + " " + std::to_string(c.head_dim));
  std::array<float, 4096> piece;
  const auto add = [&](const T* x, index_t count) {
    for (index_t i = 0; i < count; i += index_t(piece.size())) {
      const index_t n = std::min(count - i, index_t(piece.size()));
      for (index_t k = 0; k < n; ++k) {
        const float v = float(x[i + k]);
        piece[std::size_t(k)] = rounded == precision::bf16  ? float(bf16(v))
                                : rounded == precision::f16 ? from_f16(to_f16(v))
                                                            : v;
      }
      h = fnv1a(piece.data(), sizeof(float) * std::size_t(n), h);
    }
  };
  detail::file_rows<T> rows(c);
  for (const layout_block& b : map.names().blocks()) add(rows(b, weights.data()), b.size());
  if (c.tied) add(weights.data() + map.embedding(), c.hidden * c.vocabulary);
  return h;
}

}  // namespace unroll::llama
