#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>

#include "unroll/core/config.hpp"
#include "unroll/core/error.hpp"

namespace unroll {

// The spaces a flat vector can live in. A cotangent is what a vjp carries backwards, a tangent what a jvp
// carries forwards; naming the space makes it a compile error to pass one for the other.
struct param_space {};
struct state_space {};
struct tape_space {};
struct param_cotangent_space {};
struct state_cotangent_space {};
struct param_tangent_space {};
struct state_tangent_space {};
struct plain_space {};

namespace detail {

template <class C, class T>
concept flat_container = requires(C& c) {
  { c.data() } -> std::convertible_to<T*>;
  { c.size() } -> std::convertible_to<std::size_t>;
};

// Eigen's blocks and xtensor's views offer data() and size() although their elements may not lie side by
// side.
template <class C>
constexpr bool is_contiguous(const C& c) {
  if constexpr (requires { c.innerStride(), c.outerStride(), c.innerSize(), c.outerSize(); }) {
    return c.size() == 0 || ((c.innerStride() == 1 || c.innerSize() == 1) &&
                             (c.outerSize() == 1 || c.outerStride() == c.innerSize()));
  } else if constexpr (requires { c.shape().size(), c.strides().size(); }) {
    const auto& shape = c.shape();
    const auto& strides = c.strides();
    const auto dense = [&](bool row_major) {
      index_t expected = 1;
      const std::size_t n = shape.size();
      for (std::size_t k = 0; k < n; ++k) {
        const std::size_t i = row_major ? n - 1 - k : k;
        if (index_t(shape[i]) != 1 && index_t(strides[i]) != expected) return false;
        expected *= index_t(shape[i]);
      }
      return true;
    };
    return dense(true) || dense(false);
  } else {
    return true;
  }
}

template <class C>
constexpr auto first_element(C& c) {
  if constexpr (requires { c.data_offset(); })
    return c.data() + c.data_offset();
  else
    return c.data();
}

}  // namespace detail

/// A typed window on contiguous memory of T that lives in `Space`. Copies are cheap; nothing is owned.
/// Converts from arrays and std::vector, std::array, std::span, Eigen and xtensor containers without copying
/// elements; throws unroll::error when such a container is strided.
template <class T, class Space = plain_space>
class view {
 public:
  using value_type = std::remove_const_t<T>;

  constexpr view() = default;
  UNROLL_HD constexpr view(T* data, index_t size) : data_(data), size_(size) {}

  /// From a view of the same space that may be written.
  template <class U>
  requires(std::same_as<const U, T> && !std::is_const_v<U>) UNROLL_HD constexpr view(view<U, Space> other)
      : data_(other.data()), size_(other.size()) {}

  template <class C>
  requires(detail::flat_container<C, T> &&
           !requires { typename std::remove_cvref_t<C>::unroll_space; }) constexpr view(C&& container)
      : data_(detail::first_element(container)), size_(static_cast<index_t>(container.size())) {
    if (!detail::is_contiguous(container)) fail("view", "container", "is strided, must be contiguous");
  }
  template <std::size_t N>
  constexpr view(T (&array)[N]) : data_(array), size_(index_t(N)) {}

  using unroll_space = Space;

  UNROLL_HD constexpr T* data() const { return data_; }
  UNROLL_HD constexpr index_t size() const { return size_; }
  UNROLL_HD constexpr bool empty() const { return size_ == 0; }
  UNROLL_HD constexpr T* begin() const { return data_; }
  UNROLL_HD constexpr T* end() const { return data_ + size_; }
  UNROLL_HD constexpr T& operator[](index_t i) const {
    UNROLL_ASSERT(i >= 0 && i < size_);
    return data_[i];
  }
  /// Elements [offset, offset + count).
  UNROLL_HD constexpr view part(index_t offset, index_t count) const {
    UNROLL_ASSERT(offset >= 0 && count >= 0 && offset + count <= size_);
    return view(data_ + offset, count);
  }

 private:
  T* data_ = nullptr;
  index_t size_ = 0;
};

template <class T>
using params = view<T, param_space>;  ///< theta
template <class T>
using state = view<T, state_space>;  ///< s
template <class T>
using tape = view<T, tape_space>;  ///< what a step saves for its vjp and jvp
template <class T>
using dparams = view<T, param_cotangent_space>;  ///< gradient with respect to theta
template <class T>
using dstate = view<T, state_cotangent_space>;  ///< gradient with respect to s
template <class T>
using params_tangent = view<T, param_tangent_space>;  ///< direction in theta
template <class T>
using state_tangent = view<T, state_tangent_space>;  ///< direction in s

}  // namespace unroll
