#pragma once

#include <cmath>
#include <cstdint>

#include "unroll/core/bf16.hpp"
#include "unroll/core/matrix.hpp"

// What every kernel body is made of. A body is plain source that runs on a CUDA device (cuda/context.hpp)
// and, block by block and phase by phase, on the host (testing/simt/context.hpp):
//
//   struct NAME_body {
//     ...                                          its arguments, public members
//     static constexpr int threads = 256;          of a block, a multiple of 32
//     UNROLL_HD index_t blocks() const;
//     UNROLL_HD index_t shared_bytes() const;      of a block; not there: 0
//     template <class Context> UNROLL_HD void operator()(Context& c) const;
//   };
//
// A body may have `UNROLL_HD void prefetch(index_t block, int thread) const` as well: hints that a device
// takes before the kernels in front have written what they write.
//
// A translation unit runs bodies on one of the two only: nvcc refuses the host's context inside of a body.
//
// Members of a context. What stands outside of the functions given to them runs once a block on the host and
// in every thread on a device: it may only depend on the block.
//   c.block(), c.threads()
//   c.template shared<T>(n)        the next n T of the block's shared memory, 128-byte aligned
//   c.phase(f)                     f(thread) in every thread, then a barrier of the block
//   c.template registers<T, N>()   r(thread, i): N numbers of every thread that live across phases
//   c.warps(f)                     f(w) in every warp, then a barrier of the block
//   c.template fragments<T, N>()   N numbers of every lane of every warp that live across calls of warps:
//                                  f(w, lane, i), f.of(w) as an operand, f.template part<M>(w, at) M of them
//   c.copy_async(to, from, bytes, valid)
//                                  inside phase or lanes: 4, 8 or 16 bytes, aligned to their size, from
//                                  global to shared memory, zeros unless valid (a bool)
//   c.copy_async(base, offset, from, valid)   the same of 16 bytes to base + offset, of bfloat16
//   c.commit()                     outside: closes a group of copies, maybe an empty one
//   c.template wait<Left>()        outside: all groups but the newest Left have arrived, then a barrier;
//                                  wait<Left, true>() where four warps multiply together what arrived
//   c.phase(f, no_barrier{}), c.warps(f, no_barrier{})   without the barrier: for copies and registers
// Members of a warp:
//   w.index()
//   w.lanes(f)                     f(lane) in every lane, then a barrier of the warp
//   w.template fragment<T, N>()    v(lane, i): N numbers of every lane; v.template part<M>(at) M of them
//   w.shuffle_xor(v, mask)         each lane's numbers of a fragment become those of the lane `lane ^ mask`
//   w.sum(v, width = 32), w.largest(v, width = 32)
//                                  each number over `width` neighbouring lanes, by halves, in all of them
//   w.ldmatrix_x4(v, address), w.ldmatrix_x2(v, address), w.ldmatrix_x4_transposed, w.ldmatrix_x2_transposed
//                                  8 x 8 matrices of bf16 from shared memory into 4 or 2 words; address(lane)
//                                  is row lane % 8 of matrix lane / 8, 16-byte aligned; (v, base, offset):
//                                  base + offset(lane), for the two of 4 words
//   w.mma(d, a, b)                 d += a b: 16 x 8 += 16 x 16 times 16 x 8, 4 float, 4 words, 2 words a lane
//   w.any(f)                       whether f(lane) is true in some lane
//   warp::in_groups                whether four warps multiply together, see kernels/panels.hpp
//
// Lane l of mma holds, with g = l / 4 and t = 2 (l % 4): of d (g, t), (g, t + 1), (g + 8, t), (g + 8, t + 1);
// of a the words (g, t), (g + 8, t), (g, t + 8), (g + 8, t + 8); of b the words (t, g), (t + 8, g). A word is
// two neighbours along the summed index, the first in the lower half. ldmatrix of row-major a gives a's
// words, of column-major b gives b's.
namespace unroll::kernels {

struct no_barrier {};

/// In front of a loop whose indices a device has to know when it is compiled: else arrays leave registers.
#if defined(__CUDA_ARCH__)
#define UNROLL_UNROLLED _Pragma("unroll")
#else
#define UNROLL_UNROLLED
#endif

/// n / d, rounded up.
UNROLL_HD constexpr index_t ceil_div(index_t n, index_t d) { return (n + d - 1) / d; }
UNROLL_HD constexpr index_t smaller(index_t a, index_t b) { return a < b ? a : b; }  ///< of two numbers
UNROLL_HD constexpr index_t larger(index_t a, index_t b) { return a < b ? b : a; }   ///< of two numbers

/// Bytes that shared<T>(n) takes.
template <class T>
UNROLL_HD constexpr index_t shared_size(index_t n) {
  return ceil_div(n * index_t(sizeof(T)), 128) * 128;
}

/// Bytes of shared memory that a block of a body takes.
template <class Body>
constexpr index_t shared_bytes_of(const Body& body) {
  if constexpr (requires { body.shared_bytes(); })
    return body.shared_bytes();
  else
    return 0;
}

/// Two bfloat16 as an operand of mma holds them.
using word = std::uint32_t;
/// Two numbers in a word.
UNROLL_HD constexpr word pack(bf16 low, bf16 high) { return word(low.bits) | word(high.bits) << 16; }
/// On a device by the instruction that rounds both, which gives any NaN the bits 0x7fff as well.
UNROLL_HD inline word pack(float low, float high) {
#if defined(__CUDA_ARCH__)
  word w;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(high), "f"(low));
  return w;
#else
  return pack(bf16(low), bf16(high));
#endif
}
/// The first number of a word.
UNROLL_HD constexpr float low_of(word w) { return __builtin_bit_cast(float, w << 16); }
/// The second number of a word.
UNROLL_HD constexpr float high_of(word w) { return __builtin_bit_cast(float, w & 0xffff0000u); }

