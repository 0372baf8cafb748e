#include "unroll/io/half.hpp"

#include "tests/support/catch.hpp"

using namespace unroll;

TEST_CASE("halves of both kinds are floats, and floats round to the nearest half, ties to even") {
  int wrong = 0;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto h = std::uint16_t(i);
    const float f = from_f16(h), b = from_bf16(h);
    if (std::isnan(f) ? !std::isnan(from_f16(to_f16(f))) : to_f16(f) != h) ++wrong;
    if (std::isnan(b) ? !std::isnan(from_bf16(to_bf16(b))) : to_bf16(b) != h) ++wrong;
    // between this number and the next of the same sign
    const auto next = std::uint16_t(h + 1);
    const auto even = h % 2 == 0 ? h : next;
    const auto middle = [&](float x, float y, auto to) {
      const float m = x + (y - x) / 2;
      return to(m) == even && to(std::nextafter(m, x)) == h && to(std::nextafter(m, y)) == next;
    };
    if ((h & 0x7fff) < 0x7bff && !middle(f, from_f16(next), to_f16)) ++wrong;
    if ((h & 0x7fff) < 0x7f7f && (h & 0x7fff) > 0x80 && !middle(b, from_bf16(next), to_bf16)) ++wrong;
  }
  CHECK(wrong == 0);
  CHECK(std::isinf(from_f16(to_f16(65520.0f))));
  CHECK(from_f16(to_f16(65519.0f)) == 65504);
  CHECK(from_f16(to_f16(-1e-9f)) == 0);
  CHECK(std::isinf(from_bf16(to_bf16(3.4e38f))));
}
