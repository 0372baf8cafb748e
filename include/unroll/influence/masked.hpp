#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/influence/concept.hpp"
#include "unroll/system/lane_vjp.hpp"

namespace unroll::influence {

/// The entries of M = ds/dtheta that theta reaches within `reach` steps, the same in every lane; the others
/// count as 0:
///
///     M <- 1_S (J M + F),     S = nz(F) + nz(J) nz(F) + ... + nz(J)^(reach - 1) nz(F)
///
/// nz() are the masks that the system states (has_masks), not which numbers happen to be zero: a unit that
/// does not move in one step may in the next. Where nz(J) S lies within S nothing is left out, M is exact.
///
/// F, and J without the jacobian hook, are read off by few vjps: rows that share no column are added up in
/// one, and each entry is taken from the sum in which it is alone (Curtis, Powell & Reid 1974). A parameter
/// that moves k kept entries takes k^2 multiply-adds a step and lane. Memory, to leading order: kept() and
/// probes() x params scalars a lane, and once 8 bytes a kept entry and 8 a parameter. Needs: vjp, masks.
template <class F>
class masked {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  masked(const F& f, index_t reach)
      : sizes_(f.size()),
        n_(sizes_.state / sizes_.lanes),
        hooked_(supports(f, hook::jacobian)),
        joined_(n_ * n_),
        jacobian_(n_ * sizes_.state),
        before_(n_),
        row_(sizes_.state),
        unit_(sizes_.state),
        zeros_(sizes_.state) {
    f.jacobian_mask(joined_);
    find_entries(f, reach);
    share_probes();
    m_ = buffer<T>(sizes_.lanes * kept());
    rows_ = buffer<T>(probes_ * sizes_.lanes * sizes_.params);
  }

  void reset() {
    m_.zero();
    zeros_.zero();
  }

  /// g += q M, then M <- 1_S (J M + F) at the edge e. Returns the vjps.
  index_t propagate(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, dparams<T> g) {
    if constexpr (has_jacobian<F>)
      if (hooked_) f.jacobian(x, e, jacobian_);
    const index_t vjps = read_rows(f, x, e);
    for (index_t l = 0; l < sizes_.lanes; ++l)
      for (index_t p = 0; p < sizes_.params; ++p) g[p] += update(l, p, q.data() + l * n_);
    return vjps;
  }

  index_t kept() const { return index_t(entries_.size()); }  ///< entries of M, of one lane
  index_t probes() const { return probes_; }                 ///< sums of rows that are read off
  bool exact() const { return exact_; }                      ///< nz(J) S within S
  std::size_t bytes() const {
    return m_.bytes() + rows_.bytes() + jacobian_.bytes() + joined_.bytes() + before_.bytes() + row_.bytes() +
           unit_.bytes() + zeros_.bytes() + entries_.size() * sizeof(entry) +
           (first_.size() + probe_.size()) * sizeof(index_t);
  }
  template <class V>
  void visit(V&& v) {
    v("influence", view<T>(m_));
  }

 private:
  struct entry {
    std::int32_t row = 0;
    std::int32_t moved = 0;  // whether F can differ from zero here
  };

  // The kept rows of every column, in order.
  void find_entries(const F& f, index_t reach) {
    block<std::uint8_t> moved(n_);
    std::vector<index_t> level(static_cast<std::size_t>(n_) + 1), next = level;  // rows of one level
    for (index_t p = 0; p < sizes_.params; ++p) {
      first_.push_back(kept());
      f.immediate_mask(moved, p, p + 1);
      std::vector<std::uint8_t> in(moved.begin(), moved.end());
      level.clear();
      for (index_t i = 0; i < n_; ++i)
        if (in[std::size_t(i)]) level.push_back(i);
      for (index_t k = 1; !level.empty(); ++k) {
        next.clear();
        for (const index_t j : level)
          for (index_t i = 0; i < n_; ++i)
            if (joined_[j * n_ + i] && !in[std::size_t(i)]) {
              if (k < reach) in[std::size_t(i)] = 1;
              next.push_back(i);
            }
        if (k >= reach) {
          exact_ = exact_ && next.empty();
          break;
        }
        std::swap(level, next);
      }
      for (index_t i = 0; i < n_; ++i)
        if (in[std::size_t(i)]) entries_.push_back({std::int32_t(i), moved[i]});
    }
    first_.push_back(kept());
  }

