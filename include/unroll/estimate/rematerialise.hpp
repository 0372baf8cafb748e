#pragma once

#include "unroll/estimate/parts/adjoint_sums.hpp"
#include "unroll/estimate/parts/segment_learner.hpp"

namespace unroll {

struct rematerialise_options {
  index_t segments = 64;  ///< most segments of a sequence
  index_t keep = 0;       ///< graphs of the last writes to keep; segments - 1: all of them, plain BPTT
  index_t batch = 1;      ///< segments that are written, replayed and read together
};

/// The exact gradient over the segments of a memory model, with one live graph. The memories are written
/// without graphs and kept, each loss adds its adjoints to accumulators beside them,
///
///   A_s = sum_{t>s} dJ_t/dm_s  [ + sum_{u>s} A_u dm_u/dm_s  where writes read ],
///
/// and at the end of the sequence, for s = T-2, ..., 0, segment s is written once more, with a graph, and A_s
/// is sent back through it. Backwards in s, A_s is complete when its turn comes: exact for recurrent memories
/// too (memory replay backpropagation of Memformer, SeCO). The graphs of the last `keep` writes are kept
/// instead.
///
/// Where writes are independent, `batch` of them make one call, and so do as many replays and reads: larger
/// matrix products for the memory of so many live graphs. Whatever `batch` is, the gradient has the same
/// bits; `keep` counts whole batches, of segments 0 .. batch - 1 and so on.
///
/// Assumes that theta is the same until finish() and that writing again gives the same bits. The memory of
/// the last segment is never written. A loss that is not finite leaves no trace, at the price of reading what
/// is in front of the call of advance() once more, and of writing and reading that call's segments once more,
/// one by one.
///
/// Exact, variance 0. Memory: 2 (segments - 1) memories and max(batch, keep) graphs; without `keep` the
/// graphs lie in the workspace of reads, where the model says what writes need of it. Over T segments: T - 1
/// writes, T - 1 - min(keep, T - 1) rewrites, T - 1 write vjps, T reads and read vjps (T - 1 where losses
/// have no parameters of their own).
///
/// UIO-LLMs, section 2, and Memformer; docs/math/rematerialise.md.
template <class M>
class rematerialise final : public segment_learner<M> {
  static_assert(require_memory_model<M>());
  using learner = segment_learner<M>;

 public:
  using typename learner::input;
  using typename learner::scalar;
  static constexpr bool unbiased = true;
  static constexpr bool random = false;
  static constexpr std::array references{"li2024uio", "wu2020memformer", "gao2021gradcache", "li2025seco"};

  explicit rematerialise(M model, rematerialise_options options = {})  // options: segments, keep, batch
      : learner("rematerialise", std::move(model),
                [&](const M& m) {
                  const index_t batch =
                      batch_of("rematerialise", m, checked(options).segments, options.batch);
                  const index_t keep = kept(options, batch);
                  return memory_bank_sizes{.segments = options.segments,
                                           .adjoints = options.segments - 1,
                                           .graphs = std::max(batch, keep),
                                           .batch = batch,
                                           .graphs_end_with_reads = keep == 0};
                }),
        keep_(kept(options, this->run().bank().batch())) {}

  void reset(key, state<const scalar> s0 = {}) { learner::start_sequence(s0); }

  using learner::look;
  using learner::put_off_looks;

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return learner::advance_by(theta, xs, g, [&](report& r) {
      return adjoint_sums(this->run(), this->system(), theta).take_all(xs, keep_ > 0, g, r);
    });
  }

  /// Sends all adjoints back. Where a write_vjp of the model throws and has added nothing, finish() can be
  /// called again, with the same g, and goes on with the segments that are left.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    return learner::finish_by(theta, g, [&] {
      adjoint_sums sums(this->run(), this->system(), theta);
      for (index_t end = this->run().bank().written(); end > 0;) {
        const index_t s = first_together_with(end - 1, sums);
        sums.send_back(s, end - s, g);
        end = s;
      }
    });
  }

  template <class V>
  void visit(V&& v) {
    learner::visit_guard(
        v, "keep " + std::to_string(keep_) + ", batch " + std::to_string(this->run().bank().batch()));
    this->run().visit(v);
  }

 private:
  static rematerialise_options checked(rematerialise_options o) {
    check_at_least("rematerialise", "segments", o.segments, 1);
    check_at_least("rematerialise", "keep", o.keep, 0);
    return o;
  }
  // Graphs that stay, in whole batches.
  static index_t kept(const rematerialise_options& o, index_t batch) {
    return whole_batches(std::min(o.keep, o.segments - 1), batch);
  }
  // The first of the segments up to s, of its batch, that are sent back with it: through one piece of graphs,
  // or because none of them has a graph.
  static index_t first_together_with(index_t s, const adjoint_sums<M>& sums) {
    if (sums.has_graph(s)) return sums.first_of_graph(s);
    const index_t first = sums.batch_start(s);
    while (s > first && !sums.has_graph(s - 1)) --s;
    return s;
  }

  index_t keep_;
};

}  // namespace unroll
