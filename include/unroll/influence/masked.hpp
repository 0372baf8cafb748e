#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/influence/concept.hpp"
#include "unroll/influence/diagonal.hpp"
#include "unroll/influence/kept_pattern.hpp"
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
/// Columns that keep the same k rows are one matrix, M_g <- J_g M_g + F_g with the k x k entries of J between
/// those rows: k^2 multiply-adds a parameter, step and lane. F, and J without the jacobian hook, are read off
/// by few vjps: rows that share no column are added up in one, and each entry is taken from the sum in which
/// it is alone (Curtis, Powell & Reid 1974). Where S is of every parameter the unit that it feeds, whole, and
/// the system has diag_jacobian, M is `diagonal`, of the same numbers and without vjps.
///
/// Memory, to leading order: kept() and probes() x params scalars a lane, and once 8 bytes a parameter; of
/// own units kept() alone. Needs: vjp, masks.
template <class F>
class masked {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  masked(const F& f, index_t reach)
      : sizes_(f.size()), n_(sizes_.state / sizes_.lanes), hooked_(supports(f, hook::jacobian)) {
    std::vector<std::uint8_t> joined(static_cast<std::size_t>(n_ * n_));  // nz(J), column-major
    f.jacobian_mask(view<std::uint8_t>(joined));
    kept_pattern s = find_kept_pattern(f, view<const std::uint8_t>(joined.data(), n_ * n_), reach);
    kept_ = s.entries();
    exact_ = s.closed;
    if constexpr (has_diag_jacobian<F>)
      if (keeps_own_units(f, s)) {
        own_.emplace("snap", f);
        return;
      }
    groups_ = std::move(s.groups);
    joined_ = std::move(joined);
    share_probes();
    make_room();
  }

  void reset() {
    if constexpr (has_diag_jacobian<F>)
      if (own_) own_->reset();
    m_.zero();
    zeros_.zero();
  }

  /// g += q M, then M <- 1_S (J M + F) at the edge e. Returns the vjps.
  index_t propagate(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, dparams<T> g,
                    view<const T> dz = {}) {
    if constexpr (has_diag_jacobian<F>)
      if (own_) return own_->propagate(f, x, e, q, g, dz);
    if constexpr (has_jacobian<F>)
      if (hooked_) f.jacobian(x, e, jacobian_);
    const index_t vjps = read_rows(f, x, e);
    T* m = m_.data();
    for (index_t l = 0; l < sizes_.lanes; ++l)
      for (const group& s : groups_) {
        update(l, s, m, q.data() + l * n_, g);
        m += s.entries();
      }
    return vjps;
  }

  bool adds_owed() const { return kept_ > 0 && groups_.empty(); }  ///< influence_of: of own units
  index_t kept() const { return kept_; }                           ///< entries of M, of one lane
  index_t probes() const { return probes_; }  ///< sums of rows that are read off; of own units none
  bool exact() const { return exact_; }       ///< nz(J) S within S
  std::size_t bytes() const {
    if constexpr (has_diag_jacobian<F>)
      if (own_) return own_->bytes();
    std::size_t indices = probe_.size();
    for (const group& s : groups_) indices += s.rows.size() + s.columns.size();
    return m_.bytes() + rows_.bytes() + jacobian_.bytes() + before_.bytes() + between_.bytes() +
           owed_.bytes() + row_.bytes() + unit_.bytes() + zeros_.bytes() + joined_.size() +
           indices * sizeof(index_t);
  }
  template <class V>
  void visit(V&& v) {
    if constexpr (has_diag_jacobian<F>)
      if (own_) return visit_part(v, "own units", *own_);
    v("influence", view<T>(m_));
  }

 private:
  using group = kept_pattern::group;

  void make_room() {
    index_t entries = 0, rows = 0, columns = 0;  // of the largest group
    for (const group& s : groups_) {
      entries = std::max(entries, s.entries());
      rows = std::max(rows, index_t(s.rows.size()));
      columns = std::max(columns, index_t(s.columns.size()));
    }
    m_ = buffer<T>(sizes_.lanes * kept_);
    rows_ = buffer<T>(probes_ * sizes_.lanes * sizes_.params);
    jacobian_ = buffer<T>(n_ * sizes_.state);
    before_ = buffer<T>(entries);
    between_ = buffer<T>(rows * rows);
    owed_ = buffer<T>(columns);
    row_ = unit_ = zeros_ = block<T, state_cotangent_space>(sizes_.state);
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
    for (const group& s : groups_) {
      for (std::size_t a = 0; a < s.rows.size(); ++a)
        if (s.moved[a]) rows.push_back(s.rows[a]);
      apart();
    }
    for (index_t j = 0; j < n_ && !hooked_; ++j) {
      for (index_t i = 0; i < n_; ++i)
        if (joined_[std::size_t(j * n_ + i)]) rows.push_back(i);
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
          jacobian_[k * n_ + i] = joined_[std::size_t(k % n_ * n_ + i)] ? row_[k] : T(0);
    }
    return vjps;
  }

  // The columns of a group in lane l: m holds their k kept rows one behind the other, of every row all
  // columns. q: the lane's part of the cotangent of the state.
  void update(index_t l, const group& s, T* m, const T* q, dparams<T> g) {
    const index_t k = index_t(s.rows.size()), count = index_t(s.columns.size());
    std::fill_n(owed_.data(), count, T(0));
    for (index_t a = 0; a < k; ++a) {
      T* row = m + a * count;
      linalg::axpy<T>(q[s.rows[std::size_t(a)]], row, owed_.data(), count);
      std::copy_n(row, count, before_.data() + a * count);
      const T* f =
          rows_.data() + (probe_[std::size_t(s.rows[std::size_t(a)])] * sizes_.lanes + l) * sizes_.params;
      const bool moved = s.moved[std::size_t(a)];
      for (index_t c = 0; c < count; ++c) row[c] = moved ? f[s.columns[std::size_t(c)]] : T(0);
      const T* j = jacobian_.data() + l * n_ * n_ + s.rows[std::size_t(a)];
      for (index_t b = 0; b < k; ++b) between_[a * k + b] = j[s.rows[std::size_t(b)] * n_];
    }
    for (index_t c = 0; c < count; ++c) g[s.columns[std::size_t(c)]] += owed_[c];
    linalg::gemm<T>(op::none, {before_.data(), count, k}, op::none, {between_.data(), k, k}, true,
                    {m, count, k});
  }

  dims sizes_;
  index_t n_, kept_ = 0, probes_ = 0;
  bool hooked_, exact_ = true;
  std::vector<group> groups_;
  std::vector<std::uint8_t> joined_;  // nz(J), n x n, column-major
  std::vector<index_t> probe_;        // of every row, its sum
  std::optional<std::conditional_t<has_diag_jacobian<F>, diagonal<F>, std::nullptr_t>> own_;
  buffer<T> m_, rows_, jacobian_;
  buffer<T> before_;   // M_g before the step
  buffer<T> between_;  // J_g', k x k: what kept row b does to kept row a is (b, a)
  buffer<T> owed_;     // q M_g
  block<T, state_cotangent_space> row_, unit_, zeros_;
};

}  // namespace unroll::influence
