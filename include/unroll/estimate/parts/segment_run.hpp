#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/input_list.hpp"
#include "unroll/estimate/parts/sequence_guard.hpp"
#include "unroll/kernels/attention_shape.hpp"
#include "unroll/memory/bank.hpp"

namespace unroll {

/// A sequence of segments, as the estimators over memory models go through it: its inputs, its bank, its
/// losses, and a copy of the gradient from before a loss that may turn out not to be finite. A call of an
/// estimator is start() .. end(); where a segment is not finite it ends with stop(). With looks put off, no
/// call waits for the executor: each takes every number for finite, and look() tells afterwards.
template <class M>
class segment_run {
 public:
  using T = typename M::scalar;
  using input = typename M::input;
  using adjoint_type = typename memory_bank<M>::adjoint_type;
  using loss_type = typename memory_bank<M>::loss_type;

  /// sizes: of the bank.
  segment_run(const M& model, const memory_bank_sizes& sizes)
      : most_(checked(sizes.segments)),
        segments_(most_),
        bank_(model, sizes),
        losses_(bank_.executor().template allocate<loss_type>(most_)),
        seen_(most_),
        before_(bank_.executor().template allocate<T>(reads_params(model) ? model.size().params : 0)) {}

  void reset() {
    segments_.clear();
    bank_.clear();
    unseen_ = 0;
  }

  /// Looks are put off from now on. Allocates.
  void put_off_looks() { bank_.put_off(); }
  /// What the calls since reset() or the last look have left to be seen: the sum of their losses, and the
  /// first segment at fault where a loss, a memory or theta was not finite. Waits for the executor.
  report look() {
    report r;
    const index_t first = std::exchange(unseen_, size());
    if (const index_t n = size() - first; n > 0)
      bank_.executor().download(losses(first), n, seen_.data() + first);
    r.at = bank_.first_not_finite();
    for (index_t t = first; t < size(); ++t) {
      r.loss += double(seen_[t]);
      if (!std::isfinite(seen_[t]) && (r.at < 0 || t < r.at)) r.at = t;
    }
    if (r.at >= 0) r.code = status::non_finite;
    return r;
  }

  /// From now on the vjps of reads leave out of attention what `cut` allows.
  void cut_attention(const kernels::attention_cut& cut) { cut_ = cut; }

  index_t size() const { return segments_.size(); }  ///< the next segment is segment size()
  /// The inputs of n segments, from s on.
  std::span<const input> segments(index_t s, index_t n = 1) const { return segments_.part(s, n); }
  memory_bank<M>& bank() { return bank_; }
  const memory_bank<M>& bank() const { return bank_; }
  const replay_counts& counts() const { return bank_.counts(); }

  /// Begins an advance(). Throws where there is no room for xs. Not ok: theta is not finite.
  report start(std::string_view estimator, params<const T> theta, std::span<const input> xs) {
    segments_.check_held();
    const index_t segments = size() + index_t(xs.size());
    if (segments > most_)
      fail(std::string(estimator) + "::advance", "xs",
           "makes " + std::to_string(segments) + " segments, options.segments is " + std::to_string(most_));
    return start(theta);
  }
  /// Begins a finish(). Not ok: theta is not finite.
  report start(params<const T> theta) {
    segments_.check_held();
    counts_before_ = counts();
    report r;
    if (bank_.puts_off()) {
      bank_.ask(theta.data(), theta.size(), size());
      return r;
    }
    if (bank_.finite(theta.data(), theta.size())) return r;
    r.code = status::non_finite;
    r.at = size();
    return r;
  }
  /// Ends a call: enters what it has cost, and the memory held.
  report end(report r) const {
    r.steps += counts().steps() - counts_before_.steps();
    r.vjps += counts().vjps() - counts_before_.vjps();
    r.bytes = segments_.bytes() + bank_.bytes() + losses_.bytes() + seen_.bytes() + before_.bytes();
    return r;
  }
  /// Ends a call at the next segment, which is not finite.
  report stop(report r) const {
    r.code = status::non_finite;
    r.at = size();
    return end(r);
  }

  /// Writes the memory of the newest segment, with its graph in `slot` or without. False: it is not finite
  /// and does not count as written.
  bool write(const M& model, params<const T> theta, index_t slot) {
    const index_t s = size() - 1;
    bank_.write(model, segments(s), theta, slot);
    if (bank_.finite(s, 1)) return true;
    bank_.keep_first(s);
    return false;
  }
  /// Reads x as the next segment and enters its loss in r. ADDS the adjoints of the memories to dpast, size()
  /// addresses, and the derivative by theta itself to g. False: the loss is not finite. Then, and where the
  /// model throws, x does not belong to the sequence, g is as before, and what dpast received is of no use.
  bool read(const M& model, params<const T> theta, const input& x, std::span<adjoint_type*> dpast,
            dparams<T> g, report& r) {
    const index_t t = size();
    remember(g);
    try {
      read(model, theta, t, {&x, 1}, dpast, g);
      if (losses_finite(t, 1)) {
        segments_.push(x);
        enter(model, t, r);
        return true;
      }
    } catch (...) {
      restore(g);
      throw;
    }
    restore(g);
    return false;
  }

