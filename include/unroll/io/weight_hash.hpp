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
/// to bf16 is that, in f32, of its bf16 file. `block(b)` returns the numbers of a block of weight_map(c), a
/// const T*, until it is asked again: weights need not lie together, nor in host memory all at once. Costs
/// one pass; allocates one matrix.
template <class T, class Block>
std::uint64_t weight_hash_by(const config& c, Block&& block, precision rounded = precision::f32) {
  const weight_map map(c);
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
  const auto& blocks = map.names().blocks();
  for (const layout_block& b : blocks) add(rows.of(b, block(b)), b.size());
  if (c.tied) add(block(blocks.front()), blocks.front().size());  // the embedding
  return h;
}
/// The same of weights laid out by weight_map(c).
template <class T>
std::uint64_t weight_hash(const config& c, params<const T> weights, precision rounded = precision::f32) {
  check_size("weight_hash", "weights", weights.size(), weight_map(c).size());
  return weight_hash_by<T>(
      c, [&](const layout_block& b) { return weights.data() + b.offset; }, rounded);
}

}  // namespace unroll::llama
