#include "unroll/estimate/snap.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "tests/support/delayed_golden.hpp"
#include "tests/support/delayed_leaky.hpp"
#include "tests/support/gradient_of.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/influence_balancing.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/testing/conformance.hpp"

namespace {

using namespace unroll;
using support::gradient_of;

// The golden network's rows of theta are its units'.
template <class F>
struct golden_masks : F {
  void jacobian_mask(view<std::uint8_t> j) const { std::fill(j.begin(), j.end(), std::uint8_t(1)); }
  void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const {
    for (index_t p = p0; p < p1; ++p)
      for (index_t i = 0; i < 2; ++i) mask[2 * (p - p0) + i] = p / 4 == i;
  }
};
using small = golden_masks<golden::rnn<double>>;
static_assert(gradient_estimator<snap<small>>);
static_assert(gradient_estimator<snap<golden_masks<golden::rnn<float>>>>);

/// Of units that keep a part of their state, with the traces of diag_jacobian.
struct leaky_masks : golden::delayed_leaky {
  void jacobian_mask(view<std::uint8_t> j) const { cell.jacobian_mask(j); }
  void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const {
    cell.immediate_mask(mask, p0, p1);
  }
};

/// s'_i = tanh(a_i s_i + b_i x): no unit listens to another.
struct apart : support::complete<double> {
  explicit apart(index_t units) : complete<double>{units, 1} {}
  void jacobian_mask(view<std::uint8_t> j) const {
    std::fill(j.begin(), j.end(), std::uint8_t(0));
    for (index_t i = 0; i < n; ++i) j[i * n + i] = 1;
  }
};

}  // namespace

TEST_CASE("snap of reach 1 in the paper's timing has the golden vector, and reach 2 the exact one") {
  const golden_masks<golden::delayed_rnn> f;
  const auto xs = golden::delayed_inputs();
  const auto g = gradient_of(snap(f), golden::theta(), xs);
  CHECK(golden::relative_error(g, golden::snap_1) < 1e-11);
  CHECK(std::abs(golden::relative_error(g, golden::gradient) - .219673) < 1e-6);
  CHECK(std::abs(golden::cosine(g, golden::gradient) - .976250) < 1e-6);
  CHECK(golden::relative_error(gradient_of(snap(f, {.reach = 2}), golden::theta(), xs), golden::gradient) <
        1e-13);
}

TEST_CASE("snap of reach 1 in the paper's timing has the golden vector of leaky units") {
  const std::array<double, 8> rows{.290872358534,  -.003816253322, .012485050909, .742210220100,
                                   -.102798026546, .033697058528,  .104039789157, -.231383212882};
  snap est(leaky_masks{});
  CHECK(est.kept() == 8);
  const auto g = gradient_of(est, golden::columns_theta(), golden::delayed_leaky_inputs());
  CHECK(golden::relative_error(g, golden::by_columns(rows)) < 1e-11);
  const auto exact = golden::by_columns(golden::leaky_gradient);
  CHECK(std::abs(golden::relative_error(g, exact) - .130085) < 1e-6);
  CHECK(std::abs(golden::cosine(g, exact) - .991504) < 1e-6);
}

TEST_CASE("snap is rtrl where the pattern is whole, with a bias where it is not") {
  const auto task = [](const auto& f, index_t kept_1) {
    parameters<double> theta(f.size().params);
    f.init(theta, key{5});
    std::vector<double> data(std::size_t(12 * 3 * 4));
    draw_normals(key{6}, 0, view<double>(data));
    std::vector<cells::example<double>> xs;
    for (std::size_t t = 0; t < 12; ++t) xs.push_back({data.data() + 12 * t, data.data() + 12 * t});
    const auto exact = gradient_of(rtrl(f), theta, xs);
    snap one(f), two(f, {.reach = 2});
    CHECK(one.kept() == kept_1);
    CHECK((!one.exact() && two.exact()));
    const double bias = golden::relative_error(gradient_of(one, theta, xs), exact);
    CHECK((bias > 1e-3 && bias < 1));
    CHECK(golden::relative_error(gradient_of(two, theta, xs), exact) < 1e-12);
  };
  for (const index_t lanes : {1, 3}) {
    task(cells::elman<double>({.in = 2, .hidden = 4, .out = 2, .lanes = lanes}), 4 * (4 + 2 + 1));
    task(cells::gru<double>({.in = 2, .hidden = 3, .out = 2, .lanes = lanes}), 9 * (3 + 2 + 1) + 3);
    // h and c of the unit
    task(cells::lstm<double>({.in = 2, .hidden = 3, .out = 2, .lanes = lanes}), 2 * 12 * (3 + 2 + 1));
  }
}

TEST_CASE("snap is exact at reach 1 where no unit listens to another, and on a ring at its length") {
  const auto xs = support::complete_inputs<double>(12);
  auto theta = support::complete_theta<double>(5);
  const auto error = [&](const auto& f, index_t reach) {
    snap est(f, {.reach = reach});
    const double e = golden::relative_error(gradient_of(est, theta, xs), gradient_of(rtrl(f), theta, xs));
    CHECK(est.exact() == (e < 1e-12));
    return e;
  };
  const support::complete<double> ring{5, 1};
  for (const index_t reach : {1, 2, 3, 4}) CHECK(error(ring, reach) > 1e-9);
  CHECK(error(ring, 5) < 1e-12);
  for (std::size_t i = 5; i < 10; ++i) theta[i] = 0;
  CHECK(error(apart(5), 1) < 1e-12);

  const cells::influence_balancing<double> line;  // one theta moves every unit: nothing to leave out
  const std::vector<cells::nothing> none(30);
  const std::vector<double> one{-.1};
  snap all(line);
  CHECK((all.kept() == 23 && all.exact()));
  CHECK(golden::relative_error(gradient_of(all, one, none), gradient_of(rtrl(line), one, none)) < 1e-13);
}

TEST_CASE("snap's report matches its cost formula") {
  const auto spent = [](const auto& f, const auto& theta, const auto& xs, index_t reach) {
    snap est(f, {.reach = reach});
    gradient<double> g(index_t(theta.size()));
    const report r = est.advance(theta, xs, g);
    CHECK(r.steps == 5);
    CHECK(r.jvps == 0);
    return r.vjps;
  };
  CHECK(spent(small{}, golden::theta(), golden::long_inputs(5), 1) == 5 * (1 + 2));  // J is dense
  const auto xs = support::complete_inputs<double>(5);
  const auto theta = support::complete_theta<double>(4);
  for (const index_t lanes : {1, 3}) {
    CHECK(spent(support::complete<double>{4, lanes}, theta, xs, 1) == 5);  // traces of the units
    CHECK(spent(support::complete<double>{4, lanes}, theta, xs, 2) == 5 * (1 + 1));
  }
}

TEST_CASE("snap keeps the promises of every estimator and refuses what it cannot do") {
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  for (const index_t reach : {1, 2})
    CHECK(testing::estimator_conformance(snap(small{}, {.reach = reach}), golden::theta(), xs, &bad) ==
          std::vector<std::string>{});
  const auto less = golden::long_inputs<float>(50);
  CHECK(testing::estimator_conformance(snap(golden_masks<golden::rnn<float>>{}), golden::theta<float>(),
                                       less) == std::vector<std::string>{});
  CHECK_THROWS_WITH(snap(small{}, {.reach = 0}), Catch::Matchers::ContainsSubstring("reach"));
  const any_system<double, golden::rnn<>::input> unknown{golden::rnn<>{}};
  CHECK_THROWS_WITH(snap(unknown), Catch::Matchers::ContainsSubstring("jacobian_mask"));
}
