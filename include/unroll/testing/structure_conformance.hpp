#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "unroll/core/block.hpp"
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

// What is wrong with the factored vjp: dz a' and the rest must be what vjp adds.
template <class F>
std::string factored_fault(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e) {
  using T = typename F::scalar;
  constexpr T poison = std::numeric_limits<T>::quiet_NaN();
  const dims dim = f.size();
  const std::vector<weight_matrix> matrices = f.weight_matrices();
  index_t columns = 0, sum = 0;
  for (const weight_matrix& w : matrices) columns += w.columns, sum += w.rows;
  block<T, state_cotangent_space> dnext(dim.state), ds(dim.state), expected(dim.state);
  for (index_t i = 0; i < dim.state; ++i)
    dnext[i] = T(i % 3 - 1) / 2 + T(i) / T(dim.state), ds[i] = expected[i] = 1;
  std::vector<T> a(std::size_t(dim.lanes * columns)), d(std::size_t(dim.state * sum));
  std::fill(e.workspace.begin(), e.workspace.end(), poison);
  f.factors(x, e, view<T>(a), view<T>(d));
  gradient<T> whole(dim.params), rest(dim.params);
  std::fill(whole.begin(), whole.end(), T(1));
  std::fill(rest.begin(), rest.end(), T(1));
  std::fill(e.workspace.begin(), e.workspace.end(), poison);
  f.vjp(x, e, dnext, T(0.75), expected, whole);
  guarded<T> dz(dim.lanes * sum, poison), alone(dim.lanes * sum, poison);
  std::fill(e.workspace.begin(), e.workspace.end(), poison);
  f.factored_vjp(x, e, dnext, T(0.75), ds, rest, view<T>(dz));
  std::fill(e.workspace.begin(), e.workspace.end(), poison);
  f.factored_vjp(x, e, dnext, T(0.75), {}, {}, view<T>(alone));
  if (!dz.intact() || !alone.intact()) return "factored_vjp: writes outside its memory";
  if (dz.values() != alone.values()) return "factored_vjp: depends on what is wanted";
  for (index_t l = 0; l < dim.lanes; ++l) {
    const T *al = a.data() + l * columns, *zl = dz.data() + l * sum;
    for (const weight_matrix& w : matrices) {
      for (index_t j = 0; j < w.columns; ++j)
        for (index_t i = 0; i < w.rows; ++i) rest[w.first + j * w.stride + i] += zl[i] * al[j];
      al += w.columns, zl += w.rows;
    }
  }
  const auto differ = [](const auto& p, const auto& q) {
    double largest = 1, most = 0;
    for (index_t i = 0; i < p.size(); ++i) {
      largest = std::max(largest, std::abs(double(q[i])));
      if (const double by = std::abs(double(p[i] - q[i])); !(by <= most)) most = by;
    }
    return !(most <= 256 * double(std::numeric_limits<T>::epsilon()) * largest);
  };
  if (differ(rest, whole)) return "factored_vjp: its gradient disagrees with vjp";
  if (differ(ds, expected)) return "factored_vjp: its cotangent of the state disagrees with vjp";
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
  index_t complex = 0;
  if constexpr (requires { f.complex_matrices(); }) complex = f.complex_matrices();
  if (complex < 0 || complex > index_t(matrices.size()) || (complex > 0 && m != 2))
    return "complex_matrices: more than there are, or a unit is not two numbers";
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
  const auto unlike = [](const T* p, index_t k, index_t other, T sign) { return p[k] != sign * p[other]; };
  for (index_t l = 0; l < dim.lanes && complex > 0; ++l)
    for (index_t u = 0; u < units; ++u) {
      const T *jl = j.data() + l * n * m + u, *dl = d.data() + l * sum * m + u;
      bool analytic = !unlike(jl, 0, 3 * units, T(1)) && !unlike(jl, units, 2 * units, T(-1));
      for (index_t b = 0; b < complex; ++b, dl += 2 * units * m) {
        if (matrices[std::size_t(b)].rows != 2 * units)
          return "complex_matrices: a matrix has no real and imaginary rows";
        analytic = analytic && !unlike(dl, 0, 3 * units, T(1)) && !unlike(dl, 2 * units, units, T(-1));
      }
      if (!analytic) return "complex_matrices: a block is not that of a complex number";
    }
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
  if constexpr (has_factored_vjp<F>)
    if (supports(f, hook::factors))
      if (std::string fault = factored_fault(f, x, e); !fault.empty()) return fault;
  if constexpr (has_unit_layers<F>)
    if (supports(f, hook::unit_layers))
      if (std::string fault = layer_fault(f, x, e, rows); !fault.empty()) return fault;
  if constexpr (has_diag_jacobian<F>)
    if (supports(f, hook::diag_jacobian)) return unit_fault(f, x, e, rows);
  return {};
}

}  // namespace unroll::testing::detail
