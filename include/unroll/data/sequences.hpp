#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "unroll/cells/example.hpp"
#include "unroll/core/block.hpp"

namespace unroll::data {

/// What a task presents at each step: numbers or a token, and a target or a label; 0 and false: nothing.
struct sequence_shape {
  index_t steps = 0;
  index_t lanes = 1;   ///< independent sequences side by side
  index_t in = 0;      ///< numbers of x in a lane
  index_t out = 0;     ///< numbers of the target in a lane
  bool token = false;  ///< the input is a token
  bool label = false;  ///< the target is a label
  bool mask = false;   ///< a mask says which lanes of a target count
};

/// Arrays of somebody's own, in C's order: a step behind the other, a lane behind the other in each. What the
/// shape does not have stays empty.
template <class T>
struct sequence_arrays {
  std::span<const T> x = {};                 ///< steps x lanes x in
  std::span<const T> target = {};            ///< steps x lanes x out
  std::span<const std::int32_t> token = {};  ///< steps x lanes
  std::span<const std::int32_t> label = {};  ///< steps x lanes
  std::span<const std::uint8_t> mask = {};   ///< steps x lanes
};

/// Throws unroll::error on a shape that cannot be: sizes below 0, no lane, or more numbers than memory has
/// addresses for.
inline void check_shape(const char* who, const sequence_shape& shape) {
  check_at_least(who, "steps", shape.steps, 0);
  check_at_least(who, "lanes", shape.lanes, 1);
  check_at_least(who, "in", shape.in, 0);
  check_at_least(who, "out", shape.out, 0);
  const index_t each = std::max({index_t(1), shape.in, shape.out});
  const index_t most = std::numeric_limits<index_t>::max() / 16 / each;
  if (shape.steps > 0 && shape.lanes > most / shape.steps)
    fail(who, "lanes",
         "is " + std::to_string(shape.lanes) + ", at most " + std::to_string(most / shape.steps) + " of " +
             std::to_string(shape.steps) + " steps and " + std::to_string(each) + " numbers have addresses");
}

/// One example a step, which look into the arrays: these must live as long. Throws unroll::error, with the
/// name of the array and both sizes, where one has another number of entries than the shape says.
template <class T>
std::vector<cells::example<T>> examples(const sequence_shape& shape, const sequence_arrays<T>& arrays) {
  check_shape("examples", shape);
  const index_t all = shape.steps * shape.lanes;
  check_size("examples", "x", index_t(arrays.x.size()), all * shape.in);
  check_size("examples", "target", index_t(arrays.target.size()), all * shape.out);
  check_size("examples", "token", index_t(arrays.token.size()), shape.token ? all : 0);
  check_size("examples", "label", index_t(arrays.label.size()), shape.label ? all : 0);
  check_size("examples", "mask", index_t(arrays.mask.size()), shape.mask ? all : 0);
  std::vector<cells::example<T>> made(std::size_t(shape.steps));
  for (index_t t = 0; t < shape.steps; ++t) {
    const index_t first = t * shape.lanes;
    cells::example<T>& e = made[std::size_t(t)];
    e.lanes = shape.lanes;
    if (shape.in > 0) e.x = arrays.x.data() + first * shape.in;
    if (shape.out > 0) e.target = arrays.target.data() + first * shape.out;
    if (shape.token) e.token = arrays.token.data() + first;
    if (shape.label) e.label = arrays.label.data() + first;
    if (shape.mask) e.mask = arrays.mask.data() + first;
  }
  return made;
}

/// Owns the arrays of `lanes` sequences and the examples that look into them. Every task of this folder
/// returns one. It can be moved and not copied; what inputs() returns stays valid when it is moved.
template <class T>
class sequences {
 public:
  explicit sequences(const sequence_shape& shape) : shape_(shape) {
    check_shape("sequences", shape);
    const index_t all = shape.steps * shape.lanes;
    x_ = buffer<T>(all * shape.in);
    target_ = buffer<T>(all * shape.out);
    if (shape.token) token_.resize(std::size_t(all));
    if (shape.label) label_.resize(std::size_t(all));
    if (shape.mask) mask_.assign(std::size_t(all), 1);
    examples_ = examples<T>(shape, {{x_.data(), std::size_t(x_.size())},
                                    {target_.data(), std::size_t(target_.size())},
                                    token_,
                                    label_,
                                    mask_});
  }
  sequences(const sequences&) = delete;
  sequences& operator=(const sequences&) = delete;
  sequences(sequences&&) noexcept = default;
  sequences& operator=(sequences&&) noexcept = default;

  /// One example a step, all lanes at once.
  std::span<const cells::example<T>> inputs() const& { return examples_; }
  void inputs() && = delete;  // they would be gone with it
  index_t steps() const { return shape_.steps; }
  index_t lanes() const { return shape_.lanes; }
  const sequence_shape& shape() const { return shape_; }

  /// Number i of the input.
  T& x(index_t t, index_t lane, index_t i = 0) { return x_[(t * shape_.lanes + lane) * shape_.in + i]; }
  /// Number i of the target.
  T& target(index_t t, index_t lane, index_t i = 0) {
    return target_[(t * shape_.lanes + lane) * shape_.out + i];
  }
  /// The input, where it is a token.
  std::int32_t& token(index_t t, index_t lane) { return token_[std::size_t(t * shape_.lanes + lane)]; }
  /// The target, where it is a label.
  std::int32_t& label(index_t t, index_t lane) { return label_[std::size_t(t * shape_.lanes + lane)]; }
  /// 1, or 0 where the target of that lane does not count.
  std::uint8_t& mask(index_t t, index_t lane) { return mask_[std::size_t(t * shape_.lanes + lane)]; }
  /// Step t has no loss: its example loses target and label.
  void without_loss(index_t t) {
    examples_[std::size_t(t)].target = nullptr;
    examples_[std::size_t(t)].label = nullptr;
  }

 private:
  sequence_shape shape_;
  buffer<T> x_, target_;
  std::vector<std::int32_t> token_, label_;
  std::vector<std::uint8_t> mask_;
  std::vector<cells::example<T>> examples_;
};

}  // namespace unroll::data
