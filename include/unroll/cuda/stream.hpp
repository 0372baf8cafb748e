#pragma once

#include <array>
#include <cstring>
#include <span>

#include "unroll/cuda/cublaslt.hpp"
#include "unroll/cuda/launch.hpp"
#include "unroll/cuda/profile.hpp"
#include "unroll/cuda/ranges.hpp"
#include "unroll/exec/body_executor.hpp"
#include "unroll/exec/offload.hpp"
#include "unroll/kernels/gemv_body.hpp"
#include "unroll/kernels/split_product_body.hpp"

namespace unroll::cuda {

namespace detail {

/// Host numbers on their way to the device: pinned memory with a copy on the device, in four parts that are
/// used in turn.
class staging {
 public:
  static constexpr index_t part_bytes = index_t{4} << 20;

  staging() : host_(parts * part_bytes), device_(parts * part_bytes, "staging") {}

  /// Enqueues a copy to the device of `bytes` at `from`, free again when the call returns. What one of the
  /// last copies has brought, as every layer's positions and addresses, is there.
  const void* copy(const void* from, index_t bytes, cudaStream_t stream) {
    if (bytes > part_bytes)
      fail("cuda::stream", "span",
           "has " + std::to_string(bytes) + " bytes, at most " + std::to_string(part_bytes) + " are staged");
    for (const span& s : last_)
      if (s.bytes == bytes && std::memcmp(host_.data() + s.at, from, std::size_t(bytes)) == 0)
        return device_.data() + s.at;
    if (used_ + bytes > part_bytes) {
      last_ = {};
      left_[now_].record(stream);
      now_ = (now_ + 1) % parts;
      used_ = 0;
      // what this part held a lap ago was used before the part behind it was left
      left_[(now_ + 1) % parts].synchronise();
    }
    const index_t at = index_t(now_) * part_bytes + used_;
    used_ += (bytes + 255) / 256 * 256;
    std::memcpy(host_.data() + at, from, std::size_t(bytes));
    check(cudaMemcpyAsync(device_.data() + at, host_.data() + at, std::size_t(bytes), cudaMemcpyHostToDevice,
                          stream),
          "cuda::stream", "cudaMemcpyAsync");
    last_[oldest_++ % last_.size()] = {at, bytes};
    return device_.data() + at;
  }

 private:
  static constexpr std::size_t parts = 4;
  pinned_block<unsigned char> host_;
  device_block<unsigned char> device_;
  std::array<event_handle, parts> left_;
  std::size_t now_ = 0;
  index_t used_ = 0;
  struct span {
    index_t at = 0, bytes = -1;
  };
  std::array<span, 8> last_ = {};  // of the part in use
  std::size_t oldest_ = 0;
};

/// Copies between the device and memory of the host, in a stream of their own, see exec/offload.hpp.
class copies {
 public:
  /// to = from, after what `operations` has been given so far.
  template <class U>
  void enqueue(matrix<const U> from, matrix<U> to, cudaMemcpyKind kind, cudaStream_t operations) {
    if (from.rows == 0 || from.cols == 0) return;
    given_.record(operations);
    check(cudaStreamWaitEvent(own_.get(), given_.get(), 0), "cuda::stream", "cudaStreamWaitEvent");
    const auto bytes = [](index_t n) { return std::size_t(n) * sizeof(U); };
    if (from.cols == 1)
      check(cudaMemcpyAsync(to.data, from.data, bytes(from.rows), kind, own_.get()), "cuda::stream",
            "cudaMemcpyAsync");
    else
      check(cudaMemcpy2DAsync(to.data, bytes(to.stride), from.data, bytes(from.stride), bytes(from.rows),
                              std::size_t(from.cols), kind, own_.get()),
            "cuda::stream", "cudaMemcpy2DAsync");
    waited_for_ = false;
  }
  /// What `operations` is given later runs after all that was enqueued here.
  void wait(cudaStream_t operations) {
    if (waited_for_) return;
    made_.record(own_.get());
    check(cudaStreamWaitEvent(operations, made_.get(), 0), "cuda::stream", "cudaStreamWaitEvent");
    waited_for_ = true;
  }

