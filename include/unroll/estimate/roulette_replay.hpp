#pragma once

#include <string>
#include <utility>

#include "unroll/estimate/parts/adjoint_sums.hpp"
#include "unroll/estimate/parts/segment_learner.hpp"
#include "unroll/rng/chooser.hpp"

namespace unroll {

/// What the probability of a replay follows.
enum class replay_inclusion {
  by_norm,      ///< the adjoint that a segment has when its turn comes; waits for it
  by_distance,  ///< 1 / (s + 1) + .. + 1 / n: what segment s receives of losses that attend evenly
  constant      ///< nothing: the same for all segments
};

struct roulette_replay_options {
  index_t segments = 64;  ///< most segments of a sequence
  index_t budget = 8;     ///< segments that are written once more and sent back: the most on average
  replay_inclusion inclusion = replay_inclusion::by_norm;  ///< unbiased whichever; the variance differs
  double even = 0.25;  ///< share of the budget that all segments have alike, in (0, 1]
  index_t batch = 1;  ///< segments that are written and read together, and replayed where they are neighbours
  double attention_pairs = 0;  ///< of a query and a head, kept on average in the vjps of reads; 0: all
};

/// Rematerialisation in which every segment is kept by a coin of its own when its turn comes, and weighted:
///
///   for s = n-1, ..., 0:   A_s = sum_{t>s} dJ_t/dm_s + sum_{u>s, kept} 1 / p_u  A_u dm_u/dm_s
///   with probability p_s:  g += 1 / p_s  A_s dm_s/dtheta,   earlier A += 1 / p_s  A_s dm_s/dm_u
///
/// Going backwards in s, A_s is complete when s is drawn, also where writes read earlier memories: the
/// roulette of a particle's path, with a memory for each place where it may end. Where they do not, it is
/// proportional_replay with independent draws.
///
/// p_s may depend on all later draws. Of the budget B, the share e = `even` is dealt evenly and the rest in
/// proportion to sizes a_u (replay_inclusion), in reverse order, so that what is not known yet is not needed:
///
///   p_s = min(1, e B / n + b_s a_s / sum_{u<=s} a_u),   b_s = (1-e) B - sum_{u>s} (p_u - e B / n).
///
/// By norm, a_u is the norm of A_u as it is at that moment. Sum_s p_s <= B, with equality unless the last
/// ones are certain; p_s >= e B / n, so that no adjoint is lost, but 0 where A_s is; p = 1 where B covers all
/// segments, and where the norms up to s are not finite, so that no overflow is hidden.
///
/// Assumes that theta is the same until finish() and that writing again gives the same bits. A loss that is
/// not finite leaves no trace, at the price of rematerialise. With `attention_pairs` the vjps of reads leave
/// out pairs of attention (kernels::attention_cut), of models that have any and executors that can: dJ_t/dm_s
/// is then random, too, with the right mean.
///
/// Unbiased: E[1{kept} / p_s | later draws] = 1, and all that A_s still gives is linear in A_s. Variance: a
/// path through k memories has the weight 1 / (p_1 .. p_k), whose second moment is about that too; where
/// memories pass adjoints on undiminished it grows like 1 / p^k, and B should be a large part of n. A fixed
/// number of replays, drawn without replacement, would be biased there.
///
/// Memory: 2 (segments - 1) memories and `batch` graphs, which lie in the workspace of reads where the model
/// says what writes need of it. Over T segments: T - 1 writes, sum_s p_s <= min(budget, T - 1) rewrites and
/// write vjps on average, T reads and read vjps (T - 1 where losses have no parameters of their own).
///
/// Kahn & Harris 1951, Tallec & Ollivier 2017, SeCO; docs/math/roulette_replay.md.
template <class M, class C = philox_chooser>
class roulette_replay final : public segment_learner<M> {
  static_assert(require_memory_model<M>() && unroll::chooser<C>);
  using learner = segment_learner<M>;

 public:
  using typename learner::input;
  using typename learner::scalar;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"kahn1951transmission", "tallec2017artbp", "horvitz1952sampling",
                                         "li2025seco", "pankov2025sus"};

  explicit roulette_replay(  // options: segments, budget, inclusion, even, batch, attention_pairs
      M model, roulette_replay_options options = {}, C chooser = C{})
      : learner("roulette_replay", std::move(model),
                [&](const M& m) {
                  const index_t batch =
                      batch_of("roulette_replay", m, checked(options).segments, options.batch);
                  return memory_bank_sizes{.segments = options.segments,
                                           .adjoints = options.segments - 1,
                                           .graphs = batch,
                                           .batch = batch,
                                           .graphs_end_with_reads = true};
                }),
        options_(options),
        chooser_(std::move(chooser)),
        size_(options.segments - 1),
        p_(options.segments - 1),
        kept_(options.segments - 1) {}

