#include "unroll/system/any_system.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/testing/oracle.hpp"
#include "unroll/testing/system_conformance.hpp"

namespace testing = unroll::testing;
using unroll::hook;
using any = unroll::any_system<double, double>;
using any_golden = unroll::any_system<double, golden::rnn<>::input>;

static_assert(unroll::has_window<any> && unroll::has_jvp<any> && unroll::has_jacobian<any> &&
              unroll::has_row_norms<any> && unroll::has_lane_vjp<any>);
static_assert(std::copyable<any>);

namespace {

struct step_only {
  using scalar = double;
  using input = double;
  unroll::dims size() const { return {1, 1, 0, 0, 1}; }
  void step(double x, const unroll::edge<double>& e) const {
    e.next[0] = e.theta[0] * x;
    *e.loss = e.next[0];
  }
};

// What the call throws.
template <class Call>
std::string message(Call&& call) {
  try {
    call();
  } catch (const unroll::error& e) {
    return e.what();
  }
  return "";
}

// Counts how many of its kind are alive.
struct tracked : step_only {
  int* alive;
  explicit tracked(int& count) : alive(&count) { ++count; }
  tracked(const tracked& other) : step_only(other), alive(other.alive) { ++*alive; }
  tracked& operator=(const tracked&) = default;
  ~tracked() { --*alive; }
};

}  // namespace

TEST_CASE("supports tells which optional members the cell inside has") {
  const any all = support::complete<double>{2, 1};
  const any none = step_only{};
  const any_golden some = golden::rnn<>{};
  for (const hook h : {hook::vjp, hook::jvp, hook::window, hook::jacobian, hook::row_norms, hook::masks,
                       hook::factors, hook::diag_jacobian, hook::unit_layers, hook::lane_vjp}) {
    CHECK(all.supports(h));
    CHECK_FALSE(none.supports(h));
    CHECK(some.supports(h) == (h == hook::vjp || h == hook::jvp));
    CHECK(any(any(none)).supports(h) == none.supports(h));
  }
  CHECK(unroll::supports(all, hook::jacobian));
  CHECK_FALSE(unroll::supports(none, hook::jacobian));
}

TEST_CASE("what is inside is what comes out, to the bit") {
  const support::complete<double> f{3, 2};
  const any g = f;
  const auto theta = support::complete_theta<double>(3);
  const auto xs = support::complete_inputs<double>(6);
  CHECK(g.size().params == 9);
  CHECK(g.size().lanes == 2);
  CHECK(testing::backward_gradient(g, theta, xs) == testing::backward_gradient(f, theta, xs));
  CHECK(testing::forward_gradient(g, theta, xs) == testing::forward_gradient(f, theta, xs));
}

TEST_CASE("an erased system conforms whatever it has") {
  CHECK(testing::system_conformance(any(support::complete<double>{3, 2}), support::complete_theta<double>(3),
                                    support::complete_inputs<double>(4)) == std::vector<std::string>{});
  CHECK(testing::system_conformance(any_golden(golden::rnn<>{}), golden::theta(), golden::inputs()) ==
        std::vector<std::string>{});
  CHECK(testing::system_conformance(any(step_only{}), std::vector<double>(1, 0.5),
                                    support::complete_inputs<double>(4)) == std::vector<std::string>{});
}

TEST_CASE("windows are walked step by step where the cell has no window passes") {
  const any_golden f = golden::rnn<>{};
  const auto theta = golden::theta();
  const auto xs = golden::inputs();
  std::vector<double> states(8), tape(6), loss(3), workspace(std::size_t(unroll::window_workspace(f, 3)));
  std::vector<double> ds(2), g(8);
  unroll::start_state(f, {states.data(), 2});
  const unroll::window<double> w{theta, 3, states.data(), tape.data(), loss.data(), workspace, 0};
  unroll::window_forward(f, xs, w);
  unroll::window_backward(f, xs, w, {}, ds, g);
  CHECK(loss[0] + loss[1] + loss[2] == Approx(golden::loss).epsilon(1e-14));
  CHECK(testing::relative_error(g, golden::gradient) < 1e-14);
}

TEST_CASE("a missing member throws and says which") {
  const any f = step_only{};
  CHECK(message([&] { f.vjp(1, {}, {}, 0, {}, {}); }).find("vjp") == 12);
  CHECK(message([&] { f.jvp(1, {}, {}, {}, {}, nullptr); }).find("jvp") == 12);
  CHECK(message([&] { f.backward({}, {}, {}, {}, {}); }).find("vjp") == 12);
  CHECK(message([&] { f.jacobian(1, {}, {}); }).find("jacobian") == 12);
  CHECK(message([&] { f.immediate(1, {}, {}, 0, 0); }).find("immediate") == 12);
  CHECK(message([&] { f.row_norms(1, {}, {}); }).find("row_norms") == 12);
  CHECK(message([&] { f.jacobian_mask({}); }).find("jacobian_mask") == 12);
  CHECK(message([&] { f.immediate_mask({}, 0, 0); }).find("immediate_mask") == 12);
  CHECK(message([&] { f.weight_matrices(); }).find("weight_matrices") == 12);
  CHECK(message([&] { f.factors(1, {}, {}, {}); }).find("factors") == 12);
  CHECK(message([&] { f.lane_vjp(1, {}, {}, {}); }).find("lane_vjp") == 12);
}

TEST_CASE("copies are clones, and nothing leaks") {
  int alive = 0;
  {
    any a = tracked(alive);
    CHECK(alive == 1);
    any b = a;
    CHECK(alive == 2);
    any c = std::move(a);
    CHECK(alive == 2);
    b = c;
    CHECK(alive == 2);
    a = b;  // a moved-from object may be assigned to
    CHECK(alive == 3);
    a = step_only{};
    CHECK(alive == 2);
  }
  CHECK(alive == 0);
}

TEST_CASE("a cell can be exchanged for another at run time") {
  any f = support::complete<double>{2, 1};
  CHECK(f.size().params == 6);
  f = support::complete<double>{4, 1};
  CHECK(f.size().params == 12);
}

TEST_CASE("start, finite and scored are forwarded by an erased system") {
  const any_golden f = golden::rnn<>{};
  std::vector<double> s(2);
  unroll::start_state(f, s);
  CHECK(s == std::vector<double>{0.3, 0.3});
  CHECK_FALSE(unroll::finite_input(f, {std::nan(""), {}}));
  CHECK(unroll::scored_losses(f, {1.0, {}}) == 1);
  const unroll::any_system<double, double> some = support::masked{};
  CHECK(unroll::scored_losses(some, -1) == 0);
  CHECK(unroll::scored_losses(some, 1) == 3);
}
