#include "unroll/kernels/split_product_body.hpp"

#include "tests/support/catch.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/testing/simt/context.hpp"

using namespace unroll;

namespace {

/// Numbers around 0 of size 1 that a bfloat16 can hold.
template <class U>
std::vector<U> drawn(index_t n, std::uint64_t seed) {
  std::vector<U> x;
  for (index_t i = 0; i < n; ++i)
    x.push_back(U(float(bf16(float(draw_normal({seed}, 0, std::uint64_t(i)))))));
  return x;
}

}  // namespace

TEST_CASE("a product whose terms are summed in parts", "[split_product_body]") {
  const index_t m = 70, n = 33, k = 1096, spare = 8;  // the last part has 72 terms
  const index_t terms = kernels::product_split::terms(k), parts = kernels::product_split::parts(k);
  CHECK(terms == 128);
  CHECK(parts == 9);
  CHECK(kernels::product_split::pays(m, k));
  CHECK_FALSE(kernels::product_split::pays(4096, 4096));
  CHECK_FALSE(kernels::product_split::pays(128, 1000));
  const auto b = drawn<bf16>(k * n, 2);
  const auto c0 = drawn<float>((m + spare) * n, 3);
  for (const op oa : {op::none, op::transpose})
    for (const bool add : {false, true}) {
      const index_t rows = oa == op::none ? m : k, cols = oa == op::none ? k : m, stride = rows + spare;
      const auto a = drawn<bf16>(stride * cols, 1);
      const auto with = [&](key order) {
        std::vector<float> products(std::size_t(m * n * parts), NAN), c = c0;
        testing::simt::run(kernels::gemm_mma_body<bf16, bf16, float>{.oa = oa,
                                                                     .a = {a.data(), rows, cols, stride},
                                                                     .ob = op::none,
                                                                     .b = {b.data(), k, n},
                                                                     .alpha = 1,
                                                                     .add = false,
                                                                     .c = {products.data(), m, n},
                                                                     .k_part = terms},
                           order);
        testing::simt::run(kernels::join_products_body<float>{.products = products.data(),
                                                              .parts = parts,
                                                              .alpha = 0.5f,
                                                              .add = add,
                                                              .c = {c.data(), m, n, m + spare}},
                           order);
        return c;
      };
      const auto got = with({1});
      CHECK(got == with({2}));
      double most = 0, size = 0;
      for (index_t j = 0; j < n; ++j)
        for (index_t i = 0; i < m + spare; ++i) {
          const std::size_t at = std::size_t(i + j * (m + spare));
          if (i >= m) {
            CHECK(got[at] == c0[at]);  // between the columns
            continue;
          }
          double sum = 0;
          for (index_t t = 0; t < k; ++t)
            sum += double(float(a[std::size_t(oa == op::none ? i + t * stride : t + i * stride)])) *
                   double(float(b[std::size_t(t + j * k)]));
          const double want = (add ? double(c0[at]) : 0) + sum / 2;
          most = std::max(most, std::abs(double(got[at]) - want));
          size = std::max(size, std::abs(want));
        }
      CHECK(most < 1e-5 * size);
    }
}
