#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "unroll/core/instruction_set.hpp"

// Short vectors by the compiler's vector extension, and kernels that are compiled for several instruction
// sets. A loop over vectors always starts at element 0 and ends in a partial vector, so that a result never
// depends on where in memory its operands lie.
//
// A kernel is a class with a static member run<Isa>(arguments...) for the tags of instruction sets below;
// dispatch<Kernel>(arguments...) calls it for the set in use. Only the functions Isa::call are compiled with
// the instructions of a set, so whatever handles vectors has to be inlined into them: UNROLL_INLINE, lambdas
// too.
namespace unroll::simd {

#if defined(__GNUC__)
#define UNROLL_INLINE __attribute__((always_inline))
#else
#define UNROLL_INLINE
#endif

// Unrolls the loop that follows, whatever the optimisation level.
#if defined(__clang__)
#define UNROLL_FULLY _Pragma("unroll")
#elif defined(__GNUC__) && !defined(__CUDACC__)
#define UNROLL_FULLY _Pragma("GCC unroll 16")
#else
#define UNROLL_FULLY
#endif

// At the start of a function: clang may fuse its products and sums with those of the functions that it is
// inlined into, as g++ does unless told otherwise. Not under sanitizers: their checks part the two here and
// there, and a column of a product would have bits that depend on how many there are.
#if defined(__clang__)
#if !__has_feature(address_sanitizer) && !__has_feature(undefined_behavior_sanitizer)
#define UNROLL_FUSES _Pragma("clang fp contract(fast)")
#endif
#endif
#if !defined(UNROLL_FUSES)
#define UNROLL_FUSES
#endif

// --- instruction sets ------------------------------------------------------------------------------------
#if defined(__GNUC__) && !defined(__CUDACC__)
#define UNROLL_TARGET(set) __attribute__((noinline, target(set)))

struct baseline {
#if defined(__aarch64__)
  static constexpr int bytes = 16, registers = 32;
#else
  static constexpr int bytes = 16, registers = 16;
#endif
  template <class Kernel, class... Arguments>
  __attribute__((noinline)) static auto call(Arguments... arguments) {
    return Kernel::template run<baseline>(arguments...);
  }
};
#else
// One element at a time, for nvcc and compilers without the vector extension. A type of its own, because a
// program may have files of both.
/// One element at a time, for nvcc and compilers without the vector extension.
struct scalar {
  static constexpr int bytes = 1, registers = 16;
  /// Runs the kernel.
  template <class Kernel, class... Arguments>
  static auto call(Arguments... arguments) {
    return Kernel::template run<scalar>(arguments...);
  }
};
using baseline = scalar;  ///< the set of the file's own flags
#endif

#if defined(UNROLL_CHOOSES_INSTRUCTIONS)
struct avx2 {
  static constexpr int bytes = 32, registers = 16;
  template <class Kernel, class... Arguments>
  UNROLL_TARGET("avx2,fma")
  static auto call(Arguments... arguments) {
    return Kernel::template run<avx2>(arguments...);
  }
};
struct avx512 {
  static constexpr int bytes = 64, registers = 32;
  template <class Kernel, class... Arguments>
  UNROLL_TARGET("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
  static auto call(Arguments... arguments) {
    return Kernel::template run<avx512>(arguments...);
  }
};
#endif

/// Kernel::run<Isa>(arguments...) for the set in use.
template <class Kernel, class... Arguments>
inline auto dispatch(Arguments... arguments) {
#if defined(UNROLL_CHOOSES_INSTRUCTIONS)
  for (;; detail::choose_first()) {
    const auto s = instruction_set(detail::instructions_in_use.load(std::memory_order_relaxed));
    if (s > instruction_set::avx2) return avx512::call<Kernel, Arguments...>(arguments...);
    if (s == instruction_set::avx2) return avx2::call<Kernel, Arguments...>(arguments...);
    if (s == instruction_set::baseline) break;
  }
#endif
  return baseline::call<Kernel, Arguments...>(arguments...);
}

/// Elements in the widest vector of a set.
template <class Isa, class T>
inline constexpr int width = Isa::bytes > int(sizeof(T)) ? Isa::bytes / int(sizeof(T)) : 1;

/// The set that works on vectors half as wide: with the same bits, so that its code serves both.
template <class Isa>
struct for_half_vectors {
  using type = Isa;
};
#if defined(UNROLL_CHOOSES_INSTRUCTIONS)
template <>
struct for_half_vectors<avx512> {
  using type = avx2;
};
#endif
// --- vectors ---------------------------------------------------------------------------------------------
namespace detail {
template <class T, int N>
struct raw {
#if defined(__GNUC__)
  typedef T type __attribute__((vector_size(N * sizeof(T))));
  typedef T loose __attribute__((vector_size(N * sizeof(T)), aligned(sizeof(T)), may_alias));
#endif
};
template <class T>
struct raw<T, 1> {
  using type = T;
  using loose = T;
};
}  // namespace detail

/// N elements. A class, and passed by reference, because how a bare vector is passed depends on the
/// instruction set of a function.
template <class T, int N>
struct vec {
  using raw = typename detail::raw<T, N>::type;  ///< what the compiler computes with
  raw v;

