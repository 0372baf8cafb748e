#include "unroll/influence/masked.hpp"

#include "tests/properties/random_task.hpp"
#include "tests/support/bare_system.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/leaky.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/cells/stack.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/influence/dense.hpp"

namespace {

using namespace unroll;

/// A system with vjp and masks alone: J and F are read off.
template <class F>
struct masks_only : support::bare<F> {
  void jacobian_mask(view<std::uint8_t> j) const { this->f.jacobian_mask(j); }
  void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const {
    this->f.immediate_mask(mask, p0, p1);
  }
};

/// And the Jacobian.
template <class F>
struct masks_and_jacobian : masks_only<F> {
  using typename masks_only<F>::scalar;
  using typename masks_only<F>::input;
  void jacobian(const input& x, const const_edge<scalar>& e, view<scalar> j) const {
    this->f.jacobian(x, e, j);
  }
  void immediate(const input& x, const const_edge<scalar>& e, view<scalar> m, index_t p0, index_t p1) const {
    this->f.immediate(x, e, m, p0, p1);
  }
};

/// A hook that lies: the last parameter that moves anything moves unit 0 as well.
struct crossed : cells::elman<double> {
  using cells::elman<double>::elman;
  void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const {
    cells::elman<double>::immediate_mask(mask, p0, p1);
    if (const index_t p = 3 * (3 + 2 + 1) - 1; p0 <= p && p < p1) mask[(p - p0) * 3] = 1;
  }
};

// 1_S (J M + F) by entries, from whole masks: S = nz(F) + nz(J) S, reach - 1 times.
template <class F>
std::vector<std::uint8_t> pattern(const F& f, index_t reach) {
  const dims d = f.size();
  const index_t n = d.state / d.lanes;
  std::vector<std::uint8_t> j(std::size_t(n * n)), moved(std::size_t(n * d.params));
  f.jacobian_mask(view<std::uint8_t>(j));
  f.immediate_mask(view<std::uint8_t>(moved), 0, d.params);
  auto s = moved;
  for (index_t k = 1; k < reach; ++k) {
    auto next = moved;
    for (index_t p = 0; p < d.params; ++p)
      for (index_t i = 0; i < n; ++i)
        for (index_t c = 0; c < n; ++c)
          if (j[std::size_t(c * n + i)] && s[std::size_t(p * n + c)]) next[std::size_t(p * n + i)] = 1;
    s = next;
  }
  return s;
}

// Six steps: masked against the dense recursion with everything outside of the pattern put to zero.
template <class F, class G>
void is_the_masked_recursion(const F& f, const G& g, std::span<const typename F::input> xs,
                             params<const double> theta, index_t reach, index_t vjps) {
  const dims d = f.size();
  const index_t n = d.state / d.lanes, P = d.params;
  const auto s = pattern(f, reach);
  influence::masked<G> kept(g, reach);
  static_assert(influence::influence_of<influence::masked<G>, G>);
  CHECK(kept.kept() == std::count(s.begin(), s.end(), 1));
  CHECK(kept.exact() == (pattern(f, reach + 1) == s));
  window_buffer<F> steps(f, 1, 1);
  steps.reset(f, {});
  std::vector<double> m(std::size_t(d.state * P)), j(std::size_t(d.state * n)), q(std::size_t(d.state));
  std::vector<double> expected(static_cast<std::size_t>(P));
  gradient<double> got(P);
  for (std::size_t t = 0; t < xs.size(); ++t) {
    report r;
    steps.push(xs[t]);
    steps.forward(f, theta, r);
    const const_edge<double> e = steps.edge(f, theta, 0);
    draw_normals(key{4}, index_t(t), view<double>(q));
    CHECK(kept.propagate(g, xs[t], e, dstate<const double>(q.data(), d.state), got) == vjps);
    std::vector<double> next(m.size());
    f.jacobian(xs[t], e, view<double>(j));
    f.immediate(xs[t], e, view<double>(next), 0, P);
    for (index_t l = 0; l < d.lanes; ++l)
      for (index_t p = 0; p < P; ++p)
        for (index_t i = 0; i < n; ++i) {
          double& to = next[std::size_t((l * P + p) * n + i)];
          expected[std::size_t(p)] += q[std::size_t(l * n + i)] * m[std::size_t((l * P + p) * n + i)];
          for (index_t k = 0; k < n; ++k)
            to += j[std::size_t((l * n + k) * n + i)] * m[std::size_t((l * P + p) * n + k)];
          if (!s[std::size_t(p * n + i)]) to = 0;
        }
    m = next;
    if (t > 0) CHECK(golden::relative_error(got, expected) < 1e-13);
    steps.keep_last(0, 1);
  }
}

/// s'_i = s_{i-1}, s'_0 = theta: a chain without loops.
struct delay_line {
  using scalar = double;
  using input = char;
  dims size() const { return {1, 5, 0, 0, 1}; }
  void step(char, const edge<double>&) const {}
  void jacobian_mask(view<std::uint8_t> j) const {
    for (index_t k = 0; k < 25; ++k) j[k] = k % 5 == k / 5 + 1;
  }
  void immediate_mask(view<std::uint8_t> mask, index_t, index_t) const {
    for (index_t i = 0; i < 5; ++i) mask[i] = i == 0;
  }
};

}  // namespace

