#include "unroll/cells/stack.hpp"

#include "tests/cells/cell_checks.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/leaky.hpp"
#include "unroll/cells/lru.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/cells/min_gru.hpp"
#include "unroll/cells/rtu.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/checkpointed_bptt.hpp"
#include "unroll/estimate/diagonal_rtrl.hpp"
#include "unroll/estimate/eprop.hpp"
#include "unroll/estimate/kf_rtrl.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/snap.hpp"
#include "unroll/system/any_system.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

namespace {

const key draws{99};  // of dropout

template <class Cell>
cells::stack<Cell> two(const typename Cell::options_type& below, index_t hidden,
                       const cells::dropout_options& dropout = {}) {
  auto above = below;
  above.in = Cell(below).handed_up(), above.hidden = hidden;
  return cells::stack<Cell>({below, above}, dropout);
}

template <class Cell, class Options>
void examine(const Options& o, index_t hidden, cell_checks::inputs kind, key k,
             const cells::dropout_options& dropout = {}) {
  const auto f = two<Cell>(o, hidden, dropout);
  auto as_seen = o;  // its targets are as wide as those of the last layer
  if (o.out == 0) as_seen.hidden = hidden;
  cell_checks::sequence<double> one(as_seen, 1, kind, k), many(as_seen, 8, kind, k);
  for (auto* xs : {&one.xs, &many.xs})
    for (auto& x : *xs) x.draws = &draws;
  cell_checks::derivatives(f, one.xs[0], k);
  cell_checks::dense_hooks(f, one.xs[0], k);
  cell_checks::windows(f, many.xs, k);
  parameters<double> theta(f.size().params);
  f.init(theta, k);
  CHECK(testing::system_conformance(f, theta, {many.xs.data(), many.xs.size()}) ==
        std::vector<std::string>{});
}

template <class Cell>
void examine_all() {
  using cell_checks::inputs;
  typename Cell::options_type o;
  o.in = 2, o.hidden = 3, o.out = 2, o.lanes = 1;
  examine<Cell>(o, 4, inputs::dense, key{1});
  o.lanes = 5, o.out = 0;
  examine<Cell>(o, 2, inputs::tokens, key{2});
  o.loss = loss_kind::cross_entropy, o.lanes = 2, o.out = 3;
  examine<Cell>(o, 3, inputs::scattered, key{3});
}

}  // namespace

TEST_CASE("stacks agree with their derivatives, windows and lanes") {
  SECTION("lstm") { examine_all<cells::lstm<double>>(); }
  SECTION("gru") { examine_all<cells::gru<double>>(); }
  SECTION("elman") { examine_all<cells::elman<double>>(); }
  SECTION("leaky") { examine_all<cells::leaky<double>>(); }
}

TEST_CASE("a stack of three layers of three sizes agrees with its derivatives and windows") {
  const cells::stack<cells::elman<double>> f({{.in = 2, .hidden = 3, .lanes = 2},
                                              {.in = 3, .hidden = 5, .lanes = 2},
                                              {.in = 5, .hidden = 4, .out = 2, .lanes = 2}});
  const cell_checks::sequence<double> xs(f.options(), 7, cell_checks::inputs::dense, key{1});
  cell_checks::derivatives(f, xs.xs[0], key{2});
  cell_checks::dense_hooks(f, xs.xs[0], key{2});
  cell_checks::windows(f, xs.xs, key{3});
}

TEST_CASE("a stack of one layer has the bits of the cell") {
  const cells::lstm_options o{.in = 2, .hidden = 3, .out = 2, .lanes = 2};
  const cells::lstm<double> cell(o);
  const cells::stack<cells::lstm<double>> one(o, 1);
  const cell_checks::sequence<double> xs(o, 9, cell_checks::inputs::dense, key{4});
  const auto ds = cell_checks::normals<double>(cell.size().state, key{5}, 1);
  const auto a = cell_checks::run_window(cell, xs.xs, {}, ds, key{6}),
             b = cell_checks::run_window(one, xs.xs, {}, ds, key{6});
  CHECK(a.states == b.states);
  CHECK(a.loss == b.loss);
  CHECK(a.ds == b.ds);
  CHECK(a.dtheta == b.dtheta);
}

