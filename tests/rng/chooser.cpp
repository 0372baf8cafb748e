#include "unroll/rng/chooser.hpp"

#include <cmath>
#include <map>
#include <vector>

#include "tests/support/catch.hpp"

using namespace unroll;

TEST_CASE("the running chooser draws what its key names, after reset as well") {
  philox_chooser c{key{5}};
  std::vector<double> a(40), b(40), expected(40);
  c.signs(3, view<double>(a));
  draw_signs(key{5}, 3, view<double>(expected));
  CHECK(a == expected);
  c.reset(key{6});
  c.signs(3, view<double>(b));
  CHECK(a != b);
  c.reset(key{5});
  c.signs(3, view<double>(b));
  CHECK(a == b);
  CHECK(c.coin(2, 0.5) == (draw_uniform(key{5}, 2) < 0.5));
  CHECK((!c.coin(2, 0.0) && c.coin(2, 1.0)));
}

TEST_CASE("the mirror negates normals, negates signs at odd steps and turns uniforms round") {
  philox_chooser plain{key{11}}, twin{key{11}};
  twin.mirror(true);
  std::vector<double> a(50), b(50);
  for (const std::int64_t t : {0, 1, 2, 7}) {
    plain.signs(t, view<double>(a));
    twin.signs(t, view<double>(b));
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(b[i] == (t % 2 == 0 ? a[i] : -a[i]));
    plain.normals(t, view<double>(a));
    twin.normals(t, view<double>(b));
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(b[i] == -a[i]);
    CHECK(twin.uniform(t, 9) == 8 - plain.uniform(t, 9));
  }
  int both = 0, coins = 0;
  for (std::int64_t t = 0; t < 400; ++t) {
    both += plain.coin(t, 0.3) && twin.coin(t, 0.3);
    coins += twin.coin(t, 0.3);
  }
  CHECK(both == 0);  // u < 0.3 and 1 - u <= 0.3 exclude each other
  CHECK(std::abs(coins - 120) < 4 * std::sqrt(400 * 0.3 * 0.7));
  twin.mirror(false);
  CHECK(twin.uniform(4, 9) == plain.uniform(4, 9));
}
