#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "unroll/exec/offload.hpp"
#include "unroll/llama/transformer_sizes.hpp"

namespace unroll::llama {

/// What attention sees in front of the tokens of a pass, one layer after another, and where it adds the
/// adjoints of that. Of a prefix at the executor's place this is the prefix itself. Of one in memory of the
/// host (prefix::on_host) a layer's keys and values are brought to one of two windows of the workspace while
/// the layer in front of it runs; so are the adjoints, which go back to the host while the next layer runs.
/// In a window the way in follows the way back in quarters, so that the two directions are taken at once.
/// Numbers and the order of sums are those of a prefix at the place: same bits.
template <class E>
class layered_prefix {
  using A = typename E::numbers::activation;
  using M = typename E::numbers::memory;
  using P = typename E::numbers::parameter;

 public:
  /// Of the layers first, first + step, ... up to last. dbefore: the adjoints, one address a block; empty:
  /// not wanted. space: of the pass; e, before, dbefore and space live longer.
  layered_prefix(const E& e, const prefix<M>& before, index_t kv_width, std::span<P* const> dbefore,
                 const pass_workspace<A, P>& space, index_t first, index_t last)
      : e_(e),
        before_(before),
        kv_width_(kv_width),
        dbefore_(dbefore),
        last_(last),
        step_(first <= last ? 1 : -1),
        moves_(before.on_host && before.total() > 0 && first >= 0) {
    if (!moves_) return;
    const index_t n = index_t(before.blocks.size()), area = block_size();
    for (std::size_t w = 0; w < 2; ++w) {
      memories_[w] = space.before[w].data;
      for (index_t b = 0; b < n; ++b) {
        blocks_[w].push_back(memories_[w] + b * area);
        if (!dbefore.empty())
          adjoints_[w].push_back(dbefore[std::size_t(b)] ? space.dbefore[w].data + b * area : nullptr);
      }
    }
    bring(first);
  }
  layered_prefix(const layered_prefix&) = delete;
  layered_prefix& operator=(const layered_prefix&) = delete;
  ~layered_prefix() {
    if (moves_) try {
        if constexpr (exec::offloading<E>) e_.wait_for_copies();
      } catch (...) {  // the next call says so
      }
  }

  /// In front of the operations of a layer; the layers come in the order given.
  void enter(index_t layer) {
    if (!moves_) return;
    if constexpr (exec::offloading<E>) {
      e_.wait_for_copies();
      leave();
      now_ = layer;
      if (layer != last_) bring(layer + step_);
    }
  }
  /// Behind those of the layer entered last.
  void leave() {
    if constexpr (exec::offloading<E>)
      if (moves_ && now_ >= 0)
        move(dbefore_, now_,
             [&](matrix<P> host, index_t b) { e_.take(matrix<const P>(adjoints_at(now_, b, host)), host); });
    now_ = -1;
  }

  /// Keys and values of a layer that was entered.
  kernels::key_prefix<M> at(index_t layer) const {
    if (!moves_) return before_.at(layer, kv_width_);
    return {blocks_[window(layer)], 0, block_size() / 2, before_.keys, before_.ranges};
  }
  /// Where its adjoints are added: one address a block, laid out as the block.
  std::span<P* const> adjoints(index_t layer) const {
    return moves_ ? std::span<P* const>(adjoints_[window(layer)]) : dbefore_;
  }

 private:
  static std::size_t window(index_t layer) { return std::size_t(layer % 2); }
  /// Numbers of a layer in a block.
  index_t block_size() const { return 2 * kv_width_ * before_.capacity; }

  void bring(index_t layer) {
    if constexpr (exec::offloading<E>) {
      move(before_.blocks, layer, [&](matrix<const M> host, index_t b) {
        e_.bring(host, matrix<M>(memories_[window(layer)] + b * host.rows, host.rows, host.cols));
      });
      move(dbefore_, layer,
           [&](matrix<P> host, index_t b) { e_.bring(matrix<const P>(host), adjoints_at(layer, b, host)); });
    }
  }
  /// The adjoints of a layer in its window, from block b on, shaped as `host`.
  matrix<P> adjoints_at(index_t layer, index_t b, const matrix<P>& host) const {
    return {adjoints_[window(layer)][std::size_t(b)], host.rows, host.cols};
  }
  /// f(numbers of a layer in the blocks from b on, a column a block; b), for the blocks that have an address,
  /// as many at a time as lie equally far apart, up to a quarter of all.
  template <class U, class F>
  void move(std::span<U* const> host, index_t layer, F&& f) const {
    const index_t size = block_size();
    const std::size_t most = (host.size() + 3) / 4;
    const auto apart = [&](std::size_t i) {  // block i from the one in front of it
      return i < host.size() && host[i] ? host[i] - host[i - 1] : index_t{0};
    };
    for (std::size_t b = 0, n = 1; b < host.size(); b += n) {
      n = 1;
      if (!host[b]) continue;
      const index_t stride = apart(b + 1);
      while (n < most && stride >= size && apart(b + n) == stride) ++n;
      f(matrix<U>(host[b] + layer * size, size, index_t(n), std::max(stride, size)), index_t(b));
    }
  }

  const E& e_;
  const prefix<M>& before_;
  index_t kv_width_;
  std::span<P* const> dbefore_;
  index_t last_, step_, now_ = -1;
  bool moves_;
  std::array<M*, 2> memories_ = {};              // windows
  std::array<std::vector<const M*>, 2> blocks_;  // the blocks in them
  std::array<std::vector<P*>, 2> adjoints_;      // their adjoints; null: not wanted
};

}  // namespace unroll::llama
