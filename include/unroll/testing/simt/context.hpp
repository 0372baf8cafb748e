#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "unroll/core/error.hpp"
#include "unroll/kernels/body.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/testing/simt/tensor_core.hpp"

// The context of kernel bodies on the host; kernels/body.hpp says what its members do. Blocks, and the
// threads, warps and lanes of each phase run one after another in an order that a key permutes; what a body
// may not rely on is made to fail: shared memory, registers and fragments start as NaN (all bits set), copies
// arrive at their wait only and leave NaN until then, each block has the shared memory that it asked for and
// no byte more, so that address sanitizers see what lies outside.
namespace unroll::testing::simt {

/// The numbers 0 .. n - 1 in an order of the key; in their own order with the key 0.
class order {
 public:
  order(int n, key k) : at_(std::size_t(n)), turned_(k.seed != 0) {
    std::iota(at_.begin(), at_.end(), 0);
    if (turned_)
      for (int i = n - 1; i > 0; --i)
        std::swap(at_[std::size_t(i)], at_[std::size_t(draw_index(k, i, i + 1))]);
  }
  /// f(i) for all of them, beginning elsewhere each time.
  template <class F>
  void for_each(F&& f) {
    const std::size_t n = at_.size(), first = turned_ && n > 0 ? round_++ % n : 0;
    for (std::size_t i = first; i < n; ++i) f(at_[i]);
    for (std::size_t i = 0; i < first; ++i) f(at_[i]);
  }

 private:
  std::vector<int> at_;
  bool turned_;
  std::size_t round_ = 0;
};

/// Some numbers of each lane of a fragment.
template <class T, int N>
struct lanes_view {
  T* at;       ///< those of lane 0
  int stride;  ///< from a lane to the next
  lanes_view(T* at_, int stride_) : at(at_), stride(stride_) {}
  template <class U>
  requires std::same_as<const U, T> lanes_view(const lanes_view<U, N>& v) : at(v.at), stride(v.stride) {}
  T& operator()(int lane, int i) const { return at[lane * stride + i]; }
};

/// N numbers of each lane of a warp; NaN at first.
template <class T, int N>
class fragment {
 public:
  fragment() { std::memset(static_cast<void*>(at_.data()), 0xff, sizeof at_); }
  T& operator()(int lane, int i) { return at_[std::size_t(lane * N + i)]; }
  const T& operator()(int lane, int i) const { return at_[std::size_t(lane * N + i)]; }
  template <int M>
  lanes_view<T, M> part(int first) {
    return {at_.data() + first, N};
  }
  lanes_view<T, N> view() { return {at_.data(), N}; }
  operator lanes_view<T, N>() { return {at_.data(), N}; }
  operator lanes_view<const T, N>() const { return {at_.data(), N}; }

 private:
  std::array<T, std::size_t(32 * N)> at_;
};

/// The 32 threads of a warp, on the host; see kernels/body.hpp.
class warp {
 public:
  static constexpr bool in_groups = false;
  warp(int index, order& lanes) : index_(index), lanes_(&lanes) {}
  int index() const { return index_; }

  template <class F>
  void lanes(F&& f) const {
    lanes_->for_each(f);
  }
  template <class F>
  bool any(F&& f) const {
    bool some = false;
    lanes_->for_each([&](int lane) { some = f(lane) || some; });
    return some;
  }
  template <class T, int N>
  simt::fragment<T, N> fragment() const {
    return {};
  }
  template <class T, int N>
  void shuffle_xor(simt::fragment<T, N>& v, int mask) const {
    shuffle_xor(lanes_view<T, N>(v), mask);
  }
  template <class T, int N>
  void shuffle_xor(lanes_view<T, N> v, int mask) const {
    for (int i = 0; i < N; ++i) {
      std::array<T, 32> old;
      for (int lane = 0; lane < 32; ++lane) old[std::size_t(lane)] = v(lane, i);
      for (int lane = 0; lane < 32; ++lane) v(lane, i) = old[std::size_t(lane ^ mask)];
    }
  }
  template <class T, int N>
  void sum(simt::fragment<T, N>& v, int width = 32) const {
    sum(lanes_view<T, N>(v), width);
  }
  template <class T, int N>
  void sum(lanes_view<T, N> v, int width = 32) const {
    by_halves(v, width, [](T a, T b) { return a + b; });
  }
  template <class T, int N>
  void largest(simt::fragment<T, N>& v, int width = 32) const {
    largest(lanes_view<T, N>(v), width);
  }
  template <class T, int N>
  void largest(lanes_view<T, N> v, int width = 32) const {
    by_halves(v, width, [](T a, T b) { return a < b ? b : a; });
  }

