#pragma once

#include <cstring>
#include <span>

#include "unroll/cuda/machine.hpp"
#include "unroll/exec/body_executor.hpp"
#include "unroll/exec/offload.hpp"

namespace unroll::cuda {

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

  /// Of device `index`. Throws where there is none, it is too old (see use_device), or the program has no
  /// code for it.
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
    this->casts()->changed(here, std::size_t(n) * sizeof(U));
    const index_t bytes = n * index_t(sizeof(U));
    if (state().open) {
      const void* const at = this->machine().staged_bytes(from, bytes);
      return this->machine().happen(
          [=](const detail::machine& m) { copy_bytes(*m.state, here, at, bytes, cudaMemcpyDeviceToDevice); });
    }
    if (bytes > detail::staging::part_bytes) {
      copy_bytes(state(), here, from, bytes, cudaMemcpyHostToDevice);
      return state().own.synchronise();
    }
    copy_bytes(state(), here, state().to_device.copy(from, bytes, native()), bytes, cudaMemcpyDeviceToDevice);
  }
  template <class U>
  void download(const U* here, index_t n, U* to) const {
    if (n == 0) return;
    refuse_recorded("download");
    detail::stream_state& s = state();
    const index_t bytes = n * index_t(sizeof(U)), rounded = (bytes + 63) / 64 * 64;
    if (s.downloaded + rounded > s.downloads.size())
      return copy_bytes(s, to, here, bytes, cudaMemcpyDeviceToHost);
    copy_bytes(s, s.downloads.data() + s.downloaded, here, bytes, cudaMemcpyDeviceToHost);
    s.waiting.push_back({s.downloaded, bytes, to});
    s.downloaded += rounded;
  }
  /// Waits for all that was enqueued. Where that failed it throws, and what was to be downloaded is dropped.
  void synchronise() const {
    refuse_recorded("synchronise");
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
    enqueue(detail::copies::bring, from, here);
  }
  /// The other way, in another one.
  template <class U>
  void take(matrix<const U> here, matrix<U> to) const {
    enqueue(detail::copies::take, here, to);
  }
  /// Operations called later happen behind all copies of bring and take so far.
  void wait_for_copies() const {
    this->machine().happen([](const detail::machine& m) { m.state->host_copies.wait(m.state->own.get()); });
  }

  /// A list of operations and its graph.
  using recording = detail::recording;
  /// See exec/recording.hpp: from the second time on as a graph. Waits until the spans of the time before are
  /// on the device.
  template <class F>
  void together(recording& r, F&& f) const {
    detail::make_current(state());
    try {
      exec::note("cuda::stream", state().open, r, f);
      r.run(this->machine());
    } catch (...) {
      this->casts()->all_changed();
      throw;
    }
  }

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
    cudaFuncAttributes code = {};
    detail::check_has_code(cudaFuncGetAttributes(&code, run_body<kernels::fill_body<float>>), index,
                           "cuda::stream", "cudaFuncGetAttributes");
    // code that was translated for the device from an older instruction set does not wait
    s->early = how.early && compute_capability(index) >= 90 && code.ptxVersion >= 90;
    if (how.library && (!cublaslt_library::named().empty() || cublaslt_library::missing().empty()))
      s->products = std::make_unique<cublaslt>();
    if (how.profile) s->times = std::make_unique<profile>();
    return s;
  }
  detail::stream_state& state() const { return *this->machine().state; }
  static void copy_bytes(const detail::stream_state& s, void* to, const void* from, index_t bytes,
                         cudaMemcpyKind kind) {
    check(cudaMemcpyAsync(to, from, std::size_t(bytes), kind, s.own.get()), "cuda::stream",
          "cudaMemcpyAsync");
  }
  template <class U>
  void enqueue(detail::copies::direction d, matrix<const U> from, matrix<U> to) const {
    this->machine().happen([=](const detail::machine& m) {
      detail::make_current(*m.state);
      m.state->host_copies.enqueue(d, from, to, m.state->own.get());
    });
  }
  void refuse_recorded(std::string_view call) const {
    exec::refuse_noted("cuda::stream", state().open, call);
  }
};

}  // namespace unroll::cuda
