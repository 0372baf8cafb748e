#include "unroll/cells/layer_norm_gru.hpp"

#include "tests/cells/cell_checks.hpp"
#include "unroll/ad/derive.hpp"
#include "unroll/system/learned_start.hpp"

using namespace unroll;

namespace {

// The equations over any number type, one lane, a dense input and no readout matrix.
template <class T>
struct layer_norm_gru_function {
  using scalar = T;
  using input = cells::example<T>;
  cells::layer_norm_gru_options o;
  dims size() const { return {3 * o.hidden * (o.hidden + o.in + 1) + 10 * o.hidden, o.hidden}; }
  template <class N>
  static void normalise(std::span<N> v) {
    using std::sqrt;
    N mean = 0, variance = 0;
    for (const N& x : v) mean += x / double(v.size());
    for (const N& x : v) variance += (x - mean) * (x - mean) / double(v.size());
    for (N& x : v) x = (x - mean) / sqrt(variance + 1e-5);
  }
  template <class N>
  N operator()(std::span<const N> theta, std::span<const N> s, const input& x, std::span<N> next) const {
    using std::exp, std::tanh;
    const auto h = std::size_t(o.hidden), in = std::size_t(o.in);
    const auto own = theta.subspan(3 * h * (h + in + 1));
    std::vector<N> u, z;
    for (std::size_t row = 0; row < 3 * h; ++row) {
      u.push_back(0 * theta[0]);
      for (std::size_t j = 0; j < h; ++j) u.back() += theta[3 * h * j + row] * s[j];
      z.push_back(theta[3 * h * (h + in) + row]);
      for (std::size_t j = 0; j < in; ++j) z.back() += theta[3 * h * (h + j) + row] * x.x[j];
    }
    for (auto* v : {&u, &z}) {
      normalise(std::span<N>(*v).first(2 * h));
      normalise(std::span<N>(*v).subspan(2 * h));
    }
    const auto from_x = [&](std::size_t k) { return own[3 * h + k] * z[k] + own[6 * h + k]; };
    const auto gate = [&](std::size_t k) { return 1 / (1 + exp(-(from_x(k) + own[k] * u[k]))); };
    N loss = 0;
    for (std::size_t i = 0; i < h; ++i) {
      const N n = tanh(from_x(2 * h + i) + gate(i) * (own[2 * h + i] * u[2 * h + i] + own[9 * h + i]));
      next[i] = (1 - gate(h + i)) * n + gate(h + i) * s[i];
      loss += 0.5 * (next[i] - x.target[i]) * (next[i] - x.target[i]);
    }
    return loss;
  }
};

}  // namespace

TEST_CASE("the GRU with layer norm is the function of the paper") {
  const cells::layer_norm_gru_options o{.in = 3, .hidden = 4, .out = 0};
  cell_checks::same_function(cells::layer_norm_gru<double>(o), ad::derive(layer_norm_gru_function<double>{o}),
                             o);
}

TEST_CASE("the GRU with layer norm agrees with its derivatives, windows and dense hooks") {
  for (const index_t lanes : {1, 3}) {
    const cells::layer_norm_gru_options o{.in = 2, .hidden = 3, .out = lanes == 1 ? 0 : 2, .lanes = lanes};
    const cells::layer_norm_gru<double> f(o);
    const cell_checks::sequence<double> xs(o, 6, cell_checks::inputs::dense, key{1});
    cell_checks::derivatives(f, xs.xs[0], key{9});
    cell_checks::dense_hooks(f, xs.xs[0], key{2});
    cell_checks::windows(f, xs.xs, key{3});
    // from zero W_h s is zero, where the norm bends by 1 / 1e-5 and differences are of no use
    const auto started = learned_start(f);
    const auto theta = cell_checks::normals<double>(started.size().params, key{4}, 0, 0.5);
    std::vector<resettable<cells::example<double>>> inputs;
    for (const auto& x : xs.xs) inputs.push_back({x});
    CHECK(testing::system_conformance(started, theta, inputs, {.steps = 6}) == std::vector<std::string>{});
  }
}

TEST_CASE("gains of the GRU with layer norm begin at one and biases at zero") {
  const cells::layer_norm_gru<double> f({.in = 2, .hidden = 3});
  parameters<double> theta(f.size().params);
  f.init(theta, key{8});
  const auto names = f.layout();
  const auto all = [&](const char* name, double value) {
    for (const double v : names.part(params<double>(theta), name)) CHECK(v == value);
  };
  all("b", 0), all("a_h", 1), all("a_x", 1), all("beta", 0), all("beta_h", 0);
  CHECK(theta[names.at("w_y").offset] != 0);
}
