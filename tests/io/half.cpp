#include "unroll/io/half.hpp"

#include "tests/support/catch.hpp"

using namespace unroll;

TEST_CASE("halves are floats, and floats round to the nearest half, ties to even") {
  int wrong = 0;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto h = std::uint16_t(i);
    const float f = from_f16(h);
    if (std::isnan(f) ? !std::isnan(from_f16(to_f16(f))) : to_f16(f) != h) ++wrong;
    // between this number and the next of the same sign
    if ((h & 0x7fff) >= 0x7bff) continue;
    const auto next = std::uint16_t(h + 1);
    const float g = from_f16(next), middle = f + (g - f) / 2;
    if (to_f16(middle) != (h % 2 == 0 ? h : next) || to_f16(std::nextafter(middle, f)) != h ||
        to_f16(std::nextafter(middle, g)) != next)
      ++wrong;
  }
  CHECK(wrong == 0);
  CHECK(std::isinf(from_f16(to_f16(65520.0f))));
  CHECK(from_f16(to_f16(65519.0f)) == 65504);
  CHECK(from_f16(to_f16(-1e-9f)) == 0);
}
