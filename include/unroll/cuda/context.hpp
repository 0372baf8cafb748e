#pragma once

#include <cuda_runtime.h>

#include <concepts>

#include "unroll/cuda/wgmma.hpp"
#include "unroll/kernels/body.hpp"

// The context of kernel bodies on a CUDA device, sm_80 and newer; kernels/body.hpp says what its members do.
// For nvcc only. Fragments and registers are local arrays: they stay in registers where all indices are known
// when they are compiled, so loops over them are unrolled.
namespace unroll::cuda {

/// N numbers of this lane inside a fragment.
template <class T, int N>
struct lanes_view {
  T* at;  ///< of this lane
  __device__ explicit lanes_view(T* at_) : at(at_) {}
  template <class U>
  requires std::same_as<const U, T> __device__ lanes_view(const lanes_view<U, N>& v) : at(v.at) {}
  __device__ T& operator()(int, int i) const { return at[i]; }
};

/// N numbers of each lane of a warp, in registers.
template <class T, int N>
struct fragment {
  T at[N];  ///< of this lane
  __device__ T& operator()(int, int i) { return at[i]; }
  __device__ const T& operator()(int, int i) const { return at[i]; }
  template <int M>
  __device__ lanes_view<T, M> part(int first) {
    return lanes_view<T, M>(at + first);
  }
  __device__ lanes_view<T, N> view() { return lanes_view<T, N>(at); }
  __device__ operator lanes_view<T, N>() { return lanes_view<T, N>(at); }
  __device__ operator lanes_view<const T, N>() const { return lanes_view<const T, N>(at); }
};

/// The 32 threads of a warp on a device; see kernels/body.hpp.
class warp {
 public:
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  static constexpr bool in_groups = true;
#else
  static constexpr bool in_groups = false;
#endif
  __device__ int index() const { return int(threadIdx.x) / 32; }

  template <class F>
  __device__ void lanes(F&& f) const {
    f(int(threadIdx.x) % 32);
    __syncwarp();
  }
  template <class F>
  __device__ bool any(F&& f) const {
    return __any_sync(0xffffffffu, f(lane()));
  }
  template <class T, int N>
  __device__ cuda::fragment<T, N> fragment() const {
    return {};
  }
  template <class T, int N>
  __device__ void shuffle_xor(cuda::fragment<T, N>& v, int mask) const {
    shuffle_xor(lanes_view<T, N>(v), mask);
  }
  template <class T, int N>
  __device__ void shuffle_xor(lanes_view<T, N> v, int mask) const {
#pragma unroll
    for (int i = 0; i < N; ++i) v.at[i] = __shfl_xor_sync(0xffffffffu, v.at[i], mask);
  }
  template <class T, int N>
  __device__ void sum(cuda::fragment<T, N>& v, int width = 32) const {
    sum(lanes_view<T, N>(v), width);
  }
  template <class T, int N>
  __device__ void sum(lanes_view<T, N> v, int width = 32) const {
#pragma unroll
    for (int i = 0; i < N; ++i)
      for (int half = width / 2; half > 0; half /= 2)
        v.at[i] = v.at[i] + __shfl_xor_sync(0xffffffffu, v.at[i], half);
  }
  template <class T, int N>
  __device__ void largest(cuda::fragment<T, N>& v, int width = 32) const {
    largest(lanes_view<T, N>(v), width);
  }
  template <class T, int N>
  __device__ void largest(lanes_view<T, N> v, int width = 32) const {
#pragma unroll
    for (int i = 0; i < N; ++i)
      for (int half = width / 2; half > 0; half /= 2) {
        const T other = __shfl_xor_sync(0xffffffffu, v.at[i], half);
        v.at[i] = v.at[i] < other ? other : v.at[i];
      }
  }

  template <class Address>
  __device__ void ldmatrix_x4(lanes_view<kernels::word, 4> v, Address&& address) const {
    load_x4(v, shared_address(address(lane())));
  }
  template <class Address>
  __device__ void ldmatrix_x4_transposed(lanes_view<kernels::word, 4> v, Address&& address) const {
    load_x4_transposed(v, shared_address(address(lane())));
  }
  // the address in the window of shared memory is found once, and what `offset` has of constants goes into
  // the instruction
  template <class Offset>
  __device__ void ldmatrix_x4(lanes_view<kernels::word, 4> v, const bf16* base, Offset&& offset) const {
    load_x4(v, shared_address(base) + 2 * unsigned(offset(lane())));
  }
  template <class Offset>
  __device__ void ldmatrix_x4_transposed(lanes_view<kernels::word, 4> v, const bf16* base,
                                         Offset&& offset) const {
    load_x4_transposed(v, shared_address(base) + 2 * unsigned(offset(lane())));
  }
  template <class Address>
  __device__ void ldmatrix_x2(lanes_view<kernels::word, 2> v, Address&& address) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(v.at[0]), "=r"(v.at[1])
                 : "r"(shared_address(address(lane())))
                 : "memory");
  }
  template <class Address>
  __device__ void ldmatrix_x2_transposed(lanes_view<kernels::word, 2> v, Address&& address) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(v.at[0]), "=r"(v.at[1])
                 : "r"(shared_address(address(lane())))
                 : "memory");
  }
  __device__ void mma(lanes_view<float, 4> d, lanes_view<const kernels::word, 4> a,
                      lanes_view<const kernels::word, 2> b) const {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d.at[0]), "+f"(d.at[1]), "+f"(d.at[2]), "+f"(d.at[3])
        : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "r"(b.at[0]), "r"(b.at[1]));
  }

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  template <int Steps, int N, class A, class B>
  __device__ void multiply_rows(lanes_view<float, N / 2> s, const A& a, const B& b) const {
    wgmma::begin<N / 2>(s.at);
    wgmma::multiply_rows<Steps, N>(s.at, wgmma::describe(a.piece(64 * group(), 0), 16), a.panel_bytes,
                                   wgmma::describe(b.at, 16), b.panel_bytes);
    wgmma::commit();
  }
  template <int Steps, int N, class B>
  __device__ void multiply_columns(lanes_view<float, N / 2> s, lanes_view<const kernels::word, Steps * 4> p,
                                   const B& b) const {
    wgmma::begin<N / 2>(s.at);
    wgmma::multiply_fragments<Steps, N>(s.at, p.at, wgmma::describe(b.at, b.panel_bytes));
    wgmma::commit();
  }
  template <int Left, int N>
  __device__ void finish(lanes_view<float, N> s) const {
    wgmma::end<Left, N>(s.at);
  }