 private:
  stream_handle own_;
  event_handle given_, made_;
  bool waited_for_ = true;
};

/// What the copies of one executor share.
struct stream_state {
  /// of_caller: null: a stream of its own.
  explicit stream_state(const cudaStream_t* of_caller)
      : own(of_caller ? stream_handle(*of_caller) : stream_handle()) {}

  int device = 0;
  bool early = false, ranges = false;
  stream_handle own;
  staging to_device;
  detail::copies host_copies = {};
  device_block<double> partial{kernels::reduce_body<kernels::reduction::sum, float>::most_parts};
  std::unique_ptr<cublaslt> products = {};  // null: without the library
  pinned_block<unsigned char> downloads{index_t{1} << 20};
  index_t downloaded = 0;
  struct pending {
    index_t at, bytes;
    void* to;
  };
  std::vector<pending> waiting = {};
  std::unique_ptr<profile> times = {};  // null: not wanted
};

/// Makes the executor's device the calling thread's.
inline void make_current(const stream_state& s) {
  check(cudaSetDevice(s.device), "cuda::stream", "cudaSetDevice");
}

/// Runs kernel bodies in a stream, see exec/body_executor.hpp.
class machine {
 public:
  explicit machine(std::shared_ptr<stream_state> s) : state(std::move(s)) {}

  template <class Body>
  void run(const Body& body) const {
    timed([] { return body_name<Body>(); }, [&] { launch(body, state->own.get(), state->early); });
  }
  template <class U>
  std::span<const U> staged(std::span<U> numbers) const {
    if (numbers.empty()) return {};
    return {static_cast<const U*>(
                state->to_device.copy(numbers.data(), index_t(numbers.size_bytes()), state->own.get())),
            numbers.size()};
  }
  double* partial_sums() const { return state->partial.data(); }
  /// c = alpha op(a) op(b) [+ c] by cuBLASLt, of bfloat16 one column by gemv_body and few numbers of many
  /// terms in parts; false where that is not for these operands.
  template <class A, class B, class C>
  bool product(op oa, matrix<A> a, op ob, matrix<B> b, double alpha, bool add, matrix<C> c) const {
    using U = std::remove_const_t<A>;
    if constexpr (std::same_as<U, std::remove_const_t<B>> && (std::same_as<C, U> || std::same_as<C, float>)) {
      const index_t k = oa == op::none ? a.cols : a.rows;
      if (!state->products || k == 0 || !cublaslt::aligned(a) || !cublaslt::aligned(b) ||
          !cublaslt::aligned(c))
        return false;
      if constexpr (std::same_as<U, bf16>)
        if (oa == op::transpose && ob == op::none && c.cols == 1 && k % 8 == 0) {
          run(kernels::gemv_body<C>{a, b.data, float(alpha), add, c.data});
          return true;
        } else if (kernels::product_split::pays(c.rows, k)) {
          in_parts(oa, a, ob, b, alpha, add, c);
          return true;
        }
      timed(
          [&] {
            return "cublaslt " + std::to_string(c.rows) + " x " + std::to_string(c.cols) + " x " +
                   std::to_string(k);
          },
          [&] { state->products->gemm<U, U, C>(oa, a, ob, b, alpha, add, c, state->own.get()); });
      return true;
    } else {
      return false;
    }
  }
  friend bool operator==(const machine&, const machine&) = default;

  std::shared_ptr<stream_state> state;

