#include "unroll/system/with_resets.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/lru.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/checkpointed_bptt.hpp"
#include "unroll/estimate/chunked_tbptt.hpp"
#include "unroll/estimate/es.hpp"
#include "unroll/estimate/lane_parallel.hpp"
#include "unroll/estimate/mean_of.hpp"
#include "unroll/estimate/nobacktrack.hpp"
#include "unroll/estimate/nres.hpp"
#include "unroll/estimate/pes.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/uoro.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"
#include "unroll/testing/oracle.hpp"

using namespace unroll;
using strings = std::vector<std::string>;

namespace {

// An Elman network that begins somewhere else than at zero.
struct started : cells::elman<double> {
  explicit started(cells::simple_recurrent_options o) : cells::elman<double>(o) {}
  void start(state<double> s) const { std::fill(s.begin(), s.end(), 0.4); }
  started with_lanes(index_t lanes) const { return started(cells::with_lanes(options(), lanes)); }
};
static_assert(has_window<with_resets<started>> && has_jacobian<with_resets<started>>);
static_assert(has_row_norms<with_resets<started>> && has_lane_vjp<with_resets<started>>);
static_assert(has_lane_slices<with_resets<started>>);

struct heavy : started {  // an input with an owner
  using started::started;
  using input = std::shared_ptr<cells::example<double>>;
  void step(const input& x, const edge<double>& e) const { started::step(*x, e); }
  void vjp(const input& x, const const_edge<double>& e, dstate<const double> dnext, double dloss,
           dstate<double> ds, dparams<double> g) const {
    started::vjp(*x, e, dnext, dloss, ds, g);
  }
};
static_assert(has_vjp<with_resets<heavy>> && !has_window<with_resets<heavy>>);

using input = with_resets<started>::input;

// Two lanes of five steps. Lane 0 has the episodes [0, 2), [2, 5), lane 1 [0, 3), [3, 4), [4, 5): no window
// of two steps, from wherever it is counted, ends where all of them do.
struct batch {
  static constexpr index_t steps = 5, lanes = 2;
  struct episode {
    index_t lane, first, end;
  };
  const std::vector<episode> episodes{{0, 0, 2}, {0, 2, 5}, {1, 0, 3}, {1, 3, 4}, {1, 4, 5}};
  started cell;
  parameters<double> theta;
  std::vector<double> x, y;
  std::vector<std::uint8_t> flags = std::vector<std::uint8_t>(steps * lanes);
  std::vector<input> xs;

  explicit batch(index_t hidden) : cell({.in = 1, .hidden = hidden, .out = 0, .lanes = lanes}) {
    theta = parameters<double>(cell.size().params);
    cell.init(theta, key{4});
    x.resize(std::size_t(steps * lanes));
    y.resize(std::size_t(steps * lanes * hidden));
    draw_normals(key{5}, 0, view<double>(x));
    draw_normals(key{6}, 0, view<double>(y));
    for (const episode& e : episodes) flags[std::size_t(e.first * lanes + e.lane)] = e.first > 0;
    for (index_t t = 0; t < steps; ++t)
      xs.push_back({{.x = &x[std::size_t(t * lanes)], .target = &y[std::size_t(t * lanes * hidden)]},
                    t == 1 ? nullptr : &flags[std::size_t(t * lanes)]});
  }
  with_resets<started> together() const { return with_resets(cell); }
  started apart() const { return cell.with_lanes(1); }
  std::vector<cells::example<double>> alone(const episode& e) const {
    std::vector<cells::example<double>> part;
    for (index_t t = e.first; t < e.end; ++t) part.push_back(cell.lanes_from(xs[std::size_t(t)].x, e.lane));
    return part;
  }
  template <class E, class X>
  std::vector<double> run(E estimator, const std::vector<X>& inputs) const {
    std::vector<double> g(std::size_t(theta.size()));
    estimator.reset(key{7});
    estimator.advance(theta, inputs, dparams<double>(g));
    estimator.finish(theta, dparams<double>(g));
    return g;
  }
  /// The sum over the episodes of what make(one lane) gives.
  template <class Make>
  std::vector<double> sum(const Make& make) const {
    std::vector<double> g(std::size_t(theta.size()));
    for (const episode& e : episodes) {
      const auto one = run(make(apart()), alone(e));
      for (std::size_t i = 0; i < g.size(); ++i) g[i] += one[i];
    }
    return g;
  }
  std::vector<double> exact() const {
    return sum([](const auto& f) { return bptt(f); });
  }
};

template <class Make>
testing::enumeration outcomes(const Make& make, const batch& b, int nodes = 9) {
  testing::enumerator all(nodes);
  return testing::enumerate(all, make(b.together(), testing::enumerating_chooser(all)), b.theta, b.xs);
}
template <class Make>
testing::enumeration apart(const Make& make, const batch& b, const batch::episode& e, int nodes = 9) {
  testing::enumerator all(nodes);
  return testing::enumerate(all, make(b.apart(), testing::enumerating_chooser(all)), b.theta, b.alone(e));
}

const auto make_uoro = [](const auto& f, const auto& c) { return uoro(f, {}, c); };
const auto make_nobacktrack = [](const auto& f, const auto& c) { return nobacktrack(f, {}, c); };

}  // namespace

