#pragma once

#include "unroll/estimate/graph_window.hpp"
#include "unroll/sample/reservoir.hpp"

namespace unroll {

struct reservoir_tbptt_options {
  index_t segments = 64;  ///< room for a sequence of so many segments
  index_t size = 2;       ///< graphs in the reservoir
};

/// Unbiased incremental truncated backpropagation: the window of incremental_tbptt, filled by Algorithm R
/// instead of with the newest segments. With R_t the reservoir when segment t is read (t earlier segments),
///
///   g = sum_t sum_{s in R_t}  max(1, t / S)  dJ_t/dm_s  dm_s/dtheta,     P(s in R_t) = min(1, S / t).
///
/// The factor multiplies what J_t adds, never what was added before. Whether a segment enters is drawn before
/// it is written: one that is rejected is written without a graph and never sent back; one that is thrown out
/// is sent back once, with what it has collected. What a loss owes to theta directly is exact.
///
/// Assumes that writes do not read earlier memories (refused otherwise: adjoints between memories would be
/// lost) and that theta is the same until finish(). A loss that is not finite leaves no trace.
///
/// Unbiased with `Compensated`; without it the factor is 1, as in the published code, and the estimate is
/// biased: uncompensated_reservoir() makes that one. Variance: a segment that is held stays held, and its
/// weight grows, so that contributions that align add up over the rest of the sequence; docs/math has the
/// closed form. Exact where S >= T - 1.
///
/// Memory: segments - 1 memories, 2 S adjoints and S graphs. Over T segments: T - 1 writes, of which
/// S + sum_{n=S}^{T-2} S / (n + 1) expected with graph, each of these with a write vjp; T reads and read vjps
/// (T - 1 where losses have no parameters of their own).
///
/// UIO-LLMs, section 3.3.3; docs/math/reservoir_tbptt.md.
template <class M, class C = philox_chooser, bool Compensated = true>
class reservoir_tbptt final {
  static_assert(memory_model<M> && unroll::chooser<C>);

 public:
  using system_type = M;
  using scalar = typename M::scalar;
  using input = typename M::input;
  static constexpr target target_gradient = target::frozen_theta;
  static constexpr bool unbiased = Compensated;
  static constexpr std::array references{"li2024uio", "vitter1985reservoir"};

  explicit reservoir_tbptt(M model, reservoir_tbptt_options options = {}, C chooser = C{})
      : model_(std::move(model)),
        options_(checked(options, model_)),
        reservoir_(options.size),
        chooser_(std::move(chooser)),
        window_(model_, options.segments,
                std::min(options.size, std::max<index_t>(1, options.segments - 1))) {}

  void reset(key k, state<const scalar> s0 = {}) {
    check_no_start<scalar>("reservoir_tbptt::reset", s0);
    chooser_.reset(k);
    window_.reset();
    finished_ = false;
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    check_call("reservoir_tbptt::advance", model_, theta, g, finished_);
    return window_.advance(
        "reservoir_tbptt::advance", model_, theta, xs, g,
        [&](index_t s) { return reservoir_.slot(chooser_, s); },
        [&](index_t t) { return Compensated ? reservoir_.weight(t) : 1.0; });
  }

  /// Sends back what is in the reservoir.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    check_call("reservoir_tbptt::finish", model_, theta, g, finished_);
    const report r = window_.finish(model_, theta, g);
    finished_ = r.code == status::ok;
    return r;
  }

  C& chooser() { return chooser_; }
  const M& system() const { return model_; }
  const replay_counts& counts() const { return window_.counts(); }

 private:
  static reservoir_tbptt_options checked(reservoir_tbptt_options o, const M& model) {
    check_at_least("reservoir_tbptt", "segments", o.segments, 1);
    check_at_least("reservoir_tbptt", "size", o.size, 1);
    check_independent("reservoir_tbptt", model);
    return o;
  }

  M model_;
  reservoir_tbptt_options options_;
  reservoir reservoir_;
  C chooser_;
  graph_window<M> window_;
  bool finished_ = false;
};

/// The reservoir without the factor: biased.
template <class M, class C = philox_chooser>
reservoir_tbptt<M, C, false> uncompensated_reservoir(M model, reservoir_tbptt_options options = {},
                                                     C chooser = C{}) {
  return reservoir_tbptt<M, C, false>(std::move(model), options, std::move(chooser));
}

}  // namespace unroll
