#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "unroll/estimate/concept.hpp"
#include "unroll/io/checkpoint.hpp"
#include "unroll/testing/system_conformance.hpp"

namespace unroll::testing {

namespace detail {

/// What estimator_conformance() asks of a stream that is cut: saved, resumed and looked at between two calls.
template <class E>
class stream_checks {
 public:
  using T = typename E::scalar;
  using X = typename E::input;
  using F = typename E::system_type;
  using vec = std::vector<T>;

  stream_checks(const E& made, const vec& theta, std::span<const X> xs, const X* bad, key randomness)
      : made_(made), theta_(theta), xs_(xs), bad_(bad), randomness_(randomness) {}

  std::vector<std::string> run() {
    if constexpr (recurrent<F> && !has_last_state<E>) failures_.push_back("last_state: is missing");
    if constexpr (has_last_state<E>) check_last_state();
    if constexpr (requires(E e, checkpoint c) { c.save("", e); }) {
      const std::size_t n = xs_.size();
      const report total = run_whole();
      bool used = false;
      for (const std::size_t cut : {std::size_t(0), n / 2, n - 1, n}) check_cut(cut, used = !used, total);
      if constexpr (requires(E e) { e.mirror(true); }) {
        mirrored_ = true;
        check_cut(n / 2, true, run_whole());
      }
    } else {
      failures_.push_back("visit: is missing");
    }
    return failures_;
  }

 private:
  void expect(bool good, const std::string& what) {
    if (!good) failures_.push_back(what);
  }
  report advance(E& e, vec& g, std::span<const X> xs) const {
    return e.advance(params<const T>(theta_), xs, dparams<T>(g));
  }
  report finish(E& e, vec& g) const { return e.finish(params<const T>(theta_), dparams<T>(g)); }
  template <class Call>
  static bool throws(Call&& call) {
    try {
      call();
    } catch (const error&) {
      return true;
    }
    return false;
  }

  E start() const {
    E e(made_);
    if constexpr (requires { e.mirror(true); }) e.mirror(mirrored_);
    e.reset(randomness_);
    return e;
  }
  report run_whole() {
    E whole = start();
    whole_.assign(theta_.size(), T(0));
    report total = advance(whole, whole_, xs_);
    total += finish(whole, whole_);
    return total;
  }

  // Saved after `cut` inputs and read into another estimator, one that has run something else or not.
  void check_cut(std::size_t cut, bool used, const report& total) {
    const std::string at = " (cut after " + std::to_string(cut) + " inputs)";
    E first = start(), second(made_);
    vec g(theta_.size()), other(theta_.size());
    report r = advance(first, g, xs_.first(cut));
    report refused;  // an input that leaves no trace here either, but for work that is done already
    if (bad_ && cut < xs_.size()) refused = advance(first, g, {bad_, 1});
    const bool worked = refused.steps + refused.vjps + refused.jvps > 0;
    checkpoint saved;
    saved.save("run", first);
    const std::string bytes = saved.to_bytes();
    if (used) {
      second.reset(fold(randomness_, 2));
      advance(second, other, xs_.subspan(cut / 2));
    }
    try {
      saved.load("run", second);
      checkpoint again;
      again.save("run", second);
      expect(again.to_bytes() == bytes, "visit: what was read back is saved as something else" + at);
      const index_t held = held_inputs(second);
      expect(held == held_inputs(first) && held <= index_t(cut), "held: is not what it was" + at);
      if (E early(second); held > 0)
        expect(throws([&] { advance(early, other, xs_.first(1)); }) || throws([&] { finish(early, other); }),
               "hold: is not missed after a resume" + at);
      hold_inputs(second, xs_.first(cut).last(std::size_t(held)));
      check_same_state(first, second, at);
      vec wrong(theta_);
      wrong.back() = std::numeric_limits<T>::quiet_NaN();
      const report stopped = second.advance(params<const T>(wrong), xs_.subspan(cut), dparams<T>(g));
      expect(cut == xs_.size() || stopped.at == std::int64_t(cut),
             "visit: a resumed stream counts its steps from elsewhere" + at);
      r += advance(second, g, xs_.subspan(cut));
      r += finish(second, g);
      check_same_state(first, second, "", cut == xs_.size());
      saved.save("run", second);
      E third(made_);
      saved.load("run", third);
      check_same_state(second, third, " behind finish()");
      hold_inputs(third, xs_.last(std::size_t(held_inputs(third))));
      expect(throws([&] { advance(third, other, xs_.first(1)); }) ==
                 throws([&] { advance(second, other, xs_.first(1)); }),
             "visit: forgets that the stream is finished");
    } catch (const error& e) {
      return failures_.push_back("visit: cannot be resumed: " + std::string(e.what()) + at);
    }
    expect(same_bits(g, whole_), "visit: a resumed stream has other bits" + at);
    expect((worked || (r.steps == total.steps && r.vjps == total.vjps && r.jvps == total.jvps)) &&
               r.consumed == total.consumed && r.losses == total.losses,
           "visit: a resumed stream does other work" + at);
    for (const char* what : {"run.estimator", "run.system", "run.numbers"}) {
      checkpoint foreign = saved;
      foreign.set_text(what, "another");
      expect(throws([&] { foreign.load("run", second); }),
             std::string("visit: resumes although \"") + what + "\" is another");
    }
  }

