#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/estimate/parts/run_groups.hpp"

namespace unroll {

/// Throws unroll::error unless sigma, the standard deviation of a perturbation, is a positive, finite and
/// normal number of type T.
template <class T>
void check_sigma(std::string_view estimator, double sigma) {
  if (!(T(sigma) >= std::numeric_limits<T>::min() && std::isfinite(T(sigma))))
    fail(estimator, "sigma",
         "is " + number_text(sigma) + ", must be a positive, finite and normal number of the scalar type");
}
/// Throws unroll::error where sigma is not above the distance u from a parameter to the next number: rounding
/// theta + sigma z takes the share 2 exp(-2 pi^2 (sigma / u)^2) from the derivative, 5e-9 at sigma = u and
/// all of it for a much smaller sigma.
template <class T>
void check_above_rounding(std::string_view estimator, double sigma, params<const T> theta) {
  const T half = T(sigma) / 2;
  const auto lost = [half](const auto& t) UNROLL_INLINE {  // 1 for each
    using vec = std::remove_cvref_t<decltype(t)>;
    const vec moved = t + half;
    return simd::where_greater(moved, t, vec{}, vec{} + T(1));
  };
  if (simd::sum<T>(lost, theta.size(), theta.data()) == 0) return;
  for (index_t p = 0; p < theta.size(); ++p)
    if (theta[p] + half == theta[p])
      fail(estimator, "sigma",
           "is " + number_text(sigma) + ", which is lost in the rounding of theta[" + std::to_string(p) +
               "] = " + number_text(double(theta[p])));
}

/// Pairs of copies of a system that run side by side at theta + sigma z and theta - sigma z, each copy with
/// its own state: what the evolution strategies share. The losses of a pair are compared step by step, and
/// the differences D are summed in double.
template <class F>
class particles {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  particles(const F& f, std::string_view estimator, index_t pairs, double sigma)
      : estimator_(estimator), sizes_(f.size()), pairs_(pairs), sigma_(sigma) {
    check_at_least(estimator, "pairs", pairs, 1);
    check_sigma<T>(estimator, sigma);
    states_ = block<T, state_space>(2 * pairs * sizes_.state);
    states_before_ = block<T, state_space>(2 * pairs * sizes_.state);
    next_ = block<T, state_space>(sizes_.state);
    tape_ = block<T, tape_space>(sizes_.tape);
    workspace_ = buffer<T>(sizes_.workspace);
    noise_ = buffer<T>(pairs * sizes_.params);
    moved_ = parameters<T>(sizes_.params);
    difference_ = difference_before_ = buffer<double>(pairs);
    above_ = buffer<double>(longest);
  }

  /// Every copy starts from s0, or from the system's own start when s0 is empty.
  void reset(const F& f, state<const T> s0) {
    for (index_t c = 0; c < 2 * pairs_; ++c) start_state(f, copy(c), s0);
    difference_.zero();
    end_ = 0;
  }

  view<T> noise() { return noise_; }         ///< z, params x pairs
  std::int64_t end() const { return end_; }  ///< steps since reset
  std::size_t bytes() const {
    return states_.bytes() + states_before_.bytes() + next_.bytes() + tape_.bytes() + workspace_.bytes() +
           noise_.bytes() + moved_.bytes() + difference_.bytes() + difference_before_.bytes() +
           above_.bytes();
  }

  /// Runs all copies over xs. Windows of `window` steps are counted from the start of the sequence; begin(i)
  /// is called before the first step of window i and done(i) after its last one. Stops in front of the first
  /// step that is not finite in any of the copies. The reported loss is the mean over the copies. Throws
  /// unroll::error where sigma is lost in the rounding of theta (check_above_rounding).
  template <class Begin, class Done>
  report advance(const F& f, params<const T> theta, std::span<const input> xs, std::int64_t window,
                 Begin&& begin, Done&& done) {
    report r;
    if (!linalg::all_finite(theta.data(), theta.size())) return stopped(r);
    check_above_rounding(estimator_, sigma_, theta);
    while (r.consumed < std::int64_t(xs.size())) {
      if (end_ % window == 0) begin(end_ / window);
      const auto left = std::min({window - end_ % window, std::int64_t(xs.size()) - r.consumed, longest});
      const index_t taken = run(f, theta, xs.subspan(std::size_t(r.consumed), std::size_t(left)), r);
      r.consumed += taken;
      end_ += taken;
      if (end_ % window == 0 && taken > 0) done(end_ / window - 1);
      if (taken < left) return stopped(r);
    }
    return r;
  }

