#include "unroll/data/sequences.hpp"

#include "tests/support/catch.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/stack.hpp"
#include "unroll/system/with_resets.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("examples look into arrays, step after step and lane after lane") {
  const std::vector<double> x(2 * 3 * 4), target(2 * 3 * 5);
  const std::vector<std::uint8_t> mask(2 * 3);
  const auto xs = data::examples<double>({.steps = 2, .lanes = 3, .in = 4, .out = 5, .mask = true},
                                         {.x = x, .target = target, .mask = mask});
  REQUIRE(xs.size() == 2);
  CHECK(xs[1].x == x.data() + 12);
  CHECK(xs[1].target == target.data() + 15);
  CHECK(xs[1].mask == mask.data() + 3);
  CHECK(xs[1].lanes == 3);
  CHECK((!xs[1].token && !xs[1].label && !xs[1].draws));
  const std::vector<std::int32_t> token(6), label(6);
  const auto ys = data::examples<double>({.steps = 2, .lanes = 3, .token = true, .label = true},
                                         {.token = token, .label = label});
  CHECK(ys[1].token == token.data() + 3);
  CHECK(ys[1].label == label.data() + 3);
  CHECK((!ys[1].x && !ys[1].target && !ys[1].mask));
}

TEST_CASE("arrays of other lengths than their shape says are refused by name, with both") {
  const std::vector<double> x(6), target(6);
  const std::vector<std::int32_t> numbers(6);
  const std::vector<std::uint8_t> mask(6), flags(5);
  const data::sequence_shape all{
      .steps = 2, .lanes = 3, .in = 1, .out = 1, .token = true, .label = true, .mask = true};
  const data::sequence_arrays<double> right{x, target, numbers, numbers, mask};
  CHECK(data::examples<double>(all, right).size() == 2);
  const auto refused = [&](const char* said, auto change, data::sequence_shape shape) {
    auto arrays = right;
    change(arrays);
    CHECK_THROWS_WITH(data::examples<double>(shape, arrays), ContainsSubstring(said));
  };
  const auto shorter = [](auto& span) { span = span.first(5); };
  refused(
      "examples: x: has size 5, expected 6", [&](auto& a) { shorter(a.x); }, all);
  refused(
      "target: has size 5, expected 6", [&](auto& a) { shorter(a.target); }, all);
  refused(
      "token: has size 5, expected 6", [&](auto& a) { shorter(a.token); }, all);
  refused(
      "label: has size 5, expected 6", [&](auto& a) { shorter(a.label); }, all);
  refused(
      "mask: has size 5, expected 6", [&](auto& a) { shorter(a.mask); }, all);
  data::sequence_shape without = all;
  without.mask = false;  // a mask that nobody reads is forgotten somewhere
  refused(
      "mask: has size 6, expected 0", [](auto&) {}, without);
  CHECK_THROWS_WITH(data::examples<double>({.steps = 1, .lanes = 0}, {}),
                    ContainsSubstring("examples: lanes: is 0"));
  CHECK_THROWS_WITH(
      data::examples<double>({.steps = 1024, .lanes = index_t{1} << 54}, {}),
      ContainsSubstring("examples: lanes: is 18014398509481984, at most 562949953421311 of 1024 steps"));
  CHECK_THROWS_WITH(data::sequences<double>({.steps = 8, .lanes = 2, .in = 3, .out = index_t{1} << 59}),
                    ContainsSubstring("sequences: lanes: is 2, at most 0 of 8 steps"));
  const auto xs = data::examples<double>(all, right);
  CHECK_THROWS_WITH(resettable_inputs(std::span<const cells::example<double>>(xs), std::span(flags), 3),
                    ContainsSubstring("resettable_inputs: flags: has size 5, expected 6"));
  CHECK_THROWS_WITH(
      resettable_inputs(std::span<const cells::example<double>>(xs), std::span<const std::uint8_t>{}, 0),
      ContainsSubstring("resettable_inputs: lanes: is 0"));
  CHECK(resettable_inputs(std::span<const cells::example<double>>(xs), std::span(mask), 3)[1].reset ==
        mask.data() + 3);
}

TEST_CASE("examples of other lanes than those of a cell are refused with both numbers") {
  data::sequences<double> task({.steps = 1, .lanes = 3, .in = 2, .out = 1, .mask = true});
  CHECK(task.mask(0, 2) == 1);
  task.mask(0, 1) = 0;
  const auto& x = task.inputs()[0];
  const cells::elman<double> three({.in = 2, .hidden = 4, .lanes = 3}),
      two({.in = 2, .hidden = 4, .lanes = 2});
  CHECK(three.finite(x));
  CHECK(three.scored(x) == 2);
  CHECK_THROWS_WITH(two.finite(x), ContainsSubstring("elman: x.lanes: is 3, the cell has 2"));
  const cells::stack<cells::elman<double>> deep({.in = 2, .hidden = 4, .lanes = 4}, 2);
  CHECK_THROWS_WITH(deep.finite(x), ContainsSubstring("stack: x.lanes: is 3, the cell has 4"));
  CHECK(two.finite(three.lanes_from(x, 1)));  // a part of the lanes does not say how many
}