TEST_CASE("a system with resets keeps the rules of a system, with every optional member of its own") {
  for (const index_t lanes : {1, 3}) {
    const std::vector<std::uint8_t> flags{0, 0, 0, 1, 0, 1, 1, 1, 1, 0, 1, 0};
    const auto flagged = [&](const auto& xs) {
      std::vector<resettable<std::decay_t<decltype(xs[0])>>> all;
      for (std::size_t t = 0; t < xs.size(); ++t)
        all.push_back({xs[t], t % 5 == 4 ? nullptr : flags.data() + t % 5 * 3});
      return all;
    };
    const auto check = [&](const auto& cell) {
      parameters<double> theta(cell.size().params);
      cell.init(theta, key{1});
      std::vector<double> x(std::size_t(12 * lanes)), y(x);
      draw_normals(key{2}, 0, view<double>(x));
      draw_normals(key{3}, 0, view<double>(y));
      std::vector<cells::example<double>> xs;
      for (std::size_t t = 0; t < 6; ++t)
        xs.push_back({.x = &x[t * std::size_t(2 * lanes)], .target = &y[t * std::size_t(2 * lanes)]});
      CHECK(testing::system_conformance(with_resets(cell), theta, flagged(xs), {.steps = 6}) == strings{});
    };
    check(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = lanes}));
    check(cells::gru<double>({.in = 2, .hidden = 3, .out = 2, .lanes = lanes}));
    check(cells::lstm<double>({.in = 2, .hidden = 2, .out = 2, .lanes = lanes}));
    check(cells::lru<double>({.in = 2, .hidden = 2, .out = 2, .lanes = lanes}));
    CHECK(testing::system_conformance(
              with_resets(support::complete<double>{2, lanes}), support::complete_theta<double>(),
              flagged(support::complete_inputs<double>(6)), {.steps = 6}) == strings{});
  }
}

TEST_CASE("without flags a system with resets has the bits of the system") {
  const batch b(3);
  std::vector<cells::example<double>> plain;
  std::vector<input> unflagged;
  const std::vector<std::uint8_t> none(2);
  for (const auto& x : b.xs) {
    plain.push_back(x.x);
    unflagged.push_back({x.x, unflagged.size() % 2 ? none.data() : nullptr});
  }
  CHECK(b.run(bptt(b.together()), unflagged) == b.run(bptt(b.cell), plain));
  CHECK(b.run(uoro(b.together(), {.block = 2}), unflagged) == b.run(uoro(b.cell, {.block = 2}), plain));
  CHECK(b.run(pes(b.together(), {.window = 2}), unflagged) == b.run(pes(b.cell, {.window = 2}), plain));
}

TEST_CASE("exact gradients of episodes side by side are those of the episodes run apart") {
  const batch b(3);
  const auto exact = b.exact();
  const auto f = b.together();
  const auto close = [&](const auto& e) { CHECK(testing::relative_error(b.run(e, b.xs), exact) < 1e-13); };
  close(bptt(f));
  close(bptt(f, {.block = 2}));
  close(checkpointed_bptt(f, {.slots = 1, .block = 2}));
  close(rtrl(f));
  close(tbptt(f, {.k1 = 2, .k2 = 6}));
  close(bptt(any_system<double, input>(f)));
  close(bptt(with_resets(any_system<double, cells::example<double>>(b.cell))));
  close(lane_parallel(f, {.groups = 2, .threads = 1}, [](const auto& part) { return bptt(part); }));
  CHECK(testing::relative_error(testing::difference_gradient(f, b.theta, b.xs), exact) < 1e-7);
  std::vector<resettable<heavy::input>> owned;
  for (const auto& x : b.xs) owned.push_back({std::make_shared<cells::example<double>>(x.x), x.reset});
  CHECK(testing::relative_error(b.run(bptt(with_resets(heavy(b.cell.options()))), owned), exact) < 1e-13);
}