  /// The state of the first copy, which runs at theta + sigma z_1.
  state<const T> last_state() const { return {states_.data(), sizes_.state}; }
  template <class V>
  void visit(V&& v) {
    v("states", view<T, state_space>(states_));
    v("noise", view<T>(noise_));
    v("difference", view<double>(difference_));
    visit_integer(v, "end", end_);
  }

  /// g += 1 / (2 sigma pairs) sum_j D_j direction_j, then D = 0. directions: params x pairs.
  void emit(view<const T> directions, dparams<T> g) {
    for (index_t j = 0; j < pairs_; ++j)
      linalg::axpy(T(difference_[j] / (2 * sigma_ * double(pairs_))), directions.data() + j * sizes_.params,
                   g.data(), sizes_.params);
    difference_.zero();
  }

 private:
  static constexpr std::int64_t longest = 128;  // steps that a copy takes before the next one takes them

  state<T> copy(index_t c) { return {states_.data() + c * sizes_.state, sizes_.state}; }
  report stopped(report r) const {
    r.code = status::non_finite;
    r.at = end_;
    return r;
  }

  // Returns the number of inputs that every copy took.
  index_t run(const F& f, params<const T> theta, std::span<const input> xs, report& r) {
    std::copy(states_.begin(), states_.end(), states_before_.begin());
    std::copy(difference_.begin(), difference_.end(), difference_before_.begin());
    index_t good = 0;
    while (good < index_t(xs.size()) && finite_input(f, xs[std::size_t(good)])) ++good;
    xs = xs.first(std::size_t(good));
    double loss = 0;
    for (index_t j = 0; j < pairs_; ++j) {
      const T* z = noise_.data() + j * sizes_.params;
      for (const index_t side : {0, 1}) {  // one copy after the other: what it runs at stays in the cache
        const T sigma = T(side == 0 ? sigma_ : -sigma_);
        simd::map([sigma](const auto& t, const auto& u) UNROLL_INLINE { return t + sigma * u; },
                  sizes_.params, moved_.data(), theta.data(), z);
        for (index_t i = 0; i < good; ++i) {
          const double own = step(f, xs[std::size_t(i)], 2 * j + side, end_ + i);
          const double both = side == 0 ? own : above_[i] + own;
          ++r.steps;
          if (!std::isfinite(both)) {  // take this group back and run it again without its rest
            std::copy(states_before_.begin(), states_before_.end(), states_.begin());
            std::copy(difference_before_.begin(), difference_before_.end(), difference_.begin());
            return i == 0 ? 0 : run(f, theta, xs.first(std::size_t(i)), r);
          }
          if (side == 0) {
            above_[i] = own;
          } else {
            difference_[j] += above_[i] - own;
            loss += both;
          }
        }
      }
    }
    r.loss += loss / double(2 * pairs_);
    for (const auto& x : xs) r.losses += scored_losses(f, x);
    return good;
  }

  // The loss of one step of copy c, not a number when its state is not finite.
  double step(const F& f, const input& x, index_t c, std::int64_t t) {
    T loss = 0;
    const state<T> s = copy(c);
    f.step(x, {moved_, s, next_, tape_, &loss, workspace_, t});
    std::copy(next_.begin(), next_.end(), s.begin());
    return linalg::all_finite(s.data(), s.size()) ? double(loss) : std::numeric_limits<double>::quiet_NaN();
  }

  std::string_view estimator_;
  dims sizes_;
  index_t pairs_;
  double sigma_;
  block<T, state_space> states_, states_before_;  // state x 2 pairs, now and in front of the group
  block<T, state_space> next_;
  block<T, tape_space> tape_;
  buffer<T> workspace_, noise_;
  parameters<T> moved_;                            // theta + sigma z_j, then theta - sigma z_j
  buffer<double> difference_, difference_before_;  // D of each pair: now, and in front of the group
  buffer<double> above_;                           // losses at theta + sigma z_j, a step of the group each
  std::int64_t end_ = 0;
};

}  // namespace unroll
