#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "unroll/core/error.hpp"

namespace unroll::llama {

using token = std::int32_t;

/// Which elements of a head turn together: i and i + head / 2 (HuggingFace's files), or 2i and 2i + 1 (the
/// original checkpoints). The same model after the rows of W_Q and W_K are permuted.
enum class rope_pairs { halves, neighbours };

/// What happens beyond the trained context. `linear`: positions / factor (Chen et al. 2023). `ntk`: the base
/// becomes base factor^(head / (head - 2)) ("NTK-aware" scaling), so that the fastest pair keeps its angle
/// and the slowest turns `factor` times slower.
enum class position_policy { refuse, linear, ntk };

/// The shape of a Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases.
struct config {
  index_t hidden = 0;      ///< d
  index_t mlp = 0;         ///< width of gate and up
  index_t layers = 0;      ///< L
  index_t heads = 0;       ///< query heads
  index_t kv_heads = 0;    ///< key-value heads; query head j reads key-value head j / (heads / kv_heads)
  index_t head = 0;        ///< numbers in a head, even
  index_t vocabulary = 0;  ///< V
  index_t context = 0;     ///< positions trained for
  double norm_epsilon = 1e-5;
  double rope_base = 10000;
  rope_pairs pairs = rope_pairs::halves;
  bool tied = true;  ///< the output matrix is the embedding
  position_policy beyond = position_policy::refuse;
  double position_factor = 1;  ///< of `beyond`, at least 1

  index_t query_width() const { return heads * head; }
  index_t kv_width() const { return kv_heads * head; }
  /// Positions that may be used: the context, stretched where `beyond` says so.
  index_t positions() const {
    return beyond == position_policy::refuse ? context : index_t(double(context) * position_factor);
  }
  friend bool operator==(const config&, const config&) = default;
};

/// Throws unroll::error, in the name of `function`, on a shape that no Llama has.
inline void check(const config& c, std::string_view function) {
  constexpr index_t most = index_t{1} << 31;
  const auto within = [&](const char* name, index_t value) {
    if (value < 1 || value > most)
      fail(function, name, "is " + std::to_string(value) + ", must be from 1 to 2^31");
  };
  within("hidden", c.hidden);
  within("mlp", c.mlp);
  within("layers", c.layers);
  within("heads", c.heads);
  within("kv_heads", c.kv_heads);
  within("head", c.head);
  within("vocabulary", c.vocabulary);
  within("context", c.context);
  if (c.heads % c.kv_heads != 0)
    fail(function, "heads",
         "are " + std::to_string(c.heads) + ", not a multiple of the " + std::to_string(c.kv_heads) +
             " key-value heads");
  if (c.head % 2 != 0) fail(function, "head", "is " + std::to_string(c.head) + ", must be even");
  if (!(c.norm_epsilon > 0 && c.norm_epsilon < 1))
    fail(function, "norm_epsilon", "is " + std::to_string(c.norm_epsilon) + ", must be inside (0, 1)");
  if (!(c.rope_base > 1 && std::isfinite(c.rope_base)))
    fail(function, "rope_base", "is " + std::to_string(c.rope_base) + ", must be above 1");
  if (!(c.position_factor >= 1 && c.position_factor <= 1e6))
    fail(function, "position_factor", "is " + std::to_string(c.position_factor) + ", must be from 1 to 1e6");
}

}  // namespace unroll::llama
