// A cell of your own: one function over the number type. The library differentiates it, and every estimator
// applies. Replace ad::derive by hand-written vjp and jvp members when speed matters.
#include <cmath>
#include <cstdio>
#include <unroll/unroll.hpp>
#include <vector>

using namespace unroll;

/// Minimal gated unit (Zhou et al. 2016): f = sigma(...), s' = s + f (tanh(...) - s), y = v . s'.
struct minimal_gated_unit {
  using scalar = double;
  using input = cells::example<double>;
  index_t hidden = 6;

  dims size() const { return {.params = 2 * hidden * (hidden + 2) + hidden, .state = hidden}; }
  bool scored(const input& x) const { return x.target != nullptr; }  // else the step has no loss

  template <class N>
  N operator()(std::span<const N> theta, std::span<const N> s, const input& x, std::span<N> next) const {
    using std::tanh;
    const auto h = std::size_t(hidden);
    auto p = theta.begin();
    const auto row = [&](std::span<const N> v) {  // the next row of [W b u] applied to [v 1 x]
      N a = *p++;
      for (const N& e : v) a += *p++ * e;
      return a + *p++ * N(*x.x);
    };
    std::vector<N> f(h), gated(h);
    for (std::size_t i = 0; i < h; ++i) {
      f[i] = N(0.5) + N(0.5) * tanh(row(s));
      gated[i] = f[i] * s[i];
    }
    for (std::size_t i = 0; i < h; ++i) next[i] = s[i] + f[i] * (tanh(row(gated)) - s[i]);
    if (!scored(x)) return N(0);
    N y(0);
    for (std::size_t i = 0; i < h; ++i) y += *p++ * next[i];
    return N(0.5) * (y - N(*x.target)) * (y - N(*x.target));
  }
};

int main() {
  const auto cell = ad::derive(minimal_gated_unit{});
  parameters<double> theta(cell.size().params);
  for (index_t i = 0; i < theta.size(); ++i) theta[i] = 0.5 * draw_normal(key{1}, 0, std::uint32_t(i));
  const auto task = data::delay<double>({.steps = 60, .lag = 3}, key{2});

  std::uint64_t row = 0;  // other draws for each
  const auto show = [&](const char* name, const auto& estimator) {
    const auto m = measure(estimator, theta, task.inputs(), {.replicas = 400, .seed = fold(key{3}, row++)});
    std::printf("%-12s relative bias %8.1e in [%8.1e, %8.1e]   variance %9.2e   cosine of the mean %.4f\n",
                name, m.relative_bias, m.relative_bias_low, m.relative_bias_high, m.variance, m.cosine);
  };
  show("bptt", bptt(cell));
  show("tbptt(1,4)", tbptt(cell, {.k1 = 1, .k2 = 4}));
  show("rtrl", rtrl(cell));
  show("artbp", artbp(cell, polynomial_truncation(8)));
  show("uoro", uoro(cell));
  show("nres", nres(cell, {.sigma = 0.01, .pairs = 16, .window = 10}));
}
