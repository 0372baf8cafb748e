#pragma once

#include <span>

#include "unroll/core/matrix.hpp"
#include "unroll/rng/draw.hpp"

// The arguments of attention, without its arithmetic: what executors, models and kernels have in common.
namespace unroll::kernels {

/// Heads of attention.
struct attention_shape {
  index_t heads = 0;     ///< query heads
  index_t kv_heads = 0;  ///< query head j reads key-value head j / (heads / kv_heads)
  index_t head_dim = 0;  ///< numbers in a head

  UNROLL_HD index_t query_width() const { return heads * head_dim; }  ///< numbers of all queries of a token
  UNROLL_HD index_t kv_width() const { return kv_heads * head_dim; }  ///< numbers of all keys of a token
};

/// Which keys of its own sequence a query sees. Query i is the token first + i; it sees the first visible(i)
/// keys, and its own. The mask is causal unless `ordinals` is set: then so many ordinary tokens are followed
/// by memory tokens, and memory token j sees the first (j + 1) * ratio ordinary tokens, and itself.
struct attention_mask {
  index_t ordinals = -1;  ///< -1: all tokens are ordinals, the mask is causal
  index_t ratio = 0;      ///< ordinals that a memory token covers
  index_t first = 0;      ///< tokens of the sequence in front of its first query; they have keys only

  /// Whether query i is a memory token.
  UNROLL_HD bool memory_token(index_t i) const { return ordinals >= 0 && first + i >= ordinals; }
  /// Keys of its sequence, from the first on, that query i sees beside its own.
  UNROLL_HD index_t visible(index_t i) const {
    if (!memory_token(i)) return first + i + 1;
    const index_t covered = (first + i - ordinals + 1) * ratio;
    return covered < ordinals ? covered : ordinals;
  }
};

/// Keys and values, kv_width x n each.
template <class T>
struct key_block {
  matrix<const T> k, v;  ///< keys, values
};
/// Their adjoints, which are added to; null data: not wanted.
template <class T>
struct key_block_adjoint {
  matrix<T> dk, dv;  ///< of the keys, of the values
};

/// What attention of one sequence reads: its n queries look at the blocks in front and, under the mask, at
/// the keys of their own sequence.
template <class T>
struct attention_inputs {
  attention_shape shape;                      ///< heads and their size
  attention_mask mask;                        ///< what a query sees of its own sequence
  matrix<const T> q;                          ///< query_width x n
  std::span<const key_block<T>> before = {};  ///< in front of the sequence
  key_block<T> own;                           ///< kv_width x (mask.first + n)
};
/// What the vjp of attention is given beside; n: all queries.
template <class T, class P = T>
struct attention_cotangents {
  matrix<const T> out;         ///< query_width x n, of the forward pass
  const P* log_sum = nullptr;  ///< heads x n, of the forward pass
  matrix<const T> dout;        ///< query_width x n: the cotangent of out
};
/// Where the vjp of attention of one sequence writes.
template <class T>
struct attention_adjoints {
  matrix<T> dq;                                        ///< query_width x n, written
  std::span<const key_block_adjoint<T>> dbefore = {};  ///< one for each block in front; empty: not wanted
  key_block_adjoint<T> own = {};                       ///< kv_width x (mask.first + n)
};

/// Which pairs of a query and a key the vjp of attention leaves out, at random: one with probability a under
/// the softmax is kept with probability p = min(1, pairs a) and counts 1 / p fold. The keys of one query of
/// one head are a systematic sample (sample/proportional.hpp) with one draw, named by the key, the sequence,
/// the query's token and the head.
struct attention_cut {
  double pairs = 0;   ///< kept of a query and a head, at most, but for one; 0: nothing is left out
  key draws = {};     ///< names the draws
  index_t first = 0;  ///< number of the first sequence of a call

  /// The draws of a sequence of a call.
  UNROLL_HD key draws_of(index_t sequence) const { return fold(draws, std::uint64_t(first + sequence)); }

  /// The sample of one query of one head. Its keys are asked for one after another.
  class row {
   public:
    /// u: uniform on [0, 1)
    UNROLL_HD row(double pairs, double u) : pairs_(pairs), next_(1 - u) {}
    /// The weight of the next key, whose probability is a: 0 where its pair is cut, of mean 1 for a > 0. Not
    /// a number where a is none.
    UNROLL_HD double weight(double a) {
      const double p = pairs_ * a;
      if (p >= 1) return 1;
      sum_ += p;
      if (sum_ < next_ || p == 0) return 0;
      next_ += 1;
      return 1 / p;
    }

   private:
    double pairs_, next_, sum_ = 0;
  };
};

/// What one sequence sees of a prefix: the first `keys` columns of the blocks [first, first + blocks).
struct prefix_range {
  index_t first = 0;
  index_t blocks = 0;
  index_t keys = 0;  ///< columns of each
};

/// The keys and values of one layer in front of the sequences of a pass. Block b holds keys from
/// blocks[b] + key_offset and values from blocks[b] + value_offset on, kv_width x keys each, columns side by
/// side; all queries of a sequence see all of what it sees. The spans are host memory, the addresses
/// in them those of the executor's place.
template <class T>
struct key_prefix {
  std::span<const T* const> blocks = {};
  index_t key_offset = 0;                     ///< of the keys in a block
  index_t value_offset = 0;                   ///< of the values in a block
  index_t keys = 0;                           ///< columns of each block
  std::span<const prefix_range> ranges = {};  ///< one a sequence; empty: every sequence sees everything

  /// What a sequence sees.
  UNROLL_HD prefix_range range(index_t sequence) const {
    return ranges.empty() ? prefix_range{0, index_t(blocks.size()), keys} : ranges[std::size_t(sequence)];
  }
};

}  // namespace unroll::kernels
