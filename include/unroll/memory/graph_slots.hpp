#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "unroll/core/block.hpp"
#include "unroll/core/visit.hpp"

namespace unroll {

/// Which segment's graph lies in which slot. The graphs of one batch of writes lie side by side, in the order
/// of the segments, and are one piece: they come and go together.
class graph_slots {
 public:
  static constexpr index_t none = -1;  ///< no segment, or no slot

  explicit graph_slots(index_t slots) : slots_(slots) { clear(); }

  index_t size() const { return slots_.size(); }
  index_t live() const { return live_; }  ///< slots that are not empty
  std::size_t bytes() const { return slots_.bytes(); }

  /// The segment whose graph is in a slot, or none.
  index_t owner(index_t slot) const { return slots_[slot].segment; }
  /// The first segment of the batch to which the graph in a slot belongs, or none.
  index_t first_of_batch(index_t slot) const { return slots_[slot].first; }
  /// How many graphs the batch has whose first one is in `slot`; 0 where that is empty.
  index_t size_of_batch(index_t slot) const {
    const index_t first = first_of_batch(slot);
    index_t n = 0;
    while (first != none && slot + n < size() && first_of_batch(slot + n) == first) ++n;
    return n;
  }

  /// The graphs of the batch s .. s + n - 1 are in the slots from `slot` on, which were empty.
  void fill(index_t slot, index_t s, index_t n) {
    for (index_t i = 0; i < n; ++i) slots_[slot + i] = {std::int32_t(s + i), std::int32_t(s)};
    live_ += n;
  }
  /// Empties a slot, and with it those of the whole batch.
  void release(index_t slot) {
    if (owner(slot) == none) return;
    const index_t first = slot - (owner(slot) - first_of_batch(slot)), n = size_of_batch(first);
    std::fill_n(slots_.data() + first, n, held{});
    live_ -= n;
  }
  /// Empties the slots of all segments from s on.
  void release_from(index_t s) {
    for (index_t slot = 0; slot < size(); ++slot)
      if (owner(slot) >= s) release(slot);
  }
  void clear() {
    std::fill(slots_.begin(), slots_.end(), held{});
    live_ = 0;
  }

  /// Shows which graphs there are (core/visit.hpp): of the first `written` segments, in batches of up to
  /// `batch`. Throws unroll::error where they do not fit together, as the calls above rely on.
  template <class V>
  void visit(V&& v, index_t written, index_t batch) {
    live_ = 0;
    for (index_t slot = 0; slot < size(); ++slot) {
      const std::string name = "slot" + std::to_string(slot);
      held& now = slots_[slot];
      visit_integer(v, name, now.segment, none, written - 1);
      visit_integer(v, name + ".first", now.first, none, now.segment);
      const held before = slot > 0 ? slots_[slot - 1] : held{};
      const index_t place = now.segment - now.first;  // in its batch
      const bool empty = now.segment == none;
      const bool starts = empty || (place == 0 && before.first != now.first);
      const bool goes_on = place > 0 && before.first == now.first && before.segment == now.segment - 1;
      if (empty != (now.first == none) || place >= batch || !(starts || goes_on))
        fail("visit", name,
             "holds the graph of segment " + std::to_string(now.segment) + " of a batch from " +
                 std::to_string(now.first) + " on, which does not fit the slots in front of it");
      live_ += empty ? 0 : 1;
    }
  }

 private:
  struct held {
    std::int32_t segment = none, first = none;  // the same `first` for all of a batch
  };

  block<held> slots_;
  index_t live_ = 0;
};

}  // namespace unroll
