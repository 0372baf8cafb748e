#pragma once

#include "unroll/core/simd.hpp"

namespace unroll::cells {

/// Elements [at, at + N) of arrays of T, as vectors.
template <class T, int N>
struct whole_slice {
  index_t at;  ///< first element
  UNROLL_INLINE simd::vec<T, N> load(const T* p) const { return simd::load<N>(p + at); }
  /// The elements of this slice.
  UNROLL_INLINE void store(const simd::vec<T, N>& v, T* p) const { simd::store(v, p + at); }
};
/// Elements [at, at + count), less than N.
template <class T, int N>
struct last_slice {
  index_t at, count;  ///< first element, how many
  UNROLL_INLINE simd::vec<T, N> load(const T* p) const { return simd::load_first<N>(p + at, count); }
  /// The elements of this slice.
  UNROLL_INLINE void store(const simd::vec<T, N>& v, T* p) const { simd::store_first(v, p + at, count); }
};

namespace detail {
template <class T>
struct slices_kernel {
  template <class Isa, class F>
  UNROLL_INLINE static void run(index_t n, const F& f) {
    constexpr int N = simd::width<Isa, T>;
    index_t i = 0;
    for (; i + N <= n; i += N) f(whole_slice<T, N>{i});
    if (i < n) f(last_slice<T, N>{i, n - i});
  }
};
}  // namespace detail

/// Calls f(slice) for the slices that make up n elements, in order; f is UNROLL_INLINE. The gates of a cell
/// are a chain of elementwise functions: in one loop their values never leave the registers.
template <class T, class F>
void for_each_slice(index_t n, const F& f) {
  simd::dispatch<detail::slices_kernel<T>, index_t, const F&>(n, f);
}

}  // namespace unroll::cells
