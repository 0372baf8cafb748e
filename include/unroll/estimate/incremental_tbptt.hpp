#pragma once

#include "unroll/estimate/parts/graph_window.hpp"
#include "unroll/estimate/parts/segment_learner.hpp"

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
class incremental_tbptt final : public segment_learner<M> {
  static_assert(require_memory_model<M>());
  using learner = segment_learner<M>;

 public:
  using typename learner::input;
  using typename learner::scalar;
  static constexpr bool unbiased = false;
  static constexpr bool random = false;
  static constexpr std::array references{"li2024uio", "williams1990bptt"};

  explicit incremental_tbptt(M model, incremental_tbptt_options options = {})  // options: segments, window
      : learner("incremental_tbptt", std::move(model),
                [&](const M&) { return graph_window<M>::sizes(checked(options).segments, options.window); }) {
  }

  void reset(key, state<const scalar> s0 = {}) { learner::start_sequence(s0); }

  using learner::look;
  using learner::put_off_looks;

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return learner::advance_by(theta, xs, g, [&](report& r) {
      return graph_window(this->run(), this->system(), theta)
          .take_all(
              xs, g, r,
              [this](index_t s) { return s % size(); },  // of segment s - S, which leaves the window
              [](index_t) { return 1; });
    });
  }

  /// Sends back the last window.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    return learner::finish_by(theta, g,
                              [&] { graph_window(this->run(), this->system(), theta).send_all_back(g); });
  }

  template <class V>
  void visit(V&& v) {
    learner::visit_guard(v, "window " + std::to_string(size()));
    this->run().visit(v);
  }

 private:
  static incremental_tbptt_options checked(incremental_tbptt_options o) {
    check_at_least("incremental_tbptt", "segments", o.segments, 1);
    check_at_least("incremental_tbptt", "window", o.window, 1);
    return o;
  }

  // S, or all memories of a shorter sequence
  index_t size() const { return this->run().bank().graphs().size(); }
};

}  // namespace unroll
