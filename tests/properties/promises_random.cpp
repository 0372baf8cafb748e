#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/forward_gradient.hpp"
#include "unroll/estimate/kf_rtrl.hpp"
#include "unroll/estimate/mean_of.hpp"
#include "unroll/estimate/nobacktrack.hpp"
#include "unroll/estimate/ok_rtrl.hpp"
#include "unroll/estimate/preuoro.hpp"
#include "unroll/estimate/random_path.hpp"
#include "unroll/estimate/telescope.hpp"
#include "unroll/estimate/uoro.hpp"

#include "tests/properties/estimator_promises.hpp"

using support::examine;

TEMPLATE_TEST_CASE("uoro keeps every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::uoro(f); });
  examine<TestType>([](const auto& f) { return unroll::uoro(f, {.block = 4}); });
}

TEMPLATE_TEST_CASE("nobacktrack keeps every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::nobacktrack(f); });
}

TEMPLATE_TEST_CASE("kf_rtrl keeps every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::kf_rtrl(f); });
}

TEMPLATE_TEST_CASE("ok_rtrl keeps every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::ok_rtrl(f, {.terms = 2}); });
}

TEMPLATE_TEST_CASE("preuoro keeps every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::preuoro(f); });
}

TEMPLATE_TEST_CASE("random_path keeps every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::random_path(f); });
}

TEMPLATE_TEST_CASE("forward_gradient keeps every promise on every cell", "", float, double) {
  examine<TestType>(
      [](const auto& f) { return unroll::forward_gradient(f, {.directions = 3, .window = 5}); });
}

TEMPLATE_TEST_CASE("telescope keeps every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) {
    return unroll::telescope(f, {.ladder = {{2, 3}, {7, 7}}, .max_steps = 60});
  });
}

TEMPLATE_TEST_CASE("artbp keeps every promise on every cell", "", float, double) {
  examine<TestType>(
      [](const auto& f) { return unroll::artbp(f, unroll::fixed_truncation(6), {.slots = 4, .block = 3}); });
  examine<TestType>([](const auto& f) { return unroll::artbp(f, unroll::polynomial_truncation(8)); });
}

TEMPLATE_TEST_CASE("mean_of keeps every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::mean_of(unroll::uoro(f), 3); });
  examine<TestType>([](const auto& f) { return unroll::mean_of(unroll::uoro(f), 4, true); });
}
