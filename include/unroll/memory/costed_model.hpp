#pragma once

#include <concepts>

#include "unroll/system/memory_model.hpp"

namespace unroll {

/// A memory model over text that can say what its calls take without making one: numbers held, by kind, and
/// floating-point operations. n tokens are cut into segments of segment_length() tokens, the last of which
/// may be shorter.
///
///   memory_dims size() const, bool independent() const, index_t workspace(earlier, batch) const
///                                            as of the memory model
///   index_t weights() const                  frozen numbers
///   index_t segment_length() const           tokens
///   index_t longest_text() const             tokens, in whole segments
///   bool holds(index_t tokens) const         whether segments of so many tokens together have positions
///   index_t read_tape(index_t batch) const   the part of the workspace that a batch of reads keeps for its
///                                            vjp: the decoder's graph
///   double write(s), write_vjp(s), read(t, tokens), read_vjp(t, tokens) const
///                                            operations of the call on one segment
///
/// Optional: `using numbers`, what the numbers are stored in; floats without it. write_workspace(earlier,
/// batch) and memories_on_host(), as of the memory model.
template <class C>
concept costed_memory_model = requires(const C& c, index_t n) {
  { c.size() } -> std::same_as<memory_dims>;
  { c.independent() } -> std::same_as<bool>;
  { c.workspace(n, n) } -> std::same_as<index_t>;
  { c.weights() } -> std::same_as<index_t>;
  { c.segment_length() } -> std::same_as<index_t>;
  { c.longest_text() } -> std::same_as<index_t>;
  { c.holds(n) } -> std::same_as<bool>;
  { c.read_tape(n) } -> std::same_as<index_t>;
  { c.write(n) } -> std::convertible_to<double>;
  { c.write_vjp(n) } -> std::convertible_to<double>;
  { c.read(n, n) } -> std::convertible_to<double>;
  { c.read_vjp(n, n) } -> std::convertible_to<double>;
};

}  // namespace unroll
