#include "unroll/diagnose/recorded_model.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/memory_task.hpp"
#include "unroll/estimate/policy.hpp"

using namespace unroll;
using memory_task::attention;
using memory_task::example;

static_assert(memory_model<recorded_model<attention>>);

TEST_CASE("every policy has the gradient of the model over its record, losses and all, draw by draw") {
  const memory_task::task<attention> x(memory_task::make_attention(), 6);
  const recorded_model<attention> record(x.model, x.theta, x.xs);
  for (const char* name : {"rematerialise", "rematerialise/3", "window:2", "reservoir:2", "proportional:2"}) {
    INFO(name);
    report of_model, of_record;
    std::vector<double> g, recorded;
    const auto run = [&](const auto& model, std::vector<double>& out, report& r) {
      with_policy(parse_policy(name), model, 6, philox_chooser{},
                  [&](const auto& e) { out = memory_task::run(e, x.theta, x.xs, &r, nullptr, key{9}); });
    };
    run(x.model, g, of_model);
    run(record, recorded, of_record);
    CHECK(memory_task::relative_error(recorded, g) < 1e-13);
    CHECK(of_record.loss == of_model.loss);
    CHECK(of_record.losses == of_model.losses);
  }
}

TEST_CASE("models whose writes read or whose reads have parameters cannot be recorded") {
  const memory_task::task<attention> recurrent(memory_task::make_attention(true), 3);
  CHECK_THROWS_AS(recorded_model<attention>(recurrent.model, recurrent.theta, recurrent.xs), unroll::error);
  const memory_task::task<memory_task::linear> linear(memory_task::make_linear(), 3);
  CHECK_THROWS_AS(recorded_model<memory_task::linear>(linear.model, linear.theta, linear.xs), unroll::error);
}
