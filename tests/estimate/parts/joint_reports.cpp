#include "unroll/estimate/parts/joint_reports.hpp"

#include "tests/support/catch.hpp"

namespace {

using namespace unroll;

report spent(double loss, std::int64_t steps) {
  report r;
  r.loss = loss;
  r.losses = r.consumed = 1;
  r.steps = steps;
  r.vjps = 2 * steps;
  r.jvps = 3 * steps;
  r.bytes = std::size_t(10 * steps);
  return r;
}

report not_finite(std::int64_t at) {
  report r = spent(7, 1);
  r.code = status::non_finite;
  r.at = at;
  return r;
}

}  // namespace

TEST_CASE("a joint report has the loss of the first and the work of all") {
  joint_reports joint;
  for (int call = 0; call < 2; ++call) {
    report r = joint.begin();
    joint.enter(spent(0.5, 1), true, r);
    joint.enter(spent(0.25, 2), false, r);
    CHECK(r.loss == 0.5);
    CHECK(r.losses == 1);
    CHECK(r.consumed == 1);
    CHECK(r.steps == 3);
    CHECK(r.vjps == 6);
    CHECK(r.jvps == 9);
    CHECK(joint.bytes == 30);
    CHECK(r.code == status::ok);
  }
}

TEST_CASE("estimators of which one behind the first has failed stay failed, those whose first has go on") {
  for (const bool first : {true, false}) {
    joint_reports joint;
    report r = joint.begin();
    if (!first) joint.enter(spent(0.5, 1), true, r);
    joint.enter(not_finite(4), first, r);
    CHECK(r.code == status::non_finite);
    CHECK(r.at == 4);
    CHECK(r.loss == 0);
    CHECK(r.losses == 0);
    CHECK(r.consumed == 0);
    const report next = joint.begin();
    CHECK(next.code == (first ? status::ok : status::non_finite));
    CHECK(next.at == (first ? -1 : 4));
  }
}
