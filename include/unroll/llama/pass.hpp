#pragma once

#include <span>

#include "unroll/kernels/attention_shape.hpp"
#include "unroll/llama/config.hpp"

namespace unroll::llama {

/// Keys and values in front of the tokens of a pass: a cache, or the memories of earlier segments. Every
/// block holds, layer after layer, keys and then values, each kv_width x capacity, column-major; the keys are
/// rotated to their positions. All queries of a sequence see all of what the sequence sees.
template <class M>
struct prefix {
  std::span<const M* const> blocks = {};
  index_t keys = 0;                                    ///< filled columns of each block
  index_t capacity = 0;                                ///< columns that each block has room for
  std::span<const kernels::prefix_range> ranges = {};  ///< what each sequence sees; empty: everything
  bool on_host = false;  ///< they are in memory of the host, see exec/offload.hpp; adjoints, too

  index_t total() const { return index_t(blocks.size()) * keys; }  ///< columns of all blocks
  /// The keys and values of one layer.
  kernels::key_prefix<M> at(index_t layer, index_t kv_width) const {
    const index_t area = kv_width * capacity;
    return {blocks, 2 * layer * area, (2 * layer + 1) * area, keys, ranges};
  }
};

/// What the tape of a pass holds: all activations that the vjp needs, or the input of each layer only, from
/// which the vjp computes the others once more.
enum class saved { activations, inputs };

/// What the sizes of a pass's tape and workspace depend on.
struct pass_size {
  index_t sequences = 1;            ///< that see nothing of each other
  index_t length = 0;               ///< tokens of a sequence
  index_t layers = 0;               ///< that run, from the first on
  index_t outputs_from = 0;         ///< first token of a sequence whose output is wanted
  index_t blocks = 0;               ///< of the prefix
  index_t keys = 0;                 ///< columns of each of them
  saved keep = saved::activations;  ///< what the tape holds
  bool blocks_on_host = false;      ///< a layer of them at a time is at the place, in the workspace

  index_t tokens() const { return sequences * length; }                    ///< of all sequences
  index_t outputs() const { return sequences * (length - outputs_from); }  ///< of all sequences
};

/// One run of the layers [0, layers) over `sequences` x `length` tokens: column b * length + i of every
/// activation is token i of sequence b. Sequences see nothing of each other.
template <class M>
struct pass {
  index_t sequences = 1;                    ///< that see nothing of each other
  index_t length = 0;                       ///< tokens of a sequence
  index_t layers = 0;                       ///< that run, from the first on
  std::span<const index_t> positions = {};  ///< rotary positions of the tokens: of `length`, which the
                                            ///< sequences share, or of all
  kernels::attention_mask mask = {};        ///< which of its own sequence's keys a query sees; first is 0
  prefix<M> before = {};                    ///< what stands in front of the tokens
  saved keep = saved::activations;          ///< what the tape holds
  index_t outputs_from = 0;  ///< first token of a sequence whose output is wanted; the last layer computes
                             ///< keys and values only of those in front of it
  kernels::attention_cut cut = {};  ///< pairs of attention that the vjp may leave out

  index_t tokens() const { return sequences * length; }                    ///< of all sequences
  index_t outputs() const { return sequences * (length - outputs_from); }  ///< of all sequences
  operator pass_size() const {
    return {sequences,   length, layers,        outputs_from, index_t(before.blocks.size()),
            before.keys, keep,   before.on_host};
  }
};

/// What may look into a pass. `normed`: the input of the attention of `layer`, after its norm, at the tokens
/// whose outputs are wanted: hidden x pass::outputs(); called for every layer that runs and for the one
/// behind the last. `keys`: the rotated keys and the values of `layer`, of all tokens. `dnormed`, in the vjp:
/// may add to the cotangent of what `normed` saw.
struct no_hook {
  /// Does nothing.
  template <class A>
  void normed(index_t, matrix<const A>) {}
  /// Does nothing.
  template <class A>
  void keys(index_t, matrix<const A>, matrix<const A>) {}
  /// Does nothing.
  template <class A>
  void dnormed(index_t, matrix<A>) {}
};

}  // namespace unroll::llama
