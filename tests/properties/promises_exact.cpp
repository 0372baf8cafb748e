#include "unroll/estimate/adaptive_tbptt.hpp"
#include "unroll/estimate/bp_lambda.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/checkpointed_bptt.hpp"
#include "unroll/estimate/chunked_tbptt.hpp"
#include "unroll/estimate/diagonal_rtrl.hpp"
#include "unroll/estimate/dni.hpp"
#include "unroll/estimate/eprop.hpp"
#include "unroll/estimate/kernl.hpp"
#include "unroll/estimate/rflo.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/sk_rtrl.hpp"
#include "unroll/estimate/snap.hpp"
#include "unroll/estimate/tbptt.hpp"

#include "tests/properties/estimator_promises.hpp"

using support::examine;

TEMPLATE_TEST_CASE("bptt keeps every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::bptt(f, {.max_steps = 60, .block = 8}); });
}

TEMPLATE_TEST_CASE("checkpointed_bptt keeps every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::checkpointed_bptt(f, {.slots = 4, .steps = 53}); });
  examine<TestType>(
      [](const auto& f) { return unroll::checkpointed_bptt(f, {.slots = 3, .steps = 53, .block = 4}); });
}

TEMPLATE_TEST_CASE("tbptt keeps every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::tbptt(f, {.k1 = 3, .k2 = 10}); });
  examine<TestType>([](const auto& f) { return unroll::chunked_tbptt(f, {.window = 9}); });
}

TEMPLATE_TEST_CASE("rtrl keeps every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::rtrl(f, {.columns = 5}); });
}

TEMPLATE_TEST_CASE("snap keeps every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::snap(f); });
}

TEMPLATE_TEST_CASE("diagonal rtrl keeps every promise on a cell of units apart", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::diagonal_rtrl(f); }, "lru");
}

TEMPLATE_TEST_CASE("adaptive_tbptt keeps every promise on every cell", "", float, double) {
  examine<TestType>(
      [](const auto& f) { return unroll::adaptive_tbptt(f, {.tolerance = 1, .longest = 5, .every = 10}); });
}

TEMPLATE_TEST_CASE("dni and bp_lambda keep every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::dni(f, {.window = 9}); });
  examine<TestType>([](const auto& f) { return unroll::bp_lambda(f); });
}

TEMPLATE_TEST_CASE("kernl and sk_rtrl keep every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::kernl(f); });
  examine<TestType>([](const auto& f) { return unroll::sk_rtrl(f, {.rank = 2}); });
}

TEMPLATE_TEST_CASE("rflo and eprop keep every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::rflo(f); });
  examine<TestType>([](const auto& f) { return unroll::eprop(f, {.filter = 0.5}); });
}