 private:
  /// As many columns at a time as the library's workspace holds.
  template <class A, class B, class C>
  void in_parts(op oa, matrix<A> a, op ob, matrix<B> b, double alpha, bool add, matrix<C> c) const {
    float* const products = static_cast<float*>(state->products->workspace_data());
    const index_t k = oa == op::none ? a.cols : a.rows, parts = kernels::product_split::parts(k);
    const index_t most = index_t(state->products->workspace() / sizeof(float)) / (c.rows * parts) / 8 * 8;
    for (index_t j = 0; j < c.cols; j += most) {
      const index_t n = std::min(most, c.cols - j);
      const matrix<C> to = columns_of(c, j, n);
      run(kernels::gemm_mma_body<bf16, bf16, float>{
          .oa = oa,
          .a = a,
          .ob = ob,
          .b = ob == op::none ? columns_of(b, j, n) : rows_of(b, j, n),
          .alpha = 1,
          .add = false,
          .c = {products, c.rows, n},
          .k_part = kernels::product_split::terms(k)});
      run(kernels::join_products_body<C>{
          .products = products, .parts = parts, .alpha = float(alpha), .add = add, .c = to});
    }
  }
  /// The thread may have used another device since.
  template <class Name, class F>
  void timed(Name&& name, F&& enqueue) const {
    make_current(*state);
    const named_range shown(state->ranges, name);
    if (state->times)
      state->times->time(name(), state->own.get(), enqueue);
    else
      enqueue();
  }
};

}  // namespace detail

struct stream_options {
  /// Products run through cuBLASLt where it is found; else as bits of the host's run. A file that
  /// UNROLL_CUBLASLT names has to be there.
  bool library = true;
  /// Kernels are launched while the one in front ends, and wait for it on the device: short ones follow each
  /// other faster. From compute capability 9.0 on, else nothing changes.
  bool early = false;
  bool profile = false;  ///< times everything, see times()
  /// Names policies, calls with their segments, and operations by NVTX, for the toolkit's profilers.
  bool ranges = false;
};

/// The executor of one CUDA device and a stream of its own: numbers<bf16>, numbers<float>, numbers<float,
/// bf16>. Operations are enqueued and return at once; an error of the device is thrown by a later call.
/// Products run through cuBLASLt where it is found, with one algorithm a shape that never splits a sum, else
/// through kernels/gemm_mma_body.hpp; attention of bfloat16 with heads of 64 or 128 on tensor cores. A
/// handle: copies share the stream and its memory (48 MiB). One thread at a time uses it; what it calls makes
/// the executor's device that thread's.
template <class N>
class stream : public exec::body_executor<N, detail::machine> {
  using base = exec::body_executor<N, detail::machine>;

 public:
  template <class U, class Space = plain_space>
  using block = device_block<U, Space>;

  /// Of device `index`. Throws where there is none or it is too old; see use_device.
  explicit stream(int index = 0, stream_options how = {})
      : base(detail::machine(made(index, how, nullptr))) {}
  /// In the caller's stream of device `index`, which must outlive this: operations stand behind what the
  /// caller has enqueued there, and the caller's work behind them, without waiting.
  explicit stream(cudaStream_t of_caller, int index = 0, stream_options how = {})
      : base(detail::machine(made(index, how, &of_caller))) {}

  cudaStream_t native() const { return state().own.get(); }  ///< CUDA's own
  /// What took how long since the last call, with stream_options::profile.
  std::vector<profile::entry> times() const {
    return state().times ? state().times->take() : std::vector<profile::entry>{};
  }
  /// See exec/range.hpp: with stream_options::ranges.
  void begin_range(std::string_view name, index_t first, index_t n) const {
    if (state().ranges)
      detail::named_range::begin(n == 0 ? std::string(name) : detail::segments_text(name, first, n));
  }
  /// Ends the range that began last.
  void end_range() const {
    if (state().ranges) detail::named_range::end();
  }
  /// Whether cuBLASLt was found.
  bool has_library() const { return state().products != nullptr; }