  void reset(key k, state<const scalar> s0 = {}) {
    learner::start_sequence(s0);
    chooser_.reset(k);
    cut_attention(fold(k, 1));
  }
  void mirror(bool on) { chooser_.mirror(on); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return with_own_bytes(learner::advance_by(theta, xs, g, [&](report& r) {
      return adjoint_sums(this->run(), this->system(), theta).take_all(xs, false, g, r);
    }));
  }

  /// Draws the segments and sends them back. Where the model throws, only reset() can follow.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    return with_own_bytes(learner::finish_by(theta, g, [&] {
      adjoint_sums sums(this->run(), this->system(), theta);
      const index_t n = this->run().bank().written();
      const view<double> p = view<double>(p_).part(0, n);
      const view<char> kept = view<char>(kept_).part(0, n);
      // of a batch, whose writes do not read each other, all are drawn before any is sent back
      for (index_t end = n, first = 0; end > 0; end = first) {
        first = sums.batch_start(end - 1);
        for (index_t s = end - 1; s >= first; --s) {
          if (s == n - 1 || !this->system().independent()) measure_sizes(sums, s + 1, n);
          p[s] = probability(s, n);
          kept[s] = char(chooser_.coin(s, p[s]));
        }
        sums.send_back_sample(first, end, kept, p, g);
      }
    }));
  }

  C& chooser() { return chooser_; }
  template <class V>
  void visit(V&& v) {
    learner::visit_guard(v, "budget " + std::to_string(options_.budget) + ", inclusion " +
                                std::to_string(int(options_.inclusion)) + ", even " +
                                number_text(options_.even) + ", attention_pairs " +
                                number_text(options_.attention_pairs) + ", batch " +
                                std::to_string(this->run().bank().batch()));
    visit_part(v, "chooser", chooser_);
    v("inclusion", view<double>(p_));
    auto seed = static_cast<std::int64_t>(attention_draws_.seed);
    v("attention_draws", view<std::int64_t>(&seed, 1));
    cut_attention(key{static_cast<std::uint64_t>(seed)});
    this->run().visit(v);
  }
  /// The probabilities of the sequence that was finished last, each as it was drawn with.
  view<const double> inclusion() const& {
    return view<const double>(p_).part(0, this->run().bank().written());
  }
  void inclusion() && = delete;

 private:
  static roulette_replay_options checked(roulette_replay_options o) {
    check_at_least("roulette_replay", "segments", o.segments, 1);
    check_at_least("roulette_replay", "budget", o.budget, 1);
    if (!(o.even > 0 && o.even <= 1))
      fail("roulette_replay", "even",
           "is " + std::to_string(o.even) +
               ", must be in (0, 1]: a segment that is never kept loses its adjoint");
    if (!(o.attention_pairs >= 0))
      fail("roulette_replay", "attention_pairs",
           "are " + std::to_string(o.attention_pairs) + ", must be at least 0");
    return o;
  }
  void cut_attention(key draws) {
    attention_draws_ = draws;
    this->run().cut_attention({.pairs = options_.attention_pairs, .draws = draws});
  }
  report with_own_bytes(report r) const {
    r.bytes += size_.bytes() + p_.bytes() + kept_.bytes();
    return r;
  }

  // WRITES the sizes a_0 .. a_{count-1}, of n memories in all.
  void measure_sizes(adjoint_sums<M>& sums, index_t count, index_t n) {
    const view<double> a = view<double>(size_).part(0, count);
    if (options_.inclusion == replay_inclusion::by_norm) {
      sums.norms(a);
    } else if (count == n) {  // the others depend on n alone
      double harmonic = 0;
      for (index_t s = n - 1; s >= 0; --s) {
        harmonic += 1 / double(s + 1);
        a[s] = options_.inclusion == replay_inclusion::constant ? 1 : harmonic;
      }
    }
  }
  // p_s, those of later segments being known.
  double probability(index_t s, index_t n) const {
    if (options_.budget >= n) return 1;
    const double B = double(options_.budget), floor = options_.even * B / double(n);
    double left = B - options_.even * B, sum = 0;
    for (index_t u = s + 1; u < n; ++u) left -= p_[u] - floor;
    for (index_t u = 0; u <= s; ++u) sum += size_[u];
    if (!std::isfinite(sum)) return 1;
    if (size_[s] == 0) return 0;
    return std::min(1., floor + std::max(0., left) * size_[s] / sum);
  }

  roulette_replay_options options_;
  C chooser_;
  key attention_draws_;
  block<double> size_, p_;
  block<char> kept_;
};

}  // namespace unroll
