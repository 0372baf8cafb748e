#include "unroll/core/report.hpp"

#include "tests/support/catch.hpp"

using namespace unroll;

TEST_CASE("a sum of reports adds the work, keeps the larger memory and the first failure") {
  report sum{.loss = 1, .losses = 2, .consumed = 3, .steps = 4, .vjps = 5, .jvps = 6, .bytes = 70};
  sum += {.loss = 10, .losses = 20, .consumed = 30, .steps = 40, .vjps = 50, .jvps = 60, .bytes = 7};
  CHECK(sum.loss == 11);
  CHECK(sum.losses == 22);
  CHECK(sum.consumed == 33);
  CHECK(sum.steps == 44);
  CHECK(sum.vjps == 55);
  CHECK(sum.jvps == 66);
  CHECK(sum.bytes == 70);
  CHECK((sum.code == status::ok && sum.at == -1));
  report failed;
  failed.bytes = 80;
  failed.code = status::non_finite;
  failed.at = 8;
  sum += failed;
  CHECK(sum.bytes == 80);
  CHECK((sum.code == status::non_finite && sum.at == 8));
  failed.at = 9;
  sum += failed;
  CHECK(sum.at == 8);
  sum += {};
  CHECK((sum.code == status::non_finite && sum.at == 8));
}