  void check_same_state(E& a, E& b, const std::string& at, bool wanted = true) {
    if constexpr (has_last_state<E>)
      if (wanted) {
        const auto copy = [&](E& e) {
          const auto s = e.last_state(params<const T>(theta_));
          return vec(s.begin(), s.end());
        };
        expect(same_bits(copy(a), copy(b)), "last_state: is another after a resume" + at);
      }
  }

  // The state that the system itself reaches, or, where copies run elsewhere, the same however inputs arrive.
  void check_last_state() requires has_last_state<E> {
    const F& f = made_.system();
    const dims d = f.size();
    block<T, state_space> s(d.state), next(d.state);
    block<T, tape_space> tape(d.tape);
    buffer<T> workspace(d.workspace);
    start_state(f, state<T>(s));
    E by_one(made_), at_once(made_);
    vec g(theta_.size());
    by_one.reset(randomness_);
    const double most = std::sqrt(double(std::numeric_limits<T>::epsilon()));
    for (std::size_t t = 0;; ++t) {
      const auto seen = by_one.last_state(params<const T>(theta_));
      const std::string at = " after " + std::to_string(t) + " inputs";
      if (seen.size() != d.state) return failures_.push_back("last_state: has not the size of a state" + at);
      if (E::estimated_gradient == estimand::frozen_theta)
        for (index_t i = 0; i < d.state; ++i)
          if (!(std::abs(double(seen[i] - s[i])) <= most * (1 + std::abs(double(s[i])))))
            return failures_.push_back("last_state: is not that of the system" + at);
      if (t % 7 == 3 || t == xs_.size()) {
        at_once.reset(randomness_);
        advance(at_once, g, xs_.first(t));
        const auto same = at_once.last_state(params<const T>(theta_));
        if (!std::equal(seen.begin(), seen.end(), same.begin(), same.end()))
          return failures_.push_back("last_state: depends on how the inputs arrive" + at);
      }
      if (t == xs_.size()) break;
      T loss = 0;
      f.step(xs_[t], {params<const T>(theta_), s, next, tape, &loss, workspace, std::int64_t(t)});
      std::swap(s, next);
      advance(by_one, g, xs_.subspan(t, 1));
    }
    finish(by_one, g);
    const auto seen = by_one.last_state(params<const T>(theta_));
    if (E::estimated_gradient == estimand::frozen_theta)
      for (index_t i = 0; i < d.state; ++i)
        if (!(std::abs(double(seen[i] - s[i])) <= most * (1 + std::abs(double(s[i])))))
          return failures_.push_back("last_state: is not that of the system behind finish()");
  }

  const E& made_;
  const vec& theta_;
  std::span<const X> xs_;
  const X* bad_;
  key randomness_;
  bool mirrored_ = false;
  vec whole_;
  std::vector<std::string> failures_;
};

}  // namespace detail

}  // namespace unroll::testing
