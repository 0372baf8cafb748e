#pragma once

#include "unroll/estimate/parts/adjoint_sums.hpp"
#include "unroll/estimate/parts/segment_learner.hpp"
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
class proportional_replay final : public segment_learner<M> {
  static_assert(require_memory_model<M>() && unroll::chooser<C>);
  using learner = segment_learner<M>;

 public:
  using typename learner::input;
  using typename learner::scalar;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"li2024uio", "horvitz1952sampling", "madow1949systematic",
                                         "li2025seco"};

  explicit proportional_replay(  // options: segments, budget, design, batch
      M model, proportional_replay_options options = {}, C chooser = C{})
      : learner("proportional_replay", std::move(model),
                [&](const M& m) {
                  check(options, m);
                  const index_t batch = batch_of("proportional_replay", m, options.segments, options.batch);
                  return memory_bank_sizes{.segments = options.segments,
                                           .adjoints = options.segments - 1,
                                           .graphs = batch,
                                           .batch = batch};
                }),
        budget_(options.budget),
        chooser_(std::move(chooser)),
        norm_(options.segments - 1),
        p_(options.segments - 1),
        sampler_(options.segments - 1, options.design),
        taken_(options.segments - 1) {}

  void reset(key k, state<const scalar> s0 = {}) {
    learner::start_sequence(s0);
    chooser_.reset(k);
  }
  void mirror(bool on) { chooser_.mirror(on); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return with_own_bytes(learner::advance_by(theta, xs, g, [&](report& r) {
      return adjoint_sums(this->run(), this->system(), theta).take_all(xs, false, g, r);
    }));
  }

  /// Draws the sample and sends it back. Where the model throws, only reset() can follow.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    return with_own_bytes(learner::finish_by(theta, g, [&] {
      adjoint_sums sums(this->run(), this->system(), theta);
      const index_t n = this->run().bank().written();
      draw_sample(sums, n);
      sums.send_back_sample(0, n, view<const char>(taken_), view<const double>(p_), g);
    }));
  }

  C& chooser() { return chooser_; }
  template <class V>
  void visit(V&& v) {
    learner::visit_guard(v, "budget " + std::to_string(budget_) + ", design " +
                                std::to_string(int(sampler_.design())) + ", batch " +
                                std::to_string(this->run().bank().batch()));
    visit_part(v, "chooser", chooser_);
    v("inclusion", view<double>(p_));
    this->run().visit(v);
  }
  /// The inclusion probabilities of the sequence that was finished last.
  view<const double> inclusion() const& {
    return view<const double>(p_).part(0, this->run().bank().written());
  }
  void inclusion() && = delete;

 private:
  static void check(const proportional_replay_options& o, const M& model) {
    check_at_least("proportional_replay", "segments", o.segments, 1);
    check_at_least("proportional_replay", "budget", o.budget, 1);
    check_independent("proportional_replay", model);
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

  index_t budget_;
  C chooser_;
  block<double> norm_, p_;
  proportional_sampler sampler_;
  block<char> taken_;
};

}  // namespace unroll
