#include "unroll/core/simd.hpp"

#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"

using namespace unroll;

TEMPLATE_TEST_CASE("the largest element is found wherever it lies", "[simd]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  for (index_t n = 0; n < 70; ++n)
    for (index_t at = -1; at < n; ++at) {
      std::vector<TestType> x(std::size_t(n), TestType(-3));
      for (index_t i = 0; i < n; i += 2) x[std::size_t(i)] = -4;
      if (at >= 0) x[std::size_t(at)] = -1;
      CHECK(simd::largest(x.data(), n, TestType(-2)) == (at < 0 ? -2 : -1));
    }
}
