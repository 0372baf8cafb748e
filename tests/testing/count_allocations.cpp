#include "unroll/testing/count_allocations.hpp"

#include <Eigen/Core>
#include <cstdint>
#include <new>

#include "tests/support/catch.hpp"
#include "unroll/core/block.hpp"

namespace testing = unroll::testing;

TEST_CASE("every kind of operator new is counted") {
  if (testing::counting_is_replaced()) return;
  REQUIRE(testing::allocations_are_counted());
  const testing::allocation_counter counter;
  CHECK(counter.count() == 0);
  // called by name: what a new-expression allocates may be left out when nobody reads it
  const auto count = [](auto&& allocate) {
    const testing::allocation_counter own;
    allocate();
    return own.count();
  };
  const std::align_val_t line{64};
  CHECK(count([] { ::operator delete(::operator new(8)); }) == 1);
  CHECK(count([] { ::operator delete[](::operator new[](8)); }) == 1);
  CHECK(count([] { ::operator delete(::operator new(8, std::nothrow)); }) == 1);
  CHECK(count([&] { ::operator delete(::operator new(8, line), line); }) == 1);
  CHECK(count([] { ::operator delete(::operator new(0)); }) == 1);
}

TEST_CASE("a block aligned to 64 bytes stays aligned while counting") {
  const unroll::buffer<float> b(3);
  CHECK(reinterpret_cast<std::uintptr_t>(b.data()) % 64 == 0);
}

TEST_CASE("malloc, calloc, realloc and Eigen are counted where malloc is") {
  if (!testing::malloc_is_counted || testing::counting_is_replaced()) return;
  volatile auto allocate = &std::malloc;  // volatile: or the compiler leaves out what is freed unused
  volatile auto reallocate = &std::realloc;
  volatile auto allocate_zeros = &std::calloc;
  volatile auto allocate_aligned = &std::aligned_alloc;
  volatile auto allocate_by_posix = &posix_memalign;
  const testing::allocation_counter counter;
  void* p = allocate(10);
  p = reallocate(p, 10000);
  void* q = allocate_zeros(3, 7);
  void* r = allocate_aligned(64, 128);
  void* s = nullptr;
  const int refused = allocate_by_posix(&s, 64, 100);
  const std::int64_t made = counter.count();
  std::free(p);
  std::free(q);
  std::free(r);
  std::free(s);
  CHECK(refused == 0);
  CHECK(made == 5);

  const testing::allocation_counter eigen;
  const Eigen::VectorXd v(1000);
  CHECK(eigen.count() == 1);
  CHECK(v.size() == 1000);
}
