#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "unroll/core/error.hpp"
#include "unroll/text/token.hpp"

namespace unroll::llama {

/// Which elements of a head turn together: i and i + head_dim / 2 (HuggingFace's files), or 2i and 2i + 1
/// (the original checkpoints). The same model after the rows of W_Q and W_K are permuted.
enum class rope_pairs { halves, neighbours };

/// How rotary positions go beyond those that a model was first trained on; llama/positions.hpp has the
/// formulas. `refuse`: not at all. `linear`: positions / factor (Chen et al. 2023). `ntk`: another base
/// ("NTK-aware" scaling), so that the fastest pair keeps its angle and the slowest turns `factor` times
/// slower. `dynamic`: ntk with the factor that the length at hand needs. `yarn` (Peng et al. 2023), `llama3`
/// (Llama 3.1) and `longrope` (Ding et al. 2024): each pair has a factor of its own, and `context` is already
/// the stretched one.
enum class position_policy { refuse, linear, ntk, dynamic, yarn, llama3, longrope };

/// What single policies need besides config::position_factor; the names are those of config.json but for
/// `length`, which no file holds.
struct position_scaling {
  index_t original_context =
      0;                        ///< yarn, llama3, longrope: trained on before they were stretched; 0: context
  index_t length = 0;           ///< dynamic, longrope: positions at hand, see config::positions()
  double low_freq_factor = 1;   ///< llama3: pairs that turn fewer times over original_context are slowed
  double high_freq_factor = 4;  ///< llama3: those that turn more often are not
  double beta_fast = 32;        ///< yarn: pairs that turn more often over original_context are not slowed
  double beta_slow = 1;         ///< yarn: those that turn fewer times are slowed by the whole factor
  bool truncate = true;         ///< yarn: the two limits become whole pairs
  double mscale = 0;            ///< yarn: with mscale_all_dim, of the attention factor; 0: none
  double mscale_all_dim = 0;    ///< yarn
  double attention_factor = 0;  ///< yarn, longrope: of cosines and sines; 0: as derived
  std::vector<double> short_factor;  ///< longrope: head_dim / 2 factors, for lengths up to original_context
  std::vector<double> long_factor;   ///< longrope: beyond

  friend bool operator==(const position_scaling&, const position_scaling&) = default;
};

/// The shape of a Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases.
struct config {
  index_t hidden = 0;             ///< d
  index_t intermediate_size = 0;  ///< width of gate and up
  index_t layers = 0;             ///< L
  index_t heads = 0;              ///< query heads
  index_t kv_heads = 0;        ///< key-value heads; query head j reads key-value head j / (heads / kv_heads)
  index_t head_dim = 0;        ///< numbers in a head, even
  index_t vocabulary = 0;      ///< V
  index_t context = 0;         ///< positions trained for
  double norm_epsilon = 1e-5;  ///< added to the mean square
  double rope_base = 10000;    ///< theta of the rotary frequencies
  rope_pairs pairs = rope_pairs::halves;             ///< which numbers of a head turn together
  bool tied = true;                                  ///< the output matrix is the embedding
  position_policy beyond = position_policy::refuse;  ///< what happens behind `context` positions
  double position_factor = 1;                        ///< of `beyond`, at least 1
  position_scaling scaling = {};                     ///< how positions are stretched

