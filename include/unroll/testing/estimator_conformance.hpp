#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "unroll/estimate/concept.hpp"
#include "unroll/testing/allocations.hpp"
#include "unroll/testing/oracle.hpp"
#include "unroll/testing/stream_conformance.hpp"
#include "unroll/testing/system_conformance.hpp"

namespace unroll::testing {

struct estimator_conformance_options {
  key randomness{7};                      ///< key of the runs
  std::vector<index_t> chunks{1, 7, 40};  ///< besides all inputs at once
  bool allocations = true;                ///< needs unroll/testing/count_allocations.hpp in the program
};

namespace detail {

template <class E>
class estimator_checks {
 public:
  using T = typename E::scalar;
  using X = typename E::input;
  using vec = std::vector<T>;

  estimator_checks(const E& made, params<const T> theta, std::span<const X> xs, const X* bad,
                   const estimator_conformance_options& o)
      : made_(made), theta_(theta.begin(), theta.end()), xs_(xs), bad_(bad), o_(o) {}

  std::vector<std::string> run() {
    E estimator(made_);
    whole_ = pass(estimator, index_t(xs_.size()));
    expect(whole_.total.code == status::ok && finite(whole_.g),
           "advance: is not finite on the given sequence, nothing can be checked");
    if (!failures_.empty()) return failures_;
    check_report();
    check_chunks();
    check_replay();
    check_adds();
    check_sizes();
    check_non_finite_theta();
    if (bad_) check_non_finite_input();
    if (o_.allocations) check_allocations();
    for (auto& failure : stream_checks<E>(made_, theta_, xs_, bad_, o_.randomness).run())
      failures_.push_back(std::move(failure));
    return failures_;
  }

 private:
  struct outcome {
    vec g;
    report total;
  };

  void expect(bool good, const std::string& what) {
    if (!good) failures_.push_back(what);
  }

  report advance(E& e, vec& g, std::span<const X> xs) const {
    return e.advance(params<const T>(theta_), xs, dparams<T>(g));
  }
  report finish(E& e, vec& g) const { return e.finish(params<const T>(theta_), dparams<T>(g)); }

  outcome pass(E& e, index_t chunk, vec base = {}, state<const T> s0 = {}) {
    outcome r{std::move(base), {}};
    r.g.resize(theta_.size());
    e.reset(o_.randomness, s0);
    for (std::size_t i = 0; i < xs_.size(); i += std::size_t(chunk)) {
      const auto xs = xs_.subspan(i, std::min(std::size_t(chunk), xs_.size() - i));
      const report one = advance(e, r.g, xs);
      expect(one.consumed == std::int64_t(xs.size()), "advance: consumed is not the number of inputs");
      expect(one.bytes > 0, "advance: bytes is 0");
      r.total += one;
    }
    r.total += finish(e, r.g);
    return r;
  }

  void check_report() {
    const report& r = whole_.total;
    std::int64_t losses = 0;
    for (const X& x : xs_) losses += scored_losses(made_.system(), x);
    expect(r.losses == losses, "report: losses is " + std::to_string(r.losses) + ", the system has " +
                                   std::to_string(losses) + " in " + std::to_string(xs_.size()) + " steps");
    expect(r.steps >= std::int64_t(xs_.size()), "report: fewer steps than inputs");
    expect(r.at == -1, "report: at is not -1 though every step was finite");
    if (E::estimated_gradient == estimand::frozen_theta) {
      const double loss = sequence_loss(made_.system(), theta_, xs_);
      expect(std::abs(r.loss - loss) <=
                 std::sqrt(double(std::numeric_limits<T>::epsilon())) * (1 + std::abs(loss)),
             "report: loss is " + std::to_string(r.loss) + ", the system gives " + std::to_string(loss));
    }
    expect(made_.system().size().params == index_t(theta_.size()), "system: has other sizes");
  }

