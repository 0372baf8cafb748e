#include "unroll/exec/mirror.hpp"

#include "tests/support/catch.hpp"
#include "unroll/exec/host.hpp"
#include "unroll/testing/simt/executor.hpp"

using namespace unroll;

using host = exec::host<numbers<float>>;
using device = testing::simt::executor<numbers<float>>;
using both_places = std::tuple<host, device>;

TEMPLATE_LIST_TEST_CASE("a mirror brings numbers of an executor's place to the host", "[exec]", both_places) {
  using E = TestType;
  const E e;
  exec::mirror<E, float> m(e, 5);
  CHECK(m.size() == 5);
  CHECK(m.bytes() == 5 * sizeof(float));
  for (const double value : {2.0, 3.0}) {
    e.fill(matrix<float>(m.data(), 5, 1), value);
    e.fill(matrix<float>(m.data() + 3, 2, 1), 7);
    const view<const float> first = m.fetch(e, 4);
    CHECK(std::vector<float>(first.begin(), first.begin() + 4) ==
          std::vector<float>{float(value), float(value), float(value), 7});
    CHECK(m.fetched().data() == first.data());
  }
  // on the host nothing is copied; of another place the host sees what was fetched, until it fetches again
  e.fill(matrix<float>(m.data(), 1, 1), 9);
  CHECK(m.fetched()[0] == (E::where == place::host ? 9.f : 3.f));
  CHECK(m.fetch(e, 1)[0] == 9);
}
