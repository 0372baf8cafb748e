#pragma once

#include "unroll/estimate/parts/graph_window.hpp"

namespace unroll {

struct incremental_tbptt_options {
  index_t segments = 64;  ///< room for a sequence of so many segments
  index_t window = 2;     ///< segments in front of a loss whose memories receive its adjoint
};

/// Truncated backpropagation over the segments of a memory model, with the two sums swapped. TBPTT(S) is
///
///   g = sum_t sum_{s = max(0, t-S)}^{t-1}  dJ_t/dm_s  dm_s/dtheta   =   sum_s  A_s dm_s/dtheta,
///   A_s = sum_{t = s+1}^{s+S}  dJ_t/dm_s,
///
/// so the losses add their adjoints to accumulators, and when segment s leaves the window, A_s is sent back
/// through its graph once: T - 1 write vjps instead of S (T - 1) - S (S - 1) / 2, whatever S is. What a loss
/// owes to theta directly is exact. Where writes read earlier memories, an adjoint for a memory whose graph
/// is gone is dropped, and the graphs leave oldest first: paths through other memories then count only within
/// the last window of the sequence.
///
/// Assumes that theta is the same until finish(). A loss that is not finite leaves no trace, except that the
/// graph which made room for the memory in front of it has left: where writes read, what later memories would
/// have sent to it in finish() is dropped.
///
/// Biased unless S >= T - 1, where it is exact. Variance 0. Memory: segments - 1 memories, 2 S adjoints and S
/// graphs. Over T segments: T - 1 writes and write vjps, T reads and read vjps (T - 1 where losses have no
/// parameters of their own).
///
/// UIO-LLMs, section 3.3.2; docs/math/incremental_tbptt.md.
template <class M>
class incremental_tbptt final {
  static_assert(require_memory_model<M>());

 public:
  using system_type = M;
  using scalar = typename M::scalar;
  using input = typename M::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = false;
  static constexpr bool random = false;
  static constexpr std::array references{"li2024uio", "williams1990bptt"};

  explicit incremental_tbptt(M model, incremental_tbptt_options options = {})
      : model_(std::move(model)),
        size_(std::min(checked(options).window, std::max<index_t>(1, options.segments - 1))),
        window_(model_, options.segments, size_) {}

  void reset(key, state<const scalar> s0 = {}) {
    check_no_start<scalar>("incremental_tbptt::reset", s0);
    window_.reset();
    finished_ = false;
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    check_call("incremental_tbptt::advance", model_, theta, g, finished_);
    return window_.advance(
        "incremental_tbptt::advance", model_, theta, xs, g, [&](index_t t) { return t % size_; },
        [](index_t) { return 1.0; });
  }

  /// Sends back the last window.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    check_call("incremental_tbptt::finish", model_, theta, g, finished_);
    const report r = window_.finish(model_, theta, g);
    finished_ = r.code == status::ok;
    return r;
  }

  template <class V>
  void visit(V&& v) {
    visit_memory_identity(v, "incremental_tbptt, window " + std::to_string(size_), model_);
    visit_flag(v, "finished", finished_);
    window_.visit(v);
  }
  index_t held() const { return window_.held(); }
  void hold(std::span<const input> xs) { window_.hold(xs); }
  const M& system() const { return model_; }
  const replay_counts& counts() const { return window_.counts(); }

 private:
  static incremental_tbptt_options checked(incremental_tbptt_options o) {
    check_at_least("incremental_tbptt", "segments", o.segments, 1);
    check_at_least("incremental_tbptt", "window", o.window, 1);
    return o;
  }

  M model_;
  index_t size_;
  graph_window<M> window_;
  bool finished_ = false;
};

}  // namespace unroll
