#pragma once

#include <span>

#include "unroll/core/linalg.hpp"
#include "unroll/kernels/attention.hpp"
#include "unroll/llama/lora.hpp"

namespace unroll::llama {

/// Keys and values in front of the tokens of a pass: a cache, or the memories of earlier segments. Every
/// block holds, layer after layer, keys and then values, each kv_width x capacity, column-major; the keys are
/// rotated to their positions. All queries of the pass see all of them.
template <class T>
struct prefix {
  std::span<const T* const> blocks = {};
  index_t keys = 0;      ///< filled columns of each block
  index_t capacity = 0;  ///< columns that each block has room for

  index_t total() const { return index_t(blocks.size()) * keys; }
  kernels::key_block<T> at(std::size_t block, index_t layer, index_t kv_width) const {
    const T* k = blocks[block] + 2 * layer * kv_width * capacity;
    return {{k, kv_width, keys}, {k + kv_width * capacity, kv_width, keys}};
  }
};

/// What the tape of a pass holds: all activations that the vjp needs, or the input of each layer only, from
/// which the vjp computes the others once more.
enum class saved { activations, inputs };

/// One run of the layers [0, layers) over `sequences` x `length` tokens: column b * length + i of every
/// activation is token i of sequence b. The sequences share positions and mask; where there is a prefix,
/// there is one sequence.
template <class T>
struct pass {
  index_t sequences = 1;
  index_t length = 0;
  index_t layers = 0;
  std::span<const index_t> positions = {};  ///< rotary positions of the `length` tokens
  kernels::attention_mask mask = {};        ///< which of its own sequence's keys a query sees
  prefix<T> before = {};
  saved keep = saved::activations;

  index_t tokens() const { return sequences * length; }
};

/// A set of adapters that is added to the frozen weights; a null map: none.
template <class T>
struct adapters {
  const lora_map* map = nullptr;
  const T* theta = nullptr;
};

/// What may look into a pass. `normed`: the input of the attention of `layer`, hidden x tokens, after its
/// norm; called for every layer that runs and for the one behind the last. `keys`: the rotated keys and the
/// values of `layer`. `dnormed`, in the vjp: may add to the cotangent of what `normed` saw.
struct no_hook {
  template <class T>
  void normed(index_t, matrix<const T>) {}
  template <class T>
  void keys(index_t, matrix<const T>, matrix<const T>) {}
  template <class T>
  void dnormed(index_t, matrix<T>) {}
};

}  // namespace unroll::llama
