#include "unroll/estimate/parts/segment_learner.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"
#include "unroll/estimate/incremental_tbptt.hpp"

using namespace unroll;
using namespace memory_task;

TEST_CASE("between finish and reset an estimator over memories takes nothing, and names itself") {
  const index_t T = 3;
  const task<linear> k(make_linear(), T);
  incremental_tbptt e(k.model, {.segments = T});
  std::vector<double> g(std::size_t(k.theta.size())), again(g.size()), same(g.size());
  e.advance(k.theta, k.xs, g);
  CHECK(e.held() == T);
  CHECK(e.finish(k.theta, g).code == status::ok);
  CHECK_THROWS_WITH(
      e.advance(k.theta, k.xs, again),
      Catch::Matchers::ContainsSubstring("incremental_tbptt::advance: call: comes after finish()"));
  CHECK_THROWS_WITH(e.finish(k.theta, again), Catch::Matchers::ContainsSubstring(
                                                  "incremental_tbptt::finish: call: comes after finish()"));
  CHECK(again == same);
  e.reset(key{1});
  CHECK(e.held() == 0);
  e.advance(k.theta, k.xs, again);
  e.finish(k.theta, again);
  CHECK(again == g);
}
