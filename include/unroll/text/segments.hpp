#pragma once

#include <algorithm>
#include <span>
#include <type_traits>

#include "unroll/core/error.hpp"

namespace unroll {

/// `for (auto xs : segments(inputs, 10))` walks through the inputs in spans of 10; the last may be shorter.
/// The inputs must outlive it.
template <class X>
class segments {
 public:
  segments(std::span<X> all, index_t length) : all_(all), length_(std::size_t(length)) {
    check_at_least("segments", "length", length, 1);
  }
  /// A container that would be gone before the walk begins; spans and other borrowed ranges are welcome.
  template <class R>
  requires(!std::is_lvalue_reference_v<R> && !std::ranges::enable_borrowed_range<std::remove_cvref_t<R>>)  //
      segments(R&& all, index_t length)
  = delete;

  class iterator {
   public:
    iterator(const segments* owner, std::size_t at) : owner_(owner), at_(at) {}
    std::span<X> operator*() const {
      return owner_->all_.subspan(at_, std::min(owner_->length_, owner_->all_.size() - at_));
    }
    iterator& operator++() {
      at_ += std::min(owner_->length_, owner_->all_.size() - at_);
      return *this;
    }
    bool operator!=(const iterator& other) const { return at_ != other.at_; }
    bool operator==(const iterator& other) const { return at_ == other.at_; }

   private:
    const segments* owner_;
    std::size_t at_;
  };

  iterator begin() const { return {this, 0}; }
  iterator end() const { return {this, all_.size()}; }

 private:
  std::span<X> all_;
  std::size_t length_;
};

}  // namespace unroll
