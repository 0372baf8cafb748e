#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "unroll/system/concepts.hpp"
#include "unroll/system/layer_of.hpp"
#include "unroll/testing/guarded.hpp"

namespace unroll::testing::detail {

// What is wrong with the masks, or nothing.
template <class F, class Row>
std::string mask_fault(const F& f, const std::vector<Row>& rows) {
  const dims d = f.size();
  const index_t n = d.state / d.lanes;
  constexpr std::uint8_t unwritten = 0xFF;
  bool intact = true;
  guarded<std::uint8_t> j(n * n, unwritten);
  f.jacobian_mask(view<std::uint8_t>(j));
  intact = intact && j.intact();
  std::vector<std::uint8_t> moved;  // n x params, in two parts, as a caller may ask for them
  for (const auto& [p0, p1] : {std::pair(index_t(0), d.params / 2), std::pair(d.params / 2, d.params)}) {
    guarded<std::uint8_t> part(n * (p1 - p0), unwritten);
    f.immediate_mask(view<std::uint8_t>(part), p0, p1);
    intact = intact && part.intact();
    const auto values = part.values();
    moved.insert(moved.end(), values.begin(), values.end());
  }
  if (!intact) return "masks: write outside their memory";
  const auto zero_or_one = [](std::uint8_t v) { return v <= 1; };
  if (const auto values = j.values(); !std::all_of(values.begin(), values.end(), zero_or_one) ||
                                      !std::all_of(moved.begin(), moved.end(), zero_or_one))
    return "masks: an entry is neither 0 nor 1, or is not written";
  for (index_t i = 0; i < d.state; ++i) {
    const Row& row = rows[std::size_t(i)];
    for (index_t k = 0; k < n; ++k)
      if (row.ds[std::size_t(i / n * n + k)] != 0 && !j.data()[k * n + i % n])
        return "masks: an entry of vjp is masked";
    for (index_t p = 0; p < d.params; ++p)
      if (row.dtheta[std::size_t(p)] != 0 && !moved[std::size_t(p * n + i % n)])
        return "masks: an entry of vjp is masked";
  }
  return {};
}

// What is wrong with the factors: D_b (:, i) a_b (j) must be the rows, and nothing else of theta move the
// state.
template <class F, class Row>
std::string factor_fault(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
                         const std::vector<Row>& rows) {
  using T = typename F::scalar;
  constexpr T poison = std::numeric_limits<T>::quiet_NaN();
  const dims dim = f.size();
  const index_t n = dim.state / dim.lanes;
  const std::vector<weight_matrix> matrices = f.weight_matrices();
  index_t columns = 0, sum = 0;
  for (const weight_matrix& w : matrices) columns += w.columns, sum += w.rows;
  guarded<T> a(dim.lanes * columns, poison), d(dim.state * sum, poison);
  std::fill(e.workspace.begin(), e.workspace.end(), poison);
  f.factors(x, e, view<T>(a), view<T>(d));
  if (!a.intact() || !d.intact()) return "factors: write outside their memory";
  for (index_t k = 0; k < dim.state; ++k) {
    std::vector<T> rest = rows[std::size_t(k)].dtheta;
    const double tolerance = 256 * double(std::numeric_limits<T>::epsilon()) * largest(rest);
    const T *al = a.data() + k / n * columns, *dl = d.data() + k / n * n * sum + k % n;
    for (const weight_matrix& w : matrices) {
      for (index_t j = 0; j < w.columns; ++j)
        for (index_t i = 0; i < w.rows; ++i)
          rest.at(std::size_t(w.first + j * w.stride + i)) -= dl[i * n] * al[j];
      al += w.columns, dl += w.rows * n;
    }
    for (const T v : rest)
      if (!(std::abs(double(v)) <= tolerance)) return "factors: disagree with vjp";
  }
  return {};
}

// What is wrong with what is said of units: their blocks must be those of the rows, and where units stand
// apart nothing else be other than 0.
template <class F, class Row>
std::string unit_fault(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
                       const std::vector<Row>& rows) {
  using T = typename F::scalar;
  constexpr T poison = std::numeric_limits<T>::quiet_NaN();
  const dims dim = f.size();
  const index_t n = dim.state / dim.lanes, units = f.units();
  if (units < 1 || n % units != 0) return "units: are no divisor of the state of a lane";
  const std::vector<weight_matrix> matrices = f.weight_matrices();
  const index_t m = n / units;
  index_t columns = 0, sum = 0;
  for (const weight_matrix& w : matrices) {
    if (w.rows % units != 0) return "units: are no divisor of the rows of a matrix";
    columns += w.columns, sum += w.rows;
  }
  guarded<T> j(dim.state * m, poison), a(dim.lanes * columns, poison), d(dim.lanes * sum * m, poison);
  std::fill(e.workspace.begin(), e.workspace.end(), poison);
  f.diag_jacobian(x, e, view<T>(j));
  std::fill(e.workspace.begin(), e.workspace.end(), poison);
  f.diag_factors(x, e, view<T>(a), view<T>(d));
  if (!j.intact()) return "diag_jacobian: writes outside its memory";
  if (!a.intact() || !d.intact()) return "diag_factors: write outside their memory";
  const auto differs = [](T v, double scale) {
    return !(std::abs(double(v)) <= 256 * double(std::numeric_limits<T>::epsilon()) * scale);
  };
  for (index_t k = 0; k < dim.state; ++k) {
    const Row& row = rows[std::size_t(k)];
    const index_t l = k / n, unit = k % n % units, number = k % n / units;
    for (index_t c = 0; c < n; ++c) {
      const T whole = row.ds[std::size_t(l * n + c)];
      if (c % units != unit) {
        if (f.units_apart() && whole != 0) return "units_apart: a unit listens to another";
      } else if (differs(whole - j.data()[l * n * m + (c / units * m + number) * units + unit],
                         largest(row.ds))) {
        return "diag_jacobian: disagrees with vjp";
      }
    }
    std::vector<T> rest = row.dtheta;
    const T *al = a.data() + l * columns, *dl = d.data() + l * sum * m;
    for (const weight_matrix& w : matrices) {
      for (index_t c = 0; c < w.columns; ++c)
        for (index_t r = 0; r < w.rows; ++r) {
          T& whole = rest.at(std::size_t(w.first + c * w.stride + r));
          if (r % units == unit)
            whole -= dl[number * w.rows + r] * al[c];
          else if (!f.units_apart())
            whole = 0;
        }
      al += w.columns, dl += w.rows * m;
    }
    for (const T v : rest)
      if (differs(v, largest(row.dtheta))) return "diag_factors: disagree with vjp";
  }
  return {};
}

// The same of every layer, in the rows of its own numbers, as far as they are of itself.
template <class F, class Row>
std::string layer_fault(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
                        const std::vector<Row>& rows) {
  const dims d = f.size();
  const index_t n = d.state / d.lanes;
  const std::vector<unit_layer> layers = f.unit_layers();
  for (index_t k = 0; k < index_t(layers.size()); ++k) {
    const unit_layer& at = layers[std::size_t(k)];
    const layer_of<F> layer(f, k);
    std::vector<Row> own;
    for (index_t i = 0; i < d.state; ++i) {
      if (i % n < at.first || i % n >= at.first + at.numbers) continue;
      const Row& whole = rows[std::size_t(i)];
      Row row = whole;
      row.ds.clear();
      for (index_t j = 0; j < d.state; ++j)
        if (j % n >= at.first && j % n < at.first + at.numbers) row.ds.push_back(whole.ds[std::size_t(j)]);
      std::fill(row.dtheta.begin(), row.dtheta.end(), 0);
      for (const weight_matrix& w : layer.weight_matrices())
        for (index_t c = 0; c < w.columns; ++c)
          std::copy_n(whole.dtheta.begin() + w.first + c * w.stride, w.rows,
                      row.dtheta.begin() + w.first + c * w.stride);
      own.push_back(std::move(row));
    }
    if (std::string fault = unit_fault(layer, x, e, own); !fault.empty())
      return "layer " + std::to_string(k) + ": " + fault;
  }
  return {};
}

/// What is wrong with what the system says of the structure of its Jacobians, or nothing. rows: of each state
/// entry of all lanes the row of ds'/ds (`ds`) and of ds'/dtheta (`dtheta`), as vjp has them.
template <class F, class Row>
std::string structure_fault(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
                            const std::vector<Row>& rows) {
  if constexpr (has_masks<F>)
    if (supports(f, hook::masks))
      if (std::string fault = mask_fault(f, rows); !fault.empty()) return fault;
  if constexpr (has_factors<F>)
    if (supports(f, hook::factors))
      if (std::string fault = factor_fault(f, x, e, rows); !fault.empty()) return fault;
  if constexpr (has_unit_layers<F>)
    if (supports(f, hook::unit_layers))
      if (std::string fault = layer_fault(f, x, e, rows); !fault.empty()) return fault;
  if constexpr (has_diag_jacobian<F>)
    if (supports(f, hook::diag_jacobian)) return unit_fault(f, x, e, rows);
  return {};
}

}  // namespace unroll::testing::detail
