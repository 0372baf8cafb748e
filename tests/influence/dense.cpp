#include "unroll/influence/dense.hpp"

#include "tests/support/bare_system.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/cells/lstm.hpp"

namespace {

using namespace unroll;
using cell = cells::lstm<double>;

/// Some steps of an LSTM in lanes: the edges of each step, run.
struct run {
  static constexpr index_t steps = 3, lanes = 2, in = 2, hidden = 3;
  cell f{{.in = in, .hidden = hidden, .out = 1, .lanes = lanes}};
  dims d = f.size();
  parameters<double> theta{d.params};
  std::vector<double> x = std::vector<double>(std::size_t(steps * lanes * in)), y = x;
  block<double, state_space> states{(steps + 1) * d.state};
  block<double, tape_space> tapes{steps * d.tape};
  buffer<double> workspace{d.workspace};
  double loss = 0;

  run() {
    f.init(theta, key{1});
    draw_normals(key{2}, 0, view<double>(x));
    draw_normals(key{3}, 0, view<double>(states.data(), d.state));
    for (index_t t = 0; t < steps; ++t) f.step(input(t), at(t));
  }
  cells::example<double> input(index_t t) const { return {x.data() + t * lanes * in, y.data()}; }
  edge<double> at(index_t t) {
    return {theta,
            {states.data() + t * d.state, d.state},
            {states.data() + (t + 1) * d.state, d.state},
            {tapes.data() + t * d.tape, d.tape},
            &loss,
            workspace,
            t};
  }
};

// M <- J M + F and g += q M, entry by entry.
void by_entries(run& r, index_t t, const std::vector<double>& q, std::vector<double>& m,
                std::vector<double>& g) {
  const index_t n = r.d.state / r.d.lanes, P = r.d.params;
  std::vector<double> j(std::size_t(r.d.state * n)), next(m.size());
  r.f.jacobian(r.input(t), r.at(t), view<double>(j));
  r.f.immediate(r.input(t), r.at(t), view<double>(next), 0, P);
  for (index_t l = 0; l < r.d.lanes; ++l)
    for (index_t p = 0; p < P; ++p)
      for (index_t k = 0; k < n; ++k) {
        const double old = m[std::size_t((l * P + p) * n + k)];
        g[std::size_t(p)] += q[std::size_t(l * n + k)] * old;
        for (index_t i = 0; i < n; ++i)
          next[std::size_t((l * P + p) * n + i)] += j[std::size_t((l * n + k) * n + i)] * old;
      }
  m = next;
}

template <class F>
void is_the_recursion(const F& f, index_t columns, index_t vjps) {
  run r;
  influence::dense<F> kept(f, columns);
  static_assert(influence::influence_of<influence::dense<F>, F>);
  std::vector<double> m(kept.values().begin(), kept.values().end()), g(std::size_t(r.d.params)),
      q(std::size_t(r.d.state));
  gradient<double> got(r.d.params);
  for (index_t t = 0; t < run::steps; ++t) {
    draw_normals(key{4}, t, view<double>(q));
    CHECK(kept.propagate(f, r.input(t), r.at(t), dstate<const double>(q.data(), r.d.state), got) == vjps);
    by_entries(r, t, q, m, g);
    CHECK(golden::relative_error(kept.values(), m) < 1e-13);
    if (t > 0) CHECK(golden::relative_error(got, g) < 1e-13);
  }
  CHECK(golden::relative_error(std::vector<double>(g.size()), g) == 1);  // there is something to project
  kept.reset();
  for (const double v : kept.values()) CHECK(v == 0);
}

}  // namespace

TEST_CASE(
    "the dense influence is J M + F in every lane, in columns of any number, from hooks and from vjps") {
  const run r;
  for (const index_t columns : {1, 7, 1000}) {
    is_the_recursion(r.f, columns, 0);
    is_the_recursion(support::bare<cell>{r.f}, columns, r.d.state);
  }
}
