#include "unroll/core/left_product.hpp"

#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"
#include "unroll/rng/draw.hpp"

using namespace unroll;

namespace {

template <class T>
std::vector<T> normals(index_t n, std::uint64_t seed) {
  std::vector<T> v(static_cast<std::size_t>(n));
  draw_normals(key{seed}, 0, view<T>(v));
  return v;
}

// Against the three formulas one after the other; true where the kernel did anything.
template <class T>
bool check_left_product(index_t rows, index_t columns, double tolerance) {
  const auto a = normals<T>(rows * rows, 1), x = normals<T>(rows, 2);
  const auto m0 = normals<T>(rows * columns, 3), y0 = normals<T>(columns, 4);
  auto m = m0, y = y0, expected = m0;
  auto dots = y0;
  linalg::gemv<T>(op::transpose, {m0.data(), rows, columns}, x.data(), true, dots.data());
  linalg::gemm<T>(op::none, {a.data(), rows, rows}, op::none, {m0.data(), rows, columns}, false,
                  matrix<T>{expected.data(), rows, columns});
  if (!linalg::left_product<T>(a.data(), x.data(), {m.data(), rows, columns}, y.data())) {
    CHECK(m == m0);
    CHECK(y == y0);
    return false;
  }
  double worst = 0;
  for (std::size_t i = 0; i < m.size(); ++i) worst = std::max(worst, double(std::abs(m[i] - expected[i])));
  for (std::size_t i = 0; i < y.size(); ++i) worst = std::max(worst, double(std::abs(y[i] - dots[i])));
  INFO(rows << " x " << columns);
  CHECK(worst <= tolerance * double(rows));
  return true;
}

}  // namespace

TEST_CASE("a product in place from the left is the product, with the dots of the columns before",
          "[linalg]") {
  FOR_EACH_INSTRUCTION_SET();
  index_t done = 0;
  for (index_t rows = 1; rows <= 70; ++rows)
    for (const index_t columns : {0, 1, 3, 8, 21}) {
      done += check_left_product<double>(rows, columns, 1e-14);
      done += check_left_product<float>(rows, columns, 5e-6);
    }
  CHECK(done > 0);
}