TEST_CASE("the layers of a stack feed each other step by step") {
  const cells::lstm_options o{.in = 2, .hidden = 3, .out = 1};
  const auto f = two<cells::lstm<double>>(o, 4);
  const auto below = f.layer(0), above = f.layer(1);
  const cell_checks::sequence<double> xs(o, 1, cell_checks::inputs::dense, key{7});
  cell_checks::edge_data<cells::stack<cells::lstm<double>>> e(f, key{8});
  e.step(xs.xs[0]);
  cell_checks::edge_data<cells::lstm<double>> first(below, key{8}), second(above, key{8});
  const index_t rest = below.layout().at("w_y").offset;  // the stack has no readout there
  std::copy_n(e.theta.begin(), rest, first.theta.begin());
  std::copy_n(e.theta.begin() + rest, second.theta.size(), second.theta.begin());
  std::copy_n(e.s.begin(), 6, first.s.begin());
  std::copy_n(e.s.begin() + 6, 8, second.s.begin());
  first.step({.x = xs.xs[0].x});
  second.step({.x = first.next.data(), .target = xs.xs[0].target});
  CHECK(std::equal(first.next.begin(), first.next.end(), e.next.begin()));
  CHECK(std::equal(second.next.begin(), second.next.end(), e.next.begin() + 6));
  CHECK(e.loss == second.loss);
  std::vector<double> y(1), y2(1);
  f.output(e.theta, state<const double>(e.next), view<double>(y));
  above.output(second.theta, state<const double>(second.next), view<double>(y2));
  CHECK(y == y2);
}

TEST_CASE("the parameters of a stack have the names of their layers") {
  const cells::stack<cells::gru<double>> f({.in = 2, .hidden = 3, .out = 4}, 2);
  const auto names = f.layout();
  CHECK(names.size() == f.size().params);
  CHECK(names.at("l0.w_x").cols == 2);
  CHECK(names.at("l1.w_x").cols == 3);
  CHECK(names.at("l1.b_hn").rows == 3);
  CHECK(names.at("w_y").rows == 4);
  parameters<double> theta(f.size().params);
  f.init(theta, key{1});
  CHECK(theta[0] != theta[names.at("l1.w_h").offset]);
}