  template <class U, class Space = plain_space>
  block<U, Space> allocate(index_t n) const {
    detail::make_current(state());
    return block<U, Space>(n);
  }
  /// `from` is free again when the call returns: more than 4 MiB are waited for.
  template <class U>
  void upload(const U* from, index_t n, U* here) const {
    if (n == 0) return;
    const index_t bytes = n * index_t(sizeof(U));
    if (bytes > detail::staging::part_bytes) {
      copy_bytes(here, from, bytes, cudaMemcpyHostToDevice);
      return state().own.synchronise();
    }
    copy_bytes(here, state().to_device.copy(from, bytes, native()), bytes, cudaMemcpyDeviceToDevice);
  }
  template <class U>
  void download(const U* here, index_t n, U* to) const {
    if (n == 0) return;
    detail::stream_state& s = state();
    const index_t bytes = n * index_t(sizeof(U)), rounded = (bytes + 63) / 64 * 64;
    if (s.downloaded + rounded > s.downloads.size())
      return copy_bytes(to, here, bytes, cudaMemcpyDeviceToHost);
    copy_bytes(s.downloads.data() + s.downloaded, here, bytes, cudaMemcpyDeviceToHost);
    s.waiting.push_back({s.downloaded, bytes, to});
    s.downloaded += rounded;
  }
  /// Waits for all that was enqueued. Where that failed it throws, and what was to be downloaded is dropped.
  void synchronise() const {
    detail::stream_state& s = state();
    const struct none_waiting {
      detail::stream_state& of;
      ~none_waiting() {
        of.waiting.clear();
        of.downloaded = 0;
      }
    } done{s};
    wait_for_copies();
    s.own.synchronise();
    for (const auto& w : s.waiting) std::memcpy(w.to, s.downloads.data() + w.at, std::size_t(w.bytes));
  }

  /// Numbers in pinned memory of the host, see exec/offload.hpp.
  template <class U>
  using host_block = cuda::host_block<U>;
  /// n zeros U of them.
  template <class U>
  host_block<U> host_allocate(index_t n) const {
    detail::make_current(state());
    return host_block<U>(n);
  }
  /// here = from, of the host, in a stream of copies.
  template <class U>
  void bring(matrix<const U> from, matrix<U> here) const {
    detail::make_current(state());
    state().host_copies.enqueue(from, here, cudaMemcpyHostToDevice, native());
  }
  /// The other way.
  template <class U>
  void take(matrix<const U> here, matrix<U> to) const {
    detail::make_current(state());
    state().host_copies.enqueue(here, to, cudaMemcpyDeviceToHost, native());
  }
  /// Operations called later happen behind all copies of bring and take so far.
  void wait_for_copies() const { state().host_copies.wait(native()); }

  friend bool operator==(const stream& a, const stream& b) { return a.machine() == b.machine(); }

 private:
  static std::shared_ptr<detail::stream_state> made(int index, stream_options how,
                                                    const cudaStream_t* of_caller) {
    use_device(index);
    auto s = std::make_shared<detail::stream_state>(of_caller);
    s->device = index;
    s->ranges = how.ranges;
    if (how.ranges && !detail::named_range::available)
      fail("cuda::stream", "ranges",
           "need nvtx3/nvToolsExt.h of the CUDA toolkit, which this program was built without");
    int major = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index), "cuda::stream",
          "cudaDeviceGetAttribute");
    // code that was translated for the device from an older instruction set does not wait
    cudaFuncAttributes code = {};
    if (how.early && major >= 9)
      check(cudaFuncGetAttributes(&code, run_body<kernels::fill_body<float>>), "cuda::stream",
            "cudaFuncGetAttributes");
    s->early = code.ptxVersion >= 90;
    if (how.library && (!cublaslt_library::named().empty() || cublaslt_library::missing().empty()))
      s->products = std::make_unique<cublaslt>();
    if (how.profile) s->times = std::make_unique<profile>();
    return s;
  }
  detail::stream_state& state() const { return *this->machine().state; }
  void copy_bytes(void* to, const void* from, index_t bytes, cudaMemcpyKind kind) const {
    check(cudaMemcpyAsync(to, from, std::size_t(bytes), kind, native()), "cuda::stream", "cudaMemcpyAsync");
  }
};

}  // namespace unroll::cuda
