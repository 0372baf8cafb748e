#pragma once

#include <cstdint>
#include <span>
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
};

/// Owns the arrays of `lanes` sequences and the examples that look into them. Every task of this folder
/// returns one. It can be moved and not copied; what inputs() returns stays valid when it is moved.
template <class T>
class sequences {
 public:
  explicit sequences(const sequence_shape& shape) : shape_(shape) {
    check_at_least("sequences", "steps", shape.steps, 0);
    check_at_least("sequences", "lanes", shape.lanes, 1);
    check_at_least("sequences", "in", shape.in, 0);
    check_at_least("sequences", "out", shape.out, 0);
    const index_t all = shape.steps * shape.lanes;
    x_ = buffer<T>(all * shape.in);
    target_ = buffer<T>(all * shape.out);
    if (shape.token) token_.resize(std::size_t(all));
    if (shape.label) label_.resize(std::size_t(all));
    examples_.resize(std::size_t(shape.steps));
    for (index_t t = 0; t < shape.steps; ++t) {
      auto& e = examples_[std::size_t(t)];
      if (shape.in > 0) e.x = x_.data() + t * shape.lanes * shape.in;
      if (shape.out > 0) e.target = target_.data() + t * shape.lanes * shape.out;
      if (shape.token) e.token = token_.data() + t * shape.lanes;
      if (shape.label) e.label = label_.data() + t * shape.lanes;
    }
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
  /// Step t has no loss: its example loses target and label.
  void without_loss(index_t t) {
    examples_[std::size_t(t)].target = nullptr;
    examples_[std::size_t(t)].label = nullptr;
  }

 private:
  sequence_shape shape_;
  buffer<T> x_, target_;
  std::vector<std::int32_t> token_, label_;
  std::vector<cells::example<T>> examples_;
};

}  // namespace unroll::data
