#include "tests/support/catch.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/checkpointed_bptt.hpp"
#include "unroll/estimate/chunked_tbptt.hpp"
#include "unroll/estimate/es.hpp"
#include "unroll/estimate/forward_gradient.hpp"
#include "unroll/estimate/gpes.hpp"
#include "unroll/estimate/mean_of.hpp"
#include "unroll/estimate/nobacktrack.hpp"
#include "unroll/estimate/nres.hpp"
#include "unroll/estimate/pes.hpp"
#include "unroll/estimate/pes_a.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/estimate/telescope.hpp"
#include "unroll/estimate/uoro.hpp"

// Runs that diverge by themselves: every input is finite, and so is every loss.
namespace {

using namespace unroll;

/// s' = a s^2 + x, so that an x of 1e200 is infinite one step later; loss b s' while s' is moderate, else 0.
struct explosive {
  using scalar = double;
  using input = double;
  dims size() const { return {.params = 2, .state = 1}; }
  static bool moderate(double s) { return std::abs(s) < 1e100; }

  void step(double x, const edge<double>& e) const {
    e.next[0] = e.theta[0] * e.s[0] * e.s[0] + x;
    *e.loss = moderate(e.next[0]) ? e.theta[1] * e.next[0] : 0;
  }
  void vjp(double, const const_edge<double>& e, dstate<const double> dnext, double dloss, dstate<double> ds,
           dparams<double> dtheta) const {
    const bool heard = moderate(e.next[0]);
    const double d = (dnext.empty() ? 0 : dnext[0]) + (heard ? dloss * e.theta[1] : 0);
    if (!ds.empty()) ds[0] += 2 * d * e.theta[0] * e.s[0];
    if (dtheta.empty()) return;
    dtheta[0] += d * e.s[0] * e.s[0];
    dtheta[1] += heard ? dloss * e.next[0] : 0;
  }
  void jvp(double, const const_edge<double>& e, params_tangent<const double> dtheta,
           state_tangent<const double> ds, state_tangent<double> dnext, double* dloss) const {
    const double da = dtheta.empty() ? 0 : dtheta[0], db = dtheta.empty() ? 0 : dtheta[1];
    const double s = ds.empty() ? 0 : ds[0];
    dnext[0] = da * e.s[0] * e.s[0] + 2 * e.theta[0] * e.s[0] * s;
    if (dloss) *dloss = moderate(e.next[0]) ? db * e.next[0] + e.theta[1] * dnext[0] : 0;
  }
};

constexpr std::size_t steps = 23;
const std::array<double, 2> theta{.3, .7};

std::vector<double> inputs() {
  std::vector<double> xs(steps);
  for (std::size_t t = 0; t < steps; ++t) xs[t] = .5 * std::sin(1.3 * double(t + 1));
  return xs;
}

// The state of step k is infinite. Whatever the chunks, the estimator must stop with at = k and be what it is
// without the refused inputs; after reset it must be as new.
template <class E>
void examine(const E& made) {
  const auto xs = inputs();
  for (std::size_t k = 1; k < steps; ++k)
    for (const std::size_t chunk : {steps, std::size_t(7), std::size_t(1)}) {
      INFO("diverges at step " << k << ", chunks of " << chunk);
      auto spoiled = xs;
      spoiled[k - 1] = 1e200;
      const std::span<const double> all(spoiled);
      E e(made), other(made);
      e.reset(key{5});
      other.reset(key{5});
      std::array<double, 2> g{}, h{};
      std::size_t taken = 0;
      report r;
      while (taken < steps && r.code == status::ok) {
        const std::size_t given = std::min(chunk, steps - taken);
        r = e.advance(theta, all.subspan(taken, given), g);
        taken += std::size_t(r.consumed);
        if (r.code == status::ok)
          CHECK(r.consumed == index_t(given));
        else
          CHECK((r.consumed >= 0 && r.consumed < index_t(given)));
      }
      CHECK(other.advance(theta, all.first(taken), h).code == status::ok);
      CHECK(g == h);
      if (r.code != status::ok) CHECK(r.at == std::int64_t(k));
      // one call stops in front of step k; copies are fed input by input and stop where a window is full
      if (chunk == steps && r.code != status::ok && !requires { e.copies(); }) CHECK(taken == k);
      const report end = e.finish(theta, g), same = other.finish(theta, h);
      CHECK((end.code == same.code && end.at == same.at));
      CHECK(g == h);
      if (r.code == status::ok) CHECK((end.code == status::non_finite && end.at == std::int64_t(k)));

      e.reset(key{5});
      other = made;
      other.reset(key{5});
      g = h = {};
      e.advance(theta, xs, g);
      other.advance(theta, xs, h);
      CHECK(e.finish(theta, g).code == status::ok);
      other.finish(theta, h);
      CHECK(g == h);
      CHECK((std::isfinite(g[0]) && g[0] != 0 && std::isfinite(g[1])));
    }
}

}  // namespace

