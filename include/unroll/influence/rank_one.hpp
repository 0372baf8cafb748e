#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/core/simd.hpp"
#include "unroll/influence/concept.hpp"

namespace unroll::influence {

/// M as one outer product s~ theta~' in each lane, of which an estimator that draws makes E s~ theta~' = M. F
/// has a rank of its own, so the estimator mixes it in at random. Its step, in this order:
///
///     project(q)          notes the weight q s~ of each lane: q M = (q s~) theta~'
///     propagate(f, x, e)  s~ <- J s~; again for every step of a block
///                         then, of s() and theta_added(), the estimator changes the first and fills the
///                         second
///     mix(l, keep, add)   the next theta~ of lane l is keep theta~ + add theta_added
///     accumulate(g)       g += sum over lanes of weight theta~; theta~ takes its next value
///
/// or accumulate(matrices, nu, a, g), where theta_added would be products nu a' in matrices of theta.
template <class T>
class rank_one {
 public:
  /// products: theta_added() is left out, of which the second accumulate() has no need.
  explicit rank_one(const dims& d, bool products = false)
      : n_(d.state / d.lanes),
        params_(d.params),
        s_(d.state),
        moved_(d.state),
        theta_(d.lanes * d.params),
        added_(products ? 0 : d.lanes * d.params),
        lanes_(std::size_t(d.lanes)) {}

  void reset() {
    s_.zero();
    theta_.zero();
    added_.zero();
    std::fill(lanes_.begin(), lanes_.end(), lane{});
  }

  index_t lanes() const { return index_t(lanes_.size()); }
  view<T> s(index_t l) { return {s_.data() + l * n_, n_}; }
  view<T> theta_added() { return added_; }  ///< lanes x params, zero before the estimator fills it
  double s_norm(index_t l) const { return double(linalg::norm(s_.data() + l * n_, n_)); }  ///< of lane l
  double theta_norm(index_t l) const { return lanes_[std::size_t(l)].norm; }               ///< of lane l
  /// Norm of theta_added of lane l.
  double added_norm(index_t l) const { return double(linalg::norm(added_.data() + l * params_, params_)); }
  std::size_t bytes() const {
    return s_.bytes() + moved_.bytes() + theta_.bytes() + added_.bytes() + lanes_.size() * sizeof(lane);
  }

  /// Keeps q . s~ of every lane, the weight with which accumulate() adds theta~; q: lanes blocks of n.
  void project(dstate<const T> q) {
    for (index_t l = 0; l < lanes(); ++l)
      lanes_[std::size_t(l)].weight = linalg::dot(q.data() + l * n_, s(l).data(), n_);
  }
  /// s~ <- J s~ at the step of e.
  template <class F>
  void propagate(const F& f, const typename F::input& x, const const_edge<T>& e) {
    f.jvp(x, e, {}, state_tangent<const T>(s_.data(), s_.size()),
          state_tangent<T>(moved_.data(), moved_.size()), nullptr);
    std::swap(s_, moved_);
  }
  /// What accumulate() makes of theta~ of lane l.
  void mix(index_t l, double keep, double add) {
    lanes_[std::size_t(l)].keep = T(keep);
    lanes_[std::size_t(l)].add = T(add);
  }
  /// Between two steps: theta_added() is zero, and of the lanes only the norms count.
  template <class V>
  void visit(V&& v) {
    std::vector<double> norms;
    for (const lane& a : lanes_) norms.push_back(a.norm);
    v("s", view<T, state_space>(s_));
    v("theta", view<T>(theta_));
    v("norms", view<double>(norms));
    for (std::size_t l = 0; l < lanes_.size(); ++l) lanes_[l].norm = norms[l];
  }
  /// ADDS to g and moves theta~, in one pass over the memory that also clears theta_added() and finds
  /// the next theta_norm.
  void accumulate(dparams<T> g) {
    for (lane& a : lanes_) a.norm = 0;
    for (index_t p = 0; p < params_; p += tile) {
      const index_t count = std::min(tile, params_ - p);
      for (index_t l = 0; l < lanes(); ++l) {
        lane& a = lanes_[std::size_t(l)];
        T* th = theta_.data() + l * params_ + p;
        T* b = added_.data() + l * params_ + p;
        a.norm += simd::dispatch<accumulate_kernel, const lane&>(a, th, b, g.data() + p, count);
      }
    }
    for (lane& a : lanes_) a.norm = std::sqrt(a.norm);
  }
  /// The same where theta_added is nu_b a_b' in each of the matrices and zero elsewhere; nothing of it is
  /// stored. nu: lanes x (sum of rows), a: lanes x (sum of columns).
  void accumulate(std::span<const weight_matrix> matrices, const T* nu, const T* a, dparams<T> g) {
    index_t rows = 0, columns = 0;
    for (const weight_matrix& w : matrices) rows += w.rows, columns += w.columns;
    for (lane& k : lanes_) k.norm = 0;
    for (const weight_matrix& w : matrices) {
      const index_t block = std::max(index_t(1), tile / w.rows);
      for (index_t j = 0; j < w.columns; j += block)
        for (index_t l = 0; l < lanes(); ++l) {
          lane& k = lanes_[std::size_t(l)];
          const index_t p = w.first + j * w.stride;
          k.norm += simd::dispatch<product_kernel, const lane&>(
              k, nu + l * rows, a + l * columns + j,
              matrix<T>{theta_.data() + l * params_ + p, w.rows, std::min(block, w.columns - j), w.stride},
              g.data() + p);
        }
      nu += w.rows, a += w.columns;
    }
    for (lane& k : lanes_) k.norm = std::sqrt(k.norm);
  }

 private:
  static constexpr index_t tile = 1024;  // of theta~, theta_added and g: together in the first-level cache
  struct lane {
    T weight = 0, keep = 0, add = 0;
    double norm = 0;  // of theta~
  };

  // g += weight th, th <- keep th + add b, b <- 0; returns |th|^2.
  struct accumulate_kernel {
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

  // The same with b = nu a', of a few columns of one matrix; g's columns are as far apart as those of th.
  struct product_kernel {
    template <class Isa>
    UNROLL_INLINE static double run(const lane& k, const T* nu, const T* a, matrix<T> th, T* g) {
      constexpr int N = simd::width<Isa, T>;
      using vec = simd::vec<T, N>;
      const T weight = k.weight, keep = k.keep;
      vec squares = {};
      double rest = 0;
      for (index_t j = 0; j < th.cols; ++j) {
        T *column = th.data + j * th.stride, *to = g + j * th.stride;
        const T add = k.add * a[j];
        index_t i = 0;
        for (; i + N <= th.rows; i += N) {
          const vec old = simd::load<N>(column + i), next = keep * old + add * simd::load<N>(nu + i);
          simd::store(simd::load<N>(to + i) + weight * old, to + i);
          simd::store(next, column + i);
          squares += next * next;
        }
        for (; i < th.rows; ++i) {
          const T old = column[i];
          column[i] = keep * old + add * nu[i];
          to[i] += weight * old;
          rest += double(column[i]) * double(column[i]);
        }
      }
      return rest + double(simd::reduce(squares));
    }
  };

  index_t n_, params_;
  block<T, state_space> s_, moved_;
  buffer<T> theta_, added_;
  std::vector<lane> lanes_;
};

}  // namespace unroll::influence
