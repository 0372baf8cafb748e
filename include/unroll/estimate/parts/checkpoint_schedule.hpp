#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "unroll/core/visit.hpp"

// Which states to keep so that a chain of steps can be walked backwards with few of them: binomial
// checkpointing where the length is known (Griewank & Walther 2000), and a placement that is as good for
// lengths up to (slots + 1)(slots + 2) / 2 where it is not (Wang, Moin & Iaccarino 2009).
namespace unroll {

/// beta(s, r) = C(s + r, s): the longest chain that s snapshots, the first state among them, reverse with no
/// step advanced more than r times. Saturates at the largest 64-bit number.
constexpr std::int64_t longest_chain(std::int64_t slots, std::int64_t replays) {
  if (slots < 0 || replays < 0) return 0;
  std::int64_t c = 1;
  for (std::int64_t k = 1; k <= std::min(slots, replays); ++k) {
    const std::int64_t factor = std::max(slots, replays) + k;
    const std::int64_t shared = std::gcd(factor, k);  // c is a multiple of k / shared: exact and small
    c /= k / shared;
    if (c > std::numeric_limits<std::int64_t>::max() / (factor / shared))
      return std::numeric_limits<std::int64_t>::max();
    c *= factor / shared;
  }
  return c;
}

/// The least r with beta(slots, r) >= steps.
constexpr std::int64_t least_replays(std::int64_t steps, std::int64_t slots) {
  if (slots == 1) return std::max<std::int64_t>(steps - 1, 0);
  std::int64_t r = 0;
  while (longest_chain(slots, r) < steps) ++r;
  return r;
}

/// P(T, s) = r T - beta(s + 1, r - 1): the least number of advances that reverse a chain of T steps with s >=
/// 1 snapshots, apart from the one recorded run of every step.
constexpr std::int64_t least_advances(std::int64_t steps, std::int64_t slots) {
  if (steps <= 1) return 0;
  if (slots == 1) return steps % 2 == 0 ? steps / 2 * (steps - 1) : (steps - 1) / 2 * steps;
  const std::int64_t r = least_replays(steps, slots);
  return r * steps - longest_chain(slots + 1, r - 1);
}

/// How far to advance from a snapshot before the next one is taken: the m in [1, steps) that attains
///   P(steps, slots) = min_m [ m + P(steps - m, slots - 1) + P(m, slots) ],  steps >= 2, slots >= 2.
constexpr index_t first_split(index_t steps, index_t slots) {
  const std::int64_t r = least_replays(steps, slots);
  return index_t(
      std::min<std::int64_t>(longest_chain(slots, r - 1), steps - longest_chain(slots - 1, r - 1)));
}

/// Which states of a chain of steps are kept, and when. Steps are counted from 0; snapshot i is the state in
/// front of step i.
///
/// Forwards, steps 0, 1, ... are run in turn. Before step i + 1 overwrites what step i has recorded, pass(i)
/// says in which slot the state in front of step i is to be kept, or -1.
///
/// Backwards, for each i from the last one down: run from the snapshot that resume() names to step i. On the
/// way, keep the state in front of step stop(i), which is asked again behind each, until it is i itself. Walk
/// step i backwards; discard(i).
class checkpoint_schedule {
 public:
  /// steps: the length of the chain, or 0 where it is not known.
  explicit checkpoint_schedule(index_t slots, index_t steps = 0) : slots_(slots), steps_(steps) {
    check_at_least("checkpoint_schedule", "slots", slots, 1);
    kept_.resize(std::size_t(slots));
    free_.resize(std::size_t(slots));
    reset();
  }

  /// A state that is kept.
  struct snapshot {
    index_t step = 0;
    index_t slot = 0;   ///< where its state is
    index_t level = 0;  ///< of the schedule of a chain of unknown length
  };

  void reset() {
    count_ = 0;
    level_ = start_level;
    next_ = 0;
    for (index_t i = 0; i < slots_; ++i) free_[std::size_t(i)] = slots_ - 1 - i;
  }

