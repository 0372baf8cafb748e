#pragma once

#include "unroll/estimate/parts/graph_window.hpp"
#include "unroll/sample/reservoir.hpp"

namespace unroll {

struct reservoir_tbptt_options {
  index_t segments = 64;  ///< most segments of a sequence
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
/// Unbiased. Variance: a segment that is held stays held, and its weight grows, so that contributions that
/// align add up over the rest of the sequence; docs/math has the closed form. Exact where S >= T - 1.
///
/// Memory: segments - 1 memories, 2 S adjoints and S graphs. Over T segments: T - 1 writes, of which
/// S + sum_{n=S}^{T-2} S / (n + 1) expected with graph, each of these with a write vjp; T reads and read vjps
/// (T - 1 where losses have no parameters of their own).
///
/// Without compensation, as in the published code, the factor is 1: a loss that finds t > S earlier segments
/// counts S / t of what it should. Biased unless S >= T - 1.
///
/// UIO-LLMs, section 3.3.3 and its code; docs/math/reservoir_tbptt.md.
template <class M, class C = philox_chooser, bool compensated = true>
class reservoir_tbptt final {
  static_assert(require_memory_model<M>() && unroll::chooser<C>);

 public:
  using system_type = M;
  using scalar = typename M::scalar;
  using input = typename M::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = compensated;
  static constexpr bool random = true;
  static constexpr std::array references{"li2024uio", "vitter1985reservoir"};

  explicit reservoir_tbptt(M model, reservoir_tbptt_options options = {}, C chooser = C{})
      : model_(std::move(model)),
        guard_(name, model_),
        reservoir_(checked(options, model_).size),
        chooser_(std::move(chooser)),
        run_(model_, graph_window<M>::sizes(options.segments, options.size)) {}

  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    chooser_.reset(k);
    run_.reset();
  }
  void mirror(bool on) { chooser_.mirror(on); }

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
        const index_t slot = reservoir_.slot(chooser_, t - 1);  // none: segment t - 1 is rejected
        window.send_back(slot, g);
        if (!run_.write(model_, theta, slot)) return run_.stop(r);
      }
      if (!run_.read(model_, theta, x, window.route_adjoints(t), g, r)) return run_.stop(r);
      window.collect(compensated ? reservoir_.weight(t) : 1);
    }
    return run_.end(r);
  }

  /// Sends back what is in the reservoir.
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
    guard_.visit(v, "size " + std::to_string(run_.bank().graphs().size()), model_);
    visit_part(v, "chooser", chooser_);
    run_.visit(v);
  }
  index_t held() const { return run_.held(); }
  void hold(std::span<const input> xs) { run_.hold(xs); }
  const M& system() const { return model_; }
  const replay_counts& counts() const { return run_.counts(); }

 private:
  static constexpr const char* name = compensated ? "reservoir_tbptt" : "uncompensated_reservoir";

  static reservoir_tbptt_options checked(reservoir_tbptt_options o, const M& model) {
    check_at_least(name, "segments", o.segments, 1);
    check_at_least(name, "size", o.size, 1);
    check_independent(name, model);
    return o;
  }

  M model_;
  sequence_guard<M> guard_;
  reservoir reservoir_;
  C chooser_;
  segment_run<M> run_;
};

/// reservoir_tbptt without compensation.
template <class M, class C = philox_chooser>
using uncompensated_reservoir = reservoir_tbptt<M, C, false>;

}  // namespace unroll
