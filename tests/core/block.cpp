#include "unroll/core/block.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "tests/support/catch.hpp"

using namespace unroll;

TEST_CASE("a block starts at zero on a 64-byte boundary") {
  for (const index_t n : {1, 3, 1000}) {
    const buffer<float> b(n);
    CHECK(b.size() == n);
    CHECK(b.bytes() == std::size_t(n) * sizeof(float));
    CHECK(reinterpret_cast<std::uintptr_t>(b.data()) % 64 == 0);
    for (const float x : b) CHECK(x == 0);
  }
}

TEST_CASE("blocks copy deeply, move cheaply and assign either way") {
  parameters<double> a(3);
  a[0] = 1, a[1] = 2, a[2] = 3;
  parameters<double> copy = a;
  a[0] = 9;
  CHECK(copy[0] == 1);

  const double* where = copy.data();
  parameters<double> moved = std::move(copy);
  CHECK(moved.data() == where);

  parameters<double> other(5);
  other = a;
  CHECK((other.size() == 3 && other[0] == 9 && other.data() != a.data()));
  other = std::move(moved);
  CHECK((other.data() == where && other[2] == 3));
  parameters<double>& self = other;
  other = self;
  CHECK(other[1] == 2);
  other.zero();
  CHECK((other[0] == 0 && other[2] == 0));
}

TEST_CASE(
    "a block of several MiB starts where a large page can, and is copied, moved and assigned as any other") {
  const index_t n = index_t{1} << 20;  // 8 MiB of double
  buffer<double> large(n), small(3);
  CHECK(reinterpret_cast<std::uintptr_t>(large.data()) % (std::uintptr_t{2} << 20) == 0);
  CHECK(std::all_of(large.begin(), large.end(), [](double x) { return x == 0; }));
  large[n - 1] = 5;
  buffer<double> other = large;
  small = std::move(large);
  CHECK((small.size() == n && small[n - 1] == 5 && other[n - 1] == 5));
  other = buffer<double>(3);
  CHECK(other.size() == 3);
}

TEST_CASE("a block whose elements nobody has written yet is a block in all else") {
  buffer<float> b(5, unwritten());
  CHECK((b.size() == 5 && reinterpret_cast<std::uintptr_t>(b.data()) % 64 == 0));
  std::fill(b.begin(), b.end(), 2.0f);
  const buffer<float> copy = b;
  CHECK((copy[4] == 2 && copy.data() != b.data()));
  const volatile index_t negative = -1;  // hidden from the compiler, which would warn
  CHECK_THROWS_WITH(buffer<float>(negative, unwritten()), "block: size: is -1, must be at least 0");
}

TEST_CASE("an empty block owns nothing") {
  const buffer<double> none, zero(0), copy = zero;
  CHECK((none.size() == 0 && zero.size() == 0 && copy.begin() == copy.end() && zero.bytes() == 0));
}

TEST_CASE("a negative size is refused") {
  const volatile index_t negative = -1;  // hidden from the compiler, which would warn
  CHECK_THROWS_AS(buffer<double>(negative), error);
}

TEST_CASE("a block of more bytes than 64 bits count is refused before memory is asked for") {
  const volatile index_t sixty_one_bits = index_t{1} << 61;  // by 8 bytes the product is 0 in 64 bits
  CHECK_THROWS_WITH(buffer<double>(sixty_one_bits),
                    "block: size: is 2305843009213693952, must be at most 1152921504606846975");
  CHECK_THROWS_WITH(buffer<float>(sixty_one_bits, unwritten()),
                    "block: size: is 2305843009213693952, must be at most 2305843009213693951");
}

TEST_CASE("a block becomes a view of its own space only") {
  gradient<double> g(4);
  const dparams<double> v = g;
  CHECK(v.data() == g.data());
  STATIC_REQUIRE(!std::convertible_to<gradient<double>&, params<double>>);
  STATIC_REQUIRE(!std::convertible_to<const gradient<double>&, dparams<double>>);
  STATIC_REQUIRE(std::convertible_to<const gradient<double>&, dparams<const double>>);
}
