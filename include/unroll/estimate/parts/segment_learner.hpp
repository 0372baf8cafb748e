#pragma once

#include <string>
#include <utility>

#include "unroll/estimate/parts/segment_run.hpp"

namespace unroll {

/// An estimator over memory models, all but its name, its options and which memories its losses reach: the
/// model, the checks of its calls, and the run of segments that every call goes through. Those of
/// system/memory_model.hpp derive from it, as rematerialise does.
template <class M>
class segment_learner {
 public:
  using system_type = M;                                                  ///< the model
  using scalar = typename M::scalar;                                      ///< of its parameters
  using input = typename M::input;                                        ///< a segment
  static constexpr estimand estimated_gradient = estimand::frozen_theta;  ///< see gradient_estimator

  index_t held() const { return run_.held(); }                   ///< segments since reset()
  void hold(std::span<const input> xs) { run_.hold(xs); }        ///< gives them back after a resume
  const M& system() const { return model_; }                     ///< the model
  const replay_counts& counts() const { return run_.counts(); }  ///< what the sequence has cost so far

 protected:
  using run_type = segment_run<M>;  ///< the segments and their bank

  /// name: of the estimator, a literal. sizes(model): those of the bank, once the options were checked.
  template <class Sizes>
  segment_learner(const char* name, M model, Sizes&& sizes)
      : model_(std::move(model)), guard_(name, model_), run_(model_, sizes(std::as_const(model_))) {}

  /// A new sequence. A memory model has no s0.
  void start_sequence(state<const scalar> s0) {
    guard_.reset(s0);
    run_.reset();
  }
  /// An advance(): take(r) takes xs, enters them in r and says whether all of them were finite.
  template <class Take>
  report advance_by(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g, Take&& take) {
    guard_.check_advance(theta, g);
    const exec::range named(run_.bank().executor(), guard_.estimator());
    report r = run_.start(guard_.estimator(), theta, xs);
    if (r.code != status::ok) return run_.end(r);
    return take(r) ? run_.end(r) : run_.stop(r);
  }
  /// A finish(): send_back() sends back what is in flight.
  template <class Send>
  report finish_by(params<const scalar> theta, dparams<scalar> g, Send&& send_back) {
    guard_.check_finish(theta, g);
    const exec::range named(run_.bank().executor(), guard_.estimator());
    const report r = run_.start(theta);
    if (r.code != status::ok) return run_.end(r);
    send_back();
    return guard_.close(run_.end(r));
  }
  /// From now on no call waits for the executor: all is taken for finite, and reports have no losses; look()
  /// tells. Behind what was not finite only reset() can follow, and g is of no use. Allocates.
  void put_off_looks() { run_.put_off_looks(); }
  /// What the calls since reset() or the last look have left to be seen: the sum of their losses, and the
  /// first segment at fault. Waits.
  report look() { return run_.look(); }
  /// Shows its name, `options`, those that the numbers depend on, "keep 2", and the model.
  template <class V>
  void visit_guard(V&& v, const std::string& options) {
    guard_.visit(v, options, model_);
  }
  run_type& run() { return run_; }              ///< the segments and their bank
  const run_type& run() const { return run_; }  ///< the segments and their bank

 private:
  M model_;
  sequence_guard<M> guard_;
  run_type run_;
};

}  // namespace unroll