TEST_CASE("layers that do not fit are refused with both sizes") {
  using stack = cells::stack<cells::lstm<double>>;
  const auto said = [](std::vector<cells::lstm_options> o) {
    try {
      stack f(o);
    } catch (const error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK_THAT(said({}), ContainsSubstring("has no layer"));
  CHECK_THAT(said({{.in = 2, .hidden = 3}, {.in = 4}}),
             ContainsSubstring("options of layer 1: in is 4, the layer below has hidden 3"));
  CHECK_THAT(said({{.in = 2, .hidden = 3}, {.in = 3, .lanes = 2}}), ContainsSubstring("lanes is 2"));
  CHECK_THROWS_AS(stack(cells::lstm_options{}, 0), error);
  const stack f({.in = 2, .hidden = 3, .out = 1}, 2);
  const double nan = std::numeric_limits<double>::quiet_NaN(), x[2] = {1, nan};
  const std::int32_t label = 0;
  CHECK_FALSE(f.finite({.x = x}));
  CHECK_THROWS_AS(f.finite({}), error);
  const double good[2] = {1, 2};
  CHECK(f.finite({.x = good, .target = good}));
  CHECK_FALSE(f.finite({.x = good, .target = x + 1}));
  CHECK_THROWS_AS(f.finite({.x = good, .label = &label}), error);
}

TEST_CASE("stacks with dropout agree with their derivatives, windows and lanes") {
  using cell_checks::inputs;
  const cells::lstm_options o{.in = 2, .hidden = 6, .out = 2, .lanes = 3};
  examine<cells::lstm<double>>(o, 4, inputs::dense, key{1}, {.probability = 0.4});
  const cells::elman_options e{.in = 2, .hidden = 5, .out = 0, .lanes = 2};
  examine<cells::elman<double>>(e, 3, inputs::dense, key{3}, {.probability = 0.4});
  examine<cells::elman<double>>(e, 3, inputs::mixed, key{5}, {.probability = 0.4, .input = 0.3});
  examine<cells::elman<double>>(e, 3, inputs::tokens, key{7}, {.input = 0.3});
}

TEST_CASE("masks of dropout are those of key and step, zero as often as asked for") {
  const cells::lstm_options o{.in = 1, .hidden = 50, .out = 0, .lanes = 2};
  const auto f = two<cells::lstm<double>>(o, 3, {.probability = 0.3});
  const auto plain = two<cells::lstm<double>>(o, 3);
  const double x[2] = {1, 2};
  const key one{5}, other{6};
  // what the second layer saw, from the tape of a step at t
  const auto run = [&](std::int64_t t, const key* k) {
    cell_checks::edge_data<cells::stack<cells::lstm<double>>> e(f, key{7});
    auto at = e.view_of();
    at.t = t;
    f.step({.x = x, .draws = k}, at);
    return e;
  };
  const auto first = run(3, &one), again = run(3, &one), later = run(4, &one), elsewhere = run(3, &other);
  CHECK(first.next == again.next);
  CHECK(first.next != later.next);
  CHECK(first.next != elsewhere.next);

  // h of the first layer is not changed, and what is handed up is on average h
  index_t zeros = 0, all = 0;
  double sum = 0;
  const index_t mask = f.size().tape / 2 - 100;  // the last of the tape of a lane: mask, then x
  for (std::int64_t t = 0; t < 200; ++t) {
    const auto e = run(t, &one);
    CHECK(e.next[0] == first.next[0]);
    for (index_t l = 0; l < 2; ++l)
      for (index_t i = 0; i < 50; ++i, ++all) {
        const double* m = e.tape.data() + l * f.size().tape / 2 + mask;
        zeros += m[i] == 0;
        sum += m[i];
        CHECK(m[50 + i] == m[i] * e.next[std::size_t(l * f.size().state / 2 + i)]);
      }
  }
  CHECK(double(zeros) / double(all) == Approx(0.3).margin(4 * std::sqrt(0.21 / double(all))));
  CHECK(sum / double(all) == Approx(1).margin(4 * std::sqrt(0.21 / double(all)) / 0.7));

  CHECK_THROWS_AS(f.with_lanes(1), error);
  CHECK(plain.with_lanes(1).size().lanes == 1);
  CHECK_THROWS_AS(two<cells::lstm<double>>(o, 3, {.probability = 1}), error);
  CHECK_THROWS_AS(two<cells::lstm<double>>(o, 3, {.input = -0.1}), error);
}

TEST_CASE("dropout of x masks x and tokens, and leaves what layers hand up as it is") {
  const cells::elman_options o{.in = 3, .hidden = 4, .out = 0};
  const auto f = two<cells::elman<double>>(o, 2, {.input = 0.5});
  const auto plain = two<cells::elman<double>>(o, 2);
  const double x[3] = {1, 2, 3}, nothing[3] = {0, 0, 0};
  const std::int32_t token = 1;
  using edge_data = cell_checks::edge_data<cells::stack<cells::elman<double>>>;
  index_t hidden_tokens = 0;
  for (std::int64_t t = 0; t < 40; ++t) {
    edge_data dense(f, key{7}), by_token(f, key{7}), seen(plain, key{7}), twice(plain, key{7});
    auto a = dense.view_of(), b = by_token.view_of();
    a.t = b.t = t;
    f.step({.x = x, .draws = &draws}, a);
    f.step({.token = &token, .draws = &draws}, b);
    const double* m = dense.tape.data() + f.size().tape - 6;  // the mask, then x
    for (index_t i = 0; i < 3; ++i) {
      CHECK((m[i] == 0 || m[i] == 2));
      CHECK(m[3 + i] == m[i] * x[i]);
    }
    seen.step({.x = m + 3});
    CHECK(cell_checks::distance(dense.next, seen.next) < 1e-14);
    double one_hot[3] = {0, m[1], 0};
    twice.step({.x = m[1] == 0 ? nothing : one_hot});
    CHECK(cell_checks::distance(by_token.next, twice.next) < 1e-14);
    hidden_tokens += m[1] == 0;
  }
  // every lane its own x
  auto pair = o;
  pair.lanes = 2;
  const auto g = two<cells::elman<double>>(pair, 2, {.input = 0.5});
  const double xs[6] = {1, 2, 3, 4, 5, 6};
  edge_data lanes(g, key{7});
  lanes.step({.x = xs, .draws = &draws});
  const index_t tape = g.size().tape / 2;
  for (index_t l = 0; l < 2; ++l) {
    const double* m = lanes.tape.data() + (l + 1) * tape - 6;
    for (index_t i = 0; i < 3; ++i) CHECK(m[3 + i] == m[i] * xs[l * 3 + i]);
  }
  CHECK(hidden_tokens > 8);
  CHECK(hidden_tokens < 32);
}

TEST_CASE("dropout without a key of the sequence is refused") {
  const cells::elman_options o{.in = 2, .hidden = 3, .out = 1};
  const auto f = two<cells::elman<double>>(o, 2, {.probability = 0.5});
  cell_checks::sequence<double> xs(o, 4, cell_checks::inputs::dense, key{10});
  parameters<double> theta(f.size().params);
  gradient<double> g(theta.size());
  bptt e(f, {.max_steps = 4});
  CHECK_THROWS_WITH(e.advance(theta, xs.xs, g),
                    ContainsSubstring("stack: x.draws: is null") && ContainsSubstring("every sequence"));
  cell_checks::edge_data<cells::stack<cells::elman<double>>> data(f, key{8});
  CHECK_THROWS_AS(data.step(xs.xs[0]), error);
  CHECK(two<cells::elman<double>>(o, 2).finite(xs.xs[0]));
}

TEST_CASE("dropout is part of the system: rtrl, and steps run again, have the masks of the first time") {
  const cells::lstm_options o{.in = 2, .hidden = 4, .out = 2};
  const auto f = two<cells::lstm<double>>(o, 3, {.probability = 0.5, .input = 0.2});
  cell_checks::sequence<double> xs(o, 12, cell_checks::inputs::dense, key{10});
  for (auto& x : xs.xs) x.draws = &draws;
  parameters<double> theta(f.size().params);
  f.init(theta, key{11});
  gradient<double> a(theta.size()), b(theta.size()), c(theta.size());
  bptt once(f, {.max_steps = 12});
  checkpointed_bptt again(f, {.slots = 2, .steps = 12});
  rtrl forward(f);
  report r = once.advance(theta, xs.xs, a), q = again.advance(theta, xs.xs, b),
         s = forward.advance(theta, xs.xs, c);
  r += once.finish(theta, a), q += again.finish(theta, b);
  CHECK(q.loss == r.loss);
  CHECK(s.loss == Approx(r.loss).epsilon(1e-14));
  for (index_t i = 0; i < a.size(); ++i) {
    CHECK(b[i] == Approx(a[i]).margin(1e-12));
    CHECK(c[i] == Approx(a[i]).margin(1e-12));
  }
}

TEST_CASE("snap keeps what theta reaches through the layers of a stack") {
  const cells::elman_options o{.in = 2, .hidden = 3, .out = 1, .lanes = 2};
  const auto f = two<cells::elman<double>>(o, 4);
  const snap near(f, {.reach = 1});
  // 3 (3 + 2 + 1) parameters move their unit and the 4 above, 4 (4 + 3 + 1) their unit
  CHECK(near.kept() == 18 * (1 + 4) + 32);
  CHECK_FALSE(near.exact());
  snap far(f, {.reach = 2});
  CHECK(far.kept() == 18 * 7 + 32 * 4);
  CHECK(far.exact());
  const cell_checks::sequence<double> xs(o, 9, cell_checks::inputs::dense, key{12});
  parameters<double> theta(f.size().params);
  f.init(theta, key{13});
  gradient<double> a(theta.size()), b(theta.size());
  bptt whole(f, {.max_steps = 9});
  whole.advance(theta, xs.xs, a), whole.finish(theta, a);
  far.advance(theta, xs.xs, b);
  CHECK(cell_checks::distance(b, a) < 1e-13);
}

TEST_CASE("stacks of cells whose units stand apart agree with their derivatives, hooks and windows") {
  using cell_checks::inputs;
  const auto examine_both = []<class Cell>(std::type_identity<Cell>, key k) {
    typename Cell::options_type o;
    o.in = 2, o.hidden = 3, o.out = 2, o.lanes = 3;
    examine<Cell>(o, 4, inputs::dense, k);
    o.out = 0, o.lanes = 2;
    examine<Cell>(o, 2, inputs::tokens, k, {.probability = 0.4, .input = 0.3});
  };
  examine_both(std::type_identity<cells::lru<double>>{}, key{21});
  examine_both(std::type_identity<cells::rtu<double>>{}, key{22});
  examine_both(std::type_identity<cells::min_gru<double>>{}, key{23});
}

TEST_CASE("a stack of cells whose units stand apart is learned by rtrl and refused by diagonal_rtrl") {
  const cells::rtu_options o{.in = 2, .hidden = 3, .out = 1};
  const auto f = two<cells::rtu<double>>(o, 2);
  const cell_checks::sequence<double> xs(o, 9, cell_checks::inputs::dense, key{24});
  parameters<double> theta(f.size().params);
  f.init(theta, key{25});
  gradient<double> a(theta.size()), b(theta.size()), c(theta.size());
  bptt whole(f, {.max_steps = 9});
  rtrl forward(f);
  snap far(f, {.reach = 2});
  CHECK(far.exact());  // a unit below moves itself and every unit above, these themselves
  whole.advance(theta, xs.xs, a), whole.finish(theta, a);
  forward.advance(theta, xs.xs, b);
  far.advance(theta, xs.xs, c);
  CHECK(cell_checks::distance(b, a) < 1e-13);
  CHECK(cell_checks::distance(c, a) < 1e-13);
  using any = any_system<double, cells::example<double>>;
  CHECK_THROWS_WITH(diagonal_rtrl(any(f)), ContainsSubstring("diagonal_rtrl: system"));
  using stack = cells::stack<cells::rtu<double>>;
  CHECK_THROWS_WITH(stack({o, {.in = 3, .hidden = 2}}),
                    ContainsSubstring("in is 3, the layer below has hidden 3, each of 2 numbers"));
}

TEST_CASE("a stack has the hooks of its layers but those of units") {
  using gru = cells::stack<cells::gru<double>>;
  const gru f({.in = 2, .hidden = 3}, 2),
      before({.in = 2, .hidden = 3, .reset = cells::reset_kind::before}, 2);
  CHECK(supports(f, hook::jacobian));
  CHECK(supports(f, hook::masks));
  CHECK(supports(f, hook::factors));
  CHECK_FALSE(supports(before, hook::factors));  // rows of W_h multiply s and r s
  CHECK_FALSE(supports(f, hook::diag_jacobian));
  using any = any_system<double, cells::example<double>>;
  CHECK_THROWS_WITH(kf_rtrl(any(before)),
                    ContainsSubstring("kf_rtrl: system: has no jacobian, or no weight_matrices and factors"));
  CHECK_THROWS_WITH(eprop(any(f)), ContainsSubstring("eprop: system: has no diag_jacobian"));
  CHECK_THROWS_WITH(diagonal_rtrl(any(f)), ContainsSubstring("diagonal_rtrl: system: has no diag_jacobian"));
}
