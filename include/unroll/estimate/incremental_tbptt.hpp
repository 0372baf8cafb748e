#pragma once

#include "unroll/estimate/parts/graph_window.hpp"

namespace unroll {

struct incremental_tbptt_options {
  index_t segments = 64;  ///< most segments of a sequence
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
/// Assumes that theta is the same until finish(). A loss that is not finite leaves no trace, except this: to
/// write the memory in front of it, the oldest graph was sent back and dropped. Where writes read earlier
/// memories, finish() then sends nothing from later memories through that graph.
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
        guard_("incremental_tbptt", model_),
        run_(model_, graph_window<M>::sizes(checked(options).segments, options.window)),
        size_(run_.bank().graphs().size()) {}

  void reset(key, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    run_.reset();
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    const exec::range named(run_.bank().executor(), guard_.estimator());
    report r = run_.start(guard_.estimator(), theta, xs);
    if (r.code != status::ok) return run_.end(r);
    graph_window window(run_, model_, theta);
    for (const input& x : xs) {
      if (!finite_input(model_, x)) return run_.stop(r);
      const index_t t = run_.size();  // x is segment t, and reads m_0 .. m_{t-1}
      if (run_.bank().written() < t) {
        const index_t slot = (t - 1) % size_;  // of segment t - 1 - S, which leaves the window
        window.send_back(slot, g);
        if (!run_.write(model_, theta, slot)) return run_.stop(r);
      }
      if (!run_.read(model_, theta, x, window.route_adjoints(t), g, r)) return run_.stop(r);
      window.collect(1);
    }
    return run_.end(r);
  }

  /// Sends back the last window.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    const exec::range named(run_.bank().executor(), guard_.estimator());
    const report r = run_.start(theta);
    if (r.code != status::ok) return run_.end(r);
    graph_window(run_, model_, theta).send_all_back(g);
    return guard_.close(run_.end(r));
  }

  template <class V>
  void visit(V&& v) {
    guard_.visit(v, "window " + std::to_string(size_), model_);
    run_.visit(v);
  }
  index_t held() const { return run_.held(); }
  void hold(std::span<const input> xs) { run_.hold(xs); }
  const M& system() const { return model_; }
  const replay_counts& counts() const { return run_.counts(); }

 private:
  static incremental_tbptt_options checked(incremental_tbptt_options o) {
    check_at_least("incremental_tbptt", "segments", o.segments, 1);
    check_at_least("incremental_tbptt", "window", o.window, 1);
    return o;
  }

  M model_;
  sequence_guard<M> guard_;
  segment_run<M> run_;
  index_t size_;  // S, or all memories of a shorter sequence
};

}  // namespace unroll