  // probe_[i]: the sum that row i belongs to. Rows of one sum share no column.
  void share_probes() {
    std::vector<std::uint8_t> meet(static_cast<std::size_t>(n_ * n_));
    std::vector<index_t> rows;
    const auto apart = [&] {
      for (const index_t i : rows)
        for (const index_t k : rows) meet[std::size_t(i * n_ + k)] = 1;
      rows.clear();
    };
    for (index_t p = 0; p < sizes_.params; ++p) {
      for (index_t k = first_[std::size_t(p)]; k < first_[std::size_t(p) + 1]; ++k)
        if (const entry a = entries_[std::size_t(k)]; a.moved) rows.push_back(a.row);
      apart();
    }
    for (index_t j = 0; j < n_ && !hooked_; ++j) {
      for (index_t i = 0; i < n_; ++i)
        if (joined_[j * n_ + i]) rows.push_back(i);
      apart();
    }
    for (index_t i = 0; i < n_; ++i) {
      index_t c = 0;
      const auto taken = [&] {
        for (index_t k = 0; k < i; ++k)
          if (meet[std::size_t(i * n_ + k)] && probe_[std::size_t(k)] == c) return true;
        return false;
      };
      while (taken()) ++c;
      probe_.push_back(c);
      probes_ = std::max(probes_, c + 1);
    }
  }

  // rows_ is params x lanes x probes. Returns the vjps.
  index_t read_rows(const F& f, const input& x, const const_edge<T>& e) {
    rows_.zero();
    index_t vjps = 0;
    for (index_t c = 0; c < probes_; ++c) {
      for (index_t k = 0; k < sizes_.state; ++k) unit_[k] = T(probe_[std::size_t(k % n_)] == c);
      row_.zero();
      const index_t size = sizes_.lanes * sizes_.params;
      vjps += lane_vjp<F>(f, x, e, unit_, hooked_ ? dstate<T>() : dstate<T>(row_),
                          {rows_.data() + c * size, size}, zeros_);
      for (index_t i = 0; i < n_ && !hooked_; ++i)
        for (index_t k = 0; k < sizes_.state && probe_[std::size_t(i)] == c; ++k)
          jacobian_[k * n_ + i] = joined_[k % n_ * n_ + i] ? row_[k] : T(0);
    }
    return vjps;
  }

  // Column p of lane l; q: the lane's part of the cotangent of the state. Returns its part of q M.
  T update(index_t l, index_t p, const T* q) {
    const index_t first = first_[std::size_t(p)], count = first_[std::size_t(p) + 1] - first;
    const entry* at = entries_.data() + first;
    const T* j = jacobian_.data() + l * n_ * n_;
    T* m = m_.data() + l * kept() + first;
    T sum = 0;
    for (index_t a = 0; a < count; ++a) {
      before_[a] = m[a];
      sum += q[at[a].row] * m[a];
    }
    for (index_t a = 0; a < count; ++a) {
      const index_t i = at[a].row;
      T next = at[a].moved ? rows_[(probe_[std::size_t(i)] * sizes_.lanes + l) * sizes_.params + p] : T(0);
      for (index_t b = 0; b < count; ++b) next += j[at[b].row * n_ + i] * before_[b];
      m[a] = next;
    }
    return sum;
  }

  dims sizes_;
  index_t n_, probes_ = 0;
  bool hooked_, exact_ = true;
  block<std::uint8_t> joined_;          // nz(J), n x n, column-major
  std::vector<index_t> first_, probe_;  // first entry of every column, and behind the last; sum of every row
  std::vector<entry> entries_;
  buffer<T> m_, rows_, jacobian_, before_;
  block<T, state_cotangent_space> row_, unit_, zeros_;
};

}  // namespace unroll::influence
