#pragma once

#include <span>
#include <vector>

#include "unroll/memory/memory_llama/sizes.hpp"

namespace unroll::llama {

/// The sizes of a memory_llama on executor E, and on the host the positions of its tokens and memories.
template <class E>
class memory_tables {
  using positions = std::span<const index_t>;

 public:
  memory_sizes<E> sizes;             ///< sizes
  std::vector<token> first_columns;  ///< zeros, one a memory token: all of them are the one `<mem>`

  memory_tables(const config& c, const memory_options& o)
      : sizes(c, o), first_columns(std::size_t(sizes.memory_tokens())) {
    const index_t m = sizes.memory_tokens(), most = c.positions() / m;
    for (index_t s = 0; sizes.encoder_end(s) <= c.positions() && (s == 0 || o.recurrent); ++s)
      for (index_t i = 0; i < o.segment + m; ++i)
        encoder_.push_back(sizes.encoder_start(s) + sizes.encoder_position(i));
    for (index_t s = 0; s <= most; ++s) {
      seen_.push_back({0, s, m});
      for (index_t i = 0; i < o.segment && s * m + o.segment <= c.positions(); ++i)
        segments_.push_back(s * m + i);
    }
    for (index_t s = most - 1; s >= 0; --s)
      for (index_t i = 0; i < m; ++i) memories_.push_back(s * m + i);
  }

  /// Of the encoder's tokens when segment s is written.
  positions encoder_positions_of(index_t s) const {
    const index_t n = sizes.options().segment + sizes.memory_tokens();
    return part(encoder_, sizes.options().recurrent ? s * n : 0, n);
  }
  /// Of the tokens of the n whole segments from t on.
  positions segment_positions_of(index_t t, index_t n) const {
    const index_t length = sizes.options().segment;
    return part(segments_, t * length, n * length);
  }
  /// Of the memories s + n - 1, ..., s.
  positions memory_positions_of(index_t s, index_t n) const {
    const index_t m = sizes.memory_tokens();
    return part(memories_, index_t(memories_.size()) - (s + n) * m, n * m);
  }
  /// What each of the n segments from t on sees of the memories.
  std::span<const kernels::prefix_range> seen_by(index_t t, index_t n) const {
    return {seen_.data() + t, std::size_t(n)};
  }

 private:
  static positions part(const std::vector<index_t>& all, index_t first, index_t n) {
    return {all.data() + first, std::size_t(n)};
  }
  std::vector<index_t> encoder_, segments_;
  std::vector<index_t> memories_;  // the last one first
  std::vector<kernels::prefix_range> seen_;
};

}  // namespace unroll::llama
