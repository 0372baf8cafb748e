#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "unroll/cuda/cublaslt.hpp"
#include "unroll/cuda/launch.hpp"
#include "unroll/cuda/profile.hpp"
#include "unroll/cuda/ranges.hpp"
#include "unroll/cuda/transfers.hpp"
#include "unroll/exec/recording.hpp"
#include "unroll/kernels/gemv_body.hpp"
#include "unroll/kernels/split_product_body.hpp"
#include "unroll/kernels/vector_body.hpp"

namespace unroll::cuda::detail {

class recording;

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
  recording* open = nullptr;            // what operations are noted in; null: they are enqueued
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
    happen([body](const machine& m) {
      m.timed([] { return body_name<Body>(); }, [&] { launch(body, m.state->own.get(), m.state->early); });
    });
  }
  /// op(machine), which is trivially copyable and enqueues something, now or as part of a recording.
  template <class Op>
  void happen(Op op) const;
  template <class U>
  std::span<const U> staged(std::span<U> numbers) const {
    if (numbers.empty()) return {};
    return {static_cast<const U*>(staged_bytes(numbers.data(), index_t(numbers.size_bytes()))),
            numbers.size()};
  }
  /// Where the bytes are at the place: brought there, or a span of the recording.
  const void* staged_bytes(const void* from, index_t bytes) const;
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
      if constexpr (std::same_as<U, bf16>) {
        if (oa == op::transpose && ob == op::none && c.cols == 1 && k % 8 == 0) {
          run(kernels::gemv_body<C>{a, b.data, float(alpha), add, c.data});
          return true;
        } else if (kernels::product_split::pays(c.rows, k)) {
          in_parts(oa, a, ob, b, alpha, add, c);
          return true;
        }
      }
      happen([=](const machine& m) {
        m.timed(
            [&] {
              return "cublaslt " + std::to_string(c.rows) + " x " + std::to_string(c.cols) + " x " +
                     std::to_string(k);
            },
            [&] {
              m.state->products->template gemm<U, U, C>(oa, a, ob, b, alpha, add, c, m.state->own.get());
            });
      });
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

/// Memory of recorded spans, see exec/recording.hpp.
struct recorded_chunk {
  explicit recorded_chunk(index_t n) : pinned(n), here(n, "recorded spans") {}
  unsigned char* host() { return pinned.data(); }
  unsigned char* place() { return here.data(); }
  pinned_block<unsigned char> pinned;
  device_block<unsigned char> here;
};

/// A list of what a machine enqueues, and its graph, see exec/recording.hpp. A list with other operations
/// than the time before is enqueued as it is, which also loads its kernels; from the next time on it is
/// captured as a graph, which is mended where arguments are others and launched as it is where none are. With
/// stream_options::profile nothing is captured, nor in a caller's default stream, which CUDA refuses.
class recording : public exec::recorded<machine, recorded_chunk> {
  using base = exec::recorded<machine, recorded_chunk>;

 public:
  recording() = default;
  recording(const recording&) : recording() {}
  recording& operator=(const recording&) {
    *this = recording();
    return *this;
  }
  recording(recording&&) = default;
  recording& operator=(recording&&) = default;
  ~recording() = default;

  bool is_graph() const { return graph_ != nullptr; }  ///< whether it was captured

  /// What follows is noted.
  void begin() {
    if (brought_) brought_->synchronise();  // spans are written anew
    base::begin();
  }
  /// Nothing of what was noted will happen.
  void forget() {
    base::forget();
    graph_.reset();
  }
  /// Enqueues all of it.
  void run(const machine& m) {
    const stream_state& s = *m.state;
    const cudaStream_t stream = s.own.get();
    make_current(s);
    const exec::difference seen = end();
    if (seen != exec::difference::none) is_of_list_ = false;
    spans_.for_changed([&](const unsigned char* from, unsigned char* to, index_t n) {
      check(cudaMemcpyAsync(to, from, std::size_t(n), cudaMemcpyHostToDevice, stream), "cuda::stream",
            "cudaMemcpyAsync");
    });
    if (!brought_) brought_ = std::make_unique<event_handle>();
    brought_->record(stream);
    const bool by_default = !stream || stream == cudaStreamLegacy;
    if (seen == exec::difference::operations || s.times || by_default) {
      graph_.reset();
      return list_.run(m);
    }
    if (!graph_ || !is_of_list_) capture(m);
    check(cudaGraphLaunch(graph_.get(), stream), "cuda::stream", "cudaGraphLaunch");
  }

 private:
  struct destroy {
    void operator()(cudaGraph_t g) const { cudaGraphDestroy(g); }
    void operator()(cudaGraphExec_t g) const { cudaGraphExecDestroy(g); }  // one that still runs ends first
  };
  using graph_owner = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, destroy>;
  using launched_owner = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, destroy>;

  void capture(const machine& m) {
    const cudaStream_t stream = m.state->own.get();
    m.state->host_copies.wait(stream);  // none from outside is waited for inside
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "cuda::stream",
          "cudaStreamBeginCapture");
    cudaGraph_t made = nullptr;
    try {
      list_.run(m);
      m.state->host_copies.wait(stream);  // the streams of copies come back
    } catch (...) {
      cudaStreamEndCapture(stream, &made);
      if (made) cudaGraphDestroy(made);
      cudaGetLastError();
      m.state->host_copies.forget();  // nobody can wait for events of the capture
      forget();
      throw;
    }
    check(cudaStreamEndCapture(stream, &made), "cuda::stream", "cudaStreamEndCapture");
    const graph_owner captured(made);
    if (graph_) {
      cudaGraphExecUpdateResultInfo how = {};
      if (cudaGraphExecUpdate(graph_.get(), captured.get(), &how) == cudaSuccess) {
        is_of_list_ = true;
        return;
      }
      cudaGetLastError();
    }
    graph_.reset();
    cudaGraphExec_t ready = nullptr;
    check(cudaGraphInstantiate(&ready, captured.get(), 0), "cuda::stream",
          "cudaGraphInstantiate of " + std::to_string(list_.size()) + " operations");
    graph_.reset(ready);
    is_of_list_ = true;
  }

  std::unique_ptr<event_handle> brought_;  // spans were, the last time
  launched_owner graph_;
  bool is_of_list_ = false;  // whether the graph has the list's arguments
};

template <class Op>
void machine::happen(Op op) const {
  if (state->open)
    state->open->add(op);
  else
    op(*this);
}
inline const void* machine::staged_bytes(const void* from, index_t bytes) const {
  if (state->open) {
    make_current(*state);  // new spans take memory of the device
    return state->open->put(from, bytes);
  }
  return state->to_device.copy(from, bytes, state->own.get());
}

}  // namespace unroll::cuda::detail
