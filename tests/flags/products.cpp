// The products of core/linalg.hpp against plain loops, for the macros and flags that check.sh sets.
#include <cmath>
#include <cstdio>
#include <vector>

#include "unroll/core/linalg.hpp"

using namespace unroll;

template <class T>
double worst_difference(index_t rows, index_t cols, index_t stride) {
  std::vector<T> a(std::size_t(stride * cols)), x(std::size_t(rows + cols)), y(x.size());
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = T(std::sin(double(i)));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = T(std::cos(double(i)));
  double worst = 0;
  for (const bool transposed : {false, true}) {
    const index_t n = transposed ? cols : rows, m = transposed ? rows : cols;
    linalg::gemv(transposed ? op::transpose : op::none, {a.data(), rows, cols, stride}, x.data(), false,
                 y.data());
    for (index_t i = 0; i < n; ++i) {
      double sum = 0;
      for (index_t j = 0; j < m; ++j)
        sum +=
            double(a[std::size_t(transposed ? j + i * stride : i + j * stride)]) * double(x[std::size_t(j)]);
      worst = std::max(worst, std::abs(sum - double(y[std::size_t(i)])));
    }
  }
  return worst;
}

int main() {
  double worst = 0;
  for (const index_t rows : {1, 3, 24, 70})
    for (const index_t cols : {1, 2, 17, 40})
      worst = std::max({worst, worst_difference<double>(rows, cols, rows + 2),
                        1e-9 * worst_difference<float>(rows, cols, rows)});
  std::printf("%s\n", worst < 1e-12 ? "right" : "wrong");
  return worst < 1e-12 ? 0 : 1;
}
