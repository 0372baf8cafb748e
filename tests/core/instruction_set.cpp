#include "unroll/core/instruction_set.hpp"

#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"
#include "unroll/core/linalg.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using simd::instruction_set;

TEST_CASE("a lesser instruction set can be chosen, one that the machine lacks cannot", "[instruction_set]") {
  for (const int s : support::instruction_sets()) {
    const support::with_instructions use{instruction_set(s)};
    CHECK(simd::instructions() == instruction_set(s));
  }
  CHECK(simd::instructions() <= simd::best_instructions());
  const auto before = simd::instructions();
  CHECK_THROWS_WITH(simd::choose(instruction_set(7)), ContainsSubstring("asks for no set that there is"));
  CHECK_THROWS_WITH(
      simd::choose(instruction_set(0)),
      ContainsSubstring("this machine has " + std::string(simd::name_of(simd::best_instructions()))));
  if (simd::best_instructions() < instruction_set::avx512_bf16)
    CHECK_THROWS_WITH(simd::choose(instruction_set::avx512_bf16), ContainsSubstring("asks for avx512_bf16"));
  CHECK(simd::instructions() == before);
}

TEST_CASE("a set keeps its bits whatever ran before, sets differ by rounding only", "[instruction_set]") {
  const index_t n = 1000;
  std::vector<float> x(static_cast<std::size_t>(n)), y(x);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(i % 17) / 7 - 1, y[i] = float(i % 13) / 5 - 1;
  double exact = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    exact += double(x[i]) * double(y[i]);
    size += std::abs(double(x[i]) * double(y[i]));
  }
  std::vector<float> first;
  for (int pass = 0; pass < 2; ++pass)
    for (std::size_t k = 0; k < support::instruction_sets().size(); ++k) {
      const support::with_instructions use{instruction_set(support::instruction_sets()[k])};
      const float dot = linalg::dot(x.data(), y.data(), n);
      CHECK(std::abs(double(dot) - exact) <= 300 * 6e-8 * size);
      if (pass == 0)
        first.push_back(dot);
      else
        CHECK(dot == first[k]);
    }
}
