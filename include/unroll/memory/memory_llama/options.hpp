#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "unroll/llama/lora.hpp"
#include "unroll/llama/pass.hpp"
#include "unroll/text/segments.hpp"

namespace unroll::llama {

/// What `<mem>` token i of the encoder sees. `coverage`: the ordinary tokens [0, (i + 1) ratio) and itself,
/// no other `<mem>` token (the released code of UIO-LLMs). `causal`: everything in front of it (the paper's
/// text).
enum class memory_mask { coverage, causal };
/// Where `<mem>` token i of the encoder stands. `coverage`: at (i + 1) ratio, the position of the token
/// behind its span (the code). `following`: behind the segment, at segment + i.
enum class memory_positions { coverage, following };

/// The shape of a memory model over a frozen Llama.
struct memory_options {
  index_t segment = 0;     ///< l, tokens of a segment
  index_t ratio = 0;       ///< divides l; a segment leaves M = l / ratio memory tokens
  lora_options encoder{};  ///< adapters of the encoder, on layers that run: all but the last
  /// Adapters of the transfer head, of W_K and W_V only; where none is adapted, memories go through the
  /// frozen ones.
  lora_options transfer_head{8, 16, {false, true, true, false, false, false, false}, 0, 0};
  memory_mask mask = memory_mask::coverage;                 ///< what a memory token sees of its segment
  memory_positions positions = memory_positions::coverage;  ///< of the memory tokens
  bool separate_tokens = false;                             ///< M learned `<mem>` vectors instead of one
  bool recurrent = false;                   ///< the encoder of segment s also sees the memories 0 .. s-1
  saved encoder_tape = saved::activations;  ///< what one live encoder graph holds
  saved decoder_tape = saved::activations;  ///< what the workspace of read_vjp holds
  /// Of an executor that is exec::offloading: memories and their adjoints stay in memory of the host, and a
  /// layer of them at a time is at the place. For texts whose memories do not fit there. Same bits.
  bool memories_on_host = false;

  index_t memory_tokens() const { return segment / ratio; }  ///< M
  /// Segments that a text may have: the largest T with (T - 1) M + l <= positions, 0 where there is none.
  index_t segments(const config& c) const {
    return c.positions() < segment ? 0 : 1 + (c.positions() - segment) / memory_tokens();
  }
  /// Tokens of that many segments.
  index_t longest_text(const config& c) const { return segments(c) * segment; }
};

/// Throws unroll::error, in the name of `function`, on options that do not fit the Llama.
inline void check(const memory_options& o, const config& c, std::string_view function) {
  check_at_least(function, "layers", c.layers, 2);
  check_at_least(function, "segment", o.segment, 1);
  check_at_least(function, "ratio", o.ratio, 1);
  if (o.segment % o.ratio != 0)
    fail(function, "ratio",
         "is " + std::to_string(o.ratio) + ", does not divide the segment of " + std::to_string(o.segment));
  for (const auto& [name, l] :
       {std::pair("encoder", &o.encoder), std::pair("transfer_head", &o.transfer_head)})
    if (!l->modules.empty() || l->bias)
      fail(function, name + std::string(l->bias ? ".bias" : ".modules"),
           l->bias ? "is true, which memories do not have"
                   : "are " + std::to_string(l->modules.size()) + ", memories have one rank and one alpha");
  if (o.encoder.first_layer + std::max<index_t>(o.encoder.layers, 1) > c.layers - 1)
    fail(function, "encoder.layers",
         "end at " + std::to_string(o.encoder.first_layer + std::max<index_t>(o.encoder.layers, 1)) +
             ", the encoder runs " + std::to_string(c.layers - 1));
  for (std::size_t m = 0; m < layer_matrix_names.size(); ++m)
    if (o.transfer_head.adapted[m] && layer_matrix(m) != layer_matrix::k &&
        layer_matrix(m) != layer_matrix::v)
      fail(function, "transfer_head.adapted",
           std::string(layer_matrix_names[m]) + " is neither k_proj nor v_proj");
}

/// What of the options a memory depends on, as text.
inline std::string identity_of(const memory_options& o) {
  const auto adapters = [](const lora_options& a) {
    std::string text = "rank " + std::to_string(a.rank) + " alpha " + number_text(a.alpha) + " targets ";
    for (const bool b : a.adapted) text += b ? '1' : '0';
    return text + " layers " + std::to_string(a.first_layer) + "+" + std::to_string(a.layers);
  };
  return "segment " + std::to_string(o.segment) + ", ratio " + std::to_string(o.ratio) + ", mask " +
         (o.mask == memory_mask::coverage ? "coverage" : "causal") + ", positions " +
         (o.positions == memory_positions::coverage ? "coverage" : "following") +
         (o.separate_tokens ? ", separate tokens" : "") + ", encoder " + adapters(o.encoder) + ", head " +
         adapters(o.transfer_head);
}

}  // namespace unroll::llama