  friend UNROLL_INLINE inline vec operator-(const vec& a) { return {-a.v}; }

#define UNROLL_OPERATOR(sign)                                                 \
  friend UNROLL_INLINE inline vec operator sign(const vec& a, const vec& b) { \
    UNROLL_FUSES                                                              \
    return {a.v sign b.v};                                                    \
  }                                                                           \
  friend UNROLL_INLINE inline vec operator sign(const vec& a, T b) {          \
    UNROLL_FUSES                                                              \
    return {a.v sign b};                                                      \
  }                                                                           \
  friend UNROLL_INLINE inline vec operator sign(T a, const vec& b) {          \
    UNROLL_FUSES                                                              \
    return {a sign b.v};                                                      \
  }
  UNROLL_OPERATOR(+)
  UNROLL_OPERATOR(-)
  UNROLL_OPERATOR(*)
  UNROLL_OPERATOR(/)
#undef UNROLL_OPERATOR
  UNROLL_INLINE vec& operator+=(const vec& b) { return *this = *this + b; }
};

/// N times x.
template <int N, class T>
UNROLL_INLINE inline vec<T, N> splat(T x) {
  return {typename vec<T, N>::raw{} + x};
}
/// The bits of v as elements of U.
template <class U, class T, int N>
UNROLL_INLINE inline vec<U, N> bits_as(const vec<T, N>& v) {
  return {__builtin_bit_cast(typename vec<U, N>::raw, v.v)};
}
/// a > b ? yes : no, element by element.
template <class T, int N>
UNROLL_INLINE inline vec<T, N> where_greater(const vec<T, N>& a, const vec<T, N>& b, const vec<T, N>& yes,
                                             const vec<T, N>& no) {
  return {a.v > b.v ? yes.v : no.v};
}

/// Hides from g++ what it knows of a vector, which stays as it is.
template <class T, int N>
UNROLL_INLINE inline void hide([[maybe_unused]] vec<T, N>& x) {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  asm("" : "+v"(x.v));
#elif defined(__aarch64__) && defined(__GNUC__) && !defined(__clang__)
  asm("" : "+w"(x.v));
#endif
}

/// N elements from p on, of any alignment.
template <int N, class T>
UNROLL_INLINE inline vec<T, N> load(const T* p) {
  return {*reinterpret_cast<const typename detail::raw<T, N>::loose*>(p)};
}
/// N elements to p on, of any alignment.
template <class T, int N>
UNROLL_INLINE inline void store(const vec<T, N>& v, std::type_identity_t<T>* p) {
  *reinterpret_cast<typename detail::raw<T, N>::loose*>(p) = v.v;
}
/// The low 32 bits of a times those of b, in 64.
template <int N>
UNROLL_INLINE inline vec<std::uint64_t, N> multiply_low(const vec<std::uint64_t, N>& a,
                                                        const vec<std::uint64_t, N>& b) {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
  // By name: g++ 12 multiplies 64 bits by 64.
  vec<std::uint64_t, N> y = a;
  if constexpr (N > 2)
    asm("vpmuludq %2, %1, %0" : "=v"(y.v) : "v"(a.v), "v"(b.v));
  else if constexpr (N == 2)
    asm("pmuludq %1, %0" : "+x"(y.v) : "x"(b.v));
  else
    y.v = (a.v & 0xFFFFFFFFu) * (b.v & 0xFFFFFFFFu);
  return y;
#else
  return {(a.v & 0xFFFFFFFFu) * (b.v & 0xFFFFFFFFu)};
#endif
}
/// Square roots, as rounded as those of the standard library, of numbers >= 0.
template <class T, int N>
UNROLL_INLINE inline vec<T, N> sqrt(const vec<T, N>& x) {
  vec<T, N> y;
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
  // By name: errno, which the library sets below 0, keeps g++ from more than one at a time.
  constexpr bool single = sizeof(T) == sizeof(float), wide = sizeof(x.v) > 16;
  if constexpr (single && wide)
    asm("vsqrtps %1, %0" : "=v"(y.v) : "v"(x.v));
  else if constexpr (wide)
    asm("vsqrtpd %1, %0" : "=v"(y.v) : "v"(x.v));
  else if constexpr (single && N > 1)
    asm("sqrtps %1, %0" : "=x"(y.v) : "x"(x.v));
  else if constexpr (single)
    asm("sqrtss %1, %0" : "=x"(y.v) : "x"(x.v));
  else
    asm("sqrtpd %1, %0" : "=x"(y.v) : "x"(x.v));
#else
  T of[std::size_t(N)];
  store(x, of);
  for (T& one : of) one = std::sqrt(one);
  y = load<N>(static_cast<const T*>(of));
#endif
  return y;
}
/// Asks for the cache line at p, which need not exist, into the first or the second cache.
template <int cache = 2, class T>
UNROLL_INLINE inline void prefetch(const T* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p, 0, 4 - cache);
#endif
}
/// Has v in a register from here on. Tuned for AMD Zen, g++ reads a v that was loaded from memory again in
/// every operation, and 16 loads take longer than the 12 multiply-adds that share 3 of them. Vectors of 64
/// bytes are left to the compiler.
template <class T, int N>
UNROLL_INLINE inline void keep(vec<T, N>& v) {
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
  if constexpr (N * sizeof(T) == 16 || N * sizeof(T) == 32) asm("" : "+v"(v.v));
#else
  (void)v;
#endif
}
/// The first n elements, zeros behind them.
template <int N, class T>
UNROLL_INLINE inline vec<T, N> load_first(const T* p, index_t n) {
  vec<T, N> v{};
  std::memcpy(&v, p, std::size_t(n) * sizeof(T));
  return v;
}
/// The first n < N elements.
template <class T, int N>
UNROLL_INLINE inline void store_first(const vec<T, N>& v, std::type_identity_t<T>* p, index_t n) {
  std::memcpy(p, &v, std::size_t(n) * sizeof(T));
}

namespace detail {
template <class T, int N, int... L>
UNROLL_INLINE inline vec<T, N> ordinals(std::integer_sequence<int, L...>) {
  const typename vec<T, N>::raw v = {T(L)...};
  return {v};
}
}  // namespace detail

/// The first n elements of v, `other` behind them.
template <class T, int N>
UNROLL_INLINE inline vec<T, N> keep_first(const vec<T, N>& v, index_t n, std::type_identity_t<T> other) {
  return where_greater(splat<N>(T(n)), detail::ordinals<T, N>(std::make_integer_sequence<int, N>{}), v,
                       splat<N>(other));
}

#if defined(__GNUC__) && !defined(__CUDACC__)
namespace detail {
template <int S, class T, int N, int... L>
UNROLL_INLINE inline vec<T, N> swap_halves(const vec<T, N>& v, std::integer_sequence<int, L...>) {
  return {__builtin_shufflevector(v.v, v.v, (L ^ S)...)};
}
}  // namespace detail
#endif

/// Sum of the elements of a vector, by halves; in vectors of full width, because g++ 12 takes narrower parts
/// of a vector through memory.
template <int S = 0, class T, int N>
UNROLL_INLINE inline T reduce(const vec<T, N>& v) {
  if constexpr (N == 1) {
    return v.v;
  } else {
#if defined(__GNUC__) && !defined(__CUDACC__)
    constexpr int half = S ? S : N / 2;
    const vec<T, N> w = v + detail::swap_halves<half>(v, std::make_integer_sequence<int, N>{});
    if constexpr (half > 1)
      return reduce<half / 2>(w);
    else
      return w.v[0];
#endif
  }
}

#if defined(__GNUC__) && !defined(__CUDACC__)
namespace detail {
// Swaps the off-diagonal S x S blocks of every 2S x 2S block of rows `low` (bit S clear) and `high` (set).
template <int S, class T, int N, int... L>
UNROLL_INLINE inline void swap_blocks(vec<T, N>& low, vec<T, N>& high, std::integer_sequence<int, L...>) {
  const auto a = low.v, b = high.v;
  low.v = __builtin_shufflevector(a, b, ((L & S) != 0 ? N + L - S : L)...);
  high.v = __builtin_shufflevector(a, b, ((L & S) != 0 ? N + L : L + S)...);
}
template <int S, class T, int N>
UNROLL_INLINE inline void transpose_blocks(vec<T, N> (&row)[std::size_t(N)]) {
  UNROLL_FULLY
  for (int i = 0; i < N; ++i)
    if ((i & S) == 0) swap_blocks<S>(row[i], row[i + S], std::make_integer_sequence<int, N>{});
  if constexpr (S > 1) transpose_blocks<S / 2>(row);
}
}  // namespace detail
#endif

/// Transposes the N x N matrix whose rows are the N vectors.
template <class T, int N>
UNROLL_INLINE inline void transpose(vec<T, N> (&row)[std::size_t(N)]) {
#if defined(__GNUC__) && !defined(__CUDACC__)
  if constexpr (N > 1) detail::transpose_blocks<N / 2>(row);
#endif
}

// --- loops, inside of a kernel ---------------------------------------------------------------------------
/// y[i] = f(x[i]...) for i < n, a vector at a time; y may be one of the x. The last vector overlaps the one
/// before it and is computed first, from inputs that are not overwritten yet.
template <class Isa, class T, class F, class... X>
UNROLL_INLINE inline void map_on(const F& f, index_t n, T* y, const X*... x) {
  constexpr int N = width<Isa, T>;
  if (n < N) {
    if (n > 0) store_first(f(load_first<N>(x, n)...), y, n);
    return;
  }
  const index_t last = n - N;
  const auto end = f(load<N>(x + last)...);
  for (index_t i = 0; i < last; i += N) store(f(load<N>(x + i)...), y + i);
  store(end, y + last);
}

/// Sum of f(x[i]...) over i < n; f must be 0 at 0. Blocks of 4096 elements are summed in four vectors, the
/// blocks in double: the rounding error is below about (1024 / width + log2(width) + 3) eps sum |f|.
template <class Isa, class T, class F, class... X>
UNROLL_INLINE inline double sum_on(const F& f, index_t n, const X*... x) {
  constexpr int N = width<Isa, T>;
  double total = 0;
  for (index_t block = 0; block < n; block += 4096) {
    const index_t end = block + 4096 < n ? block + 4096 : n;
    vec<T, N> part[4] = {};
    index_t i = block;
    for (; i + 4 * N <= end; i += 4 * N) {
      UNROLL_FULLY
      for (int u = 0; u < 4; ++u) part[u] += f(load<N>(x + i + u * N)...);
    }
    for (; i + N <= end; i += N) part[0] += f(load<N>(x + i)...);
    if (i < end) part[1] += f(load_first<N>(x + i, end - i)...);
    total += double(reduce((part[0] + part[1]) + (part[2] + part[3])));
  }
  return total;
}

/// The largest of m and the n elements of x.
template <class Isa, class T>
UNROLL_INLINE inline T largest_on(const T* x, index_t n, T m) {
  constexpr int N = width<Isa, T>;
  index_t i = 0;
  if (n >= N) {
    vec<T, N> v = load<N>(x);
    for (i = N; i + N <= n; i += N) {
      const vec<T, N> u = load<N>(x + i);
      v = where_greater(u, v, u, v);
    }
    T lanes[std::size_t(N)];
    store(v, lanes);
    for (const T lane : lanes) m = lane > m ? lane : m;
  }
  for (; i < n; ++i) m = x[i] > m ? x[i] : m;
  return m;
}

// --- the same for the set in use -------------------------------------------------------------------------
namespace detail {
struct map_kernel {
  template <class Isa, class F, class T, class... X>
  UNROLL_INLINE static void run(const F& f, index_t n, T* y, const X*... x) {
    map_on<Isa>(f, n, y, x...);
  }
};
template <class T>
struct sum_kernel {
  template <class Isa, class F, class... X>
  UNROLL_INLINE static double run(const F& f, index_t n, const X*... x) {
    return sum_on<Isa, T>(f, n, x...);
  }
};
struct largest_kernel {
  template <class Isa, class T>
  UNROLL_INLINE static T run(const T* x, index_t n, T m) {
    return largest_on<Isa>(x, n, m);
  }
};
}  // namespace detail

/// y_i = f(x_i, ...), i < n, whole vectors first.
template <class T, class F, class... X>
inline void map(F f, index_t n, T* y, const X*... x) {
  dispatch<detail::map_kernel>(f, n, y, x...);
}
/// The sum of f(x_i, ...), i < n, in double.
template <class T, class F, class... X>
inline double sum(F f, index_t n, const X*... x) {
  return dispatch<detail::sum_kernel<T>>(f, n, x...);
}
/// The largest of m and x_i, i < n.
template <class T>
inline T largest(const T* x, index_t n, T m) {
  return dispatch<detail::largest_kernel>(x, n, m);
}

}  // namespace unroll::simd