/// 16 bytes of global memory that move at once.
struct alignas(16) sixteen_bytes {
  word words[4];
};
/// Whether p is aligned to 16 bytes.
template <class T>
UNROLL_HD bool on_sixteen_bytes(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}
/// 16 bytes from p, which is aligned to them.
template <class T>
UNROLL_HD sixteen_bytes load_sixteen_bytes(const T* p) {
#if defined(__CUDA_ARCH__)
  return *reinterpret_cast<const sixteen_bytes*>(p);
#else
  sixteen_bytes x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
#endif
}
/// The same of what is read once: many such loads are under way at a time, and leave no copy nearby.
template <class T>
UNROLL_HD sixteen_bytes load_once(const T* p) {
#if defined(__CUDA_ARCH__)
  sixteen_bytes x;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.words[0]), "=r"(x.words[1]), "=r"(x.words[2]), "=r"(x.words[3])
               : "l"(p));
  return x;
#else
  return load_sixteen_bytes(p);
#endif
}
/// A hint that what lies there will be read; changes nothing else.
template <class T>
UNROLL_HD void prefetch_line(const T* p) {
#if defined(__CUDA_ARCH__)
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#else
  (void)p;
#endif
}
/// 16 bytes to p, which is aligned to them.
template <class T>
UNROLL_HD void store_sixteen_bytes(const sixteen_bytes& x, T* p) {
#if defined(__CUDA_ARCH__)
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(x.words[0]), "r"(x.words[1]),
               "r"(x.words[2]), "r"(x.words[3])
               : "memory");
#else
  __builtin_memcpy(p, &x, sizeof x);
#endif
}

/// The first n <= 8 of x from memory, the others 0; a whole eight by 16 bytes where they are aligned to
/// these.
template <class T>
UNROLL_HD void load_eight(const T* p, int n, float (&x)[8]) {
  if (n == 8 && on_sixteen_bytes(p)) {
    if constexpr (sizeof(T) == 2) {
      const sixteen_bytes from = load_sixteen_bytes(p);
      UNROLL_UNROLLED
      for (int i = 0; i < 4; ++i) x[2 * i] = low_of(from.words[i]), x[2 * i + 1] = high_of(from.words[i]);
    } else {
      const sixteen_bytes from[2] = {load_sixteen_bytes(p), load_sixteen_bytes(p + 4)};
      UNROLL_UNROLLED
      for (int i = 0; i < 8; ++i) x[i] = __builtin_bit_cast(float, from[i / 4].words[i % 4]);
    }
    return;
  }
  UNROLL_UNROLLED
  for (int i = 0; i < 8; ++i) x[i] = i < n ? float(p[i]) : 0.f;
}
/// And back, rounded to T.
template <class T>
UNROLL_HD void store_eight(const float (&x)[8], int n, T* p) {
  if (n == 8 && on_sixteen_bytes(p)) {
    if constexpr (sizeof(T) == 2) {
      sixteen_bytes to;
      UNROLL_UNROLLED
      for (int i = 0; i < 4; ++i) to.words[i] = pack(x[2 * i], x[2 * i + 1]);
      store_sixteen_bytes(to, p);
    } else {
      UNROLL_UNROLLED
      for (int half = 0; half < 2; ++half) {
        sixteen_bytes to;
        UNROLL_UNROLLED
        for (int i = 0; i < 4; ++i) to.words[i] = __builtin_bit_cast(word, x[4 * half + i]);
        store_sixteen_bytes(to, p + 4 * half);
      }
    }
    return;
  }
  UNROLL_UNROLLED
  for (int i = 0; i < 8; ++i)
    if (i < n) p[i] = T(x[i]);
}

