#include "unroll/influence/rank_one.hpp"

#include <array>

#include "tests/support/catch.hpp"
#include "tests/support/delayed_golden.hpp"
#include "unroll/influence/balance.hpp"
#include "unroll/rng/draw.hpp"

namespace {

using namespace unroll;

// More parameters than one pass takes at once, and not a multiple of a vector.
struct wide {
  using scalar = double;
  using input = char;
  dims size() const { return {2051, 6, 0, 0, 3}; }
  void step(char, const edge<double>&) const {}
  // J = [[0, 2, 0], ...]: every entry of s is twice its neighbour, over all lanes
  void jvp(char, const const_edge<double>&, params_tangent<const double>, state_tangent<const double> ds,
           state_tangent<double> dnext, double*) const {
    for (index_t i = 0; i < 6; ++i) dnext[i] = 2 * ds[i ^ 1];
  }
};

template <class V>
void fill(key k, V&& v) {
  draw_normals(k, 0, view<double>(v.data(), index_t(v.size())));
}

}  // namespace

TEST_CASE("a step of the rank-one influence projects the old product of each lane, then mixes the new one") {
  const wide f;
  const dims d = f.size();
  influence::rank_one<double> m(d);
  std::vector<double> theta(std::size_t(d.lanes * d.params)), q(std::size_t(d.state));
  gradient<double> g(d.params);
  for (index_t t = 0; t < 3; ++t) {
    std::vector<double> s, expected(g.begin(), g.end());
    for (index_t l = 0; l < d.lanes; ++l) s.insert(s.end(), m.s(l).begin(), m.s(l).end());
    fill(key{std::uint64_t(t)}, q);
    m.project(dstate<const double>(q.data(), d.state));
    for (index_t l = 0; l < d.lanes; ++l)
      for (index_t p = 0; p < d.params; ++p)
        expected[std::size_t(p)] += (q[std::size_t(2 * l)] * s[std::size_t(2 * l)] +
                                     q[std::size_t(2 * l + 1)] * s[std::size_t(2 * l + 1)]) *
                                    theta[std::size_t(l * d.params + p)];

    m.propagate(f, ' ', {});
    for (index_t i = 0; i < d.state; ++i) CHECK(m.s(i / 2)[i % 2] == 2 * s[std::size_t(i ^ 1)]);

    CHECK(m.added_norm(0) + m.added_norm(1) + m.added_norm(2) == 0);
    fill(key{std::uint64_t(10 + t)}, m.theta_added());
    for (index_t l = 0; l < d.lanes; ++l) {
      m.s(l)[0] += 1;
      m.mix(l, .5 * double(l + 1), -2);
      double squares = 0;
      for (index_t p = 0; p < d.params; ++p) {
        double& th = theta[std::size_t(l * d.params + p)];
        const double added = m.theta_added()[l * d.params + p];
        th = .5 * double(l + 1) * th - 2 * added;
        squares += added * added;
      }
      CHECK(m.added_norm(l) == Approx(std::sqrt(squares)));
    }
    m.accumulate(g);
    if (t > 0) CHECK(golden::relative_error(g, expected) < 1e-13);  // zero at first, on both sides
    for (index_t l = 0; l < d.lanes; ++l) {
      double squares = 0;
      for (index_t p = 0; p < d.params; ++p)
        squares += theta[std::size_t(l * d.params + p)] * theta[std::size_t(l * d.params + p)];
      CHECK(m.theta_norm(l) == Approx(std::sqrt(squares)).epsilon(1e-13));
    }
  }
  m.reset();
  CHECK((m.s_norm(0) == 0 && m.theta_norm(2) == 0));
}

TEST_CASE("products of signs and inputs go into the rank-one influence as the whole of them would") {
  const wide f;
  const dims d = f.size();
  // 40 x 51 with more between its columns, of which a block takes 25; and a row
  const std::array<weight_matrix, 2> matrices{{{3, 38, 51, 40}, {2045, 1, 5, 1}}};
  influence::rank_one<double> whole(d), products(d, true);
  CHECK(whole.bytes() - products.bytes() == sizeof(double) * std::size_t(d.lanes * d.params));
  gradient<double> expected(d.params), g(d.params);
  std::vector<double> nu(3 * 39), a(3 * 56), q(6);
  for (index_t t = 0; t < 3; ++t) {
    fill(key{std::uint64_t(t)}, nu);
    fill(key{std::uint64_t(10 + t)}, a);
    fill(key{std::uint64_t(20 + t)}, q);
    for (auto* m : {&whole, &products}) {
      m->project(dstate<const double>(q.data(), d.state));
      for (index_t l = 0; l < d.lanes; ++l) {
        m->s(l)[0] = double(l + t) - .5;
        m->mix(l, .5 * double(l + 1), -2);
      }
    }
    for (index_t l = 0; l < d.lanes; ++l) {
      const double *v = nu.data() + l * 39, *b = a.data() + l * 56;
      for (const weight_matrix& w : matrices) {
        linalg::ger<double>(
            1, v, b, {whole.theta_added().data() + l * d.params + w.first, w.rows, w.columns, w.stride});
        v += w.rows, b += w.columns;
      }
    }
    whole.accumulate(expected);
    products.accumulate(matrices, nu.data(), a.data(), g);
    if (t > 0) CHECK(golden::relative_error(g, expected) < 1e-13);  // zero at first, on both sides
    for (index_t l = 0; l < d.lanes; ++l)
      CHECK(products.theta_norm(l) == Approx(whole.theta_norm(l)).epsilon(1e-13));
  }
}

TEST_CASE("balanced sides have one norm, and a product of which one side is zero is dropped") {
  const auto r = influence::balance_norms(2, 18, 0);
  CHECK(r.by * 2 == Approx(r.over * 18));
  for (const double epsilon : {0.0, 1e-7, .5}) {
    const auto e = influence::balance_norms(2, 18, epsilon);
    CHECK(e.by * e.over == Approx(1).epsilon(1e-15));
    CHECK(e.by == Approx(std::sqrt(18 / (2 + epsilon)) + epsilon));
    for (const auto& [left, right] : {std::pair(0.0, 3.0), std::pair(3.0, 0.0), std::pair(0.0, 0.0)}) {
      const auto none = influence::balance_norms(left, right, epsilon);
      CHECK((none.by == 0 && none.over == 0));
    }
  }
}
