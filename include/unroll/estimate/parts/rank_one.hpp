#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/core/simd.hpp"
#include "unroll/system/concepts.hpp"

// What the estimators that carry the influence ds/dtheta as one outer product s~ theta~' (a lane) share.
namespace unroll {

/// The two factors that a product is rescaled by: a -> by a, b -> b over. `over` is 1 / `by`.
struct rescaling {
  double by = 1, over = 1;  ///< factor of one part, and of the other
};

/// Gives both sides the same norm: by = sqrt(right / (left + epsilon)) + epsilon. Where one side is zero the
/// product is zero, and both sides are dropped instead of divided by zero.
inline rescaling balance_norms(double left, double right, double epsilon) {
  if (left == 0 || right == 0) return {0, 0};
  const double rho = std::sqrt(right / (left + epsilon)) + epsilon;
  return {rho, 1 / rho};
}

/// ADDS dnext . ds'/dtheta of each lane apart to `out` (lane after lane, params each) and dnext . ds'/ds to
/// `ds`, unless that is empty. Returns the number of vjps it took: 1 for one lane; with the lane_vjp hook 1,
/// and 1 more for ds; otherwise one a lane. `masked` is a state of zeros, for the latter.
template <class F>
index_t lane_vjp(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
                 dstate<const typename F::scalar> dnext, dstate<typename F::scalar> ds,
                 view<typename F::scalar> out, dstate<typename F::scalar> masked) {
  using T = typename F::scalar;
  const dims d = f.size();
  if (d.lanes == 1) {
    f.vjp(x, e, dnext, T(0), ds, dparams<T>(out.data(), out.size()));
    return 1;
  }
  if constexpr (has_lane_vjp<F>)
    if (supports(f, hook::lane_vjp)) {
      f.lane_vjp(x, e, dnext, out);
      if (ds.empty()) return 1;
      f.vjp(x, e, dnext, T(0), ds, {});
      return 2;
    }
  const index_t n = d.state / d.lanes;
  for (index_t l = 0; l < d.lanes; ++l) {
    std::copy_n(dnext.data() + l * n, n, masked.data() + l * n);
    f.vjp(x, e, dstate<const T>(masked), T(0), ds, dparams<T>(out.data() + l * d.params, d.params));
    std::fill_n(masked.data() + l * n, n, T(0));
  }
  return d.lanes;
}

/// The products s~_l theta~_l' of all lanes. One step of an estimator is
///
///     read(ds)           notes ds_l . s~_l, the weight with which theta~_l enters the gradient
///     push(f, x, e)      s~ <- J s~, once or more
///     ... adds the new parameter part to fresh(), changes s() ...
///     set(l, keep, add)  for every lane
///     sweep(g)           g += sum_l weight_l theta~_l;  theta~_l <- keep_l theta~_l + add_l fresh_l
template <class T>
class rank_one {
 public:
  explicit rank_one(const dims& d)
      : n_(d.state / d.lanes),
        params_(d.params),
        s_(d.state),
        moved_(d.state),
        theta_(d.lanes * d.params),
        fresh_(d.lanes * d.params),
        lanes_(std::size_t(d.lanes)) {}

  void reset() {
    s_.zero();
    theta_.zero();
    fresh_.zero();
    std::fill(lanes_.begin(), lanes_.end(), lane{});
  }

  index_t lanes() const { return index_t(lanes_.size()); }
  view<T> s(index_t l) { return {s_.data() + l * n_, n_}; }
  view<T> fresh() { return fresh_; }  ///< lanes x params: the new parameter part
  double s_norm(index_t l) const { return double(linalg::norm(s_.data() + l * n_, n_)); }  ///< of lane l
  double theta_norm(index_t l) const { return lanes_[std::size_t(l)].norm; }               ///< of lane l
  /// Norm of fresh_l.
  double fresh_norm(index_t l) const { return double(linalg::norm(fresh_.data() + l * params_, params_)); }
  std::size_t bytes() const {
    return s_.bytes() + moved_.bytes() + theta_.bytes() + fresh_.bytes() + lanes_.size() * sizeof(lane);
  }

  void read(dstate<const T> ds) {
    for (index_t l = 0; l < lanes(); ++l)
      lanes_[std::size_t(l)].weight = linalg::dot(ds.data() + l * n_, s(l).data(), n_);
  }
  /// s~ <- J s~ at the step of e.
  template <class F>
  void push(const F& f, const typename F::input& x, const const_edge<T>& e) {
    f.jvp(x, e, {}, state_tangent<const T>(s_.data(), s_.size()),
          state_tangent<T>(moved_.data(), moved_.size()), nullptr);
    std::swap(s_, moved_);
  }
  /// What sweep() does with lane l.
  void set(index_t l, double keep, double add) {
    lanes_[std::size_t(l)].keep = T(keep);
    lanes_[std::size_t(l)].add = T(add);
  }
  /// Between two steps: fresh() is zero, and of the lanes only the norms count.
  template <class V>
  void visit(V&& v) {
    std::vector<double> norms;
    for (const lane& a : lanes_) norms.push_back(a.norm);
    v("s", view<T, state_space>(s_));
    v("theta", view<T>(theta_));
    v("norms", view<double>(norms));
    for (std::size_t l = 0; l < lanes_.size(); ++l) lanes_[l].norm = norms[l];
  }
  /// Clears fresh() and finds the next theta_norm, all in one pass over the memory.
  void sweep(dparams<T> g) {
    for (lane& a : lanes_) a.norm = 0;
    for (index_t p = 0; p < params_; p += tile) {
      const index_t count = std::min(tile, params_ - p);
      for (index_t l = 0; l < lanes(); ++l) {
        lane& a = lanes_[std::size_t(l)];
        T* th = theta_.data() + l * params_ + p;
        T* b = fresh_.data() + l * params_ + p;
        a.norm += simd::dispatch<sweep_kernel, const lane&>(a, th, b, g.data() + p, count);
      }
    }
    for (lane& a : lanes_) a.norm = std::sqrt(a.norm);
  }

 private:
  static constexpr index_t tile = 1024;  // of theta~, fresh and g: together in the first-level cache
  struct lane {
    T weight = 0, keep = 0, add = 0;
    double norm = 0;  // of theta~
  };

  // g += weight th, th <- keep th + add b, b <- 0; returns |th|^2.
  struct sweep_kernel {
    template <class Isa>
    UNROLL_INLINE static double run(const lane& a, T* th, T* b, T* g, index_t count) {
      constexpr int N = simd::width<Isa, T>;
      using vec = simd::vec<T, N>;
      const T weight = a.weight, keep = a.keep, add = a.add;
      vec squares[2] = {};
      index_t i = 0;
      for (; i + 2 * N <= count; i += 2 * N)
        for (int u = 0; u < 2; ++u) {
          const index_t k = i + u * N;
          const vec old = simd::load<N>(th + k), next = keep * old + add * simd::load<N>(b + k);
          simd::store(simd::load<N>(g + k) + weight * old, g + k);
          simd::store(next, th + k);
          simd::store(vec{}, b + k);
          squares[u] += next * next;
        }
      double rest = 0;
      for (; i < count; ++i) {
        const T old = th[i];
        th[i] = keep * old + add * b[i];
        g[i] += weight * old;
        b[i] = 0;
        rest += double(th[i]) * double(th[i]);
      }
      return rest + double(simd::reduce(squares[0] + squares[1]));
    }
  };

  index_t n_, params_;
  block<T, state_space> s_, moved_;
  buffer<T> theta_, fresh_;
  std::vector<lane> lanes_;
};

}  // namespace unroll
