#include "unroll/core/bf16.hpp"

#include <cmath>
#include <limits>

#include "tests/support/catch.hpp"

using namespace unroll;

TEST_CASE("every bfloat16 is a float, and floats and doubles round to the nearest one once, ties to even") {
  int wrong = 0;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto h = std::uint16_t(i);
    const float f = __builtin_bit_cast(bf16, h);
    if (std::isnan(f)) {
      if (bf16(f).bits != 0x7fff || bf16(double(f)).bits != 0x7fff) ++wrong;
      continue;
    }
    if (bf16(f).bits != h || bf16(double(f)).bits != h) ++wrong;
    if ((h & 0x7fff) >= 0x7f80) continue;
    // between this number and the next of the same sign, which is infinite behind the largest
    const auto next = std::uint16_t(h + 1), even = h % 2 == 0 ? h : next;
    const float middle = __builtin_bit_cast(float, i << 16 | 0x8000u);
    const float below = __builtin_bit_cast(float, i << 16 | 0x7fffu),
                above = __builtin_bit_cast(float, i << 16 | 0x8001u);
    if (bf16(middle).bits != even || bf16(below).bits != h || bf16(above).bits != next) ++wrong;
    // a double so close to the middle that the nearest float is the middle
    const double m = middle, inside = std::nextafter(m, 0.0), outside = std::nextafter(m, 2 * m);
    if (bf16(m).bits != even || bf16(inside).bits != h || bf16(outside).bits != next) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("doubles that no float is near become the nearest bfloat16 too") {
  constexpr double tiny = std::numeric_limits<double>::denorm_min(), huge = 1e300;
  CHECK(bf16(tiny).bits == 0);
  CHECK(bf16(-tiny).bits == 0x8000);
  CHECK(bf16(0x1p-134).bits == 0);  // half of the smallest, a tie
  CHECK(bf16(std::nextafter(0x1p-134, 1.0)).bits == 1);
  CHECK(bf16(huge).bits == 0x7f80);
  CHECK(bf16(-huge).bits == 0xff80);
  CHECK(bf16(double(std::numeric_limits<float>::max())).bits == 0x7f80);
  CHECK(bf16(std::nextafter(0x1.ffp127, 0.0)).bits == 0x7f7f);  // the middle to 2^128 is the first infinite
  CHECK(bf16(0x1.ffp127).bits == 0x7f80);
  CHECK(bf16(std::numeric_limits<double>::quiet_NaN()).bits == 0x7fff);
  static_assert(bf16(1.0).bits == 0x3f80 && float(bf16(-2.5f)) == -2.5f);
}