  index_t query_width() const { return heads * head_dim; }  ///< numbers of all queries of a token
  index_t kv_width() const { return kv_heads * head_dim; }  ///< numbers of all keys of a token
  /// The context before yarn, llama3 or longrope stretched it.
  index_t original_context() const {
    return scaling.original_context > 0 ? scaling.original_context : context;
  }
  /// Positions that may be used: the context, stretched by linear and ntk. Under dynamic and longrope, whose
  /// frequencies depend on the length, scaling.length, or where that is 0 the context before it is stretched.
  /// Every pass of a model is computed with the frequencies of that one length, whatever its own: keys of a
  /// cache, memories and queries are always turned alike.
  index_t positions() const {
    switch (beyond) {
      case position_policy::linear:
      case position_policy::ntk:
        return index_t(double(context) * position_factor);
      case position_policy::dynamic:
        return scaling.length > 0 ? scaling.length : context;
      case position_policy::longrope:
        return scaling.length > 0 ? scaling.length : std::min(original_context(), context);
      default:
        return context;
    }
  }
  friend bool operator==(const config&, const config&) = default;
};

namespace detail {

inline constexpr std::array<const char*, 7> position_names{
    "refuse", "linear", "ntk", "dynamic", "yarn", "llama3", "longrope"};  // by position_policy

inline void check_positions(const config& c, std::string_view function) {
  const auto& s = c.scaling;
  const std::string policy = position_names[std::size_t(c.beyond)];
  const auto above = [&](const char* name, double value, const char* least_name, double least) {
    if (!(value > least && value <= 1e9))
      fail(function, name,
           "is " + std::to_string(value) + ", must be above " + least_name + " " + std::to_string(least) +
               " and at most 1e9");
  };
  const auto factor = [&](const char* name, double value) {
    if (!(value >= 0 && value <= 1e9))
      fail(function, name, "is " + std::to_string(value) + ", must be from 0 (none) to 1e9");
  };
  const auto within = [&](const char* name, index_t value, index_t most) {
    if (value < 0 || value > most)
      fail(function, name, "is " + std::to_string(value) + ", must be from 0 to " + std::to_string(most));
  };
  if (!(c.position_factor >= 1 && c.position_factor <= 1e6))
    fail(function, "position_factor", "is " + std::to_string(c.position_factor) + ", must be from 1 to 1e6");
  if (c.beyond <= position_policy::ntk && s != position_scaling{})
    fail(function, "scaling", "is set, which positions of policy " + policy + " do not read");
  within("scaling.original_context", s.original_context, index_t{1} << 31);
  within("scaling.length", s.length, c.beyond == position_policy::longrope ? c.context : index_t{1} << 31);
  above("scaling.low_freq_factor", s.low_freq_factor, "the number", 0);
  above("scaling.high_freq_factor", s.high_freq_factor, "low_freq_factor", s.low_freq_factor);
  above("scaling.beta_slow", s.beta_slow, "the number", 0);
  above("scaling.beta_fast", s.beta_fast, "beta_slow", s.beta_slow);
  factor("scaling.mscale", s.mscale);
  factor("scaling.mscale_all_dim", s.mscale_all_dim);
  factor("scaling.attention_factor", s.attention_factor);
  if (c.beyond != position_policy::longrope) return;
  for (const auto& [name, list] : {std::pair("scaling.short_factor", &s.short_factor),
                                   std::pair("scaling.long_factor", &s.long_factor)}) {
    if (index_t(list->size()) != c.head_dim / 2)
      fail(function, name,
           "has " + std::to_string(list->size()) + " numbers, a head of " + std::to_string(c.head_dim) +
               " has " + std::to_string(c.head_dim / 2) + " pairs");
    for (const double x : *list) above(name, x, "the number", 0);
  }
  if (c.original_context() < 2) fail(function, "scaling.original_context", "is 1, must be at least 2");
}

}  // namespace detail

/// Throws unroll::error, in the name of `function`, on a shape that no Llama has.
inline void check(const config& c, std::string_view function) {
  constexpr index_t most = index_t{1} << 31;
  const auto within = [&](const char* name, index_t value) {
    if (value < 1 || value > most)
      fail(function, name, "is " + std::to_string(value) + ", must be from 1 to 2^31");
  };
  within("hidden", c.hidden);
  within("intermediate_size", c.intermediate_size);
  within("layers", c.layers);
  within("heads", c.heads);
  within("kv_heads", c.kv_heads);
  within("head_dim", c.head_dim);
  within("vocabulary", c.vocabulary);
  within("context", c.context);
  if (c.heads % c.kv_heads != 0)
    fail(function, "heads",
         "are " + std::to_string(c.heads) + ", not a multiple of the " + std::to_string(c.kv_heads) +
             " key-value heads");
  if (c.head_dim % 2 != 0) fail(function, "head_dim", "is " + std::to_string(c.head_dim) + ", must be even");
  if (!(c.norm_epsilon > 0 && c.norm_epsilon < 1))
    fail(function, "norm_epsilon", "is " + std::to_string(c.norm_epsilon) + ", must be inside (0, 1)");
  if (!(c.rope_base > 1 && std::isfinite(c.rope_base)))
    fail(function, "rope_base", "is " + std::to_string(c.rope_base) + ", must be above 1");
  detail::check_positions(c, function);
}

}  // namespace unroll::llama
