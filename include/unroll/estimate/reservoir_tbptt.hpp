#pragma once

#include "unroll/estimate/parts/graph_window.hpp"
#include "unroll/estimate/parts/segment_learner.hpp"
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
class reservoir_tbptt final : public segment_learner<M> {
  static_assert(require_memory_model<M>() && unroll::chooser<C>);
  using learner = segment_learner<M>;

 public:
  using typename learner::input;
  using typename learner::scalar;
  static constexpr bool unbiased = compensated;
  static constexpr bool random = true;
  static constexpr std::array references{"li2024uio", "vitter1985reservoir"};

  explicit reservoir_tbptt(  // options: segments, size
      M model, reservoir_tbptt_options options = {}, C chooser = C{})
      : learner(name, std::move(model),
                [&](const M& m) {
                  check(options, m);
                  return graph_window<M>::sizes(options.segments, options.size);
                }),
        reservoir_(options.size),
        chooser_(std::move(chooser)) {}

  void reset(key k, state<const scalar> s0 = {}) {
    learner::start_sequence(s0);
    chooser_.reset(k);
  }
  void mirror(bool on) { chooser_.mirror(on); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return learner::advance_by(theta, xs, g, [&](report& r) {
      return graph_window(this->run(), this->system(), theta)
          .take_all(
              xs, g, r, [this](index_t s) { return reservoir_.slot(chooser_, s); },  // none: s is rejected
              [this](index_t t) { return compensated ? reservoir_.weight(t) : 1; });
    });
  }

  /// Sends back what is in the reservoir.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    return learner::finish_by(theta, g,
                              [&] { graph_window(this->run(), this->system(), theta).send_all_back(g); });
  }

  template <class V>
  void visit(V&& v) {
    learner::visit_guard(v, "size " + std::to_string(this->run().bank().graphs().size()));
    visit_part(v, "chooser", chooser_);
    this->run().visit(v);
  }

 private:
  static constexpr const char* name = compensated ? "reservoir_tbptt" : "uncompensated_reservoir";

  static void check(const reservoir_tbptt_options& o, const M& model) {
    check_at_least(name, "segments", o.segments, 1);
    check_at_least(name, "size", o.size, 1);
    check_independent(name, model);
  }

  reservoir reservoir_;
  C chooser_;
};

/// reservoir_tbptt without compensation.
template <class M, class C = philox_chooser>
using uncompensated_reservoir = reservoir_tbptt<M, C, false>;

}  // namespace unroll
