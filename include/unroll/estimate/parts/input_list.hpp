#pragma once

#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "unroll/core/visit.hpp"

namespace unroll {

/// The inputs that an estimator keeps: a vector that reserves its memory at construction. A copy reserves as
/// much, so that the copy of an estimator does not allocate while it runs either.
template <class Input>
class input_list {
  static_assert(!std::is_same_v<Input, bool>,
                "a system's input cannot be bool, whose vector is no array; use int");

 public:
  explicit input_list(index_t reserve) { list_.reserve(std::size_t(reserve)); }  ///< in inputs
  input_list(const input_list& other) : awaited_(other.awaited_) {
    list_.reserve(other.list_.capacity());
    list_.assign(other.list_.begin(), other.list_.end());
  }
  input_list(input_list&&) noexcept = default;
  input_list& operator=(input_list other) noexcept {
    list_.swap(other.list_);
    awaited_ = other.awaited_;
    return *this;
  }
  ~input_list() = default;

  index_t size() const { return index_t(list_.size()) + awaited_; }
  std::size_t bytes() const { return list_.capacity() * sizeof(Input); }
  std::span<const Input> part(index_t first, index_t count) const {
    return std::span<const Input>(list_).subspan(std::size_t(first), std::size_t(count));
  }

  void push(const Input& x) { list_.push_back(x); }                              ///< takes an input
  void drop_last(index_t n) { list_.erase(list_.end() - n, list_.end()); }       ///< gives the newest n up
  void drop_first(index_t n) { list_.erase(list_.begin(), list_.begin() + n); }  ///< gives the oldest n up
  void clear() {
    list_.clear();
    awaited_ = 0;
  }

  /// Shows how many inputs there are, at most `most`. The inputs themselves are views of the caller's data:
  /// after a resume the caller gives them back, by hold(), before any other call.
  template <class V>
  void visit(V&& v, index_t most = std::numeric_limits<index_t>::max()) {
    index_t count = size();
    visit_integer(v, "inputs", count, index_t(list_.size()), most);
    awaited_ = count - index_t(list_.size());
  }
  void hold(std::span<const Input> xs) {
    check_size("hold", "xs", index_t(xs.size()), awaited_);
    list_.insert(list_.end(), xs.begin(), xs.end());
    awaited_ = 0;
  }
  /// Throws unless resumed inputs were given back.
  void check_held() const {
    if (awaited_ > 0)
      fail("estimator", "call",
           "comes after a resume, must come after hold_inputs(), which gives the last " +
               std::to_string(awaited_) + " inputs back");
  }

 private:
  std::vector<Input> list_;
  index_t awaited_ = 0;  // inputs that hold() has to bring after a resume; the list is empty until then
};

}  // namespace unroll
