#pragma once

#include <cmath>

#include "unroll/core/linalg.hpp"

// The softmax of a vector on the host: exp((x - largest) scale) and its sum, which does not overflow for
// numbers of any finite size. (Attention of several queries has one in each lane, see attention_scores.hpp.)
namespace unroll::kernels {

namespace detail {

/// p = exp((x - most) scale), n numbers, with `most` at least the largest of x; returns the sum, in the order
/// of simd::sum_on; p may be x.
template <class Isa, class T>
UNROLL_INLINE inline T exponentials_on(const T* x, index_t n, T most, T scale, T* p) {
  constexpr int N = simd::width<Isa, T>;
  using vec = simd::vec<T, N>;
  const auto at = [&](const vec& u) UNROLL_INLINE { return simd::exp((u - most) * scale); };
  double total = 0;
  for (index_t block = 0; block < n; block += 4096) {
    const index_t end = block + 4096 < n ? block + 4096 : n;
    vec part[4] = {};
    index_t i = block;
    for (; i + 4 * N <= end; i += 4 * N) {
      UNROLL_FULLY
      for (int u = 0; u < 4; ++u) {
        const vec e = at(simd::load<N>(x + i + u * N));
        simd::store(e, p + i + u * N);
        part[u] += e;
      }
    }
    for (; i + N <= end; i += N) {
      const vec e = at(simd::load<N>(x + i));
      simd::store(e, p + i);
      part[0] += e;
    }
    if (i < end) {
      const vec e = simd::keep_first(at(simd::load_first<N>(x + i, end - i)), end - i, T(0));
      simd::store_first(e, p + i, end - i);
      part[1] += e;
    }
    total += double(simd::reduce((part[0] + part[1]) + (part[2] + part[3])));
  }
  return T(total);
}

}  // namespace detail

/// What a softmax subtracts, and what it divides by.
template <class T>
struct softmax_scale {
  T largest;  ///< of the logits
  T sum;      ///< of exp(logits - largest)
};

namespace detail {

template <class T>
struct exponentials_kernel {
  template <class Isa>
  UNROLL_INLINE static softmax_scale<T> run(const T* logits, index_t n, T* p) {
    const T largest = simd::largest_on<Isa>(logits, n, logits[0]);
    return {largest, exponentials_on<Isa>(logits, n, largest, T(1), p)};
  }
};
template <class T>
struct softmax_logits_kernel {
  template <class Isa>
  UNROLL_INLINE static softmax_scale<T> run(const T* logits, index_t n, T* p) {
    const softmax_scale<T> scale = exponentials_kernel<T>::template run<Isa>(logits, n, p);
    simd::map_on<Isa>([share = 1 / scale.sum](const auto& u) UNROLL_INLINE { return u * share; }, n, p, p);
    return scale;
  }
};

}  // namespace detail

/// p = exp(logits - largest), n >= 1 numbers; p may be logits.
template <class T>
softmax_scale<T> exponentials(const T* logits, index_t n, T* p) {
  return simd::dispatch<detail::exponentials_kernel<T>>(logits, n, p);
}

/// Writes p = softmax(logits), n >= 1 numbers, and returns -log p[label] in nats, 0 for a negative label; p
/// may be logits. Exact up to rounding for logits of any finite size.
template <class T>
T softmax_cross_entropy(const T* logits, index_t n, index_t label, T* p) {
  const T wanted = label < 0 ? T(0) : logits[label];
  const softmax_scale<T> scale = simd::dispatch<detail::softmax_logits_kernel<T>>(logits, n, p);
  return label < 0 ? T(0) : std::log(scale.sum) - (wanted - scale.largest);
}

#if defined(UNROLL_INSTANCE)
#define UNROLL_SOFTMAX_OF(T)                                               \
  UNROLL_INSTANCE softmax_scale<T> exponentials<T>(const T*, index_t, T*); \
  UNROLL_INSTANCE T softmax_cross_entropy<T>(const T*, index_t, index_t, T*);
UNROLL_SOFTMAX_OF(float)
UNROLL_SOFTMAX_OF(double)
#undef UNROLL_SOFTMAX_OF
#endif

}  // namespace unroll::kernels
