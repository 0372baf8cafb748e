#include "unroll/cells/lstm.hpp"

#include "tests/cells/cell_checks.hpp"
#include "unroll/ad/derive.hpp"

using namespace unroll;

namespace {

// The same cell over any number type, one lane and a dense input.
template <class T>
struct lstm_function {
  using scalar = T;
  using input = cells::example<T>;
  cells::lstm_options o;
  dims size() const { return {4 * o.hidden * (o.hidden + o.in + 1) + o.out * (o.hidden + 1), 2 * o.hidden}; }
  template <class N>
  N operator()(std::span<const N> theta, std::span<const N> s, const input& x, std::span<N> next) const {
    using std::exp, std::tanh;
    const auto h = std::size_t(o.hidden), in = std::size_t(o.in), out = std::size_t(o.out);
    const auto gate = [&](std::size_t row) {
      N z = theta[4 * h * (h + in) + row];
      for (std::size_t j = 0; j < h; ++j) z += theta[4 * h * j + row] * s[j];
      for (std::size_t j = 0; j < in; ++j) z += theta[4 * h * (h + j) + row] * x.x[j];
      return z;
    };
    const auto logistic = [](const N& z) { return 1 / (1 + exp(-z)); };
    for (std::size_t i = 0; i < h; ++i) {
      next[h + i] = logistic(gate(h + i)) * s[h + i] + logistic(gate(i)) * tanh(gate(2 * h + i));
      next[i] = logistic(gate(3 * h + i)) * tanh(next[h + i]);
    }
    N loss = 0;
    const auto w_y = theta.subspan(4 * h * (h + in + 1));
    for (std::size_t k = 0; k < out; ++k) {
      N y = w_y[out * h + k] - x.target[k];
      for (std::size_t j = 0; j < h; ++j) y += w_y[out * j + k] * next[j];
      loss += 0.5 * y * y;
    }
    return loss;
  }
};

}  // namespace

TEST_CASE("the LSTM agrees with its derivatives, windows and dense hooks") {
  cell_checks::everything<cells::lstm, cells::lstm_options>();
}

TEST_CASE("the LSTM is the function of the textbook") {
  const cells::lstm_options o{.in = 3, .hidden = 4, .out = 2};
  cell_checks::same_function(cells::lstm<double>(o), ad::derive(lstm_function<double>{o}), o);
}

TEST_CASE("forget_bias moves the bias of the forget gate alone") {
  const cells::lstm<double> plain({.in = 2, .hidden = 3}), open({.in = 2, .hidden = 3, .forget_bias = 2});
  parameters<double> a(plain.size().params), b(a.size());
  plain.init(a, key{1});
  open.init(b, key{1});
  const auto l = plain.layout();
  const index_t f = l.at("b").offset + 3;
  for (index_t i = 0; i < a.size(); ++i)
    CHECK(b[i] - a[i] == Approx(i >= f && i < f + 3 ? 2 : 0).margin(1e-15));
}

TEST_CASE("a long window of one lane of the LSTM agrees with its steps") {
  cell_checks::long_window<cells::lstm, cells::lstm_options>();
}

TEST_CASE("the LSTM is a system in every respect, also in float") {
  cell_checks::conforms<cells::lstm, cells::lstm_options>();
}
