#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "unroll/system/concepts.hpp"

namespace unroll::influence {

/// The entries of M = ds/dtheta that are kept, n x params, by columns that keep the same ones.
struct kept_pattern {
  /// Columns of one pattern.
  struct group {
    std::vector<index_t> rows;     ///< that are kept, in order
    std::vector<bool> moved;       ///< of each: whether F can differ from zero there
    std::vector<index_t> columns;  ///< the parameters
    index_t entries() const { return index_t(rows.size() * columns.size()); }  ///< that it keeps
    /// Whether `these`, in order, are the rows that its parameters move.
    bool moved_are(const std::vector<index_t>& these) const {
      std::size_t found = 0;
      for (std::size_t a = 0; a < rows.size(); ++a)
        if (moved[a] && (found == these.size() || these[found++] != rows[a])) return false;
      return found == these.size();
    }
  };
  std::vector<group> groups;  ///< those that keep anything
  bool closed = true;         ///< whether J leads out of none of them: then M has no other entries

  index_t entries() const {
    index_t all = 0;
    for (const group& g : groups) all += g.entries();
    return all;
  }  ///< that are kept
};

/// S = nz(F) + nz(J) nz(F) + ... + nz(J)^(reach - 1) nz(F), by the masks that the system states. joined:
/// nz(J), n x n, column-major. Takes a look at n entries for each parameter, at each group once for each
/// group, and at most n^2 entries for each group.
template <class F>
kept_pattern find_kept_pattern(const F& f, view<const std::uint8_t> joined, index_t reach) {
  const index_t n = f.size().state / f.size().lanes;
  kept_pattern s;
  std::vector<std::uint8_t> moved(static_cast<std::size_t>(n));
  std::vector<index_t> level, next;  // rows of one level
  std::size_t at = 0;  // the group found last: in the columns of a matrix they follow each other
  for (index_t p = 0; p < f.size().params; ++p) {
    f.immediate_mask(view<std::uint8_t>(moved), p, p + 1);
    level.clear();
    for (index_t i = 0; i < n; ++i)
      if (moved[std::size_t(i)]) level.push_back(i);
    if (level.empty()) continue;
    const std::size_t known = s.groups.size();
    std::size_t tried = 0;
    while (tried < known && !s.groups[(at + 1 + tried) % known].moved_are(level)) ++tried;
    at = tried < known ? (at + 1 + tried) % known : known;
    if (at == known) {
      std::vector<std::uint8_t> in = moved;
      for (index_t k = 1; !level.empty(); ++k) {
        next.clear();
        for (const index_t j : level)
          for (index_t i = 0; i < n; ++i)
            if (joined[j * n + i] && !in[std::size_t(i)]) {
              if (k < reach) in[std::size_t(i)] = 1;
              next.push_back(i);
            }
        if (k >= reach) {
          s.closed = s.closed && next.empty();
          break;
        }
        std::swap(level, next);
      }
      kept_pattern::group& g = s.groups.emplace_back();
      for (index_t i = 0; i < n; ++i)
        if (in[std::size_t(i)]) {
          g.rows.push_back(i);
          g.moved.push_back(moved[std::size_t(i)] != 0);
        }
    }
    s.groups[at].columns.push_back(p);
  }
  return s;
}

/// The units, where the masks say that each row of the matrices moves numbers of its own one alone; else 0.
/// Looks at n numbers a row.
template <class F>
index_t units_of_rows([[maybe_unused]] const F& f,
                      [[maybe_unused]] const std::vector<weight_matrix>& matrices) {
  if constexpr (has_masks<F> && has_diag_jacobian<F>)
    if (supports(f, hook::masks) && supports(f, hook::diag_jacobian)) {
      const index_t n = f.size().state / f.size().lanes, units = f.units();
      for (const weight_matrix& w : matrices) {
        std::vector<std::uint8_t> mask(std::size_t(n * w.rows));  // of its first column
        f.immediate_mask(view<std::uint8_t>(mask.data(), n * w.rows), w.first, w.first + w.rows);
        for (index_t k = 0; k < n * w.rows; ++k)
          if (mask[std::size_t(k)] != 0 && k % n % units != k / n % units) return 0;
      }
      return units;
    }
  return 0;
}

/// Whether S holds, of the parameters in the system's matrices, all numbers of the unit that each feeds, and
/// nothing else: what `diagonal` keeps.
template <class F>
bool keeps_own_units(const F& f, const kept_pattern& s) {
  if constexpr (has_diag_jacobian<F>) {
    if (!supports(f, hook::diag_jacobian)) return false;
    const index_t n = f.size().state / f.size().lanes, units = f.units();
    if (units < 1 || n % units != 0) return false;
    std::vector<index_t> unit(static_cast<std::size_t>(f.size().params), units);  // that it feeds, or `units`
    index_t entries = 0;
    for (const weight_matrix& w : f.weight_matrices()) {
      if (w.rows % units != 0) return false;
      for (index_t c = 0; c < w.columns; ++c)
        for (index_t r = 0; r < w.rows; ++r) unit[std::size_t(w.first + c * w.stride + r)] = r % units;
      entries += w.rows * w.columns * (n / units);
    }
    for (const kept_pattern::group& g : s.groups)
      for (const index_t p : g.columns)
        for (const index_t row : g.rows)
          if (row % units != unit[std::size_t(p)]) return false;
    return entries == s.entries();
  } else {
    return false;
  }
}

}  // namespace unroll::influence