  // What these two are made of, for estimators that read many segments before they look at a loss.

  /// The next segments are xs.
  void push(std::span<const input> xs) {
    for (const auto& x : xs) segments_.push(x);
  }
  /// The sequence ends in front of its newest n segments.
  void drop_last(index_t n) { segments_.drop_last(n); }
  /// Reads xs, the segments from t on; dpast has t + xs.size() - 1 addresses.
  void read(const M& model, params<const T> theta, index_t t, std::span<const input> xs,
            std::span<adjoint_type*> dpast, dparams<T> g) {
    if (t == 0 && !direct()) return bank_.read(model, xs, t, theta, losses(t));
    bank_.read_vjp(model, xs, t, theta, losses(t),
                   {.dpast = dpast, .dtheta = direct() ? g : dparams<T>{}, .cut = cut_});
  }
  /// Where the losses from segment t on are written, at the executor's place.
  loss_type* losses(index_t t) { return losses_.data() + t; }
  /// n of them, on the host. Waits for the executor.
  view<const loss_type> look_at_losses(index_t t, index_t n) {
    bank_.executor().download(losses(t), n, seen_.data() + t);
    bank_.executor().synchronise();
    return {seen_.data() + t, n};
  }
  /// Whether n losses from segment t on are finite. Looks at them, unless looks are put off.
  bool losses_finite(index_t t, index_t n) {
    if (bank_.puts_off()) return true;
    const view<const loss_type> seen = look_at_losses(t, n);
    return std::all_of(seen.begin(), seen.end(), [](loss_type loss) { return std::isfinite(loss); });
  }
  /// Enters the losses from segment t on, which have been looked at or will be.
  void enter(const M& model, index_t t, report& r) const {
    for (; t < size(); ++t) {
      if (!bank_.puts_off()) r.loss += double(seen_[t]);
      r.losses += scored_losses(model, segments(t).front());
      ++r.consumed;
    }
  }
  /// Remembers g in front of a read, which adds what a loss owes to theta before the loss is known to be
  /// finite.
  void remember(dparams<T> g) { copy(g.data(), before_.data()); }
  /// WRITES g as it was remembered.
  void restore(dparams<T> g) { copy(before_.data(), g.data()); }

  template <class V>
  void visit(V&& v) {
    segments_.visit(v, most_);
    bank_.visit(v, held());
  }
  index_t held() const { return size(); }
  void hold(std::span<const input> xs) { segments_.hold(xs); }

 private:
  static index_t checked(index_t segments) {
    check_at_least("segment_run", "segments", segments, 1);
    return segments;
  }
  // Whether losses owe something to theta other than through memories.
  bool direct() const { return before_.size() > 0; }
  void copy(const T* from, T* to) {
    const index_t n = before_.size();
    bank_.executor().copy(matrix<const T>(from, n, 1), matrix<T>(to, n, 1));
  }

  index_t most_;
  input_list<input> segments_;
  memory_bank<M> bank_;
  typename memory_bank<M>::executor_type::template block<loss_type> losses_;
  block<loss_type> seen_;                                             // the losses, on the host
  typename memory_bank<M>::executor_type::template block<T> before_;  // g, remembered
  kernels::attention_cut cut_;
  replay_counts counts_before_;  // at the start of the call
  index_t unseen_ = 0;           // the first segment that look() has not seen
};

/// Throws where writes read earlier memories.
template <class M>
void check_independent(std::string_view function, const M& model) {
  if (!model.independent())
    fail(function, "model",
         "writes memories that depend on earlier ones; take rematerialise or incremental_tbptt");
}

/// The batch that `segments` segments, one of which is written by nobody, can make use of. Throws
/// unroll::error where there is none, and where writes read earlier memories and can only be made one by one.
template <class M>
index_t batch_of(std::string_view function, const M& model, index_t segments, index_t batch) {
  check_at_least(function, "batch", batch, 1);
  if (batch > 1 && !model.independent())
    fail(function, "batch",
         "is " + std::to_string(batch) + ", the model's writes read earlier memories: their batch is 1");
  return std::min(batch, std::max<index_t>(1, segments - 1));
}
/// n graphs, rounded up to whole batches.
inline index_t whole_batches(index_t n, index_t batch) { return (n + batch - 1) / batch * batch; }

}  // namespace unroll
