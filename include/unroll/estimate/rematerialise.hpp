#pragma once

#include "unroll/estimate/parts/segment_run.hpp"

namespace unroll {

struct rematerialise_options {
  index_t segments = 64;  ///< room for a sequence of so many segments
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
/// Exact, variance 0. Memory: 2 (segments - 1) memories and max(batch, keep) graphs; without `keep` these lie
/// where reads work, if the model tells what writes need. Over T segments: T - 1
/// writes, T - 1 - min(keep, T - 1) rewrites, T - 1 write vjps, T reads and read vjps (T - 1 where losses
/// have no parameters of their own).
///
/// UIO-LLMs, section 2, and Memformer; docs/math/rematerialise.md.
template <class M>
class rematerialise final {
  static_assert(require_memory_model<M>());

 public:
  using system_type = M;
  using scalar = typename M::scalar;
  using input = typename M::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = false;
  static constexpr std::array references{"li2024uio", "wu2020memformer", "gao2021gradcache", "li2025seco"};

  explicit rematerialise(M model, rematerialise_options options = {})
      : model_(std::move(model)),
        batch_(batch_of("rematerialise", model_, checked(options).segments, options.batch)),
        keep_(whole_batches(std::min(options.keep, options.segments - 1), batch_)),
        run_(model_, options.segments, options.segments - 1, std::max(batch_, keep_), batch_, keep_ == 0) {}

  void reset(key, state<const scalar> s0 = {}) {
    check_no_start<scalar>("rematerialise::reset", s0);
    run_.reset();
    finished_ = false;
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    check_call("rematerialise::advance", model_, theta, g, finished_);
    return run_.accumulate("rematerialise::advance", model_, theta, xs, g,
                           [&](index_t s) { return keep_ > 0 ? slot(s) : memory_bank<M>::none; });
  }

  /// Sends all adjoints back.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    check_call("rematerialise::finish", model_, theta, g, finished_);
    memory_bank<M>& bank = run_.bank();
    const replay_counts before = bank.counts();
    const report r = run_.check_finish(theta);
    if (r.code != status::ok) return run_.charge(r, before);
    for (index_t s = bank.written(); s > 0;) {
      const index_t end = s;
      s = bank.owner(slot(s - 1)) == s - 1 ? bank.first_of_batch(slot(s - 1)) : first_to_rewrite(s - 1);
      run_.send_back(model_, theta, s, end - s, slot(s), g);
    }
    finished_ = true;
    return run_.charge(r, before);
  }

  template <class V>
  void visit(V&& v) {
    visit_memory_identity(
        v, "rematerialise, keep " + std::to_string(keep_) + ", batch " + std::to_string(batch_), model_);
    visit_flag(v, "finished", finished_);
    run_.visit(v);
  }
  index_t held() const { return run_.held(); }
  void hold(std::span<const input> xs) { run_.hold(xs); }
  const M& system() const { return model_; }
  const replay_counts& counts() const { return run_.bank().counts(); }

 private:
  static rematerialise_options checked(rematerialise_options o) {
    check_at_least("rematerialise", "segments", o.segments, 1);
    check_at_least("rematerialise", "keep", o.keep, 0);
    return o;
  }
  index_t slot(index_t s) const { return s % run_.bank().slots(); }
  // The first of the segments up to s, of its batch, that have no graph.
  index_t first_to_rewrite(index_t s) const {
    const index_t first = run_.batch_start(s);
    while (s > first && run_.bank().owner(slot(s - 1)) != s - 1) --s;
    return s;
  }

  M model_;
  index_t batch_, keep_;
  segment_run<M> run_;
  bool finished_ = false;
};

}  // namespace unroll
