#pragma once

#include "unroll/estimate/parts/graph_window.hpp"
#include "unroll/sample/reservoir.hpp"

namespace unroll {

struct reservoir_tbptt_options {
  index_t segments = 64;  ///< room for a sequence of so many segments
  index_t size = 2;       ///< graphs in the reservoir
};

/// Graphs in slots that Algorithm R deals out: what the two estimators below share.
template <class M, chooser C>
class reservoir_window {
 public:
  using T = typename M::scalar;
  using input = typename M::input;

  reservoir_window(std::string_view estimator, M model, const reservoir_tbptt_options& o, C choose)
      : model_(std::move(model)),
        reservoir_(checked(estimator, o, model_)),
        chooser_(std::move(choose)),
        window_(model_, o.segments, std::min(o.size, std::max<index_t>(1, o.segments - 1))) {}

  void reset(key k) {
    chooser_.reset(k);
    window_.reset();
    finished_ = false;
  }
  /// factor(reservoir, t): what the adjoints by J_t are multiplied with.
  template <class Factor>
  report advance(std::string_view function, params<const T> theta, std::span<const input> xs, dparams<T> g,
                 const Factor& factor) {
    check_call(function, model_, theta, g, finished_);
    return window_.advance(
        function, model_, theta, xs, g, [&](index_t s) { return reservoir_.slot(chooser_, s); },
        [&](index_t t) { return factor(reservoir_, t); });
  }
  report finish(std::string_view function, params<const T> theta, dparams<T> g) {
    check_call(function, model_, theta, g, finished_);
    const report r = window_.finish(model_, theta, g);
    finished_ = r.code == status::ok;
    return r;
  }

  C& chooser() { return chooser_; }
  const M& model() const { return model_; }
  template <class V>
  void visit(V&& v, const std::string& name) {
    visit_memory_identity(v, name + ", size " + std::to_string(window_.size()), model_);
    visit_flag(v, "finished", finished_);
    visit_part(v, "chooser", chooser_);
    window_.visit(v);
  }
  index_t held() const { return window_.held(); }
  void hold(std::span<const input> xs) { window_.hold(xs); }
  const replay_counts& counts() const { return window_.counts(); }

 private:
  static index_t checked(std::string_view estimator, const reservoir_tbptt_options& o, const M& model) {
    check_at_least(estimator, "segments", o.segments, 1);
    check_at_least(estimator, "size", o.size, 1);
    check_independent(estimator, model);
    return o.size;
  }

  M model_;
  reservoir reservoir_;
  C chooser_;
  graph_window<M> window_;
  bool finished_ = false;
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
/// UIO-LLMs, section 3.3.3; docs/math/reservoir_tbptt.md.
template <class M, class C = philox_chooser>
class reservoir_tbptt final {
  static_assert(require_memory_model<M>() && unroll::chooser<C>);

 public:
  using system_type = M;
  using scalar = typename M::scalar;
  using input = typename M::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"li2024uio", "vitter1985reservoir"};

  explicit reservoir_tbptt(M model, reservoir_tbptt_options options = {}, C chooser = C{})
      : window_("reservoir_tbptt", std::move(model), options, std::move(chooser)) {}

  void reset(key k, state<const scalar> s0 = {}) {
    check_no_start<scalar>("reservoir_tbptt::reset", s0);
    window_.reset(k);
  }
  void mirror(bool on) { window_.chooser().mirror(on); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return window_.advance("reservoir_tbptt::advance", theta, xs, g,
                           [](const reservoir& r, index_t t) { return r.weight(t); });
  }

  /// Sends back what is in the reservoir.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    return window_.finish("reservoir_tbptt::finish", theta, g);
  }

  template <class V>
  void visit(V&& v) {
    window_.visit(v, "reservoir_tbptt");
  }
  index_t held() const { return window_.held(); }
  void hold(std::span<const input> xs) { window_.hold(xs); }
  const M& system() const { return window_.model(); }
  const replay_counts& counts() const { return window_.counts(); }

 private:
  reservoir_window<M, C> window_;
};

/// reservoir_tbptt without the factor, as in the published code: a loss that finds t > S earlier segments
/// counts S / t of what it should. Biased unless S >= T - 1; assumptions, memory and time as above.
///
/// UIO-LLMs, the code of section 3.3.3; docs/math/reservoir_tbptt.md.
template <class M, class C = philox_chooser>
class uncompensated_reservoir final {
  static_assert(require_memory_model<M>() && unroll::chooser<C>);

 public:
  using system_type = M;
  using scalar = typename M::scalar;
  using input = typename M::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = false;
  static constexpr bool random = true;
  static constexpr std::array references{"li2024uio", "vitter1985reservoir"};

  explicit uncompensated_reservoir(M model, reservoir_tbptt_options options = {}, C chooser = C{})
      : window_("uncompensated_reservoir", std::move(model), options, std::move(chooser)) {}

  void reset(key k, state<const scalar> s0 = {}) {
    check_no_start<scalar>("uncompensated_reservoir::reset", s0);
    window_.reset(k);
  }
  void mirror(bool on) { window_.chooser().mirror(on); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return window_.advance("uncompensated_reservoir::advance", theta, xs, g,
                           [](const reservoir&, index_t) { return 1.0; });
  }

  /// Sends back what is in the reservoir.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    return window_.finish("uncompensated_reservoir::finish", theta, g);
  }

  template <class V>
  void visit(V&& v) {
    window_.visit(v, "uncompensated_reservoir");
  }
  index_t held() const { return window_.held(); }
  void hold(std::span<const input> xs) { window_.hold(xs); }
  const M& system() const { return window_.model(); }
  const replay_counts& counts() const { return window_.counts(); }

 private:
  reservoir_window<M, C> window_;
};

}  // namespace unroll
