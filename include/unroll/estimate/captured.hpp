#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "unroll/estimate/concept.hpp"
#include "unroll/exec/recording.hpp"
#include "unroll/memory/model_traits.hpp"

namespace unroll {

namespace detail {

struct no_recording {};  // of an executor that records nothing
template <class E>
struct recording_of {
  using type = no_recording;
};
template <class E>
requires requires { typename E::recording; }
struct recording_of<E> {
  using type = typename E::recording;
};

}  // namespace detail

/// An estimator over memory models whose calls are recorded by the executor (exec/recording.hpp): the
/// operations of the n-th advance() of a sequence, and those of finish(), are one list each, which a device
/// makes as one graph from the second time on. The estimator itself goes through every call, so that its
/// checks, counts and state are its own; its operations are compared with the list, and inputs, theta's
/// numbers and whatever else is new get into it. A sequence of the same lengths, with theta and g where they
/// were, leaves the list as it is.
///
/// Losses stay at the place: each advance() looks at all of its losses once, when everything of it was begun,
/// and names the first segment at fault, in front of any optimiser; finish() looks at nothing. Behind a call
/// that is not ok, or that threw, for then none of its operations happened, only reset() can follow: other
/// calls are refused, and g is of no use.
///
/// Of rematerialise and incremental_tbptt, whose operations are the same in every sequence of the same
/// lengths. Bits, bias and variance are theirs, and so is the memory, with the lists beside it: a few hundred
/// bytes an operation on the host, and the graphs of the device.
template <gradient_estimator E>
class captured final {
  static_assert(
      requires(E e) {
        e.put_off_looks();
        e.look();
      },
      "captured needs an estimator that can put off its looks at losses: rematerialise, incremental_tbptt");

 public:
  using system_type = typename E::system_type;
  using scalar = typename E::scalar;
  using input = typename E::input;
  static constexpr estimand estimated_gradient = E::estimated_gradient;
  static constexpr bool unbiased = E::unbiased;
  static constexpr bool random = E::random;
  static constexpr auto references = E::references;
  /// Of the model.
  using executor_type = decltype(executor_of(std::declval<const system_type&>()));
  /// Its lists of operations.
  using recording = typename detail::recording_of<executor_type>::type;

  /// Throws unroll::error where the model's executor records nothing.
  explicit captured(E estimator) : estimator_(std::move(estimator)) {
    if constexpr (exec::recordable<executor_type>)
      estimator_.put_off_looks();
    else
      fail("captured", "executor", "records no operations: cuda::stream and testing::simt do");
  }

  void reset(key k, state<const scalar> s0 = {}) {
    estimator_.reset(k, s0);
    calls_ = 0;
    whole_ = true;
  }
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    begin("advance");
    if (calls_ == advances_.size()) advances_.emplace_back();
    report r = together(advances_[calls_++], [&] { return estimator_.advance(theta, xs, g); });
    const report seen = estimator_.look();
    r.loss = seen.loss;
    if (r.code == status::ok) {
      r.code = seen.code;
      r.at = seen.at;
    }
    return end(r);
  }
  report finish(params<const scalar> theta, dparams<scalar> g) {
    begin("finish");
    return end(together(finish_, [&] { return estimator_.finish(theta, g); }));
  }

  const system_type& system() const { return estimator_.system(); }
  /// What is recorded.
  const E& estimator() const { return estimator_; }
  const auto& counts() const { return estimator_.counts(); }
  /// The lists: of the calls of advance() in a sequence, and of finish().
  const std::vector<recording>& advances() const { return advances_; }
  /// The same.
  const recording& finishes() const { return finish_; }

  template <class V>
  void visit(V&& v) {
    check_whole("visit");
    estimator_.visit(v);
  }
  index_t held() const { return estimator_.held(); }
  void hold(std::span<const input> xs) { estimator_.hold(xs); }

 private:
  void check_whole(std::string_view call) const {
    if (!whole_)
      fail(std::string("captured::").append(call), "call",
           "comes after one that threw or was not ok, must come after reset()");
  }
  // Until end() nothing says that what the estimator counts has happened.
  void begin(std::string_view call) {
    check_whole(call);
    whole_ = false;
  }
  report end(report r) {
    whole_ = r.code == status::ok;
    return r;
  }
  template <class F>
  report together(recording& list, F&& f) const {
    report r;
    if constexpr (exec::recordable<executor_type>)
      executor_of(estimator_.system()).together(list, [&] { r = f(); });
    return r;
  }

  E estimator_;
  std::vector<recording> advances_;
  recording finish_;
  std::size_t calls_ = 0;
  bool whole_ = true;  // all calls since reset() have happened, and were ok
};

}  // namespace unroll
