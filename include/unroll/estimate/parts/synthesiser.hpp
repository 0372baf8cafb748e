#pragma once

#include <cmath>

#include "unroll/core/block.hpp"
#include "unroll/core/error.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/system/edge.hpp"

namespace unroll {

/// A learned guess of the derivative of all later losses with respect to a state s: an affine function of s
/// alone, the same for every lane,
///
///     S(s) = phi s^,    s^ = (s, 1), or s where it is linear        phi: n x features, n = state / lanes
///
/// zero after reset(). The step size is rate / (features lanes), because |s^|^2 is at most `features` where
/// units lie within [-1, 1]. A phi that is no longer finite is set to zero.
template <class T>
class synthesiser {
 public:
  /// sizes: of the system. affine: whether S has a constant.
  synthesiser(const dims& sizes, double rate, bool affine)
      : n_(sizes.state / sizes.lanes),
        lanes_(sizes.lanes),
        features_(n_ + index_t(affine)),
        step_(T(rate / double(features_ * lanes_))),
        phi_(n_ * features_),
        error_(sizes.state) {}

  void reset() { phi_.zero(); }

  /// WRITES scale S(s) of every lane to `out`; s, out: the size of a state.
  void predict(state<const T> s, T scale, dstate<T> out) const {
    linalg::gemm<T>(op::none, {phi_.data(), n_, n_}, op::none, {s.data(), n_, lanes_}, false,
                    {out.data(), n_, lanes_});
    for (index_t k = 0; k < out.size(); ++k) out[k] = scale * (out[k] + constant(k % n_));
  }

  /// WRITES step (target - S(s)) of every lane; target: a cotangent of s. Valid until the next call.
  dstate<const T> error(state<const T> s, dstate<const T> target) {
    predict(s, T(1), error_);
    for (index_t k = 0; k < target.size(); ++k) error_[k] = step_ * (target[k] - error_[k]);
    return error_;
  }

  /// phi += step (target - S(s)) s^', summed over the lanes.
  void learn(state<const T> s, dstate<const T> target) {
    const T* d = error(s, target).data();
    linalg::gemm<T>(op::none, {d, n_, lanes_}, op::transpose, {s.data(), n_, lanes_}, true,
                    {phi_.data(), n_, n_});
    if (features_ > n_)
      for (index_t l = 0; l < lanes_; ++l) linalg::axpy<T>(1, d + l * n_, phi_.data() + n_ * n_, n_);
    begin_again_unless_finite();
  }

  /// True where phi was not finite; it is then zero.
  bool begin_again_unless_finite() {
    if (linalg::all_finite(phi_.data(), phi_.size())) return false;
    phi_.zero();
    return true;
  }

  index_t features() const { return features_; }  ///< n + 1, or n where it is linear
  view<T> numbers() { return phi_; }              ///< phi, n x features, column-major
  view<const T> numbers() const { return phi_; }  ///< phi, n x features, column-major
  std::size_t bytes() const { return phi_.bytes() + error_.bytes(); }
  template <class V>
  void visit(V&& v) {
    v("synthesiser", view<T>(phi_));
  }

 private:
  T constant(index_t i) const { return features_ > n_ ? phi_[n_ * n_ + i] : T(0); }

  index_t n_, lanes_, features_;
  T step_;
  buffer<T> phi_;
  block<T, state_cotangent_space> error_;
};

/// Throws unroll::error unless the rate of a synthesiser is finite and at least 0.
inline void check_rate(const char* estimator, double rate) {
  if (!(std::isfinite(rate) && rate >= 0))
    fail(estimator, "rate", "is " + number_text(rate) + ", must be finite and at least 0");
}

}  // namespace unroll
