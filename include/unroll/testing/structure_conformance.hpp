#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "unroll/system/concepts.hpp"

namespace unroll::testing::detail {

// Whether the masks let every entry through that is not zero.
template <class F, class Row>
bool masks_hold(const F& f, const std::vector<Row>& rows) {
  const dims d = f.size();
  const index_t n = d.state / d.lanes;
  std::vector<std::uint8_t> j(std::size_t(n * n)), moved(std::size_t(n * d.params));
  f.jacobian_mask(view<std::uint8_t>(j));
  const index_t half = d.params / 2;  // in two parts, as a caller may ask for them
  f.immediate_mask(view<std::uint8_t>(moved.data(), n * half), 0, half);
  f.immediate_mask(view<std::uint8_t>(moved.data() + n * half, n * (d.params - half)), half, d.params);
  for (index_t i = 0; i < d.state; ++i) {
    const Row& row = rows[std::size_t(i)];
    for (index_t k = 0; k < n; ++k)
      if (row.ds[std::size_t(i / n * n + k)] != 0 && !j[std::size_t(k * n + i % n)]) return false;
    for (index_t p = 0; p < d.params; ++p)
      if (row.dtheta[std::size_t(p)] != 0 && !moved[std::size_t(p * n + i % n)]) return false;
  }
  return true;
}

// Whether D_b (:, i) a_b (j) are the rows, and nothing else of theta moves the state.
template <class F, class Row>
bool factors_hold(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
                  const std::vector<Row>& rows) {
  using T = typename F::scalar;
  const dims dim = f.size();
  const index_t n = dim.state / dim.lanes;
  const std::vector<weight_matrix> matrices = f.weight_matrices();
  index_t columns = 0, sum = 0;
  for (const weight_matrix& w : matrices) columns += w.columns, sum += w.rows;
  std::vector<T> a(std::size_t(dim.lanes * columns)), d(std::size_t(dim.state * sum));
  f.factors(x, e, view<T>(a), view<T>(d));
  for (index_t k = 0; k < dim.state; ++k) {
    std::vector<T> rest = rows[std::size_t(k)].dtheta;
    double largest = 0;
    for (const T v : rest) largest = std::max(largest, std::abs(double(v)));
    const T *al = a.data() + k / n * columns, *dl = d.data() + k / n * n * sum + k % n;
    for (const weight_matrix& w : matrices) {
      for (index_t j = 0; j < w.columns; ++j)
        for (index_t i = 0; i < w.rows; ++i)
          rest.at(std::size_t(w.first + j * w.stride + i)) -= dl[i * n] * al[j];
      al += w.columns, dl += w.rows * n;
    }
    for (const T v : rest)
      if (!(std::abs(double(v)) <= 256 * double(std::numeric_limits<T>::epsilon()) * largest)) return false;
  }
  return true;
}

/// What is wrong with what the system says of the structure of its Jacobians, or nothing. rows: of each state
/// entry of all lanes the row of ds'/ds (`ds`) and of ds'/dtheta (`dtheta`), as vjp has them.
template <class F, class Row>
std::string structure_fault(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
                            const std::vector<Row>& rows) {
  if constexpr (has_masks<F>)
    if (supports(f, hook::masks) && !masks_hold(f, rows)) return "masks: an entry of vjp is masked";
  if constexpr (has_factors<F>)
    if (supports(f, hook::factors) && !factors_hold(f, x, e, rows)) return "factors: disagree with vjp";
  return {};
}

}  // namespace unroll::testing::detail