TEST_CASE("truncation stays where it is in the sequence, whatever the episodes") {
  const batch b(3);
  const auto truncate = [](const auto& f) { return tbptt(f, {.k1 = 1, .k2 = 2}); };
  CHECK(testing::relative_error(b.run(truncate(b.together()), b.xs), b.sum(truncate)) < 1e-13);
  CHECK(testing::relative_error(b.sum(truncate), b.exact()) > 1e-3);

  // every piece that lies in one chunk and one episode, from the state where it begins
  std::vector<double> pieces(std::size_t(b.theta.size()));
  for (const auto& e : b.episodes) {
    bptt walk(b.apart());
    std::vector<double> unused(pieces.size()), start(3);
    const auto all = b.alone(e);
    for (index_t first = e.first, end = 0; first < e.end; first = end) {
      end = std::min(e.end, first / 2 * 2 + 2);
      walk.reset(key{});
      walk.advance(b.theta, std::span(all).first(std::size_t(first - e.first)), dparams<double>(unused));
      const auto s = walk.last_state(b.theta);
      start.assign(s.begin(), s.end());
      bptt piece(b.apart());
      piece.reset(key{}, state<const double>(start));
      piece.advance(b.theta, std::span(all).subspan(std::size_t(first - e.first), std::size_t(end - first)),
                    dparams<double>(pieces));
      piece.finish(b.theta, dparams<double>(pieces));
    }
  }
  CHECK(testing::relative_error(b.run(chunked_tbptt(b.together(), {.window = 2}), b.xs), pieces) < 1e-13);
}

TEST_CASE(
    "random forward estimators of episodes side by side are unbiased, with the variances of the episodes") {
  const batch b(1);
  const auto check = [&](const auto& make, bool same_variance) {
    const auto r = outcomes(make, b);
    CHECK(testing::relative_error(r.mean, b.exact()) < 1e-11);
    if (!same_variance) return;  // blocks lie elsewhere in the episodes run apart
    CHECK(r.covariance_trace > 1e-6);
    double sum = 0;
    for (const auto& e : b.episodes) sum += apart(make, b, e).covariance_trace;
    CHECK(std::abs(r.covariance_trace - sum) < 1e-11 * sum);
  };
  check(make_uoro, true);
  check(make_nobacktrack, true);
  check([](const auto& f, const auto& c) { return uoro(f, {.block = 2}, c); }, false);
}

TEST_CASE("artbp of episodes side by side is unbiased") {
  const batch b(3);
  for (const index_t block : {1, 2, 4}) {
    const auto make = [&](const auto& f, const auto& c) {
      return artbp(f, fixed_truncation(2), {.slots = 2, .block = block}, c);
    };
    const auto r = outcomes(make, b);
    CHECK(r.outcomes == 32);
    CHECK(testing::relative_error(r.mean, b.exact()) < 1e-11);
    CHECK(r.covariance_trace > 1e-6);
  }
}

TEST_CASE(
    "evolution strategies of episodes side by side estimate the sum of the episodes' smoothed gradients") {
  const batch b(1);
  const auto check = [&](const auto& make, int nodes) {
    const auto r = outcomes(make, b, nodes);
    std::vector<double> sum(r.mean.size());
    for (const auto& e : b.episodes) {
      const auto one = apart(make, b, e, nodes);
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += one.mean[i];
    }
    CHECK(testing::relative_error(r.mean, sum) < 1e-10);
    CHECK(testing::relative_error(r.mean, b.exact()) > 1e-4);
  };
  check([](const auto& f, const auto& c) { return es(f, {.sigma = 0.3}, c); }, 7);
  check([](const auto& f, const auto& c) { return nres(f, {.sigma = 0.3, .window = 2}, c); }, 7);
  check([](const auto& f, const auto& c) { return pes(f, {.sigma = 0.3, .window = 2}, c); }, 3);
}

TEST_CASE("estimators over episodes keep every promise") {
  const cells::gru<double> cell({.in = 1, .hidden = 3, .out = 1, .lanes = 2});
  parameters<double> theta(cell.size().params);
  cell.init(theta, key{1});
  std::vector<double> x(106), y(106);
  draw_normals(key{2}, 0, view<double>(x));
  draw_normals(key{3}, 0, view<double>(y));
  std::vector<std::uint8_t> flags(106);
  for (std::size_t i = 0; i < flags.size(); ++i) flags[i] = draw_uniform(key{4}, std::int64_t(i)) < 0.2;
  std::vector<resettable<cells::example<double>>> xs;
  for (std::size_t t = 0; t < 53; ++t) xs.push_back({{.x = &x[2 * t], .target = &y[2 * t]}, &flags[2 * t]});
  const double nan[] = {std::nan(""), 0};
  const resettable<cells::example<double>> bad{{.x = nan, .target = nan}, &flags[0]};
  const with_resets f(cell);
  const auto check = [&](const auto& e) {
    CHECK(testing::estimator_conformance(e, theta, xs, &bad) == strings{});
  };
  check(bptt(f, {.max_steps = 60, .block = 8}));
  check(chunked_tbptt(f, {.window = 9}));
  check(mean_of(uoro(f, {.block = 4}), 2, true));
  check(artbp(f, fixed_truncation(6), {.slots = 4, .block = 3}));
  check(pes(f, {.window = 5}));
  check(lane_parallel(f, {.groups = 2, .threads = 1},
                      [](const auto& part) { return artbp(part, fixed_truncation(5), {.block = 4}); }));
}
