#pragma once

#include "unroll/core/simd.hpp"

namespace unroll::cells {

/// Elements [at, at + width) of arrays of T, as vectors.
template <class T>
struct whole_slice {
  index_t at;
  simd::vec<T> load(const T* p) const { return simd::load<simd::width<T>>(p + at); }
  void store(const simd::vec<T>& v, T* p) const { simd::store(v, p + at); }
};
/// Elements [at, at + count), less than a vector.
template <class T>
struct last_slice {
  index_t at, count;
  simd::vec<T> load(const T* p) const { return simd::load_first<simd::width<T>>(p + at, count); }
  void store(const simd::vec<T>& v, T* p) const { simd::store_first(v, p + at, count); }
};

/// Calls f(slice) for the slices that make up n elements, in order. The gates of a cell are a chain of
/// elementwise functions: in one loop their values never leave the registers.
template <class T, class F>
void for_each_slice(index_t n, const F& f) {
  constexpr index_t width = simd::width<T>;
  index_t i = 0;
  for (; i + width <= n; i += width) f(whole_slice<T>{i});
  if (i < n) f(last_slice<T>{i, n - i});
}

}  // namespace unroll::cells
