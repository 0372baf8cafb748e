#pragma once

#include "unroll/core/simd.hpp"

namespace unroll::cells {

/// Elements [at, at + N) of arrays of T, as vectors.
template <class T, int N>
struct slice {
  index_t at;  ///< first element
  /// The elements of this slice of p, an array of at least at + N.
  UNROLL_INLINE simd::vec<T, N> load(const T* p) const { return simd::load<N>(p + at); }
  /// WRITES them.
  UNROLL_INLINE void store(const simd::vec<T, N>& v, T* p) const { simd::store(v, p + at); }
};

namespace detail {
template <class T>
struct slices_kernel {
  template <class Isa, class F>
  UNROLL_INLINE static void run(index_t n, const F& f) {
    from<simd::width<Isa, T>>(0, n, f);
  }
  /// What is left of a vector by narrower ones: cells may have few units.
  template <int N, class F>
  UNROLL_INLINE static void from(index_t i, index_t n, const F& f) {
    for (; i + N <= n; i += N) f(slice<T, N>{i});
    if constexpr (N > 1) from<N / 2>(i, n, f);
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
