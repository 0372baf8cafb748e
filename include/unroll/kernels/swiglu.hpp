#pragma once

#include "unroll/core/elementary.hpp"

namespace unroll::kernels {

/// out = up * gate * logistic(gate), n numbers each (Shazeer 2020, arXiv 2002.05202); out may be gate or up.
template <class T>
void swiglu(const T* gate, const T* up, T* out, index_t n) {
  simd::map([](const auto& g, const auto& u) UNROLL_INLINE { return u * (g * simd::logistic(g)); }, n, out,
            gate, up);
}

namespace detail {
struct swiglu_vjp_kernel {
  template <class Isa, class T>
  UNROLL_INLINE static void run(const T* gate, const T* up, const T* dout, T* dgate, T* dup, index_t n) {
    constexpr int N = simd::width<Isa, T>;
    using vec = simd::vec<T, N>;
    const auto at = [](const vec& g, const vec& u, const vec& d, vec& dg, vec& du) UNROLL_INLINE {
      const vec s = simd::logistic(g);
      dg = d * u * (s * (T(1) + g * (T(1) - s)));
      du = d * (g * s);
    };
    vec dg, du, last_dg, last_du;
    if (n == 0) return;  // no n numbers have an address
    if (n < N) {
      const auto first = [&](const T* x) UNROLL_INLINE { return simd::load_first<N>(x, n); };
      at(first(gate), first(up), first(dout), dg, du);
      simd::store_first(dg, dgate, n);
      simd::store_first(du, dup, n);
      return;
    }
    const auto from = [&](index_t i, vec& to_dg, vec& to_du) UNROLL_INLINE {
      at(simd::load<N>(gate + i), simd::load<N>(up + i), simd::load<N>(dout + i), to_dg, to_du);
    };
    from(n - N, last_dg, last_du);  // before any input of it is overwritten, see simd::map_on
    for (index_t i = 0; i < n - N; i += N) {
      from(i, dg, du);
      simd::store(dg, dgate + i);
      simd::store(du, dup + i);
    }
    simd::store(last_dg, dgate + n - N);
    simd::store(last_du, dup + n - N);
  }
};
}  // namespace detail

/// WRITES with s = logistic(gate), n numbers each:
///   dgate = dout * up * s * (1 + gate (1 - s)),   dup = dout * gate * s.
/// Each of the two outputs may be the memory of any one of the inputs, but not both of the same.
template <class T>
void swiglu_vjp(const T* gate, const T* up, const T* dout, T* dgate, T* dup, index_t n) {
  simd::dispatch<detail::swiglu_vjp_kernel>(gate, up, dout, dgate, dup, n);
}

#if defined(UNROLL_INSTANCE)
#define UNROLL_SWIGLU_OF(T)                                        \
  UNROLL_INSTANCE void swiglu<T>(const T*, const T*, T*, index_t); \
  UNROLL_INSTANCE void swiglu_vjp<T>(const T*, const T*, const T*, T*, T*, index_t);
UNROLL_SWIGLU_OF(float)
UNROLL_SWIGLU_OF(double)
#undef UNROLL_SWIGLU_OF
#endif

}  // namespace unroll::kernels
