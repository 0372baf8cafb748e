#include "unroll/influence/diagonal.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/cells/lru.hpp"
#include "unroll/cells/rtu.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/influence/dense.hpp"
#include "unroll/rng/draw.hpp"

namespace {

using namespace unroll;

/// The whole lane as one unit, theta as one column that multiplies 1: what is kept is all of M.
struct one_unit : support::complete<double> {
  one_unit(index_t numbers, index_t copies) : complete<double>{numbers, copies} {}
  index_t units() const { return 1; }
  bool units_apart() const { return true; }
  std::vector<weight_matrix> weight_matrices() const { return {{0, 3 * n, 1, 3 * n}}; }
  void diag_jacobian(double x, const const_edge<double>& e, view<double> j) const { jacobian(x, e, j); }
  void diag_factors(double x, const const_edge<double>& e, view<double> a, view<double> d) const {
    std::vector<double> f(std::size_t(3 * n * n * lanes));
    immediate(x, e, view<double>(f), 0, 3 * n);
    for (index_t k = 0; k < 3 * n * n * lanes; ++k)  // of a lane n x 3 n there, 3 n x n here
      d[k / (3 * n * n) * 3 * n * n + k % n * 3 * n + k / n % (3 * n)] = f[std::size_t(k)];
    std::fill(a.begin(), a.end(), 1.);
  }
};

// Six steps of both from the same edges: the same q M.
template <class F>
void is_the_dense_one(const F& f, params<const double> theta, std::span<const typename F::input> xs) {
  const dims d = f.size();
  influence::diagonal<F> units("test", f);
  influence::dense<F> dense(f, 128);
  static_assert(influence::influence_of<influence::diagonal<F>, F>);
  influence::diagonal<F> filtering("test", f, {.filter = .25});
  influence::diagonal<F> adding = units;
  units.reset();
  adding.reset();
  dense.reset();
  filtering.reset();
  window_buffer<F> steps(f, 1, 1);
  steps.reset(f, {});
  std::vector<double> q(std::size_t(d.state));
  gradient<double> got(d.params), expected(d.params), filtered(d.params), expected_filtered(d.params);
  gradient<double> with_owed(d.params), owed(d.params);
  const index_t n = d.state / d.lanes;
  index_t rows = 0, columns = 0, numbers = 0;
  for (const weight_matrix& w : f.weight_matrices())
    rows += w.rows, columns += w.columns, numbers += w.rows * n;
  std::vector<double> a(std::size_t(d.lanes * columns)), by_z(std::size_t(d.lanes * numbers));
  std::vector<double> dz(static_cast<std::size_t>(rows));
  std::vector<double> sum(std::size_t(n * d.lanes * d.params));  // of .25^k M, k steps ago
  for (std::size_t t = 0; t < xs.size(); ++t) {
    report r;
    steps.push(xs[t]);
    steps.forward(f, theta, r);
    const const_edge<double> e = steps.edge(f, theta, 0);
    draw_normals(key{4}, index_t(t), view<double>(q));
    CHECK(units.propagate(f, xs[t], e, dstate<const double>(q.data(), d.state), got) == 0);
    dense.propagate(f, xs[t], e, dstate<const double>(q.data(), d.state), expected);
    filtering.propagate(f, xs[t], e, dstate<const double>(q.data(), d.state), filtered);
    if (d.lanes == 1) {
      draw_normals(key{5}, index_t(t), view<double>(dz));
      adding.propagate(f, xs[t], e, dstate<const double>(q.data(), d.state), with_owed,
                       view<const double>(dz));
      f.diag_factors(xs[t], e, view<double>(a), view<double>(by_z.data(), rows * (n / f.units())));
      index_t row = 0, column = 0;
      for (const weight_matrix& w : f.weight_matrices()) {
        for (index_t j = 0; j < w.columns; ++j)
          for (index_t i = 0; i < w.rows; ++i)
            owed[w.first + j * w.stride + i] += dz[std::size_t(row + i)] * a[std::size_t(column + j)];
        row += w.rows, column += w.columns;
      }
      for (index_t p = 0; p < d.params; ++p)
        CHECK(with_owed[p] == Approx(got[p] + owed[p]).epsilon(1e-12).margin(1e-12));
    }
    for (index_t k = 0; k < index_t(sum.size()); ++k) {
      const index_t l = k / (n * d.params);
      expected_filtered[k / n % d.params] += q[std::size_t(l * n + k % n)] * sum[std::size_t(k)];
      sum[std::size_t(k)] = .25 * sum[std::size_t(k)] + dense.values()[k];
    }
    if (t > 0) CHECK(golden::relative_error(got, expected) < 1e-13);
    if (t > 0) CHECK(golden::relative_error(filtered, expected_filtered) < 1e-13);
    steps.keep_last(0, 1);
  }
}

}  // namespace

