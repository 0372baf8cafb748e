#pragma once

#include "unroll/estimate/parts/adjoint_sums.hpp"
#include "unroll/sample/proportional.hpp"

namespace unroll {

struct proportional_replay_options {
  index_t segments = 64;  ///< most segments of a sequence
  index_t budget = 8;     ///< segments that are written once more and sent back
  sampling_design design = sampling_design::systematic;  ///< unbiased whichever; the variance differs
  index_t batch = 1;  ///< segments that are written and read together, and replayed where they are neighbours
};

/// Rematerialisation of a sample. Memories are written without graphs, losses add their adjoints A_s = sum_t
/// dJ_t/dm_s, and at the end of the sequence, when all ||A_s|| are known, about `budget` segments are
/// replayed:
///
///   g = sum_{s in sample}  1 / p_s  A_s dm_s/dtheta,     p_s = min(1, c ||A_s||),   sum_s p_s = budget.
///
/// P(s in sample) = p_s exactly. The sample is systematic over the segments in their order or in a random
/// one, and then its size is the budget, or has a coin for every segment, and then its mean size is that.
/// What a loss owes to theta directly is exact.
///
/// Assumes that writes do not read earlier memories (refused otherwise: ||A_s|| would not be known before the
/// later segments are replayed), that theta is the same until finish() and that writing again gives the same
/// bits. A loss that is not finite leaves no trace, at the price of reading what is in front of the call of
/// advance() once more, and of writing and reading that call's segments once more, one by one.
///
/// Unbiased (Horvitz and Thompson). With G_s = A_s dm_s/dtheta the variance of independent draws is sum_s
/// (1 / p_s - 1) |G_s|^2, which p proportional to |G_s| would minimise; ||A_s|| stands for it. A sample of
/// fixed size adds sum_{s != u} (p_su / (p_s p_u) - 1) <G_s, G_u>, of either sign: less where the G_s, those
/// of neighbours above all, point the same way, and for the order of the segments much more where they cancel
/// in step with the sample.
///
/// Memory: 2 (segments - 1) memories and `batch` graphs. Over T segments: T - 1 writes, min(budget, T - 1)
/// rewrites and write vjps (on average where draws are independent), T reads and read vjps (T - 1 where
/// losses have no parameters of their own).
///
/// UIO-LLMs, Horvitz & Thompson 1952, Madow 1949, SpaCO; docs/math/proportional_replay.md.
template <class M, class C = philox_chooser>
class proportional_replay final {
  static_assert(require_memory_model<M>() && unroll::chooser<C>);

 public:
  using system_type = M;
  using scalar = typename M::scalar;
  using input = typename M::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"li2024uio", "horvitz1952sampling", "madow1949systematic",
                                         "li2025seco"};

  explicit proportional_replay(M model, proportional_replay_options options = {}, C chooser = C{})
      : model_(std::move(model)),
        guard_("proportional_replay", model_),
        budget_(checked(options, model_).budget),
        chooser_(std::move(chooser)),
        batch_(batch_of("proportional_replay", model_, options.segments, options.batch)),
        run_(model_, {.segments = options.segments,
                      .adjoints = options.segments - 1,
                      .graphs = batch_,
                      .batch = batch_}),
        norm_(options.segments - 1),
        p_(options.segments - 1),
        sampler_(options.segments - 1, options.design),
        taken_(options.segments - 1) {}

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
    if (r.code != status::ok) return with_own_bytes(run_.end(r));
    const bool all = adjoint_sums(run_, model_, theta).take_all(xs, false, g, r);
    return with_own_bytes(all ? run_.end(r) : run_.stop(r));
  }

  /// Draws the sample and sends it back. Where the model throws, only reset() can follow.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    const exec::range named(run_.bank().executor(), guard_.estimator());
    const report r = run_.start(theta);
    if (r.code != status::ok) return with_own_bytes(run_.end(r));
    adjoint_sums sums(run_, model_, theta);
    const index_t n = run_.bank().written();
    draw_sample(sums, n);
    sums.send_back_sample(0, n, view<const char>(taken_), view<const double>(p_), g);
    return guard_.close(with_own_bytes(run_.end(r)));
  }

  C& chooser() { return chooser_; }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v,
                 "budget " + std::to_string(budget_) + ", design " + std::to_string(int(sampler_.design())) +
                     ", batch " + std::to_string(batch_),
                 model_);
    visit_part(v, "chooser", chooser_);
    v("inclusion", view<double>(p_));
    run_.visit(v);
  }
  index_t held() const { return run_.held(); }
  void hold(std::span<const input> xs) { run_.hold(xs); }
  const M& system() const { return model_; }
  const replay_counts& counts() const { return run_.counts(); }
  /// The inclusion probabilities of the sequence that was finished last.
  view<const double> inclusion() const& { return view<const double>(p_).part(0, run_.bank().written()); }
  void inclusion() && = delete;

 private:
  static proportional_replay_options checked(proportional_replay_options o, const M& model) {
    check_at_least("proportional_replay", "segments", o.segments, 1);
    check_at_least("proportional_replay", "budget", o.budget, 1);
    check_independent("proportional_replay", model);
    return o;
  }
  report with_own_bytes(report r) const {
    r.bytes += norm_.bytes() + p_.bytes() + sampler_.bytes() + taken_.bytes();
    return r;
  }

  // Writes p and taken of the n memories. Where a norm is not finite, all of them are taken.
  void draw_sample(adjoint_sums<M>& sums, index_t n) {
    const view<double> norm = view<double>(norm_).part(0, n), p = view<double>(p_).part(0, n);
    sums.norms(norm);
    if (std::all_of(norm.begin(), norm.end(), [](double x) { return std::isfinite(x); }))
      inclusion_probabilities(norm, budget_, p);
    else
      std::fill(p.begin(), p.end(), 1.0);
    sampler_.draw(chooser_, 0, p, view<char>(taken_).part(0, n));
  }

  M model_;
  sequence_guard<M> guard_;
  index_t budget_;
  C chooser_;
  index_t batch_;
  segment_run<M> run_;
  block<double> norm_, p_;
  proportional_sampler sampler_;
  block<char> taken_;
};

}  // namespace unroll