  template <class Address>
  void ldmatrix_x4(lanes_view<kernels::word, 4> v, Address&& address) const {
    load_matrices<false>(v, address);
  }
  template <class Address>
  void ldmatrix_x4_transposed(lanes_view<kernels::word, 4> v, Address&& address) const {
    load_matrices<true>(v, address);
  }
  template <class Offset>
  void ldmatrix_x4(lanes_view<kernels::word, 4> v, const bf16* base, Offset&& offset) const {
    load_matrices<false>(v, [&](int lane) { return base + offset(lane); });
  }
  template <class Offset>
  void ldmatrix_x4_transposed(lanes_view<kernels::word, 4> v, const bf16* base, Offset&& offset) const {
    load_matrices<true>(v, [&](int lane) { return base + offset(lane); });
  }
  template <class Address>
  void ldmatrix_x2(lanes_view<kernels::word, 2> v, Address&& address) const {
    load_matrices<false>(v, address);
  }
  template <class Address>
  void ldmatrix_x2_transposed(lanes_view<kernels::word, 2> v, Address&& address) const {
    load_matrices<true>(v, address);
  }
  void mma(lanes_view<float, 4> d, lanes_view<const kernels::word, 4> a,
           lanes_view<const kernels::word, 2> b) const {
    const auto element = [](kernels::word w, int odd) {
      bf16 x;
      x.bits = std::uint16_t(odd ? w >> 16 : w);
      return tensor_core_factor(x);
    };
    tensor_core_factor A[16][16], B[8][16];
    for (int lane = 0; lane < 32; ++lane)
      for (int odd = 0; odd < 2; ++odd) {
        const int g = lane / 4, t = 2 * (lane % 4) + odd;
        for (int i = 0; i < 4; ++i) A[g + 8 * (i % 2)][t + 8 * (i / 2)] = element(a(lane, i), odd);
        for (int i = 0; i < 2; ++i) B[g][t + 8 * i] = element(b(lane, i), odd);
      }
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + 8 * (i / 2), col = 2 * (lane % 4) + i % 2;
        tensor_core_sum sum;
        sum.add(d(lane, i));
        for (int k = 0; k < 16; ++k) sum.add_product(A[row][k], B[col][k]);
        d(lane, i) = sum.result();
      }
  }

 private:
  template <class T, int N, class F>
  static void by_halves(lanes_view<T, N> v, int width, F&& f) {
    for (int i = 0; i < N; ++i)
      for (int half = width / 2; half > 0; half /= 2) {
        std::array<T, 32> old;
        for (int lane = 0; lane < 32; ++lane) old[std::size_t(lane)] = v(lane, i);
        for (int lane = 0; lane < 32; ++lane)
          v(lane, i) = f(old[std::size_t(lane)], old[std::size_t(lane ^ half)]);
      }
  }
  template <bool transposed, int N, class Address>
  static void load_matrices(lanes_view<kernels::word, N> v, Address&& address) {
    for (int m = 0; m < N; ++m) {
      bf16 x[8][8];
      for (int row = 0; row < 8; ++row) {
        const bf16* from = address(8 * m + row);
        if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
          fail("ldmatrix", "address", "is no multiple of 16 bytes");
        std::memcpy(x[row], from, sizeof x[row]);
      }
      for (int lane = 0; lane < 32; ++lane) {
        const int row = lane / 4, col = 2 * (lane % 4);
        v(lane, m) = transposed ? kernels::pack(x[col][row], x[col + 1][row])
                                : kernels::pack(x[row][col], x[row][col + 1]);
      }
    }
  }

  int index_;
  order* lanes_;
};

/// N numbers of each of n threads, or of each lane of warps.
template <class T, int N>
class registers_of {
 public:
  explicit registers_of(int n) : at_(std::size_t(n) * N) {
    std::memset(static_cast<void*>(at_.data()), 0xff, at_.size() * sizeof(T));
  }
  T& operator()(int thread, int i) { return at_[std::size_t(thread * N + i)]; }
  T& operator()(const warp& w, int lane, int i) { return (*this)(32 * w.index() + lane, i); }
  lanes_view<T, N> of(const warp& w) { return part<N>(w, 0); }
  template <int M>
  lanes_view<T, M> part(const warp& w, int first) {
    return {at_.data() + 32 * w.index() * N + first, N};
  }

 private:
  std::vector<T> at_;
};

