#pragma once

#include <exception>
#include <optional>
#include <string>

#include "unroll/diagnose/draw_block.hpp"
#include "unroll/ranks/ranks.hpp"

namespace unroll {

namespace detail {

// The blocks of a sample that several ranks draw, which each rank sends to all in their common order. A rank
// that stops, or whose draw throws, says so in place of its next block, and that is the end on all.
class shared_blocks {
 public:
  shared_blocks(const ranks& among, index_t params) : among_(among) {
    if (among.size() > 1) theirs_.emplace(params);
  }

  void send(draw_block& ours) {
    if (among_.size() == 1) return;
    say(among_.rank(), comes);
    among_.broadcast_visited(among_.rank(), ours);
  }
  // Block b, which is another rank's; null: there is none.
  const draw_block* receive(index_t b) {
    const index_t from = among_.owner(b);
    const std::int64_t what = say(from, comes);
    ended_ = what != comes;
    if (what == throws) error_ = "rank " + std::to_string(from) + ": " + among_.broadcast_text(from, "");
    if (ended_) return nullptr;
    among_.broadcast_visited(from, *theirs_);
    return &*theirs_;
  }
  // In place of our next block.
  void send_end(const std::exception_ptr& why) {
    ended_ = true;
    if (among_.size() == 1) return;
    say(among_.rank(), why ? throws : stops);
    if (!why) return;
    try {
      std::rethrow_exception(why);
    } catch (const std::exception& e) {
      among_.broadcast_text(among_.rank(), e.what());
    } catch (...) {
      among_.broadcast_text(among_.rank(), "an exception");
    }
  }

  bool ended() const { return ended_; }
  void rethrow() const {
    if (!error_.empty()) throw error("draw_sample: " + error_);
  }

 private:
  enum : std::int64_t { comes, stops, throws };
  std::int64_t say(index_t root, std::int64_t what) const { return among_.broadcast(root, what); }

  ranks among_;
  std::optional<draw_block> theirs_;
  bool ended_ = false;
  std::string error_;
};

}  // namespace detail

}  // namespace unroll