#endif

 private:
  /// Which four warps these are: in all of their threads, and the compiler knows it.
  __device__ static int group() { return __shfl_sync(0xffffffffu, int(threadIdx.x) / 128, 0); }
  __device__ static void load_x4(lanes_view<kernels::word, 4> v, unsigned at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.at[0]), "=r"(v.at[1]), "=r"(v.at[2]), "=r"(v.at[3])
                 : "r"(at)
                 : "memory");
  }
  __device__ static void load_x4_transposed(lanes_view<kernels::word, 4> v, unsigned at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.at[0]), "=r"(v.at[1]), "=r"(v.at[2]), "=r"(v.at[3])
                 : "r"(at)
                 : "memory");
  }
  __device__ static int lane() { return int(threadIdx.x) % 32; }
  __device__ static unsigned shared_address(const bf16* p) { return unsigned(__cvta_generic_to_shared(p)); }
};

/// N numbers of every thread, in registers.
template <class T, int N>
struct registers_of {
  T at[N];  ///< of this thread
  __device__ T& operator()(int, int i) { return at[i]; }
};

/// N numbers of each lane of every warp, in registers.
template <class T, int N>
struct fragments_of {
  T at[N];  ///< of this lane
  __device__ T& operator()(const warp&, int, int i) { return at[i]; }
  __device__ lanes_view<T, N> of(const warp&) { return lanes_view<T, N>(at); }
  template <int M>
  __device__ lanes_view<T, M> part(const warp&, int first) {
    return lanes_view<T, M>(at + first);
  }
};

/// A block of threads on a device; see kernels/body.hpp.
class context {
 public:
  __device__ context(index_t block, unsigned char* shared, int threads)
      : block_(block), shared_(shared), threads_(threads) {}

  __device__ index_t block() const { return block_; }
  __device__ int threads() const { return threads_; }

  template <class T>
  __device__ T* shared(index_t n) {
    T* const first = reinterpret_cast<T*>(shared_);
    shared_ += kernels::shared_size<T>(n);
    return first;
  }
  template <class F>
  __device__ void phase(F&& f) const {
    f(int(threadIdx.x));
    __syncthreads();
  }
  template <class F>
  __device__ void warps(F&& f) const {
    f(warp());
    __syncthreads();
  }
  template <class F>
  __device__ void phase(F&& f, kernels::no_barrier) const {
    f(int(threadIdx.x));
  }
  template <class F>
  __device__ void warps(F&& f, kernels::no_barrier) const {
    f(warp());
  }
  template <class T, int N>
  __device__ registers_of<T, N> registers() const {
    return {};
  }
  template <class T, int N>
  __device__ fragments_of<T, N> fragments() const {
    return {};
  }

  template <std::same_as<bool> Valid>
  __device__ void copy_async(void* to, const void* from, int bytes, Valid valid) const {
    const unsigned shared = unsigned(__cvta_generic_to_shared(to));
    const int copied = valid ? bytes : 0;
    if (bytes == 16)
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(copied)
                   : "memory");
    else if (bytes == 8)
      asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared), "l"(from), "r"(copied)
                   : "memory");
    else
      asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared), "l"(from), "r"(copied)
                   : "memory");
  }
  template <std::same_as<bool> Valid>
  __device__ void copy_async(bf16* base, int offset, const bf16* from, Valid valid) const {
    const unsigned shared = unsigned(__cvta_generic_to_shared(base)) + 2 * unsigned(offset);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
  }
  __device__ void commit() const { asm volatile("cp.async.commit_group;" ::: "memory"); }
  template <int Left, bool ForGroups = false>
  __device__ void wait() const {
    asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
    if constexpr (ForGroups) wgmma::publish();
    __syncthreads();
  }

 private:
  index_t block_;
  unsigned char* shared_;
  int threads_;
};

}  // namespace unroll::cuda