/// A block of threads, run phase by phase on the host; see kernels/body.hpp.
class context {
 public:
  context(int threads, index_t shared_bytes, key k)
      : threads_(threads),
        of_threads_(threads, k),
        of_warps_(threads / 32, k),
        of_lanes_(32, k),
        bytes_(shared_bytes),
        memory_(static_cast<std::byte*>(::operator new(std::size_t(shared_bytes), alignment))) {
    if (threads < 32 || threads % 32 != 0)
      fail("simt::context", "threads", "are " + std::to_string(threads) + ", must be a multiple of 32");
  }

  /// Forgets the last block. Throws unroll::error where that left a copy on its way.
  void begin(index_t block) {
    if (copies_.size() != arrived_) fail("simt::context", "copy_async", "was never waited for");
    copies_.clear();
    groups_.clear();
    arrived_ = 0;
    block_ = block;
    used_ = 0;
    if (bytes_ > 0) std::memset(memory_.get(), 0xff, std::size_t(bytes_));
  }

  index_t block() const { return block_; }
  int threads() const { return threads_; }

  template <class T>
  T* shared(index_t n) {
    T* const first = reinterpret_cast<T*>(memory_.get() + used_);
    used_ += kernels::shared_size<T>(n);
    if (used_ > bytes_)
      fail("simt::context::shared", "shared memory",
           "of the block has " + std::to_string(bytes_) + " bytes, used " + std::to_string(used_));
    return first;
  }
  template <class F>
  void phase(F&& f) {
    of_threads_.for_each(f);
  }
  template <class F>
  void phase(F&& f, kernels::no_barrier) {
    phase(f);
  }
  template <class F>
  void warps(F&& f, kernels::no_barrier) {
    warps(f);
  }
  template <class F>
  void warps(F&& f) {
    of_warps_.for_each([&](int i) { f(warp(i, of_lanes_)); });
  }
  template <class T, int N>
  registers_of<T, N> registers() const {
    return registers_of<T, N>(threads_);
  }
  template <class T, int N>
  registers_of<T, N> fragments() const {
    return registers_of<T, N>(threads_);
  }

  template <std::same_as<bool> Valid>
  void copy_async(void* to, const void* from, int bytes, Valid valid) {
    if (bytes != 4 && bytes != 8 && bytes != 16)
      fail("copy_async", "bytes", "are " + std::to_string(bytes) + ", must be 4, 8 or 16");
    const std::byte* const first = static_cast<std::byte*>(to);
    if (first < memory_.get() || first + bytes > memory_.get() + bytes_)
      fail("copy_async", "to", "is not in the shared memory of the block");
    const auto misaligned = [bytes](const void* p) {
      return reinterpret_cast<std::uintptr_t>(p) % std::uintptr_t(bytes) != 0;
    };
    if (misaligned(to) || (valid && misaligned(from)))
      fail("copy_async", "address", "is no multiple of " + std::to_string(bytes) + " bytes");
    std::memset(to, 0xff, std::size_t(bytes));
    copies_.push_back({to, from, bytes, valid});
  }
  template <std::same_as<bool> Valid>
  void copy_async(bf16* base, int offset, const bf16* from, Valid valid) {
    copy_async(base + offset, from, 16, valid);
  }
  void commit() { groups_.push_back(copies_.size()); }
  template <int Left, bool ForGroups = false>
  void wait() {
    if (groups_.size() <= std::size_t(Left)) return;
    for (const std::size_t end = groups_[groups_.size() - 1 - std::size_t(Left)]; arrived_ < end;
         ++arrived_) {
      const copy& c = copies_[arrived_];
      if (c.valid)
        std::memcpy(c.to, c.from, std::size_t(c.bytes));
      else
        std::memset(c.to, 0, std::size_t(c.bytes));
    }
  }

 private:
  static constexpr std::align_val_t alignment{128};
  struct free_memory {
    void operator()(std::byte* p) const { ::operator delete(p, alignment); }
  };
  struct copy {
    void* to;
    const void* from;
    int bytes;
    bool valid;
  };

  int threads_;
  order of_threads_, of_warps_, of_lanes_;
  index_t bytes_, block_ = 0, used_ = 0;
  std::unique_ptr<std::byte, free_memory> memory_;
  std::vector<copy> copies_;
  std::vector<std::size_t> groups_;
  std::size_t arrived_ = 0;
};

/// Runs all blocks of a body; the key permutes them and what is inside of them, 0 keeps their order.
template <class Body>
void run(const Body& body, key k = {}) {
  const index_t blocks = body.blocks();
  context c(Body::threads, kernels::shared_bytes_of(body), k);
  order(int(blocks), k).for_each([&](int block) {
    c.begin(block);
    body(c);
  });
  c.begin(0);
}

}  // namespace unroll::testing::simt
