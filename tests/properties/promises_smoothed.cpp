#include "unroll/estimate/es.hpp"
#include "unroll/estimate/gpes.hpp"
#include "unroll/estimate/nres.hpp"
#include "unroll/estimate/pes_a.hpp"

#include "tests/properties/estimator_promises.hpp"

using support::examine;

TEMPLATE_TEST_CASE("evolution strategies keep every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::es(f, {.pairs = 2}); });
  examine<TestType>([](const auto& f) { return unroll::nres(f, {.pairs = 2, .window = 5}); });
  examine<TestType>([](const auto& f) { return unroll::gpes(f, {.pairs = 2, .window = 5, .reuse = 1}); });
  examine<TestType>([](const auto& f) { return unroll::gpes(f, {.pairs = 2, .window = 5, .reuse = 3}); });
  examine<TestType>([](const auto& f) { return unroll::pes_a(f, {.pairs = 2, .window = 5}); });
}