TEST_CASE("the masked influence is J M + F within the pattern, from hooks and from vjps, over lanes") {
  const auto xs = support::complete_inputs<double>(6);
  const auto theta = support::complete_theta<double>(5);
  for (const index_t lanes : {1, 2})
    for (const index_t reach : {1, 2, 3, 5, 9}) {
      const support::complete<double> ring{5, lanes};
      is_the_masked_recursion(ring, ring, xs, theta, reach, reach == 1 ? 0 : 1);  // own units at 1
      // rows 0, 2 | 1, 3 | 4 share no column of J, a ring of five
      is_the_masked_recursion(ring, masks_only<support::complete<double>>{{ring}}, xs, theta, reach,
                              3 * lanes);
    }
  const cells::lstm<double> f({.in = 2, .hidden = 3, .out = 1});
  parameters<double> w(f.size().params);
  f.init(w, key{1});
  std::vector<double> data(12);
  draw_normals(key{2}, 0, view<double>(data));
  std::vector<cells::example<double>> zs;
  for (std::size_t t = 0; t < 6; ++t) zs.push_back({data.data() + 2 * t, data.data() + t});
  for (const index_t reach : {1, 2}) {
    is_the_masked_recursion(f, f, zs, w, reach, reach == 1 ? 0 : 2);
    is_the_masked_recursion(f, masks_and_jacobian<cells::lstm<double>>{{{f}}}, zs, w, reach, 2);
  }
}

TEST_CASE("where every parameter keeps its own unit the masked influence is traces, with the same numbers") {
  const auto runs = [](const auto& cell, index_t kept, index_t vjps) {
    using F = std::decay_t<decltype(cell)>;
    const support::random_task t(cell, 6, key{3});
    const masks_only<F> unknown{{cell}};
    influence::masked<F> own(cell, 1);
    influence::masked<masks_only<F>> any(unknown, 1);
    CHECK((own.kept() == kept && any.kept() == kept));
    CHECK(own.exact() == any.exact());
    window_buffer<F> steps(cell, 1, 1);
    steps.reset(cell, {});
    std::array<gradient<double>, 2> g{gradient<double>(cell.size().params),
                                      gradient<double>(cell.size().params)};
    block<double, state_cotangent_space> q(cell.size().state);
    for (std::size_t k = 0; k < t.xs.size(); ++k) {
      report r;
      steps.push(t.xs[k]);
      steps.forward(cell, t.theta, r);
      const const_edge<double> e = steps.edge(cell, t.theta, 0);
      draw_normals(key{4}, index_t(k), view<double>(q.data(), q.size()));
      CHECK(own.propagate(cell, t.xs[k], e, q, g[0]) == vjps);
      any.propagate(unknown, t.xs[k], e, q, g[1]);
      steps.keep_last(0, 1);
    }
    CHECK(golden::relative_error(g[0], g[1]) < 1e-13);
    CHECK(golden::relative_error(g[0], gradient<double>(g[0].size())) > 0.1);  // something was added
    if (vjps == 0) CHECK(own.bytes() < any.bytes());
  };
  for (const index_t lanes : {1, 2}) {
    runs(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = lanes}), 3 * 6, 0);
    runs(cells::leaky<double>({.in = 2, .hidden = 3, .out = 2, .lanes = lanes}), 3 * 6, 0);
    runs(cells::gru<double>({.in = 2, .hidden = 3, .out = 2, .lanes = lanes}), 9 * 6 + 3, 0);
    runs(cells::lstm<double>({.in = 2, .hidden = 3, .out = 2, .lanes = lanes}), 2 * 12 * 6, 0);
  }
  // of a lower layer the own unit and, in the same step, all above; its vjps: one for each row above, and one
  // for the own units
  runs(cells::stack<cells::elman<double>>({.in = 2, .hidden = 3, .out = 2}, 2), (1 + 3) * 3 * 6 + 3 * 7, 4);
  runs(cells::stack<cells::lstm<double>>({.in = 1, .hidden = 2, .out = 2}, 2), (2 + 4) * 8 * 4 + 2 * 8 * 5,
       6);
  // one parameter that keeps more than its own unit, and all of them read off
  runs(crossed({.in = 2, .hidden = 3, .out = 2}), 3 * 6 + 1, 2);
}

TEST_CASE(
    "a parameter that keeps a unit which it does not feed is no trace of a unit, nor one that keeps less") {
  const cells::lstm<double> f({.in = 1, .hidden = 2, .out = 0});
  const std::vector<std::uint8_t> joined(16, 1);
  const auto own = influence::find_kept_pattern(f, view<const std::uint8_t>(joined), 1);
  CHECK(own.groups.size() == 2);  // h and c of either unit
  CHECK(influence::keeps_own_units(f, own));
  auto other = own;
  std::swap(other.groups[0].rows, other.groups[1].rows);
  CHECK_FALSE(influence::keeps_own_units(f, other));
  auto less = own;
  less.groups[1].rows.pop_back();
  CHECK_FALSE(influence::keeps_own_units(f, less));
}

TEST_CASE("along a delay line theta reaches one entry more with every step") {
  for (const index_t reach : {1, 2, 3, 4, 5, 6}) {
    const influence::masked<delay_line> m(delay_line{}, reach);
    CHECK(m.kept() == std::min(reach, index_t(5)));
    CHECK(m.exact() == (reach >= 5));
  }
}

TEST_CASE("a ring of six units keeps one entry more with every step of reach, and six are all") {
  const support::complete<double> ring{6, 2};
  for (const index_t reach : {1, 2, 3, 4, 5, 6, 7, 1000}) {
    const influence::masked<support::complete<double>> m(ring, reach);
    CHECK(m.kept() == 18 * std::min(reach, index_t(6)));
    CHECK(m.exact() == (reach >= 6));
    CHECK(m.probes() == (reach == 1 ? 0 : 1));  // at 1 they are own units
  }
}