  void check_chunks() {
    E estimator(made_);
    for (const index_t chunk : o_.chunks) {
      const outcome r = pass(estimator, chunk);
      const std::string with = " with chunks of " + std::to_string(chunk);
      expect(same_bits(r.g, whole_.g), "advance: other bits" + with);
      expect(r.total.losses == whole_.total.losses && r.total.consumed == whole_.total.consumed,
             "advance: other losses or consumed" + with);
      expect(r.total.steps == whole_.total.steps && r.total.vjps == whole_.total.vjps &&
                 r.total.jvps == whole_.total.jvps,
             "advance: other work" + with);
    }
    vec g(theta_.size());
    estimator.reset(o_.randomness);
    expect(advance(estimator, g, {}).consumed == 0, "advance: consumes something of nothing");
    advance(estimator, g, xs_.first(xs_.size() / 2));
    advance(estimator, g, {});
    advance(estimator, g, xs_.subspan(xs_.size() / 2));
    finish(estimator, g);
    expect(same_bits(g, whole_.g), "advance: a call without inputs changes the result");
  }

  void check_replay() {
    E estimator(made_);
    const auto all = index_t(xs_.size());
    pass(estimator, all);
    expect(same_bits(pass(estimator, all).g, whole_.g), "reset: the second pass gives other bits");
    vec g(theta_.size());
    estimator.reset(fold(o_.randomness, 1));
    advance(estimator, g, xs_.first(xs_.size() / 2));
    expect(same_bits(pass(estimator, all).g, whole_.g), "reset: a pass broken off leaves a trace");

    if constexpr (recurrent<typename E::system_type>) {
      vec s0(std::size_t(made_.system().size().state));
      start_state(made_.system(), state<T>(s0));
      expect(same_bits(pass(estimator, all, {}, state<const T>(s0)).g, whole_.g),
             "reset: the system's own start given as s0 gives other bits");
    }

    E original(made_);
    vec first(theta_.size());
    original.reset(o_.randomness);
    advance(original, first, xs_.first(xs_.size() / 2));
    E copy(original);
    vec second(first);
    for (E* e : {&original, &copy}) {
      vec& sum = e == &original ? first : second;
      advance(*e, sum, xs_.subspan(xs_.size() / 2));
      finish(*e, sum);
    }
    expect(same_bits(first, whole_.g) && same_bits(second, whole_.g),
           "copy: the copy of a running estimator and the original do not both go on as before");
  }

  void check_adds() {
    const T scale = T(1 + largest(whole_.g));
    vec base(theta_.size());
    for (std::size_t i = 0; i < base.size(); ++i) base[i] = scale * (i % 2 == 0 ? T(1) : T(-0.5));
    E estimator(made_);
    const vec sum = pass(estimator, 7, base).g;
    double worst = 0;
    for (std::size_t i = 0; i < base.size(); ++i)
      worst = std::max(worst, std::abs(double(sum[i]) - double(base[i]) - double(whole_.g[i])));
    expect(worst <= std::sqrt(double(std::numeric_limits<T>::epsilon())) * double(scale),
           "advance: does not add to g");
  }

  template <class Call>
  void throws(Call&& call, const std::string& what) {
    try {
      call();
    } catch (const error&) {
      return;
    }
    failures_.push_back(what);
  }

  void check_sizes() {
    E estimator(made_);
    estimator.reset(o_.randomness);
    vec g(theta_.size()), long_g(theta_.size() + 1), long_theta(theta_.size() + 1);
    const auto call = [&](const vec& theta, vec& to) {
      return [&] { estimator.advance(params<const T>(theta), xs_, dparams<T>(to)); };
    };
    throws(call(long_theta, g), "advance: takes a theta of the wrong size");
    throws(call(theta_, long_g), "advance: takes a g of the wrong size");
    throws([&] { estimator.finish(params<const T>(long_theta), dparams<T>(g)); },
           "finish: takes a theta of the wrong size");
    throws([&] { estimator.finish(params<const T>(theta_), dparams<T>(long_g)); },
           "finish: takes a g of the wrong size");
    std::size_t state_size = 0;  // a memory model has no start to give
    if constexpr (recurrent<typename E::system_type>) state_size = std::size_t(made_.system().size().state);
    const vec s0(state_size + 1);
    throws([&] { estimator.reset(o_.randomness, state<const T>(s0)); },
           "reset: takes a state of the wrong size");
  }

