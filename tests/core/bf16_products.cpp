#include "unroll/core/bf16_products.hpp"

#include <cstdio>
#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"
#include "unroll/core/error.hpp"
#include "unroll/rng/draw.hpp"

using namespace unroll;
using linalg::bf16_way;

namespace {

// A product of random numbers, its operands in memory that is larger than they are.
struct product {
  op ow, ob;
  index_t m, n, k;
  std::vector<float> b, c, before;
  std::vector<bf16> w;
  bool add;

  product(index_t m_, index_t n_, index_t k_, op ow_, op ob_, bool add_, index_t offset = 0)
      : ow(ow_), ob(ob_), m(m_), n(n_), k(k_), add(add_), shift(offset) {
    before = drawn(0, (m + gap) * n);
    b = drawn(1, (rows_b() + gap) * columns_b());
    for (const float x : drawn(2, (rows_w() + gap) * columns_w())) w.emplace_back(x);
    w.insert(w.begin(), std::size_t(shift), bf16(0.0f));
    b.insert(b.begin(), std::size_t(shift), 0.0f);
  }
  matrix<const bf16> weights() const { return {w.data() + shift, rows_w(), columns_w(), rows_w() + gap}; }
  matrix<const float> other() const { return {b.data() + shift, rows_b(), columns_b(), rows_b() + gap}; }

  const std::vector<float>& run(bf16_way way) {
    c = before;
    linalg::gemm(ow, weights(), ob, other(), add, {c.data(), m, n, m + gap}, way);
    return c;
  }
  /// The largest error of the last run, over rounding sum |w b| + adding (|c before| + sum |w b|).
  double error(double rounding, double adding) const {
    double most = 0;
    for (index_t j = 0; j < n; ++j)
      for (index_t i = 0; i < m + gap; ++i) {
        const std::size_t at = std::size_t(i + j * (m + gap));
        double sum = i < m && !add ? 0 : double(before[at]), size = std::abs(sum), terms = 0;
        for (index_t q = 0; i < m && q < k; ++q) {
          const matrix<const bf16> a = weights();
          const matrix<const float> x = other();
          const double wq =
              double(float(ow == op::none ? a.data[i + q * a.stride] : a.data[q + i * a.stride]));
          const double term =
              wq * double(ob == op::none ? x.data[q + j * x.stride] : x.data[j + q * x.stride]);
          sum += term;
          terms += std::abs(term);
        }
        const double allowed = rounding * terms + adding * (size + terms);
        const double off = std::abs(double(c[at]) - sum);
        most = std::max(most, i < m     ? off / (allowed + 1e-30)
                              : off > 0 ? 1e9
                                        : 0);  // no column's end is touched
      }
    return most;
  }

 private:
  static constexpr index_t gap = 3;  // numbers between columns
  index_t shift;
  index_t rows_w() const { return ow == op::none ? m : k; }
  index_t columns_w() const { return ow == op::none ? k : m; }
  index_t rows_b() const { return ob == op::none ? k : n; }
  index_t columns_b() const { return ob == op::none ? n : k; }
  static std::vector<float> drawn(std::int64_t step, index_t count) {
    std::vector<float> x(static_cast<std::size_t>(count));
    draw_normals(key{5}, step, view<float>(x.data(), count));
    return x;
  }
};

constexpr index_t sizes[][3] = {{1, 1, 1},    {5, 1, 3},      {17, 1, 40}, {64, 1, 513},
                                {3, 2, 1},    {16, 2, 7},     {17, 6, 33}, {70, 7, 64},
                                {64, 13, 31}, {130, 3, 1030}, {33, 260, 9}};
constexpr double eps = 0x1p-24;

}  // namespace

TEST_CASE("products with bfloat16 weights have the error of the float product of the same weights") {
  FOR_EACH_INSTRUCTION_SET();
  for (const auto& [m, n, k] : sizes)
    for (const op ow : {op::none, op::transpose})
      for (const op ob : {op::none, op::transpose})
        for (const bool add : {false, true}) {
          product p(m, n, k, ow, ob, add);
          p.run(bf16_way::widened);
          INFO(m << " x " << n << " x " << k);
          CHECK(p.error(0, double(k + 2) * eps) <= 1);
        }
  product empty(4, 3, 0, op::transpose, op::none, false);
  empty.run(bf16_way::widened);
  CHECK(empty.error(0, 0) == 0);
}

TEST_CASE("dot pairs round the activations to bfloat16 and nothing else") {
  if (!linalg::detail::has_dot_pairs()) {
    product p(4, 3, 2, op::transpose, op::none, false);
    CHECK_THROWS_AS(p.run(bf16_way::dot_pairs), error);
    std::puts("skipped: no AVX512-BF16");
    return;
  }
  for (const auto& [m, n, k] : sizes)
    for (const bool add : {false, true}) {
      product p(m, n, k, op::transpose, op::none, add);
      p.run(bf16_way::dot_pairs);
      INFO(m << " x " << n << " x " << k);
      CHECK(p.error(0x1p-8, 2 * double(k + 2) * eps) <= 1);
      for (float& x : p.b) x = bf16(x);  // now there is nothing to round
      p.run(bf16_way::dot_pairs);
      CHECK(p.error(0, 2 * double(k + 2) * eps) <= 1);
      for (const op ow : {op::none, op::transpose})
        if (ow == op::none || n == 1) {  // gradients and single columns go through floats
          product q(m, n, k, ow, op::none, add);
          q.run(bf16_way::dot_pairs);
          CHECK(q.error(0, double(k + 2) * eps) <= 1);
        }
    }
}

TEST_CASE("a product of no terms with bfloat16 weights is zero") {
  const bf16 none(0.0f);
  for (const op ow : {op::none, op::transpose}) {
    const matrix<const bf16> w =
        ow == op::none ? matrix<const bf16>(&none, 3, 0) : matrix<const bf16>(&none, 0, 3);
    for (const bool add : {false, true}) {
      std::vector<float> y(3, 7.0f), c(6, 7.0f);
      linalg::gemv(ow, w, y.data(), add, y.data());
      linalg::gemm(ow, w, op::none, matrix<const float>(c.data(), 0, 2), add, matrix<float>(c.data(), 3, 2));
      CHECK(y == std::vector<float>(3, add ? 7.0f : 0.0f));
      CHECK(c == std::vector<float>(6, add ? 7.0f : 0.0f));
    }
  }
}

TEST_CASE("bits of products with bfloat16 weights depend neither on addresses nor on other columns") {
  for (const bf16_way way : {bf16_way::widened, bf16_way::dot_pairs}) {
    if (way == bf16_way::dot_pairs && !linalg::detail::has_dot_pairs()) continue;
    product p(70, 13, 700, op::transpose, op::none, false), q(70, 13, 700, op::transpose, op::none, false, 1);
    CHECK(p.run(way) == q.run(way));
    if (way == bf16_way::widened) continue;
    std::vector<float> few(70 * 2);
    linalg::gemm(op::transpose, p.weights(), op::none, columns_of(p.other(), 11, 2), false,
                 {few.data(), 70, 2}, way);
    for (std::size_t i = 0; i < 70; ++i) CHECK(few[70 + i] == p.c[12 * 73 + i]);
  }
}