TEST_CASE("estimators that walk backwards stop in front of a state that overflows, without a trace") {
  examine(bptt(explosive{}, {.max_steps = steps, .block = 4}));
  examine(tbptt(explosive{}, {.k1 = 3, .k2 = 8}));
  examine(chunked_tbptt(explosive{}, {.window = 5}));
  for (const index_t length : {index_t(0), index_t(steps)})
    examine(checkpointed_bptt(explosive{}, {.slots = 2, .steps = length, .block = 3}));
  examine(artbp(explosive{}, fixed_truncation(6), {.slots = 2, .block = 4}));
  examine(artbp(explosive{}, polynomial_truncation(6), {.slots = 1, .block = 1}));
  examine(telescope(explosive{}, {.ladder = {{5, 5}}, .max_steps = steps}));
}

TEST_CASE("estimators that go forward stop in front of a state that overflows, without a trace") {
  examine(rtrl(explosive{}));
  examine(nobacktrack(explosive{}));
  examine(forward_gradient(explosive{}, {.directions = 2, .window = 4}));
  for (const index_t block : {1, 4}) {
    examine(uoro(explosive{}, {.block = block}));
    examine(mean_of(uoro(explosive{}, {.block = block}), 2, true));
  }
}

TEST_CASE("evolution strategies stop in front of a state that overflows, without a trace") {
  examine(es(explosive{}, {.pairs = 3}));
  examine(nres(explosive{}, {.pairs = 2, .window = 4}));
  examine(pes(explosive{}, {.pairs = 2, .window = 4}));
  examine(gpes(explosive{}, {.pairs = 2, .window = 4, .reuse = 2}));
  examine(pes_a(explosive{}, {.pairs = 2, .window = 4}));
}

TEST_CASE("a mean of copies that diverges in only one of them leaves no trace and waits for a reset") {
  /// The loss is infinite behind a cliff that a perturbed theta may cross.
  struct cliff : explosive {
    void step(double x, const edge<double>& e) const {
      explosive::step(x, e);
      if (e.t == 3 && e.theta[1] > 1.2) *e.loss = std::numeric_limits<double>::infinity();
    }
  };
  const auto xs = inputs();
  const nres one(cliff{}, {.sigma = .5, .window = 2});
  const auto alone = [&](key k) {
    auto e = one;
    std::array<double, 2> g{};
    e.reset(k);
    return e.advance(theta, xs, g).code;
  };
  std::uint64_t seed = 0;  // the first copy survives, the second does not
  while (alone(fold(key{seed}, 0)) != status::ok || alone(fold(key{seed}, 1)) == status::ok) ++seed;
  mean_of pair(one, 2);
  std::array<double, 2> g{}, before{};
  pair.reset(key{seed});
  pair.advance(theta, std::span(xs).first(3), before);
  pair.reset(key{seed});
  const report r = pair.advance(theta, xs, g);
  CHECK((r.code == status::non_finite && r.at == 3 && r.consumed == 3));
  CHECK(g == before);
  const report again = pair.advance(theta, xs, g);
  CHECK((again.code == status::non_finite && again.at == 3 && again.consumed == 0));
  CHECK(pair.finish(theta, g).code == status::non_finite);
  CHECK(g == before);
  pair.reset(key{seed});
  CHECK(pair.advance(theta, std::span(xs).first(3), g).code == status::ok);
}