/// The blocks of a body that works on eight neighbours of a column at a time: a block has up to `chunk` rows
/// of one column.
struct by_eights {
  static constexpr int threads = 256;
  static constexpr index_t chunk = 8 * threads;  ///< rows that a block takes
  index_t rows, cols;                            ///< of the matrix

  UNROLL_HD index_t blocks() const { return cols * ceil_div(rows, chunk); }
  /// f(first row, how many of 8, column) for the numbers of a thread.
  template <class F>
  UNROLL_HD void for_each(index_t block, int thread, F&& f) const {
    const index_t chunks = ceil_div(rows, chunk), col = block / chunks;
    const index_t first = block % chunks * chunk + 8 * thread;
    if (first < rows) f(first, int(smaller(8, rows - first)), col);
  }
  /// f as for_each takes it, in every thread of a block.
  template <class Context, class F>
  UNROLL_HD void run(Context& c, F&& f) const {
    c.phase([&](int thread) { for_each(c.block(), thread, f); });
  }
};

/// The blocks of a body that works on the numbers of a matrix one by one: a block has up to `chunk` rows of
/// one column.
struct by_numbers {
  static constexpr int threads = 256;
  static constexpr index_t chunk = 4 * threads;  ///< rows that a block takes
  index_t rows, cols;                            ///< of the matrix

  UNROLL_HD index_t blocks() const { return cols * ceil_div(rows, chunk); }
  /// f(row, column) for the numbers of a thread.
  template <class F>
  UNROLL_HD void for_each(index_t block, int thread, F&& f) const {
    const index_t chunks = ceil_div(rows, chunk), col = block / chunks, first = block % chunks * chunk;
    for (index_t i = thread; i < chunk && first + i < rows; i += threads) f(first + i, col);
  }
  /// f as for_each takes it, in every thread of a block.
  template <class Context, class F>
  UNROLL_HD void run(Context& c, F&& f) const {
    c.phase([&](int thread) { for_each(c.block(), thread, f); });
  }
};

/// s[0] = join of s[0 .. threads), by halves; threads is a power of two. The block has written s in an
/// earlier phase.
template <class Context, class T, class Join>
UNROLL_HD void join_by_halves(Context& c, T* s, Join&& join) {
  for (int half = c.threads() / 2; half > 0; half /= 2)
    c.phase([&](int t) {
      if (t < half) s[t] = join(s[t], s[t + half]);
    });
}
/// s[0] = the sum of the block's `threads` numbers in shared memory, by halves: always in one order.
template <class Context, class T>
UNROLL_HD void sum_by_halves(Context& c, T* s) {
  join_by_halves(c, s, [](T a, T b) { return a + b; });
}
/// s[0] = the largest of n numbers x, which a softmax subtracts; s: the block's `threads` numbers in shared
/// memory.
template <class Context, class S, class P>
UNROLL_HD void largest_by_halves(Context& c, S* s, const P* x, index_t n) {
  c.phase([&](int t) {
    float most = -INFINITY;
    for (index_t i = t; i < n; i += c.threads()) most = most < float(x[i]) ? float(x[i]) : most;
    s[t] = S(most);
  });
  join_by_halves(c, s, [](S a, S b) { return a < b ? b : a; });
}

}  // namespace unroll::kernels
