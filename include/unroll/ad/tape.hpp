#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "unroll/ad/elementary.hpp"

namespace unroll::ad {

template <class T>
class tape;

/// A value that remembers on which tape it was computed: reverse mode. Numbers convert to constants, which
/// are on no tape and cost no node. All variables of one expression must live on the same tape.
template <class T>
class var : public differentiable<var<T>, T> {
 public:
  var() = default;
  template <class A>
  requires std::is_arithmetic_v<A> var(A value) : value_(static_cast<T>(value)) {}

  T value() const { return value_; }
  bool constant() const { return tape_ == nullptr; }  ///< it depends on nothing that was recorded

  /// Records f(x) of value `value` and derivative `dx`.
  static var chain(T value, const var& x, T dx) {
    return x.tape_ ? x.tape_->record(value, x.node_, dx, x.node_, T(0)) : var(value);
  }
  /// Records f(x, y) of value `value` and partial derivatives dx, dy.
  static var chain(T value, const var& x, T dx, const var& y, T dy) {
    if (!y.tape_) return chain(value, x, dx);
    if (!x.tape_) return chain(value, y, dy);
    UNROLL_ASSERT(x.tape_ == y.tape_);
    return x.tape_->record(value, x.node_, dx, y.node_, dy);
  }

 private:
  friend class tape<T>;
  var(T value, tape<T>* on, std::uint32_t node) : tape_(on), value_(value), node_(node) {}

  tape<T>* tape_ = nullptr;
  T value_ = 0;
  std::uint32_t node_ = 0;
};

/// The record of one computation: a node per operation with its one or two operands and the derivatives by
/// them, at most 2^32. Lives wherever its owner puts it; nothing is global, so that threads with a tape each
/// do not meet. Variables point to their tape: it must stay where it is until the next clear().
template <class T>
class tape {
 public:
  tape() = default;
  /// A copy has no nodes, only room for as many: variables belong to one tape.
  tape(const tape& other) {
    nodes_.reserve(other.nodes_.capacity());
    adjoints_.reserve(other.adjoints_.capacity());
  }
  tape(tape&&) noexcept = default;
  tape& operator=(tape other) noexcept {
    nodes_.swap(other.nodes_);
    adjoints_.swap(other.adjoints_);
    return *this;
  }

  /// Forgets all nodes and keeps the memory.
  void clear() { nodes_.clear(); }
  /// Nodes recorded since clear().
  std::size_t size() const { return nodes_.size(); }
  std::size_t bytes() const { return nodes_.capacity() * sizeof(node) + adjoints_.capacity() * sizeof(T); }

  /// A new independent variable.
  var<T> variable(T value) {
    const auto self = std::uint32_t(nodes_.size());
    return record(value, self, T(0), self, T(0));
  }

  /// Starts a reverse sweep: all adjoints are zero.
  void zero_adjoints() { adjoints_.assign(nodes_.size(), T(0)); }
  /// Adds to the adjoint of x, before propagate(). Constants have none.
  void seed(const var<T>& x, T adjoint) {
    UNROLL_ASSERT(x.tape_ == nullptr || x.tape_ == this);
    if (x.tape_) adjoints_[x.node_] += adjoint;
  }
  /// Carries the adjoints from the last node to the first. A node with adjoint 0 adds nothing, whatever its
  /// derivatives, and a derivative of 0 nothing, whatever the adjoint.
  void propagate() {
    for (std::size_t i = nodes_.size(); i-- > 0;) {
      const node& n = nodes_[i];
      const T a = adjoints_[i];
      if (a == T(0) || n.x == i) continue;
      adjoints_[n.x] += detail::scaled(n.dx, a);
      if (n.y != n.x || n.dy != T(0)) adjoints_[n.y] += detail::scaled(n.dy, a);
    }
  }
  /// The adjoint of x after propagate(); 0 for constants.
  T adjoint(const var<T>& x) const { return x.tape_ ? adjoints_[x.node_] : T(0); }

 private:
  friend class var<T>;
  struct node {
    std::uint32_t x, y;
    T dx, dy;
  };
  var<T> record(T value, std::uint32_t x, T dx, std::uint32_t y, T dy) {
    const auto self = std::uint32_t(nodes_.size());
    nodes_.push_back({x, y, dx, dy});
    return {value, this, self};
  }

  std::vector<node> nodes_;
  std::vector<T> adjoints_;
};

}  // namespace unroll::ad