  /// The slot for the state in front of step i, or -1: called for 0, 1, ... in turn.
  index_t pass(index_t i) { return steps_ > 0 ? pass_known(i) : pass_unknown(i); }

  index_t slots() const { return slots_; }  ///< states that there is room for
  index_t kept() const { return count_; }   ///< snapshots that are held
  const snapshot& resume() const { return kept_[std::size_t(count_ - 1)]; }  ///< the last one held

  /// The step, on the way from the last snapshot to step i, in front of which the next snapshot belongs; i
  /// itself when none does.
  index_t stop(index_t i) const {
    const index_t steps = i - resume().step + 1, slots = slots_ - count_ + 1;
    return slots > 1 && steps > 1 ? resume().step + first_split(steps, slots) : i;
  }
  /// A slot for the state in front of step i, behind the last snapshot.
  index_t store(index_t i) {
    const index_t slot = free_[std::size_t(slots_ - 1 - count_)];
    kept_[std::size_t(count_++)] = {i, slot, 0};
    return slot;
  }
  /// Step i has been walked backwards: snapshots from there on are no longer needed.
  void discard(index_t i) {
    while (count_ > 0 && resume().step >= i) {
      free_[std::size_t(slots_ - count_)] = resume().slot;
      --count_;
    }
  }

  /// pass() has been called for the steps 0 .. passed - 1, or (reversed) all steps have been walked
  /// backwards. The free slots are not shown: they are those of reset() that no snapshot has, or none.
  template <class V>
  void visit(V&& v, index_t passed, bool reversed) {
    visit_integer(v, "count", count_, reversed ? 0 : std::min<index_t>(passed, 1), std::min(passed, slots_));
    if (steps_ > 0)
      visit_integer(v, "next", next_, count_ == slots_ ? steps_ - 1 : 0);
    else  // the first snapshot has the level that is never dropped; others rise by at most one a pass
      visit_integer(v, "level", level_, passed == 0 ? start_level : 0, passed == 0 ? start_level : passed);
    for (index_t i = 0; i < count_; ++i) {
      const std::string name = std::to_string(i);
      snapshot& s = kept_[std::size_t(i)];
      visit_integer(v, "step " + name, s.step, i == 0 ? 0 : kept_[std::size_t(i - 1)].step + 1,
                    i == 0 ? 0 : passed - 1);
      visit_integer(v, "slot " + name, s.slot, 0, slots_ - 1);
      if (steps_ == 0)
        visit_integer(v, "level " + name, s.level, i == 0 ? start_level : 0, i == 0 ? start_level : passed);
    }
  }

 private:
  static constexpr index_t start_level = std::numeric_limits<index_t>::max();

  index_t pass_known(index_t i) {
    if (i != next_ || i + 1 >= steps_) return -1;
    const index_t slot = store(i);
    next_ = stop(steps_ - 1);
    return slot;
  }

  // Wang, Moin & Iaccarino 2009, algorithm 1. Its newest snapshot, of level level_, has no slot yet: it is
  // the state that the caller has just computed. A snapshot is dispensable when a later one has a higher
  // level.
  index_t pass_unknown(index_t i) {
    if (count_ == slots_) {
      index_t highest = level_, victim = count_ - 1;
      while (victim >= 0 && kept_[std::size_t(victim)].level >= highest)
        highest = kept_[std::size_t(victim--)].level;
      if (victim < 0) {
        ++level_;
        return -1;
      }
      free_[0] = kept_[std::size_t(victim)].slot;
      std::move(kept_.begin() + victim + 1, kept_.begin() + count_, kept_.begin() + victim);
      --count_;
    }
    const index_t slot = store(i);
    kept_[std::size_t(count_ - 1)].level = level_;
    level_ = 0;
    return slot;
  }

  index_t slots_, steps_;
  std::vector<snapshot> kept_;  // the first count_, in the order of their steps
  std::vector<index_t> free_;   // the first slots_ - count_: slots that hold nothing
  index_t count_ = 0;
  index_t level_ = start_level;
  index_t next_ = 0;
};

}  // namespace unroll
