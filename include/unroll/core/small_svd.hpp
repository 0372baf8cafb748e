#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "unroll/core/config.hpp"

namespace unroll::linalg {

/// Singular values of a small matrix, A = P diag(d) V', by one-sided Jacobi rotations (Hestenes 1958), which
/// are relatively accurate for small values too. a: m x n, column-major, becomes P; v: n x n, WRITTEN; d: n
/// values, WRITTEN, the largest first. Where a value is 0 so is its column of P. A rotation costs m + n, a
/// sweep n^2 / 2 of them, and there are about six sweeps. Nothing is allocated. What is not finite gives
/// something not finite.
inline void jacobi_svd(index_t m, index_t n, double* a, double* v, double* d) {
  for (index_t k = 0; k < n * n; ++k) v[k] = k % (n + 1) == 0;
  const auto dot = [m](const double* x, const double* y) {
    double sum = 0;
    for (index_t i = 0; i < m; ++i) sum += x[i] * y[i];
    return sum;
  };
  const auto rotate = [](double* x, double* y, index_t size, double c, double s) {
    for (index_t i = 0; i < size; ++i) {
      const double old = x[i];
      x[i] = c * old - s * y[i];
      y[i] = s * old + c * y[i];
    }
  };
  bool moved = true;
  for (int sweep = 0; moved && sweep < 40; ++sweep) {
    moved = false;
    for (index_t p = 0; p < n; ++p)
      for (index_t q = p + 1; q < n; ++q) {
        double *x = a + p * m, *y = a + q * m;
        const double xx = dot(x, x), yy = dot(y, y), xy = dot(x, y);
        if (std::abs(xy) <= std::numeric_limits<double>::epsilon() * std::sqrt(xx) * std::sqrt(yy)) continue;
        moved = true;
        const double zeta = (yy - xx) / (2 * xy);
        const double t = std::copysign(1 / (std::abs(zeta) + std::hypot(1, zeta)), zeta);
        const double c = 1 / std::sqrt(1 + t * t);
        rotate(x, y, m, c, c * t);
        rotate(v + p * n, v + q * n, n, c, c * t);
      }
  }
  for (index_t j = 0; j < n; ++j) d[j] = std::sqrt(dot(a + j * m, a + j * m));
  for (index_t j = 0; j < n; ++j) {
    const index_t k = std::max_element(d + j, d + n) - d;
    if (k != j) {
      std::swap(d[j], d[k]);
      std::swap_ranges(a + j * m, a + (j + 1) * m, a + k * m);
      std::swap_ranges(v + j * n, v + (j + 1) * n, v + k * n);
    }
    for (index_t i = 0; i < m && d[j] != 0; ++i) a[j * m + i] /= d[j];
  }
}

}  // namespace unroll::linalg
