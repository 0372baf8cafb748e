#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "unroll/core/report.hpp"
#include "unroll/system/edge.hpp"
#include "unroll/system/memory_model.hpp"

namespace unroll {

/// For a message.
inline std::string size_text(const dims& d) {
  return std::to_string(d.params) + " parameters, " + std::to_string(d.state) + " of state, " +
         std::to_string(d.tape) + " of tape, " + std::to_string(d.lanes) + " lanes";
}
/// The same of a memory model.
inline std::string size_text(const memory_dims& d) {
  return std::to_string(d.params) + " parameters, " + std::to_string(d.memory) + " of memory, " +
         std::to_string(d.tape) + " of tape";
}

namespace detail {

template <class F>
constexpr bool is_memory_model = std::is_same_v<decltype(std::declval<const F&>().size()), memory_dims>;

}  // namespace detail

/// The first lines of an estimator's visit(): its name with the options that its numbers depend on, the sizes
/// of its system and the kinds of its numbers; of a memory model also whether its writes are independent, and
/// what its identity() says. They must be the same where it is read back.
template <class V, class F>
void visit_identity(V&& v, const std::string& estimator, const F& f) {
  const std::string sizes = size_text(f.size());
  v("estimator", std::string_view(estimator));
  v("system", std::string_view(sizes));
  v("numbers", number_kind<typename F::scalar>());
  if constexpr (detail::is_memory_model<F>) {
    using N = numbers_of<F>;
    const std::string kinds = std::to_string(sizeof(typename N::memory)) + " bytes a memory, " +
                              std::to_string(sizeof(typename N::activation)) + " an activation, " +
                              std::to_string(sizeof(typename N::weight)) + " a weight";
    v("kinds", std::string_view(kinds));
    std::string text = f.independent() ? "independent" : "recurrent";
    if constexpr (requires { f.identity(); }) text += ", " + std::string(f.identity());
    v("model", std::string_view(text));
  }
}

/// What every estimator asks of the calls of a sequence, and what it saves of them:
///
///   reset(key, s0)         guard.reset(s0)                 s0 has the size of a state
///   advance(theta, xs, g)  guard.check_advance(theta, g)   so many parameters; not behind finish()
///   finish(theta, g)       guard.check_finish(theta, g)    the same; at its end  return guard.close(r);
///   visit(v)               guard.visit(v, options, f)      visit_identity(), and whether it is finished
///
/// A call that is refused throws unroll::error, with the name of the estimator and of the call.
template <class F>
class sequence_guard {
 public:
  using T = typename F::scalar;

  /// estimator: its name, a literal.
  sequence_guard(std::string_view estimator, const F& f) : estimator_(estimator), params_(f.size().params) {
    if constexpr (has_state) state_ = f.size().state;
  }
  std::string_view estimator() const { return estimator_; }  ///< its name

  /// A new sequence. s0: its first state, or empty; a memory model has none.
  void reset(state<const T> s0) {
    if (!s0.empty() && !has_state)
      fail(named("reset"), "s0", "is given, but a memory model begins without memories");
    if (!s0.empty() && s0.size() != state_) check_size(named("reset"), "s0", s0.size(), state_);
    finished_ = false;
  }
  /// theta, g: as many numbers as the system has parameters.
  void check_advance(params<const T> theta, dparams<T> g) const { check("advance", theta, g); }
  /// The same.
  void check_finish(params<const T> theta, dparams<T> g) const { check("finish", theta, g); }
  /// The sequence is finished; returns r.
  report close(report r) {
    finished_ = true;
    return r;
  }
  bool finished() const { return finished_; }  ///< since close(), until reset()

  /// options: those that the numbers depend on, "block 128"; may be empty.
  template <class V>
  void visit(V&& v, const std::string& options, const F& f) {
    std::string text(estimator_);
    if (!options.empty()) text.append(", ").append(options);
    visit_identity(v, text, f);
    visit_flag(v, "finished", finished_);
  }

 private:
  static constexpr bool has_state = !detail::is_memory_model<F>;

  std::string named(std::string_view call) const { return std::string(estimator_).append("::").append(call); }
  void check(std::string_view call, params<const T> theta, dparams<T> g) const {
    if (finished_ || theta.size() != params_ || g.size() != params_) refuse(call, theta.size(), g.size());
  }
  [[noreturn]] void refuse(std::string_view call, index_t theta, index_t g) const {
    const std::string function = named(call);
    if (finished_) fail(function, "call", "comes after finish(), must come after reset()");
    check_size(function, "theta", theta, params_);
    fail(function, "g", "has size " + std::to_string(g) + ", expected " + std::to_string(params_));
  }

  std::string_view estimator_;
  index_t params_, state_ = 0;
  bool finished_ = false;
};

}  // namespace unroll
