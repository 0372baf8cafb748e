#include "unroll/cells/layer_norm_lstm.hpp"

#include "tests/cells/cell_checks.hpp"
#include "unroll/ad/derive.hpp"
#include "unroll/cells/stack.hpp"
#include "unroll/system/learned_start.hpp"

using namespace unroll;

namespace {

// The equations of the paper over any number type, one lane, a dense input and no readout matrix.
template <class T>
struct layer_norm_lstm_function {
  using scalar = T;
  using input = cells::example<T>;
  cells::layer_norm_lstm_options o;
  dims size() const { return {4 * o.hidden * (o.hidden + o.in + 1) + 14 * o.hidden, 2 * o.hidden}; }
  template <class N>
  static std::vector<N> normal(const std::vector<N>& v) {
    using std::sqrt;
    N mean = 0, variance = 0;
    for (const N& x : v) mean += x / double(v.size());
    for (const N& x : v) variance += (x - mean) * (x - mean) / double(v.size());
    std::vector<N> out;
    for (const N& x : v) out.push_back((x - mean) / sqrt(variance + 1e-5));
    return out;
  }
  template <class N>
  N operator()(std::span<const N> theta, std::span<const N> s, const input& x, std::span<N> next) const {
    using std::exp, std::tanh;
    const auto h = std::size_t(o.hidden), in = std::size_t(o.in);
    const auto own = theta.subspan(4 * h * (h + in + 1));
    std::vector<N> u, z;
    for (std::size_t row = 0; row < 4 * h; ++row) {
      u.push_back(0 * theta[0]);
      for (std::size_t j = 0; j < h; ++j) u.back() += theta[4 * h * j + row] * s[j];
      z.push_back(theta[4 * h * (h + in) + row]);
      for (std::size_t j = 0; j < in; ++j) z.back() += theta[4 * h * (h + j) + row] * x.x[j];
    }
    u = normal(u), z = normal(z);
    const auto gate = [&](std::size_t k) { return own[k] * u[k] + own[4 * h + k] * z[k] + own[8 * h + k]; };
    const auto logistic = [](const N& v) { return 1 / (1 + exp(-v)); };
    std::vector<N> c;
    for (std::size_t i = 0; i < h; ++i)
      c.push_back(logistic(gate(h + i)) * s[h + i] + logistic(gate(i)) * tanh(gate(2 * h + i)));
    const auto n = normal(c);
    N loss = 0;
    for (std::size_t i = 0; i < h; ++i) {
      next[h + i] = c[i];
      next[i] = logistic(gate(3 * h + i)) * tanh(own[12 * h + i] * n[i] + own[13 * h + i]);
      loss += 0.5 * (next[i] - x.target[i]) * (next[i] - x.target[i]);
    }
    return loss;
  }
};

}  // namespace

TEST_CASE("the LSTM with layer norm is the function of the paper") {
  const cells::layer_norm_lstm_options o{.in = 3, .hidden = 4, .out = 0};
  cell_checks::same_function(cells::layer_norm_lstm<double>(o),
                             ad::derive(layer_norm_lstm_function<double>{o}), o);
}

TEST_CASE("the LSTM with layer norm agrees with its derivatives, windows and dense hooks") {
  for (const index_t lanes : {1, 3}) {
    const cells::layer_norm_lstm_options o{.in = 2, .hidden = 3, .out = lanes == 1 ? 0 : 2, .lanes = lanes};
    const cells::layer_norm_lstm<double> f(o);
    const cell_checks::sequence<double> xs(o, 6, cell_checks::inputs::dense, key{1});
    cell_checks::derivatives(f, xs.xs[0], key{2});
    cell_checks::dense_hooks(f, xs.xs[0], key{2});
    cell_checks::windows(f, xs.xs, key{3});
    // from zero W_h h is zero, where the norm bends by 1 / 1e-5 and differences are of no use
    const auto started = learned_start(f);
    const auto theta = cell_checks::normals<double>(started.size().params, key{4}, 0, 0.5);
    std::vector<resettable<cells::example<double>>> inputs;
    for (const auto& x : xs.xs) inputs.push_back({x});
    CHECK(testing::system_conformance(started, theta, inputs, {.steps = 6}) == std::vector<std::string>{});
  }
}

TEST_CASE("a stack of LSTMs with layer norm agrees with its derivatives and windows") {
  const cells::layer_norm_lstm_options o{.in = 2, .hidden = 3, .out = 2, .lanes = 2};
  const cells::stack<cells::layer_norm_lstm<double>> f(o, 2);
  const cell_checks::sequence<double> xs(o, 6, cell_checks::inputs::dense, key{5});
  cell_checks::derivatives(f, xs.xs[0], key{6});
  cell_checks::windows(f, xs.xs, key{7});
}

TEST_CASE("gains of layer norm begin at one and biases at zero, that of f where it is told to") {
  const cells::layer_norm_lstm<double> f({.in = 2, .hidden = 3, .forget_bias = 1});
  parameters<double> theta(f.size().params);
  f.init(theta, key{8});
  const auto names = f.layout();
  const auto all = [&](const char* name, double value) {
    for (const double v : names.part(params<double>(theta), name)) CHECK(v == value);
  };
  all("b", 0), all("a_h", 1), all("a_x", 1), all("a_c", 1), all("beta_c", 0);
  for (index_t k = 0; k < 12; ++k) CHECK(theta[names.at("beta").offset + k] == (k / 3 == 1 ? 1 : 0));
  CHECK(std::abs(theta[0]) <= 1 / std::sqrt(3));
}