  void check_non_finite_theta() {
    const std::size_t before = std::min(xs_.size(), std::size_t(3));
    for (const T poison : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
      E estimator(made_);
      vec g(theta_.size()), wrong(theta_);
      wrong.back() = poison;
      estimator.reset(o_.randomness);
      advance(estimator, g, xs_.first(before));
      const vec held(g);
      const report r = estimator.advance(params<const T>(wrong), xs_.subspan(before), dparams<T>(g));
      if (before < xs_.size()) {
        expect(r.code == status::non_finite, "advance: a theta that is not finite is not reported");
        expect(r.consumed == 0, "advance: consumes inputs with a theta that is not finite");
        expect(r.at == std::int64_t(before), "advance: at is " + std::to_string(r.at) +
                                                 " for a theta that is not finite from step " +
                                                 std::to_string(before) + " on");
      }
      expect(same_bits(g, held), "advance: a theta that is not finite changes g");
      advance(estimator, g, xs_.subspan(before));
      finish(estimator, g);
      expect(same_bits(g, whole_.g), "advance: a theta that was not finite leaves a trace");
    }
  }

  void check_non_finite_input() {
    const std::size_t k = xs_.size() / 2;
    std::vector<X> spoiled(xs_.begin(), xs_.end());
    spoiled[k] = *bad_;
    for (const std::size_t chunk : {xs_.size(), std::size_t(7), std::size_t(1)}) {
      E estimator(made_);
      vec g(theta_.size());
      estimator.reset(o_.randomness);
      std::size_t taken = 0;
      report r;
      while (taken < xs_.size() && r.code == status::ok) {
        const std::size_t count = std::min(chunk, xs_.size() - taken);
        r = advance(estimator, g, std::span<const X>(spoiled).subspan(taken, count));
        taken += std::size_t(r.consumed);
        if (r.consumed == 0) break;
      }
      const std::string with = " (chunks of " + std::to_string(chunk) + ")";
      expect(r.code == status::non_finite, "advance: an input that is not finite is not reported" + with);
      expect(r.at == std::int64_t(k), "advance: at is " + std::to_string(r.at) + " for a bad input at step " +
                                          std::to_string(k) + with);
      expect(taken <= k, "advance: consumes an input that is not finite" + with);
      expect(finite(g), "advance: an input that is not finite reaches g" + with);
      if (taken > k) continue;
      advance(estimator, g, xs_.subspan(taken));
      finish(estimator, g);
      expect(same_bits(g, whole_.g), "advance: an input that was not finite leaves a trace" + with);
    }
  }

  void check_allocations() {
    if (!allocations_are_counted()) {
      if (!counting_is_replaced())
        failures_.push_back("allocations are not counted: include unroll/testing/count_allocations.hpp once");
      return;
    }
    E estimator(made_);
    vec g(theta_.size());
    const auto count = [&](const char* call, auto&& body) {
      const allocation_counter counter;
      body();
      const std::int64_t made = counter.count();
      std::string text(call);
      text.append(": allocates ").append(std::to_string(made)).append(" times");
      expect(made == 0, text);
    };
    for (int round = 0; round < 2; ++round) {
      count("reset", [&] { estimator.reset(o_.randomness); });
      count("advance", [&] {
        advance(estimator, g, xs_.first(xs_.size() / 3));
        advance(estimator, g, xs_.subspan(xs_.size() / 3));
      });
      count("finish", [&] { finish(estimator, g); });
    }
  }

  const E& made_;
  vec theta_;
  std::span<const X> xs_;
  const X* bad_;
  const estimator_conformance_options& o_;
  outcome whole_;
  std::vector<std::string> failures_;
};

}  // namespace detail

/// The promises that every estimator makes: the cutting of the inputs into calls changes no bit and no work;
/// reset replays; advance adds to g; wrong sizes throw; a theta or input that is not finite is reported and
/// leaves no trace; the loss is the system's (for a frozen theta); nothing allocates after construction; a
/// stream that is cut anywhere, saved and resumed by another estimator goes on with the same bits, and is
/// refused where the estimator, the sizes of the system or the number kind differ; last_state() is the state
/// behind the last input.
/// `bad`, if given, is an input that the system refuses as not finite. Give some 50 inputs, so that windows
/// and chunks end at different places. Returns what is wrong, nothing for a conforming estimator.
template <gradient_estimator E>
std::vector<std::string> estimator_conformance(const E& estimator,
                                               std::type_identity_t<params<const typename E::scalar>> theta,
                                               std::type_identity_t<std::span<const typename E::input>> xs,
                                               std::type_identity_t<const typename E::input*> bad = nullptr,
                                               const estimator_conformance_options& options = {}) {
  return detail::estimator_checks<E>(estimator, theta, xs, bad, options).run();
}

}  // namespace unroll::testing