TEST_CASE("the diagonal influence of one unit is the dense one, for one, two and three numbers of a unit") {
  const auto xs = support::complete_inputs<double>(6);
  for (const index_t n : {1, 2, 3})
    for (const index_t lanes : {1, 2})
      is_the_dense_one(one_unit(n, lanes), support::complete_theta<double>(n), xs);
}

TEST_CASE(
    "the diagonal influence is the dense one on units that stand apart, as many as fill vectors or not") {
  for (const index_t hidden : {1, 7, 16, 21})
    for (const index_t lanes : {1, 3}) {
      const cells::lru<double> f({.in = 2, .hidden = hidden, .out = 1, .lanes = lanes});
      parameters<double> theta(f.size().params);
      f.init(theta, key{1});
      std::vector<double> data(100);
      draw_normals(key{2}, 0, view<double>(data));
      std::vector<cells::example<double>> xs;
      for (std::size_t t = 0; t < 6; ++t) xs.push_back({data.data() + 6 * t, data.data() + 3 * t});
      is_the_dense_one(f, theta, xs);
      // real and imaginary part of W_x and b are one complex trace
      CHECK(influence::diagonal<cells::lru<double>>("test", f).kept() == 2 * hidden * (3 + 2));
      CHECK(influence::diagonal<cells::lru<double>>("test", f, {.decay = .5}).kept() ==
            2 * hidden * (2 * 3 + 2));
      const cells::rtu<double> g({.in = 2, .hidden = hidden, .out = 1, .lanes = lanes});
      is_the_dense_one(g, theta, xs);
    }
}

TEST_CASE(
    "the diagonal influence counts what a unit does to others as 0, and refuses units that do not fit") {
  const support::complete<double> ring{4, 2};
  influence::diagonal<support::complete<double>> m("test", ring);
  m.reset();
  const std::vector<double> theta = support::complete_theta<double>(4), s(8, .5), zero(8), ones(8, 1);
  std::vector<double> next(8), tape(8), workspace(16);
  double loss = 0;
  ring.step(.3, edge<double>{theta, s, next, tape, &loss, view<double>(workspace)});
  const const_edge<double> e(edge<double>{theta, s, next, tape, &loss, view<double>(workspace)});
  gradient<double> g(12);
  m.propagate(ring, .3, e, zero, g);  // M = F
  m.propagate(ring, .3, e, zero, g);  // M = J_ii F + F
  m.propagate(ring, .3, e, ones, g);
  for (index_t p = 0; p < 12; ++p) {
    double sum = 0;
    for (std::size_t i = std::size_t(p % 4); i < 8; i += 4)
      sum += tape[i] * (p < 8 ? s[i] : .3) * (1 + tape[i] * theta[std::size_t(p % 4)]);
    CHECK(g[p] == Approx(sum).epsilon(1e-14));
  }
  CHECK(m.kept() == 12);
  // with a decay in place of J: (1 + .75) F
  const one_unit whole(4, 2);
  influence::diagonal<one_unit> leaking("test", whole, {.decay = .75});
  leaking.reset();
  gradient<double> h(12);
  const std::vector<double> graded{1, 2, 3, 4, 5, 6, 7, 8};
  for (const auto* q : {&zero, &zero, &graded}) leaking.propagate(whole, .3, e, *q, h);
  std::vector<double> f(std::size_t(8 * 12));
  whole.immediate(.3, e, view<double>(f), 0, 12);
  for (std::size_t p = 0; p < 12; ++p) {
    double sum = 0;
    for (std::size_t k = 0; k < 8; ++k) sum += graded[k] * 1.75 * f[k / 4 * 48 + 4 * p + k % 4];
    CHECK(h[index_t(p)] == Approx(sum).epsilon(1e-14));
  }
  CHECK_THROWS_WITH(
      influence::diagonal<support::complete<double>>("test", {4, 2, support::fault::units_no_divisor}),
      Catch::Matchers::ContainsSubstring("units"));
}
