// The estimators that walk backwards, on a cell whose window passes are matrix products, in several lanes.
#include "tests/support/catch.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/checkpointed_bptt.hpp"
#include "unroll/estimate/chunked_tbptt.hpp"
#include "unroll/testing/conformance.hpp"

namespace {

using unroll::index_t;
using cell = unroll::cells::elman<double>;
static_assert(unroll::has_window<cell>);

// The same cell step by step.
struct stepwise {
  using scalar = double;
  using input = cell::input;
  cell f;
  unroll::dims size() const { return f.size(); }
  bool finite(const input& x) const { return f.finite(x); }
  void step(const input& x, const unroll::edge<double>& e) const { f.step(x, e); }
  void vjp(const input& x, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext,
           double dloss, unroll::dstate<double> ds, unroll::dparams<double> dtheta) const {
    f.vjp(x, e, dnext, dloss, ds, dtheta);
  }
};

struct problem {
  static constexpr index_t steps = 50;
  cell f{unroll::cells::elman_options{.in = 2, .hidden = 5, .out = 3, .lanes = 2}};
  unroll::parameters<double> theta{f.size().params};
  std::vector<double> x, y;
  std::vector<cell::input> xs;

  problem() {
    f.init(theta, unroll::key{3});
    for (index_t i = 0; i < steps * 4; ++i) x.push_back(std::sin(1.3 * double(i)));
    for (index_t i = 0; i < steps * 6; ++i) y.push_back(std::cos(.7 * double(i)));
    for (std::size_t t = 0; t < steps; ++t) {
      cell::input in;
      in.x = x.data() + 4 * t;
      in.target = y.data() + 6 * t;
      xs.push_back(in);
    }
  }

  template <class E>
  unroll::gradient<double> run(E e) const {
    unroll::gradient<double> g(theta.size());
    e.reset({4});
    REQUIRE(e.advance(theta, xs, g).code == unroll::status::ok);
    REQUIRE(e.finish(theta, g).code == unroll::status::ok);
    return g;
  }
};

}  // namespace

TEST_CASE("window passes and single steps give the same estimates up to rounding") {
  const problem p;
  const stepwise slow{p.f};
  const auto near = [](const auto& a, const auto& b) {
    return unroll::testing::relative_error(a, b) < 1e-13;
  };
  const unroll::fixed_truncation law(12);
  CHECK(
      near(p.run(unroll::bptt(p.f, {.block = 16})), unroll::testing::backward_gradient(p.f, p.theta, p.xs)));
  CHECK(near(p.run(unroll::bptt(p.f, {.block = 16})), p.run(unroll::bptt(slow, {.block = 16}))));
  CHECK(near(p.run(unroll::tbptt(p.f, {.k1 = 3, .k2 = 8})), p.run(unroll::tbptt(slow, {.k1 = 3, .k2 = 8}))));
  CHECK(near(p.run(unroll::tbptt(p.f, {.k1 = 1, .k2 = 7})), p.run(unroll::tbptt(slow, {.k1 = 1, .k2 = 7}))));
  CHECK(near(p.run(unroll::chunked_tbptt(p.f, {.window = 9})),
             p.run(unroll::chunked_tbptt(slow, {.window = 9}))));
  CHECK(near(p.run(unroll::artbp(p.f, law, {.slots = 2, .block = 4})),
             p.run(unroll::artbp(slow, law, {.slots = 2, .block = 4}))));
}

TEST_CASE("checkpointed bptt has the bits of bptt with window passes too") {
  const problem p;
  for (const index_t block : {1, 4, 16, 64}) {
    const auto exact = p.run(unroll::bptt(p.f, {.block = block}));
    for (const index_t steps : {index_t{0}, problem::steps}) {
      const auto g = p.run(unroll::checkpointed_bptt(p.f, {.slots = 3, .steps = steps, .block = block}));
      CHECK(std::equal(g.begin(), g.end(), exact.begin()));
    }
  }
}

TEST_CASE("with window passes every promise holds as well") {
  const problem p;
  using strings = std::vector<std::string>;
  const auto wrong = [&](const auto& e) { return unroll::testing::estimator_conformance(e, p.theta, p.xs); };
  CHECK(wrong(unroll::bptt(p.f, {.max_steps = 50, .block = 16})) == strings{});
  CHECK(wrong(unroll::tbptt(p.f, {.k1 = 3, .k2 = 8})) == strings{});
  CHECK(wrong(unroll::checkpointed_bptt(p.f, {.slots = 3, .steps = 50, .block = 4})) == strings{});
  CHECK(wrong(unroll::artbp(p.f, unroll::polynomial_truncation(12), {.slots = 2, .block = 4})) == strings{});
}
