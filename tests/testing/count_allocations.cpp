#include "unroll/testing/count_allocations.hpp"

#include <Eigen/Core>
#include <memory>
#include <vector>

#include "tests/support/catch.hpp"
#include "unroll/core/block.hpp"

namespace testing = unroll::testing;

TEST_CASE("every kind of operator new is counted") {
  REQUIRE(testing::allocations_are_counted());
  const testing::allocation_counter counter;
  CHECK(counter.count() == 0);
  const std::vector<double> v(100);
  CHECK(counter.count() == 1);
  const auto p = std::make_unique<int>(3);
  CHECK(counter.count() == 2);
  const unroll::buffer<double> aligned(5);
  CHECK(counter.count() == 3);
  ::operator delete[](::operator new[](3));
  CHECK(counter.count() == 4);
  CHECK(v.size() + std::size_t(aligned.size() + *p) == 108);
}

TEST_CASE("a block aligned to 64 bytes stays aligned while counting") {
  const unroll::buffer<float> b(3);
  CHECK(reinterpret_cast<std::uintptr_t>(b.data()) % 64 == 0);
}

TEST_CASE("malloc, calloc, realloc and Eigen are counted where malloc is") {
  if (!testing::malloc_is_counted) return;
  const testing::allocation_counter counter;
  void* p = std::malloc(10);
  p = std::realloc(p, 10000);
  void* q = std::calloc(3, 7);
  void* r = std::aligned_alloc(64, 128);
  CHECK(counter.count() == 4);
  std::free(p);
  std::free(q);
  std::free(r);
  const Eigen::VectorXd v(1000);
  CHECK(counter.count() == 5);
  CHECK(v.size() == 1000);
}
