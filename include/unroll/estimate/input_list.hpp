#pragma once

#include <span>
#include <type_traits>
#include <vector>

#include "unroll/core/config.hpp"

namespace unroll {

/// The inputs an estimator holds on to. A vector whose copies keep the reserved room, so that the copy of an
/// estimator allocates no more than the estimator itself.
template <class Input>
class input_list {
  static_assert(!std::is_same_v<Input, bool>,
                "a system's input cannot be bool, whose vector is no array; use int");

 public:
  explicit input_list(index_t room) { list_.reserve(std::size_t(room)); }
  input_list(const input_list& other) {
    list_.reserve(other.list_.capacity());
    list_.assign(other.list_.begin(), other.list_.end());
  }
  input_list(input_list&&) noexcept = default;
  input_list& operator=(input_list other) noexcept {
    list_.swap(other.list_);
    return *this;
  }
  ~input_list() = default;

  index_t size() const { return index_t(list_.size()); }
  std::size_t bytes() const { return list_.capacity() * sizeof(Input); }
  std::span<const Input> part(index_t first, index_t count) const {
    return std::span<const Input>(list_).subspan(std::size_t(first), std::size_t(count));
  }

  void push(const Input& x) { list_.push_back(x); }
  void drop_last(index_t n) { list_.erase(list_.end() - n, list_.end()); }
  void drop_first(index_t n) { list_.erase(list_.begin(), list_.begin() + n); }
  void clear() { list_.clear(); }

 private:
  std::vector<Input> list_;
};

}  // namespace unroll
