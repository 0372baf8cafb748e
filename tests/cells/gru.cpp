#include "unroll/cells/gru.hpp"

#include "tests/cells/cell_checks.hpp"
#include "unroll/ad/derive.hpp"

using namespace unroll;

namespace {

struct before_options : cells::gru_options {
  before_options() { reset = cells::reset_kind::before; }
};

struct without_bias_options : cells::gru_options {
  without_bias_options() { reset = cells::reset_kind::after_without_bias; }
};

// The same cell over any number type, one lane, a dense input and no readout matrix.
template <class T>
struct gru_function {
  using scalar = T;
  using input = cells::example<T>;
  cells::gru_options o;
  bool after() const { return o.reset == cells::reset_kind::after; }
  dims size() const { return {3 * o.hidden * (o.hidden + o.in + 1) + (after() ? o.hidden : 0), o.hidden}; }
  template <class N>
  N operator()(std::span<const N> theta, std::span<const N> s, const input& x, std::span<N> next) const {
    using std::exp, std::tanh;
    const auto h = std::size_t(o.hidden), in = std::size_t(o.in);
    const auto from_x = [&](std::size_t row) {
      N z = theta[3 * h * (h + in) + row];
      for (std::size_t j = 0; j < in; ++j) z += theta[3 * h * (h + j) + row] * x.x[j];
      return z;
    };
    const auto from_s = [&](std::size_t row, std::span<const N> v) {
      N z = 0;
      for (std::size_t j = 0; j < h; ++j) z += theta[3 * h * j + row] * v[j];
      return z;
    };
    const auto gate = [&](std::size_t row) { return 1 / (1 + exp(-from_x(row) - from_s(row, s))); };
    std::vector<N> rs(h);
    for (std::size_t i = 0; i < h; ++i) rs[i] = gate(i) * s[i];
    N loss = 0;
    for (std::size_t i = 0; i < h; ++i) {
      const N inner = after() ? gate(i) * (from_s(2 * h + i, s) + theta[3 * h * (h + in + 1) + i])
                              : from_s(2 * h + i, std::span<const N>(rs));
      const N z = gate(h + i);
      next[i] = (1 - z) * tanh(from_x(2 * h + i) + inner) + z * s[i];
      loss += 0.5 * (next[i] - x.target[i]) * (next[i] - x.target[i]);
    }
    return loss;
  }
};

}  // namespace

TEST_CASE("the GRU that resets after the product agrees with its derivatives, windows and dense hooks") {
  cell_checks::everything<cells::gru, cells::gru_options>();
}

TEST_CASE("the GRU that resets before the product agrees with its derivatives, windows and dense hooks") {
  cell_checks::everything<cells::gru, before_options>();
}

TEST_CASE(
    "the GRU without a bias in the reset product agrees with its derivatives, windows and dense hooks") {
  cell_checks::everything<cells::gru, without_bias_options>();
}

TEST_CASE("the GRU without a bias in the reset product is the one whose bias is zero") {
  const cells::gru<double> plain(
      {.in = 1, .hidden = 2, .out = 1, .reset = cells::reset_kind::after_without_bias}),
      biased({.in = 1, .hidden = 2, .out = 1});
  cell_checks::edge_data<cells::gru<double>> a(plain, key{1}), b(biased, key{1});
  const index_t c = biased.layout().at("b_hn").offset;
  REQUIRE(plain.size().params == biased.size().params - 2);
  std::copy_n(a.theta.begin(), c, b.theta.begin());
  std::fill_n(b.theta.begin() + c, 2, 0.0);
  std::copy(a.theta.begin() + c, a.theta.end(), b.theta.begin() + c + 2);
  const double x = 0.5, target = 1;
  a.step({.x = &x, .target = &target});
  b.step({.x = &x, .target = &target});
  CHECK(a.next == b.next);
  CHECK(a.loss == b.loss);
}

TEST_CASE("the GRU is the function of the textbook") {
  const auto reset = GENERATE(cells::reset_kind::after, cells::reset_kind::before);
  const cells::gru_options o{.in = 3, .hidden = 4, .out = 0, .reset = reset};
  cell_checks::same_function(cells::gru<double>(o), ad::derive(gru_function<double>{o}), o);
}

TEST_CASE("a long window of one lane of the GRU agrees with its steps") {
  cell_checks::long_window<cells::gru, cells::gru_options>();
}

TEST_CASE("the GRU is a system in every respect, also in float") {
  cell_checks::conforms<cells::gru, cells::gru_options>();
}
