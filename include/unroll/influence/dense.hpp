#pragma once

#include <algorithm>

#include "unroll/core/block.hpp"
#include "unroll/core/left_product.hpp"
#include "unroll/influence/concept.hpp"
#include "unroll/system/lane_vjp.hpp"

namespace unroll::influence {

/// Every entry of M = ds/dtheta, which is then exact: lanes blocks of n x params, column-major, n = state /
/// lanes.
///
/// With the jacobian hook q M, J M and F happen to a block of columns while it is in cache; without it the
/// rows of J and F are read off by vjps with unit cotangents. A step takes lanes n^2 params multiply-adds,
/// and without the hook `state` vjps (2 n with lane_vjp and more than one lane). Memory, to leading order:
/// state params scalars, twice that without the hook.
template <class F>
class dense {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  /// `columns`: as many of M are worked on at once.
  dense(const F& f, index_t columns)
      : sizes_(f.size()),
        n_(sizes_.state / sizes_.lanes),
        columns_(columns),
        hooked_(supports(f, hook::jacobian)),
        m_(sizes_.state * sizes_.params),
        rows_(hooked_ ? 0 : sizes_.state * sizes_.params),
        jacobian_(n_ * sizes_.state),
        before_(n_ * std::min(columns_, sizes_.params)),
        row_(sizes_.state),
        unit_(sizes_.state),
        zeros_(sizes_.state) {}

  void reset() {
    m_.zero();
    unit_.zero();
    zeros_.zero();
  }

  /// g += q M, then M <- J M + F at the edge e. Returns the vjps.
  index_t propagate(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, dparams<T> g) {
    index_t vjps = 0;
    if constexpr (has_jacobian<F>)
      if (hooked_) f.jacobian(x, e, jacobian_);
    if (!hooked_) vjps = read_rows(f, x, e);
    for (index_t p = 0; p < sizes_.params; p += columns_)
      update(f, x, e, q, p, std::min(p + columns_, sizes_.params), g);
    return vjps;
  }

  view<const T> values() const { return m_; }  ///< M
  std::size_t bytes() const {
    return m_.bytes() + rows_.bytes() + jacobian_.bytes() + before_.bytes() + row_.bytes() + unit_.bytes() +
           zeros_.bytes();
  }
  template <class V>
  void visit(V&& v) {
    v("influence", view<T>(m_));
  }

 private:
  // Columns [p0, p1) of every lane: g += q M, M <- J M + F.
  void update(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, index_t p0, index_t p1,
              dparams<T> g) {
    const index_t count = p1 - p0;
    for (index_t l = 0; l < sizes_.lanes; ++l) {
      const T *j = jacobian_.data() + l * n_ * n_, *ql = q.data() + l * n_;
      const matrix<T> m{m_.data() + (l * sizes_.params + p0) * n_, n_, count};
      if (!linalg::left_product(j, ql, m, g.data() + p0)) {
        const matrix<T> old{before_.data(), n_, count};
        std::copy_n(m.data, n_ * count, old.data);
        linalg::gemv<T>(op::transpose, old, ql, true, g.data() + p0);
        linalg::gemm<T>(op::none, {j, n_, n_}, op::none, old, false, m);
      }
      if (!hooked_) {
        const T* row = rows_.data() + l * sizes_.params;
        for (index_t i = 0; i < n_; ++i, row += sizes_.lanes * sizes_.params)
          for (index_t p = 0; p < count; ++p) m.data[p * n_ + i] += row[p0 + p];
      }
    }
    if constexpr (has_jacobian<F>)
      if (hooked_) f.immediate(x, e, m_, p0, p1);
  }

  // Row i of J and F of every lane from the cotangent e_i. rows_ is params x lanes x n. Returns the vjps.
  index_t read_rows(const F& f, const input& x, const const_edge<T>& e) {
    const index_t lanes = sizes_.lanes, P = sizes_.params;
    index_t vjps = 0;
    rows_.zero();
    for (index_t i = 0; i < n_; ++i) {
      T* rows = rows_.data() + i * lanes * P;
      row_.zero();
      for (index_t l = 0; l < lanes; ++l) unit_[l * n_ + i] = 1;
      vjps += lane_vjp<F>(f, x, e, unit_, row_, {rows, lanes * P}, zeros_);
      for (index_t l = 0; l < lanes; ++l) unit_[l * n_ + i] = 0;
      for (index_t k = 0; k < sizes_.state; ++k) jacobian_[k * n_ + i] = row_[k];
    }
    return vjps;
  }

  dims sizes_;
  index_t n_, columns_;
  bool hooked_;
  buffer<T> m_, rows_, jacobian_, before_;
  block<T, state_cotangent_space> row_, unit_, zeros_;
};

}  // namespace unroll::influence
